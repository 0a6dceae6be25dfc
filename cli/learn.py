"""How does the learner run? `driftline learn` alone, or in a process of `driftline up`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cli.status import print_status
from cli.terminal import bars, log_to_terminal, print_error, terminal
from learner.settings import LearnerSettings
from stream.errors import DriftlineError
from stream.flags import with_settings
from stream.settings import StreamSettings

if TYPE_CHECKING:
    from learner.status import Status


@with_settings
def learn(
    stream: StreamSettings,
    learner: LearnerSettings,
    stop_at_end: Annotated[
        bool, typer.Option("--stop-at-end", help="End, with a summary, when all that is in the log now is learned.")
    ] = False,
) -> None:
    """Run the learner alone: read the log, learn, write snapshots for `driftline serve`."""
    from learner.service import learn as run_learner

    log_to_terminal()
    with bars("recovering, batches", "learning, records") as (recovering, learning):
        status = run_learner(
            stream,
            learner,
            stop_at_end=stop_at_end,
            on_replay=recovering,
            on_start=_print_started,
            on_advance=learning if stop_at_end else None,
        )
    print_status(status)


def _print_started(status: "Status") -> None:
    terminal(stderr=True).print(
        f"Learning with {escape(status.model)} as process {status.pid}, epoch {status.epoch}; "
        f"{status.counts.labels_learned:,} labels learned before."
    )


def run_process(stream: StreamSettings, settings: LearnerSettings) -> None:
    """Be the learner's process of `driftline up`, which ends it."""
    import signal

    from api.logs import to_stderr as log_to_stderr
    from learner.service import learn as run_learner

    for number in (signal.SIGINT, signal.SIGTERM):  # before and behind what `learn` makes of them
        signal.signal(number, signal.SIG_IGN)
    log_to_stderr()
    try:
        run_learner(stream, settings)
    except DriftlineError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
