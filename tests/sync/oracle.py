"""The windows of a stream by SQL, in DuckDB: a second statement of what `sync.windows` promises, with none of its code.

It reads events as they arrived, `n` being their order. Its one assumption: times lie within a quarter of a period of a
common grid, so that an event's slot is known from its time alone; the kernel knows no grid and counts from row to row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import duckdb
import numpy as np
import numpy.typing as npt

from sync.features import WindowSpec

Event = tuple[float, int, float]  # time, a whole number, a float

SQL = """
WITH RECURSIVE events AS (
    SELECT unnest($n) AS n, unnest($t) AS t, unnest($x) AS x, unnest($y) AS y
), placed AS (
    SELECT n, t, x, y, CAST(round(t / $period) AS BIGINT) AS slot FROM events
), seen AS (  -- the newest slot before each event
    SELECT *, max(slot) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest FROM placed
), records AS (  -- events that went on, and the time of the one before
    SELECT *, lag(t) OVER (ORDER BY n) AS before FROM seen WHERE newest IS NULL OR slot > newest
), segments AS (  -- a gap opens one; it lasts until the next
    SELECT n AS first, coalesce(lead(n) OVER (ORDER BY n), 9223372036854775807) AS until, slot AS base
    FROM records WHERE before IS NULL OR t - before > $max_gap
), told AS (
    SELECT s.first AS segment, e.*, e.newest IS NULL OR e.slot > e.newest AS goes_on
    FROM seen e JOIN segments s ON e.n >= s.first AND e.n < s.until AND e.slot >= s.base
), taken AS (  -- what went on, and what came late after something older that was still remembered
    SELECT segment, n, slot, t, x, y FROM told WHERE goes_on
    UNION
    SELECT late.segment, late.n, late.slot, late.t, late.x, late.y
    FROM told late JOIN taken older ON older.segment = late.segment AND older.n < late.n
        AND older.slot < late.slot AND older.slot > late.newest - $size
    WHERE NOT late.goes_on
), numbers AS (
    SELECT unnest(range((SELECT max(slot) - min(slot) + 1 FROM placed))) AS j
), windows AS (  -- each leaves with the first event at or past its last slot
    SELECT s.first AS segment, s.base + j * $step AS low, min(e.n) AS leaves
    FROM segments s, numbers, told e
    WHERE e.segment = s.first AND e.goes_on AND e.slot >= s.base + j * $step + $size - 1
    GROUP BY ALL
), filled AS (  -- of several events of a slot the first counts, if it was there in time
    SELECT w.segment, w.low, w.leaves, i, arg_min(e.x, e.n) AS x, arg_min(e.y, e.n) AS y, count(e.n) AS found
    FROM windows w CROSS JOIN range(0, $size) AS slots(i)
    LEFT JOIN taken e ON e.segment = w.segment AND e.slot = w.low + i AND e.n <= w.leaves
    GROUP BY ALL
)
SELECT any_value(going.t - (going.slot - low - $size + 1) * $period) AS last, bool_and(found > 0) AS complete,
    list(CAST(f.x AS FLOAT) ORDER BY i) AS x, list(CAST(f.y AS FLOAT) ORDER BY i) AS y
FROM filled f JOIN placed going ON going.n = f.leaves
GROUP BY f.segment, f.low, f.leaves ORDER BY f.leaves, f.low
"""


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


@dataclass(frozen=True)
class Expected:
    """A window by the oracle: time of its last slot, and (size, 2) values, NaN in holes."""

    end: float
    complete: bool
    values: npt.NDArray[np.float32]


def windows(spec: WindowSpec, events: list[Event]) -> list[Expected]:
    """What leaves of a stream of two channels, in the order in which it leaves."""
    columns = dict(zip("txy", map(list, zip(*events, strict=True)), strict=True))
    limits = {"period": spec.period, "max_gap": spec.max_gap, "size": spec.size, "step": spec.step}
    found = _database().execute(SQL, {**columns, **limits, "n": list(range(len(events)))}).fetchall()
    return [Expected(end, complete, np.array([x, y], np.float64).T.astype(np.float32)) for end, complete, x, y in found]
