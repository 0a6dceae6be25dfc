"""What do the workers of one API know of each other?

A file that all of them map: a secret, the table of rates (rate.py), for each worker a place where it writes about once
a second what it counted, and one place that each may change while it has the file's lock (claims.py). A reader that
comes in between finds a checksum that does not hold, and takes what it read last. The file is deleted once all have it;
it holds nothing that must last.
"""

import fcntl
import mmap
import os
import secrets
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from driftline.api.rate import TABLE_BYTES

SECRET_BYTES: Final = 32
PLACE_BYTES: Final = 128 << 10
_FIRST_PLACE: Final = TABLE_BYTES + 4096
_FRAME: Final = struct.Struct("<II")  # length, crc32
_T = TypeVar("_T")


def make_board(workers: int) -> Path:
    """Make a board's file for so many workers; the caller deletes it."""
    descriptor, name = tempfile.mkstemp(prefix="driftline-workers-")
    with os.fdopen(descriptor, "r+b") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
        file.truncate(_FIRST_PLACE + (workers + 1) * PLACE_BYTES)
    return Path(name)


class Board:
    """A board as one worker sees it.

    Parameters
    ----------
    worker : its number; one that is started again has that of the one before, and counts on
    workers : how many there are
    """

    def __init__(self, path: Path, worker: int, workers: int) -> None:
        self._file = os.open(path, os.O_RDWR)  # the lock is this opening's: it goes with the process, however that ends
        self._map = mmap.mmap(self._file, 0)
        view = memoryview(self._map)
        self.secret = bytes(view[:SECRET_BYTES])
        self.rates = view[4096:_FIRST_PLACE]
        starts = range(_FIRST_PLACE, _FIRST_PLACE + (workers + 1) * PLACE_BYTES, PLACE_BYTES)
        self._places = [view[start : start + PLACE_BYTES] for start in starts]
        self._worker, self._shared = worker, workers
        self._last: dict[int, bytes] = {}

    def close(self) -> None:
        """Give back the file; what is mapped of it stays."""
        os.close(self._file)

    def write(self, content: msgspec.Struct) -> None:
        """Show the others something. What is too long for its place is left out."""
        self._write(self._worker, content)

    def read_own(self, kind: type[_T]) -> _T:
        """Return what the worker of this number wrote last."""
        return self._read(self._worker, kind)

    def read_others(self, kind: type[_T]) -> list[_T]:
        """Return what each other worker wrote last."""
        return [self._read(number, kind) for number in range(self._shared) if number != self._worker]

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

    def read_shared(self, kind: type[_T]) -> _T:
        """Return what was shared last."""
        return self._read(self._shared, kind)

    def _write(self, number: int, content: msgspec.Struct) -> None:
        encoded = msgspec.msgpack.encode(content)
        if _FRAME.size + len(encoded) <= PLACE_BYTES:
            place = self._places[number]
            place[_FRAME.size : _FRAME.size + len(encoded)] = encoded
            place[: _FRAME.size] = _FRAME.pack(len(encoded), zlib.crc32(encoded))

    def _read(self, number: int, kind: type[_T]) -> _T:
        place = self._places[number]
        length, checksum = _FRAME.unpack(place[: _FRAME.size])
        encoded = bytes(place[_FRAME.size : _FRAME.size + length])
        if length and len(encoded) == length and zlib.crc32(encoded) == checksum:
            self._last[number] = encoded
        last = self._last.get(number)
        return kind() if last is None else msgspec.msgpack.decode(last, type=kind)
