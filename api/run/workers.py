"""How do several processes answer at one address?

They are forked from one process that has imported everything (preload.py), accept from the same listeners, and map the
same snapshot: one more costs its own objects and buffers. This process answers nothing: it

    1. starts them, and waits until each accepts requests or says why it never will
    2. starts another in the place of one that ended by itself, after a pause that grows where that goes on (pauses.py)
    3. SIGINT, SIGTERM, `stop`: lets each finish what it has begun, for END_S at most; while the first process still
       compiles there is nothing to finish, and it ends with this one

It has a pipe to each, whose other end only that worker has: so it hears of a worker's end although the process that
they are forked from was killed, which then is made anew for the next one; the others go on. And a worker ends when this
process does, however that ends.
"""

import contextlib
import logging
import multiprocessing
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any, Final

from driftline.api.run.preload import LINES, MODEL, STARTED_BY
from driftline.api.run.process import STOP_S, Started, run, started
from driftline.api.settings import ApiSettings
from driftline.api.shared.board import Board, BoardMemory, make_board
from driftline.learner.disk.settings import DEFAULT_MODEL
from driftline.learner.report.status import read_status
from driftline.stream.errors import ConfigError, StateError
from driftline.stream.process import interrupts, log_lines, threads
from driftline.stream.process.pauses import Pauses
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import ended

MOST_OF_DIRECTORY: Final = 89  # bytes: a socket's path has 107, and its name there 18
START_S: Final = 120.0
END_S: Final = STOP_S + 5.0
WELL_S: Final = 60.0  # a worker that lived so long was well
LOOK_S: Final = 0.2
_LOG: Final = logging.getLogger(__name__)


class _Worker:
    """The process of one number, which may be started again; and this end of the pipe to it. One thread."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: ForkServerProcess | None = None
        self.pipe: Connection | None = None  # None: it is to be started, once that is due
        self.ready = False
        self.due = 0.0
        self._pauses, self._started = Pauses(), 0.0

    def begin(self, process: ForkServerProcess, pipe: Connection) -> None:
        """Note that it was started."""
        self.process, self.pipe, self.ready, self._started = process, pipe, False, time.monotonic()

    def hear(self) -> str | None:
        """Take what it said. Returns why it never will be ready, where it said that; raises EOFError: it has ended."""
        assert self.pipe is not None
        try:
            said = self.pipe.recv()
        except OSError:
            raise EOFError from None
        self.ready = self.ready or said is True
        return said if isinstance(said, str) else None

    def put_off(self) -> float:
        """Note that it has ended, or could not be started; return the seconds until it is due."""
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None
        if time.monotonic() - self._started > WELL_S:
            self._pauses.well()
        pause_s = self._pauses.take()
        self.due = time.monotonic() + pause_s
        return pause_s


class _Workers:
    """The workers of one API. One thread."""

    def __init__(
        self,
        stream: StreamSettings,
        settings: ApiSettings,
        listeners: Sequence[socket.socket],
        board: BoardMemory,
        stopping: "_Stopping",
    ) -> None:
        self._stopping = stopping
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["driftline.api.run.preload"])
        self._preloaded = {MODEL: _model_of(stream), STARTED_BY: str(os.getpid()), LINES: stream.log_format or ""}
        self._arguments = stream, settings, list(listeners), board
        self._workers = [_Worker(number) for number in range(settings.workers)]

    def start(self) -> None:
        """Return once all accept requests, or it is time to stop. Raises ConfigError as a worker did."""
        try:
            self._directory = util.get_temp_dir()  # where the socket to that process is
        except OSError as error:
            raise ConfigError(f"workers: no temporary file can be made: {error}; make room, or set TMPDIR") from None
        if len(os.fsencode(self._directory)) > MOST_OF_DIRECTORY:
            raise ConfigError(
                f"workers: {self._directory} is too long for a socket in it; set TMPDIR to a shorter path"
            )
        why = self._turn()  # over once they are forked: the kernels that are compiled before take as long as they take
        stop, deadline = self._stopping.stop, time.monotonic() + START_S
        while why is None and not all(worker.ready for worker in self._workers) and not stop.is_set():
            why = self._turn()
            if why is None and time.monotonic() > deadline:
                why = f"workers: not all of them accept requests after {START_S:g} s; the lines above may say why"
        if why is not None:
            raise ConfigError(why)

    def watch(self) -> None:
        """Start those anew that end, until it is time to stop."""
        while not self._stopping.stop.is_set():
            if (why := self._turn()) is not None:
                _LOG.error("%s", why)

    def end(self) -> None:
        """Let each finish what it has begun."""
        there = [(worker.process, worker.pipe) for worker in self._workers if worker.process and worker.pipe]
        for _, pipe in there:
            with contextlib.suppress(OSError):
                pipe.send(None)
        deadline = time.monotonic() + END_S
        for process, pipe in there:
            with contextlib.suppress(EOFError, OSError):
                while pipe.poll(max(0.0, deadline - time.monotonic())):
                    pipe.recv()
                process.kill()
            pipe.close()
            process.join()

    def _turn(self) -> str | None:
        """Start those that are due, and hear what the others say, for LOOK_S. Returns why one refuses to start."""
        for worker in self._workers:
            if worker.pipe is None and time.monotonic() >= worker.due:
                self._start(worker)
        pipes = {worker.pipe: worker for worker in self._workers if worker.pipe is not None}
        heard: list[Connection] = wait(list(pipes), timeout=LOOK_S) if pipes else []  # type: ignore[assignment]
        if not pipes:
            time.sleep(LOOK_S)
        for pipe in heard:
            worker = pipes[pipe]
            try:
                if (why := worker.hear()) is not None:
                    return why
            except EOFError:
                assert worker.process is not None
                worker.process.join(LOOK_S)  # it ends just now
                how = ended(worker.process.exitcode)
                _LOG.error("worker %d %s; it is started again in %g s", worker.number, how, worker.put_off())
        return None

    def _start_first(self) -> None:
        """Start the process that they are forked from, where it is not there; it alone is told what to load."""
        resource_tracker.ensure_running()  # which lets signals through once it has started
        os.environ |= self._preloaded
        try:
            with interrupts.held_back():
                forkserver.ensure_running()
        finally:
            for name in self._preloaded:
                del os.environ[name]

    def _start(self, worker: _Worker) -> None:
        ours, its = self._context.Pipe()
        process = self._context.Process(
            target=_work,
            args=(*self._arguments, worker.number, its, self._directory),
            name=f"driftline-worker-{worker.number}",
        )
        try:
            self._start_first()
            with self._stopping.at_once():  # the first one waits for what is compiled before
                process.start()
            worker.begin(process, ours)
        except _StoppedAtOnceError:
            ours.close()
        except (OSError, EOFError) as error:  # the process that they are forked from was killed just now
            ours.close()
            pause_s = worker.put_off()
            _LOG.error("worker %d could not be started (%r); it is tried again in %g s", worker.number, error, pause_s)
        finally:
            its.close()


def supervise(
    stream: StreamSettings,
    settings: ApiSettings,
    listeners: Sequence[socket.socket],
    *,
    on_ready: Callable[[Started], None] | None = None,
    stopping: threading.Event | None = None,
) -> None:
    """Run the workers until it is time to stop; see server.py. Raises ConfigError."""
    stop = stopping or threading.Event()
    with _Stopping(stop) as stopped, contextlib.closing(make_board(settings.workers)) as board:
        workers = _Workers(stream, settings, listeners, board, stopped)
        try:
            workers.start()  # 1
            if on_ready is not None and not stop.is_set():
                on_ready(started(listeners, stop.set))
            workers.watch()  # 2
        finally:
            workers.end()  # 3


def _model_of(stream: StreamSettings) -> str:
    """Return the name of the model that will be served, as far as that can be known."""
    try:
        status = read_status(stream.data)
    except StateError:
        status = None
    return (status.model if status else DEFAULT_MODEL).partition("?")[0]


class _StoppedAtOnceError(BaseException):
    """A signal came while another process was waited for."""


class _Stopping:
    """Hears signals, where this is the main thread: they set `stop`. A context."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self._at_once = False
        self._hearing = interrupts.handled(self._note)

    def __enter__(self) -> "_Stopping":
        self._hearing.__enter__()
        return self

    def __exit__(self, *caught: Any) -> None:
        self._hearing.__exit__(*caught)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise _StoppedAtOnceError where it is time to stop, and where a signal comes in the block."""
        self._at_once = True
        try:
            if self.stop.is_set():
                raise _StoppedAtOnceError
            yield
        finally:
            self._at_once = False

    def _note(self, *_: object) -> None:
        self.stop.set()
        if self._at_once:
            self._at_once = False
            raise _StoppedAtOnceError


def _work(
    stream: StreamSettings,
    settings: ApiSettings,
    listeners: Sequence[socket.socket],
    board: BoardMemory,
    number: int,
    pipe: Connection,
    directory: str,
) -> None:
    """Be a worker. A signal to all processes of a terminal is for the one above to hear: it speaks through the pipe."""
    interrupts.ignored()
    log_lines.begin(stream.log_format)

    def ready(started: Started) -> None:
        with contextlib.suppress(OSError):  # the one above is gone already
            pipe.send(True)
        threads.start("stop-with-supervisor", lambda: _stop_when_told(pipe, started.stop, directory))

    with log_lines.ending_said():
        try:
            run(stream, settings, listeners, board=Board(board, number, settings.workers), on_ready=ready, hears=False)
        except ConfigError as error:
            with contextlib.suppress(OSError):
                pipe.send(str(error))


def _stop_when_told(pipe: Connection, stop: Callable[[], None], directory: str) -> None:
    """Stop once the process above says so, or is gone; however this one stands, it has ended END_S later."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        shutil.rmtree(directory, ignore_errors=True)  # which the one above can no longer do
    stop()
    time.sleep(END_S)
    os._exit(1)
