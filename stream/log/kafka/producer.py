"""How are records appended to Kafka?

Idempotent, and acknowledged by all in-sync replicas. One thread takes the delivery reports; where a fatal error has
ended librdkafka's producer it makes a new one. Records are handed over as columns (sender.py), or where that cannot be
had, one by one by confluent-kafka.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException

from driftline.stream.errors import ConfigError, LogError, LogUnavailable
from driftline.stream.log.base import Appended, NewColumns, NewRecord
from driftline.stream.log.kafka import librdkafka
from driftline.stream.log.kafka.cluster import SLICE_S, Cluster
from driftline.stream.log.kafka.options import ENVELOPE_BYTES, PRODUCER, PRODUCER_FIXED
from driftline.stream.log.kafka.sender import Explain, Sender
from driftline.stream.process import threads

CLOSE_S: Final = 3.0  # without anything arriving: then the brokers are away
ROOM_S: Final = 0.002
QUEUE: Final = 100_000  # records
NO_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({})

_log = logging.getLogger(__name__)


class Producer:
    """Appends records. `submit` may be called from any thread.

    Parameters
    ----------
    max_record_bytes : of a value
    options : of librdkafka's, in the place of those in log/kafka/options.py
    """

    def __init__(self, cluster: Cluster, max_record_bytes: int, options: Mapping[str, Any] = NO_OPTIONS) -> None:
        self._cluster, self._max_record_bytes, self._options = cluster, max_record_bytes, options
        self._closing = False
        self._sender = self._make()
        self._poller = threads.start("kafka-log-poll", self._poll)

    def submit(self, topic: str, records: Sequence[NewRecord]) -> "Future[Sequence[Appended]]":
        """Append records; see Log.submit. A submit that fails may have appended some of its records."""
        sender = self._sender
        try:
            self._check(topic, records)
            if not records:
                return _done([])
            delivery = sender.begin(topic, records, partial(self._cluster.explain, f"appending to {topic}"))
        except LogError as error:
            return _failed(error)
        except (TypeError, ValueError, OverflowError) as error:
            return _failed(LogError(f"appending to {topic}: {error!r}"))
        try:
            while not sender.send(delivery):
                self._wait_for_room()
        except KafkaException as error:
            sender.give_up(delivery, self._cluster.explain(f"appending to {topic}", error))
        except LogError as error:
            sender.give_up(delivery, error)
        except (TypeError, ValueError, OverflowError) as error:
            sender.give_up(delivery, LogError(f"appending to {topic}: {error!r}"))
        future: Future[Sequence[Appended]] = delivery.future
        return future

    def close(self) -> None:
        """Wait for what was submitted, then give back sockets and threads."""
        if self._closing:
            return
        self._closing = True
        self._poller.join()
        left, progress_at = len(self._sender), time.monotonic()
        while left and self._cluster.denied is None and time.monotonic() - progress_at < CLOSE_S:
            before, left = left, self._flush(SLICE_S)
            if left < before:
                progress_at = time.monotonic()
        if left:
            self._sender.purge()
            self._flush(CLOSE_S)

    def _flush(self, timeout_s: float) -> int:
        with suppress(KafkaException):  # a fatal error: purging lets go of what is left
            self._sender.flush(timeout_s)
        return len(self._sender)

    def _poll(self) -> None:
        """Take delivery reports. No error ends this: every submit waits for it."""
        while not self._closing:
            try:
                self._sender.poll(SLICE_S)
            except KafkaException as error:
                try:
                    self._replace(error)
                except ConfigError as refusal:  # no memory, no threads: the old one fails what it is given
                    _log.error("%s; trying again", refusal)
                    time.sleep(SLICE_S)
            except Exception:
                _log.exception("what is to be done with a delivery report has failed")

    def _make(self) -> Any:
        max_bytes = self._max_record_bytes + ENVELOPE_BYTES
        size = {"message.max.bytes": max_bytes, "queue.buffering.max.messages": QUEUE}
        options = {**PRODUCER, **size, **self._options, **self._cluster.properties, **PRODUCER_FIXED}
        kind: type[Any] = ClientSender if librdkafka.load() is None else Sender
        return self._cluster.client(kind, options)

    def _replace(self, error: KafkaException) -> None:
        """Make a new producer where a fatal error has ended the old one, which fails all it still had.

        Some of that may be in the log: who sends it again writes it twice. So it is said, as LogUnavailable.
        """
        _log.error("Kafka's producer has to be made anew: %s", error.args[0].str())
        old, self._sender = self._sender, self._make()
        deadline = time.monotonic() + CLOSE_S
        while len(old) and time.monotonic() < deadline:
            with suppress(KafkaException):  # the same again
                old.purge()
                old.poll(SLICE_S)

    def _wait_for_room(self) -> None:
        if threading.current_thread() is self._poller:
            raise LogUnavailable(f"kafka {self._cluster.brokers}: the queue is full; try again later")
        if self._closing:
            raise LogError(f"kafka {self._cluster.brokers}: closed")
        time.sleep(ROOM_S)

    def _check(self, topic: str, records: Sequence[NewRecord]) -> None:
        if self._closing:
            raise LogError(f"kafka {self._cluster.brokers}: closed")
        self._cluster.partition_counts(
            [topic]
        )  # asked once; a broker set so would make a missing topic, with any layout
        limit = self._max_record_bytes
        if isinstance(records, NewColumns):
            largest = records.longest
        else:
            largest = max((len(record.value) for record in records if record.value), default=0)
        if largest > limit:
            raise LogError(f"{topic}: a value has {largest} bytes, at most {limit} (max_record_bytes) are taken")


def _done(places: list[Appended]) -> "Future[Sequence[Appended]]":
    future: Future[Sequence[Appended]] = Future()
    future.set_result(places)
    return future


def _failed(error: LogError) -> "Future[Sequence[Appended]]":
    future: Future[Sequence[Appended]] = Future()
    future.set_exception(error)
    return future


class ClientSender:
    """The same as Sender, by confluent-kafka."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._producer: Any = ck.Producer(dict(config))

    def __len__(self) -> int:
        """Return how many records are on their way."""
        return len(self._producer)

    def begin(self, topic: str, records: Sequence[NewRecord], explain: Explain) -> "_Delivery":
        """Return a submit, nothing of it sent yet."""
        return _Delivery(topic, records, explain)

    def send(self, delivery: "_Delivery") -> bool:
        """Queue what is not sent yet; tell whether that is all, or only what there was room for."""
        produce, done = self._producer.produce, delivery.done
        for key, value, timestamp_ms, headers in delivery.records[delivery.sent :]:
            options: dict[str, Any] = {}
            if headers:
                for name, _ in headers:
                    name.encode()  # confluent-kafka crashes at a lone surrogate
                options["headers"] = headers
            on_delivery = partial(done, delivery.sent)
            try:
                produce(delivery.topic, value, key, on_delivery=on_delivery, timestamp=timestamp_ms or 0, **options)
            except BufferError:
                return False
            delivery.sent += 1
        return True

    def give_up(self, delivery: "_Delivery", error: LogError) -> None:
        """Fail a submit, once what of it is sent is through: an answer before that could be overtaken by it."""
        delivery.count(len(delivery.records) - delivery.sent, error)

    def poll(self, timeout_s: float) -> None:
        """Take delivery reports, and tell who waits. Raises KafkaException where an error has ended this producer."""
        self._producer.poll(timeout_s)

    def flush(self, timeout_s: float) -> None:
        """Wait until all is delivered, or the time is over."""
        self._producer.flush(timeout_s)

    def purge(self) -> None:
        """Let go of what is not delivered; `poll` and `flush` tell who waits."""
        self._producer.purge()


class _Delivery:
    """What becomes of one submit; delivery reports come from the poll thread."""

    def __init__(self, topic: str, records: Sequence[NewRecord], explain: Explain) -> None:
        self.future: Future[Sequence[Appended]] = Future()
        self.future.set_running_or_notify_cancel()  # once queued it cannot be taken back
        self.topic, self.records, self.sent = topic, list(records), 0
        self._explain = explain
        self._places: list[Any] = [None] * len(records)
        self._left = len(records)
        self._error: LogError | None = None
        self._lock = threading.Lock()

    def done(self, index: int, error: KafkaError | None, message: Any) -> None:
        """Take in what became of a record."""
        if error is None:
            self._places[index] = Appended(message.partition(), message.offset())
            self.count(1)
        else:
            self.count(1, self._explain(KafkaException(error)))

    def count(self, n: int, error: LogError | None = None) -> None:
        """Note that so many are through; tell who waits once all are."""
        with self._lock:
            self._left -= n
            self._error = self._error or error
            if self._left:
                return
        if self._error is None:
            self.future.set_result(self._places)
        else:
            self.future.set_exception(self._error)
