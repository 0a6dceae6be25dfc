"""How does something get onto the disk so that it is still there, whole, after a power cut?

Write, fsync the file, rename to a name that never existed, fsync the directory. An fsync that fails is never tried
again: the kernel may have dropped the pages and call the next one a success (Rebello et al. 2020), so the error ends
the process.
"""

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, Final

TEMPORARY: Final = ".writing-"
# Synced so often while a large file is written: another file's sync may have to wait for what is not on the disk yet.
SYNC_BYTES: Final = 4 << 20

Parts = Sequence[bytes | memoryview]  # of a file's content, flat


def write_directory(directory: Path, files: Mapping[str, Parts]) -> None:
    """Make a directory with these files appear at once, or not at all.

    Raises
    ------
    FileExistsError : the directory is there; nothing was changed.
    OSError : the disk is full or failing; what was there before is still whole.
    """
    if directory.exists():
        raise FileExistsError(f"{directory} is there already")
    partial = directory.with_name(TEMPORARY + directory.name)
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    partial.mkdir(parents=True)
    try:
        for name, parts in files.items():
            with (partial / name).open("wb", buffering=0) as file:
                _write(file, parts, SYNC_BYTES)
                os.fsync(file.fileno())
        sync_directory(partial)
        partial.rename(directory)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_directory(directory.parent)


def create(path: Path, head: bytes) -> BinaryIO:
    """Return a new file, open for appending, that durably begins with `head`.

    Raises
    ------
    FileExistsError : the file is there; nothing was changed.
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    partial = path.with_name(TEMPORARY + path.name)
    file = partial.open("wb")
    try:
        file.write(head)
        sync(file)
        partial.rename(path)
        sync_directory(path.parent)
    except OSError:
        file.close()
        raise
    return file


def sync(file: BinaryIO) -> None:
    """Return once all that was written to the file is on the disk."""
    file.flush()
    os.fdatasync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Return once the directory's names are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes) -> None:
    """Put new content in a file's place at once, for readers in other processes.

    Not durable: for what can be made again.
    """
    partial = path.with_name(TEMPORARY + path.name)
    partial.write_bytes(content)
    partial.replace(path)


def _write(file: RawIOBase, parts: Parts, sync_bytes: int) -> None:
    unsynced = 0
    for part in parts:
        left = memoryview(part)
        while left:
            written = file.write(left[:sync_bytes]) or 0
            left, unsynced = left[written:], unsynced + written
            if unsynced >= sync_bytes:
                os.fdatasync(file.fileno())
                unsynced = 0


def remove(path: Path) -> None:
    """Delete a file or a directory that is no longer needed; one that is gone already is fine."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
