"""Attacks 9, 10, 11 and 13 on a whole device: the broker gives out other bytes, older ones, none that are newer, or
those of different days. The TUF client's own cases are in tests/edge/test_tuf_*.py; here is what devices make of them.

Each time the attacker has the broker to himself while release 3 is on its way to a device that serves release 2.
"""

from __future__ import annotations

import random
import shutil

import pytest

from core.release import publish
from sync import codec, topics
from sync.messages import TrustIndex
from sync.names import TrustFile
from tests.attacks.field import Field
from tests.edge.device import committed
from tests.edge.world import DAY, MODEL, NOW, TENANT, Core, Shipped

JUNK = random.Random(9).randbytes(4096)


def trust(name: str) -> str:
    return topics.trust(TENANT, TrustFile(name))


def newest(core: Core, role: str) -> str:
    """The file of a role's newest version, `timestamp.json` for that one."""
    return next(name for name in publish.current(core.files) if name.endswith(f"{role}.json") and "root" not in name)


def kept_back(field: Field) -> Shipped:
    """Release 3 is signed and published, and the device is off: what lies on the broker is the attacker's to change."""
    field.device.cut_power()
    return field.core.ship(3)


def on_again(field: Field, shipped: Shipped) -> None:
    """The device hears its order, and of the rest what the attacker left."""
    field.core.assign(shipped, field.device.identity)
    field.device.boot().settle(6, ask=0)


def serves_the_second(field: Field) -> bool:
    serving = field.device.state.serving
    return serving is not None and serving.manifest.number == field.device.answering == 2


def held(field: Field, mark: dict[str, int]) -> None:
    """Release 2 goes on, and nothing that was seen counts."""
    assert serves_the_second(field)
    assert field.device.house.journal.high_water() == mark


def comes_after_all(field: Field, shipped: Shipped) -> None:
    """Once the broker gives out what was signed, the release is installed: nothing of the attack stays behind."""
    core = field.core
    core.now = max(core.now, field.device.now)
    core.renew()
    core.publish_trust()
    core.retain(trust(f"{shipped.digest}.manifest"), shipped.manifest)
    for digest in shipped.sealed:
        core.publish_blob(shipped, digest)
    core.assign(shipped, field.device.identity)
    field.device.settle(400, ask=0)
    assert committed(field.device, 3)


def alarms(field: Field) -> list[str]:
    return [event.code for event in field.device.events() if event.severity == "alarm"]


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "model.motion", "manifest"])
def test_09_other_bytes_for_metadata_are_refused(field: Field, role: str) -> None:
    """With the device's own files lost, so that it needs each of them anew."""
    mark = field.device.house.journal.high_water()
    shipped = kept_back(field)
    shutil.rmtree(field.device.house.trust.folder)
    name = f"{shipped.digest}.manifest" if role == "manifest" else newest(field.core, role)
    field.core.hub.retained[trust(name)] = JUNK
    on_again(field, shipped)
    assert serves_the_second(field) and alarms(field) == ["refused-untrusted"]
    seen = field.device.house.journal.high_water()
    assert seen == mark if role != "manifest" else all(seen[name] >= version for name, version in mark.items())
    comes_after_all(field, shipped)


def test_09_other_bytes_for_chunks_are_refused(field: Field) -> None:
    shipped = kept_back(field)
    for digest in shipped.sealed:
        for topic in [t for t in field.core.hub.retained if f"/blob/{digest}/" in t]:
            field.core.hub.retained[topic] = JUNK
    on_again(field, shipped)
    assert serves_the_second(field)
    assert len(shipped.sealed) == 2 and alarms(field) == ["chunk-damaged"] * 2, "one of each file, however many chunks"
    comes_after_all(field, shipped)


@pytest.mark.parametrize("lost", [False, True], ids=["files-kept", "files-lost"])
def test_10_older_metadata_is_refused(field: Field, lost: bool) -> None:
    """Everything as it was before release 2; also where the device's trust files went with its disk's last minutes."""
    core, device = field.core, field.device
    mark = device.house.journal.high_water()
    shipped = kept_back(field)
    for name in (names := publish.current(field.before)):
        core.hub.retained[trust(name)] = field.before[name]
    core.hub.retained[trust("index")] = codec.encode(TrustIndex(names))
    if lost:
        shutil.rmtree(device.house.trust.folder)
    on_again(field, shipped)
    held(field, mark)
    assert alarms(field) == ["refused-untrusted"]
    comes_after_all(field, shipped)


@pytest.mark.parametrize(
    ("wiped", "replayed", "days", "answers"),
    [
        (("journal", "trust"), ("order", "metadata"), 0, 1),  # docs/security.md, "What is not protected"
        (("journal", "trust"), ("order", "metadata"), 8, None),
        (("journal",), ("order", "metadata"), 0, None),
        (("journal",), ("order",), 0, 1),  # the same
        (("journal",), ("order",), 8, None),
        (("trust",), ("order", "metadata"), 0, 2),
    ],
    ids=["both-in-a-week", "both-after-it", "journal", "journal-order-alone", "journal-order-after-it", "trust-files"],
)
def test_10_whoever_wipes_a_device_takes_it_back_a_week_and_no_more(
    field: Field, wiped: tuple[str, ...], replayed: tuple[str, ...], days: int, answers: int | None
) -> None:
    """The order and the metadata of the day of release 1, replayed to a device of which somebody took the places where
    it keeps what it has seen. Either of the two is enough to refuse the metadata, only the journal to refuse the order;
    without both it is a new device, and what bounds the attack is how long the order holds."""
    core, device = field.core, field.device
    device.cut_power()
    if "journal" in wiped:
        for path in device.folder.glob("journal.db*"):
            path.unlink()
    if "trust" in wiped:
        shutil.rmtree(device.house.trust.folder)
    if "metadata" in replayed:
        for name in (names := publish.current(field.before)):
            core.hub.retained[trust(name)] = field.before[name]
        core.hub.retained[trust("index")] = codec.encode(TrustIndex(names))
    core.desire(field.first)
    device.now += days * DAY
    device.boot().settle(12, ask=0)
    assert device.answering == answers
    if answers != 1:  # with the journal there the order is refused as well: two documents, one event each
        assert alarms(field) == ["refused-untrusted"] * (1 if "journal" in wiped else 2)


def test_11_while_time_stands_still_nothing_is_installed(field: Field) -> None:
    """All that the broker gives out has expired meanwhile: no verdict, no install, and the report says why."""
    core, device = field.core, field.device
    mark = device.house.journal.high_water()
    shipped = kept_back(field)
    core.renew(NOW - 30 * DAY)
    core.publish_trust()
    on_again(field, shipped)
    held(field, mark)
    assert "expired" in device.reported().models[MODEL].reason
    assert alarms(field) == ["trust-expired"]
    comes_after_all(field, shipped)


@pytest.mark.parametrize("role", ["snapshot", "model.motion"])
def test_13_files_of_different_days_are_refused(field: Field, role: str) -> None:
    """The name of today's file, with what the owner or the core signed on another day."""
    mark = field.device.house.journal.high_water()
    shipped = kept_back(field)
    old = next(name for name in field.before if name.endswith(f".{role}.json"))
    name = newest(field.core, role)
    field.core.hub.retained[trust(name)] = field.before[old]
    on_again(field, shipped)
    held(field, mark)
    assert alarms(field) == ["refused-untrusted"]
    comes_after_all(field, shipped)
