"""How do the commands speak to the terminal? Results to standard output; errors, bars and hints to standard error.

Whatever a text holds, it is shown and does nothing: `terminal` makes all that is printed harmless
(process/harmless.py).

Where a process says what it has to say as JSON (process/log_lines.py), an error is such a line, and there are no bars.
"""

import json
import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from driftline.stream.process import log_lines
from driftline.stream.process.harmless import harmless, harmless_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table
    from rich.text import Text

    from driftline.stream.process.settings import StreamSettings


def terminal(*, stderr: bool = False) -> "Console":
    """Return what prints. It breaks no line, so that a path can be copied; tables say otherwise.

    A text is one line, as it came: what a terminal would take for an order is an escape, and `:bug:` no picture.
    """
    return _console()(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)


@cache
def _console() -> "type[Console]":
    from rich.console import Console

    class Harmless(Console):
        """Renders each text, a table's cells too, without what is not to be seen."""

        def render_str(self, text: str, **options: Any) -> "Text":
            return super().render_str(harmless(text), **options)

    return Harmless


def print_lines(text: str) -> None:
    """Print a text of our own that has several lines; what others say in it must be harmless already."""
    console = terminal()
    for line in text.split("\n"):
        console.print(line)


def print_table(table: "Table", *, least: int = 0) -> None:
    """Print a table: within a terminal's width, but not below `least`; into a file or pipe each row is one line."""
    console = terminal()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        least = console.measure(table, options=console.options.update(width=1 << 16)).maximum
    console.width = max(console.width, least)
    with console.capture() as printed:
        console.print(table, soft_wrap=False)
    console.file.write("".join(f"{line.rstrip()}\n" for line in printed.get().removesuffix("\n").split("\n")))


def print_json(value: object) -> None:
    """Print a value as JSON in one line, in whatever standard output can write: the rest as JSON's own escapes."""
    import msgspec

    text = harmless_json(msgspec.json.encode(value).decode())
    if not is_utf8(sys.stdout):
        text = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)
    print(text, flush=True)


def is_utf8(file: TextIO) -> bool:
    """Tell whether a file takes every character."""
    return (getattr(file, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def where(stream: "StreamSettings") -> str:
    """Return the options by which another command finds the same log and data, a space before each."""
    fields = type(stream).model_fields
    named = {"data": stream.data, "log": stream.log and stream.log_shown, "prefix": stream.prefix}
    named["kafka_config"] = stream.kafka_config
    return "".join(
        f" --{name.replace('_', '-')} {shlex.quote(str(value))}"
        for name, value in named.items()
        if value != fields[name].default
    )


def program() -> str:
    """Return what calls this program in another shell of this directory: its path, where its name alone does not."""
    called = Path(sys.argv[0])
    return shlex.quote(str(called)) if called.name == "driftline" and not shutil.which("driftline") else "driftline"


def print_error(*errors: str) -> None:
    """Print what went wrong, in red, on standard error."""
    console = terminal(stderr=True)
    for error in errors:
        if log_lines.as_json():
            logging.getLogger("driftline").error("%s", error)
        else:
            console.print(f"driftline: {error}", style="red", markup=False)


def print_remark(remark: str) -> None:
    """Print what is to be known meanwhile, on standard error."""
    if log_lines.as_json():
        logging.getLogger("driftline").warning("%s", remark)
    else:
        terminal(stderr=True).print(f"driftline: {remark}", style="yellow", markup=False)


@contextmanager
def bars(*what: str) -> Iterator[list[Callable[[int, int], None]]]:
    """Show bars on standard error, where that is a terminal, while something is left; give what moves each.

    What moves one takes how much is done, and of how much.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = terminal(stderr=True)
    shown = console.is_terminal and not log_lines.as_json()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        tasks = [bar.add_task(each, total=None, visible=False) for each in what]
        yield [partial(_move, bar, task) for task in tasks]


def _move(bar: "Progress", task: "TaskID", done: int, total: int) -> None:
    bar.update(task, completed=done, total=total, visible=done < total)
