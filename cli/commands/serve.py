"""How does the API run alone? `driftline serve`, and what is shown once it is there."""

import json
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.markup import escape

from driftline.api.settings import ReplicaSettings
from driftline.cli.commands.keeper import Child, Keeper
from driftline.cli.commands.learn import run_beside
from driftline.cli.terminal import print_lines, program, where
from driftline.stream.errors import StateError
from driftline.stream.process import interrupts, log_lines
from driftline.stream.process.flags import with_settings
from driftline.stream.process.harmless import harmless
from driftline.stream.process.settings import StreamSettings

if TYPE_CHECKING:
    from driftline.learner.report.status import Status


@with_settings
def serve(stream: StreamSettings, api: ReplicaSettings) -> None:
    """Run the API alone: append messages and labels to the log, answer from the learner's snapshots.

    With --follow the learner is on another machine: a process beside the API follows it.
    """
    from driftline.api.run.process import Started
    from driftline.api.run.server import serve as serve_api
    from driftline.learner.report.status import read_status

    log_lines.begin(stream.log_format)

    def ready(started: Started) -> None:
        status = None
        with suppress(StateError):  # of another version: what it says is not known
            status = read_status(stream.data)
        print_banner(started.url, started.reference, stream, status)

    if not api.follow:
        serve_api(stream, api, on_ready=ready)
        return
    from driftline.learner.disk.lock import check_free
    from driftline.learner.follow.service import check_options

    check_options(stream)
    check_free(stream.data)
    stopping, arguments = threading.Event(), (stream, api.publish_interval_s)
    keeper = Keeper(stream, Child("follower", follow_process, arguments, arguments, needed=False), stopping)
    try:
        with interrupts.setting(stopping):
            keeper.start()
            keeper.first_word(lambda _: True)  # so that nothing here goes by what was said before it
            if not stopping.is_set():
                serve_api(stream, api, on_ready=ready, stopping=stopping)
    finally:
        stopping.set()
        keeper.end()


def follow_process(stream: StreamSettings, interval_s: float) -> None:
    """Be the process of `driftline serve --follow` that follows the learner; the API is beside it."""
    from driftline.learner.follow.service import follow

    run_beside(stream, lambda: follow(stream, interval_s))


def print_banner(url: str, reference: str, stream: StreamSettings, status: "Status | None") -> None:
    """Show where the API is, what to do first, and what the learner said last; a machine only needs the address."""
    if stream.log_format == "json":
        fields = {"url": url, "log": stream.log_shown, "data": stream.data.resolve()}
        fields["learner"] = status.state if status is not None and status.alive else None
        logging.getLogger("driftline").info("Driftline is up at %s", url, extra={"fields": fields})
        return
    url, reference = (each.replace("0.0.0.0", "localhost").replace("[::]", "localhost") for each in (url, reference))
    post = f"curl {url}/{{}} -H 'content-type: application/json' -d"
    feedback = json.dumps({"message_id": "m1", "label": "spam", "text": "You won a prize, call now"})
    print_lines(
        f"""
[bold]Driftline is up[/bold] at [bold]{url}[/bold]  (open it in a browser; Ctrl-C stops it)
{_learner_line(status)}
Teach it a label, then ask it:
  {post.format("feedback")} {_quoted(feedback)}
  {post.format("predict")} {_quoted(json.dumps({"text": "Call now for your prize"}))}

Or send a labelled file from a second shell:
  {_shown(program())} send FILE --label-delay 100{_shown(where(stream))}

API and its reference: {reference}    State of the model: {url}/model
Log: {_shown(stream.log_shown)}    Data: {_shown(str(stream.data.resolve()))}
"""
    )


def _learner_line(status: "Status | None") -> str:
    """Return what keeps the learner from learning now, in a line of its own; nothing where nothing does."""
    if status is None or not status.alive:
        line = "No learner is at work on this data directory: start one with `driftline learn`, or use `driftline up`."
    elif status.following is not None:
        line = f"It follows a learner: {status.state}{f' ({status.detail})' if status.detail else ''}."
    elif status.state == "starting":
        line = f"The learner is {status.detail}. Until then labels are taken, and learned later."
    elif status.state == "recovering":
        line = "The learner is recovering what came after its last checkpoint. Until then labels are taken."
    elif status.state == "waiting":
        line = f"The learner waits: {status.detail}. Until then messages and labels are refused."
    else:
        return ""
    return f"[yellow]{_shown(line)}[/yellow]\n"


def _shown(text: str) -> str:
    return escape(harmless(text))


def _quoted(text: str) -> str:
    return escape("'" + text + "'")
