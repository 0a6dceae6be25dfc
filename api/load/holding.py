"""How much of what clients send is held at once, and whose is it?

Three limits, so that nobody who sends much can keep out who sends little:

- FREE_BYTES of each body count for nothing: a small one is always taken. There are no more of them than connections.
- All that bodies have beyond is at most MAX_BODIES times the longest body, and of it one caller (a key, or an address
  without one) has at most SHARE.
- Where that is full, and a body still arrives of which little came for STALLED_S, it goes, and the next one has room:
  many addresses that each send nearly all of a body and wait keep nobody out, either. How long any body may take, by
  its size, is for the connection to say (protocol.py).
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from starlette.types import Scope

from driftline.api.errors import ApiError
from driftline.api.settings import ApiSettings

FREE_BYTES: Final = 64 << 10  # of each body; what a connection takes in before anybody asks for it
MAX_BODIES: Final = 16
SHARE: Final = 0.25
STALLED_S: Final = 1.0
STEP_BYTES: Final = 64 << 10  # less than so much in STALLED_S is standing still


class Holding:
    """Counts what is held for all requests. On the event loop only.

    Parameters
    ----------
    who : says whose a request is
    """

    def __init__(self, settings: ApiSettings, who: Callable[[Scope], bytes]) -> None:
        self.most = MAX_BODIES * settings.max_body_bytes
        self.share = int(SHARE * self.most)
        self.held = 0  # bytes beyond what is free
        self.by_caller: dict[bytes, int] = {}
        self.arriving: dict[Held, None] = {}  # the bodies beyond what is free that are not there yet
        self._who = who

    def begin(self, scope: Scope) -> "Held":
        """Begin to count what is held for a request."""
        return Held(self, scope)

    def who(self, scope: Scope) -> bytes:
        """Return whose a request is."""
        return self._who(scope)

    def take(self, held: "Held", n_bytes: int) -> None:
        """Hold more for a request. Raises ApiError (503) where there is no room."""
        if self.by_caller.get(held.caller, 0) + n_bytes > self.share:
            raise _busy("too many large requests of this key or address are being answered")
        while self.held + n_bytes > self.most:
            if not self._give_up(held):
                raise _busy("too many large requests are being answered")
        self.held += n_bytes
        self.by_caller[held.caller] = self.by_caller.get(held.caller, 0) + n_bytes

    def give_back(self, held: "Held", n_bytes: int) -> None:
        """Hold so much less for a request."""
        self.held -= n_bytes
        left = self.by_caller.get(held.caller, 0) - n_bytes
        if left:
            self.by_caller[held.caller] = left
        else:
            self.by_caller.pop(held.caller, None)

    def _give_up(self, wanted: "Held") -> bool:
        """Give up the body that has stood still for longest, if there is one; return whether there was."""
        others = (each for each in self.arriving if each is not wanted)
        longest = min(others, key=lambda each: each.moved_at, default=None)
        if longest is None or time.monotonic() - longest.moved_at < STALLED_S:
            return False
        longest.give_up()
        return True


class Held:
    """What is held for one request."""

    def __init__(self, holding: Holding, scope: Scope) -> None:
        self._holding, self._scope = holding, scope
        self._n_bytes = self._counted = 0
        self._moved_bytes = 0  # how many there were at `moved_at`
        self.moved_at = time.monotonic()  # when it was last so that STEP_BYTES more were there
        self.caller = b""  # known once something counts
        self._task: asyncio.Task[Any] | None = None
        self._given_up = False

    def add(self, n_bytes: int) -> None:
        """Hold more. Raises ApiError (503) where there is no room."""
        self._n_bytes += n_bytes
        beyond = max(0, self._n_bytes - FREE_BYTES) - self._counted
        if beyond:
            if not self._counted:
                self.caller = self._holding.who(self._scope)
            self._holding.take(self, beyond)
            self._counted += beyond
            self._holding.arriving[self] = None
        if self._n_bytes - self._moved_bytes >= STEP_BYTES:
            self.moved_at, self._moved_bytes = time.monotonic(), self._n_bytes

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Have it given up meanwhile where others need the room. Raises ApiError (408) where it was."""
        self._task = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if not self._given_up or self._task is None or self._task.uncancel():
                raise
            raise ApiError(
                408,
                "too-slow",
                "the request did not come while others waited for its room",
                "Send it again, in smaller requests.",
                {"Connection": "close"},
            ) from None
        finally:
            self._holding.arriving.pop(self, None)

    def give_up(self) -> None:
        """Let its bytes go, and whoever waits for more of them."""
        self._given_up = True
        self.release()
        if self._task is not None:
            self._task.cancel()

    def release(self) -> None:
        """Hold nothing more."""
        self._holding.give_back(self, self._counted)
        self._counted = self._n_bytes = 0
        self._holding.arriving.pop(self, None)


def _busy(what: str) -> ApiError:
    return ApiError(503, "busy", what, "Try again shortly, or in smaller requests.", {"Retry-After": "1"})
