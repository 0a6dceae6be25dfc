"""Does the log make of a checkpoint the next one? `driftline verify`."""

from typing import Annotated

import typer
from rich.markup import escape

from driftline.cli.commands.rebuild import log_to_read
from driftline.cli.terminal import bars, terminal
from driftline.stream.errors import DriftlineError
from driftline.stream.process.flags import with_settings
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted


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
    from driftline.learner.rebuild.verify import pairs
    from driftline.learner.rebuild.verify import verify as compare

    console, outcomes = terminal(), []
    try:
        with log_to_read(stream) as log:
            for earlier, later in pairs(stream.data / "checkpoints", first, last):
                with bars(f"checkpoint {earlier} to {later}, batches") as (advance,):
                    verdict = compare(
                        stream.data, log, earlier, later, allow_pickle=stream.allow_pickle, on_batch=advance
                    )
                outcomes.append(verdict.outcome)
                found = escape("; ".join(verdict.details))
                said = {
                    "same": f"[green]the same[/green]: {counted(verdict.batches, 'batch', 'batches')}, "
                    f"{counted(verdict.records, 'record')}" + (f" ({found})" if found else ""),
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
        terminal(stderr=True).print(f"driftline: cannot be verified: {error}", style="yellow", markup=False)
        raise typer.Exit(2) from None
    if {"differs", "damaged"} & set(outcomes):
        raise typer.Exit(1)
    if "unknown" in outcomes or "same" not in outcomes:
        raise typer.Exit(2)
