"""Fault 10: the SQLite files of a device are damaged while it is off: bits turn over, the end of a write-ahead log is
gone, the shared memory beside it is. What can be seen to be damaged is put aside and told, nobody unverified ever
answers, and what is known elsewhere comes back.

A log without its end reads well: the file is the one of some time ago. The core, which knows what came after, tells.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from core import orders
from sync.messages import EVENT, DeviceEvent
from tests.edge.world import DEVICE, MODEL
from tests.faults.ledger import Ledger
from tests.faults.tenant import Box, Prepared, Tenant, assemble, prepare

FRAME = 24 + 4096  # bytes of a log's frame, after a header of 32
EVERY = 100_000  # events
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(shared_ram: Path) -> Prepared:
    return prepare(shared_ram / "made")


def killed(box: Box) -> None:
    """As kill -9 leaves it: nothing is checkpointed, logs and shared memory lie beside the files."""
    box.lose_link()
    left = {part: part.read_bytes() for part in box.folder.glob("*.db*")}
    box.cut_power()
    for part, content in left.items():
        part.write_bytes(content)


def tell(tenant: Tenant, *words: str) -> None:
    for word in words:
        assert tenant.box.house.outbox.add(EVENT, DeviceEvent("beat", word, MODEL), tenant.box.now)


def told(tenant: Tenant, code: str) -> Counter[str]:
    """What the core knows of such events, and how often it was told."""
    return Counter(e.text for e in tenant.core.catalog.events.newest(EVERY) if e.code == code)


def lived(made: Prepared, folder: Path) -> tuple[Tenant, Ledger]:
    """A tenant that has told much since it was started, and the books of who may answer in it."""
    tenant = made.copy(folder, Random(1))
    ledger = Ledger(tenant, made.artifacts)
    for i in range(5):
        tell(tenant, *(f"{i}.{j}" for j in range(4)))
        tenant.heal()
    return tenant, ledger


def shm_gone(path: Path) -> None:
    path.with_name(path.name + "-shm").unlink()


def log_cut(path: Path) -> None:
    """In the middle of its middle frame."""
    log = path.with_name(path.name + "-wal")
    frames = (log.stat().st_size - 32) // FRAME
    assert frames >= 4, "there is something to lose"
    with log.open("r+b") as file:
        file.truncate(32 + frames // 2 * FRAME + 2000)


def log_turned(path: Path) -> None:
    """One bit of its middle frame."""
    log = path.with_name(path.name + "-wal")
    frames = (log.stat().st_size - 32) // FRAME
    turn(log, 32 + frames // 2 * FRAME + 2000, 1)


def turn(path: Path, at: int, bits: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (was,) = file.read(1)
        file.seek(at)
        file.write(bytes([was ^ bits]))


@pytest.mark.parametrize("name", ["journal.db", "outbox.db"])
def test_10_without_the_shared_memory_beside_it_nothing_is_lost(made: Prepared, ram: Path, name: str) -> None:
    tenant, ledger = lived(made, ram / "life")
    tell(tenant, "the last word")
    before, waits = tenant.box.state, tenant.box.house.outbox.pending()
    killed(tenant.box)
    shm_gone(tenant.box.folder / name)
    tenant.box.boot(link=False)
    ledger.check()
    assert tenant.box.state.serving == before.serving and tenant.box.house.outbox.pending()[: len(waits)] == waits
    tenant.heal()
    ledger.check()
    assert told(tenant, "beat")["the last word"] == 1
    tenant.close()


def without_its_end(made: Prepared, folder: Path, damage: Damage) -> tuple[Tenant, Ledger, int]:
    """A box that lived and starts anew, off the line, with an outbox damaged meanwhile; and the last number before."""
    tenant, ledger = lived(made, folder)
    before = tenant.box.house.outbox.last(EVENT)
    killed(tenant.box)
    damage(tenant.box.folder / "outbox.db")
    tenant.box.boot(link=False)
    return tenant, ledger, before


@pytest.mark.parametrize("damage", [log_cut, log_turned])
def test_10_an_outbox_whose_log_lost_its_end_gives_no_number_out_twice(
    made: Prepared, ram: Path, damage: Damage
) -> None:
    """The core has other records under the numbers that would come next, and would take new ones for repetitions."""
    tenant, ledger, before = without_its_end(made, ram / "life", damage)
    assert tenant.box.house.outbox.last(EVENT) < before, "it reads well, and knows less"
    tell(tenant, "since 1", "since 2")
    ledger.serves()
    tenant.heal()
    tell(tenant, "since 3")
    tenant.heal()
    ledger.serves()
    assert tenant.box.house.outbox.last(EVENT) > before
    beats = told(tenant, "beat")
    assert set(beats.values()) == {1} and {"since 1", "since 2", "since 3"} <= beats.keys()
    assert told(tenant, "outbox-cut-short").total() == 1
    tenant.close()


@pytest.mark.parametrize("damage", [log_cut, log_turned])
def test_10_nor_does_one_that_wrote_more_than_it_lost_before_it_was_heard(
    made: Prepared, ram: Path, damage: Damage
) -> None:
    """Its numbers meet those that the core has: the core says which start it has them of. A cut in between, too."""
    tenant, ledger, before = without_its_end(made, ram / "life", damage)
    said = [f"since {n}" for n in range(before + 5)]
    tell(tenant, *said)
    killed(tenant.box)
    tenant.box.boot(link=False)
    tell(tenant, "after the cut")
    assert tenant.box.house.outbox.last(EVENT) > before
    ledger.serves()
    tenant.heal()
    tell(tenant, "at last")
    tenant.heal()
    beats = told(tenant, "beat")
    assert set(beats.values()) == {1} and {*said, "after the cut", "at last"} <= beats.keys()
    assert told(tenant, "outbox-cut-short").total() == 1
    tenant.close()


@pytest.mark.parametrize("damage", [log_cut, log_turned])
def test_10_a_journal_whose_log_lost_its_end_serves_and_is_taken_for_a_copy_until_a_person_says_otherwise(
    made: Prepared, ram: Path, damage: Damage
) -> None:
    """A disk of some time ago is what a copied disk is, too: attack 27 rests on telling nobody apart here."""
    tenant, ledger = lived(made, ram / "life")
    before = tenant.box.house.journal.counter("reported_seq")
    killed(tenant.box)
    damage(tenant.box.folder / "journal.db")
    tenant.box.boot(link=False)
    assert tenant.box.house.journal.counter("reported_seq") < before, "it reads well, and knows less"
    ledger.serves()
    tenant.box.connect()
    for _ in range(3):
        tenant.deliver()
        tenant.box.live(31.0)
        ledger.serves()
    assert told(tenant, "device-cloned").total() == 1
    accepted(tenant)
    tell(tenant, "since")
    tenant.heal()
    ledger.serves()
    assert told(tenant, "beat")["since"] == 1
    tenant.close()


def accepted(tenant: Tenant) -> None:
    tenant.core.must(orders.Accept(devices=(DEVICE,)))


PLACES = 24  # where a bit turns over, spread over the file


@pytest.mark.parametrize("name", ["journal.db", "outbox.db"])
def test_10_whichever_bit_turned_over_a_verified_release_answers_in_the_end(
    made: Prepared, ram: Path, name: str
) -> None:
    """One bit in the file of an agent that had ended in good order. The start is never in vain."""
    whole, _ = lived(made, ram / "whole")
    whole.close()
    now, chance = whole.box.now, Random(name)
    for place in range(PLACES):
        here = ram / str(place)
        shutil.copytree(ram / "whole", here)
        file = here / "box" / name
        size = file.stat().st_size
        turn(file, (place * size + chance.randrange(size)) // PLACES, 1 << chance.randrange(8))
        tenant = assemble(here, made.papers, made.root, Random(place), now)
        ledger = Ledger(tenant, made.artifacts)
        if tenant.box.answering is not None:
            ledger.serves()
        for _ in range(3):
            tenant.deliver()
            tenant.box.live(31.0)
        if told(tenant, "device-cloned"):
            accepted(tenant)
        tell(tenant, "since")
        tenant.heal()
        ledger.serves()
        assert told(tenant, "beat")["since"] == 1, place
        tenant.close()
        shutil.rmtree(here)
