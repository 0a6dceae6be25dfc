"""Which heads of requests came before?

A client sends the same head again and again, byte for byte but for the body's length. One that the parser took once
(protocol.py) means the same the next time: to have it parsed, and to make of it all that an ASGI app may ask for, takes
longer than a prediction. Only heads of requests that were answered at once are kept, each with the length of its body.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

MAX_HEADS: Final = 512
MAX_HEAD_BYTES: Final = 1024
END: Final = b"\r\n\r\n"
KEPT: Final = ("type", "http_version", "method", "path", "headers", "head")


class Known(NamedTuple):
    """What a head says."""

    body_bytes: int
    scope: dict[str, Any]  # KEPT of it: the rest belongs to a connection, or to one request


class Heads:
    """The last heads that were noted, MAX_HEADS of them. On the event loop only."""

    def __init__(self) -> None:
        self._known: dict[bytes, Known] = {}

    def find(self, data: bytes) -> tuple[Known, bytes] | None:
        """Return what the head says, and the body, of data that is one whole request; None if its head is not known."""
        end = data.find(END) + len(END)
        known = self._known.get(data[:end])
        return (known, data[end:]) if known is not None and end + known.body_bytes == len(data) else None

    def note(self, data: bytes, body_bytes: int, scope: Mapping[str, Any]) -> None:
        """Keep the head of a request, which is the first in `data`, if there is nothing else in it."""
        end = data.find(END) + len(END)
        if end + body_bytes != len(data) or end > MAX_HEAD_BYTES:
            return
        while len(self._known) >= MAX_HEADS:
            del self._known[next(iter(self._known))]
        self._known[data[:end]] = Known(body_bytes, {name: scope[name] for name in KEPT})
