"""How is the API described?

Bodies are decoded by msgspec, so their schemas come from its types, too, with the limits of the settings put in. Each
route gives the rest of its description beside its code, made of the pieces here.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from msgspec import Meta

from driftline.api.errors import Error
from driftline.api.security import SCHEMES
from driftline.api.settings import ApiSettings

Document = dict[str, Any]
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]

# A number as an id or a label is taken as JSON spells it; those beyond 64 bits are no use to anybody.
Number = Annotated[int, Meta(extra_json_schema={"minimum": -(1 << 63), "maximum": (1 << 63) - 1})] | float | bool

NO_NUL: Final = {"pattern": "^[^\\u0000]*$"}
_ERRORS: Final = {
    408: "The body did not come in time.",
    409: "The served model has not learned a label in time, or is pinned (min_feedback_offset).",
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


def refused_parameter() -> dict[int | str, Any]:
    """Return the part of an operation that describes what a wrong parameter gets."""
    return {422: {"description": "A parameter is not what it must be.", "content": content(ref("Error"))}}


def one_or_many(name: str, settings: ApiSettings) -> Document:
    """Return the schema of one object of a type, or a list of them."""
    many = {"type": "array", "items": ref(name), "minItems": 1, "maxItems": settings.max_items}
    return {"anyOf": [ref(name), many]}


def describe(app: FastAPI, types: Sequence[type], settings: ApiSettings) -> None:
    """Add the schemas of some types to an app's description."""
    _, schemas = msgspec.json.schema_components([*types, Error], ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        text = schema.get("properties", {}).get("text", {})
        for form in (text, *text.get("anyOf", ())):
            if form.get("type") == "string":
                form["maxLength"] = min(form.get("maxLength", settings.max_text_chars), settings.max_text_chars)
    schemas["NewFeedback"]["anyOf"] = [
        {"required": ["label"], "properties": {"label": {"type": ["string", "number", "boolean"], "minLength": 1}}},
        {"required": ["op"], "properties": {"op": {"const": "retract"}}},
    ]
    document = app.openapi()
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(schemas)
    components["securitySchemes"] = SCHEMES
