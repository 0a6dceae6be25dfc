"""Who reads the log and changes a model? Only this.

The order of the steps is what makes the promises true (ARCHITECTURE.md says what holds after a crash at each):

    1. take a batch from both topics, in the order of time      (stream/merge.py)
    2. decode it; what cannot be decoded will go to dead-letter  (learner/machine.py, 2 to 4)
    3. score each message, remember it in the join window
    4. find each label's message, score what was served, learn
    5. append the batch's spans to the journal, durably
    6. only then let the outside see it: predictions, dead letters, drift alarms, a snapshot, the status
    7. now and then a checkpoint: what was sent is durable, then the state is, then a new journal begins, then offsets
       are committed for lag tools, then old checkpoints go

    Recovery:
    a. the newest checkpoint whose checksums hold, or a first, empty one
    b. its journals' spans from the log, applied in their order
    c. what may not have been sent is sent again, with the same content
    d. a checkpoint of what that gave, then go on
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from learner import checkpoint as checkpoints
from learner import drift
from learner import journal as journals
from learner.alarms import Alarm
from learner.checkpoint import Checkpoint, Manifest, Offsets
from learner.classifier import Classifier
from learner.journal import Head, Journal
from learner.lock import Lock
from learner.machine import Machine, Plan
from learner.models import build, make_classifier, warm_up
from learner.outbox import Outbox
from learner.settings import LearnerSettings, Rules
from learner.snapshot import Publisher, SnapshotInfo
from learner.status import State, Status, write_status
from stream.errors import ConfigError, LogError
from stream.log import Log, TopicPartition, Watermarks
from stream.merge import Merger
from stream.settings import StreamSettings

DEFAULT_MODEL: Final = "linear"
POLL_S: Final = 0.05
STATUS_INTERVAL_S: Final = 0.5
# Publishing takes at most this share of the time, whatever the model's size.
PUBLISH_SHARE: Final = 0.2
LOGGED_ALARMS: Final = 5  # of a batch
_LOG: Final = logging.getLogger(__name__)


class Learner:
    """The one writer of a data directory. `start`, then `run` or `step`, then `close`; one thread.

    Raises
    ------
    StateError : another learner has the directory, or it cannot be read.
    OffsetsLost : records that were not learned yet are gone from the log.
    """

    def __init__(self, stream: StreamSettings, settings: LearnerSettings, log: Log) -> None:
        self._stream, self._settings, self._log = stream, settings, log
        self._lock = Lock(stream.data)
        self._checkpoints = stream.data / "checkpoints"
        self._journals = stream.data / "journal"
        self._batch = 0
        self._checkpoint_batch = 0
        self._checkpoint_s = self._snapshot_s = 0.0
        self._next_checkpoint = self._next_snapshot = self._next_status = 0.0
        self._published: tuple[str, dict[str, int]] | None = None
        self._committer = ThreadPoolExecutor(1, "committer")
        self._worker = ThreadPoolExecutor(1, "learner")
        self._flight: tuple[Plan, Future[None]] | None = None  # the batch that is being learned

    # Starting.

    def start(self, on_replay: Callable[[int, int], None] | None = None) -> None:
        """Recover, and let the outside see what that gave.

        Parameters
        ----------
        on_replay : called with the batches replayed so far, and with how many there are
        """
        drift.warm_up()
        for directory in (self._checkpoints, self._journals):
            directory.mkdir(parents=True, exist_ok=True)
        self._log.create_topics(self._stream.topics)
        newest = checkpoints.load_newest(self._checkpoints)
        self._check_model(newest)
        self._epoch = 1 + max(self._lock.last_epoch(), newest.manifest.epoch if newest else 0)
        self._lock.announce(self._epoch)
        self._publisher = Publisher(self._stream.data / "snapshots", self._epoch)
        if newest is None:
            self._begin()
        else:
            self._check_topics(newest)
            checkpoints.set_aside_newer(self._checkpoints, newest.manifest.batch, self._epoch)
            self._recover(newest, on_replay)
        self._publish()
        self._report("running")

    def _check_model(self, newest: Checkpoint | None) -> None:
        asked = self._settings.model
        if newest is not None and asked and self._make(asked).config() != newest.manifest.config:
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
        self._machine = Machine(self._rules(), classifier, lineage=uuid.uuid4().hex[:8])
        marks = self._log.watermarks(self._stream.topics[:2])
        self._open({partition: mark.low for partition, mark in marks.items()}, {})
        self._outbox = Outbox(self._log, delivered=0)
        self._checkpoint()

    def _recover(self, newest: Checkpoint, on_replay: Callable[[int, int], None] | None) -> None:
        manifest = newest.manifest
        self._batch = self._checkpoint_batch = manifest.batch
        config = manifest.config
        warm_up(config["classifier"])
        classifier = build(config["classifier"], config, allow_pickle=self._stream.allow_pickle)
        machine = self._machine = Machine(manifest.rules, classifier, manifest.lineage)
        machine.classifier.load_state(newest.model, manifest.labels)
        machine.progress.load_state(newest.progress)
        machine.drift.load_state(newest.drift)
        machine.counts, machine.alarms = manifest.counts, manifest.alarms
        machine.join.load_state(manifest.join_counts, newest.windows)
        marks = self._log.watermarks(self._stream.topics[:2])
        known = _partitions(manifest.positions)
        positions = {partition: known.get(partition, mark.low) for partition, mark in marks.items()}
        self._open(positions, _partitions(manifest.clocks))
        self._replay(on_replay)
        machine.obey(self._rules())
        if self._batch > self._checkpoint_batch:
            self._checkpoint()
        else:
            self._begin_journal()
            self._next_checkpoint = time.monotonic() + self._settings.checkpoint_interval_s

    def _replay(self, on_replay: Callable[[int, int], None] | None) -> None:
        todo = journals.read_since(self._journals, self._batch)
        delivered = max((applied.delivered for applied in todo), default=self._batch)
        self._outbox = Outbox(self._log, delivered)
        for applied in todo:
            if applied.rules != self._machine.rules:
                self._machine.obey(applied.rules)
            outputs = self._machine.apply(self._merger.take_spans(applied.spans))
            self._batch = applied.batch
            if applied.batch > delivered:
                self._outbox.send(applied.batch, outputs)
                _log_alarms(self._machine.raised)
            if on_replay is not None:
                on_replay(applied.batch - self._checkpoint_batch, len(todo))
            if time.monotonic() >= self._next_status:
                self._report("recovering", f"batch {applied.batch} of {todo[-1].batch}")

    def _rules(self) -> Rules:
        return self._settings.rules(self._stream, self._log.partition_count(self._stream.topics.messages))

    def _open(self, positions: Mapping[TopicPartition, int], clocks: Mapping[TopicPartition, int]) -> None:
        self._readers = [
            self._log.reader({partition: at for partition, at in positions.items() if partition.topic == topic})
            for topic in self._stream.topics[:2]
        ]
        self._merger = Merger(self._readers, positions, clocks)

    # Running.

    def run(self, stop: Callable[[], bool], until: Mapping[TopicPartition, Watermarks] | None = None) -> None:
        """Take batches until `stop` says so, or until these watermarks are reached; then write a checkpoint."""
        while not stop() and not (until is not None and self._reached(until)):
            self.step()
        self._land()
        if self._batch > self._checkpoint_batch:
            self._checkpoint()
        self._publish()
        self._report("stopped")

    def step(self, timeout_s: float = POLL_S) -> int:
        """Take one batch and bring it as far as its learning; return how many records it had.

        It is learned in another thread, without the GIL, while the next one is taken and planned. All else stays in
        this thread and in the order of the batches: nothing is visible of a batch before 5, and nothing is published,
        saved or reported between two halves of one.
        """
        # While one is being learned there is nothing to wait for: what it has to say must not come late.
        batch = self._merger.take(self._settings.batch_records, 0.0 if self._flight else timeout_s)  # 1
        if len(batch):
            plan = self._machine.plan(batch, self._await_learned)  # 2, 3, 4
            self._land()
            self._batch += 1
            self._flight = plan, self._worker.submit(self._machine.learn, plan)
            self._journal.append(self._batch, self._outbox.delivered, batch.spans)  # 5
        else:
            self._land()
        now = time.monotonic()
        # Only labels and what is rejected of them give a new snapshot.
        learns = self._flight is None or any(
            span.partition.topic == self._stream.topics.feedback for span in batch.spans
        )
        if now >= min(self._next_checkpoint, self._next_status) or (learns and now >= self._next_snapshot):
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
        plan, learned = self._flight
        self._flight = None
        learned.result()
        self._outbox.send(self._batch, self._machine.finish(plan))  # 6
        _log_alarms(self._machine.raised)

    def _show(self, now: float) -> None:
        if now >= self._next_snapshot:
            self._publish()
        if now >= self._next_checkpoint and self._batch > self._checkpoint_batch:
            self._checkpoint()  # 7
        if now >= self._next_status:
            self._report("running")

    def fail(self, detail: str) -> None:
        """Say why the learner ends, to whoever looks at the status."""
        if hasattr(self, "_merger"):
            with suppress(OSError):  # a full disk is what it may be about
                self._report("failed", detail)

    def close(self) -> None:
        """Give back everything; the log stays open."""
        self._worker.shutdown()
        self._committer.shutdown()
        for resource in (*getattr(self, "_readers", ()), getattr(self, "_journal", None), self._lock):
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
        machine = self._machine
        offsets = _by_topic(self._merger.positions)[self._stream.topics.feedback]
        wanted = (machine.version, offsets)
        if wanted == self._published or not machine.counts.updates:
            return
        started = time.monotonic()
        info = SnapshotInfo(
            version=machine.version,
            epoch=self._epoch,
            model=machine.classifier.spec,
            config=machine.classifier.config(),
            labels=machine.classifier.labels,
            labels_learned=machine.counts.labels_learned,
            feedback_offsets=offsets,
            published_at=time.time(),
        )
        self._publisher.publish(machine.classifier, info)
        self._published = wanted
        now = time.monotonic()
        self._snapshot_s = now - started
        self._next_snapshot = now + max(self._settings.publish_interval_s, self._snapshot_s / PUBLISH_SHARE)

    def _checkpoint(self) -> None:
        started = time.monotonic()
        self._outbox.flush()
        machine, positions = self._machine, self._merger.positions
        manifest = Manifest(
            batch=self._batch,
            epoch=self._epoch,
            lineage=machine.lineage,
            model=machine.classifier.spec,
            config=machine.classifier.config(),
            rules=machine.rules,
            labels=machine.classifier.labels,
            positions=_by_topic(positions),
            clocks=_by_topic(self._merger.clocks),
            counts=machine.counts,
            join_counts=machine.join.counts,
            alarms=machine.alarms,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        state = Checkpoint(
            manifest,
            machine.classifier.state(),
            machine.progress.state(),
            machine.drift.state(),
            machine.join.state(),
        )
        checkpoints.save_checkpoint(self._checkpoints, state)
        self._checkpoint_batch = self._batch
        self._begin_journal()
        if self._batch:
            self._committer.submit(self._commit, positions)
        oldest = checkpoints.prune(self._checkpoints)
        journals.prune(self._journals, oldest)
        now = time.monotonic()
        self._checkpoint_s = now - started
        self._next_checkpoint = now + self._settings.checkpoint_interval_s
        _LOG.info("checkpoint %d: %d labels learned, %.3f s", self._batch, machine.counts.labels_learned, now - started)

    def _commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Tell lag tools. In a thread: nothing depends on it, and a group's first commit takes Kafka a second."""
        try:
            self._log.commit(self._settings.group, positions)
        except LogError as error:
            _LOG.warning("positions were not committed: %s", error)

    def _begin_journal(self) -> None:
        path = journals.path_of(self._journals, self._checkpoint_batch, self._epoch)
        old = getattr(self, "_journal", None)
        self._journal = Journal(
            path, Head(self._checkpoint_batch, self._epoch, self._machine.rules, list(self._merger.positions))
        )
        if old is not None:
            old.close()

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
            positions=_by_topic(self._merger.positions),
            progress=machine.progress.summary(machine.classifier.labels),
            drift=machine.alarms,
            checkpoint=self._checkpoint_batch,
            batch=self._batch,
            window_bytes=machine.join.n_bytes,
            checkpoint_seconds=self._checkpoint_s,
            snapshot_seconds=self._snapshot_s,
        )

    def _report(self, state: State, detail: str = "") -> None:
        write_status(self._stream.data, self.status(state, detail))
        self._next_status = time.monotonic() + STATUS_INTERVAL_S


def _log_alarms(alarms: list[Alarm]) -> None:
    """Say a batch's alarms, not more lines than a reader takes in: who labels at random could fill a disk."""
    for alarm in sorted(alarms, key=lambda alarm: alarm.change == "better")[:LOGGED_ALARMS]:
        _LOG.log(logging.WARNING if alarm.change == "worse" else logging.INFO, "%s", alarm)
    if len(alarms) > LOGGED_ALARMS:
        _LOG.info("drift: %d more alarms in this batch; GET /model has the last", len(alarms) - LOGGED_ALARMS)


def _by_topic(offsets: Mapping[TopicPartition, int]) -> Offsets:
    found: Offsets = {}
    for partition, offset in offsets.items():
        found.setdefault(partition.topic, {})[str(partition.partition)] = offset
    return found


def _partitions(offsets: Offsets) -> dict[TopicPartition, int]:
    return {
        TopicPartition(topic, int(number)): offset
        for topic, of_topic in offsets.items()
        for number, offset in of_topic.items()
    }
