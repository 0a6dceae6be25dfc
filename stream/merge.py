"""In which order are the records of several partitions taken?

By time: each partition has a clock, the highest timestamp read from it so far, and a record's key is that clock as it
passes. Records are taken by (key, lane, offset), never past a partition that has more records which have not arrived
yet. So the order is the same wherever the reading is cut into batches, and a batch's order can be had again from its
spans alone: that is what the journal holds.
"""

import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Final, NamedTuple

import numpy as np

from stream.errors import OffsetsLost
from stream.log import Reader, Record, TopicPartition

# A partition that runs ahead of the others is held back beyond this much, and taken up again below a quarter of it.
MAX_LANE_RECORDS: Final = 1 << 16
MAX_LANE_BYTES: Final = 32 << 20
# How long a partition that should have more records and gives none holds up the others; then its broker counts as away.
PATIENCE_S: Final = 5.0
# While nothing comes, each reader in turn is waited on for this long.
SLICE_S: Final = 0.005


class Span(NamedTuple):
    """The records of one partition from `start` up to, not including, `end`."""

    partition: TopicPartition
    start: int
    end: int


class Batch(NamedTuple):
    """Records in the order in which they are to be applied, and the spans that they are."""

    records: list[Record]
    spans: list[Span]


class _Lane:
    """One partition's records that were read and not yet taken, with their keys."""

    def __init__(self, partition: TopicPartition, reader: Reader, position: int, clock: int) -> None:
        self.partition, self.reader = partition, reader
        self.position = position  # of the next record to take
        self.clock = clock  # the highest timestamp read
        self.taken_clock = clock  # the highest timestamp taken
        self.records: list[Record] = []
        self.keys: list[int] = []
        self.n_bytes = 0
        self.paused = False
        self._silent_since: float | None = None

    def put(self, records: list[Record]) -> None:
        self.records += records
        keys = list(accumulate((record.timestamp_ms for record in records), max, initial=self.clock))
        self.keys += keys[1:]
        self.clock = keys[-1]
        self.n_bytes += sum(len(record.value) for record in records if record.value is not None)

    def pop(self, count: int) -> Span:
        taken, self.records = self.records[:count], self.records[count:]
        self.taken_clock = self.keys[count - 1]
        del self.keys[:count]
        self.n_bytes -= sum(len(record.value) for record in taken if record.value is not None)
        start, self.position = self.position, taken[-1].offset + 1
        return Span(self.partition, start, self.position)

    def hold_back(self) -> None:
        full = max(len(self.records) / MAX_LANE_RECORDS, self.n_bytes / MAX_LANE_BYTES)
        if full > 1 and not self.paused:
            self.reader.pause(self.partition)
            self.paused = True
        elif full < 0.25 and self.paused:
            self.reader.resume(self.partition)
            self.paused = False

    @property
    def at_end(self) -> bool:
        return not self.records and self.reader.at_end(self.partition)

    def is_waited_for(self, now: float) -> bool:
        """Whether older records than those of the other lanes may still come."""
        if self.records or self.reader.at_end(self.partition):
            self._silent_since = None
            return not self.reader.at_end(self.partition)
        self._silent_since = self._silent_since or now
        return now - self._silent_since < PATIENCE_S


class Merger:
    """Takes records from readers in the order of time. One thread at a time.

    Parameters
    ----------
    readers : one for each topic, so that a topic of small records cannot starve one of large records
    positions : the next offset of each partition that the readers read
    clocks : int [ms], the highest timestamp taken before, for each partition that had one
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        positions: Mapping[TopicPartition, int],
        clocks: Mapping[TopicPartition, int],
    ) -> None:
        self._readers = readers
        of_reader = sorted((partition, reader) for reader in readers for partition in reader.partitions)
        self._lanes = [
            _Lane(partition, reader, positions[partition], clocks.get(partition, 0))
            for partition, reader in sorted(of_reader, key=lambda pair: _lane_order(pair[0]))
        ]
        self._by_partition = {lane.partition: lane for lane in self._lanes}

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The next offset to take of each partition; at its end, behind the markers of transactions."""
        return {
            lane.partition: max(lane.position, lane.reader.end(lane.partition)) if lane.at_end else lane.position
            for lane in self._lanes
        }

    @property
    def clocks(self) -> dict[TopicPartition, int]:
        """The highest timestamp taken from each partition, ms."""
        return {lane.partition: lane.taken_clock for lane in self._lanes}

    @property
    def at_end(self) -> bool:
        """Whether every record that was in the log at the last look was taken."""
        return all(lane.at_end for lane in self._lanes)

    def take(self, max_records: int, timeout_s: float) -> Batch:
        """Return the next records, at most `max_records`; wait up to `timeout_s` while there are none."""
        deadline = time.monotonic() + timeout_s
        self._fill(max_records, 0.0)
        while not (counts := self._ready()):
            if (left := deadline - time.monotonic()) <= 0:
                return Batch([], [])
            self._fill(max_records, min(SLICE_S, left))
        return self._pop(counts, max_records)

    def take_spans(self, spans: Iterable[Span]) -> Batch:
        """Return exactly the records of these spans, in the order in which `take` gave them.

        Raises
        ------
        OffsetsLost : the log no longer has them.
        """
        counts: dict[int, int] = {}
        for span in spans:
            lane = self._by_partition[span.partition]
            while not lane.records or lane.records[-1].offset < span.end - 1:
                if lane.reader.at_end(span.partition):
                    end = lane.records[-1].offset + 1 if lane.records else lane.position
                    raise OffsetsLost(*span.partition, wanted=span.end - 1, low=0, high=end)
                self._fill(MAX_LANE_RECORDS, SLICE_S)
            counts[self._lanes.index(lane)] = bisect_left(lane.records, span.end, key=lambda record: record.offset)
        if not counts:
            return Batch([], [])
        return self._pop(counts, sum(counts.values()))

    def _fill(self, max_records: int, wait_s: float) -> None:
        for reader in self._readers:
            lanes = [self._by_partition[partition] for partition in reader.partitions]
            if any(len(lane.records) < max_records and not lane.paused for lane in lanes):
                for partition, records in _by_partition(reader.read(max_records, wait_s)).items():
                    self._by_partition[partition].put(records)
            for lane in lanes:
                lane.hold_back()

    def _ready(self) -> dict[int, int]:
        """Return how many records of which lanes may be taken now."""
        now = time.monotonic()
        waited_for = [(lane.clock, rank) for rank, lane in enumerate(self._lanes) if lane.is_waited_for(now)]
        limit, limit_rank = min(waited_for, default=(math.inf, 0))
        return {
            rank: count
            for rank, lane in enumerate(self._lanes)
            if lane.keys and (count := (bisect_right if rank <= limit_rank else bisect_left)(lane.keys, limit))
        }

    def _pop(self, counts: Mapping[int, int], max_records: int) -> Batch:
        ranks = sorted(counts)
        keys = np.concatenate([np.array(self._lanes[rank].keys[: counts[rank]], np.int64) for rank in ranks])
        # Lanes stand in their order, so a stable sort by key alone is a sort by (key, lane, offset).
        order = np.argsort(keys, kind="stable")[:max_records]
        of_lane = np.repeat(ranks, [counts[rank] for rank in ranks])[order]
        waiting = list(chain.from_iterable(self._lanes[rank].records[: counts[rank]] for rank in ranks))
        records = [waiting[index] for index in order.tolist()]
        taken = np.bincount(of_lane, minlength=len(self._lanes)).tolist()
        spans = [lane.pop(count) for lane, count in zip(self._lanes, taken, strict=True) if count]
        return Batch(records, spans)


def _lane_order(partition: TopicPartition) -> tuple[bool, str, int]:
    """Messages before labels, where both have the same time: a label cannot be older than its message."""
    return partition.topic.endswith("feedback"), partition.topic, partition.partition


def _by_partition(records: list[Record]) -> dict[TopicPartition, list[Record]]:
    found: dict[TopicPartition, list[Record]] = {}
    for record in records:
        try:
            found[record.partition].append(record)
        except KeyError:
            found[record.partition] = [record]
    return found
