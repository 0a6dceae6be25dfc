"""How does Apache Kafka serve as the log?

The protocol of stream/log.py over librdkafka. Appending is idempotent and waits for all in-sync replicas; reading
assigns partitions at given offsets and never joins a group, so no rebalance can move them; aborted transactions are not
seen, and a partition ends where the first open one begins (its last stable offset). Properties of librdkafka come from
the address (`kafka://host:9092?security.protocol=SSL`) and from the file `kafka_config`, except those that the promises
rest on.
"""

import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from driftline.stream import threads
from driftline.stream.errors import ConfigError, LogDenied, LogError, LogUnavailable, TopicMismatch
from driftline.stream.kafka_reader import READER, READER_FIXED, KafkaReader
from driftline.stream.log import (
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
from driftline.stream.settings import StreamSettings
from driftline.stream.words import counted

START_S: Final = 10.0
REQUEST_S: Final = 10.0
ENVELOPE_BYTES: Final = 64 << 10  # room for the key and headers beside a value of max_record_bytes
SEGMENTS: Final = 8  # Kafka drops whole segments: this many make a partition's retention_bytes
CLOSE_S: Final = 3.0  # without anything arriving: then the brokers are away
ROOM_S: Final = 0.002
SLICE_S: Final = 0.2

_PRODUCER: Final = {
    "linger.ms": 2,
    "delivery.timeout.ms": 30_000,
    "queue.buffering.max.kbytes": 64 << 10,
    "topic.metadata.refresh.interval.ms": 60_000,
}
_PRODUCER_FIXED: Final = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",  # the Java client's: every client puts a key into the same partition
}
_FIXED: Final = _PRODUCER_FIXED.keys() | READER_FIXED.keys() | {"bootstrap.servers", "metadata.broker.list"}

# What waiting does not mend.
_DENIED: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_NO_TOPIC: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
)
# A topic that has just been made, or a broker that has just gone: librdkafka does not repeat such a request by itself.
_ELECTING: Final = _NO_TOPIC | {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
}
_NO_ID: Final = str(ck.Uuid(0, 0))  # what brokers older than topic ids give

_SPEC: Final[Any] = OffsetSpec  # its methods carry no types
_FIRST, _LAST = _SPEC.earliest(), _SPEC.latest()

_log = logging.getLogger(__name__)
_librdkafka = logging.getLogger("librdkafka")  # it calls much a warning that it then settles by itself
_T = TypeVar("_T")


class KafkaLog(Log):
    """A log in Kafka."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._brokers, self._properties = kafka_address(settings)
        self._denied: KafkaError | None = None
        self._counts: dict[str, int] = {}
        self._closing = False
        self._producer = self._make_producer()
        self._admin = self._client(AdminClient, self._properties)
        self._poller = threads.start("kafka-log-poll", self._poll)
        try:
            self._wait("the cluster", self._admin.describe_cluster(request_timeout=START_S), START_S)
        except BaseException:
            self.close()
            raise

    def create_topics(self, topics: Iterable[str]) -> None:
        """Make the topics that are missing, with the configured number of partitions; the others stay as they are."""
        missing = [topic for topic, n in self._describe(topics).items() if n is None]
        if not missing:
            return
        config = topic_config(self._settings)
        new = [
            NewTopic(topic, self._settings.partitions, self._settings.replication, config=config) for topic in missing
        ]
        for topic, future in self._admin.create_topics(new, request_timeout=REQUEST_S).items():
            try:
                self._wait(f"making topic {topic}", future)
            except TopicMismatch as error:
                if _code(error.__cause__) != KafkaError.TOPIC_ALREADY_EXISTS:  # by another process just now
                    raise
        deadline = time.monotonic() + REQUEST_S
        while None in self._describe(missing).values():  # the brokers learn of it one after another
            if time.monotonic() > deadline:
                raise LogUnavailable(f"kafka {self._brokers}: {', '.join(missing)} made, but no broker leads them yet")
            time.sleep(0.02)

    def describe(self, topics: Iterable[str]) -> dict[str, TopicState]:
        """Return the state of those topics that exist; see Log.describe. The identity is KIP-516's topic id."""
        names = list(topics)
        for _ in range(2):
            before = self._lives(names)
            partitions = [TopicPartition(topic, p) for topic, (_, n) in before.items() for p in range(n)]
            try:
                # Before the bounds: what is appended and decided between the two must not pass for undecided.
                written = self._ends(partitions, _LAST, ck.IsolationLevel.READ_UNCOMMITTED)
                marks = self._bounds(partitions)
            except TopicMismatch as error:
                raise LogUnavailable(f"{error}; it was deleted just now") from error
            behind = {partition: end - marks[partition].high for partition, end in written.items()}
            if self._lives(names) == before:  # the watermarks are those of that life
                self._counts |= {topic: n for topic, (_, n) in before.items()}
                return {
                    topic: TopicState(
                        identity,
                        {p: marks[TopicPartition(topic, p)] for p in range(n)},
                        {p: offsets for p in range(n) if (offsets := behind[TopicPartition(topic, p)]) > 0},
                    )
                    for topic, (identity, n) in before.items()
                }
        raise LogUnavailable(f"kafka {self._brokers}: {', '.join(names)} are just being changed")

    def partition_count(self, topic: str) -> int:
        """Return how many partitions a topic has. Raises TopicMismatch where it does not exist."""
        return self._partition_counts([topic])[topic]

    def watermarks(self, topics: Iterable[str]) -> dict[TopicPartition, Watermarks]:
        """Return the watermarks of every partition of some topics."""
        counts = self._partition_counts(topics)
        return self._bounds([TopicPartition(topic, p) for topic, n in counts.items() for p in range(n)])

    def submit(self, topic: str, records: Sequence[NewRecord]) -> "Future[list[Appended]]":
        """Append records; see Log.submit. A submit that fails may have appended some of its records."""
        delivery = _Delivery(topic, len(records), self._explain)
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
                delivery.abandon(index, self._explain(f"appending to {topic}", error))
                break
            except LogError as error:
                delivery.abandon(index, error)
                break
            except (TypeError, ValueError, OverflowError) as error:
                delivery.abandon(index, LogError(f"appending to {topic}: {error!r}"))
                break
        return delivery.future

    def reader(self, positions: Mapping[TopicPartition, int]) -> Reader:
        """Return a reader of these partitions from these positions on."""
        counts = self._partition_counts({partition.topic for partition in positions})
        for partition in positions:
            if not 0 <= partition.partition < counts[partition.topic]:
                n = counts[partition.topic]
                raise TopicMismatch(
                    f"kafka {self._brokers}: {partition} does not exist, the topic has {counted(n, 'partition')}"
                )
        try:
            return KafkaReader(self, {**READER, **self._properties, **READER_FIXED}, positions)
        except (KafkaException, TypeError, ValueError) as error:
            raise self._refuse(error) from None

    def own(self) -> None:
        """Do nothing: how long a topic keeps records is the topic's own configuration."""

    def erase(self, places: Mapping[TopicPartition, Sequence[Place]]) -> list[Remains]:
        """Append a tombstone for each key where the topic is compacted, and say what remains until when."""
        by_topic: dict[str, list[Place]] = {}
        for partition, found in places.items():
            by_topic.setdefault(partition.topic, []).extend(found)
        remains = []
        for topic, found in by_topic.items():
            policy, retention_ms = self._policy(topic)
            keys = sorted({place.key for place in found if place.key is not None}) if "compact" in policy else []
            if keys:
                self.append(topic, [NewRecord(key, None) for key in keys])
                n = sum(place.key is not None for place in found)
                remains.append(
                    Remains(
                        topic,
                        n,
                        "tombstones were appended; compaction takes all records of their keys when it next runs",
                    )
                )
            left = [place for place in found if not keys or place.key is None]
            if not left:
                continue
            which = "have no key for a tombstone" if keys else "lie in a topic that is not compacted"
            if "delete" in policy and retention_ms >= 0:
                after_ms = max(place.timestamp_ms for place in left) + retention_ms
                why = f"they {which}; retention takes them with their segment, once that is older than retention.ms"
                remains.append(Remains(topic, len(left), why, after_ms))
            else:
                why = f"they {which}, and no retention takes them: set retention.ms, or delete the topic"
                remains.append(Remains(topic, len(left), why))
        return remains

    def _policy(self, topic: str) -> tuple[str, int]:
        """Return a topic's cleanup.policy and retention.ms."""
        request = [ConfigResource(ConfigResource.Type.TOPIC, topic)]
        for future in self._admin.describe_configs(request, request_timeout=REQUEST_S).values():
            found = self._wait(f"the configuration of {topic}", future)
            return str(found["cleanup.policy"].value), int(found["retention.ms"].value)
        raise AssertionError("unreachable")

    def commit(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """Note a consumer group's positions for tools that show lag. What prevents it is logged."""
        if not positions:
            return
        offsets = [ck.TopicPartition(*partition, position) for partition, position in positions.items()]
        try:
            with self._member(group) as member:
                for result in member.commit(offsets=offsets, asynchronous=False):
                    if result.error is not None:
                        raise KafkaException(result.error)
        except KafkaException as error:
            _log.warning("positions were not committed: %s", self._explain(f"committing for group {group}", error))

    def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the positions last committed; partitions without one are left out."""
        wanted = [ck.TopicPartition(*partition) for partition in partitions]
        if not wanted:
            return {}
        try:
            with self._member(group) as member:
                found = member.committed(wanted, timeout=REQUEST_S)
        except KafkaException as error:
            raise self._explain(f"reading group {group}", error) from error
        return {TopicPartition(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    @contextmanager
    def _member(self, group: str) -> Iterator[ck.Consumer]:
        """Give a consumer that asks a group's coordinator; it reads nothing and joins nothing.

        librdkafka's admin client could ask, too, but an assertion of its (`eonce->refcnt > 0`, librdkafka 4605)
        ends the whole process where the coordinator goes away just then.
        """
        own = {"group.id": group, "group.protocol": "classic", "session.timeout.ms": int(1000 * REQUEST_S)}
        member = self._client(ck.Consumer, {**self._properties, **own, "enable.auto.commit": False})
        try:
            yield member
        finally:
            member.close()

    def close(self) -> None:
        """Wait for what was submitted, then give back sockets and threads."""
        if self._closing:
            return
        self._closing = True
        self._poller.join()
        left, progress_at = len(self._producer), time.monotonic()
        while left and self._denied is None and time.monotonic() - progress_at < CLOSE_S:
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
                    self._replace_producer(error)
                except ConfigError as refusal:  # no memory, no threads: the old one fails what it is given
                    _log.error("%s; trying again", refusal)
                    time.sleep(SLICE_S)
            except Exception:
                _log.exception("what is to be done with a delivery report has failed")

    def _make_producer(self) -> Any:
        max_bytes = self._settings.max_record_bytes + ENVELOPE_BYTES
        size = {"message.max.bytes": max_bytes, "queue.buffering.max.messages": 100_000}
        return self._client(ck.Producer, {**_PRODUCER, **size, **self._properties, **_PRODUCER_FIXED})

    def _replace_producer(self, error: KafkaException) -> None:
        """Make a new producer where a fatal error has ended the old one, which fails all it still had.

        Some of that may be in the log: who sends it again writes it twice. So it is said, as LogUnavailable.
        """
        _log.error("Kafka's producer has to be made anew: %s", error.args[0].str())
        old, self._producer = self._producer, self._make_producer()
        deadline = time.monotonic() + CLOSE_S
        while len(old) and time.monotonic() < deadline:
            with suppress(KafkaException):  # the same again
                old.purge()
                old.poll(SLICE_S)

    def _wait_for_room(self) -> None:
        if threading.current_thread() is self._poller:
            raise LogUnavailable(f"kafka {self._brokers}: the queue is full; try again later")
        if self._closing:
            raise LogError(f"kafka {self._brokers}: closed")
        time.sleep(ROOM_S)

    def _check(self, topic: str, records: Sequence[NewRecord]) -> None:
        if self._closing:
            raise LogError(f"kafka {self._brokers}: closed")
        self._partition_counts([topic])  # asked once; a broker set so would make a missing topic, with any layout
        limit = self._settings.max_record_bytes
        largest = max((len(record.value) for record in records if record.value), default=0)
        if largest > limit:
            raise LogError(f"{topic}: a value has {largest} bytes, at most {limit} (max_record_bytes) are taken")

    def _client(self, kind: "type[_T]", properties: Mapping[str, Any]) -> _T:
        callbacks = {"error_cb": self._on_error, "logger": _librdkafka}
        config = {"log.connection.close": False, **properties, "bootstrap.servers": self._brokers, **callbacks}
        try:
            return kind(config)  # type: ignore[call-arg]
        except (KafkaException, TypeError, ValueError) as error:
            raise self._refuse(error) from None

    def _refuse(self, error: Exception) -> ConfigError:
        reason = error.args[0].str() if isinstance(error, KafkaException) else error
        return ConfigError(f"log: {reason}; see the address and kafka_config ({self._settings.kafka_config})")

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in _DENIED:
            self._denied = error

    def _is_final(self, error: KafkaError) -> bool:
        """Whether waiting does not mend it."""
        return error.code() in _NO_TOPIC or error.code() in _DENIED or error.fatal()

    def _explain(self, doing: str, error: KafkaException) -> LogError:
        """Return Driftline's error for one of Kafka's."""
        cause = error.args[0]
        code = cause.code()
        where = f"kafka {self._brokers}: {doing}: {cause.str()}"
        refusal: LogError
        if code in _NO_TOPIC:
            refusal = TopicMismatch(f"{where}; make the topic with create_topics first")
        elif code in {
            KafkaError.TOPIC_ALREADY_EXISTS,
            KafkaError.INVALID_REPLICATION_FACTOR,
            KafkaError.INVALID_CONFIG,
        }:
            refusal = TopicMismatch(where)
        elif code == KafkaError.MSG_SIZE_TOO_LARGE:
            refusal = LogError(f"{where}; raise the topic's max.message.bytes")
        elif code in {KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG}:
            refusal = LogError(where)
        elif code in _DENIED:
            refusal = LogDenied(f"{where}; check the user, the password and the rights in the address or kafka_config")
        elif cause.fatal():
            refusal = LogUnavailable(f"{where}; a new producer takes over, try again")
        else:
            refusal = LogUnavailable(f"{where}; check that the brokers run and can be reached from here")
        refusal.__cause__ = error
        return refusal

    def _wait(self, doing: str, future: "Future[_T]", timeout_s: float = REQUEST_S) -> _T:
        """Return what an admin request gives, or raise as soon as it is known that it gives nothing."""
        deadline = time.monotonic() + timeout_s + 1.0  # the request's own timeout tells more
        while True:
            try:
                return future.result(SLICE_S)
            except KafkaException as error:
                raise self._explain(doing, error) from error
            except FutureTimeoutError:
                if self._denied is not None:
                    raise self._explain(doing, KafkaException(self._denied)) from None
                if time.monotonic() > deadline:
                    raise self._explain(doing, KafkaException(KafkaError(KafkaError._TIMED_OUT))) from None

    def _describe(self, topics: Iterable[str]) -> dict[str, int | None]:
        """Return the partition counts; None where there is no such topic or not every partition has a leader."""
        names = list(dict.fromkeys(topics))
        if not names:
            return {}
        counts: dict[str, int | None] = {}
        for topic, future in self._admin.describe_topics(TopicCollection(names), request_timeout=REQUEST_S).items():
            try:
                partitions = self._wait(f"looking for topic {topic}", future).partitions
            except TopicMismatch:
                counts[topic] = None
                continue
            counts[topic] = n = len(partitions) if all(p.leader is not None for p in partitions) else None
            if n is not None:
                self._counts[topic] = n
        return counts

    def _lives(self, topics: Sequence[str]) -> dict[str, tuple[str | None, int]]:
        """Return the id and the number of partitions of those topics that exist."""
        found: dict[str, tuple[str | None, int]] = {}
        request = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=REQUEST_S)
        for topic, future in request.items():
            try:
                description = self._wait(f"looking for topic {topic}", future)
            except TopicMismatch:
                continue
            if any(partition.leader is None for partition in description.partitions):
                raise LogUnavailable(f"kafka {self._brokers}: {topic} has partitions that no broker leads just now")
            identity = str(description.topic_id)
            found[topic] = (None if identity == _NO_ID else identity, len(description.partitions))
        return found

    def _partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        names = list(topics)
        for topic, n in self._describe(name for name in names if name not in self._counts).items():
            if n is None:
                raise TopicMismatch(
                    f"kafka {self._brokers}: there is no topic {topic!r} that can be read; make it first"
                )
            self._counts[topic] = n
        return {name: self._counts[name] for name in names}

    def _bounds(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Watermarks]:
        names = list(partitions)
        low, high = (self._ends(names, end, ck.IsolationLevel.READ_COMMITTED) for end in (_FIRST, _LAST))
        return {partition: Watermarks(low[partition], high[partition]) for partition in names}

    def _ends(self, partitions: list[TopicPartition], end: Any, level: ck.IsolationLevel) -> dict[TopicPartition, int]:
        """Return an end of partitions; a leader that is just being chosen is waited for."""
        deadline = time.monotonic() + REQUEST_S
        while True:
            try:
                return self._ask_ends(partitions, end, level)
            except LogError as error:
                if _code(error.__cause__) not in _ELECTING or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _ask_ends(
        self, partitions: list[TopicPartition], end: Any, level: ck.IsolationLevel
    ) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        request = {ck.TopicPartition(*partition): end for partition in partitions}
        futures = self._admin.list_offsets(request, isolation_level=level, request_timeout=REQUEST_S)
        return {
            TopicPartition(p.topic, p.partition): self._wait(f"the watermarks of {p.topic}", future).offset
            for p, future in futures.items()
        }


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


def topic_config(settings: StreamSettings) -> dict[str, str]:
    """Return the configuration of a topic that has to be made."""
    config = {
        "retention.ms": -1 if settings.retention_hours == math.inf else int(settings.retention_hours * 3_600_000),
        "retention.bytes": settings.retention_bytes,
        "segment.bytes": max(1 << 20, min(1 << 30, settings.retention_bytes // SEGMENTS)),
        "max.message.bytes": settings.max_record_bytes + ENVELOPE_BYTES,
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": (1 << 63) - 1,  # a sender whose clock is ahead must not be refused
        "cleanup.policy": "delete",
    }
    if settings.replication >= 3:
        config["min.insync.replicas"] = 2  # what was acknowledged outlives any one broker
    return {name: str(value) for name, value in config.items()}


def kafka_address(settings: StreamSettings) -> tuple[str, dict[str, str]]:
    """Return the brokers and librdkafka's properties; the address goes before the file.

    Names and values in the address may be percent-encoded; a plus sign stays one.
    """
    brokers, _, query = settings.log_url.removeprefix("kafka://").partition("?")
    brokers = brokers.rstrip("/")
    if not brokers or "/" in brokers or "@" in brokers:
        raise ConfigError(
            "log: a Kafka address has only hosts and ports, kafka://host:9092[,host:9092]; a user and a password go "
            "into kafka_config as sasl.username and sasl.password"
        )
    properties = _read_properties(settings)
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"log: {name!r} in the address has no value; write name=value")
        properties[unquote(name)] = unquote(value)
    for name in properties:
        if "_" in name:  # none of librdkafka's, but Python's: callbacks
            raise ConfigError(f"log: there is no property {name!r} for Kafka")
    for name in sorted(properties.keys() & _FIXED):
        raise ConfigError(f"log: {name} cannot be set: what Driftline promises rests on it")
    return brokers, properties


def _read_properties(settings: StreamSettings) -> dict[str, str]:
    path = settings.kafka_config
    if path is None:
        return {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"kafka_config: {path} cannot be read: {error}") from None
    properties = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise ConfigError(f"kafka_config: {path}, line {number}: write name=value")
        properties[name.strip()] = value.strip()
    return properties


def _code(error: BaseException | None) -> int | None:
    return error.args[0].code() if isinstance(error, KafkaException) else None
