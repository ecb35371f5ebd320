"""From a candidate to a release that awaits approval: its number, its sealed blobs, its manifest."""

from __future__ import annotations

from core.handoffs import Candidate
from core.release import registry
from core.steward.house import House
from core.steward.refusals import declared_model
from sync.manifest import Manifest


def stage(house: House, candidate: Candidate, key: int, now: float, override: str = "") -> Manifest:
    """Stages candidate number `key` of the catalog; `override` tells who let it pass against a gate's word, and why.

    Blobs to disk first, then the rows that name them: a cut between leaves files nobody names. Call it inside a
    transaction. Raises Refusal for a model that is no longer declared, Damaged for an artifact that is.
    """
    number = house.catalog.releases.next_number(candidate.model)
    model = declared_model(house, candidate.model)
    staged = registry.stage(candidate, model, number, house.tenant, house.artifacts, house.random, now, override)
    for item in staged.blobs:
        house.blobs.put(item.blob.sealed, item.sealed)
        house.catalog.releases.keep_key(item.blob, item.key, candidate.model, number)
    house.catalog.releases.stage(staged.manifest, staged.payload, staged.digest, key, now)
    return staged.manifest
