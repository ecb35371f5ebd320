"""Fault 35: days of faults by a fixed seed: cuts of power and line, clocks that jump, writes that are the last, blobs
that rot, releases good and bad. Whatever answers was verified; nothing grows: memory, descriptors, disk."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from edge.lifecycle import AT_REST
from edge.states import Phase
from sync import codec, topics
from sync.link import Publish
from sync.messages import Ack, Gates
from tests.edge.device import Device, committed
from tests.edge.power import Fuse, PowerCut
from tests.edge.stage import HARMFUL, Stage, assert_sane, new_stage
from tests.edge.world import DEVICE, EPOCH, MODEL, TENANT

MINUTE = 60.0
DAY = 1440  # minutes
SEED = 20_261_123


@dataclass
class Soak:
    """One device through simulated minutes."""

    stage: Stage
    device: Device
    chance: Random
    fuse: Fuse
    linked: bool = True
    retry: int = 0
    answered: int = 0
    unanswered: int = 0
    happened: dict[str, int] = field(default_factory=dict)

    def minute(self) -> None:
        kind = self.chance.choices(
            ["nothing", "order", "power", "line", "write", "rot", "clock", "bad question"],
            [60, 8, 5, 8, 6, 1, 2, 4],
        )[0]
        self.happened[kind] = self.happened.get(kind, 0) + 1
        getattr(self, "_" + kind.replace(" ", "_"))()
        self.live(2)
        self.acknowledge()
        self.device.now += MINUTE
        assert_sane(self.device, retried=True)
        assert self.answering_is_allowed()

    def answering_is_allowed(self) -> bool:
        """The bad ones are not retried here: their verdicts stand."""
        serving, bad = self.device.state.serving, {self.stage.shipped[n].digest for n in (3, 4)}
        refused = {q.manifest for q in self.device.house.journal.quarantined(MODEL)} & bad
        on_trial = self.device.state.phase is Phase.PROBATION
        return serving is None or on_trial or serving.release.manifest not in refused

    def acknowledge(self) -> None:
        """The core has committed what it heard; nothing is heard while the line is cut."""
        last = {kind: n for kind, n, _ in self.device.house.outbox.pending(1000)} if self.linked else {}
        for kind, n in last.items():
            topic = f"{topics.tenant_root(TENANT)}/d/{DEVICE}/ack/{kind}"
            self.stage.core.link.publish(Publish(topic, codec.encode(Ack(EPOCH, n))))

    def live(self, seconds: int, ask: int = 0) -> None:
        try:
            self.device.settle(seconds, ask=ask)
        except PowerCut:
            self._power()
        said = self.device.answering
        self.answered += said is not None
        self.unanswered += said is None

    def _nothing(self) -> None:
        """A quiet minute."""

    def _order(self) -> None:
        number, self.retry = self.chance.choice([1, 2, 3, 4, 5]), self.retry + self.chance.randrange(2)
        mode = self.chance.choices(["live", "shadow"], [5, 1])[0]
        self.stage.core.now = self.device.now
        gates = Gates(soak_answers=self.chance.choice([1, 3, 50]))
        retry = 0 if number in (3, 4) else self.retry  # a verdict on the bad ones stands
        order = self.stage.core.order(
            self.stage.shipped[number], self.device.identity, mode=mode, retry=retry, gates=gates
        )
        far = self.device.now + 1e9
        self.stage.core.desire(self.stage.core.assignment(order, expires=far))

    def _power(self) -> None:
        self.fuse.left = None
        self.device.cut_power()
        self.device.boot(link=self.linked)

    def _line(self) -> None:
        if self.linked:
            self.device.link.cut()
        else:
            self.device.connect()
        self.linked = not self.linked

    def _write(self) -> None:
        self.fuse.left = self.chance.randrange(1, 8)
        self.live(3)
        self.fuse.left = None

    def _rot(self) -> None:
        files = sorted(self.device.house.artifacts.folder.iterdir())
        if files and self.device.state.phase in AT_REST:
            self.chance.choice(files).write_bytes(b"rot")

    def _clock(self) -> None:
        self.device.now += self.chance.choice([-3600.0, 3600.0])

    def _bad_question(self) -> None:
        self.live(1, ask=HARMFUL)

    def size(self) -> tuple[int, int, int]:
        """(MiB resident, descriptors, bytes on disk)"""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        disk = sum(file.stat().st_size for file in self.device.folder.rglob("*") if file.is_file())
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20, len(os.listdir("/proc/self/fd")), disk


def soaked(folder: Path, minutes: int) -> tuple[Soak, tuple[int, int, int], tuple[int, int, int]]:
    stage, fuse = new_stage(folder), Fuse()
    device = stage.device(folder / "device")
    device.journal_kind, device.outbox_kind, device.artifacts_kind = fuse.journal(), fuse.outbox(), fuse.artifacts()
    soak = Soak(stage, device.boot(), Random(SEED), fuse)
    for _ in range(minutes // 3):
        soak.minute()
    early = soak.size()
    for _ in range(minutes - minutes // 3):
        soak.minute()
        stage.core.hub.passed.clear()
    return soak, early, soak.size()


def judge(soak: Soak, early: tuple[int, int, int], late: tuple[int, int, int]) -> None:
    """Nothing grew; nobody was without an answer for longer than a rotten disk excuses; a good release gets through."""
    assert late[0] - early[0] <= 24 and late[1] - early[1] <= 2, (early, late)
    assert late[2] <= max(2 * early[2], 4 << 20), (early, late)
    assert soak.answered > 9 * soak.unanswered, (soak.answered, soak.unanswered)
    assert min(soak.happened.values()) > 0 and len(soak.happened) == 8
    if not soak.linked:
        soak.device.connect()
    soak.stage.core.renew()
    soak.retry += 1
    order = soak.stage.core.order(soak.stage.shipped[5], soak.device.identity, retry=soak.retry)
    soak.stage.core.desire(soak.stage.core.assignment(order, expires=soak.device.now + 1e9))
    soak.device.settle(30, ask=0)
    assert committed(soak.device, 5) and soak.device.house.deployments[MODEL].phase is Phase.STEADY
    soak.device.cut_power()


def test_a_shift_of_random_faults_leaves_nothing_behind(ram: Path) -> None:
    judge(*soaked(ram, DAY // 8))


@pytest.mark.slow
def test_three_days_of_random_faults_leaves_nothing_behind(ram: Path) -> None:
    judge(*soaked(ram, 3 * DAY))
