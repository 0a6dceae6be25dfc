"""How does Apache Kafka serve as the log?

The protocol of log/base.py over librdkafka. Appending is idempotent and waits for all in-sync replicas; reading
assigns partitions at given offsets and never joins a group, so no rebalance can move them; aborted transactions are not
seen, and a partition ends where the first open one begins (its last stable offset). Properties of librdkafka come from
the address (`kafka://host:9092?security.protocol=SSL`) and from the file `kafka_config`, except those that the promises
rest on.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from driftline.stream.errors import LogUnavailable, TopicMismatch
from driftline.stream.log.base import (
    Appended,
    Kind,
    Log,
    NewRecord,
    Place,
    Reader,
    Remains,
    TopicPartition,
    TopicState,
    Watermarks,
)
from driftline.stream.log.kafka.cluster import LAST, REQUEST_S, Cluster, code_of
from driftline.stream.log.kafka.options import topic_config
from driftline.stream.log.kafka.producer import NO_OPTIONS, Producer
from driftline.stream.log.kafka.reader import KafkaReader
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

_log = logging.getLogger(__name__)


class KafkaLog(Log):
    """A log in Kafka."""

    def __init__(self, settings: StreamSettings, sending: Mapping[str, Any] = NO_OPTIONS) -> None:
        """`sending`: options of librdkafka's producer, in the place of those in log/kafka/options.py."""
        self._settings = settings
        self._cluster = Cluster(settings)
        self._producer = Producer(self._cluster, settings.max_record_bytes, sending)
        try:
            self._cluster.reach()
        except BaseException:
            self.close()
            raise

    def create_topics(self, topics: Iterable[str], kind: Kind = "records") -> None:
        """Make the topics that are missing, with the configured number of partitions; the others stay as they are."""
        missing = [topic for topic, n in self._cluster.look_for(topics).items() if n is None]
        if not missing:
            return
        config = topic_config(self._settings, kind)
        n = self._settings.partitions if kind == "records" else 1
        new = [NewTopic(topic, n, self._settings.replication, config=config) for topic in missing]
        for topic, future in self._cluster.admin.create_topics(new, request_timeout=REQUEST_S).items():
            try:
                self._cluster.wait(f"making topic {topic}", future)
            except TopicMismatch as error:
                if code_of(error.__cause__) != KafkaError.TOPIC_ALREADY_EXISTS:  # by another process just now
                    raise
        deadline = time.monotonic() + REQUEST_S
        while None in self._cluster.look_for(missing).values():  # the brokers learn of it one after another
            if time.monotonic() > deadline:
                raise LogUnavailable(
                    f"kafka {self._cluster.brokers}: {', '.join(missing)} made, but no broker leads them yet"
                )
            time.sleep(0.02)

    def trim(self, partition: TopicPartition, before: int) -> None:
        """Drop the records before an offset. Raises LogUnavailable."""
        request = [ck.TopicPartition(*partition, before)]
        for future in self._cluster.admin.delete_records(request, request_timeout=REQUEST_S).values():
            self._cluster.wait(f"trimming {partition}", future)

    def describe(self, topics: Iterable[str]) -> dict[str, TopicState]:
        """Return the state of those topics that exist; see Log.describe. The identity is KIP-516's topic id."""
        names = list(topics)
        for _ in range(2):
            before = self._cluster.lives(names)
            partitions = [TopicPartition(topic, p) for topic, (_, n) in before.items() for p in range(n)]
            try:
                # Before the bounds: what is appended and decided between the two must not pass for undecided.
                written = self._cluster.ends(partitions, LAST, ck.IsolationLevel.READ_UNCOMMITTED)
                marks = self._cluster.bounds(partitions)
            except TopicMismatch as error:
                raise LogUnavailable(f"{error}; it was deleted just now") from error
            behind = {partition: end - marks[partition].high for partition, end in written.items()}
            if self._cluster.lives(names) == before:  # the watermarks are those of that life
                self._cluster.note({topic: n for topic, (_, n) in before.items()})
                return {
                    topic: TopicState(
                        identity,
                        {p: marks[TopicPartition(topic, p)] for p in range(n)},
                        {p: offsets for p in range(n) if (offsets := behind[TopicPartition(topic, p)]) > 0},
                    )
                    for topic, (identity, n) in before.items()
                }
        raise LogUnavailable(f"kafka {self._cluster.brokers}: {', '.join(names)} are just being changed")

    def partition_count(self, topic: str) -> int:
        """Return how many partitions a topic has. Raises TopicMismatch where it does not exist."""
        return self._cluster.partition_counts([topic])[topic]

    def watermarks(self, topics: Iterable[str]) -> dict[TopicPartition, Watermarks]:
        """Return the watermarks of every partition of some topics."""
        counts = self._cluster.partition_counts(topics)
        return self._cluster.bounds([TopicPartition(topic, p) for topic, n in counts.items() for p in range(n)])

    def submit(self, topic: str, records: Sequence[NewRecord]) -> "Future[Sequence[Appended]]":
        """Append records; see Log.submit. A submit that fails may have appended some of its records."""
        return self._producer.submit(topic, records)

    def reader(self, positions: Mapping[TopicPartition, int]) -> Reader:
        """Return a reader of these partitions from these positions on."""
        counts = self._cluster.partition_counts({partition.topic for partition in positions})
        for partition in positions:
            if not 0 <= partition.partition < counts[partition.topic]:
                where, n = f"kafka {self._cluster.brokers}", counts[partition.topic]
                raise TopicMismatch(f"{where}: {partition} does not exist, the topic has {counted(n, 'partition')}")
        try:
            return KafkaReader(self._cluster, positions)
        except (KafkaException, TypeError, ValueError) as error:
            raise self._cluster.refuse(error) from None

    def own(self) -> None:
        """Do nothing: how long a topic keeps records is the topic's own configuration."""

    def erase(self, places: Mapping[TopicPartition, Sequence[Place]]) -> list[Remains]:
        """Append a tombstone for each key where the topic is compacted, and say what remains until when."""
        by_topic: dict[str, list[Place]] = {}
        for partition, found in places.items():
            by_topic.setdefault(partition.topic, []).extend(found)
        remains = []
        for topic, found in by_topic.items():
            policy, retention_ms = self._cluster.policy(topic)
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

    def commit(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """Note a consumer group's positions for tools that show lag. What prevents it is logged."""
        if not positions:
            return
        offsets = [ck.TopicPartition(*partition, position) for partition, position in positions.items()]
        try:
            with self._cluster.member(group) as member:
                for result in member.commit(offsets=offsets, asynchronous=False):
                    if result.error is not None:
                        raise KafkaException(result.error)
        except KafkaException as error:
            _log.warning(
                "positions were not committed: %s", self._cluster.explain(f"committing for group {group}", error)
            )

    def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the positions last committed; partitions without one are left out."""
        wanted = [ck.TopicPartition(*partition) for partition in partitions]
        if not wanted:
            return {}
        try:
            with self._cluster.member(group) as member:
                found = member.committed(wanted, timeout=REQUEST_S)
        except KafkaException as error:
            raise self._cluster.explain(f"reading group {group}", error) from error
        return {TopicPartition(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    def close(self) -> None:
        """Wait for what was submitted, then give back sockets and threads."""
        self._producer.close()
