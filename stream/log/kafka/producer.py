"""How are records appended to Kafka?

Idempotent, and acknowledged by all in-sync replicas. One thread takes the delivery reports; where a fatal error has
ended librdkafka's producer it makes a new one.
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
from driftline.stream.log.base import Appended, NewRecord
from driftline.stream.log.kafka.cluster import SLICE_S, Cluster
from driftline.stream.log.kafka.options import ENVELOPE_BYTES, PRODUCER, PRODUCER_FIXED
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
        self._producer = self._make()
        self._poller = threads.start("kafka-log-poll", self._poll)

    def submit(self, topic: str, records: Sequence[NewRecord]) -> "Future[list[Appended]]":
        """Append records; see Log.submit. A submit that fails may have appended some of its records."""
        delivery = _Delivery(topic, len(records), self._cluster.explain)
        try:
            self._check(topic, records)
        except LogError as error:
            delivery.fail(error)
            return delivery.future
        produce, done = self._producer.produce, delivery.done
        for index, (key, value, timestamp_ms, headers) in enumerate(records):
            options: dict[str, Any] = {}
            try:
                if headers:
                    for name, _ in headers:
                        name.encode()  # confluent-kafka crashes at a lone surrogate
                    options["headers"] = headers
                while True:
                    try:
                        produce(
                            topic, value, key, on_delivery=partial(done, index), timestamp=timestamp_ms or 0, **options
                        )
                        break
                    except BufferError:
                        self._wait_for_room()
            except KafkaException as error:
                delivery.abandon(index, self._cluster.explain(f"appending to {topic}", error))
                break
            except LogError as error:
                delivery.abandon(index, error)
                break
            except (TypeError, ValueError, OverflowError) as error:
                delivery.abandon(index, LogError(f"appending to {topic}: {error!r}"))
                break
        return delivery.future

    def close(self) -> None:
        """Wait for what was submitted, then give back sockets and threads."""
        if self._closing:
            return
        self._closing = True
        self._poller.join()
        left, progress_at = len(self._producer), time.monotonic()
        while left and self._cluster.denied is None and time.monotonic() - progress_at < CLOSE_S:
            before, left = left, self._flush(SLICE_S)
            if left < before:
                progress_at = time.monotonic()
        if left:
            self._producer.purge()
            self._flush(CLOSE_S)

    def _flush(self, timeout_s: float) -> int:
        with suppress(KafkaException):  # a fatal error: purging lets go of what is left
            self._producer.flush(timeout_s)
        return len(self._producer)

    def _poll(self) -> None:
        """Take delivery reports. No error ends this: every submit waits for it."""
        while not self._closing:
            try:
                self._producer.poll(SLICE_S)
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
        return self._cluster.client(
            ck.Producer, {**PRODUCER, **size, **self._options, **self._cluster.properties, **PRODUCER_FIXED}
        )

    def _replace(self, error: KafkaException) -> None:
        """Make a new producer where a fatal error has ended the old one, which fails all it still had.

        Some of that may be in the log: who sends it again writes it twice. So it is said, as LogUnavailable.
        """
        _log.error("Kafka's producer has to be made anew: %s", error.args[0].str())
        old, self._producer = self._producer, self._make()
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
        largest = max((len(record.value) for record in records if record.value), default=0)
        if largest > limit:
            raise LogError(f"{topic}: a value has {largest} bytes, at most {limit} (max_record_bytes) are taken")


class _Delivery:
    """Collects the delivery reports of one submit; they come from the poll thread."""

    def __init__(self, topic: str, length: int, explain: Any) -> None:
        self.future: Future[list[Appended]] = Future()
        self.future.set_running_or_notify_cancel()  # once queued it cannot be taken back
        self._topic, self._explain = topic, explain
        self._places: list[Any] = [None] * length
        self._left = length
        self._error: LogError | None = None
        self._lock = threading.Lock()
        if not length:
            self.future.set_result([])

    def done(self, index: int, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self._places[index] = Appended(message.partition(), message.offset())
            self._count(1)
        else:
            self._count(1, self._explain(f"appending to {self._topic}", KafkaException(error)))

    def abandon(self, index: int, error: LogError) -> None:
        """Fail, once those before `index` are through: an answer before that could be overtaken by them."""
        self._count(len(self._places) - index, error)

    def fail(self, error: LogError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def _count(self, n: int, error: LogError | None = None) -> None:
        with self._lock:
            self._left -= n
            self._error = self._error or error
            if self._left:
                return
        if self._error is None:
            self.future.set_result(self._places)
        else:
            self.future.set_exception(self._error)
