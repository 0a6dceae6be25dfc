"""How far is what a follower has behind the end of the journal?

In entries: the end, which is asked for about once a second in a thread of its own, less how far it is. In seconds, at
most: of the two that are known the lesser. Since the last look that found nothing more than what it has now; and since
the log took the entry behind which it is. The first is right where entries are rare, the second where it has far to go.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from driftline.stream.errors import DriftlineError
from driftline.stream.log.base import Log, TopicState
from driftline.stream.process import threads

LOOK_S: Final = 1.0
LOOKS: Final = 600  # that are kept
SILENT_S: Final = 5.0  # without an answer for so long nothing is known


class Behind(NamedTuple):
    """How far."""

    entries: int
    seconds: float  # at most


class _Look(NamedTuple):
    began: float  # time.monotonic()
    end: int


class Lag:
    """Looks at some topics, of which the first is the journal. `start` and `close` once; the rest from any thread.

    Attributes
    ----------
    found : the topics that there are, at the last look; None before the first
    problem : why the last look failed; ""
    """

    def __init__(self, log: Log, topics: tuple[str, ...]) -> None:
        self._log, self._topics = log, topics
        self.found: Mapping[str, TopicState] | None = None
        self.problem = ""
        self._looked_at: float | None = None
        self._looks: deque[_Look] = deque()
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._thread = threads.make("journal-end", self._run)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> None:
        """Look once."""
        began = time.monotonic()
        try:
            found = self._log.describe(self._topics)
        except DriftlineError as error:
            self.problem = str(error)
            return
        journal = found.get(self._topics[0])
        end = 0 if journal is None else journal.watermarks[0].high
        with self._lock:
            if self._looks and end < self._looks[-1].end:  # it was made again
                self._looks.clear()
            self._looks.append(_Look(began, end))
            if len(self._looks) > LOOKS:  # of those that are old fewer will do
                self._looks = deque(look for at, look in enumerate(self._looks) if at % 2 == 0 or at > LOOKS - 60)
        self.found, self.problem, self._looked_at = found, "", time.monotonic()

    def behind(self, offset: int, time_ms: int | None) -> Behind | None:
        """Tell how far what lies before an offset is behind the end; None where that is not known.

        Parameters
        ----------
        time_ms : when the log took the entry before that offset; None: not known
        """
        now = time.monotonic()
        if self._looked_at is None or now - self._looked_at > SILENT_S:
            return None
        with self._lock:
            while len(self._looks) > 1 and self._looks[1].end <= offset:
                self._looks.popleft()
            first, last = self._looks[0], self._looks[-1]
        if last.end <= offset:
            return Behind(0, 0.0)
        bounds = [] if first.end > offset else [now - first.began]
        if time_ms is not None:
            bounds.append(max(0.0, time.time() - time_ms / 1000))
        return Behind(last.end - offset, min(bounds)) if bounds else None

    def _run(self) -> None:
        while not self._closing.is_set():
            self.look()
            self._closing.wait(LOOK_S)
