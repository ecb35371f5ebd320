"""Devices, what they said, what they shall do, and the rollouts that decide it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from core.catalog.wanted import Wanted, wanted_split
from core.handoffs import Rollout
from sync import codec
from sync.messages import Gates, Reported, Status
from sync.names import DeviceId, ModelName
from sync.reports import WhyCard

ALL = -1  # as a limit of rows: SQLite's word for none
WHYS_KEPT = 100  # why cards of one device
_DEVICE = (
    "device, epoch, enrolled, state, status, status_ts, seen, signing_key, sealing_key, report_epoch, report_seq,"
    " report IS NOT NULL AS told"
)
_LIMIT = 16 * 1024 * 1024  # bytes of a document as stored: the wire's limit is not the catalog's
ACTIVE = "enrolled"  # the state of a device that may speak; others are revoked, replaced or cloned
GONE = ("revoked", "replaced")  # of one whose box will never speak again


class TokenRow(msgspec.Struct, frozen=True):
    device: DeviceId
    secret: str  # hash
    expires: float
    used: float | None
    attempts: int


class DeviceRow(msgspec.Struct, frozen=True):
    """A device and the last it said of itself (`report` only after its signature held)."""

    device: DeviceId
    epoch: int
    enrolled: float
    state: str
    status: str
    status_ts: float
    seen: float
    signing_key: bytes
    sealing_key: bytes
    report: Reported | None

    @property
    def active(self) -> bool:
        """Whether it belongs to the fleet: not revoked, replaced, or stopped because it was seen twice."""
        return self.state == ACTIVE


class FleetShelf:
    """Shelf of tokens, devices, reports, assignments and rollouts."""

    def __init__(self, db: Any) -> None:
        self._db = db
        # The newest report of each device, read once: (epoch, seq) names it for good.
        self._reports: dict[str, tuple[int, int, Reported]] = {}

    # --- tokens and devices ---

    def put_token(self, device: DeviceId, secret_hash: str, expires: float) -> None:
        """A new token replaces an older one of the same device."""
        self._db.execute("INSERT OR REPLACE INTO token VALUES (?, ?, ?, NULL, 0)", (device, secret_hash, expires))

    def token(self, device: DeviceId) -> TokenRow | None:
        row = self._db.execute("SELECT * FROM token WHERE device = ?", (device,)).fetchone()
        return TokenRow(DeviceId(row[0]), *tuple(row)[1:]) if row else None

    def token_tried(self, device: DeviceId) -> None:
        self._db.execute("UPDATE token SET attempts = attempts + 1 WHERE device = ?", (device,))

    def token_used(self, device: DeviceId, now: float) -> None:
        self._db.execute("UPDATE token SET used = ? WHERE device = ?", (now, device))

    def next_epoch(self, device: DeviceId) -> int:
        """One more than any epoch this name ever had, so that an older box can never speak again."""
        row = self._db.execute("SELECT epoch FROM device WHERE device = ?", (device,)).fetchone()
        return int(row[0]) + 1 if row else 1

    def put_device(
        self, device: DeviceId, epoch: int, certificate: bytes, signing: bytes, sealing: bytes, now: float
    ) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO device (device, epoch, enrolled, certificate, signing_key, sealing_key, state)"
            " VALUES (?, ?, ?, ?, ?, ?, 'enrolled')",
            (device, epoch, now, certificate, signing, sealing),
        )

    def set_state(self, device: DeviceId, state: str) -> None:
        """`enrolled`, or why it may not speak: revoked, replaced, cloned."""
        self._db.execute("UPDATE device SET state = ? WHERE device = ?", (state, device))

    def certificate(self, device: DeviceId) -> bytes:
        """The newest (PEM) of a device that is there."""
        return bytes(self._db.execute("SELECT certificate FROM device WHERE device = ?", (device,)).fetchone()[0])

    def put_certificate(self, device: DeviceId, certificate: bytes) -> None:
        self._db.execute("UPDATE device SET certificate = ? WHERE device = ?", (certificate, device))

    def barred(self) -> tuple[DeviceId, ...]:
        """The devices that may not speak, by name."""
        rows = self._db.execute("SELECT device FROM device WHERE state != ? ORDER BY device", (ACTIVE,))
        return tuple(DeviceId(device) for (device,) in rows)

    def device(self, device: DeviceId) -> DeviceRow | None:
        row = self._db.execute(f"SELECT {_DEVICE} FROM device WHERE device = ?", (device,)).fetchone()  # noqa: S608
        return self._device(row) if row else None

    def devices(self) -> list[DeviceRow]:
        """By name."""
        rows = self._db.execute(f"SELECT {_DEVICE} FROM device ORDER BY device").fetchall()  # noqa: S608
        return [self._device(row) for row in rows]

    def without(self, model: ModelName) -> tuple[DeviceId, ...]:
        """The devices of which nothing was ever wanted of this model, by name."""
        rows = self._db.execute(
            "SELECT device FROM device WHERE device NOT IN (SELECT device FROM wanted WHERE model = ?) ORDER BY device",
            (model,),
        )
        return tuple(DeviceId(device) for (device,) in rows)

    def _device(self, row: Any) -> DeviceRow:
        return DeviceRow(
            DeviceId(row["device"]), row["epoch"], row["enrolled"], row["state"], row["status"], row["status_ts"],
            row["seen"], bytes(row["signing_key"]), bytes(row["sealing_key"]),
            self._report(row) if row["told"] else None,
        )  # fmt: skip

    def _report(self, row: Any) -> Reported | None:
        name, epoch, seq = row["device"], row["report_epoch"], row["report_seq"]
        known = self._reports.get(name)
        if known is not None and known[:2] == (epoch, seq):
            return known[2]
        # Read together with its number: between two statements another process may have put a newer one.
        found = self._db.execute(
            "SELECT report, report_epoch, report_seq FROM device WHERE device = ? AND report IS NOT NULL", (name,)
        ).fetchone()
        if found is None:
            return None
        report = codec.decode(Reported, bytes(found[0]), _LIMIT)
        self._reports[name] = (found[1], found[2], report)
        return report

    # --- what they say ---

    def put_report(self, report: Reported, envelope: bytes, now: float) -> bool:
        """Keeps a verified report if it is newer than the last; False if it is not."""
        cursor = self._db.execute(
            "UPDATE device SET report = ?, report_envelope = ?, report_epoch = ?, report_seq = ?, seen = ?"
            " WHERE device = ? AND (report_epoch, report_seq) < (?, ?)",
            (
                codec.encode(report),
                envelope,
                report.epoch,
                report.seq,
                now,
                report.device,
                report.epoch,
                report.seq,
            ),
        )
        return bool(cursor.rowcount)

    def forget_report(self, device: DeviceId) -> None:
        """The newest report is no measure for what comes any more; its number stays taken."""
        self._db.execute("UPDATE device SET report = NULL WHERE device = ?", (device,))

    def put_status(self, device: DeviceId, status: Status, now: float) -> None:
        """What the session says; a will (`offline`) is the broker's word and no sign of life."""
        self._db.execute(
            "UPDATE device SET status = ?, status_ts = ?, seen = CASE ? WHEN 'offline' THEN seen ELSE ? END"
            " WHERE device = ?",
            (status.state, now, status.state, now, device),
        )

    def received(self, device: DeviceId, epoch: int, kind: str) -> int:
        """The number up to which all records of this kind are committed."""
        row = self._db.execute(
            "SELECT n FROM received WHERE device = ? AND epoch = ? AND kind = ?", (device, epoch, kind)
        ).fetchone()
        return int(row[0]) if row else 0

    def all_received(self, device: DeviceId, epoch: int) -> dict[str, int]:
        """The same for every kind of which records came."""
        query = "SELECT kind, n FROM received WHERE device = ? AND epoch = ? ORDER BY kind"
        return {str(kind): int(n) for kind, n in self._db.execute(query, (device, epoch))}

    def set_received(self, device: DeviceId, epoch: int, kind: str, n: int, boot: str) -> None:
        """Up to number `n`, which that start of the agent wrote."""
        self._db.execute("INSERT OR REPLACE INTO received VALUES (?, ?, ?, ?, ?)", (device, epoch, kind, n, boot))

    def written_by(self, device: DeviceId, epoch: int, kind: str) -> str:
        """Which start of the agent wrote the newest that is committed; empty where that is not known."""
        query = "SELECT boot FROM received WHERE device = ? AND epoch = ? AND kind = ?"
        row = self._db.execute(query, (device, epoch, kind)).fetchone()
        return str(row[0]) if row else ""

    def add_why(self, device: DeviceId, card: WhyCard, now: float) -> None:
        """Keeps a why card; the newest WHYS_KEPT of a device stay."""
        self._db.execute(
            "INSERT INTO why (ts, device, model, number, document) VALUES (?, ?, ?, ?, ?)",
            (now, device, card.model, card.new.number, codec.encode(card)),
        )
        self._db.execute(
            "DELETE FROM why WHERE device = ? AND id <="
            " (SELECT id FROM why WHERE device = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (device, device, WHYS_KEPT),
        )

    def whys(self, model: str | None = None, limit: int = 20) -> list[tuple[int, DeviceId, WhyCard]]:
        """(id, device, card), newest first, of one model or of all."""
        rows = self._db.execute(
            "SELECT id, device, document FROM why WHERE ? IS NULL OR model = ? ORDER BY id DESC LIMIT ?",
            (model, model, limit),
        )
        return [(key, DeviceId(device), codec.decode(WhyCard, bytes(document))) for key, device, document in rows]

    # --- what they shall do ---

    def want(self, device: DeviceId, wanted: Wanted) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO wanted VALUES (?, ?, ?, ?, ?, ?, ?)",
            (device, wanted.model, wanted.number, wanted.mode, codec.encode(wanted.gates), wanted.retry,
             codec.encode(wanted.split) if wanted.split else None),
        )  # fmt: skip

    def want_again(self, device: DeviceId, model: ModelName, before: Iterable[Wanted]) -> None:
        """Of this model what was wanted `before`, or nothing."""
        self._db.execute("DELETE FROM wanted WHERE device = ? AND model = ?", (device, model))
        for one in before:
            if one.model == model:
                self.want(device, one)

    def wanted(self, device: DeviceId) -> tuple[Wanted, ...]:
        rows = self._db.execute(
            "SELECT model, number, mode, gates, retry, split FROM wanted WHERE device = ? ORDER BY model", (device,)
        )
        return tuple(
            Wanted(ModelName(model), number, mode, codec.decode(Gates, bytes(gates)), retry, wanted_split(split))
            for model, number, mode, gates, retry, split in rows
        )

    def assignment(self, device: DeviceId) -> tuple[int, int, float, bytes] | None:
        """(epoch, seq, expires, envelope) of the newest assignment."""
        row = self._db.execute(
            "SELECT epoch, seq, expires, envelope FROM assignment WHERE device = ?", (device,)
        ).fetchone()
        return (row[0], row[1], row[2], bytes(row[3])) if row else None

    def told(self) -> dict[DeviceId, tuple[int, int]]:
        """(epoch, seq) of the assignment by which every device was first told what it is told now."""
        rows = self._db.execute("SELECT device, epoch, seq FROM told")
        return {DeviceId(device): (epoch, seq) for device, epoch, seq in rows}

    def put_assignment(
        self, device: DeviceId, epoch: int, seq: int, expires: float, envelope: bytes, *, news: bool = True
    ) -> None:
        """The newest assignment; without `news` it says what the one before said."""
        if news:
            self._db.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?)", (device, epoch, seq))
        self._db.execute(
            "INSERT OR REPLACE INTO assignment VALUES (?, ?, ?, ?, ?)",
            (device, epoch, seq, expires, envelope),
        )

    # --- rollouts ---

    def add_rollout(self, rollout: Rollout) -> int:
        """One rollout a model is active at a time: an older one ends here."""
        self._db.execute("UPDATE rollout SET active = 0 WHERE model = ?", (rollout.model,))
        cursor = self._db.execute(
            "INSERT INTO rollout (model, number, document, active) VALUES (?, ?, ?, 1)",
            (rollout.model, rollout.number, codec.encode(rollout)),
        )
        return int(cursor.lastrowid)

    def put_rollout(self, key: int, rollout: Rollout) -> None:
        self._db.execute("UPDATE rollout SET document = ? WHERE id = ?", (codec.encode(rollout), key))

    def rollouts(self, *, active: bool = True, limit: int = 50) -> list[tuple[int, Rollout]]:
        """(id, rollout), newest first."""
        rows = self._db.execute(
            "SELECT id, document FROM rollout WHERE active >= ? ORDER BY id DESC LIMIT ?",
            (int(active), limit),
        )
        return [(key, codec.decode(Rollout, bytes(document), _LIMIT)) for key, document in rows]
