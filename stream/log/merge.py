"""In which order are the records of several partitions taken?

By time: each partition has a clock (clock.py), in short the highest timestamp read from it so far, and a record's key
is that clock as it passes. Records are taken by (key, lane, offset), never past a partition that has more records which
have not arrived yet. So the order is the same wherever the reading is cut into batches, and a batch's order can be had
again from its spans alone: that is what the journal holds. In this order all records pass one more clock, which says
what time each counts as.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.stream.errors import OffsetsLost
from driftline.stream.limits import ClockRule
from driftline.stream.log.base import Chunk, Reader, Record, TopicPartition
from driftline.stream.log.clock import Clock, advance, believed
from driftline.stream.wire.column import Column

# A partition that runs ahead of the others is held back beyond this much, and taken up again below a quarter of it.
MAX_LANE_RECORDS: Final = 1 << 16
MAX_LANE_BYTES: Final = 32 << 20
# A batch ends here at the latest, but has one record: thousands of large ones would not fit into memory.
MAX_BATCH_BYTES: Final = 32 << 20
# How long a partition that should have more records and gives none holds up the others; then its broker counts as away,
# and they get ahead of it by `ahead_ms` at most.
PATIENCE_S: Final = 5.0
# While nothing comes, each reader in turn is waited on for this long.
SLICE_S: Final = 0.005


class Span(NamedTuple):
    """The records of one partition from `start` up to, not including, `end`.

    `records` is how many these are: fewer than offsets, where transactions or compaction took some. None: not known.
    """

    partition: TopicPartition
    start: int
    end: int
    records: int | None = None


class Batch(msgspec.Struct, gc=False):
    """Records in the order in which they are to be applied.

    Attributes
    ----------
    chunks : of one partition each
    order : int64 [n], each record's place in the chunks as they follow one another
    spans : which records these are
    disbelieved : how many timestamps do not count; the clock stands there in their place
    claims_ms : int64 [n], in the order: the records' times, of those on trial (clock.py) their own; None: as they count
    """

    chunks: list[Chunk]
    order: NDArray[np.int64]
    spans: list[Span]
    disbelieved: int = 0
    claims_ms: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return how many records these are."""
        return len(self.order)

    def __getitem__(self, index: int) -> Record:
        """Return one record."""
        place = int(self.order[index])
        for chunk in self.chunks:
            if place < len(chunk):
                return chunk[place]
            place -= len(chunk)
        raise IndexError(index)


NOTHING: Final = Batch([], np.empty(0, np.int64), [])


class _Lane:
    """One partition's records that were read and not yet taken, with their keys."""

    def __init__(self, partition: TopicPartition, reader: Reader, position: int, clock: Clock) -> None:
        self.partition, self.reader = partition, reader
        self.position = position  # of the next record to take
        self.clock = clock  # behind what was read
        self.taken_clock = clock  # behind what was taken
        self.rule = ClockRule()
        self.records = Chunk.empty(partition)
        self.keys = np.empty(0, np.int64)
        self.n_bytes = 0
        self.paused = False
        self._silent_since: float | None = None
        self._silent_at_ms: float | None = None  # where it was then, or where the others were that had records

    def put(self, records: Chunk) -> None:
        keys, _, self.clock = advance(self.clock, records.timestamps_ms, self.rule, records.appended_ms)
        self.records, self.keys = (
            (self.records + records, np.concatenate([self.keys, keys])) if len(self.keys) else (records, keys)
        )
        self.n_bytes += _size(records)

    def pop(self, count: int) -> Chunk:
        taken, self.records = self.records.part(0, count), self.records.part(count)
        *_, self.taken_clock = advance(self.taken_clock, taken.timestamps_ms, self.rule, taken.appended_ms)
        self.keys = self.keys[count:]
        self.n_bytes -= _size(taken)
        self.position = int(taken.offsets[-1]) + 1
        return taken

    def obey(self, rule: ClockRule) -> None:
        self.rule, self.clock = rule, self.taken_clock
        if len(self.keys):
            waiting = self.records
            self.keys, _, self.clock = advance(self.clock, waiting.timestamps_ms, rule, waiting.appended_ms)

    def mark(self) -> tuple[Any, ...]:
        """Return what `pop` changes; nothing in it is changed in place."""
        return self.position, self.taken_clock, self.records, self.keys, self.n_bytes

    def go_back(self, mark: tuple[Any, ...]) -> None:
        self.position, self.taken_clock, self.records, self.keys, self.n_bytes = mark

    def hold_back(self) -> None:
        full = max(len(self.keys) / MAX_LANE_RECORDS, self.n_bytes / MAX_LANE_BYTES)
        if full > 1 and not self.paused:
            self.reader.pause(self.partition)
            self.paused = True
        elif full < 0.25:
            self.go_on()

    def go_on(self) -> None:
        if self.paused:
            self.reader.resume(self.partition)
            self.paused = False

    def reaches(self, end: int) -> bool:
        return bool(len(self.keys)) and int(self.records.offsets[-1]) >= end - 1

    @property
    def at_end(self) -> bool:
        return not len(self.keys) and self.reader.at_end(self.partition)

    def limit_ms(self, now: float, patience_s: float, ahead_ms: float, first_ms: float) -> float:
        """Return the key up to which records may be taken of all lanes: of this one, older ones may still come.

        Parameters
        ----------
        first_ms : the lowest key that waits in any lane
        """
        if len(self.keys) or self.reader.at_end(self.partition):
            self._silent_since = self._silent_at_ms = None
            return math.inf if self.reader.at_end(self.partition) else self.clock.now_ms
        self._silent_since = self._silent_since or now
        if now - self._silent_since < patience_s:
            return self.clock.now_ms
        self._silent_at_ms = self._silent_at_ms or self.clock.now_ms or first_ms
        return self._silent_at_ms + ahead_ms


class Merger:
    """Takes records from readers in the order of time. One thread at a time.

    Parameters
    ----------
    readers : one for each topic of a log, so that a topic of small records cannot starve one of large records; read in
        this order: records of a later one that were appended before those of an earlier one are there when those are
    positions : the next offset of each partition that the readers read
    clocks : behind the last record that was taken before, for each partition that had one
    rule : how far a record may move a clock
    clock : of all partitions, behind the last record that was taken before; an attribute, too
    patience_s : how long a partition that should have more records holds up the others, and is asked for records that
        were in it; None: PATIENCE_S
    ahead_ms : by how much, in the log's time, the others may then get ahead of it: less than for how long messages and
        labels wait for one another
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        positions: Mapping[TopicPartition, int],
        clocks: Mapping[TopicPartition, Clock],
        rule: ClockRule = ClockRule(),  # noqa: B008
        clock: Clock = Clock(),  # noqa: B008
        patience_s: float | None = None,
        ahead_ms: float = math.inf,
    ) -> None:
        self._readers = readers
        self._ahead_ms = ahead_ms
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        of_reader = sorted((partition, reader) for reader in readers for partition in reader.partitions)
        self._lanes = [
            _Lane(partition, reader, positions[partition], clocks.get(partition, Clock()))
            for partition, reader in sorted(of_reader, key=lambda pair: _lane_order(pair[0]))
        ]
        self._by_partition = {lane.partition: lane for lane in self._lanes}
        self.clock = clock
        self._before: tuple[list[tuple[Any, ...]], Clock] = [], clock  # the last batch was taken
        self.obey(rule)

    def obey(self, rule: ClockRule) -> None:
        """Go by this rule from the next record on that is taken."""
        self._rule = rule
        for lane in self._lanes:
            lane.obey(rule)

    def set(self, clocks: Mapping[TopicPartition, Clock], clock: Clock) -> None:
        """Go by these clocks, behind the last record that was taken, from the next one on."""
        self.clock = clock
        for lane in self._lanes:
            lane.taken_clock = clocks.get(lane.partition, Clock())
            lane.obey(self._rule)

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The next offset to take of each partition; at its end, behind the markers of transactions."""
        return {
            lane.partition: max(lane.position, lane.reader.end(lane.partition)) if lane.at_end else lane.position
            for lane in self._lanes
        }

    @property
    def clocks(self) -> dict[TopicPartition, Clock]:
        """Each partition's clock behind the last record that was taken."""
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
                return NOTHING
            more = self._readers[0].wait(left) if self.at_end else None
            if more is False:
                return NOTHING
            self._fill(max_records, 0.0 if more else min(SLICE_S, left))
        return self._pop(counts, max_records, MAX_BATCH_BYTES)

    def put_back(self) -> None:
        """Undo the last `take`, which gave some: its records are the next ones again."""
        marks, self.clock = self._before
        for lane, mark in zip(self._lanes, marks, strict=True):
            lane.go_back(mark)

    def take_spans(self, spans: Iterable[Span], on_wait: Callable[[float], None] = lambda _: None) -> Batch:
        """Return the records of these spans, in the order in which `take` gave them.

        Some may be missing inside a span: it is for the caller to compare its `records` with what was found.

        Parameters
        ----------
        on_wait : called while records have to be waited for, with the seconds since any came; may raise

        Raises
        ------
        OffsetsLost : the log begins behind one of them, or ends before, and goes on to for `patience_s`.
        """
        counts: dict[int, int] = {}
        wanted = list(spans)
        for span in wanted:
            lane = self._by_partition[span.partition]
            self._read_up_to(lane, span.end, on_wait)
            counts[self._lanes.index(lane)] = int(np.searchsorted(lane.records.offsets, span.end))
        batch = self._pop(counts, sum(counts.values())) if any(counts.values()) else NOTHING
        for span in wanted:
            lane = self._by_partition[span.partition]
            lane.position = max(lane.position, span.end)
        return batch

    def _read_up_to(self, lane: _Lane, end: int, on_wait: Callable[[float], None]) -> None:
        """Read until a lane has all that there is before `end`, however much that is: `take` once gave it at once.

        An end that was seen before the records were there proves nothing, and neither does that of a broker which leads
        since a moment: it may not know yet how far all replicas have come. So the end has to stay where it is.
        """
        came = time.monotonic()
        while not lane.reaches(end):
            if lane.reader.at_end(lane.partition):
                if lane.reader.end(lane.partition) >= end:
                    return  # what is missing is its last records
                if time.monotonic() - came > self._patience_s:
                    high = int(lane.records.offsets[-1]) + 1 if len(lane.keys) else lane.position
                    raise OffsetsLost(*lane.partition, wanted=end - 1, low=0, high=high)
            if self._read(lane.reader, MAX_LANE_RECORDS, SLICE_S, needed=lane):
                came = time.monotonic()
            on_wait(time.monotonic() - came)

    def _fill(self, max_records: int, wait_s: float) -> None:
        for reader in self._readers:
            self._read(reader, max_records, wait_s)

    def _read(self, reader: Reader, max_records: int, wait_s: float, needed: _Lane | None = None) -> bool:
        """Read what a reader has; tell whether anything came. The lane that is needed is not held back."""
        lanes = [self._by_partition[partition] for partition in reader.partitions]
        if needed is not None:
            needed.go_on()
        chunks = []
        if needed is not None or any(len(lane.keys) < max_records and not lane.paused for lane in lanes):
            chunks = reader.fetch(max_records, wait_s)
        for chunk in chunks:
            self._by_partition[chunk.partition].put(chunk)
        for lane in lanes:
            if lane is not needed:
                lane.hold_back()
        return bool(chunks)

    def _ready(self) -> dict[int, int]:
        """Return how many records of which lanes may be taken now."""
        now = time.monotonic()
        first_ms = min((float(lane.keys[0]) for lane in self._lanes if len(lane.keys)), default=0.0)
        limit, limit_rank = min(
            (lane.limit_ms(now, self._patience_s, self._ahead_ms, first_ms), rank)
            for rank, lane in enumerate(self._lanes)
        )
        counts = {}
        for rank, lane in enumerate(self._lanes):
            count = len(lane.keys)
            if count and lane.keys[-1] >= limit:
                count = int(np.searchsorted(lane.keys, limit, side="right" if rank <= limit_rank else "left"))
            if count:
                counts[rank] = count
        return counts

    def _pop(self, counts: Mapping[int, int], max_records: int, max_bytes: float = math.inf) -> Batch:
        counts = {rank: min(counts[rank], max_records) for rank in sorted(counts)}
        ranks = list(counts)
        keys = np.concatenate([self._lanes[rank].keys[: counts[rank]] for rank in ranks])
        # Lanes stand in their order, so a stable sort by key alone is a sort by (key, lane, offset).
        order = np.argsort(keys, kind="stable")[:max_records]
        if sum(self._lanes[rank].n_bytes for rank in ranks) > max_bytes:
            sizes = np.concatenate([_sizes(self._lanes[rank].records.part(0, counts[rank])) for rank in ranks])
            order = order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), max_bytes, side="right")))]
        of_lane = np.repeat(ranks, list(counts.values()))
        taken = np.bincount(of_lane[order], minlength=len(self._lanes)).tolist()
        # Of each lane the first records were taken: places among those are places among all, less what was left before.
        left = np.cumsum([0, *(counts.get(rank, 0) - count for rank, count in enumerate(taken))])
        self._before = [lane.mark() for lane in self._lanes], self.clock
        chunks, spans = [], []
        for lane, count in zip(self._lanes, taken, strict=True):
            if count:
                start = lane.position
                chunks.append(lane.pop(count))
                spans.append(Span(lane.partition, start, lane.position, count))
        order -= left[of_lane[order]]
        return self._dated(chunks, order, spans)

    def _dated(self, chunks: list[Chunk], order: NDArray[np.int64], spans: list[Span]) -> Batch:
        """Return a batch with the times that count."""
        if self._rule.max_jump_ms is None or not chunks:
            return Batch(chunks, order, spans)
        times_ms = np.concatenate([chunk.timestamps_ms for chunk in chunks])
        noted = [chunk.appended_ms for chunk in chunks if chunk.appended_ms is not None]
        appended_ms = np.concatenate(noted)[order] if len(noted) == len(chunks) else None
        own_ms = times_ms[order]
        keys, on_trial, self.clock = advance(self.clock, own_ms, self._rule, appended_ms)
        times_ms[order], disbelieved = believed(own_ms, keys, self._rule.max_jump_ms)
        claims_ms = None if on_trial is None else np.where(on_trial, own_ms, times_ms[order])
        if disbelieved:
            parts = np.split(times_ms, np.cumsum([len(chunk) for chunk in chunks])[:-1])
            replace = msgspec.structs.replace
            chunks = [replace(chunk, timestamps_ms=part) for chunk, part in zip(chunks, parts, strict=True)]
        return Batch(chunks, order, spans, disbelieved, claims_ms)


def _lane_order(partition: TopicPartition) -> tuple[bool, str, int]:
    """Messages before labels, where both have the same time: a label cannot be older than its message."""
    return partition.topic.endswith("feedback"), partition.topic, partition.partition


def _sizes(records: Chunk) -> NDArray[np.int64]:
    return np.diff(Column.of(records.values).starts)


def _size(records: Chunk) -> int:
    return Column.of(records.values).n_bytes
