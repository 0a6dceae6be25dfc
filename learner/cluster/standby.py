"""How does a learner keep ready to lead?

It begins with the newest checkpoint that belongs to the journal, and applies every batch that the journal names, as the
leader did: so it has all that the leader has, and needs nothing more once it is chosen. What the leader sent out is
kept here for as long as it may not have arrived; with the lead it is sent again, with the same content.

Where a digest of the leader's model is another one than that of the model here, or the log no longer has what the
journal names, or a checkpoint is to be gone on from, this state is thrown away for the newest checkpoint in the store.
"""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from driftline.learner.cluster.entries import Batch, Claim, Digest, Entry, Mark, Restart
from driftline.learner.cluster.log_journal import LogJournal
from driftline.learner.disk.checkpoint import Checkpoint, lay_out, sha256
from driftline.learner.disk.journal import Applied
from driftline.learner.disk.positions import Stock
from driftline.learner.disk.settings import LearnerSettings, Rules
from driftline.learner.loop import recovery
from driftline.learner.machine.outputs import Outputs
from driftline.learner.models.classifier import State
from driftline.stream.errors import BeginAnew, OffsetsLost
from driftline.stream.log.base import Log
from driftline.stream.process.settings import StreamSettings

KEPT_MARKS: Final = 4
_LOG: Final = logging.getLogger(__name__)


class Standby:
    """A learner's state, as far as the journal was followed. One thread.

    Parameters
    ----------
    base : the checkpoint to begin with; it belongs to the journal
    journal : from there on
    on_wait : called while records are waited for

    Attributes
    ----------
    work : the state
    stock : what was found of the log, compared with the checkpoint
    differed : of a digest that was another one: the batch; None
    """

    def __init__(
        self,
        base: Checkpoint,
        journal: LogJournal,
        log: Log,
        stream: StreamSettings,
        settings: LearnerSettings,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.work, self.stock, _ = recovery.restored(base, [], log, stream, settings)
        if base.manifest.journal is not None:
            self.work.machine.renew(base.manifest.journal.lineage)
        self._journal, self._topics, self._on_wait = journal, stream.topics, on_wait
        self._replay = recovery.Replay(self.work, accept_loss=settings.accept_loss)
        self._base = base.manifest.epoch, base.manifest.batch
        self._delivered = base.manifest.batch
        self._kept: deque[tuple[int, Outputs]] = deque()  # what may not have arrived
        self._hasher = ThreadPoolExecutor(1, "digest")
        self._marks: dict[int, Future[str]] = {}
        self.differed: int | None = None

    def turn(self, timeout_s: float) -> int:
        """Apply what stands in the journal; return how many entries that were, after a wait where it is none.

        Raises
        ------
        BeginAnew : what is here does not lead any further.
        """
        entries = self._journal.read(timeout_s)
        for entry in entries:
            self.follow(entry)
        return len(entries)

    def follow(self, entry: Entry) -> None:
        """Do what the leader did. Raises BeginAnew."""
        machine = self.work.machine
        if isinstance(entry, Claim):
            machine.renew(entry.lineage)
            if entry.rules != machine.rules:
                self.work.obey(entry.rules)
        elif isinstance(entry, Batch):
            self._apply(entry)
        elif isinstance(entry, Mark):
            self._take_digest(entry.batch)
        elif isinstance(entry, Digest):
            self._compare(entry)
        elif isinstance(entry, Restart) and (entry.epoch, entry.batch) != self._base:
            raise BeginAnew(f"the leader goes on from the checkpoint of batch {entry.batch}: {entry.why}")

    def lead(self, rules: Rules, lineage: str) -> Stock:
        """Claim the lead, and be at the journal's end then; return what was found of the log at the beginning.

        Raises
        ------
        Overtaken : another one's claim came first; this one goes on following.
        BeginAnew : what is here does not lead any further.
        """
        self._journal.claim(rules, lineage, self.follow)
        work = self.work
        work.machine.renew(lineage)
        work.obey(rules)
        for batch, outputs in self._kept:
            while work.outbox.full:
                work.outbox.wait(recovery.POLL_S)
                self._on_wait()
            work.outbox.send(batch, outputs)
        work.outbox.send(work.batch, {})
        self._kept.clear()
        return self.stock

    def close(self) -> None:
        """Read no more."""
        self._hasher.shutdown(cancel_futures=True)
        self.work.close()

    def _apply(self, entry: Batch) -> None:
        machine = self.work.machine
        applied = Applied(entry.batch, entry.delivered, entry.spans_of(self._topics), machine.rules, machine.lineage)
        try:
            outputs = self._replay.apply(applied, self._on_wait)
        except OffsetsLost as error:
            raise BeginAnew(f"the log no longer has what batch {entry.batch} was: {error}") from error
        except KeyError as error:
            raise BeginAnew(f"batch {entry.batch} has records of a partition that was added: {error}") from None
        if outputs is None:
            raise BeginAnew(f"the log no longer has all that batch {entry.batch} was")
        if machine.counts.updates != entry.updates:
            raise BeginAnew(
                f"batch {entry.batch} taught {machine.counts.updates:,} labels here, and the leader {entry.updates:,}"
            )
        self._delivered = max(self._delivered, entry.delivered)
        if any(outputs.values()):
            self._kept.append((entry.batch, outputs))
        while self._kept and self._kept[0][0] <= self._delivered:
            self._kept.popleft()

    def _take_digest(self, batch: int) -> None:
        copy = {name: array.copy() for name, array in self.work.machine.classifier.state().items()}
        self._marks[batch] = self._hasher.submit(digest, copy)
        while len(self._marks) > KEPT_MARKS:
            self._marks.pop(next(iter(self._marks))).cancel()

    def _compare(self, entry: Digest) -> None:
        own = self._marks.pop(entry.batch, None)
        if own is not None and own.result() != entry.sha256:
            self.differed = entry.batch
            raise BeginAnew(
                f"the model here is another one than the leader's after batch {entry.batch}: {own.result()[:16]}, and "
                f"{entry.sha256[:16]} there"
            )


def digest(state: State) -> str:
    """Return the SHA-256 of a model's file, as a checkpoint has it."""
    return sha256(lay_out(state))
