"""What does a learner have in its hands between two batches?

All that a recovery gives and a checkpoint holds: the model, how far it has read, what it has sent, what it knows of the
log. A recovery makes it (recovery.py), the loop changes it (loop.py), the ledger writes it down (ledger.py).
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from driftline.learner.disk.checkpoint import Manifest
from driftline.learner.disk.losses import Erasures, Losses
from driftline.learner.disk.positions import Standing, Stock
from driftline.learner.disk.rebuilt import Rebuilt
from driftline.learner.disk.settings import Rules
from driftline.learner.machine.machine import Machine
from driftline.learner.machine.restore import describe, marks
from driftline.learner.quality.figures import Offsets
from driftline.learner.serving.publishing import Newest
from driftline.learner.state.outbox import Outbox
from driftline.stream.log.base import Reader, TopicPartition, TopicState, Watermarks
from driftline.stream.log.merge import Merger
from driftline.stream.log.transactions import held_back

_LOG = logging.getLogger(__name__)


@dataclass(kw_only=True)
class LearnerState:
    """A model, and where it stands. One thread, but for `lag`.

    Attributes
    ----------
    readers : of the merger, to be closed with it
    known : what the log was when it was looked at last; replaced whole
    batch : the last one that was taken
    losses : what was lost, and accepted
    rebuilt : from what the model was built anew
    begun : where the first records were of what it has learned
    erased : what was erased on purpose
    held_back : how many offsets of which partitions cannot be read before a transaction ends
    """

    machine: Machine
    readers: Sequence[Reader]
    merger: Merger
    outbox: Outbox
    known: Mapping[str, TopicState]
    batch: int = 0
    losses: Losses = field(default_factory=Losses)
    rebuilt: Rebuilt | None = None
    begun: Offsets = field(default_factory=dict)
    erased: Erasures = field(default_factory=Erasures)
    held_back: Mapping[TopicPartition, int] = field(default_factory=dict)

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The next offset of each partition."""
        return self.merger.positions

    @property
    def newest(self) -> Newest:
        """The model as readers may see it."""
        machine, counts = self.machine, self.machine.counts
        why_not = machine.gate.report().why if machine.gate.shut else ""
        return Newest(machine.classifier, machine.version, counts.updates, counts.labels_learned, why_not)

    @property
    def lag(self) -> int:
        """How many records wait, as far as the last look at the log saw: of what can be read. Any thread."""
        positions = self.positions
        return sum(max(0, mark.high - positions[partition]) for partition, mark in marks(self.known).items())

    def reached(self, until: Mapping[TopicPartition, Watermarks]) -> bool:
        """Tell whether it has come to the end, or to these watermarks, also of partitions that it does not read yet."""
        positions = self.positions
        left = {partition for partition, mark in until.items() if positions.get(partition, 0) < mark.high}
        return not left or (self.merger.at_end and left <= positions.keys())

    def standing(self) -> Standing:
        """Return what the log is to be compared with."""
        positions = self.positions
        ends = {partition: mark.high for partition, mark in marks(self.known).items()}
        return Standing(positions, positions, ends, {topic: state.identity for topic, state in self.known.items()})

    def see(self, log: Mapping[str, TopicState]) -> None:
        """Take note of what the log is now. A partition that was added is known once it is read: by a recovery."""
        positions = self.positions
        seen = {topic: log[topic] for topic in self.known}
        self.held_back = held_back(self.known, seen)
        self.known = {
            topic: state._replace(
                watermarks={p: mark for p, mark in state.watermarks.items() if TopicPartition(topic, p) in positions}
            )
            for topic, state in seen.items()
        }

    def obey(self, rules: Rules) -> None:
        """Go by these rules from the next batch on."""
        self.machine.obey(rules)
        self.merger.obey(rules.clock)

    def accept(self, stock: Stock) -> None:
        """Take note, in this batch, of what is lost and of partitions that are new."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for loss in stock.losses:
            self.losses.add(msgspec.structs.replace(loss, batch=self.batch, accepted_at=now))
            _LOG.warning("accepted: %s", loss)
        if stock.added:
            _LOG.warning("partitions were added: %s", ", ".join(map(str, stock.added)))

    def manifest(self, epoch: int) -> Manifest:
        """Return the manifest of all this; what of it may change is copied."""
        merger = self.merger
        made = describe(self.machine, self.batch, epoch, merger.positions, merger.clocks, merger.clock, self.known)
        made.losses, made.rebuilt, made.begun = copy.deepcopy(self.losses), self.rebuilt, self.begun
        made.erased = self.erased
        return made

    def close(self) -> None:
        """Read no more."""
        for reader in self.readers:
            reader.close()
