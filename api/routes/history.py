"""How did it go, and when did it change?

GET /history and GET /drift. The first reads the learner's rings (report/history.py), the second its status; neither
asks the learner, so both answer when it is dead.
"""

import asyncio
import time
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
from fastapi import APIRouter, Request, Response
from msgspec import Meta
from numpy.typing import NDArray

from driftline.api.errors import json_response
from driftline.api.http import openapi, query
from driftline.api.shared.watcher import Watcher
from driftline.learner.quality.alarms import Alarm, Changes
from driftline.learner.report.history import SERIES, Points, read_history

MAX_POINTS: Final = 2000
POINTS: Final = 300
SINCE_S: Final = 900.0  # ago

_Number = float | None


class Series(msgspec.Struct, frozen=True):
    """A series' points, one for each entry of `time`. Null where there was nothing to be told."""

    mean: list[_Number]
    min: list[_Number]
    max: list[_Number]
    weight: list[float]  # how much the mean counts: labels, seconds or looks


class HistoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Points of `period_seconds` each, the oldest first; a time without a point is one in which no learner ran.

    `accuracy` and `log_loss` are of predictions as served, over the labels that came in a point's time; `lag` is
    records not yet taken; `label_delay_seconds` is from message to label.
    """

    now: float  # seconds since 1970, this machine's clock
    period_seconds: int
    time: list[Annotated[float, Meta(description="Seconds since 1970, where a point begins.")]]
    accuracy: Series
    log_loss: Series
    messages_per_second: Series
    labels_per_second: Series
    lag: Series
    label_delay_seconds: Series


class DriftAnswer(msgspec.Struct, frozen=True):
    """When the log loss of predictions as served changed, over all labels (label null) or for single ones."""

    alarms: int
    overall: Changes
    by_label: dict[str, Changes]
    recent: list[Alarm]  # the last ones, the newest last


TYPES: Final = (HistoryAnswer, DriftAnswer)


def router(data: Path, watcher: Watcher) -> APIRouter:
    """Return GET /history and GET /drift."""
    routes = APIRouter(tags=["operate"], route_class=openapi.BareRoute)
    parameters = [
        query.parameter("since", "Seconds since 1970; below 0: so long ago.", {"type": "number", "default": -SINCE_S}),
        query.parameter(
            "points",
            "How many points, at most.",
            {"type": "integer", "minimum": 1, "maximum": MAX_POINTS, "default": POINTS},
        ),
    ]

    @routes.get(
        "/history",
        summary="Accuracy, loss, throughput, lag and label delay over time",
        responses=openapi.answers(200, "The points.", openapi.ref("HistoryAnswer")) | openapi.refused_parameter(),
        openapi_extra={"parameters": parameters},
    )
    async def get_history(request: Request) -> Response:
        since = query.number(request, "since", -SINCE_S)
        n_points = query.whole(request, "points", POINTS, 1, MAX_POINTS)
        now = time.time()
        since = max(0.0, min(since if since >= 0 else now + since, now))
        return json_response(_answer(now, await asyncio.to_thread(read_history, data, since, now, n_points)))

    @routes.get(
        "/drift",
        summary="Drift alarms: when predictions got worse or better, and from what to what",
        responses=openapi.answers(200, "The alarms.", openapi.ref("DriftAnswer")),
    )
    async def get_drift(_: Request) -> Response:
        status = watcher.status
        if status is None:
            return json_response(DriftAnswer(0, Changes(), {}, []))
        known = status.drift
        return json_response(DriftAnswer(known.alarms, known.overall, known.by_label, known.recent))

    return routes


def _answer(now: float, points: Points) -> HistoryAnswer:
    series = {name: _series(points.values[:, index]) for index, name in enumerate(SERIES)}
    return HistoryAnswer(now=round(now, 3), period_seconds=points.period_s, time=points.time.tolist(), **series)


def _series(values: NDArray[np.float64]) -> Series:
    weight, total, least, most = values.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / weight
    return Series(_known(mean), _known(least), _known(most), weight.tolist())


def _known(values: NDArray[np.float64]) -> list[_Number]:
    return [round(value, 6) if ok else None for value, ok in zip(values.tolist(), np.isfinite(values), strict=True)]
