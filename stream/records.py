"""What does a record look like on the wire?

JSON in UTF-8; only `id` and `text` (`message_id` and `label`) are required; unknown fields are skipped. CloudEvents 1.0
are accepted in binary form (headers) and structured form. A value that cannot be read raises BadRecord, whatever its
bytes are: nothing else ever leaves `decode_message` and `decode_feedback`. The hot path is one msgspec call; reasons
are only looked for once it has failed.
"""

import base64
import hashlib
import re
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec

from stream.errors import BadRecord

MAX_ID_CHARS: Final = 512
MAX_LABEL_CHARS: Final = 256
MAX_WEIGHT: Final = 1e6

Headers = list[tuple[str, bytes]]


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
