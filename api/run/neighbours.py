"""Is another API at work on this data directory?

That is allowed, but they share no claims on messages to label (claims.py): whoever comes later says so. Each holds a
shared lock on the directory itself, so nothing is written for it, and it goes with the process, however that ends.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

_LOG: Final = logging.getLogger(__name__)


@contextmanager
def told_of(data: Path) -> Iterator[None]:
    """Say it where another API is there; be one for others to the end of the block."""
    with ExitStack() as stack:
        with suppress(OSError):  # it is not there yet, or on a file system without such locks: nobody can tell
            directory = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, directory)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _LOG.warning(
                    "another API answers from %s, too: a message that one has given somebody to label the other may "
                    "give somebody else; let people label at one of them",
                    data,
                )
            fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
