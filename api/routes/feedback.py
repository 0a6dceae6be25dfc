"""How do messages and labels get in over HTTP?

POST /messages and POST /feedback append to the log, and answer once what they appended is durable. A request is taken
whole or not at all. Each record is read back by the very code that the learner reads it with, before it is appended:
what was acknowledged can be learned. A label says who gave it: with an API key its source is the key's name, or begins
with it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta

from driftline.api.access.keys import Key
from driftline.api.errors import ApiError, json_response
from driftline.api.http import openapi
from driftline.api.http.fielded import FieldsSent, VectorSent
from driftline.api.http.incoming import Incoming
from driftline.api.http.traces import Traces
from driftline.api.load.body import Bodies
from driftline.api.settings import ApiSettings
from driftline.api.shared.claims import Claims
from driftline.api.shared.connection import Connection
from driftline.api.shared.freshness import Freshness
from driftline.api.shared.labels import Labels, source_of
from driftline.stream.errors import BadRecord
from driftline.stream.log.base import Appended, NewRecord
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.fielded import text_of
from driftline.stream.wire.note import MAX_NOTE_CHARS, Noted, decode_noted
from driftline.stream.wire.records import (
    FULL_WEIGHT,
    LEAST_WEIGHT,
    MAX_ID_CHARS,
    MAX_LABEL_CHARS,
    MAX_WEIGHT,
    Feedback,
    Message,
    decode_feedback,
    decode_message,
    encode_record,
    in_one_form,
)

_NUMBER: Final = "A number is taken, too, as JSON spells it."
_Word = Annotated[str, Meta(extra_json_schema=openapi.NO_NUL)]
_Id = Annotated[_Word, Meta(min_length=1, max_length=MAX_ID_CHARS, description=_NUMBER)] | openapi.Number
# An empty one is refused where records are read, but for a retraction.
_Label = (
    Annotated[_Word, Meta(max_length=MAX_LABEL_CHARS, description=f"Something of it is to be seen. {_NUMBER}")]
    | openapi.Number
)
_Text = Annotated[str, Meta(extra_json_schema=openapi.NO_NUL)]
_Time = (
    Annotated[
        str,
        Meta(
            extra_json_schema={"format": "date-time"},
            description="A number is taken, too: since 1970, in s, ms, us or ns by its size.",
        ),
    ]
    | Annotated[float, Meta(ge=-62_135_596_800, le=2.5e20)]
)
_Weight = Annotated[
    float,
    Meta(
        ge=LEAST_WEIGHT,
        le=MAX_WEIGHT,
        description=f"How many times over the label counts; above {FULL_WEIGHT} as {FULL_WEIGHT}.",
    ),
]
_Source = Annotated[
    str,
    Meta(
        description="Who says so. With an API key: its name, and behind it what is given here, as KEY/SOURCE; "
        "without keys open/SOURCE."
    ),
]

_Note = Annotated[
    _Word,
    Meta(
        max_length=MAX_NOTE_CHARS,
        description="For people who look at the label later (GET /messages); nothing is learned of it.",
    ),
]


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A text to be classified. Without an id it is given one."""

    id: _Id | None = None
    text: _Text
    ts: _Time | None = None
    metadata: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})] = msgspec.field(
        default_factory=msgspec.Raw
    )
    fields: FieldsSent = msgspec.field(default_factory=msgspec.Raw)
    vector: VectorSent = msgspec.field(default_factory=msgspec.Raw)


class NewFeedback(msgspec.Struct, frozen=True, kw_only=True):
    """What a message really was. With a text of its own it needs no message. The same id and content count once.

    `op: retract` takes a message's labels back, and needs none: one that waits for its message is dropped. What was
    learned stays in the model until another label corrects it, or until `driftline rebuild`.
    """

    message_id: _Id
    label: Annotated[_Label | None, Meta(description="Needed, but for `op: retract`.")] = None
    id: _Id | None = None
    op: Literal["upsert", "retract"] | None = None
    weight: _Weight | None = None
    source: _Source | openapi.Number | None = None
    note: _Note | None = None
    ts: _Time | None = None
    text: _Text | None = None
    fields: FieldsSent = msgspec.field(default_factory=msgspec.Raw)
    vector: VectorSent = msgspec.field(default_factory=msgspec.Raw)


class AppendedMessage(msgspec.Struct, frozen=True):
    """Where a message lies in the log."""

    id: str
    topic: str
    partition: int
    offset: int


class AppendedFeedback(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a label lies in the log. A note says what it does not count for."""

    id: str
    message_id: str
    topic: str
    partition: int
    offset: int
    note: str | None = None


class AppendedMessages(msgspec.Struct, frozen=True):
    """Where each message of a list lies in the log, in their order."""

    appended: list[AppendedMessage]


class AppendedFeedbacks(msgspec.Struct, frozen=True):
    """Where each label of a list lies in the log, in their order."""

    appended: list[AppendedFeedback]


_EVENTS: Final = (
    "One alone may stand without the list; it is answered with its place alone. "
    "Also CloudEvents 1.0: structured (application/cloudevents+json), a batch (application/cloudevents-batch+json) or "
    "binary (ce-* headers). An event's data is such an object, or a text alone: {}. What the data leaves out comes "
    "from the event's id, time, source and subject."
)
TYPES: Final = (NewMessage, NewFeedback, AppendedMessages, AppendedFeedbacks)


_R = TypeVar("_R", Message, Feedback)


class Prepared(NamedTuple, Generic[_R]):
    """What a request asks to be appended."""

    items: list[_R]
    records: list[NewRecord]
    is_list: bool


class Appender:
    """Appends the records of a request, all or none."""

    def __init__(
        self,
        connection: Connection,
        freshness: Freshness,
        traces: Traces,
        claims: Claims,
        labels: Labels,
        stream: StreamSettings,
        settings: ApiSettings,
    ) -> None:
        self.topics = stream.topics
        self._connection, self._freshness, self._traces, self._claims = connection, freshness, traces, claims
        self._labels = labels
        self._max_record_bytes, self._max_chars = stream.max_record_bytes, settings.max_text_chars
        bounds = settings.max_body_bytes, settings.max_items
        self._messages = Incoming(NewMessage, Message, decode_message, *bounds)
        self._feedback = Incoming(NewFeedback, Noted, decode_noted, *bounds)

    def prepare_messages(self, head: Mapping[bytes, bytes], body: bytes) -> Prepared[Message]:
        """Return the messages of a body, as they will lie in the log. Any thread. Raises ApiError."""
        items, is_list = self._messages.records(head, body)
        return self._prepared(items, [item.id for item in items], is_list, decode_message)

    def prepare_feedback(self, head: Mapping[bytes, bytes], key: Key | None, body: bytes) -> Prepared[Feedback]:
        """Return the labels of a body, as they will lie in the log. Any thread. Raises ApiError."""
        sent, is_list = self._feedback.records(head, body)
        items = [in_one_form(msgspec.structs.replace(each, source=source_of(key, each.source))) for each in sent]
        return self._prepared(items, [item.message_id for item in items], is_list, decode_feedback)

    async def messages(self, asked: Prepared[Message]) -> list[AppendedMessage]:
        """Append messages; return where each lies once all are durable. Raises ApiError."""
        topic = self.topics.messages
        places = await self._append(topic, asked.records)
        return [AppendedMessage(item.id, topic, *place) for item, place in zip(asked.items, places, strict=True)]

    async def feedback(self, asked: Prepared[Feedback], headers: Mapping[str, str]) -> list[AppendedFeedback]:
        """Append labels; return where each lies once all are durable. The headers may name a trace. Raises ApiError."""
        items = asked.items
        self._labels.check(items)
        with self._traces.request("POST /feedback", headers) as trace:
            with trace.append(len(items)) if trace is not None else nullcontext():
                places = await self._append(self.topics.feedback, asked.records)
            self._freshness.appended(places, trace)
        await self._claims.note({item.message_id: item.op for item in items})
        return [
            AppendedFeedback(item.id or "", item.message_id, self.topics.feedback, *place, note=_note(item))
            for item, place in zip(items, places, strict=True)
        ]

    async def _append(self, topic: str, records: Sequence[NewRecord]) -> Sequence[Appended]:
        return await self._connection.append(topic, records) if records else []

    def _prepared(self, items: list[_R], keys: list[str], is_list: bool, decode: Callable[..., _R]) -> Prepared[_R]:
        records = []
        for index, (key, item) in enumerate(zip(keys, items, strict=True)):
            try:
                records.append(NewRecord(key.encode(), self._value(item, decode)))
            except BadRecord as bad:
                raise _refuse(bad.error, f"{bad.detail} - at `$[{index}]`" if len(items) > 1 else bad.detail) from None
        return Prepared(items, records, is_list)

    def _value(self, item: _R, decode: Callable[..., _R]) -> bytes:
        n_chars = len(text_of(item.text or ""))
        if n_chars > self._max_chars:
            raise BadRecord("too-large", f"text has {n_chars} characters, at most {self._max_chars} are allowed")
        value = encode_record(item)
        if len(value) > self._max_record_bytes:
            raise ApiError(
                413,
                "too-large",
                f"record {item.id!r} has {len(value)} bytes, at most {self._max_record_bytes} are taken",
                "Nothing was appended. Send a shorter text, or raise max_record_bytes.",
            )
        read = decode(value, None, self._max_record_bytes)
        if isinstance(item, Message) and isinstance(read, Message) and read.metadata != item.metadata:
            item = msgspec.structs.replace(item, metadata=read.metadata)
            return encode_record(item)  # with a character in the place of half of one
        return value


def router(appender: Appender, bodies: Bodies, settings: ApiSettings) -> APIRouter:
    """Return POST /messages and POST /feedback."""
    routes = APIRouter(tags=["append"], route_class=openapi.BareRoute)
    topics = appender.topics

    @routes.post(
        "/messages",
        status_code=202,
        summary="Append messages to be classified, and learned once they have a label",
        description=_EVENTS.format("its text"),
        responses=_answers("AppendedMessages", {"id": "m1", "topic": topics.messages, "partition": 0, "offset": 41}),
        openapi_extra=_body("NewMessage", {"id": "m1", "text": "win a prize now"}, settings),
    )
    async def send_messages(request: Request) -> Response:
        async with bodies.receive(request, partial(appender.prepare_messages, _head(request))) as asked:
            appended = await appender.messages(asked)
            return json_response(AppendedMessages(appended) if asked.is_list else appended[0], 202)

    @routes.post(
        "/feedback",
        status_code=202,
        summary="Append labels, corrections or retractions",
        description=_EVENTS.format("its label; its subject is the message's id"),
        responses=_answers(
            "AppendedFeedbacks",
            {"id": "f9", "message_id": "m1", "topic": topics.feedback, "partition": 0, "offset": 17},
        ),
        openapi_extra=_body("NewFeedback", {"message_id": "m1", "label": "spam"}, settings),
    )
    async def send_feedback(request: Request) -> Response:
        prepare = partial(appender.prepare_feedback, _head(request), request.scope.get("key"))
        async with bodies.receive(request, prepare) as asked:
            appended = await appender.feedback(asked, request.headers)
            return json_response(AppendedFeedbacks(appended) if asked.is_list else appended[0], 202)

    return routes


def _note(label: Feedback) -> str | None:
    return f"a weight above {FULL_WEIGHT} counts as {FULL_WEIGHT}" if label.weight > FULL_WEIGHT else None


def _head(request: Request) -> Mapping[bytes, bytes]:
    head: Mapping[bytes, bytes] = request.scope.get("head") or dict(request.scope["headers"])
    return head


def _refuse(code: str, message: str) -> ApiError:
    return ApiError(422, code, message, "Nothing was appended. See /docs for the body's shape, with an example.")


def _answers(name: str, example: openapi.Document) -> dict[int | str, Any]:
    examples = {"one": {"appended": [example]}}
    answers = openapi.answers(202, "Durable in the log.", openapi.ref(name), examples)
    return answers | openapi.refusals()


def _body(name: str, example: openapi.Document, settings: ApiSettings) -> openapi.Document:
    return openapi.body(openapi.many(name, settings), {"one": [example]})
