"""Which fields does a request say a text has? What they may be is said where records are read (wire/fielded.py)."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from driftline.api.errors import ApiError
from driftline.stream.errors import BadRecord
from driftline.stream.wire.fielded import MAX_FIELDS, MAX_NAME_CHARS, MAX_VALUE_CHARS, join, read_fields

SEE_DOCS: Final = "See /docs for the body's shape, with an example."
FieldsSent = Annotated[
    msgspec.Raw,
    Meta(
        extra_json_schema={"type": "object", "maxProperties": MAX_FIELDS},
        description="What is known of it beside its text: sender, country, amount. Each is a string, a number, a "
        f"boolean, null (as if it were not there) or a list of strings; {MAX_FIELDS} at most, with names of "
        f"{MAX_NAME_CHARS} characters and values of {MAX_VALUE_CHARS}.",
    ),
]


def with_fields(text: str, fields: msgspec.Raw, where: str = "") -> str:
    """Return a text with its fields as one string. Raises ApiError (422) where they are none.

    `where` : of several texts, which one
    """
    if not bytes(fields):
        return text
    try:
        return join(text, read_fields(fields))
    except BadRecord as bad:
        raise ApiError(422, bad.error, where + bad.detail, SEE_DOCS) from None
