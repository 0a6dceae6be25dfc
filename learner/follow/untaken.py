"""Does any learner take what comes?

A follower hears of a learner only by what that learns. Where records came since the last batch, and for a while there
was no batch, nobody takes them. Only what came since counts: the end of a partition may lie behind its last record.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from driftline.stream.log.base import TopicState

PATIENCE_S: Final = 15.0  # longer than until another learner leads


class Untaken:
    """Records that nobody takes. One thread.

    Parameters
    ----------
    topics : that a learner reads
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics
        self._batch, self._ends, self._since = -1, 0, 0.0

    def see(self, found: Mapping[str, TopicState], batch: int, now: float) -> int:
        """Return how many came and were not taken, once that is so for a while; else 0.

        Parameters
        ----------
        found : the topics at the last look
        batch : the last one that was learned
        now : time.monotonic()
        """
        ends = sum(mark.high for topic in self._topics if topic in found for mark in found[topic].watermarks.values())
        if batch != self._batch or ends <= self._ends:
            self._batch, self._ends, self._since = batch, ends, now
        return ends - self._ends if now - self._since > PATIENCE_S else 0
