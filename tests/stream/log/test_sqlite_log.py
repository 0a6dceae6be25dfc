"""Is the embedded log durable, shared by processes, and bounded?"""

import contextlib
import os
import resource
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.stream.errors import ConfigError, LogError, LogUnavailable, OffsetsLost, StateError
from driftline.stream.log.base import Appended, Log, NewRecord, TopicPartition
from driftline.stream.log.sqlite import file as sqlite_file
from driftline.stream.log.sqlite import reader as sqlite_reader
from driftline.stream.log.sqlite import writer
from driftline.stream.log.sqlite.log import SqliteLog
from driftline.stream.log.sqlite.reader import fair_shares
from driftline.stream.process.settings import StreamSettings
from tests.logs import Open, new, numbered, read_all, reading, run
from tests.waiting import wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a SQLite log that is yet to be made."""
    return tmp_path / "log.db"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retention run all the time, and locks be waited for only briefly."""
    monkeypatch.setattr(writer, "RETENTION_S", 0.01)
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.2)


def damage_page_of(path: Path, value: bytes) -> None:
    """Damage the page of a log that nobody has open, in which a value stands first."""
    content = path.read_bytes()
    size = int.from_bytes(content[16:18], "big")
    start = content.index(value) // size * size
    path.write_bytes(content[:start] + bytes(8) + content[start + 8 :])


class Later:
    """Stands in for the module `time`: what records and retention go by is moved on by the test."""

    def __init__(self) -> None:
        self.passed_ns = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time_ns(self) -> int:
        return time.time_ns() + self.passed_ns


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
            from driftline.stream.log.base import NewRecord
            from driftline.stream.log.open import open_log
            from driftline.stream.process.settings import StreamSettings

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
    def test_old_records_go(self, opened: Open, path: Path, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Later()
        monkeypatch.setattr(writer, "time", clock)
        log = opened(f"sqlite:///{path}", retention_hours=1)
        log.create_topics([topic])
        partition = TopicPartition(topic, 0)
        log.append(topic, numbered(100))
        clock.passed_ns = 2 * 3600 * 10**9
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
        each = size + 1 + writer.RECORD_OVERHEAD
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
        monkeypatch.setattr(writer, "RETENTION_RECORDS", 64)
        log = opened(f"sqlite:///{path}", retention_hours=0.3 / 3600)
        log.create_topics([topic])
        log.append(topic, numbered(1_000))
        wait_until(lambda: log.watermarks([topic])[TopicPartition(topic, 0)] == (1_000, 1_000))

    @pytest.mark.usefixtures("impatient")
    def test_a_damaged_page_puts_off_retention_there_and_nothing_else(
        self, opened: Open, path: Path, topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with contextlib.closing(SqliteLog(StreamSettings(log=f"sqlite:///{path}"))) as log:
            log.create_topics([topic, "other"])
            for each in (topic, "other"):
                log.append(each, numbered(1_000))
        damage_page_of(path, b"value 0")
        clock = Later()
        monkeypatch.setattr(writer, "time", clock)
        log = opened(f"sqlite:///{path}", retention_hours=1)
        clock.passed_ns = 2 * 3600 * 10**9
        wait_until(lambda: log.watermarks(["other"])[TopicPartition("other", 0)] == (1_000, 1_000))
        wait_until(lambda: "retention was put off" in caplog.text)
        for n in range(3):
            assert log.append(topic, new(b"later")) == [Appended(0, 1_000 + n)]
            assert log.append("other", new(b"later")) == [Appended(0, 1_000 + n)]
        assert "malformed" in caplog.text
        assert caplog.text.count("retention was put off") == 1, "what stays the same is said once"
        with reading(log, topic, 0) as reader, pytest.raises(StateError, match="restore it from a copy"):
            reader.read(1000, 0.0)

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
        monkeypatch.setattr(writer, "QUEUE_RECORDS", 0)
        seen = []
        with log._writer._changed:  # type: ignore[attr-defined]
            monkeypatch.setattr(writer, "QUEUE_RECORDS", 10)
            future = log.submit(topic, new(b"a"))
            future.add_done_callback(lambda _: seen.append(log.submit(topic, new(b"b"))))
            monkeypatch.setattr(writer, "QUEUE_RECORDS", 0)
        wait_until(lambda: seen)
        assert seen[0].result(30) == [Appended(0, 1)]

    def test_the_wal_stays_small(self, log: Log, path: Path, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "RETENTION_S", 0.01)
        monkeypatch.setattr(writer, "WAL_BYTES", 1 << 20)
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
        monkeypatch.setattr(sqlite_reader, "READ_BYTES", 2 << 20)
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
