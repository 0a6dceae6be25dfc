"""What does Prometheus see?

A registry of its own, so that nothing of the process leaks in. What the API does is counted as it happens; what the
learner did is read from its status at the moment of the scrape. Every metric has a bounded number of series.
"""

import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, Final

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.connection import Connection
from api.watcher import Watcher
from learner.alarms import Alarms
from learner.progress import DELAY_EDGES_MS
from learner.status import Status

MAX_LABEL_SERIES: Final = 100
OTHER: Final = "(other)"
_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TO_SERVING_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The counters of the API. On the event loop only."""

    def __init__(self, watcher: Watcher, connection: Connection) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_LearnerCollector(watcher, connection))
        self._requests = Counter(
            "driftline_http_requests", "Requests answered.", ("route", "code"), registry=self.registry
        )
        self._seconds = Histogram(
            "driftline_http_request_seconds",
            "Time from a request's head to the end of its answer.",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._texts = Counter("driftline_texts_predicted", "Texts predicted by request.", registry=self.registry)
        self._predictions = Counter(
            "driftline_predictions",
            f"Predictions by request, by label; labels past the first {MAX_LABEL_SERIES} are {OTHER}.",
            ("label",),
            registry=self.registry,
        )
        self._label_to_serving = Histogram(
            "driftline_label_to_serving_seconds",
            "Time from a label's append by this process to a served model that has learned it.",
            buckets=_TO_SERVING_BUCKETS,
            registry=self.registry,
        )
        self._by_request: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._by_label: dict[str, Counter] = {}

    def count_request(self, route: str, code: int, seconds: float) -> None:
        """Count a request that was answered."""
        known = self._by_request.get((route, code))
        if known is None:
            known = (self._requests.labels(route, str(code)), self._seconds.labels(route))
            self._by_request[route, code] = known
        known[0].inc()
        known[1].observe(seconds)

    def count_label_to_serving(self, seconds: float) -> None:
        """Count a label that the served model has learned."""
        self._label_to_serving.observe(seconds)

    def count_predictions(self, labels: Iterable[str]) -> None:
        """Count texts by the label that was predicted."""
        for label, n in Tally(labels).items():
            series = self._by_label.get(label)
            if series is None:
                if len(self._by_label) < MAX_LABEL_SERIES:
                    series = self._by_label[label] = self._predictions.labels(label)
                else:
                    series = self._predictions.labels(OTHER)
            series.inc(n)
            self._texts.inc(n)


class CountRequests:
    """Middleware that counts and times every request, those that fail included."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: frozenset[str]) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, code = time.perf_counter(), 500

        async def watch(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            template = getattr(scope.get("route"), "path", None)
            route = template if template in self._routes else OTHER
            self._metrics.count_request(route, code, time.perf_counter() - started)


def router(metrics: Metrics) -> APIRouter:
    """Return GET /metrics."""
    routes = APIRouter(tags=["operate"])

    @routes.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"description": "Metrics in Prometheus' text format.", "content": {"text/plain": {}}}},
    )
    async def show() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes


class _LearnerCollector(Collector):
    """Makes metrics of what the learner and the log said last. What is not known has no sample."""

    def __init__(self, watcher: Watcher, connection: Connection) -> None:
        self._watcher, self._connection = watcher, connection

    def collect(self) -> Iterator[Metric]:
        """Give the metrics of this moment."""
        status = self._watcher.status
        if status is not None:
            yield from _of_learner(status)
        served = self._watcher.served
        if served is not None:
            now = time.time()
            age_s = now - served.info.published_at
            yield _gauge("model_age_seconds", "Time since the served model was published.", age_s)
            yield _gauge("model_unchanged_seconds", "Time since the served model changed.", now - served.changed_at)
            yield _gauge("model_labels", "Labels that the served model knows.", len(served.info.labels))
        yield from self._lag(status)
        yield _gauge("log_up", "Whether the log answers.", self._connection.problem is None)

    def _lag(self, status: Status | None) -> Iterator[Metric]:
        lag = self._connection.lag(status.positions if status is not None else {})
        if lag is not None:
            family = GaugeMetricFamily(
                "driftline_lag_records",
                "Records between the learner's position and the log's high watermark.",
                labels=("topic", "partition"),
            )
            for topic, of_topic in lag.items():
                for partition, records in of_topic.items():
                    family.add_metric((topic, partition), records)
            yield family


def _of_learner(status: Status) -> Iterator[Metric]:
    counts, join, progress = status.counts, status.join, status.progress
    totals = {
        "messages_seen": (counts.messages_seen, "Messages taken in."),
        "labels_seen": (counts.labels_seen, "Labels taken in."),
        "labels_learned": (counts.labels_learned, "Labels learned, corrections included."),
        "rejected": (counts.rejected, "Records that went to the dead-letter topic."),
        "duplicate_messages": (join.duplicates, "Messages whose id was there."),
        "repeated_labels": (join.repeated, "Labels that were known."),
        "corrected": (join.corrected, "Labels that replaced another one."),
        "retracted": (join.retracted, "Labels taken back."),
        "expired": (join.expired, "Messages that left without a label."),
        "orphaned": (join.orphaned, "Labels that left without their message."),
    }
    for name, (value, text) in totals.items():
        yield CounterMetricFamily(f"driftline_{name}", text, value)
    yield _delays(progress.get("by_delay") or [])
    yield _alarms(status.drift)
    yield _gauge("pending", "Messages that wait for a label.", status.pending)
    yield _gauge("waiting", "Labels that wait for a message.", status.waiting)
    yield _gauge("window_bytes", "Memory of the join window.", status.window_bytes)
    yield _gauge("learner_alive", "Whether a learner is at work.", status.alive)
    yield _gauge("learner_epoch", "The learner's fencing number.", status.epoch)
    yield _gauge("learner_status_age_seconds", "Time since the learner last spoke.", status.age_s)
    yield _gauge("checkpoint_seconds", "Time that the last checkpoint took.", status.checkpoint_seconds)
    pause = status.checkpoint_pause_seconds
    yield _gauge("checkpoint_pause_seconds", "Time that the learner stood still for the last checkpoint.", pause)
    yield _gauge("snapshot_seconds", "Time that the last snapshot took.", status.snapshot_seconds)
    recent = progress.get("recent") or {}
    scores = {
        "accuracy": (progress.get("accuracy"), "Progressive accuracy as served, over all labels."),
        "log_loss": (progress.get("log_loss"), "Progressive log loss as served, over all labels."),
        "calibration_error": (progress.get("calibration_error"), "Expected calibration error as served, 0 to 1."),
        "macro_f1": (progress.get("macro_f1"), "Progressive macro F1 as served, over all labels."),
        "recent_accuracy": (recent.get("accuracy"), "Progressive accuracy as served, over the last labels."),
        "recent_log_loss": (recent.get("log_loss"), "Progressive log loss as served, over the last labels."),
    }
    for name, (score, text) in scores.items():
        if score is not None:
            yield _gauge(name, text, score)


def _alarms(alarms: Alarms) -> CounterMetricFamily:
    """Return the alarms by label; drift is watched for a bounded number of them."""
    family = CounterMetricFamily(
        "driftline_drift_alarms",
        "Changes of the log loss as served, for predictions of a true label; for all predictions where it is empty.",
        labels=("label", "change"),
    )
    for label, changes in {"": alarms.overall, **alarms.by_label}.items():
        family.add_metric((label, "worse"), changes.worse)
        family.add_metric((label, "better"), changes.better)
    return family


def _delays(by_delay: list[dict[str, Any]]) -> HistogramMetricFamily:
    """Return the delays of labels behind their messages, as they were scored; their sum is not known."""
    edges = [*(str(edge / 1000) for edge in DELAY_EDGES_MS), "+Inf"]
    numbers = accumulate(each["labels"] for each in by_delay)
    family = HistogramMetricFamily("driftline_label_delay_seconds", "Time from a message to its label, as scored.")
    if len(by_delay) == len(edges):
        family.add_metric([], list(zip(edges, numbers, strict=True)), sum_value=None)
    return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"driftline_{name}", text, float(value))
