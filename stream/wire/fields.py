"""What may stand in a field of a record, wherever it comes from: the log, HTTP, a file?

A producer in another language writes ids and labels as numbers, times as it likes, and cuts a text in the middle of a
character. All of that has one meaning, and it is given here, for every surface alike. Nothing is guessed: a value that
has no such meaning is refused by whoever asked.
"""

import re
import sys
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Final

import msgspec

# Epochs by their size: seconds and milliseconds until the year 5138, then microseconds, then nanoseconds.
MILLISECONDS_FROM: Final = 1e11
MICROSECONDS_FROM: Final = 1e14
NANOSECONDS_FROM: Final = 1e17
# How deep JSON may be nested, the record itself being 1. Python's own limit is that of its stack, which is not the same
# in a replay, nor in another version of it: what is refused must not depend on that.
MAX_DEPTH: Final = 100
WHOLE_UP_TO: Final = 2.0**53  # beyond it not every whole number is one of 64 bits
# JSON of so many bytes is read over by the kernels of outline.py where they are compiled, and of so many where they are
# not. Both ways say the same; msgspec takes 9 microseconds for some numbers, and half of one for a list.
LONG: Final = 32
VERY_LONG: Final = 1 << 14

_EPOCH: Final = re.compile(r"\s*[+-]?[0-9]+(?:\.[0-9]+)?\s*")
_DATE: Final = re.compile(r"[0-9]{8}")  # 20260131 is a day, and not one in August 1970
_LEAP_SECOND: Final = re.compile(r"(?<=:59:)60(?![0-9])")  # RFC 3339 has it, and Python has not
_END_OF_DAY: Final = re.compile(r"(?<=[T ])24(?=:?00(?::?00(?:[.,]0+)?)?(?:[Z+-]|\Z))")  # Python has it since 3.14
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[{\]}]")
_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def as_name(value: str | float | bool) -> str:
    """Return an id or a label: numbers and booleans as JSON spells them, equal numbers alike (1, 1.0 and 1e0 are "1").

    Raises
    ------
    TypeError : for whatever else it is.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) <= WHOLE_UP_TO:
        return str(int(value))
    if isinstance(value, bool | float):
        return msgspec.json.encode(value).decode()
    if isinstance(value, int):
        return str(value)
    raise TypeError(f"a {type(value).__name__} is no name")


def as_time(value: str | float) -> datetime:
    """Return a time given as ISO 8601 (RFC 3339, a day alone, without seconds) or as a number since 1970.

    The number may be a string; its size tells seconds from milli-, micro- and nanoseconds. Without an offset it is UTC.
    A leap second is the second before it, 24:00 the next day's 00:00.

    Raises
    ------
    ValueError : it is none of these, or not in the years 1 to 9999.
    """
    if isinstance(value, str) and (_DATE.fullmatch(value) or not _EPOCH.fullmatch(value)):
        text, days = _END_OF_DAY.subn("00", _LEAP_SECOND.sub("59", value.strip().upper()))
        time = datetime.fromisoformat(text)
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        try:
            return time + timedelta(days=days)
        except OverflowError as error:
            raise ValueError(str(error)) from None
    try:
        number = float(value)
        scale = 1 if number < MILLISECONDS_FROM else 1e3 if number < MICROSECONDS_FROM else 1e6
        return datetime.fromtimestamp(number / (scale if number < NANOSECONDS_FROM else 1e9), UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(str(error)) from None


def mend_escapes(value: bytes) -> bytes:
    r"""Return JSON in which an escape that is half of a surrogate pair (`\ud800`) is one of U+FFFD."""
    if b"\\u" not in value:
        return value
    if (outline := _kernels(value)) is not None:
        mended: bytes = outline.mended(value)
        return mended
    return _ESCAPES.sub(lambda found: b"\\ufffd" if found[1] else found[0], value)


def is_too_deep(value: bytes) -> bool:
    """Tell whether JSON is nested deeper than MAX_DEPTH. Only what has so many brackets is looked at."""
    if value.count(b"{") + value.count(b"[") <= MAX_DEPTH:
        return False
    if (outline := _kernels(value)) is not None:
        return bool(outline.is_deeper(value, MAX_DEPTH))
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", value)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def check_json(value: bytes) -> bytes:
    """Return JSON that msgspec decodes, with U+FFFD for halves of surrogate pairs. It is UTF-8 and not too deep.

    Raises
    ------
    ValueError : it would not; msgspec.ValidationError for a number that is out of range.
    """
    outline = _kernels(value)
    if outline is None:
        value = mend_escapes(value)
        msgspec.json.decode(value)
        return value
    found = outline.fault(value)
    if found is not None and found.kind == outline.HALF:
        value = outline.mended(value)
        found = outline.fault(value)
    if found is None:
        return value
    if found.kind == outline.OUT_OF_RANGE:
        raise msgspec.ValidationError(f"Number out of range (byte {found.place})")
    raise msgspec.DecodeError(f"JSON is malformed (byte {found.place})")


def _kernels(value: bytes) -> ModuleType | None:
    """Return what reads a value fast, or None where that is not worth it."""
    if len(value) < LONG:
        return None
    loaded = sys.modules.get("driftline.stream.wire.outline")
    if len(value) < VERY_LONG and (loaded is None or not loaded.is_compiled()):
        return None
    from driftline.stream.wire import outline  # noqa: PLC0415  (the command line needs this file, and no kernel)

    return outline
