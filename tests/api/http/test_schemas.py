"""Is a type said in words that every tool takes, and is nothing of it lost that matters?"""

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from driftline.api.http.schemas import plain_schema, refs


class Other(msgspec.Struct):
    """Another one.

    In two parts.
    """

    a: int = 0


Limited = Annotated[int, Meta(ge=0, le=10)]


def described(kind: Any, *, sent: bool = False) -> Any:
    schema = msgspec.json.schema_components([msgspec.defstruct("T", [("x", kind)])], ref_template="#/s/{name}")[1]["T"]
    return plain_schema(schema, sent=sent)["properties"]["x"]


@pytest.mark.parametrize(
    ("kind", "answered"),
    [
        (str | None, {"type": "string", "nullable": True}),
        (Other | None, {"allOf": [{"$ref": "#/s/Other"}], "nullable": True}),
        (list[Any], {"type": "array", "items": {}}),
        (list[int | None], {"type": "array", "items": {"type": "integer", "format": "int64", "nullable": True}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number", "format": "double"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Limited, {"type": "integer", "minimum": 0, "maximum": 10}),
        (str | Other, {"oneOf": [{"type": "string"}, {"$ref": "#/s/Other"}]}),
        (Other | list[Other], {"type": "array", "items": {"$ref": "#/s/Other"}}),
        (str | list[str | list[int]] | dict[str, int], {}),
        (list[str | list[int]], {"type": "array", "items": {}}),
        (
            tuple[int, int],
            {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer", "format": "int64"}},
        ),
    ],
)
def test_plain_words(kind: Any, answered: Any) -> None:
    assert described(kind) == answered


def test_what_is_sent_may_be_left_out_and_is_one_thing() -> None:
    assert described(str | float | None, sent=True) == {"type": "string"}
    assert described(Other | None, sent=True) == {"$ref": "#/s/Other"}
    assert described(Annotated[Other | None, Meta(description="what")], sent=True) == {
        "allOf": [{"$ref": "#/s/Other"}],
        "description": "what",
    }


def test_what_is_made_of_it_is_not_what_came() -> None:
    _, known = msgspec.json.schema_components([Other], ref_template="#/s/{name}")
    before = msgspec.json.encode(known)
    made = plain_schema(known["Other"], sent=False)
    assert msgspec.json.encode(known) == before
    assert made["description"] == "Another one.\n\nIn two parts."


def test_references_are_found_wherever_they_are() -> None:
    assert list(refs({"a": [{"$ref": "#/x/A"}], "b": {"c": {"$ref": "#/x/B"}}, "$ref": "#/x/C"})) == ["C", "A", "B"]
