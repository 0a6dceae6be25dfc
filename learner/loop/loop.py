"""Who reads the log and changes a model? Only this.

The order of the steps is what makes the promises true (docs/how-it-works.md says what holds after a crash at each):

    1. take a batch from both topics, in the order of time      (log/merge.py)
    2. decode it; what cannot be decoded will go to dead-letter  (machine/machine.py, 2 to 4)
    3. score each message, remember it in the join window
    4. find each label's message, score what was served, learn
    5. append the batch's spans to the journal, durably         (state/ledger.py, 7 too)
    6. only then let the outside see it: predictions, dead letters, drift alarms, a snapshot, the status
    7. now and then a checkpoint: the state is copied and a new journal begun; then a thread, while the loop goes on,
       waits until what was sent is durable, makes the copy durable, commits offsets for lag tools, and lets old
       checkpoints and journals go                               (state/saver.py)

    Before each of 5, 6 and 7 it looks whether another learner has taken over (disk/lock.py): then it ends.

    Beside it a thread looks at the log every few seconds (state/watch.py). Where records are lost, a topic was made
    again or partitions were added, the learner recovers anew from what is durable, or ends and says what is lost.

    Recovery:
    a. the newest checkpoint whose checksums hold, or a first, empty one; what lies there is made durable first, since
       who wrote it may have been killed before its fsync; what the log no longer has of what came after is counted,
       and has to be accepted (disk/positions.py)
    b. its journals' spans from the log, applied in their order (loop/recovery.py, c too)
    c. what may not have been sent is sent again, with the same content
    d. a checkpoint of what that gave, then go on

    A model that was built anew beside it takes the place of this one at a batch's border (loop/swap.py).
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final

from driftline.learner.disk.checkpoint import Checkpoint
from driftline.learner.disk.full import DiskRoom
from driftline.learner.disk.lock import Lock
from driftline.learner.disk.losses import Erasures
from driftline.learner.disk.positions import Stock, compare
from driftline.learner.disk.settings import LearnerSettings, Rules
from driftline.learner.loop import recovery
from driftline.learner.loop.compiling import compile_all
from driftline.learner.loop.erasing import Erasing
from driftline.learner.loop.fetching import fetch_newest
from driftline.learner.loop.intake import Intake
from driftline.learner.loop.outside import Outside
from driftline.learner.loop.swap import StagedRebuild
from driftline.learner.machine.plan import Plan
from driftline.learner.quality.alarms import log_alarms
from driftline.learner.rebuild.rebuild import Builder
from driftline.learner.report.status import State, Status, change_status, read_status
from driftline.learner.state.ledger import FLUSH_S, Ledger, SharedJournal
from driftline.learner.state.state import LearnerState
from driftline.learner.state.watch import Look, Watch
from driftline.stream.errors import (
    BeginAnew,
    LogError,
    LogUnavailable,
    OffsetsLost,
    Overtaken,
    StateError,
    TooManyDeadLetters,
    TopicMismatch,
)
from driftline.stream.log import transactions
from driftline.stream.log.base import Log, TopicPartition, Watermarks
from driftline.stream.process.settings import StreamSettings

POLL_S: Final = 0.05
_LOG: Final = logging.getLogger(__name__)


class Learner:
    """The one writer of a data directory. `start`, then `run` or `step`, then `close`; one thread.

    A `lock` that is held already stays its owner's to close. One that stands in (`stands_in`) is there for one task and
    was told nothing of how to learn: it goes by the rules of the one before.

    A disk that is full is waited for, until `stopped` says that it is time to end.

    Raises
    ------
    StateError : another learner has the directory, or it cannot be read.
    Overtaken : another learner has taken it over; from any method.
    RecordsLost : the log no longer has what was not learned yet, or what the journal would replay.
    """

    _work: LearnerState  # from the recovery on

    def __init__(
        self,
        stream: StreamSettings,
        settings: LearnerSettings,
        log: Log,
        stopped: Callable[[], bool] = lambda: False,
        lock: Lock | None = None,
        *,
        stands_in: bool = False,
        journal: SharedJournal | None = None,
    ) -> None:
        self._stream, self._settings, self._log, self._stands_in = stream, settings, log, stands_in
        self._shared = journal
        rehearse = partial(recovery.rehearse, log, stream, settings)
        self._lock = lock or Lock(stream.data, take_over=settings.take_over, rehearse=rehearse)
        self._own_lock = None if lock else self._lock
        check = self._check
        self._room = DiskRoom(stream.data, stopped, lambda why: self._outside.report("paused", why), check)
        self._watch = Watch(log, stream.topics)
        self._ledger = Ledger(stream, settings, log, self._watch, self._room, check, journal)
        self._staged = StagedRebuild(stream.data, log, allow_pickle=stream.allow_pickle)
        self._erasing = Erasing(stream.data, log, stream.topics, stream.max_record_bytes)
        self._outside = Outside(stream, settings, self._ledger, self._room, check)
        self._intake = Intake(settings.dead_letter_limit, stream.topics.dead_letter, settings.batch_records)
        self._doubt: LogError | None = None  # why nothing is taken until the log was looked at
        self._refusal: TooManyDeadLetters | None = None  # why nothing is taken until a person has looked
        self._worker = ThreadPoolExecutor(1, "learner")
        self._flight: tuple[Plan, Future[None]] | None = None  # the batch that is being learned

    # Starting.

    def start(self, on_replay: Callable[[int, int], None] | None = None) -> None:
        """Recover, and let the outside see what that gave.

        `on_replay` is called with the batches replayed so far, and with how many there are.
        """
        stream, settings = self._stream, self._settings
        self._outside.begin()
        if not hasattr(self, "_work"):  # else it recovers anew, and all is compiled
            compile_all(settings.model, stream, self._lock, self._outside.show)
        self._check()
        self._ledger.settle(self._lock.last)
        self._log.create_topics(stream.topics)
        self._log.own()
        newest = self._ledger.newest() or fetch_newest(stream, settings.model, self._ledger, self._lock)  # a
        recovery.check_model(newest, stream, settings)
        epoch = self._ledger.begin_epoch(newest, self._lock.last_epoch())
        self._announce(epoch)
        if newest is None:
            self._set_work(recovery.begin(self._log, stream, settings))
            self._checkpoint_now()
        else:
            recovery.check_topics(newest, stream)
            recovery.check_journal(newest, stream, settings)
            self._recover(newest, on_replay)
        self._go_public()

    def lead(self, work: LearnerState, stock: Stock, *, at_once: bool) -> None:
        """Go on from what a standby has, once its claim to the shared journal counts.

        Parameters
        ----------
        stock : what it found of the log when it began
        at_once : whether a checkpoint has to be there before anything is learned
        """
        assert self._shared is not None, "there is no other to take over from"
        self._set_work(work)
        self._announce(self._shared.epoch)
        self._ledger.lead(work, self._shared.epoch)
        if stock.losses or stock.added:
            self._ledger.pass_batch(work)
            work.accept(stock)
        if at_once:
            self._checkpoint_now()
            self._ledger.go_on_from_here(work, "the journal begins with it")
        self._go_public()

    def _announce(self, epoch: int) -> None:
        self._lock.announce(epoch)
        self._outside.announce(epoch)
        self._refusal = None  # where it begins anew there may be other records

    def _set_work(self, work: LearnerState) -> None:
        self._work = self._outside.work = work

    def _go_public(self) -> None:
        self._look_for_rebuilt()
        self._outside.open()

    def _recover(self, newest: Checkpoint, on_replay: Callable[[int, int], None] | None) -> None:
        applied = self._ledger.take_up(newest)
        work, stock, todo = recovered = recovery.restored(newest, applied, self._log, self._stream, self._settings)
        self._set_work(work)
        first = work.batch
        on_batch, on_wait = self._outside.replaying(self._watch, todo, on_replay)
        recovery.replay(recovered, accept_loss=self._settings.accept_loss, on_batch=on_batch, on_wait=on_wait)  # b, c
        recovery.check_unchanged(self._log, work.known)
        # Whoever has a copy of this directory goes on from here, too: to other models by as many labels.
        work.machine.renew(recovery.new_lineage())
        work.obey(self._rules())
        if stock.losses or stock.added:
            self._ledger.begin_journal(work)
            self._ledger.pass_batch(work)
            work.accept(stock)
        if work.batch > first:
            self._checkpoint_now()  # d
        else:
            self._ledger.resume(work)

    def _recover_anew(self) -> None:
        """Start again from what is durable. Where the log cannot be reached for that, it is tried at the next look.

        Raises
        ------
        BeginAnew : that is for whoever stands by.
        """
        if self._shared is not None:
            raise BeginAnew("the log is another one than the learner knows")
        with suppress(LogError):  # what is not delivered is sent again
            self._work.outbox.flush(FLUSH_S)
        self._outside.halted = True
        self._ledger.reopen()
        self._outside.withdraw()
        self._work.close()
        try:
            self.start()
        except LogUnavailable as error:
            self._doubt = error
        else:
            self._doubt, self._outside.halted = None, False

    def _rules(self) -> Rules:
        return recovery.rules(self._settings, self._stream, self._log, self._work.machine.rules, self._stands_in)

    # Running.

    def run(self, stop: Callable[[], bool], until: Mapping[TopicPartition, Watermarks] | None = None) -> None:
        """Take batches until `stop` says so, or until these watermarks are reached; then write a checkpoint."""
        while not stop() and not (until is not None and self._is_done(until)):
            self.step()
        self._land()
        while not (saved := self._save()) and until is not None and not stop():
            self.step()  # on its own way to the end it waits for the log as ever
        if not saved:
            _LOG.warning("no checkpoint was written at the end; the journal has what came after the last one")
        self._ledger.finish()
        if not self._outside.halted:
            self._outside.publish()
        if until is not None and self._refusal is not None:
            raise self._refusal
        self._outside.report("stopped")

    def _is_done(self, until: Mapping[TopicPartition, Watermarks]) -> bool:
        return self._refusal is not None or (self._work.reached(until) and not self._erasing.busy)

    def step(self, timeout_s: float = POLL_S) -> int:
        """Take one batch and bring it as far as its learning; return how many records it had.

        It is learned in another thread, without the GIL, while the next one is taken and planned. All else stays in
        this thread and in the order of the batches: nothing is visible of a batch before 5, and nothing is published,
        saved or reported between two halves of one. 0 while the log has to be waited for.
        """
        self._outside.beat()
        try:
            if (look := self._watch.turn(self._work.standing)) is not None:
                self._act_on(look)
            if self._staged.is_due(time.monotonic()):
                self._look_for_rebuilt()
            if self._erasing.is_due(time.monotonic()) and self._erasing.turn(self._work):
                self._erase()
            if self._doubt is None and self._refusal is None and not self._work.outbox.full:
                return self._step(timeout_s)
            self._land()
            self._stand_still(timeout_s)
        except (OffsetsLost, TopicMismatch) as error:
            self._land()
            _LOG.warning("%s; looking at the log", error)
            self._doubt = error
            self._watch.hurry()
        self._report_wait("running")
        return 0

    def _step(self, timeout_s: float) -> int:
        work = self._work
        # While one is being learned there is nothing to wait for: what it has to say must not come late.
        batch = work.merger.take(self._intake.most(work.machine), 0.0 if self._flight else timeout_s)  # 1
        if len(batch):
            try:
                plan = work.machine.plan(batch, self._await_learned, self._intake.admit, self._land)  # 2, 3, 4
            except TooManyDeadLetters as error:
                return self._refuse(error)
            self._land()
            work.batch += 1
            self._flight = plan, self._worker.submit(work.machine.learn, plan)
            self._ledger.append(work, batch.spans, plan)  # 5
        else:
            self._land()
        self._ledger.look()
        now = time.monotonic()
        # Only labels and what is rejected of them give a new snapshot.
        learns = self._flight is None or any(
            span.partition.topic == self._stream.topics.feedback for span in batch.spans
        )
        due = self._ledger.is_due(now) or self._outside.is_due(now)
        if due or (learns and self._outside.is_stale(now)):
            self._land()
            self._show(now)
        return len(batch)

    def _await_learned(self) -> None:
        if self._flight is not None:
            self._flight[1].result()

    def _land(self) -> None:
        """Finish the batch that is being learned, and let the outside see it."""
        if self._flight is None:
            return
        (plan, learned), self._flight = self._flight, None
        learned.result()
        work = self._work
        outputs = work.machine.finish(plan)
        self._check()
        work.outbox.send(work.batch, outputs)  # 6
        self._outside.see(plan)
        log_alarms(work.machine.raised)

    def _show(self, now: float) -> None:
        if self._outside.is_stale(now):
            self._outside.publish()
        if self._ledger.is_due(now):
            self._ledger.begin(self._work)  # 7
        self._report_wait("running")

    def _save(self) -> bool:
        """Write a checkpoint of everything; tell whether there is one now."""
        self._land()  # what is sent of a batch is waited for, and it is sent when it lands
        return not self._outside.halted and self._ledger.save(self._work, lambda: self._report_wait("running"))

    def _checkpoint_now(self) -> None:
        def tell() -> None:
            self._watch.turn(self._work.standing)
            if self._outside.is_due(time.monotonic()):
                sent = self._work.outbox.delivered >= self._work.batch
                detail = "writing a checkpoint" if sent else "waiting until what was sent is in the log"
                problem = self._watch.problem
                self._outside.report("waiting" if problem else "recovering", problem or detail)

        self._ledger.save_now(self._work, tell)

    # What comes between.

    def _refuse(self, error: TooManyDeadLetters) -> int:
        """Leave a batch where it is, and take nothing more."""
        self._work.merger.put_back()
        self._land()
        self._refusal = error
        _LOG.error("%s", error)
        self._outside.publish()
        self._outside.report("paused", str(error))
        return 0

    def _stand_still(self, timeout_s: float) -> None:
        """Take nothing for a while, until the log has caught up, was looked at, or a person has looked."""
        if self._refusal is not None:
            self._ledger.look()
            self._show(time.monotonic())
        if self._doubt is None and self._refusal is None:
            self._work.outbox.wait(timeout_s)
        else:
            time.sleep(timeout_s)

    def _act_on(self, look: Look) -> None:
        """Go on, or recover anew, by what was found of the log.

        Raises
        ------
        RecordsLost : something is gone, and that was not accepted.
        """
        self._land()
        stock = compare(look.standing, look.log)
        if self._doubt is None and not stock.added and all(loss.why == "retention" for loss in stock.losses):
            # A record below the low watermark may have been read already: that one was not, a reader says.
            self._work.see(look.log)
            self._ledger.confirm()
            self._ledger.stay_above(self._work)
            if missing := [topic for topic in self._stream.topics if topic not in look.log]:
                with suppress(LogUnavailable):  # the next look finds them missing again
                    self._log.create_topics(missing)  # only of output: a message or a label lies in none of them
            return
        if not stock.new_topics:
            with suppress(LogError):
                self._save()
        if not self._settings.accept_loss:
            stock.refuse()
        self._recover_anew()

    def _look_for_rebuilt(self) -> None:
        """Take over a model that was built anew, where there is one, at this batch's border: rebuild/rebuild.py, 4."""
        if not self._staged.is_there() or self._doubt is not None or not self._save():  # a
            return
        builder = self._staged.catch_up(self._work)  # b
        if builder is not None:
            self._take_over(builder)  # c
            self._staged.clear()  # d

    def _take_over(self, builder: Builder) -> None:
        """Go on with another model, of the same records, from here."""
        work, rules = self._work, self._rules()
        self._ledger.forget_model()
        rebuilt = builder.take_over(work.machine, work.rebuilt, work.batch + 1)
        work.machine = builder.machine
        work.merger.set(builder.clocks, builder.clock)  # what it was built from may have begun later than the log did
        work.obey(rules)
        self._settings = self._settings.model_copy(update={"model": None})  # it was chosen anew
        self._ledger.pass_batch(work)
        work.rebuilt, work.begun = rebuilt, rebuilt.begun
        self._checkpoint_now()
        self._ledger.go_on_from_here(work, "a model that was built anew took over")
        self._outside.hurry()
        _LOG.warning("a model that was built anew took over: %s", work.rebuilt)

    def _erase(self) -> None:
        """Forget what was asked to be erased, at this batch's border: loop/erasing.py, 2 to 5."""
        if self._doubt is not None or not self._save():  # 2
            return
        work = self._work
        work.machine.join.forget(self._erasing.unwanted)  # 3
        work.machine.forget_vectors()
        self._ledger.pass_batch(work)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        work.erased = Erasures(work.erased.times + 1, work.batch, at)
        self._checkpoint_now()
        self._ledger.pass_batch(work)
        self._checkpoint_now()
        self._ledger.go_on_from_here(work, "something was erased")
        self._outside.forget(self._erasing.unwanted)  # 4
        self._check()
        self._room.wait_for(lambda: self._erasing.clean(work))

    # What the outside sees.

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The next offset of each partition."""
        return self._work.positions

    @property
    def stuck(self) -> TooManyDeadLetters | None:
        """Why nothing is taken in, where what is to be erased lies behind that."""
        return self._refusal if self._erasing.waits else None

    @property
    def shown(self) -> Status | None:
        """The last status, for any thread."""
        return self._outside.shown

    def status(self, state: State, detail: str = "") -> Status:
        """Say what the learner is doing and has done."""
        return self._outside.status(state, detail)

    def _report_wait(self, state: State) -> None:
        """Say that the learner is at work, or what it waits for, where it is time to say something."""
        if self._outside.is_due(time.monotonic()):
            problem = self._watch.problem or (str(self._doubt) if self._doubt is not None else "")
            problem = problem or self._work.outbox.problem
            if not problem and self._refusal is not None:
                state, problem = "paused", str(self._refusal)
            elif problem:
                state = "waiting"
            self._outside.report(state, problem or transactions.describe(self._work.held_back))

    def _check(self) -> None:
        """Return while this is the one that may write. Any thread. Raises Overtaken."""
        self._lock.check()
        if self._shared is not None:
            self._shared.check()

    def tell_waiting(self, why: str) -> None:
        """Say what it waits for, in the middle of a step."""
        self._outside.report("waiting", why)

    def fail(self, detail: str) -> None:
        """Say why the learner ends, to whoever looks at the status. Raises Overtaken: that is another's, then."""
        self._check()
        with suppress(OSError, StateError):  # a full disk is what it may be about
            if hasattr(self, "_work"):
                self._outside.report("failed", detail)
            elif (last := read_status(self._stream.data)) is not None:
                change_status(self._stream.data, last, "failed", detail, self._lock.last_epoch())

    def close(self) -> None:
        """Give back everything; the log stays open."""
        self._worker.shutdown()
        self._erasing.close()
        self._watch.close()
        self._outside.stop()
        self._ledger.close()
        overtaken = False
        try:
            self._check()
        except Overtaken:
            overtaken = True
        self._outside.close(overtaken=overtaken)
        for resource in (self._outside.work, self._own_lock):
            if resource is not None:
                resource.close()
