"""Which log, where, and how long does it keep things?

Each option stands once: here it has its type, default, limits and help; `flags.py` makes it a flag, a DRIFTLINE_*
variable and an entry of driftline.toml.
"""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from driftline.stream.records import Topics

CONFIG_FILE: Final = Path("driftline.toml")


class Settings(BaseSettings):
    """Flags first, then DRIFTLINE_* variables, then driftline.toml, then the defaults."""

    model_config = SettingsConfigDict(
        env_prefix="DRIFTLINE_", toml_file=CONFIG_FILE, extra="ignore", frozen=True, validate_default=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what was given, the environment and driftline.toml, in this order."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


class StreamSettings(Settings):
    """Options of the log."""

    data: Path = Field(
        Path("driftline-data"), description="Directory of the checkpoints, the snapshots and the embedded log."
    )
    log: str | None = Field(
        None,
        description="The log: sqlite:///path or kafka://host:9092[,host:9092]. Default: log.db in the data directory.",
    )
    prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]*$", max_length=200, description="Put before each topic's name.")
    partitions: int = Field(1, ge=1, le=1024, description="Partitions of each topic that has to be made.")
    replication: int = Field(1, ge=1, le=15, description="Replicas of each topic that has to be made (Kafka only).")
    retention_hours: float = Field(168.0, gt=0, description="The log drops records older than this.")
    retention_bytes: int = Field(
        8 << 30, ge=1 << 20, description="The log drops a partition's oldest records beyond this many bytes."
    )
    max_record_bytes: int = Field(
        1 << 20, ge=1 << 10, le=1 << 26, description="A record with a larger value goes to the dead-letter topic."
    )
    kafka_config: Path | None = Field(
        None, description="A file of librdkafka properties (one name=value a line) for TLS, SASL and the like."
    )
    allow_pickle: bool = Field(
        False,
        description="Take models of other libraries (river:, sklearn:, multiflow:, class:), whose state is a Python "
        "pickle. Opening a pickle runs whatever code is in it: only where nobody else can write to the data directory.",
    )

    log_format: Literal["json", "text"] | None = Field(
        None,
        description="What up, learn and serve say while they run: one line of JSON an event, or text. Default: text on "
        "a terminal, else JSON.",
    )

    @property
    def log_url(self) -> str:
        """The log's address, the default filled in."""
        return self.log or f"sqlite:///{self.data / 'log.db'}"

    @property
    def log_shown(self) -> str:
        """The log's address as anybody may see it: without a client's properties, of which one may be a secret."""
        return self.log_url.partition("?")[0] if self.log_url.startswith("kafka:") else self.log_url

    @property
    def topics(self) -> Topics:
        """The four topics' names."""
        return Topics.with_prefix(self.prefix)
