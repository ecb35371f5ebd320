"""Numbers on the wire of the Open Inference Protocol v2: JSON lists and binary tensors, both ways.

JSON carries a float32 as the double it equals, so that HTTP and MQTT show the same digits for the same
answer. Binary tensors are little endian and row-major; a BYTES element is its length (4 bytes) and its bytes.
"""

from __future__ import annotations

import struct
from math import prod

import numpy as np
import numpy.typing as npt

from edge.runtime import BadInput
from sync.arrays import DTYPES, text_of
from sync.features import TensorSpec

Array = npt.NDArray[np.generic]

_BY_NAME: dict[str, np.dtype[np.generic]] = {str(name): dtype for name, dtype in DTYPES.items()}
_UNSERVED = frozenset({"BF16"})  # numpy knows none: a graph that takes one is not loaded
_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}  # kinds a JSON list may have for each kind of tensor
_MOST_ELEMENTS = 1 << 24
_MOST_DIMENSIONS = 32
_FEW = 256  # numbers: up to here they are packed sooner than numpy has looked at what they are
_FLOAT, _FLOATS = np.dtype(np.float32), {float}
_BEYOND = "input {!r}: a number is beyond what the stated datatype holds"


def checked_shape(name: str, shape: list[int]) -> tuple[int, ...]:
    """The shape a request states; raises BadInput unless its numbers are positive and of sane product."""
    if len(shape) > _MOST_DIMENSIONS:
        raise BadInput(f"input {name!r}: {len(shape)} dimensions, at most {_MOST_DIMENSIONS} are taken")
    count = 1
    for n in shape:
        if n < 1:
            raise BadInput(f"input {name!r}: 'shape' must be a list of positive integers")
        count *= n
    if count > _MOST_ELEMENTS:
        raise BadInput(f"input {name!r}: more than {_MOST_ELEMENTS} elements")
    return tuple(shape)


def dtype_of(name: str, datatype: str) -> np.dtype[np.generic]:
    """The dtype of a datatype a request states; raises BadInput for one that is not served."""
    dtype = _BY_NAME.get(datatype)
    if dtype is None:
        why = "of the protocol is not served: no model here takes it" if datatype in _UNSERVED else "is none"
        raise BadInput(f"input {name!r}: datatype {datatype!r} {why}; those served are {', '.join(DTYPES)}")
    return dtype


def from_json(name: str, datatype: str, shape: tuple[int, ...], data: object) -> Array:
    """The array of a JSON tensor, flat or nested; raises BadInput, also for numbers it cannot hold."""
    dtype = dtype_of(name, datatype)
    if not isinstance(data, list):
        raise BadInput(f"input {name!r}: 'data' must be a list")
    array = _strings(name, data) if dtype.kind == "O" else _numbers(name, data, dtype)
    if array.size != prod(shape):
        raise BadInput(f"input {name!r}: {array.size} elements for shape {list(shape)}")
    return array.reshape(shape)


def from_binary(name: str, datatype: str, shape: tuple[int, ...], data: bytes) -> Array:
    """The array of a binary tensor; raises BadInput unless its bytes are what shape and datatype say."""
    dtype = dtype_of(name, datatype)
    if dtype.kind == "O":
        strings = _unpack_strings(name, data)
        if len(strings) != prod(shape):
            raise BadInput(f"input {name!r}: {len(strings)} strings for shape {list(shape)}")
        return np.array(strings, np.object_).reshape(shape)
    if len(data) != prod(shape) * dtype.itemsize:
        raise BadInput(f"input {name!r}: {len(data)} bytes for {datatype} of shape {list(shape)}")
    if dtype.kind == "b" and data.strip(b"\0\1"):
        raise BadInput(f"input {name!r}: a BOOL is the byte 0 or 1")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


def from_whole(spec: TensorSpec, data: bytes) -> Array:
    """The array of a model's input that `data` is, all of it; raises BadInput unless that tells one shape.

    One free dimension is told by the size; a string is one element.
    """
    dtype = DTYPES[spec.datatype]
    if dtype.kind == "O":
        data = struct.pack("<I", len(data)) + data
    count = 1 if dtype.kind == "O" else len(data) // dtype.itemsize
    fixed = prod(n for n in spec.shape if n != -1)
    if spec.shape.count(-1) > 1 or fixed == 0:
        raise BadInput(f"the size of a body cannot tell shape {list(spec.shape)}: send it with a JSON part")
    shape = tuple(count // fixed if n == -1 else n for n in spec.shape)
    return from_binary(spec.name, spec.datatype, checked_shape(spec.name, list(shape)), data)


def from_list(spec: TensorSpec, data: object) -> Array:
    """One row for a model's input, from the numbers of the row alone: flat, or nested as the row is; raises BadInput.

    A free first dimension is the row's; where another is free, only a stated shape tells.
    """
    shape = [1 if n == -1 and place == 0 else n for place, n in enumerate(spec.shape)]
    if -1 in shape:
        raise BadInput(f"input {spec.name!r} of shape {list(spec.shape)} takes a stated shape: ask with 'inputs'")
    return from_json(spec.name, spec.datatype, checked_shape(spec.name, shape), data)


def to_json(array: Array) -> list[object]:
    """The elements, flat, row-major."""
    if array.dtype.kind == "O":
        return [text_of(element) for element in array.ravel().tolist()]
    flat: list[object] = array.ravel().tolist()
    return flat


def to_binary(array: Array) -> bytes:
    """The bytes of a binary tensor."""
    if array.dtype.kind == "O":
        parts = [text_of(element).encode() for element in array.ravel().tolist()]
        return b"".join(struct.pack("<I", len(part)) + part for part in parts)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def _numbers(name: str, data: list[object], dtype: np.dtype[np.generic]) -> Array:
    if dtype == _FLOAT and len(data) <= _FEW and {*map(type, data)} == _FLOATS:
        try:
            return np.frombuffer(struct.pack(f"={len(data)}f", *data), _FLOAT)
        except OverflowError as error:
            raise BadInput(_BEYOND.format(name)) from error
    try:
        # numpy takes a list that mixes small numbers with those beyond 63 bits for floats, and would round them.
        plain = np.array(data, np.object_ if dtype == np.uint64 else None)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"input {name!r}: the lists in 'data' do not form one block") from error
    if not (_integers(plain) if dtype == np.uint64 else plain.dtype.kind in _KINDS[dtype.kind]):
        raise BadInput(f"input {name!r}: 'data' is not all of the stated datatype")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)  # type: ignore[type-var]  # the kind says it is an integer
        if plain.size and not (limits.min <= int(plain.min()) and int(plain.max()) <= limits.max):
            raise BadInput(f"input {name!r}: a number does not fit the stated datatype")
    try:
        with np.errstate(over="raise"):
            return plain.astype(dtype)
    except FloatingPointError as error:
        raise BadInput(_BEYOND.format(name)) from error


def _integers(plain: Array) -> bool:
    return set(map(type, plain.ravel().tolist())) <= {int}


def _strings(name: str, data: list[object]) -> Array:
    flat: list[str] = []
    waiting = list(reversed(data))
    while waiting:
        element = waiting.pop()
        if isinstance(element, list):
            waiting += reversed(element)
        elif isinstance(element, str):
            flat.append(element)
        else:
            raise BadInput(f"input {name!r}: BYTES are strings")
    return np.array(flat, np.object_)


def _unpack_strings(name: str, data: bytes) -> list[str]:
    strings, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise BadInput(f"input {name!r}: a string's length is cut off")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise BadInput(f"input {name!r}: a string is cut off")
        try:
            strings.append(data[at : at + length].decode())
        except UnicodeDecodeError as error:
            raise BadInput(f"input {name!r}: a string is not UTF-8") from error
        at += length
    return strings
