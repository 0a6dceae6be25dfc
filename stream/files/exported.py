"""How does a file say more of a message than its text and its label? As our own exports do (learner/export/).

A column `fields` holds an object, or in a table one as JSON; `label_source`, `label_weight` and `label_note` are of the
label. They are read wherever they stand.

A spreadsheet takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return for a formula. Ours have an
apostrophe before that, and one more where there are some already; so it is known which one is ours, and is taken away
where the header is that of an export.
"""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec

from driftline.stream.files.rows import Rows, Unusable
from driftline.stream.surrogates import whole_characters
from driftline.stream.wire.fields import as_name
from driftline.stream.wire.names import same_name
from driftline.stream.wire.note import MAX_NOTE_CHARS
from driftline.stream.wire.records import LEAST_WEIGHT, MAX_WEIGHT

FIELDS, SOURCE, WEIGHT, NOTE = "fields", "label_source", "label_weight", "label_note"
SAID: Final = (FIELDS, SOURCE, WEIGHT, NOTE)
COLUMNS: Final = (
    *("id", "text", "time", FIELDS, "label", "label_time", SOURCE, WEIGHT, NOTE),
    *("predicted", "score", "model_version"),
)
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


class Said(NamedTuple):
    """What a row says of its label, beside the label."""

    source: str | None = None
    weight: float = 1.0
    note: str | None = None


def harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def as_it_was(cell: str) -> str:
    """Return what `harmless` was given."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def as_they_were(rows: Rows, columns: Sequence[str]) -> Rows:
    """Give the rows of a table; of an export with its cells as they were."""
    if tuple(columns) != COLUMNS:
        yield from rows
        return
    for line, found in rows:
        if not isinstance(found, Unusable):
            yield line, {name: as_it_was(cell) for name, cell in found.items()}
        else:
            yield line, found


def fields_in(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a row brings as one object; none where it has none."""
    value = row.get(FIELDS)
    if isinstance(value, str) and value.startswith("{"):
        with suppress(ValueError, RecursionError):
            return _OBJECT.decode(value.encode("utf-8", "replace"))
    return value if isinstance(value, dict) else {}


def said_in(row: Mapping[str, Any]) -> Said:
    """Return what a row says of its label. Raises Unusable for a weight that is none."""
    source, weight, note = (row.get(name) for name in (SOURCE, WEIGHT, NOTE))
    told: float = 1.0
    if weight is not None and weight != "":
        try:
            told = float(weight)
        except (TypeError, ValueError):
            told = math.nan
        if not LEAST_WEIGHT <= told <= MAX_WEIGHT:
            raise Unusable("with a wrong weight", f"column {WEIGHT!r} holds {str(weight)[:40]!r}, which is no weight")
    name = None
    if isinstance(source, str | int | float) and source != "":
        name = same_name(whole_characters(as_name(source))) or None
    text = whole_characters(note)[:MAX_NOTE_CHARS] if isinstance(note, str) and note else None
    return Said(name, told, text)
