r"""How do a message's fields travel with its text? Behind it, in one string.

A message may say more than its text: sender, subject, country, amount. Whoever keeps the text, learns it, replays or
forgets it has to do so with its fields; so both are one string, from where a record is read to where it is shown:

    win a prize\0amount\0407f400000000000n\0country\0NLs\0

the text, and then of each field its name and its value, in the order of the names, each ended by END; of a list so for
each item. A value's last letter says what it is (KIND): behind it, so that no mark can become one with the letter. What
is the same has the same string: 1 and 1.0, fields in another order, null and none. No text, name or value may hold END,
so nothing that is sent passes for a field; a text has fields, or a vector behind them (vector.py), if and only if it
ends with END, and one without is as it was.
"""

import math
import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from driftline.stream.errors import BadRecord
from driftline.stream.surrogates import whole_characters
from driftline.stream.wire import vector
from driftline.stream.wire.bad import explain
from driftline.stream.wire.fields import WHOLE_UP_TO, as_name, mend_escapes

END: Final = vector.END
MAX_FIELDS: Final = 32
MAX_NAME_CHARS: Final = 64
MAX_VALUE_CHARS: Final = 2048  # of a list: of all that is in it
MAX_ITEMS: Final = 64


class _Kind(NamedTuple):
    """What a value is."""

    STRING: str = "s"
    NUMBER: str = "n"  # before it: the 64 bits of the number, in hexadecimal
    TRUTH: str = "t"  # before it: true or false
    ITEM: str = "i"  # of a list


KIND: Final = _Kind()
_ALLOWED: Final = "a string, a number, true, false, null or a list of strings"

Value = str | int | float | bool | list[str]
Fields = dict[str, Value]

_FIELDS: Final = msgspec.json.Decoder(dict[str, Any])


def read_fields(raw: msgspec.Raw) -> dict[str, Any]:
    """Return the fields that stand in a record. Raises BadRecord where they are none."""
    value = bytes(raw)
    if value == b"null":
        return {}
    if value[:1] != b"{":
        raise BadRecord("wrong-type", "fields must be an object - at `$.fields`")
    try:
        return _FIELDS.decode(mend_escapes(value))
    except (ValueError, RecursionError) as error:
        raise explain(error, " - at `$.fields`") from None


def join(text: str, fields: Mapping[str, Any] | None) -> str:
    """Return a text with its fields, as one string; null is as good as none.

    Raises
    ------
    BadRecord : a field has no name, or its value is none that it may have; they are too many, or too long.
    """
    if not fields:
        return text
    if len(fields) > MAX_FIELDS:
        raise BadRecord("too-large", f"fields has {len(fields)} of them, at most {MAX_FIELDS} are allowed")
    for name in fields:
        _check_name(name)
    parts = [
        part
        for name in sorted(fields)
        for value in _encoded(name, fields[name])
        for part in (whole_characters(name), value)
    ]
    return END.join((text, *parts, "")) if parts else text


def split(whole: str) -> tuple[str, Fields]:
    """Return a text and its fields, which `join` made one string of. Numbers are whole ones where they can be.

    A vector is left out.
    """
    if whole[-1:] != END:
        return whole, {}
    text, *parts = whole[:-1].split(END)
    fields: Fields = {}
    for name, encoded in zip(parts[::2], parts[1::2], strict=False):
        kind, value = encoded[-1:], encoded[:-1]
        if not name or kind not in KIND:
            break  # a vector, or nothing that `join` has made
        if kind == KIND.ITEM:
            items = fields.setdefault(name, [])
            if isinstance(items, list):
                items.append(value)
        else:
            fields[name] = _number(value) if kind == KIND.NUMBER else value == "true" if kind == KIND.TRUTH else value
    return text, fields


def text_of(whole: str) -> str:
    """Return a text without its fields, and without its vector."""
    return whole.partition(END)[0] if whole[-1:] == END else whole


def is_of(text: str, whole: str) -> bool:
    """Tell whether a text is the same as another one, or that without its fields; whether a vector is there or not."""
    text, whole = vector.without_vector(text), vector.without_vector(whole)
    return text == whole or text == text_of(whole)


def shortened(fields: Fields, most: int) -> Fields:
    """Return fields whose strings have so many characters at most, and whose lists so many items, to be looked at."""
    short: Fields = {}
    for name, value in fields.items():
        if isinstance(value, str):
            short[name] = value[:most]
        elif isinstance(value, list):
            short[name] = [item[:most] for item in value[:most]]
        else:
            short[name] = value
    return short


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise BadRecord("empty-field", "a field has no name - at `$.fields`")
    if len(name) > MAX_NAME_CHARS:
        raise BadRecord(
            "too-large",
            f"the field's name {name[:20]!r}... has {len(name)} characters, at most {MAX_NAME_CHARS} are allowed",
        )
    if END in name:
        raise BadRecord("forbidden-character", "a field's name contains a NUL character (U+0000) - at `$.fields`")


def _encoded(name: str, value: Any) -> list[str]:
    """Return what stands for a field's value: nothing, one string, or one for each item."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, bool):
        return [("true" if value else "false") + KIND.TRUTH]
    if isinstance(value, int | float):
        return [_bits(name, value) + KIND.NUMBER]
    if isinstance(value, str):
        value = whole_characters(value)
        _check_length(name, value)
        return [value + KIND.STRING]
    if isinstance(value, list | tuple):
        items = [_item(name, each) for each in value if each is not None]
        if len(items) > MAX_ITEMS:
            raise BadRecord("too-large", f"fields.{name} has {len(items)} items, at most {MAX_ITEMS} are allowed")
        _check_length(name, "".join(items))
        return [item + KIND.ITEM for item in items]
    raise BadRecord("wrong-type", f"fields.{name} must be {_ALLOWED}, got {_called(value)} - at `$.fields`")


def _item(name: str, item: Any) -> str:
    if isinstance(item, str | int | float):
        return whole_characters(as_name(item))
    raise BadRecord("wrong-type", f"fields.{name} must be {_ALLOWED}: {_called(item)} is in it - at `$.fields`")


def _check_length(name: str, value: str) -> None:
    if len(value) > MAX_VALUE_CHARS:
        raise BadRecord(
            "too-large", f"fields.{name} has {len(value)} characters, at most {MAX_VALUE_CHARS} are allowed"
        )
    if END in value:
        raise BadRecord("forbidden-character", f"fields.{name} contains a NUL character (U+0000)")


def _bits(name: str, number: float) -> str:
    """Return the bits of a number; equal ones have the same."""
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        raise BadRecord("out-of-range", f"fields.{name} is no number of 64 bits - at `$.fields`")
    return struct.pack(">d", value + 0.0).hex()  # -0.0 is 0.0


def _number(bits: str) -> int | float:
    try:
        value: float = struct.unpack(">d", bytes.fromhex(bits))[0]
    except (ValueError, struct.error):  # nothing that `join` has made
        return 0
    return int(value) if value.is_integer() and abs(value) <= WHOLE_UP_TO else value


def _called(value: Any) -> str:
    return "an object" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else type(value).__name__
