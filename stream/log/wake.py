"""How does a reader of a file learn that somebody wrote into it, without looking all the time?

Linux tells (inotify(7)), at once and of every process; where that cannot be had, who waits has to look. Told is the
write, not that it counts: a commit of SQLite can be seen a little later, once it is synced.
"""

import ctypes
import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

IN_MODIFY: Final = 0x2
_EVENTS_BYTES: Final = 1 << 12


def _libc() -> Any:
    """Return the C library, None where it has no such thing."""
    if sys.platform != "linux":
        return None
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.inotify_init1 and libc.inotify_add_watch:
            return libc
    return None


_LIBC: Final = _libc()


class Wake:
    """Waits for writes into a file. One thread."""

    def __init__(self, path: Path) -> None:
        self._descriptor = _watched(path)
        self._poll = select.poll()
        if self._descriptor is not None:
            self._poll.register(self._descriptor, select.POLLIN)

    @property
    def can_tell(self) -> bool:
        """Whether it would wake; else who waits has to look."""
        return self._descriptor is not None

    def wait(self, timeout_s: float) -> bool:
        """Return once something was written since the last call, or the time is over; tell which."""
        if self._descriptor is None or not self._poll.poll(max(0, timeout_s) * 1000):
            return False
        with suppress(BlockingIOError):
            while len(os.read(self._descriptor, _EVENTS_BYTES)) > _EVENTS_BYTES // 2:
                pass
        return True

    def close(self) -> None:
        """Give back what the system keeps for this."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _watched(path: Path) -> int | None:
    """Return a descriptor that can be read once there was a write; None where there is no such thing, or no file."""
    if _LIBC is None:
        return None
    descriptor = int(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:  # a limit on how many one user may have
        return None
    if _LIBC.inotify_add_watch(descriptor, os.fsencode(path), IN_MODIFY) < 0:
        os.close(descriptor)
        return None
    return descriptor
