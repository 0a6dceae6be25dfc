"""Which messages are there, with what was predicted of them and what their labels say?

GET /messages looks through them, by words, labels, sources and time; GET /messages/{id} has all of one. Both show
texts. They ask the catalogue (shared/catalogue.py), which is read from the log while somebody asks: each answer says
how far that is.
"""

from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response

from driftline.api.errors import ApiError, json_response
from driftline.api.http import openapi, query
from driftline.api.shared.catalogue import Catalogue, Told
from driftline.learner.catalogue.search import (
    COUNTED,
    MAX_N,
    MAX_TEXT_CHARS,
    ORDERS,
    STATES,
    Filters,
    Listed,
    Whole,
)
from driftline.learner.catalogue.words import MAX_QUERY_CHARS
from driftline.stream.wire.names import same_name
from driftline.stream.wire.records import MAX_ID_CHARS, MAX_LABEL_CHARS

N: Final = 50
MAX_SOURCE_CHARS: Final = 1000
MAX_CURSOR_CHARS: Final = 100
MOST_S: Final = 253_402_300_800  # the year 10000


class MessagesAnswer(msgspec.Struct, frozen=True):
    """A page of messages. `next` is `after` of the next page; null: this was the last one.

    `count` is how many there are in all pages, told exactly up to a bound; beyond it is that many or more.
    """

    messages: list[Listed]
    next: str | None
    count: int
    count_is_exact: bool
    index: Told


TYPES: Final = (MessagesAnswer, Whole)
_TEXT: Final = {"type": "string", "minLength": 1}
_SECONDS: Final = {"type": "number", "minimum": 0, "maximum": MOST_S}


def filter_parameters() -> list[openapi.Document]:
    """Return the parameters that choose among messages."""
    return [
        query.optional(
            "query",
            'Words that all occur in the text or the fields; `"several words"` in this order; `begin*`.',
            {**_TEXT, "maxLength": MAX_QUERY_CHARS},
            "prize",
        ),
        query.optional("label", "The label that stands.", {**_TEXT, "maxLength": MAX_LABEL_CHARS}, "spam"),
        query.optional("predicted", "What was predicted.", {**_TEXT, "maxLength": MAX_LABEL_CHARS}, "ham"),
        query.optional("source", "Who gave the label.", {**_TEXT, "maxLength": MAX_SOURCE_CHARS}, "alice"),
        query.optional("since", "That came then or later, in seconds since 1970.", _SECONDS, 1767225600),
        query.optional("until", "That came before then, in seconds since 1970.", _SECONDS, 1798761600),
        query.parameter(
            "state",
            "All; those with a label that stands; those without; those whose label is not what was predicted.",
            query.words(STATES),
        ),
    ]


_PARAMETERS: Final = [
    query.parameter(
        "order",
        "The newest first, the oldest first, or what the model was least sure of first.",
        query.words(ORDERS),
    ),
    query.parameter("n", "How many, at most.", {"type": "integer", "minimum": 1, "maximum": MAX_N, "default": N}),
]
_AFTER: Final = query.optional(
    "after",
    "`next` of the page before this one; empty: the first page.",
    {"type": "string", "maxLength": MAX_CURSOR_CHARS},
    "",
)
_PATH: Final = openapi.path_parameter(
    "message_id",
    "The message's id; it may hold slashes.",
    {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS},
    "m1",
)


def error(description: str) -> openapi.Document:
    """Return the part of an operation that describes an error."""
    return {"description": description, "content": openapi.content(openapi.ref("Error"))}


UNAVAILABLE: Final[dict[int | str, Any]] = {503: error("The catalogue cannot be asked now.")}


def filters_of(request: Request) -> Filters:
    """Return which messages are asked for. Raises ApiError (422)."""
    label, predicted = (query.text(request, name, MAX_LABEL_CHARS) for name in ("label", "predicted"))
    source = query.text(request, "source", MAX_SOURCE_CHARS)
    state: Any = query.choice(request, "state", STATES)
    return Filters(
        query.text(request, "query", MAX_QUERY_CHARS) or "",
        label and same_name(label),
        predicted and same_name(predicted),
        source and same_name(source),
        _milliseconds(request, "since"),
        _milliseconds(request, "until"),
        state,
    )


def _milliseconds(request: Request, name: str) -> int | None:
    if not request.query_params.get(name):
        return None
    return int(max(0.0, min(query.number(request, name, 0.0), MOST_S)) * 1000)


def router(catalogue: Catalogue) -> APIRouter:
    """Return GET /messages and GET /messages/{message_id}."""
    routes = APIRouter(tags=["review"], route_class=openapi.BareRoute)

    @routes.get(
        "/messages",
        summary="Look through messages: by words, labels, predictions, sources and time",
        description=f"Texts are shown up to {MAX_TEXT_CHARS} characters. Up to {COUNTED:,} messages are counted.",
        responses=openapi.answers(200, "A page.", openapi.ref("MessagesAnswer"))
        | openapi.refused_parameter()
        | UNAVAILABLE,
        openapi_extra={"parameters": [*filter_parameters(), *_PARAMETERS, _AFTER]},
    )
    async def list_messages(request: Request) -> Response:
        filters, n = filters_of(request), query.whole(request, "n", N, 1, MAX_N)
        order: Any = query.choice(request, "order", ORDERS)
        after = query.text(request, "after", MAX_CURSOR_CHARS)
        page = await catalogue.ask(lambda search: search.page(filters, order, n, after))
        answer = MessagesAnswer(page.messages, page.next, page.total, page.is_exact, catalogue.told(page.progress))
        return json_response(answer)

    @routes.get(
        "/messages/{message_id:path}",
        summary="A message with its whole text, what was predicted of it, and all its labels",
        responses=openapi.answers(200, "The message.", openapi.ref("Whole"))
        | {404: error("There is none of this id, or it is not read yet.")}
        | UNAVAILABLE,
        openapi_extra={"parameters": [_PATH]},
    )
    async def get_message(request: Request) -> Response:
        key = request.path_params["message_id"]
        found = await catalogue.ask(lambda search: search.whole(key)) if len(key) <= MAX_ID_CHARS else None
        if found is None:
            raise ApiError(
                404,
                "no-message",
                f"there is no message {key[:100]!r} among those that can be looked for",
                "GET /messages says how far the log is read, and how many messages are held.",
            )
        return json_response(found)

    return routes
