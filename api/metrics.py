"""What does Prometheus see?

A registry of its own, so that nothing of the process leaks in. What the API does is counted as it happens; what the
learner did is read from its status at the moment of the scrape. Every metric has a bounded number of series.
"""

import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from typing import Final

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.connection import Connection
from api.watcher import Watcher
from learner.metrics import gauge, of_learner
from learner.status import Status

MAX_LABEL_SERIES: Final = 100
OTHER: Final = "(other)"
_TO_SERVING_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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
            yield from of_learner(status)
        served = self._watcher.served
        if served is not None:
            now = time.time()
            age_s = now - served.info.published_at
            yield gauge("model_age_seconds", "Time since the served model was published.", age_s)
            yield gauge("model_unchanged_seconds", "Time since the served model changed.", now - served.changed_at)
            yield gauge("model_labels", "Labels that the served model knows.", len(served.info.labels))
        yield from self._lag(status)
        yield gauge("log_up", "Whether the log answers.", self._connection.problem is None)

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
