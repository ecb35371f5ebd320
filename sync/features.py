"""What goes into a model and how it is gathered: tensor and window specifications, the same on both sides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from sync.errors import Malformed

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
]  # fmt: skip
DTYPES: Mapping[Datatype, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}  # as numpy holds them, and ONNX Runtime takes them; BYTES are texts
NAMES: Mapping[np.dtype[np.generic], Datatype] = {dtype: name for name, dtype in DTYPES.items()}


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output of the graph, in words of the Open Inference Protocol v2; -1 is a free dimension."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class WindowSpec(msgspec.Struct, frozen=True):
    """How a stream of rows becomes input windows (`sync.windows` is the one kernel that does it).

    `size` rows make a window, the next one starts `step` rows later. Rows are `period` seconds apart in event
    time; a gap of more than `max_gap` seconds ends the segment, so that no window spans it.
    """

    size: int
    step: int
    period: float
    channels: tuple[str, ...]
    max_gap: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 1_000_000 or not 1 <= self.step <= self.size:
            raise ValueError("window: 1 <= step <= size <= 1,000,000")
        if not self.period > 0 or not self.max_gap >= self.period:
            raise ValueError("window: period > 0 and max_gap >= period (seconds)")
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ValueError("window: channels must be named, each once")


class Unit(msgspec.Struct, frozen=True):
    """How a sensor's number becomes the model's: `number * scale + offset`."""

    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale) or self.scale == 0 or not math.isfinite(self.offset):
            raise ValueError("units: scale is a finite number other than 0, offset a finite number")


def in_units(rows: npt.ArrayLike, channels: tuple[str, ...], units: Mapping[str, Unit]) -> npt.NDArray[np.float32]:
    """Rows (n, channels) in the model's units, float32; beyond what 32 bits hold a number is infinite.

    Training and serving call exactly this. A number is first rounded to 32 bits, so that it does not matter how it
    came: as text, as JSON, or raw.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        given = np.asarray(rows, np.float32)
        if not units:
            return given
        each = [units.get(channel, Unit()) for channel in channels]
        scale, offset = ([getattr(unit, part) for unit in each] for part in ("scale", "offset"))
        found: npt.NDArray[np.float32] = (given.astype(np.float64) * scale + offset).astype(np.float32)
        return found


def fits(wanted: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a shape is as `wanted`; -1 there fits anything."""
    if len(wanted) != len(shape):
        return False
    for want, got in zip(wanted, shape, strict=True):  # noqa: SIM110  # on the way of every answer: half of what all() costs
        if want not in (-1, got):
            return False
    return True


def check_shape(spec: TensorSpec, shape: tuple[int, ...]) -> None:
    """Raises Malformed unless `shape` fits the specification; -1 in the specification fits anything."""
    if not fits(spec.shape, shape):
        raise Malformed(f"input {spec.name!r} has shape {list(shape)}, the model takes {list(spec.shape)}")
