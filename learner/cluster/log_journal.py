"""How does a journal lie in the log?

Who leads appends an entry and reads it back: only then, and where no claim of a higher epoch stands before it, may
anything of its batch be seen. So the order of the journal decides who leads, not a clock and not a lock: a leader that
stood still, or was cut off, finds the other's claim before its own entry (cluster/order.py says what counts).
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Final

from driftline.learner.cluster.entries import (
    Batch,
    Claim,
    Digest,
    Entry,
    Gate,
    HandOver,
    Mark,
    Restart,
    encode,
    lessons,
)
from driftline.learner.cluster.order import Order
from driftline.learner.disk.checkpoint import JournalMark, Manifest, read_sums
from driftline.learner.disk.journal import Head
from driftline.learner.disk.settings import Rules
from driftline.learner.machine.plan import Plan
from driftline.learner.quality.figures import Counts
from driftline.learner.store.stored import Stored
from driftline.stream.errors import LogUnavailable, Overtaken, StateError
from driftline.stream.log.base import Appended, Log, NewRecord, TopicPartition
from driftline.stream.log.merge import Span
from driftline.stream.wire.records import Topics

MANY: Final = 1000
TURN_S: Final = 0.05
RETRY_S: Final = 0.5
_LOG: Final = logging.getLogger(__name__)


class LogJournal:
    """A journal in the log. One thread, but for `check`.

    Parameters
    ----------
    log, topic : where it lies
    topics : whose records it is about
    order : up to where it was read
    holder : this learner's name
    upload : puts a checkpoint into the store, and returns once it is there
    waiting : called about every RETRY_S while the log does not take or give an entry, with why; may raise

    Attributes
    ----------
    epoch : of this one's claim; 0: it does not lead
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        topics: Topics,
        order: Order,
        holder: str,
        upload: Callable[[Path], None],
        waiting: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._log, self._partition, self._topics, self._waiting = log, TopicPartition(topic, 0), topics, waiting
        self._upload = upload
        self.order, self.holder = order, holder
        self.identity = log.state_of(topic).identity
        self._reader = log.reader({self._partition: order.offset})
        self.epoch = 0
        self._shut = ""  # why the newest model is not to be served, as was said last
        self._asked: HandOver | None = None
        self._overtaken_by: Claim | None = None

    # Whoever follows.

    def read(self, timeout_s: float, most: int = MANY) -> list[Entry]:
        """Return what counts of what is there; wait only while there is nothing. Raises OffsetsLost, LogUnavailable."""
        found = []
        for record in self._reader.read(most, timeout_s):
            entry = self.order.take(record.offset, record.value)
            if isinstance(entry, HandOver) and entry.holder != self.holder:
                self._asked = entry
            elif isinstance(entry, Gate):  # of the leader before, too: it stays so until one says another thing
                self._shut = entry.why
            if entry is not None:
                found.append(entry)
        return found

    def take_asked(self) -> HandOver | None:
        """Return who asked for the lead since the last time."""
        asked, self._asked = self._asked, None
        return asked

    def ask(self, hand_over: HandOver) -> None:
        """Ask for the lead."""
        self._append(hand_over)

    @property
    def at_end(self) -> bool:
        """Whether the last read found no more."""
        return self._reader.at_end(self._partition)

    # Whoever leads.

    def claim(self, rules: Rules, lineage: str, follow: Callable[[Entry], None]) -> Claim:
        """Lead from here on. `follow` is given what counted before the claim, in its order.

        Raises
        ------
        Overtaken : another one's claim came first.
        """
        claim = Claim(self.order.epoch + 1, self.holder, lineage, rules)
        last = self._append(claim)
        won = False
        while self.order.offset <= last:
            for entry in self.read(TURN_S, most=last + 1 - self.order.offset):
                won = won or entry == claim
                if entry != claim:
                    follow(entry)
        if not won:
            raise Overtaken(f"epoch {claim.epoch} is another learner's; its claim came before that of {self.holder}")
        self.epoch, self._asked = claim.epoch, None
        return claim

    def begin(self, head: Head) -> None:
        """Do nothing: this journal has no files. The claim has the rules, and all that follows goes by them."""

    def append(self, batch: int, delivered: int, spans: Sequence[Span], learned: tuple[Plan | None, Counts]) -> None:
        """Write a batch down, and what was learned in it; return once it counts. Raises Overtaken."""
        plan, counts = learned
        numbered = [
            (self._topics.index(span.partition.topic), span.partition.partition, span.start, span.end, span.records)
            for span in spans
        ]
        taught = lessons(plan) if plan is not None else []
        self.say(Batch(self.epoch, batch, delivered, numbered, counts.updates, counts.labels_learned, taught))
        if self.order.batch != batch:
            raise StateError(f"{self._partition}: batch {batch} does not follow batch {self.order.batch}")

    def say(self, entry: Entry) -> None:
        """Write an entry down; return once it is known to count. Raises Overtaken."""
        self.check()
        last = self._append(entry)
        while self.order.offset <= last:
            self.look(TURN_S)
        self.check()

    def look(self, timeout_s: float = 0.0) -> None:
        """See what stands in it now. Raises Overtaken."""
        for entry in self.read(timeout_s):
            if isinstance(entry, Claim) and entry.epoch > self.epoch:
                self._overtaken_by = entry
        self.check()

    def check(self) -> None:
        """Return while nobody else leads, as far as was read. Any thread. Raises Overtaken."""
        if (other := self._overtaken_by) is not None:
            raise Overtaken(
                f"{other.holder} leads since epoch {other.epoch}; this learner, of epoch {self.epoch}, does not"
            )

    def mark(self, batch: int, lineage: str) -> JournalMark:
        """Return up to where it was read, for a checkpoint; say there that one is made. Raises Overtaken."""
        self.say(Mark(self.epoch, batch))
        mark = JournalMark(self.identity, self.order.offset, lineage)
        if self._shut:  # so that who begins with the checkpoint hears of it
            self.say(Gate(self.epoch, batch, self._shut))
        return mark

    def saved(self, path: Path) -> None:
        """Say what the model is of a checkpoint that is on the disk.

        It is not read back: nothing waits for it, and behind another one's claim it counts for nobody. A log that does
        not take it while this learner ends goes without.
        """
        with suppress(LogUnavailable):
            self._append(Digest(self.epoch, int(path.name), read_sums(path)["model.safetensors"]))

    def restart(self, path: Path, why: str) -> None:
        """Have all go on from a checkpoint, once it is in the store. Raises Overtaken."""
        self._upload(path)
        self.say(Restart(self.epoch, int(path.name), why))

    def gate(self, batch: int, why: str) -> None:
        """Say why the newest model is not to be served, or nothing, where that has changed. Raises Overtaken."""
        if why != self._shut:
            self.say(Gate(self.epoch, batch, why))

    def trim(self, stored: Stored, manifest: Manifest) -> None:
        """Let go of what lies before the oldest checkpoint in the store. Any thread. Raises LogUnavailable."""
        del stored
        if manifest.journal is not None and manifest.journal.identity == self.identity:
            self._log.trim(self._partition, manifest.journal.offset)

    def settle(self) -> None:
        """Do nothing: nothing is being made."""

    def close(self) -> None:
        """Read no more."""
        self._reader.close()

    def _append(self, entry: Entry) -> int:
        """Append an entry's records and return the last one's offset. A log that is away is waited for.

        What fails may be in the log all the same. Then it stands there twice, of which the second counts for nobody.
        """
        records = [NewRecord(None, value) for value in encode(entry)]
        while True:
            future = self._log.submit(self._partition.topic, records)
            try:
                return self._await(future)[-1].offset
            except LogUnavailable as error:
                _LOG.warning("an entry of the journal was not taken (%s); sending it again", error)
                self._waiting(str(error))
                time.sleep(RETRY_S)

    def _await(self, future: "Future[Sequence[Appended]]") -> Sequence[Appended]:
        since = time.monotonic()
        while True:
            try:
                return future.result(RETRY_S)
            except TimeoutError:
                self._waiting(f"the log has not taken an entry of the journal for {time.monotonic() - since:.0f} s")
