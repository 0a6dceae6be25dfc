"""Does the learner get on?

A thread looks from outside, since the loop itself may hang: in a kernel, in a client of the log, on a disk. Stalled is
a learner that does not come round, or that comes round and takes nothing although records wait, also while it replays
what its journal names. Where it says itself what it waits for (a log that does not answer, a full disk, records that
cannot be read), that explains it.
Once it is stalled, the log gets one line, with where each thread stands.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final, NamedTuple

from driftline.stream.process import threads

TURN_S: Final = 1.0
EXPLAINED: Final = frozenset({"starting", "recovering", "waiting", "paused", "stopped", "failed"})
SILENT: Final = frozenset({"starting", "recovering", "stopped", "failed"})  # in which the loop may take its time
REPLAYING: Final = "replaying"  # the part of recovering in which it has to get on
_LOG: Final = logging.getLogger(__name__)


class Beat(NamedTuple):
    """What the loop said of itself last."""

    at: float  # time.monotonic()
    batch: int
    state: str


class Watchdog:
    """Watches a loop. `beat` belongs to the loop's thread, the attributes may be read from any.

    Parameters
    ----------
    patience_s : after which nothing is stalled
    lag : how many records wait; called in the watchdog's thread
    tell : called there about every TURN_S while the loop is stalled, with why

    Attributes
    ----------
    problem : why it is stalled; "" while it is not
    stalls : how often it was
    """

    def __init__(self, patience_s: float, lag: Callable[[], int], tell: Callable[[str], None]) -> None:
        self.problem, self.stalls = "", 0
        self._patience_s, self._lag, self._tell = patience_s, lag, tell
        self._beat: Beat | None = None  # replaced whole
        self._batch, self._moved_at = -1, 0.0  # the last one that was seen, and since when
        self._closing = threading.Event()
        threads.start("watchdog", self._run)

    def beat(self, batch: int, state: str) -> None:
        """Say that the loop comes round, after which batch, and what it is doing."""
        self._beat = Beat(time.monotonic(), batch, state)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()

    def _run(self) -> None:
        turn_s = min(TURN_S, self._patience_s / 4)
        self._turned_at = self._woke_at = time.monotonic()
        while not self._closing.wait(turn_s):
            try:
                self._turn()
            except Exception:  # what it looks at belongs to another thread, which may just be changing it
                _LOG.warning("the watchdog could not look; it looks again", exc_info=True)

    def _turn(self) -> None:
        now, beat = time.monotonic(), self._beat
        if now - self._turned_at > self._patience_s / 2:  # the whole process stood still, or the machine: begin anew
            self._woke_at = now
        self._turned_at = now
        if beat is None:
            return
        explained = beat.state in EXPLAINED
        if beat.batch != self._batch or explained or not self._lag():
            self._batch, self._moved_at = beat.batch, now
        silent_s = now - max(beat.at, self._woke_at) if beat.state not in SILENT else 0.0
        self._judge(silent_s, now - max(self._moved_at, self._woke_at))

    def _judge(self, silent_s: float, still_s: float) -> None:
        problem = ""
        if silent_s >= self._patience_s:
            problem = f"the loop has not come round for {silent_s:.0f} s"
        elif still_s >= self._patience_s:
            problem = f"no record was taken for {still_s:.0f} s, and {self._lag():,} wait"
        if problem and not self.problem:
            self.stalls += 1
            _LOG.error("stalled: %s. Where each thread stands:\n%s", problem, stacks())
        elif self.problem and not problem:
            _LOG.warning("no longer stalled")
        self.problem = problem
        if problem:
            self._tell(problem)


def stacks() -> str:
    """Return where each thread of this process stands, the innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    return "\n".join(
        f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames.items()
    )
