"""Is this the only learner of a data directory?

An exclusive lock on a file, held until the process ends, and a number, the epoch, that rises with each start. What a
learner writes carries its epoch, so that readers can tell the newest from one that was overtaken.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from learner import durable
from stream.errors import StateError

FILE: Final = "learner.lock"


@contextmanager
def alone(path: Path, refusal: str = "") -> Iterator[None]:
    """Hold the lock on a file, which is made if it is not there; wait for it, or raise StateError with `refusal`."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError:
            raise StateError(refusal) from None
        yield


class Lock:
    """The right to change a data directory.

    Raises
    ------
    StateError : another learner has it.
    """

    def __init__(self, data: Path) -> None:
        durable.make_directory(data)
        self._path = data / FILE
        self._file = self._path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read(200).decode(errors="replace").strip()
            self._file.close()
            raise StateError(
                f"another learner is at work on {data} ({holder or 'it has just started'}); "
                "stop it first, or give this one a --data directory of its own"
            ) from None

    def announce(self, epoch: int) -> None:
        """Write down who holds the lock. It may be torn by a power cut: the journals' names have their epochs, too."""
        durable.rewrite(self._file, f"process {os.getpid()}, epoch {epoch}\n".encode(), self._path)
        durable.sync_directory(self._path.parent)

    def last_epoch(self) -> int:
        """Return the epoch that was announced last, 0 where none was or the file is torn."""
        self._file.seek(0)
        words = self._file.read(200).split()
        return int(words[-1]) if words and words[-1].isdigit() else 0

    def close(self) -> None:
        """Let another learner have it."""
        self._file.close()
