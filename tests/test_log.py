"""Do both logs keep what stream/log.py says? TestContract runs on the SQLite log and on a real Kafka."""

import contextlib
import importlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from broker import SASL_PASSWORD, SASL_USER, Broker
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from stream import kafka_log, librdkafka, sqlite_file, sqlite_log
from stream.errors import ConfigError, LogError, LogUnavailable, OffsetsLost, StateError, TopicMismatch
from stream.kafka_log import kafka_address, topic_config
from stream.log import Appended, Log, NewRecord, Reader, Record, TopicPartition, Watermarks, open_log
from stream.settings import StreamSettings
from stream.sqlite_log import SqliteLog, fair_shares
from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]
Open = Callable[..., Log]


def new(*values: bytes, key: bytes | None = b"k", **fields: Any) -> list[NewRecord]:
    return [NewRecord(key, value, **fields) for value in values]


def numbered(n: int, start: int = 0) -> list[NewRecord]:
    return [NewRecord(b"%d" % i, b"value %d" % i) for i in range(start, start + n)]


def read_all(reader: Reader, n: int, timeout_s: float = 30.0, batch: int = 1000) -> list[Record]:
    """Read until n records are there."""
    records: list[Record] = []
    deadline = time.monotonic() + timeout_s
    while len(records) < n and time.monotonic() < deadline:
        records += reader.read(batch, 0.2)
    assert len(records) == n
    return records


def run(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a Python process of this project."""
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."})


APPENDER = """
    import sys
    from stream.log import NewRecord, open_log
    from stream.settings import StreamSettings

    url, topic, name = sys.argv[1:]
    log = open_log(StreamSettings(log=url))
    for i in range(60):
        for place in log.append(topic, [NewRecord(b"%d" % (i + j), f"{name} {i} {j}".encode()) for j in range(5)]):
            print(place.partition, place.offset, flush=False)
    log.close()
"""


@pytest.fixture(params=["sqlite", "kafka", "kafka without librdkafka's own interface"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give an address of each kind of log."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'made' / 'log.db'}"
    if request.param != "kafka":
        monkeypatch.setattr(librdkafka, "load", lambda: None)
    return f"kafka://{request.getfixturevalue('kafka')}"


@pytest.fixture
def prefix() -> str:
    """Give a prefix that no other test's topics have."""
    return f"t{uuid.uuid4().hex[:12]}."


@pytest.fixture
def topic(prefix: str) -> str:
    """Give the name of this test's topic."""
    return prefix + "messages"


@pytest.fixture
def opened(prefix: str) -> Iterator[Callable[..., Log]]:
    """Open logs that are closed at the end."""
    with contextlib.ExitStack() as stack:

        def opener(url: str, **options: Any) -> Log:
            settings = StreamSettings(log=url, prefix=prefix, **options)
            log = open_log(settings)
            stack.callback(log.close)
            return log

        yield opener


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


@contextlib.contextmanager
def reading(log: Log, topic: str, *positions: int) -> Iterator[Reader]:
    """Give a reader of a topic's partitions from these positions on."""
    reader = log.reader({TopicPartition(topic, p): position for p, position in enumerate(positions)})
    with contextlib.closing(reader):
        yield reader


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
        monkeypatch.setattr(sqlite_log, "QUEUE_RECORDS", 1_000)
        futures = [log.submit(topic, numbered(1_000)) for _ in range(150)]  # Kafka's queue takes 100,000
        assert sum(len(future.result(60)) for future in futures) == 150_000

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a SQLite log that is yet to be made."""
    return tmp_path / "log.db"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retention run all the time, and locks be waited for only briefly."""
    monkeypatch.setattr(sqlite_log, "RETENTION_S", 0.01)
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.2)


class TestSqlite:
    """What only the embedded log has to show."""

    @pytest.fixture
    def log(self, opened: Open, path: Path, topic: str) -> Log:
        log = opened(f"sqlite:///{path}")
        log.create_topics([topic])
        return log

    def test_commits_are_synced(self, log: SqliteLog, path: Path) -> None:
        with contextlib.closing(sqlite_file.connect(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert log._writer._db().execute("PRAGMA synchronous").fetchone() == (2,)

    def test_what_was_acknowledged_survives_kill_9(self, log: Log, path: Path, topic: str) -> None:
        script = """
            import sys
            from stream.log import NewRecord, open_log
            from stream.settings import StreamSettings

            log = open_log(StreamSettings(log=sys.argv[1]))
            for i in range(1_000_000):
                for place in log.append(sys.argv[2], [NewRecord(None, b"%d %d" % (i, j)) for j in range(3)]):
                    print(place.offset, i, flush=True)
        """
        with run(script, f"sqlite:///{path}", topic) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(100)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.read().splitlines()[:-1]  # the last line may have been cut
        acknowledged = [tuple(map(int, line.split())) for line in lines]
        with reading(log, topic, 0) as reader:
            found = {
                r.offset: r.value for r in read_all(reader, log.watermarks([topic])[TopicPartition(topic, 0)].high)
            }
        for offset, i in acknowledged:
            assert found[offset] == b"%d %d" % (i, offset % 3)
        assert log.append(topic, new(b"after")) == [Appended(0, len(found))]

    @pytest.mark.usefixtures("impatient")
    def test_old_records_go(self, opened: Open, path: Path, topic: str) -> None:
        log = opened(f"sqlite:///{path}", retention_hours=0.5 / 3600)
        log.create_topics([topic])
        partition = TopicPartition(topic, 0)
        log.append(topic, numbered(100))
        wait_until(lambda: log.watermarks([topic])[partition] == (100, 100))
        assert log.append(topic, new(b"later", timestamp_ms=1)) == [Appended(0, 100)]
        with reading(log, topic, 100) as reader:  # an old timestamp does not make it old
            assert [record.value for record in read_all(reader, 1)] == [b"later"]
        with reading(log, topic, 99) as reader, pytest.raises(OffsetsLost, match="are gone") as lost:
            reader.read(1, 0.0)
        assert (lost.value.wanted, lost.value.low) == (99, 100)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM records_1 WHERE offset < 100").fetchone() == (0,)

    @pytest.mark.usefixtures("impatient")
    @pytest.mark.parametrize("size", [100, 10_000])
    def test_a_partition_keeps_to_its_bytes(self, opened: Open, path: Path, topic: str, size: int) -> None:
        log = opened(f"sqlite:///{path}", retention_bytes=1 << 20, partitions=2)
        log.create_topics([topic])
        partition = TopicPartition(topic, 0)
        each = size + 1 + sqlite_log.RECORD_OVERHEAD
        kept = (1 << 20) // each
        n = 0
        sizes = []
        for _ in range(6):
            places = log.append(topic, [NewRecord(b"k", b"x" * size)] * (3 * kept))
            partition = TopicPartition(topic, places[0].partition)
            n += 3 * kept
            wait_until(lambda: log.watermarks([topic])[partition] == (n - kept, n))  # noqa: B023
            with contextlib.closing(sqlite3.connect(path)) as connection:
                sizes += connection.execute("PRAGMA page_count").fetchone()
        assert sizes[-1] <= sizes[1] * 1.5  # freed pages are used again
        with contextlib.closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT sum(high - low), sum(bytes) FROM partitions").fetchone()
        assert rows == (kept, kept * each)

    @pytest.mark.usefixtures("impatient")
    def test_retention_goes_in_chunks(
        self, opened: Open, path: Path, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_log, "RETENTION_RECORDS", 64)
        log = opened(f"sqlite:///{path}", retention_hours=0.3 / 3600)
        log.create_topics([topic])
        log.append(topic, numbered(1_000))
        wait_until(lambda: log.watermarks([topic])[TopicPartition(topic, 0)] == (1_000, 1_000))

    @pytest.mark.usefixtures("impatient")
    def test_a_locked_file_is_said_and_survived(self, opened: Open, path: Path, topic: str) -> None:
        log = opened(f"sqlite:///{path}")
        log.create_topics([topic])
        log.append(topic, new(b"a"))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LogUnavailable, match="another process holds its lock"):
                log.append(topic, new(b"b"))
        assert log.append(topic, new(b"c")) == [Appended(0, 1)]

    def test_a_full_disk_is_said_and_survived(self, log: Log, topic: str) -> None:
        """RLIMIT_FSIZE makes writing past a file's limit fail, as on a full disk."""
        log.append(topic, new(b"a"))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, limits[1]))
        try:
            with pytest.raises(LogUnavailable, match=r"check the disk|disk is full"):
                log.append(topic, new(*[os.urandom(1 << 20) for _ in range(6)]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert log.append(topic, new(b"b")) == [Appended(0, 1)]
        with reading(log, topic, 0) as reader:
            assert [record.value for record in read_all(reader, 2)] == [b"a", b"b"]

    def test_only_the_submit_that_cannot_be_stored_fails(self, log: SqliteLog, topic: str) -> None:
        with log._writer._changed:  # so that the three are committed together
            futures = [
                log.submit(topic, new(b"a")),
                log.submit(topic, new(b"b", timestamp_ms=1 << 70)),
                log.submit(topic, new(b"c")),
            ]
        assert futures[0].result(30) == [Appended(0, 0)]
        with pytest.raises(LogError, match="OverflowError"):
            futures[1].result(30)
        assert futures[2].result(30) == [Appended(0, 1)]

    def test_a_callback_may_submit(self, log: Log, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_log, "QUEUE_RECORDS", 0)
        seen = []
        with log._writer._changed:  # type: ignore[attr-defined]
            monkeypatch.setattr(sqlite_log, "QUEUE_RECORDS", 10)
            future = log.submit(topic, new(b"a"))
            future.add_done_callback(lambda _: seen.append(log.submit(topic, new(b"b"))))
            monkeypatch.setattr(sqlite_log, "QUEUE_RECORDS", 0)
        wait_until(lambda: seen)
        assert seen[0].result(30) == [Appended(0, 1)]

    def test_the_wal_stays_small(self, log: Log, path: Path, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_log, "RETENTION_S", 0.01)
        monkeypatch.setattr(sqlite_log, "WAL_BYTES", 1 << 20)
        wal = path.with_name("log.db-wal")
        with reading(log, topic, 0) as reader:
            for _ in range(20):
                log.append(topic, new(b"x" * (1 << 20)))
                reader.read(1, 0.0)
            wait_until(lambda: wal.stat().st_size <= 1 << 20)

    def test_an_unknown_format_is_refused(self, opened: Open, path: Path) -> None:
        opened(f"sqlite:///{path}").close()
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE meta SET value = '99'")
        with pytest.raises(StateError, match="format is 99"):
            opened(f"sqlite:///{path}")

    def test_other_files_are_refused_and_left(self, opened: Open, tmp_path: Path) -> None:
        text = tmp_path / "text.db"
        text.write_bytes(b"not a database " * 1_000)
        with pytest.raises(StateError, match="not a database"):
            opened(f"sqlite:///{text}")
        assert text.read_bytes() == b"not a database " * 1_000
        foreign = tmp_path / "foreign.db"
        with contextlib.closing(sqlite3.connect(foreign)) as connection, connection:
            connection.execute("CREATE TABLE meta (a)")
        with pytest.raises(StateError, match="not a Driftline log"):
            opened(f"sqlite:///{foreign}")

    def test_a_path_that_cannot_be(self, opened: Open, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(LogUnavailable, match="directory cannot be made"):
            opened(f"sqlite:///{tmp_path}/file/log.db")
        with pytest.raises(LogUnavailable, match="unable to open"):
            opened(f"sqlite:///{tmp_path}")

    @pytest.mark.parametrize("url", ["sqlite://log.db", "sqlite:///", "sqlite:///:memory:"])
    def test_an_address_without_a_file(self, opened: Open, url: str) -> None:
        with pytest.raises(ConfigError, match="names no file"):
            opened(url)

    def test_the_path_is_taken_as_it_stands(self) -> None:
        assert sqlite_file.sqlite_path("sqlite:///a%20b?c/log.db") == Path("a%20b?c/log.db")
        assert sqlite_file.sqlite_path("sqlite:////data/log.db") == Path("/data/log.db")

    @pytest.mark.parametrize("size", [10, 100_000])
    def test_a_read_keeps_to_its_bytes(self, log: Log, topic: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_log, "READ_BYTES", 2 << 20)
        log.append(topic, new(*[b"x" * size] * 200))
        with reading(log, topic, 0) as reader:
            first = reader.read(200, 0.0)
            assert len(first) == 200 if size == 10 else len(first) <= 25
            rest = read_all(reader, 200 - len(first)) if len(first) < 200 else []
        assert [record.offset for record in first + rest] == list(range(200))

    @given(backlog=st.dictionaries(st.integers(0, 20), st.integers(1, 50)), n=st.integers(0, 200))
    def test_shares_are_fair(self, backlog: dict[int, int], n: int) -> None:
        shares = fair_shares(backlog, n)
        assert sum(shares.values()) == min(n, sum(backlog.values()))
        for name, waiting in backlog.items():
            assert shares.get(name, 0) <= waiting
            if shares.get(name, 0) < waiting:  # nobody got more than one record beyond whoever went short
                assert max(shares.values(), default=0) <= shares.get(name, 0) + 1

    def test_a_busy_partition_does_not_starve_another(self, opened: Open, path: Path, topic: str) -> None:
        log = opened(f"sqlite:///{path}", partitions=2)
        log.create_topics([topic])
        log.append(topic, [NewRecord(None, b"") for _ in range(2_000)])
        with reading(log, topic, 0, 0) as reader:
            records = [record for _ in range(10) for record in reader.read(1, 0.0)]
        assert [record.partition.partition for record in records] == [1, 0] * 5


# kafka-python loads its schemas in a way that Python 3.11 calls deprecated, some only when they are used.
KAFKA_PYTHON = pytest.mark.filterwarnings(r"ignore:(read|open)_text is deprecated:DeprecationWarning")


class TestKafka:
    """What only Kafka has to show."""

    @pytest.fixture
    def log(self, opened: Open, kafka: str, topic: str) -> Log:
        log = opened(f"kafka://{kafka}", partitions=3)
        log.create_topics([topic])
        return log

    def test_librdkafka_has_the_interface_that_is_read_through(self) -> None:
        assert librdkafka.load() is not None

    @KAFKA_PYTHON
    def test_reads_what_another_client_wrote(self, log: Log, kafka: str, topic: str) -> None:
        keys = [b"key %d" % i for i in range(60)]
        kafka_python = importlib.import_module("kafka")
        with contextlib.closing(kafka_python.KafkaProducer(bootstrap_servers=kafka)) as producer:
            headers = [("h", b"1"), ("empty", b"")]
            futures = [
                producer.send(topic, b"theirs", key, headers, timestamp_ms=1_000 + i) for i, key in enumerate(keys)
            ]
            theirs = [future.get(30).partition for future in futures]
        ours = [place.partition for place in log.append(topic, [NewRecord(key, b"ours") for key in keys])]
        assert ours == theirs  # a key has the same partition, whoever wrote it
        with reading(log, topic, 0, 0, 0) as reader:
            records = [record for record in read_all(reader, 120) if record.value == b"theirs"]
        assert {(r.key, r.timestamp_ms) for r in records} == {(key, 1_000 + i) for i, key in enumerate(keys)}
        assert records[0].headers == [("h", b"1"), ("empty", b"")]

    @KAFKA_PYTHON
    def test_another_client_reads_what_was_appended(self, log: Log, kafka: str, topic: str) -> None:
        log.append(topic, [NewRecord(b"%d" % i, b"value", 5_000 + i, [("h", b"\xff")]) for i in range(30)])
        kafka_python = importlib.import_module("kafka")
        consumer = kafka_python.KafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
        with contextlib.closing(consumer):
            consumer.assign([kafka_python.TopicPartition(topic, p) for p in range(3)])
            found: list[Any] = []
            wait_until(lambda: found.extend(r for rs in consumer.poll(200).values() for r in rs) or len(found) >= 30)
        assert {(r.key, r.value, r.timestamp) for r in found} == {(b"%d" % i, b"value", 5_000 + i) for i in range(30)}
        assert all(record.headers == [("h", b"\xff")] for record in found)

    def test_aborted_transactions_are_not_seen(self, log: Log, kafka: str, topic: str) -> None:
        producer = confluent_kafka.Producer({"bootstrap.servers": kafka, "transactional.id": topic})
        producer.init_transactions(30)
        for turn in range(4):
            producer.begin_transaction()
            for i in range(10):
                producer.produce(topic, b"%d %d" % (turn, i), partition=0)
            producer.flush(30)
            producer.abort_transaction(30) if turn % 2 else producer.commit_transaction(30)
        partition = TopicPartition(topic, 0)
        with reading(log, topic, 0) as reader:
            records = read_all(reader, 20)
            wait_until(lambda: reader.read(10, 0.1) == [] and reader.at_end(partition))
        assert [record.value for record in records] == [b"%d %d" % (turn, i) for turn in (0, 2) for i in range(10)]
        assert records[-1].offset + 1 < log.watermarks([topic])[partition].high  # markers take offsets too
        with reading(log, topic, records[-1].offset + 1) as reader:
            wait_until(lambda: reader.read(10, 0.1) == [] and reader.at_end(partition))

    def test_deleted_records_are_missed(self, log: Log, kafka: str, topic: str) -> None:
        partition = TopicPartition(topic, 0)
        log.append(topic, numbered(60))
        high = log.watermarks([topic])[partition].high
        admin = AdminClient({"bootstrap.servers": kafka})
        for future in admin.delete_records([confluent_kafka.TopicPartition(topic, 0, high - 2)]).values():
            future.result(30)
        assert log.watermarks([topic])[partition] == (high - 2, high)
        with reading(log, topic, 0) as reader:
            with pytest.raises(OffsetsLost, match="are gone") as lost:
                read_all(reader, 1)
            assert (lost.value.wanted, lost.value.low, lost.value.high) == (0, high - 2, high)
        with reading(log, topic, high - 2) as reader:
            assert len(read_all(reader, 2)) == 2

    def test_what_came_before_a_loss_is_returned(self, log: Log, topic: str) -> None:
        """One partition's failure must not swallow records of another that came in the same batch."""
        log.append(topic, numbered(60))
        marks = log.watermarks([topic])
        with reading(log, topic, 10_000, 0, 0) as reader:
            records: list[Record] = []
            with contextlib.suppress(OffsetsLost):
                for _ in range(100):
                    records += reader.read(100, 0.2)
            with pytest.raises(OffsetsLost):
                reader.read(100, 0.2)
            for partition in reader.partitions[1:]:
                offsets = [record.offset for record in records if record.partition == partition]
                assert offsets == list(range(len(offsets)))
                assert len(offsets) in (0, marks[partition].high)

    def test_a_group_with_members_is_left_alone(
        self, log: Log, kafka: str, topic: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        member = confluent_kafka.Consumer({"bootstrap.servers": kafka, "group.id": topic})
        with contextlib.closing(member):
            member.subscribe([topic])
            wait_until(lambda: member.poll(0.1) is None and member.assignment())
            log.commit(topic, {TopicPartition(topic, 0): 0})
        assert "positions were not committed" in caplog.text

    @pytest.mark.usefixtures("log")
    def test_topics_are_made_as_configured(self, kafka: str, topic: str) -> None:
        resource_ = confluent_kafka.admin.ConfigResource("topic", topic)
        admin = AdminClient({"bootstrap.servers": kafka})
        (future,) = admin.describe_configs([resource_]).values()
        entries = {name: entry.value for name, entry in future.result(30).items()}
        expected = topic_config(StreamSettings())
        assert {name: entries[name] for name in expected} == expected

    def test_a_header_without_a_value_is_empty(self, log: Log, kafka: str, topic: str) -> None:
        producer = confluent_kafka.Producer({"bootstrap.servers": kafka})
        producer.produce(topic, b"v", partition=0, headers=[("h", None)])
        assert producer.flush(30) == 0
        with reading(log, topic, 0) as reader:
            assert read_all(reader, 1)[0].headers == [("h", b"")]

    @KAFKA_PYTHON
    def test_a_header_that_is_not_utf8_stops_nobody(self, log: Log, kafka: str, topic: str) -> None:
        class NotUtf8(str):
            def encode(self, *_: Any) -> bytes:
                return b"\xff\xfe"

        kafka_python = importlib.import_module("kafka")
        with contextlib.closing(kafka_python.KafkaProducer(bootstrap_servers=kafka)) as producer:
            for i in range(90):  # enough for the interpreter to specialise the loop
                name = NotUtf8("h") if i % 3 == 1 else "h"
                producer.send(topic, b"%d" % i, headers=[("first", b""), (name, b"x")], partition=0)
            producer.flush(30)
        with reading(log, topic, 0) as reader:
            records = read_all(reader, 90)
        assert [record.value for record in records] == [b"%d" % i for i in range(90)]
        good = [("first", b""), ("h", b"x")]
        assert [record.headers for record in records] == [None if i % 3 == 1 else good for i in range(90)]

    def test_a_time_far_ahead_is_taken(self, log: Log, topic: str) -> None:
        (place,) = log.append(topic, new(b"a", timestamp_ms=4_102_444_800_000))
        assert place.offset == 0

    def test_a_broker_that_is_away_is_waited_for(self, opened: Open, own_kafka: Any, topic: str) -> None:
        log = opened(f"kafka://{own_kafka.bootstrap}?reconnect.backoff.max.ms=200")
        log.create_topics([topic])
        log.append(topic, numbered(10))
        with reading(log, topic, 0) as reader:
            read_all(reader, 10)
            own_kafka.kill()
            waiting = log.submit(topic, numbered(10, start=10))
            assert reader.read(10, 0.5) == []
            own_kafka.start()
            assert waiting.result(60) == [Appended(0, offset) for offset in range(10, 20)]
            assert [record.offset for record in read_all(reader, 10)] == list(range(10, 20))

    def test_appending_gives_up_in_time(self, opened: Open, own_kafka: Any, topic: str) -> None:
        log = opened(f"kafka://{own_kafka.bootstrap}?delivery.timeout.ms=1500&reconnect.backoff.max.ms=200")
        log.create_topics([topic])

        def appends() -> bool:  # a broker that has just started may take longer than this producer waits
            try:
                return len(log.append(topic, numbered(5))) == 5
            except LogUnavailable:
                return False

        wait_until(appends, what="the broker takes records")
        own_kafka.stop()
        with pytest.raises(LogUnavailable, match=own_kafka.bootstrap):
            log.append(topic, numbered(5))
        own_kafka.start()
        wait_until(appends, what="the broker takes records again")

    def test_no_broker_at_start(self, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kafka_log, "START_S", 1.0)
        with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1.*check that the brokers run"):
            opened("kafka://127.0.0.1:1")

    def test_a_wrong_password(self, opened: Open, kafka_broker: Any, tmp_path: Path, topic: str) -> None:
        if not isinstance(kafka_broker, Broker):
            pytest.skip("the container has no SASL listener")
        config = tmp_path / "client.properties"
        text = f"# SASL\nsecurity.protocol = SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username={SASL_USER}\n"
        config.write_text(f"{text}sasl.password={SASL_PASSWORD}\n")
        log = opened(f"kafka://{kafka_broker.sasl_bootstrap}", kafka_config=config)
        log.create_topics([topic])
        assert log.append(topic, new(b"a")) == [Appended(0, 0)]
        config.write_text(f"{text}sasl.password=wrong\n")
        start = time.monotonic()
        with pytest.raises(LogUnavailable, match="check the user, the password"):
            opened(f"kafka://{kafka_broker.sasl_bootstrap}", kafka_config=config)
        assert time.monotonic() - start < kafka_log.START_S

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("kafka://h:9092?no.such.thing=1", "no.such.thing"),
            ("kafka://h:9092?security.protocol=maybe", "security.protocol"),
            ("kafka://h:9092?acks=1", "acks cannot be set"),
            ("kafka://h:9092?client.id", "client.id"),
            ("kafka://h:9092?error_cb=1", "error_cb"),
            ("kafka://", "only hosts and ports"),
            ("kafka://user:secret@h:9092", "only hosts and ports"),
        ],
    )
    def test_an_address_that_cannot_be_meant(self, opened: Open, url: str, reason: str) -> None:
        with pytest.raises(ConfigError, match=reason) as refused:
            opened(url)
        assert "secret" not in str(refused.value)

    def test_properties(self, tmp_path: Path) -> None:
        path = tmp_path / "client.properties"
        path.write_text("# a comment\n\nsasl.password = a=b+c\nclient.id=file\n")
        settings = StreamSettings(log="kafka://a:1,b:2/?client.id=url&sasl.username=x%26+y", kafka_config=path)
        properties = {"sasl.password": "a=b+c", "client.id": "url", "sasl.username": "x&+y"}
        assert kafka_address(settings) == ("a:1,b:2", properties)
        path.write_text("client.id\n")
        with pytest.raises(ConfigError, match="line 1"):
            kafka_address(settings)
        path.unlink()
        with pytest.raises(ConfigError, match="cannot be read"):
            kafka_address(settings)

    def test_segments_fit_retention(self) -> None:
        small = topic_config(StreamSettings(retention_bytes=16 << 20, replication=3))
        assert (small["segment.bytes"], small["min.insync.replicas"]) == (str(2 << 20), "2")
        assert topic_config(StreamSettings())["segment.bytes"] == str(1 << 30)


def test_an_address_of_no_log() -> None:
    with pytest.raises(ConfigError, match="redis"):
        open_log(StreamSettings(log="redis://localhost"))
