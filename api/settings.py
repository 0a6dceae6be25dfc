"""Where does the API listen, and how much does it take? (See process/settings.py for how options become flags.)"""

from pathlib import Path

from pydantic import Field, field_validator

from driftline.api.proxies import networks
from driftline.learner.catalogue.settings import CatalogueSettings
from driftline.stream.process.settings import MOST_SECONDS


class ApiSettings(CatalogueSettings):
    """Options of the API."""

    host: str = Field("127.0.0.1", min_length=1, description="Address that the API listens on; 0.0.0.0 is every one.")
    port: int = Field(8000, ge=0, le=65535, description="Port that the API listens on; 0 takes a free one.")
    admin_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="A port of its own for the docs, the metrics and what needs the role admin; there everything is "
        "answered, on --port they are not.",
    )
    admin_host: str = Field("127.0.0.1", min_length=1, description="Address that the admin port is on.")
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*/?$",
        max_length=200,
        description="Where a proxy has the API, as /driftline. Requests are taken with it and without it.",
    )
    trusted_proxies: list[str] = Field(
        [],
        description="Address or network of proxies, as 10.0.0.0/8, whose X-Forwarded-For says who asks: for rates and "
        "for the access log. * trusts all.",
    )
    workers: int = Field(1, ge=1, le=256, description="Processes that answer; they share the model's memory.")
    open: bool = Field(
        False, description="Listen to other machines although there are no API keys: whoever reaches it may do all."
    )
    keys_file: Path | None = Field(None, description="File of the API keys. Default: api-keys in the data directory.")
    api_keys: list[str] = Field([], description="Lines as in that file, of more keys.")
    rate_limit: float | None = Field(
        None,
        ge=0.001,
        description="Requests a second that one key, or one address without a key, may make; inf: any number. Default: "
        "1000 where keys are asked for, else any number.",
    )
    cors_origin: list[str] = Field([], description="Origin whose pages may use the API, as https://example.org.")
    allowed_host: list[str] = Field(
        [], description="Name with a dot by which the API may be asked where no key is (else: addresses, localhost)."
    )
    max_items: int = Field(1000, ge=1, le=100_000, description="Texts, messages or labels in one request, at most.")
    max_text_chars: int = Field(100_000, ge=1, le=1 << 24, description="Characters in one text, at most.")
    max_body_bytes: int = Field(8 << 20, ge=1 << 10, le=1 << 30, description="Bytes in a request's body, at most.")
    max_scores: int = Field(100, ge=1, le=1_000_000, description="Labels in the scores of a prediction, the best ones.")
    max_connections: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Connections of one worker; beyond that, who has kept it waiting longest is closed.",
    )
    receive_timeout_s: float = Field(
        10.0,
        gt=0,
        le=MOST_SECONDS,
        description="A client whose request, or of a long one the next 64 KiB, does not come in this time, or who does "
        "not read its answer, is closed.",
    )
    keep_alive_s: float = Field(
        75.0,
        gt=0,
        le=MOST_SECONDS,
        description="A connection on which no request comes for so long is closed. Behind a load balancer it must be "
        "longer than that one's idle timeout, often 60 s.",
    )
    request_timeout_s: float = Field(
        30.0, gt=0, le=MOST_SECONDS, description="A request that takes longer is answered with 503."
    )
    append_timeout_s: float = Field(
        10.0, gt=0, le=MOST_SECONDS, description="A record that is not durable after this long is answered with 503."
    )
    max_wait_s: float = Field(
        5.0, gt=0, le=60, description="A prediction that waits for a label (min_feedback_offset) waits at most so long."
    )
    model_name: str = Field(
        "driftline",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="The model's name for clients of the Open Inference Protocol (/v2/models/NAME).",
    )
    traces: bool = Field(
        False, description="Send OpenTelemetry traces of labels to where OTEL_EXPORTER_OTLP_ENDPOINT says (extra otel)."
    )
    access_log: bool = Field(False, description="Write a line to standard error for each request.")

    @property
    def most_behind_s(self) -> float | None:
        """How far the follower beside this API may be behind; None: a learner is, or none at all."""
        return None

    @field_validator("root_path")
    @classmethod
    def _without_end(cls, path: str) -> str:
        return path.rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, named: list[str]) -> list[str]:
        networks(named)
        return named


class ReplicaSettings(ApiSettings):
    """Options of the API."""

    follow: bool = Field(
        False,
        description="Answer from a model that a learner on another machine learns (`driftline learn --journal log`): "
        "begin with its newest checkpoint, then learn what it does. Needs Kafka, --checkpoints, and a --data directory "
        "of its own.",
    )
    max_follower_lag_s: float = Field(
        10.0,
        gt=0,
        le=MOST_SECONDS,
        description="With --follow: not ready (GET /readyz) while the model here may be further behind the learner's.",
    )
    publish_interval_s: float = Field(
        0.05, ge=0.0, le=MOST_SECONDS, description="A snapshot is published at most this often."
    )

    @property
    def most_behind_s(self) -> float | None:
        """How far the follower beside this API may be behind; None: there is none."""
        return self.max_follower_lag_s if self.follow else None
