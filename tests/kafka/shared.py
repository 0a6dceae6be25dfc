"""Which Kafka do the workers of one test run share? That of the first who asks; he ends it when nobody uses it.

Two locks keep it so: `door` is held by who comes and by who goes, `users` by all who use it.
"""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from broker import Broker, ContainerBroker, end_broker, start_broker


class Shared(NamedTuple):
    """Where a broker is that others use as well."""

    bootstrap: str
    sasl_bootstrap: str | None


@contextmanager
def shared_broker(directory: Path) -> Iterator[Shared]:
    """Give the broker that all share who name this directory; it is there for as long as the block goes on.

    Raises
    ------
    NoKafka : as `start_broker`
    """
    directory.mkdir(exist_ok=True)
    address = directory / "address.json"
    own: Broker | ContainerBroker | None = None
    with (directory / "users").open("a") as users:
        with _door(directory):
            if not address.exists():
                own = start_broker(directory / f"broker-{time.monotonic_ns()}")
                address.write_text(json.dumps([own.bootstrap, own.sasl_bootstrap]))
            found = Shared(*json.loads(address.read_text()))
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield found
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)
            while own is not None:
                with _door(directory):
                    if _has_none(users):
                        address.unlink()
                        end_broker(own)
                        own = None
                        break
                time.sleep(0.1)


@contextmanager
def _door(directory: Path) -> Iterator[None]:
    with (directory / "door").open("a") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        yield


def _has_none(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
