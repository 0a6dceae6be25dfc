"""What did the client send?

A body is read up to a limit, whatever its head says of its length, and decoded by msgspec: strict, and with one answer
for each thing that can be wrong with it. The content type is not looked at (`curl -d` says it sends a form); a content
encoding is refused, since a few bytes could unpack to any number.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec
from fastapi import Request

from api.errors import ApiError
from api.settings import ApiSettings

# Bodies being read or answered hold at most this many times max_body_bytes of memory.
MAX_HELD_BODIES: Final = 16
# A client that sends slowly, or stops, gives back what it holds after this long.
RECEIVE_S: Final = 30.0
_SEE_DOCS: Final = "See /docs for the body's shape, with an example."
_T = TypeVar("_T")


class Bodies:
    """Reads the bodies of all requests, within one limit on what they hold together. On the event loop only."""

    def __init__(self, settings: ApiSettings) -> None:
        self._max_bytes = settings.max_body_bytes
        self._max_held = MAX_HELD_BODIES * settings.max_body_bytes
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request, decoder: "msgspec.json.Decoder[_T]") -> AsyncIterator[_T]:
        """Give a request's body, decoded; its bytes count as held until the block ends.

        Raises
        ------
        ApiError : 408 too slow, 413 too long, 415 compressed, 422 not what it must be, 503 too much is held already.
        """
        async with self.receive(request) as content:
            yield decode(content, decoder)

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytearray]:
        """Give a request's body as it came; see `read`, which this is but for the decoding."""
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            raise ApiError(
                415, "content-encoding", f"content encoding {encoding!r} is not taken", "Send the body uncompressed."
            )
        self._check_length(int(request.headers.get("content-length", 0)))
        content = bytearray()
        try:
            await self._receive(request, content)
            yield content
        finally:
            self._held -= len(content)

    async def _receive(self, request: Request, content: bytearray) -> None:
        try:
            async with asyncio.timeout(RECEIVE_S):
                async for chunk in request.stream():
                    content += chunk
                    self._held += len(chunk)
                    self._check_length(len(content))
                    self._check_held()
        except TimeoutError:
            raise ApiError(
                408,
                "too-slow",
                f"the body did not come within {RECEIVE_S:g} s",
                "Send it again, in smaller requests.",
                {"Connection": "close"},
            ) from None

    def _check_length(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            raise ApiError(
                413,
                "too-large",
                f"the body is longer than {self._max_bytes} bytes (max_body_bytes)",
                "Send fewer items in a request, or shorter ones.",
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


def decode(content: bytes | bytearray, decoder: "msgspec.json.Decoder[_T]") -> _T:
    """Decode a body. Raises ApiError (422) for every input that is not what the decoder takes."""
    try:
        content.decode("utf-8")  # msgspec does not look inside the fields that it skips
        return decoder.decode(content)
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
