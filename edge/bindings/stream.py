"""Topic bindings: sensor messages in, prediction documents out, no code of the user's in between.

Order for each message: publish what it led to, wait for the broker's word, then checkpoint, then acknowledge. A
crash in between repeats the message; its windows come out the same and so do their prediction ids, so whoever
listens can drop the repetition. A bad payload never stops the stream: it is answered on `{output}/error` and
acknowledged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

import msgspec

from edge.answers import conclude
from edge.bindings.discovery import Discovery
from edge.bindings.payloads import BadReading, Readings, check_gaps, read, timed
from edge.bindings.reading import Bound, ErrorDocument, entity_of, prediction_id
from edge.bindings.telling import Telling
from edge.buffers import Buffers, Unheard
from edge.lookups import Lookups
from edge.serving import Loaded, ModelError, NoModel, Serving
from edge.states import CLOCK_FLOOR
from sync.bindings import ENTITY, complaint
from sync.link import Publish
from sync.lookups import filled
from sync.manifest import Manifest
from sync.messages import Prediction
from sync.names import DeviceId, ModelName, TenantId
from sync.remembered import NO_BASIS, Basis
from sync.windows import Rows, Window

_ENTITY_LIMIT = 128  # characters of one entity's name
_TOPIC_LIMIT = 512  # characters of a topic that are told of what was refused on it
_AHEAD = 86_400.0  # seconds an event time may lie ahead of the clock of this box, if that was ever set
_BACK = 60.0  # seconds (and `max_gap`) that the clock must go back for windows timed by arrival to start again

Taken = Sequence[tuple[float, ...]] | Rows
Observe = Callable[[ModelName, float, Taken], None]  # (model, latest event time, rows)


def _unseen(model: ModelName, ts: float, rows: Taken) -> None:
    """Nobody watches the streams."""


Remember = Callable[[Prediction, Rows, Basis], None]  # (an answered prediction, its window, what else it rests on)


def _forgotten(prediction: Prediction, window: Rows, basis: Basis) -> None:
    """Nobody keeps predictions."""


class Bindings:
    """All bindings of one device. `handle` is called from one thread, `predict` from any; `publish` must not block.

    `now` (seconds since 1970) lets readings from the far future be refused; without it they are taken as they
    are. `observe` sees every reading that was taken in, after its windows were cut,
    `remember` every prediction that was answered.
    `settled` says whether the broker has confirmed all that was published. `lookups` fill the graph inputs that are not
    windows, and hold the config that fills the words in topics.
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
        lookups: Lookups | None = None,
    ) -> None:
        self._tenant, self._device = tenant, device
        self._serving, self._buffers = serving, buffers
        self._now, self._observe, self._remember, self._settled = now, observe, remember, settled
        self.discovery = Discovery(tenant, device, publish, self._described)
        self._telling = Telling(publish, buffers, self.discovery, now)
        self._lookups = lookups or Lookups()
        self._lock = threading.Lock()
        self._due = False
        self._bound: dict[ModelName, tuple[Bound, ...]] = {}

    def bind(self, manifest: Manifest) -> tuple[str, ...]:
        """From now on this manifest's bindings hold for its model, whether or not a release of it is live; their
        variables are filled by the config of now. What is wrong with those that do not, because an older agent took
        them up: one must not cost all others."""
        spec = manifest.window
        every = [filled(one, manifest.variables, self._lookups.config) for one in manifest.bindings]
        complaints = [complaint(one) for one in every]
        bindings = [one for one, why in zip(every, complaints, strict=True) if not why]
        self._bound[manifest.model] = tuple(
            Bound(manifest.model, binding, spec, manifest.classes) for binding in bindings if spec is not None
        )
        return tuple(filter(None, complaints))

    def all_bound(self) -> None:
        """Every model of the device was bound: what Home Assistant was told of other bindings is taken away. While none
        was, nothing is: a device that could not resume yet does not know what it had."""
        if self._bound:
            self.discovery.settle()

    def unbind(self, model: ModelName) -> None:
        """The model's bindings end, and with them its buffers."""
        if self._bound.pop(model, None) is not None:
            self._buffers.forget(model)
            self.discovery.settle()

    def subscriptions(self) -> tuple[str, ...]:
        """The topic filters of all bindings, each once, sorted."""
        every = (bound.binding.topic for bounds in self._bound.copy().values() for bound in bounds)
        return tuple(sorted({topic.replace(ENTITY, "+") for topic in every}))

    def handle(self, topic: str, payload: bytes, qos: int, ack: Callable[[], None]) -> None:
        """Takes in one sensor message; `ack` is called once: now, or at a later checkpoint."""
        with self._lock:
            self._handle(topic, payload, qos, ack)
        self.settle()

    def predict(self, model: str | None, entity: str) -> Prediction:
        """What the release that serves says of the newest rows of an entity, whether or not a window ends with them;
        without `model` the only one that listens. It waits for no message that is being taken in: the rooms it asks are
        safe by themselves. Raises Unheard where nothing was heard of it."""
        heard = {str(name): bounds[0] for name, bounds in self._bound.copy().items() if bounds}
        if model is None and len(heard) != 1:
            raise Unheard(f"say which model: those that listen are {', '.join(sorted(heard)) or 'none'}")
        bound = heard.get(model or next(iter(heard)))
        if bound is None:
            raise Unheard(f"no binding of {model!r} listens on this device")
        window = self._buffers.latest(bound.model, bound.window, entity)
        if window is None:
            raise Unheard(f"{bound.model} has heard nothing of {entity!r}")
        said, basis, _ = self._conclude(bound, entity, window)
        if said.release is not None:
            self._remember(said, window.values, basis)
        return said

    def follow(self, ack: Callable[[], None]) -> None:
        """Acknowledges what is no reading, after all that came before it: MQTT wants that in order, and Mosquitto sends
        what waits in another order where it is not, so that rows would come too late for their windows."""
        if self._buffers.hold(ack, taken=False):
            self._due = True
            self.settle()

    @property
    def waits(self) -> bool:
        """Whether a checkpoint is due that waits for the broker's word."""
        return self._due

    def settle(self, *, everything: bool = False) -> None:
        """Checkpoints what is due, or has waited for long (`Buffers.overdue`), once the broker has confirmed every
        prediction; any thread may call it, often.

        Before that, a kill would leave a checkpoint that knows a row whose prediction was never sent. `everything`:
        also what is not due yet. While a message is being answered nothing is done: that
        may take long, and whoever judges the release that takes so long must not wait for it.
        """
        if not self._lock.acquire(blocking=False):
            return  # whoever holds it settles next, or the next tick does
        try:
            if (self._due or everything or self._buffers.overdue()) and self._settled():
                self._due = False
                self._buffers.checkpoint()
        finally:
            self._lock.release()

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
        if qos == 0:
            ack()
        elif self._buffers.hold(ack, taken=taken):
            due = True
        self._due = self._due or due

    def _take_in(self, listeners: list[Bound], entity: str, topic: str, payload: bytes) -> tuple[Window, ...] | None:
        """The windows this message completes; None if it was refused, which is told on the error topics."""
        first = listeners[0]
        try:
            if not 0 < len(entity) <= _ENTITY_LIMIT:
                raise BadReading(f"an entity has 1 to {_ENTITY_LIMIT} characters, this one {len(entity)}")
            readings = read(payload, first.binding, first.window.channels)
            ts = self._times(first, entity, readings)
            latest = max(ts)
            if self._now is not None and CLOCK_FLOOR < self._now() < latest - _AHEAD:
                raise BadReading(f"its time {latest:.0f} is more than a day ahead; every later row would look old")
            if len(ts) > 1:
                check_gaps(ts, self._buffers.last_ts(first.model, first.window, entity), first.window)
        except BadReading as error:
            for bound in listeners:
                name = entity[:_ENTITY_LIMIT]
                why = ErrorDocument(error.code, str(error), bound.model, name, topic[:_TOPIC_LIMIT])
                self._telling.complain(bound, name, why)
            return None
        windows = self._buffers.push(first.model, first.window, entity, ts, readings.rows)
        self._observe(first.model, latest, readings.rows)
        return windows

    def _times(self, bound: Bound, entity: str, readings: Readings) -> Sequence[float]:
        """The event times of readings: their own, else by their arrival."""
        if readings.ts is not None:
            return readings.ts
        if self._now is None:
            raise BadReading("its readings bring no time, and here is no clock to take their arrival from")
        spec = bound.window
        last, arrival = self._buffers.last_ts(bound.model, spec, entity), self._now()
        if last is not None and arrival < last - spec.max_gap - _BACK:
            # The clock of this box was put back: until it had caught up, all that comes would look old.
            self._buffers.restart(bound.model, entity)
            last = None
        return timed(len(readings.rows), last, arrival, spec)

    def _answer(self, bound: Bound, entity: str, topic: str, window: Window) -> None:
        said, basis, error = self._conclude(bound, entity, window)
        if error is not None:
            why = ErrorDocument(error.code, str(error), bound.model, entity, topic, window.end)
            self._telling.complain(bound, entity, why)
        self._telling.tell(bound, entity, said)
        if said.release is not None:
            self._remember(said, window.values, basis)

    def _conclude(self, bound: Bound, entity: str, window: Window) -> tuple[Prediction, Basis, ModelError | None]:
        """What is said of a window, what it rests on, and what kept the model from a word if something did."""
        number = prediction_id(self._tenant, self._device, bound.model, entity, window.end)
        blank = Prediction(number, bound.model, window.end, "warming", classes=(), entity=entity)
        if not window.complete:
            return blank, NO_BASIS, None
        try:
            prediction, basis = self._ask(blank, window)
        except NoModel:
            return msgspec.structs.replace(blank, quality="no_model", value=bound.binding.no_model), NO_BASIS, None
        except ModelError as error:
            return msgspec.structs.replace(blank, quality="abstain"), NO_BASIS, error
        return prediction, basis, None

    def _ask(self, blank: Prediction, window: Window) -> tuple[Prediction, Basis]:
        """What the release that serves, in a split for this entity, says, asked as it wants to be asked. What an arm of
        a split cannot answer the incumbent does, and nothing is lost."""
        model, key = blank.model, blank.entity
        failed: tuple[Loaded, ModelError] | None = None
        while True:
            loaded = self._serving.loaded(model, key)
            try:
                found = self._asked(loaded, blank, window)
            except NoModel:
                if self._serving.loaded(model, key) is loaded:
                    raise  # else: another release took over in between, and may want other inputs
            except ModelError as error:
                if loaded is self._serving.incumbent(model):
                    self._serving.blame(model, loaded, error)
                    raise
                failed, key = (loaded, error), ""
            else:
                if failed is not None:
                    self._serving.blame(model, *failed)
                return found

    def _asked(self, loaded: Loaded, blank: Prediction, window: Window) -> tuple[Prediction, Basis]:
        """What one release says of a window, in its own classes; raises ModelError."""
        slot = loaded.slot
        inputs, stale, looked = self._lookups.question(loaded.session, slot.manifest, blank.entity, window.values)
        answer = self._serving.predict(blank.model, inputs, slot.release.number)
        classes = answer.slot.manifest.classes
        value, probabilities = conclude(answer.outputs, classes)
        return msgspec.structs.replace(
            blank, quality="stale" if stale else "ok", value=value, probabilities=probabilities, classes=classes,
            release=answer.release.number,
        ), Basis(answer.release.artifact, self._lookups.config_version, looked)  # fmt: skip

    def _described(self) -> Iterable[tuple[ModelName, str]]:
        """What is described to Home Assistant: (model, output topic with {entity})."""
        every = (bound for bounds in self._bound.copy().values() for bound in bounds)
        return [(bound.model, bound.binding.output) for bound in every if bound.binding.home_assistant]
