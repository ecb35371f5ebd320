"""Manifests: the identity of a release, its TUF names and the choice of a variant."""

from __future__ import annotations

import msgspec
import pytest

from sync import chunks, codec, manifest
from sync.errors import Malformed
from sync.features import TensorSpec, check_shape
from sync.manifest import Blob, Manifest, Variant
from sync.names import ModelName
from tests.sync.manifests import FAST, PLAIN, PLAIN_VARIANT, release


def test_a_manifest_survives_the_wire() -> None:
    whole = release(FAST, PLAIN_VARIANT)
    assert codec.decode(Manifest, codec.encode(whole), manifest.LIMIT) == whole


def test_a_manifest_of_a_64_mib_model_fits_the_limit() -> None:
    count = 64 * 1024 * 1024 // chunks.CHUNK + 1
    blob = Blob(PLAIN, PLAIN, 64 * 1024 * 1024, chunks.CHUNK, (PLAIN,) * count)
    payload = codec.encode(release(Variant("fp32", (), blob)))
    assert len(payload) < manifest.LIMIT
    assert codec.decode(Manifest, payload, manifest.LIMIT).variants[0].blob == blob


def test_broken_windows_are_refused_on_arrival() -> None:
    payload = codec.encode(release(PLAIN_VARIANT)).replace(b'"step":2', b'"step":9')
    with pytest.raises(Malformed, match="step"):
        codec.decode(Manifest, payload, manifest.LIMIT)


def test_the_first_variant_the_cpu_can_run_is_taken() -> None:
    both = release(FAST, PLAIN_VARIANT)
    assert manifest.choose(both, frozenset({"avx512_vnni", "avx2"})) is FAST
    assert manifest.choose(both, frozenset({"avx2"})) is PLAIN_VARIANT


def test_a_release_without_a_variant_for_this_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="watch 7 has no variant"):
        manifest.choose(release(FAST), frozenset())


def test_target_path_and_role_cannot_meet_the_top_level_roles() -> None:
    assert manifest.target_path(ModelName("watch"), 7) == "watch/7/manifest"
    for name in ("root", "targets", "snapshot", "timestamp"):
        assert manifest.role_of(ModelName(name)) != name


def test_shapes_are_checked_in_words() -> None:
    spec = TensorSpec("window", "FP32", (-1, 4, 2))
    check_shape(spec, (1, 4, 2))
    for shape in ((1, 4, 3), (1, 3, 2)):
        with pytest.raises(Malformed, match="the model takes"):
            check_shape(spec, shape)


def test_a_shape_of_another_rank_is_refused_alike() -> None:
    with pytest.raises(Malformed, match="the model takes"):
        check_shape(TensorSpec("window", "FP32", (-1, 4, 2)), (4, 2))


def test_a_manifest_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        release(PLAIN_VARIANT).number = 8  # type: ignore[misc]
    assert msgspec.structs.replace(release(PLAIN_VARIANT), number=8).number == 8


@pytest.mark.parametrize(
    "changes",
    [{"chunk": 0}, {"chunk": -1}, {"chunk": 2**70}, {"hashes": ()}, {"length": 0}, {"length": -5}, {"length": 2**63},
     {"length": 5}, {"length": 1, "chunk": 2}],
    ids=str,
)  # fmt: skip
def test_a_blob_whose_numbers_do_not_fit_each_other_is_malformed(changes: dict[str, object]) -> None:
    """A chunk of nought bytes divided by nought at every connect; a blob without hashes was complete, and refused, for
    ever."""
    blob = {"plain": PLAIN, "sealed": PLAIN, "length": 4, "chunk": 2, "hashes": (PLAIN, PLAIN)}
    assert codec.typed(Blob, codec.builtins(blob)).length == 4
    with pytest.raises(Malformed):
        codec.decode(Blob, codec.encode({**blob, **changes}))
