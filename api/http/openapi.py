"""How is the API described?

Bodies are decoded by msgspec, so their schemas come from its types, too, in words that every tool takes (schemas.py),
with the limits of the settings put in. Each route gives the rest of its description beside its code, made of the pieces
here; an operation is called by the name of its function.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from msgspec import Meta

from driftline.api.access.security import SCHEMES
from driftline.api.errors import Error
from driftline.api.http import schemas
from driftline.api.settings import ApiSettings

Document = schemas.Document
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]

# A number as an id or a label is taken as JSON spells it; those beyond 64 bits are no use to anybody.
Number = Annotated[int, Meta(extra_json_schema={"minimum": -(1 << 63), "maximum": (1 << 63) - 1})] | float | bool

NO_NUL: Final = {"pattern": "^[^\\x00]*$"}  # as every kind of regular expression has it
OPENAPI: Final = "3.0.3"  # what the generators of clients, gateways and test tools take, all of them
VERSION: Final = "5f0c2a91-5574"  # the example of a model's version
_ERRORS: Final = {
    408: "The body did not come in time.",
    409: "The served model has not learned a label in time, or nothing learns, or it is pinned, or there is no such "
    "label (min_feedback_offset).",
    413: "The body, or a record made of it, is too large, or has too much in it.",
    415: "The body has a content encoding.",
    422: "The body is not what it must be.",
    503: "Not now: the error says why, and what to do.",
}


class BareRoute(APIRoute):
    """A route whose function takes the request as it is; what FastAPI would do for its arguments costs a third more."""

    def get_route_handler(self) -> Endpoint:
        """Return the function itself."""
        endpoint: Endpoint = self.endpoint
        return endpoint


def ref(name: str) -> Document:
    """Return a reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def content(schema: Document, examples: Document | None = None) -> Document:
    """Return a JSON content of a schema, with examples by name."""
    media: Document = {"schema": schema}
    if examples:
        media["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": media}


def body(schema: Document, examples: Document) -> Document:
    """Return the part of an operation that describes its body."""
    return {"requestBody": {"required": True, "content": content(schema, examples)}}


def answers(status: int, description: str, schema: Document, examples: Document | None = None) -> dict[int | str, Any]:
    """Return the part of an operation that describes its success."""
    return {status: {"description": description, "content": content(schema, examples)}}


def refusals() -> dict[int | str, Any]:
    """Return the part of an operation with a body that describes its errors."""
    return {status: {"description": text, "content": content(ref("Error"))} for status, text in _ERRORS.items()}


def path_parameter(name: str, description: str, schema: Document, example: str) -> Document:
    """Return the part of an operation that describes a part of its path."""
    place = {"name": name, "in": "path", "required": True}
    return {**place, "schema": schema, "description": description, "example": example}


def refused_parameter() -> dict[int | str, Any]:
    """Return the part of an operation that describes what a wrong parameter gets."""
    return {422: {"description": "A parameter is not what it must be.", "content": content(ref("Error"))}}


def many(name: str, settings: ApiSettings) -> Document:
    """Return the schema of a list of objects of a type."""
    return {"type": "array", "items": ref(name), "minItems": 1, "maxItems": settings.max_items}


def describe(app: FastAPI, types: Sequence[type], settings: ApiSettings) -> None:
    """Add the schemas of some types to an app's description."""
    app.openapi_version = OPENAPI
    app.openapi_schema = None
    document = app.openapi()
    _, known = msgspec.json.schema_components([*types, Error], ref_template="#/components/schemas/{name}")
    sent = _reached(known, [each.get("requestBody") for path in document["paths"].values() for each in path.values()])
    described = {name: schemas.plain_schema(schema, sent=name in sent) for name, schema in known.items()}
    for schema in described.values():
        _limit(schema.get("properties", {}), settings)
    label = described["NewFeedback"]  # what needs none, a retraction, is taken and not described
    label["required"] = [*label["required"], "label"]
    label["properties"]["label"]["minLength"] = 1
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(described)
    components["securitySchemes"] = SCHEMES


def _reached(known: Mapping[str, Document], parts: Sequence[object]) -> set[str]:
    """Return the names of the schemas that some parts of a document are made of."""
    found: set[str] = set()
    left = list(schemas.refs(list(parts)))
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += schemas.refs(known[name])
    return found


def _limit(properties: Document, settings: ApiSettings) -> None:
    """Say how long a text may be, and how many there may be."""
    texts = properties.get("texts", {})
    for several in (texts, properties.get("messages", {})):
        if several:
            several["maxItems"] = settings.max_items
    for text in (properties.get("text", {}), texts.get("items", {})):
        if text.get("type") == "string":
            text["maxLength"] = min(text.get("maxLength", settings.max_text_chars), settings.max_text_chars)
