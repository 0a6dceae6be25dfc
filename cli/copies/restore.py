"""How does a data directory come to be as it was? `driftline restore`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from driftline.cli.copies.backup import Url, described, described_of, is_file, open_store, said, said_of
from driftline.cli.terminal import bars, print_json, terminal, where
from driftline.stream.errors import ConfigError
from driftline.stream.process import threads
from driftline.stream.process.flags import with_shown
from driftline.stream.process.settings import StreamSettings


@with_shown("data", "checkpoints")
def restore(
    stream: StreamSettings,
    url: Url = None,
    batch: Annotated[
        int | None,
        typer.Option(metavar="<int>", min=0, help="Which, as `driftline backup --list` shows; default: the newest."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Put back what `driftline backup` copied, into a data directory that has no learner's state.

    A file brings the embedded log too: to the place that --log names, log.db in the data directory by default. The
    learner that starts there goes on as after a crash, to the same model.

    A store brings a checkpoint. The learner goes on from it: it takes what came after from the log, which has to be
    there: Kafka's topics, or a copy of log.db in the data directory. Predictions of that are made again, by a model
    with another version.
    """
    from driftline.learner.store.backup import restore as fetch

    if is_file(url):
        if batch is not None:
            raise ConfigError("--batch: a file has one checkpoint; name a store's address, or leave --batch away")
        _from_file(stream, Path(str(url)), as_json=as_json)
        return
    store = open_store(stream, url)
    with bars("fetching, bytes") as (fetching,):
        stored = threads.heard("restore", lambda: fetch(stream.data, store, batch, fetching))
    if as_json:
        print_json(described(stored))
        return
    console = terminal()
    console.print(escape(f"Checkpoint {said(stored)} is in {stream.data}."))
    console.print(escape(f"Start the learner: `driftline learn{where(stream)}`. It takes the rest from the log."))


def _from_file(stream: StreamSettings, source: Path, *, as_json: bool) -> None:
    from driftline.learner.store.whole import restore_whole

    with bars("reading, bytes") as (reading,):
        whole = threads.heard("restore", lambda: restore_whole(stream, source, reading))
    if as_json:
        print_json(described_of(whole))
        return
    console = terminal()
    console.print(escape(f"{stream.data} has what {source} had: {said_of(whole)}."))
    console.print(escape(f"Start the learner: `driftline learn{where(stream)}`. It goes on as after a crash."))
