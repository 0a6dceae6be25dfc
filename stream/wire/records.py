"""What does a record look like on the wire?

JSON in UTF-8; only `id` and `text` (`message_id` and `label`) are required, and to take labels back needs no label;
unknown fields are skipped, metadata is kept as it came, and null is as good as none. CloudEvents are in
wire/events.py, what else than a string may be an id or a time in wire/fields.py. A value that cannot be read raises
BadRecord, whatever its bytes are: nothing else ever leaves `decode_message` and `decode_feedback`. The hot path is one
msgspec call for values as we write them (many.py has it for many at once); only what that refuses is looked at again,
loosely, and then for the reason.

A record that was read has its `fields` and its `vector` in its text (wire/fielded.py, wire/vector.py); `encode_record`
writes them apart again.
"""

import hashlib
from datetime import datetime
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar, get_type_hints

import msgspec

from driftline.stream.errors import BadRecord
from driftline.stream.wire import events
from driftline.stream.wire.bad import check_utf8, explain
from driftline.stream.wire.events import has_event_headers, may_be_event, read_event
from driftline.stream.wire.fielded import END, join, read_fields, split
from driftline.stream.wire.fields import MAX_DEPTH, as_name, as_time, check_json, is_too_deep, mend_escapes
from driftline.stream.wire.names import same_name
from driftline.stream.wire.vector import read_vector, sent_again, with_vector

MAX_ID_CHARS: Final = 512
MAX_LABEL_CHARS: Final = 256
MAX_WEIGHT: Final = 1e6
LEAST_WEIGHT: Final = 2.0**-149  # what is less is 0 in the numbers of a model (float32), which learns nothing from it
FULL_WEIGHT: Final = 64  # more counts as this much: a text is long since learned by then
# How records are read, as a journal notes it (disk/settings.py): what an older version refused, a replay of what it
# learned refuses, too. With LABELLED a retraction needs a label, and an event's subject and source are no numbers; till
# UNFIELDED `fields` are skipped, as whatever is not known, and till UNVECTORED a `vector`.
LABELLED, UNFIELDED, UNVECTORED, READING = 1, 2, 3, 4
NONE: Final = msgspec.Raw()
_NO_VECTOR: Final = (b"", b"null")
LONGEST_NAME: Final = 4096  # characters: what is longer stays as it is written

Headers = events.Headers


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
    metadata: msgspec.Raw = NONE  # an object in JSON, as it came: nobody looks into it on the way; empty: none
    fields: msgspec.Raw = NONE  # as they are sent; once it is read they are in `text`
    vector: msgspec.Raw = NONE  # likewise


class Feedback(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a message really was. `op=retract` takes its labels back, whatever label is named with it, or "": none."""

    message_id: str
    label: str
    id: str | None = None
    op: Literal["upsert", "retract"] = "upsert"
    weight: float = 1.0
    source: str | None = None
    ts: datetime | None = None
    text: str | None = None
    fields: msgspec.Raw = NONE  # of that text, as in Message
    vector: msgspec.Raw = NONE  # likewise


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
    return read_message(MESSAGE_FORMS[READING], value, headers, max_bytes)


def read_message(form: "Form[Message]", value: bytes, headers: Headers | None, max_bytes: int) -> Message:
    """Do what `decode_message` does, by a form."""
    message = read(form, value, headers, max_bytes)
    check_message(message)
    metadata = read_metadata(message.metadata)
    if metadata is not message.metadata:
        message = msgspec.structs.replace(message, metadata=metadata)
    return with_fields(message, reading=form.reading)


def decode_feedback(value: bytes, headers: Headers | None = None, max_bytes: int = 1 << 20) -> Feedback:
    """Read a label.

    Raises
    ------
    BadRecord : for every input that is not one.
    """
    return read_feedback(FEEDBACK_FORMS[READING], value, headers, max_bytes)


def read_feedback(form: "Form[Feedback]", value: bytes, headers: Headers | None, max_bytes: int) -> Feedback:
    """Do what `decode_feedback` does, by a form."""
    feedback = in_one_form(read(form, value, headers, max_bytes), reading=form.reading)
    check_feedback(feedback, reading=form.reading)
    return with_fields(feedback, reading=form.reading)


def with_fields(record: "_R", *, reading: int = READING) -> "_R":
    """Return a record with its fields and its vector in its text, as one string. Raises BadRecord for what is none."""
    if record.fields is NONE and record.vector is NONE:
        return record
    raw, sent = bytes(record.fields), bytes(record.vector)
    fields = read_fields(record.fields) if raw and reading > UNFIELDED else {}
    vector = read_vector(record.vector) if sent not in _NO_VECTOR and reading > UNVECTORED else None
    text = record.text
    if text is None and (fields or vector is not None):
        what = "fields are" if fields else "a vector is"
        detail = f"{what} of a text, and there is none: a label without a text is about the message with its id"
        raise BadRecord("missing-field", detail)
    if text is not None:
        text = join(text, fields)
        text = text if vector is None else with_vector(text, vector)
    return msgspec.structs.replace(record, text=text, fields=NONE, vector=NONE)


def encode_record(record: Message | Feedback) -> bytes:
    """Return a record as it is sent: text, fields and vector apart, also where it has them as one string."""
    if record.text is not None and record.text[-1:] == END:
        text, fields = split(record.text)
        vector = sent_again(record.text)
        record = msgspec.structs.replace(
            record,
            text=text,
            fields=msgspec.Raw(encode(fields)) if fields else NONE,
            vector=NONE if vector is None else msgspec.Raw(encode(vector)),
        )
    return encode(record)


def in_one_form(feedback: Feedback, *, reading: int = READING) -> Feedback:
    """Return a label whose own name and whose source's are in the form in which they are compared (names.py)."""
    label, source = feedback.label, feedback.source
    if len(label) <= LONGEST_NAME or reading == LABELLED:
        label = same_name(label)
    if source and (len(source) <= LONGEST_NAME or reading == LABELLED):
        source = same_name(source) or None
    if label == feedback.label and source == feedback.source:
        return feedback
    return msgspec.structs.replace(feedback, label=label, source=source)


def check_message(message: Message) -> None:
    """Refuse what has the right types but cannot be used."""
    if not message.id or len(message.id) > MAX_ID_CHARS or "\0" in message.id:
        _check_name("id", message.id, MAX_ID_CHARS)
    check_text(message.text)


def check_text(text: str) -> None:
    """Refuse a text, without its fields, that has what ends one with fields."""
    if END in text:
        raise BadRecord("forbidden-character", "text contains a NUL character (U+0000)")


def read_metadata(raw: msgspec.Raw) -> msgspec.Raw:
    """Return metadata, the same object where nothing has to be changed of it. Raises BadRecord where it is none."""
    value = bytes(raw)
    if not value:
        return raw
    if value == b"null":
        return NONE
    if value[:1] != b"{":
        raise BadRecord("wrong-type", "metadata must be an object - at `$.metadata`")
    try:
        checked = check_json(value)
    except ValueError as error:
        raise explain(error, " - at `$.metadata`") from None
    return raw if checked is value or checked == value else msgspec.Raw(checked)


def check_feedback(feedback: Feedback, *, reading: int = READING) -> None:
    """Refuse what has the right types but cannot be used."""
    _check_name("message_id", feedback.message_id, MAX_ID_CHARS)
    if feedback.label or feedback.op == "upsert" or reading == LABELLED:
        _check_name("label", feedback.label, MAX_LABEL_CHARS)
    if feedback.id is not None:
        _check_name("id", feedback.id, MAX_ID_CHARS)
    if feedback.text is not None:
        check_text(feedback.text)
    if not LEAST_WEIGHT <= feedback.weight <= MAX_WEIGHT:
        raise BadRecord("out-of-range", f"weight must be {LEAST_WEIGHT:.2g} to {MAX_WEIGHT:g}, got {feedback.weight:g}")


def _check_name(field: str, value: str, max_chars: int) -> None:
    if not value:
        raise BadRecord("empty-field", f"{field} is empty")
    if len(value) > max_chars:
        raise BadRecord("too-large", f"{field} has {len(value)} characters, at most {max_chars} are allowed")
    if "\0" in value:
        raise BadRecord("forbidden-character", f"{field} contains a NUL character (U+0000)")


_T = TypeVar("_T")
_R = TypeVar("_R", Message, Feedback)
Name = str | int | float | bool | None


class _LooseMessage(msgspec.Struct):
    """What a message may look like, beside how we write it."""

    id: Name = None
    text: str | None = None
    ts: str | float | None = None
    metadata: msgspec.Raw = NONE
    fields: msgspec.Raw = NONE
    vector: msgspec.Raw = NONE


class _LooseFeedback(msgspec.Struct):
    """What a label may look like, beside how we write it."""

    message_id: Name = None
    label: Name = None
    id: Name = None
    op: str | None = None
    weight: float | None = None
    source: Name = None
    ts: str | float | None = None
    text: str | None = None
    fields: msgspec.Raw = NONE
    vector: msgspec.Raw = NONE


_NAMES: Final = ("id", "message_id", "label", "source")


class Form(Generic[_T]):
    """How records of one type are read: as we write them, or else loosely.

    Parameters
    ----------
    type : with the fields of Message or of Feedback; an API's own may do without an id
    is_message : which of the two
    reading : READING, or what was read so before: LABELLED, UNFIELDED, UNVECTORED
    """

    def __init__(self, type: type[_T], *, is_message: bool, reading: int = READING) -> None:
        loose: Any = _LooseMessage if is_message else _LooseFeedback
        self.type, self.decode, self.reading = type, msgspec.json.Decoder(type).decode, reading
        self.loose_type, self.decode_loosely = loose, msgspec.json.Decoder(loose).decode
        hints = get_type_hints(loose)
        self.decode_field = {name: msgspec.json.Decoder(hint).decode for name, hint in hints.items()}
        self.alone = "text" if is_message else "label"  # what a text without fields is


_READINGS: Final = (LABELLED, UNFIELDED, UNVECTORED, READING)
MESSAGE_FORMS: Final = {reading: Form(Message, is_message=True, reading=reading) for reading in _READINGS}
FEEDBACK_FORMS: Final = {reading: Form(Feedback, is_message=False, reading=reading) for reading in _READINGS}


def read(form: Form[_T], value: bytes, headers: Headers | None, max_bytes: int) -> _T:
    """Read a record of a form; whether it has the right characters and sizes is still to be checked.

    Raises
    ------
    BadRecord : for every input that is not one.
    """
    if len(value) > max_bytes:
        raise BadRecord("too-large", f"the value has {len(value)} bytes, at most {max_bytes} are allowed")
    if headers and has_event_headers(headers):
        return _from_event(form, value, headers)
    if not value.isascii():
        check_utf8(value)  # msgspec does not look inside the fields that it skips
    if is_too_deep(value):
        raise BadRecord("too-deep", f"the JSON is nested more than {MAX_DEPTH} deep")
    try:
        if not may_be_event(value) and not is_local(record := form.decode(value)):
            return record
    except (ValueError, RecursionError):
        pass
    return _from_event(form, value, None)


def is_local(record: Any) -> bool:
    """Whether a record's time has no offset: read loosely it has."""
    return record.ts is not None and record.ts.tzinfo is None


def _from_event(form: Form[_T], value: bytes, headers: Headers | None) -> _T:
    """Read a record that may be an event, or is one by its headers, or else one that is not as we write it."""
    try:
        event = read_event(value, headers, as_before=form.reading == LABELLED)
        if event is None:
            return _convert(form, form.decode_loosely(mend_escapes(value)))
        given = event.attributes
        fields: dict[str, Any] = {"id": given["id"], "ts": given.get("time"), "source": given.get("source")}
        fields["message_id"] = given.get("subject")
        if isinstance(event.data, str):
            fields[form.alone] = event.data
        else:
            fields |= _fields(form, event.data)
        return _convert(form, form.loose_type(**{name: fields[name] for name in form.decode_field if name in fields}))
    except (ValueError, RecursionError) as error:
        raise explain(error) from None


def _fields(form: Form[_T], data: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """Return the fields that an event's data has, each decoded by itself; null is as good as none."""
    fields = {}
    for name in form.decode_field.keys() & data.keys():
        try:
            each = form.decode_field[name](data[name])
        except msgspec.ValidationError as error:
            raise msgspec.ValidationError(f"{error} - at `$.{name}`") from None
        if each is not None:
            fields[name] = each
    return fields


def _convert(form: Form[_T], loose: Any) -> _T:
    """Return a record that was read loosely as it would have been written by us."""
    fields = tidy(loose)
    if fields.get("op") == "retract" and form.reading != LABELLED:
        fields = {"label": ""} | fields
    return msgspec.convert(fields, form.type)


def tidy(loose: msgspec.Struct) -> dict[str, Any]:
    """Return the fields of a record that was read loosely: none that is null, names as strings, times as such.

    Raises
    ------
    msgspec.ValidationError : for a time that is none.
    """
    fields = {name: each for name, each in msgspec.structs.asdict(loose).items() if each is not None}
    for name in _NAMES:
        if name in fields:
            fields[name] = as_name(fields[name])
    if "ts" in fields:
        try:
            fields["ts"] = as_time(fields["ts"])
        except ValueError:
            shown = str(fields["ts"])[:40]
            raise msgspec.ValidationError(
                f"{shown!r} is no time as in 2026-01-31T12:00:00Z, nor a number since 1970 - at `$.ts`"
            ) from None
    return fields
