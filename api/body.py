"""What did the client send?

A body is read up to a limit, whatever its head says of its length, and decoded by msgspec: strict, and with one answer
for each thing that can be wrong with it. The content type is not looked at (`curl -d` says it sends a form); a content
encoding is refused, since a few bytes could unpack to any number.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Generic, TypeVar

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect

from driftline.api.errors import ApiError
from driftline.api.settings import ApiSettings
from driftline.stream.fields import mend_escapes

# Bodies being read or answered hold at most this many times max_body_bytes of memory.
MAX_HELD_BODIES: Final = 16
_SEE_DOCS: Final = "See /docs for the body's shape, with an example."
_T = TypeVar("_T")


class Bodies:
    """Reads the bodies of all requests, within one limit on what they hold together. On the event loop only."""

    def __init__(self, settings: ApiSettings) -> None:
        self._max_bytes = settings.max_body_bytes
        self._max_held = MAX_HELD_BODIES * settings.max_body_bytes
        self._held = 0

    def read(self, request: Request, decoder: "msgspec.json.Decoder[_T]") -> "_Reading[_T]":
        """Give a request's body, decoded; `async with` counts its bytes as held until the block ends.

        Raises
        ------
        ApiError : 413 too long, 415 compressed, 422 not what it must be, 503 too much is held already.
        """
        return _Reading(self, request, partial(decode, decoder=decoder))

    def receive(self, request: Request) -> "_Reading[bytes]":
        """Give a request's body as it came; see `read`, which this is but for the decoding."""
        return _Reading(self, request, bytes)

    async def take(self, request: Request, reading: "_Reading[Any]") -> bytes:
        """Return a body. How long that may take is for the connection to say (protocol.py)."""
        self.check_head(request.scope.get("head") or dict(request.scope["headers"]))
        content = await self._next(request, reading)
        if not reading.more:
            return content
        whole = bytearray(content)  # no list of parts: a client may send them a byte at a time
        while reading.more:
            whole += await self._next(request, reading)
        return bytes(whole)

    def check_head(self, head: Mapping[bytes, bytes]) -> None:
        """Raise ApiError for a head that tells of a body that is not taken."""
        encoding = head.get(b"content-encoding")
        if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
            name = encoding[:100].decode("latin-1")
            raise ApiError(
                415, "content-encoding", f"content encoding {name!r} is not taken", "Send the body uncompressed."
            )
        self._check_length(int(head.get(b"content-length", 0)))

    async def _next(self, request: Request, reading: "_Reading[Any]") -> bytes:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        content: bytes = message.get("body", b"")
        reading.more = message.get("more_body", False)
        reading.held += len(content)
        self._held += len(content)
        self._check_length(reading.held)
        self._check_held()
        return content

    def release(self, n_bytes: int) -> None:
        """Take bytes for no longer held."""
        self._held -= n_bytes

    def _check_length(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            raise ApiError(
                413,
                "too-large",
                f"the body is longer than {self._max_bytes} bytes (max_body_bytes)",
                "Send fewer items in a request, or shorter ones.",
                {"Driftline-Max-Body-Bytes": str(self._max_bytes)},
            )

    def _check_held(self) -> None:
        if self._held > self._max_held:
            raise ApiError(
                503,
                "busy",
                "too many large requests are being answered",
                "Try again shortly, or in smaller requests.",
                {"Retry-After": "1"},
            )


class _Reading(Generic[_T]):
    """A body while it is read and used."""

    def __init__(self, bodies: Bodies, request: Request, made: Callable[[bytes], _T]) -> None:
        self._bodies, self._request, self._made = bodies, request, made
        self.held, self.more = 0, True

    async def __aenter__(self) -> _T:
        try:
            return self._made(await self._bodies.take(self._request, self))
        except BaseException:
            self._bodies.release(self.held)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._bodies.release(self.held)


def decode(content: bytes, decoder: "msgspec.json.Decoder[_T]") -> _T:
    """Decode a body. Raises ApiError (422) for every input that is not what the decoder takes."""
    try:
        content.decode("utf-8")  # msgspec does not look inside the fields that it skips
        return _decode(content, decoder)
    except UnicodeDecodeError as error:
        code = "not-utf8"
        message = f"byte {content[error.start]:#04x} at position {error.start} of the body is not UTF-8"
    except msgspec.ValidationError as error:
        message = str(error)
        code = "missing-field" if "missing required field" in message else "wrong-type"
    except RecursionError:
        code, message = "too-deep", "the JSON is nested too deeply"
    except ValueError as error:
        code, message = "not-json", str(error) if content else "the body is empty"
    raise ApiError(422, code, message, _SEE_DOCS)


def _decode(content: bytes, decoder: "msgspec.json.Decoder[_T]") -> _T:
    """Decode; what has half of a surrogate pair in it, as a second try, with U+FFFD in its place."""
    try:
        return decoder.decode(content)
    except msgspec.ValidationError:
        raise
    except ValueError:
        mended = mend_escapes(content)
        if mended == content:
            raise
        return decoder.decode(mended)
