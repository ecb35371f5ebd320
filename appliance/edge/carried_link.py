"""The link of a device whose far end is a folder that somebody carries: the agent's walker sees no difference.

The folder is not touched here. Whoever has it asks what is wanted (`wanted`), brings what lies there (`bring`), and
takes along what the walker says (`bundles`). Nothing is delivered that was not asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edge.agent import Identity
from sync import carried, codec, roles, topics
from sync.carried import Bundle, Word
from sync.errors import Malformed
from sync.link import Message, Publish, Receiver, Watcher
from sync.messages import Ack
from sync.names import BadName

Directors = Callable[[], roles.Keys]  # whose word counts now; raises Malformed if nobody's does


class _Numbered(msgspec.Struct, frozen=True):
    """What of a record counts here."""

    epoch: int
    n: int


class CarriedLink:
    """A `sync.link.Link`; used on the walker's thread alone. It is told of every subscription, also while nobody is
    here: as on every link, all that are open are renewed when it starts."""

    def __init__(self, own: Identity, directors: Directors) -> None:
        self._own, self._directors = own, directors
        self.since = 0.0  # when the newest bundle was made that was brought: older ones say nothing any more
        self._root = topics.tenant_root(own.tenant) + "/"
        self._below = f"{self._root}d/{own.device}/"
        self._receiver: Receiver | None = None
        self._asked: dict[str, bool] = {}  # topic -> whether the carrier was told
        self._brought: set[str] = set()  # topics of this visit
        self._told: set[str] = set()  # the same, that were asked for
        self._kept: dict[str, bytes] = {}  # what would be retained
        self._records: dict[tuple[str, int], bytes] = {}

    def start(self, receiver: Receiver, watcher: Watcher) -> None:
        self._receiver = receiver
        self._asked = dict.fromkeys(self._asked, False)
        self._brought.clear()
        self._told.clear()
        watcher(True, "a folder is here")

    def publish(self, message: Publish) -> None:
        if self._receiver is None:
            return
        name = message.topic.removeprefix(self._below)
        if not name.startswith("up/"):
            self._kept[name] = message.payload
            return
        self._records[name, codec.decode(_Numbered, message.payload).n] = message.payload

    def subscribe(self, *patterns: str) -> None:
        """What no file in a folder can be named comes in the bundle, or not at all; what was asked for in vain is not
        asked for again while the same folder is here."""
        for topic in patterns:
            in_vain = self._asked.get(topic, False) and topic not in self._brought
            if not in_vain and carried.limit_of(topic.removeprefix(self._root)) is not None:
                self._asked[topic] = False

    def unsubscribe(self, *patterns: str) -> None:
        for pattern in patterns:
            self._asked.pop(pattern, None)

    def stop(self) -> None:
        self._receiver = None
        self._kept.clear()
        self._records.clear()

    # --- for whoever has the folder ---

    def wanted(self) -> tuple[str, ...]:
        """The names asked for since this was asked last, an assignment behind the trust files it is judged by."""
        due = [topic for topic, told in self._asked.items() if not told]
        self._asked |= dict.fromkeys(due, True)
        self._told |= set(due)
        return tuple(sorted((topic.removeprefix(self._root) for topic in due), key=lambda n: n.startswith("d/")))

    def lacking(self) -> tuple[str, ...]:
        """What was asked for in this visit, is wanted still, and did not come."""
        lacks = (topic for topic, told in self._asked.items() if told and topic not in self._brought)
        return tuple(topic.removeprefix(self._root) for topic in lacks)

    @property
    def moves(self) -> int:
        """Rises while something is asked for, or comes, for the first time in this visit."""
        return len(self._told) + len(self._brought)

    def bring(self, name: str, payload: bytes) -> None:
        """One file of the folder. Raises Untrusted or Malformed for a bundle that does not hold."""
        if name == f"d/{self._own.device}/down":
            self._open(payload)
        elif self._root + name in self._asked:
            self._brought.add(self._root + name)
            self._deliver(Message(self._root + name, payload, 1, retained=True))

    def bundles(self, now: float, will: bytes | None = None) -> list[bytes]:
        """All that the walker says and that no acknowledgement has come for, signed by the device; `will` is what the
        folder says of its status once it is gone."""
        words = dict(self._kept)
        if will is not None:
            words["status"] = will
        numbered = [(name, body) for (name, _), body in sorted(self._records.items())]
        spoken = (Word(name, msgspec.Raw(body)) for name, body in (*words.items(), *numbered))
        own = self._own
        return carried.bundles(own.tenant, own.device, own.epoch, now, spoken, own.signing_key)

    def _open(self, payload: bytes) -> None:
        own = self._own
        bundle = carried.opened(payload, own.tenant, own.device, self._directors(), "down")
        if bundle.ts <= self.since:
            return
        self.since = bundle.ts
        for word in bundle.words:
            if self._acknowledged(bundle, word):
                continue
            self._deliver(Message(carried.topic_of(bundle, word), bytes(word.payload), 1))

    def _acknowledged(self, bundle: Bundle, word: Word) -> bool:
        """What is acknowledged need not be taken along. True for an acknowledgement that says nothing: the core stands
        right before what waits, and has not said that it heard it."""
        try:
            address = topics.parse(carried.topic_of(bundle, word))
            ack = codec.decode(Ack, bytes(word.payload)) if address.area == "ack" else None
        except (BadName, Malformed):  # the walker refuses it, and says so
            return False
        if ack is None or ack.epoch != self._own.epoch:
            return False
        name = f"up/{address.kind}"
        done = [key for key in self._records if key[0] == name and key[1] <= ack.n]
        for key in done:
            del self._records[key]
        return not done and (name, ack.n + 1) in self._records and address.kind not in bundle.stuck

    def _deliver(self, message: Message) -> None:
        if self._receiver is not None:
            self._receiver(message)
