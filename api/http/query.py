"""What did the client ask for behind the question mark?

Each parameter is a number with limits, a text of so many characters or one of some words; what is none of these is a
422 in the one shape of errors.
"""

import math
from collections.abc import Sequence
from typing import Final

from fastapi import Request

from driftline.api.errors import ApiError
from driftline.api.http import openapi

_MAX_CHARS: Final = 32


def whole(request: Request, name: str, default: int, least: int, most: int) -> int:
    """Return a parameter that is a whole number. Raises ApiError (422)."""
    given = request.query_params.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) <= _MAX_CHARS and least <= int(given) <= most):
        raise _refuse(name, f"a whole number from {least} to {most}")
    return int(given)


def number(request: Request, name: str, default: float) -> float:
    """Return a parameter that is a finite number. Raises ApiError (422)."""
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        value = float(given) if len(given) <= _MAX_CHARS else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _refuse(name, "a finite number")
    return value


def text(request: Request, name: str, most: int) -> str | None:
    """Return a parameter that is a text, None where it is not given, or empty. Raises ApiError (422)."""
    given = request.query_params.get(name)
    if given is not None and len(given) > most:
        raise _refuse(name, f"a text of {most} characters at most")
    return given or None


def choice(request: Request, name: str, choices: Sequence[str]) -> str:
    """Return a parameter that is one of some words, the first where it is not given. Raises ApiError (422)."""
    given = request.query_params.get(name, choices[0])
    if given not in choices:
        raise _refuse(name, f"one of {', '.join(choices)}")
    return given


def words(choices: Sequence[str]) -> openapi.Document:
    """Return the schema of a parameter that is one of some words. As a pattern: clients then take it as a text."""
    return {"type": "string", "pattern": f"^({'|'.join(choices)})$", "default": choices[0]}


def optional(name: str, description: str, schema: openapi.Document, example: object) -> openapi.Document:
    """Return the part of an operation that describes a parameter without a default."""
    place = {"name": name, "in": "query", "required": False}
    return {**place, "description": description, "schema": schema, "example": example}


def parameter(name: str, description: str, schema: openapi.Document) -> openapi.Document:
    """Return the part of an operation that describes a parameter; its default is its example."""
    place = {"name": name, "in": "query", "required": False}
    return {**place, "description": description, "schema": schema, "example": schema["default"]}


def _refuse(name: str, wanted: str) -> ApiError:
    return ApiError(
        422, "bad-parameter", f"{name} must be {wanted}", "See /docs for the parameters, with their limits."
    )
