"""How does a checkpoint reach the disk while the loop goes on?

The loop copies what the next batch will change, which takes a few milliseconds, and goes on at once with a new journal;
one thread does the rest, one checkpoint at a time:

    1. encode the join windows, which the loop changes meanwhile (stream/join.py, Frozen)
    2. wait until all that was sent out of its batches is durable in the log: recovery from it would not send that again
    3. write the files, fsync, rename: from here on it counts
    4. commit offsets, for lag tools
    5. drop old checkpoints, and journals that end before the oldest

Until 3 is done recovery goes from the checkpoint before, through its journal and the new one. What fails in the thread
ends the learner at the loop's next look; nothing is tried again.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np

from learner import checkpoint as checkpoints
from learner import journal as journals
from learner.checkpoint import Checkpoint
from learner.classifier import State
from learner.outbox import Outbox
from stream.join import Frozen


class Saver:
    """Saves checkpoints in a thread. Its methods are for the loop's thread.

    Parameters
    ----------
    root, journal_root : where checkpoints and journals lie

    Attributes
    ----------
    batch : of the newest checkpoint that is on the disk, as far as `look` saw
    seconds : how long that took, from the copy to the last fsync
    """

    def __init__(self, root: Path, journal_root: Path) -> None:
        self._root, self._journal_root = root, journal_root
        self._copies: State = {}
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[float] | None = None
        self._delivered, self._abandoned = Event(), False
        self.batch = 0
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

    def start(self, checkpoint: Checkpoint, windows: list[Frozen], outbox: Outbox, commit: Callable[[], None]) -> None:
        """Save a checkpoint; none may be under way.

        Parameters
        ----------
        checkpoint : nothing in it may change any more; its windows are filled in
        windows : of the same moment
        outbox : to which all was given that was sent up to then
        commit : called when it is on the disk
        """
        self._delivered.clear()
        self._outbox, self._next_batch = outbox, checkpoint.manifest.batch
        self._saving = self._thread.submit(self._save, checkpoint, windows, commit, time.monotonic())
        self.look()

    def look(self) -> None:
        """See how far it is. Raises what ended the thread."""
        if self._saving is None:
            return
        if not self._delivered.is_set() and self._outbox.delivered >= self._next_batch:
            self._delivered.set()
        if self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Return once the checkpoint that is under way is on the disk. Raises what ended the thread."""
        if self._saving is not None:
            self._outbox.flush()
            self._delivered.set()
            self.seconds = self._saving.result()
            self._saving, self.batch = None, self._next_batch

    def close(self) -> None:
        """End the thread: a checkpoint that waits for the log is left out, one that is being written is finished."""
        self._abandoned = True
        self._delivered.set()
        self._thread.shutdown()

    def _save(self, checkpoint: Checkpoint, windows: list[Frozen], commit: Callable[[], None], started: float) -> float:
        for window in windows:  # 1
            checkpoint.windows.append(encoded := [])
            for part in window.encode():
                encoded.append(part)
                time.sleep(0)  # the loop has the interpreter first
        self._delivered.wait()  # 2
        if self._abandoned:
            return 0.0
        checkpoints.save_checkpoint(self._root, checkpoint)  # 3
        seconds = time.monotonic() - started
        commit()  # 4
        journals.prune(self._journal_root, checkpoints.prune(self._root))  # 5
        return seconds
