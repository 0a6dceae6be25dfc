"""Which log does an address name?"""

from typing import Final
from urllib.parse import urlsplit

from driftline.stream.errors import ConfigError
from driftline.stream.log.base import FOREVER_HOURS, Log
from driftline.stream.process.settings import StreamSettings

JOURNAL_RECORD_BYTES: Final = 1 << 20  # at most


def open_log(settings: StreamSettings) -> Log:
    """Open the log that `settings.log_url` names.

    Raises
    ------
    ConfigError : the address cannot be meant.
    LogUnavailable : the file cannot be opened.
    """
    scheme = urlsplit(settings.log_url).scheme
    if scheme == "sqlite":
        from driftline.stream.log.sqlite.log import SqliteLog

        return SqliteLog(settings)
    if scheme == "kafka":
        from driftline.stream.log.kafka.log import KafkaLog

        return KafkaLog(settings)
    raise ConfigError(
        f"log: {settings.log_url!r} is not a log's address; use sqlite:///path/to/log.db or kafka://host:9092"
    )


def open_to_keep(settings: StreamSettings) -> Log:
    """Open a log for a command: it drops nothing that is old, which is for the log's owners to do."""
    return open_log(settings.model_copy(update={"retention_hours": FOREVER_HOURS, "retention_bytes": 1 << 62}))


def open_journal(settings: StreamSettings) -> Log:
    """Open the log for its journal (learner/cluster/): entries are sent at once, and packed, apart from all else.

    Raises
    ------
    ConfigError : it is not Kafka: only there can a log be shared by several machines.
    """
    if urlsplit(settings.log_url).scheme != "kafka":
        raise ConfigError(
            f"journal: several learners need a log that they can share: kafka://host:9092, not {settings.log_url}"
        )
    from driftline.stream.log.kafka.log import KafkaLog

    larger = settings.model_copy(update={"max_record_bytes": max(settings.max_record_bytes, JOURNAL_RECORD_BYTES)})
    return KafkaLog(larger, {"linger.ms": 0, "compression.type": "zstd"})
