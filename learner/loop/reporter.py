"""What does the learner say of itself, when, and who says it where its loop hangs?

Twice a second the loop writes the status. Where it does not get on, the watchdog writes it in its place.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec

from driftline.learner.disk.checkpoint import by_topic
from driftline.learner.report.status import State, Status, write_status
from driftline.learner.report.watchdog import REPLAYING, Watchdog
from driftline.learner.serving.publishing import Publishing
from driftline.learner.state.ledger import Ledger
from driftline.learner.state.state import LearnerState
from driftline.stream.errors import DiskFull, Overtaken
from driftline.stream.words import counted

STATUS_INTERVAL_S: Final = 0.5
_LOG: Final = logging.getLogger(__name__)


class Reporter:
    """Writes the status. Its methods are for the loop's thread.

    Parameters
    ----------
    data : the data directory
    status : gives what is to be said, of a state and a detail; for the loop's thread
    lag : how many records wait; any thread
    stall_after_s : without progress, while records wait
    check : raises where this learner was overtaken

    Attributes
    ----------
    shown : the last status, for any thread
    """

    def __init__(
        self,
        data: Path,
        status: Callable[[State, str], Status],
        lag: Callable[[], int],
        stall_after_s: float,
        check: Callable[[], None],
    ) -> None:
        self._data, self._status, self._check = data, status, check
        self._next = 0.0
        self._state: State = "recovering"  # as it was reported last
        self.shown: Status | None = None
        self._showing = Lock()
        self._said_unused = False
        self._watchdog = Watchdog(stall_after_s, lag, self._tell_stalled)

    @property
    def stalls(self) -> int:
        """How often the loop stood still."""
        return self._watchdog.stalls

    def is_due(self, now: float) -> bool:
        """Tell whether it is time."""
        return now >= self._next

    def begin(self, batch: int) -> None:
        """Note that it starts, which may take its time."""
        self._state = "recovering"
        self.beat(batch)

    def beat(self, batch: int, *, replays: bool = False) -> None:
        """Note that the loop gets on, in the state that was reported last."""
        self._watchdog.beat(batch, REPLAYING if replays and self._state == "recovering" else self._state)

    def report(self, batch: int, state: State, detail: str = "", *, replays: bool = False) -> None:
        """Write the status. Raises Overtaken; a full disk is left alone: what must be written down waits for room.

        A recovery takes its time, but where it `replays` batches it has to get on, as the loop has.
        """
        self._check()
        self._state = state
        replays = replays and state == "recovering"
        self.beat(batch, replays=replays)
        if self._watchdog.problem and (state == "running" or replays):
            detail = f"recovering, {detail}: {self._watchdog.problem}" if replays else self._watchdog.problem
            state = "stalled"
        with self._showing, suppress(DiskFull):
            self.shown = self._status(state, detail)
            write_status(self._data, self.shown)
        self._say_unused()
        self._next = time.monotonic() + STATUS_INTERVAL_S

    def _say_unused(self) -> None:
        """Say it once where messages bring what the model does not take: nothing else tells who sends them."""
        if self._said_unused or self.shown is None or not self.shown.counts.vectors_unused:
            return
        self._said_unused = True
        _LOG.warning(
            "%s came with a vector that %s does not take: it was left out. `driftline rebuild --model "
            "'blend?dimension=N'` makes a model that takes vectors of N numbers",
            counted(self.shown.counts.vectors_unused, "message"),
            self.shown.model,
        )

    def show(self, status: Status) -> None:
        """Take a status that was written elsewhere for the last one."""
        self.shown = status

    def close(self) -> None:
        """End the watchdog."""
        self._watchdog.close()

    def _tell_stalled(self, why: str) -> None:
        """Say it in the loop's place, in the watchdog's thread. The loop may hang in the status itself: then not."""
        if self.shown is None or not self._showing.acquire(timeout=1.0):
            return
        try:
            changed = {"state": "stalled", "detail": why, "at": time.time(), "stalls": self._watchdog.stalls}
            self.shown = msgspec.structs.replace(self.shown, **changed)
            with suppress(DiskFull, Overtaken, OSError):
                self._check()
                write_status(self._data, self.shown)
        finally:
            self._showing.release()


def describe(
    state: State, detail: str, work: LearnerState, ledger: Ledger, publishing: Publishing, stalls: int
) -> Status:
    """Say what a learner is doing and has done."""
    machine = work.machine
    return Status(
        state=state,
        detail=detail,
        at=time.time(),
        pid=os.getpid(),
        epoch=ledger.epoch,
        model=machine.classifier.spec,
        version=machine.version,
        labels=machine.classifier.labels,
        places=machine.classifier.max_labels,
        places_left=machine.n_places,
        counts=machine.counts,
        join=machine.join.counts,
        pending=machine.join.pending,
        waiting=machine.join.waiting,
        positions=by_topic(work.positions),
        progress=machine.progress.summary(machine.classifier.labels),
        drift=machine.alarms,
        losses=work.losses,
        rebuilt=work.rebuilt,
        erased=work.erased,
        checkpoint=ledger.saved_batch,
        batch=work.batch,
        window_bytes=machine.join.n_bytes,
        checkpoint_seconds=ledger.seconds,
        checkpoint_pause_seconds=ledger.pause_s,
        snapshot_seconds=publishing.seconds,
        gate=machine.gate.report(publishing.quarantine),
        over_quota=dict(machine.quotas.refused),
        stalls=stalls,
        uploads=ledger.uploads,
    )
