"""Records are taken in one order, however they arrive and wherever the taking is cut into batches."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.stream.errors import OffsetsLost
from driftline.stream.log import merge
from driftline.stream.log.base import Chunk, Reader, Record, TopicPartition
from driftline.stream.log.clock import Clock
from driftline.stream.log.merge import Batch, Merger, Span
from tests.data import chunks_of

LANES = [TopicPartition("messages", 0), TopicPartition("messages", 1), TopicPartition("feedback", 0)]
PARTS = (LANES[:2], LANES[2:])


class ScriptedReader(Reader):
    """Gives records out in a scripted order of arrival, which no real log can be made to do."""

    def __init__(self, partitions: list[TopicPartition], arrivals: list[Record]) -> None:
        self.partitions = partitions
        self._arrivals = arrivals
        self.paused: set[TopicPartition] = set()
        self.times_paused = 0

    def fetch(self, max_records: int, timeout_s: float) -> list[Chunk]:  # noqa: ARG002
        found = [record for record in self._arrivals if record.partition not in self.paused][:max_records]
        taken = set(map(id, found))
        self._arrivals = [record for record in self._arrivals if id(record) not in taken]
        return chunks_of(found)

    def at_end(self, partition: TopicPartition) -> bool:
        return not any(record.partition == partition for record in self._arrivals)

    def pause(self, partition: TopicPartition) -> None:
        self.paused.add(partition)
        self.times_paused += 1

    def resume(self, partition: TopicPartition) -> None:
        self.paused.discard(partition)

    def close(self) -> None: ...


def records(times: list[list[int]]) -> list[list[Record]]:
    return [
        [Record(lane, offset, time, None, b"x") for offset, time in enumerate(of_lane)]
        for lane, of_lane in zip(LANES, times, strict=True)
    ]


def shuffled(lanes: list[list[Record]], draw: st.DataObject) -> list[Record]:
    """Return the records in an order of arrival that keeps each lane's own."""
    turns = draw.draw(st.permutations([number for number, lane in enumerate(lanes) for _ in lane]))
    waiting = [iter(lane) for lane in lanes]
    return [next(waiting[number]) for number in turns]


def merger(arrivals: list[Record], start: dict[TopicPartition, int] | None = None) -> Merger:
    readers = [
        ScriptedReader(LANES[:2], [record for record in arrivals if record.partition in LANES[:2]]),
        ScriptedReader(LANES[2:], [record for record in arrivals if record.partition in LANES[2:]]),
    ]
    return Merger(readers, start or dict.fromkeys(LANES, 0), {})


def take_all(source: Merger, sizes: st.DataObject | None = None) -> list[Batch]:
    batches = []
    while not source.at_end:
        size = sizes.draw(st.integers(1, 7)) if sizes else 1000
        batches.append(source.take(size, 0.0))
    return [batch for batch in batches if len(batch)]


TIMES = st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=3, max_size=3)


@given(TIMES, st.data())
def test_the_order_depends_on_nothing_but_the_records(times: list[list[int]], data: st.DataObject) -> None:
    lanes = records(times)
    keyed = [
        (key, rank, record)
        for rank, lane in enumerate(lanes)
        for record, key in zip(lane, accumulate((record.timestamp_ms for record in lane), max), strict=True)
    ]
    expected = [record for _, _, record in sorted(keyed, key=lambda item: item[:2])]
    batches = take_all(merger(shuffled(lanes, data)), data)
    assert [record for batch in batches for record in batch] == expected


@given(TIMES, st.data())
def test_a_batch_can_be_had_again_from_its_spans(times: list[list[int]], data: st.DataObject) -> None:
    lanes = records(times)
    batches = take_all(merger(shuffled(lanes, data)), data)
    again = merger(shuffled(lanes, data))
    for batch in batches:
        taken = again.take_spans(batch.spans)
        assert (list(taken), taken.spans) == (list(batch), batch.spans)


@given(TIMES, st.data())
def test_going_on_from_positions_and_clocks_is_the_same(times: list[list[int]], data: st.DataObject) -> None:
    lanes = records(times)
    first = merger(shuffled(lanes, data))
    before = first.take(data.draw(st.integers(1, 10)), 0.0)
    positions, clocks = first.positions, first.clocks
    rest = [record for lane in lanes for record in lane if record.offset >= positions[record.partition]]
    second = merger(rest, positions)
    for lane in second._lanes:
        lane.clock = lane.taken_clock = clocks[lane.partition]
    whole = take_all(merger([record for lane in lanes for record in lane]))
    after = [record for batch in take_all(second) for record in batch]
    assert list(before) + after == [record for batch in whole for record in batch]


@given(TIMES, st.integers(1, 7), st.data())
def test_what_was_put_back_comes_again(times: list[list[int]], size: int, data: st.DataObject) -> None:
    arrivals = shuffled(records(times), data)
    whole = [record for batch in take_all(merger(arrivals)) for record in batch]
    source, found = merger(arrivals), []
    while not source.at_end:
        if len(source.take(size, 0.0)):
            source.put_back()
        found += source.take(size, 0.0)
    assert found == whole


def test_a_message_comes_before_a_label_of_the_same_millisecond() -> None:
    (batch,) = take_all(merger([record for lane in reversed(records([[5], [5], [5]])) for record in lane]))
    assert [record.partition for record in batch] == LANES


def test_gaps_in_the_offsets_belong_to_the_span_before() -> None:
    found = [Record(LANES[0], offset, 1, None, b"x") for offset in (0, 1, 7, 9)]
    source = merger(found)
    batch = source.take(3, 0.0)
    assert [(span.start, span.end) for span in batch.spans] == [(0, 8)]
    assert list(merger(found).take_spans(batch.spans)) == list(batch) == found[:3]
    assert source.take(3, 0.0).spans[0][1:] == (8, 10, 1), "one record, and a gap before it"


def test_spans_that_the_log_no_longer_has_are_an_error() -> None:
    lanes = records([[1, 2, 3], [], []])
    (batch,) = take_all(merger(lanes[0]))
    source = Merger([ScriptedReader(LANES, lanes[0][:2])], dict.fromkeys(LANES, 0), {}, patience_s=0.0)
    with pytest.raises(OffsetsLost, match="next offset to read is 2, but the log ends at 2"):
        source.take_spans(batch.spans)


def test_an_end_that_was_seen_before_the_records_came_is_none() -> None:
    """Who follows another one is told of records which his own reader has not been given yet."""

    class Late(ScriptedReader):
        """Says for some more reads that it ends where it ended."""

        reads_left = 0

        def fetch(self, max_records: int, timeout_s: float) -> list[Chunk]:
            self.reads_left -= 1
            return super().fetch(max_records, timeout_s) if self.reads_left < 0 else []

        def at_end(self, partition: TopicPartition) -> bool:
            return self.reads_left >= 0 or super().at_end(partition)

    lanes = records([[1, 2, 3], [], []])
    (batch,) = take_all(merger(lanes[0]))
    reader, waited = Late(LANES, lanes[0][:1]), list[float]()
    source = Merger([reader], dict.fromkeys(LANES, 0), {})
    assert len(source.take(10, 0.0)) == 1
    assert source.at_end
    reader._arrivals, reader.reads_left = lanes[0][1:], 3
    rest = source.take_spans([Span(LANES[0], 1, 3, 2)], waited.append)
    assert list(rest) == list(batch)[1:]
    assert len(waited) == 4


def test_a_partition_that_runs_ahead_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "MAX_LANE_RECORDS", 1000)
    n_records = 3000
    ahead = [Record(LANES[0], offset, offset, None, b"x") for offset in range(n_records)]
    behind = [Record(LANES[1], 0, n_records, None, b"x")]
    source = merger(ahead + behind)
    reader = source._readers[0]
    assert isinstance(reader, ScriptedReader)
    n_taken = n_most = 0
    while not source.at_end:
        n_taken += len(source.take(100, 0.0))
        n_most = max(n_most, *(len(lane.keys) for lane in source._lanes))
    assert n_taken == n_records + 1
    assert reader.times_paused >= 1
    assert n_most <= 1000 + 100


def test_a_partition_whose_broker_is_away_does_not_hold_up_the_others_for_ever() -> None:
    class Away(ScriptedReader):
        def at_end(self, partition: TopicPartition) -> bool:  # noqa: ARG002
            return False

    here = ScriptedReader(LANES[:2], records([[1, 2], [3], []])[0])
    source = Merger([here, Away(LANES[2:], [])], dict.fromkeys(LANES, 0), {}, patience_s=0.1)
    assert len(source.take(10, 60.0)) == 2
    assert merge.PATIENCE_S < 60


class Silent(ScriptedReader):
    """Has records, and gives none until it may."""

    gives = False

    def fetch(self, max_records: int, timeout_s: float) -> list[Chunk]:
        return super().fetch(max_records, timeout_s) if self.gives else []

    def at_end(self, partition: TopicPartition) -> bool:
        return self.gives and super().at_end(partition)


@pytest.mark.parametrize("known", [True, False])
def test_nobody_gets_further_ahead_of_a_partition_whose_broker_is_away_than_records_wait(known: bool) -> None:
    """Else the labels of a long backlog would leave before their messages came."""
    here = ScriptedReader(LANES[:1], [Record(LANES[0], offset, 100 + 10 * offset, None, b"x") for offset in range(100)])
    away = Silent(LANES[1:2], [Record(LANES[1], 0, 105, None, b"y")])
    clocks = {LANES[1]: Clock(120)} if known else {}
    source = Merger([here, away], dict.fromkeys(LANES[:2], 0), clocks, patience_s=0.0, ahead_ms=200)
    taken = []
    for _ in range(50):
        taken += [record.timestamp_ms for record in source.take(7, 0.0)]
    assert taken == list(range(100, 321 if known else 301, 10))
    assert not source.at_end
    away.gives = True
    while not source.at_end:
        taken += [record.timestamp_ms for record in source.take(7, 0.0)]
    assert len(taken) == 101


def test_a_span_says_how_many_records_it_has_and_what_is_left_of_it_is_taken() -> None:
    found = [Record(LANES[0], offset, offset, None, b"x") for offset in range(5)]
    batch = merger(found).take(5, 0.0)
    assert batch.spans == [Span(LANES[0], 0, 5, 5)]
    again = merger([found[0], found[2], found[4]])
    left = again.take_spans(batch.spans)
    assert [record.offset for record in left] == [0, 2, 4]
    assert [span.records for span in left.spans] == [3]
    assert again.positions[LANES[0]] == 5


class SmallLimits:
    """Limits of a few records, so that a partition is held back all the time."""

    def __enter__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        for name, value in {"MAX_LANE_RECORDS": 6, "MAX_LANE_BYTES": 64, "MAX_BATCH_BYTES": 64, "SLICE_S": 0.0}.items():
            self._patch.setattr(merge, name, value)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


def stands_still(silent_s: float) -> None:
    raise AssertionError(f"nothing came for {silent_s} s")


class OneAtATime(ScriptedReader):
    """Gives a few records at a time, as a log of large ones does, and waits where all its partitions are paused."""

    def fetch(self, max_records: int, timeout_s: float) -> list[Chunk]:
        assert self.paused < set(self.partitions), "all that it may read are paused: this would wait for ever"
        return super().fetch(min(max_records, 3), timeout_s)


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 100)), max_size=30), min_size=3, max_size=3),
    st.data(),
)
def test_what_was_taken_can_be_had_again_however_large_it_is_and_however_full_a_partition(
    lanes: list[list[tuple[int, int]]], data: st.DataObject
) -> None:
    """A replay has to read on where the live reading, which takes what is there, would hold a partition back."""
    found = [
        [Record(lane, offset, time, None, b"x" * size) for offset, (time, size) in enumerate(of_lane)]
        for lane, of_lane in zip(LANES, lanes, strict=True)
    ]

    def source() -> Merger:
        arrivals = shuffled(found, data)
        readers = [OneAtATime(part, [each for each in arrivals if each.partition in part]) for part in PARTS]
        return Merger(readers, dict.fromkeys(LANES, 0), {})

    with SmallLimits():
        batches, live, size = [], source(), data.draw(st.integers(1, 40))
        while not live.at_end:
            batches.append(live.take(size, 0.0))
        batches = [batch for batch in batches if len(batch)]
        assert sum(map(len, batches)) == sum(map(len, found))
        again = source()
        for batch in batches:
            taken = again.take_spans(batch.spans, lambda silent_s: silent_s > 5 and stands_still(silent_s))
            assert (list(taken), taken.spans) == (list(batch), batch.spans)
