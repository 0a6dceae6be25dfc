"""Is a label traced from its request to the served model, to a collector that is asked for?"""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from driftline.stream.process.settings import StreamSettings
from tests.api.run.test_client import learning
from tests.place import Place, running

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector(BaseHTTPRequestHandler):
    """Keeps the spans that are sent to it as OTLP over HTTP."""

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        request = ExportTraceServiceRequest.FromString(content)
        server: Any = self.server
        server.resources += [each.resource for each in request.resource_spans]
        server.spans += [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.spans, server.resources = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def attributes(holder: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in holder.attributes}


def test_from_the_request_to_the_model_that_learned_it(tmp_path: Path, collector: Any) -> None:
    stream = StreamSettings(data=tmp_path / "data")
    with learning(stream), running(stream, traces=True, max_wait_s=60.0) as url:
        body = {"message_id": "m1", "label": "a-secret-label", "text": "a secret text"}
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        place = httpx.post(f"{url}/feedback", json=body, headers=headers, timeout=30).json()
        asked = {"text": "a", "min_feedback_offset": {"partition": place["partition"], "offset": place["offset"]}}
        version = httpx.post(f"{url}/predict", json=asked, timeout=30).json()["model_version"]
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"POST /feedback", "append", "learn and publish"}
    request = spans["POST /feedback"]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert spans["append"].parent_span_id == spans["learn and publish"].parent_span_id == request.span_id
    learned = spans["learn and publish"]
    assert learned.start_time_unix_nano >= spans["append"].end_time_unix_nano
    assert attributes(learned) == {
        "driftline.partition": 0, "driftline.offset": 0, "driftline.model_version": version,
    }  # fmt: skip
    assert attributes(collector.resources[0])["service.name"] == "driftline"
    assert "secret" not in str(collector.spans)


def test_a_label_that_was_not_learned_by_the_end(tmp_path: Path, collector: Any) -> None:
    place = Place(tmp_path)
    with running(place.stream, traces=True) as url:
        httpx.post(f"{url}/feedback", json={"message_id": "m1", "label": "spam", "text": "a"}, timeout=30)
    learned = next(span for span in collector.spans if span.name == "learn and publish")
    assert learned.status.code == 2
    assert len({span.trace_id for span in collector.spans}) == 1, "a trace of its own"


def test_off_by_default(tmp_path: Path, collector: Any) -> None:
    place = Place(tmp_path)
    with running(place.stream) as url:
        assert (
            httpx.post(
                f"{url}/feedback", json={"message_id": "m", "label": "spam", "text": "a"}, timeout=30
            ).status_code
            == 202
        )
    assert collector.spans == []
