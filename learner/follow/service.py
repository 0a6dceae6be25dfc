"""How does a follower run as a process of its own? In `driftline serve --follow`, beside the API."""

import gc
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Final

from driftline.learner.disk.lock import Lock
from driftline.learner.disk.settings import DEFAULT_MODEL
from driftline.learner.follow.follower import Follower
from driftline.learner.loop.background import in_background
from driftline.learner.loop.service import GC_THRESHOLD, RETRY_S, disk_errors_explained, say_last
from driftline.learner.loop.signals import Signals, StoppedAtOnceError
from driftline.learner.report.starting import Start, telling
from driftline.learner.report.status import Status, change_status, last_status
from driftline.learner.serving import double_buffer
from driftline.learner.serving.snapshot import epoch_of, list_snapshots
from driftline.learner.shared.followed import Followed
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.errors import ConfigError, DiskFull, DriftlineError, LogUnavailable
from driftline.stream.log.base import Log
from driftline.stream.log.open import open_journal
from driftline.stream.process import threads
from driftline.stream.process.memory import give_back_large_arrays
from driftline.stream.process.settings import StreamSettings

_LOG: Final = logging.getLogger(__name__)


def check_options(stream: StreamSettings) -> CheckpointStore:
    """Return the store of checkpoints. Raises ConfigError where nobody could follow with these options."""
    if not stream.log_url.startswith("kafka:"):
        raise ConfigError(
            f"follow: a log is needed that several machines share: --log kafka://host:9092, not {stream.log_shown}"
        )
    if stream.checkpoints is None:
        raise ConfigError("follow: name the store that the learners put their checkpoints into: --checkpoints")
    return CheckpointStore(stream.checkpoints)


def follow(stream: StreamSettings, interval_s: float) -> Status:
    """Follow until told to stop; return the last status.

    Parameters
    ----------
    interval_s : between two versions that are published, at least

    Raises
    ------
    DriftlineError : it cannot start or go on; the status says why.
    """
    store = check_options(stream)
    give_back_large_arrays()
    with (
        Signals() as signals,
        in_background(),
        disk_errors_explained(stream),
        threads.saying(partial(say_last, stream)),
        ExitStack() as opened,
    ):
        lock = opened.enter_context(closing(Lock(stream.data)))
        status = last_status(stream.data, DEFAULT_MODEL)
        try:
            with signals.ending_at_once():
                announce(stream, lock, status)
                _compile(stream, lock, status)
                log, beside = _open(stream, lock, status, opened)
        except StoppedAtOnceError:
            change_status(stream.data, status, "stopped", "stopped before it had started", lock.last_epoch())
            return status
        follower = Follower(stream, log, store, lock, interval_s, signals.stopped, beside)
        opened.enter_context(closing(follower))
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        try:
            follower.run()
        except (DriftlineError, OSError) as error:
            if not (isinstance(error, DiskFull) and signals.stopped()):
                with suppress(OSError, DriftlineError):
                    lock.check()
                    change_status(stream.data, follower.shown, "failed", str(error), lock.last_epoch())
                raise
        change_status(stream.data, follower.shown, "stopped", "", lock.last_epoch())
        return follower.shown


def announce(stream: StreamSettings, lock: Lock, status: Status) -> None:
    """Have what is published here from now on be newer than all that was."""
    published = max((epoch_of(path.name) for path in list_snapshots(stream.data / "snapshots")), default=0)
    lock.announce(1 + max(lock.last, published, status.epoch))


def _compile(stream: StreamSettings, lock: Lock, status: Status) -> None:
    """Compile what is needed whatever the model; a model's own kernels are compiled once it is known."""
    with telling(_teller(stream, lock, status), "compiling", lambda: None):
        double_buffer.warm_up()


def _open(stream: StreamSettings, lock: Lock, status: Status, opened: ExitStack) -> tuple[Log, Followed]:
    """Return the log, and what comes from the leader beside its model, closed with `opened`. A Kafka that is away is
    waited for.
    """
    while True:
        with ExitStack() as trying:
            try:
                with telling(_teller(stream, lock, status), "opening the log", lambda: None):
                    log = trying.enter_context(closing(open_journal(stream)))
                    beside = trying.enter_context(closing(Followed(log, stream)))
                opened.push(trying.pop_all())
                return log, beside
            except LogUnavailable as error:
                why = str(error)
        _LOG.warning("%s; waiting for it", why)
        with suppress(DiskFull):
            change_status(stream.data, status, "waiting", why, lock.last_epoch())
        time.sleep(RETRY_S)


def _teller(stream: StreamSettings, lock: Lock, status: Status) -> Callable[[Start], None]:
    def tell(start: Start) -> None:
        with suppress(DiskFull):
            change_status(stream.data, status, "starting", str(start), lock.last_epoch(), start)

    return tell
