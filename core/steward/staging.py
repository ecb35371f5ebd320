"""From a candidate to a release that awaits approval: its number, its sealed blobs, its manifest; and what it was made
of."""

from __future__ import annotations

from msgspec.structs import replace

from core import breaking
from core.handoffs import Candidate, Verdict
from core.release import registry
from core.steward.house import House
from core.steward.refusals import Refusal, declared_model
from sync.manifest import Manifest
from sync.names import DeviceId, ModelName

SHOWN = 5  # devices that a sentence names


def stage(house: House, candidate: Candidate, key: int, now: float, override: str = "") -> Manifest:
    """Stages candidate number `key` of the catalog; `override` tells who let it pass against a gate's word, and why.

    Blobs to disk first, then the rows that name them: a cut between leaves files nobody names. Call it inside a
    transaction. Raises Refusal for a model that is no longer declared and for other classes under the same major
    version, which nobody can overrule; Damaged for an artifact that is.
    """
    number = house.catalog.releases.next_number(candidate.model)
    model = declared_model(house, candidate.model)
    refuse_breaking(house, candidate.model, candidate.classes, model.major)
    staged = registry.stage(candidate, model, number, house.tenant, house.artifacts, house.random, now, override)
    for item in staged.blobs:
        house.blobs.put(item.blob.sealed, item.sealed)
        house.catalog.releases.keep_key(item.blob, item.key, candidate.model, number)
    house.catalog.releases.stage(staged.manifest, staged.payload, staged.digest, key, now)
    return staged.manifest


def judged(house: House, candidate: Candidate) -> Candidate:
    """The candidate with one more verdict against it if it answers other classes under the same major version. Raises
    Refusal for a model that is no longer declared."""
    if not candidate.accepted:
        return candidate
    major = declared_model(house, candidate.model).major
    said = _complaint(house, candidate.model, candidate.classes, major)
    if not said:
        return candidate
    return replace(candidate, accepted=False, verdicts=(*candidate.verdicts, Verdict("schema", "fail", said)))


def refuse_breaking(house: House, model: ModelName, classes: tuple[str, ...], major: int) -> None:
    """Raises Refusal for a release that would answer other classes than listeners know, without saying so."""
    said = _complaint(house, model, classes, major)
    if said:
        raise Refusal(breaking.CODE, said, f"with a higher major version train anew: `falaj train {model}`")


def _complaint(house: House, model: ModelName, classes: tuple[str, ...], major: int) -> str:
    known = breaking.known(house.catalog.releases.newest_approved(model))
    return breaking.complaint(model, classes, major, known)


def tell_learned(house: House, candidate: Candidate, key: int, now: float) -> None:
    """Whose windows a candidate was made of: one device with more than half of them is pointed out, and so are those
    that were left out."""
    learned = candidate.learned
    total, strange = sum(learned.fit.values()), sum(learned.strange.values())
    if not total and not strange:
        return
    text = f"candidate {key} learned from {total} windows of the field"
    text += f": {_shares(learned.fit)}" if total else ""
    if strange:
        text += f"; {strange} were left out, labelled as no row is: {_shares(learned.strange)}"
    if learned.surplus:
        names, count = ", ".join(learned.surplus), sum(learned.surplus.values())
        text += f"; {count} of {names} were left out: no device outweighs all others"
    lopsided = len(learned.fit) > 1 and 2 * max(learned.fit.values()) > total
    house.event(
        now, "learned-from-field", text, model=candidate.model,
        severity="notice" if strange or lopsided or learned.surplus else "info", candidate=str(key),
        judged=str(sum(learned.gate.values())),
    )  # fmt: skip


def _shares(counts: dict[DeviceId, int]) -> str:
    """`watch-1 60 %, watch-2 40 %`: the largest first."""
    total, shown = sum(counts.values()), sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    words = [f"{name} {count / total:.0%}" for name, count in shown[:SHOWN]]
    return ", ".join(words) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
