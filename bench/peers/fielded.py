"""How does a peer read a text with fields? As stream/wire/fielded.py writes them; said again, for Python 3.8."""

from __future__ import annotations

import struct
from typing import Union

Value = Union[str, float]


def apart(whole: str) -> tuple[str, dict[str, list[Value]]]:
    """Return a text, and the values of each of its fields: strings, or a number."""
    if whole[-1:] != "\0":
        return whole, {}
    text, *parts = whole[:-1].split("\0")
    fields: dict[str, list[Value]] = {}
    for name, value in zip(parts[::2], parts[1::2]):
        is_number = value[-1:] == "n"
        fields.setdefault(name, []).append(
            struct.unpack(">d", bytes.fromhex(value[:-1]))[0] if is_number else value[:-1]
        )
    return text, fields
