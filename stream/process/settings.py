"""Which log, where, and how long does it keep things?

Each option stands once: here it has its type, default, limits and help; `flags.py` makes it a flag, a DRIFTLINE_*
variable and an entry of driftline.toml.
"""

import json
import math
import re
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, get_origin

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from driftline.stream.process import variables
from driftline.stream.wire.label_scheme import read_scheme
from driftline.stream.wire.records import Topics

CONFIG_FILE: Final = Path("driftline.toml")
# What a number may be at most, so that what is made of it stays a number of 64 bits.
MOST_BYTES: Final = 1 << 50
MOST_HOURS: Final = 1e7  # a thousand years; `inf` beyond it where there may be no end
MOST_SECONDS: Final = 1e7


class _Variables(EnvSettingsSource):
    """The variables that are ours, whose empty ones are not there."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self.env_vars = {name.lower(): value for name, value in variables.options().items()}


class Settings(BaseSettings):
    """Flags first, then DRIFTLINE_* variables, then driftline.toml, then the defaults."""

    model_config = SettingsConfigDict(
        env_prefix=variables.PREFIX,
        toml_file=CONFIG_FILE,
        extra="ignore",
        frozen=True,
        validate_default=True,
        enable_decoding=False,  # a list is not written as JSON alone: `_split`
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
        del env_settings, dotenv_settings, file_secret_settings
        return init_settings, _Variables(settings_cls), TomlConfigSettingsSource(settings_cls)

    @field_validator("*", mode="before")
    @classmethod
    def _split(cls, value: Any, info: ValidationInfo) -> Any:
        """Make a list of a text that stands for one."""
        field = cls.model_fields[info.field_name or ""]
        return split(value) if isinstance(value, str) and get_origin(field.annotation) is list else value


def split(text: str) -> list[str]:
    """Return the parts of `a, b`, or of a JSON list; a line's end stands for a comma.

    Raises
    ------
    ValueError : it begins as a JSON list and is none of texts.
    """
    if not text.lstrip().startswith("["):
        return [part for each in re.split(r"[,\n]", text) if (part := each.strip())]
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        parts = None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError('not a list of texts: write a,b or ["a","b"]')
    return parts


def hours_or_no_end(hours: float) -> float:
    """Return a time that is infinite or at most MOST_HOURS. Raises ValueError."""
    if MOST_HOURS < hours < math.inf:
        raise ValueError(f"Input should be at most {MOST_HOURS:g}, or inf")
    return hours


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
    retention_hours: float = Field(168.0, gt=0, description="The log drops records older than this; inf: none by age.")
    retention_bytes: int = Field(
        8 << 30,
        ge=1 << 20,
        le=MOST_BYTES,
        description="The log drops a partition's oldest records beyond this many bytes.",
    )
    max_record_bytes: int = Field(
        1 << 20, ge=1 << 10, le=1 << 26, description="A record with a larger value goes to the dead-letter topic."
    )
    journal_topic: str = Field(
        "journal",
        pattern=r"^[A-Za-z0-9._-]+$",
        max_length=40,
        description="The topic in which several learners of one model keep their journal; another model's learners "
        "need another one.",
    )
    labels: Path | None = Field(
        None,
        description="A file of the labels that there are, one on each line or as a JSON list. Any other label is "
        "refused: by the API, and by the learner, which sends it to the dead-letter topic. Default: any label is taken "
        "while the model has a place for it.",
    )
    kafka_config: Path | None = Field(
        None, description="A file of librdkafka properties (one name=value a line) for TLS, SASL and the like."
    )
    checkpoints: str | None = Field(
        None,
        description="Where copies of the checkpoints go, beside those in the data directory: s3://bucket/prefix, "
        "gs://bucket/prefix, az://container/prefix or file:///directory. A learner whose data directory is empty "
        "begins with the newest one there. Keys come from the cloud's own variables, files and identities, never from "
        "the URL.",
    )
    allow_pickle: bool = Field(
        False,
        description="Take models of other libraries (river:, sklearn:, class:, file:), whose state is a Python "
        "pickle. Opening a pickle runs whatever code is in it: only where nobody else can write to the data directory.",
    )

    log_format: Literal["json", "text"] | None = Field(
        None,
        description="What up, learn and serve say while they run: one line of JSON an event, or text. Default: text on "
        "a terminal, else JSON.",
    )

    @field_validator("retention_hours")
    @classmethod
    def _may_last(cls, hours: float) -> float:
        return hours_or_no_end(hours)

    @cached_property
    def scheme(self) -> tuple[str, ...] | None:
        """The labels that there are, read once; None where any may be. Raises ConfigError."""
        return None if self.labels is None else read_scheme(self.labels)

    @property
    def log_url(self) -> str:
        """The log's address, the default filled in."""
        return self.log or f"sqlite:///{self.data / 'log.db'}"

    @property
    def log_shown(self) -> str:
        """The log's address as anybody may see it: without a client's properties, of which one may be a secret."""
        return self.log_url.partition("?")[0] if self.log_url.startswith("kafka:") else self.log_url

    @property
    def journal_name(self) -> str:
        """The journal topic's whole name."""
        return self.prefix + self.journal_topic

    @property
    def state_name(self) -> str:
        """The whole name of the topic with what all machines of one journal show and choose (learner/shared/)."""
        return f"{self.journal_name}-state"

    @property
    def topics(self) -> Topics:
        """The four topics' names."""
        return Topics.with_prefix(self.prefix)
