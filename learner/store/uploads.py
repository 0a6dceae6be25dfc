"""How do checkpoints get into the store while the learner goes on?

One thread puts one at a time; what comes meanwhile waits, and of several that wait the newest goes. It holds what it
puts by second names of the files, so that the disk may let the checkpoint go. A store that is away is tried again after
pauses that grow. Neither the loop nor the next checkpoint waits for any of that; at a good end the last one is waited
for, a while.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Condition
from typing import Final

import msgspec

from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import Manifest
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.learner.store.stored import Stored
from driftline.learner.store.upload_report import UploadReport
from driftline.stream.errors import DriftlineError, Overtaken, StateError, StoreTaken
from driftline.stream.process import threads

DIRECTORY: Final = "uploads"  # of the data directory; what is being put
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
LEAVE_S: Final = 1.0  # at the end, for a piece to be broken off
_LOG: Final = logging.getLogger(__name__)

Kept = Callable[[Stored, Manifest], None]


class _AbandonedError(DriftlineError):
    """It is time to end."""


class Uploads:
    """Puts checkpoints into the store. `offer` is for the thread that saves them, the rest for any.

    Parameters
    ----------
    data : the data directory, of which this is the only learner
    every : each so manieth that is offered is put
    keep : so many stay in the store
    check : raises where this learner was overtaken; then nothing is put any more
    kept : called in the thread after each with the oldest that stays in the store, and its manifest
    """

    def __init__(
        self,
        store: CheckpointStore,
        data: Path,
        *,
        every: int = 1,
        keep: int = 3,
        check: Callable[[], None] = lambda: None,
        kept: Kept = lambda *_: None,
    ) -> None:
        self.store = store
        self._holds, self._every, self._keep, self._check, self._kept = data / DIRECTORY, every, keep, check, kept
        self._changed = Condition()  # of all below
        self._waiting: Path | None = None
        self._putting: Path | None = None
        self._offers = self._left_out = self._erased = 0  # how many since the last one that was due; it had these
        self._hurried = self._abandoned = self._ended = False
        self._report = UploadReport(where=store.where)
        durable.remove(self._holds)  # left by a learner that was killed
        self._thread = threads.start("uploads", self._run)

    @property
    def report(self) -> UploadReport:
        """How far the store is behind. Any thread."""
        with self._changed:
            held = self._waiting or self._putting
            return msgspec.structs.replace(self._report, waiting=None if held is None else _batch(held))

    def offer(self, path: Path, manifest: Manifest, *, due: bool = False) -> None:
        """Have a checkpoint put, where it is due: by its number, by its being asked for, by an erasure before it.

        Raises
        ------
        StateError, OSError : it cannot be held; it stays as it is.
        """
        erased = manifest.erased.times > self._erased
        if not due and not erased and self._left_out and self._left_out < self._every:
            self._left_out += 1
            return
        self._offers += 1
        held = hold(path, self._holds / f"{path.name}-{self._offers}")
        self._left_out, self._erased = 1, manifest.erased.times
        with self._changed:
            before, self._waiting = self._waiting, held
            self._changed.notify_all()
        _let_go(before)

    def finish(self, timeout_s: float) -> bool:
        """Wait until nothing waits any more, and tell whether all is there. The store is tried without long pauses."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended or not (self._waiting or self._putting), timeout_s)
            self._hurried = False
            return not (self._waiting or self._putting or self._report.why)

    def close(self) -> None:
        """End the thread; what is on its way is broken off."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
        self._thread.join(LEAVE_S)  # it ends with the process where the store keeps it
        if not self._thread.is_alive():
            durable.remove(self._holds)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while (held := self._take()) is not None:
            try:
                self._put(held)
            except (Overtaken, _AbandonedError):
                break
            except (DriftlineError, OSError) as error:
                self._fail(held, str(error), again=not isinstance(error, (StateError, StoreTaken)))
                self._pause(pause_s)
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
            else:
                self._forget(held)
                pause_s = FIRST_PAUSE_S
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self) -> Path | None:
        """Return what to put next, once there is something; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._abandoned)
            if self._abandoned:
                return None
            self._putting, self._waiting = self._waiting, None
            return self._putting

    def _put(self, held: Path) -> None:
        started = time.monotonic()
        put = self.store.put(held, self._go_on)
        seconds = time.monotonic() - started
        with self._changed:
            before = self._report
            fresh = put.batch != before.batch  # else what follows had failed
            if fresh:
                changed = {"batch": put.batch, "at": time.time(), "seconds": seconds, "bytes": put.bytes}
                self._report = msgspec.structs.replace(before, **changed, uploads=before.uploads + 1)
        if fresh:
            _LOG.info("checkpoint %d is in %s after %.1f s", put.batch, self.store.where, seconds)
        oldest = self.store.prune(self._keep)
        if oldest is not None:
            self._kept(*oldest)

    def _forget(self, held: Path) -> None:
        _let_go(held)
        with self._changed:
            self._putting, mended = None, self._report.why
            self._report = msgspec.structs.replace(self._report, why="")
            self._changed.notify_all()
        if mended:
            _LOG.warning("%s takes checkpoints again", self.store.where)

    def _fail(self, held: Path, why: str, *, again: bool) -> None:
        """Note a failure; it is tried again where that may help, unless another one waits by now."""
        with self._changed:
            first = self._report.why != why
            self._report = msgspec.structs.replace(self._report, failures=self._report.failures + 1, why=why)
            if again and self._waiting is None:
                self._waiting, held_on = held, True
            else:
                held_on = False
            self._putting = None
            self._changed.notify_all()
        if first:
            _LOG.warning("checkpoint %d is not in the store yet: %s", _batch(held), why)
        if not held_on:
            _let_go(held)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            deadline = time.monotonic() + seconds
            while not self._abandoned and (left_s := deadline - time.monotonic()) > 0:
                if self._hurried:
                    left_s = min(left_s, FIRST_PAUSE_S)
                    deadline = min(deadline, time.monotonic() + FIRST_PAUSE_S)
                self._changed.wait(left_s)

    def _go_on(self) -> None:
        if self._abandoned:
            raise _AbandonedError("the learner ends")
        self._check()


def hold(path: Path, held: Path) -> Path:
    """Give a checkpoint's files second names in a directory of their own, and return that.

    Raises
    ------
    StateError, OSError : it is gone, or there is no room.
    """
    durable.write_directory(held, {}, {each.name: each for each in path.iterdir()})
    return held


def _let_go(held: Path | None) -> None:
    if held is not None:
        durable.remove(held)


def _batch(held: Path) -> int:
    return int(held.name.partition("-")[0])
