"""What does the API answer when it does not do what was asked?

One shape for every refusal, whoever found it: {"error", "code", "action"}. The code is for programs and
stays; the message says what was wrong and where; the action says what to do next. Codes of bad records are those of
wire/records.py.
"""

import logging
from collections.abc import Mapping
from typing import Final

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from driftline.stream.errors import DriftlineError

_LOG: Final = logging.getLogger(__name__)
_SEE_DOCS: Final = "See /docs, on the admin port where there is one, for what can be asked, and how."


class Error(msgspec.Struct, frozen=True):
    """The body of every answer that is not a success. Its message is called `error`, as other protocols have it."""

    code: str
    message: str = msgspec.field(name="error")
    action: str


class ApiError(DriftlineError):
    """A request that is answered with an error."""

    def __init__(
        self, status: int, code: str, message: str, action: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.error = Error(code, message, action)


encode: Final = msgspec.json.Encoder().encode
_TYPE: Final = (b"content-type", b"application/json")
# Of every answer that is made for a request: nobody guesses its type, and nobody keeps it.
SAFE_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)


class Json(Response):
    """JSON that is encoded already. What Starlette's own does for any header and charset costs half a prediction."""

    body: bytes
    media_type = "application/json"

    def __init__(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [_TYPE, *SAFE_HEADERS, (b"content-length", b"%d" % len(body))]
        if headers is not None:
            self.raw_headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return anything that msgspec encodes as an answer."""
    return Json(encode(content), status, headers)


def refusal(error: "ApiError") -> Response:
    """Return the answer that an error is."""
    return json_response(error.error, error.status, error.headers)


def add_handlers(app: FastAPI) -> None:
    """Give every error of an app the one shape."""
    app.add_exception_handler(ApiError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_exception_handler(ClientDisconnect, _forget)
    app.add_exception_handler(Exception, _fail)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return refusal(error)


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    if error.status_code == 404:
        return refusal(not_found(path))
    detail = Error("refused", str(error.detail), _SEE_DOCS)
    return json_response(detail, error.status_code, error.headers)


async def _forget(_: Request, __: Exception) -> Response:
    """Answer a client that went away while it was sending: nobody reads this."""
    return Response(status_code=400)


def not_allowed(path: str, method: str, methods: str) -> ApiError:
    """Return the error for a method that a path does not answer."""
    what = f"{path} does not answer {method}, but {methods}"
    return ApiError(405, "method-not-allowed", what, _SEE_DOCS, {"Allow": methods})


def not_found(path: str) -> ApiError:
    """Return the error for a path where nothing is, or nothing for this port."""
    return ApiError(404, "not-found", f"there is nothing at {path}", _SEE_DOCS)


def no_http(what: str) -> ApiError:
    """Return the error for a request that could mean two things, or is none; nothing behind it can be read."""
    return ApiError(400, "bad-request", what, "Send a request as HTTP/1.1 has it (RFC 9112).", {"Connection": "close"})


def internal() -> ApiError:
    """Return the error for whoever met one of ours."""
    return ApiError(
        500, "internal", "this request met a fault in Driftline", "Report it with the traceback in the API's log."
    )


def no_model(why: str) -> ApiError:
    """Return the error for whoever asks a model that nobody has taught yet, and why there is none."""
    return ApiError(
        503,
        "no-model",
        f"no model answers: {why}",
        "POST labels, have a learner run, and ask again in a moment; GET /readyz says what is missing.",
        {"Retry-After": "1"},
    )


def stopping() -> ApiError:
    """Return the error for a request that the API cannot wait for, since it is being stopped."""
    return ApiError(
        503,
        "stopping",
        "the API is being stopped, and this request had to wait",
        "Send it again, with the same ids: what has come twice counts once.",
        {"Retry-After": "1", "Connection": "close"},
    )


def too_long(seconds: float) -> ApiError:
    """Return the error for a request that took its time."""
    return ApiError(
        503,
        "timeout",
        f"there was no answer within {seconds:g} s (request_timeout_s)",
        "Try again shortly, with fewer items in a request.",
        {"Retry-After": "1"},
    )


async def _fail(request: Request, error: Exception) -> Response:
    return fault(request.scope, error)


def fault(scope: Scope, error: Exception) -> Response:
    """Tell the log of an error that nobody expected; return the answer to whoever met it."""
    _LOG.error("%s %s failed", scope["method"], scope["path"][:200], exc_info=error)
    return refusal(internal())
