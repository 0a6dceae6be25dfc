"""Which commands look after what was learned: `verify`, `rebuild` and `snapshots`.

They read flags, call the folder and print, as driftline.py does, which mounts them. What is heavy is imported inside.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from stream.errors import ConfigError, DriftlineError
from stream.flags import with_settings
from stream.settings import StreamSettings

if TYPE_CHECKING:
    from rich.console import Console

    from stream.log import Log

app = typer.Typer()


def _console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


@contextmanager
def _log_to_read(stream: StreamSettings) -> "Iterator[Log]":
    """Open a log that is there, without making one and without dropping what is old: that is for its owners to do."""
    from stream.log import open_log
    from stream.sqlite_file import sqlite_path

    if stream.log_url.startswith("sqlite:") and not sqlite_path(stream.log_url).exists():
        raise ConfigError(f"log: there is no file {sqlite_path(stream.log_url)}; name the learner's with --log")
    never = {"retention_hours": 1e9, "retention_bytes": 1 << 62}
    with closing(open_log(stream.model_copy(update=never))) as log:
        yield log


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error, where that is a terminal; give what moves it: done, total."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@app.command()
@with_settings
def verify(
    stream: StreamSettings,
    first: Annotated[int | None, typer.Option("--from", metavar="<int>", help="The checkpoint to start from.")] = None,
    last: Annotated[int | None, typer.Option("--to", metavar="<int>", help="The checkpoint to arrive at.")] = None,
) -> None:
    """Prove checkpoints: replay the log from one along the journal, and demand every byte of the next.

    Without --from and --to: each two neighbours that are kept. Only reads; a learner may be running.
    Exit code 0: the same. 1: it differs, and what to do. 2: cannot be verified, and for want of what.
    """
    from learner.verify import pairs
    from learner.verify import verify as compare

    console, outcomes = _console(), []
    try:
        with _log_to_read(stream) as log:
            for earlier, later in pairs(stream.data / "checkpoints", first, last):
                with _bar(f"checkpoint {earlier} to {later}, batches") as advance:
                    verdict = compare(
                        stream.data, log, earlier, later, allow_pickle=stream.allow_pickle, on_batch=advance
                    )
                outcomes.append(verdict.outcome)
                found = escape("; ".join(verdict.details))
                said = {
                    "same": f"[green]the same[/green]: {verdict.batches:,} batches, {verdict.records:,} records",
                    "differs": f"[red]differs[/red]: {found}",
                    "damaged": f"[red]damaged[/red]: {found}; restore it from a copy, or let the learner step over it",
                    "unknown": f"[yellow]cannot be verified[/yellow]: {found}",
                    "gone": f"[yellow]passed over[/yellow]: {found}",
                }[verdict.outcome]
                console.print(f"checkpoint {earlier} to {later}: {said}")
                if verdict.outcome == "differs":
                    console.print(
                        f"Stop the learner, move checkpoint {later} and those behind it out of "
                        f"{escape(str(stream.data / 'checkpoints'))}, and start it again: it makes them anew from "
                        f"checkpoint {earlier} and the journal. If that differs too, `driftline rebuild` begins with "
                        "the log."
                    )
    except DriftlineError as error:
        _console(stderr=True).print(f"driftline: cannot be verified: {error}", style="yellow", markup=False)
        raise typer.Exit(2) from None
    if {"differs", "damaged"} & set(outcomes):
        raise typer.Exit(1)
    if "unknown" in outcomes or "same" not in outcomes:
        raise typer.Exit(2)
