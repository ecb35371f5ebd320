"""The books against which a history is audited: what producers were told is kept, what the core has, what may only
rise, and who serves. `check` holds after every step, `settled` once everything has healed."""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any

from core.ingest.spool import Entry
from sync import codec
from sync.errors import Malformed
from sync.messages import ALARM, CSR, EVENT, METRICS, SAMPLE, WHY, DeviceEvent, Record, SampleBatch
from sync.names import Kind
from sync.performance import Interval
from sync.reports import WhyCard
from sync.topics import GAP
from tests.edge.world import DEVICE, MODEL
from tests.faults.tenant import Tenant, Written

EVERY = 1_000_000  # events, records
OTHER = Kind("evidence")  # a kind that no core knows: it keeps that something came
KINDS = (ALARM, EVENT, METRICS, SAMPLE, WHY, CSR, OTHER)


class Ledger:
    """Of one tenant from now on; what was told before is settled."""

    def __init__(self, tenant: Tenant, artifacts: frozenset[str]) -> None:
        self.tenant, self._artifacts = tenant, artifacts
        self._marks: dict[str, int] = {}
        self._poison: set[tuple[str, int]] = set()
        self._events_before = {e.id for e in tenant.core.catalog.events.newest(EVERY)}
        self._received_before = {kind: self._received(kind) for kind in KINDS}
        self._unread = 0  # of the witness's records, whose number is known already

    def poison(self, written: Written) -> None:
        """This record can never be taken in: a gap shall stand for it, and one event tell."""
        self._poison.add((written.kind, written.n))

    def owed(self) -> list[Written]:
        """All that was promised to be kept, but for poison."""
        return [w for w in self.tenant.box.owed if (w.kind, w.n) not in self._poison]

    # --- after each step ---

    def check(self) -> None:
        self._records()
        self._rises()
        if self.tenant.box.on:
            self.serves()

    def serves(self) -> None:
        """A model whose digest was approved answers, and it is the one that the journal names."""
        box = self.tenant.box
        loaded = box.house.serving.incumbent(MODEL)
        assert loaded is not None, "nobody answers"
        assert loaded.slot.release.artifact in self._artifacts, "what answers was never approved"
        assert box.answering == loaded.slot.release.number, "the answer is not that release's"
        state = box.state
        known = [slot.release for slot in (state.serving, *state.previous) if slot is not None]
        assert loaded.slot.release in known, "who answers is not who was journalled"

    def _records(self) -> None:
        """Each record that was promised is at the core once, or in the outbox once: never in neither, never two in
        the catalog. What the core says it has received has no hole."""
        kept = self._kept() if self.tenant.box.on else None
        here = self._committed()
        for kind in {w.kind for w in self.tenant.box.owed}:
            received = self._received(kind)
            numbers = [w.n for w in self.tenant.box.owed if w.kind == kind]
            first = self._received_before.get(kind, 0) + 1
            given = {*numbers, *(w.n for w in self.tenant.box.witness.denied if w.kind == kind)}
            assert numbers == sorted(set(numbers)), f"{kind}: a number was given out twice: {numbers}"
            assert set(range(first, max(numbers) + 1)) <= given, f"{kind}: a hole in {numbers}"
            assert received <= max(given), f"{kind}: {received} was never given out"
            for written in (w for w in self.owed() if w.kind == kind):
                count = here[kind, written.n]
                if written.n <= received:
                    assert count == 1, f"{kind} {written.n}: {count} times in the catalog"
                else:
                    assert count == 0, f"{kind} {written.n} is in the catalog, and not counted as received"
                    assert kept is None or (kind, written.n) in kept, f"{kind} {written.n} is with nobody"
        known = {(w.kind, w.n) for w in (*self.tenant.box.owed, *self.tenant.box.witness.denied)}
        assert here.keys() <= known, f"the core has what nobody told: {here.keys() - known}"

    def _kept(self) -> set[tuple[str, int]]:
        """The records in the outbox that are what they were when they were promised."""
        promised = {(w.kind, w.n): bytes(codec.encode(w.body)) for w in self.tenant.box.owed}
        found = set()
        for kind, n, document in self.tenant.box.house.outbox.pending(EVERY):
            try:
                body = bytes(codec.decode(Record, document).body)
            except Malformed:
                continue  # poison
            if body == promised.get((kind, n)):
                found.add((str(kind), n))
        return found

    def _committed(self) -> Counter[tuple[str, int]]:
        """(kind, number) of everything of this device's in the catalog since, by what it said and not by its number
        alone; a gap is nothing."""
        found: Counter[tuple[str, int]] = Counter()
        promised: dict[tuple[str, str], list[Written]] = {}
        events = [e for e in self.tenant.core.catalog.events.newest(EVERY) if e.id not in self._events_before]
        told = [e for e in events if e.source == DEVICE and "n" in e.facts and e.code != GAP]
        for written in self.tenant.box.owed:
            promised.setdefault(_seen_as(written), []).append(written)
        for event in told:
            for written in promised.get((event.code, _words(event)), ()):
                found[written.kind, written.n] += written.n == event.facts["n"]
        tallies = self._tallies()
        for written in self.tenant.box.owed:
            if isinstance(written.body, Interval):
                found[written.kind, written.n] += tallies[written.body.tally.answers]
            elif written.kind == SAMPLE:
                found[written.kind, written.n] += self._spooled(written)
            elif written.kind == CSR:  # its answer is a certificate: that it was heard is all there is to see
                found[written.kind, written.n] += written.n <= self._received(CSR)
        return +found

    def _spooled(self, written: Written) -> int:
        """How often this batch lies in the spool, and is known to."""
        core, body = self.tenant.core, written.body
        assert isinstance(body, SampleBatch)
        query = "SELECT count(*) FROM sample_batch WHERE device = ? AND n = ?"
        (known,) = core.catalog._db.execute(query, (DEVICE, written.n)).fetchone()
        if known:
            entry = Entry(DEVICE, self.tenant.box.identity.epoch, written.n)
            assert core.house.spool.get(MODEL, entry) == base64.b64decode(body.sealed), "another batch in its place"
        return int(known)

    def _tallies(self) -> Counter[int]:
        """How often the catalog has an interval of so many answers: each that is told here has a number of its own."""
        hours = self.tenant.core.catalog.performance.hours(DEVICE, None, 0.0)
        return Counter(hour.tally.answers for hour in hours)

    def _received(self, kind: str) -> int:
        return self.tenant.core.catalog.fleet.received(DEVICE, self.tenant.box.identity.epoch, kind)

    def _rises(self) -> None:
        """Versions, counters and numbers, on both sides: none ever falls."""
        for name, value in self._standing().items():
            assert value >= self._marks.get(name, value), f"{name} fell from {self._marks[name]} to {value}"
            self._marks[name] = value

    def _standing(self) -> dict[str, int]:
        fleet, box = self.tenant.core.catalog.fleet, self.tenant.box
        found = {f"received {kind}": self._received(kind) for kind in KINDS}
        told, row = fleet.assignment(DEVICE), fleet.device(DEVICE)
        found["assignment"] = told[1] if told else 0
        found["report"] = row.report.seq if row and row.report else 0
        if box.on:
            journal = box.house.journal
            found |= {f"mark of {role}": version for role, version in journal.high_water().items()}
            for name in ("epoch", "desired_seq", "reported_seq", "session"):
                found[name] = journal.counter(name)  # type: ignore[arg-type]
        return found

    # --- at the end ---

    def settled(self) -> None:
        """Everything is at the core; each poison was told once, and nothing else became a gap."""
        for kind in KINDS:
            numbers = [w.n for w in self.tenant.box.owed if w.kind == kind]
            assert not numbers or self._received(kind) >= max(numbers), f"{kind} is not all at the core"
        events = [e for e in self.tenant.core.catalog.events.newest(EVERY) if e.id not in self._events_before]
        told = Counter((e.facts["kind"], e.facts["number"]) for e in events if e.code == "record-poisoned")
        assert told == Counter(self._poison), f"poison: {self._poison}, told: {told}"
        gaps = [e for e in events if e.code == GAP]
        assert sum(e.facts["last"] - e.facts["first"] + 1 for e in gaps) == len(self._poison), gaps
        aside = {(str(kind), n) for kind, n, _, _ in self.tenant.box.house.outbox.quarantined()}
        assert aside <= self._poison and len(aside) == min(20, len(self._poison))


def _seen_as(written: Written) -> tuple[str, str]:
    """(code, words) of the event that a record becomes in the catalog."""
    body = written.body
    if written.kind == WHY and isinstance(body, WhyCard):
        return "release-refused", str(body.new.number) + body.text
    if written.kind in (ALARM, EVENT) and isinstance(body, DeviceEvent):
        return body.code, body.text
    return f"record-{written.kind}", str(written.n)


def _words(event: Any) -> str:
    if event.code == "release-refused":
        return str(event.facts["number"]) + str(event.text).rpartition(": ")[2]
    return str(event.facts["n"]) if event.code.startswith("record-") and event.code != "record-poisoned" else event.text
