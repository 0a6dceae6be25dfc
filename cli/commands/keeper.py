"""How does the process beside an API come back when it ends? The learner of `up`, the follower of `serve --follow`.

The API goes on meanwhile. A thread watches the process:

    1. what ends a learner with an error of its own before it was at work once ends everything: it never could work like
       this
    2. what ends it later, and whatever kills it, is said in the status, which the API, its page and `driftline status`
       show, and in the log; after a pause, which grows where that goes on, another process is started
    3. where another one has taken the data directory over none is started: the API answers from what that one
       publishes
    4. `end` has it stop, and waits until it has
"""

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from driftline.stream.errors import Overtaken, StateError
from driftline.stream.process import interrupts, threads
from driftline.stream.process.pauses import Pauses
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import ended

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from driftline.learner.report.status import Status

FIRST_WORD_S: Final = 60.0
LONG_S: Final = 2.0  # to load kernels that are compiled takes less
WELL_S: Final = 60.0  # at work for so long, it is well
LOOK_S: Final = 0.2
WELL: Final = frozenset({"running", "following"})
_LOG: Final = logging.getLogger(__name__)


class Child(NamedTuple):
    """A process that is kept at work."""

    name: str  # what people call it
    run: Callable[..., None]
    first: tuple[Any, ...]  # what it is called with
    again: tuple[Any, ...]  # what each one after the first is called with
    needed: bool  # whether everything ends where the first one never could work


class Keeper:
    """Keeps a process at work. `start` and `end` once.

    Parameters
    ----------
    stopping : set where everything is to end, so that one that ends then is not started again

    Attributes
    ----------
    over : set once none is started any more because the first one never worked, or it is time to stop
    """

    def __init__(self, stream: StreamSettings, child: Child, stopping: threading.Event) -> None:
        self._stream, self._child, self._stopping = stream, child, stopping
        self.over = threading.Event()
        self._process: SpawnProcess | None = None
        self._thread: threading.Thread | None = None
        self._worked, self._exit_code = False, 0
        self._pauses = Pauses()

    def start(self) -> None:
        """Start the first one."""
        self._begin(self._child.first)
        self._thread = threads.start("keeper", self._watch)

    def end(self) -> int:
        """Stop it; return the exit code of one that did not end as it should, else 0."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        process = self._process
        if process is None or not process.is_alive():
            return self._exit_code
        while process.is_alive():  # again: it hears signals only once it has begun, and until it has ended
            process.terminate()
            process.join(1.0)
        return process.exitcode or 0

    def first_word(self, is_enough: Callable[["Status"], bool]) -> tuple[bool, "Status | None"]:
        """Wait for what a learner says of itself first, or first that is enough; return whether one may still come to
        work, and that.
        """
        from driftline.learner.report.status import read_status

        deadline = time.monotonic() + FIRST_WORD_S
        while True:
            with suppress(StateError):  # an older version's
                status = read_status(self._stream.data)
                if status is not None and self._is_of_process(status) and is_enough(status):
                    return True, status
            if self.over.wait(0.05) or self._stopping.is_set():
                return False, None
            if time.monotonic() > deadline:
                return True, None

    def _begin(self, arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=self._child.run, args=arguments, name=f"driftline-{self._child.name}")
        resource_tracker.ensure_running()  # which lets signals through once it has started
        with interrupts.held_back():
            self._process.start()

    def _begin_again(self) -> bool:
        """Start another one; tell whether the system let that be done."""
        try:
            self._begin(self._child.again)
        except OSError as error:
            _LOG.error("the %s cannot be started again just now: %s", self._child.name, error)
            return False
        return True

    def _watch(self) -> None:
        try:
            while (exit_code := self._wait_for_its_end()) is not None:
                if exit_code == Overtaken.exit_code:
                    _LOG.warning(
                        "another %s has taken over %s; this one is not started again",
                        *(self._child.name, self._stream.data),
                    )
                    return
                if exit_code > 0 and not self._worked and self._child.needed:  # 1
                    self._exit_code = exit_code
                    return
                pause_s = self._pauses.take()
                if exit_code == 0 and self._stopping.wait(pause_s):  # somebody told both of them to stop
                    return
                how = "was told to stop" if exit_code == 0 else ended(exit_code)
                self._say(how, pause_s)  # 2
                if exit_code != 0 and self._stopping.wait(pause_s):
                    return
                while not self._begin_again():
                    if self._stopping.wait(self._pauses.take()):
                        return
        finally:
            if self._exit_code or self._stopping.is_set():
                self.over.set()

    def _wait_for_its_end(self) -> int | None:
        """Return how it ended; None where it is time to stop. Notes meanwhile how it is."""
        assert self._process is not None
        look_at = time.monotonic() + WELL_S
        while not self._stopping.is_set():
            if wait([self._process.sentinel], LOOK_S):
                self._process.join()
                return self._process.exitcode
            if not self._worked:
                self._worked = self._is_at_work(is_past_first_checks)
            elif time.monotonic() > look_at:
                look_at += WELL_S
                if self._is_at_work(lambda status: status.alive and status.state in WELL):
                    self._pauses.well()
        return None

    def _is_at_work(self, is_enough: Callable[["Status"], bool]) -> bool:
        from driftline.learner.report.status import read_status

        with suppress(StateError, OSError):
            status = read_status(self._stream.data)
            return status is not None and self._is_of_process(status) and is_enough(status)
        return False

    def _is_of_process(self, status: "Status") -> bool:
        return self._process is not None and status.pid == self._process.pid

    def _say(self, how: str, pause_s: float) -> None:
        from driftline.learner.loop.service import say_ended

        assert self._process is not None
        following = f"it is started again {pause_s:g} s later"
        _LOG.error("the %s %s; %s, and predictions are answered meanwhile", self._child.name, how, following)
        say_ended(self._stream, self._process.pid or 0, how, following)


def is_past_first_checks(status: "Status") -> bool:
    """Tell whether it has found the log, or waits for it, and a model; what takes no longer is waited for."""
    if status.state == "starting" and status.start is not None:
        return time.time() - status.start.since > LONG_S and status.start.doing == "compiling"
    return status.state not in {"failed", "stopped"}
