"""Is the log still the one that is being learned from, and does it answer?

A thread asks the log for its topics' identities and watermarks every LOOK_S seconds; the loop never waits for that. A
look is compared with the positions of the moment at which it was asked for: what was read by then came from the topics
whose identities it finds. A checkpoint is written only once a look asked for after its last record has confirmed them
(`ask`, `answer`), because Kafka's client goes on at its offset in a topic that was made again, without a word.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from driftline.learner.disk.positions import Standing
from driftline.stream.errors import DriftlineError, LogError, LogUnavailable
from driftline.stream.log.base import Log, TopicState
from driftline.stream.process import threads

LOOK_S: Final = 3.0
RETRY_S: Final = 1.0
# Without an answer for this long the learner says that it waits.
PATIENCE_S: Final = 5.0
_LOG: Final = logging.getLogger(__name__)
# A broker that has just started may not know a topic yet: one that is missing has to be so twice, this far apart.
MISSING_S: Final = 1.0


class Look(NamedTuple):
    """What the log said, and how far the learner was when it was asked."""

    standing: Standing
    log: Mapping[str, TopicState]


class Watch:
    """Looks at the log in a thread of its own. The methods belong to one other thread."""

    def __init__(self, log: Log, topics: Sequence[str]) -> None:
        self._log, self._topics = log, topics
        self._changed = threading.Condition()
        self._asked: tuple[int, Standing] | None = None
        self._number = 0  # of the newest question; the answers to older ones are dropped
        self._found: Look | DriftlineError | None = None
        self._unanswered_since: float | None = None
        self._error: DriftlineError | None = None
        self._next = 0.0
        self._closing = False
        threads.start("log-watch", self._run)

    def turn(self, standing: Callable[[], Standing]) -> Look | None:
        """Ask where it is time to; return what a look found, once.

        Raises
        ------
        LogError : the log can be reached no longer.
        """
        if self._found is None and (self._asked is not None or time.monotonic() < self._next):
            return None
        with self._changed:
            found, self._found = self._found, None
            if found is None:
                self._ask(standing())
                return None
        return self._judge(found)

    def hurry(self) -> None:
        """Look again at the next turn; an answer that is still to come is dropped."""
        with self._changed:
            self._number += 1
            self._asked = self._found = None
            self._next = 0.0

    def ask(self, standing: Standing) -> None:
        """Have the log looked at now."""
        self.hurry()
        with self._changed:
            self._ask(standing)

    def answer(self, timeout_s: float) -> Look | None:
        """Return what was found by the look that was asked for last; None where the log does not answer in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._found is not None, timeout_s)
            found, self._found = self._found, None
        return None if found is None else self._judge(found)

    @property
    def problem(self) -> str:
        """Say that the log does not answer, once it has not for PATIENCE_S; "" while it does."""
        since = self._unanswered_since
        silent_s = time.monotonic() - since if since is not None else 0.0
        if silent_s < PATIENCE_S:
            return ""
        return f"the log has not answered for {silent_s:.0f} s" + (f": {self._error}" if self._error else "")

    def close(self) -> None:
        """Look no more. The thread ends once the log has answered or given up."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _ask(self, standing: Standing) -> None:
        self._number += 1
        self._asked = self._number, standing
        self._unanswered_since = self._unanswered_since or time.monotonic()
        self._changed.notify_all()

    def _judge(self, found: Look | DriftlineError) -> Look | None:
        if isinstance(found, Look):
            self._next = time.monotonic() + LOOK_S
            self._unanswered_since = self._error = None
            return found
        if not isinstance(found, LogUnavailable):
            raise found
        self._next, self._error = time.monotonic() + RETRY_S, found
        return None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._asked is not None)
                if self._closing or self._asked is None:
                    return
                number, standing = self._asked
            found: Look | DriftlineError
            try:
                found = Look(standing, self._describe())
            except DriftlineError as error:
                found = error
            except Exception as error:  # the loop has to hear of it: without an answer no checkpoint counts
                _LOG.exception("looking at the log has failed")
                found = LogError(f"looking at the log has failed: {error!r}")
            with self._changed:
                if number == self._number:
                    self._asked, self._found = None, found
                    self._changed.notify_all()

    def _describe(self) -> Mapping[str, TopicState]:
        log = self._log.describe(self._topics)
        if len(log) < len(self._topics):
            time.sleep(MISSING_S)
            log = self._log.describe(self._topics)
        return log
