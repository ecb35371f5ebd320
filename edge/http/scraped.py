"""The page that Prometheus reads, with its own library; loaded when one is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.http.metrics import Metrics
from edge.http.wire import Response
from sync.performance import BOUNDS

_NAMES = (*map(str, BOUNDS), "+Inf")
_LABELS = ("model", "version")


class _Counts(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        answers = CounterMetricFamily("falaj_answers", "Answers given", labels=_LABELS)
        errors = CounterMetricFamily("falaj_errors", "Questions a model failed on", labels=_LABELS)
        seconds = HistogramMetricFamily("falaj_answer_seconds", "Time to answer", labels=_LABELS)
        spent = self._metrics.seconds()
        for (model, release), tally in self._metrics.counted().items():
            labels = (model, str(release))
            answers.add_metric(labels, tally.answers)
            errors.add_metric(labels, tally.errors)
            seconds.add_metric(
                labels, list(zip(_NAMES, accumulate(tally.latency), strict=True)), spent.get((model, release), 0.0)
            )
        yield from (answers, errors, seconds)


def page(metrics: Metrics) -> Response:
    """All counts since the process began, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Counts(metrics))
    return Response(200, generate_latest(registry), CONTENT_TYPE_LATEST)
