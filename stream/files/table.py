"""Which rows are in a file of cells: CSV, TSV, or any other delimiter, quoted or not?

A cell is quoted where it begins with a quote, and the quote that ends it (`""` stands for one inside) is followed by a
delimiter or the line's end. Any other quote is a character of the text: a text that begins with one and never closes
it costs nothing. So no mistake in one row takes others with it, and every line of the file is in a row or counted.
"""

import csv
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

from driftline.stream.errors import ConfigError
from driftline.stream.files.encoding import MAX_ROW_BYTES, Lines
from driftline.stream.files.rows import Rows, Unusable

DELIMITERS: Final = (",", "\t", ";", "|", "^")
NO_DELIMITER: Final = "\0"  # of a table of one column: no text has it
_NAMED: Final = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
SAMPLE_ROWS: Final = 50  # looked at where the first line has no name that is known
KNOWN_LABELS: Final = 1000
MAX_CELL_LINES: Final = 1 << 16  # a quote that does not close within so many is none
_SEP: Final = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_QUOTES: Final = re.compile('"+')


def check_delimiter(delimiter: str) -> str:
    """Return a delimiter: a character, or its name. Raises ConfigError for what is none."""
    delimiter = _NAMED.get(delimiter.lower(), delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise ConfigError(f"delimiter: {delimiter!r} is none; it is one character, or tab")
    return delimiter


class Columns(NamedTuple):
    """Which columns a table has: their names, and the label's if it is known."""

    names: list[str]
    label: str | None


class Table:
    """The rows of a table.

    Parameters
    ----------
    lines : of the file
    first : the first line that is not blank, which is read already
    delimiter : None: the one that the file looks to have
    """

    def __init__(self, lines: Lines, first: str, delimiter: str | None) -> None:
        self._lines = lines
        self._ahead: deque[tuple[int, str]] = deque([(lines.number, first)])
        self._taken = 0
        self._columns = Columns([], None)
        self._label_at: int | None = None
        self._labels: set[str] = set()
        self.delimiter = delimiter or ","
        if found := _SEP.fullmatch(first):  # as Excel has it
            self.delimiter = delimiter = delimiter or found[1]
            self._ahead.clear()
        self.is_told = delimiter is not None  # whether somebody said which delimiter it is

    def header(self, is_known: Callable[[Sequence[str]], bool]) -> list[str] | None:
        """Return the first row's names, under the delimiter by which one is known; None where none is. It stays."""
        line = self._peek()
        for delimiter in (self.delimiter,) if self.is_told else (*DELIMITERS, NO_DELIMITER):
            names = self._split(line, delimiter)
            if is_known(names):
                self.delimiter = delimiter if len(names) > 1 or self.is_told else NO_DELIMITER
                return names
        return None

    def guess(self) -> None:
        """Choose the delimiter under which most rows have as many cells as the first, more than one."""
        if self.is_told:
            return
        sample = self._sample()

        def fits(delimiter: str) -> tuple[float, int]:
            sizes = [len(self._split(line, delimiter)) for line in sample]
            size = sizes[0] if sizes else 1
            return (sizes.count(size) / len(sizes) if size > 1 else 0.0, size)

        best = max(DELIMITERS, key=fits)
        self.delimiter = best if fits(best)[0] > 0.5 else NO_DELIMITER

    def first_row(self) -> list[str]:
        """Return the first row's cells; it stays."""
        return self._split(self._peek(), self.delimiter)

    def sample(self) -> list[list[str]]:
        """Return the first rows; they stay."""
        return [self._split(line, self.delimiter) for line in self._sample()]

    def skip_header(self) -> None:
        """Pass over the first row."""
        next(self._cells(), None)

    def rows(self, columns: Columns) -> Rows:
        """Give the rows, with the line where each begins."""
        self._columns = columns
        names = columns.names
        self._label_at = names.index(columns.label) if columns.label is not None else None
        backwards = names[::-1]  # of two columns of one name the first counts
        for line, cells in self._cells():
            if isinstance(cells, Unusable):
                yield line, cells
                continue
            if len(cells) > len(names) and not any(cells[len(names) :]):
                del cells[len(names) :]  # delimiters at the end, as spreadsheets leave them
            if len(cells) != len(names):
                what = "columns" if len(cells) != 1 else "column"
                yield line, Unusable("with another number of columns", f"{len(cells)} {what}, not {len(names)}")
                continue
            if self._label_at is not None and len(self._labels) < KNOWN_LABELS:
                self._labels.add(cells[self._label_at])
            yield line, dict(zip(backwards, reversed(cells), strict=True))

    def _cells(self) -> Iterator[tuple[int, list[str] | Unusable]]:
        n = len(self._columns.names)
        while line := self._take():
            begin = self._taken
            if len(line) > MAX_ROW_BYTES:
                yield begin, Unusable("too long", f"longer than {MAX_ROW_BYTES} bytes")
                continue
            text = _without_end(line)
            if not text:
                continue
            if '"' not in text:
                yield begin, text.split(self.delimiter)
                continue
            cells = self._split(line, self.delimiter, grow=True)
            if n and len(cells) != n:
                others = _split_escaped(text, self.delimiter), _split_spaced(text, self.delimiter)
                cells = next((each for each in others if len(each) == n), cells)
            yield begin, cells

    def _split(self, line: str, delimiter: str, *, grow: bool = False) -> list[str]:
        """Return the cells of the row that begins with a line; only with `grow` it may go on in those that follow."""
        text = _without_end(line)
        if '"' not in text:
            return text.split(delimiter)
        quoted = _quoted(delimiter)
        cells, at = [], 0
        while True:
            if text.startswith('"', at):
                found = quoted.match(text, at)
                if found is None and grow and (more := self._rest_of_cell(line, text, at)):
                    text = _without_end(line + more)
                    line, found = line + more, quoted.match(text, at)
                if found is not None:
                    cells.append(found[1].replace('""', '"'))
                    if found.end() == len(text):
                        return cells
                    at = found.end() + 1
                    continue
            end = text.find(delimiter, at)
            if end < 0:
                return [*cells, text[at:]]
            cells.append(text[at:end])
            at = end + 1

    def _rest_of_cell(self, line: str, text: str, at: int) -> str:
        """Return the lines that a quoted cell goes on in, which are taken then; "" where it is no quoted cell."""
        if any(len(run[0]) % 2 for run in _QUOTES.finditer(text, at + 1)):
            return ""  # a quote in this line closes it, and in the wrong place
        taken: list[tuple[int, str]] = []
        n_chars, closes = len(line), False
        while not closes and self._may_go_on(n_chars, len(taken)) and (more := self._take()):
            taken.append((self._taken, more))
            n_chars += len(more)
            run = next((run for run in _QUOTES.finditer(more) if len(run[0]) % 2), None)
            if run is not None:
                rest = _without_end(more)[run.end() :]
                closes = not rest or rest.startswith(self.delimiter)
                if not closes:
                    break
        lines = [line, *(each for _, each in taken)]
        if closes and self._may_go_on(n_chars, len(taken)) and not self._are_rows(lines):
            return "".join(lines[1:])
        self._ahead.extendleft(reversed(taken))
        return ""

    @staticmethod
    def _may_go_on(n_chars: int, n_lines: int) -> bool:
        return n_chars <= MAX_ROW_BYTES and n_lines < MAX_CELL_LINES

    def _are_rows(self, lines: Sequence[str]) -> bool:
        """Whether each of some lines looks like a whole row: then no quote spans them.

        Texts have commas, so where these delimit most lines also need a label that others have.
        """
        n = len(self._columns.names)
        rows = [_without_end(line).split(self.delimiter) for line in lines]
        if n < 2 or min(map(len, rows)) < n:
            return False
        if self.delimiter != ",":
            return True
        if self._label_at is None or any(any(row[n:]) for row in rows):
            return False
        labels = Counter(row[self._label_at] for row in rows)
        told = ((label, n) for label, n in labels.items() if label and '"' not in label)
        known = sum(n for label, n in told if n > 1 or label in self._labels)
        return 2 * known > len(rows)

    def _take(self) -> str:
        if self._ahead:
            self._taken, line = self._ahead.popleft()
            return line
        line = self._lines.next()
        self._taken = self._lines.number
        return line

    def _peek(self) -> str:
        while not self._ahead or not self._ahead[0][1].strip():
            if self._ahead:
                self._ahead.popleft()
                continue
            line = self._lines.next()
            if not line:
                return ""
            self._ahead.append((self._lines.number, line))
        return self._ahead[0][1]

    def _sample(self) -> list[str]:
        while len(self._ahead) < SAMPLE_ROWS and (line := self._lines.next()):
            self._ahead.append((self._lines.number, line))
        return [line for _, line in islice(self._ahead, SAMPLE_ROWS) if line.strip()]


def _without_end(line: str) -> str:
    return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


@lru_cache(maxsize=16)
def _quoted(delimiter: str) -> "re.Pattern[str]":
    return re.compile(rf'"((?:[^"]++|"")*+)"(?={re.escape(delimiter)}|\Z)')


def _split_escaped(text: str, delimiter: str) -> list[str]:
    r"""Return the cells of a row where `\"` stands for a quote in a quoted cell, as some databases write it."""
    d = re.escape(delimiter)
    cells, at = [], 0
    quoted = re.compile(rf'"((?:[^"\\]++|\\.)*+)"(?={d}|\Z)')
    while True:
        found = quoted.match(text, at)
        if found:
            cells.append(re.sub(r"\\(.)", r"\1", found[1]))
            end = found.end()
        else:
            end = text.find(delimiter, at)
            end = len(text) if end < 0 else end
            cells.append(text[at:end])
        if end >= len(text):
            return cells
        at = end + 1


def _split_spaced(text: str, delimiter: str) -> list[str]:
    """Return the cells of a row where a space stands before the quotes, as some people write it."""
    try:
        return next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []


def guess_columns(rows: Sequence[Sequence[str]]) -> tuple[int, int] | None:
    """Return which of two columns is the text and which the label, if rows without a header show it.

    The label of the first row is one of other rows too, so that row is no header; and texts are seldom there twice.
    """
    pairs = [row for row in rows if len(row) == 2]
    if len(pairs) < 2 or len(rows[0]) != 2 or 2 * len(pairs) <= len(rows):
        return None

    def is_label(column: int) -> bool:
        values = [row[column] for row in pairs]
        other = [row[1 - column] for row in pairs]
        comes_again = values.count(values[0]) > 1 and 0 < max(map(len, values)) <= 64
        return comes_again and len(set(values)) < len(set(other))

    labels = [column for column in (0, 1) if is_label(column)]
    return (1 - labels[0], labels[0]) if len(labels) == 1 else None
