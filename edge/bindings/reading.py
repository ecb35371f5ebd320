"""The pure half of topic bindings: what a sensor message says, and what its predictions are called."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import orjson

from sync.features import WindowSpec
from sync.manifest import Binding
from sync.messages import PROTOCOL
from sync.names import DeviceId, ModelName, TenantId
from sync.topics import matches

ENTITY = "{entity}"
_PAYLOAD_LIMIT = 64 * 1024  # bytes of one sensor message
_BATCH_LIMIT = 1000  # readings of one message
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class BadReading(ValueError):
    """A sensor message that cannot be read as its binding says; `code` is stable."""

    code = "bad-reading"


class ErrorDocument(msgspec.Struct, frozen=True):
    """What stands on `{output}/error`: a message or window that led to no prediction, and why."""

    code: str
    text: str
    model: ModelName
    entity: str
    topic: str
    ts: float | None = None  # event time of the window, if it came to one
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Bound:
    """One binding of one model, with what is needed to serve it while no release of it is live."""

    model: ModelName
    binding: Binding
    window: WindowSpec
    classes: tuple[str, ...]


def entity_of(pattern: str, topic: str) -> str | None:
    """What stands for `{entity}` in `topic`, None if the topic is not the binding's."""
    if not matches(pattern.replace(ENTITY, "+"), topic):
        return None
    return topic.split("/")[pattern.split("/").index(ENTITY)]


Reading = tuple[float, tuple[float, ...]]  # event time in seconds, one number a channel


def read(payload: bytes, time_field: str, channels: tuple[str, ...]) -> tuple[Reading, ...]:
    """The readings of a sensor message: one JSON object, or a list of them in the order they were taken.

    Raises BadReading; a message is taken in whole or not at all.
    """
    if len(payload) > _PAYLOAD_LIMIT:
        raise BadReading(f"{len(payload)} bytes, more than the {_PAYLOAD_LIMIT} allowed")
    try:
        reading = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise BadReading(f"not JSON: {error}") from error
    several = reading if isinstance(reading, list) else [reading]
    if not 1 <= len(several) <= _BATCH_LIMIT:
        raise BadReading(f"{len(several)} readings in one message; 1 to {_BATCH_LIMIT} are taken")
    return tuple(_reading(item, time_field, channels) for item in several)


def prediction_id(tenant: TenantId, device: DeviceId, model: ModelName, entity: str, end: float) -> str:
    """32 hex digits that are the same whenever the same window is predicted again."""
    text = "|".join((tenant, device, model, entity, repr(end)))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _reading(item: object, time_field: str, channels: tuple[str, ...]) -> Reading:
    if not isinstance(item, dict):
        raise BadReading("not a JSON object, nor a list of them")
    ts = _number(item, time_field)
    row = tuple(_number(item, channel) for channel in channels)
    for channel, value in zip(channels, row, strict=True):
        if abs(value) > _FLOAT32_MAX:
            raise BadReading(f"{channel!r} is {value:g}, beyond what a 32-bit float holds")
    return ts, row


def _number(reading: Mapping[str, object], name: str) -> float:
    value = reading.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadReading(f"{name!r} is {'missing' if value is None else 'not a finite number'}")
    return float(value)
