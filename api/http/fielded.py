"""Which fields, and which vector, does a request say a text has?

What they may be is said where records are read (wire/fielded.py, wire/vector.py).
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from driftline.api.errors import ApiError
from driftline.learner.vectors.sent import dimension_of
from driftline.stream.errors import BadRecord
from driftline.stream.wire.fielded import MAX_FIELDS, MAX_NAME_CHARS, MAX_VALUE_CHARS, join, read_fields
from driftline.stream.wire.vector import MAX_NUMBERS, MIN_NUMBERS, read_vector, size_of, with_vector

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
VectorSent = Annotated[
    msgspec.Raw,
    Meta(
        extra_json_schema={
            "type": "array",
            "items": {"type": "number", "format": "double"},
            "minItems": MIN_NUMBERS,
            "maxItems": MAX_NUMBERS,
        },
        description="A vector of the text from a model of yours, for a model here that takes vectors of so many "
        "numbers (`blend?dimension=`). They are not all 0. A string of base64 is taken, too: of little-endian float32. "
        "Only its direction counts.",
    ),
]


def with_fields(text: str, fields: msgspec.Raw, vector: msgspec.Raw, where: str = "") -> str:
    """Return a text with its fields and its vector as one string. Raises ApiError (422) where they are none.

    `where` : of several texts, which one
    """
    raw, sent = bytes(fields), bytes(vector)
    if not raw and not sent:
        return text
    try:
        whole = join(text, read_fields(fields)) if raw else text
        return with_vector(whole, read_vector(vector)) if sent and sent != b"null" else whole
    except BadRecord as bad:
        raise ApiError(422, bad.error, where + bad.detail, SEE_DOCS) from None


def check_vectors(texts: Sequence[str], model: str, where: Callable[[int], str]) -> None:
    """Raise ApiError (422) where a text has a vector that a model, named as in its specification, does not take.

    `where` : of each text, which one
    """
    wanted = dimension_of(model)
    for place, text in enumerate(texts):
        size = size_of(text)
        if size and size != wanted:
            takes = f"takes such of {wanted:,}" if wanted else "takes none"
            raise ApiError(
                422,
                "wrong-vector",
                f"{where(place)} has a vector of {size:,} numbers, and the model that answers {takes}",
                f"Send it without its vector, or have a model that takes it: --model 'blend?dimension={size}'.",
            )
