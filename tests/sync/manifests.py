"""A release of a watch, as a manifest says it: its variants are up to the test. And the least that can be signed."""

from __future__ import annotations

from functools import cache

from sync import chunks, codec
from sync.features import TensorSpec, WindowSpec
from sync.manifest import Binding, Blob, Lineage, Manifest, Profile, Variant
from sync.names import Digest, ModelName, TenantId

MODEL = ModelName("motion")
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


@cache
def manifest(number: int = 1, model: ModelName = MODEL) -> bytes:
    """The bytes of one whose content nobody looks at, but for its name and number."""
    blob = Blob(Digest("a" * 64), Digest("b" * 64), 1, 1, (Digest("c" * 64),))
    spec = (TensorSpec("x", "FP32", (-1, 2)),)
    document = Manifest(
        TenantId("acme"), model, number, 0.0, (Variant("fp32", (), blob),), blob, spec, spec, ("a",), None, (),
        Profile(), Lineage("s", "v", "cnn1d", 7, {}, "because"),
    )  # fmt: skip
    return codec.encode(document)


FAST = Variant("int8-static", ("avx512_vnni",), BLOB)
PLAIN_VARIANT = Variant("fp32", (), BLOB)
