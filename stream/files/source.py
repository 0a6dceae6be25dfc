"""Which bytes are in a file, and is it one that holds rows at all?

Compressed files (gzip, bzip2, xz, zstd) are read as what is in them, told by their first bytes and never by their
names. What holds rows that nobody reads here (a workbook, an archive, a PDF) is refused with what to do about it.
Everything is read as a stream, from a pipe too.
"""

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from driftline.stream.errors import ConfigError

BUFFER_BYTES: Final = 1 << 18
_HEAD_BYTES: Final = 4096
_MAGIC_BYTES: Final = 6
_AS_CSV: Final = "save it as CSV (UTF-8) and send that"
_WORKBOOK: Final = f"an Excel workbook; {_AS_CSV}"
_REFUSED: Final = {
    b"\xd0\xcf\x11\xe0": f"an old Office file, as .xls is; {_AS_CSV}",
    b"%PDF": "a PDF; save its text in a file with a text and a label in each row",
    b"{\\rtf": f"a document (RTF); {_AS_CSV}",
    b"7z\xbc\xaf": "a 7z archive; unpack it, and send what is in it",
    b"Rar!": "a RAR archive; unpack it, and send what is in it",
    b"ARROW1": "an Arrow file; write it as Parquet, CSV or JSON lines",
    b"Obj\x01": "an Avro file; write it as Parquet, CSV or JSON lines",
    b"\x89HDF": "an HDF5 file; write it as Parquet, CSV or JSON lines",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\x7fELF": "a program",
    b"SQLite format 3\0": "a database (SQLite); write the table as CSV or JSON lines",
}
_ORC: Final = b"ORC"  # and a column of a table may be called ORCID
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0e-\x1a]")
_PAGES: Final = (b"<!doctype html", b"<html", b"<?xml")
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
# What unpacking raises where a stream is cut or damaged; a ZstdError is an Exception, no more.
DAMAGED: Final = (EOFError, zlib.error, lzma.LZMAError)


def _zstd(source: Any) -> Any:
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdFile  # noqa: PLC0415
    else:
        from backports.zstd import ZstdFile  # noqa: PLC0415
    return ZstdFile(source)


_UNPACKED: Final[dict[bytes, tuple[str, Callable[[Any], Any]]]] = {
    b"\x1f\x8b": ("gzip", lambda source: gzip.GzipFile(fileobj=source)),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMAFile),
    b"\x5d\x00\x00": ("lzma", lzma.LZMAFile),
    _ZSTD: ("zstd", _zstd),
}


class Source(io.RawIOBase):
    """A file's bytes, counted. `head` has the first ones, so that a pipe too can be looked at before it is read."""

    _file: io.BufferedReader | None = None  # where opening fails, close is called all the same

    def __init__(self, path: str | Path) -> None:
        self._is_stdin = str(path) == "-"
        file = sys.stdin.buffer if self._is_stdin else Path(path).open("rb")  # noqa: SIM115  (see close)
        self._file = source = cast("io.BufferedReader", file)
        self.head = source.read1(_HEAD_BYTES)  # what a pipe has by now
        if len(self.head) < _MAGIC_BYTES:
            self.head += source.read(_MAGIC_BYTES - len(self.head))
        self._unread = self.head
        self._read1 = source.read1
        self.read_bytes = 0
        self.size_bytes = _size_bytes(source)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        chunk = self._unread[: len(view)] if self._unread else self._read1(len(view))
        self._unread = self._unread[len(chunk) :]
        view[: len(chunk)] = chunk
        self.read_bytes += len(chunk)
        return len(chunk)

    def close(self) -> None:
        if self._file is not None and not self.closed and not self._is_stdin:
            self._file.close()
        super().close()


class _AsItComes(io.RawIOBase):
    """An unpacked file, read no further than has to be: what is before a damaged place is given."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        chunk: bytes = self._file.read1(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)


def unpacked(source: Source, name: str) -> tuple[io.BufferedReader, str | None]:
    """Return what is in a file as it lies there, and how it was packed.

    Raises
    ------
    ConfigError : it holds no rows that can be read here.
    """
    _check(source.head, name)
    for magic, (how, unpack) in _UNPACKED.items():
        if source.head.startswith(magic):
            return io.BufferedReader(_AsItComes(unpack(source)), BUFFER_BYTES), how
    return io.BufferedReader(source, BUFFER_BYTES), None


def check_content(head: bytes, name: str) -> None:
    """Raise ConfigError where the first bytes of what was unpacked are those of a file that holds no rows."""
    _check(head, name)
    for magic, (how, _) in _UNPACKED.items():
        if head.startswith(magic):
            raise ConfigError(f"{name} is packed more than once, inside with {how}; unpack it, and send what is in it")
    if head[257:262] == b"ustar":
        raise ConfigError(f"{name} is a tar archive; unpack it, and send what is in it")
    if head.lstrip()[:20].lower().startswith(_PAGES):
        raise ConfigError(f"{name} is a web page or XML; was the right address downloaded? It must hold rows")


def _check(head: bytes, name: str) -> None:
    for magic, what in _REFUSED.items():
        if head.startswith(magic):
            raise ConfigError(f"{name} is {what}")
    if head.startswith(_ORC) and _CONTROLS.search(head[:_HEAD_BYTES]):
        raise ConfigError(f"{name} is an ORC file; write it as Parquet, CSV or JSON lines")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        raise ConfigError(f"{name} is {_zipped(name)}")


def _zipped(name: str) -> str:
    try:
        with zipfile.ZipFile(name) as archive:
            names = archive.namelist()
            if any(each.startswith("xl/") for each in names):
                return _WORKBOOK
            if "mimetype" in names and b"opendocument" in archive.read("mimetype")[:100]:
                return f"an OpenDocument file, as .ods is; {_AS_CSV}"
            if any(each.startswith("word/") for each in names):
                return f"a Word document; {_AS_CSV}"
            packed = f"{len(names)} files" if len(names) != 1 else names[0]
            return f"a zip archive of {packed}; unpack it, and send what is in it"
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError):  # standard input, or damaged
        return f"a zip archive; unpack it and send what is in it, or, if it is .xlsx or .ods, {_AS_CSV}"


def _size_bytes(file: io.BufferedReader) -> int | None:
    try:
        status = os.fstat(file.fileno())
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
