"""How does the API run?

The address is taken before anything else is started, so a port in use is said at once; one that other machines reach is
refused while nobody needs a key. Then requests are answered in this process (process.py), or in several (workers.py).
"""

import ipaddress
import logging
import resource
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from driftline.api.access import keys
from driftline.api.run.neighbours import told_of
from driftline.api.run.process import Started, run
from driftline.api.settings import ApiSettings
from driftline.stream.errors import ConfigError
from driftline.stream.process.settings import StreamSettings

BACKLOG: Final = 2048
OTHER_FILES: Final = 128  # than connections, that a process has open: the log, the model, Kafka's sockets
_LOG: Final = logging.getLogger(__name__)


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
        listeners = [stack.enter_context(_listen(settings.host, settings.port))]
        if settings.admin_port is not None:
            listeners.append(stack.enter_context(_listen(settings.admin_host, settings.admin_port)))
        _check_reach(listeners, stream, settings)
        stack.enter_context(told_of(stream.data))
        if settings.workers == 1:
            run(stream, settings, listeners, on_ready=on_ready, stopping=stopping)
        else:
            from driftline.api.run.workers import supervise  # noqa: PLC0415  (it loads all that workers share)

            supervise(stream, settings, listeners, on_ready=on_ready, stopping=stopping)


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
