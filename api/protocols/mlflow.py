"""How do clients of MLflow's scoring server ask?

POST /invocations with `inputs`, `instances`, `dataframe_split` or `dataframe_records`; GET /ping, /health and
/version. A row is a text, or an object or a table's row with a column `text` (or with one column only). A prediction is
the label; with `"params": {"scores": true}` it is an object with label, score and scores.

Source: MLflow's documentation of its local inference server.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta

from driftline.api.errors import ApiError, json_response
from driftline.api.http import openapi
from driftline.api.load.body import Bodies
from driftline.api.routes.predict import PredictedLabel, Predictor, check_texts, in_pieces
from driftline.api.settings import ApiSettings
from driftline.api.shared.health import Health
from driftline.learner.serving.snapshot import SnapshotInfo
from driftline.stream.wire.bad import shortened
from driftline.stream.wire.fields import mend_escapes
from driftline.stream.words import counted

COLUMN: Final = "text"


# What stands in other columns is nobody's, so nothing is made of it.
_Any = Annotated[msgspec.Raw, Meta(extra_json_schema={})]
Row = str | list[_Any] | dict[str, _Any]
Rows = str | list[Row] | dict[str, _Any]


class Table(msgspec.Struct, frozen=True):
    """A data frame, split into the names of its columns and its rows."""

    columns: list[str]
    data: list[list[_Any]]
    index: _Any = msgspec.field(default_factory=msgspec.Raw)


class Params(msgspec.Struct, frozen=True):
    """What else is asked for."""

    scores: bool = False


class Invocation(msgspec.Struct, frozen=True):
    """Texts, in one of four forms."""

    inputs: Rows | None = None
    instances: Rows | None = None
    dataframe_split: Table | None = None
    dataframe_records: list[dict[str, _Any]] | None = None
    params: Params | None = None


class Predictions(msgspec.Struct, frozen=True):
    """A label for each text; where params ask for scores, objects."""

    predictions: list[str | PredictedLabel]


class Pong(msgspec.Struct, frozen=True):
    """The server takes requests; what of it works, GET /readyz says."""

    status: str = "ready"


TYPES: Final = (Invocation, Predictions, Pong)
OPEN_PATHS: Final = ("/ping", "/health", "/version")  # no key is asked for
_DECODER: Final = msgspec.json.Decoder(Invocation)
_Texts = str | list[str | list[str]]
_TEXTS: "Final[msgspec.json.Decoder[_Texts]]" = msgspec.json.Decoder(_Texts)
_FORMS: Final = ("inputs", "instances", "dataframe_split", "dataframe_records")
_EXAMPLES: Final = {
    "inputs": {"inputs": ["win a prize now", "see you at lunch"]},
    "instances": {"instances": [{"text": "win a prize now"}]},
    "dataframe_split": {"dataframe_split": {"columns": ["text"], "data": [["win a prize now"]]}},
    "dataframe_records": {"dataframe_records": [{"text": "win a prize now"}], "params": {"scores": True}},
}


def router(predictor: Predictor, health: Health, bodies: Bodies, settings: ApiSettings, version: str) -> APIRouter:
    """Return POST /invocations, GET /ping, /health and /version."""
    routes = APIRouter(tags=["mlflow"])

    def read(asked: Invocation) -> tuple[Sequence[str], Callable[..., Predictions]]:
        made = _scores if asked.params is not None and asked.params.scores else _labels
        return check_texts(_texts(asked, settings.max_items), settings), made

    @routes.post(
        "/invocations",
        summary="Classify texts as MLflow's scoring server does",
        responses=openapi.answers(200, "A prediction for each text.", openapi.ref("Predictions")) | openapi.refusals(),
        openapi_extra=openapi.body(openapi.ref("Invocation"), _EXAMPLES),
    )
    async def invocations(request: Request) -> Response:
        async with bodies.read(request, _DECODER, read) as (texts, made):
            return await predictor.predict(texts, made, request.scope["caller"])

    async def ping() -> Response:
        health.check()
        return json_response(Pong())

    for path in ("/ping", "/health"):
        routes.add_api_route(
            path,
            ping,
            operation_id=path[1:],
            summary="Whether the server takes requests",
            responses=openapi.answers(200, "It is.", openapi.ref("Pong"))
            | {503: {"description": "Not yet.", "content": openapi.content(openapi.ref("Error"))}},
        )

    @routes.get(
        "/version",
        summary="Driftline's version",
        response_class=Response,
        responses={200: {"description": "It alone.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def get_version() -> Response:
        return Response(version, media_type="text/plain")

    return routes


def _labels(_: SnapshotInfo, predictions: list[PredictedLabel]) -> Predictions:
    return Predictions([each.label for each in predictions])


def _scores(_: SnapshotInfo, predictions: list[PredictedLabel]) -> Predictions:
    return Predictions([*in_pieces(predictions)])


def _texts(asked: Invocation, most: int) -> Sequence[str]:
    """Return the texts of whichever form was sent."""
    # A client in Java sends an empty list for every list that it was not given.
    given = [form for form in _FORMS if getattr(asked, form) not in (None, [])] or [
        form for form in _FORMS if getattr(asked, form) is not None
    ]
    if len(given) != 1:
        raise _refuse("missing-field", f"the body must have one of {', '.join(_FORMS)}, and has {len(given)} of them")
    value = getattr(asked, given[0])
    if isinstance(value, Table):
        return _of_table(value, most)
    if isinstance(value, str):
        value = [value]
    elif isinstance(value, dict):
        value = _of_columns(value, given[0])
    if not isinstance(value, list):
        raise _refuse("wrong-type", f"{given[0]} must be a list of texts, or of objects with a column {COLUMN!r}")
    _check_number(value, most)
    return [_of_row(row, f"{given[0]}[{index}]") for index, row in enumerate(value)]


def _check_number(rows: Sequence[Any], most: int) -> None:
    if len(rows) > most:
        raise _refuse("out-of-range", f"got {counted(len(rows), 'row')}; there must be 1 to {most}")


def _of_table(table: Table, most: int) -> Sequence[str]:
    _check_number(table.data, most)
    column = table.columns.index(_column(table.columns, "dataframe_split"))
    for index, row in enumerate(table.data):
        if len(row) != len(table.columns):
            raise _refuse(
                "out-of-range", f"dataframe_split.data[{index}] has {counted(len(row), 'column')}, not as many as named"
            )
    return [_of_row(row[column], f"dataframe_split.data[{index}]") for index, row in enumerate(table.data)]


def _of_columns(columns: Mapping[str, Any], where: str) -> Any:
    """Return the texts of an object of columns."""
    value = _decoded(columns[_column(list(columns), where)], where)
    return [value] if isinstance(value, str) else value


def _of_row(row: Any, where: str) -> str:
    """Return the text that a row is: one, a list of one, or an object with a column of one."""
    if isinstance(row, dict):
        row = row[_column(list(row), where)]
    if isinstance(row, msgspec.Raw):
        row = _decoded(row, where)
    if isinstance(row, list) and len(row) == 1:
        row = _decoded(row[0], where) if isinstance(row[0], msgspec.Raw) else row[0]
    if not isinstance(row, str):
        raise _refuse("wrong-type", f"{where} is not a text")
    return row


def _decoded(raw: msgspec.Raw, where: str) -> _Texts:
    try:
        return _TEXTS.decode(raw)
    except msgspec.ValidationError as error:
        raise _refuse("wrong-type", f"{where} is not a text: {shortened(str(error))}") from None
    except ValueError:  # half of a surrogate pair, in what was not looked into so far
        return _TEXTS.decode(mend_escapes(bytes(raw)))


def _column(names: Sequence[str], where: str) -> str:
    if COLUMN in names:
        return COLUMN
    if len(names) != 1:
        raise _refuse("missing-field", f"{where} has no column {COLUMN!r}, and {len(names)} others")
    return names[0]


def _refuse(code: str, message: str) -> ApiError:
    return ApiError(422, code, message, "See /docs for the body's shape, with examples.")
