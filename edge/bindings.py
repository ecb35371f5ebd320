"""Topic bindings: sensor messages in, prediction documents out, no code of the user's in between.

Order for each message: publish what it led to, then checkpoint, then acknowledge. A crash in between repeats
the message; its windows come out the same and so do their prediction ids, so whoever listens can drop the
repetition. A bad payload never stops the stream: it is answered on `{output}/error` and acknowledged.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import orjson

from edge.buffers import Buffers
from edge.serving import Answer, ModelError, NoModel, Serving
from sync import codec
from sync.features import WindowSpec
from sync.golden import Arrays
from sync.link import Publish
from sync.manifest import Binding, Manifest
from sync.messages import PROTOCOL, Prediction
from sync.names import DeviceId, ModelName, TenantId
from sync.topics import matches
from sync.windows import Rows, Window

ENTITY = "{entity}"
_PAYLOAD_LIMIT = 64 * 1024  # bytes of one sensor message
_BATCH_LIMIT = 1000  # readings of one message
_ENTITY_LIMIT = 128  # characters of one entity's name
_AHEAD = 86_400.0  # seconds an event time may lie ahead of the clock of this box ...
_CLOCK_SET = 1_600_000_000.0  # ... if that clock was ever set
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_REMEMBERED = 10_000  # entities whose last document is known, for `on-change`


class BadReading(ValueError):
    """A sensor message that cannot be read as its binding says; `code` is stable."""

    code = "bad-reading"


class BadOutput(ModelError):
    """The graph's first output is not what the manifest's classes say."""

    code = "bad-output"


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


# --- pure
# -------------------------------------------------------------------------------------------------------


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


def conclude(outputs: Arrays, classes: tuple[str, ...]) -> tuple[str | float, tuple[float, ...]]:
    """(value, probabilities) from a graph's first output: the likeliest class, or without classes the number.

    The probabilities are the output's own float32 numbers, as HTTP shows them. Raises BadOutput.
    """
    first = next(iter(outputs.values()))
    numbers = [float(n) for n in np.ravel(first).tolist()] if first.dtype.kind in "biuf" else []
    if classes and len(numbers) == len(classes):
        return classes[int(np.argmax(numbers))], tuple(numbers)
    if not classes and len(numbers) == 1:
        return numbers[0], ()
    raise BadOutput(f"the first output is {first.dtype}{list(first.shape)} for {len(classes)} classes")


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


# --- the shell
# --------------------------------------------------------------------------------------------------


Observe = Callable[[ModelName, float, list[tuple[float, ...]]], None]  # (model, latest event time, rows)


def _unseen(model: ModelName, ts: float, rows: list[tuple[float, ...]]) -> None:
    """Nobody watches the streams."""


Remember = Callable[[Prediction, Rows], None]  # (an answered prediction, its window)


def _forgotten(prediction: Prediction, window: Rows) -> None:
    """Nobody keeps predictions."""


class Bindings:
    """All bindings of one device. `handle` is called from one thread; `publish` must not block.

    `now` (seconds since 1970) lets readings from the far future be refused; without it they are taken as they
    are. `observe` sees every reading that was taken in, after its windows were cut,
    `remember` every prediction that was answered.
    """

    def __init__(
        self,
        tenant: TenantId,
        device: DeviceId,
        serving: Serving,
        buffers: Buffers,
        publish: Callable[[Publish], None],
        now: Callable[[], float] | None = None,
        observe: Observe = _unseen,
        remember: Remember = _forgotten,
    ) -> None:
        self._tenant, self._device = tenant, device
        self._serving, self._buffers, self._publish = serving, buffers, publish
        self._now, self._observe, self._remember = now, observe, remember
        self._bound: dict[ModelName, tuple[Bound, ...]] = {}
        self._last: OrderedDict[tuple[str, str, str], tuple[object, ...]] = OrderedDict()

    def bind(self, manifest: Manifest) -> None:
        """From now on this manifest's bindings hold for its model, whether or not a release of it is live."""
        spec = manifest.window
        bindings = manifest.bindings if spec is not None else ()
        self._bound[manifest.model] = tuple(
            Bound(manifest.model, binding, spec, manifest.classes) for binding in bindings if spec is not None
        )

    def unbind(self, model: ModelName) -> None:
        """The model's bindings end, and with them its buffers."""
        if self._bound.pop(model, None) is not None:
            self._buffers.forget(model)

    def subscriptions(self) -> tuple[str, ...]:
        """The topic filters of all bindings, each once, sorted."""
        every = (bound.binding.topic for bounds in self._bound.copy().values() for bound in bounds)
        return tuple(sorted({topic.replace(ENTITY, "+") for topic in every}))

    def handle(self, topic: str, payload: bytes, qos: int, ack: Callable[[], None]) -> None:
        """Takes in one sensor message; `ack` is called once: now, or at a later checkpoint."""
        taken = due = False
        for bounds in self._bound.copy().values():
            # Several bindings of a model may hear one topic: its row goes into the window once, its answer to
            # all.
            heard: dict[str, list[Bound]] = {}
            for bound in bounds:
                entity = entity_of(bound.binding.topic, topic)
                if entity is not None:
                    heard.setdefault(entity, []).append(bound)
            for entity, listeners in heard.items():
                windows = self._take_in(listeners, entity, topic, payload)
                taken = taken or windows is not None
                for window in windows or ():
                    due = True
                    for bound in listeners:
                        self._answer(bound, entity, topic, window)
        if qos == 0 or not taken:
            ack()
        elif self._buffers.hold(ack):
            due = True
        if due:
            self._buffers.checkpoint()

    def _take_in(self, listeners: list[Bound], entity: str, topic: str, payload: bytes) -> tuple[Window, ...] | None:
        """The windows this message completes; None if it was refused, which is told on the error topics."""
        first = listeners[0]
        try:
            if not 0 < len(entity) <= _ENTITY_LIMIT:
                raise BadReading(f"an entity has 1 to {_ENTITY_LIMIT} characters, this one {len(entity)}")
            readings = read(payload, first.binding.time_field, first.window.channels)
            latest = max(ts for ts, _ in readings)
            if self._now is not None and _CLOCK_SET < self._now() < latest - _AHEAD:
                raise BadReading(f"its time {latest:.0f} is more than a day ahead; every later row would look old")
        except BadReading as error:
            for bound in listeners:
                name = entity[:_ENTITY_LIMIT]
                self._complain(bound, name, ErrorDocument(error.code, str(error), bound.model, name, topic))
            return None
        rows = [row for _, row in readings]
        windows = self._buffers.push(first.model, first.window, entity, [ts for ts, _ in readings], rows)
        self._observe(first.model, latest, rows)
        return windows

    def _answer(self, bound: Bound, entity: str, topic: str, window: Window) -> None:
        number = prediction_id(self._tenant, self._device, bound.model, entity, window.end)
        blank = Prediction(number, bound.model, window.end, "warming", classes=(), entity=entity)
        if not window.complete:
            self._emit(bound, entity, blank)
            return
        try:
            answer = self._ask(bound, window)
            value, probabilities = conclude(answer.outputs, bound.classes)
        except NoModel:
            self._emit(bound, entity, msgspec.structs.replace(blank, quality="no_model"))
            return
        except ModelError as error:
            why = ErrorDocument(error.code, str(error), bound.model, entity, topic, window.end)
            self._complain(bound, entity, why)
            self._emit(bound, entity, msgspec.structs.replace(blank, quality="abstain"))
            return
        full = msgspec.structs.replace(
            blank, quality="ok", value=value, probabilities=probabilities, classes=bound.classes,
            release=answer.release.number,
        )  # fmt: skip
        self._emit(bound, entity, full)
        self._remember(full, window.values)

    def _ask(self, bound: Bound, window: Window) -> Answer:
        inputs = self._serving.loaded(bound.model).session.inputs
        name = inputs[0].name if inputs else ""
        return self._serving.predict(bound.model, {name: window.values[np.newaxis]})

    def _emit(self, bound: Bound, entity: str, prediction: Prediction) -> None:
        binding = bound.binding
        if binding.emit == "on-change":
            key = (bound.model, binding.output, entity)
            said = (prediction.quality, prediction.value)
            if self._last.get(key) == said:
                return
            self._last[key] = said
            self._last.move_to_end(key)
            if len(self._last) > _REMEMBERED:
                self._last.popitem(last=False)
        self._publish(Publish(binding.output.replace(ENTITY, entity), codec.encode(prediction)))

    def _complain(self, bound: Bound, entity: str, document: ErrorDocument) -> None:
        topic = f"{bound.binding.output.replace(ENTITY, entity)}/error"
        self._publish(Publish(topic, codec.encode(document)))
