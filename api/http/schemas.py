"""How is a type described so that every tool takes it?

msgspec describes types in the newest JSON Schema, of which each generator of clients reads another part. So here a
schema is said again in the plain words of OpenAPI 3.0, which all of them read:

- What may be null is `nullable`. In what is sent null is as good as left out, so there it is not described.
- Of several scalar forms the first one is described: what a client had best send. An id may be a number, too. Where
  one or a list may stand, the list is described; beside a list of other things whatever may stand, since no generator
  tells those apart. Other forms shut each other out: one of them.
- An array says what is in it, whatever that is; a tuple is an array of such a length.
- A choice of words is one of strings; numbers are of 64 bits, but where they are small.

What is described this way is all taken; more is taken than is described.
"""

from collections.abc import Iterable, Mapping
from inspect import cleandoc
from typing import Any, Final

Document = dict[str, Any]

_NULL: Final = {"type": "null"}
_SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})
_WIDE: Final = {"integer": "int64", "number": "double"}  # without a word clients in Go and Java take 32 bits
_BEYOND: Final = 1 << 31


def plain_schema(schema: Mapping[str, Any], *, sent: bool) -> Document:
    """Return a schema in the plain words.

    Parameters
    ----------
    schema : as msgspec makes it; not changed
    sent : it describes what a client sends
    """
    made: Document = {}
    for key, value in schema.items():
        match key:
            case "anyOf" | "prefixItems":
                pass  # below
            case "properties":
                made[key] = {name: plain_schema(each, sent=sent) for name, each in value.items()}
            case "items" | "additionalProperties" if isinstance(value, Mapping):
                made[key] = plain_schema(value, sent=sent)
            case "default" if value is None:
                pass  # it may be left out
            case "description":
                made[key] = cleandoc(value)
            case _:
                made[key] = value
    if "enum" in made and all(isinstance(each, str) for each in made["enum"]):
        made.setdefault("type", "string")
    if made.get("type") in _WIDE and made.get("maximum", _BEYOND) >= _BEYOND:
        made.setdefault("format", _WIDE[made["type"]])
    if "prefixItems" in schema:
        made["items"] = _one_of([plain_schema(each, sent=sent) for each in schema["prefixItems"]])
    if made.get("type") == "array":
        made.setdefault("items", {})
    if "anyOf" in schema:
        made = _joined(_chosen(schema["anyOf"], sent=sent), made)
    return made


def refs(part: object) -> Iterable[str]:
    """Give the names of the schemas that a part of a document refers to."""
    if isinstance(part, Mapping):
        if isinstance(ref := part.get("$ref"), str):
            yield ref.rpartition("/")[2]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from refs(each)


def _chosen(forms: Iterable[Mapping[str, Any]], *, sent: bool) -> Document:
    """Return the schema of what has one of several forms."""
    forms = list(forms)
    others = [plain_schema(each, sent=sent) for each in forms if each != _NULL]
    if all(each.get("type") in _SCALARS for each in others):
        del others[1:]
    listed = [each["items"] for each in others if each.get("type") == "array"]
    others = [each for each in others if each not in listed]
    chosen = {} if len(others) > 1 and any(each.get("type") == "array" for each in others) else _one_of(others)
    return chosen if sent or _NULL not in forms else _joined(chosen, {"nullable": True})


def _one_of(forms: list[Document]) -> Document:
    different = [each for place, each in enumerate(forms) if each not in forms[:place]]
    return different[0] if len(different) == 1 else {"oneOf": different}


def _joined(schema: Document, more: Document) -> Document:
    """Say more of a schema; beside a reference nothing may stand."""
    return {"allOf": [schema], **more} if "$ref" in schema and more else schema | more
