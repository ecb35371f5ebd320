"""Gets a release onto the device: trust files until it is accepted, then chunks until every blob is whole.

Whatever the line or the broker does wrong here is transient: bad metadata is dropped and asked for again, so a
hostile broker can delay a release but never have a good one quarantined.
"""

from __future__ import annotations

from msgspec.structs import replace

from edge import slots, trust
from edge.agent import intake, loading
from edge.agent.house import House
from edge.download import Download
from edge.states import Deployment, Slot
from sync import topics
from sync.errors import Damaged, SyncError, Untrusted
from sync.manifest import Blob
from sync.messages import ModelOrder, Release

AGAIN = 0.2  # seconds until trust files that had not arrived are looked at again
RETRY = 5.0  # seconds until bad ones are asked for again


def admit(house: House, d: Deployment, order: ModelOrder, now: float) -> bool:
    """The release as the signed metadata has it; the record is journalled before anything is fetched.

    Raises loading.Unsuited if it is signed and this CPU can run none of its variants.
    """
    lacking = trust.wanted(house.index, house.files, [order.manifest])
    house.listen(*(topics.trust(house.identity.tenant, name) for name in lacking))
    try:
        accepted = trust.accept(
            house.trust_folder, house.root, house.files, house.journal.high_water(),
            d.model, order.number, order.manifest,
        )  # fmt: skip
        if accepted.manifest.tenant != house.identity.tenant:
            raise Untrusted(f"the release is of tenant {accepted.manifest.tenant}")
    except trust.Incomplete as error:
        return _wait(house, d, str(error), now + AGAIN)
    except SyncError as error:
        house.files.clear()
        _wait(house, d, str(error), now + RETRY)
        if d.reason != str(error):
            house.event(now, f"refused-{error.code}", str(error), d.model, "alarm")
        return False
    intake.adopt(house, accepted.record.root, now)  # before the mark: under a newer root it may be lower
    if house.assignment is None:
        # The order was of a director that this very root replaces: the new one decides.
        return _wait(house, d, "a new root names another director, whose order has not come", now + RETRY)
    variant = loading.variant_of(house, accepted.manifest)
    house.journal.accept(d.model, order.number, accepted.record, accepted.versions)
    release = Release(order.number, order.manifest, variant.blob.plain)
    house.write(replace(slots.admit(d, Slot(release, accepted.manifest, order.keys)), reason=""))
    house.bindings_changed()  # without a model the bindings answer `no_model`, and nothing is missed later
    return True


def fetch(house: House, d: Deployment, lacking: list[Blob], now: float) -> bool:
    """Keeps a window of chunks under way; a whole blob is checked and moved into place."""
    tenant = house.identity.tenant
    for blob in lacking:
        download = house.downloads.get(blob.sealed)
        if download is None:
            download = house.downloads[blob.sealed] = Download(blob, house.artifacts.present(blob))
        if download.done:
            del house.downloads[blob.sealed]
            return _finish(house, d, blob, now)
        again = download.stalled(now) if house.link_up else ()
        if again:
            patterns = tuple(topics.blob(tenant, blob.sealed, i) for i in again)
            house.listen(*patterns)  # subscribing anew has the broker send what it has
            house.dirty = True  # `missing` asks the core to publish them again
            waiting = len(download.asked)
            house.event(now, "download-stalled", f"{waiting} chunks asked for have not come", d.model, "notice")
        house.listen(*(topics.blob(tenant, blob.sealed, i) for i in download.ask(now)))
    return False


def abandon(house: House) -> None:
    """Nothing more is wanted of what was under way."""
    tenant = house.identity.tenant
    for download in house.downloads.values():
        house.unlisten(*(topics.blob(tenant, download.blob.sealed, i) for i in sorted(download.asked)))
    house.downloads.clear()


def blobs(house: House, slot: Slot) -> tuple[Blob, Blob]:
    """What this device needs of a release: its variant and the golden vectors."""
    return loading.variant_of(house, slot.manifest).blob, slot.manifest.golden


def _finish(house: House, d: Deployment, blob: Blob, now: float) -> bool:
    try:
        house.artifacts.finish(blob)
    except Damaged as error:
        house.event(now, error.code, str(error), d.model, "alarm")
    except OSError as error:
        house.blocked[d.model] = now + RETRY
        house.event(now, "disk-refused", f"blob not moved into place: {error.strerror}", d.model, "alarm")
        return False
    return True


def _wait(house: House, d: Deployment, reason: str, until: float) -> bool:
    if d.reason != reason:
        house.write(replace(d, reason=reason))
    house.blocked[d.model] = until
    return False
