"""Who reads the log and changes a model? Only this.

The order of the steps is what makes the promises true (ARCHITECTURE.md says what holds after a crash at each):

    1. take a batch from both topics, in the order of time      (stream/merge.py)
    2. decode it; what cannot be decoded will go to dead-letter  (learner/machine.py, 2 to 4)
    3. score each message, remember it in the join window
    4. find each label's message, score what was served, learn
    5. append the batch's spans to the journal, durably
    6. only then let the outside see it: predictions, dead letters, drift alarms, a snapshot, the status
    7. now and then a checkpoint: the state is copied and a new journal begun; then a thread, while the loop goes on,
       waits until what was sent is durable, makes the copy durable, commits offsets for lag tools, and lets old
       checkpoints and journals go                               (learner/saver.py)

    Before each of 5, 6 and 7 it looks whether another learner has taken over (learner/lock.py): then it ends.

    Beside it a thread looks at the log every few seconds (learner/watch.py). Where records are lost, a topic was made
    again or partitions were added, the learner recovers anew from what is durable, or ends and says what is lost.

    Recovery:
    a. the newest checkpoint whose checksums hold, or a first, empty one; what lies there is made durable first, since
       who wrote it may have been killed before its fsync; what the log no longer has of what came after is counted,
       and has to be accepted (learner/positions.py)
    b. its journals' spans from the log, applied in their order (learner/recovery.py, c too)
    c. what may not have been sent is sent again, with the same content
    d. a checkpoint of what that gave, then go on

    A model that was built anew beside it takes the place of this one at a batch's border (learner/rebuild.py, 4).
"""

import copy
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import msgspec

from learner import checkpoint as checkpoints
from learner import durable, rebuild, recovery, warm
from learner import journal as journals
from learner.alarms import log_alarms
from learner.checkpoint import Checkpoint, Manifest, by_topic
from learner.classifier import Classifier
from learner.committer import Committer
from learner.intake import Intake
from learner.journal import Head, Journals
from learner.lock import Lock
from learner.losses import Losses
from learner.machine import Machine, Plan
from learner.models import as_of_today, make_classifier, warm_up
from learner.outbox import Outbox
from learner.positions import Standing, Stock, compare
from learner.progress import RECENT_LABELS
from learner.publishing import Publishing
from learner.rebuild import Builder
from learner.rebuilt import Rebuilt
from learner.reporter import Reporter
from learner.restore import clocks_of, describe, marks, restore
from learner.review import Reviewer
from learner.room import Room
from learner.saver import Saver
from learner.settings import DEFAULT_MODEL, LearnerSettings, Rules
from learner.status import State, Status, read_status, write_status
from learner.versions import Recent, Versions
from learner.watch import Watch
from stream.clock import Clock
from stream.errors import (
    ConfigError,
    LogError,
    LogUnavailable,
    OffsetsLost,
    Overtaken,
    StateError,
    TooManyDeadLetters,
    TopicMismatch,
)
from stream.log import Log, TopicPartition, TopicState, Watermarks
from stream.merge import Merger
from stream.settings import StreamSettings

POLL_S: Final = 0.05
# How long a checkpoint waits for what was sent, and for a look at the log, before it is put off.
FLUSH_S: Final = 3.0
CONFIRM_S: Final = 2.0
PUT_OFF_S: Final = 1.0
COMMIT_S: Final = 2.0  # at the end, for lag tools to be told
REBUILT_S: Final = 0.5  # how often a model that was built anew is looked for
_LOG: Final = logging.getLogger(__name__)
_T = TypeVar("_T")


class Learner:
    """The one writer of a data directory. `start`, then `run` or `step`, then `close`; one thread.

    A disk that is full is waited for, until `stopped` says that it is time to end.

    Raises
    ------
    StateError : another learner has the directory, or it cannot be read.
    Overtaken : another learner has taken it over; from any method.
    RecordsLost : the log no longer has what was not learned yet, or what the journal would replay.
    """

    def __init__(
        self, stream: StreamSettings, settings: LearnerSettings, log: Log, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._stream, self._settings, self._log = stream, settings, log
        self._lock = Lock(stream.data, take_over=settings.take_over)
        self._room = Room(stream.data, stopped, lambda why: self._report("paused", why), self._lock.check)
        self._checkpoints = stream.data / "checkpoints"
        self._journals = stream.data / "journal"
        self._batch = 0
        self._journal = Journals(self._journals)
        self._saver = Saver(self._checkpoints, self._journals, self._lock.check)
        self._versions = Versions(stream.data)
        self._checkpoint_batch = 0  # of the newest one, which may be under way
        self._pause_s = 0.0
        self._next_checkpoint = self._next_rebuilt = 0.0
        self._committer = Committer(log, settings.group)
        self._watch = Watch(log, stream.topics)
        self._known: Mapping[str, TopicState] = {}  # what the log was when it was looked at last
        self._losses = Losses()
        self._rebuilt: Rebuilt | None = None
        self._doubt: LogError | None = None  # why nothing is taken until the log was looked at
        self._halted = False  # nothing is whole until it has recovered
        self._reporter = Reporter(stream.data, self.status, self._lag, settings.stall_after_s, self._lock.check)
        self._intake = Intake(settings.dead_letter_limit, stream.topics.dead_letter)
        self._refusal: TooManyDeadLetters | None = None  # why nothing is taken until a person has looked
        self._reviewer: Reviewer | None = None
        self._worker = ThreadPoolExecutor(1, "learner")
        self._flight: tuple[Plan, Future[None]] | None = None  # the batch that is being learned

    # Starting.

    def start(self, on_replay: Callable[[int, int], None] | None = None) -> None:
        """Recover, and let the outside see what that gave.

        Parameters
        ----------
        on_replay : called with the batches replayed so far, and with how many there are
        """
        self._reporter.beat(self._batch, "recovering")
        warm.warm_up()
        self._lock.check()
        for directory in (self._checkpoints, self._journals):
            durable.make_directory(directory)
            durable.remove_partial(directory)
        durable.remove_partial(self._stream.data)
        durable.sync_directory(self._checkpoints)
        journals.settle(self._journals)
        self._log.create_topics(self._stream.topics)
        newest = checkpoints.load_newest(self._checkpoints)
        self._check_model(newest)
        known = newest.manifest.epoch if newest else 0
        self._epoch = 1 + max(self._lock.last_epoch(), journals.last_epoch(self._journals), known)
        self._lock.announce(self._epoch)
        self._publishing = Publishing(
            self._stream.data / "snapshots", self._epoch, self._settings.publish_interval_s, self._room
        )
        if self._reviewer is None:
            per_hour = self._settings.label_requests_per_hour
            self._reviewer = Reviewer(self._stream.data, per_hour, self._epoch, self._lock.check)
        if newest is None:
            self._begin()
        else:
            self._check_topics(newest)
            checkpoints.set_aside_newer(self._checkpoints, newest.manifest.batch, self._epoch)
            self._recover(newest, on_replay)
        self._look_for_rebuilt()
        if self._machine.counts.updates:
            self._publish()
        else:
            self._publishing.prepare(self._machine.classifier)
        self._report("running")

    def _check_model(self, newest: Checkpoint | None) -> None:
        asked = self._settings.model
        if newest is not None and asked and self._make(asked).config() != as_of_today(newest.manifest.config):
            raise ConfigError(
                f"model: {self._stream.data} holds a model {newest.manifest.model!r}, not {asked!r}; "
                "leave --model out to go on with it, or give the new one a --data directory of its own"
            )

    def _make(self, spec: str) -> Classifier:
        return make_classifier(spec, allow_pickle=self._stream.allow_pickle)

    def _check_topics(self, newest: Checkpoint) -> None:
        learned_from, now = newest.manifest.rules.topics, self._stream.topics
        if learned_from != now:
            raise ConfigError(
                f"prefix: {self._stream.data} was learned from {learned_from.messages} and {learned_from.feedback}, "
                f"not from {now.messages} and {now.feedback}; set the prefix back, or use another --data directory"
            )

    def _begin(self) -> None:
        classifier = self._make(self._settings.model or DEFAULT_MODEL)
        warm_up(classifier.config()["classifier"])
        self._machine = Machine(self._rules(), classifier, recovery.new_lineage())
        self._known = self._describe()
        self._open({partition: mark.low for partition, mark in marks(self._known).items()}, {})
        self._outbox = Outbox(self._log, delivered=0)
        self._checkpoint_now()

    def _recover(self, newest: Checkpoint, on_replay: Callable[[int, int], None] | None) -> None:
        manifest = newest.manifest
        self._batch = self._checkpoint_batch = self._saver.batch = manifest.batch
        todo = journals.read_since(self._journals, self._batch)
        self._known = self._describe()
        stock = recovery.take_stock(manifest, todo, self._known, accept_loss=self._settings.accept_loss)
        replayed = [stock.clip(applied) for applied in todo]
        # Versions that were published stand for models that this replay does not give again: others need other names.
        lineage = manifest.lineage if replayed == todo else recovery.new_lineage()
        machine = self._machine = restore(newest, lineage, allow_pickle=self._stream.allow_pickle)
        self._open(stock.positions, clocks_of(manifest), Clock(*manifest.clock))
        # All before a checkpoint is delivered once that is on the disk; its journal began before that.
        self._outbox = Outbox(self._log, max([self._batch, *(applied.delivered for applied in replayed)]))

        def on_batch(batch: int) -> None:
            self._batch = batch
            if on_replay is not None:
                on_replay(batch - manifest.batch, len(replayed))
            if self._reporter.is_due(time.monotonic()):
                self._report("recovering", f"batch {batch} of {replayed[-1].batch}")

        recovery.replay(
            replayed,
            machine,
            self._merger,
            self._outbox,
            stock,
            accept_loss=self._settings.accept_loss,
            on_batch=on_batch,
            on_wait=lambda: self._report_wait("recovering"),
        )
        recovery.check_unchanged(self._log, self._known)
        self._obey(self._rules())
        self._losses, self._rebuilt = manifest.losses, manifest.rebuilt
        if stock.losses or stock.added:
            self._record(stock)
        if self._batch > self._checkpoint_batch:
            self._checkpoint_now()
        else:
            self._begin_journal()
            self._saver.copy(machine.classifier.state())
            self._saver.positions = self._merger.positions
            self._next_checkpoint = time.monotonic() + self._settings.checkpoint_interval_s

    def _record(self, stock: Stock) -> None:
        """Make what was lost and added a batch of its own, without records; a checkpoint follows."""
        self._begin_journal()
        self._pass_batch()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for loss in stock.losses:
            self._losses.add(msgspec.structs.replace(loss, batch=self._batch, accepted_at=now))
            _LOG.warning("accepted: %s", loss)
        if stock.added:
            _LOG.warning("partitions were added: %s", ", ".join(map(str, stock.added)))

    def _pass_batch(self) -> None:
        """Count a batch without records: something else changed, and the checkpoint that follows has it."""
        self._batch += 1
        delivered = self._outbox.delivered
        self._room.wait_for(lambda: self._journal.append(self._batch, delivered, []))
        self._outbox.send(self._batch, {})

    def _describe(self) -> Mapping[str, TopicState]:
        return recovery.describe(self._log, self._stream.topics[:2])

    def _rules(self) -> Rules:
        return self._settings.rules(self._stream, self._log.partition_count(self._stream.topics.messages))

    def _open(
        self,
        positions: Mapping[TopicPartition, int],
        clocks: Mapping[TopicPartition, Clock],
        clock: Clock = Clock(),  # noqa: B008
    ) -> None:
        self._refusal = None  # where it begins anew there may be other records
        self._readers = [
            self._log.reader({partition: at for partition, at in positions.items() if partition.topic == topic})
            for topic in self._stream.topics[:2]
        ]
        self._merger = Merger(self._readers, positions, clocks, self._machine.rules.max_clock_jump_ms, clock)

    def _obey(self, rules: Rules) -> None:
        """Go by these rules from the next batch on."""
        self._machine.obey(rules)
        self._merger.obey(rules.max_clock_jump_ms)

    # Running.

    def run(self, stop: Callable[[], bool], until: Mapping[TopicPartition, Watermarks] | None = None) -> None:
        """Take batches until `stop` says so, or until these watermarks are reached; then write a checkpoint."""
        while not stop() and not (until is not None and (self._reached(until) or self._refusal)):
            self.step()
        self._land()
        while not (saved := self._save()) and until is not None and not stop():
            self.step()  # on its own way to the end it waits for the log as ever
        if not saved:
            _LOG.warning("no checkpoint was written at the end; the journal has what came after the last one")
        self._journal.settle()
        if not self._halted:
            self._publish()
        if until is not None and self._refusal is not None:
            raise self._refusal
        self._report("stopped")

    def step(self, timeout_s: float = POLL_S) -> int:
        """Take one batch and bring it as far as its learning; return how many records it had.

        It is learned in another thread, without the GIL, while the next one is taken and planned. All else stays in
        this thread and in the order of the batches: nothing is visible of a batch before 5, and nothing is published,
        saved or reported between two halves of one. 0 while the log has to be waited for.
        """
        self._reporter.beat(self._batch)
        try:
            self._look_at_log()
            if time.monotonic() >= self._next_rebuilt:
                self._look_for_rebuilt()
            if self._doubt is None and self._refusal is None and not self._outbox.full:
                return self._step(timeout_s)
            self._land()
            if self._refusal is not None:
                self._room.wait_for(self._saver.look)
                self._show(time.monotonic())
            if self._doubt is None and self._refusal is None:
                self._outbox.wait(timeout_s)
            else:
                time.sleep(timeout_s)
        except (OffsetsLost, TopicMismatch) as error:
            self._land()
            _LOG.warning("%s; looking at the log", error)
            self._doubt = error
            self._watch.hurry()
        self._report_wait("running")
        return 0

    def _look_at_log(self) -> None:
        """Have the log looked at now and then, and act on what was found.

        Raises
        ------
        RecordsLost : something is gone, and that was not accepted.
        """
        look = self._watch.turn(self._standing)
        if look is None:
            return
        self._land()
        stock = compare(look.standing, look.log)
        if self._doubt is None and not stock.added and all(loss.why == "retention" for loss in stock.losses):
            # A record below the low watermark may have been read already: that one was not, a reader says.
            self._known = {topic: look.log[topic] for topic in self._known}
            self._saver.confirm()
            self._stay_above(self._known)
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

    def _stay_above(self, log: Mapping[str, TopicState]) -> None:
        """Have a checkpoint written where a replay would need records that the log no longer has."""
        positions = self._merger.positions
        for partition, mark in marks(log).items():
            saved = self._saver.positions[partition]
            if saved < mark.low and saved < positions[partition] and not self._saver.busy:
                if self._batch == self._checkpoint_batch:
                    self._pass_batch()
                self._next_checkpoint = 0.0

    def _recover_anew(self) -> None:
        """Start again from what is durable. Where the log cannot be reached for that, it is tried at the next look."""
        with suppress(LogError):  # what is not delivered is sent again
            self._outbox.flush(FLUSH_S)
        self._halted = True
        self._saver.close()
        self._saver = Saver(self._checkpoints, self._journals, self._lock.check)
        self._journal.close()
        self._journal = Journals(self._journals)
        self._publishing.close()
        for reader in self._readers:
            reader.close()
        try:
            self.start()
        except LogUnavailable as error:
            self._doubt = error
        else:
            self._doubt, self._halted = None, False

    def _look_for_rebuilt(self) -> None:
        """Take over a model that was built anew, where there is one, at this batch's border; see learner/rebuild.py."""
        self._next_rebuilt = time.monotonic() + REBUILT_S
        path = rebuild.find(self._stream.data)
        if path is None or self._doubt is not None:
            return
        self._land()
        if not self._save():  # a
            return
        try:
            if checkpoints.load_manifest(path).lineage == self._machine.lineage:  # it took over before a crash
                rebuild.clear(self._stream.data)
                return
            builder = rebuild.caught_up(path, self._log, self._merger.positions, allow_pickle=self._stream.allow_pickle)
            recovery.check_unchanged(self._log, self._known)
        except LogUnavailable as error:
            _LOG.warning("a model that was built anew has to wait: %s", error)
            self._next_rebuilt = time.monotonic() + 10 * REBUILT_S
            return
        except (ConfigError, LogError, StateError) as error:
            _LOG.error("a model that was built anew is not taken over: %s", error)
            rebuild.refuse(self._stream.data, str(error))
            return
        self._take_over(builder)  # c
        rebuild.clear(self._stream.data)  # d

    def _take_over(self, builder: Builder) -> None:
        """Go on with another model, of the same records, from here."""
        self._saver.close()
        self._saver = Saver(self._checkpoints, self._journals)  # its copies have the old model's arrays
        self._machine = builder.machine
        self._obey(self._rules())
        self._settings = self._settings.model_copy(update={"model": None})  # it was chosen anew
        self._pass_batch()
        self._rebuilt = builder.rebuilt(self._batch)
        self._checkpoint_now()
        self._publishing.hurry()
        _LOG.warning("a model that was built anew took over: %s", self._rebuilt)

    def _standing(self) -> Standing:
        positions = self._merger.positions
        ends = {partition: mark.high for partition, mark in marks(self._known).items()}
        return Standing(positions, positions, ends, {topic: state.identity for topic, state in self._known.items()})

    def _save(self) -> bool:
        """Write a checkpoint of everything; tell whether there is one now."""
        self._land()  # what is sent of a batch is waited for, and it is sent when it lands
        if self._halted or not self._finish_checkpoint():
            return False
        if self._batch == self._checkpoint_batch:
            return True
        self._begin_checkpoint()
        return self._finish_checkpoint()

    def _begin_checkpoint(self) -> None:
        """Have a checkpoint made, of records that come from the topics that are known: so a look has to find."""
        self._watch.ask(self._standing())
        self._checkpoint()

    def _finish_checkpoint(self) -> bool:
        """Wait a little for the checkpoint under way; tell whether it is on the disk, or none was under way."""
        if not self._saver.busy:
            return True
        if not self._outbox.flush(FLUSH_S, lambda: self._report_wait("running")):
            return False
        if not self._saver.confirmed:
            look = self._watch.answer(CONFIRM_S)
            if look is None or compare(look.standing, look.log).new_topics:
                self._watch.hurry()
                return False
            self._known = {topic: look.log[topic] for topic in self._known}
            self._saver.confirm()
        self._room.wait_for(self._saver.wait)
        return True

    def _checkpoint_now(self) -> None:
        """Make a checkpoint of what is known to come from the topics that are known, and wait for it."""
        self._checkpoint()
        self._saver.confirm()
        self._room.wait_for(lambda: self._saver.wait(lambda: self._report_wait("recovering")))

    def _step(self, timeout_s: float) -> int:
        # While one is being learned there is nothing to wait for: what it has to say must not come late.
        batch = self._merger.take(self._settings.batch_records, 0.0 if self._flight else timeout_s)  # 1
        if len(batch):
            try:
                plan = self._machine.plan(batch, self._await_learned, self._intake.admit)  # 2, 3, 4
            except TooManyDeadLetters as error:
                return self._refuse(error)
            self._land()
            self._batch += 1
            self._flight = plan, self._worker.submit(self._machine.learn, plan)
            delivered = self._outbox.delivered
            self._room.wait_for(lambda: self._journal.append(self._batch, delivered, batch.spans))  # 5
        else:
            self._land()
        self._room.wait_for(self._saver.look)
        self._room.wait_for(self._journal.look)
        now = time.monotonic()
        # Only labels and what is rejected of them give a new snapshot.
        learns = self._flight is None or any(
            span.partition.topic == self._stream.topics.feedback for span in batch.spans
        )
        due = now >= self._next_checkpoint or self._reporter.is_due(now)
        if due or (learns and self._publishing.is_due(now)):
            self._land()
            self._show(now)
        return len(batch)

    def _refuse(self, error: TooManyDeadLetters) -> int:
        """Leave a batch where it is, and take nothing more."""
        self._merger.put_back()
        self._land()
        self._refusal = error
        _LOG.error("%s", error)
        self._publish()
        self._report("paused", str(error))
        return 0

    def _await_learned(self) -> None:
        if self._flight is not None:
            self._flight[1].result()

    def _land(self) -> None:
        """Finish the batch that is being learned, and let the outside see it."""
        if self._flight is None:
            return
        plan, learned = self._flight
        self._flight = None
        learned.result()
        outputs = self._machine.finish(plan)
        self._lock.check()
        self._outbox.send(self._batch, outputs)  # 6
        if self._reviewer is not None:
            self._reviewer.see(self._machine, plan)
        log_alarms(self._machine.raised)

    def _show(self, now: float) -> None:
        if self._publishing.is_due(now):
            self._publish()
        if now >= self._next_checkpoint and self._batch > self._checkpoint_batch and not self._saver.busy:
            self._begin_checkpoint()  # 7
        self._report_wait("running")

    def fail(self, detail: str) -> None:
        """Say why the learner ends, to whoever looks at the status. Raises Overtaken: that is another's, then."""
        self._lock.check()
        with suppress(OSError, StateError):  # a full disk is what it may be about
            if hasattr(self, "_merger"):
                self._report("failed", detail)
            elif (last := read_status(self._stream.data)) is not None:
                last.state, last.detail, last.at, last.pid = "failed", detail, time.time(), os.getpid()
                last.epoch = max(last.epoch, self._lock.last_epoch())
                write_status(self._stream.data, last)

    def close(self) -> None:
        """Give back everything; the log stays open."""
        self._worker.shutdown()
        self._watch.close()
        self._reporter.close()
        self._saver.close()
        self._journal.close()
        self._committer.close(COMMIT_S)
        owned = [getattr(self, name, None) for name in ("_publishing", "_reviewer")]
        try:
            self._lock.check()
        except Overtaken:
            owned = owned[1:]  # what it published does not count any more
        for resource in (*owned, *getattr(self, "_readers", ()), self._lock):
            if resource is not None:
                resource.close()

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The next offset of each partition."""
        return self._merger.positions

    def _reached(self, until: Mapping[TopicPartition, Watermarks]) -> bool:
        positions = self._merger.positions
        return self._merger.at_end or all(positions[partition] >= mark.high for partition, mark in until.items())

    def _publish(self) -> None:
        offsets = by_topic(self._merger.positions)[self._stream.topics.feedback]
        self._publishing.publish(self._machine, offsets)

    def _checkpoint(self) -> None:
        """Copy the state, begin a new journal, and let the rest be done while the loop goes on."""
        started = time.monotonic()
        machine, positions = self._machine, self._merger.positions
        manifest = describe(
            machine, self._batch, self._epoch, positions, self._merger.clocks, self._merger.clock, self._known
        )
        manifest.losses, manifest.rebuilt = copy.deepcopy(self._losses), self._rebuilt
        model = self._saver.copy(machine.classifier.state())
        state = Checkpoint(manifest, model, machine.progress.state(), machine.drift.state() | machine.gate.state(), [])
        windows = machine.join.freeze()
        self._checkpoint_batch = self._batch
        self._begin_journal()
        progress = machine.progress
        recent = Recent(min(progress.labels, RECENT_LABELS), progress.recent_accuracy, progress.recent_log_loss)
        self._saver.start(state, windows, positions, self._outbox, partial(self._saved, manifest, recent))
        now = time.monotonic()
        self._pause_s = now - started
        self._next_checkpoint = now + self._settings.checkpoint_interval_s

    def _saved(self, manifest: Manifest, recent: Recent, positions: Mapping[TopicPartition, int]) -> None:
        """Tell whoever wants to know, and keep the model; in the saver's thread."""
        batch, settings = manifest.batch, self._settings
        if batch:
            self._committer.tell(positions)
        path = checkpoints.path_of(self._checkpoints, batch)
        try:
            number, n_bytes = settings.keep_snapshots, settings.keep_snapshots_bytes
            self._versions.keep(path, manifest, recent, number, n_bytes, self._lock.check)
        except StateError as error:  # a full disk, or who has the lock stands still
            _LOG.warning("the model of checkpoint %d is not kept to be served again: %s", batch, error)
        _LOG.info("checkpoint %d is on the disk; the loop stood still for %.3f s", batch, self._pause_s)

    def _begin_journal(self) -> None:
        head = Head(self._batch, self._epoch, self._machine.rules, list(self._merger.positions))
        self._room.wait_for(lambda: self._journal.begin(head))

    def status(self, state: State, detail: str = "") -> Status:
        """Say what the learner is doing and has done."""
        machine = self._machine
        return Status(
            state=state,
            detail=detail,
            at=time.time(),
            pid=os.getpid(),
            epoch=self._epoch,
            model=machine.classifier.spec,
            version=machine.version,
            labels=machine.classifier.labels,
            counts=machine.counts,
            join=machine.join.counts,
            pending=machine.join.pending,
            waiting=machine.join.waiting,
            positions=by_topic(self._merger.positions),
            progress=machine.progress.summary(machine.classifier.labels),
            drift=machine.alarms,
            losses=self._losses,
            rebuilt=self._rebuilt,
            checkpoint=self._saver.batch,
            batch=self._batch,
            window_bytes=machine.join.n_bytes,
            checkpoint_seconds=self._saver.seconds,
            checkpoint_pause_seconds=self._pause_s,
            snapshot_seconds=self._publishing.seconds,
            gate=machine.gate.report(self._publishing.quarantine),
            over_quota=dict(machine.quotas.refused),
            stalls=self._reporter.stalls,
        )

    @property
    def shown(self) -> Status | None:
        """The last status, for any thread."""
        return self._reporter.shown

    def _report(self, state: State, detail: str = "") -> None:
        self._reporter.report(self._batch, state, detail)
        if self._reviewer is not None and not self._halted and state != "recovering":
            self._reviewer.report(self._machine, self._lag())

    def _lag(self) -> int:
        """Return how many records wait, as far as the last look at the log saw. Any thread."""
        positions = self._merger.positions
        return sum(max(0, mark.high - positions[partition]) for partition, mark in marks(self._known).items())

    def _report_wait(self, state: State) -> None:
        """Say that the learner is at work, or what it waits for, where it is time to say something."""
        if self._reporter.is_due(time.monotonic()):
            problem = self._watch.problem or (str(self._doubt) if self._doubt is not None else "")
            if not problem and self._refusal is not None:
                state, problem = "paused", str(self._refusal)
            elif problem:
                state = "waiting"
            self._report(state, problem)
