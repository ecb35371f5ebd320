"""What lies on the broker of sealed blobs: those that a device may need now, within the tenant's cap.

Needed is what a rollout names that no other has followed, unless it was revoked, what a device is told to run, and what
it says that it serves, tries or would go back to. All else is cleared (an empty retained message for each chunk), and
comes back when an assignment names it again. A lost session may have lost the clearing: for a while it is said again in
each new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.catalog.fleet import ALL, DeviceRow
from core.steward.house import House, PersistBroker
from core.steward.refusals import Refusal
from sync import topics
from sync.errors import Damaged
from sync.names import DeviceId, Digest, ModelName

WAY_OUT = "raise retained_bytes of [broker] in core.toml and restart the core, or revoke releases that nobody needs"
BACK = 2  # releases of a model that an honest device keeps to go back to
REPEATED = 86_400.0  # seconds in which a clearing is said again in each new session


def needed(house: House) -> set[Digest]:
    """Sealed digests of all that some device may fetch now."""
    releases = {(r.model, n) for _, r in house.catalog.fleet.rollouts(limit=ALL) for n in (r.number, r.previous) if n}
    releases -= house.catalog.releases.revoked()  # a rollout that ended so goes on nowhere
    for device in house.catalog.fleet.devices():
        if device.active:
            releases |= {(w.model, n) for w in house.catalog.fleet.wanted(device.device) for n in w.numbers}
            releases |= held(house, device)
    found = {row.blob.sealed for row in house.catalog.pieces.all_newest()}
    for model, number in releases:
        found |= house.catalog.releases.keys(model, number).keys()
    return found


def held(house: House, device: DeviceRow) -> set[tuple[ModelName, int]]:
    """What a device says that it serves, tries or keeps to go back to, of the models that it shall run: its word is its
    own, and it must not have the broker keep all that there ever was, nor be given what others run."""
    wanted = {one.model for one in house.catalog.fleet.wanted(device.device) if one.numbers}
    told = device.report.models if device.report else {}
    found = set()
    for model in wanted & told.keys():
        said = told[model]
        for release in filter(None, (said.serving, said.candidate, *said.previous[:BACK])):
            row = house.catalog.releases.by_manifest(release.manifest)
            if row is not None and row.model == model:
                found.add((model, row.number))
    return found


def check_room(house: House, digests: Iterable[Digest] = (), more: int = 0) -> None:
    """Raises Refusal if these blobs, `more` bytes and all that is needed besides are more than the broker may keep."""
    digests = tuple(digests)
    if not all(map(house.takes, digests)):
        raise Refusal("packet-too-large", _too_small(house), "raise its limit, or use the broker that falaj starts")
    total = more + sum(house.catalog.releases.blob_length(digest) for digest in {*digests, *needed(house)})
    if total > house.retained_bytes:
        raise Refusal("broker-full", _words(house, total), WAY_OUT)


def missed(house: House, device: DeviceId, missing: Mapping[Digest, tuple[int, ...]], now: float) -> None:
    """Publishes again what a device misses, if it is something that anybody may need: else whoever asks could have the
    broker keep all that there ever was."""
    if not missing:
        return
    house.forget_resent(now)
    ours = set(house.catalog.retained.here())
    if missing.keys() - ours:
        ours |= needed(house)  # of the whole fleet: once for all that a device asks for
    for digest, indices in missing.items():
        if digest not in ours:
            continue
        try:
            house.publish_missing(device, digest, indices, now)
        except Damaged as error:  # our disk's fault, and no reason not to hear what else the device says
            damaged(house, digest, str(error), now)


def damaged(house: House, digest: Digest, why: str, now: float) -> None:
    """This disk did not keep a blob: told once."""
    if digest not in house.memory.damaged:
        house.memory.damaged.add(digest)
        with house.catalog.transaction():
            house.event(now, "blob-damaged", why, severity="alarm")


def provide(house: House, digests: Iterable[Digest], now: float) -> None:
    """Publishes those of these blobs that the broker was not told to keep. What there is no room for is told once: its
    device goes on with what it has."""
    here = house.catalog.retained.here()
    total = sum(here.values())
    for digest in digests:
        if digest in here:
            continue
        length = house.catalog.releases.blob_length(digest)
        if total + length > house.retained_bytes:
            _full(house, total + length, now)
            continue
        total += length
        publish(house, digest, now)


def publish(house: House, digest: Digest, now: float) -> None:
    """All chunks of a blob, whole or not at all; one that is damaged here is told. In a transaction."""
    try:
        house.publish_blob(digest)
    except Damaged as error:  # the broker may still have it, and all else must go out
        house.event(now, "blob-damaged", str(error), severity="alarm")
        return
    house.actions.append(PersistBroker())


def restore(house: House, now: float) -> None:
    """In a new session: clears again what the last one may not have cleared, publishes again what is needed."""
    wanted = needed(house)
    stuck = {digest for digest in wanted if not house.takes(digest)}
    if stuck:
        with house.catalog.transaction():
            house.event(now, "packet-too-large", f"{_too_small(house)}: {len(stuck)} blobs stay here", severity="alarm")
    for digest in house.catalog.retained.clearing():
        if digest not in wanted:
            _clear(house, digest)
    with house.catalog.transaction():
        for digest in sorted(wanted):
            publish(house, digest, now)


def sweep(house: House, now: float) -> None:
    """Clears what nobody needs any more; to be called now and then."""
    if not house.link_up:
        return
    here = house.catalog.retained.here()
    stale = here.keys() - needed(house)
    with house.catalog.transaction():
        house.catalog.retained.forget(now - REPEATED)
        for digest in stale:
            _clear(house, digest)
            house.catalog.retained.clear(digest, now)
        if stale:
            size = sum(here[digest] for digest in stale) / 1e6
            house.event(now, "blobs-cleared", f"{len(stale)} blobs ({size:.1f} MB) that nobody needs left the broker")
            house.actions.append(PersistBroker())
    if sum(here.values()) <= house.retained_bytes:
        house.memory.crowded = False


def _clear(house: House, digest: Digest) -> None:
    size = house.catalog.releases.blob_size(digest)
    for index in range(size.chunks if size else 0):
        house.send(topics.blob(house.tenant, digest, index), b"", retain=True)


def _full(house: House, total: int, now: float) -> None:
    if not house.memory.crowded:
        house.memory.crowded = True
        house.event(now, "broker-full", f"{_words(house, total)}: {WAY_OUT}", severity="alarm")


def _too_small(house: House) -> str:
    return f"the broker takes packets of {house.limit} bytes at most, a chunk needs more"


def _words(house: House, total: int) -> str:
    allowed = house.retained_bytes / 1e6
    return f"the broker would have to keep {total / 1e6:.1f} MB of sealed blobs, {allowed:.1f} are allowed"
