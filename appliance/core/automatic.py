"""The owners' side of releases that the core may sign by itself: allowed for a model, or ended, by people's signatures.

The terms are read here, out of a release whose manifest people signed: what the core says of it is held to that.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance.api import Api
from appliance.core.key_ring import KeyRing
from appliance.core.signing_desk import Trust, hand_in, lacks_of, public
from appliance.errors import Trouble
from core.orders import AutoKey, Automatic
from core.release import automatic
from core.release.signing import Drafts
from sync import chunks
from sync.manifest import terms_of
from sync.names import ModelName


@dataclass(frozen=True)
class Told:
    """What was signed: for `on` the release whose terms hold, else those that are revoked with it once it is in force;
    and which signatures are missing."""

    text: tuple[str, ...]
    lacks: tuple[str, ...]
    keys: tuple[str, ...]  # ids of those that signed here
    releases: tuple[str, ...]


def allow(api: Api, folder: Path, model: ModelName, actor: str, now: float) -> Told:
    """Lets the core sign releases of a model that differ from the newest that people signed in nothing but what was
    learned."""
    ring, trust = KeyRing(folder), Trust.read(api)
    ring.check(trust.files)
    number, digest = automatic.model_release(trust.files, model)
    payload = base64.b64decode(api.get(f"/v1/releases/{model}/{number}")["manifest_base64"])
    if chunks.digest(payload) != digest:
        raise Trouble(f"the core sent another manifest of {model} {number} than people signed: nothing was signed")
    terms = terms_of(payload)
    automatic.check_terms(trust.files, model, terms)  # before the core makes a key for it
    key = public(api.order(AutoKey(actor=actor, model=model)))

    def make(until: datetime) -> Drafts:
        return automatic.opting_in(trust.files, model, key, terms, until)

    text = (
        f"from now on the core signs releases of {model} by itself, with a key of its own ({key.keyid[:12]})",
        f"  as far as every gate passes them and they differ from release {number} in nothing but what was learned:",
        "  bindings, classes, uplink, limits and requirements stay, or a person signs; devices hold it to that",
        f"  honest word: who breaks into the core may then put any weights they like under {model}, and nothing else",
    )
    return _done(api, ring, trust, model, make, text, (f"{model}@{number}",), actor, now)


def end(api: Api, folder: Path, model: ModelName, actor: str, now: float) -> Told:
    """Ends that: what the core alone had signed is revoked; what people approved besides stays."""
    ring, trust = KeyRing(folder), Trust.read(api)
    ring.check(trust.files)
    alone = sorted(number for named, number in automatic.by_core(trust.files) if named == model)

    def make(until: datetime) -> Drafts:
        return automatic.opting_out(trust.files, model, until)

    gone = tuple(f"{model}@{number}" for number in alone)
    text = (
        f"the core signs no release of {model} by itself any more",
        f"  revoked with it, for only the core had signed them: {', '.join(gone) or 'none'}",
    )
    return _done(api, ring, trust, model, make, text, gone, actor, now, on=False)


def _done(
    api: Api, ring: KeyRing, trust: Trust, model: ModelName, make: Callable[[datetime], Drafts], text: tuple[str, ...],
    releases: tuple[str, ...], actor: str, now: float, *, on: bool = True,
) -> Told:  # fmt: skip
    subject = f"auto {'on' if on else 'off'} {model}"
    drafts, ids = trust.signed(subject, make, ring.signers(), now)
    result = hand_in(api, ring, Automatic(actor=actor, model=model, on=on, metadata=drafts), drafts)
    return Told(text, lacks_of(result), ids, releases)
