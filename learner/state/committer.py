"""How do lag tools learn how far the learner is?

Its positions are committed under its consumer group, in a thread: nothing depends on it, and Kafka takes a second for a
group's first commit, many for one while its coordinator is away. Only the newest positions are of interest.
"""

import logging
import threading
import time
from collections.abc import Mapping

from driftline.stream.log.base import Log, TopicPartition
from driftline.stream.process import threads

_LOG = logging.getLogger(__name__)


class Committer:
    """Commits positions in the background. `tell` and `close` belong to one thread."""

    def __init__(self, log: Log, group: str) -> None:
        self._log, self._group = log, group
        self._changed = threading.Condition()
        self._wanted: Mapping[TopicPartition, int] | None = None
        self._busy = self._closing = False
        threads.start("committer", self._run)

    def tell(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit these, in the place of any that were not committed yet."""
        with self._changed:
            self._wanted = positions
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Wait a little for what was told last."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (self._wanted is not None or self._busy) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self._closing = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closing or self._wanted is not None)
                if self._closing or self._wanted is None:
                    return
                positions, self._wanted, self._busy = self._wanted, None, True
            try:
                self._log.commit(self._group, positions)
            except Exception as error:  # a damaged page, too: who learns does not need it
                _LOG.warning("positions were not committed: %s", error)
