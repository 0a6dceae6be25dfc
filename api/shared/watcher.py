"""Which model answers now, and what is the learner doing?

A published model changes under whoever asks it (serving/snapshot.py), so a label shows at the next request. A thread
looks into the data directory for newer files, after a start of the learner or a change of a model's size, for what
stands beside the model, and for the learner's status; everyone else reads attributes, each replaced whole by one
assignment. A file is mapped and its model asked once before it is put there, so no request waits for that. Nothing in
the data directory is changed. What the last look could not read stays as it was before. Where somebody rolled back to
a version, that one is served (serving/chooser.py).
"""

import logging
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from driftline.api.hidden import Hidden
from driftline.learner.disk.lock import last_epoch
from driftline.learner.report.status import Status, read_status
from driftline.learner.serving.chooser import SnapshotChooser
from driftline.learner.serving.snapshot import Model, Snapshot, SnapshotInfo
from driftline.stream.errors import ConfigError, StateError
from driftline.stream.process import threads

POLL_S: Final = 0.05
STATUS_S: Final = 0.25
AGAIN_S: Final = 0.02  # between two looks of those who are about to refuse
RETRY_S: Final = 1.0
NEVER: Final = "no learner has run on this data directory yet"
_LOG: Final = logging.getLogger(__name__)


class Served(msgspec.Struct, frozen=True):
    """A model that answers.

    There are two of it (the memory is shared), since a model takes one thread at a time: the event loop asks one
    without ever waiting for a large request, which is answered from the other.
    """

    info: SnapshotInfo  # at the thread's last look; an answer has its own
    quick: Model  # on the event loop only
    bulk: Model  # in Predictor's thread only
    snapshot: Snapshot  # for those who need a model of their own
    changed_at: float  # seconds since 1970, when this version was first seen published

    def now(self) -> SnapshotInfo:
        """Return what stands beside the version that answers now. On the event loop only."""
        try:
            return self.quick.info()
        except StateError:  # it was cut short: the next look says so
            return self.info


class Watcher:
    """Follows a data directory. `start` and `close` once, from any thread; the attributes from all."""

    def __init__(self, data: Path, *, allow_pickle: bool = False) -> None:
        self.served: Served | None = None
        self.status: Status | None = None
        self.snapshot_problem: str | None = None
        self.pinned_to: str | None = None  # the version that is served in the latest's place
        self.status_problem: str | None = None
        self._data, self._allow_pickle = data, allow_pickle
        self.snapshots = data / "snapshots"
        self._chosen = SnapshotChooser(data, allow_pickle=allow_pickle)
        self._newest: Snapshot | None = None
        self._hidden = Hidden([data])
        self._said: str | None = None  # the problem that the log knows of
        self._looked_at = -AGAIN_S  # by `idle_now`
        self._closing = threading.Event()
        self._thread = threads.make("snapshot-watcher", self._run)

    @property
    def idle(self) -> str | None:
        """Why nothing is learned now; None where a learner takes what comes."""
        status = self.status
        return status.idle if status is not None else self.status_problem or NEVER

    def idle_now(self) -> str | None:
        """Return the same by a look of now, for who is about to refuse: what the thread saw may be STATUS_S old."""
        if self.idle is not None and time.monotonic() - self._looked_at >= AGAIN_S:
            self._looked_at = time.monotonic()
            self._look_for_status()
        return self.idle

    def start(self) -> None:
        """Look once, then go on looking in a thread. Raises ConfigError for a pickle that may not be opened."""
        self._look_for_snapshot(starting=True)
        self._look_for_status()
        self._thread.start()

    def close(self) -> None:
        """End the thread. The model stays."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        polls = 0
        while not self._closing.wait(POLL_S if self.snapshot_problem is None else RETRY_S):
            self._look_for_snapshot()
            polls += 1
            if polls % round(STATUS_S / POLL_S) == 0 or self.snapshot_problem:
                self._look_for_status()

    def _look_for_snapshot(self, *, starting: bool = False) -> None:
        try:
            newest = self._chosen.look()
            if newest is not None:
                self._serve(newest)
            elif self._newest is not None:  # it was cut short, and there is no other
                self.served = self._newest = None
        except Exception as error:  # noqa: BLE001, RUF100  (whatever it is, the model before goes on answering)
            if starting and isinstance(error, ConfigError):
                raise
            problem = f"the newest snapshot cannot be served: {error}"
            if problem != self._said:
                _LOG.error("%s", problem)
            self._said = problem
            self.snapshot_problem = self._hidden(problem)
            return
        self._said = None
        problem_of_choice = self._chosen.problem
        self.pinned_to = self._chosen.pinned_to
        self.snapshot_problem = None if problem_of_choice is None else self._hidden(problem_of_choice)

    def _serve(self, newest: Snapshot) -> None:
        known, info = self.served, newest.info()
        if known is None or newest is not self._newest:
            models = newest.model, newest.another_model()
        elif info is known.info:
            return
        else:
            models = known.quick, known.bulk
        same = known is not None and known.info.version == info.version
        changed_at = known.changed_at if known is not None and same else info.published_at
        self.served = Served(info, *models, newest, changed_at)
        self._newest = newest

    def _look_for_status(self) -> None:
        try:
            found = read_status(self._data)
            # One of a lower epoch was put there by a learner that was overtaken and did not know it yet.
            if found is not None and found.epoch >= last_epoch(self._data):
                found.detail = self._hidden(found.detail)
                self.status = found
            self.status_problem = None
        except Exception as error:  # noqa: BLE001, RUF100  (damaged, not readable: it is shown, and read again)
            self.status_problem = self._hidden(str(error))
