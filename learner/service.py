"""How does the learner run as a process of its own?

It opens the log (a Kafka that is away is waited for), recovers, and goes on until a signal, the end of the log where
that was asked for, or the death of the process that started it. What ends it otherwise stands in the status, for the
API and for people.
"""

import gc
import logging
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from driftline.learner import staged
from driftline.learner.background import in_background
from driftline.learner.health import Health
from driftline.learner.lock import Lock
from driftline.learner.loop import Learner
from driftline.learner.settings import DEFAULT_MODEL, LearnerSettings
from driftline.learner.status import State, Status, blank_status, change_status, read_status
from driftline.stream.errors import DiskFull, DriftlineError, LogDenied, LogUnavailable, StateError
from driftline.stream.flags import build_settings
from driftline.stream.log import Log, open_log
from driftline.stream.settings import StreamSettings

_LOG: Final = logging.getLogger(__name__)
PARENT_CHECK_S: Final = 1.0
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
    with _Signals() as signals, in_background(), _disk_errors_explained(stream), ExitStack() as opened:
        try:
            with signals.ending_at_once():
                log, learner = _start(stream, settings, signals.stopped, on_replay, opened)
        except _StoppedAtOnceError:
            return _say(stream, settings, "stopped", "before it had started")
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


def take_over(stream: StreamSettings, log: Log) -> None:
    """Return once a model that was built anew (learner/rebuild.py) took over: in the learner at work, else here.

    Raises
    ------
    StateError : it was refused, and why.
    """
    while staged.find(stream.data) is not None:
        try:
            learner = Learner(stream, build_settings(LearnerSettings, {"model": None}), log)
        except StateError:
            time.sleep(LOOK_S)  # the one that has the lock will
            continue
        with closing(learner):
            learner.start()
            learner.run(lambda: True)
    if (why := staged.refusal(stream.data)) is not None:
        raise StateError(f"the new model was refused, and the one before is at work: {why}")


def carry_out(stream: StreamSettings, log: Log, request: Path) -> None:
    """Return once what was asked to be erased (learner/erase.py) is: by the learner at work, else by one here."""
    while request.exists():
        try:
            learner = Learner(stream, build_settings(LearnerSettings, {"model": None}), log)
        except StateError:
            time.sleep(LOOK_S)  # the one that has the lock will
            continue
        with closing(learner):
            learner.start()
            learner.run(lambda: not request.exists())


def _start(
    stream: StreamSettings,
    settings: LearnerSettings,
    stopped: Callable[[], bool],
    on_replay: Callable[[int, int], None] | None,
    opened: ExitStack,
) -> tuple[Log, Learner]:
    """Return a log and a learner that has started, closed with `opened`. A Kafka that is away is waited for.

    Until it has started, a signal ends it at once: nothing that is done by then could be lost.
    """
    while True:
        with ExitStack() as trying:
            learner: Learner | None = None
            try:
                log = trying.enter_context(closing(open_log(stream)))
                learner = trying.enter_context(closing(Learner(stream, settings, log, stopped)))
                if settings.health_port is not None:
                    shown = partial(getattr, learner, "shown")
                    trying.enter_context(closing(Health(settings.health_host, settings.health_port, shown)))
                learner.start(on_replay)
                opened.push(trying.pop_all())
                return log, learner
            except (DriftlineError, OSError) as error:
                waits = isinstance(error, LogUnavailable) and not isinstance(error, LogDenied)
                if not waits or not stream.log_url.startswith("kafka:"):
                    if learner is not None:
                        learner.fail(str(error))
                    raise
                why = str(error)
        _LOG.warning("%s; waiting for it", why)
        _say(stream, settings, "waiting", why)
        time.sleep(RETRY_S)


def _say(stream: StreamSettings, settings: LearnerSettings, state: State, detail: str) -> Status:
    """Write and return the status of a learner that has not started: all else is what the last one said."""
    with closing(Lock(stream.data, take_over=settings.take_over)) as lock:
        status = read_status(stream.data) or blank_status(settings.model or DEFAULT_MODEL)
        with suppress(DiskFull):
            change_status(stream.data, status, state, detail, lock.last_epoch())
        return status


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


class _StoppedAtOnceError(BaseException):
    """A signal came before the learner had started."""


class _Signals:
    """Notes SIGTERM and SIGINT, and the end of the parent process. A context; in the main thread."""

    def __enter__(self) -> "_Signals":
        self._came = self._at_once = False
        self._parent, self._next_look = multiprocessing.parent_process(), 0.0
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self._came = True
        if self._at_once:
            self._at_once = False  # what is given back then must not be cut off
            raise _StoppedAtOnceError

    @contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """Raise _StoppedAtOnceError where a signal comes, whatever is waited for."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def stopped(self) -> bool:
        """Tell whether a signal came, or the parent process is gone."""
        if self._parent is not None and (now := time.monotonic()) >= self._next_look:
            self._next_look = now + PARENT_CHECK_S
            if not self._parent.is_alive():
                _LOG.warning("the process that started this learner is gone; stopping")
                self._came = True
        return self._came
