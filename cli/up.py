"""How does everything start on one machine? `driftline up`: the log, a learner, the API and, with --demo, a stream."""

import logging
import signal
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from driftline.api.settings import ApiSettings
from driftline.cli.learn import run_process
from driftline.cli.serve import print_banner
from driftline.cli.terminal import print_error, terminal
from driftline.learner.settings import LearnerSettings
from driftline.stream import lines
from driftline.stream.errors import DriftlineError
from driftline.stream.flags import with_settings
from driftline.stream.settings import StreamSettings


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
    process.start()

    def stop_with_learner(api: Started) -> None:
        multiprocessing.connection.wait([process.sentinel])
        api.stop()

    stopping = threading.Event()
    sender = threading.Thread(target=_send_demo, args=(stream, stopping), name="demo")

    def ready(api: Started) -> None:
        print_banner(api.url, api.reference, stream)
        if demo:
            sender.start()
        threading.Thread(target=stop_with_learner, args=(api,), daemon=True).start()

    try:
        serve_api(stream, api, on_ready=ready)
    finally:
        stopping.set()
        if sender.ident is not None:
            sender.join()
        while process.is_alive():  # again: it hears signals only once it has begun, and until it has ended
            process.terminate()
            process.join(1.0)
    if process.exitcode:
        how = (
            f"was killed by {signal.Signals(-process.exitcode).name}"
            if process.exitcode < 0
            else f"ended with exit code {process.exitcode}; the lines above say why"
        )
        raise DriftlineError(f"the learner {how}")
    stopped = f"Stopped. Everything is in {stream.data}; `driftline up` goes on from there."
    if stream.log_format == "json":
        logging.getLogger("driftline").info("%s", stopped)
    else:
        terminal().print(stopped)


def _of_demo(stream: StreamSettings, learner: LearnerSettings) -> tuple[StreamSettings, LearnerSettings]:
    """Return the options with the demo's own defaults, where nothing was said."""
    if "data" not in stream.model_fields_set:
        stream = stream.model_copy(update={"data": Path("driftline-demo")})
    if "label_requests_per_hour" not in learner.model_fields_set:
        learner = learner.model_copy(update={"label_requests_per_hour": 600.0})
    return stream, learner


def _send_demo(stream: StreamSettings, stopping: threading.Event) -> None:
    from contextlib import closing

    from driftline.learner.status import read_status
    from driftline.stream.demo import send_demo
    from driftline.stream.log import open_log

    try:
        while not stopping.wait(0.2) and not ((status := read_status(stream.data)) and status.alive):
            pass  # nothing is sent before the learner is there, so that what is shown begins without a heap
        with closing(open_log(stream)) as log:
            send_demo(log, stream.topics, stopping.wait, seed=time.time_ns())
    except DriftlineError as error:
        print_error(f"the demo's stream has ended: {error}")
