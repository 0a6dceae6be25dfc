"""What did somebody add to a label, in words?

A label's record may have a `note`: a short text for people. Nobody learns it: where records are read to be learned it
is one more field that is not known, and is skipped. Here it is read by who shows labels, and written by who sends them.
"""

from contextlib import suppress
from typing import Final

import msgspec

from driftline.stream.surrogates import whole_characters
from driftline.stream.wire.fields import mend_escapes
from driftline.stream.wire.records import Feedback, Headers, decode_feedback

MAX_NOTE_CHARS: Final = 1000
_MARK: Final = b'"note"'


class Noted(Feedback, frozen=True, gc=False, omit_defaults=True):
    """A label as it is sent, with its note."""

    note: str | None = None


def decode_noted(value: bytes, headers: Headers | None = None, max_bytes: int = 1 << 20) -> Noted:
    """Read a label with its note. Raises BadRecord."""
    said = decode_feedback(value, headers, max_bytes)
    return Noted(**{name: getattr(said, name) for name in Feedback.__struct_fields__}, note=read_note(value))


class _Data(msgspec.Struct):
    note: str | None = None


class _Value(msgspec.Struct):
    """A label's record, or an event whose data is one."""

    note: str | None = None
    data: msgspec.Raw = msgspec.Raw()


_VALUE: Final = msgspec.json.Decoder(_Value).decode
_DATA: Final = msgspec.json.Decoder(_Data).decode


def read_note(value: bytes) -> str | None:
    """Return the note of a label's record, its first MAX_NOTE_CHARS characters; None where it has none, or no text."""
    if _MARK not in value:
        return None
    with suppress(ValueError, RecursionError):
        found = _VALUE(mend_escapes(value))
        note = found.note
        if note is None and bytes(found.data)[:1] == b"{":
            note = _DATA(bytes(found.data)).note
        return whole_characters(note)[:MAX_NOTE_CHARS] or None if note else None
    return None
