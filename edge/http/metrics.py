"""Counters and latencies by model and version, fed by `Serving`.

Counting is a few additions under a lock, on the way of every answer; Prometheus' own types cost several times as much,
and its library two MiB, so both come when a page is asked for (`edge.http.scraped`): most devices never are.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass, field

from edge.http.wire import Response
from sync.names import ModelName
from sync.performance import BOUNDS, Tally


@dataclass(slots=True)
class _Series:
    answers: int = 0
    errors: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))


class Metrics:
    """`observe` fits `Serving(observe=...)`, so that answers over HTTP and MQTT count alike. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[tuple[ModelName, int], _Series] = {}

    def observe(self, model: ModelName, release: int, seconds: float, answers: int) -> None:
        """So many answers of a release and how long they took together, as each asker waited; none: a failure."""
        bucket, times = bisect_left(BOUNDS, seconds), answers or 1
        with self._lock:
            series = self._series.get((model, release))
            if series is None:
                series = self._series[(model, release)] = _Series()
            series.answers += answers
            series.errors += not answers
            series.seconds += seconds * times
            series.buckets[bucket] += times

    def counted(self) -> dict[tuple[ModelName, int], Tally]:
        """All counts since this process began, by model and release."""
        with self._lock:
            return {
                key: Tally(series.answers, series.errors, tuple(series.buckets)) for key, series in self._series.items()
            }

    def seconds(self) -> dict[tuple[ModelName, int], float]:
        """All time that answers took since this process began, by model and release."""
        with self._lock:
            return {key: series.seconds for key, series in self._series.items()}

    def page(self) -> Response:
        from edge.http import scraped

        return scraped.page(self)
