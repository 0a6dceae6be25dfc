"""How far has a start got?

The first start compiles for up to a minute, and opening a log may take as long: meanwhile nothing else gets a turn in
the learner's thread. So another one says twice a second that a learner is there, what it is at, and how much of that is
done. It holds the directory's lock all the while, so its word is as good as any later one.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal

import msgspec

from driftline.stream.errors import DriftlineError
from driftline.stream.process import threads

TURN_S: Final = 0.5
LEAST: Final = 0.05  # of a share from which on it says how long the rest will take
Doing = Literal["opening the log", "compiling", "fetching the checkpoint"]


class Start(msgspec.Struct, frozen=True):
    """What a learner that starts is at. `share` of it is done, 0 to 1; null where that is not known."""

    doing: Doing
    share: float | None
    since: float  # seconds since 1970

    def __str__(self) -> str:
        """Say it to people."""
        if self.doing != "compiling":
            return self.doing
        if self.share is None or self.share < LEAST:
            return "compiling its kernels, once: up to a minute, or more on a busy machine"
        left_s = (time.time() - self.since) * (1 - self.share) / self.share
        return f"compiling its kernels, once: {100 * self.share:.0f} % done, about {left_s:.0f} s left"


@contextmanager
def telling(tell: Callable[[Start], None], doing: Doing, share: Callable[[], float | None]) -> Iterator[None]:
    """Tell what a start is at, at once and then every TURN_S, until the block's end.

    Parameters
    ----------
    tell : called in this thread, then in another one, never in two at once; what it raises there ends the telling
    share : how much is done by now; called as `tell` is
    """
    since, over = time.time(), threading.Event()

    def say() -> None:
        tell(Start(doing, share(), since))

    def go_on() -> None:
        with suppress(OSError, DriftlineError):  # the learner's own thread will meet that, too
            while not over.wait(TURN_S):
                say()

    say()
    thread = threads.start("starting", go_on)
    try:
        yield
    finally:
        over.set()
        thread.join()
