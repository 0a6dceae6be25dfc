"""What becomes of a thread that an error ends?

Others wait for what it does: a process that goes on without it hangs, and nobody sees why. So each thread of ours keeps
its own errors, and goes on; where one escapes all the same, the whole process ends with exit code 1 and says why. That
loses nothing: what is acknowledged is durable before that, and whatever watches the process starts it again.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

EXIT_CODE: Final = 1
LOOK_S: Final = 0.2
_LOG: Final = logging.getLogger(__name__)
_T = TypeVar("_T")
_last_words: list[Callable[[str], object]] = []


def start(name: str, run: Callable[[], object]) -> threading.Thread:
    """Run something in a thread, which ends with the process; return the thread."""
    thread = make(name, run)
    thread.start()
    return thread


def make(name: str, run: Callable[[], object]) -> threading.Thread:
    """Return such a thread that is yet to be started."""

    def guarded() -> None:
        try:
            run()
        except BaseException as error:
            _end_process(name, error)

    return threading.Thread(target=guarded, name=name, daemon=True)


def heard(name: str, run: Callable[[], _T]) -> _T:
    """Return what something gives that may wait long in a library, which hears of no signal: so it runs in a thread.

    What it raises is raised here. Where a signal ends the waiting, the thread is left, and ends with the process.
    """
    outcome: Future[_T] = Future()

    def fulfil() -> None:
        try:
            outcome.set_result(run())
        except BaseException as error:
            outcome.set_exception(error)

    start(name, fulfil)
    while not outcome.done():
        wait([outcome], LOOK_S)
    return outcome.result()


@contextmanager
def saying(last_words: Callable[[str], object]) -> Iterator[None]:
    """Have this called with the reason where a thread ends the process meanwhile; in that thread."""
    _last_words.append(last_words)
    try:
        yield
    finally:
        _last_words.remove(last_words)


def _end_process(name: str, error: BaseException) -> None:
    why = f"thread {name} has ended by {error!r}, and nothing goes on without it"
    with suppress(Exception):
        _LOG.critical("%s; this process ends, start it again", why, exc_info=error)
    for say in list(_last_words):
        with suppress(Exception):
            say(why)
    os._exit(EXIT_CODE)
