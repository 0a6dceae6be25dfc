"""How does a learner's process hear that it is to end?

By SIGTERM, SIGINT, or the end of the process that started it. Until a learner has started, a signal ends it at once;
from then on it is asked between two batches.
"""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Final

from driftline.stream.process import interrupts, threads

_LOG: Final = logging.getLogger(__name__)


class StoppedAtOnceError(BaseException):
    """A signal came before the learner had started."""


def _except_stopping(tell: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return what is told of errors that went no further, but for that one."""

    def tell_others(caught: Any) -> None:
        if not issubclass(caught.exc_type, StoppedAtOnceError):
            tell(caught)

    return tell_others


class Signals:
    """Notes SIGTERM and SIGINT, and the end of the parent process. A context; in the main thread."""

    def __enter__(self) -> "Signals":
        self._came = self._at_once = False
        self._interrupts = interrupts.Interrupts(StoppedAtOnceError)
        self._over = threading.Event()
        if (parent := multiprocessing.parent_process()) is not None:
            threads.start("parent", partial(self._end_with, parent.sentinel))
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _: int, frame: FrameType | None) -> None:
        self._came = True
        if self._at_once:
            self._interrupts.note(frame)

    @contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """Raise StoppedAtOnceError where a signal comes, whatever is waited for, until it is `heard`.

        Where a library has just called back into Python, what is raised there goes no further, and is nothing to tell
        of. So it is raised again. What the library then fails of is no error.
        """
        self._at_once = True
        tell, sys.unraisablehook = sys.unraisablehook, _except_stopping(sys.unraisablehook)
        over = threading.Event()
        repeating = threads.start("signals", lambda: self._repeat(over))
        try:
            yield
        except Exception:
            if self._came:
                raise StoppedAtOnceError from None
            raise
        finally:
            self.heard()
            over.set()
            repeating.join()
            sys.unraisablehook = tell

    def heard(self) -> None:
        """Raise no more."""
        self._at_once = False
        self._interrupts.forget()

    def _repeat(self, over: threading.Event) -> None:
        while not over.wait(interrupts.AGAIN_S):
            if self._came and self._at_once:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def stopped(self) -> bool:
        """Tell whether a signal came, or the parent process is gone."""
        return self._came

    def _end_with(self, parent: int) -> None:
        """Take the end of the parent process for a signal, whatever this one waits for."""
        multiprocessing.connection.wait([parent])
        if not self._over.is_set():
            _LOG.warning("the process that started this learner is gone; stopping")
            os.kill(os.getpid(), signal.SIGTERM)
