"""Which record is inside a CloudEvent?

CloudEvents 1.0.2: the JSON event format, and the Kafka protocol binding's two modes. A record is an event where its
`content-type` begins with `application/cloudevents` (structured: the value is the event), or it has a header
`ce_specversion` (binary: the value is the data, the headers are the attributes), or else where its value is an object
with a `specversion`. The first that is so decides, and what an event says counts, never what its value would be alone.

`data` of a JSON type (`*/json`, `*/*+json`, or none given) is JSON: an object with a record's fields, or a string. Data
of any other type is a text, whatever it looks like, in the type's `charset`. A text alone is what the topic is about: a
message's text, a label. What data leaves out comes from the attributes: `id` from `id`, `ts` from `time`, a label's
`source` from `source` and its `message_id` from `subject`. HTTP has the same, as routes/feedback.py translates it.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from driftline.stream.errors import BadRecord
from driftline.stream.wire.fields import MAX_DEPTH, as_name, check_json, is_too_deep, mend_escapes

Headers = list[tuple[str, bytes]]

BATCH_TYPE: Final = "application/cloudevents-batch"
EVENT_TYPE: Final = "application/cloudevents"
JSON_EVENT: Final = "application/cloudevents+json"
FORM: Final = "application/x-www-form-urlencoded"  # what curl and others say of whatever they send
_CHARSET: Final = re.compile(r';\s*charset\s*=\s*"?([^\s;"]+)', re.IGNORECASE)
_NO_CHARSETS: Final = frozenset(
    {"idna", "punycode", "unicode_escape", "unicode-escape", "raw_unicode_escape", "undefined"}
)
_MARK: Final = b'"specversion"'


class _Attributes(msgspec.Struct):
    """The members of a structured event that matter here; null is as good as none."""

    specversion: str | None = None
    id: str | int | float | bool | None = None
    source: str | int | float | bool | None = None
    subject: str | int | float | bool | None = None
    time: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str | None = None


class _OldAttributes(_Attributes):
    """The same as versions before took them; see `Form`."""

    id: str | int | None = None
    source: str | None = None
    subject: str | None = None


class Content(NamedTuple):
    """What an event says: the fields that its attributes give, and its data. What is JSON has no half of a pair."""

    attributes: dict[str, str]
    data: dict[str, msgspec.Raw] | str


_ATTRIBUTES: Final = msgspec.json.Decoder(_Attributes)
_OLD_ATTRIBUTES: Final = msgspec.json.Decoder(_OldAttributes)
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT: Final = msgspec.json.Decoder(str)


def may_be_event(value: bytes) -> bool:
    """Whether a value without headers could be an event; if not, it is none."""
    return _MARK in value


def has_event_headers(headers: Headers | None) -> bool:
    """Whether a record's headers say that it is an event."""
    return bool(headers) and any(
        name.lower() == "ce_specversion"
        or (name.lower() == "content-type" and content[: len(EVENT_TYPE)].lower() == EVENT_TYPE.encode())
        for name, content in headers or ()
    )


def read_event(value: bytes, headers: Headers | None, *, as_before: bool = False) -> Content | None:
    """Return what a CloudEvent says, or None where a value is none. Raises BadRecord for a broken one.

    `as_before` : its attributes are not taken as numbers
    """
    decode = (_OLD_ATTRIBUTES if as_before else _ATTRIBUTES).decode
    if not has_event_headers(headers):
        return _structured(value, decode, is_named=False) if may_be_event(value) else None
    names = {name.lower(): content.decode("utf-8", "replace") for name, content in headers or ()}
    content_type = names.get("content-type", "")
    media_type = _media_type(content_type)
    if media_type.startswith(BATCH_TYPE):
        raise BadRecord("wrong-type", f"{media_type}: a record is one event; batches are for HTTP")
    if media_type.startswith(EVENT_TYPE):
        if media_type not in (EVENT_TYPE, JSON_EVENT):
            raise BadRecord("wrong-type", f"{media_type}: this event format is not read; send {JSON_EVENT}")
        return _structured(_text(value, content_type).encode(), decode, is_named=True)
    return _binary(value, names)


def _binary(value: bytes, names: Mapping[str, str]) -> Content:
    _check_version(names["ce_specversion"])
    if "ce_id" not in names:
        raise BadRecord("missing-field", "the CloudEvent has no id (header ce_id; over HTTP ce-id)")
    attributes = {name: names[f"ce_{name}"] for name in ("id", "source", "subject", "time") if f"ce_{name}" in names}
    content_type = names.get("content-type", "")
    return Content(attributes, _data(value, "" if _media_type(content_type) == FORM else content_type))


def _structured(value: bytes, decode: Callable[[bytes], _Attributes], *, is_named: bool) -> Content | None:
    """Return what a value says as an event. Where nobody named it one, what lacks the parts of one is none."""
    _check_depth(value)
    try:
        event = decode(mend_escapes(value))
    except ValueError as error:
        if not is_named:
            return None
        code = "wrong-type" if isinstance(error, msgspec.ValidationError) else "not-json"
        raise BadRecord(code, f"the CloudEvent cannot be read: {error}") from None
    parts = {"specversion": event.specversion, "id": event.id, "data": bytes(event.data) or event.data_base64}
    lacks = [name for name, part in parts.items() if part is None]
    if lacks:
        if is_named:
            raise BadRecord("missing-field", f"the CloudEvent has no {' and no '.join(lacks)}")
        return None  # a record that says more than it has to
    _check_version(event.specversion or "")
    given = {"id": event.id, "source": event.source, "subject": event.subject, "time": event.time}
    attributes = {name: as_name(each) for name, each in given.items() if each is not None}
    return Content(attributes, _structured_data(event))


def _structured_data(event: _Attributes) -> dict[str, msgspec.Raw] | str:
    content_type, raw = event.datacontenttype or "", bytes(event.data)
    if event.data_base64 is not None:
        if raw and raw != b"null":
            raise BadRecord("wrong-type", "the CloudEvent has both data and data_base64")
        try:
            return _data(base64.b64decode(event.data_base64, validate=True), content_type)
        except binascii.Error as error:
            raise BadRecord("wrong-type", f"data_base64 is not Base64: {error}") from None
    if _is_json(content_type):
        return _object_or_text(raw)
    if raw[:1] != b'"':  # it cannot be a text of that type (section 3.1.2)
        raise BadRecord(
            "wrong-type", f"data of the type {_media_type(content_type)} must be a string, got {_kind(raw)}"
        )
    return _TEXT.decode(raw)


def _data(value: bytes, content_type: str) -> dict[str, msgspec.Raw] | str:
    text = _text(value, content_type)
    return _object_or_text(text.encode()) if _is_json(content_type) else text


def _object_or_text(raw: bytes) -> dict[str, msgspec.Raw] | str:
    _check_depth(raw)
    try:
        data = check_json(raw).strip()
    except ValueError as error:
        code = "out-of-range" if "out of range" in str(error) else "not-json"
        raise BadRecord(code, f"the CloudEvent's data is not JSON: {error}; a text is text/plain") from None
    if data[:1] == b"{":
        return _FIELDS.decode(data)
    if data[:1] == b'"':
        return _TEXT.decode(data)
    raise BadRecord("wrong-type", f"CloudEvent data must be an object or a text, got {_kind(data)}")


def _text(value: bytes, content_type: str) -> str:
    """Return bytes as a text of their charset. Raises BadRecord."""
    found = _CHARSET.search(content_type)
    charset = found[1].lower() if found else "utf-8"
    try:
        if charset in _NO_CHARSETS:
            raise LookupError
        text = value.decode(charset)
        text.encode()
    except LookupError:
        raise BadRecord("wrong-type", f"the charset {charset[:40]!r} is not known") from None
    except ValueError as error:
        code = "not-utf8" if charset == "utf-8" else "wrong-type"
        raise BadRecord(code, f"the CloudEvent's data is not {charset[:40]}: {error}") from None
    return text


def _check_depth(value: bytes) -> None:
    if is_too_deep(value):
        raise BadRecord("too-deep", f"the CloudEvent is nested more than {MAX_DEPTH} deep")


def _check_version(specversion: str) -> None:
    if specversion != "1.0":
        raise BadRecord("wrong-type", f"CloudEvents {specversion[:40]!r} is not supported, only 1.0 is")


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(content_type: str) -> bool:
    media_type = _media_type(content_type)
    return not media_type or media_type.endswith(("/json", "+json"))


def _kind(raw: bytes) -> str:
    kinds = {b"{": "an object", b"[": "a list", b"t": "a boolean", b"f": "a boolean", b"n": "null", b'"': "a string"}
    return kinds.get(raw[:1], "a number")
