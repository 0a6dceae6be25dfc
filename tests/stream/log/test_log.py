"""Do both logs keep what log/base.py says? Each check runs on the SQLite log and on a real Kafka."""

import os
import threading
import time
from pathlib import Path

import pytest

from driftline.stream.errors import ConfigError, LogError, OffsetsLost, TopicMismatch
from driftline.stream.log.base import Appended, Log, NewColumns, NewRecord, Place, Record, TopicPartition, Watermarks
from driftline.stream.log.kafka import librdkafka
from driftline.stream.log.open import open_log
from driftline.stream.log.sqlite import writer
from driftline.stream.process.settings import StreamSettings
from tests.logs import APPENDER, Open, new, numbered, read_all, reading, run
from tests.waiting import wait_until


@pytest.fixture(params=["sqlite", "kafka", "kafka without librdkafka's own interface"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give an address of each kind of log."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'made' / 'log.db'}"
    if request.param != "kafka":
        monkeypatch.setattr(librdkafka, "load", lambda: None)
    return f"kafka://{request.getfixturevalue('kafka')}"


@pytest.fixture
def log(opened: Open, url: str, topic: str) -> Log:
    """Give a log with this test's topic, of one partition."""
    log = opened(url)
    log.create_topics([topic])
    return log


@pytest.fixture
def log3(opened: Open, url: str, topic: str) -> Log:
    """Give a log with this test's topic, of three partitions."""
    log = opened(url, partitions=3)
    log.create_topics([topic])
    return log


class TestContract:
    """What everything above the log may rely on."""

    def test_offsets_rise_by_one(self, log: Log, topic: str) -> None:
        assert log.append(topic, new(b"a", b"b")) == [Appended(0, 0), Appended(0, 1)]
        assert log.append(topic, new(b"c")) == [Appended(0, 2)]
        assert log.append(topic, []) == []

    def test_reads_what_was_appended(self, log: Log, topic: str) -> None:
        headers = [("ce_id", b"1"), ("x", b""), ("x", b"\xff\x00")]
        log.append(
            topic,
            [
                NewRecord(b"k", b"v", 1_234_567_890_123, headers),
                NewRecord(None, b"no key", 1_000),
                NewRecord(b"k", None, 2_000),
                NewRecord(b"", b"", 3_000, []),
            ],
        )
        partition = TopicPartition(topic, 0)
        with reading(log, topic, 0) as reader:
            assert reader.partitions == [partition]
            assert read_all(reader, 4) == [
                Record(partition, 0, 1_234_567_890_123, b"k", b"v", headers),
                Record(partition, 1, 1_000, None, b"no key", None),
                Record(partition, 2, 2_000, b"k", None, None),
                Record(partition, 3, 3_000, b"", b"", None),
            ]

    def test_columns_are_what_records_are(self, log3: Log, topic: str) -> None:
        """The same bytes, times and partitions, and it is said in the same order where they went."""
        values: list[bytes | None] = [b"value \xff\0", b"", None, b"x" * 70_000]
        records = [NewRecord(b"%d" % i if i % 7 else b"", values[i % 4], 1_000 + i) for i in range(500)]
        columns = NewColumns.of(*list(zip(*records, strict=True))[:3])
        assert (list(columns), columns[3:5][1], len(columns)) == (records, records[4], 500)
        one, other, cut = log3.append(topic, records), log3.append(topic, columns), log3.append(topic, columns[490:])
        assert [place.partition for place in other] == [place.partition for place in one]
        assert (cut[-1].partition, len(cut), cut[4:][0]) == (one[-1].partition, 10, cut[4])
        with reading(log3, topic, 0, 0, 0) as reader:
            found = {(r.partition.partition, r.offset): r for r in read_all(reader, 1_010)}
        for places in (one, other, [*one[:490], *cut]):
            read = [found[place] for place in places]
            assert [NewRecord(r.key, r.value, r.timestamp_ms, r.headers) for r in read] == records

    def test_columns_and_records_keep_their_order(self, log: Log, topic: str) -> None:
        columns = NewColumns.of([b"c"] * 3, [b"column"] * 3, [1_000] * 3)
        futures = [log.submit(topic, columns if i % 2 else new(b"record")) for i in range(100)]
        assert [place.offset for future in futures for place in future.result(60)] == list(range(200))
        with reading(log, topic, 0) as reader:
            assert [record.value for record in read_all(reader, 200)] == [b"record", *[b"column"] * 3] * 50

    def test_columns_with_too_large_a_value_are_refused(self, opened: Open, url: str, topic: str) -> None:
        log = opened(url, max_record_bytes=1_024)
        log.create_topics([topic])
        with pytest.raises(LogError, match="1025 bytes"):
            log.append(topic, NewColumns.of([b"k"] * 2, [b"a", b"x" * 1_025], [1, 2]))
        assert list(log.append(topic, NewColumns.of([b"k"], [b"x" * 1_024], [1]))) == [Appended(0, 0)]
        assert len(log.append(topic, NewColumns.of([], [], []))) == 0

    def test_gives_the_time_of_appending(self, log: Log, topic: str) -> None:
        before = time.time_ns() // 1_000_000
        log.append(topic, new(b"a"))
        with reading(log, topic, 0) as reader:
            (record,) = read_all(reader, 1)
        assert before <= record.timestamp_ms <= time.time_ns() // 1_000_000

    def test_a_key_stays_in_its_partition(self, log3: Log, topic: str) -> None:
        records = numbered(60)
        first, second = log3.append(topic, records), log3.append(topic, records)
        assert [place.partition for place in first] == [place.partition for place in second]
        assert {place.partition for place in first} == {0, 1, 2}
        with reading(log3, topic, 0, 0, 0) as reader:
            found = {(r.partition.partition, r.offset): r.value for r in read_all(reader, 120)}
        assert [found[place] for place in first + second] == [record.value for record in records * 2]

    def test_without_a_key_partitions_are_shared(self, log3: Log, topic: str) -> None:
        places = [place for i in range(60) for place in log3.append(topic, new(b"%d" % i, key=None))]
        assert {place.partition for place in places} == {0, 1, 2}

    def test_reads_from_a_position_on(self, log: Log, topic: str) -> None:
        log.append(topic, numbered(100))
        with reading(log, topic, 70) as reader:
            assert [record.offset for record in read_all(reader, 30)] == list(range(70, 100))

    def test_each_partition_is_read_in_order(self, log3: Log, topic: str) -> None:
        log3.append(topic, numbered(3_000))
        with reading(log3, topic, 0, 0, 0) as reader:
            records = read_all(reader, 3_000, batch=7)
        marks = log3.watermarks([topic])
        for partition in reader.partitions:
            offsets = [record.offset for record in records if record.partition == partition]
            assert offsets == list(range(marks[partition].high))

    def test_never_returns_more_than_asked(self, log: Log, topic: str) -> None:
        log.append(topic, numbered(50))
        with reading(log, topic, 0) as reader:
            wait_until(lambda: len(reader.read(1, 0.2)) == 1)
            assert len(reader.read(10, 5.0)) <= 10

    def test_waits_only_while_there_is_nothing(self, log: Log, topic: str) -> None:
        with reading(log, topic, 0) as reader:
            start = time.monotonic()
            assert reader.read(10, 0.3) == []
            assert time.monotonic() - start >= 0.29
            timer = threading.Timer(0.2, log.append, (topic, new(b"a")))
            timer.start()
            start = time.monotonic()
            assert [record.value for record in reader.read(10, 30.0)] == [b"a"]
            assert time.monotonic() - start < 15.0
            timer.join()

    def test_at_end(self, log: Log, topic: str) -> None:
        partition = TopicPartition(topic, 0)
        with reading(log, topic, 0) as reader:
            assert not reader.at_end(partition)
            wait_until(lambda: reader.read(10, 0.1) == [] and reader.at_end(partition))
            log.append(topic, numbered(5))
            assert read_all(reader, 2, batch=1)
            assert not reader.at_end(partition)
            read_all(reader, 3)
            wait_until(lambda: reader.read(10, 0.1) == [] and reader.at_end(partition))

    def test_what_is_erased_is_gone_or_said_to_remain(self, log: Log, topic: str) -> None:
        """Offsets and watermarks stay. A topic of Kafka's that is not compacted keeps it until retention."""
        log.append(topic, [NewRecord(b"%d" % i, b"value %d" % i, 1_000 + i) for i in range(5)])
        partition = TopicPartition(topic, 0)
        remains = log.erase({partition: [Place(1, b"1", 1_001), Place(4, b"4", 1_004), Place(99, b"x", 0)]})
        assert log.watermarks([topic]) == {partition: Watermarks(0, 5)}
        if remains:
            assert [(each.topic, each.records) for each in remains] == [(topic, 3)]
            assert "not compacted" in remains[0].why
            return
        assert log.erase({partition: [Place(1, b"1", 1_001)]}) == [], "it is gone already"
        log.append(topic, new(b"after"))
        with reading(log, topic, 0) as reader:
            found = [record.offset for record in read_all(reader, 4)]
        assert found == [0, 2, 3, 5]

    def test_watermarks(self, log3: Log, topic: str, prefix: str) -> None:
        assert log3.watermarks([topic]) == {TopicPartition(topic, p): Watermarks(0, 0) for p in range(3)}
        places = log3.append(topic, numbered(50))
        highs = [sum(place.partition == p for place in places) for p in range(3)]
        assert log3.watermarks([topic]) == {TopicPartition(topic, p): Watermarks(0, highs[p]) for p in range(3)}
        with pytest.raises(TopicMismatch, match="missing"):
            log3.watermarks([topic, prefix + "missing"])

    def test_a_topic_is_described(self, opened: Open, url: str, log3: Log, topic: str, prefix: str) -> None:
        places = log3.append(topic, numbered(50))
        (state,) = log3.describe([topic, prefix + "missing"]).values()
        assert state.watermarks == {p: Watermarks(0, sum(place.partition == p for place in places)) for p in range(3)}
        assert state.identity
        log3.create_topics([topic, topic + ".new"])
        assert opened(url).describe([topic])[topic].identity == state.identity
        assert log3.describe([topic + ".new"])[topic + ".new"].identity not in (None, state.identity)

    def test_making_topics_twice_loses_nothing(self, opened: Open, url: str, log3: Log, topic: str) -> None:
        log3.append(topic, numbered(10))
        other = opened(url, partitions=5)
        other.create_topics([topic, topic + ".new"])
        assert other.partition_count(topic) == (5 if url.startswith("sqlite") else 3)
        assert other.partition_count(topic + ".new") == 5
        assert len(log3.describe([topic])[topic].watermarks) == other.partition_count(topic)
        assert sum(marks.high for marks in other.watermarks([topic]).values()) == 10

    def test_a_missing_topic_is_named(self, log: Log, topic: str) -> None:
        missing = topic + ".missing"
        with pytest.raises(TopicMismatch, match="missing"):
            log.partition_count(missing)
        with pytest.raises(TopicMismatch, match="missing"):
            log.reader({TopicPartition(missing, 0): 0})
        with pytest.raises(TopicMismatch, match="missing"):
            log.append(missing, new(b"a"))
        with pytest.raises(TopicMismatch, match="does not exist"):
            log.reader({TopicPartition(topic, 1): 0})

    def test_pausing_loses_and_repeats_nothing(self, log3: Log, topic: str) -> None:
        """Pause at every turn, while librdkafka has records of that partition fetched already."""
        log3.append(topic, numbered(6_000))
        with reading(log3, topic, 0, 0, 0) as reader:
            records: list[Record] = []
            deadline = time.monotonic() + 60
            turn = 0
            while len(records) < 6_000 and time.monotonic() < deadline:
                paused = reader.partitions[turn % 3]
                reader.pause(paused)
                got = reader.read(100, 0.05)
                assert paused not in {record.partition for record in got}
                records += got
                reader.resume(paused)
                if turn % 2:
                    records += reader.read(100, 0.2)
                turn += 1
            records += reader.read(1_000, 0.5)
        for partition, marks in log3.watermarks([topic]).items():
            assert [r.offset for r in records if r.partition == partition] == list(range(marks.high))

    def test_a_paused_partition_is_left_out(self, log3: Log, topic: str) -> None:
        log3.append(topic, numbered(60))
        with reading(log3, topic, 0, 0, 0) as reader:
            for partition in reader.partitions[1:]:
                reader.pause(partition)
            high = log3.watermarks([topic])[reader.partitions[0]].high
            assert {record.partition.partition for record in read_all(reader, high)} == {0}
            assert reader.read(10, 0.3) == []
            log3.append(topic, numbered(60))
            for partition in reader.partitions[1:]:
                reader.resume(partition)
            read_all(reader, 120 - high)
            wait_until(lambda: reader.read(10, 0.1) == [] and all(map(reader.at_end, reader.partitions)))

    def test_a_position_above_the_end(self, log: Log, topic: str) -> None:
        log.append(topic, numbered(10))
        with reading(log, topic, 11) as reader:
            with pytest.raises(OffsetsLost, match="made again") as lost:
                read_all(reader, 1)
            assert (lost.value.wanted, lost.value.low, lost.value.high) == (11, 0, 10)
            with pytest.raises(OffsetsLost):
                reader.read(1, 0.0)
        with reading(log, topic, 10) as reader:
            wait_until(lambda: reader.read(1, 0.1) == [] and reader.at_end(TopicPartition(topic, 0)))

    def test_committed_positions(self, log3: Log, topic: str) -> None:
        a, b, c = (TopicPartition(topic, p) for p in range(3))
        log3.append(topic, numbered(60))
        group = topic + ".group"
        assert log3.committed(group, [a, b]) == {}
        log3.commit(group, {a: 3, b: 5})
        log3.commit(group, {b: 6})
        log3.commit(group, {})
        assert log3.committed(group, [a, b, c]) == {a: 3, b: 6}
        assert log3.committed(group + "2", [a]) == {}

    def test_submits_of_a_thread_stay_in_order(self, log: Log, topic: str) -> None:
        futures = [log.submit(topic, numbered(7, start=7 * i)) for i in range(200)]
        places = [place for future in futures for place in future.result(60)]
        assert places == [Appended(0, offset) for offset in range(1_400)]
        with reading(log, topic, 0) as reader:
            assert [record.value for record in read_all(reader, 1_400)] == [record.value for record in numbered(1_400)]

    def test_any_thread_may_submit(self, log3: Log, topic: str) -> None:
        places: dict[int, list[Appended]] = {}

        def submit(name: int) -> None:
            futures = [log3.submit(topic, numbered(3, start=1_000 * name + 3 * i)) for i in range(100)]
            places[name] = [place for future in futures for place in future.result(60)]

        threads = [threading.Thread(target=submit, args=(name,)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({place for own in places.values() for place in own}) == 1_800
        with reading(log3, topic, 0, 0, 0) as reader:
            found = {(r.partition.partition, r.offset): r.value for r in read_all(reader, 1_800)}
        for name, own in places.items():
            assert [found[place] for place in own] == [record.value for record in numbered(300, start=1_000 * name)]

    def test_a_full_queue_waits(self, log: Log, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "QUEUE_RECORDS", 1_000)
        futures = [log.submit(topic, numbered(1_000)) for _ in range(150)]  # Kafka's queue takes 100,000
        assert sum(len(future.result(60)) for future in futures) == 150_000

    def test_a_submit_larger_than_the_queue_waits(self, log: Log, topic: str) -> None:
        n = 120_000  # Kafka's queue takes 100,000
        columns = NewColumns.of([b"k"] * n, [b"value"] * n, range(n))
        assert log.submit(topic, columns).result(60)[-1] == Appended(0, n - 1)

    def test_large_records(self, opened: Open, url: str, topic: str) -> None:
        log = opened(url, max_record_bytes=4 << 20)
        log.create_topics([topic])
        values = [os.urandom(4 << 20), b"small", b"x" * (4 << 20)]
        log.append(topic, new(*values))
        with reading(log, topic, 0) as reader:
            assert [record.value for record in read_all(reader, 3)] == values
        with pytest.raises(LogError, match="max_record_bytes"):
            log.append(topic, new(b"x" * ((4 << 20) + 1)))

    def test_processes_append_at_once(self, log3: Log, url: str, topic: str) -> None:
        processes = [run(APPENDER, url, topic, str(name)) for name in range(3)]
        lines = [process.communicate(timeout=120)[0].splitlines() for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0]
        places = {tuple(map(int, line.split())) for own in lines for line in own}
        assert len(places) == 900
        with reading(log3, topic, 0, 0, 0) as reader:
            records = read_all(reader, 900)
        assert {(record.partition.partition, record.offset) for record in records} == places
        expected = {f"{name} {i} {j}".encode() for name in range(3) for i in range(60) for j in range(5)}
        assert {record.value for record in records} == expected

    @pytest.mark.parametrize("record", [NewRecord(b"k", b"v", 1 << 70), NewRecord(b"k", b"v", 1, [("\ud800", b"")])])
    def test_what_cannot_be_stored_fails_alone(self, log: Log, topic: str, record: NewRecord) -> None:
        with pytest.raises(LogError):
            log.append(topic, [record])
        assert log.append(topic, new(b"a")) == [Appended(0, 0)]

    def test_a_closed_log_takes_nothing(self, log: Log, topic: str) -> None:
        futures = [log.submit(topic, numbered(10)) for _ in range(50)]
        reader = log.reader({TopicPartition(topic, 0): 0})
        reader.close()
        reader.close()
        with pytest.raises(LogError, match="closed"):
            reader.read(1, 0.0)
        log.close()
        log.close()
        assert all(len(future.result(0)) == 10 for future in futures)  # close waited for them
        with pytest.raises(LogError, match="closed"):
            log.append(topic, new(b"a"))


def test_an_address_of_no_log() -> None:
    with pytest.raises(ConfigError, match="redis"):
        open_log(StreamSettings(log="redis://localhost"))
