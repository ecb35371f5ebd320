"""Who may join and under which certificate: boxes that are expected, tokens of sites, boxes that wait for a person,
certificates and those that were revoked, and the boots a device spoke from."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from core.catalog.fleet import GONE
from core.handoffs import Box
from sync.names import DeviceId, Serial, SiteId

BOOTS_KEPT = 50  # of one device


class SiteTokenRow(msgspec.Struct, frozen=True):
    site: SiteId
    expires: float
    uses: int
    used: int
    approve: bool


class WaitingRow(msgspec.Struct, frozen=True):
    """A box that asked and waits for a person; its keys are public halves, raw."""

    device: DeviceId
    serial: Serial
    site: SiteId
    since: float
    signing_key: bytes
    sealing_key: bytes


class Identities:
    """Shelf of identities."""

    def __init__(self, db: Any) -> None:
        self._db = db

    # --- boxes and tokens of sites ---

    def put_box(self, serial: Serial, name: DeviceId, site: SiteId, labels: tuple[str, ...], now: float) -> None:
        """A serial number that is known gets the new name, site and labels."""
        self._db.execute(
            "INSERT INTO box VALUES (?, ?, ?, ?, ?) ON CONFLICT (serial) DO UPDATE SET name = excluded.name,"
            " site = excluded.site, labels = excluded.labels",
            (serial, name, site, json.dumps(labels), now),
        )

    def box(self, serial: Serial) -> Box | None:
        row = self._db.execute("SELECT serial, name, site, labels FROM box WHERE serial = ?", (serial,)).fetchone()
        return _box(row) if row else None

    def boxes(self) -> list[Box]:
        """By name."""
        return [_box(row) for row in self._db.execute("SELECT serial, name, site, labels FROM box ORDER BY name")]

    def site_of(self, name: DeviceId) -> SiteId | None:
        """Where the box that has this name is expected; None of one that nobody announced."""
        row = self._db.execute("SELECT site FROM box WHERE name = ?", (name,)).fetchone()
        return SiteId(row[0]) if row else None

    def labels_of(self, name: DeviceId) -> tuple[str, ...]:
        """What the box that has this name was imported as; none of one that nobody announced."""
        row = self._db.execute("SELECT labels FROM box WHERE name = ?", (name,)).fetchone()
        return tuple(json.loads(row[0])) if row else ()

    def put_site_token(self, secret_hash: str, site: SiteId, expires: float, uses: int, *, approve: bool) -> None:
        self._db.execute(
            "INSERT INTO site_token VALUES (?, ?, ?, ?, 0, ?)", (secret_hash, site, expires, uses, int(approve))
        )

    def site_token(self, secret_hash: str) -> SiteTokenRow | None:
        row = self._db.execute(
            "SELECT site, expires, uses, used, approve FROM site_token WHERE secret = ?", (secret_hash,)
        ).fetchone()
        return SiteTokenRow(SiteId(row[0]), row[1], row[2], row[3], bool(row[4])) if row else None

    def site_secrets(self, site: SiteId) -> tuple[str, ...]:
        """The hashes of all tokens ever issued for this site."""
        rows = self._db.execute("SELECT secret FROM site_token WHERE site = ?", (site,))
        return tuple(str(secret) for (secret,) in rows)

    def site_token_used(self, secret_hash: str) -> None:
        self._db.execute("UPDATE site_token SET used = used + 1 WHERE secret = ?", (secret_hash,))

    # --- boxes that wait for a person ---

    def put_waiting(self, row: WaitingRow) -> None:
        self._db.execute("INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(row))

    def waiting(self, device: DeviceId) -> WaitingRow | None:
        row = self._db.execute("SELECT * FROM waiting WHERE device = ?", (device,)).fetchone()
        return _waiting(row) if row else None

    def all_waiting(self) -> list[WaitingRow]:
        """By name."""
        return [_waiting(row) for row in self._db.execute("SELECT * FROM waiting ORDER BY device")]

    def drop_waiting(self, device: DeviceId) -> None:
        self._db.execute("DELETE FROM waiting WHERE device = ?", (device,))

    # --- keys and certificates ---

    def bearer(self, signing_key: bytes) -> DeviceId | None:
        """Which device of the fleet has this key (raw, public); None if none has."""
        query = f"SELECT device FROM device WHERE signing_key = ? AND state NOT IN {GONE}"  # noqa: S608 - constants
        row = self._db.execute(query, (signing_key,)).fetchone()
        return DeviceId(row[0]) if row else None

    def add_certificate(self, serial: int, device: DeviceId, epoch: int, expires: float) -> None:
        """One that was issued; one that is known changes nothing."""
        self._db.execute(
            "INSERT OR IGNORE INTO certificate VALUES (?, ?, ?, ?, NULL, '')", (f"{serial:x}", device, epoch, expires)
        )

    def revoke(self, device: DeviceId, reason: str, now: float) -> int:
        """All certificates of this name, also those that seem to have ended: a clock that is ahead today may be right
        tomorrow. How many there were."""
        cursor = self._db.execute(
            "UPDATE certificate SET revoked = ?, reason = ? WHERE device = ? AND revoked IS NULL", (now, reason, device)
        )
        return int(cursor.rowcount)

    def revoked(self, now: float) -> list[tuple[int, float]]:
        """(serial number, when) of those revoked that would hold otherwise."""
        rows = self._db.execute(
            "SELECT serial, revoked FROM certificate WHERE revoked IS NOT NULL AND expires > ? ORDER BY serial",
            (now,),
        )
        return [(int(serial, 16), when) for serial, when in rows]

    def revocation_number(self) -> int:
        """Of the list as it is now: it rises with every certificate revoked, ever."""
        row = self._db.execute("SELECT count(*) FROM certificate WHERE revoked IS NOT NULL").fetchone()
        return 1 + int(row[0])

    # --- boots ---

    def seen_boot(self, device: DeviceId, epoch: int, boot: str) -> bool:
        """Whether this device ever reported from this start of its agent."""
        row = self._db.execute("SELECT 1 FROM boot WHERE device = ? AND epoch = ? AND boot = ?", (device, epoch, boot))
        return row.fetchone() is not None

    def put_boot(self, device: DeviceId, epoch: int, boot: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO boot (device, epoch, boot) VALUES (?, ?, ?)", (device, epoch, boot))
        self._db.execute(
            "DELETE FROM boot WHERE device = ? AND id <= (SELECT id FROM boot WHERE device = ? ORDER BY id DESC"
            " LIMIT 1 OFFSET ?)",
            (device, device, BOOTS_KEPT),
        )

    def forget_boots(self, device: DeviceId) -> None:
        self._db.execute("DELETE FROM boot WHERE device = ?", (device,))


def _box(row: Any) -> Box:
    return Box(Serial(row[0]), DeviceId(row[1]), SiteId(row[2]), tuple(json.loads(row[3])))


def _waiting(row: Any) -> WaitingRow:
    return WaitingRow(DeviceId(row[0]), Serial(row[1]), SiteId(row[2]), row[3], bytes(row[4]), bytes(row[5]))
