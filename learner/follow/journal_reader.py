"""What does the journal say next, to whoever only follows, and when was it said?"""

from typing import Final

from driftline.learner.cluster.entries import Entry
from driftline.learner.cluster.order import Order
from driftline.stream.log.base import Log, TopicPartition

MANY: Final = 16  # records read at once: an entry may be large, and is held until it was learned


class JournalReader:
    """A journal, read on from where a checkpoint is. One thread.

    Attributes
    ----------
    time_ms : when the log took the last record that was read; None: none was
    """

    def __init__(self, log: Log, topic: str, order: Order) -> None:
        self._partition, self.order = TopicPartition(topic, 0), order
        self._reader = log.reader({self._partition: order.offset})
        self.time_ms: int | None = None

    @property
    def offset(self) -> int:
        """Of the record that is read next."""
        return self.order.offset

    @property
    def at_end(self) -> bool:
        """Whether the last read found no more."""
        return self._reader.at_end(self._partition)

    def read(self, timeout_s: float) -> list[tuple[int, int, Entry]]:
        """Return what counts of what is there, each with its last record's offset and time (ms).

        Raises
        ------
        OffsetsLost : it is gone, trimmed behind a newer checkpoint.
        LogUnavailable : the log refuses it.
        """
        found = []
        for record in self._reader.read(MANY, timeout_s):
            self.time_ms = record.timestamp_ms
            if (entry := self.order.take(record.offset, record.value)) is not None:
                found.append((record.offset, record.timestamp_ms, entry))
        return found

    def close(self) -> None:
        """Read no more."""
        self._reader.close()
