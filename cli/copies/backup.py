"""How is a checkpoint copied to another place, or all there is into one file? `driftline backup`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.markup import escape

from driftline.cli.terminal import bars, print_json, print_table, terminal
from driftline.stream.errors import ConfigError
from driftline.stream.process import threads
from driftline.stream.process.flags import with_shown
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

if TYPE_CHECKING:
    from driftline.learner.store.checkpoint_store import CheckpointStore
    from driftline.learner.store.stored import Stored
    from driftline.learner.store.whole import Whole

MEGABYTE = 1_000_000

Url = Annotated[
    str | None,
    typer.Argument(metavar="[FILE or URL]", help="A file, or a store's address; default: that of --checkpoints."),
]


@with_shown("data", "checkpoints")
def backup(
    stream: StreamSettings,
    url: Url = None,
    show: Annotated[bool, typer.Option("--list", help="Copy nothing; say what lies there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Copy all there is into a file, or the newest checkpoint into a store. A learner may be at work.

    A file (`driftline-monday.tar`; `.tar.gz` is compressed) has the data directory and the embedded log as they are at
    one moment, keys too, and was read again. Kafka's topics are not in it.

    A store is an object store or a directory, by its address (`file:///mnt/backup`). A learner with --checkpoints puts
    checkpoints there by itself; what came after one is in the log, which needs a copy of its own, as keys do.

    `driftline restore` takes either back. Nothing that lies there is deleted.
    """
    if is_file(url):
        if show:
            raise ConfigError("--list: a file has one backup; name a store's address, or leave --list away")
        _into_file(stream, Path(str(url)), as_json=as_json)
        return
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


def is_file(url: str | None) -> bool:
    """Tell whether a file is named, not a store's address."""
    return url is not None and "://" not in url


def said_of(whole: "Whole") -> str:
    """Say what is in a file."""
    learned, after = counted(whole.labels_learned, "label"), counted(whole.batches_after, "batch", "batches")
    log = "the log" if whole.log else "without the log, which is Kafka's"
    return (
        f"checkpoint {whole.batch} of {whole.created_at} ({learned} learned), {after} after it, {log}; "
        f"{counted(len(whole.files), 'file')}, {whole.bytes / MEGABYTE:,.1f} MB"
    )


def described_of(whole: "Whole") -> dict[str, object]:
    """Say it as JSON has it."""
    return {name: value for name, value in msgspec.to_builtins(whole).items() if name != "files"} | {
        "files": len(whole.files),
        "bytes": whole.bytes,
    }


def _into_file(stream: StreamSettings, target: Path, *, as_json: bool) -> None:
    from driftline.learner.store.whole import back_up_whole

    with bars("writing, bytes") as (writing,):
        whole = threads.heard("backup", lambda: back_up_whole(stream, target, writing))
    if as_json:
        print_json(described_of(whole))
    else:
        terminal().print(escape(f"{target} is written and was read again: {said_of(whole)}."))


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
