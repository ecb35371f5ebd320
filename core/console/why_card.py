"""Why a device gave a verdict against a release: the card it sent, ready to be written down. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from core.console import wording
from core.console.evidence import Meter, meter
from core.console.facts import Facts
from core.console.wording import Moment
from sync.names import DeviceId, Digest, ModelName
from sync.reports import Side, WhyCard


@dataclass(frozen=True)
class SideLine:
    """One of the two releases in figures; a figure that is not known is empty."""

    number: int
    digest: str
    full: str
    accuracy: str
    answers: str
    errors: str
    p99: str


@dataclass(frozen=True)
class Why:
    """The card. `meters` is empty where no pairs were counted; `next` says what answers now."""

    id: int
    device: str
    model: str
    at: Moment | None
    phase: str
    criterion: str
    code: str
    text: str
    new: SideLine
    old: SideLine | None
    blocks: str
    meters: tuple[Meter, ...]
    next: str


def whys(facts: Facts, now: float) -> tuple[Why, ...]:
    """Newest first."""
    return tuple(_why(key, device, card, now) for key, device, card in facts.whys)


def newest_against(facts: Facts, model: ModelName, manifest: Digest, device: DeviceId | None = None) -> int | None:
    """The id of the newest card against this release, of one device or of any."""
    for key, told_by, card in facts.whys:
        if (card.model, card.new.manifest) == (model, manifest) and device in (None, told_by):
            return key
    return None


def _why(key: int, device: DeviceId, card: WhyCard, now: float) -> Why:
    trial = card.trial
    returned = f"Returned to release {card.old.number}, which answers again." if card.old else "Nobody answers now."
    return Why(
        id=key,
        device=device,
        model=card.model,
        at=wording.moment(card.ts, now),
        phase=card.phase,
        criterion=wording.criterion(card.criterion),
        code=card.criterion,
        text=wording.sentence(card.text),
        new=_side(card.new),
        old=_side(card.old) if card.old else None,
        blocks=f"Worse in {trial.plus}, equal in {trial.zero}, better in {trial.minus} "
        f"of {wording.plural(trial.plus + trial.zero + trial.minus, 'block')} of {trial.block} input windows."
        if trial
        else "",
        meters=_meters(card),
        next=returned,
    )


def _meters(card: WhyCard) -> tuple[Meter, ...]:
    told = (("harm", card.log_harm, card.harm_at), ("safe", card.log_safe, card.safe_at))
    return tuple(meter(kind, value, at) for kind, value, at in told if value is not None and at is not None)


def _side(side: Side) -> SideLine:
    return SideLine(
        number=side.number,
        digest=wording.short(side.manifest),
        full=side.manifest,
        accuracy=wording.share(side.accuracy) if side.accuracy is not None else "",
        answers=wording.count(side.answers),
        errors=wording.count(side.errors),
        p99=f"{side.p99_ms:.2g} ms" if side.p99_ms else "",
    )
