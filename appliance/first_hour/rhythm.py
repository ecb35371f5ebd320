"""How far apart the readings of a topic come, by their own times. Pure."""

from __future__ import annotations

from statistics import median

FEW = 8  # readings that tell


class Rhythm:
    """The usual time between two readings, topic by topic, from the newest few of each. Of at most `most` topics."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._seen: dict[str, tuple[float, list[float]]] = {}

    def see(self, topic: str, ts: float, rows: int = 1) -> None:
        """Takes in a message of `rows` readings, the latest at `ts` (seconds). One from the past says nothing."""
        known = self._seen.get(topic)
        if known is None:
            if len(self._seen) < self._most:
                self._seen[topic] = (ts, [])
        elif ts > known[0]:
            steps = known[1] + [(ts - known[0]) / rows] * min(rows, FEW)
            self._seen[topic] = (ts, steps[-FEW:])

    def period(self, topic: str, enough: int = FEW) -> float | None:
        """Seconds; None while fewer than `enough` readings tell."""
        _, steps = self._seen.get(topic, (0.0, []))
        return median(steps) if steps and len(steps) + 1 >= enough else None
