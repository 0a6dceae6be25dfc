"""How do records get into the file, and out of it when they are too old?

One thread of each process appends, drops and keeps the write-ahead log short. It commits everything that is queued at
once (group commit), so many small submits cost one sync.
"""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count, repeat
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from driftline.stream.errors import DriftlineError, LogError, LogUnavailable
from driftline.stream.log.base import (
    FOREVER_HOURS,
    Appended,
)
from driftline.stream.log.sqlite.file import (
    BUSY_S,
    WAL_BYTES,
    SameFile,
    connect,
    explained,
    transaction,
    wal_of,
)
from driftline.stream.process import threads
from driftline.stream.process.settings import StreamSettings

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

RETENTION: Final = "retention"  # of the learner: hours and bytes, in JSON; a name in the file's table `meta`
_PROBED: Final = "probed"  # when a process last tried whether it can write

_log = logging.getLogger(__name__)


class Part(NamedTuple):
    """What one submit appends to one partition, column by column."""

    partition: int
    table: int
    length: int
    size: int
    timestamps: Sequence[int | None]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[bytes | None]


class Batch(NamedTuple):
    """One submit. `places` has each record's partition, or is None where the topic has only one."""

    future: "Future[Sequence[Appended]]"
    places: list[int] | None
    parts: list[Part]

    @property
    def length(self) -> int:
        """How many records it has."""
        return sum(part.length for part in self.parts)

    @property
    def size(self) -> int:
        """How many bytes they take."""
        return sum(part.size for part in self.parts)

    def appended(self, first: Mapping[int, int]) -> list[Appended]:
        """Return where each record went, given the offset of the first one in each partition."""
        if self.places is None:
            start = first[0]
            return list(map(Appended, repeat(0), range(start, start + self.parts[0].length)))
        offsets = {partition: count(offset) for partition, offset in first.items()}
        return [Appended(partition, next(offsets[partition])) for partition in self.places]


class Writer:
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
        self._queue: deque[Batch] = deque()
        self._queued_records = self._queued_bytes = 0
        self._erasures: deque[tuple[Mapping[int, Sequence[int]], Future[None]]] = deque()
        self._probes: deque[Future[None]] = deque()
        self._closing = False
        self._retention_due = time.monotonic()
        self._wiping_due: float | None = None  # where something was dropped that the file and its WAL still hold
        self._put_off: set[str] = set()  # why retention was, when it was tried last
        self._thread = threads.start("sqlite-log-writer", self._run)

    def queue(self, batch: Batch) -> None:
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

    def _take(self) -> list[Batch] | None:
        """Return what the next transaction appends, [] when it is time to clean up, None at the end."""
        with self._changed:
            patience = max(0.0, self._retention_due - time.monotonic())
            self._changed.wait_for(lambda: self._queue or self._erasures or self._probes or self._closing, patience)
            batches: list[Batch] = []
            records = size = 0
            while self._queue and records < COMMIT_RECORDS and size < COMMIT_BYTES:
                batches.append(batch := self._queue.popleft())
                records += batch.length
                size += batch.size
            self._queued_records -= records
            self._queued_bytes -= size
            self._changed.notify_all()
            return None if self._closing and not (batches or self._erasures or self._probes) else batches

    def _settle(self, batches: list[Batch]) -> None:
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

    def _commit(self, batches: list[Batch]) -> list[dict[int, int]]:
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
        row = self._db().execute("SELECT value FROM meta WHERE name = ?", (RETENTION,)).fetchone()
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
