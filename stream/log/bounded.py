"""How is a log read up to given positions, and not beyond?

So that what is read does not depend on what is appended meanwhile: with the merge (merge.py), which then sees the end
of each partition, the order of a stretch is a function of its records alone.
"""

import time
from collections.abc import Mapping
from typing import Final

import numpy as np

from driftline.stream.errors import LogUnavailable
from driftline.stream.log.base import Chunk, Reader, TopicPartition

SILENT_S: Final = 60.0  # of waiting for records that must be there


class Bounded(Reader):
    """A reader that is at its end at these positions.

    Parameters
    ----------
    reader : which it owns from now on
    positions, ends : from where it reads, and up to where; the records before `ends` must have been there

    Raises
    ------
    LogUnavailable : from `fetch`, which waited for SILENT_S without any of them.
    """

    def __init__(
        self, reader: Reader, positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> None:
        self.partitions = reader.partitions
        self._reader, self._ends = reader, ends
        self._left = set(self.partitions)
        self._paused: set[TopicPartition] = set()
        self._waited_s = 0.0  # since any came
        for partition in self.partitions:
            if positions[partition] >= ends[partition]:
                self._finish(partition)

    def fetch(self, max_records: int, timeout_s: float) -> list[Chunk]:
        """Return what is there before the ends; see Reader.fetch."""
        if not self._left:
            return []
        found = []
        asked = time.monotonic()
        chunks = self._reader.fetch(max_records, timeout_s)
        if chunks or self._left <= self._paused:
            self._waited_s = 0.0
        else:
            self._waited_s += time.monotonic() - asked
        for chunk in chunks:
            if chunk.partition not in self._left:
                continue
            end = self._ends[chunk.partition]
            count = int(np.searchsorted(chunk.offsets, end))
            if int(chunk.offsets[-1]) + 1 >= end:
                self._finish(chunk.partition)
            if count:
                found.append(chunk.part(0, count))
        for partition in list(self._left):  # its last offsets may have no records
            if self._reader.at_end(partition) and self._reader.end(partition) >= self._ends[partition]:
                self._finish(partition)
        if self._left and self._waited_s > SILENT_S:
            waited_for = ", ".join(map(str, sorted(self._left)))
            raise LogUnavailable(f"{waited_for}: the log gave no record for {SILENT_S:g} s, and there must be more")
        return found

    def at_end(self, partition: TopicPartition) -> bool:
        """Tell whether all before the end was read."""
        return partition not in self._left

    def end(self, partition: TopicPartition) -> int:
        """Return the end."""
        return self._ends[partition]

    def pause(self, partition: TopicPartition) -> None:
        """Leave a partition out of `fetch` until it is resumed."""
        if partition in self._left:
            self._paused.add(partition)
            self._reader.pause(partition)

    def resume(self, partition: TopicPartition) -> None:
        """Take a paused partition up again."""
        if partition in self._left:
            self._paused.discard(partition)
            self._reader.resume(partition)

    def close(self) -> None:
        """Give back what the reader has."""
        self._reader.close()

    def _finish(self, partition: TopicPartition) -> None:
        self._left.discard(partition)
        self._reader.pause(partition)
