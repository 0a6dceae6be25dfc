"""How does everything start on one machine? `driftline up`: the log, a learner, the API and, with --demo, a stream."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from driftline.api.settings import ApiSettings
from driftline.cli.learn import run_process
from driftline.cli.serve import print_banner
from driftline.cli.terminal import print_error, terminal
from driftline.learner.settings import LearnerSettings
from driftline.stream import lines, threads
from driftline.stream.errors import DriftlineError, StateError
from driftline.stream.flags import with_settings
from driftline.stream.settings import StreamSettings

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from driftline.learner.status import Status

FIRST_WORD_S: Final = 60.0
LONG_S: Final = 2.0  # to load kernels that are compiled takes less


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
    import multiprocessing.connection

    from driftline.api.server import Started
    from driftline.api.server import serve as serve_api
    from driftline.learner.foreign import check_allowed
    from driftline.learner.lock import check_free

    lines.begin(stream.log_format)
    if demo:
        stream, learner = _of_demo(stream, learner)
    check_allowed(learner.model or "", stream.allow_pickle)
    if not learner.take_over:
        check_free(stream.data)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run_process, args=(stream, learner), name="driftline-learner")
    if not learner.take_over:
        process.start()

    def stop_with_learner(api: Started) -> None:
        multiprocessing.connection.wait([process.sentinel])
        api.stop()

    stopping = threading.Event()
    sender = threading.Thread(target=_send_demo, args=(stream, stopping), name="demo")

    def say_up(api: Started) -> None:
        """Say it once the learner has said something, so that nothing is up which is about to fail."""
        heard, status = _first_word(stream.data, process, _is_past_first_checks)
        if heard:
            print_banner(api.url, api.reference, stream, status)
            if demo:
                sender.start()

    def ready(api: Started) -> None:
        if learner.take_over:  # nothing of this process can fail any more: now the other one may be ended
            process.start()
        threads.start("say-up", partial(say_up, api))
        threads.start("stop-with-learner", partial(stop_with_learner, api))

    try:
        if not learner.take_over:
            _first_word(stream.data, process, lambda _: True)  # so that nothing here says that no learner runs
        serve_api(stream, api, on_ready=ready)
    finally:
        stopping.set()
        if sender.ident is not None:
            sender.join()
        while process.is_alive():  # again: it hears signals only once it has begun, and until it has ended
            process.terminate()
            process.join(1.0)
    _say_how_it_ended(process.exitcode, stream)


def _say_how_it_ended(exit_code: int | None, stream: StreamSettings) -> None:
    """Say what became of it all. Raises DriftlineError where the learner did not end as it should."""
    if exit_code:
        how = (
            f"was killed by {signal.Signals(-exit_code).name}"
            if exit_code < 0
            else f"ended with exit code {exit_code}; the lines above say why"
        )
        raise DriftlineError(f"the learner {how}")
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


def _first_word(
    data: Path, process: "BaseProcess", is_enough: Callable[["Status"], bool]
) -> tuple[bool, "Status | None"]:
    """Wait for what a learner says of itself first, or first that is enough; return whether it lives, and that."""
    from driftline.learner.status import read_status

    deadline = time.monotonic() + FIRST_WORD_S
    while True:
        with suppress(StateError):  # an older version's
            status = read_status(data)
            if status is not None and status.pid == process.pid and is_enough(status):
                return True, status
        process.join(0.05)
        if process.exitcode is not None:
            return False, None
        if time.monotonic() > deadline:
            return True, None


def _is_past_first_checks(status: "Status") -> bool:
    """Tell whether a learner has found the log, or waits for it, and a model; what takes no longer is waited for."""
    if status.state == "starting" and status.start is not None:
        return time.time() - status.start.since > LONG_S and status.start.doing == "compiling"
    return status.state not in {"failed", "stopped"}


def _send_demo(stream: StreamSettings, stopping: threading.Event) -> None:
    from contextlib import closing

    from driftline.learner.status import read_status
    from driftline.stream.demo import send_demo
    from driftline.stream.log import open_log

    try:
        while not stopping.wait(0.2):
            status = read_status(stream.data)
            if status is not None and status.alive and status.state == "running":
                break  # nothing is sent before the learner is there, so that what is shown begins without a heap
        with closing(open_log(stream)) as log:
            send_demo(log, stream.topics, stopping.wait, seed=time.time_ns())
    except Exception as error:  # all else goes on without it
        print_error(f"the demo's stream has ended: {error if isinstance(error, DriftlineError) else repr(error)}")
