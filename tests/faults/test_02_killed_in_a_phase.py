"""Fault 2, of a real process: SIGKILL while a release waits for its proof, while one goes home, and while two answer
beside each other. Each start serves what was committed, and the story comes to the end that it would have had.

The phases that last by themselves are met by `tests/journey/test_real_processes.py`; all of them, by cuts in this
process, by `tests/edge/test_lifecycle_matrix.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.demo.fleet import free_ports
from core.fleet import enrolment
from edge.journal import Journal
from edge.states import Phase
from tests.edge.phases import killed_in
from tests.edge.stage import Stage, new_stage
from tests.edge.world import MODEL, TENANT
from tests.faults.box import Box, move_in
from tests.faults.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.slow
KILLS = 3
KEYS = tuple(f"machine-{i}" for i in range(12))


@pytest.fixture(scope="module")
def stage(shared_ram: Path) -> Stage:
    return new_stage(shared_ram / "stage")


@contextmanager
def real(stage: Stage, aside: Path, disk: SmallDisk, phase: Phase) -> Iterator[Box]:
    """A process whose journal stands in this phase."""
    device = killed_in(stage, aside / "device", phase)
    one, two, three = free_ports(3)
    authority = enrolment.create_authority(TENANT, time.time())
    with move_in(device, authority, disk, aside, (one, two, three)).ended() as box:
        yield box


def phase_of(box: Box) -> str:
    return str(box.status()["models"][MODEL]["phase"])


def test_02_killed_while_a_release_waits_for_its_proof(stage: Stage, tmp_path: Path) -> None:
    with real(stage, tmp_path, SmallDisk(tmp_path / "disk"), Phase.STAGED) as box:
        box.folder.hold.touch()
        for _ in range(KILLS):
            box.start()
            assert (phase_of(box), box.answer()) == ("staged", 1.0)
            box.end(killed=True)
        box.folder.hold.unlink()
        box.start()
        box.until(lambda: box.answer() == 2.0 and phase_of(box) == "steady", "its commit")


def test_02_killed_on_the_way_home(stage: Stage, tmp_path: Path) -> None:
    """A disk that takes no word keeps it on its way."""
    with small_disk(tmp_path / "disk", 2048) as disk, real(stage, tmp_path, disk, Phase.REVERTING) as box:
        on_its_way = box.folder.journal.read_bytes()
        box.start()  # a first start makes keys and a lock
        box.end()
        box.folder.journal.write_bytes(on_its_way)
        disk.read_only(True)
        for _ in range(KILLS):
            box.start()
            assert (phase_of(box), box.answer()) == ("reverting", 1.0)
            box.end(killed=True)
        disk.read_only(False)
        box.start()
        box.until(lambda: phase_of(box) == "steady", "its return")
        assert box.answer() == 1.0
        box.end()
        journal = Journal.open(box.folder.journal)
        assert {q.manifest for q in journal.quarantined(MODEL)} == {stage.shipped[4].digest}
        journal.close()


def test_02_killed_while_two_answer_beside_each_other(stage: Stage, tmp_path: Path) -> None:
    with real(stage, tmp_path, SmallDisk(tmp_path / "disk"), Phase.LIVE_SPLIT) as box:
        box.start()
        box.until(lambda: phase_of(box) == "live_split" and {box.answer(0, k) for k in KEYS} == {1.0, 2.0}, "both")
        given = {key: box.answer(0, key) for key in KEYS}
        for _ in range(KILLS):
            box.end(killed=True)
            box.start()
            box.until(lambda: {key: box.answer(0, key) for key in KEYS} == given, "each key to be answered as before")
            assert phase_of(box) == "live_split"
