"""Which labelled texts are in a file?

CSV, TSV and other tables, JSON lines, a JSON array, Parquet; packed or not; in any encoding. Told apart by content and
never by name; `-` is standard input. Read as a stream: memory is bounded by the longest row (`MAX_ROW_BYTES`), whatever
the file's size. Every row is given, or it is reported with the reason why it cannot be used, and the next one is read;
only a missing column, or a file that holds no rows, ends it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

from msgspec import Raw

from driftline.stream.errors import BadRecord, ConfigError, DriftlineError
from driftline.stream.files.encoding import MAX_ROW_BYTES, Lines, check_encoding
from driftline.stream.files.exported import SAID, Said, as_they_were, fields_in, said_in
from driftline.stream.files.json_rows import is_array, json_blocks, json_items, json_lines
from driftline.stream.files.parquet import MAGIC, Parquet
from driftline.stream.files.rows import Rows, Unusable
from driftline.stream.files.source import DAMAGED, Source, check_content, unpacked
from driftline.stream.files.table import Columns, Table, check_delimiter, guess_columns
from driftline.stream.files.tools import Wanted, plain
from driftline.stream.surrogates import whole_characters
from driftline.stream.wire.fielded import join
from driftline.stream.wire.fields import as_name, as_time
from driftline.stream.wire.names import same_name
from driftline.stream.wire.records import MAX_ID_CHARS, MAX_LABEL_CHARS
from driftline.stream.wire.vector import numbers_of, read_vector, with_vector

__all__ = ["MAX_ROW_BYTES", "BadRow", "Format", "LabelledTexts", "Row"]

TEXT_COLUMNS: Final = ("text", "message", "body", "title")
LABEL_COLUMNS: Final = ("label", "category", "class", "target")
ID_COLUMNS: Final = ("id",)
TIME_COLUMNS: Final = ("time", "ts", "timestamp")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)  # not 02134
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x7f-\x84\x86-\x9f]")


class Row(NamedTuple):
    """A text of a file. `line` is where it begins, from 1: a line, or an array's item, or a Parquet file's row."""

    id: str | None
    text: str  # with its fields (wire/fielded.py), and its vector (wire/vector.py)
    label: str | None
    line: int
    time: datetime | None = None
    said: Said = Said()  # of the label


class BadRow(NamedTuple):
    """A row that could not be used, and why; rows of one kind can be counted together."""

    file: str
    line: int
    why: str
    kind: str = ""
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.line}: {self.why}"


class Format(NamedTuple):
    """What is said about a file; None: what it looks like.

    text_column, label_column : their names, or their numbers from 1 where there is no header
    id_column : its name; "" for none at all
    delimiter : between cells
    encoding : of its characters
    has_header : whether the first row of a table has the columns' names
    field_columns : those that are fields of the text, each under its name
    vector_column : the one with vectors of the texts
    """

    text_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    has_header: bool | None = None
    field_columns: tuple[str, ...] = ()
    vector_column: str | None = None

    def checked(self) -> "Format":
        """Return it in Python's own words. Raises ConfigError for what cannot be meant."""
        encoding = self.encoding and check_encoding(self.encoding)
        return self._replace(encoding=encoding, delimiter=self.delimiter and check_delimiter(self.delimiter))


class LabelledTexts:
    """The rows of one file; iterate once.

    Parameters
    ----------
    path : a file's path, or `-` for standard input
    text_column, label_column : see Format, of which more may be given
    on_bad_row : called with each row that cannot be used
    on_guess : called with a sentence for each thing that was guessed, and how to say otherwise

    Attributes
    ----------
    columns : the names that are there (JSON: in the first object), known once the first row was read
    id_column : the name of the column that ids are taken from, then
    size_bytes : the file's size as it lies on disk, None where it is not known
    read_bytes : how much of that was read

    Raises
    ------
    ConfigError : the file cannot be opened or holds no rows; while iterating: a column is missing.
    DriftlineError : while iterating: the file is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        text_column: str | None = None,
        label_column: str | None = None,
        on_bad_row: Callable[[BadRow], None] | None = None,
        *,
        form: Format | None = None,
        on_guess: Callable[[str], None] | None = None,
    ) -> None:
        self.name = "standard input" if str(path) == "-" else str(path)
        self.columns: list[str] = []
        self.id_column: str | None = None
        self._form = (form or Format(text_column, label_column)).checked()
        self._wanted = _Wanted(self._form)
        self._on_bad_row, self._on_guess = on_bad_row, on_guess
        self._unit, self._at = "line", 0
        self._lines: Lines | None = None
        self._parquet: Parquet | None = None
        try:
            self._source = Source(path)
        except OSError as error:
            raise ConfigError(f"{self.name}: cannot be read: {error.strerror}") from None
        self.size_bytes = self._source.size_bytes
        try:
            if self._source.head.startswith(MAGIC):
                self._parquet = Parquet(path, self.name)
            self._bytes, self._packed = unpacked(self._source, self.name)
        except BaseException:
            self._source.close()
            raise

    @property
    def read_bytes(self) -> int:
        """How many bytes of the file as it lies on disk were read."""
        if self._parquet is not None and self.size_bytes:
            return int(self.size_bytes * self._at / max(self._parquet.n_rows, 1))
        return self._source.read_bytes

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self._rows()
        except DriftlineError:
            raise
        except DAMAGED as error:
            raise self._damaged(error) from None
        except OSError as error:
            if self._packed is not None and error.strerror is None:
                raise self._damaged(error) from None
            raise DriftlineError(f"{self.name}: cannot be read after line {self._at}: {error.strerror}") from None
        except Exception as error:
            if type(error).__name__ == "ZstdError":
                raise self._damaged(error) from None
            raise

    def __enter__(self) -> "LabelledTexts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the file; standard input stays open."""
        if self._parquet is not None:
            self._parquet.close()
        self._source.close()

    def _damaged(self, error: Exception) -> DriftlineError:
        return DriftlineError(f"{self.name}: the {self._packed} stream is damaged after line {self._at}: {error}")

    def _rows(self) -> Iterator[Row]:
        if self._parquet is not None:
            self._unit = "row"
            self.columns = self._parquet.columns
            found = self._found(need_label=True)
            return self._used(self._parquet.rows(found.used), found)
        check_content(self._bytes.peek(512), self.name)
        lines = self._lines = Lines(self._bytes, self._form.encoding, self._say_encoding)
        check_content(lines.head(), self.name)
        if is_array(lines.head()):
            self._unit = "item"
            return self._used(json_items(lines), None)
        first = lines.next()
        while first and not first.strip():
            first = lines.next()
        if not first:
            raise ConfigError(f"{self.name} is empty")
        if first.lstrip().startswith("{"):
            return self._used((json_blocks if first.strip() == "{" else json_lines)(lines, first), None)
        return self._table_rows(lines, first)

    def _table_rows(self, lines: Lines, first: str) -> Iterator[Row]:
        table = Table(lines, first, self._form.delimiter)
        names = None if self._form.has_header is False else table.header(self._wanted.is_header)
        if names is not None:
            self.columns = [name.strip() for name in names]
            found = self._found(need_label=True)
            table.skip_header()
        else:
            table.guess()
            first_row = table.first_row()
            pair = guess_columns(table.sample()) if self._form.has_header is not True else None
            if pair is None and self._form.has_header is not False:
                if _CONTROLS.search(first):
                    raise ConfigError(
                        f"{self.name} holds no text that can be read here: its first line has control characters. It "
                        "must be a table, JSON or Parquet; --encoding says in which encoding a table is"
                    )
                self.columns = [name.strip() for name in first_row]
                raise self._wanted.missing("text", self._form.text_column, self.columns, self.name, is_table=True)
            self.columns = [str(number) for number in range(1, len(first_row) + 1)]
            found = self._numbered(pair)
        rows = as_they_were(table.rows(Columns(self.columns, found.label)), self.columns)
        return self._used(rows, found._replace(is_table=True))

    def _numbered(self, pair: tuple[int, int] | None) -> "_Columns":
        """Return the columns of a table without a header."""
        text, label = self._form.text_column, self._form.label_column
        if len(self.columns) == 1:
            text = text or "1"
        if pair is not None and text is None and label is None:
            text, label = (self.columns[each] for each in pair)
            self._guessed(
                f"{self.name} has no header: column {label} is taken for the label, column {text} for the text "
                "(--text-column and --label-column take a number; --header says that there is one)"
            )
        elif len(self.columns) == 2 and (text is None) != (label is None):
            other = next(name for name in self.columns if name not in (text, label))
            text, label = text or other, label or other
        wanted = _Wanted(self._form._replace(text_column=text, label_column=label))
        if text is None:
            raise ConfigError(
                f"{self.name}: its {len(self.columns)} columns have no names; say which one is the text, and which the "
                "label, by their numbers: --text-column 2 --label-column 1"
            )
        return wanted.find(self.columns, self.name, need_label=True)

    def _found(self, *, need_label: bool) -> "_Columns":
        return self._wanted.find(self.columns, self.name, need_label=need_label)

    def _used(self, rows: Rows, found: "_Columns | None") -> Iterator[Row]:
        """Give the rows that can be used, and report the others. Without columns, the first row has them."""
        is_json, label_seen = found is None, False
        for line, fields in plain(rows, Wanted(self._wanted.text, self._wanted.label)) if is_json else rows:
            self._at = line
            if isinstance(fields, Unusable):
                self._bad(line, fields)
                continue
            if found is None:
                self.columns = list(fields)
                found = self._found(need_label=False)
            if is_json and found.label is None:  # the first objects may have none
                found = found._replace(label=self._wanted.label_in(list(fields)))
            label_seen = label_seen or found.label in fields
            self.id_column = found.id
            try:
                row = found.row(fields, line, self._lines.encoding if self._lines else "utf-8")
            except Unusable as error:
                self._bad(line, error)
                continue
            yield row
        if is_json and found is not None and self._wanted.label is not None and not label_seen:
            raise self._wanted.missing("label", self._wanted.label, self.columns, self.name)

    def _bad(self, line: int, why: Unusable) -> None:
        if self._on_bad_row:
            self._on_bad_row(BadRow(self.name, line, str(why), why.kind, self._unit))

    def _guessed(self, what: str) -> None:
        if self._on_guess:
            self._on_guess(what)

    def _say_encoding(self, encoding: str) -> None:
        self._guessed(
            f"{self.name} is not UTF-8: it is read as {encoding}, which is a guess (--encoding says otherwise)"
        )


class _Columns(NamedTuple):
    """The names of the columns that are used, as the file spells them."""

    text: str
    label: str | None
    id: str | None
    time: str | None
    vector: str | None
    fields: dict[str, str]  # what each field is called, and its column
    is_table: bool = False  # all is text: what looks like a number is one
    said: tuple[str, ...] = ()  # what else there is of SAID

    @property
    def used(self) -> list[str]:
        """Each of them, once."""
        return [name for name in dict.fromkeys((*self[:5], *self.fields.values(), *self.said)) if isinstance(name, str)]

    def row(self, fields: dict[str, Any], line: int, encoding: str) -> Row:
        text = fields.get(self.text)
        if text is None or text == "":
            raise Unusable("without a text", f"no text in column {self.text!r}")
        if not isinstance(text, str):
            raise Unusable("without a text", f"column {self.text!r} holds {_kind(text)} instead of a text")
        _check_characters(self.text, text, encoding)
        own = {name: self._value(column, fields, encoding) for name, column in self.fields.items()}
        whole = _with_fields(text, own or fields_in(fields))
        return Row(
            _name(self.id, fields, MAX_ID_CHARS, encoding),
            whole if self.vector is None else _with_vector(whole, self.vector, fields.get(self.vector)),
            _label(self.label, fields, encoding),
            line,
            _time(fields.get(self.time)) if self.time else None,
            said_in(fields),
        )

    def _value(self, column: str, fields: dict[str, Any], encoding: str) -> Any:
        """Return a field's value as JSON has it; an empty cell is none."""
        value = fields.get(column)
        if isinstance(value, str):
            _check_characters(column, value, encoding)
            return None if not value else number_or_text(value) if self.is_table else value
        if value is None or isinstance(value, bool | int | float | list):
            return value
        if isinstance(value, dict):
            raise Unusable("with a wrong field", f"column {column!r} holds an object instead of a field's value")
        return str(value)  # a date, a decimal number


class _Wanted:
    """The columns that were asked for by name."""

    def __init__(self, form: Format) -> None:
        self.text, self.label, self.id = form.text_column, form.label_column, form.id_column
        self.fields, self.vector = form.field_columns, form.vector_column

    def is_header(self, names: Sequence[str]) -> bool:
        """Whether some cells are a table's header."""
        names = [name.strip() for name in names]
        return self.text_in(names) is not None

    def text_in(self, names: Sequence[str]) -> str | None:
        return _pick(names, (self.text,) if self.text is not None else TEXT_COLUMNS)

    def label_in(self, names: Sequence[str]) -> str | None:
        return _pick(names, (self.label,) if self.label is not None else LABEL_COLUMNS)

    def find(self, names: Sequence[str], file: str, *, need_label: bool) -> _Columns:
        """Return the columns to use. Raises ConfigError where one is missing."""
        text, label = self.text_in(names), self.label_in(names)
        if text is None:
            raise self.missing("text", self.text, names, file)
        if need_label and self.label is not None and label is None:
            raise self.missing("label", self.label, names, file)
        if text == label:
            raise ConfigError(f"{file}: column {text!r} cannot be both the text and the label")
        ids = ID_COLUMNS if self.id is None else (self.id,) if self.id else ()
        number = _pick(names, ids)
        if self.id and number is None:
            raise self.missing("id", self.id, names, file)

        def beside(what: str, wanted: str) -> str:
            column = _pick(names, (wanted,))
            if column is None and need_label:  # the first object may lack what others have
                raise self.missing(what, wanted, names, file)
            if column is not None and column in (text, label):
                raise ConfigError(f"{file}: column {column!r} cannot be a {what} and the text or the label")
            return column or wanted

        fields = {wanted: beside("field", wanted) for wanted in self.fields}
        vector = None if self.vector is None else beside("vector", self.vector)
        said = tuple(name for name in SAID if name in names)
        return _Columns(text, label, number, _pick(names, TIME_COLUMNS), vector, fields, said=said)

    @staticmethod
    def missing(
        what: str, wanted: str | None, names: Sequence[str], file: str, *, is_table: bool = False
    ) -> ConfigError:
        """Return the error for a column that is not there."""
        column = f"column {wanted!r}" if wanted is not None else f"{what} column"
        there = ", ".join(repr(name[:40]) for name in names[:20]) + (", ..." if len(names) > 20 else "") or "none"
        without = "; or say --no-header, if these are the first row" if is_table else ""
        if is_table and len(names) == 1:
            without += ", or --delimiter, if something else stands between its cells"
        return ConfigError(f"{file}: no {column}; the columns are {there}; name one with --{what}-column{without}")


def _pick(names: Sequence[str], candidates: Sequence[str]) -> str | None:
    """Return the first candidate that is there: as spelled, else whatever its case."""
    folded = {name.casefold(): name for name in reversed(names)}
    for candidate in candidates:
        if candidate in names:
            return candidate
        if candidate.casefold() in folded:
            return folded[candidate.casefold()]
    return None


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def _label(column: str | None, fields: dict[str, Any], encoding: str) -> str | None:
    """Return a label in its one form; what has nothing to be seen is none."""
    name = _name(column, fields, MAX_LABEL_CHARS, encoding)
    return name and (same_name(name) or None)


def _name(column: str | None, fields: dict[str, Any], max_chars: int, encoding: str) -> str | None:
    """Return an id or a label; empty is none."""
    value = fields.get(column) if column is not None else None
    if value is None or value == "":
        return None
    try:
        name = as_name(value)
    except TypeError:
        raise Unusable("with a wrong value", f"column {column!r} holds {_kind(value)} instead of a name") from None
    if len(name) > max_chars:
        why = f"column {column!r} has {len(name)} characters, at most {max_chars} are allowed"
        raise Unusable("with too long a name", why)
    _check_characters(str(column), name, encoding)
    return name


def number_or_text(value: str) -> float | str:
    """Return what a cell holds: what looks like a number is one, but for what begins with a 0 as post codes do."""
    return float(value) if _NUMBER.fullmatch(value) else value


def _with_fields(text: str, fields: dict[str, Any]) -> str:
    """Return a text with its fields."""
    try:
        return join(text, fields) if fields else text
    except BadRecord as bad:
        raise Unusable("with a wrong field", bad.detail) from None


def _with_vector(text: str, column: str, value: Any) -> str:
    """Return a text with the vector in a cell: a list, or one as JSON, or base64; without one where that is empty."""
    if value is None or value == "":
        return text
    if not isinstance(value, str | list):
        raise Unusable("with a wrong vector", f"column {column!r} holds {_kind(value)} instead of a vector")
    try:
        if isinstance(value, str) and value.lstrip().startswith("["):
            return with_vector(text, read_vector(Raw(value.strip().encode("utf-8", "replace"))))
        return with_vector(text, numbers_of(value))
    except BadRecord as bad:
        raise Unusable("with a wrong vector", f"column {column!r}: {bad.detail}") from None


def _check_characters(column: str, value: str, encoding: str) -> None:
    if "\0" in value:
        raise Unusable("with a NUL character", f"column {column!r} contains a NUL character (U+0000)")
    if not value.isascii() and whole_characters(value) is not value:
        name = encoding.upper()
        raise Unusable(f"not {name}", f"column {column!r} contains bytes that are not {name}; --encoding says another")


def _time(value: object) -> datetime | None:
    """Return a time, or None where it is none: it decides nothing, so no row is lost for it."""
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return as_time(value)
    except ValueError:
        return None
