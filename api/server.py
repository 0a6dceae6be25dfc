"""How does the API run?

uvicorn on one event loop. The address is taken before anything else is started, so a port in use is said at once; the
app's lifespan stands around the server, so that what it refuses reaches the caller as the error that it is.

    1. take the addresses; refuse one that other machines reach while nobody needs a key
    2. open the log, load the model        (the app's lifespan)
    3. accept requests; tell `on_ready`
    4. SIGINT, SIGTERM or `stop`: accept nothing new, finish what was begun, for STOP_S at most
    5. give back the log

With several workers 2 to 5 are those of each (workers.py).
"""

import asyncio
import contextlib
import ctypes
import gc
import ipaddress
import logging
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Final, NamedTuple

import uvicorn

from driftline.api import keys
from driftline.api.app import Api, make_app
from driftline.api.board import Board
from driftline.api.neighbours import told_of
from driftline.api.protocol import limited
from driftline.api.settings import ApiSettings
from driftline.api.slice import ask_for_short_slices
from driftline.stream.errors import ConfigError
from driftline.stream.settings import StreamSettings

STOP_S: Final = 3
BACKLOG: Final = 2048
M_MMAP_THRESHOLD: Final = -3  # malloc.h
LARGE_BYTES: Final = 1 << 20
OTHER_FILES: Final = 128  # than connections, that a process has open: the log, the model, Kafka's sockets
LOOK_TICKS: Final = 10  # of a tenth of a second each, between two looks at the connections
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_LOG: Final = logging.getLogger(__name__)


class Started(NamedTuple):
    """A server that accepts requests. `stop` may be called from any thread, and returns at once."""

    url: str
    reference: str  # where it is described
    stop: Callable[[], None]


def serve(
    stream: StreamSettings,
    settings: ApiSettings,
    *,
    on_ready: Callable[[Started], None] | None = None,
    stopping: threading.Event | None = None,
) -> None:
    """Answer requests until SIGINT or SIGTERM (heard in the main thread only), or until `Started.stop` is called.

    Parameters
    ----------
    on_ready : called once requests are accepted, on the event loop: it must return soon
    stopping : set as soon as it is time to stop, before what was begun is finished

    Raises
    ------
    ConfigError : an address cannot be listened on, or may not without keys, or the log's options cannot be meant.
    """
    settings = _allow_connections(settings)
    with ExitStack() as stack:
        listeners = [stack.enter_context(_listen(settings.host, settings.port))]  # 1
        if settings.admin_port is not None:
            listeners.append(stack.enter_context(_listen(settings.admin_host, settings.admin_port)))
        _check_reach(listeners, stream, settings)
        stack.enter_context(told_of(stream.data))
        if settings.workers == 1:
            run(stream, settings, listeners, on_ready=on_ready, stopping=stopping)
        else:
            from driftline.api.workers import supervise  # noqa: PLC0415  (it imports this)

            supervise(stream, settings, listeners, on_ready=on_ready, stopping=stopping)


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
    """Do 2 to 5 in this process. The first listener is that of the port, the second that of the admin port.

    With `hears` signals end it; else only `Started.stop` does.
    """
    give_memory_back()
    ask_for_short_slices()
    admin_port = listeners[1].getsockname()[1] if len(listeners) > 1 else None
    api = make_app(stream, settings, board=board, admin_port=admin_port)
    config = _configure(api, settings)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_run(api, _Server(config, listeners, api, on_ready, stopping or threading.Event(), hears)))


async def _run(api: Api, server: "_Server") -> None:
    async with api.app.router.lifespan_context(api.app):  # 2, 5
        if threading.current_thread() is threading.main_thread():  # else this process has other things to do
            gc.collect()
            gc.freeze()  # what was imported stays: looking through it would hold up requests for tens of milliseconds
        await server.serve(list(server.listeners))  # 3, 4


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
        if not self._hears or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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


def _allow_connections(settings: ApiSettings) -> ApiSettings:
    """Let a process have open what its connections need; return the settings with as many as it may have.

    Many systems begin with 1,024 files. A connection that there is no file for would wait, and hold up the others.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.max_connections + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return settings
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if allowed > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        except (OSError, ValueError):  # a system may have a limit of its own beneath
            allowed = soft
    most = max(1, max(soft, allowed) - OTHER_FILES)
    if most >= settings.max_connections:
        return settings
    _LOG.warning(
        "max_connections: %d are taken and not %d, since this process may have %d files open; raise that limit "
        "(ulimit -n, LimitNOFILE of systemd)",
        *(most, settings.max_connections, max(soft, allowed)),
    )
    return settings.model_copy(update={"max_connections": most})


def give_memory_back() -> None:
    """Let a large array's memory go when the array does.

    glibc keeps more and more of it, the larger those were that it was given: 50 MB a worker, after a model was mapped.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such thing
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def _check_reach(listeners: Sequence[socket.socket], stream: StreamSettings, settings: ApiSettings) -> None:
    """Refuse to be reached by other machines while nobody needs a key."""
    addresses = [listener.getsockname()[0] for listener in listeners]
    far = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
    if not far or settings.open:
        return
    path = keys.path_of(stream, settings)
    if not keys.Keys(path, settings.api_keys).needed():
        raise ConfigError(
            f"host: {far[0]} can be reached from other machines, and there are no API keys in {path}: make one with "
            "`driftline keys add NAME --role admin`, listen on 127.0.0.1, or say --open where whoever reaches it may "
            "do all"
        )


def _listen(host: str, port: int) -> socket.socket:
    """Return a listener. `::` is every address, of IPv4 too; a name with addresses of both kinds is that of IPv4."""
    host = host.strip("[]")
    try:
        families = {found[0] for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
        both = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(
            f"port: {host}:{port} cannot be listened on: {error.strerror}; "
            "choose another --port or --host, or end the process that has it"
        ) from None


def started(listeners: Sequence[socket.socket], stop: Callable[[], None]) -> Started:
    """Return what is to be known of a server: what is private, as the reference is, the last listener has."""
    return Started(url_of(listeners[0]), f"{url_of(listeners[-1])}/docs", stop)


def url_of(listener: socket.socket) -> str:
    """Return the address that a listener is asked at."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
