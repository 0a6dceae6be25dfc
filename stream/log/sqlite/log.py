"""How does one SQLite file serve as a log?

Each partition is a table whose primary key is the offset, so appending writes at the right edge of a B-tree and reading
is a range scan. The row in `partitions` holds the watermarks and is changed in the same transaction as the records:
offsets have no gaps, and any number of processes may append and read at once. A submit is durable once its future has a
result: WAL with synchronous=FULL syncs every commit. One writer thread commits everything that is queued at once (group
commit), so many small submits cost one sync. What retention frees is overwritten, and used again by later records: the
file stays as large as it was at its fullest, until something is erased.
"""

import logging
import sqlite3
import threading
import time
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count, repeat
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from driftline.stream.errors import DriftlineError, LogError, LogUnavailable, TopicMismatch
from driftline.stream.log.base import (
    FOREVER_HOURS,
    Appended,
    Log,
    NewRecord,
    Place,
    Reader,
    Remains,
    TopicPartition,
    TopicState,
    Watermarks,
)
from driftline.stream.log.sqlite.file import (
    BUSY_S,
    WAL_BYTES,
    SameFile,
    connect,
    explained,
    open_file,
    sqlite_path,
    transaction,
    wal_of,
)
from driftline.stream.log.sqlite.reader import SqliteReader
from driftline.stream.process import threads
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

QUEUE_RECORDS: Final = 100_000
QUEUE_BYTES: Final = 64 << 20
# One transaction takes at most this and one submit more, so that no other process waits long for the lock.
COMMIT_RECORDS: Final = 20_000
COMMIT_BYTES: Final = 16 << 20
RETENTION_S: Final = 5.0
# A chunk is more than a commit, so that retention always catches up with appending.
RETENTION_RECORDS: Final = 2 * COMMIT_RECORDS
RETENTION_BYTES: Final = 2 * COMMIT_BYTES
ERASE_RECORDS: Final = 1000  # in one statement
EMPTY_S: Final = 30.0
EMPTY_LOOK_S: Final = 0.01
# What retention dropped is in the file, or in its WAL, for at most so long; a reader is waited for so long each time.
WIPE_S: Final = 60.0
WIPE_WAIT_MS: Final = 100
RECORD_OVERHEAD: Final = 24  # bytes a row takes beside key, value and headers

# Records are dropped by the time of appending, not by their own: old texts that are replayed must not vanish at once.
_RECORDS: Final = """
CREATE TABLE IF NOT EXISTS records_{} (
    offset INTEGER PRIMARY KEY, appended_ms INTEGER NOT NULL, timestamp_ms INTEGER, key BLOB, value BLOB, headers BLOB
)
"""

_RETENTION: Final = "retention"  # of the learner: hours and bytes, in JSON
_PROBED: Final = "probed"  # when a process last tried whether it can write
_IDENTITY: Final = "identity of topic {}"  # a name in the file's table `meta`; made once, with the topic

_log = logging.getLogger(__name__)
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
        self._writer = _Writer(self._path, self._file, settings)

    def create_topics(self, topics: Iterable[str]) -> None:
        """Make the topics and the partitions that are missing. Those that are there stay as they are."""
        with self._use_control() as db, transaction(db):
            for topic in topics:
                (n,) = db.execute("SELECT count(*) FROM partitions WHERE topic = ?", (topic,)).fetchone()
                for partition in range(n, self._settings.partitions):
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
                db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_RETENTION, told))

    def submit(self, topic: str, records: Sequence[NewRecord]) -> "Future[list[Appended]]":
        """Append records; see Log.submit."""
        future: Future[list[Appended]] = Future()
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

    def _batch(self, topic: str, records: Sequence[NewRecord], future: "Future[list[Appended]]") -> "_Batch":
        tables = self._tables(topic)
        if len(tables) == 1:
            return _Batch(future, None, [self._part(topic, 0, tables[0], records)])
        buckets: dict[int, list[NewRecord]] = {}
        places = []
        for record in records:
            number = next(self._keyless) if record.key is None else zlib.crc32(record.key)
            partition = number % len(tables)
            places.append(partition)
            buckets.setdefault(partition, []).append(record)
        return _Batch(future, places, [self._part(topic, p, tables[p], bucket) for p, bucket in buckets.items()])

    def _part(self, topic: str, partition: int, table: int, records: Sequence[NewRecord]) -> "_Part":
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
        return _Part(partition, table, len(keys), size + RECORD_OVERHEAD * len(keys), timestamps, keys, values, headers)


class _Part(NamedTuple):
    """What one submit appends to one partition, column by column."""

    partition: int
    table: int
    length: int
    size: int
    timestamps: Sequence[int | None]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[bytes | None]


class _Batch(NamedTuple):
    """One submit. `places` has each record's partition, or is None where the topic has only one."""

    future: "Future[list[Appended]]"
    places: list[int] | None
    parts: list[_Part]

    @property
    def length(self) -> int:
        return sum(part.length for part in self.parts)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def appended(self, first: Mapping[int, int]) -> list[Appended]:
        """Return where each record went, given the offset of the first one in each partition."""
        if self.places is None:
            start = first[0]
            return list(map(Appended, repeat(0), range(start, start + self.parts[0].length)))
        offsets = {partition: count(offset) for partition, offset in first.items()}
        return [Appended(partition, next(offsets[partition])) for partition in self.places]


class _Writer:
    """The one thread of this process that appends, drops what is too old and keeps the WAL short.

    No error ends it: what failed goes to the futures that it concerns, and the next commit starts afresh. What keeps
    retention from a partition, a damaged page, is said, and the others are looked after.
    """

    def __init__(self, path: Path, file: SameFile, settings: StreamSettings) -> None:
        self._path, self._file = path, file
        self._max_age_ms = settings.retention_hours * 3_600_000
        self._max_bytes = settings.retention_bytes
        self._connection: sqlite3.Connection | None = None
        self._changed = threading.Condition()
        self._queue: deque[_Batch] = deque()
        self._queued_records = self._queued_bytes = 0
        self._erasures: deque[tuple[Mapping[int, Sequence[int]], Future[None]]] = deque()
        self._probes: deque[Future[None]] = deque()
        self._closing = False
        self._retention_due = time.monotonic()
        self._wiping_due: float | None = None  # where something was dropped that the file and its WAL still hold
        self._put_off: set[str] = set()  # why retention was, when it was tried last
        self._thread = threads.start("sqlite-log-writer", self._run)

    def queue(self, batch: _Batch) -> None:
        """Queue one submit; wait while the queue is full. Any thread."""
        with self._changed:
            if threading.current_thread() is not self._thread:  # a future's callback must not wait for itself
                self._changed.wait_for(lambda: self._closing or not self._is_full())
            if self._closing:
                raise LogError(f"log {self._path}: closed")
            self._queue.append(batch)
            self._queued_records += batch.length
            self._queued_bytes += batch.size
            self._changed.notify_all()

    def erase(self, tables: Mapping[int, Sequence[int]]) -> "Future[None]":
        """Queue the deletion of some offsets of each table. Any thread."""
        future: Future[None] = Future()
        with self._changed:
            if self._closing:
                raise LogError(f"log {self._path}: closed")
            self._erasures.append((tables, future))
            self._changed.notify_all()
        return future

    def probe(self) -> "Future[None]":
        """Queue a commit of next to nothing. Any thread."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        with self._changed:
            if self._closing:
                raise LogError(f"log {self._path}: closed")
            self._probes.append(future)
            self._changed.notify_all()
        return future

    def close(self) -> None:
        """Commit what is queued, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _is_full(self) -> bool:
        return self._queued_records >= QUEUE_RECORDS or self._queued_bytes >= QUEUE_BYTES

    def _run(self) -> None:
        while (batches := self._take()) is not None:
            if batches:
                self._settle(batches)
            while self._erasures:
                self._erase(*self._erasures.popleft())
            while self._probes:
                self._try(self._probes.popleft())
            if time.monotonic() >= self._retention_due:
                self._clean_up()
        if self._connection is not None:
            self._connection.close()

    def _take(self) -> list[_Batch] | None:
        """Return what the next transaction appends, [] when it is time to clean up, None at the end."""
        with self._changed:
            patience = max(0.0, self._retention_due - time.monotonic())
            self._changed.wait_for(lambda: self._queue or self._erasures or self._probes or self._closing, patience)
            batches: list[_Batch] = []
            records = size = 0
            while self._queue and records < COMMIT_RECORDS and size < COMMIT_BYTES:
                batches.append(batch := self._queue.popleft())
                records += batch.length
                size += batch.size
            self._queued_records -= records
            self._queued_bytes -= size
            self._changed.notify_all()
            return None if self._closing and not (batches or self._erasures or self._probes) else batches

    def _settle(self, batches: list[_Batch]) -> None:
        try:
            with explained(self._path):
                firsts = self._commit(batches)
        except Exception as error:  # whatever it is, a future must carry it and the thread go on
            if len(batches) > 1 and not isinstance(error, LogUnavailable):
                for batch in batches:  # only the submit that cannot be stored may fail
                    self._settle([batch])
                return
            refusal = error if isinstance(error, LogError) else LogError(f"log {self._path}: {error!r}")
            for batch in batches:
                batch.future.set_exception(refusal)
            return
        for batch, first in zip(batches, firsts, strict=True):
            batch.future.set_result(batch.appended(first))

    def _commit(self, batches: list[_Batch]) -> list[dict[int, int]]:
        """Append in one transaction; return each batch's first offset in each of its partitions."""
        self._file.check()
        with self._transaction() as db:
            now_ms = time.time_ns() // 1_000_000
            firsts = []
            ends: dict[int, int] = {}
            sizes: dict[int, int] = {}
            for batch in batches:
                first = {}
                for part in batch.parts:
                    table = part.table
                    if table not in ends:
                        ends[table] = db.execute("SELECT high FROM partitions WHERE id = ?", (table,)).fetchone()[0]
                        sizes[table] = 0
                    start = first[part.partition] = ends[table]
                    ends[table] += part.length
                    sizes[table] += part.size
                    rows = zip(
                        range(start, ends[table]), repeat(now_ms), part.timestamps, part.keys, part.values, part.headers
                    )
                    db.executemany(f"INSERT INTO records_{table} VALUES (?, ?, ?, ?, ?, ?)", rows)
                firsts.append(first)
            for table, high in ends.items():
                db.execute(
                    "UPDATE partitions SET high = ?, bytes = bytes + ? WHERE id = ?", (high, sizes[table], table)
                )
        return firsts

    def _try(self, future: "Future[None]") -> None:
        try:
            with explained(self._path):
                self._file.check()
                with self._transaction() as db:
                    row = _PROBED, str(time.time_ns() // 1_000_000)
                    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)
        except Exception as error:  # whatever it is, the future must carry it and the thread go on
            future.set_exception(error if isinstance(error, LogError) else LogError(f"log {self._path}: {error}"))
        else:
            future.set_result(None)

    def _erase(self, tables: Mapping[int, Sequence[int]], future: "Future[None]") -> None:
        try:
            with explained(self._path):
                self._file.check()
                for table, offsets in tables.items():
                    for start in range(0, len(offsets), ERASE_RECORDS):
                        self._delete(table, offsets[start : start + ERASE_RECORDS])
                # Copies may lie in pages that were balanced, or that were freed before they were overwritten.
                self._db().execute("VACUUM")
                self._empty_wal()
        except Exception as error:  # whatever it is, the future must carry it and the thread go on
            future.set_exception(error if isinstance(error, LogError) else LogError(f"log {self._path}: {error!r}"))
        else:
            future.set_result(None)

    def _delete(self, table: int, offsets: Sequence[int]) -> None:
        which = f"offset IN ({','.join(map(str, offsets))})"
        size = f"{RECORD_OVERHEAD} + ifnull(length(key), 0) + ifnull(length(value), 0) + ifnull(length(headers), 0)"
        with self._transaction() as db:
            (freed,) = db.execute(f"SELECT ifnull(sum({size}), 0) FROM records_{table} WHERE {which}").fetchone()
            db.execute(f"DELETE FROM records_{table} WHERE {which}")
            db.execute("UPDATE partitions SET bytes = max(0, bytes - ?) WHERE id = ?", (freed, table))

    def _empty_wal(self) -> None:
        """Have nothing left in the WAL. Raises LogUnavailable where a reader keeps it from that."""
        deadline = time.monotonic() + EMPTY_S
        while self._db().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise LogUnavailable(f"log {self._path}: another process reads it, and its WAL cannot be emptied")
            time.sleep(EMPTY_LOOK_S)

    def _clean_up(self) -> None:
        self._retention_due = time.monotonic() + RETENTION_S
        put_off: set[str] = set()
        self._but_for(put_off, self._heed)
        oldest_ms = time.time_ns() // 1_000_000 - self._max_age_ms
        if self._but_for(put_off, lambda: self._drop_old(oldest_ms, put_off)):
            self._retention_due = time.monotonic()  # more is left: go on after the next commit
        self._but_for(put_off, self._wipe)
        self._but_for(put_off, self._shorten_wal)
        for why in put_off - self._put_off:
            _log.warning("retention was put off: %s", why)
        self._put_off = put_off

    def _but_for(self, put_off: set[str], work: Callable[[], bool | None]) -> bool:
        """Do a part of it; note what keeps it from being done, whatever that is, and go on."""
        try:
            with explained(self._path):
                return bool(work())
        except Exception as error:
            put_off.add(str(error) if isinstance(error, DriftlineError) else repr(error))
            return False

    def _drop_old(self, oldest_ms: float, put_off: set[str]) -> bool:
        """Drop at most one chunk of each partition; tell whether more has to go."""
        found = self._db().execute("SELECT id, low, high, bytes FROM partitions").fetchall()
        more = [self._but_for(put_off, partial(self._drop_of, oldest_ms, *each)) for each in found]
        return any(more)

    def _drop_of(self, oldest_ms: float, table: int, low: int, high: int, size: int) -> bool:
        """Drop at most one chunk of a partition; tell whether more has to go."""
        if low == high or (size <= self._max_bytes and not self._is_older(self._db(), table, low, oldest_ms)):
            return False
        return self._drop_chunk(table, oldest_ms)

    def _heed(self) -> None:
        """Go by what the learner was told; a process that is to keep everything does that."""
        row = self._db().execute("SELECT value FROM meta WHERE name = ?", (_RETENTION,)).fetchone()
        if row is not None and self._max_age_ms < FOREVER_HOURS * 3_600_000:
            hours, self._max_bytes = msgspec.json.decode(row[0])
            self._max_age_ms = hours * 3_600_000

    def _is_older(self, db: sqlite3.Connection, table: int, offset: int, oldest_ms: float) -> bool:
        sql = f"SELECT appended_ms FROM records_{table} WHERE offset >= ? ORDER BY offset LIMIT 1"  # some were erased
        row = db.execute(sql, (offset,)).fetchone()
        return row is not None and row[0] < oldest_ms

    def _drop_chunk(self, table: int, oldest_ms: float) -> bool:
        """Drop a partition's oldest records; only a chunk, so that appending never waits long."""
        with self._transaction() as db:
            low, size = db.execute("SELECT low, bytes FROM partitions WHERE id = ?", (table,)).fetchone()
            # `before` is what leaving a record would leave before it: a record goes while the rest is still too much.
            last, dropped, examined = db.execute(
                f"""
                WITH sized AS (
                    SELECT offset, appended_ms, {RECORD_OVERHEAD} + ifnull(length(key), 0)
                        + ifnull(length(value), 0) + ifnull(length(headers), 0) AS size
                    FROM records_{table} WHERE offset >= ? ORDER BY offset LIMIT ?
                ), summed AS (
                    SELECT *, sum(size) OVER (ORDER BY offset ROWS UNBOUNDED PRECEDING) - size AS before FROM sized
                ), marked AS (
                    SELECT *, max(appended_ms) OVER (ORDER BY offset ROWS UNBOUNDED PRECEDING) AS newest FROM summed
                )
                SELECT max(offset), sum(size), (SELECT count(*) FROM sized)
                FROM marked WHERE (before < ? OR newest < ?) AND before < ?
                """,
                (low, RETENTION_RECORDS, size - self._max_bytes, oldest_ms, RETENTION_BYTES),
            ).fetchone()
            if last is None:
                return False
            db.execute(f"DELETE FROM records_{table} WHERE offset <= ?", (last,))
            self._wiping_due = self._wiping_due or time.monotonic() + WIPE_S
            db.execute("UPDATE partitions SET low = ?, bytes = bytes - ? WHERE id = ?", (last + 1, dropped, table))
        return bool(last + 1 - low == examined == RETENTION_RECORDS or dropped >= RETENTION_BYTES)

    def _wipe(self) -> None:
        """Have what was dropped be in neither file any more; where a reader is in the way, later."""
        if self._wiping_due is None or time.monotonic() < self._wiping_due:
            return
        self._wiping_due = time.monotonic() + WIPE_S
        db = self._db()
        db.execute(f"PRAGMA busy_timeout = {WIPE_WAIT_MS}")
        try:
            if not db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                self._wiping_due = None
        finally:
            db.execute(f"PRAGMA busy_timeout = {int(1000 * BUSY_S)}")

    def _shorten_wal(self) -> None:
        """Wait for readers when they have kept every checkpoint from starting the WAL over."""
        wal = wal_of(self._path)
        with suppress(FileNotFoundError):
            if wal.stat().st_size > WAL_BYTES:
                self._db().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._path)
        return self._connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._db()
        try:
            with transaction(db):
                yield db
        except sqlite3.Error:
            if db.in_transaction:  # it could not even be rolled back: only a new connection is clean
                self._connection = None
                db.close()
            raise
