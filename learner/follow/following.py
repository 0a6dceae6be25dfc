"""What does a follower do with an entry of the journal?

    Batch     learns what was learned; where that does not follow from what is here, it begins anew
    Claim     what is learned from here on has another lineage; who leads may be of another kind of processor
    Mark      takes a digest of its model, and at the Digest that follows compares the leader's
    Gate      while it is shut nothing newer is to be served
    Restart   what follows does not follow from what is here: it begins anew, with that checkpoint or a newer one

One that goes by checkpoints learns nothing from a Batch, and is behind from the first one on.
"""

import logging
import time
from typing import Final

from driftline.learner.cluster.entries import Batch, Claim, Digest, Entry, Gate, Mark, Restart
from driftline.learner.follow.journal_reader import JournalReader
from driftline.learner.follow.model import FollowedModel
from driftline.learner.report.follow_report import FollowReport
from driftline.stream.errors import BeginAnew

KEPT_MARKS: Final = 4
DIGEST_SHARE: Final = 0.1  # of its time that a follower takes for digests, at most
_LOG: Final = logging.getLogger(__name__)


class Differs(BeginAnew):
    """The model here is another one than the leader's."""


class OtherLeader(BeginAnew):
    """Another one leads than the one whose models come out differently here."""


class NewBase(BeginAnew):
    """Only a checkpoint of this epoch and batch, or a later one, leads any further."""

    def __init__(self, why: str, epoch: int, batch: int) -> None:
        super().__init__(why)
        self.above = epoch, batch


class Following:
    """A model, and the journal behind it. One thread.

    Parameters
    ----------
    report : what is counted is counted there

    Attributes
    ----------
    shut : why the newest model is not to be served; ""
    knows : whether all was read that a checkpoint is followed by at once: whether the gate is shut
    caught_up : whether it was at the journal's end, or near it
    agreed : whether a digest was compared, and was the leader's
    """

    def __init__(self, model: FollowedModel, journal: JournalReader, report: FollowReport) -> None:
        self.model, self.journal, self._report = model, journal, report
        self.shut = ""
        self.knows = self.caught_up = self.agreed = False
        self._left_out: tuple[int, int] | None = None  # the first batch that was: its offset, its time
        self._base = model.epoch, model.batch
        self._digests: dict[int, str] = {}  # by the batch of their mark
        self._next_digest = 0.0

    @property
    def place(self) -> tuple[int, int | None]:
        """Up to which offset of the journal this is, and when the log took what lies before it (ms)."""
        return self._left_out or (self.journal.offset, self.journal.time_ms)

    def turn(self, timeout_s: float) -> int:
        """Do what stands in the journal; return how many entries that were, after a wait where it is none.

        Raises
        ------
        BeginAnew : what is here does not lead any further.
        OffsetsLost : the journal no longer has what follows.
        """
        entries = self.journal.read(timeout_s)
        for offset, time_ms, entry in entries:
            self._follow(offset, time_ms, entry)
        self._report.void = self.journal.order.n_void
        at_end = self.journal.at_end
        self.knows = self.knows or bool(entries) or at_end
        self.caught_up = self.caught_up or at_end
        return len(entries)

    def _follow(self, offset: int, time_ms: int, entry: Entry) -> None:
        if isinstance(entry, Batch):
            if self._report.by == "checkpoints":
                self._left_out = self._left_out or (offset, time_ms)
            else:
                self._learn(entry)
        elif isinstance(entry, Claim):
            if self._report.by == "checkpoints":
                raise OtherLeader(f"{entry.holder} leads")
            self.model.renew(entry)
        elif isinstance(entry, Mark):
            self._take_digest(entry.batch)
        elif isinstance(entry, Digest):
            self._compare(entry)
        elif isinstance(entry, Gate):
            self.shut = entry.why
        elif isinstance(entry, Restart) and (entry.epoch, entry.batch) != self._base:
            why = f"the leader goes on from the checkpoint of batch {entry.batch}: {entry.why}"
            raise NewBase(why, entry.epoch, entry.batch)

    def _learn(self, entry: Batch) -> None:
        try:
            self.model.learn(entry)
        except BeginAnew as error:
            raise NewBase(str(error), entry.epoch, entry.batch) from error

    def _take_digest(self, batch: int) -> None:
        """Take it where there was time enough since the last one: it costs a read of all the model's memory."""
        began = time.monotonic()
        if self._left_out is not None or began < self._next_digest:
            return
        self._digests[batch] = self.model.digest()
        now = time.monotonic()
        self._next_digest = now + (now - began) / DIGEST_SHARE
        while len(self._digests) > KEPT_MARKS:
            del self._digests[next(iter(self._digests))]

    def _compare(self, entry: Digest) -> None:
        own = self._digests.pop(entry.batch, None)
        if own is None:
            return
        self._report.digests += 1
        if own != entry.sha256:
            self._report.differed += 1
            raise Differs(
                f"the model here is another one than the leader's after batch {entry.batch}: {own[:16]}, and "
                f"{entry.sha256[:16]} there"
            )
        self.agreed = True
