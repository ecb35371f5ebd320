"""Counters and latencies for Prometheus, by model and version, fed by `Serving`.

Counting is a few additions under a lock, on the way of every answer; Prometheus' own types cost several times as
much, so they are made when a page is asked for.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.http.wire import Response
from sync.names import ModelName

_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)  # seconds
_NAMES = (*map(str, _BOUNDS), "+Inf")
_LABELS = ("model", "version")


@dataclass(slots=True)
class _Series:
    answers: int = 0
    errors: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * len(_NAMES))


class Metrics(Collector):
    """`observe` fits `Serving(observe=...)`, so that answers over HTTP and MQTT count alike. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[tuple[ModelName, int], _Series] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def observe(self, model: ModelName, release: int, seconds: float, answers: int) -> None:
        """So many answers of a release and how long they took together, as each asker waited; none: a failure."""
        bucket, times = bisect_left(_BOUNDS, seconds), answers or 1
        with self._lock:
            series = self._series.get((model, release))
            if series is None:
                series = self._series[(model, release)] = _Series()
            series.answers += answers
            series.errors += not answers
            series.seconds += seconds * times
            series.buckets[bucket] += times

    def page(self) -> Response:
        return Response(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)

    def collect(self) -> Iterator[Metric]:
        """The counts at this moment, as Prometheus' library takes them."""
        answers = CounterMetricFamily("falaj_answers", "Answers given", labels=_LABELS)
        errors = CounterMetricFamily("falaj_errors", "Questions a model failed on", labels=_LABELS)
        seconds = HistogramMetricFamily("falaj_answer_seconds", "Time to answer", labels=_LABELS)
        with self._lock:
            for (model, release), series in self._series.items():
                labels = (model, str(release))
                answers.add_metric(labels, series.answers)
                errors.add_metric(labels, series.errors)
                buckets = list(zip(_NAMES, accumulate(series.buckets), strict=True))
                seconds.add_metric(labels, buckets, series.seconds)
        yield from (answers, errors, seconds)
