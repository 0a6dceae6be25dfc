"""How does a data directory come to be as it was? `driftline restore`."""

from typing import Annotated

import typer
from rich.markup import escape

from driftline.cli.copies.backup import Url, described, open_store, said
from driftline.cli.terminal import bars, print_json, terminal, where
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
    """Fetch a checkpoint into a data directory that has none; the learner that starts there goes on from it.

    It takes what came after from the log, which has to be there: Kafka's topics, or a copy of log.db in the data
    directory. Predictions of that are made again, by a model with another version.
    """
    from driftline.learner.store.backup import restore as fetch

    store = open_store(stream, url)
    with bars("fetching, bytes") as (fetching,):
        stored = threads.heard("restore", lambda: fetch(stream.data, store, batch, fetching))
    if as_json:
        print_json(described(stored))
        return
    console = terminal()
    console.print(escape(f"Checkpoint {said(stored)} is in {stream.data}."))
    console.print(escape(f"Start the learner: `driftline learn{where(stream)}`. It takes the rest from the log."))
