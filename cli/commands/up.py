"""How does everything start on one machine? `driftline up`: the log, a learner, the API and, with --demo, a stream."""

import logging
import threading
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from driftline.api.settings import ApiSettings
from driftline.cli.commands.keeper import Keeper, is_past_first_checks
from driftline.cli.commands.learn import BAD_OPTIONS
from driftline.cli.commands.serve import print_banner
from driftline.cli.terminal import print_error, terminal
from driftline.learner.disk.settings import LearnerSettings
from driftline.stream.errors import ConfigError, DriftlineError
from driftline.stream.process import interrupts, log_lines, threads
from driftline.stream.process.flags import with_settings
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import ended


@with_settings
def up(
    stream: StreamSettings,
    learner: LearnerSettings,
    api: ApiSettings,
    demo: Annotated[
        bool, typer.Option("--demo", help="Send a generated stream of messages with late labels; its wording drifts.")
    ] = False,
) -> None:
    """Start everything on this machine: the log, a learner, and the API. Ctrl-C stops it.

    Without --log the log is one file in the data directory, and nothing else is needed. With --demo that directory is
    driftline-demo, unless another is named.
    """
    from driftline.api.run.process import Started
    from driftline.api.run.server import serve as serve_api
    from driftline.learner.disk.lock import check_free
    from driftline.learner.foreign.named import check_allowed

    log_lines.begin(stream.log_format)
    if learner.journal == "log":
        raise ConfigError(
            "journal: `up` is for one machine; with --journal log start `driftline learn` on each of several, and "
            "`driftline serve --follow` beside them"
        )
    if demo:
        stream, learner = _of_demo(stream, learner)
    check_allowed(learner.model or "", stream.allow_pickle)
    if not learner.take_over:
        check_free(stream.data)
    stopping = threading.Event()
    keeper = Keeper(stream, learner, stopping)
    sender = threading.Thread(target=_send_demo, args=(stream, stopping), name="demo")

    def say_up(api: Started) -> None:
        """Say it once the learner has said something, so that nothing is up which is about to fail."""
        heard, status = keeper.first_word(is_past_first_checks)
        if heard:
            print_banner(api.url, api.reference, stream, status)
            if demo:
                sender.start()

    def stop_with_keeper(api: Started) -> None:
        keeper.over.wait()
        api.stop()

    def ready(api: Started) -> None:
        if learner.take_over:  # nothing of this process can fail any more: now the other one may be ended
            keeper.start()
        threads.start("say-up", partial(say_up, api))
        threads.start("stop-with-keeper", partial(stop_with_keeper, api))

    exit_code = 0
    try:
        with interrupts.setting(stopping):
            if not learner.take_over:
                keeper.start()
                keeper.first_word(lambda _: True)  # so that nothing here says that no learner runs
            if not keeper.over.is_set() and not stopping.is_set():
                serve_api(stream, api, on_ready=ready, stopping=stopping)
    finally:
        stopping.set()
        if sender.ident is not None:
            sender.join()
        exit_code = keeper.end()
    _say_how_it_ended(exit_code, stream)


def _say_how_it_ended(exit_code: int, stream: StreamSettings) -> None:
    """Say what became of it all. Raises DriftlineError where the learner did not end as it should."""
    if exit_code:
        error = DriftlineError(f"the learner {ended(exit_code)}{'; the lines above say why' if exit_code > 0 else ''}")
        error.exit_code = exit_code if exit_code == BAD_OPTIONS else 1
        raise error
    stopped = f"Stopped. Everything is in {stream.data}; `driftline up` goes on from there."
    if stream.log_format == "json":
        logging.getLogger("driftline").info("%s", stopped)
    else:
        terminal().print(stopped, markup=False)


def _of_demo(stream: StreamSettings, learner: LearnerSettings) -> tuple[StreamSettings, LearnerSettings]:
    """Return the options with the demo's own defaults, where nothing was said."""
    if "data" not in stream.model_fields_set:
        stream = stream.model_copy(update={"data": Path("driftline-demo")})
    if "label_requests_per_hour" not in learner.model_fields_set:
        learner = learner.model_copy(update={"label_requests_per_hour": 600.0})
    return stream, learner


def _send_demo(stream: StreamSettings, stopping: threading.Event) -> None:
    from contextlib import closing

    from driftline.learner.report.status import read_status
    from driftline.stream.files.demo import send_demo
    from driftline.stream.log.open import open_log

    try:
        while not stopping.wait(0.2):
            status = read_status(stream.data)
            if status is not None and status.alive and status.state == "running":
                break  # nothing is sent before the learner is there, so that what is shown begins without a heap
        with closing(open_log(stream)) as log:
            send_demo(log, stream.topics, stopping.wait, seed=time.time_ns())
    except Exception as error:  # all else goes on without it
        print_error(f"the demo's stream has ended: {error if isinstance(error, DriftlineError) else repr(error)}")
