"""Where does the API listen, and how much does it take? (See stream/settings.py for how options become flags.)"""

from pydantic import Field

from stream.settings import Settings


class ApiSettings(Settings):
    """Options of the API."""

    host: str = Field("127.0.0.1", min_length=1, description="Address that the API listens on; 0.0.0.0 is every one.")
    port: int = Field(8000, ge=0, le=65535, description="Port that the API listens on; 0 takes a free one.")
    max_items: int = Field(1000, ge=1, le=100_000, description="Texts, messages or labels in one request, at most.")
    max_text_chars: int = Field(100_000, ge=1, le=1 << 24, description="Characters in one text, at most.")
    max_body_bytes: int = Field(8 << 20, ge=1 << 10, le=1 << 30, description="Bytes in a request's body, at most.")
    max_scores: int = Field(100, ge=1, description="Labels in the scores of a prediction, the best ones.")
    append_timeout_s: float = Field(
        10.0, gt=0, description="A record that is not durable after this long is answered with 503."
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
