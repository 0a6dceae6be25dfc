"""What does one of several learners do?

It follows the journal (standby.py) and takes part in the choice of a leader (election.py). Once it is chosen it claims
the lead in the journal, and learns as a learner alone does (loop/loop.py), but that each batch is in the journal before
anything of it is seen. Where another one's claim comes it follows again. What it says of itself is in its own status.

    begin     the newest checkpoint that belongs to the journal: base.py. Where there is none, the one that is chosen
              makes a first one, and puts it into the store before anything else
    follow    until chosen
    lead      until another one does, or it is told to end; every so often a checkpoint goes into the store, and what
              the journal has before the oldest one there is trimmed

What people see of the leader, and what they choose, is the same on all machines: shared/.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from driftline.learner.cluster import base
from driftline.learner.cluster.base import Place
from driftline.learner.cluster.entries import HandOver
from driftline.learner.cluster.log_journal import LogJournal
from driftline.learner.cluster.order import Order
from driftline.learner.cluster.standby import Standby
from driftline.learner.disk.checkpoint import by_topic
from driftline.learner.disk.lock import Lock
from driftline.learner.disk.positions import Stock
from driftline.learner.disk.settings import DEFAULT_MODEL, LearnerSettings, Rules
from driftline.learner.loop import recovery
from driftline.learner.loop.loop import Learner
from driftline.learner.machine.restore import marks
from driftline.learner.report.status import State, Status, change_status, last_status
from driftline.learner.shared.beside import Beside
from driftline.learner.state.state import LearnerState
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.errors import (
    BeginAnew,
    DiskFull,
    DriftlineError,
    LogDenied,
    LogUnavailable,
    OffsetsLost,
    Overtaken,
    StoreError,
    StoreUnavailable,
    TopicMismatch,
)
from driftline.stream.log.base import Log, TopicPartition, Watermarks
from driftline.stream.log.kafka.election import Election
from driftline.stream.process.settings import StreamSettings

TURN_S: Final = 0.05
SAY_S: Final = 0.5
RETRY_S: Final = 1.0
HAND_OVER_S: Final = 10.0  # so long who was asked to hand over does not want the lead back
_LOG: Final = logging.getLogger(__name__)


class Member:
    """One of several learners. One thread.

    Parameters
    ----------
    log, journal_log : the records; the journal, which is another connection to the same
    store : of checkpoints
    election : who is chosen
    lock : on the data directory
    stopped : whether it is time to end
    on_lead : called with the status each time that it begins to lead

    Attributes
    ----------
    lock : on the data directory: the one that it was given, or another where that was deleted
    standby : with which it follows the journal, or followed it last
    shown : the last status, for any thread
    """

    def __init__(
        self,
        stream: StreamSettings,
        settings: LearnerSettings,
        log: Log,
        journal_log: Log,
        store: CheckpointStore,
        election: Election,
        lock: Lock,
        stopped: Callable[[], bool],
        on_lead: Callable[[Status], None] = lambda _: None,
    ) -> None:
        self._stream, self._settings, self._log, self._journal_log = stream, settings, log, journal_log
        self._store, self._election, self.lock = store, election, lock
        self._told_to_stop, self._asked = stopped, settings
        self._on_lead = on_lead
        self._root = stream.data / "checkpoints"
        self.holder = f"{socket.gethostname()[:100]}-{os.getpid()}-{uuid4().hex[:8]}"
        self._learner: Learner | None = None
        self._beside: Beside | None = None
        self._status = last_status(stream.data, settings.model or DEFAULT_MODEL)
        self._next = 0.0
        self._wants_it = settings.take_over
        self._until: Mapping[TopicPartition, Watermarks] | None = None
        self.standby: Standby | None = None
        self._over = False  # all that there was to do is done

    @property
    def shown(self) -> Status:
        """The last status."""
        learner = self._learner
        return (learner.shown if learner is not None else None) or self._status

    def close(self) -> None:
        """Give the data directory back."""
        self.lock.close()

    def run(self, *, stop_at_end: bool = False) -> None:
        """Follow and lead until it is time to end, or, leading, until all is learned that the log has now.

        Raises
        ------
        DriftlineError : it cannot go on, and why.
        """
        try:
            while not self._stopped() and not self._make_topics(stop_at_end=stop_at_end):
                self._rest(RETRY_S)
            self._go_on()
        finally:
            if self._beside is not None:
                self._beside.close()

    def _make_topics(self, *, stop_at_end: bool) -> bool:
        """Have the topics be there; tell whether they are. A Kafka that is away is waited for, one that refuses not."""
        try:
            self._journal_log.create_topics([self._stream.journal_name], "entries")
            self._log.create_topics(self._stream.topics)
            known = recovery.describe(self._log, self._stream.topics[:2]) if stop_at_end else {}
            self._until = marks(known) if stop_at_end else None
        except LogUnavailable as error:
            if isinstance(error, LogDenied):
                raise
            _LOG.warning("%s; trying again", error)
            self._say("waiting", str(error))
            return False
        return True

    def _go_on(self) -> None:
        while not self._stopped():
            try:
                if self._beside is None:
                    self._beside = Beside(self._journal_log, self._stream)
                self._take_part()
            except (Overtaken, OSError) as error:
                self._election.rejoin()
                if not self._has_its_directory():
                    self.lock = self._locked_again()
                elif isinstance(error, OSError):
                    raise
                else:
                    _LOG.warning("%s; following", error)
            except (BeginAnew, OffsetsLost, TopicMismatch, LogUnavailable, StoreError) as error:
                self._begin_anew(error)

    def _begin_anew(self, error: DriftlineError) -> None:
        """Say why what is in memory leads no further, and rest: what is missing may be there soon."""
        if self._stopped():
            return
        _LOG.warning("%s; going on from the newest checkpoint", error)
        with suppress(Overtaken):  # whose directory was deleted finds that out next
            self._say("waiting", str(error))
        self._rest(RETRY_S)

    def _has_its_directory(self) -> bool:
        try:
            self.lock.check()
        except Overtaken:
            return False
        return True

    def _locked_again(self) -> Lock:
        """Make the data directory anew, which somebody has deleted. Raises StateError where another learner has it."""
        _LOG.error("%s was deleted, or taken; making it anew", self._stream.data)
        self.lock.close()
        if self._beside is not None:
            self._beside.close()
            self._beside = None
        return Lock(self._stream.data)

    def _take_part(self) -> None:
        place = self._place()
        found = base.find(self._root, self._store, place)
        recovery.check_model(found, self._stream, self._settings)
        if found is None:
            self._begin(place)
            return
        self._settings = self._settings.model_copy(update={"model": None})  # it may be built anew by another one
        recovery.check_topics(found, self._stream)
        assert found.manifest.journal is not None, "it belongs to the journal"
        order = Order(found.manifest.epoch, found.manifest.batch, found.manifest.journal.offset)
        with closing(self._journal(order)) as journal:
            standby = Standby(found, journal, self._log, self._stream, self._settings, self._on_wait)
            self.standby = standby
            with closing(standby):
                if not self._follow(standby, journal):
                    return
                stock = standby.lead(self._rules(), recovery.new_lineage())
                self._lead(standby.work, journal, lambda learner: learner.lead(standby.work, stock, at_once=False))

    def _place(self) -> Place:
        topic = self._stream.journal_name
        state = recovery.describe(self._journal_log, [topic])[topic]
        return Place(state.identity, state.watermarks[0].low)

    def _journal(self, order: Order) -> LogJournal:
        stream = self._stream
        return LogJournal(
            self._journal_log, stream.journal_name, stream.topics, order, self.holder, self._upload, self._wait_for
        )

    def _follow(self, standby: Standby, journal: LogJournal) -> bool:
        """Follow until it is chosen; tell whether it is."""
        caught_up = False
        while not self._stopped():
            standby.turn(TURN_S)
            asked = journal.take_asked()
            if caught_up:
                self._say("standby", "ready to lead", standby.work)
            else:
                self._say("recovering", f"at batch {standby.work.batch}", standby.work)
            if not caught_up:
                caught_up = journal.at_end
                if caught_up:
                    _LOG.info("ready to lead, at batch %d", standby.work.batch)
                continue
            if asked is not None:
                self._make_way(asked)
            self._ask_for_it(journal)
            if self._election.chosen:
                return True
        return False

    def _begin(self, place: Place) -> None:
        """Wait for a checkpoint that belongs to the journal; where this one is chosen, make the first."""
        if not self._election.wait(TURN_S):
            self._say("standby", "waiting for the first checkpoint in the store")
            self._rest(RETRY_S)
            return
        with closing(self._journal(Order(0, 0, place.low))) as journal:
            found = base.to_begin_with(self._root, self._store)
            recovery.check_model(found, self._stream, self._settings)
            lineage = recovery.new_lineage()
            while not journal.at_end:  # a claim before may be of one that was killed here
                journal.read(TURN_S)
            journal.claim(self._rules(), lineage, lambda _: None)
            if base.find(self._root, self._store, place) is not None:  # another one has begun just before
                raise BeginAnew("there is a first checkpoint now")
            if found is None:
                work = recovery.begin(self._log, self._stream, self._asked)
                stock = Stock([], work.positions, [], {})
            else:
                recovery.check_topics(found, self._stream)
                work, stock, _ = recovery.restored(found, [], self._log, self._stream, self._settings)
                work.batch += 1
            work.machine.renew(lineage)
            work.obey(self._rules())
            journal.order.batch = work.batch
            work.outbox.send(work.batch, {})
            self._lead(work, journal, lambda learner: learner.lead(work, stock, at_once=True))

    def _lead(self, work: LearnerState, journal: LogJournal, begin: Callable[[Learner], None]) -> None:
        """Learn until another one leads, or it is time to end."""
        assert self._beside is not None, "it is there before anything is followed"
        self._beside.lead(journal.epoch, journal.check)
        learner = Learner(self._stream, self._settings, self._log, self._stopped, self.lock, journal=journal)
        self._learner = learner
        try:
            with closing(learner):
                begin(learner)
                self._wants_it = False
                _LOG.info("leading, epoch %d, from batch %d on", journal.epoch, work.batch)
                self._on_lead(learner.status("running"))
                learner.run(lambda: self._looks_up(journal), self._until)
                self._over = True
        finally:
            self._status = learner.shown or self._status
            self._learner = None
            self._beside.follow()

    def _looks_up(self, journal: LogJournal) -> bool:
        """Hear who asks for the lead; tell whether it is time to end."""
        if (asked := journal.take_asked()) is not None:
            self._make_way(asked)
        if not self._stopped():
            return False
        self._election.close()  # first of all: so another one leads while this one puts its things in order
        return True

    def _ask_for_it(self, journal: LogJournal) -> None:
        if self._wants_it and not self._election.chosen:
            self._wants_it = False
            _LOG.warning("asking the learner that leads to hand over")
            journal.ask(HandOver(self.holder))

    def _make_way(self, asked: HandOver) -> None:
        """Let another one be chosen. This one leads on until that one's claim comes, if it does."""
        if asked.holder != self.holder:
            _LOG.warning("%s asks for the lead", asked.holder)
            self._election.rejoin(HAND_OVER_S)

    def _stopped(self) -> bool:
        return self._over or self._told_to_stop()

    def _rules(self) -> Rules:
        return recovery.rules(self._settings, self._stream, self._log)

    # What it waits for, and says.

    def _upload(self, path: Path) -> None:
        """Return once a checkpoint is in the store."""
        while True:
            try:
                self._store.put(path)
            except StoreUnavailable as error:
                self._wait_for(str(error))
                self._rest(RETRY_S)
            else:
                return

    def _wait_for(self, why: str) -> None:
        """Say what is waited for. Raises LogUnavailable where it is time to end."""
        if self._stopped():
            raise LogUnavailable(why)
        if self._learner is not None:
            self._learner.tell_waiting(why)
        else:
            self._say("waiting", why)

    def _on_wait(self) -> None:
        """Say, now and then, that records are waited for. Raises BeginAnew where it is time to end."""
        if self._stopped():
            raise BeginAnew("it is time to end")
        self._say("standby", "waiting for records that the journal names")

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopped() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, TURN_S))

    def _say(self, state: State, detail: str, work: LearnerState | None = None) -> None:
        """Write the status, twice a second at most where nothing but the numbers change."""
        now = time.monotonic()
        if now < self._next and (state, detail) == (self._status.state, self._status.detail):
            return
        self._next = now + SAY_S
        self.lock.check()  # a directory that was deleted takes no status
        status = self._status
        if work is not None:
            machine = work.machine
            status.version, status.labels, status.counts = machine.version, machine.classifier.labels, machine.counts
            status.batch, status.positions = work.batch, by_topic(work.positions)
        with suppress(DiskFull):
            change_status(self._stream.data, status, state, detail, self.lock.last_epoch())
