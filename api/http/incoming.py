"""Which records are in a body of POST /messages or /feedback?

A JSON object or a list of them, as /docs describe it; or CloudEvents as the HTTP protocol binding has them: structured
(`application/cloudevents+json`), a batch (`application/cloudevents-batch+json`), or binary (headers `ce-*`). What a
field may be, and what an event says, is decided where the log's records are read (wire/fields.py, wire/events.py),
so that both take the same. Only here an id may be left out: a record without one is given one.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from driftline.api.errors import ApiError
from driftline.api.load.body import QUICK_BYTES, check_utf8, decode
from driftline.stream.errors import BadRecord
from driftline.stream.wire.bad import explain
from driftline.stream.wire.events import BATCH_TYPE, JSON_EVENT, Headers, has_event_headers, may_be_event
from driftline.stream.wire.records import NONE, Feedback, check_text, tidy, with_fields

_PREFIX: Final = b"ce-"
_BATCH: Final = msgspec.json.Decoder(list[msgspec.Raw])
_QUOTED: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_R = TypeVar("_R", bound=msgspec.Struct)


class Incoming(Generic[_R]):
    """Reads bodies of one kind.

    Parameters
    ----------
    new : what /docs describe; has the fields of `record`, of other types and without need of an id
    record : what is appended
    read : how the learner reads one
    max_bytes, max_items : of a record, and of them in a body
    """

    def __init__(
        self,
        new: type[msgspec.Struct],
        record: type[_R],
        read: Callable[[bytes, Headers | None, int], _R],
        max_bytes: int,
        max_items: int,
    ) -> None:
        self._record, self._read, self._max_bytes, self._max_items = record, read, max_bytes, max_items
        self._least: dict[str, Any] = (
            {"label": ""} if issubclass(record, Feedback) else {}
        )  # what a retraction may do without
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(new | list[new])  # type: ignore[valid-type]
        self._one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(new)

    def records(self, head: Mapping[bytes, bytes], body: bytes) -> tuple[list[_R], bool]:
        """Return the records of a body, their fields in their texts, and whether it is a list of them.

        Raises
        ------
        ApiError : 422, it is not what it must be.
        """
        headers = _event_headers(head)
        if headers is not None:
            if is_batch(head):
                return self._many(self._items(body, _BATCH), [("content-type", JSON_EVENT.encode())]), True
            return [self._event(body, headers, "")], False
        if may_be_event(body):
            if body.lstrip()[:1] == b"[":
                return self._many(self._items(body, _BATCH), None), True
            return [self._either(body, "")], False
        sent = self._items(body, self._decoder)
        if isinstance(sent, list):
            self._check_number(len(sent))
            return [self._new(each, f" - at `$[{place}]`") for place, each in enumerate(sent)], True
        return [self._new(sent, "")], False

    def _items(self, body: bytes, decoder: "msgspec.json.Decoder[Any]") -> Any:
        """Decode a body, unless it has far more items than it may have."""
        if len(body) > QUICK_BYTES:
            from driftline.stream.wire.outline import outline  # noqa: PLC0415  (a start does not wait for kernels)

            check_utf8(body)
            if (n := outline(body).items) > self._max_items:
                self._check_number(n)
        return decode(body, decoder)

    def _check_number(self, n: int) -> None:
        if not 1 <= n <= self._max_items:
            bad = BadRecord("out-of-range", f"the list has {n} items; it must have 1 to {self._max_items}")
            raise _refused(bad, "", {"Driftline-Max-Items": str(self._max_items)})

    def _many(self, items: list[msgspec.Raw], headers: Headers | None) -> list[_R]:
        if items or headers is None:
            self._check_number(len(items))
        where = " - at `$[{}]`".format
        if headers is None:
            return [self._either(bytes(each), where(place)) for place, each in enumerate(items)]
        return [self._event(bytes(each), headers, where(place)) for place, each in enumerate(items)]

    def _either(self, item: bytes, where: str) -> _R:
        """Read an object with a `specversion` somewhere: an event, or one that only speaks of it."""
        try:
            return self._read(item, None, self._max_bytes)
        except BadRecord as bad:
            if bad.error != "missing-field":
                raise _refused(bad, where) from None
        return self._new(decode(item, self._one), where)

    def _event(self, value: bytes, headers: Headers, where: str) -> _R:
        try:
            return self._read(value, headers, self._max_bytes)
        except BadRecord as bad:
            raise _refused(bad, where) from None

    def _new(self, sent: Any, where: str) -> _R:
        try:
            fields = {name: each for name, each in tidy(sent).items() if each != NONE}
            least = self._least if fields.get("op") == "retract" else {}
            record: Any = msgspec.convert({"id": uuid.uuid4().hex} | least | fields, self._record)
        except msgspec.ValidationError as error:
            raise _refused(explain(error), where) from None
        try:
            if record.text is not None:
                check_text(record.text)  # before it has its fields
            return with_fields(record)  # type: ignore[no-any-return]
        except BadRecord as bad:
            raise _refused(bad, where) from None


def is_batch(head: Mapping[bytes, bytes]) -> bool:
    """Tell whether a body is a batch of events, which may be empty."""
    return head.get(b"content-type", b"").lower().startswith(BATCH_TYPE.encode())


def _event_headers(head: Mapping[bytes, bytes]) -> Headers | None:
    """Return a request's headers as a record's in Kafka would be, or None where it is no event by them."""
    headers = [("content-type", head.get(b"content-type", b""))]
    if b"ce-specversion" in head:
        attributes = [(name, value) for name, value in head.items() if name.startswith(_PREFIX)]
        headers += [("ce_" + name[3:].decode("latin-1"), _attribute(name, value)) for name, value in attributes]
    return headers if has_event_headers(headers) else None


def _attribute(name: bytes, value: bytes) -> bytes:
    """Return an attribute's value in UTF-8: unquoted, then unescaped (section 3.1.3.2 of the binding)."""
    raw = _QUOTED.sub(lambda found: re.sub(rb"\\(.)", rb"\1", found[1]), value.strip())
    raw = unquote_to_bytes(raw)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        shown = name.decode("latin-1")
        raise _refused(BadRecord("not-utf8", f"the header {shown} is not UTF-8, percent-encoded"), "") from None
    return raw


def _refused(bad: BadRecord, where: str, headers: Mapping[str, str] | None = None) -> ApiError:
    action = "Nothing was appended. See /docs for the body's shape, with an example."
    return ApiError(422, bad.error, bad.detail + where, action, headers)
