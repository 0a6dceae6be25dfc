"""What do the workers of one API know of each other?

Memory that all of them map: a secret, the table of rates (rate.py), for each worker a place where it writes about once
a second what it counted, and one place that each may change while it has the lock (claims.py). A reader that comes in
between finds a checksum that does not hold, and takes what it read last. It has no name in any directory, so nobody can
delete or find it; all of it is there from the start, and sealed to its size, so no page of it can be missing; and it
goes with the last process that has it.
"""

import fcntl
import mmap
import os
import secrets
import struct
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.reduction import DupFd
from typing import Any, Final, TypeVar

import msgspec

from driftline.api.access.rate import TABLE_BYTES
from driftline.stream.errors import ConfigError

SECRET_BYTES: Final = 32
PLACE_BYTES: Final = 128 << 10
_FIRST_PLACE: Final = TABLE_BYTES + 4096
_FRAME: Final = struct.Struct("<II")  # length, crc32
_T = TypeVar("_T")


class BoardMemory:
    """The memory of a board. It may be an argument of a process of multiprocessing."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """Give it back; boards that were made of it stay."""
        os.close(self.descriptor)

    def __reduce__(self) -> tuple[Callable[[Any], "BoardMemory"], tuple[Any]]:
        return _received, (DupFd(self.descriptor),)


def _received(descriptor: Any) -> BoardMemory:
    return BoardMemory(descriptor.detach())


def make_board(workers: int) -> BoardMemory:
    """Make a board for so many workers; the caller closes it. Raises ConfigError where there is no memory for it."""
    size = _FIRST_PLACE + (workers + 1) * PLACE_BYTES
    with ExitStack() as stack:
        try:
            descriptor = os.memfd_create("driftline-board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            stack.callback(os.close, descriptor)
            os.posix_fallocate(descriptor, 0, size)
            os.pwrite(descriptor, secrets.token_bytes(SECRET_BYTES), 0)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except OSError as error:
            raise ConfigError(
                f"workers: {size:,} bytes of memory that they share cannot be had: {error.strerror}; use one worker"
            ) from None
        stack.pop_all()
        return BoardMemory(descriptor)


class Board:
    """A board as one worker sees it.

    Parameters
    ----------
    worker : its number; one that is started again has that of the one before, and counts on
    workers : how many there are
    """

    def __init__(self, memory: BoardMemory, worker: int, workers: int) -> None:
        # Opened anew: the lock is this opening's, and goes with the process, however that ends.
        self._file = os.open(f"/proc/self/fd/{memory.descriptor}", os.O_RDWR | os.O_CLOEXEC)
        self._map = mmap.mmap(self._file, 0)
        view = memoryview(self._map)
        self.secret = bytes(view[:SECRET_BYTES])
        self.rates = view[4096:_FIRST_PLACE]
        starts = range(_FIRST_PLACE, _FIRST_PLACE + (workers + 1) * PLACE_BYTES, PLACE_BYTES)
        self._places = [view[start : start + PLACE_BYTES] for start in starts]
        self._worker, self._shared = worker, workers
        self._last: dict[int, bytes] = {}

    def close(self) -> None:
        """Give back its opening; what is mapped stays."""
        os.close(self._file)

    def write(self, content: msgspec.Struct) -> None:
        """Show the others something. What is too long for its place is left out."""
        self._write(self._worker, content)

    def read_own(self, decoder: "msgspec.msgpack.Decoder[_T]") -> _T:
        """Return what the worker of this number wrote last."""
        return self._read(self._worker, decoder)

    def read_others(self, decoder: "msgspec.msgpack.Decoder[_T]") -> list[_T]:
        """Return what each other worker wrote last."""
        return [self._read(number, decoder) for number in range(self._shared) if number != self._worker]

    def lock(self) -> bool:
        """Take the right to change what is shared, unless another worker has it; return whether that was done."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Give that right back."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def write_shared(self, content: msgspec.Struct) -> None:
        """Put something in the place of what is shared, under the lock."""
        self._write(self._shared, content)

    def read_shared(self, decoder: "msgspec.msgpack.Decoder[_T]") -> _T:
        """Return what was shared last."""
        return self._read(self._shared, decoder)

    def _write(self, number: int, content: msgspec.Struct) -> None:
        encoded = msgspec.msgpack.encode(content)
        if _FRAME.size + len(encoded) <= PLACE_BYTES:
            place = self._places[number]
            place[_FRAME.size : _FRAME.size + len(encoded)] = encoded
            place[: _FRAME.size] = _FRAME.pack(len(encoded), zlib.crc32(encoded))

    def _read(self, number: int, decoder: "msgspec.msgpack.Decoder[_T]") -> _T:
        place = self._places[number]
        length, checksum = _FRAME.unpack(place[: _FRAME.size])
        encoded = bytes(place[_FRAME.size : _FRAME.size + length])
        if length and len(encoded) == length and zlib.crc32(encoded) == checksum:
            self._last[number] = encoded
        last = self._last.get(number)
        return decoder.type() if last is None else decoder.decode(last)
