"""How does one of several learners run as a process of its own? `driftline learn --journal log`"""

import gc
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Final

from driftline.learner.cluster.member import Member
from driftline.learner.disk.lock import Lock
from driftline.learner.disk.settings import DEFAULT_MODEL, LearnerSettings
from driftline.learner.loop.background import in_background
from driftline.learner.loop.compiling import compile_all
from driftline.learner.loop.service import GC_THRESHOLD, RETRY_S, disk_errors_explained, say_last
from driftline.learner.loop.signals import Signals, StoppedAtOnceError
from driftline.learner.report.health import Health
from driftline.learner.report.status import State, Status, change_status, last_status
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.errors import ConfigError, DiskFull, DriftlineError, LogDenied, LogUnavailable
from driftline.stream.log.kafka.election import Election
from driftline.stream.log.open import open_journal, open_log
from driftline.stream.process import threads
from driftline.stream.process.memory import give_back_large_arrays
from driftline.stream.process.settings import StreamSettings

_LOG: Final = logging.getLogger(__name__)


def learn(
    stream: StreamSettings,
    settings: LearnerSettings,
    *,
    stop_at_end: bool = False,
    on_lead: Callable[[Status], None] = lambda _: None,
) -> Status:
    """Stand by and lead until told to stop; return the last status.

    Parameters
    ----------
    stop_at_end : end when this one leads and all that was in the log at the start is learned
    on_lead : called each time that this learner begins to lead

    Raises
    ------
    DriftlineError : it cannot start or go on; the status says why.
    """
    if stream.checkpoints is None:
        raise ConfigError("checkpoints: with --journal log a store has to be named that all learners share")
    store = CheckpointStore(stream.checkpoints)
    give_back_large_arrays()
    with (
        Signals() as signals,
        in_background(),
        disk_errors_explained(stream),
        threads.saying(partial(say_last, stream)),
        ExitStack() as opened,
    ):
        lock = opened.enter_context(closing(Lock(stream.data)))
        said = _Said(stream, settings, lock)
        if settings.health_port is not None:
            opened.enter_context(closing(Health(settings.health_host, settings.health_port, said.now)))
        try:
            with signals.ending_at_once():
                compile_all(settings.model, stream, lock, said.show)
                member = _open(stream, settings, store, lock, signals.stopped, on_lead, said, opened)
        except StoppedAtOnceError:
            return said.say("stopped", "before it had started")
        said.by = member
        opened.enter_context(closing(member))
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        try:
            member.run(stop_at_end=stop_at_end)
        except (DriftlineError, OSError) as error:
            said.say("failed", str(error))
            raise
        return said.say("stopped", "")


def _open(
    stream: StreamSettings,
    settings: LearnerSettings,
    store: CheckpointStore,
    lock: Lock,
    stopped: Callable[[], bool],
    on_lead: Callable[[Status], None],
    said: "_Said",
    opened: ExitStack,
) -> Member:
    """Return a member of the cluster, closed with `opened`. A Kafka that is away is waited for."""
    while True:
        with ExitStack() as trying:
            try:
                journal_log = trying.enter_context(closing(open_journal(stream)))
                log = trying.enter_context(closing(open_log(stream)))
                journal_log.create_topics([stream.journal_name], "entries")
                group = f"{settings.group}.{stream.journal_name}"
                election = Election(stream, stream.journal_name, group, settings.session_s)
                trying.enter_context(closing(election))
                opened.push(trying.pop_all())
                return Member(stream, settings, log, journal_log, store, election, lock, stopped, on_lead)
            except LogUnavailable as error:
                if isinstance(error, LogDenied):
                    raise
                why = str(error)
        _LOG.warning("%s; waiting for it", why)
        said.say("waiting", why)
        time.sleep(RETRY_S)


class _Said:
    """The last status, whoever says it."""

    def __init__(self, stream: StreamSettings, settings: LearnerSettings, lock: Lock) -> None:
        self._data, self._lock = stream.data, lock
        self._status = last_status(stream.data, settings.model or DEFAULT_MODEL)
        self.by: Member | None = None
        self.say("starting", "")

    def show(self, status: Status) -> None:
        """Take a status that was written elsewhere for the last one."""
        self._status = status

    def now(self) -> Status:
        """Return the last one. Any thread."""
        return self.by.shown if self.by is not None else self._status

    def say(self, state: State, detail: str) -> Status:
        """Write and return a status of which nothing changes but the state."""
        self._status, lock = self.now(), self.by.lock if self.by is not None else self._lock
        with suppress(DiskFull):
            change_status(self._data, self._status, state, detail, lock.last_epoch())
        return self._status
