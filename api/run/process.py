"""How does one process of the API run?

uvicorn on one event loop. The app's lifespan stands around the server, so that what it refuses reaches the caller as
the error that it is.

    1. open the log, load the model        (the app's lifespan)
    2. accept requests; tell `on_ready`
    3. SIGINT, SIGTERM or `stop`: accept nothing new, finish what was begun, for STOP_S at most
    4. give back the log
"""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final, NamedTuple

import uvicorn

from driftline.api.app import Api, make_app
from driftline.api.http.protocol import limited
from driftline.api.http.slice import ask_for_short_slices
from driftline.api.settings import ApiSettings
from driftline.api.shared.board import Board
from driftline.stream.process import interrupts
from driftline.stream.process.memory import give_back_large_arrays
from driftline.stream.process.settings import StreamSettings

STOP_S: Final = 3
LOOK_TICKS: Final = 10  # of a tenth of a second each, between two looks at the connections


class Started(NamedTuple):
    """A server that accepts requests. `stop` may be called from any thread, and returns at once."""

    url: str
    reference: str  # where it is described
    stop: Callable[[], None]


def run(
    stream: StreamSettings,
    settings: ApiSettings,
    listeners: Sequence[socket.socket],
    *,
    board: Board | None = None,
    on_ready: Callable[[Started], None] | None = None,
    stopping: threading.Event | None = None,
    hears: bool = True,
) -> None:
    """Answer requests. The first listener is that of the port, the second that of the admin port.

    With `hears` signals end it; else only `Started.stop` does.
    """
    give_back_large_arrays()
    ask_for_short_slices()
    admin_port = listeners[1].getsockname()[1] if len(listeners) > 1 else None
    api = make_app(stream, settings, board=board, admin_port=admin_port)
    config = _configure(api, settings)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_run(api, _Server(config, listeners, api, on_ready, stopping or threading.Event(), hears)))


async def _run(api: Api, server: "_Server") -> None:
    async with api.app.router.lifespan_context(api.app):  # 1, 4
        if threading.current_thread() is threading.main_thread():  # else this process has other things to do
            gc.collect()
            gc.freeze()  # what was imported stays: looking through it would hold up requests for tens of milliseconds
        await server.serve(list(server.listeners))  # 2, 3


class _Server(uvicorn.Server):
    """uvicorn's, except that a signal ends `serve` by its return, so that what stands around it can be closed."""

    def __init__(
        self,
        config: uvicorn.Config,
        listeners: Sequence[socket.socket],
        api: Api,
        on_ready: Callable[[Started], None] | None,
        stopping: threading.Event,
        hears: bool,
    ) -> None:
        super().__init__(config)
        self.listeners, self._api, self._on_ready, self._hears = listeners, api, on_ready, hears
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready(started(self.listeners, self.stop))
        if self._stopping.is_set():  # before it was up
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._api.stop()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_TICKS == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                connection.look(now)  # type: ignore[union-attr]
            self._api.metrics.share()
        return await super().on_tick(counter)

    def stop(self) -> None:
        self._stopping.set()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if not self._hears:
            yield
            return
        with interrupts.handled(self.handle_exit):
            yield


def _configure(api: Api, settings: ApiSettings) -> uvicorn.Config:
    return uvicorn.Config(
        api.gate,
        http=limited(settings.max_connections, settings.receive_timeout_s, settings.keep_alive_s),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,  # logs.py
        access_log=False,  # gate.py
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_S,
    )


def started(listeners: Sequence[socket.socket], stop: Callable[[], None]) -> Started:
    """Return what is to be known of a server: what is private, as the reference is, the last listener has."""
    return Started(url_of(listeners[0]), f"{url_of(listeners[-1])}/docs", stop)


def url_of(listener: socket.socket) -> str:
    """Return the address that a listener is asked at."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
