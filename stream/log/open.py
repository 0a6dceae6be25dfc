"""Which log does an address name?"""

from urllib.parse import urlsplit

from driftline.stream.errors import ConfigError
from driftline.stream.log.base import FOREVER_HOURS, Log
from driftline.stream.process.settings import StreamSettings


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
