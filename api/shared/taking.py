"""Does the log take what is sent?

That it answers does not say so: a file that another process has locked, or a full disk, can be read as ever. So what
becomes of each append is followed, and where nothing was sent for a while it is tried (`Log.probe`).
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from typing import Any, Final

from driftline.stream.errors import LogError, LogUnavailable
from driftline.stream.log.base import Log

IDLE_S: Final = 5.0  # without an append that was taken: then it is tried
AGAIN_S: Final = 5.0  # where it cannot be tried, what was refused counts for so long


class Taking:
    """Follows what becomes of appends. Any thread.

    Parameters
    ----------
    patience_s : an append that is not durable after so long is refused, and so is the next one
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._numbers = count()
        self._open: dict[int, float] = {}  # appends on their way, oldest first: since when
        self._taken_at = self._refused_at = 0.0
        self._why: str | None = None  # the last one was refused
        self._probing: int | None = None
        self._can_try = True

    @property
    def problem(self) -> str | None:
        """Why the log takes nothing just now, or None."""
        with self._lock:
            now = time.monotonic()
            if self._open:
                waited_s = now - next(iter(self._open.values()))
                if waited_s > self._patience_s:
                    return f"the log has taken nothing for {waited_s:.0f} s" + (f": {self._why}" if self._why else "")
            if self._why is not None and not self._can_try and now - self._refused_at > AGAIN_S:
                return None  # only the next append can tell
            return self._why

    def submit(self, append: Callable[[], "Future[Any]"]) -> "Future[Any]":
        """Append, and follow what becomes of it. May wait for room, as `Log.submit`."""
        number = self._begin()
        try:
            future = append()
        except BaseException:
            self._end(number, None)
            raise
        future.add_done_callback(lambda done: self._end(number, done))
        return future

    def look(self, log: Log) -> None:
        """Try the log where that is due. About once a second, in one thread."""
        with self._lock:
            quiet_s = time.monotonic() - self._taken_at
            if self._probing is not None or (self._why is None and quiet_s < IDLE_S) or not self._can_try:
                return
            self._probing = number = next(self._numbers)
            self._open[number] = time.monotonic()
        try:
            future = log.probe()
        except LogError as error:
            future = Future()
            future.set_exception(error)
        if future is None:
            with self._lock:
                self._can_try, self._probing = False, None
                del self._open[number]
            return
        future.add_done_callback(lambda done: self._end(number, done))

    def _begin(self) -> int:
        with self._lock:
            number = next(self._numbers)
            self._open[number] = time.monotonic()
            return number

    def _end(self, number: int, done: "Future[Any] | None") -> None:
        """Note what became of one. An error that is the append's own says nothing of the next; one of a trial does."""
        error = None if done is None else done.exception()
        with self._lock:
            tried = number == self._probing
            self._open.pop(number, None)
            if tried:
                self._probing = None
            if done is not None and error is None:
                self._taken_at, self._why = time.monotonic(), None
            elif tried or isinstance(error, LogUnavailable):
                self._refused_at, self._why = time.monotonic(), str(error)
            elif error is not None:
                self._taken_at = 0.0  # so that it is tried
