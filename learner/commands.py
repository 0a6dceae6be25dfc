"""Which commands look after what was learned: `verify`, `rebuild` and `snapshots`.

They read flags, call the folder and print, as driftline.py does, which mounts them. What is heavy is imported inside.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from stream.errors import ConfigError, DriftlineError
from stream.flags import with_settings
from stream.settings import StreamSettings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from learner.rebuilt import LeftOut
    from learner.versions import Kept, Versions
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
def _bars(*what: str) -> Iterator[list[Callable[[int, int], None]]]:
    """Show bars on standard error, where that is a terminal, once they move; give what moves each: done, total."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = [bar.add_task(each, total=None, visible=False) for each in what]
        yield [partial(_move, bar, task) for task in tasks]


def _move(bar: "Progress", task: "TaskID", done: int, total: int) -> None:
    bar.update(task, completed=done, total=total, visible=True)


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
                with _bars(f"checkpoint {earlier} to {later}, batches") as (advance,):
                    verdict = compare(
                        stream.data, log, earlier, later, allow_pickle=stream.allow_pickle, on_batch=advance
                    )
                outcomes.append(verdict.outcome)
                found = escape("; ".join(verdict.details))
                said = {
                    "same": f"[green]the same[/green]: {verdict.batches:,} batches, {verdict.records:,} records"
                    + (f" ({found})" if found else ""),
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


@app.command()
@with_settings
def rebuild(
    stream: StreamSettings,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Leave out labels whose records are younger: 2026-01-31, 2026-01-31T12:00+01:00 (or UTC).",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT=NAME",
            help="Leave out labels by source=NAME, id=NAME (of the label or of its message) or label=NAME; "
            "may be given several times.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="<str>", help="The new model's specification.", show_default="as it is")
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(metavar="<path>", help="Leave the learner alone, and make a new data directory of it."),
    ] = None,
) -> None:
    """Build the model anew from the log, without labels that were retracted, and put it in the old one's place.

    The learner goes on meanwhile; when the new model has caught up with it, it takes over between two batches, at one
    stroke. It begins with the log's first record, or what retention left. What is left out is left out of the past:
    labels that come after the swap are learned, whoever sends them. With --until the model becomes what it was at that
    time, messages since then can still be labelled, and learning goes on from now: so this rolls back the learner
    itself (`driftline snapshots rollback` only what is served). Stopped at any moment it leaves everything as it was.
    """
    from learner.rebuild import stage
    from learner.service import take_over

    left_out, console = _left_out(until, exclude or []), _console()
    _log_to_console()
    with _log_to_read(stream) as log:
        with _bars("looking for retractions, labels", "replaying, records") as (looked, replayed):
            rebuilt = stage(
                stream.data,
                log,
                left_out,
                model,
                into=into,
                allow_pickle=stream.allow_pickle,
                on_look=looked,
                on_records=replayed,
            )
        if into is None:
            take_over(stream, log)
    console.print(escape(f"Built {rebuilt}."))
    for topic, n in rebuilt.missing.items():
        if n:
            console.print(escape(f"{topic}: {n:,} records were no longer in the log."), style="yellow")
    if into is not None:
        console.print(escape(f"Learn on with it: driftline learn --data {into} --log {stream.log_url}"))
    else:
        console.print(f"It took over as {rebuilt.lineage}; `driftline verify` proves it.")
        if model is not None:
            console.print(escape(f"Start the learner with --model {model!r} from now on, or without --model."))


def _left_out(until: str | None, exclude: list[str]) -> "LeftOut":
    from learner.rebuilt import LeftOut

    names: dict[str, list[str]] = {"source": [], "id": [], "label": []}
    for each in exclude:
        kind, equals, name = each.partition("=")
        if not equals or kind not in names or not name:
            raise ConfigError(f"--exclude {each}: write source=NAME, id=NAME or label=NAME")
        names[kind].append(name)
    until_ms = None
    if until is not None:
        try:
            time = datetime.fromisoformat(until)
        except ValueError:
            raise ConfigError(
                f"--until {until}: write a time as 2026-01-31T12:00:00+01:00; without +01:00 it is UTC"
            ) from None
        until_ms = int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
    return LeftOut(until_ms=until_ms, sources=names["source"], ids=names["id"], labels=names["label"])


def _log_to_console() -> None:
    logging.basicConfig(level=logging.ERROR, format="driftline: %(message)s")
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)


class Action(StrEnum):
    """What `snapshots` does."""

    LIST = "list"
    SHOW = "show"
    PIN = "pin"
    UNPIN = "unpin"
    ROLLBACK = "rollback"
    LATEST = "latest"


@app.command()
@with_settings
def snapshots(
    stream: StreamSettings,
    action: Annotated[Action, typer.Argument(metavar="[list|show|pin|unpin|rollback|latest]")] = Action.LIST,
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="As `list` shows it.")] = None,
    name: Annotated[str, typer.Option(metavar="<str>", help="With pin: what it is kept for.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the models of the past that can be served again, and choose which one is.

    One is kept with each checkpoint (--keep-snapshots of the learner), the further apart the further back. `pin` keeps
    one for good. `rollback` has every API of this data directory answer with it in the latest's place, within a second,
    until `latest`. The learner goes on learning all the while; to roll back what it has learned: `driftline rebuild
    --until`.
    """
    from learner.versions import Versions

    versions, console = Versions(stream.data), _console()
    if action in {Action.LIST, Action.LATEST} and version is not None:
        raise ConfigError(f"snapshots {action}: takes no version")
    if action is Action.LIST:
        _list(versions, as_json)
    elif action is Action.LATEST:
        versions.deactivate()
        _say(console, {"pinned_to": None}, "The latest is served.", as_json)
    elif version is None:
        raise ConfigError(f"snapshots {action}: name a version; `driftline snapshots` lists them")
    elif action is Action.SHOW:
        _show(versions, version, as_json)
    elif action is Action.ROLLBACK:
        kept = versions.activate(version, allow_pickle=stream.allow_pickle)
        said = f"Version {version} of {kept.created_at} is served until `driftline snapshots latest`; learning goes on."
        _say(console, {"pinned_to": version}, said, as_json)
    elif action is Action.PIN:
        versions.pin(version, name)
        _say(
            console,
            {"pinned": version},
            f"Version {version} stays until `driftline snapshots unpin {version}`.",
            as_json,
        )
    else:
        versions.unpin(version)
        _say(console, {"unpinned": version}, f"Version {version} may be dropped.", as_json)


def _say(console: "Console", answer: dict[str, Any], said: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer))
    else:
        console.print(escape(said))


def _described(versions: "Versions", kept: "Kept") -> dict[str, Any]:
    import msgspec

    pin = versions.pins().get(kept.version)
    active = versions.active().version == kept.version
    found: dict[str, Any] = msgspec.to_builtins(kept)
    return found | {"pinned": pin is not None, "name": pin.name if pin else "", "active": active}


def _list(versions: "Versions", as_json: bool) -> None:
    from rich.table import Table

    found = [_described(versions, kept) for kept in versions.kept()]
    active = versions.active().version
    if as_json:
        print(json.dumps({"pinned_to": active, "snapshots": found}, ensure_ascii=False))
        return
    console = _console()
    if not found:
        console.print("No snapshot is kept yet: one is with each checkpoint, once something was learned.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("version", "created", "model", "labels learned", "accuracy", "log loss", ""):
        table.add_column(heading, justify="right" if heading in {"labels learned", "accuracy", "log loss"} else "left")
    for each in found:
        recent = each["recent"]
        marks = ["[bold]served[/bold]"] * each["active"] + [f"pinned {escape(each['name'])}".strip()] * each["pinned"]
        scores = (f"{recent['accuracy']:.4f}", f"{recent['log_loss']:.4f}") if recent["labels"] else ("", "")
        model, learned = escape(each["model"]), f"{each['labels_learned']:,}"
        table.add_row(each["version"], each["created_at"], model, learned, *scores, ", ".join(marks))
    console.print(table)
    console.print("Accuracy and log loss: of predictions as served, over the last 1,000 labels then.", style="dim")
    console.print(f"Served: {'pinned to ' + active if active else 'the latest'}.")


def _show(versions: "Versions", version: str, as_json: bool) -> None:
    from rich.table import Table

    found = _described(versions, versions.get(version))
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for field, value in found.items():
        table.add_row(field, escape(str(value)))
    _console().print(table)
