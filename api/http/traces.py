"""How long did a label take, step by step?

OpenTelemetry spans, where `traces` is on and the extra `otel` is installed; else nothing. A request to POST /feedback
is a span, in the caller's trace where it sends a `traceparent`; below it one for the append, until the labels are
durable, and one from there until the served model has learned the last of them. Where spans go is said by
OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, ...). No span has a text or a label.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from driftline.api.settings import ApiSettings
from driftline.stream.errors import ConfigError
from driftline.stream.log.base import Appended

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SERVICE: Final = "driftline"


class Traces:
    """Makes the spans of requests. On the event loop; `close` once.

    Parameters
    ----------
    provider : of OpenTelemetry's tracers, which this then owns; None: nothing is traced
    """

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(SERVICE) if provider is not None else None

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Iterator["Trace | None"]:
        """Trace a request for the length of a block; None where nothing is traced. An error marks its span."""
        if self._tracer is None:
            yield None
            return
        from opentelemetry import propagate, trace  # noqa: PLC0415  (only with the extra)

        context = propagate.extract({key.lower(): value for key, value in headers.items()})
        with self._tracer.start_as_current_span(name, context, trace.SpanKind.SERVER):
            yield Trace(self._tracer)

    def close(self) -> None:
        """Send what was not sent yet."""
        if self._provider is not None:
            self._provider.shutdown()


class Trace:
    """The spans of one request."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer

    @contextmanager
    def append(self, n_records: int) -> Iterator[None]:
        """Trace an append for the length of a block."""
        with self._tracer.start_as_current_span("append", attributes={"driftline.records": n_records}):
            yield

    def learn(self, place: Appended) -> "Learning":
        """Begin the span from a durable label to a model that has learned it."""
        attributes = {"driftline.partition": place.partition, "driftline.offset": place.offset}
        return Learning(self._tracer.start_span("learn and publish", attributes=attributes))


class Learning:
    """A label's way into the served model. It may end long after its request."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def end(self, model_version: str | None) -> None:
        """End the span: a model of this version is served; None: no such model came in time."""
        if model_version is not None:
            self._span.set_attribute("driftline.model_version", model_version)
        else:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415  (only with the extra)

            self._span.set_status(StatusCode.ERROR, "no served model learned it in time")
        self._span.end()


def make_traces(settings: ApiSettings) -> Traces:
    """Return traces as the settings have them. Raises ConfigError: they are on, and the extra is not installed."""
    if not settings.traces:
        return Traces()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"traces: {error}; install them with: pip install 'driftline[otel]'") from None
    named = "OTEL_SERVICE_NAME" in os.environ
    provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: SERVICE}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)
