"""What does Prometheus see?

A registry of its own, so that nothing of the process leaks in. What the API does is counted as it happens; what the
learner did is read from its status at the moment of the scrape. Every metric has a bounded number of series.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

import msgspec
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from driftline.api.shared.board import Board
from driftline.api.shared.connection import Connection
from driftline.api.shared.health import Health
from driftline.api.shared.watcher import Watcher
from driftline.learner.report.metrics import gauge, of_learner
from driftline.learner.report.status import Status

MAX_LABEL_SERIES: Final = 100
OTHER: Final = "(other)"
_TO_SERVING_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Tallies(msgspec.Struct):
    """What one process counted. Of times: how many fell into each bucket, and their sum."""

    requests: dict[str, dict[int, int]] = {}  # by route and status
    buckets: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    learned_buckets: list[int] = []  # of the time from a label to the model that learned it
    learned_seconds: float = 0.0
    texts: int = 0
    predictions: dict[str, int] = {}  # by label, MAX_LABEL_SERIES of them and OTHER


_TALLIES: Final = msgspec.msgpack.Decoder(Tallies)


class Metrics:
    """What the API counts. On the event loop only.

    The client library's counters take a lock each, and its histograms walk through their buckets: that is for a scrape
    to pay, not for a request.
    """

    def __init__(self, watcher: Watcher, connection: Connection, health: Health, board: Board | None = None) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_LearnerCollector(watcher, connection, health))
        self.registry.register(_TallyCollector(self))
        self._board = board
        self._own = board.read_own(_TALLIES) if board else Tallies()

    def count_request(self, route: str, code: int, seconds: float) -> None:
        """Count a request that was answered."""
        own = self._own
        codes = own.requests.get(route)
        if codes is None:
            codes = own.requests[route] = {}
            own.buckets[route], own.seconds[route] = [0] * (len(_BUCKETS) + 1), 0.0
        codes[code] = codes.get(code, 0) + 1
        own.buckets[route][bisect_left(_BUCKETS, seconds)] += 1
        own.seconds[route] += seconds

    def count_label_to_serving(self, seconds: float) -> None:
        """Count a label that the served model has learned."""
        own = self._own
        if not own.learned_buckets:
            own.learned_buckets = [0] * (len(_TO_SERVING_BUCKETS) + 1)
        own.learned_buckets[bisect_left(_TO_SERVING_BUCKETS, seconds)] += 1
        own.learned_seconds += seconds

    def count_predictions(self, labels: Iterable[str]) -> None:
        """Count texts by the label that was predicted."""
        known = self._own.predictions
        for label in labels:
            n = known.get(label)
            if n is not None:
                known[label] = n + 1
            elif len(known) < MAX_LABEL_SERIES:
                known[label] = 1
            else:
                known[OTHER] = known.get(OTHER, 0) + 1
            self._own.texts += 1

    def share(self) -> None:
        """Show the other workers what was counted here. About once a second."""
        if self._board is not None:
            self._board.write(self._own)

    def all(self) -> list[Tallies]:
        """Return what every worker counted: this one by now, the others when they showed it last."""
        return [self._own, *(self._board.read_others(_TALLIES) if self._board is not None else ())]


def router(metrics: Metrics) -> APIRouter:
    """Return GET /metrics."""
    routes = APIRouter(tags=["operate"])

    @routes.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={
            200: {
                "description": "Metrics in Prometheus' text format.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    )
    async def get_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes


class _TallyCollector(Collector):
    """Makes metrics of what the workers counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Give the sums of this moment."""
        tallies = self._metrics.all()
        requests = CounterMetricFamily("driftline_http_requests", "Requests answered.", labels=("route", "code"))
        seconds = HistogramMetricFamily(
            "driftline_http_request_seconds", "Time from a request's head to the end of its answer.", labels=("route",)
        )
        for route in sorted({route for each in tallies for route in each.requests}):
            there = [each for each in tallies if route in each.requests]
            codes: Counter[int] = Counter()
            for each in there:
                codes.update(each.requests[route])
            for code, n in sorted(codes.items()):
                requests.add_metric((route, str(code)), n)
            counts = _cumulated([each.buckets[route] for each in there], _BUCKETS)
            seconds.add_metric((route,), counts, sum(each.seconds[route] for each in there))
        yield requests
        yield seconds
        learned = HistogramMetricFamily(
            "driftline_label_to_serving_seconds",
            "Time from a label's append by this API to a served model that has learned it.",
        )
        counts = _cumulated([each.learned_buckets for each in tallies if each.learned_buckets], _TO_SERVING_BUCKETS)
        learned.add_metric((), counts, sum(each.learned_seconds for each in tallies))
        yield learned
        texts = sum(each.texts for each in tallies)
        yield CounterMetricFamily("driftline_texts_predicted", "Texts predicted by request.", texts)
        predictions = CounterMetricFamily(
            "driftline_predictions",
            f"Predictions by request, by label; labels past the first {MAX_LABEL_SERIES} of a worker are {OTHER}.",
            labels=("label",),
        )
        labels: Counter[str] = Counter()
        for each in tallies:
            labels.update(each.predictions)
        for label, n in labels.items():
            predictions.add_metric((label,), n)
        yield predictions


def _cumulated(rows: Sequence[Sequence[int]], edges: Sequence[float]) -> list[tuple[str, float]]:
    """Return how many there are below each edge, in all rows."""
    sums = [sum(column) for column in zip(*rows, strict=True)] or [0] * (len(edges) + 1)
    return list(zip([*map(str, edges), "+Inf"], accumulate(sums), strict=True))


class _LearnerCollector(Collector):
    """Makes metrics of what the learner and the log said last. What is not known has no sample."""

    def __init__(self, watcher: Watcher, connection: Connection, health: Health) -> None:
        self._watcher, self._connection, self._health = watcher, connection, health

    def collect(self) -> Iterator[Metric]:
        """Give the metrics of this moment."""
        status = self._watcher.status
        if status is not None:
            yield from of_learner(status)
        elif self._watcher.status_problem is None:  # else that is what is not known
            yield gauge("learner_alive", "Whether a learner is at work.", False)
        served = self._watcher.served
        if served is not None:
            now = time.time()
            age_s = now - served.info.published_at
            yield gauge("model_age_seconds", "Time since the served model was published.", age_s)
            yield gauge("model_unchanged_seconds", "Time since the served model changed.", now - served.changed_at)
            pinned = self._watcher.pinned_to is not None
            yield gauge("model_pinned", "Whether a version of the past is served, not the latest.", pinned)
            yield gauge("model_labels", "Labels that the served model knows.", len(served.info.labels))
        yield from self._lag(status)
        yield gauge("log_up", "Whether the log answers, and takes what is sent.", self._connection.problem is None)
        ready = GaugeMetricFamily("driftline_ready", "Whether a part works now, as GET /readyz says.", labels=("part",))
        for part, said in msgspec.structs.asdict(self._health.parts()).items():
            if said is None:
                continue
            ready.add_metric((part,), float(said.ready))
        yield ready

    def _lag(self, status: Status | None) -> Iterator[Metric]:
        lag = self._connection.lag(status.positions if status is not None else {})
        if lag is not None:
            family = GaugeMetricFamily(
                "driftline_lag_records",
                "Records between the learner's position and the end of what can be read.",
                labels=("topic", "partition"),
            )
            for topic, of_topic in lag.items():
                for partition, records in of_topic.items():
                    family.add_metric((topic, partition), records)
            yield family
        held = GaugeMetricFamily(
            "driftline_held_back_offsets",
            "Offsets behind that, which an open transaction holds back.",
            labels=("topic", "partition"),
        )
        for place in self._connection.watermarks or ():
            held.add_metric((place.topic, str(place.partition)), self._connection.held_back.get(place, 0))
        yield held
