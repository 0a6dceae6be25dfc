"""How does a probe ask the learner itself?

GET /healthz, /readyz and /metrics on a port of their own (`--health-port`), for a learner that runs without an API
beside it. One request at a time, in a thread: it gives what the learner said of itself last, so it answers although the
loop hangs. /healthz is 503 where a new start may help: it is stalled or has failed. One that waits or is paused says so
with 200, since a new start would wait for the same. /readyz is 503 also where it could not learn now, since it has not
started or the log is away: who replaces learners one by one waits for that, so that one is always warm.
"""

import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from driftline.learner.report.metrics import of_learner
from driftline.learner.report.status import Status
from driftline.stream.errors import ConfigError
from driftline.stream.process import threads

CLIENT_S: Final = 2.0  # a client that sends nothing holds up the next one for so long
SICK: Final = frozenset({"stalled", "failed"})
NOT_YET: Final = frozenset({"starting", "recovering", "waiting"})


class HealthAnswer(msgspec.Struct, frozen=True):
    """GET /healthz, GET /readyz."""

    state: str
    detail: str
    stalls: int
    status_age_seconds: float


class Health:
    """The server. `status` gives the last one, None before there is one; it is called in the server's thread.

    Raises
    ------
    ConfigError : the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, status: Callable[[], Status | None]) -> None:
        registry = CollectorRegistry()
        registry.register(_OfStatus(status))

        class Handler(BaseHTTPRequestHandler):
            timeout = CLIENT_S

            def do_GET(self) -> None:
                if self.path == "/healthz":
                    self._answer(*_answer(status(), SICK), "application/json")
                elif self.path == "/readyz":
                    self._answer(*_answer(status(), SICK | NOT_YET), "application/json")
                elif self.path == "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                else:
                    self._answer(404, b'{"error":"there are /healthz, /readyz and /metrics"}', "application/json")

            def _answer(self, code: int, body: bytes, media_type: str) -> None:
                self.send_response(code)
                self.send_header("content-type", media_type)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing: a probe comes every few seconds."""

        try:
            self._server = _server(host, port, Handler)
        except OSError as error:
            raise ConfigError(f"health_port: {host}:{port} cannot be listened on: {error.strerror}") from None
        self.port = self._server.server_port
        threads.start("health", self._server.serve_forever)

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


def _server(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> HTTPServer:
    """Return a server that listens; `::` is every address, of IPv4 too. Raises OSError."""
    host = host.strip("[]")
    families = {found[0] for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}

    class Server(HTTPServer):
        address_family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6

        def server_bind(self) -> None:
            if host == "::" and socket.has_dualstack_ipv6():
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            super().server_bind()

    return Server((host, port), handler)


class _OfStatus(Collector):
    def __init__(self, status: Callable[[], Status | None]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        if status is not None:
            yield from of_learner(status)


def _answer(status: Status | None, not_well: frozenset[str]) -> tuple[int, bytes]:
    if status is None:
        answer = HealthAnswer("starting", "", 0, 0.0)
    else:
        answer = HealthAnswer(status.state, status.detail, status.stalls, round(status.age_s, 3))
    return 503 if answer.state in not_well else 200, msgspec.json.encode(answer)
