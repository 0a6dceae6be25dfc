"""How is the model built anew from the log? `driftline rebuild`."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from driftline.cli.terminal import bars, terminal
from driftline.cli.waiting import Waiting
from driftline.stream.errors import ConfigError
from driftline.stream.process import log_lines
from driftline.stream.process.flags import with_settings
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

if TYPE_CHECKING:
    from driftline.learner.disk.rebuilt import LeftOut
    from driftline.stream.log.base import Log


@contextmanager
def log_to_read(stream: StreamSettings) -> "Iterator[Log]":
    """Open a log that is there, without making one and without dropping what is old: that is for its owners to do."""
    from driftline.stream.log.open import open_to_keep
    from driftline.stream.log.sqlite.file import sqlite_path

    if stream.log_url.startswith("sqlite:") and not sqlite_path(stream.log_url).exists():
        raise ConfigError(f"log: there is no file {sqlite_path(stream.log_url)}; name the learner's with --log")
    with closing(open_to_keep(stream)) as log:
        yield log


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
    from_checkpoint: Annotated[
        bool,
        typer.Option(
            "--from-checkpoint",
            help="Begin with the oldest checkpoint that the log still follows: what is older than that stays learned.",
        ),
    ] = False,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="Build it even where the log no longer has all that the model has learned."),
    ] = False,
    into: Annotated[
        Path | None,
        typer.Option(metavar="<path>", help="Leave the learner alone, and make a new data directory of it."),
    ] = None,
) -> None:
    """Build the model anew from the log, without labels that were retracted, and put it in the old one's place.

    The learner goes on meanwhile; when the new model has caught up with it, it takes over between two batches, at one
    stroke. It begins with the log's first record. Where retention has taken records that the model was learned from it
    is refused, with how many labels that is: --from-checkpoint begins with the oldest checkpoint that the log still
    follows (--keep-bases of the learner), so that only younger labels can be left out; --accept-loss goes on without
    what is gone. What is left out is left out of the past:
    labels that come after the swap are learned, whoever sends them. With --until the model becomes what it was at that
    time, messages since then can still be labelled, and learning goes on from now: so this rolls back the learner
    itself (`driftline snapshots rollback` only what is served). Stopped at any moment it leaves everything as it was.
    """
    from driftline.learner.loop.background import in_background

    left_out = _left_out(until, exclude or [])
    log_lines.begin(stream.log_format or "text", logging.ERROR)
    with in_background(), log_to_read(stream) as log:
        build(stream, log, left_out, model, into, from_checkpoint=from_checkpoint, accept_loss=accept_loss)


def build(
    stream: StreamSettings,
    log: "Log",
    left_out: "LeftOut",
    model: str | None = None,
    into: Path | None = None,
    *,
    from_checkpoint: bool,
    accept_loss: bool,
) -> None:
    """Build a model, have it take over, and say what it was built from. The options are those of `rebuild`."""
    from driftline.learner.loop.service import check_leads, take_over
    from driftline.learner.rebuild.rebuild import stage

    if into is None:
        check_leads(stream)
    console = terminal()
    with bars("looking for retractions, labels", "replaying, records") as (looked, replayed):
        rebuilt = stage(
            stream.data,
            log,
            left_out,
            model,
            into=into,
            from_checkpoint=from_checkpoint,
            accept_loss=accept_loss,
            allow_pickle=stream.allow_pickle,
            on_look=looked,
            on_records=replayed,
        )
    if into is None:
        take_over(stream, log, Waiting(stream.data))
    console.print(escape(f"Built {rebuilt}."))
    for topic, n in rebuilt.missing.items():
        if n:
            console.print(
                escape(f"{topic}: {counted(n, 'record was', 'records were')} no longer in the log."), style="yellow"
            )
    if into is not None:
        console.print(escape(f"Learn on with it: driftline learn --data {into} --log {stream.log_url}"))
    else:
        console.print("It took over; `driftline verify` proves it.")
        if model is not None:
            console.print(escape(f"Start the learner with --model {model!r} from now on, or without --model."))


def _left_out(until: str | None, exclude: list[str]) -> "LeftOut":
    from driftline.learner.disk.rebuilt import LeftOut
    from driftline.stream.wire.names import same_name

    names: dict[str, list[str]] = {"source": [], "id": [], "label": []}
    for each in exclude:
        kind, equals, name = each.partition("=")
        if not equals or kind not in names or not name:
            raise ConfigError(f"--exclude {each}: write source=NAME, id=NAME or label=NAME")
        names[kind].append(name if kind == "id" else same_name(name))
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
