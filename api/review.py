"""What can a person look over, and label?

GET /label-requests, GET /recent and GET /labels: what the learner puts into its review (learner/review.py), twice a
second. Read where it is asked for, and again only once it has changed.
"""

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response

from driftline.api import openapi, query
from driftline.api.errors import json_response
from driftline.api.watcher import Watcher
from driftline.learner.requests import MAX_OPEN, LabelRequest
from driftline.learner.review import FILE, KEPT, Confusion, Review, Seen, read_review

REQUESTS: Final = 20
MAX_LABELS: Final = 100


class Estimated(msgspec.Struct, frozen=True):
    """Accuracy on all messages, told from those chosen that have a label by now, each counted 1 / chance times."""

    labels: int
    correct: int
    accuracy: float | None
    standard_error: float | None


class LabelRequestsAnswer(msgspec.Struct, frozen=True):
    """Messages to label, the newest first, each with the chance at which it was chosen.

    Label them with POST /feedback. Which of them are labelled must not depend on what they are: then the mean of
    anything over them, each weighted by 1 / chance, is its mean over all messages.
    """

    requests: list[LabelRequest]
    open: int
    per_hour: float
    estimate: Estimated


class RecentAnswer(msgspec.Struct, frozen=True):
    """The last messages, and the last labels that met theirs, with what had been predicted; the newest first."""

    messages: list[Seen]
    labelled: list[Seen]


class LabelScored(msgspec.Struct, frozen=True):
    """How well one label is predicted."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


class LabelsAnswer(msgspec.Struct, frozen=True):
    """Precision and recall of the commonest labels, and which are taken for which."""

    labels: list[LabelScored]
    total: int
    confusion: Confusion


TYPES: Final = (LabelRequestsAnswer, RecentAnswer, LabelsAnswer)


class Reviews:
    """The newest review. On the event loop."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._known: tuple[tuple[int, int] | None, Review] = None, Review()

    async def newest(self) -> Review:
        """Return what the learner wrote last."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Review:
        try:
            found = (self._data / FILE).stat()
        except OSError:
            return Review()
        mark = found.st_mtime_ns, found.st_ino
        if self._known[0] != mark:
            self._known = mark, read_review(self._data)
        return self._known[1]


def router(data: Path, watcher: Watcher) -> APIRouter:
    """Return GET /label-requests, GET /recent and GET /labels."""
    routes, reviews = APIRouter(tags=["review"], route_class=openapi.BareRoute), Reviews(data)

    @routes.get(
        "/label-requests",
        summary="Messages the model is least sure of, and the chance at which each was chosen",
        responses=openapi.answers(200, "The messages.", openapi.ref("LabelRequestsAnswer"))
        | openapi.refused_parameter(),
        openapi_extra={"parameters": [_at_most("messages", MAX_OPEN, REQUESTS)]},
    )
    async def label_requests(request: Request) -> Response:
        n = query.whole(request, "n", REQUESTS, 1, MAX_OPEN)
        review = await reviews.newest()
        estimate = review.estimate
        told = Estimated(estimate.labels, estimate.correct, estimate.accuracy, estimate.standard_error)
        return json_response(
            LabelRequestsAnswer(review.requests[:n], len(review.requests), review.requests_per_hour, told)
        )

    @routes.get(
        "/recent",
        summary="The last messages and labels, with what was predicted",
        responses=openapi.answers(200, "Both.", openapi.ref("RecentAnswer")) | openapi.refused_parameter(),
        openapi_extra={"parameters": [_at_most("of each", KEPT, KEPT)]},
    )
    async def recent(request: Request) -> Response:
        n = query.whole(request, "n", KEPT, 1, KEPT)
        review = await reviews.newest()
        return json_response(RecentAnswer(review.messages[:n], review.labelled[:n]))

    @routes.get(
        "/labels",
        summary="Precision and recall by label, and which labels are taken for which",
        responses=openapi.answers(200, "The commonest labels.", openapi.ref("LabelsAnswer")),
    )
    async def labels(_: Request) -> Response:
        status, review = watcher.status, await reviews.newest()
        known: dict[str, Any] = status.progress.get("by_label", {}) if status is not None else {}
        commonest = sorted(known.items(), key=lambda item: -item[1]["support"])[:MAX_LABELS]
        scored = [LabelScored(label, **scores) for label, scores in commonest]
        return json_response(LabelsAnswer(scored, len(known), review.confusion))

    return routes


def _at_most(what: str, most: int, default: int) -> openapi.Document:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return query.parameter("n", f"How many {what}, at most.", schema)
