"""How does the API run?

uvicorn on one event loop. The address is taken before anything else is started, so a port in use is said at once; the
app's lifespan stands around the server, so that what it refuses reaches the caller as the error that it is.

    1. take the address
    2. open the log, load the model        (the app's lifespan)
    3. accept requests; tell `on_ready`
    4. SIGINT, SIGTERM or `stop`: accept nothing new, finish what was begun, for STOP_S at most
    5. give back the log
"""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.app import make_app
from api.errors import Error, ErrorDetail, encode
from api.settings import ApiSettings
from stream.errors import ConfigError
from stream.settings import StreamSettings

STOP_S: Final = 3
BACKLOG: Final = 2048
MAX_HEAD_BYTES: Final = 64 << 10
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Started(NamedTuple):
    """A server that accepts requests. `stop` may be called from any thread, and returns at once."""

    url: str
    stop: Callable[[], None]


def serve(stream: StreamSettings, settings: ApiSettings, *, on_ready: Callable[[Started], None] | None = None) -> None:
    """Answer requests until SIGINT or SIGTERM (heard in the main thread only), or until `Started.stop` is called.

    Parameters
    ----------
    on_ready : called once requests are accepted, on the event loop: it must return soon

    Raises
    ------
    ConfigError : the address cannot be listened on, or the log's options cannot be meant.
    """
    with _listen(settings.host, settings.port) as listener:  # 1
        app = make_app(stream, settings)
        config = _configure(app, settings)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(app, _Server(config, listener, on_ready)))


async def _run(app: FastAPI, server: "_Server") -> None:
    async with app.router.lifespan_context(app):  # 2, 5
        await server.serve([server.listener])  # 3, 4


class _Server(uvicorn.Server):
    """uvicorn's, except that a signal ends `serve` by its return, so that what stands around it can be closed."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, on_ready: Callable[[Started], None] | None
    ) -> None:
        super().__init__(config)
        self.listener, self._on_ready = listener, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready(Started(_url(self.listener), self.stop))

    def stop(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Protocol(HttpToolsProtocol):
    """uvicorn's, except that a head has a limit (its parser takes any), and that its refusals have the API's shape."""

    _in_head = False
    _head_bytes = 0

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        went_on = self._in_head  # what a head begins with may come behind a body, so it does not count
        super().data_received(data)
        if went_on and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"The request's head is longer than {MAX_HEAD_BYTES} bytes.")

    def send_400_response(self, msg: str) -> None:
        content = encode(Error(ErrorDetail("bad-request", msg, "Send a request as HTTP/1.1 has it (RFC 9112).")))
        head = f"content-type: application/json\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head.encode() + content)
        self.transport.close()


def _configure(app: FastAPI, settings: ApiSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=_logging(settings),
        access_log=settings.access_log,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_S,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"port: {host}:{port} cannot be listened on: {error.strerror}; "
            "choose another --port or --host, or end the process that has it"
        ) from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _logging(settings: ApiSettings) -> dict[str, Any]:
    """Return what uvicorn is to say: its errors, and a line for each request where that was asked for."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"short": {"format": "%(asctime)s %(levelname)s %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "short"}},
        "loggers": {
            "uvicorn.error": {"level": "ERROR", "handlers": ["stderr"], "propagate": False},
            "uvicorn.access": {
                "level": "INFO" if settings.access_log else "ERROR",
                "handlers": ["stderr"],
                "propagate": False,
            },
        },
    }
