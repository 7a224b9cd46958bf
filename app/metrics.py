"""What Prometheus can ask for. Each service has a registry of its own, so that several can live in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.batching import BatchReport
from app.engine import EngineResult

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ["route", "method"]
        self._requests = Counter(
            "shortlist_requests", "Requests answered.", [*labels, "status"], registry=self._registry
        )
        self._latency = Histogram(
            "shortlist_request_seconds",
            "From the first byte of a request to the last of its answer.",
            labels,
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batch_items = Histogram(
            "shortlist_batch_items", "Requests that ran together.", ["work"], buckets=ITEMS, registry=self._registry
        )
        self._batch_seconds = Histogram(
            "shortlist_batch_seconds", "Time a batch ran.", ["work"], buckets=SECONDS, registry=self._registry
        )
        self._tokens = Counter(
            "shortlist_tokens", "Tokens that stages processed.", ["pipeline"], registry=self._registry
        )
        self._incomplete = Counter(
            "shortlist_incomplete", "Answers without all stages.", ["pipeline", "reason"], registry=self._registry
        )

    def observe_queue(self, queue_tokens: Callable[[], Mapping[str, int]]) -> None:
        """Ask for the length of queues whenever metrics are read."""
        self._registry.register(_Queues(queue_tokens))

    def on_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, method, str(status)).inc()
        self._latency.labels(route, method).observe(seconds)

    def on_batch(self, report: BatchReport) -> None:
        """Count a batch."""
        self._batch_items.labels(report.worker).observe(report.items)
        self._batch_seconds.labels(report.worker).observe(report.seconds)

    def on_result(self, pipeline: str, result: EngineResult) -> None:
        """Count what a pipeline gave."""
        self._tokens.labels(pipeline).inc(result.tokens)
        if result.partial:
            self._incomplete.labels(pipeline, "deadline").inc()
        if result.degraded_reason:
            self._incomplete.labels(pipeline, "failure").inc()
        if result.notes:
            self._incomplete.labels(pipeline, "arm").inc()

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Queues(Collector):
    def __init__(self, queue_tokens: Callable[[], Mapping[str, int]]) -> None:
        self._queue_tokens = queue_tokens

    def collect(self) -> list[GaugeMetricFamily]:
        """Read the queues."""
        gauge = GaugeMetricFamily(
            "shortlist_queue_tokens", "Tokens of work admitted and not finished.", labels=["work"]
        )
        for work, tokens in self._queue_tokens().items():
            gauge.add_metric([work], tokens)
        return [gauge]
