"""How does one that only follows get what the leader shows beside its model?

A thread reads the shared topic into the data directory (replica.py): so a disk that is slow holds up nothing that is
learned here. The status of the directory is the follower's own; what the leader says of all that was learned is put
into it.
"""

import logging
import time
from typing import Final

from driftline.learner.report.status import Status
from driftline.learner.shared.replica import Replica
from driftline.stream.log.base import Log
from driftline.stream.process import threads
from driftline.stream.process.settings import StreamSettings

TURN_S: Final = 0.05
RETRY_S: Final = 1.0
CLOSE_S: Final = 10.0
# What is the leader's to say: the rest is of this machine, of this process, or of the model that is served here.
FIGURES: Final = (
    *("labels", "places", "places_left", "counts", "join", "pending", "waiting", "positions", "progress", "drift"),
    *("losses", "rebuilt", "erased", "checkpoint", "batch", "window_bytes", "checkpoint_seconds"),
    *("checkpoint_pause_seconds", "gate", "over_quota", "stalls", "uploads"),
)
_LOG: Final = logging.getLogger(__name__)


class Followed:
    """What comes from the leader. Any thread.

    Parameters
    ----------
    log : where the topic lies; it is made where it is missing

    Attributes
    ----------
    leader : its last status, by this machine's clock; None: nobody has led yet

    Raises
    ------
    LogError : the topic cannot be made or read.
    """

    def __init__(self, log: Log, stream: StreamSettings) -> None:
        self._replica = Replica(log, stream, shows_status=False)
        self._closing = False
        self._why = ""
        self._thread = threads.start("shared-topic", self._run)

    @property
    def leader(self) -> Status | None:
        """What it says of itself."""
        return self._replica.leader

    @property
    def behind(self) -> str:
        """Why what is here is not up to date; "" where it is."""
        return self._why or self._replica.behind

    def turn(self) -> None:
        """Do nothing: a thread does it."""

    def note_epoch(self, epoch: int) -> None:
        """Take it that a leader of this epoch is there: the journal says so."""
        self._replica.note_epoch(epoch)

    def complete(self, status: Status) -> None:
        """Put what the leader says into a status."""
        leader = self._replica.leader
        if leader is not None:
            for name in FIGURES:
                setattr(status, name, getattr(leader, name))

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            while not self._closing:
                try:
                    self._replica.turn(TURN_S)
                    self._why = ""
                except Exception as error:  # noqa: BLE001, RUF100  (whatever it is, it must not end who follows)
                    self._why = str(error) or repr(error)
                    _LOG.warning("what is shared is not up to date: %s", self._why)
                    time.sleep(RETRY_S)
        finally:
            self._replica.close()
