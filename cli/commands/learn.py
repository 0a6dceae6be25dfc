"""How does the learner run? `driftline learn` alone, or in a process of `driftline up`."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from driftline.cli.commands.status import print_status
from driftline.cli.terminal import bars, print_error
from driftline.learner.disk.settings import LearnerSettings
from driftline.stream.errors import ConfigError, DriftlineError
from driftline.stream.process import interrupts, log_lines
from driftline.stream.process.flags import with_settings
from driftline.stream.process.settings import StreamSettings

if TYPE_CHECKING:
    from driftline.learner.report.status import Status

BAD_OPTIONS: Final = 2  # exit code of a learner's process whose options cannot be meant


@with_settings
def learn(
    stream: StreamSettings,
    learner: LearnerSettings,
    stop_at_end: Annotated[
        bool, typer.Option("--stop-at-end", help="End, with a summary, when all that is in the log now is learned.")
    ] = False,
) -> None:
    """Run the learner alone: read the log, learn, write snapshots for `driftline serve`."""
    from driftline.learner.loop.service import learn as run_learner

    log_lines.begin(stream.log_format)
    if learner.journal == "log":
        from driftline.learner.cluster import service

        status = service.learn(stream, learner, stop_at_end=stop_at_end, on_lead=_say_started)
        _say(f"the learner has {status.state}", status)
        return
    with bars("recovering, batches", "learning, records") as (recovering, learning):
        status = run_learner(
            stream,
            learner,
            stop_at_end=stop_at_end,
            on_replay=recovering,
            on_start=_say_started,
            on_advance=learning if stop_at_end else None,
        )
    if stream.log_format == "json":
        _say(f"the learner has {status.state}", status)
    else:
        print_status(status)


def _say_started(status: "Status") -> None:
    _say("learning", status)


def _say(what: str, status: "Status") -> None:
    fields = {"model": status.model, "labels_learned": status.counts.labels_learned}
    fields |= {"pid": status.pid, "epoch": status.epoch}
    logging.getLogger("driftline").info(what, extra={"fields": fields})


def run_process(stream: StreamSettings, settings: LearnerSettings) -> None:
    """Be the learner's process of `driftline up`, which ends it; the API is beside it."""
    from driftline.learner.loop.service import learn as run_learner

    run_beside(stream, lambda: run_learner(stream, settings, on_start=_say_started))


def run_beside(stream: StreamSettings, run: Callable[[], object]) -> None:
    """Be a process beside an API, which ends it."""
    interrupts.ignored()  # before and behind what `run` makes of them
    from driftline.learner.loop.background import leave_a_processor

    leave_a_processor()
    log_lines.begin(stream.log_format)
    with log_lines.ending_said():
        try:
            run()
        except DriftlineError as error:
            print_error(str(error))
            raise SystemExit(BAD_OPTIONS if isinstance(error, ConfigError) else error.exit_code) from None
