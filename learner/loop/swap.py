"""Is there a model that was built anew, and can it take the place of the one at work?

The loop's side of a rebuild (rebuild.py, 4): it looks now and then, at a batch's border has what it finds catch up with
itself, and takes it over. What cannot be taken over is refused with its reason; the learner goes on as it was.
"""

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import Checkpoint, by_partition
from driftline.learner.loop import recovery
from driftline.learner.machine.restore import clock_of, clocks_of, restore
from driftline.learner.rebuild.erase import left_of
from driftline.learner.rebuild.omit import Retractions
from driftline.learner.rebuild.rebuild import DIRECTORY, RETRACTIONS, STAGED, Builder, Positions
from driftline.learner.state.state import LearnerState
from driftline.stream.errors import ConfigError, LogError, LogUnavailable, StateError
from driftline.stream.log.base import Log

REFUSED: Final = "refused"
LOOK_S: Final = 0.5
WAIT_S: Final = 5.0  # where it has to wait for the log
_LOG: Final = logging.getLogger(__name__)


class StagedRebuild:
    """A model that was built anew, or none. One thread.

    Parameters
    ----------
    data : the data directory
    log : with the records that it is still without
    allow_pickle : whether it may be of another library
    """

    def __init__(self, data: Path, log: Log, *, allow_pickle: bool) -> None:
        self._data, self._log, self._allow_pickle = data, log, allow_pickle
        self._next = 0.0

    def is_due(self, now: float) -> bool:
        """Tell whether it is time to look."""
        return now >= self._next

    def is_there(self) -> bool:
        """Tell whether there is one."""
        self._next = time.monotonic() + LOOK_S
        return find(self._data) is not None

    def catch_up(self, work: LearnerState) -> Builder | None:
        """Return it, built on up to where the learner is; None where it has to wait, or goes."""
        path = self._data / DIRECTORY / STAGED
        try:
            staged = checkpoints.load_manifest(path)
            built, erased = staged.rebuilt, staged.erased.times
            if built and work.rebuilt and built.lineage == work.rebuilt.lineage:  # it took over before a crash
                self.clear()
                return None
            if erased != work.erased.times:
                raise StateError("something was erased while it was built; build it again")
            builder = caught_up(path, self._log, work.positions, allow_pickle=self._allow_pickle)
            recovery.check_unchanged(self._log, work.known)
        except LogUnavailable as error:
            _LOG.warning("a model that was built anew has to wait: %s", error)
            self._next = time.monotonic() + WAIT_S
        except (ConfigError, LogError, StateError) as error:
            _LOG.error("a model that was built anew is not taken over: %s", error)
            refuse(self._data, str(error))
        else:
            return builder
        return None

    def clear(self) -> None:
        """Take away what was taken over."""
        durable.remove(self._data / DIRECTORY)


def find(data: Path) -> Path | None:
    """Return where a state lies that is to be taken over, None where there is none."""
    path = data / DIRECTORY / STAGED
    return path if path.is_dir() else None


def caught_up(path: Path, log: Log, positions: Positions, *, allow_pickle: bool = False) -> Builder:
    """Return a state that was put down, built on up to a learner's positions.

    Raises
    ------
    StateError : it is damaged.
    ConfigError : the model is of another library, and that was not allowed.
    LogUnavailable : not yet: the learner, or the log, is not as far as the state is.
    LogError : it cannot be built on.
    """
    found: Checkpoint = checkpoints.load_checkpoint(path)
    manifest = found.manifest
    if manifest.rebuilt is None:
        raise StateError(f"{path} does not say how it was built")
    before, clocks = by_partition(manifest.positions), clocks_of(manifest)
    if any(positions.get(partition, 0) < at for partition, at in before.items()):
        raise LogUnavailable("it has records that the learner does not have yet")  # a power cut took journal entries
    retracted = path.parent / RETRACTIONS
    if not retracted.exists():
        raise StateError(f"{retracted} is gone, which says what was taken back; build the model again")
    try:
        with closing(Retractions(retracted)) as retractions:
            machine = restore(found, allow_pickle=allow_pickle)
            machine.renew(recovery.new_lineage())  # of what is learned beyond it
            erased, clock = left_of(path.parent.parent), clock_of(manifest)
            builder = Builder(log, machine, manifest.rebuilt, before, clocks, clock, retractions, erased)
            builder.advance(positions)
    except sqlite3.Error as error:
        raise StateError(f"{retracted} cannot be read: {error}; build the model again") from None
    return builder


def refuse(data: Path, why: str) -> None:
    """Take away what cannot be taken over, and leave the reason."""
    root = data / DIRECTORY
    durable.replace(root / REFUSED, why.encode())
    durable.remove(root / STAGED)


def refusal(data: Path) -> str | None:
    """Return why the last one was refused, None where it was not."""
    try:
        return (data / DIRECTORY / REFUSED).read_text("utf-8")
    except FileNotFoundError:
        return None
