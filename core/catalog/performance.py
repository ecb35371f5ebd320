"""How releases did on devices, as these told it: of each the newest interval and the sum of all, and the intervals of
the last days. A device may say what it likes: it fills no more than its own room, and nothing is decided by it."""

from __future__ import annotations

from typing import Any

import msgspec

from sync import codec
from sync.names import DeviceId, ModelName
from sync.performance import MOST_CLASSES, Interval, Tally

RELEASES = 64  # of one device, the newest heard of
DAYS = 3  # for which intervals are kept ...
INTERVALS = 6000  # ... of one device at most: sixteen models, each hour
_DAY = 86_400.0
_LIMIT = 1024 * 1024  # bytes of a tally as stored: the wire's limit is not the catalog's


class Performed(msgspec.Struct, frozen=True):
    """One release on one device: its newest interval, when that came, and the sum of all since `since`, when the first
    came."""

    device: DeviceId
    received: float
    newest: Interval
    since: float
    total: Tally


class Hour(msgspec.Struct, frozen=True):
    """One interval that ended at `ts`."""

    device: DeviceId
    model: ModelName
    number: int
    ts: float
    span: float
    tally: Tally


class PerformanceShelf:
    """Shelf of tallies."""

    def __init__(self, db: Any, releases: int = RELEASES, intervals: int = INTERVALS) -> None:
        self._db, self._releases, self._intervals = db, releases, intervals

    def add(self, device: DeviceId, interval: Interval, now: float) -> None:
        """One more interval of a release on a device. In a transaction; whoever calls sees that none is added twice."""
        key = (device, interval.model, interval.number)
        where = "device = ? AND model = ? AND number = ?"
        row = self._db.execute(f"SELECT since, total FROM performance WHERE {where}", key).fetchone()  # noqa: S608
        since = row[0] if row else now
        total = _total(_tally(row[1]), interval.tally) if row else interval.tally
        self._db.execute(
            "INSERT OR REPLACE INTO performance VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, now, since, codec.encode(interval), codec.encode(total)),
        )
        self._db.execute(
            "INSERT INTO performance_interval (device, model, number, ts, span, tally) VALUES (?, ?, ?, ?, ?, ?)",
            (*key, placed(interval.until, now), interval.span, codec.encode(interval.tally.together())),
        )
        self._trim(device, now)

    def _trim(self, device: DeviceId, now: float) -> None:
        self._db.execute(
            "DELETE FROM performance WHERE device = ? AND received <"
            " (SELECT received FROM performance WHERE device = ? ORDER BY received DESC LIMIT 1 OFFSET ?)",
            (device, device, self._releases - 1),
        )
        self._db.execute("DELETE FROM performance_interval WHERE ts < ?", (now - DAYS * _DAY,))
        self._db.execute(
            "DELETE FROM performance_interval WHERE device = ? AND id <="
            " (SELECT id FROM performance_interval WHERE device = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (device, device, self._intervals),
        )

    def all(self, device: DeviceId | None = None, model: ModelName | None = None) -> list[Performed]:
        """By device, model and number, of one or of all."""
        rows = self._db.execute(
            f"{_PERFORMED} WHERE (? IS NULL OR device = ?) AND (? IS NULL OR model = ?) ORDER BY device, model, number",
            (device, device, model, model),
        )
        return list(map(_performed, rows))

    def of(self, device: DeviceId, model: ModelName, number: int) -> Performed | None:
        """One release on one device."""
        key = (device, model, number)
        row = self._db.execute(f"{_PERFORMED} WHERE device = ? AND model = ? AND number = ?", key).fetchone()
        return _performed(row) if row else None

    def changed(self, place: int) -> tuple[int, frozenset[tuple[DeviceId, ModelName, int]]]:
        """How far the rows go, and which were written after they went as far as `place`; 0: all. Each row that is
        written goes to the end."""
        rows = self._db.execute("SELECT device, model, number FROM performance WHERE rowid > ?", (place,)).fetchall()
        (last,) = self._db.execute("SELECT coalesce(max(rowid), 0) FROM performance").fetchone()
        return last, frozenset((DeviceId(device), ModelName(model), number) for device, model, number in rows)

    def hours(self, device: DeviceId, model: ModelName | None, since: float) -> list[Hour]:
        """Its intervals that ended after `since`, oldest first."""
        rows = self._db.execute(
            "SELECT device, model, number, ts, span, tally FROM performance_interval"
            " WHERE device = ? AND (? IS NULL OR model = ?) AND ts > ? ORDER BY ts, id",
            (device, model, model, since),
        )
        return [
            Hour(DeviceId(name), ModelName(said), number, ts, span, _tally(tally))
            for name, said, number, ts, span, tally in rows
        ]


_PERFORMED = "SELECT device, received, newest, since, total FROM performance"


def _performed(row: Any) -> Performed:
    name, received, newest, since, total = row
    return Performed(DeviceId(name), received, codec.decode(Interval, bytes(newest)), since, _tally(total))


def _total(before: Tally, more: Tally) -> Tally:
    """The sum; a release has no more classes than can be told apart, and whoever says it has adds none."""
    known = before.confidence.keys()
    if len(known | more.confidence.keys()) > MOST_CLASSES:
        kept = {name: one for name, one in more.confidence.items() if name in known}
        more = msgspec.structs.replace(more, confidence=kept)
    return before.merge(more)


def _tally(stored: Any) -> Tally:
    return codec.decode(Tally, bytes(stored), _LIMIT)


def placed(until: float, now: float) -> float:
    """When an interval ended: by its device's clock where that can be right, else when it came."""
    return until if now - DAYS * _DAY <= until <= now else now
