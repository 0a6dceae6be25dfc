"""Is this the only learner of a data directory?

An exclusive lock on a file, held until the process ends, and a number, the epoch, that rises with each start. What a
learner writes carries its epoch, so that readers can tell the newest from one that was overtaken.

A learner that stands still (stopped, or on a machine that cannot be reached) keeps its lock. `take_over` puts another
file in the place of the locked one, with a higher epoch, once all that can be tried before was tried. Whoever finds
another line there than its own, or another file before it has a line, was overtaken: it looks before each thing that it
writes (`check`), and ends. What it had decided to write before, and wrote after, is one thing in each of its threads:
an entry in its own journal, which recovery leaves out (journal.py), a checkpoint of what came before the takeover, or
its model, kept; what people look at, until the next; records that the other sends too, with the same content. Proved
by tests/faults/test_fencing.py.
"""

import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from driftline.learner.disk import durable
from driftline.stream.errors import Overtaken, StateError

FILE: Final = "learner.lock"
NEXT: Final = "learner.lock.next"  # the file that a takeover puts in its place
LINE_BYTES: Final = 200
TRY_S: Final = 0.02
CAN_BE_ASKED: Final = hasattr(fcntl, "F_OFD_GETLK")  # on Linux
FLOCK: Final = "hhqqi4x"  # its struct flock: kind, whence, start, length (0 and 0: all of a file), process


@contextmanager
def alone(path: Path, refusal: str, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the lock on a file, which is made if it is not there.

    It is waited for a while only: a process that stands still may have it, and no other may have to stand still for it.

    Raises
    ------
    StateError : another process has it; with `refusal`.
    """
    deadline = time.monotonic() + timeout_s
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StateError(refusal) from None
            time.sleep(TRY_S)
        yield


class Lock:
    """The right to change a data directory. `check` may be called by any thread.

    Parameters
    ----------
    take_over : whether to take it from another learner
    rehearse : called before it is taken from one; what it raises leaves that one alone

    Attributes
    ----------
    last : the epoch that was announced last when it was got: nobody of that one, or before, is at work any more

    Raises
    ------
    StateError : another learner has it, and it is not to be taken.
    """

    def __init__(self, data: Path, *, take_over: bool = False, rehearse: Callable[[], None] = lambda: None) -> None:
        durable.make_directory(data)
        self._path = data / FILE
        self._line: bytes | None = None
        file = _locked(self._path)
        if file is None and take_over:
            rehearse()
            file = _locked(self._path) or self._overtake(data / NEXT)
        if file is None:
            raise _held(data)
        self._file = file
        self.last = _epoch(os.pread(file.fileno(), LINE_BYTES, 0).decode(errors="replace"))

    def announce(self, epoch: int) -> None:
        """Write down who holds the lock. It may be torn by a power cut: the journals' names have their epochs, too.

        Raises
        ------
        Overtaken : another learner has it by now.
        """
        self.check()
        line, self._line = _line(epoch), None  # one that could not be written down is not looked for
        durable.rewrite(self._file, line, self._path)
        durable.sync_directory(self._path.parent)
        self._line = line

    def last_epoch(self) -> int:
        """Return the epoch that was announced last, 0 where none was or the file is torn."""
        return last_epoch(self._path.parent)

    def check(self) -> None:
        """Return while nobody else has announced himself. Costs some microseconds.

        Raises
        ------
        Overtaken : another learner has the directory: nothing may be written any more.
        """
        if self._line is None:
            found, own, overtaken = _said(self._path), "just starting", not self._has_the_name()
        else:
            found, own = _said(self._path), self._line.decode().strip()
            overtaken = found != own
        if overtaken:
            raise Overtaken(
                f"{self._path.parent} was taken over by another learner ({found or 'the lock is gone'}); this one "
                f"({own}) wrote nothing since, and ends"
            )

    def close(self) -> None:
        """Let another learner have it."""
        self._file.close()

    def _has_the_name(self) -> bool:
        """Tell whether the file that is locked is still the one that others would find."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def _overtake(self, following: Path) -> BinaryIO | None:
        """Put another file in the place of the one that is locked; None: somebody else is doing that just now."""
        file = _locked(following)
        if file is None:
            return None
        self._line = _line(1 + self.last_epoch())
        durable.rewrite(file, self._line, following)
        following.replace(self._path)
        durable.sync_directory(self._path.parent)
        return file


def is_held(data: Path) -> bool | None:
    """Tell whether a learner has a data directory; None where that cannot be seen: its last one was another machine's.

    To take the lock for a moment, as a test, could have a learner that is just starting refused. So a holder has a
    second one, of the kind that can be asked about.
    """
    if not CAN_BE_ASKED:
        return None
    with suppress(OSError):
        if f" on {_host()}, " not in _said(data / FILE):  # not every file system tells other machines of its locks
            return None
        with (data / FILE).open("rb") as file:
            asked = struct.pack(FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            kind = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0]
            return bool(kind != fcntl.F_UNLCK)
    return None


def check_free(data: Path) -> None:
    """Raise StateError where another learner has a data directory, before anything is begun."""
    if is_held(data):
        raise _held(data)


def _held(data: Path) -> StateError:
    return StateError(
        f"another learner is at work on {data} ({_said(data / FILE) or 'it has just started'}); stop it first, "
        "or give this one a --data directory of its own; where it stands still for good, --take-over ends it"
    )


def last_epoch(data: Path) -> int:
    """Return the epoch of the learner that has a data directory, or had it last; 0 where that is not known."""
    return _epoch(_said(data / FILE))


def _epoch(line: str) -> int:
    words = line.split()
    return int(words[-1]) if words and words[-1].isdecimal() and words[-1].isascii() else 0


def _locked(path: Path) -> BinaryIO | None:
    """Return a file, locked, that still has its name; None where another process has locked it."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                if CAN_BE_ASKED:
                    with suppress(OSError):  # a file system without
                        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
                return cast(BinaryIO, file)
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass
        file.close()  # it was replaced between the two


def _line(epoch: int) -> bytes:
    """Return what a holder says of itself; as long as any other, so that a reader never sees parts of two."""
    return f"process {os.getpid()} on {_host()}, epoch {epoch}".ljust(LINE_BYTES - 1).encode() + b"\n"


def _host() -> str:
    return socket.gethostname()[:100]


def _said(path: Path) -> str:
    try:
        file = os.open(path, os.O_RDONLY)  # anew each time: so a network file system asks its server
    except FileNotFoundError:
        return ""
    try:
        return os.read(file, LINE_BYTES).decode(errors="replace").strip()
    finally:
        os.close(file)
