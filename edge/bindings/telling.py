"""What goes out of bindings: predictions as their rules say, complaints as often as is useful, and the word to Home
Assistant that there is something to hear."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edge.bindings.discovery import Discovery
from edge.bindings.emitting import Told, decide
from edge.bindings.reading import Bound, ErrorDocument
from edge.buffers import Buffers
from edge.complaints import Complaints
from sync import codec
from sync.bindings import ENTITY, Binding
from sync.link import Publish
from sync.messages import Prediction

_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Told)


class Telling:
    """The publications of all bindings of a device; `publish` must not block, `now` may be None where there is no
    clock: then every complaint goes out."""

    def __init__(
        self,
        publish: Callable[[Publish], None],
        buffers: Buffers,
        discovery: Discovery,
        now: Callable[[], float] | None,
    ) -> None:
        self._publish, self._buffers, self._discovery, self._now = publish, buffers, discovery, now
        self._complaints = Complaints()

    def tell(self, bound: Bound, entity: str, prediction: Prediction) -> None:
        """Publishes a prediction, if the rule of its binding says so."""
        binding = bound.binding
        if binding.emit != "always":
            name = note_name(binding)
            note = self._buffers.note(bound.model, entity, name)
            before = _remembered(note)
            after, told = decide(binding, before, prediction)
            if after != before:
                self._buffers.put_note(bound.model, entity, name, _encoder.encode(after))
            if not told:
                return
            if binding.when is not None:
                prediction = msgspec.structs.replace(prediction, holds=after.holds)
        if binding.home_assistant:
            self._discovery.announce(bound.model, bound.classes, binding, entity)
        self._publish(Publish(binding.output.replace(ENTITY, entity), codec.encode(prediction)))

    def complain(self, bound: Bound, entity: str, document: ErrorDocument) -> None:
        """Publishes why something led to no prediction, unless too many such documents went out just now."""
        topic = f"{bound.binding.output.replace(ENTITY, entity)}/error"
        suppressed = self._complaints.admit(topic, self._now()) if self._now is not None else 0
        if suppressed is not None:
            document = msgspec.structs.replace(document, suppressed=suppressed)
            self._publish(Publish(topic, codec.encode(document)))


def note_name(binding: Binding) -> str:
    """What a binding's notes go by. Bindings with one output and one rule tell as one, whichever topic was heard; under
    another rule for the same output there is another memory, else each would undo what the other one knew."""
    return codec.encode((binding.output, binding.emit, binding.every, binding.when)).decode()


def _remembered(note: bytes | None) -> Told | None:
    """None as well for what another version of the agent has noted: then the entity counts as new."""
    try:
        return None if note is None else _decoder.decode(note)
    except msgspec.DecodeError:
        return None  # it is told once more than necessary
