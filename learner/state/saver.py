"""How does a checkpoint reach the disk while the loop goes on?

The loop copies what the next batch will change, which takes a few milliseconds, and goes on at once with a new journal;
one thread does the rest, one checkpoint at a time:

    1. encode the join windows, of which only a word a message was copied (join/window_saved.py)
    2. wait until all that was sent out of its batches is durable in the log, as recovery from it would not send that
       again, and until it is confirmed that its records came from the topics that are known (watch.py)
    3. write the files, fsync, rename: from here on it counts
    4. commit offsets, for lag tools; keep the model, to be served again (versions.py)
    5. put away old checkpoints (bases.py), and drop journals that end before the oldest

Until 3 is done recovery goes from the checkpoint before, through its journal and the new one. A disk that is full is
waited for, and the loop with it. What else fails in the thread ends the learner at the loop's next look.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from threading import Event
from typing import Final

import numpy as np

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import journal as journals
from driftline.learner.disk.checkpoint import Checkpoint
from driftline.learner.models.classifier import State
from driftline.learner.rebuild.bases import Bases
from driftline.learner.state.outbox import Outbox
from driftline.stream.errors import DiskFull
from driftline.stream.join.window_saved import Frozen
from driftline.stream.log.base import TopicPartition

RETRY_S: Final = 0.5


class Saver:
    """Saves checkpoints in a thread. Its methods are for the loop's thread.

    Parameters
    ----------
    data : where checkpoints, journals and bases lie
    keep_bases : how many states of the past stay to build models from
    check : raises where this learner was overtaken; called by the thread before anything counts or goes

    Attributes
    ----------
    batch, positions : of the newest checkpoint that is on the disk, as far as `look` saw
    seconds : how long that took, from the copy to the last fsync
    """

    def __init__(self, data: Path, check: Callable[[], None] = lambda: None, keep_bases: int = 0) -> None:
        self._root, self._journal_root, self._check = data / "checkpoints", data / "journal", check
        self._bases = Bases(data, keep_bases)
        self._copies: State = {}
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[float] | None = None
        self._ready, self._confirmed, self._abandoned = Event(), False, Event()
        self._full: DiskFull | None = None
        self.batch = 0
        self.positions: Mapping[TopicPartition, int] = {}
        self.seconds = 0.0

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is under way."""
        return self._saving is not None

    def copy(self, model: State) -> State:
        """Return a copy of the model's arrays, good until the next; none may be made while a checkpoint is under way.

        Its memory is kept: fresh memory costs ten times the copy, so the first one is best made before it matters.
        """
        for name, array in model.items():
            copy = self._copies.get(name)
            if copy is not None and (copy.shape, copy.dtype) == (array.shape, array.dtype):
                np.copyto(copy, array)
            else:
                self._copies[name] = array.copy()
        return self._copies

    def start(
        self,
        checkpoint: Checkpoint,
        windows: list[Frozen],
        positions: Mapping[TopicPartition, int],
        outbox: Outbox,
        commit: Callable[[Mapping[TopicPartition, int]], None],
        lows: Mapping[TopicPartition, int] | None = None,
    ) -> None:
        """Save a checkpoint, once it is confirmed; none may be under way.

        Parameters
        ----------
        checkpoint : nothing in it may change any more; its windows are filled in
        windows, positions : of the same moment
        outbox : to which all was given that was sent up to then
        commit : called with the positions when it is on the disk
        lows : the first offsets that the log still has
        """
        self._ready.clear()
        self._confirmed = False
        self._outbox, self._next = outbox, (checkpoint.manifest.batch, positions)
        self._saving = self._thread.submit(
            self._save, checkpoint, windows, lambda: commit(positions), lows or {}, time.monotonic()
        )

    def confirm(self) -> None:
        """Say that the topics were still those that are known when the checkpoint under way was copied."""
        self._confirmed = True

    @property
    def confirmed(self) -> bool:
        """Whether `confirm` was called for the checkpoint under way."""
        return self._confirmed

    def look(self) -> None:
        """See how far it is.

        Raises
        ------
        DiskFull : the thread waits for room; look again.
        Exception : what ended the thread.
        """
        if self._saving is None:
            return
        if self._confirmed and not self._ready.is_set() and self._outbox.delivered >= self._next[0]:
            self._ready.set()
        if self._saving.done():
            self.seconds = self._saving.result()
            self._saving, (self.batch, self.positions) = None, self._next
        elif self._full is not None:
            raise self._full

    def wait(self, waiting: Callable[[], None] = lambda: None) -> None:
        """Return once the checkpoint under way, a confirmed one, is on the disk. Raises what `look` does.

        `waiting` is called about every RETRY_S.
        """
        while self._saving is not None:
            self._outbox.flush(RETRY_S)
            self.look()
            if self._saving is not None:
                wait_for([self._saving], RETRY_S)
                waiting()

    def close(self) -> None:
        """End the thread: a checkpoint that still waits is left out, one that is being written is finished."""
        self._abandoned.set()
        self._ready.set()
        self._thread.shutdown()

    def _save(
        self,
        checkpoint: Checkpoint,
        windows: list[Frozen],
        commit: Callable[[], None],
        lows: Mapping[TopicPartition, int],
        started: float,
    ) -> float:
        for window in windows:  # 1
            checkpoint.windows.append(encoded := [])
            for part in window.encode():
                encoded.append(part)
                time.sleep(0)  # the loop has the interpreter first
        self._ready.wait()  # 2
        while not self._abandoned.is_set():
            try:
                checkpoints.save_checkpoint(self._root, checkpoint, check=self._check)  # 3
            except DiskFull as error:
                self._full = error
                self._abandoned.wait(RETRY_S)
                continue
            self._full = None
            seconds = time.monotonic() - started
            self._check()
            commit()  # 4
            oldest = checkpoints.prune(self._root, lambda path: self._bases.take(path, lows))  # 5
            journals.prune(self._journal_root, oldest)
            return seconds
        return 0.0
