"""When may a signal raise, and when is it heard?

A handler may raise between any two steps of Python. Inside numba's compiler it must not: LLVM calls back into Python
there, and what is raised in such a call is printed and lost, and what was being compiled with it; that has ended
processes (SIGSEGV). So there it waits for the next of the compiler's passes, which are ordinary calls.

A process that is started hears the signals of its terminal before it can say what becomes of them. So they are held
back where it is started, and it ignores them first of all.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

from driftline.stream.process import threads

AGAIN_S: Final = 0.2
ENDED: Final = 128  # and the signal's number: the exit code, as shells say it
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_COMPILER: Final = {"numba", "llvmlite"}


class Interrupts:
    """Raises an error for a signal, as soon as it may be raised. In the main thread."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error
        self._listener: Any = None  # there while it is still to be raised

    def note(self, frame: FrameType | None) -> None:
        """Raise it, or see to it that the compiler does before its next pass; call again where none may come."""
        if not _is_compiling(frame):
            self._raise()
        if self._listener is None:
            self._wait_for_pass()

    def _raise(self) -> None:
        self.forget()
        raise self._error

    def _wait_for_pass(self) -> None:
        from numba.core import event  # noqa: PLC0415  (it is loaded: it compiles)

        class Listener(event.Listener):
            def on_start(_, __: Any) -> None:  # noqa: N805  (the one outside is `self`)
                if threading.current_thread() is threading.main_thread():
                    self._raise()

            def on_end(_, __: Any) -> None:  # noqa: N805
                pass

        self._listener = Listener()
        event.register("numba:run_pass", self._listener)  # type: ignore[no-untyped-call]

    @property
    def waits(self) -> bool:
        """Tell whether it is still to be raised."""
        return self._listener is not None

    def forget(self) -> None:
        """Raise no more."""
        if self._listener is not None:
            from numba.core import event  # noqa: PLC0415

            listener, self._listener = self._listener, None
            with suppress(ValueError):
                event.unregister("numba:run_pass", listener)  # type: ignore[no-untyped-call]


@contextmanager
def ctrl_c_heard() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt where it may be raised, if it is for Python to hear. In the main thread."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    interrupts = Interrupts(KeyboardInterrupt)
    over = threading.Event()

    def repeat() -> None:
        while interrupts.waits and not over.wait(AGAIN_S):
            if interrupts.waits:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def note(_: int, frame: FrameType | None) -> None:
        waited = interrupts.waits
        interrupts.note(frame)
        if not waited:
            threads.start("ctrl-c", repeat)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        over.set()
        interrupts.forget()
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back from this thread and from a process that is started in the block, until it has `ignored` them.

    This process hears them, if not through another thread, at the end of the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignored() -> None:
    """Ignore the signals that were `held_back`, and those to come. In the main thread."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def setting(stop: threading.Event) -> Iterator[None]:
    """Have the signals set an event, and a second Ctrl-C raise KeyboardInterrupt, for who does not want to wait."""

    def note(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with handled(note):
        yield


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Have the signals call a handler. In the main thread; in another one nothing is heard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


def end_as_first_process() -> None:
    """Let SIGTERM end this process from its first moment on, in a container too.

    Linux keeps from the first process of a container what it has no handler for, so it would wait for SIGKILL.
    """
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(ENDED + number))


def _is_compiling(frame: FrameType | None) -> bool:
    """Tell whether numba's compiler is at work in this thread."""
    if "numba" not in sys.modules:
        return False
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _COMPILER:
            return True
        frame = frame.f_back
    return False
