"""One update from the order to the commit, told again and again with a disk that fails at its first touch, its second,
... until none is left: `python -m tests.faults.nth_stories STORY STRIDE FOLDER`, with the shim of `nth.py` preloaded.
`power` cuts the power instead; `migration`, `rotation` and `joining` have other beginnings.

Prints how many places were tried. Ends by AssertionError where a promise did not hold.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import TypeVar

from sqlcipher3 import dbapi2 as sqlcipher

from appliance.edge.state import EdgeFolder, keep
from appliance.keys import DeviceKeys
from core import orders
from core.catalog import open_catalog
from core.catalog.catalog import _migrate
from core.catalog.events import Events
from core.catalog.schema import MIGRATIONS, VERSION
from edge.journal import Journal
from sync.enrolment import EnrolAnswer
from sync.messages import EVENT, SAMPLE, DeviceEvent, SampleBatch
from tests.edge.device import committed
from tests.edge.world import DEVICE, MODEL, TENANT
from tests.faults.ledger import Ledger
from tests.faults.loop import Loop
from tests.faults.nth import Nth
from tests.faults.tenant import Prepared, Tenant, prepare

KEY = bytes(32)
ROUNDS = 8  # of one update; healing takes the rest
T = TypeVar("T")
REFUSED = (sqlite3.Error, sqlcipher.Error, OSError)


def error(tenant: Tenant, ledger: Ledger, nth: Nth, n: int) -> bool:
    """Fault 1: the n-th touch of the device's disk fails, the agent goes on. Whether there was an n-th."""
    nth.arm(n, "error")
    go_on(tenant, ledger, lambda: False)
    return nth.disarm()


def killed(tenant: Tenant, ledger: Ledger, nth: Nth, n: int) -> bool:
    """Fault 2: nothing reaches the disk any more from the n-th touch on, and the agent is gone."""
    nth.arm(n, "dead")
    go_on(tenant, ledger, lambda: nth.blown)
    return start_again(tenant, ledger, nth)


def killed_twice(tenant: Tenant, ledger: Ledger, nth: Nth, n: int) -> bool:
    """Fault 4: the start after the kill is killed too, at its own n-th touch (in a circle of 30)."""
    blown = killed(tenant, ledger, nth, n)
    if blown:
        tenant.box.cut_power()
        nth.arm(1 + n % 30, "dead")
        try:
            tenant.box.boot()
            go_on(tenant, ledger, lambda: nth.blown)
        except REFUSED:  # not even the start comes through: its process ends
            tenant.box.on = True
        start_again(tenant, ledger, nth)
    return blown


def core(tenant: Tenant, ledger: Ledger, nth: Nth, n: int) -> bool:
    """Fault 2 at the core: its disk fails from the n-th touch on, its process ends and is started anew."""
    nth.arm(n, "dead")
    with suppress(*REFUSED):  # as its process ends: the supervisor starts it anew
        go_on(tenant, ledger, lambda: nth.blown, audit=False)
    blown = nth.disarm()
    tenant.core.restart(tenant.hub)
    ledger.check()
    wish(tenant)  # whoever was not answered asks again
    return blown


def go_on(tenant: Tenant, ledger: Ledger, ended: Callable[[], bool], *, audit: bool = True) -> None:
    """The update, and records beside it; whoever asks is answered at every moment."""
    box = tenant.box
    wish(tenant)
    for i in range(ROUNDS):
        box.house.outbox.add(EVENT, DeviceEvent("beat", f"beat {i}", MODEL), box.now)
        box.house.outbox.add(SAMPLE, SampleBatch(MODEL, "personal", "ae", "AAAA"), box.now)
        tenant.deliver()
        box.live(1.0, asked=2)
        assert box.answering is not None, "nobody answers"
        tenant.deliver()
        tenant.core.tick(1.0)
        if ended():
            return
        if audit:
            ledger.check()


def wish(tenant: Tenant) -> None:
    """A person rolls release 1 out."""
    answer = tenant.core.order(orders.Force(model=MODEL, number=1, reason="a fault"))
    assert answer.ok or answer.code == "serves-everywhere", answer


def start_again(tenant: Tenant, ledger: Ledger, nth: Nth) -> bool:
    """The agent is gone, the disk works, it starts: somebody verified answers at once."""
    if tenant.box.on:
        tenant.box.cut_power()
    blown = nth.disarm()
    tenant.box.boot()
    ledger.check()
    return blown


def power(tenant: Tenant, ledger: Ledger, nth: Nth, n: int) -> bool:
    """Fault 3: the power is cut at the n-th touch. What the medium has by then is all there is: the image below the
    disk, copied as it is, without a word to the file system."""
    disk = Loop.around(nth.folder)
    nth.arm(n, "dead")
    go_on(tenant, ledger, lambda: nth.blown)
    blown = nth.disarm()
    disk.cut(tenant.box.cut_power)
    tenant.box.boot()
    ledger.check()
    return blown


STORIES = {"error": error, "killed": killed, "killed-twice": killed_twice, "core": core, "power": power}


def tell(story: str, stride: int, made: Prepared, folder: Path) -> int:
    """The story with n = 1, 1 + stride, ... until it comes to its end untouched; how many times."""
    for times, n in enumerate(count(1, stride)):
        here = folder / f"{story}-{n}"
        disk = Loop.new(here / "box") if story == "power" else None
        tenant = made.copy(here, Random(n))
        if disk is not None:
            disk.settle()
        ledger = Ledger(tenant, made.artifacts)
        nth = Nth(here / ("core" if story == "core" else "box"))
        try:
            blown = STORIES[story](tenant, ledger, nth, n)
            tenant.heal()
            ledger.check()
            ledger.settled()
            assert committed(tenant.box, 1)
        except BaseException:
            print(f"{story}: at touch {n}", file=sys.stderr)
            raise
        finally:
            nth.disarm()
        tenant.close()
        if disk is not None:
            disk.end()
        shutil.rmtree(here)
        if not blown:
            return times
    raise AssertionError("count ends")


def migrate(stride: int, folder: Path) -> int:
    """Fault 11: a catalog of the first schema is opened by this version, and killed at the n-th touch. The old schema
    or a newer one, never neither, and the row that was there is there."""
    for times, n in enumerate(count(1, stride)):
        path, nth = folder / f"old-{n}" / "catalog.db", Nth(folder / f"old-{n}")
        path.parent.mkdir()
        old = sqlcipher.connect(path, isolation_level=None)
        old.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
        _migrate(old, 0, {0: MIGRATIONS[0]})
        Events(old).add(1.0, "core", "kept", "from before")
        old.close()
        nth.arm(n, "dead")
        with suppress(*REFUSED):  # its process ends
            open_catalog(path, KEY).close()
        blown = nth.disarm()
        catalog = open_catalog(path, KEY)
        assert [e.code for e in catalog.events.newest()] == ["kept"]
        assert catalog._db.execute("PRAGMA user_version").fetchone()[0] == VERSION
        assert catalog._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        catalog.close()
        if not blown:
            return times
    raise AssertionError("count ends")


def rotate(stride: int, folder: Path, *, power: bool) -> int:
    """Fault 11: a new root is adopted, and at the n-th touch the device is killed, or its power cut: the old root with
    its mark and order, or the new one with its own; never a mixture, never neither."""
    before, after = {"root": 1, "timestamp": 90}, {"root": 2, "timestamp": 1}

    def begin(place: Path) -> Journal:
        journal = Journal.open(place / "journal.db")
        journal.adopt(b"old", before, orders_void=False)
        journal.take_assignment(b"order", 1, 7, 1.0)
        return journal

    def check(place: Path) -> None:
        journal = Journal.open(place / "journal.db")
        assert journal.put_aside is None
        found = (journal.root(), journal.high_water(), journal.assignment(), journal.counter("desired_seq"))
        assert found in ((b"old", before, b"order", 7), (b"new", after, None, 0)), found
        journal.close()

    def work(journal: Journal) -> None:
        journal.adopt(b"new", after, orders_void=True)

    return _again(stride, folder, power, begin, work, Journal.close, check)


def join(stride: int, folder: Path, *, power: bool) -> int:
    """Fault 11: a device joins anew, with other keys and another certificate, and at the n-th touch it is killed, or
    its power cut: all files of the old identity or all of the new one."""
    names = ("device.key", "sealing.key", "device.pem", "ca.pem", "root.json")

    def write(place: Path, which: str) -> None:
        keys = DeviceKeys(f"{which} key".encode(), f"{which} sealing".encode(), b"", b"")
        papers = (f"{which} pem", f"{which} ca", f"{which} root")
        keep(EdgeFolder(place), keys, EnrolAnswer(TENANT, DEVICE, 1 + (which == "new"), *papers, "host", 1))

    def begin(place: Path) -> Path:
        write(place, "old")
        return place

    def check(place: Path) -> None:
        own = EdgeFolder(place)
        which = ("old", "new")[own.enrolment().epoch - 1]
        for name in names:
            assert (own.identity / name).read_text().startswith(which), f"{name} is not of the {which} identity"

    return _again(stride, folder, power, begin, lambda place: write(place, "new"), lambda place: None, check)


def _again(
    stride: int, folder: Path, power: bool, begin: Callable[[Path], T], work: Callable[[T], None],
    end: Callable[[T], None], check: Callable[[Path], None],
) -> int:  # fmt: skip
    """Begins in a folder of its own, and breaks the work at its n-th touch, n = 1, 1 + stride, ... until it comes to
    its end; `check` holds after each. How many times."""
    for times, n in enumerate(count(1, stride)):
        here = folder / f"n-{n}"
        disk = Loop.new(here) if power else None
        here.mkdir(exist_ok=True)
        begun, nth = begin(here), Nth(here)
        if disk is not None:
            disk.settle()
        nth.arm(n, "dead")
        with suppress(*REFUSED):
            work(begun)
        if disk is None:
            end(begun)
            blown = nth.disarm()
        else:
            blown = nth.disarm()
            disk.cut(partial(end, begun))
        check(here)
        if disk is not None:
            disk.end()
        if not blown:
            return times
    raise AssertionError("count ends")


def main(story: str, stride: str, folder: str) -> None:
    place = Path(folder)
    match story:
        case "migration":
            touches = migrate(int(stride), place)
        case "rotation" | "rotation-power":
            touches = rotate(int(stride), place, power=story.endswith("power"))
        case "joining" | "joining-power":
            touches = join(int(stride), place, power=story.endswith("power"))
        case _:
            touches = tell(story, int(stride), prepare(place / "made"), place)
    print(json.dumps({"story": story, "touches": touches}))


if __name__ == "__main__":
    main(*sys.argv[1:])
