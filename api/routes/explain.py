"""Why does the model say so of a text?

POST /explain. An explanation is plain Python and takes as long as some thousand predictions, so it is made in a thread
of its own, by a model of its own (the tables are shared), from texts of a bounded length; few may wait for it, and all
get a tenth of a processor for each caller and a fifth for all (turns.py), so that predictions go on as ever.
"""

import asyncio
import math
from functools import partial
from typing import Annotated, Final, NamedTuple

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta

from driftline.api.errors import ApiError, json_response, no_model, too_long
from driftline.api.http import openapi
from driftline.api.http.fielded import SEE_DOCS, FieldsSent, VectorSent, check_vectors, with_fields
from driftline.api.load.body import Bodies
from driftline.api.load.turns import Turns
from driftline.api.load.waiting import Places
from driftline.api.settings import ApiSettings
from driftline.api.shared.health import missing
from driftline.api.shared.watcher import Watcher
from driftline.learner.explain.explain import Explanation, FeatureShare, Step, UnknownLabel
from driftline.learner.serving.snapshot import Model, Snapshot, SnapshotInfo
from driftline.stream.errors import StateError
from driftline.stream.wire.fields import as_name
from driftline.stream.wire.vector import has_vector, without_vector

MAX_CHARS: Final = 10_000
MAX_FEATURES: Final = 200
MAX_LABELS: Final = 10
MAX_WAITING: Final = 16
MAX_WAITING_EACH: Final = 4  # of one caller
SHARE: Final = 0.1  # of a processor, for each caller
BURST_S: Final = 0.2
MAX_BYTES: Final = 256 << 10  # of a body: all that it may hold, every character escaped
MAX_VALUES: Final = 1000  # in it

_Label = Annotated[str, Meta(min_length=1, max_length=256, extra_json_schema=openapi.NO_NUL)] | openapi.Number


class ExplainRequest(msgspec.Struct, frozen=True):
    """A text, and what is to be said of it."""

    text: Annotated[str, Meta(max_length=MAX_CHARS, extra_json_schema=openapi.NO_NUL)]
    features: Annotated[int, Meta(ge=0, le=MAX_FEATURES)] = 20  # words and n-grams to list, those that say most
    labels: Annotated[list[_Label], Meta(max_length=MAX_LABELS)] | None = None  # none: the three best
    fields: FieldsSent = msgspec.field(default_factory=msgspec.Raw)
    vector: VectorSent = msgspec.field(default_factory=msgspec.Raw)


class Asked(NamedTuple):
    """The same, its text with its fields, its labels as texts."""

    text: str
    features: int
    labels: list[str] | None


class ExplainAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Why a text was scored as it was.

    Shares are in natural logarithms, over the mean of all labels: e to the power of the difference of two labels'
    shares is the factor by which a feature turned the odds between them. With `bias` and `rest` they add up.
    Spans are [first character, one past the last], counted in Unicode code points, not in UTF-16 units.
    """

    label: str | None
    score: float
    scores: dict[str, float]  # of the best labels
    method: str
    bias: dict[str, float]
    rest: dict[str, float]
    features: list[FeatureShare]
    n_features: int
    path: list[Step]
    model_version: str


_EXAMPLE: Final = ExplainAnswer(
    label="spam",
    score=0.93,
    scores={"spam": 0.93, "ham": 0.07},
    method="sum",
    bias={"spam": -0.4, "ham": 0.4},
    rest={"spam": 0.1, "ham": -0.1},
    features=[
        FeatureShare(
            kind="word", text="prize", spans=[(6, 11)], shares={"spam": 1.6, "ham": -1.6}, known=True, shared=False
        )
    ],
    n_features=12,
    path=[],
    model_version=openapi.VERSION,
)
TYPES: Final = (ExplainRequest, ExplainAnswer)
_DECODER: Final = msgspec.json.Decoder(ExplainRequest)


class Explainer:
    """Answers requests for explanations, one at a time."""

    def __init__(self, watcher: Watcher, settings: ApiSettings) -> None:
        self._watcher, self._settings = watcher, settings
        self._turns = Turns("explain", SHARE, BURST_S)
        self._places = Places(MAX_WAITING, MAX_WAITING_EACH, "explanations wait or are made")
        self._opened: tuple[Snapshot, Model] | None = None  # in the thread only

    async def answer(self, asked: Asked, caller: bytes) -> ExplainAnswer:
        """Return an explanation, once it is the caller's turn.

        Raises
        ------
        ApiError : 422 a label cannot be explained; 429, 503 too many wait; 503 nothing was learned yet, or it
            took too long.
        """
        served = self._watcher.served
        if served is None or not served.info.labels:
            raise no_model(missing(self._watcher))
        if has_vector(asked.text):
            check_vectors([asked.text], served.info.model, lambda _: "text")
        with self._places.take(caller, max(1, math.ceil(self._turns.pause_s(caller)))):
            try:
                async with asyncio.timeout(self._settings.request_timeout_s):
                    info, explanation = await self._turns.do(caller, partial(self._explain, served.snapshot, asked))
            except StateError as error:  # the snapshot is damaged or was cut short just now
                raise no_model(str(error)) from None
            except UnknownLabel as error:
                action = "GET /model lists the labels that are known."
                raise ApiError(422, "unknown-label", str(error), action) from None
            except TimeoutError:
                raise too_long(self._settings.request_timeout_s) from None
        return _answer(info, explanation, self._settings.max_scores)

    def stop(self) -> None:
        """Begin no explanation more."""
        self._turns.stop()

    def close(self) -> None:
        """Wait for the thread's last explanation."""
        self._turns.close()

    def _explain(self, snapshot: Snapshot, asked: Asked) -> tuple[SnapshotInfo, Explanation]:
        if self._opened is None or self._opened[0] is not snapshot:
            self._opened = snapshot, snapshot.another_model()
        return self._opened[1].explain_one(asked.text, asked.labels or None, asked.features)


def router(explainer: Explainer, bodies: Bodies) -> APIRouter:
    """Return POST /explain."""
    routes = APIRouter(tags=["predict"], route_class=openapi.BareRoute)
    examples = {
        "one": {"text": "win a prize now", "features": 5},
        "with fields": {"text": "win a prize now", "fields": {"country": "NL"}},
    }

    @routes.post(
        "/explain",
        summary="The words, n-grams and fields of a text that speak for each label",
        responses=openapi.answers(
            200, "The explanation.", openapi.ref("ExplainAnswer"), {"one": msgspec.to_builtins(_EXAMPLE)}
        )
        | openapi.refusals(),
        openapi_extra=openapi.body(openapi.ref("ExplainRequest"), examples),
    )
    async def explain(request: Request) -> Response:
        async with bodies.read(request, _DECODER, _with_names, MAX_BYTES, MAX_VALUES) as asked:
            return json_response(await explainer.answer(asked, request.scope["caller"]))

    return routes


def _with_names(asked: ExplainRequest) -> Asked:
    if "\0" in asked.text:
        raise ApiError(422, "forbidden-character", "text contains a NUL character (U+0000)", SEE_DOCS)
    whole = with_fields(asked.text, asked.fields, asked.vector)
    if len(without_vector(whole)) > len(asked.text) + MAX_CHARS:
        raise ApiError(422, "too-large", f"fields have more than {MAX_CHARS} characters together", SEE_DOCS)
    return Asked(whole, asked.features, None if asked.labels is None else list(map(as_name, asked.labels)))


def _answer(info: SnapshotInfo, explanation: Explanation, max_scores: int) -> ExplainAnswer:
    best = sorted(explanation.scores.items(), key=lambda item: -item[1])[:max_scores]
    return ExplainAnswer(
        label=explanation.label,
        score=round(best[0][1], 6) if best else 0.0,
        scores={label: round(score, 6) for label, score in best},
        method=explanation.method,
        bias=explanation.bias,
        rest=explanation.rest,
        features=explanation.features,
        n_features=explanation.n_features,
        path=explanation.path,
        model_version=info.version,
    )
