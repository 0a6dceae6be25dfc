"""What does the model say of a text?

POST /predict. Small requests are answered on the event loop, where a thread's switch would cost more than the answer;
large ones in one thread of their own, callers in turn (turns.py), by a model of their own (see watcher.py), so that
they never hold up the small ones; there their answer is written, too, piece by piece. A model that goes by what a text
says first has the vectors made, in a thread for that, a few texts at a time, callers in turn. Scores are as on the
predictions topic: the best labels first, six decimals.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
import numpy as np
from fastapi import APIRouter, Request, Response
from msgspec import Meta
from numpy.typing import NDArray

from driftline.api.access.origin import Head
from driftline.api.errors import ApiError, Json, encode, json_response, no_model, too_long
from driftline.api.http import openapi
from driftline.api.http.fielded import FieldsSent, VectorSent, check_vectors, with_fields
from driftline.api.load.body import VALUES_AN_ITEM, Bodies, decode
from driftline.api.load.turns import Turns
from driftline.api.load.waiting import Places
from driftline.api.settings import ApiSettings
from driftline.api.shared.freshness import FeedbackOffset, FeedbackOffsets, Freshness
from driftline.api.shared.health import missing
from driftline.api.shared.metrics import Metrics
from driftline.api.shared.watcher import Served, Watcher
from driftline.learner.models.classifier import Scores
from driftline.learner.serving.snapshot import Model, SnapshotInfo
from driftline.stream.errors import StateError
from driftline.stream.words import counted

# About a millisecond of the event loop.
QUICK_CHARS: Final = 16_384
QUICK_SCORES: Final = 2_048

FEW_SCORES: Final = 32
# Texts that get their vectors in one turn, by one thread: who asks for one text waits for so many of another's at most.
VECTORS_A_TURN: Final = 8
MAX_WAITING: Final = 512  # requests for vectors
MAX_WAITING_EACH: Final = 256  # of one caller
VALUES_BESIDE: Final = 4_000  # in a body, beside its texts and fields: the offsets of labels, and what is skipped
_FIELDS: Final = b'"fields"'

_T = TypeVar("_T")
_Text = Annotated[str, Meta(extra_json_schema=openapi.NO_NUL)]
_Offsets = Annotated[
    FeedbackOffset | FeedbackOffsets,
    Meta(description="Labels that the model must have learned. One alone may stand without the list."),
]


class TextToClassify(msgspec.Struct, frozen=True):
    """A text, and what is known of it beside."""

    text: _Text
    fields: FieldsSent = msgspec.field(default_factory=msgspec.Raw)
    vector: VectorSent = msgspec.field(default_factory=msgspec.Raw)


class PredictRequest(msgspec.Struct, frozen=True):
    """One text, several, or several with fields: one of these. It waits until the model has learned the labels at
    these offsets.
    """

    text: _Text | None = None
    texts: list[_Text] | None = None
    messages: list[TextToClassify] | None = None
    fields: FieldsSent = msgspec.field(default_factory=msgspec.Raw)  # of the one text
    vector: VectorSent = msgspec.field(default_factory=msgspec.Raw)  # likewise
    min_feedback_offset: FeedbackOffset | FeedbackOffsets | None = None


class OneText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text to be classified."""  # this and the next two describe a request, which is one of them

    text: _Text
    fields: FieldsSent = msgspec.field(default_factory=msgspec.Raw)
    vector: VectorSent = msgspec.field(default_factory=msgspec.Raw)
    min_feedback_offset: _Offsets | None = None


class ManyTexts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts to be classified."""

    texts: Annotated[list[_Text], Meta(min_length=1)]
    min_feedback_offset: _Offsets | None = None


class ManyMessages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts to be classified, with their fields."""

    messages: Annotated[list[TextToClassify], Meta(min_length=1)]
    min_feedback_offset: _Offsets | None = None


class PredictedLabel(msgspec.Struct, frozen=True, gc=False):
    """The best label of a text, and the scores of the best labels, which sum to 1 over all labels."""

    label: str
    score: float
    scores: dict[str, float]


class PredictAnswer(msgspec.Struct, frozen=True):
    """A prediction for each text, in their order, and which model made them.

    A label that was posted has been learned once `feedback_offsets` of its partition is above its offset.
    """

    predictions: list[PredictedLabel]
    model_version: str
    model_age_seconds: float
    feedback_offsets: dict[str, int]


_EXAMPLE: Final = PredictAnswer(
    [PredictedLabel("spam", 0.93, {"spam": 0.93, "ham": 0.07})], openapi.VERSION, 0.08, {"0": 5574}
)
TYPES: Final = (OneText, ManyTexts, ManyMessages, PredictAnswer)
_share: Final = itemgetter(1)
_DECODER: Final = msgspec.json.Decoder(PredictRequest)


class Asked(NamedTuple):
    """What a request asks: texts within their limits, of a model that has learned the labels at these offsets."""

    texts: Sequence[str]
    least: FeedbackOffset | list[FeedbackOffset] | None
    vectors: str  # where of these texts those are that have a vector; empty: none has


class Predictor:
    """Answers requests for predictions. On the event loop only."""

    def __init__(self, watcher: Watcher, freshness: Freshness, metrics: Metrics, settings: ApiSettings) -> None:
        self._watcher, self._freshness, self._metrics, self._settings = watcher, freshness, metrics, settings
        self._bulk = Turns("predict-bulk")
        self._vectors = Turns("predict-vectors")
        self._places = Places(MAX_WAITING, MAX_WAITING_EACH, "requests wait for their texts' vectors")

    def read(self, asked: PredictRequest) -> "Asked":
        """Return what a request asks. Any thread. Raises ApiError (422) where its texts are not what they must be."""
        return Asked(_texts(asked, self._settings), asked.min_feedback_offset, _with_vectors(asked))

    async def answer(self, asked: "Asked", caller: bytes) -> Response:
        """Return the answer to a request. Who asks has so many places to wait for a label in.

        Raises
        ------
        ApiError : 503 nothing was learned yet; what `Freshness.wait` raises.
        """
        if (least := asked.least) is not None:
            await self._freshness.wait(least if isinstance(least, list) else [least], caller)
        if asked.vectors:
            check_vectors(asked.texts, self._served().info.model, asked.vectors.format)
        return await self.predict(asked.texts, _answer, caller)

    def at_once(self, asked: PredictRequest) -> PredictAnswer | None:
        """Do what `answer` does, where nothing has to be waited for; else return None. Raises ApiError as it does."""
        texts = _texts(asked, self._settings)
        if asked.min_feedback_offset is not None or not _is_quick(texts, served := self._served()):
            return None
        if served.quick.makes_vectors:
            return None
        if where := _with_vectors(asked):
            check_vectors(texts, served.info.model, where.format)
        try:
            if len(texts) == 1 and len(served.info.labels) <= FEW_SCORES:
                info, row = served.quick.predict_proba_one(texts[0])
                answered = info, [_few(info.labels, row, self._settings.max_scores)]
            else:
                answered = _predict(served.quick, texts, self._settings.max_scores)
        except StateError as error:
            raise no_model(str(error)) from None
        return _answer(*self._counted(answered))

    async def predict(
        self, texts: Sequence[str], made: Callable[[SnapshotInfo, list[PredictedLabel]], object], caller: bytes
    ) -> Response:
        """Return the answer that is made of what the served model is, and of what it says of texts within their limits.

        Parameters
        ----------
        made : may be called in another thread
        caller : who asks, and waits with many texts for its turn

        Raises
        ------
        ApiError : 503 nothing was learned yet, or it took too long.
        """

        def question(model: Model, texts: Sequence[str]) -> tuple[list[str], bytes]:
            info, predictions = _predict(model, texts, self._settings.max_scores)
            return [each.label for each in predictions], encode(made(info, predictions))

        labels, content = await self._ask(texts, question, caller)
        self._metrics.count_predictions(labels)
        return Json(content)

    async def score(
        self, texts: Sequence[str], made: Callable[[SnapshotInfo, NDArray[np.float64]], object], caller: bytes
    ) -> Response:
        """Do what `predict` does, with the scores of all labels: float64 [n_texts, n_labels], in their order."""

        def question(model: Model, texts: Sequence[str]) -> tuple[list[str], bytes]:
            info, scores = model.predict_proba_many(texts)
            rows = _rounded(scores)
            return [info.labels[column] for column in rows.argmax(axis=1).tolist()], encode(made(info, rows))

        labels, content = await self._ask(texts, question, caller)
        self._metrics.count_predictions(labels)
        return Json(content)

    async def _ask(self, texts: Sequence[str], question: Callable[[Model, Sequence[str]], _T], caller: bytes) -> _T:
        served = self._served()
        try:
            if served.quick.makes_vectors:
                texts = await self._completed(texts, caller)
                served = self._served()  # there may be another one now
            if _is_quick(texts, served):
                return question(served.quick, texts)
            async with asyncio.timeout(self._settings.request_timeout_s):
                return await self._bulk.do(caller, partial(question, served.bulk, texts))
        except TimeoutError:
            raise too_long(self._settings.request_timeout_s) from None
        except StateError as error:  # damaged or cut short just now
            raise no_model(str(error)) from None

    async def _completed(self, texts: Sequence[str], caller: bytes) -> Sequence[str]:
        """Return texts with their vectors. Raises ApiError: too many wait; TimeoutError."""
        found: list[str] = []
        with self._places.take(caller):
            async with asyncio.timeout(self._settings.request_timeout_s):
                for begin in range(0, len(texts), VECTORS_A_TURN):
                    some, model = texts[begin : begin + VECTORS_A_TURN], self._served().quick
                    found += await self._vectors.do(caller, partial(model.complete, some, threads=1))
        return found

    def _served(self) -> Served:
        served = self._watcher.served
        if served is None or not served.info.labels:
            raise no_model(missing(self._watcher))
        return served

    def _counted(
        self, answered: tuple[SnapshotInfo, list[PredictedLabel]]
    ) -> tuple[SnapshotInfo, list[PredictedLabel]]:
        self._metrics.count_predictions([prediction.label for prediction in answered[1]])
        return answered

    def close(self) -> None:
        """Wait for the threads' last requests."""
        self._vectors.close()
        self._bulk.close()


class Predict:
    """POST /predict."""

    def __init__(self, predictor: Predictor, bodies: Bodies, max_items: int) -> None:
        self._predictor, self._bodies = predictor, bodies
        self._max_values, self._with_fields = max_items + VALUES_BESIDE, VALUES_AN_ITEM * max_items + VALUES_BESIDE

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        async with self._bodies.read(request, _DECODER, self._predictor.read, max_values=self._most) as asked:
            return await self._predictor.answer(asked, request.scope["caller"])

    def _most(self, body: bytes) -> int:
        return self._with_fields if _FIELDS in body else self._max_values

    def at_once(self, head: Head, body: bytes) -> Response | None:
        """Answer one whose body is there, if nothing has to be waited for; else return None. See gate.py."""
        self._bodies.check_head(head)
        answer = self._predictor.at_once(decode(body, _DECODER))
        return None if answer is None else json_response(answer)


def router(predictor: Predictor, bodies: Bodies, settings: ApiSettings) -> APIRouter:
    """Return POST /predict."""
    routes = APIRouter(tags=["predict"], route_class=openapi.BareRoute)
    schema = {"oneOf": [openapi.ref(each.__name__) for each in (OneText, ManyTexts, ManyMessages)]}
    examples = {
        "one": {"text": "win a prize now"},
        "many": {"texts": ["win a prize now", "see you at lunch"]},
        "with fields": {"text": "win a prize now", "fields": {"sender": "a@b.example", "amount": 5}},
        "many with fields": {"messages": [{"text": "win a prize now", "fields": {"country": "NL"}}]},
        "after a label": {"text": "win a prize now", "min_feedback_offset": [{"partition": 0, "offset": 17}]},
    }

    routes.add_api_route(
        "/predict",
        Predict(predictor, bodies, settings.max_items),
        methods=["POST"],
        name="predict",
        summary="Classify one text, or many",
        responses=openapi.answers(
            200, "A prediction for each text.", openapi.ref("PredictAnswer"), {"one": msgspec.to_builtins(_EXAMPLE)}
        )
        | openapi.refusals(),
        openapi_extra=openapi.body(schema, examples),
    )
    return routes


def _texts(asked: PredictRequest, settings: ApiSettings) -> Sequence[str]:
    """Return the texts of a request, each within its limits."""
    if sum(each is not None for each in (asked.text, asked.texts, asked.messages)) != 1:
        raise _refuse("missing-field", "the body must have either text, texts or messages, and only one of them")
    if (bytes(asked.fields) or bytes(asked.vector)) and asked.text is None:
        what = "fields are" if bytes(asked.fields) else "a vector is"
        raise _refuse("wrong-type", f"{what} of one text; of several each has its own, in messages")
    if asked.text is not None:
        text = check_texts([asked.text], settings, lambda _: "text")[0]
        return [with_fields(text, asked.fields, asked.vector)]
    if asked.messages is not None:
        check_texts([each.text for each in asked.messages], settings, "messages[{}].text".format)
        where = "messages[{}].".format
        return [
            with_fields(each.text, each.fields, each.vector, where(place)) for place, each in enumerate(asked.messages)
        ]
    return check_texts(asked.texts or [], settings)


def _with_vectors(asked: PredictRequest) -> str:
    """Return where in a request the texts stand that have a vector; empty: none has."""
    if bytes(asked.vector):
        return "text"
    return "messages[{}]" if any(bytes(each.vector) for each in asked.messages or ()) else ""


def check_texts(
    texts: Sequence[str], settings: ApiSettings, where: Callable[[int], str] = "texts[{}]".format
) -> Sequence[str]:
    """Return texts, if each is within its limits and they are not too many. Raises ApiError (422)."""
    if not 1 <= len(texts) <= settings.max_items:
        raise _refuse(
            "out-of-range",
            f"got {counted(len(texts), 'text')}; there must be 1 to {settings.max_items}",
            {"Driftline-Max-Items": str(settings.max_items)},
        )
    for index, text in enumerate(texts):
        if "\0" in text:
            raise _refuse("forbidden-character", f"{where(index)} contains a NUL character (U+0000)")
        if len(text) > settings.max_text_chars:
            raise _refuse(
                "too-large",
                f"{where(index)} has {len(text)} characters, at most {settings.max_text_chars} are allowed",
            )
    return texts


def _is_quick(texts: Sequence[str], served: Served) -> bool:
    if ":" in served.info.model.partition("?")[0]:  # of another library: nobody knows how long it takes
        return False
    return len(texts) * len(served.info.labels) <= QUICK_SCORES and sum(map(len, texts)) <= QUICK_CHARS


def _refuse(code: str, message: str, headers: Mapping[str, str] | None = None) -> ApiError:
    return ApiError(422, code, message, "See /docs for the body's shape, with an example.", headers)


def _predict(model: Model, texts: Sequence[str], max_scores: int) -> tuple[SnapshotInfo, list[PredictedLabel]]:
    """Score texts as machine/machine.py writes predictions: rounded, best first, equal ones in the labels' order."""
    info, scores = model.predict_proba_many(texts)
    if scores.size <= FEW_SCORES:
        return info, [_few(info.labels, row, max_scores) for row in scores.tolist()]
    rows = _rounded(scores)
    best = np.argsort(-rows, axis=1, kind="stable")[:, :max_scores]
    values = rows[np.arange(len(rows))[:, np.newaxis], best].tolist()
    labels = info.labels
    return info, [
        PredictedLabel(labels[columns[0]], shares[0], {labels[c]: s for c, s in zip(columns, shares, strict=True)})
        for columns, shares in zip(best.tolist(), values, strict=True)
    ]


def _few(labels: Sequence[str], row: Sequence[float], max_scores: int) -> PredictedLabel:
    """Do what `_predict` does, for a few scores: NumPy would take its time to begin. `round` is to even, as there."""
    best = sorted(zip(labels, [round(score * 1e6) / 1e6 for score in row], strict=True), key=_share, reverse=True)
    shares = dict(best[:max_scores])
    return PredictedLabel(*best[0], shares)


def in_pieces(predictions: list[PredictedLabel]) -> list[PredictedLabel]:
    """Return predictions to be encoded: many as they are encoded one by one, so that nobody waits for all of them."""
    if len(predictions) <= FEW_SCORES:
        return predictions
    pieces: list[Any] = [msgspec.Raw(encode(each)) for each in predictions]
    return pieces


def _rounded(scores: Scores) -> NDArray[np.float64]:
    return scores.astype(np.float64).round(6)


def _answer(info: SnapshotInfo, predictions: list[PredictedLabel]) -> PredictAnswer:
    age_s = max(0.0, time.time() - info.published_at)
    return PredictAnswer(in_pieces(predictions), info.version, round(age_s, 3), info.feedback_offsets)
