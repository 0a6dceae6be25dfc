"""How is a checkpoint copied to another place, and what lies there? `driftline backup`."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.markup import escape

from driftline.cli.terminal import print_json, print_table, terminal
from driftline.stream.errors import ConfigError
from driftline.stream.process import threads
from driftline.stream.process.flags import with_shown
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

if TYPE_CHECKING:
    from driftline.learner.store.checkpoint_store import CheckpointStore
    from driftline.learner.store.stored import Stored

MEGABYTE = 1_000_000

Url = Annotated[str | None, typer.Argument(metavar="[URL]", help="The place; default: that of --checkpoints.")]


@with_shown("data", "checkpoints")
def backup(
    stream: StreamSettings,
    url: Url = None,
    show: Annotated[bool, typer.Option("--list", help="Copy nothing; say what lies there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Copy the newest checkpoint to another place: an object store, or a directory. A learner may be at work.

    A learner with --checkpoints does that by itself; `driftline restore` fetches it. What came after a checkpoint is in
    the log, and keys are in files of their own: they need copies too. Nothing that lies there is deleted.
    """
    from driftline.learner.store.backup import back_up

    store = open_store(stream, url)
    if show:
        _list(store, as_json)
        return
    stored = threads.heard("backup", lambda: back_up(stream.data, store))
    if as_json:
        print_json(described(stored))
    else:
        terminal().print(escape(f"Checkpoint {said(stored)} is in {store.where}."))


def open_store(stream: StreamSettings, url: str | None) -> "CheckpointStore":
    """Open the store that was named. Raises ConfigError where none was."""
    from driftline.learner.store.checkpoint_store import CheckpointStore

    chosen = url or stream.checkpoints
    if chosen is None:
        raise ConfigError(
            "name the place: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///directory; here, "
            "or with --checkpoints"
        )
    return CheckpointStore(chosen)


def said(stored: "Stored") -> str:
    """Say which checkpoint that is."""
    learned = counted(stored.labels_learned, "label")
    return f"{stored.batch} of {stored.created_at} ({learned} learned, {stored.bytes / MEGABYTE:,.1f} MB)"


def described(stored: "Stored") -> dict[str, object]:
    """Say it as JSON has it."""
    left_out = {"format", "files", "attempt"}
    found = {name: value for name, value in msgspec.to_builtins(stored).items() if name not in left_out}
    return found | {"bytes": stored.bytes}


def _list(store: "CheckpointStore", as_json: bool) -> None:
    from rich.table import Table

    found = threads.heard("backup", store.checkpoints)
    if as_json:
        print_json({"checkpoints": [described(each) for each in found]})
        return
    if not found:
        terminal().print(escape(f"{store.where} has no checkpoint."))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("batch", "created", "model", "labels learned", "MB"):
        table.add_column(heading, justify="left" if heading in {"created", "model"} else "right", overflow="fold")
    for each in found:
        size = f"{each.bytes / MEGABYTE:,.1f}"
        table.add_row(str(each.batch), escape(each.created_at), escape(each.model), f"{each.labels_learned:,}", size)
    print_table(table)
