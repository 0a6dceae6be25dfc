"""How does the learner run as a process of its own?

It opens the log, recovers, and goes on until a signal, the end of the log where that was asked for, or the death of the
process that started it. What ends it otherwise stands in the status, for the API and for people.
"""

import gc
import logging
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final, NamedTuple

from learner.health import Health
from learner.loop import Learner
from learner.settings import LearnerSettings
from learner.status import Status
from stream.errors import DriftlineError, StateError
from stream.log import Log, open_log
from stream.settings import StreamSettings

_LOG: Final = logging.getLogger(__name__)
PARENT_CHECK_S: Final = 1.0
# Records make no cycles, and the default of 700 has Python look through all of a batch several times.
GC_THRESHOLD: Final = 50_000


class Advance(NamedTuple):
    """How far a learner is: records applied, and how many there were to apply when it started."""

    done: int
    total: int


def learn(
    stream: StreamSettings,
    settings: LearnerSettings,
    *,
    stop_at_end: bool = False,
    on_replay: Callable[[int, int], None] | None = None,
    on_start: Callable[[Status], None] | None = None,
    on_advance: Callable[[Advance], None] | None = None,
) -> Status:
    """Learn until told to stop; return the last status.

    Parameters
    ----------
    stop_at_end : end when all that was in the log at the start is learned
    on_replay : called while it recovers, with the batches replayed so far and how many there are
    on_start : called once recovery is over
    on_advance : called between batches

    Raises
    ------
    DriftlineError : the learner cannot start or go on; the status says why.
    """
    with _stop_signals() as stopped, closing(open_log(stream)) as log, _disk_errors_explained(stream):
        learner = Learner(stream, settings, log, stopped)
        health = None
        try:
            if settings.health_port is not None:
                health = Health(settings.health_host, settings.health_port, lambda: learner.shown)
            learner.start(on_replay)
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD)
            if on_start is not None:
                on_start(learner.status("running"))
            _run(learner, log, stream, stopped, stop_at_end, on_advance)
        except (DriftlineError, OSError) as error:
            learner.fail(str(error))
            raise
        finally:
            learner.close()
            if health is not None:
                health.close()
        return learner.status("stopped")


@contextmanager
def _disk_errors_explained(stream: StreamSettings) -> Iterator[None]:
    """Say of a disk that fails, or may not be written, what that means."""
    try:
        yield
    except OSError as error:
        raise StateError(f"{stream.data} cannot be written: {error}; what was durable before still is") from error


def _run(
    learner: Learner,
    log: Log,
    stream: StreamSettings,
    stopped: Callable[[], bool],
    stop_at_end: bool,
    on_advance: Callable[[Advance], None] | None,
) -> None:
    marks = log.watermarks(stream.topics[:2])
    before = learner.positions
    total = sum(max(0, mark.high - before[partition]) for partition, mark in marks.items())

    def stop() -> bool:
        if on_advance is not None:
            on_advance(Advance(sum(learner.positions.values()) - sum(before.values()), total))
        return stopped()

    learner.run(stop, marks if stop_at_end else None)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Tell whether SIGTERM or SIGINT came, or the parent process is gone."""
    came: list[int] = []
    handlers = {
        name: signal.signal(name, lambda number, _: came.append(number)) for name in (signal.SIGTERM, signal.SIGINT)
    }
    parent, next_look = multiprocessing.parent_process(), 0.0

    def stopped() -> bool:
        nonlocal next_look
        if parent is not None and (now := time.monotonic()) >= next_look:
            next_look = now + PARENT_CHECK_S
            if not parent.is_alive():
                _LOG.warning("the process that started this learner is gone; stopping")
                came.append(0)
        return bool(came)

    try:
        yield stopped
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
