"""How is long work done beside short requests, without their noticing?

One piece at a time, in a thread. Who had least of it lately comes first, so who asks without end waits for itself.

Each caller may have at most a share of the time: behind a piece its next one stands still for as long as its processor
time makes that share, but for a little that may come at once. All callers together may have TOGETHER such shares.
Python lets one thread run at a time, so that is what the event loop loses at most.
"""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

from driftline.api.errors import stopping

# What all callers may have together, in shares, and in bursts at once: who asks for little waits for no other's pause.
TOGETHER: Final = 2
AT_ONCE: Final = 5
MANY: Final = 1000  # callers that are remembered before those are forgotten who owe nothing any more
_T = TypeVar("_T")


class _Piece(NamedTuple):
    """Work, and who waits for what comes of it."""

    work: Callable[[], Any]
    future: "asyncio.Future[Any]"


class _Outcome(NamedTuple, Generic[_T]):
    """What came of it, and the processor time of it, seconds."""

    value: _T | None
    error: BaseException | None
    cost_s: float


class Turns:
    """Does work, piece by piece. On the event loop only, but for `close`. The caller bounds how many wait.

    Parameters
    ----------
    name : the thread's
    share : of one processor's time, above 0 to 1, for each caller
    burst_s : processor time of a caller that may come at once, before the share counts
    """

    def __init__(self, name: str, share: float = 1.0, burst_s: float = math.inf) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._share, self._burst_s = share, burst_s
        self._waiting: OrderedDict[bytes, deque[_Piece]] = OrderedDict()  # by caller; who waits longest is first
        self._paid_at: dict[bytes, float] = {}  # by caller: when all that was done for it will be paid for
        self._all_paid_at = 0.0
        self._busy = self._stopped = False
        self._timer: asyncio.TimerHandle | None = None

    def pause_s(self, caller: bytes) -> float:
        """How long nothing is begun for a caller now."""
        own = self._paid_at.get(caller, 0.0) - self._burst_s / self._share
        of_all = self._all_paid_at - AT_ONCE * self._burst_s / (TOGETHER * self._share)
        return max(0.0, max(own, of_all) - time.monotonic())

    async def do(self, caller: bytes, work: Callable[[], _T]) -> _T:
        """Return what a piece of work gives, once it was the caller's turn; raise what it raises.

        Who is cancelled gives up its turn. What has begun goes on to its end, and counts.
        """
        if self._stopped:
            raise stopping()
        piece = _Piece(work, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(caller, deque()).append(piece)
        self._next()
        try:
            value: _T = await piece.future
            return value
        finally:
            self._forget(caller, piece)

    def stop(self) -> None:
        """Begin nothing more: who waits is told to come again."""
        self._stopped = True
        for pieces in self._waiting.values():
            for piece in pieces:
                if not piece.future.done():
                    piece.future.set_exception(stopping())

    def close(self) -> None:
        """Begin nothing more, and wait for the piece that is being done. Any thread."""
        self._stopped = True
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _forget(self, caller: bytes, piece: _Piece) -> None:
        """Take a piece out that has not been begun."""
        pieces = self._waiting.get(caller)
        if pieces is not None and piece in pieces:
            pieces.remove(piece)
            if not pieces:
                del self._waiting[caller]

    def _next(self) -> None:
        """Begin the next piece, unless one is being done, or the last is not paid for yet."""
        if self._timer is not None:  # whoever has come since may come first
            self._timer.cancel()
            self._timer = None
        if self._busy or self._stopped or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        caller = min(self._waiting, key=lambda each: self._paid_at.get(each, 0.0))
        if (pause_s := self.pause_s(caller)) > 0:
            self._timer = loop.call_later(pause_s, self._wake)
            return
        pieces = self._waiting[caller]
        piece = pieces.popleft()
        self._waiting.move_to_end(caller)
        if not pieces:
            del self._waiting[caller]
        self._busy = True
        loop.run_in_executor(self._thread, _timed, piece.work).add_done_callback(partial(self._done, caller, piece))

    def _wake(self) -> None:
        self._timer = None
        self._next()

    def _done(self, caller: bytes, piece: _Piece, running: "asyncio.Future[_Outcome[Any]]") -> None:
        self._busy = False
        if running.cancelled():  # it is being closed
            piece.future.cancel()
            return
        value, error, cost_s = running.result()
        self._pay(caller, cost_s)
        if not piece.future.done():
            if error is not None:
                piece.future.set_exception(error)
            else:
                piece.future.set_result(value)
        self._next()

    def _pay(self, caller: bytes, cost_s: float) -> None:
        """Note what was done for a caller."""
        now = time.monotonic()
        self._all_paid_at = max(self._all_paid_at, now) + cost_s / (TOGETHER * self._share)
        self._paid_at[caller] = max(self._paid_at.get(caller, 0.0), now) + cost_s / self._share
        if len(self._paid_at) > MANY:
            self._paid_at = {each: paid_at for each, paid_at in self._paid_at.items() if paid_at > now}


def _timed(work: Callable[[], _T]) -> _Outcome[_T]:
    started, value, error = time.thread_time(), None, None
    try:
        value = work()
    except Exception as raised:  # noqa: BLE001, RUF100  (whatever it is, it is the caller's)
        error = raised
    return _Outcome(value, error, time.thread_time() - started)
