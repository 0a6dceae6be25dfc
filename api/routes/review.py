"""What can a person look over, and label?

GET /label-requests, GET /recent and GET /labels: what the learner puts into its review (report/review.py), twice a
second. Read where it is asked for, and again only once it has changed. POST /label-requests/claim gives messages to one
labeller, and to no other meanwhile (claims.py).
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta

from driftline.api.access.keys import named
from driftline.api.errors import ApiError, json_response
from driftline.api.http import openapi, query
from driftline.api.load.body import Bodies
from driftline.api.shared.claims import MAX_SECONDS, SECONDS, Claim, Claims
from driftline.api.shared.watcher import Watcher
from driftline.learner.report.confusion import Confused
from driftline.learner.report.label_requests import MAX_OPEN, LabelRequest
from driftline.learner.report.review import FILE, KEPT, Confusion, Review, Seen, read_review
from driftline.learner.shared.claims import MAX_HELD
from driftline.stream.wire.fields import as_name
from driftline.stream.wire.records import MAX_ID_CHARS

REQUESTS: Final = 20
MAX_LABELS: Final = 1000  # as many as a model has unless it is told otherwise
MAX_BYTES, MAX_VALUES = 1 << 20, 3000  # of a body, in a body
_Ids = Annotated[list[Annotated[str, Meta(max_length=MAX_ID_CHARS)] | openapi.Number], Meta(max_length=1000)]


class Claimed(msgspec.Struct, frozen=True):
    """Who is labelling a message, and how long nobody else is given it."""

    by: str
    seconds: float


class OpenRequest(LabelRequest, frozen=True, kw_only=True):
    """A message that it would help to have labelled; `claim` is null where it is to be had."""

    claim: Claimed | None = None


class NewClaim(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages somebody is about to label. Afterwards he has those that are answered, and no others."""

    labeller: (
        Annotated[
            str,
            Meta(
                pattern=r"^[A-Za-z0-9_.@:+-]{1,64}$(?!\n)",
                description="Who labels. With an API key: its name, and behind it what is given here, as KEY/LABELLER.",
            ),
        ]
        | None
    ) = None
    n: Annotated[
        int, Meta(ge=0, le=MAX_HELD, description="How many: those claimed already, then others, the newest first.")
    ] = 0
    ids: Annotated[_Ids, Meta(description="Messages wanted before others, as far as they are to be had.")] = []
    found: Annotated[
        _Ids,
        Meta(description="Messages that nobody was asked about, wanted likewise: they are claimed, and not answered."),
    ] = []
    without: Annotated[_Ids, Meta(description="Messages not wanted.")] = []
    seconds: Annotated[
        float, Meta(ge=1, le=MAX_SECONDS, description="For so long, unless it is claimed again before.")
    ] = SECONDS


class ClaimAnswer(msgspec.Struct, frozen=True):
    """What a labeller has now: nobody else is given it until it has a label, is let go, or the time is over."""

    labeller: str
    key: str | None  # the API key's name
    requests: list[OpenRequest]
    taken: list[str]  # of `ids` and `found`, what another one has, or has labelled
    seconds: float


class Estimated(msgspec.Struct, frozen=True):
    """Accuracy on all messages, told from those chosen that have a label by now, each counted 1 / chance times."""

    labels: int
    correct: int
    accuracy: float | None
    standard_error: float | None


class LabelRequestsAnswer(msgspec.Struct, frozen=True):
    """Messages to label, the newest first, each with the chance at which it was chosen.

    Where several people label, each claims what he is about to label (POST /label-requests/claim). Label them with
    POST /feedback. Which of them are labelled must not depend on what they are: then the mean of anything over them,
    each weighted by 1 / chance, is its mean over all messages.
    """

    requests: list[OpenRequest]
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
    support: int  # how often it was the label
    predicted: int  # how often it was predicted
    right: int  # how often it was both


class LabelsAnswer(msgspec.Struct, frozen=True):
    """Precision and recall of each label, and which are taken for which.

    Counted over all labels that met a prediction since the model's first one: `scored` of them. Of more than
    1,000 labels the commonest are here; `confusion` is among the 12 commonest, `confused` among all.
    """

    labels: list[LabelScored]
    total: int
    confusion: Confusion
    scored: int
    confused: Confused


TYPES: Final = (LabelRequestsAnswer, NewClaim, ClaimAnswer, RecentAnswer, LabelsAnswer)
_CLAIM: Final = msgspec.json.Decoder(NewClaim)


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


def router(data: Path, watcher: Watcher, claims: Claims, bodies: Bodies) -> APIRouter:
    """Return GET /label-requests, POST /label-requests/claim, GET /recent and GET /labels."""
    routes, reviews = APIRouter(tags=["review"], route_class=openapi.BareRoute), Reviews(data)

    @routes.get(
        "/label-requests",
        summary="Messages the model is least sure of, and the chance at which each was chosen",
        responses=openapi.answers(200, "The messages.", openapi.ref("LabelRequestsAnswer"))
        | openapi.refused_parameter(),
        openapi_extra={"parameters": [_at_most("messages", MAX_OPEN, REQUESTS)]},
    )
    async def list_label_requests(request: Request) -> Response:
        n = query.whole(request, "n", REQUESTS, 1, MAX_OPEN)
        review = await reviews.newest()
        estimate = review.estimate
        told = Estimated(estimate.labels, estimate.correct, estimate.accuracy, estimate.standard_error)
        claims.see(each.id for each in review.requests)
        await claims.look()
        asked = _asked(review.requests, claims.of(each.id for each in review.requests))
        return json_response(LabelRequestsAnswer(asked[:n], len(asked), review.requests_per_hour, told))

    @routes.post(
        "/label-requests/claim",
        summary="Have messages to label that nobody else is given meanwhile",
        responses=openapi.answers(200, "What the labeller has now.", openapi.ref("ClaimAnswer")) | openapi.refusals(),
        openapi_extra=openapi.body(openapi.ref("NewClaim"), {"five": {"labeller": "alice", "n": 5}}),
    )
    async def claim_label_requests(request: Request) -> Response:
        async with bodies.read(request, _CLAIM, _names, MAX_BYTES, MAX_VALUES) as (sent, ids, found, without):
            key = request.scope.get("key")
            labeller = named(key, sent.labeller)
            if labeller is None:
                raise ApiError(
                    422, "no-labeller", "it is not said who labels", 'Send {"labeller": "a name"}, or an API key.'
                )
            by_id = {each.id: each for each in (await reviews.newest()).requests}
            there, named_ids = list(dict.fromkeys([*by_id, *found])), [*ids, *found]
            had = await claims.take(labeller, there, named=named_ids, n=sent.n, without=without, seconds=sent.seconds)
            held = [each for each in had.held if each in by_id]
            asked = _asked([by_id[each] for each in held], claims.of(held))
            name = key.name if key is not None else None
            return json_response(ClaimAnswer(labeller, name, asked, had.taken, sent.seconds))

    @routes.get(
        "/recent",
        summary="The last messages and labels, with what was predicted",
        responses=openapi.answers(200, "Both.", openapi.ref("RecentAnswer")) | openapi.refused_parameter(),
        openapi_extra={"parameters": [_at_most("of each", KEPT, KEPT)]},
    )
    async def list_recent(request: Request) -> Response:
        n = query.whole(request, "n", KEPT, 1, KEPT)
        review = await reviews.newest()
        return json_response(RecentAnswer(review.messages[:n], review.labelled[:n]))

    @routes.get(
        "/labels",
        summary="Precision and recall by label, and which labels are taken for which",
        responses=openapi.answers(200, "The labels, the commonest first.", openapi.ref("LabelsAnswer")),
    )
    async def list_labels(_: Request) -> Response:
        status, review = watcher.status, await reviews.newest()
        progress: dict[str, Any] = status.progress if status is not None else {}
        known: dict[str, Any] = progress.get("by_label", {})
        commonest = sorted(known.items(), key=lambda item: -item[1]["support"])[:MAX_LABELS]
        # Recall is right / support, rounded to the nearest double: times support it is within far less than a half.
        scored = [
            LabelScored(label, **scores, right=round(scores["recall"] * scores["support"]))
            for label, scores in commonest
        ]
        n_scored = int(progress.get("labels", 0))
        return json_response(LabelsAnswer(scored, len(known), review.confusion, n_scored, review.confused))

    return routes


def _names(sent: NewClaim) -> tuple[NewClaim, list[str], list[str], list[str]]:
    """Return a claim, and the ids in it as texts: those wanted, those found, and those not wanted."""
    return sent, list(map(as_name, sent.ids)), list(map(as_name, sent.found)), list(map(as_name, sent.without))


def _asked(requests: list[LabelRequest], claims: Mapping[str, Claim]) -> list[OpenRequest]:
    """Return requests with their claims; those whose label is on its way are left out."""
    now, asked = time.monotonic(), []
    for each in requests:
        claim = claims.get(each.id)
        if claim is None or claim.by:
            claimed = Claimed(claim.by, round(max(0.0, claim.until - now), 1)) if claim is not None else None
            asked.append(OpenRequest(**msgspec.structs.asdict(each), claim=claimed))
    return asked


def _at_most(what: str, most: int, default: int) -> openapi.Document:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return query.parameter("n", f"How many {what}, at most.", schema)
