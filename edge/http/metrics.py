"""Counters and latencies for Prometheus, by model and version; one registry, fed by `Serving`."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

from edge.http.wire import Response
from sync.names import ModelName

_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)  # seconds
_LABELS = ("model", "version")


@dataclass(frozen=True, slots=True)
class _Series:
    answers: Counter
    errors: Counter
    seconds: Histogram


class Metrics:
    """`observe` fits `Serving(observe=...)`, so that answers over HTTP and MQTT count alike. Thread-safe."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._answers = Counter("falaj_answers", "Answers given", _LABELS, registry=registry)
        self._errors = Counter("falaj_errors", "Questions a model failed on", _LABELS, registry=registry)
        self._seconds = Histogram(
            "falaj_answer_seconds", "Time to answer", _LABELS, registry=registry, buckets=_BUCKETS
        )
        self._series: dict[tuple[ModelName, int], _Series] = {}

    def observe(self, model: ModelName, release: int, seconds: float, ok: bool) -> None:
        """One answer or failure of a release, and how long it took."""
        series = self._series.get((model, release))
        if series is None:
            labels = (model, str(release))
            series = _Series(self._answers.labels(*labels), self._errors.labels(*labels), self._seconds.labels(*labels))
            self._series[(model, release)] = series
        (series.answers if ok else series.errors).inc()
        series.seconds.observe(seconds)

    def page(self) -> Response:
        return Response(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)
