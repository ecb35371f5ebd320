"""A release of a watch, as a manifest says it: its variants are up to the test."""

from __future__ import annotations

from sync import chunks
from sync.features import TensorSpec, WindowSpec
from sync.manifest import Binding, Lineage, Manifest, Profile, Variant
from sync.names import ModelName, TenantId

PLAIN = chunks.digest(b"plain")
BLOB = chunks.describe(b"sealed", PLAIN)


def release(*variants: Variant) -> Manifest:
    return Manifest(
        tenant=TenantId("acme"),
        model=ModelName("watch"),
        number=7,
        created=1.8e9,
        variants=variants,
        golden=BLOB,
        inputs=(TensorSpec("window", "FP32", (-1, 4, 2)),),
        outputs=(TensorSpec("probabilities", "FP32", (-1, 3)),),
        classes=("rest", "walk", "run"),
        window=WindowSpec(4, 2, 0.02, ("x", "y")),
        bindings=(Binding("site/{entity}/imu", "site/{entity}/activity"),),
        profile=Profile(),
        lineage=Lineage("s1", "v1", "cnn1d", 7, {"accuracy": 0.97}, "fp32 is as fast"),
    )


FAST = Variant("int8-static", ("avx512_vnni",), BLOB)
PLAIN_VARIANT = Variant("fp32", (), BLOB)
