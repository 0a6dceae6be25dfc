"""What does a record look like on the wire?

JSON in UTF-8; only `id` and `text` (`message_id` and `label`) are required; unknown fields are skipped. CloudEvents 1.0
are accepted in binary form (headers) and structured form. A value that cannot be read raises BadRecord, whatever its
bytes are: nothing else ever leaves `decode_message` and `decode_feedback`. The hot path is one msgspec call, over many
values at once where there are many; reasons are only looked for once it has failed.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

import msgspec

from driftline.stream.errors import BadRecord

MAX_ID_CHARS: Final = 512
MAX_LABEL_CHARS: Final = 256
MAX_WEIGHT: Final = 1e6
# Values that cannot be decoded in one call are divided into PARTS, and fewer than MANY are taken one by one.
PARTS: Final = 16
MANY: Final = 16
_OPENING, _CLOSING = b"{}"

Headers = list[tuple[str, bytes]]
Values = Sequence[bytes | None]
ManyHeaders = Sequence[Headers | None] | None  # None: no value has any


class Topics(NamedTuple):
    """The four topics' names in the log."""

    messages: str
    feedback: str
    predictions: str
    dead_letter: str

    @classmethod
    def with_prefix(cls, prefix: str) -> "Topics":
        """Return the names behind a prefix such as `staging.`."""
        return cls(*(prefix + name for name in ("messages", "feedback", "predictions", "dead-letter")))


class Message(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A text to be classified."""

    id: str
    text: str
    ts: datetime | None = None
    metadata: dict[str, Any] | None = None


class Feedback(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a message really was. `op=retract` takes an earlier label of that message back."""

    message_id: str
    label: str
    id: str | None = None
    op: Literal["upsert", "retract"] = "upsert"
    weight: float = 1.0
    source: str | None = None
    ts: datetime | None = None
    text: str | None = None


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """What the model said when the message came in; `label` is null while it knew no label."""

    message_id: str
    label: str | None
    score: float
    scores: dict[str, float]
    model_version: str
    ts: str


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A record that could not be used, and why. `value_start` is its first 200 bytes as text."""

    topic: str
    partition: int
    offset: int
    error: str
    detail: str
    value_sha256: str
    value_start: str


VALUE_START_BYTES: Final = 200

encode = msgspec.json.Encoder().encode
encode_lines = msgspec.json.Encoder().encode_lines
decode_prediction = msgspec.json.Decoder(Prediction).decode
decode_rejected = msgspec.json.Decoder(Rejected).decode


def reject(topic: str, partition: int, offset: int, value: bytes, error: str, detail: str) -> Rejected:
    """Describe a record for the dead-letter topic; bytes that are not UTF-8 show as U+FFFD."""
    start = value[:VALUE_START_BYTES].decode("utf-8", errors="replace")
    return Rejected(topic, partition, offset, error, detail, hashlib.sha256(value).hexdigest(), start)


def decode_message(value: bytes, headers: Headers | None = None, max_bytes: int = 1 << 20) -> Message:
    """Read a message.

    Raises
    ------
    BadRecord : for every input that is not one.
    """
    message = _decode(_MESSAGE, value, headers, max_bytes)
    check_message(message)
    return message


def decode_feedback(value: bytes, headers: Headers | None = None, max_bytes: int = 1 << 20) -> Feedback:
    """Read a label.

    Raises
    ------
    BadRecord : for every input that is not one.
    """
    feedback = _decode(_FEEDBACK, value, headers, max_bytes)
    check_feedback(feedback)
    return feedback


def decode_messages(values: Values, headers: ManyHeaders, max_bytes: int = 1 << 20) -> list[Message | BadRecord | None]:
    """Read messages: for each value what `decode_message` returns or raises, or None for a value that is None."""
    return _decode_many(_MESSAGES, values, headers, max_bytes)


def decode_feedbacks(
    values: Values, headers: ManyHeaders, max_bytes: int = 1 << 20
) -> list[Feedback | BadRecord | None]:
    """Read labels: for each value what `decode_feedback` returns or raises, or None for a value that is None."""
    return _decode_many(_FEEDBACKS, values, headers, max_bytes)


def check_message(message: Message) -> None:
    """Refuse what has the right types but cannot be used."""
    if not message.id or len(message.id) > MAX_ID_CHARS or "\0" in message.id:
        _check_name("id", message.id, MAX_ID_CHARS)
    if "\0" in message.text:
        raise BadRecord("forbidden-character", "text contains a NUL character (U+0000)")


def check_feedback(feedback: Feedback) -> None:
    """Refuse what has the right types but cannot be used."""
    _check_name("message_id", feedback.message_id, MAX_ID_CHARS)
    _check_name("label", feedback.label, MAX_LABEL_CHARS)
    if feedback.id is not None:
        _check_name("id", feedback.id, MAX_ID_CHARS)
    if feedback.text is not None and "\0" in feedback.text:
        raise BadRecord("forbidden-character", "text contains a NUL character (U+0000)")
    if not 0.0 < feedback.weight <= MAX_WEIGHT:
        raise BadRecord("out-of-range", f"weight must be above 0 and at most {MAX_WEIGHT:g}, got {feedback.weight:g}")


def _check_name(field: str, value: str, max_chars: int) -> None:
    if not value:
        raise BadRecord("empty-field", f"{field} is empty")
    if len(value) > max_chars:
        raise BadRecord("too-large", f"{field} has {len(value)} characters, at most {max_chars} are allowed")
    if "\0" in value:
        raise BadRecord("forbidden-character", f"{field} contains a NUL character (U+0000)")


_T = TypeVar("_T", Message, Feedback)
_MESSAGE: Final = msgspec.json.Decoder(Message)
_FEEDBACK: Final = msgspec.json.Decoder(Feedback)


def _decode(decoder: "msgspec.json.Decoder[_T]", value: bytes, headers: Headers | None, max_bytes: int) -> _T:
    if len(value) > max_bytes:
        raise BadRecord("too-large", f"the value has {len(value)} bytes, at most {max_bytes} are allowed")
    if not value.isascii():
        _check_utf8(value)  # msgspec does not look inside the fields that it skips
    try:
        return decoder.decode(value)
    except (ValueError, RecursionError) as error:
        event = _cloud_event(decoder.type, value, headers)
        if event is not None:
            return event
        raise _explain(value, error) from None


class _Kind(NamedTuple, Generic[_T]):
    """How one kind of record is read: one by one, many at once, and what many have to be looked at for then."""

    decode: Callable[[bytes, Headers | None, int], _T]
    decode_lines: Callable[[bytes], list[_T]]
    are_usable: Callable[[list[_T], int], bool]


def _decode_many(kind: _Kind[_T], values: Values, headers: ManyHeaders, max_bytes: int) -> list[_T | BadRecord | None]:
    """Decode in one call where all values are plain; else in parts, so that one bad value costs only its neighbours."""
    n = len(values)
    if n >= MANY and (found := _decode_lines(kind, values, max_bytes)) is not None:
        return list(found)
    if n >= PARTS * MANY:
        size = -(-n // PARTS)
        cuts = [slice(start, start + size) for start in range(0, n, size)]
        parts = [_decode_many(kind, values[cut], headers and headers[cut], max_bytes) for cut in cuts]
        return list(chain.from_iterable(parts))
    records: list[_T | BadRecord | None] = []
    for value, its_headers in zip(values, headers or [None] * n, strict=True):
        try:
            records.append(None if value is None else kind.decode(value, its_headers, max_bytes))
        except BadRecord as bad:
            records.append(BadRecord(bad.error, bad.detail))  # the one raised holds on to all of these values
    return records


def _decode_lines(kind: _Kind[_T], values: Values, max_bytes: int) -> list[_T] | None:
    """Return the records where every value is a plain one, else None.

    The values are decoded as lines. That a record is one value, no more and no less, follows from this: every value
    begins with `{` and ends with `}`, and nowhere inside a JSON value may a line break stand between these two. So none
    goes on in the next, each has at least one record, and there are as many records as values.
    Proved by test_values_that_only_look_well_together_stay_apart.
    """
    import numpy as np  # noqa: PLC0415  (the command line needs this file's names, and must not wait for it)

    try:
        joined = b"\n".join(values)  # type: ignore[arg-type]
        sizes = np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]
    except TypeError:  # a tombstone
        return None
    if not sizes.all() or sizes.max() > max_bytes:
        return None
    ends = np.cumsum(sizes + 1) - 1
    characters = np.frombuffer(joined, np.uint8)
    if (characters[ends - sizes] != _OPENING).any() or (characters[ends - 1] != _CLOSING).any():
        return None
    try:
        if not joined.isascii():
            _check_utf8(joined)
        if b"\\" in joined and b"\\u0000" in joined:  # the first is fast, and seldom true
            return None
        records = kind.decode_lines(joined)
    except (ValueError, RecursionError, BadRecord):
        return None
    return records if len(records) == len(values) and kind.are_usable(records, int(sizes.max())) else None


def _are_usable_messages(messages: list[Message], longest: int) -> bool:
    """Whether `check_message` raises for none; that there is no NUL is known, and how long the longest value is."""
    return _are_names([message.id for message in messages], MAX_ID_CHARS, longest)


def _are_usable_feedbacks(feedbacks: list[Feedback], longest: int) -> bool:
    """Whether `check_feedback` raises for none; that there is no NUL is known, and how long the longest value is."""
    ids = [feedback.id for feedback in feedbacks if feedback.id is not None]
    weights = [feedback.weight for feedback in feedbacks]
    return (
        _are_names([feedback.message_id for feedback in feedbacks], MAX_ID_CHARS, longest)
        and _are_names([feedback.label for feedback in feedbacks], MAX_LABEL_CHARS, longest)
        and _are_names(ids, MAX_ID_CHARS, longest)
        and (weights.count(1.0) == len(weights) or 0.0 < min(weights) <= max(weights) <= MAX_WEIGHT)
    )


def _are_names(names: list[str], max_chars: int, longest: int) -> bool:
    """Whether none is empty or too long; a character takes a byte of the value at least."""
    return all(names) and (longest <= max_chars or max(map(len, names), default=0) <= max_chars)


_MESSAGES: Final = _Kind(decode_message, _MESSAGE.decode_lines, _are_usable_messages)
_FEEDBACKS: Final = _Kind(decode_feedback, _FEEDBACK.decode_lines, _are_usable_feedbacks)


def _check_utf8(value: bytes) -> None:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecord("not-utf8", f"byte {value[error.start]:#04x} at position {error.start} is not UTF-8") from None


_LONE_SURROGATE: Final = re.compile(
    rb"(?<!\\)(?:\\\\)*(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)


def _explain(value: bytes, error: Exception) -> BadRecord:
    detail = str(error)
    if isinstance(error, RecursionError):
        return BadRecord("too-deep", "the JSON is nested too deeply")
    if not isinstance(error, msgspec.ValidationError) and _LONE_SURROGATE.search(value):
        return BadRecord("forbidden-character", "a \\u escape is half of a surrogate pair")
    if "out of range" in detail:
        return BadRecord("out-of-range", detail)
    if "missing required field" in detail:
        return BadRecord("missing-field", detail)
    if isinstance(error, msgspec.ValidationError):
        return BadRecord("wrong-type", detail)
    return BadRecord("not-json", detail)


class _Event(msgspec.Struct):
    """The attributes of a structured CloudEvent that matter here (CloudEvents 1.0, JSON format)."""

    specversion: str
    id: str
    time: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)


def _cloud_event(kind: type[_T], value: bytes, headers: Headers | None) -> _T | None:
    """Return the record inside a CloudEvent, or None where the value is none. Raises BadRecord for a broken one."""
    names = {name.lower(): content for name, content in headers or ()}
    if "ce_specversion" in names:  # binary form (Kafka protocol binding, section 3.2)
        event = _Event(
            specversion=_header(names, "ce_specversion") or "",
            id=_header(names, "ce_id") or "",
            time=_header(names, "ce_time"),
            datacontenttype=_header(names, "content-type"),
            data=msgspec.Raw(value),
        )
    else:
        try:
            event = _EVENT.decode(value)
        except (ValueError, RecursionError):
            return None
    if not event.specversion.startswith("1."):
        raise BadRecord("wrong-type", f"CloudEvents {event.specversion!r} is not supported, only 1.0 is")
    try:
        return msgspec.convert(_fields(event), kind)
    except (ValueError, RecursionError) as error:
        raise _explain(value, error) from None


def _header(names: dict[str, bytes], name: str) -> str | None:
    content = names.get(name)
    return None if content is None else content.decode("utf-8", errors="replace")


def _fields(event: _Event) -> dict[str, Any]:
    """Return the event's data as a record's fields, its id and time filled in where the data has none."""
    data = base64.b64decode(event.data_base64, validate=True) if event.data_base64 is not None else bytes(event.data)
    defaults: dict[str, Any] = {"id": event.id}
    if event.time is not None:
        defaults["ts"] = event.time
    media_type = (event.datacontenttype or "application/json").partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    content = msgspec.json.decode(data) if is_json else data.decode()
    if isinstance(content, str):
        return defaults | {"text": content}
    if not isinstance(content, dict):
        raise msgspec.ValidationError(f"CloudEvent data must be an object or a text, got {type(content).__name__}")
    return defaults | content
