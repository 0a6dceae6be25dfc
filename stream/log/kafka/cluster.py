"""How is a Kafka cluster asked?

All that the log's producer, its readers and its own questions share: the brokers and librdkafka's options, whether they
let us in, what their errors mean, which topics there are and where their partitions begin and end.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec  # type: ignore[attr-defined]

from driftline.stream.errors import ConfigError, LogDenied, LogError, LogUnavailable, TopicMismatch
from driftline.stream.log.base import TopicPartition, Watermarks
from driftline.stream.log.kafka.options import kafka_address
from driftline.stream.process.settings import StreamSettings

START_S: Final = 10.0
REQUEST_S: Final = 10.0
SLICE_S: Final = 0.2
STUCK_S: Final = 1.0  # an admin request without an answer for so long may wait for a broker that is away

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
    KafkaError.OFFSET_NOT_AVAILABLE,  # it leads since a moment, and does not know yet how far all replicas are
}
_NO_ID: Final = str(ck.Uuid(0, 0))  # what brokers older than topic ids give

_SPEC: Final[Any] = OffsetSpec  # its methods carry no types
FIRST, LAST = _SPEC.earliest(), _SPEC.latest()

_librdkafka = logging.getLogger("librdkafka")  # it calls much a warning that it then settles by itself
_T = TypeVar("_T")


class Cluster:
    """A Kafka cluster.

    Attributes
    ----------
    brokers : as the address has them
    properties : librdkafka's options, ours not among them
    denied : why the brokers do not let us in, once they said so
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._config_file = settings.kafka_config
        self.brokers, self.properties = kafka_address(settings)
        self.denied: KafkaError | None = None
        self._counts: dict[str, int] = {}
        self.admin = self.client(AdminClient, self.properties)

    def reach(self) -> None:
        """Wait until the brokers answer. Raises LogUnavailable, LogDenied."""
        self.wait("the cluster", self.admin.describe_cluster(request_timeout=START_S), START_S)

    def client(self, kind: "type[_T]", properties: Mapping[str, Any]) -> _T:
        """Return one of librdkafka's clients. Raises ConfigError where it does not take its options."""
        callbacks = {"error_cb": self.on_error, "logger": _librdkafka}
        config = {"log.connection.close": False, **properties, "bootstrap.servers": self.brokers, **callbacks}
        try:
            return kind(config)  # type: ignore[call-arg]
        except (KafkaException, TypeError, ValueError) as error:
            raise self.refuse(error) from None

    def refuse(self, error: Exception) -> ConfigError:
        """Return the error for options that librdkafka does not take."""
        reason = error.args[0].str() if isinstance(error, KafkaException) else error
        return ConfigError(f"log: {reason}; see the address and kafka_config ({self._config_file})")

    def on_error(self, error: KafkaError) -> None:
        """Note what a client met. Any thread."""
        if error.code() in _DENIED:
            self.denied = error

    def is_final(self, error: KafkaError) -> bool:
        """Whether waiting does not mend it."""
        return error.code() in _NO_TOPIC or error.code() in _DENIED or error.fatal()

    def explain(self, doing: str, error: KafkaException) -> LogError:
        """Return Driftline's error for one of Kafka's."""
        cause = error.args[0]
        code = cause.code()
        where = f"kafka {self.brokers}: {doing}: {cause.str()}"
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

    def wait(self, doing: str, future: "Future[_T]", timeout_s: float = REQUEST_S) -> _T:
        """Return what an admin request gives, or raise as soon as it is known that it gives nothing.

        librdkafka sends most of them to the controller. That is any one broker, as the cluster said last, and where it
        has gone since librdkafka waits for it for up to five minutes. So the cluster is asked who is there now.
        """
        deadline = time.monotonic() + timeout_s + 1.0  # the request's own timeout tells more
        look_again = time.monotonic() + STUCK_S
        while True:
            try:
                return future.result(SLICE_S)
            except KafkaException as error:
                raise self.explain(doing, error) from error
            except FutureTimeoutError:
                if self.denied is not None:
                    raise self.explain(doing, KafkaException(self.denied)) from None
                if time.monotonic() > deadline:
                    raise self.explain(doing, KafkaException(KafkaError(KafkaError._TIMED_OUT))) from None
                if time.monotonic() > look_again:
                    with suppress(KafkaException):
                        self.admin.list_topics(timeout=STUCK_S)
                    look_again = time.monotonic() + STUCK_S

    def look_for(self, topics: Iterable[str]) -> dict[str, int | None]:
        """Return the partition counts; None where there is no such topic or not every partition has a leader."""
        names = list(dict.fromkeys(topics))
        if not names:
            return {}
        counts: dict[str, int | None] = {}
        for topic, future in self.admin.describe_topics(TopicCollection(names), request_timeout=REQUEST_S).items():
            try:
                partitions = self.wait(f"looking for topic {topic}", future).partitions
            except TopicMismatch:
                counts[topic] = None
                continue
            counts[topic] = n = len(partitions) if all(p.leader is not None for p in partitions) else None
            if n is not None:
                self._counts[topic] = n
        return counts

    def lives(self, topics: Sequence[str]) -> dict[str, tuple[str | None, int]]:
        """Return the id and the number of partitions of those topics that exist."""
        found: dict[str, tuple[str | None, int]] = {}
        request = self.admin.describe_topics(TopicCollection(list(topics)), request_timeout=REQUEST_S)
        for topic, future in request.items():
            try:
                description = self.wait(f"looking for topic {topic}", future)
            except TopicMismatch:
                continue
            if any(partition.leader is None for partition in description.partitions):
                raise LogUnavailable(f"kafka {self.brokers}: {topic} has partitions that no broker leads just now")
            identity = str(description.topic_id)
            found[topic] = (None if identity == _NO_ID else identity, len(description.partitions))
        return found

    def note(self, counts: Mapping[str, int]) -> None:
        """Take it that topics have so many partitions now."""
        self._counts |= counts

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Return how many partitions topics have; asked once. Raises TopicMismatch where one does not exist."""
        names = list(topics)
        for topic, n in self.look_for(name for name in names if name not in self._counts).items():
            if n is None:
                raise TopicMismatch(
                    f"kafka {self.brokers}: there is no topic {topic!r} that can be read; make it first"
                )
            self._counts[topic] = n
        return {name: self._counts[name] for name in names}

    def bounds(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Watermarks]:
        """Return where partitions begin and end: the end is the last stable offset."""
        names = list(partitions)
        low, high = (self.ends(names, end, ck.IsolationLevel.READ_COMMITTED) for end in (FIRST, LAST))
        return {partition: Watermarks(low[partition], high[partition]) for partition in names}

    def ends(self, partitions: list[TopicPartition], end: Any, level: ck.IsolationLevel) -> dict[TopicPartition, int]:
        """Return an end of partitions; a leader that is just being chosen, or knows none yet, is waited for.

        A broker that has just been started may say no error, and no offset either. To take that for an end would be to
        say that all records are gone.
        """
        deadline = time.monotonic() + REQUEST_S
        while True:
            try:
                found = self._ask_ends(partitions, end, level)
                unknown = [partition for partition, offset in found.items() if offset < 0]
                if not unknown:
                    return found
                if time.monotonic() > deadline:
                    topic, number = unknown[0]
                    raise LogUnavailable(
                        f"kafka {self.brokers}: no broker knows where {topic}[{number}] begins and ends"
                    )
            except LogError as error:
                if code_of(error.__cause__) not in _ELECTING or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _ask_ends(
        self, partitions: list[TopicPartition], end: Any, level: ck.IsolationLevel
    ) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        request = {ck.TopicPartition(*partition): end for partition in partitions}
        futures = self.admin.list_offsets(request, isolation_level=level, request_timeout=REQUEST_S)
        return {
            TopicPartition(p.topic, p.partition): self.wait(f"the watermarks of {p.topic}", future).offset
            for p, future in futures.items()
        }

    def policy(self, topic: str) -> tuple[str, int]:
        """Return a topic's cleanup.policy and retention.ms."""
        request = [ConfigResource(ConfigResource.Type.TOPIC, topic)]
        for future in self.admin.describe_configs(request, request_timeout=REQUEST_S).values():
            found = self.wait(f"the configuration of {topic}", future)
            return str(found["cleanup.policy"].value), int(found["retention.ms"].value)
        raise AssertionError("unreachable")

    @contextmanager
    def member(self, group: str) -> Iterator[ck.Consumer]:
        """Give a consumer that asks a group's coordinator; it reads nothing and joins nothing.

        librdkafka's admin client could ask, too, but an assertion of its (`eonce->refcnt > 0`, librdkafka 4605)
        ends the whole process where the coordinator goes away just then.
        """
        own = {"group.id": group, "group.protocol": "classic", "session.timeout.ms": int(1000 * REQUEST_S)}
        member = self.client(ck.Consumer, {**self.properties, **own, "enable.auto.commit": False})
        try:
            yield member
        finally:
            member.close()


def code_of(error: BaseException | None) -> int | None:
    """Return the code of Kafka's error, if it is one."""
    return error.args[0].code() if isinstance(error, KafkaException) else None
