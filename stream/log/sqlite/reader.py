"""How are records read from the embedded log?

By short transactions of a connection of its own, so that no reader ever keeps the WAL from starting over. While nothing
comes it waits for the file of the WAL to be written to (wake.py), or looks again and again where that cannot be heard.
"""

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from driftline.stream.errors import LogError, OffsetsLost
from driftline.stream.log.base import Chunk, Reader, TopicPartition
from driftline.stream.log.sqlite.file import connect, explained, transaction, wal_of
from driftline.stream.log.wake import Wake
from driftline.stream.wire.records import Headers

READ_BYTES: Final = 32 << 20
POLL_S: Final = (0.001, 0.010)
STIRRED_S: Final = 0.2  # after a write, within which it is synced and counts, nearly always

_decode_headers = msgspec.msgpack.Decoder(Headers).decode


class SqliteReader(Reader):
    """Reads partitions from given positions on."""

    def __init__(
        self,
        path: Path,
        positions: Mapping[TopicPartition, int],
        tables: Mapping[TopicPartition, int],
        max_record_bytes: int,
    ) -> None:
        self.partitions = list(positions)
        self._path = path
        self._positions = dict(positions)
        self._tables = dict(tables)
        self._paused: set[TopicPartition] = set()
        self._ended: set[TopicPartition] = set()
        self._turn = 0
        self._idle_version: int | None = None  # SQLite's data version when nothing was waiting
        self._rows = max(1, min(256, READ_BYTES // max_record_bytes))  # rows in memory beyond READ_BYTES
        self._bounds = f"SELECT id, low, high FROM partitions WHERE id IN ({','.join(map(str, tables.values()))})"
        self._closed = False
        with explained(path):
            self._db = connect(path)
            self._db.execute("PRAGMA query_only = ON")
            self._db.execute("SELECT 1 FROM meta LIMIT 1").fetchone()  # now the WAL is there
        self._wake = Wake(wal_of(path))
        self._stirred_until, self._pause = 0.0, POLL_S[0]

    def fetch(self, max_records: int, timeout_s: float) -> list[Chunk]:
        """Return what is there; see Reader.fetch."""
        if self._closed:
            raise LogError(f"log {self._path}: this reader is closed")
        deadline = time.monotonic() + timeout_s
        pause, longest = POLL_S
        while True:
            with explained(self._path):
                version = self._db.execute("PRAGMA data_version").fetchone()[0]
                if version != self._idle_version:
                    chunks = self._fetch(max_records)
                    if chunks is not None:
                        return chunks
                    self._idle_version = version
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            time.sleep(min(pause, left))
            pause = min(2 * pause, longest)

    def wait(self, timeout_s: float) -> bool | None:
        """Wait for a commit, of any process. What is written counts once it is synced: until then this looks."""
        if not self._wake.can_tell:
            return None
        now = time.monotonic()
        if now < self._stirred_until:
            self._pause = min(2 * self._pause, POLL_S[1])
            return not self._wake.wait(min(self._pause, timeout_s)) or self._stir()
        return self._wake.wait(timeout_s) and self._stir()

    def _stir(self) -> bool:
        self._stirred_until, self._pause = time.monotonic() + STIRRED_S, POLL_S[0] / 2
        return True

    def at_end(self, partition: TopicPartition) -> bool:
        """Tell whether the last read found no more records there. False until that was seen."""
        return partition in self._ended

    def end(self, partition: TopicPartition) -> int:
        """Return the position of a partition that is `at_end`: behind offsets whose records were taken out."""
        return self._positions[partition]

    def pause(self, partition: TopicPartition) -> None:
        """Leave a partition out of `read` until it is resumed. Its position stays."""
        self._paused.add(partition)

    def resume(self, partition: TopicPartition) -> None:
        """Take a paused partition up again."""
        self._paused.discard(partition)
        self._idle_version = None

    def close(self) -> None:
        """Give back the file."""
        self._closed = True
        self._wake.close()
        self._db.close()

    def _fetch(self, max_records: int) -> list[Chunk] | None:
        """Return the records of one transaction, None where none is waiting."""
        with transaction(self._db, "BEGIN"):
            backlog = self._backlog()
            if not backlog:
                return None
            chunks: list[Chunk] = []
            left = READ_BYTES
            for partition, share in fair_shares(backlog, max_records).items():
                left -= self._scan(partition, share, left, chunks)
                if left <= 0:
                    break
            return chunks

    def _backlog(self) -> dict[TopicPartition, int]:
        """Return how many records each partition has waiting, beginning with another one each time."""
        bounds = {table: (low, high) for table, low, high in self._db.execute(self._bounds)}
        self._turn = (self._turn + 1) % max(1, len(self.partitions))
        backlog = {}
        for partition in self.partitions[self._turn :] + self.partitions[: self._turn]:
            if partition in self._paused:
                continue
            position = self._positions[partition]
            low, high = bounds[self._tables[partition]]
            if not low <= position <= high:
                raise OffsetsLost(*partition, position, low, high)
            if high > position:
                backlog[partition] = high - position
        self._ended = {p for p in self.partitions if p not in backlog and (p not in self._paused or p in self._ended)}
        return backlog

    def _scan(self, partition: TopicPartition, share: int, max_bytes: int, chunks: list[Chunk]) -> int:
        """Append up to `share` records; return the bytes of their values. Stops soon after `max_bytes`."""
        start = self._positions[partition]
        table, bounds = f"records_{self._tables[partition]}", (start, start + share)
        cursor = self._db.execute(
            "SELECT ifnull(timestamp_ms, appended_ms), appended_ms, key, value, headers "
            f"FROM {table} WHERE offset >= ? AND offset < ? ORDER BY offset",
            bounds,
        )
        rows: list[tuple[Any, ...]] = []
        size = 0
        with closing(cursor):
            while size < max_bytes and (more := cursor.fetchmany(self._rows)):
                rows += more
                size += sum([len(row[3]) for row in more if row[3]])
        offsets = np.arange(start, start + share)
        if len(rows) < share:  # some are not there any more, or were not read: a column of all would be dear
            sql = f"SELECT offset FROM {table} WHERE offset >= ? AND offset < ? ORDER BY offset LIMIT {len(rows)}"
            offsets = np.array([offset for (offset,) in self._db.execute(sql, bounds)], np.int64)
        # Behind offsets that have no record any more, too: nothing would ever pass those.
        self._positions[partition] = int(offsets[-1]) + 1 if size >= max_bytes else start + share
        if rows:
            timestamps, appended, keys, values, headers = zip(*rows, strict=True)
            decoded = [pairs and _decode_headers(pairs) for pairs in headers] if any(headers) else None
            times, appended_ms = np.array(timestamps, np.int64), np.array(appended, np.int64)
            chunks.append(Chunk(partition, offsets, times, list(keys), list(values), decoded, appended_ms))
        return size


_K = TypeVar("_K")


def fair_shares(backlog: Mapping[_K, int], max_records: int) -> dict[_K, int]:
    """Share `max_records` out evenly; what one does not need goes to others, a remainder to those in front."""
    shares = dict.fromkeys(backlog, 0)
    waiting = list(backlog)
    while max_records > 0 and waiting:
        even = max(1, max_records // len(waiting))
        for name in waiting[:max_records]:
            more = min(even, backlog[name] - shares[name])
            shares[name] += more
            max_records -= more
        waiting = [name for name in waiting if shares[name] < backlog[name]]
    return {name: share for name, share in shares.items() if share}
