"""How is a labelled file read? With a bar, and the first of the rows that cannot be used."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer

from driftline.cli.terminal import terminal

if TYPE_CHECKING:
    from rich.console import Console

    from driftline.stream.files import BadRow, LabelledTexts


File = Annotated[
    str, typer.Argument(metavar="FILE", help="CSV, TSV or JSON lines, gzipped or not; - is standard input.")
]
TextColumn = Annotated[
    str | None, typer.Option(help="The text's column.", show_default="the first of text, message, body, title")
]
LabelColumn = Annotated[
    str | None, typer.Option(help="The label's column.", show_default="the first of label, category, class, target")
]


class Reading:
    """A file being read: its progress on standard error, and the first of the rows that cannot be used."""

    SHOWN: Final = 5
    PERIOD_S: Final = 0.05

    def __init__(self, console: "Console", advance: Callable[[int, int], None]) -> None:
        self.file: LabelledTexts
        self.skipped = 0
        self._console, self._advance = console, advance
        self._next_s = 0.0

    def bad_row(self, bad: "BadRow") -> None:
        """Show a row that cannot be used; after SHOWN of them only count."""
        self.skipped += 1
        if self.skipped <= self.SHOWN:
            self._console.print(f"skipped: {bad}", style="yellow", markup=False)
        elif self.skipped == self.SHOWN + 1:
            self._console.print("skipped: further rows are only counted", style="yellow")

    def show(self, messages: int, *, last: bool = False) -> None:
        """Move the bar; at most every PERIOD_S, since drawing costs more than a row."""
        now = time.monotonic()
        if now >= self._next_s or last:
            self._next_s = now + self.PERIOD_S
            self._advance(self.file.read_bytes, messages)


@contextmanager
def reading(path: str, what: str, text_column: str | None, label_column: str | None) -> Iterator[Reading]:
    """Open a file of labelled texts, and show how far it was read."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from driftline.stream.files import LabelledTexts

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
        with LabelledTexts(path, text_column, label_column, reading.bad_row) as file:
            reading.file = file
            bar.update(task, total=file.size_bytes)
            yield reading
