"""Golden vectors: arrays come back bit for bit, and no bytes make a device do more than refuse."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sync import golden
from sync.errors import Malformed
from sync.golden import Golden, Tensor

NUMERIC = st.sampled_from(["bool", "uint8", "int8", "int32", "int64", "float32", "float64", ">f4", ">i8"])


@given(hnp.arrays(NUMERIC, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
def test_arrays_come_back_as_they_were(array: np.ndarray) -> None:
    again = golden.unpack(golden.pack({"x": array}))["x"]
    assert again.shape == array.shape
    assert again.dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(again, array)


def test_the_whole_set_survives_the_wire() -> None:
    window = golden.pack({"window": np.arange(12, dtype=np.float32).reshape(1, 4, 3)})
    expected = {"fp32": golden.Expected(window, 1e-4), "int8-static": golden.Expected(window, 2e-2)}
    whole = Golden(window, expected)
    assert golden.decode(golden.encode(whole)) == whole


def test_strings_and_objects_are_no_golden_vectors() -> None:
    for array in (np.array(["a"]), np.array([object()]), np.array([1j])):
        with pytest.raises(TypeError, match="no numeric array"):
            golden.pack({"x": array})


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("float32", (2,), b"\0" * 4),
        Tensor("float32", (-1, 0), b""),
        Tensor("object", (1,), b"\0" * 8),
        Tensor("U4", (1,), b"\0" * 16),
        Tensor("no such type", (1,), b"\0"),
        Tensor("float32", (1,), b"\0" * 3),
        Tensor("float32", (2**62, 2**62), b"\0" * 4),
    ],
)
def test_tensors_that_lie_are_malformed(tensor: Tensor) -> None:
    with pytest.raises(Malformed, match="tensor 'x'"):
        golden.unpack({"x": tensor})


@given(st.binary(max_size=100))
def test_foreign_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        golden.decode(data)


def test_an_unknown_precision_is_malformed() -> None:
    payload = msgspec.msgpack.encode({"inputs": {}, "expected": {"int3": {"outputs": {}, "tolerance": 0.1}}})
    with pytest.raises(Malformed):
        golden.decode(payload)


def test_a_set_beyond_the_limit_is_not_read() -> None:
    with pytest.raises(Malformed, match="bytes"):
        golden.decode(b"\0" * (golden.LIMIT + 1))
