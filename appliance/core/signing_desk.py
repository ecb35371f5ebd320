"""An owner at the core: what it shows of its trust, and how what they sign is made from that and handed in."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance.api import Api
from appliance.core.key_ring import KeyRing
from appliance.errors import Trouble
from core.orders import AnyOrder
from core.release import checking, metadata, signing
from core.release import layout as layouts
from core.release.layout import Layout
from core.release.signing import Drafts
from sync import roles


@dataclass(frozen=True)
class Trust:
    """What the core shows: metadata in force, and what waits for signatures."""

    files: dict[str, bytes]
    waiting: dict[str, dict[str, bytes]]

    @classmethod
    def read(cls, api: Api) -> Trust:
        found = api.get("/v1/trust")
        files = {name: base64.b64decode(text) for name, text in found["files"].items()}
        waiting = {one["subject"]: as_bytes(one["metadata"]) for one in found["waiting"]}
        return cls(files, waiting)

    def layout(self) -> Layout:
        root = metadata.root_in_force(self.files)
        if root is None:
            raise Trouble("this tenant has no root of trust yet: run `falaj trust init` first")
        return layouts.read(root)

    def signed(
        self, subject: str, make: Callable[[datetime], Drafts], signers: Iterable[roles.CryptoSigner], now: float
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """What `make` makes, signed: as others have signed it already if that is the same, else anew; and by whom."""
        drafts, waits = make(holds_until(now)), self.waiting.get(subject)
        if waits is not None and signing.ends(waits) <= holds_until(now) + checking.SLACK:
            again = make(signing.ends(waits))
            drafts = again if signing.same(again, waits) else drafts
        return signed_by(self.files, drafts, signers)


def signed_by(
    files: metadata.Files, drafts: Drafts, signers: Iterable[roles.CryptoSigner]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The drafts with the signatures of these, as text, and whose they are; raises Trouble where none of them is asked
    for."""
    given = {signer.public_key.keyid: signer for signer in signers}
    drafts = signing.sign(files, drafts, given.values())
    ids = {key.keyid for tallies in signing.tally(files, drafts).values() for one in tallies for key in one.signed}
    if not ids & given.keys():
        raise Trouble("none of your keys is asked for here: `falaj trust status` shows whose are; --keys names "
                      "another folder")  # fmt: skip
    return {name: data.decode() for name, data in drafts.items()}, tuple(sorted(ids & given.keys()))


def public(fields: dict[str, Any]) -> roles.Key:
    """A key of the core's own, out of its answer."""
    body = dict(fields)
    return roles.key_from_dict(body.pop("keyid"), body)


def hand_in(api: Api, ring: KeyRing, order: AnyOrder, drafts: Mapping[str, str]) -> dict[str, Any]:
    """The core's answer; what came in force by it is remembered."""
    result = api.order(order)
    if not result.get("waiting"):
        ring.in_force(as_bytes(drafts))
    return result


def lacks_of(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Which signatures the core still waits for, none once it is in force."""
    return tuple(result.get("waiting", {}).get("lacks", ()))


def as_bytes(texts: Mapping[str, str]) -> dict[str, bytes]:
    """Metadata out of its texts."""
    return {name: text.encode() for name, text in texts.items()}


def holds_until(now: float) -> datetime:
    """When what people sign at `now` (seconds since 1970) ends."""
    return metadata.later(now, signing.LIFE)
