"""The books of one trial: what candidate and incumbent said to the same windows, and which of them was wrong.

Theory. A pair becomes an outcome D (+1 the candidate is worse, 0 equal, -1 better) as `sync.evidence` wants it: rows
of an entity in the order they happened, overlapping windows once. Under `labels` a disagreement has no D before its
label, and whatever comes behind it in its entity waits, so the blocks do not depend on the order of the labels. What
waits is not left out of SAFE (`Tally.worst`): else the entities that disagree would drop out, and those that agree
remain. Under `agreement` a disagreement counts against the candidate. Under `guardrails` no block is counted.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from sync.evidence import BlockCounter, Blocks, Counters
from sync.names import Digest
from sync.reports import Evidence, TrialReport

WAITING = 1_000  # rows of one entity that may wait for a label ...
WAITING_ALL = 10_000  # ... and of all together: they are in memory, and in every checkpoint
ENTITIES = 1_000  # whose windows are paired
BEHIND = 86_400.0  # seconds that a window may be behind the last one and be held to be one that came again
SEEN = 10_000  # pairs whose label is still taken ...
SEEN_KEPT = 1_000  # ... and how many of them outlive a restart


class About(msgspec.Struct, frozen=True):
    """What a trial is about; another one is another trial. The manifests are digests."""

    manifest: str
    against: str
    retry: int
    metric: Evidence
    block: int


class Pair(msgspec.Struct, frozen=True):
    """What both releases said to one window, as a label would put it; None: no answer that counts as one."""

    id: str
    new: str | None
    old: str | None


class Stretch(msgspec.Struct, frozen=True):
    """One entity: the event time of the last row of its last counted window, and the outcomes that wait in order."""

    end: float
    queue: tuple[int | Pair, ...] = ()


class Books(msgspec.Struct, frozen=True):
    """All of a trial that outlives a restart."""

    about: About
    blocks: Blocks
    entities: dict[str, Stretch] = {}
    seen: tuple[Pair, ...] = ()
    pairs: int = 0
    agreed: int = 0
    labels: int = 0
    right: int = 0
    right_before: int = 0


def fresh(about: About) -> Books:
    """Books in which nothing stands yet."""
    return Books(about, Blocks(about.block))


class Tally:
    """The books while they are written. Not thread-safe; one caller feeds it."""

    def __init__(self, books: Books) -> None:
        self.about = books.about
        self._counter = BlockCounter(books.blocks)
        self._ends = {name: stretch.end for name, stretch in books.entities.items()}
        self._queues = {name: list(stretch.queue) for name, stretch in books.entities.items() if stretch.queue}
        self._queued = sum(map(len, self._queues.values()))
        self._waiting = {row.id: name for name, queue in self._queues.items() for row in queue if isinstance(row, Pair)}
        self._seen = OrderedDict((pair.id, pair) for pair in books.seen)
        self._pairs, self._agreed = books.pairs, books.agreed
        self._labels, self._right, self._right_before = books.labels, books.right, books.right_before
        self.counters: Counters = books.blocks.counters
        self._told: TrialReport | None = None  # since the last change: with many pairs waiting it takes milliseconds

    def fits(self, entity: str, start: float) -> bool:
        """Whether a window whose first row is of `start` (seconds) begins after the entity's last counted one, or
        its clock was set back since."""
        end = self._ends.get(entity)
        return end is None or start > end or self.set_back(entity, start)

    def set_back(self, entity: str, start: float) -> bool:
        """Whether the entity's clock was set back, so that nothing would count until it had caught up: no window comes
        again that lies so far behind."""
        end = self._ends.get(entity)
        return end is not None and start < end - BEHIND

    def pair(self, entity: str, end: float, pair: Pair) -> bool:
        """Counts a pair of a window that ends at `end` (seconds); False if there is no room for it."""
        if entity not in self._ends and len(self._ends) >= ENTITIES:
            return False
        if len(self._queues.get(entity, ())) >= WAITING or self._queued >= WAITING_ALL:
            return False
        self._told = None
        self._ends[entity] = end
        self._pairs += 1
        self._agreed += pair.new == pair.old
        outcome = _outcome(self.about.metric, pair)
        if outcome is None:
            self._waiting[pair.id] = entity
        else:
            self._seen[pair.id] = pair
            if len(self._seen) > SEEN:
                self._seen.popitem(last=False)
        if self.about.metric != "guardrails":
            self._queues.setdefault(entity, []).append(pair if outcome is None else outcome)
            self._queued += 1
            self._drain(entity)
        return True

    def label(self, prediction_id: str, label: str) -> bool:
        """What a prediction really was; False if no pair is of it, or its label was there before."""
        entity = self._waiting.pop(prediction_id, None)
        pair = self._seen.pop(prediction_id, None) if entity is None else self._resolve(entity, prediction_id, label)
        if pair is None:
            return False
        self._told = None
        self._labels += 1
        self._right += pair.new == label
        self._right_before += pair.old == label
        return True

    def worst(self) -> Counters:
        """The counters if every label that is missing spoke against the candidate."""
        counter = BlockCounter(self._counter.checkpoint())
        for entity, queue in self._queues.items():
            counter.push(entity, [row if isinstance(row, int) else 1 for row in queue])
        return counter.checkpoint().counters

    def unlabelled(self) -> tuple[str, ...]:
        """The predictions whose label would still be taken."""
        return (*self._waiting, *self._seen)

    def books(self) -> Books:
        """Everything, to be kept; of the pairs that wait for nothing only the newest."""
        entities = {name: Stretch(end, tuple(self._queues.get(name, ()))) for name, end in self._ends.items()}
        seen = tuple(self._seen.values())[-SEEN_KEPT:]
        return Books(
            self.about, self._counter.checkpoint(), entities, seen,
            self._pairs, self._agreed, self._labels, self._right, self._right_before,
        )  # fmt: skip

    def report(self) -> TrialReport:
        """What the pairs say, for the core."""
        if self._told is None:
            self._told = self._report()
        return self._told

    def _report(self) -> TrialReport:
        about, counters = self.about, self.counters
        worst = self.worst() if self._queues else counters
        return TrialReport(
            Digest(about.manifest), Digest(about.against), about.retry, about.metric, about.block,
            plus=counters.plus, zero=counters.zero, minus=counters.minus,
            pairs=self._pairs, agreed=self._agreed,
            labels=self._labels, right=self._right, right_before=self._right_before,
            waiting=self._queued,
            worst=(worst.plus, worst.zero, worst.minus),
        )  # fmt: skip

    def _resolve(self, entity: str, prediction_id: str, label: str) -> Pair | None:
        queue = self._queues[entity]
        for at, row in enumerate(queue):
            if isinstance(row, Pair) and row.id == prediction_id:
                queue[at] = (row.new != label) - (row.old != label)
                self._drain(entity)
                return row
        return None

    def _drain(self, entity: str) -> None:
        """Hands the outcomes that nothing holds up to the blocks, in order."""
        queue = self._queues[entity]
        held = next((at for at, row in enumerate(queue) if isinstance(row, Pair)), len(queue))
        ready = [row for row in queue[:held] if isinstance(row, int)]
        if ready:
            self.counters = self._counter.push(entity, ready)
        self._queues[entity] = queue[held:]
        self._queued -= held
        if held == len(queue):
            del self._queues[entity]


def _outcome(metric: Evidence, pair: Pair) -> int | None:
    """D of a pair, None where only a label can tell."""
    if pair.new == pair.old:
        return 0
    if metric == "labels":
        return None
    return int(pair.old is not None)  # where the incumbent had no answer, there is none to differ from
