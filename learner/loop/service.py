"""How does the learner run as a process of its own?

It opens the log (a Kafka that is away is waited for), recovers, and goes on until a signal, the end of the log where
that was asked for, or the death of the process that started it. What ends it otherwise stands in the status, for the
API and for people.
"""

import gc
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Final

from driftline.learner.disk.lock import Lock
from driftline.learner.disk.settings import DEFAULT_MODEL, LearnerSettings
from driftline.learner.loop import swap
from driftline.learner.loop.background import in_background
from driftline.learner.loop.loop import Learner
from driftline.learner.loop.signals import Signals, StoppedAtOnceError
from driftline.learner.report.health import Health
from driftline.learner.report.starting import Start, telling
from driftline.learner.report.status import State, Status, change_status, last_status, read_status
from driftline.stream.errors import (
    DiskFull,
    DriftlineError,
    LogDenied,
    LogUnavailable,
    StateError,
    StoreDenied,
    StoreUnavailable,
)
from driftline.stream.log.base import Log
from driftline.stream.log.open import open_log
from driftline.stream.process import threads
from driftline.stream.process.flags import build_settings
from driftline.stream.process.memory import give_back_large_arrays
from driftline.stream.process.settings import StreamSettings

_LOG: Final = logging.getLogger(__name__)
LOOK_S: Final = 0.2
RETRY_S: Final = 1.0
# Records make no cycles, and the default of 700 has Python look through all of a batch several times.
GC_THRESHOLD: Final = 50_000


def learn(
    stream: StreamSettings,
    settings: LearnerSettings,
    *,
    stop_at_end: bool = False,
    on_replay: Callable[[int, int], None] | None = None,
    on_start: Callable[[Status], None] | None = None,
    on_advance: Callable[[int, int], None] | None = None,
) -> Status:
    """Learn until told to stop; return the last status.

    Parameters
    ----------
    stop_at_end : end when all that was in the log at the start is learned
    on_replay : called while it recovers, with the batches replayed so far and how many there are
    on_start : called once recovery is over
    on_advance : called between batches, with the records applied so far and how many there were at the start

    Raises
    ------
    DriftlineError : the learner cannot start or go on; the status says why.
    """
    give_back_large_arrays()
    with (
        Signals() as signals,
        in_background(),
        disk_errors_explained(stream),
        threads.saying(partial(say_last, stream)),
        ExitStack() as opened,
    ):
        lock = None if settings.take_over else opened.enter_context(closing(Lock(stream.data)))
        try:
            with signals.ending_at_once():
                log, learner = _start(stream, settings, signals, on_replay, opened, lock)
        except StoppedAtOnceError:
            return _say(stream, settings, "stopped", "before it had started", lock)
        try:
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD)
            if on_start is not None:
                on_start(learner.status("running"))
            _run(learner, log, stream, signals.stopped, stop_at_end, on_advance)
        except DiskFull as error:
            if not signals.stopped():
                learner.fail(str(error))
                raise
            _LOG.warning("%s; no checkpoint was written at the end, the journal has what came after", error)
        except (DriftlineError, OSError) as error:
            learner.fail(str(error))
            raise
        return learner.status("stopped")


def take_over(stream: StreamSettings, log: Log, on_wait: Callable[[], None] = lambda: None) -> None:
    """Return once a model that was built anew (rebuild/rebuild.py) took over: in the learner at work, else here.

    `on_wait` is called while the learner at work is waited for.

    Raises
    ------
    StateError : it was refused, and why.
    """
    check_leads(stream)
    while swap.find(stream.data) is not None:
        try:
            learner = Learner(stream, build_settings(LearnerSettings, {"model": None}), log, stands_in=True)
        except StateError:
            on_wait()
            time.sleep(LOOK_S)  # the one that has the lock will
            continue
        with closing(learner):
            learner.start()
            learner.run(lambda: True)
    if (why := swap.refusal(stream.data)) is not None:
        raise StateError(f"the new model was refused, and the one before is at work: {why}")


def check_leads(stream: StreamSettings) -> None:
    """Refuse what only the one of several learners can do that leads. Raises StateError."""
    status = read_status(stream.data)
    if status is not None and status.word == "standby":
        raise StateError(
            f"the learner of {stream.data} stands by for another one, and only the one that leads can do this; run it "
            "on that one's data directory"
        )


def carry_out(stream: StreamSettings, log: Log, request: Path, on_wait: Callable[[], None] = lambda: None) -> None:
    """Return once what was asked to be erased (rebuild/erase.py) is: by the learner at work, else by one here.

    `on_wait` is called while the learner at work is waited for.

    Raises
    ------
    TooManyDeadLetters : it lies behind records that nobody takes in before a person has looked.
    """
    check_leads(stream)
    while request.exists():
        try:
            learner = Learner(stream, build_settings(LearnerSettings, {"model": None}), log, stands_in=True)
        except StateError:
            on_wait()
            time.sleep(LOOK_S)  # the one that has the lock will
            continue
        with closing(learner):
            learner.start()
            learner.run(lambda: not request.exists() or learner.stuck is not None)  # noqa: B023  (it is this round's)
            if learner.stuck is not None:
                raise learner.stuck


def _start(
    stream: StreamSettings,
    settings: LearnerSettings,
    signals: Signals,
    on_replay: Callable[[int, int], None] | None,
    opened: ExitStack,
    lock: Lock | None,
) -> tuple[Log, Learner]:
    """Return a log and a learner that has started, closed with `opened`. A Kafka or a store that is away is waited for.

    With the lock it says from the first moment on that it starts. Without it, which is to be taken from another
    learner, that one speaks until the learner here has it. The learner comes last: with it a directory may be taken
    over, and what could fail before has to have failed by then.

    Until it has started, a signal ends it at once: nothing that is done by then could be lost. Probes are answered from
    the beginning: one that waits is alive.
    """
    learner: Learner | None = None
    said: Status | None = None  # while there is no learner

    def shown() -> Status | None:
        return learner.shown if learner is not None else said

    if settings.health_port is not None:
        opened.enter_context(closing(Health(settings.health_host, settings.health_port, shown)))
    while True:
        with ExitStack() as trying:
            try:
                with _opening_said(stream, settings, lock):
                    log = trying.enter_context(closing(open_log(stream)))
                learner = trying.enter_context(closing(Learner(stream, settings, log, signals.stopped, lock)))
                learner.start(on_replay)
                opened.push(trying.pop_all())
                return log, learner
            except StoppedAtOnceError:
                signals.heard()  # what is given back now must not be cut off
                raise
            except (DriftlineError, OSError) as error:
                if not _may_come(error, stream):
                    if learner is not None:
                        learner.fail(str(error))
                    raise
                why = str(error)
        _LOG.warning("%s; waiting for it", why)
        learner, said = None, _say(stream, settings, "waiting", why, lock)
        time.sleep(RETRY_S)


def _may_come(error: Exception, stream: StreamSettings) -> bool:
    """Tell whether it helps to wait: for a Kafka that is away, or a store of checkpoints."""
    if isinstance(error, StoreUnavailable):
        return not isinstance(error, StoreDenied)
    away = isinstance(error, LogUnavailable) and not isinstance(error, LogDenied)
    return away and stream.log_url.startswith("kafka:")


def _opening_said(stream: StreamSettings, settings: LearnerSettings, lock: Lock | None) -> AbstractContextManager[None]:
    """Say that the log is being opened, where this is the only learner. Raises StateError where it is not."""
    if lock is None:
        return nullcontext()
    status = last_status(stream.data, settings.model or DEFAULT_MODEL)
    if status.state == "waiting" and status.pid == os.getpid():
        return nullcontext()  # it is tried again, and why is said

    def tell(start: Start) -> None:
        with suppress(DiskFull):
            change_status(stream.data, status, "starting", str(start), lock.last_epoch(), start)

    return telling(tell, "opening the log", lambda: None)


def _say(stream: StreamSettings, settings: LearnerSettings, state: State, detail: str, held: Lock | None) -> Status:
    """Write and return the status of a learner that has not started: all else is what the last one said.

    Where another one has the directory, it is the one that speaks: nothing is written, nothing taken over for this.
    """
    status = last_status(stream.data, settings.model or DEFAULT_MODEL)
    try:
        with ExitStack() as stack, suppress(DiskFull):
            lock = held or stack.enter_context(closing(Lock(stream.data)))
            change_status(stream.data, status, state, detail, lock.last_epoch())
    except StateError:
        if not settings.take_over:
            raise
        status.state, status.detail = state, detail
    return status


def say_ended(stream: StreamSettings, pid: int, how: str, following: str) -> None:
    """Write down what became of a learner's process, and what follows; what it said itself of its end stays.

    Where another one has the directory, or it cannot be written, nothing is.
    """
    with suppress(StateError, OSError), closing(Lock(stream.data)) as lock:
        status = last_status(stream.data, DEFAULT_MODEL)
        why = status.detail if status.state == "failed" and status.pid == pid else f"it {how}"
        change_status(stream.data, status, "failed", f"{why}; {following}", lock.last_epoch())


def say_last(stream: StreamSettings, why: str) -> None:
    """Write down why this process ends at once, where the last status is its own."""
    status = read_status(stream.data)
    if status is not None and status.pid == os.getpid():
        change_status(stream.data, status, "failed", why, status.epoch)


@contextmanager
def disk_errors_explained(stream: StreamSettings) -> Iterator[None]:
    """Say of a disk that fails, or may not be written, what that means."""
    try:
        yield
    except OSError as error:
        said = f"{stream.data} cannot be written: {error}; what was durable before still is"
        if isinstance(error, PermissionError):
            said += f"; give user {os.geteuid()} the right to all that is in it"
        raise StateError(said) from error


def _run(
    learner: Learner,
    log: Log,
    stream: StreamSettings,
    stopped: Callable[[], bool],
    stop_at_end: bool,
    on_advance: Callable[[int, int], None] | None,
) -> None:
    marks = log.watermarks(stream.topics[:2])
    before = learner.positions
    total = sum(max(0, mark.high - before[partition]) for partition, mark in marks.items())

    def stop() -> bool:
        if on_advance is not None:
            on_advance(sum(learner.positions.values()) - sum(before.values()), total)
        return stopped()

    learner.run(stop, marks if stop_at_end else None)
