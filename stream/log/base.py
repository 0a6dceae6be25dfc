"""What is a log?

Topics of numbered partitions; in each, records with rising offsets, never changed, dropped only by retention. Two are
built in: one SQLite file (`sqlite:///path`) and Apache Kafka (`kafka://host:9092`). Everything above this file knows
only what stands here, and test_log.py holds both to it. An offset is a record's index in its partition; a
position is the next offset to read.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.stream.errors import LogUnavailable
from driftline.stream.wire.column import Column
from driftline.stream.wire.records import Headers

FOREVER_HOURS: Final = 1e9  # of retention

# What a topic is for: records that retention takes; entries in one order that stay until they are trimmed; the last
# value of each key.
Kind = Literal["records", "entries", "values"]


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Watermarks(NamedTuple):
    """The first offset still there, and the end: the position behind all that can be read now.

    The next record gets that offset, but where a transaction is open (see `TopicState.undecided`).
    """

    low: int
    high: int


class TopicState(NamedTuple):
    """A topic as it is now.

    `identity` is another one once the topic was deleted and made again; None: this log gives topics none. `undecided`
    is how many offsets lie behind the end of a partition where a transaction was open; only such ones are in it.
    """

    identity: str | None
    watermarks: dict[int, Watermarks]  # by the partition's number
    undecided: Mapping[int, int] = {}


class Record(msgspec.Struct, gc=False):
    """A record as read. `value` is None for a tombstone."""

    partition: TopicPartition
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None


class Chunk(msgspec.Struct, gc=False):
    """Records of one partition in the order of their offsets, column by column: a reader makes no object of each.

    Attributes
    ----------
    offsets, timestamps_ms : int64 [n]
    keys, values : n, None for what a record does not have; a list is turned into a column
    headers : n, None for a record without; or None where no record has any
    appended_ms : int64 [n], when the log took each, by its own clock; None: it does not say
    """

    partition: TopicPartition
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    keys: Column | Sequence[bytes | None]
    values: Column | Sequence[bytes | None]
    headers: list[Headers | None] | None = None
    appended_ms: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Hold keys and values as columns."""
        self.keys, self.values = Column.of(self.keys), Column.of(self.values)

    @classmethod
    def empty(cls, partition: TopicPartition) -> "Chunk":
        """Return no records of a partition."""
        return cls(partition, np.empty(0, np.int64), np.empty(0, np.int64), [], [])

    def __len__(self) -> int:
        """Return how many records these are."""
        return len(self.values)

    def __getitem__(self, index: int) -> Record:
        """Return one record."""
        return Record(
            self.partition,
            int(self.offsets[index]),
            int(self.timestamps_ms[index]),
            self.keys[index],
            self.values[index],
            self.headers[index] if self.headers else None,
        )

    def part(self, start: int, stop: int | None = None) -> "Chunk":
        """Return the records from `start` up to, not including, `stop`."""
        cut = slice(start, stop)
        return Chunk(
            self.partition,
            self.offsets[cut],
            self.timestamps_ms[cut],
            self.keys[cut],
            self.values[cut],
            self.headers and self.headers[cut],
            None if self.appended_ms is None else self.appended_ms[cut],
        )

    def __add__(self, more: "Chunk") -> "Chunk":
        """Return these records and those that follow them."""
        headers = None
        if self.headers or more.headers:
            headers = (self.headers or [None] * len(self)) + (more.headers or [None] * len(more))
        appended_ms = None
        if self.appended_ms is not None and more.appended_ms is not None:
            appended_ms = np.concatenate([self.appended_ms, more.appended_ms])
        return Chunk(
            self.partition,
            np.concatenate([self.offsets, more.offsets]),
            np.concatenate([self.timestamps_ms, more.timestamps_ms]),
            Column.joined([Column.of(self.keys), Column.of(more.keys)]),
            Column.joined([Column.of(self.values), Column.of(more.values)]),
            headers,
            appended_ms,
        )


class NewRecord(NamedTuple):
    """A record to append. The key decides the partition; without a timestamp the log gives the time of appending."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None = None
    headers: Headers | None = None


class NewColumns(Sequence[NewRecord]):
    """Records to append, column by column: a log may take them without making an object of each.

    Each has a time, and none has headers.

    Parameters
    ----------
    times_ms : int64 [n]
    """

    __slots__ = ("keys", "times_ms", "values")

    def __init__(self, keys: Column, values: Column, times_ms: NDArray[np.int64]) -> None:
        self.keys, self.values, self.times_ms = keys, values, times_ms

    @classmethod
    def of(cls, keys: Iterable[bytes | None], values: Iterable[bytes | None], times_ms: Iterable[int]) -> "NewColumns":
        """Return some."""
        return cls(Column.of(keys), Column.of(values), np.fromiter(times_ms, np.int64))

    @property
    def n_bytes(self) -> int:
        """How many bytes all keys and values have."""
        return self.keys.n_bytes + self.values.n_bytes

    @property
    def longest(self) -> int:
        """How many bytes the longest value has."""
        return int(np.diff(self.values.starts).max(initial=0))

    def __len__(self) -> int:
        """Return how many records these are."""
        return len(self.times_ms)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return one record, or some that follow one another."""
        if isinstance(index, slice):
            return NewColumns(self.keys[index], self.values[index], self.times_ms[index])
        return NewRecord(self.keys[index], self.values[index], int(self.times_ms[index]))

    def __iter__(self) -> Iterator[NewRecord]:
        """Give each record."""
        return map(NewRecord, self.keys, self.values, self.times_ms.tolist())

    @classmethod
    def joined(cls, several: "Sequence[NewColumns]") -> "NewColumns":
        """Return the records of several as one."""
        if len(several) == 1:
            return several[0]
        times_ms = np.concatenate([np.empty(0, np.int64), *(each.times_ms for each in several)])
        keys, values = ([getattr(each, name) for each in several] for name in ("keys", "values"))
        return cls(Column.joined(keys), Column.joined(values), times_ms)


class Appended(NamedTuple):
    """Where a record went."""

    partition: int
    offset: int


class Places(Sequence[Appended]):
    """Where the records went that were appended as columns: `partitions` and `offsets`, int64 [n]."""

    __slots__ = ("offsets", "partitions")

    def __init__(self, partitions: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        self.partitions, self.offsets = partitions, offsets

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.offsets)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return where one record went, or some that follow one another."""
        if isinstance(index, slice):
            return Places(self.partitions[index], self.offsets[index])
        return Appended(int(self.partitions[index]), int(self.offsets[index]))

    def __iter__(self) -> Iterator[Appended]:
        """Give each place."""
        return map(Appended, self.partitions.tolist(), self.offsets.tolist())


class Place(NamedTuple):
    """A record that is to be erased."""

    offset: int
    key: bytes | None
    timestamp_ms: int


class Remains(msgspec.Struct, frozen=True):
    """Records of a topic that could not be erased at once, and what takes them.

    Attributes
    ----------
    after_ms : no sooner than then (milliseconds since 1970); None: not known
    """

    topic: str
    records: int
    why: str
    after_ms: int | None = None


class Reader(ABC):
    """Reads some partitions from given positions on, each in the order of its offsets. One thread at a time."""

    partitions: list[TopicPartition]

    @abstractmethod
    def fetch(self, max_records: int, timeout_s: float) -> list[Chunk]:
        """Return what is there, at most `max_records`; wait up to `timeout_s` only while there is nothing.

        Raises
        ------
        OffsetsLost : a position lies outside the log.
        LogUnavailable : the log cannot be reached for good (a wrong password); a broker that is away is waited for.
        """

    def read(self, max_records: int, timeout_s: float) -> list[Record]:
        """Return what `fetch` does, record by record."""
        return [chunk[index] for chunk in self.fetch(max_records, timeout_s) for index in range(len(chunk))]

    def wait(self, timeout_s: float) -> bool | None:
        """Wait until there may be more in the log, in whichever partition; tell whether there may.

        None, at once, where this reader cannot tell: then `fetch` has to wait.
        """
        del timeout_s
        return None

    @abstractmethod
    def at_end(self, partition: TopicPartition) -> bool:
        """Tell whether the last read found no more records there. False until that was seen."""

    def end(self, partition: TopicPartition) -> int:
        """Return the position behind what takes offsets and is no record, of a partition that is `at_end`.

        0 where a log has no such thing.
        """
        del partition
        return 0

    @abstractmethod
    def pause(self, partition: TopicPartition) -> None:
        """Leave a partition out of `read` until it is resumed. Its position stays."""

    @abstractmethod
    def resume(self, partition: TopicPartition) -> None:
        """Take a paused partition up again."""

    @abstractmethod
    def close(self) -> None:
        """Give back files, sockets and threads."""


class Log(ABC):
    """An append-only log.

    `submit` and `describe` may be called from any thread; the other methods from one at a time.
    """

    @abstractmethod
    def create_topics(self, topics: Iterable[str], kind: Kind = "records") -> None:
        """Make the topics that are missing, with the configured number of partitions; of another kind with one.

        The embedded log also adds partitions where a topic has fewer; a Kafka's topics stay as they are.
        """

    def trim(self, partition: TopicPartition, before: int) -> None:
        """Drop the records before an offset, in a topic that keeps all. A log that cannot keeps them."""
        del partition, before

    @abstractmethod
    def describe(self, topics: Iterable[str]) -> dict[str, TopicState]:
        """Return the state of those topics that exist, asked anew: partitions that were added are in it.

        Raises
        ------
        LogUnavailable : the log cannot be reached, or is just being changed.
        LogError : it can be reached no longer; start this process again.
        """

    def state_of(self, topic: str) -> TopicState:
        """Return the state of a topic that is to be there; see `describe`.

        Raises
        ------
        LogUnavailable : also where it is not there: just made, and not known everywhere yet, or just deleted.
        """
        found = self.describe([topic]).get(topic)
        if found is None:
            raise LogUnavailable(f"topic {topic} is not there, or not yet: it was made or deleted just now")
        return found

    @abstractmethod
    def partition_count(self, topic: str) -> int:
        """Return how many partitions a topic has. Raises TopicMismatch where it does not exist."""

    @abstractmethod
    def watermarks(self, topics: Iterable[str]) -> dict[TopicPartition, Watermarks]:
        """Return the watermarks of every partition of some topics."""

    @abstractmethod
    def submit(self, topic: str, records: Sequence[NewRecord]) -> "Future[Sequence[Appended]]":
        """Append records; the future holds where each went, once all of them are durable, or a LogError.

        Those in columns (NewColumns) cost least; where they went is told as Places, else as a list.

        Two submits to one topic from one thread land in that order. Never blocks for longer than it takes to queue; a
        full queue blocks until there is room.
        """

    def append(self, topic: str, records: Sequence[NewRecord]) -> Sequence[Appended]:
        """Append records and return once they are durable."""
        return self.submit(topic, records).result()

    def probe(self) -> "Future[None] | None":
        """Try whether the log takes records, without one; the future holds nothing once it does, or a LogError.

        None where only a record can show that. Any thread.
        """
        return None

    @abstractmethod
    def reader(self, positions: Mapping[TopicPartition, int]) -> Reader:
        """Return a reader of these partitions from these positions on."""

    @abstractmethod
    def erase(self, places: Mapping[TopicPartition, Sequence[Place]]) -> list[Remains]:
        """Take records out for good, or have that done; return what of them remains, and until when.

        Any thread. What is gone already is fine. Watermarks and the other offsets stay.

        Raises
        ------
        LogUnavailable : not all of it was done; the same call may succeed later.
        """

    @abstractmethod
    def commit(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """Note a consumer group's positions for tools that show lag. Nothing here ever reads them back to recover."""

    @abstractmethod
    def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the positions last committed; partitions without one are left out."""

    @abstractmethod
    def own(self) -> None:
        """Have every process keep records for as long as this one was told to: the learner says so."""

    @abstractmethod
    def close(self) -> None:
        """Wait for what was submitted, then give back files, sockets and threads."""
