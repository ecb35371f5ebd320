"""What `falaj edge try` makes of a file nobody has signed: a manifest as a release has one, from what the graph says of
itself and a few words of the person. Pure. Its release number is 0, which no release ever has."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod

import msgspec

from appliance.errors import Trouble
from appliance.first_hour.measuring import Measured
from edge.states import Slot
from sync.bindings import ENTITY, Binding, Format
from sync.chunks import describe, digest
from sync.features import TensorSpec, WindowSpec
from sync.manifest import Lineage, Manifest, Profile, Variant
from sync.names import DEFAULT_TENANT, DeviceId, ModelName
from sync.reports import Release

DEVICE = DeviceId("try")
NUMBER = 0
# Seconds. Single rows are told apart by any time between them; and while nobody knows how far apart the rows of a
# window come, none is cut.
INSTANT = 1e-6
_PATIENCE = 5  # times the usual time between two readings is a gap


class Untried(Trouble):
    """What cannot be tried as it was asked for; the message says what to change."""


@dataclass(frozen=True)
class Wishes:
    """The person's words. `rate` is readings a second of one sensor; without it the first readings tell. `channels` and
    `time` may be paths into nested objects, levels separated by dots; without a time readings are timed by arrival."""

    bind: str = ""
    classes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    rate: float | None = None
    format: Format = "json"
    time: str = "ts"


@dataclass(frozen=True)
class Tryout:
    """One file as it is tried."""

    model: bytes
    measured: Measured
    manifest: Manifest
    learns: bool = False  # whether the first readings tell the period of its windows

    @property
    def slot(self) -> Slot:
        return Slot(Release(NUMBER, digest(b""), digest(self.model)), self.manifest, {})

    def cut_every(self, period: float) -> Tryout:
        """The same with windows of readings that come every `period` seconds."""
        window = self.manifest.window
        if window is None:
            return self
        return replace(
            self, manifest=msgspec.structs.replace(self.manifest, window=_paced(window, period)), learns=False
        )


def plan(stem: str, model: bytes, measured: Measured, wishes: Wishes) -> Tryout:
    """How a file of this name is tried; raises Untried."""
    classes = _classes(measured, wishes)
    window = _window(measured, wishes) if wishes.bind else None
    bindings = (_binding(wishes, window.channels),) if window is not None else ()
    blob = describe(model, digest(model))
    manifest = Manifest(
        DEFAULT_TENANT, model_name(stem), NUMBER, 0.0, (Variant("fp32", (), blob),), blob, measured.inputs,
        measured.outputs, classes, window, bindings, Profile(p99_ms=max(50.0, 2 * measured.p99_ms)),
        Lineage("", "", "", 0, {}, "tried from a file, signed by nobody"),
    )  # fmt: skip
    return Tryout(model, measured, manifest, window is not None and window.size > 1 and wishes.rate is None)


def model_name(stem: str) -> ModelName:
    """The name that a file's name makes: lowercase letters, digits and hyphens."""
    return ModelName(re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:63].strip("-") or "model")


def default_channels(count: int) -> tuple[str, ...]:
    """Names for the numbers of a reading that nobody named."""
    return tuple(f"c{n}" for n in range(1, count + 1))


def flat(path: str) -> str:
    """The name of what stands at a path."""
    return path.replace(".", "_")


def _binding(wishes: Wishes, channels: tuple[str, ...]) -> Binding:
    bind = wishes.bind
    topic = bind.replace("+", ENTITY, 1) if ENTITY not in bind else bind
    levels = topic.split("/")
    if levels.count(ENTITY) != 1 or any(sign in topic.replace(ENTITY, "") for sign in "+#{}"):
        raise Untried(
            f"--bind {bind!r}: exactly one level of the topic is +, where the sensor's name stands, and none is #"
        )
    paths = dict(zip(channels, wishes.channels, strict=False)) | {flat(wishes.time): wishes.time}
    fields = {name: path for name, path in paths.items() if name != path} if wishes.format == "json" else {}
    return Binding(topic, f"{topic}/prediction", flat(wishes.time), format=wishes.format, fields=fields)


def _classes(measured: Measured, wishes: Wishes) -> tuple[str, ...]:
    """The names given, or, where there are several numbers to choose from, their places."""
    name, shape = next(iter(measured.answered.items()))
    count = prod(shape) // max(1, measured.rows)
    if wishes.classes and len(wishes.classes) != count:
        given = len(wishes.classes)
        raise Untried(f"--classes names {given}, but the first output, {name!r}, has {count} numbers for a row")
    return wishes.classes or (tuple(map(str, range(count))) if wishes.bind and count > 1 else ())


def _window(measured: Measured, wishes: Wishes) -> WindowSpec:
    """What the graph's input makes of a stream: [n, features] is a row, [n, rows, channels] a window."""
    spec = _stream_input(measured.inputs)
    size, width = (1, *spec.shape[1:]) if len(spec.shape) == 2 else spec.shape[1:]
    channels = tuple(map(flat, wishes.channels)) or default_channels(width)
    if len(channels) != width or len(set(channels)) != width:
        raise Untried(
            f"--channels names {len(channels)}, but the model takes {width} numbers of a reading, each named once"
        )
    if wishes.format == "scalar" and width != 1:
        raise Untried(f"--format scalar is one number in a reading, the model takes {width}")
    if size == 1 or wishes.rate is None:
        return WindowSpec(size, max(1, size // 2), INSTANT, channels, INSTANT)
    return _paced(WindowSpec(size, max(1, size // 2), INSTANT, channels, INSTANT), 1.0 / wishes.rate)


def _paced(window: WindowSpec, period: float) -> WindowSpec:
    return WindowSpec(window.size, window.step, period, window.channels, _PATIENCE * period)


def _stream_input(inputs: tuple[TensorSpec, ...]) -> TensorSpec:
    """The one input that readings fill; raises Untried."""
    told = ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in inputs)
    advice = f"--bind takes a model with one FP32 input [n, features] or [n, rows, channels]; this one takes {told}"
    spec = inputs[0]
    if len(inputs) != 1 or spec.datatype != "FP32" or len(spec.shape) not in (2, 3) or spec.shape[0] not in (-1, 1):
        raise Untried(f"{advice}: try it without --bind, over HTTP")
    if any(n < 1 for n in spec.shape[1:]):
        raise Untried(f"{advice}: export it with a fixed size of all but the first dimension")
    return spec
