"""How does something get onto the disk so that it is still there, whole, after a power cut?

Write, fsync the file, rename to a name that never existed, fsync the directory. An fsync that fails is never tried
again: the kernel may have dropped the pages and call the next one a success (Rebello et al. 2020), so SyncFailed ends
the process. A write for which there is no room is taken back and raises DiskFull: the same call may succeed later.

Everything in the data directory that recovery needs is written by this module and nothing else; tests/faults proves
it from the system calls, and what they leave after a power cut at each of them.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, cast

from driftline.stream.errors import DiskFull, DriftlineError, SyncFailed

TEMPORARY: Final = ".writing-"
# EFBIG: a limit on the size of files, which may be raised like a quota.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
# Synced so often while a large file is written: another file's sync may have to wait for what is not on the disk yet.
SYNC_BYTES: Final = 4 << 20

Parts = Iterable[bytes | memoryview]  # of a file's content, flat; what makes them may raise, and nothing is there


def make_directory(directory: Path) -> None:
    """Make a directory and those above it that are missing; one that is there already is fine."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    with explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_directory(made.parent)


def write_directory(
    directory: Path,
    files: Mapping[str, Parts],
    links: Mapping[str, Path] | None = None,
    mark: str = "",
    check: Callable[[], None] = lambda: None,
) -> None:
    """Make a directory with these files appear at once, or not at all.

    Parameters
    ----------
    links : files that are durable already, by the name under which they are to stand in it, too
    mark : stands in its name until it is whole, so that no other process writes into it
    check : called when all is written, before the directory appears; what it raises prevents that

    Raises
    ------
    FileExistsError : the directory is there; nothing was changed.
    DiskFull : there is no room; nothing was changed.
    OSError : the disk is failing; what was there before is still whole.
    """
    if directory.exists():
        raise FileExistsError(f"{directory} is there already")
    make_directory(directory.parent)
    partial = directory.with_name(TEMPORARY + directory.name + mark)
    remove(partial)  # left by a process that was killed
    try:
        with explained(directory):
            partial.mkdir()
            for name, parts in files.items():
                with (partial / name).open("xb", buffering=0) as file:
                    _write_parts(file, parts, partial / name)
                    _sync(file.fileno(), partial / name)
            for name, source in (links or {}).items():
                _link(source, partial / name)
            sync_directory(partial)
            check()
            partial.rename(directory)
    except (OSError, DriftlineError):
        remove(partial)
        raise
    sync_directory(directory.parent)


class AppendFile:
    """A new file that only grows, each part durable before `append` returns. One thread.

    Raises
    ------
    FileExistsError : the file is there; nothing was changed.
    DiskFull : there is no room; nothing was changed.
    """

    def __init__(self, path: Path, head: bytes) -> None:
        if path.exists():
            raise FileExistsError(f"{path} is there already")
        self._path, self._size = path, len(head)
        partial = path.with_name(TEMPORARY + path.name)
        with explained(path):
            self._file = cast(BinaryIO, partial.open("wb", buffering=0))
            try:
                _write_all(self._file, head)
                _sync(self._file.fileno(), partial)
                partial.rename(path)
            except OSError:
                self._file.close()
                remove(partial)
                raise
        sync_directory(path.parent)

    def append(self, content: bytes) -> None:
        """Add to the file and return once that is durable.

        Raises
        ------
        DiskFull : there is no room; the file is as it was, so that a later part can follow.
        """
        with explained(self._path):
            try:
                _write_all(self._file, content)
            except OSError:
                # What was written of it must not stand before the next part: a reader would stop there.
                self._file.seek(self._size)
                self._file.truncate()
                raise
        _sync(self._file.fileno(), self._path, os.fdatasync)
        self._size += len(content)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def rewrite(file: BinaryIO, content: bytes, path: Path) -> None:
    """Put something small in an open file's place; after a power cut it may be torn."""
    with explained(path):
        file.seek(0)
        _write_all(file, content)
        file.truncate()
    _sync(file.fileno(), path)


def settle(path: Path) -> None:
    """Return once a file that a process before this one wrote is on the disk: it may have died before its fsync."""
    with path.open("rb") as file:
        _sync(file.fileno(), path)


def rename(path: Path, name: str) -> None:
    """Give a file or a directory another name, one that is not there, durably."""
    path.rename(path.with_name(name))
    sync_directory(path.parent)


def set_aside(path: Path, name: str) -> None:
    """Give what no longer counts another name, so that somebody may look at it; what had that name goes."""
    remove(path.with_name(name))
    rename(path, name)


def sync_directory(directory: Path) -> None:
    """Return once the directory's names are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(descriptor, directory)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes, mark: str = "") -> None:
    """Put new content in a file's place at once, for readers in other processes.

    Not durable: for what can be made again. `mark`: as in `write_directory`.

    Raises
    ------
    DiskFull : there is no room; the content before is still there.
    """
    partial = path.with_name(TEMPORARY + path.name + mark)
    try:
        with explained(path), partial.open("wb", buffering=0) as file:
            _write_all(file, content)
        partial.replace(path)
    except (OSError, DiskFull):
        remove(partial)
        raise


def remove(path: Path) -> None:
    """Delete a file or a directory that is no longer needed; what is gone already, or cannot be deleted, is fine.

    A directory loses its name first, durably: after a power cut none is there in part.
    """
    with contextlib.suppress(OSError):
        if not path.is_dir():
            path.unlink()
            return
        if not path.name.startswith(TEMPORARY):
            whole, path = path, path.with_name(TEMPORARY + path.name)
            shutil.rmtree(path, ignore_errors=True)
            rename(whole, path.name)
        shutil.rmtree(path, ignore_errors=True)


def remove_partial(directory: Path, epoch_of: Callable[[str], int] = lambda _: 0, last: int = 0) -> None:
    """Delete what processes that were killed left half-written or half-deleted.

    That they have this name, and no other any more, is made durable first.

    Parameters
    ----------
    epoch_of : returns which learner's that is, by its name; 0: anybody's
    last : the last epoch of which nobody is at work any more: what a later one is just writing stays
    """
    sync_directory(directory)
    for path in directory.glob(TEMPORARY + "*"):
        if epoch_of(path.name.removeprefix(TEMPORARY)) <= last:
            remove(path)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the error of a disk without room into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull(f"{path} cannot be written: {error.strerror}; make room, or raise its limit") from error
        raise


def _write_parts(file: BinaryIO, parts: Parts, path: Path) -> None:
    unsynced = 0
    for part in parts:
        whole = memoryview(part).cast("B")
        for start in range(0, len(whole), SYNC_BYTES):
            piece = whole[start : start + SYNC_BYTES]
            _write_all(file, piece)
            unsynced += len(piece)
            if unsynced >= SYNC_BYTES:
                _sync(file.fileno(), path, os.fdatasync)
                unsynced = 0


def _link(source: Path, path: Path) -> None:
    """Give a file that will not change a second name; a copy where the file system has no such thing."""
    try:
        path.hardlink_to(source)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with path.open("xb", buffering=0) as file:
            _write_parts(file, [source.read_bytes()], path)
            _sync(file.fileno(), path)


def _write_all(file: BinaryIO, content: bytes | memoryview) -> None:
    left = memoryview(content).cast("B")
    while left:
        left = left[file.write(left) :]


def _sync(descriptor: int, path: Path, sync: Callable[[int], None] = os.fsync) -> None:
    try:
        sync(descriptor)
    except OSError as error:
        raise SyncFailed(
            f"{path}: the disk did not confirm a write ({error.strerror}); what was durable before still is. "
            "Check the disk, then start again"
        ) from error
