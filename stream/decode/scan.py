"""Which values are records of the ordinary kind, and where do their fields stand?

A strict reader of JSON for nearly all values: an object with the known fields as strings without escapes, in whatever
order, in valid UTF-8, each field once and neither empty nor too long. It says where the fields stand and copies
nothing. Of whatever is not plainly so it says only that: wire/records.py decides about it, so what is read here has
to be what that would read. Proved by test_a_scan_finds_what_msgspec_decodes.
"""

from typing import Final

import numpy as np

from driftline.stream.kernels import are_equal, kernel
from driftline.stream.wire.records import MAX_ID_CHARS, MAX_LABEL_CHARS

ODD, MESSAGE, LABEL = 0, 1, 2
# Fields of a record: start, bytes and characters of its message's id, its text or label, and its own id.
KEY, CONTENT, OWN = 0, 3, 6
N_FIELDS: Final = 9
SIZE, CHARS = 1, 2

_QUOTE, _ESCAPE, _OPENING, _CLOSING, _COLON, _COMMA = map(np.uint8, b'"\\{}:,')
_BLOCK: Final = 32
_BLANK, _BITS = np.uint8(32), np.uint8(128)
_ID, _TEXT, _MESSAGE_ID, _LABEL = (np.frombuffer(name, np.uint8) for name in (b"id", b"text", b"message_id", b"label"))


@kernel
def skip_space(data, at, end):  # type: ignore[no-untyped-def]
    """Return the next place that is no space."""
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@kernel
def is_name(data, at, size, name):  # type: ignore[no-untyped-def]
    """Tell whether a field's name is this one."""
    return size == name.shape[0] and are_equal(data, at, name, 0, size)


@kernel
def after_character(data, at, end):  # type: ignore[no-untyped-def]
    """Return the place after a character of several bytes, or -1 where it is not UTF-8 (Unicode 15, table 3-7)."""
    first = data[at]
    low, high = np.uint8(0x80), np.uint8(0xBF)
    if 0xC2 <= first <= 0xDF:
        more = 1
    elif 0xE0 <= first <= 0xEF:
        more = 2
        if first == 0xE0:
            low = np.uint8(0xA0)
        elif first == 0xED:
            high = np.uint8(0x9F)
    elif 0xF0 <= first <= 0xF4:
        more = 3
        if first == 0xF0:
            low = np.uint8(0x90)
        elif first == 0xF4:
            high = np.uint8(0x8F)
    else:
        return -1
    if at + more >= end or not low <= data[at + 1] <= high:
        return -1
    for i in range(2, more + 1):
        if data[at + i] & 0xC0 != 0x80:
            return -1
    return at + more + 1


@kernel
def is_utf8(data, at, end):  # type: ignore[no-untyped-def]
    """Tell whether some bytes are UTF-8."""
    while at < end:
        stop = min(at + _BLOCK, end)
        if stop == at + _BLOCK:
            seen = np.uint8(0)
            for i in range(_BLOCK):
                seen |= data[at + i]
            if seen < _BITS:
                at = stop
                continue
        while at < stop:
            at = at + 1 if data[at] < _BITS else after_character(data, at, end)
            if at < 0:
                return False
    return True


@kernel
def scan_string(data, at, end):  # type: ignore[no-untyped-def]
    """Return the place of the quote that ends a string and how many characters are before it; -1 where it is odd.

    Blocks in which nothing is special are passed whole: vectorised. `data` goes on for PADDING behind `end`.
    """
    chars = 0
    while at < end:
        special = np.uint8(0)
        for i in range(_BLOCK):
            byte = data[at + i]
            special |= np.uint8((byte < _BLANK) | (byte >= _BITS) | (byte == _QUOTE) | (byte == _ESCAPE))
        if special == 0 and at + _BLOCK <= end:
            at += _BLOCK
            chars += _BLOCK
            continue
        stop = min(at + _BLOCK, end)
        while at < stop:
            byte = data[at]
            if byte == _QUOTE:
                return at, chars
            if byte < _BLANK or byte == _ESCAPE:
                return -1, 0
            if byte < _BITS:
                at += 1
            else:
                at = after_character(data, at, end)
                if at < 0:
                    return -1, 0
            chars += 1
    return -1, 0


@kernel
def is_in_one_form(data, at, end):  # type: ignore[no-untyped-def]
    """Tell whether a name is surely what `same_name` makes of it: no space but one between others, no odd characters.

    Told by the first bytes of UTF-8 under which all characters stay as they are: Latin from À on, Cyrillic up
    to U+047F, ideographs from U+5000 on. That of all others `same_name` has to say.
    """
    before = _BLANK
    for i in range(at, end):
        byte = data[i]
        if byte == _BLANK and before == _BLANK:
            return False
        if byte >= 0xC0 and not (0xC3 <= byte <= 0xCB or 0xD0 <= byte <= 0xD1 or 0xE5 <= byte <= 0xE9):
            return False
        before = byte
    return before != _BLANK


@kernel
def scan_value(data, at, end, is_message, fields):  # type: ignore[no-untyped-def]  # noqa: PLR0911, PLR0912
    """Write where one value's fields stand; tell whether it is an ordinary record."""
    fields[:] = -1
    at = skip_space(data, at, end)
    if at >= end or data[at] != _OPENING:
        return False
    while True:
        at = skip_space(data, at + 1, end)
        if at >= end or data[at] != _QUOTE:
            return False
        at += 1
        name = at
        while at < end and data[at] != _QUOTE:
            at += 1
        size = at - name
        if is_message:
            field = KEY if is_name(data, name, size, _ID) else CONTENT if is_name(data, name, size, _TEXT) else -1
        elif is_name(data, name, size, _MESSAGE_ID):
            field = KEY
        elif is_name(data, name, size, _LABEL):
            field = CONTENT
        else:
            field = OWN if is_name(data, name, size, _ID) else -1
        if field < 0 or fields[field] >= 0:
            return False
        at = skip_space(data, at + 1, end)
        if at >= end or data[at] != _COLON:
            return False
        at = skip_space(data, at + 1, end)
        if at >= end or data[at] != _QUOTE:
            return False
        start = at + 1
        at, chars = scan_string(data, start, end)
        if at < 0:
            return False
        fields[field], fields[field + SIZE], fields[field + CHARS] = start, at - start, chars
        at = skip_space(data, at + 1, end)
        if at >= end:
            return False
        if data[at] == _CLOSING:
            break
        if data[at] != _COMMA:
            return False
    if skip_space(data, at + 1, end) != end:
        return False
    own_is_good = fields[OWN] < 0 or 0 < fields[OWN + CHARS] <= MAX_ID_CHARS
    if not (0 < fields[KEY + CHARS] <= MAX_ID_CHARS and own_is_good and fields[CONTENT] >= 0):
        return False
    if is_message:
        return True
    has_room = 0 < fields[CONTENT + CHARS] <= MAX_LABEL_CHARS
    return has_room and is_in_one_form(data, fields[CONTENT], fields[CONTENT] + fields[CONTENT + SIZE])


@kernel
def scan(data, starts, is_message, max_bytes, fields, kinds):  # type: ignore[no-untyped-def]
    """Scan values.

    Parameters
    ----------
    data, starts : of a Column
    is_message : whether they should be messages, or else labels
    max_bytes : a longer value is odd
    fields : int64 [n, N_FIELDS], changed: -1 for what is not there
    kinds : int8 [n], changed: ODD, MESSAGE or LABEL
    """
    kind = MESSAGE if is_message else LABEL
    for i in range(kinds.shape[0]):
        short = starts[i + 1] - starts[i] <= max_bytes
        kinds[i] = kind if short and scan_value(data, starts[i], starts[i + 1], is_message, fields[i]) else ODD
