"""Topic bindings: sensor messages in, prediction documents out, no code of the user's in between.

Order for each message: publish what it led to, wait for the broker's word, then checkpoint, then acknowledge. A
crash in between repeats the message; its windows come out the same and so do their prediction ids, so whoever
listens can drop the repetition. A bad payload never stops the stream: it is answered on `{output}/error` and
acknowledged.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import numpy as np

from edge.answers import conclude
from edge.bindings.reading import (
    ENTITY,
    BadReading,
    Bound,
    ErrorDocument,
    entity_of,
    prediction_id,
    read,
)
from edge.buffers import Buffers
from edge.serving import Answer, ModelError, NoModel, Serving
from sync import codec
from sync.link import Publish
from sync.manifest import Manifest
from sync.messages import Prediction
from sync.names import DeviceId, ModelName, TenantId
from sync.windows import Rows, Window

_ENTITY_LIMIT = 128  # characters of one entity's name
_AHEAD = 86_400.0  # seconds an event time may lie ahead of the clock of this box ...
_CLOCK_SET = 1_600_000_000.0  # ... if that clock was ever set
_REMEMBERED = 10_000  # entities whose last document is known, for `on-change`

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
    `settled` says whether the broker has confirmed all that was published.
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
        settled: Callable[[], bool] = lambda: True,
    ) -> None:
        self._tenant, self._device = tenant, device
        self._serving, self._buffers, self._publish = serving, buffers, publish
        self._now, self._observe, self._remember, self._settled = now, observe, remember, settled
        self._lock = threading.Lock()
        self._due = False
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
        with self._lock:
            self._handle(topic, payload, qos, ack)
        self.settle()

    def settle(self, *, everything: bool = False) -> None:
        """Checkpoints what is due once the broker has confirmed every prediction; any thread may call it, often.

        Before that, a kill would leave a checkpoint that knows a row whose prediction was never sent. `everything`:
        also what is not due yet, for a stream that fell silent.
        """
        with self._lock:
            if (self._due or everything) and self._settled():
                self._due = False
                self._buffers.checkpoint()

    def _handle(self, topic: str, payload: bytes, qos: int, ack: Callable[[], None]) -> None:
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
        self._due = self._due or due

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
