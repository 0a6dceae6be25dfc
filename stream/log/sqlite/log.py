"""How does one SQLite file serve as a log?

Each partition is a table whose primary key is the offset, so appending writes at the right edge of a B-tree and reading
is a range scan. The row in `partitions` holds the watermarks and is changed in the same transaction as the records:
offsets have no gaps, and any number of processes may append and read at once. A submit is durable once its future has a
result: WAL with synchronous=FULL syncs every commit (writer.py). What retention frees is overwritten, and used again by
later records: the file stays as large as it was at its fullest, until something is erased.
"""

import sqlite3
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

import msgspec

from driftline.stream.errors import LogError, TopicMismatch
from driftline.stream.log.base import (
    FOREVER_HOURS,
    Appended,
    Kind,
    Log,
    NewColumns,
    NewRecord,
    Place,
    Reader,
    Remains,
    TopicPartition,
    TopicState,
    Watermarks,
)
from driftline.stream.log.sqlite.file import (
    SameFile,
    explained,
    open_file,
    sqlite_path,
    transaction,
)
from driftline.stream.log.sqlite.reader import SqliteReader
from driftline.stream.log.sqlite.writer import (
    RECORD_OVERHEAD,
    RETENTION,
    Batch,
    Part,
    Writer,
)
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

# Records are dropped by the time of appending, not by their own: old texts that are replayed must not vanish at once.
_RECORDS: Final = """
CREATE TABLE IF NOT EXISTS records_{} (
    offset INTEGER PRIMARY KEY, appended_ms INTEGER NOT NULL, timestamp_ms INTEGER, key BLOB, value BLOB, headers BLOB
)
"""

_IDENTITY: Final = "identity of topic {}"  # a name in the file's table `meta`; made once, with the topic

_encode_headers = msgspec.msgpack.Encoder().encode


class SqliteLog(Log):
    """A log in one file, for one machine."""

    def __init__(self, settings: StreamSettings) -> None:
        self._path = sqlite_path(settings.log_url)
        self._settings = settings
        self._layout: dict[str, list[int]] = {}  # topic: the id of each partition's table
        self._keyless = count()
        self._control_lock = threading.Lock()
        self._control = open_file(self._path)
        self._file = SameFile(self._path)
        self._writer = Writer(self._path, self._file, settings)

    def create_topics(self, topics: Iterable[str], kind: Kind = "records") -> None:
        """Make the topics and the partitions that are missing. Those that are there stay as they are."""
        wanted = self._settings.partitions if kind == "records" else 1
        with self._use_control() as db, transaction(db):
            for topic in topics:
                (n,) = db.execute("SELECT count(*) FROM partitions WHERE topic = ?", (topic,)).fetchone()
                for partition in range(n, wanted):
                    row = db.execute("INSERT INTO partitions (topic, partition) VALUES (?, ?)", (topic, partition))
                    db.execute(_RECORDS.format(row.lastrowid))
                db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (_IDENTITY.format(topic), uuid.uuid4().hex))
                self._layout.pop(topic, None)

    def describe(self, topics: Iterable[str]) -> dict[str, TopicState]:
        """Return the state of those topics that exist; see Log.describe."""
        found: dict[str, TopicState] = {}
        with self._use_control() as db, transaction(db, "BEGIN"):
            self._file.check()
            for topic in topics:
                sql = "SELECT partition, low, high FROM partitions WHERE topic = ? ORDER BY partition"
                marks = {p: Watermarks(low, high) for p, low, high in db.execute(sql, (topic,))}
                row = db.execute("SELECT value FROM meta WHERE name = ?", (_IDENTITY.format(topic),)).fetchone()
                if marks:
                    found[topic] = TopicState(row and row[0], marks)
                if len(self._layout.get(topic, ())) != len(marks):
                    self._layout.pop(topic, None)
        return found

    def partition_count(self, topic: str) -> int:
        """Return how many partitions a topic has. Raises TopicMismatch where it does not exist."""
        return len(self._tables(topic))

    def watermarks(self, topics: Iterable[str]) -> dict[TopicPartition, Watermarks]:
        """Return the watermarks of every partition of some topics."""
        tables = {topic: self._tables(topic) for topic in topics}
        with self._use_control() as db:
            rows = db.execute("SELECT topic, partition, low, high FROM partitions ORDER BY id").fetchall()
        return {TopicPartition(topic, p): Watermarks(low, high) for topic, p, low, high in rows if topic in tables}

    def own(self) -> None:
        """Have every process that opens the file drop records by this one's settings."""
        settings = self._settings
        if settings.retention_hours < FOREVER_HOURS:
            told = msgspec.json.encode([settings.retention_hours, settings.retention_bytes]).decode()
            with self._use_control() as db, transaction(db):
                db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (RETENTION, told))

    def submit(self, topic: str, records: Sequence[NewRecord]) -> "Future[Sequence[Appended]]":
        """Append records; see Log.submit."""
        future: Future[Sequence[Appended]] = Future()
        future.set_running_or_notify_cancel()  # once queued it cannot be taken back
        if not records:
            future.set_result([])
            return future
        try:
            self._writer.queue(self._batch(topic, records, future))
        except LogError as error:
            future.set_exception(error)
        except (TypeError, ValueError) as error:
            future.set_exception(LogError(f"appending to {topic}: {error!r}"))
        return future

    def probe(self) -> "Future[None]":
        """Commit as an append does, a row that holds the time; see Log.probe."""
        return self._writer.probe()

    def reader(self, positions: Mapping[TopicPartition, int]) -> Reader:
        """Return a reader of these partitions from these positions on."""
        tables = {}
        for partition in positions:
            ids = self._tables(partition.topic)
            if not 0 <= partition.partition < len(ids):
                raise TopicMismatch(
                    f"log {self._path}: {partition} does not exist, the topic has {counted(len(ids), 'partition')}"
                )
            tables[partition] = ids[partition.partition]
        return SqliteReader(self._path, positions, tables, self._settings.max_record_bytes)

    def erase(self, places: Mapping[TopicPartition, Sequence[Place]]) -> list[Remains]:
        """Delete records, and every trace of them in the file and its WAL; see Log.erase. Takes as long as a copy."""
        tables = {
            self._tables(topic)[partition]: [place.offset for place in found]
            for (topic, partition), found in places.items()
        }
        self._writer.erase(tables).result()
        return []

    def commit(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """Note a consumer group's positions for tools that show lag."""
        rows = [(group, *partition, position) for partition, position in positions.items()]
        with self._use_control() as db, transaction(db):
            db.executemany("INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?)", rows)

    def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the positions last committed; partitions without one are left out."""
        sql = "SELECT topic, partition, position FROM commits WHERE consumer_group = ?"
        with self._use_control() as db:
            found = {TopicPartition(topic, p): position for topic, p, position in db.execute(sql, (group,))}
        return {partition: found[partition] for partition in partitions if partition in found}

    def close(self) -> None:
        """Wait for what was submitted, then give back files and the thread."""
        self._writer.close()
        with self._control_lock:
            self._control.close()

    def _tables(self, topic: str) -> list[int]:
        if topic not in self._layout:
            with self._use_control() as db:
                rows = db.execute("SELECT id FROM partitions WHERE topic = ? ORDER BY partition", (topic,)).fetchall()
            if not rows:
                raise TopicMismatch(f"log {self._path}: there is no topic {topic!r}; make it with create_topics first")
            self._layout[topic] = [row[0] for row in rows]
        return self._layout[topic]

    @contextmanager
    def _use_control(self) -> Iterator[sqlite3.Connection]:
        with self._control_lock, explained(self._path):
            yield self._control

    def _batch(self, topic: str, records: Sequence[NewRecord], future: "Future[Sequence[Appended]]") -> "Batch":
        tables = self._tables(topic)
        if len(tables) == 1:
            return Batch(future, None, [self._part(topic, 0, tables[0], records)])
        buckets: dict[int, list[NewRecord]] = {}
        places = []
        for record in records:
            number = next(self._keyless) if record.key is None else zlib.crc32(record.key)
            partition = number % len(tables)
            places.append(partition)
            buckets.setdefault(partition, []).append(record)
        return Batch(future, places, [self._part(topic, p, tables[p], bucket) for p, bucket in buckets.items()])

    def _part(self, topic: str, partition: int, table: int, records: Sequence[NewRecord]) -> "Part":
        keys: Sequence[bytes | None]
        values: Sequence[bytes | None]
        timestamps: Sequence[int | None]
        headers: Sequence[Any]
        if isinstance(records, NewColumns):
            keys, values, timestamps = list(records.keys), list(records.values), records.times_ms.tolist()
            headers = ()
        else:
            keys, values, timestamps, headers = zip(*records, strict=True)
        if any(headers):
            headers = tuple([_encode_headers(pairs) if pairs else None for pairs in headers])
        else:
            headers = (None,) * len(records)
        largest = max(map(len, filter(None, values)), default=0)
        if largest > self._settings.max_record_bytes:
            raise LogError(
                f"{topic}[{partition}]: a value has {largest} bytes, at most {self._settings.max_record_bytes} "
                "(max_record_bytes) are taken"
            )
        size = sum(sum(map(len, filter(None, column))) for column in (keys, values, headers))
        return Part(partition, table, len(keys), size + RECORD_OVERHEAD * len(keys), timestamps, keys, values, headers)
