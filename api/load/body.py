"""What did the client send?

A body is read up to a limit, whatever its head says of its length, and decoded by msgspec: strict, and with one answer
for each thing that can be wrong with it. The content type is not looked at (`curl -d` says it sends a form); a content
encoding is refused, since a few bytes could unpack to any number.

What is made of a body is made on the event loop where that is a matter of a millisecond, else in one thread, callers in
turn (turns.py), so that nobody waits for it who did not send it. There it is read over first: what has too much in it
to be made objects of is refused (wire/outline.py). How many bytes may be held is for holding.py to say.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Generic, TypeVar

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect

from driftline.api.errors import ApiError, too_long
from driftline.api.load.holding import Held, Holding
from driftline.api.load.turns import Turns
from driftline.api.settings import ApiSettings
from driftline.stream.wire.bad import shortened
from driftline.stream.wire.fields import is_too_deep, mend_escapes

QUICK_BYTES: Final = 16 << 10  # what is longer is a matter of a thread
VALUES_AN_ITEM: Final = 100  # commas and brackets in a body, for each item that it may have
_SEE_DOCS: Final = "See /docs for the body's shape, with an example."
_D = TypeVar("_D")
_T = TypeVar("_T")


class Bodies:
    """Reads the bodies of all requests. On the event loop only."""

    def __init__(self, settings: ApiSettings, holding: Holding) -> None:
        self._max_bytes, self._holding = settings.max_body_bytes, holding
        self._max_values = VALUES_AN_ITEM * max(settings.max_items, 100)
        self._turns, self._timeout_s = Turns("bodies"), settings.request_timeout_s

    def read(
        self,
        request: Request,
        decoder: "msgspec.json.Decoder[_D]",
        made: Callable[[_D], _T],
        max_bytes: int | None = None,
        max_values: int | Callable[[bytes], int] | None = None,
    ) -> "_Reading[_T]":
        """Give what is made of a request's body, decoded; `async with` counts its bytes as held until the block ends.

        Parameters
        ----------
        made : may be called in another thread
        max_bytes : of this kind of body, if not those of any
        max_values : commas and brackets in this kind of body, where it is long; if not those of any. It may depend on
            the body

        Raises
        ------
        ApiError : 413 too long or too much in it, 415 compressed, 422 not what it must be, 503 too much is held.
        """
        most = max_values or self._max_values

        def make(content: bytes) -> _T:
            return made(decode(content, decoder, most(content) if callable(most) else most))

        return self.receive(request, make, max_bytes)

    def receive(self, request: Request, made: Callable[[bytes], _T], max_bytes: int | None = None) -> "_Reading[_T]":
        """Give what is made of a request's body as it came; see `read`, which this is but for the decoding."""
        return _Reading(self, request, made, min(max_bytes or self._max_bytes, self._max_bytes))

    async def make(self, made: Callable[[bytes], _T], content: bytes, caller: bytes) -> _T:
        """Make something of a body: of a long one in the thread, once it is the caller's turn.

        Raises ApiError (503) where that takes too long.
        """
        if len(content) <= QUICK_BYTES:
            return made(content)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._turns.do(caller, partial(made, content))
        except TimeoutError:
            raise too_long(self._timeout_s) from None

    def hold(self, request: Request) -> Held:
        """Begin to count what is held for a request."""
        return self._holding.begin(request.scope)

    def decoded(self, content: bytes, decoder: "msgspec.json.Decoder[_T]") -> _T:
        """Decode a part of a body; see `decode`."""
        return decode(content, decoder, self._max_values)

    def check_head(self, head: Mapping[bytes, bytes], max_bytes: int | None = None) -> None:
        """Raise ApiError for a head that tells of a body that is not taken."""
        encoding = head.get(b"content-encoding")
        if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
            name = encoding[:100].decode("latin-1")
            raise ApiError(
                415, "content-encoding", f"content encoding {name!r} is not taken", "Send the body uncompressed."
            )
        check_length(int(head.get(b"content-length", 0)), max_bytes or self._max_bytes)

    def close(self) -> None:
        """Wait for what the thread is at."""
        self._turns.close()


class _Reading(Generic[_T]):
    """A body while it is read and used."""

    def __init__(self, bodies: Bodies, request: Request, made: Callable[[bytes], _T], max_bytes: int) -> None:
        self._bodies, self._request, self._made, self._max_bytes = bodies, request, made, max_bytes

    async def __aenter__(self) -> _T:
        request = self._request
        self._bodies.check_head(request.scope.get("head") or dict(request.scope["headers"]), self._max_bytes)
        self._held = self._bodies.hold(request)
        try:
            with self._held.arriving():
                content = await self._take()
            return await self._bodies.make(self._made, content, request.scope["caller"])
        except BaseException:
            self._held.release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._held.release()

    async def _take(self) -> bytes:
        """Return a body. How long that may take is for the connection to say (protocol.py)."""
        content, more = await self._next(0)
        if not more:
            return content
        whole = bytearray(content)  # no list of parts: a client may send them a byte at a time
        while more:
            content, more = await self._next(len(whole))
            whole += content
        return bytes(whole)

    async def _next(self, n_before: int) -> tuple[bytes, bool]:
        message = await self._request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        content: bytes = message.get("body", b"")
        check_length(n_before + len(content), self._max_bytes)
        self._held.add(len(content))
        return content, message.get("more_body", False)


def check_length(n_bytes: int, max_bytes: int) -> None:
    """Raise ApiError for a body that is longer than it may be."""
    if n_bytes > max_bytes:
        raise ApiError(
            413,
            "too-large",
            f"the body is longer than {max_bytes} bytes (max_body_bytes, or what this route needs)",
            "Send fewer items in a request, or shorter ones.",
            {"Driftline-Max-Body-Bytes": str(max_bytes)},
        )


def check_values(n_values: int, max_values: int) -> None:
    """Raise ApiError for a body that has too much in it."""
    if n_values > max_values:
        raise ApiError(
            413,
            "too-many-values",
            f"the body has {n_values} values, at most {max_values} are taken (of max_items)",
            "Send fewer items in a request.",
        )


def decode(content: bytes, decoder: "msgspec.json.Decoder[_T]", max_values: int | None = None) -> _T:
    """Decode a body. Raises ApiError (413, 422) for every input that is not what the decoder takes.

    `max_values` : commas and brackets that a long one may have; None: any number, the decoder makes nothing of them
    """
    try:
        check_utf8(content)  # msgspec does not look inside the fields that it skips
        if max_values is not None and len(content) > QUICK_BYTES:
            from driftline.stream.wire.outline import outline  # noqa: PLC0415  (its kernels need not be there for a start)

            if (n := outline(content).values) > max_values:
                if is_too_deep(content):
                    raise RecursionError
                check_values(n, max_values)
        return _decode(content, decoder)
    except msgspec.ValidationError as error:
        message = shortened(str(error))
        code = "missing-field" if "missing required field" in message else "wrong-type"
    except RecursionError:
        code, message = "too-deep", "the JSON is nested too deeply"
    except ValueError as error:
        code, message = "not-json", str(error) if content else "the body is empty"
    raise ApiError(422, code, message, _SEE_DOCS)


def check_utf8(content: bytes) -> None:
    """Raise ApiError (422) for what is no UTF-8."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(
            422,
            "not-utf8",
            f"byte {content[error.start]:#04x} at position {error.start} of the body is not UTF-8",
            _SEE_DOCS,
        ) from None


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
