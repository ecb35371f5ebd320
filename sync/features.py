"""What goes into a model and how it is gathered: tensor and window specifications, the same on both sides."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from sync.errors import Malformed

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
]  # fmt: skip


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
