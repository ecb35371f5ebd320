"""Golden vectors: inputs with the outputs each variant must give, so that a device proves a release itself.

They are readings, so they only ever travel inside a sealed blob. MessagePack keeps the numbers as raw bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from sync import codec
from sync.errors import Malformed
from sync.manifest import Precision

LIMIT = 16 * 1024 * 1024  # bytes of one set of golden vectors

Arrays = dict[str, npt.NDArray[np.generic]]


class Tensor(msgspec.Struct, frozen=True, array_like=True):
    """A dense array: numpy dtype name, shape, little-endian row-major bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Expected(msgspec.Struct, frozen=True):
    """What one variant must answer: by graph output, to within an absolute `tolerance`."""

    outputs: dict[str, Tensor]
    tolerance: float


class Golden(msgspec.Struct, frozen=True):
    """`inputs` by graph input; what they must lead to, by precision."""

    inputs: dict[str, Tensor]
    expected: dict[Precision, Expected]
    v: int = 1


def pack(arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Tensor]:
    """Numeric arrays as tensors; raises TypeError for strings and objects."""
    packed = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name}: {array.dtype} is no numeric array")
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        packed[name] = Tensor(array.dtype.name, array.shape, little.tobytes())
    return packed


def unpack(tensors: dict[str, Tensor]) -> Arrays:
    """The arrays again; raises Malformed if dtype, shape and bytes do not agree."""
    arrays: Arrays = {}
    for name, tensor in tensors.items():
        try:
            if not tensor.dtype.isalnum():  # numpy reads a comma or bracket as a program
                raise ValueError(f"dtype {tensor.dtype!r}")
            dtype = np.dtype(tensor.dtype)
            if dtype.kind not in "biuf":
                raise ValueError(f"dtype {tensor.dtype!r}")
            arrays[name] = np.frombuffer(tensor.data, dtype.newbyteorder("<")).reshape(tensor.shape)
        except (TypeError, ValueError) as error:
            raise Malformed(f"tensor {name!r}: {error}") from error
    return arrays


def encode(golden: Golden) -> bytes:
    return msgspec.msgpack.encode(golden)


def decode(data: bytes) -> Golden:
    """The golden vectors in `data`; raises Malformed."""
    if len(data) > LIMIT:
        raise Malformed(f"golden vectors of {len(data)} bytes")
    try:
        golden = msgspec.msgpack.decode(data, type=Golden)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"golden vectors: {error}") from error
    codec.check_version(golden)
    return golden
