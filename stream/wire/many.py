"""How are the values of many records read at once?

As one by one, and with the same results: what wire/records.py says of each. Where all are plain in one call, else in
parts, so that one bad value costs only its neighbours.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from driftline.stream.errors import BadRecord
from driftline.stream.wire.bad import check_utf8
from driftline.stream.wire.events import has_event_headers, may_be_event
from driftline.stream.wire.fields import MAX_DEPTH
from driftline.stream.wire.names import same_name
from driftline.stream.wire.records import (
    FEEDBACK_FORMS,
    LABELLED,
    LEAST_WEIGHT,
    LONGEST_NAME,
    MAX_ID_CHARS,
    MAX_LABEL_CHARS,
    MAX_WEIGHT,
    MESSAGE_FORMS,
    NONE,
    READING,
    Feedback,
    Headers,
    Message,
    check_feedback,
    is_local,
    read,
    read_feedback,
    read_message,
    read_metadata,
    with_fields,
)

# Values that cannot be decoded in one call are divided into PARTS, and fewer than MANY are taken one by one.
PARTS: Final = 16
MANY: Final = 16
_OPENING, _LIST, _CLOSING = b"{[}"

Values = Sequence[bytes | None]
ManyHeaders = Sequence[Headers | None] | None  # None: no value has any


def decode_messages(
    values: Values, headers: ManyHeaders, max_bytes: int = 1 << 20, *, reading: int = READING
) -> list[Message | BadRecord | None]:
    """Read messages: for each value what `decode_message` returns or raises, or None for a value that is None."""
    return _decode_many(_MESSAGES[reading], values, headers, max_bytes)


def decode_feedbacks(
    values: Values,
    headers: ManyHeaders,
    max_bytes: int = 1 << 20,
    *,
    reading: int = READING,
    as_written: bool = False,
) -> list[Feedback | BadRecord | None]:
    """Read labels: for each value what `decode_feedback` returns or raises, or None for a value that is None.

    `reading` and `as_written` are for a replay of what was learned before: LABELLED, and before names had one form.
    """
    return _decode_many(_FEEDBACKS_AS_WRITTEN if as_written else _FEEDBACKS[reading], values, headers, max_bytes)


_R = TypeVar("_R", Message, Feedback)


class _Kind(NamedTuple, Generic[_R]):
    """How one kind of record is read: one by one, many at once, and what many have to be looked at for then."""

    decode: Callable[[bytes, Headers | None, int], _R]
    decode_lines: Callable[[bytes], list[_R]]
    are_usable: Callable[[list[_R], int], bool]
    reading: int = READING


def _decode_many(kind: _Kind[_R], values: Values, headers: ManyHeaders, max_bytes: int) -> list[_R | BadRecord | None]:
    """Decode in one call where all values are plain; else in parts, so that one bad value costs only its neighbours."""
    n = len(values)
    plain = headers is None or not any(map(has_event_headers, headers))
    if plain and n >= MANY and (found := _decode_lines(kind, values, max_bytes)) is not None:
        return list(found)
    if n >= PARTS * MANY:
        size = -(-n // PARTS)
        cuts = [slice(start, start + size) for start in range(0, n, size)]
        parts = [_decode_many(kind, values[cut], headers and headers[cut], max_bytes) for cut in cuts]
        return list(chain.from_iterable(parts))
    records: list[_R | BadRecord | None] = []
    for value, its_headers in zip(values, headers or [None] * n, strict=True):
        try:
            records.append(None if value is None else kind.decode(value, its_headers, max_bytes))
        except BadRecord as bad:
            records.append(BadRecord(bad.error, bad.detail))  # the one raised holds on to all of these values
    return records


def _decode_lines(kind: _Kind[_R], values: Values, max_bytes: int) -> list[_R] | None:
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
    opening = (characters == _OPENING) | (characters == _LIST)
    may_be_deep = sizes.max() > MAX_DEPTH and np.add.reduceat(opening, ends - sizes, dtype=np.int64).max() > MAX_DEPTH
    try:
        if not joined.isascii():
            check_utf8(joined)
        may_have_nul = b"\\" in joined and b"\\u0000" in joined  # `\\` is fast, and seldom there
        if may_be_deep or may_have_nul or may_be_event(joined):
            return None
        records = kind.decode_lines(joined)
        is_good = len(records) == len(values) and kind.are_usable(records, int(sizes.max()))
        if is_good and any(record.fields is not NONE or record.vector is not NONE for record in records):
            records = [with_fields(record, reading=kind.reading) for record in records]
    except (ValueError, RecursionError, BadRecord):
        return None
    return records if is_good else None


def _are_usable_messages(messages: list[Message], longest: int) -> bool:
    """Whether `check_message` raises for none; that there is no NUL is known, and how long the longest value is."""
    are_named = not any(map(is_local, messages)) and _are_names([each.id for each in messages], MAX_ID_CHARS, longest)
    try:
        return are_named and all(read_metadata(each.metadata) is each.metadata for each in messages)
    except BadRecord:
        return False


def _are_usable_feedbacks(feedbacks: list[Feedback], longest: int) -> bool:
    """Whether `check_feedback` raises for none; that there is no NUL is known, and how long the longest value is."""
    ids = [feedback.id for feedback in feedbacks if feedback.id is not None]
    weights = [feedback.weight for feedback in feedbacks]
    return (
        not any(map(is_local, feedbacks))
        and _are_names([feedback.message_id for feedback in feedbacks], MAX_ID_CHARS, longest)
        and _are_names([feedback.label for feedback in feedbacks], MAX_LABEL_CHARS, longest)
        and _are_names(ids, MAX_ID_CHARS, longest)
        and (weights.count(1.0) == len(weights) or LEAST_WEIGHT <= min(weights) <= max(weights) <= MAX_WEIGHT)
    )


def _are_names(names: list[str], max_chars: int, longest: int) -> bool:
    """Whether none is empty or too long; a character takes a byte of the value at least."""
    return all(names) and (longest <= max_chars or max(map(len, names), default=0) <= max_chars)


def _are_in_one_form(feedbacks: list[Feedback], longest: int) -> bool:
    """Whether nothing has to be changed of any, either; there are few different names."""
    names = {feedback.label for feedback in feedbacks} | {feedback.source for feedback in feedbacks}
    are_same = all(each is None or (0 < len(each) <= LONGEST_NAME and same_name(each) == each) for each in names)
    return are_same and _are_usable_feedbacks(feedbacks, longest)


def _decode_as_written(value: bytes, headers: Headers | None, max_bytes: int) -> Feedback:
    form = FEEDBACK_FORMS[LABELLED]
    feedback = read(form, value, headers, max_bytes)
    check_feedback(feedback, reading=LABELLED)
    return with_fields(feedback, reading=LABELLED)


_MESSAGE_LINES: Final = msgspec.json.Decoder(Message).decode_lines
_FEEDBACK_LINES: Final = msgspec.json.Decoder(Feedback).decode_lines
_MESSAGES: Final = {
    reading: _Kind(partial(read_message, form), _MESSAGE_LINES, _are_usable_messages, reading)
    for reading, form in MESSAGE_FORMS.items()
}
_FEEDBACKS: Final = {
    reading: _Kind(partial(read_feedback, form), _FEEDBACK_LINES, _are_in_one_form, reading)
    for reading, form in FEEDBACK_FORMS.items()
}
_FEEDBACKS_AS_WRITTEN: Final = _Kind(_decode_as_written, _FEEDBACK_LINES, _are_usable_feedbacks, LABELLED)
