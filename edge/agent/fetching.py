"""Gets a release onto the device: trust files until it is accepted, then chunks until every blob is whole.

Whatever the line or the broker does wrong here is transient: bad metadata is dropped and asked for again, so a
hostile broker can delay a release but never have a good one quarantined.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from edge import slots, trust
from edge.agent import loading, trusting
from edge.agent.house import House
from edge.agent.news import Hunt
from edge.download import Download
from edge.states import Deployment, Phase, Slot
from sync import chunks, topics
from sync.errors import SyncError, Untrusted
from sync.manifest import Blob
from sync.messages import ModelOrder
from sync.names import Digest, ModelName, TrustFile
from sync.reports import Release

AGAIN = 1.0  # seconds at least between two readings of trust files: whoever holds the line may always send another
RETRY = 5.0  # seconds until lacking or bad ones are asked for again, or nobody waits any more for all the index names
UNCHANGED = 300.0  # seconds until the same files are asked for and read once more: a clock may be set, a word be lost


def admit(house: House, d: Deployment, order: ModelOrder, now: float) -> bool:
    """The release as the signed metadata has it; the record is journalled before anything is fetched.

    Raises loading.Unsuited if it is signed and not for this device, or this CPU can run none of its variants.
    """
    if house.clock_is_off(now):
        return wait(house, d, "nothing is installed before the clock is right: check this device's time", now + RETRY)
    if not house.line.up or not _worth_reading(house, house.trust.hunts.setdefault(d.model, Hunt(now)), order, now):
        return False
    try:
        accepted = trust.accept(
            house.trust.folder, house.trust.root, house.trust.files, house.journal.high_water(),
            d.model, order.number, order.manifest, now,
        )  # fmt: skip
        if accepted.manifest.tenant != house.identity.tenant:
            raise Untrusted(f"the release is of tenant {accepted.manifest.tenant}")
    except trust.DiskRefused as error:
        house.put_off(d.model, error.code, str(error), now, "alarm")
        return False
    except trust.Incomplete as error:
        house.trust.hunts[d.model] = Hunt(now, (order.manifest, house.trust.news.came), now + UNCHANGED)
        if isinstance(error, trust.Expired):
            trusting.expired(house, error, now, d.model)
        return wait(house, d, str(error), now + AGAIN)
    except SyncError as error:
        house.trust.forget()
        wait(house, d, str(error), now + RETRY)
        trusting.refuse(house, error, now, d.model)
        return False
    house.trust.news.refused.clear()
    trusting.adopt(house, accepted.record.root, now)  # before the mark: under a newer root it may be lower
    if house.assignment is None:
        # The order was of a director that this very root replaces: the new one decides.
        return wait(house, d, "a new root names another director, whose order has not come", now + RETRY)
    loading.check_addressee(house, accepted.manifest)
    loading.check_bindings(accepted.manifest)
    if why := loading.config_complaint(accepted.manifest, house.pieces.lookups.config):
        text = f"under the config in force release {order.number}: {why}"
        if d.reason != text:
            house.write(replace(d, reason=text))
        house.put_off(d.model, "config-unfit", text, now, "alarm")
        return False
    variant = loading.variant_of(house, accepted.manifest)
    house.journal.accept(d.model, order.number, accepted.record, accepted.versions)
    trusting.tidy(house)
    release = Release(order.number, order.manifest, variant.blob.plain)
    house.trust.hunts.pop(d.model, None)
    house.write(replace(slots.admit(d, Slot(release, accepted.manifest, order.keys)), reason=""))
    house.outside.bindings_changed()  # without a model the bindings answer `no_model`, and nothing is missed later
    return True


def _worth_reading(house: House, hunt: Hunt, order: ModelOrder, now: float) -> bool:
    """Whether the files at hand may say something new of this release; those that lack are asked for. The index is but
    a hint, so a name in it that never comes is not waited for without end."""
    wanted = trust.wanted(house.trust.index, house.trust.files, [order.manifest])
    lacking = [name for name in wanted if name not in house.trust.files]
    if hunt.tried == (order.manifest, house.trust.news.came):
        ask_for(house, wanted if now >= hunt.again else lacking, now)
        return now >= hunt.again
    ask_for(house, lacking, now)
    return not lacking or now - hunt.since >= RETRY


def ask_for(house: House, names: Iterable[TrustFile], now: float) -> None:
    """Has the broker send these trust files (again); each is asked for every RETRY seconds at most."""
    asked = {name: at for name, at in house.trust.news.asked.items() if now - at < RETRY}
    due = [name for name in names if name not in asked]
    house.trust.news.asked = asked | dict.fromkeys(due, now)
    house.listen(*(topics.trust(house.identity.tenant, name) for name in due))


def fetch(house: House, d: Deployment, lacking: list[Blob], now: float) -> bool:
    """Keeps a window of chunks of each blob under way; True if one of them came to its end."""
    try:
        return any(under_way(house, blob, now, d.model) for blob in lacking)
    except OSError as error:
        house.put_off(d.model, "disk-refused", f"blob not moved into place: {error.strerror}", now, "alarm")
        return False


def under_way(house: House, blob: Blob, now: float, model: ModelName | None = None) -> bool:
    """Keeps a window of chunks of one blob under way; True if all have come: then it was moved into place. Raises
    OSError if the disk refuses."""
    download = house.downloads.get(blob.sealed)
    if download is None:
        download = house.downloads[blob.sealed] = Download(blob, house.artifacts.present(blob))
    if download.done:
        del house.downloads[blob.sealed]
        house.artifacts.finish(blob)
        return True
    if not house.line.up:
        return False
    again = download.stalled(now, _room(house, blob, now))
    if again:
        _ask(house, blob, again, now)  # subscribing anew has the broker send what it has
        house.dirty = True  # `missing` asks the core to publish them again
        waiting = len(download.asked)
        if download.stalls == 1:  # told once, however long it lasts
            house.events.report(now, "download-stalled", f"{waiting} chunks asked for have not come", model, "notice")
    _ask(house, blob, download.ask(now, _room(house, blob, now)), now)
    return False


def _room(house: House, blob: Blob, now: float) -> int:
    """How many chunks the line has room for; that it has none today is told once a day, and when it has again. What a
    folder brings is no line's."""
    if house.line.keeps:
        return len(blob.hashes)
    meter = house.line.meter
    waited = meter.waits
    room = meter.room(blob.chunk, now)
    if waited != meter.waits:
        house.dirty = True
        if meter.waits and not meter.told(now):
            text = f"the rest of what is fetched waits for tomorrow: {meter.daily} bytes a day may come"
            if meter.daily < blob.chunk:
                text = f"nothing can be fetched: a chunk has {blob.chunk} bytes, daily_bytes is {meter.daily}"
            house.events.report(now, "download-budget-spent", text, severity="notice")
    return room


def _ask(house: House, blob: Blob, indices: tuple[int, ...], now: float) -> None:
    """Subscribes to chunks, once they are paid for; what could not be is asked for after a stall."""
    if indices and (house.line.keeps or house.line.meter.pay(sum(chunks.span(blob, i)[1] for i in indices), now)):
        house.listen(*(topics.blob(house.identity.tenant, blob.sealed, i) for i in indices))


def drop(house: House, sealed: Digest) -> None:
    """This blob is not wanted any more; what came of it stays until the folder is cleared."""
    download = house.downloads.pop(sealed, None)
    if download is not None:
        house.unlisten(*(topics.blob(house.identity.tenant, sealed, i) for i in sorted(download.asked)))


def abandon(house: House, d: Deployment) -> None:
    """Nothing more is wanted of the release that was under way; what another model or a table waits for goes on."""
    if d.candidate is None:
        return
    others = [o.candidate for o in house.deployments.values() if o.model != d.model and o.phase is Phase.FETCHING]
    wanted = {sealed for slot in others if slot is not None for sealed in _sealed(slot)} | house.pieces.gathers
    for sealed in _sealed(d.candidate) - wanted:
        drop(house, sealed)


def _sealed(slot: Slot) -> set[Digest]:
    return {slot.manifest.golden.sealed, *(v.blob.sealed for v in slot.manifest.variants)}


def prune(house: House) -> None:
    """Rids the disk of blobs that nothing here may still need."""
    keep = set(house.downloads)
    for d in house.deployments.values():
        arms = (lane.slot for lane in d.lanes if not lane.fallen)
        for slot in (d.serving, d.candidate, *d.previous[: slots.PINNED], *arms):
            keep |= _sealed(slot) if slot is not None else set()
    pieces = (piece for held in house.pieces.held.values() for piece in (held.current, held.previous))
    keep.update(piece.blob.sealed for piece in pieces if piece is not None)
    keep.update(turned.piece.blob.sealed for turned in house.pieces.turned.values())
    house.artifacts.prune(keep)


def blobs(house: House, slot: Slot) -> tuple[Blob, Blob]:
    """What this device needs of a release: its variant and the golden vectors."""
    return loading.installed(slot).blob, slot.manifest.golden


def wait(house: House, d: Deployment, reason: str, until: float) -> bool:
    """Nothing moves before `until`; why not is told once."""
    if d.reason != reason:
        house.write(replace(d, reason=reason))
    house.blocked.until(d.model, until)
    return False
