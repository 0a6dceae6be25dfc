"""How do several processes answer at one address?

They are forked from one process that has imported everything (preload.py), accept from the same listeners, and map the
same snapshot: one more costs its own objects and buffers. This process answers nothing: it

    1. starts them, and waits until each accepts requests or says why it never will
    2. starts another in the place of one that ended by itself, a second later where it ended soon
    3. SIGINT, SIGTERM, `stop`: lets each finish what it has begun, for END_S at most

A worker ends when this process does, however that ends: it has the other end of a pipe.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

from driftline.api.board import Board, make_board
from driftline.api.preload import MODEL
from driftline.api.server import SIGNALS, STOP_S, Started, run, started
from driftline.api.settings import ApiSettings
from driftline.learner.settings import DEFAULT_MODEL
from driftline.learner.status import read_status
from driftline.stream import lines, threads
from driftline.stream.errors import ConfigError, StateError
from driftline.stream.settings import StreamSettings

START_S: Final = 120.0
END_S: Final = STOP_S + 5.0
SOON_S: Final = 5.0
PAUSE_S: Final = 1.0
_LOG: Final = logging.getLogger(__name__)


class _Worker:
    """One process, and this end of the pipe to it."""

    def __init__(self, process: ForkServerProcess, pipe: Connection) -> None:
        self.process, self.pipe = process, pipe
        self.started = time.monotonic()


class _Workers:
    """The workers of one API. One thread."""

    def __init__(
        self, stream: StreamSettings, settings: ApiSettings, listeners: Sequence[socket.socket], board: Path
    ) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["driftline.api.preload"])
        os.environ[MODEL] = _model_of(stream)
        self._arguments = stream, settings, list(listeners), board
        self.workers = [self._start(number) for number in range(settings.workers)]

    def wait_until_ready(self) -> None:
        """Return once all accept requests. Raises ConfigError as a worker did."""
        deadline = time.monotonic() + START_S
        for worker in self.workers:
            try:
                said = worker.pipe.recv() if worker.pipe.poll(max(0.0, deadline - time.monotonic())) else None
            except EOFError:
                said = None
            if isinstance(said, str):
                raise ConfigError(said)
            if said is not True:
                raise ConfigError(f"workers: process {worker.process.pid} did not start; the lines above say why")

    def watch(self, stop: threading.Event) -> None:
        """Start those anew that end, until it is time to stop."""
        while not stop.is_set():
            wait([worker.process.sentinel for worker in self.workers], timeout=0.2)
            for number, worker in enumerate(self.workers):
                if worker.process.is_alive() or stop.is_set():
                    continue
                _LOG.error("worker %d ended with exit code %s; it is started again", number, worker.process.exitcode)
                worker.pipe.close()
                if time.monotonic() - worker.started < SOON_S:
                    stop.wait(PAUSE_S)
                self.workers[number] = self._start(number)

    def end(self) -> None:
        """Let each finish what it has begun."""
        for worker in self.workers:
            worker.pipe.close()  # which it hears, even while it starts
        deadline = time.monotonic() + END_S
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _start(self, number: int) -> _Worker:
        ours, its = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(*self._arguments, number, its), name=f"driftline-worker-{number}"
        )
        process.start()
        its.close()
        return _Worker(process, ours)


def supervise(
    stream: StreamSettings,
    settings: ApiSettings,
    listeners: Sequence[socket.socket],
    *,
    on_ready: Callable[[Started], None] | None = None,
) -> None:
    """Run the workers until it is time to stop; see server.py. Raises ConfigError."""
    stop, board = threading.Event(), make_board(settings.workers)
    with _stopping(stop), contextlib.ExitStack() as stack:
        stack.callback(board.unlink, missing_ok=True)
        workers = _Workers(stream, settings, listeners, board)
        stack.callback(workers.end)
        workers.wait_until_ready()  # 1
        if on_ready is not None:
            on_ready(started(listeners, stop.set))
        workers.watch(stop)  # 2, then 3


def _model_of(stream: StreamSettings) -> str:
    """Return the name of the model that will be served, as far as that can be known."""
    try:
        status = read_status(stream.data)
    except StateError:
        status = None
    return (status.model if status else DEFAULT_MODEL).partition("?")[0]


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Hear signals, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(
    stream: StreamSettings,
    settings: ApiSettings,
    listeners: Sequence[socket.socket],
    board: Path,
    number: int,
    pipe: Connection,
) -> None:
    """Be a worker. A signal to all processes of a terminal is for the one above to hear: it closes the pipe."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    lines.begin(stream.log_format)

    def ready(started: Started) -> None:
        pipe.send(True)
        threads.start("stop-with-supervisor", lambda: _stop_with(pipe, started.stop))

    with lines.ending_said():
        try:
            run(stream, settings, listeners, board=Board(board, number, settings.workers), on_ready=ready, hears=False)
        except ConfigError as error:
            with contextlib.suppress(OSError):
                pipe.send(str(error))


def _stop_with(pipe: Connection, stop: Callable[[], None]) -> None:
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()  # never comes
    stop()
