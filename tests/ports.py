"""A port for a server that a test starts, and that nobody else gets meanwhile."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


def reserve() -> socket.socket:
    """Return a socket on a loopback port of its own that does not listen: until it is closed the system gives the port
    to nobody who asks for any, and a server that asks for this one gets it, since all set SO_REUSEADDR.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


@contextmanager
def reserved() -> Iterator[int]:
    """Give such a port, for the length of a block."""
    with reserve() as holder:
        yield int(holder.getsockname()[1])
