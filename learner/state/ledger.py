"""What of a learner's work is on the disk, and when does more of it get there?

Each batch's entry in the journal, durable before anything of the batch is seen outside; now and then a checkpoint,
behind which a new journal begins. A checkpoint is of one moment between two batches, and is on the disk a little later,
while the loop goes on (saver.py). It counts only once a look at the log, asked for after its last record, has confirmed
that its records come from the topics that are known (watch.py).

A disk that is full is waited for in each of these (full.py).
"""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable
from driftline.learner.disk import journal as journals
from driftline.learner.disk.checkpoint import Checkpoint, JournalMark, Manifest
from driftline.learner.disk.full import DiskRoom
from driftline.learner.disk.journal import Applied, Head, Journals
from driftline.learner.disk.positions import compare
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.machine.plan import Plan
from driftline.learner.machine.restore import marks, watched
from driftline.learner.quality.figures import Counts
from driftline.learner.quality.progress import RECENT_LABELS
from driftline.learner.rebuild import bases
from driftline.learner.serving.versions import Recent, Versions
from driftline.learner.shared import applied
from driftline.learner.state.committer import Committer
from driftline.learner.state.saver import Saver
from driftline.learner.state.state import LearnerState
from driftline.learner.state.watch import Watch
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.learner.store.stored import Stored
from driftline.learner.store.upload_report import UploadReport
from driftline.learner.store.uploads import Uploads
from driftline.stream.errors import StateError
from driftline.stream.log.base import Log, TopicPartition
from driftline.stream.log.merge import Span
from driftline.stream.process.settings import StreamSettings

# How long a checkpoint waits for what was sent, and for a look at the log, before it is put off.
FLUSH_S: Final = 3.0
CONFIRM_S: Final = 2.0
COMMIT_S: Final = 2.0  # at the end, for lag tools to be told
UPLOAD_S: Final = 10.0  # at the end, for the last checkpoint to be in the store
_LOG: Final = logging.getLogger(__name__)


def _epoch_of(name: str) -> int:
    """Return whose a half-written checkpoint, journal or status is, by its name; 0: of none of these."""
    found = re.search(r"-(\d{8})(?:\.journal)?$", name)
    return int(found[1]) if found else 0


class SharedJournal(Protocol):
    """A journal in the log, by which several learners go: cluster/log_journal.py."""

    epoch: int  # by its order, of this learner

    def check(self) -> None: ...
    def saved(self, path: Path) -> None: ...
    def restart(self, path: Path, why: str) -> None: ...
    def gate(self, batch: int, why: str) -> None: ...
    def trim(self, stored: Stored, manifest: Manifest) -> None: ...
    def begin(self, head: Head) -> None: ...
    def append(
        self, batch: int, delivered: int, spans: Sequence[Span], learned: tuple[Plan | None, Counts]
    ) -> None: ...
    def look(self) -> None: ...
    def mark(self, batch: int, lineage: str) -> JournalMark: ...
    def settle(self) -> None: ...
    def close(self) -> None: ...


class Ledger:
    """Writes work down. One thread.

    Parameters
    ----------
    stream : the data directory, and where copies of the checkpoints go
    settings : how often, how many models of the past are kept, the group that lag tools see
    log : for those
    watch : confirms checkpoints
    room : what is waited for where the disk is full
    check : raises where this learner was overtaken
    journal : one that others lead by, too; None: one on the disk

    Attributes
    ----------
    epoch : of all that is written
    batch : of the newest checkpoint, which may be under way
    pause_s : how long the loop stood still for it
    store : where copies of the checkpoints go; None: nowhere
    """

    def __init__(
        self,
        stream: StreamSettings,
        settings: LearnerSettings,
        log: Log,
        watch: Watch,
        room: DiskRoom,
        check: Callable[[], None],
        journal: SharedJournal | None = None,
    ) -> None:
        data = stream.data
        self._data, self._checkpoints, self._journals = data, data / "checkpoints", data / "journal"
        self._settings, self._watch, self._room, self._check = settings, watch, room, check
        self._committer = Committer(log, settings.group)
        self._versions = Versions(data, shared=journal is not None)
        self._shared = journal
        self._journal: Journals | SharedJournal = journal or Journals(self._journals)
        self._saver = Saver(data, check, settings.keep_bases)
        self._uploads: Uploads | None = None
        self.store: CheckpointStore | None = None
        if stream.checkpoints is not None:
            self.store = CheckpointStore(stream.checkpoints)
            every, keep = settings.upload_every, settings.keep_uploads
            kept = journal.trim if journal is not None else lambda *_: None
            self._uploads = Uploads(self.store, data, every=every, keep=keep, check=check, kept=kept)
        self._next = 0.0
        self._told = 0  # the newest checkpoint of which the others know, or need to know nothing
        self.epoch = self.batch = 0
        self.pause_s = 0.0

    @property
    def saved_batch(self) -> int:
        """Of the newest checkpoint that is on the disk."""
        return self._saver.batch

    @property
    def seconds(self) -> float:
        """How long that took, from the copy to the last fsync."""
        return self._saver.seconds

    @property
    def uploads(self) -> UploadReport | None:
        """How far the store is behind the disk; None where there is none."""
        return None if self._uploads is None else self._uploads.report

    # For a recovery.

    def settle(self, last: int) -> None:
        """Make durable what lies there: who wrote it may have been killed before its fsync.

        `last` : the last epoch of which nobody is at work any more
        """
        applied.leave(self._data)  # it may have been one of several before
        for directory in (self._checkpoints, self._journals):
            durable.make_directory(directory)
            durable.remove_partial(directory, _epoch_of, last)
        for directory in (self._data, self._data / bases.DIRECTORY):
            if directory.exists():
                durable.remove_partial(directory, _epoch_of, last)
        durable.sync_directory(self._checkpoints)
        journals.settle(self._journals)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that holds, None where there is none. Raises StateError."""
        return checkpoints.load_newest(self._checkpoints)

    def begin_epoch(self, newest: Checkpoint | None, announced: int) -> int:
        """Return the epoch of what is written from now on: higher than any before, whatever a torn file says."""
        known = newest.manifest.epoch if newest else 0
        self.epoch = 1 + max(self.epoch, announced, journals.last_epoch(self._journals), known)
        return self.epoch

    def begin_above(self, epoch: int) -> None:
        """Have the next epoch be higher than this one, too: of the checkpoints in the store."""
        self.epoch = max(self.epoch, epoch)

    def take_up(self, newest: Checkpoint) -> list[Applied]:
        """Go on behind a checkpoint; return the batches that were applied since. Raises StateError."""
        batch = newest.manifest.batch
        self._check()
        checkpoints.set_aside_newer(self._checkpoints, batch, self.epoch)
        self.batch = self._saver.batch = batch
        return journals.read_since(self._journals, batch)

    def lead(self, work: LearnerState, epoch: int) -> None:
        """Go on from what a standby has; a checkpoint of it is due."""
        self.epoch, self.batch = epoch, work.batch - 1
        self._saver.batch = self._told = self.batch
        self._saver.copy(work.machine.classifier.state())
        self._saver.positions = work.positions

    def resume(self, work: LearnerState) -> None:
        """Begin a journal behind the checkpoint that is there already."""
        self.begin_journal(work)
        self._saver.copy(work.machine.classifier.state())
        self._saver.positions = work.positions
        self._upload(work.batch)  # one that is there is left as it is
        self._next = time.monotonic() + self._settings.checkpoint_interval_s

    def reopen(self) -> None:
        """Leave what is under way, and be as at the start."""
        self.forget_model()
        self._journal.close()
        self._journal = Journals(self._journals)

    def forget_model(self) -> None:
        """Let go of the copies of a model that another one takes the place of; no checkpoint may count any more."""
        self._saver.close()
        self._saver = Saver(self._data, self._check, self._settings.keep_bases)

    # The journal.

    def begin_journal(self, work: LearnerState) -> None:
        """Have the entries from now on go into a new journal."""
        machine = work.machine
        head = Head(work.batch, self.epoch, machine.rules, list(work.positions), machine.lineage)
        self._room.wait_for(lambda: self._journal.begin(head))

    def append(self, work: LearnerState, spans: Sequence[Span], plan: Plan | None = None) -> None:
        """Write a batch down, and return once that is durable."""
        delivered, learned = work.outbox.delivered, (plan, work.machine.counts)
        self._room.wait_for(lambda: self._journal.append(work.batch, delivered, spans, learned))

    def pass_batch(self, work: LearnerState) -> None:
        """Count a batch without records: something else changed, and the checkpoint that follows has it."""
        work.batch += 1
        self.append(work, [])
        work.outbox.send(work.batch, {})

    # Checkpoints.

    def look(self) -> None:
        """See how far the checkpoint and the journal are that are under way. Raises what ended them."""
        self._room.wait_for(self._saver.look)
        self._room.wait_for(self._journal.look)
        self._tell_saved()

    def is_due(self, now: float) -> bool:
        """Tell whether it is time for a checkpoint."""
        return now >= self._next

    def begin(self, work: LearnerState) -> None:
        """Have a checkpoint made where anything is new and none is under way; the loop goes on."""
        if work.batch > self.batch and not self._saver.busy:
            self._ask(work)

    def confirm(self) -> None:
        """Say that the topics were those that are known when the checkpoint under way was copied."""
        self._saver.confirm()

    def stay_above(self, work: LearnerState) -> None:
        """Have a checkpoint be due where a replay would need records that the log no longer has."""
        positions = work.positions
        for partition, mark in marks(work.known).items():
            saved = self._saver.positions[partition]
            if saved < mark.low and saved < positions[partition] and not self._saver.busy:
                if work.batch == self.batch:
                    self.pass_batch(work)
                self._next = 0.0

    def save(self, work: LearnerState, waiting: Callable[[], None]) -> bool:
        """Write a checkpoint of everything; tell whether there is one now. `waiting` is called now and then."""
        if not self._finish(work, waiting):
            return False
        if work.batch == self.batch:
            return True
        self._ask(work)
        return self._finish(work, waiting)

    def save_now(self, work: LearnerState, waiting: Callable[[], None]) -> None:
        """Write a checkpoint of what is known to come from the topics that are known."""
        self._checkpoint(work)
        self._saver.confirm()
        self._room.wait_for(lambda: self._saver.wait(waiting))
        self._told = self._saver.batch  # it may be of a model that only this learner has: they go on from it

    def go_on_from_here(self, work: LearnerState, why: str) -> None:
        """Have all who go by the same journal go on from the checkpoint that was just saved."""
        if self._shared is not None:
            self._shared.restart(checkpoints.path_of(self._checkpoints, work.batch), why)

    def tell_gate(self, work: LearnerState, why: str) -> None:
        """Tell them why the newest model is not to be served, or nothing."""
        if self._shared is not None:
            self._shared.gate(work.batch, why)

    def finish(self) -> None:
        """Wait for the journal that is being made, and a while for the last checkpoint to be in the store."""
        self._journal.settle()
        if self._uploads is None or not self.path_of(self.saved_batch).exists():
            return
        if self._uploads.report.batch != self.saved_batch:
            self._upload(self.saved_batch)
        if not self._uploads.finish(UPLOAD_S):
            why = self._uploads.report.why or f"it is still on its way after {UPLOAD_S:g} s"
            said = "checkpoint %d is not in %s: %s. It is on the disk, and goes there at the next start"
            _LOG.warning(said, self.saved_batch, self._uploads.store.where, why)

    def close(self) -> None:
        """Leave a checkpoint that waits; wait for what is being written, and a little for lag tools to be told."""
        self._saver.close()
        self._journal.close()
        if self._uploads is not None:
            self._uploads.close()
        self._committer.close(COMMIT_S)

    def _ask(self, work: LearnerState) -> None:
        """Make a checkpoint of records that come from the topics that are known: so a look has to find."""
        self._watch.ask(work.standing())
        self._checkpoint(work)

    def _finish(self, work: LearnerState, waiting: Callable[[], None]) -> bool:
        """Wait a little for the checkpoint under way; tell whether it is on the disk, or none was under way."""
        if not self._saver.busy:
            return True
        if not work.outbox.flush(FLUSH_S, waiting):
            return False
        if not self._saver.confirmed:
            look = self._watch.answer(CONFIRM_S)
            if look is None or compare(look.standing, look.log).new_topics:
                self._watch.hurry()
                return False
            work.see(look.log)
            self._saver.confirm()
        self._room.wait_for(self._saver.wait)
        self._tell_saved()
        return True

    def _tell_saved(self) -> None:
        """Tell all who go by the same journal what the model is of a checkpoint that is on the disk now."""
        if self._shared is not None and self._saver.batch > self._told:
            self._told = self._saver.batch
            self._shared.saved(self.path_of(self._told))

    def _checkpoint(self, work: LearnerState) -> None:
        """Copy the state, begin a new journal, and let the rest be done while the loop goes on."""
        started = time.monotonic()
        machine, progress, positions = work.machine, work.machine.progress, work.positions
        manifest = work.manifest(self.epoch)
        if self._shared is not None:
            manifest.journal = self._shared.mark(work.batch, machine.lineage)
        model = self._saver.copy(machine.classifier.state())
        state = Checkpoint(manifest, model, progress.state(), watched(machine), [])
        windows = machine.join.freeze()
        self.batch = work.batch
        self.begin_journal(work)
        recent = Recent(min(progress.labels, RECENT_LABELS), progress.recent_accuracy, progress.recent_log_loss)
        lows = {partition: mark.low for partition, mark in marks(work.known).items()}
        self._saver.start(state, windows, positions, work.outbox, partial(self._saved, manifest, recent), lows)
        now = time.monotonic()
        self.pause_s = now - started
        self._next = now + self._settings.checkpoint_interval_s

    def _saved(self, manifest: Manifest, recent: Recent, positions: Mapping[TopicPartition, int]) -> None:
        """Tell whoever wants to know, and keep the model; in the saver's thread."""
        batch, settings = manifest.batch, self._settings
        if batch:
            self._committer.tell(positions)
        path = self.path_of(batch)
        try:
            number, n_bytes = settings.keep_snapshots, settings.keep_snapshots_bytes
            self._versions.keep(path, manifest, recent, number, n_bytes, self._check)
        except StateError as error:  # a full disk, or who has the lock stands still
            _LOG.warning("the model of checkpoint %d is not kept to be served again: %s", batch, error)
        _LOG.info("checkpoint %d is on the disk; the loop stood still for %.3f s", batch, self.pause_s)
        self._upload(batch, manifest)

    def path_of(self, batch: int) -> Path:
        """Return where the checkpoint of a batch lies."""
        return checkpoints.path_of(self._checkpoints, batch)

    def _upload(self, batch: int, manifest: Manifest | None = None) -> None:
        """Have a checkpoint of the disk be in the store, too: where its turn has come, or, without a manifest, anyway.

        A disk that is full, or fails, keeps nothing of the learner's own from going on here: it is told.
        """
        if self._uploads is None:
            return
        path = self.path_of(batch)
        try:
            found = manifest or checkpoints.load_manifest(path)
            self._uploads.offer(path, found, due=manifest is None)
        except (StateError, OSError) as error:
            _LOG.warning("checkpoint %d does not go to %s: %s", batch, self._uploads.store.where, error)
