"""What a device remembers of a prediction: enough to make it again, on the core, to the last bit.

The graph of a release is a function of its inputs. Each of them has one of three sources: a program gave it by name
(`Remembered.inputs`), a table did (`Basis.lookups`), or it is the window, which is whatever is left. Which release,
which variant of it and which versions of tables and config were in force stands beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from sync.arrays import DTYPES, NAMES, text_of
from sync.errors import Malformed
from sync.features import Datatype, TensorSpec, check_shape
from sync.golden import Arrays
from sync.messages import Prediction
from sync.windows import Rows

NOTABLE = frozenset(
    ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")
)  # what kernels of ONNX Runtime are chosen by: two CPUs alike in these compute alike

_Array = npt.NDArray[np.generic]


class Looked(msgspec.Struct, frozen=True):
    """What a table gave for an entity: its version (0: not known), and the row, float32, little endian."""

    version: int
    vector: bytes


class Tensor(msgspec.Struct, frozen=True, array_like=True):
    """An array as it was: its elements row by row, little endian; those of BYTES are a MessagePack list of texts."""

    datatype: Datatype
    shape: tuple[int, ...]
    data: bytes


class Basis(msgspec.Struct, frozen=True):
    """What an answer rests on besides its inputs: the variant that gave it (plaintext digest; empty: not known), the
    version of the config in force (0: none), by graph input what tables gave, and which row it was of how many that the
    graph was given at once."""

    artifact: str = ""
    config: int = 0
    lookups: dict[str, Looked] = {}
    row: int = 0
    rows: int = 1


NO_BASIS = Basis()


class Remembered(msgspec.Struct, frozen=True):
    """One prediction with its input window: float32, little endian, row-major, of `shape`; `inputs` has those that a
    program gave by name, in which case there is no window. `arrived` is the device's clock when it was made (0: not
    known), `labelled` when its label came. `outputs` is what the graph said, where that is no class and no number."""

    prediction: Prediction
    shape: tuple[int, ...]
    window: bytes
    label: str | None = None
    arrived: float = 0.0
    labelled: float | None = None
    basis: Basis = NO_BASIS
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    @property
    def has_inputs(self) -> bool:
        """Whether what the graph was given is here: else it stayed on the device."""
        return bool(self.window or self.inputs)


def of_window(prediction: Prediction, window: Rows, arrived: float, basis: Basis = NO_BASIS) -> Remembered:
    """An answered prediction whose input is a window."""
    packed = window.astype("<f4", copy=False).tobytes()
    return Remembered(prediction, window.shape, packed, arrived=arrived, basis=basis)


def window_of(one: Remembered) -> Rows | None:
    """The window, read-only; None where there is none here."""
    return np.frombuffer(one.window, "<f4").reshape(one.shape) if one.window else None


def size(arrays: Mapping[str, _Array]) -> int:
    """Bytes of the elements."""
    total = 0
    for array in arrays.values():
        total += array.nbytes if array.dtype.kind != "O" else sum(len(text_of(one).encode()) for one in array.flat)
    return total


def pack(arrays: Mapping[str, _Array]) -> dict[str, Tensor]:
    """Arrays of any datatype, by name."""
    return {name: Tensor(NAMES[array.dtype], array.shape, _bytes(array)) for name, array in arrays.items()}


def unpack(name: str, tensor: Tensor) -> _Array:
    """The array again; raises Malformed if datatype, shape and elements do not agree."""
    dtype = DTYPES[tensor.datatype]
    try:
        if any(n < 0 for n in tensor.shape):
            raise ValueError(f"shape {tensor.shape}")
        if dtype.kind != "O":
            return np.frombuffer(tensor.data, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(tensor.shape)
        return np.array(msgspec.msgpack.decode(tensor.data, type=list[str]), np.object_).reshape(tensor.shape)
    except (ValueError, OverflowError, msgspec.DecodeError) as error:
        raise Malformed(f"tensor {name!r}: {error}") from error


def given(one: Remembered, specs: Sequence[TensorSpec]) -> Arrays:
    """The graph's inputs as the device gave them, by the specifications of its release; raises Malformed if they are
    none of it. A window is laid out flat where the graph takes [n, numbers]."""
    found = {name: unpack(name, tensor) for name, tensor in one.inputs.items()}
    for name, looked in one.basis.lookups.items():
        found.setdefault(name, _floats(name, looked.vector, (1, -1)))
    for spec in specs:
        if spec.name not in found:
            flat = len(spec.shape) == 2 and len(one.shape) == 2
            found[spec.name] = _floats(spec.name, one.window, (1, -1) if flat else (1, *one.shape))
        array = found[spec.name]
        check_shape(spec, array.shape)
        if array.dtype != DTYPES[spec.datatype]:
            raise Malformed(f"input {spec.name!r} takes {spec.datatype}, the device gave {array.dtype}")
    return {spec.name: found[spec.name] for spec in specs}


def cpu_class(machine: str, flags: frozenset[str]) -> str:
    """A CPU as far as its arithmetic is concerned, in words: `x86_64 avx2 fma`."""
    return " ".join((machine, *sorted(flags & NOTABLE)))


def _floats(name: str, raw: bytes, shape: tuple[int, ...]) -> _Array:
    try:
        return np.frombuffer(raw, "<f4").astype(np.float32, copy=False).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"input {name!r}: {error}") from error


def _bytes(array: _Array) -> bytes:
    if array.dtype.kind == "O":
        return msgspec.msgpack.encode([text_of(one) for one in array.flat])
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
