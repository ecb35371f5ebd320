"""What the core is told: the whole reported state, signed, whenever it is no longer true; and records, until
they are committed there."""

from __future__ import annotations

import math

from edge.agent import gathering, splitting
from edge.agent.house import House
from edge.overflow import CAPACITY
from edge.states import Deployment, Phase, Slot
from sync import codec, records, roles, topics
from sync.commands import ANSWER
from sync.errors import Malformed
from sync.messages import METRICS, REPORTED_TYPE, SAMPLE, Record, Reported, Status
from sync.names import Digest, Kind, ModelName
from sync.reports import ModelReport, Release

RESEND = 30.0  # seconds after which a record that was not acknowledged is sent again ...
RESEND_LARGE = 600.0  # ... and what is large; of each such kind only the oldest, the core waits for it
LARGE = frozenset((SAMPLE, ANSWER, METRICS))
TRIES = 8  # sendings that the core answered with the number right before, after which a record is given up
PAUSE = 1.0  # seconds between two reports of mere progress: each is signed, numbered and synced to the disk
FEW = 4  # of each kind that are said again at once to a core that is back; its answers call for the rest
IN_FLIGHT = 100  # records sent and not acknowledged, at most; messages that the broker has not even confirmed


class Reporter:
    """Remembers what was sent in this session; everything else comes from the house."""

    def __init__(self) -> None:
        self._sent: dict[tuple[Kind, int], float] = {}
        self._vain: dict[Kind, tuple[int, int]] = {}  # the oldest record of a kind, and how often it was sent in vain
        self._told = float("-inf")  # when the state was last sent ...
        self._progress: dict[ModelName, tuple[object, ...]] = {}  # ... and how far each model was
        self._unsaid: int | None = -1  # the session in which it could not be
        self._said: tuple[int, int] | None = None  # the outbox as it was when all of it that was due had been sent ...
        self._looked = self._due = float("-inf")  # ... when that was, and when the first of it is due again
        self._first = math.inf  # when the first of what a core that is back is told at once was sent

    def session_opened(self, house: House, now: float) -> None:
        """Status and the whole state, anew: the broker may have lost both."""
        identity = house.identity
        session = house.journal.next("session")
        status = Status("online", now, house.box.boot, session)
        house.send(topics.status(identity.tenant, identity.device), codec.encode(status), retain=True)
        self._sent.clear()
        self._said = None
        house.dirty = True

    def tell(self, house: House, now: float) -> None:
        """Sends what is due; nothing while the link is down, or has not got rid of what it was given: behind that it
        would wait all the same, again and again, in memory, and a slow line would carry the same records for ever."""
        if not house.line.up or (not house.line.keeps and house.outside.unconfirmed() >= IN_FLIGHT):
            return
        progress = _progress(house)
        if house.dirty or (progress != self._progress and abs(now - self._told) >= PAUSE):
            identity, self._told = house.identity, now
            envelope = roles.sign(reported(house, now), REPORTED_TYPE, identity.signing_key)
            self._progress, house.dirty = progress, False
            if house.time.unset and house.time.signed:
                house.journal.set_counter("time", math.ceil(now))  # a later start must not report an earlier time
            self._state(house, topics.reported(identity.tenant, identity.device), envelope, now)
        self._forward(house, now)

    def _state(self, house: House, topic: str, envelope: bytes, now: float) -> None:
        """What the broker does not take is told once in a session, by a record, which is smaller."""
        line = house.line
        if line.fits(topic, envelope):
            house.send(topic, envelope, retain=True)
        elif self._unsaid != line.session:
            self._unsaid = line.session
            text = f"the report has {len(envelope)} bytes and is not sent: the broker takes packets of {line.limit}"
            house.events.report(now, "report-too-large", text, severity="alarm")

    def _forward(self, house: House, now: float) -> None:
        mark, unsaid = house.outbox.mark(), False
        if mark == self._said and (house.line.keeps or self._rests(house, now)):
            return  # thousands of records need not be read for each chunk that comes
        pending = house.outbox.pending(CAPACITY if house.line.keeps else IN_FLIGHT)
        self._sent = {(k, n): self._sent[k, n] for k, n, _ in pending if (k, n) in self._sent}
        oldest = {kind: n for kind, n, _ in reversed(pending)}
        for kind in oldest.keys() - {k for k, (n, _) in self._vain.items() if oldest.get(k) == n}:
            self._vain[kind] = (oldest[kind], 0)
            house.outbox.answer(kind)  # what it said of the one before
        for kind, n, document in pending:
            last = self._sent.get((kind, n))
            pause = _pause(kind)
            # A clock that was set back keeps nothing waiting.
            # A slow line still carries it to the core that is back.
            under_way = kind in LARGE and house.outside.unconfirmed()
            first = n < oldest[kind] + FEW
            lost = last is not None and not under_way and first and house.core.again(last, now)
            early = last is not None and 0 <= now - last < pause and not lost
            if early or (last is not None and kind in LARGE and n != oldest[kind]):
                continue
            if n == oldest[kind] and self._given_up(house, kind, n, now):
                continue
            try:
                sealed = _sealed(house, kind, document)
            except Malformed as error:
                house.outbox.quarantine(kind, n, f"the disk changed it: {error}", now)
                continue
            if sealed is None:
                unsaid = True
                continue  # nobody could read it yet; an assignment brings the key
            topic = topics.up(house.identity.tenant, house.identity.device, kind)
            if not house.line.fits(topic, sealed):
                house.outbox.quarantine(kind, n, f"the broker takes packets of {house.line.limit} bytes at most", now)
                continue
            self._sent[kind, n] = now
            house.send(topic, sealed)
        self._said, self._looked = None if unsaid else mark, now
        waits = {(k, n): at for (k, n), at in self._sent.items() if k not in LARGE or n == oldest[k]}
        self._due = min((at + _pause(k) for (k, _), at in waits.items()), default=math.inf)
        self._first = min((at for (k, n), at in waits.items() if n < oldest[k] + FEW), default=math.inf)

    def _rests(self, house: House, now: float) -> bool:
        """Whether nothing of what was sent is due again."""
        return self._looked <= now < self._due and not house.core.again(self._first, now)

    def _given_up(self, house: House, kind: Kind, n: int, now: float) -> bool:
        """Whether a record that is due again is one the core can never take in: it heard it, and stood right before it
        each time. A core that is away, or that a line kept it from, says nothing, and nothing is counted."""
        if house.outbox.answer(kind) == n - 1:
            self._vain[kind] = (n, self._vain[kind][1] + 1)
        if self._vain[kind][1] < TRIES:
            return False
        house.outbox.quarantine(kind, n, f"the core stood right before it after each of {TRIES} sendings", now)
        del self._vain[kind]
        return True


def _progress(house: House) -> dict[ModelName, tuple[object, ...]]:
    """Coarse progress, so that `reported` is not rewritten with every answer (by powers of two), label or pair."""
    found: dict[ModelName, tuple[object, ...]] = {}
    for model, d in house.deployments.items():
        answers = house.serving.health(model).answers.bit_length()
        told = house.evidence.labelled(model, d.serving.release.number) if d.serving else None
        labels = (told.labels // 50, round(10 * told.right / told.labels)) if told else ()
        trial = house.evidence.trials.report(model)
        blocks = (trial.manifest, trial.retry, trial.metric, trial.plus, trial.zero, trial.minus) if trial else ()
        found[model] = (answers, labels, blocks, splitting.progress(house, d))
    return found


def _pause(kind: Kind) -> float:
    return RESEND_LARGE if kind in LARGE else RESEND


def _sealed(house: House, kind: Kind, document: bytes) -> bytes | None:
    """The record as it leaves: sealed to the newest key that is one, so that nothing said here is ever in the clear on
    the uplink; None while there is none (a device enrolled by an older core, before its first assignment). Raises
    Malformed for what is no record (any more)."""
    if kind == SAMPLE:
        return document  # sealed to the tenant's other key when it was made
    identity = house.identity
    given = (house.assignment.reports_key if house.assignment else "", identity.reports_key)
    record = codec.decode(Record, document, len(document))
    for key in filter(None, given):
        try:
            return codec.encode(records.seal(record, identity.tenant, identity.device, kind, key))
        except Malformed:
            continue  # of a core that gave no key: the one of the enrolment still opens there
    return None


def reported(house: House, now: float) -> Reported:
    """The whole state of this device, with the next durable number."""
    identity = house.identity
    seen = house.journal.counter("desired_seq")
    lookups, config = gathering.reports(house)
    missing = {d.blob.sealed: d.missing for d in house.downloads.values() if d.missing}
    return Reported(
        tenant=identity.tenant,
        device=identity.device,
        epoch=identity.epoch,
        seq=house.journal.next("reported_seq"),
        ts=now,
        boot=house.box.boot,
        seen=seen,
        models={m: _model(house, d) for m, d in house.deployments.items()},
        have=house.artifacts.have(),
        missing=missing,
        agent=house.box.agent_version,
        key_protection=identity.key_protection,
        clock="unset" if house.time.unset or house.clock_is_off(now) else "set",
        trust=house.journal.high_water(),
        lookups=lookups,
        config=config,
        line=house.line.meter.report(now),
        certificate=identity.fingerprint,
    )


def overview(house: House) -> dict[str, object]:
    """The state as plain values, for people on this device (`/v1/status`); costs no number."""
    identity = house.identity
    lookups, config = gathering.reports(house)
    variables = dict(house.pieces.lookups.config.variables)
    return {
        "tenant": identity.tenant,
        "device": identity.device,
        "agent": house.box.agent_version,
        "boot": house.box.boot,
        "uplink": "up" if house.line.up else "down",
        "assignment": house.journal.counter("desired_seq"),
        "key_protection": identity.key_protection,
        "labels": sorted(house.box.labels),
        "outbox": {"dropped": house.outbox.dropped(), "quarantined": house.outbox.aside()},
        "why": codec.builtins(house.journal.why()),
        "lookups": codec.builtins(lookups),
        "config": {"variables": variables, **(codec.builtins(config) if config else {})},
        "models": {str(m): codec.builtins(_model(house, d)) for m, d in house.deployments.items()},
    }


def _model(house: House, d: Deployment) -> ModelReport:
    health = house.serving.health(d.model)
    return ModelReport(
        phase=d.phase.value,
        since=d.since,
        serving=_release(d.serving) if d.phase is not Phase.REVERTING else None,
        candidate=_release(d.candidate),
        previous=tuple(s.release for s in d.previous),
        validated=d.validated,
        answers=health.answers,
        errors=health.errors,
        reason=d.reason,
        wanted=Digest(d.order.manifest) if d.order else None,
        drift=house.evidence.drift(d.model),
        labelled=house.evidence.labelled(d.model, d.serving.release.number) if d.serving else None,
        trial=house.evidence.trials.report(d.model),
        split=splitting.report(house, d),
        road=house.evidence.road(d.model),
        quarantined={q.manifest: q.retry for q in house.journal.quarantined(d.model)},
    )


def _release(slot: Slot | None) -> Release | None:
    return slot.release if slot else None
