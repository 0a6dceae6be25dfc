"""Which options has librdkafka?

Properties come from the address (`kafka://host:9092?security.protocol=SSL`) and from the file `kafka_config`, before
ours, but for those that the promises rest on.
"""

import math
from typing import Final
from urllib.parse import unquote

from driftline.stream.errors import ConfigError
from driftline.stream.log.base import Kind
from driftline.stream.process.settings import StreamSettings

ENVELOPE_BYTES: Final = 64 << 10  # room for the key and headers beside a value of max_record_bytes
COMPACTED_MS: Final = 600_000  # a value that another one took the place of stays for about so long
SEGMENTS: Final = 8  # Kafka drops whole segments: this many make a partition's retention_bytes

PRODUCER: Final = {
    "linger.ms": 2,
    "delivery.timeout.ms": 30_000,
    "queue.buffering.max.kbytes": 64 << 10,
    "topic.metadata.refresh.interval.ms": 60_000,
}
PRODUCER_FIXED: Final = {
    "enable.idempotence": True,
    "acks": "all",
    "delivery.report.only.error": False,  # who waits for a record would wait for ever
    "partitioner": "murmur2_random",  # the Java client's: every client puts a key into the same partition
}
READER: Final = {
    "group.id": "driftline-reader",  # librdkafka asks for one; it is never joined
    "fetch.wait.max.ms": 100,  # a resumed partition waits for the fetch under way
    "fetch.queue.backoff.ms": 10,  # the default of a second starves a reader that is faster than that
    "queued.max.messages.kbytes": 16 << 10,  # pausing throws away what was fetched ahead
    "receive.message.max.bytes": 1 << 30,  # a larger record than ours must reach the dead-letter topic, not block
    "topic.metadata.refresh.interval.ms": 60_000,
}
READER_FIXED: Final = {
    "auto.offset.reset": "error",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "check.crcs": True,
    "isolation.level": "read_committed",
}
_FIXED: Final = PRODUCER_FIXED.keys() | READER_FIXED.keys() | {"bootstrap.servers", "metadata.broker.list"}


def topic_config(settings: StreamSettings, kind: Kind = "records") -> dict[str, str]:
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
    if kind != "records":
        config |= {"retention.ms": -1, "retention.bytes": -1, "segment.bytes": 64 << 20}
    if kind == "values":
        # Soon compacted: a reader begins at the topic's beginning, and what was erased must not stay for long.
        compaction = {"min.cleanable.dirty.ratio": 0.1, "max.compaction.lag.ms": COMPACTED_MS}
        config |= {"cleanup.policy": "compact", "segment.ms": COMPACTED_MS, **compaction}
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
