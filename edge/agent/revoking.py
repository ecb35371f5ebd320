"""What this device hears of revocations: a release that is not among the signed ones any more answers no more, is not
tried and is never gone back to, whatever the assignment says, also offline from then on.

The newest signed metadata is looked at whenever some has come. Bad or missing files are no verdict: they are asked for
again, and what serves goes on. What has expired is told, for a revocation could not be heard meanwhile; where that is
of one model alone, the others are judged.
"""

from __future__ import annotations

from edge import roots, slots, trust
from edge.agent import fetching, trusting
from edge.agent.house import House
from edge.agent.leaving import give_up
from edge.states import Deployment, Event, Phase
from edge.verdicts import FOR_GOOD, Quarantined
from sync.errors import SyncError
from sync.names import Digest, ModelName

_ON_TRIAL = frozenset({Phase.FETCHING, Phase.STAGED, Phase.PROVING, Phase.SHADOW})


def look_after(house: House, now: float) -> None:
    """Judges all releases held here, once for each news. Nothing while the clock is off: tuf could not tell."""
    known, held = house.trust, _held(house)
    news = known.news
    if not news.unread or now < news.again or not held or house.clock_is_off(now):
        return
    if roots.behind(known.root, known.index):
        return  # roots are followed one by one; under an older one, newer metadata would seem to be somebody else's
    wanted = (name for name in trust.wanted(known.index, known.files, ()) if not name.endswith(".root.json"))
    lacking = [name for name in wanted if name not in known.files]
    if lacking:
        fetching.ask_for(house, lacking, now)
        return
    news.unread = False
    try:
        standing = trust.revoked(known.folder, known.root, known.files, house.journal.high_water(), held, now)
    except trust.DiskRefused:
        news.unread, news.again = True, now + fetching.RETRY
        return
    except trust.Expired as error:
        trusting.expired(house, error, now)
        return
    except trust.Incomplete:
        return  # whatever comes next is news again
    except SyncError as error:
        known.forget()
        news.unread, news.again = True, now + fetching.RETRY
        trusting.refuse(house, error, now)
        return
    trusting.adopt(house, standing.root, now)  # before the mark: under a newer root it may be lower
    trusting.tidy(house)
    if standing.versions != house.journal.high_water():
        news.refused.clear()
        house.journal.raise_mark(standing.versions)
    for model, why in standing.expired.items():
        trusting.expired(house, trust.Expired(why), now, model)
    for model, number in standing.revoked:
        _revoke(house, model, number, held[model, number], now)


def _held(house: House) -> dict[tuple[ModelName, int], Digest]:
    """All releases that answer here, are tried, or can be gone back to."""
    return {
        (d.model, slot.release.number): slot.release.manifest for d in house.deployments.values() for slot in d.slots()
    }


def _revoke(house: House, model: ModelName, number: int, manifest: Digest, now: float) -> None:
    """The record goes, so that it can never be loaded; then whoever is left takes its place, or nobody."""
    d, reason = house.deployments[model], f"release {number} was revoked"
    house.journal.forget(model, number)
    artifact = next(slot.release.artifact for slot in d.slots() if slot.release.number == number)
    left = slots.forget(d, number)
    told: dict[str, str | int | float] = {"number": number, "manifest": str(manifest)}
    revoked = house.events.happened(now, "release-revoked", reason, model, "alarm", **told)
    d = house.write(left, Quarantined(artifact, manifest, FOR_GOOD, reason), says=revoked)
    bench = house.bench
    warm, shadow = bench.warm.get(model), bench.shadows.get(model)
    if warm is not None and warm.slot.release.number == number:
        bench.warm.pop(model)
    if shadow is not None and shadow[0].slot.release.number == number:
        bench.shadows.pop(model)
    house.blocked.drop(model)
    _settle(house, d, number, reason, now)


def _settle(house: House, d: Deployment, number: int, reason: str, now: float) -> None:
    """Who answers from now on is settled in REVERTING, as after every other failure."""
    answers = house.serving.incumbent(d.model)
    gone = answers is not None and answers.slot.release.number == number
    if d.phase in _ON_TRIAL:
        if gone or d.candidate is None or d.candidate.release.number == number:
            give_up(house, d, Event.WITHDRAWN, reason, now)
    elif d.phase is Phase.LIVE_SPLIT and gone:
        give_up(house, d, Event.WITHDRAWN, reason, now)
    elif d.phase in (Phase.STEADY, Phase.PROBATION) and d.serving and d.serving.release.number == number:
        give_up(house, d, Event.DEGRADED, reason, now)
