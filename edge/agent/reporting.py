"""What the core is told: the whole reported state, signed, whenever it is no longer true; and records, until
they are committed there."""

from __future__ import annotations

from edge.agent.house import CLOCK_FLOOR, House
from edge.states import Deployment, Phase, Slot
from sync import codec, roles, topics
from sync.messages import REPORTED_TYPE, SAMPLE, ModelReport, Release, Reported, Status
from sync.names import Digest, Kind, ModelName

RESEND = 30.0  # seconds after which a record that was not acknowledged is sent again ...
RESEND_SAMPLE = 600.0  # ... and a batch of samples, which is large; of these only the oldest, the core waits for it
PAUSE = 1.0  # seconds between two reports of mere progress: each is signed, numbered and synced to the disk
IN_FLIGHT = 100  # records sent and not acknowledged, at most


class Reporter:
    """Remembers what was sent in this session; everything else comes from the house."""

    def __init__(self) -> None:
        self._sent: dict[tuple[Kind, int], float] = {}
        self._told = float("-inf")  # when the state was last sent

    def session_opened(self, house: House, now: float) -> None:
        """Status and the whole state, anew: the broker may have lost both."""
        identity = house.identity
        session = house.journal.next("session")
        status = Status("online", now, house.boot, session)
        house.send(topics.status(identity.tenant, identity.device), codec.encode(status), retain=True)
        self._sent.clear()
        house.dirty = True

    def tell(self, house: House, now: float) -> None:
        """Sends what is due; nothing while the link is down."""
        if not house.link_up:
            return
        progress = self._progress(house)
        if house.dirty or (progress != house.told and abs(now - self._told) >= PAUSE):
            identity, self._told = house.identity, now
            envelope = roles.sign(reported(house, now), REPORTED_TYPE, identity.signing_key)
            house.told, house.dirty = progress, False
            house.send(topics.reported(identity.tenant, identity.device), envelope, retain=True)
        self._forward(house, now)

    def _forward(self, house: House, now: float) -> None:
        pending = house.outbox.pending(IN_FLIGHT)
        self._sent = {(k, n): self._sent[k, n] for k, n, _ in pending if (k, n) in self._sent}
        oldest = next((n for kind, n, _ in pending if kind == SAMPLE), None)
        for kind, n, document in pending:
            last = self._sent.get((kind, n))
            pause = RESEND_SAMPLE if kind == SAMPLE else RESEND
            # A clock that was set back keeps nothing waiting.
            if last is not None and (0 <= now - last < pause or (kind == SAMPLE and n != oldest)):
                continue
            self._sent[kind, n] = now
            house.send(topics.up(house.identity.tenant, house.identity.device, kind), document)

    def _progress(self, house: House) -> dict[ModelName, tuple[object, ...]]:
        """Coarse progress, so that `reported` is not rewritten with every answer (by powers of two), label or pair."""
        found: dict[ModelName, tuple[object, ...]] = {}
        for model, d in house.deployments.items():
            answers = house.serving.health(model).answers.bit_length()
            told = house.labelled(model, d.serving.release.number) if d.serving else None
            labels = (told.labels // 50, round(10 * told.right / told.labels)) if told else ()
            trial = house.trials.report(model)
            blocks = (trial.manifest, trial.retry, trial.metric, trial.plus, trial.zero, trial.minus) if trial else ()
            found[model] = (answers, labels, blocks)
        return found


def reported(house: House, now: float) -> Reported:
    """The whole state of this device, with the next durable number."""
    identity = house.identity
    seen = house.journal.counter("desired_seq")
    missing = {d.blob.sealed: d.missing for d in house.downloads.values() if d.missing}
    return Reported(
        tenant=identity.tenant,
        device=identity.device,
        epoch=identity.epoch,
        seq=house.journal.next("reported_seq"),
        ts=now,
        boot=house.boot,
        seen=seen,
        models={m: _model(house, d) for m, d in house.deployments.items()},
        have=house.artifacts.have(),
        missing=missing,
        agent=house.agent_version,
        key_protection=identity.key_protection,
        clock="set" if now >= CLOCK_FLOOR else "unset",
        trust=house.journal.high_water(),
    )


def overview(house: House) -> dict[str, object]:
    """The state as plain values, for people on this device (`/v1/status`); costs no number."""
    identity = house.identity
    return {
        "tenant": identity.tenant,
        "device": identity.device,
        "agent": house.agent_version,
        "boot": house.boot,
        "uplink": "up" if house.link_up else "down",
        "assignment": house.journal.counter("desired_seq"),
        "key_protection": identity.key_protection,
        "outbox": {"dropped": house.outbox.dropped()},
        "why": codec.builtins(house.journal.why()),
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
        drift=house.drift(d.model),
        labelled=house.labelled(d.model, d.serving.release.number) if d.serving else None,
        trial=house.trials.report(d.model),
        road=house.road(d.model),
        quarantined={q.manifest: q.retry for q in house.journal.quarantined(d.model)},
    )


def _release(slot: Slot | None) -> Release | None:
    return slot.release if slot else None
