"""Buffers on real SQLite: nothing acknowledged is lost to a kill, nothing readable lies on the disk."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge.buffers import Buffers
from edge.database import FILE_AGAIN
from sync.errors import Damaged
from sync.names import ModelName, TenantId
from sync.sealing import seal_small, unseal_small
from tests.edge.graphs import MODEL, TENANT, WINDOW

KEY = bytes(range(32))
Reports = list[tuple[str, str]]


class Device:
    """One buffer file and what was acknowledged and reported, over several lives of the process."""

    def __init__(self, path: Path, max_entities: int = 1000, max_unacked: int = 16) -> None:
        self.path, self.max_entities, self.max_unacked = path, max_entities, max_unacked
        self.acked: list[float] = []
        self.reports: Reports = []
        self.buffers = self.start()

    def start(self, key: bytes = KEY, tenant: TenantId = TENANT) -> Buffers:
        self.buffers = Buffers(
            self.path, tenant, key, max_entities=self.max_entities, max_unacked=self.max_unacked,
            report=lambda code, text: self.reports.append((code, text)),
        )  # fmt: skip
        return self.buffers

    def kill(self) -> None:
        """As kill -9 would: what was not committed is gone."""
        self.buffers._db.close()

    def feed(self, ts: float, entity: str = "w1") -> list[float]:
        windows = self.buffers.push(MODEL, WINDOW, entity, [ts], [(ts, -ts)])
        if self.buffers.hold(lambda: self.acked.append(ts)) or windows:
            self.buffers.checkpoint()
        return [w.end for w in windows if w.complete]

    def codes(self) -> list[str]:
        return [code for code, _ in self.reports]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "buffers.db")


def test_a_message_is_acknowledged_only_when_its_row_is_on_disk(device: Device) -> None:
    for ts in range(3):
        assert device.feed(float(ts)) == []
    assert device.acked == []
    assert device.feed(3.0) == [3.0]
    assert device.acked == [0.0, 1.0, 2.0, 3.0]


def test_a_checkpoint_is_due_when_enough_messages_wait(tmp_path: Path) -> None:
    device = Device(tmp_path / "b.db", max_unacked=2)
    device.feed(0.0, "a")
    assert device.acked == []
    device.feed(0.0, "b")
    assert device.acked == [0.0, 0.0]


def test_what_took_nothing_in_is_acknowledged_at_once_but_after_all_that_came_before_it(tmp_path: Path) -> None:
    """Mosquitto sends what waits in another order otherwise."""
    device = Device(tmp_path / "b.db", max_unacked=3)

    def ask(name: float) -> bool:
        return device.buffers.hold(lambda: device.acked.append(name), taken=False)

    assert not ask(0.1) and device.acked == [0.1]
    device.feed(1.0)
    assert not ask(1.1) and device.acked == [0.1]
    assert ask(1.2), "so many wait that a checkpoint is due"
    device.buffers.checkpoint()
    assert device.acked == [0.1, 1.0, 1.1, 1.2]
    assert not ask(1.3) and device.acked[-1] == 1.3


@pytest.mark.parametrize("killed_after", range(1, 12))
def test_a_kill_anywhere_and_redelivery_give_the_same_windows(tmp_path: Path, killed_after: int) -> None:
    device = Device(tmp_path / "b.db", max_unacked=3)
    stream = [float(t) for t in range(12)]
    ends: list[float] = []
    for ts in stream[:killed_after]:
        ends += device.feed(ts)
    device.kill()
    device.start()
    for ts in [t for t in stream if t not in device.acked]:  # the broker repeats what was not acknowledged
        ends += device.feed(ts)
    assert ends == [3.0, 5.0, 7.0, 9.0, 11.0]
    assert device.reports == []


def test_rows_delivered_again_change_nothing(device: Device) -> None:
    assert [e for t in (0, 1, 1, 0, 2, 3, 3, 2) for e in device.feed(float(t))] == [3.0]


def test_the_disk_holds_no_reading_in_the_clear(device: Device) -> None:
    for ts in range(4):
        device.feed(float(ts))
    checkpoint = device.buffers._kernels[MODEL]["w1"]
    assert checkpoint is not None
    device.buffers.close()
    on_disk = b"".join(p.read_bytes() for p in device.path.parent.iterdir())
    assert checkpoint.checkpoint().ring[-16:] not in on_disk
    assert device.path.stat().st_mode & 0o077 == 0


def test_a_checkpoint_of_another_entity_key_or_tenant_does_not_open(device: Device) -> None:
    for ts in range(4):
        device.feed(float(ts))
    device.feed(0.0, "w2")
    device.buffers.close()
    with sqlite3.connect(device.path) as db:
        db.execute("UPDATE checkpoints SET sealed = (SELECT sealed FROM checkpoints WHERE entity = 'w1')")
    db.close()
    device.start()
    assert device.feed(4.0, "w2") == []
    assert device.codes() == ["checkpoint-unreadable"]
    device.buffers.close()
    device.start(key=bytes(32))
    assert device.feed(4.0) == []
    device.buffers.close()
    device.start(tenant=TenantId("other"))
    assert device.feed(4.0) == []
    assert device.codes() == ["checkpoint-unreadable"] * 3
    device.buffers.close()


def test_a_damaged_file_is_put_aside_and_windows_start_again(device: Device) -> None:
    for ts in range(4):
        device.feed(float(ts))
    device.buffers.close()
    device.path.write_bytes(b"this is no database" * 100)
    device.start()
    assert device.codes() == ["buffers-damaged"]
    assert [e for t in range(4, 8) for e in device.feed(float(t))] == [7.0]
    assert device.path.with_suffix(".unreadable").exists()
    device.buffers.close()


def test_where_no_file_will_do_memory_serves(tmp_path: Path) -> None:
    device = Device(tmp_path / "no-such-folder" / "b.db")
    assert device.codes() == ["buffers-in-memory"]
    assert [e for t in range(4) for e in device.feed(float(t))] == [3.0]
    for t in range(4, 40):
        device.feed(float(t))
    assert len(device.acked) == 40 - 16 == device.buffers.let_go, "what memory holds is not safe"


def test_memory_gives_way_to_the_file_as_soon_as_it_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "no-such-folder"
    device = Device(folder / "b.db")
    for t in range(10):
        device.feed(float(t))
    folder.mkdir()
    for t in range(10, 10 + 2 * FILE_AGAIN):
        device.feed(float(t))
    assert device.codes() == ["buffers-in-memory"] * 2 and "can be written again" in device.reports[-1][1]
    device.buffers.checkpoint()
    assert device.buffers.let_go < len(device.acked) == 10 + 2 * FILE_AGAIN, "what is on disk is safe"
    device.buffers.close()
    device.start()
    assert [e for t in (138.0, 139.0) for e in device.feed(t)] == [139.0], "the window is whole at once"
    device.buffers.close()


def test_a_failing_disk_stops_acknowledging_but_never_serving(device: Device) -> None:
    device.feed(0.0)
    device.buffers._db.execute("PRAGMA query_only = ON")
    ends = [e for t in range(1, 40) for e in device.feed(float(t))]
    assert ends == [float(t) for t in range(3, 40, 2)]
    assert device.codes() == ["checkpoint-failed"]
    assert len(device.acked) == 40 - 16 == device.buffers.let_go
    device.buffers._db.execute("PRAGMA query_only = OFF")
    device.feed(40.0)
    device.feed(41.0)
    assert len(device.acked) == 42


def test_the_idlest_entity_makes_room(tmp_path: Path) -> None:
    device = Device(tmp_path / "b.db", max_entities=2)
    for ts in range(3):
        for entity in ("a", "b"):
            device.feed(float(ts), entity)
    device.feed(0.0, "c")
    assert device.codes() == ["buffers-crowded"]
    assert device.feed(3.0, "b") == [3.0]
    assert device.feed(3.0, "a") == []
    device.buffers.close()
    with sqlite3.connect(device.path) as db:
        assert db.execute("SELECT COUNT(*) FROM checkpoints").fetchone() == (2,)
    db.close()


def test_the_bound_on_entities_holds_over_restarts(tmp_path: Path) -> None:
    device = Device(tmp_path / "b.db", max_entities=2)
    for entity in ("a", "b"):
        device.feed(0.0, entity)
    device.buffers.close()
    device.start()
    device.feed(0.0, "c")
    device.buffers.close()
    with sqlite3.connect(device.path) as db:
        assert db.execute("SELECT COUNT(*) FROM checkpoints").fetchone() == (2,)
    db.close()


def test_another_window_specification_starts_again_without_alarm(device: Device) -> None:
    for ts in range(3):
        device.feed(float(ts))
    device.buffers.checkpoint()
    device.kill()
    longer = type(WINDOW)(5, 2, 1.0, WINDOW.channels, 2.0)
    buffers = device.start()
    ends = [w.end for t in range(3, 9) for w in buffers.push(MODEL, longer, "w1", [float(t)], [(0.0, 0.0)])]
    assert ends == [7.0]
    assert device.reports == []


def test_forgetting_a_model_leaves_others_alone(device: Device) -> None:
    other = ModelName("other")
    for ts in range(3):
        device.feed(float(ts))
        device.buffers.push(other, WINDOW, "w1", [float(ts)], [(0.0, 0.0)])
    device.buffers.checkpoint()
    device.buffers.forget(MODEL)
    assert device.feed(3.0) == []
    assert len(device.buffers.push(other, WINDOW, "w1", [3.0], [(0.0, 0.0)])) == 1


def test_a_small_seal_opens_only_whole_with_its_key_and_place() -> None:
    sealed = seal_small(b"reading", KEY, b"here", bytes(32))
    assert unseal_small(sealed, KEY, b"here") == b"reading"
    for broken, key, place in (
        (sealed, bytes(32), b"here"),
        (sealed, KEY, b"there"),
        (sealed[:-1], KEY, b"here"),
        (sealed[:20], KEY, b"here"),
        (b"", KEY, b"here"),
        (bytes([sealed[0] ^ 1]) + sealed[1:], KEY, b"here"),
    ):
        with pytest.raises(Damaged):
            unseal_small(broken, key, place)
    with pytest.raises(ValueError, match="nonce"):
        seal_small(b"", KEY, b"", bytes(12))
