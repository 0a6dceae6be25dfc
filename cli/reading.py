"""How is a labelled file read? With a bar, the first of the rows that cannot be used, and a count of all by reason."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer

from driftline.cli.streams import typed
from driftline.cli.terminal import terminal
from driftline.stream.errors import BadRecord, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from driftline.stream.files.reader import BadRow, Format, LabelledTexts


MOST_ROWS: Final = 1 << 40  # that an option may count
PIECE_BYTES: Final = 1 << 16

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="CSV, TSV or another table, JSON lines, a JSON array or Parquet; also packed (gzip, bzip2, xz, zstd). "
        "- is standard input.",
    ),
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        help="The text's column; a number where there is no header.",
        show_default="the first of text, message, body, title",
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="The label's column; a number where there is no header.",
        show_default="the first of label, category, class, target",
    ),
]
FieldColumn = Annotated[
    list[str] | None,
    typer.Option(
        help="A column that is a field of the text: sender, country, amount. May be given several times. In a table "
        "what looks like a number is one.",
        show_default="none",
    ),
]
VectorColumn = Annotated[
    str | None,
    typer.Option(
        help="A column with a vector of each text: a list of numbers, or base64 of little-endian float32.",
        show_default="none",
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="What stands between a table's cells: a character, or tab.", show_default="as the file looks"),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        help="The file's encoding: latin-1, utf-16 or another.", show_default="UTF-8, or what the file looks like"
    ),
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether a table's first row has the columns' names.",
        show_default="as the file looks",
    ),
]


Field = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A field of the text, such as sender=a@b.example; what looks like a number is one. May be given several "
        "times.",
        show_default="none",
    ),
]


class Reading:
    """A file being read: its progress on standard error, and the first of the rows that cannot be used."""

    SHOWN: Final = 5
    PERIOD_S: Final = 0.05

    def __init__(self, console: "Console", advance: Callable[[int, int], None]) -> None:
        self.file: LabelledTexts
        self.skipped = 0
        self.skipped_by: Counter[str] = Counter()
        self._console, self._advance = console, advance
        self._next_s = 0.0

    def bad_row(self, bad: "BadRow") -> None:
        """Show a row that cannot be used; after SHOWN of them only count."""
        self.skipped += 1
        self.skipped_by[bad.kind or bad.why] += 1
        if self.skipped <= self.SHOWN:
            self._console.print(f"skipped: {bad}", style="yellow", markup=False)
        elif self.skipped == self.SHOWN + 1:
            self._console.print("skipped: further rows are only counted", style="yellow")

    def say(self, what: str) -> None:
        """Say something about the file."""
        self._console.print(what, style="yellow", markup=False)

    @property
    def summary(self) -> str:
        """How many rows were skipped, and why; empty where none was."""
        if not self.skipped:
            return ""
        rows = "row" if self.skipped == 1 else "rows"
        why = ", ".join(f"{number:,} {kind}" for kind, number in self.skipped_by.most_common())
        return f"{self.skipped:,} {rows} skipped: {why}"

    def show(self, messages: int, *, last: bool = False) -> None:
        """Move the bar; at most every PERIOD_S, since drawing costs more than a row."""
        now = time.monotonic()
        if now >= self._next_s or last:
            self._next_s = now + self.PERIOD_S
            self._advance(self.file.read_bytes, messages)


def texts_of_input() -> Iterator[list[str]]:
    """Give the lines of standard input that are not blank, as many at a time as have come."""
    from driftline.stream.files.encoding import Lines
    from driftline.stream.files.source import Source, unpacked
    from driftline.stream.surrogates import whole_characters

    lines = Lines(unpacked(Source("-"), "standard input")[0], None)
    rest = ""
    while piece := lines.piece(PIECE_BYTES):
        *whole, rest = (rest + piece).split("\n")
        if texts := [whole_characters(line.removesuffix("\r")) for line in whole if line.strip()]:
            yield texts
    if rest.strip():
        yield [whole_characters(rest.removesuffix("\r"))]


def fields_of(given: list[str] | None) -> dict[str, str | float]:
    """Return the fields that were given as NAME=VALUE. Raises ConfigError."""
    from driftline.stream.files.reader import number_or_text

    fields = {}
    for each in given or []:
        name, equals, value = typed(each).partition("=")
        if not equals or not name:
            raise ConfigError(f"--field {each}: it must be NAME=VALUE")
        fields[name] = number_or_text(value)
    return fields


def with_fields(texts: list[str], fields: dict[str, str | float]) -> list[str]:
    """Return texts as a model takes them, each with these fields. Raises ConfigError for fields that are none."""
    from driftline.stream.wire.fielded import END, join

    try:
        return [join(text.replace(END, " "), fields) for text in texts]
    except BadRecord as bad:
        raise ConfigError(f"--field: {bad.detail}") from None


@contextmanager
def reading(path: str, what: str, form: "Format") -> Iterator[Reading]:
    """Open a file of labelled texts, and show how far it was read."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from driftline.stream.files.reader import LabelledTexts

    console = terminal(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[messages]:,} messages"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, messages=0)
        reading = Reading(bar.console, lambda n, messages: bar.update(task, completed=n, messages=messages))
        with LabelledTexts(path, on_bad_row=reading.bad_row, form=form, on_guess=reading.say) as file:
            reading.file = file
            bar.update(task, total=file.size_bytes)
            yield reading
