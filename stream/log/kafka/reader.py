"""How are records read from Kafka?

One consumer for each reader, with partitions assigned to it at given offsets; it never joins a group. librdkafka
fetches ahead. What is taken from it are columns (log/kafka/librdkafka.py), or where that cannot be had,
confluent-kafka's objects.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import confluent_kafka as ck
import numpy as np
from confluent_kafka import KafkaError, KafkaException

from driftline.stream.errors import LogError, OffsetsLost
from driftline.stream.log.base import Chunk, Reader, TopicPartition
from driftline.stream.log.kafka import librdkafka
from driftline.stream.log.kafka.cluster import SLICE_S, Cluster
from driftline.stream.log.kafka.librdkafka import Event, Taken
from driftline.stream.log.kafka.options import READER, READER_FIXED

_OUT_OF_RANGE: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})

# As functions: `map` then asks all messages of a batch without a step of the interpreter for each.
_KEY, _VALUE = ck.Message.key, ck.Message.value
_OFFSET, _TIMESTAMP = ck.Message.offset, ck.Message.timestamp
_MS = itemgetter(1)  # of a timestamp, whose first is its kind
_log = logging.getLogger(__name__)
_librdkafka = logging.getLogger("librdkafka")  # it calls much a warning that it then settles by itself


class KafkaReader(Reader):
    """One consumer with partitions assigned to it; librdkafka fetches ahead."""

    def __init__(self, cluster: Cluster, positions: Mapping[TopicPartition, int]) -> None:
        self.partitions = list(positions)
        self._cluster = cluster
        self._ended: set[TopicPartition] = set()
        self._ends: dict[TopicPartition, int] = {}
        self._failure: LogError | None = None
        self._closed = False
        self._waiting = False  # for brokers that are away; said once
        kind = ClientConsumer if librdkafka.load() is None else librdkafka.Consumer
        own = {**READER, **cluster.properties, **READER_FIXED}
        config = {"log.connection.close": False, **own, "bootstrap.servers": cluster.brokers}
        self._consumer = kind(config, positions, cluster.on_error, _librdkafka)

    def fetch(self, max_records: int, timeout_s: float) -> list[Chunk]:
        """Return what is there; see Reader.fetch."""
        if self._closed:
            raise LogError("this reader is closed")
        if self._failure is not None:
            raise self._failure
        deadline = time.monotonic() + timeout_s
        chunks = self._take(max_records, 0.0)
        while not chunks:
            if self._failure is not None:
                raise self._failure
            left = deadline - time.monotonic()
            if left <= 0:
                break
            # It waits until it has all it was asked for: so ask for one, then for what else is there.
            chunks = self._take(1, min(left, SLICE_S))
            if chunks and max_records > 1:
                chunks += self._take(max_records - 1, 0.0)
        return chunks  # what came before a failure first: reading them again is not possible

    def at_end(self, partition: TopicPartition) -> bool:
        """Tell whether the last read found no more records there. False until that was seen."""
        return partition in self._ended

    def end(self, partition: TopicPartition) -> int:
        """Return the position of a partition that is `at_end`; transactions leave markers behind their records."""
        return self._ends[partition]

    def pause(self, partition: TopicPartition) -> None:
        """Leave a partition out of `read` until it is resumed. Its position stays."""
        self._consumer.pause(partition)

    def resume(self, partition: TopicPartition) -> None:
        """Take a paused partition up again."""
        self._consumer.resume(partition)

    def close(self) -> None:
        """Give back sockets and threads."""
        if not self._closed:
            self._closed = True
            self._consumer.close()

    def _take(self, max_records: int, timeout_s: float) -> list[Chunk]:
        """Return records, and note what the events among them say."""
        taken = self._consumer.take(max_records, timeout_s)
        if self._cluster.denied is not None and self._failure is None:
            self._failure = self._cluster.explain("reading", KafkaException(self._cluster.denied))
        for each in taken.told:
            if isinstance(each, Event):
                self._follow(each)
            else:
                self._ended.discard(each)
                self._waiting = False
        return taken.chunks

    def _follow(self, event: Event) -> None:
        error = event.error
        name = TopicPartition(event.topic, event.partition)
        partition = name if name in self.partitions else None
        if error.code() == KafkaError._PARTITION_EOF and partition is not None:
            self._ended.add(partition)
            self._ends[partition] = event.offset
            self._waiting = False
        elif error.code() in _OUT_OF_RANGE and partition is not None:
            self._failure = self._lost(partition, event.offset)
        elif self._cluster.is_final(error):
            self._failure = self._cluster.explain(f"reading {partition or 'the log'}", KafkaException(error))
        else:
            if not self._waiting:
                _log.warning("waiting for Kafka: %s", error.str())
            self._waiting = True

    def _lost(self, partition: TopicPartition, wanted: int) -> LogError:
        try:
            low, high = self._cluster.bounds([partition])[partition]
        except LogError as error:
            return error
        return OffsetsLost(*partition, wanted, low, high)


class ClientConsumer:
    """The same as librdkafka.Consumer, by confluent-kafka."""

    def __init__(
        self,
        config: Mapping[str, Any],
        positions: Mapping[TopicPartition, int],
        on_error: Callable[[KafkaError], None],
        logger: logging.Logger,
    ) -> None:
        self._names = {(p.topic, p.partition): p for p in positions}
        self._consumer: Any = ck.Consumer({**config, "error_cb": on_error, "logger": logger})
        self._consumer.assign([ck.TopicPartition(*partition, offset) for partition, offset in positions.items()])

    def take(self, max_records: int, timeout_s: float) -> Taken:
        """Return what is there; wait until there is as much, or the time is over."""
        messages = self._consumer.consume(max_records, timeout_s)
        told: list[Event | TopicPartition] = []
        records = []
        for message in messages:
            error = message.error()
            if error is not None:
                told.append(Event(message.topic() or "", message.partition(), message.offset() or 0, error))
            else:
                records.append(message)
                if not told or told[-1] != self._name(message):
                    told.append(self._name(message))
        records.sort(key=self._name)  # stable, and fast: they come in runs
        return Taken([_chunk(partition, list(run)) for partition, run in groupby(records, self._name)], told)

    def pause(self, partition: TopicPartition) -> None:
        """Leave a partition out; what was fetched of it and not taken is fetched again."""
        self._consumer.pause([ck.TopicPartition(*partition)])

    def resume(self, partition: TopicPartition) -> None:
        """Take a partition up again."""
        self._consumer.resume([ck.TopicPartition(*partition)])

    def close(self) -> None:
        """Give back sockets and threads."""
        self._consumer.close()

    def _name(self, message: Any) -> TopicPartition:
        return self._names[message.topic(), message.partition()]


def _chunk(partition: TopicPartition, messages: list[Any]) -> Chunk:
    first, last = messages[0].offset(), messages[-1].offset()
    if last - first + 1 == len(messages):
        offsets = np.arange(first, last + 1)
    else:  # transactions leave gaps
        offsets = np.fromiter(map(_OFFSET, messages), np.int64, len(messages))
    timestamps = np.fromiter(map(_MS, map(_TIMESTAMP, messages)), np.int64, len(messages))
    found = _all_headers(messages)
    headers = None
    if any(found):
        headers = [pairs and [(name, content or b"") for name, content in pairs] for pairs in found]
    return Chunk(partition, offsets, timestamps, list(map(_KEY, messages)), list(map(_VALUE, messages)), headers)


def _all_headers(messages: Iterable[Any]) -> list[Any]:
    """Return each message's headers; None too where a header's name is not UTF-8, so that it stops nobody.

    There confluent-kafka sets an exception and yet returns a list, with a hole in it. Interpreted code that is hot does
    not look for that and crashes at the hole; `map` does look. No message may be asked twice: the list is kept.
    Proved by test_a_header_that_is_not_utf8_stops_nobody.
    """
    found: list[Any] = []
    rest = iter(messages)
    while True:
        try:
            found.extend(map(ck.Message.headers, rest))  # what came before a failure stays, `rest` is past it
            return found
        except (SystemError, UnicodeDecodeError):
            _log.warning("a header's name is not UTF-8: that record's headers are left out")
            found.append(None)
