"""Which labelled texts are in a file?

CSV, TSV and JSON lines, gzipped or not, told apart by their content and never by their name; `-` is standard input.
Read as a stream: memory is bounded by the longest row (`MAX_ROW_BYTES`), whatever the file's size. A row that cannot be
used is counted and reported, and the next one is read; only a missing column, or a file that is no text, ends it.
"""

import csv
import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, cast

import msgspec

from driftline.stream.errors import ConfigError, DriftlineError
from driftline.stream.records import MAX_ID_CHARS, MAX_LABEL_CHARS

TEXT_COLUMNS: Final = ("text", "message", "body", "title")
LABEL_COLUMNS: Final = ("label", "category", "class", "target")
ID_COLUMNS: Final = ("id",)
TIME_COLUMNS: Final = ("time", "ts", "timestamp")

MAX_ROW_BYTES: Final = 1 << 26
_BUFFER_BYTES: Final = 1 << 18
_BOM: Final = b"\xef\xbb\xbf"
_HEAD_BYTES: Final = 6
_NOT_TEXT: Final = {
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"BZh": "compressed with bzip2; unpack it first",
    b"\xfd7zXZ\x00": "compressed with xz; unpack it first",
    b"PAR1": "a Parquet file; export it as CSV or JSON lines",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
}


class Row(NamedTuple):
    """A text of a file. `line` is where it begins, counted from 1."""

    id: str | None
    text: str
    label: str | None
    line: int
    time: datetime | None = None


class BadRow(NamedTuple):
    """A row that could not be used, and why."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.why}"


class _Unusable(Exception):
    """Why a row cannot be used."""


class LabelledTexts:
    """The rows of one file; iterate once.

    Parameters
    ----------
    path : a file's path, or `-` for standard input
    text_column, label_column : their names; None: the first of TEXT_COLUMNS and LABEL_COLUMNS that is there
    on_bad_row : called with each row that cannot be used

    Attributes
    ----------
    columns : the names that are there (JSON lines: in the first object), known once the first row was read
    bad_rows : how many rows could not be used so far
    size_bytes : the file's size as it lies on disk, None where it is not known
    read_bytes : how much of that was read

    Raises
    ------
    ConfigError : the file cannot be opened or is no text; while iterating: a column is missing.
    DriftlineError : while iterating: the gzip stream is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        text_column: str | None = None,
        label_column: str | None = None,
        on_bad_row: Callable[[BadRow], None] | None = None,
    ) -> None:
        self.name = "standard input" if str(path) == "-" else str(path)
        self.columns: list[str] = []
        self.bad_rows = 0
        self._wanted = _Wanted(text_column, label_column)
        self._on_bad_row = on_bad_row
        try:
            self._source = _Source(path)
        except OSError as error:
            raise ConfigError(f"{self.name}: cannot be read: {error.strerror}") from None
        self.size_bytes = self._source.size_bytes
        try:
            self._open()
        except BaseException:
            self._source.close()
            raise

    @property
    def read_bytes(self) -> int:
        """How many bytes of the file as it lies on disk were read."""
        return self._source.read_bytes

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self._rows()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DriftlineError(f"{self.name}: the gzip stream is damaged after line {self._line}: {error}") from None
        except OSError as error:
            raise DriftlineError(f"{self.name}: cannot be read after line {self._line}: {error.strerror}") from None

    def __enter__(self) -> "LabelledTexts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the file; standard input stays open."""
        self._source.close()

    def _open(self) -> None:
        head = self._source.head
        for magic, what in _NOT_TEXT.items():
            if head.startswith(magic):
                raise ConfigError(f"{self.name} is {what}")
        raw: Any = gzip.GzipFile(fileobj=self._source) if head.startswith(b"\x1f\x8b") else self._source
        self._text: io.BufferedIOBase = io.BufferedReader(raw, _BUFFER_BYTES)
        self._line = 0  # physical lines read

    def _rows(self) -> Iterator[Row]:
        first = self._first_line()
        start = first.lstrip()[:1]
        if start == b"[":
            raise ConfigError(f"{self.name} is one JSON array; write JSON lines instead: one object a line")
        return self._json_rows(first) if start == b"{" else self._csv_rows(first)

    def _first_line(self) -> bytes:
        line = b""
        while not line.strip():
            line = self._next_line()
            if not line:
                raise ConfigError(f"{self.name} is empty")
            if self._line == 1:
                line = line.removeprefix(_BOM)
        return line

    def _next_line(self) -> bytes:
        """Return the next physical line with its end, cut at MAX_ROW_BYTES + 1, or b"" at the end."""
        line = self._text.readline(MAX_ROW_BYTES + 1)
        self._line += bool(line)
        rest = line
        while len(rest) > MAX_ROW_BYTES and not rest.endswith(b"\n"):
            rest = self._text.readline(MAX_ROW_BYTES + 1)
        return line

    def _lines(self, first: bytes) -> Iterator[bytes]:
        line = first
        while line:
            yield line
            line = self._next_line()

    def _bad(self, line: int, why: str) -> None:
        self.bad_rows += 1
        if self._on_bad_row:
            self._on_bad_row(BadRow(self.name, line, why))

    def _json_rows(self, first: bytes) -> Iterator[Row]:
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        found: _Columns | None = None
        label_seen = False
        for line in self._lines(first):
            if line.isspace():
                continue
            try:
                if len(line) > MAX_ROW_BYTES:
                    raise _Unusable(f"longer than {MAX_ROW_BYTES} bytes")
                fields = _json_object(decode, line)
            except _Unusable as error:
                self._bad(self._line, str(error))
                continue
            if found is None:
                self.columns = list(fields)
                found = self._wanted.find(self.columns, self.name, need_label=False)
            if found.label is None:  # the first objects may have none
                found = found._replace(label=self._wanted.label_in(fields))
            label_seen = label_seen or found.label in fields
            try:
                yield found.row(fields, self._line)
            except _Unusable as error:
                self._bad(self._line, str(error))
        if found is not None and self._wanted.label is not None and not label_seen:
            raise self._wanted.missing("label", self._wanted.label, self.columns, self.name)

    def _csv_rows(self, first: bytes) -> Iterator[Row]:
        csv.field_size_limit(MAX_ROW_BYTES)  # the whole process; Python's own 128 KiB is less than many an e-mail
        delimiter = self._delimiter(first)
        reader = csv.reader(_CsvLines(self._lines(first)), delimiter=delimiter, strict=True)
        try:
            self.columns = [name.strip() for name in next(reader)]
        except csv.Error as error:
            raise ConfigError(f"{self.name}: the first line is no header: {error}") from None
        found = self._wanted.find(self.columns, self.name, need_label=True)
        while True:
            begin = self._line + 1
            try:
                cells = next(reader)
                if not cells:
                    continue
                if len(cells) != len(self.columns):
                    raise _Unusable(f"{len(cells)} columns, the header has {len(self.columns)}")
                row = found.row(dict(zip(reversed(self.columns), reversed(cells), strict=True)), begin)
            except StopIteration:
                return
            except (csv.Error, _Unusable) as error:
                through = f" (through line {self._line})" if self._line > begin else ""
                self._bad(begin, f"{error}{through}")
                continue
            yield row

    def _delimiter(self, first: bytes) -> str:
        """Return the delimiter under which the header has a text column, else the most columns."""
        header = first.decode("utf-8", errors="replace")
        best, most = ",", 0
        for delimiter in (",", "\t", ";"):
            try:
                names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
            except csv.Error:
                continue
            if self._wanted.text_in(names) is not None:
                return delimiter
            if len(names) > most:
                best, most = delimiter, len(names)
        return best


class _Columns(NamedTuple):
    """The names of the columns that are used, as the file spells them."""

    text: str
    label: str | None
    id: str | None
    time: str | None

    def row(self, fields: dict[str, Any], line: int) -> Row:
        text = fields.get(self.text)
        if text is None or text == "":
            raise _Unusable(f"no text in column {self.text!r}")
        if not isinstance(text, str):
            raise _Unusable(f"column {self.text!r} holds {_kind(text)} instead of a text")
        _check_characters(self.text, text)
        return Row(
            _name(self.id, fields, MAX_ID_CHARS),
            text,
            _name(self.label, fields, MAX_LABEL_CHARS),
            line,
            _time(fields.get(self.time)) if self.time else None,
        )


class _Wanted(NamedTuple):
    """The columns that were asked for by name."""

    text: str | None
    label: str | None

    def text_in(self, names: Sequence[str]) -> str | None:
        return _pick(names, (self.text,) if self.text is not None else TEXT_COLUMNS)

    def label_in(self, names: "Sequence[str] | dict[str, Any]") -> str | None:
        return _pick(list(names), (self.label,) if self.label is not None else LABEL_COLUMNS)

    def find(self, names: Sequence[str], file: str, *, need_label: bool) -> _Columns:
        """Return the columns to use. Raises ConfigError where one is missing."""
        text, label = self.text_in(names), self.label_in(names)
        if text is None:
            raise self.missing("text", self.text, names, file)
        if need_label and self.label is not None and label is None:
            raise self.missing("label", self.label, names, file)
        if text == label:
            raise ConfigError(f"{file}: column {text!r} cannot be both the text and the label")
        return _Columns(text, label, _pick(names, ID_COLUMNS), _pick(names, TIME_COLUMNS))

    @staticmethod
    def missing(what: str, wanted: str | None, names: Sequence[str], file: str) -> ConfigError:
        """Return the error for a column that is not there."""
        column = f"column {wanted!r}" if wanted is not None else f"{what} column"
        there = ", ".join(repr(name) for name in names[:20]) + (", ..." if len(names) > 20 else "")
        return ConfigError(f"{file}: no {column}; the columns are {there}; name one with --{what}-column")


def _pick(names: Sequence[str], candidates: Sequence[str]) -> str | None:
    """Return the first candidate that is there: as spelled, else whatever its case."""
    folded = {name.casefold(): name for name in reversed(names)}
    for candidate in candidates:
        if candidate in names:
            return candidate
        if candidate.casefold() in folded:
            return folded[candidate.casefold()]
    return None


def _json_object(decode: Callable[[bytes], dict[str, Any]], line: bytes) -> dict[str, Any]:
    try:
        line.decode("utf-8")  # msgspec does not look inside every string
        return decode(line)
    except UnicodeDecodeError as error:
        raise _Unusable(f"byte {line[error.start]:#04x} is not UTF-8") from None
    except msgspec.ValidationError:
        raise _Unusable("JSON, but not an object") from None
    except (ValueError, RecursionError) as error:
        raise _Unusable(f"not JSON: {error}") from None


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", bool: "a boolean"}.get(type(value), "a number")


def _name(column: str | None, fields: dict[str, Any], max_chars: int) -> str | None:
    """Return an id or a label; empty is none; JSON numbers and booleans are taken as JSON spells them."""
    value = fields.get(column) if column is not None else None
    if value is None or value == "":
        return None
    if isinstance(value, dict | list):
        raise _Unusable(f"column {column!r} holds {_kind(value)} instead of a name")
    name = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if len(name) > max_chars:
        raise _Unusable(f"column {column!r} has {len(name)} characters, at most {max_chars} are allowed")
    _check_characters(str(column), name)
    return name


def _check_characters(column: str, value: str) -> None:
    if "\0" in value:
        raise _Unusable(f"column {column!r} contains a NUL character (U+0000)")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise _Unusable(f"column {column!r} contains bytes that are not UTF-8") from None


def _time(value: object) -> datetime | None:
    """Return a time given as RFC 3339 or in seconds or milliseconds since 1970; None where it is neither."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    with suppress(ValueError, OverflowError, OSError):
        seconds = float(value)
        return datetime.fromtimestamp(seconds if abs(seconds) < 1e11 else seconds / 1000, UTC)
    with suppress(ValueError):
        time = datetime.fromisoformat(str(value))
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    return None


class _CsvLines:
    """Lines as the csv module wants them. Bytes that are not UTF-8 become lone surrogates, found in the row."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._lines).decode("utf-8", errors="surrogateescape")


class _Source(io.RawIOBase):
    """A file's bytes, counted. The first ones are kept, so that a pipe too can be looked at before it is read."""

    _file: io.BufferedReader | None = None  # where opening fails, close is called all the same

    def __init__(self, path: str | Path) -> None:
        self._is_stdin = str(path) == "-"
        file = sys.stdin.buffer if self._is_stdin else Path(path).open("rb")  # noqa: SIM115  (see close)
        self._file = source = cast("io.BufferedReader", file)
        self.head = self._unread = source.read(_HEAD_BYTES)
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


def _size_bytes(file: io.BufferedReader) -> int | None:
    try:
        status = os.fstat(file.fileno())
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
