"""What was lost, and how often?

Plain data: it stands in the checkpoint's manifest, in the status and in GET /model as it is. A loss is a range of a
partition's offsets that the log had, has no longer, and that the learner needed. An offset is a record, but for those
that a transaction's markers or compaction took.
"""

from typing import Final, Literal

import msgspec

RECENT_LOSSES: Final = 20

Why = Literal["retention", "truncated", "recreated", "deleted", "compacted"]

_BECAUSE: Final[dict[Why, str]] = {
    "retention": "dropped by retention or deleted before they were learned",
    "truncated": "the log ends before the last position: it was truncated, or put back from a copy",
    "recreated": "the topic was deleted and made again",
    "deleted": "the topic was deleted",
    "compacted": "compaction took them, or somebody deleted them, after they were learned and before a checkpoint",
}


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Offsets of one partition that are gone."""

    topic: str
    partition: int
    start: int
    end: int  # behind the last one; of a topic truncated, deleted or made again, as far as it was ever seen
    lost: int  # how many of them the model does not hold
    why: Why
    batch: int = 0  # in which it was accepted
    accepted_at: str = ""

    def __str__(self) -> str:
        """Say it in a line: partition, count, range, reason."""
        where = f"{self.topic}[{self.partition}]"
        if self.start == self.end:
            return f"{where}: no record is known to be lost, but {_BECAUSE[self.why]}"
        if self.why == "compacted":
            return (
                f"{where}: {self.lost:,} {'record' if self.lost == 1 else 'records'} lost among offsets {self.start} "
                f"to {self.end - 1} ({_BECAUSE[self.why]})"
            )
        held = self.end - self.start - self.lost
        also = f"; the model holds {held:,} of these {self.end - self.start:,}" if held else ""
        return (
            f"{where}: {self.lost:,} {'record' if self.lost == 1 else 'records'} lost, offsets {self.start} to "
            f"{self.end - 1} are gone{also} ({_BECAUSE[self.why]})"
        )


class Losses(msgspec.Struct):
    """All losses that were accepted; of the last RECENT_LOSSES everything, the newest last."""

    losses: int = 0
    records: int = 0
    by_topic: dict[str, int] = msgspec.field(default_factory=dict)  # records
    recent: list[Loss] = msgspec.field(default_factory=list)

    def add(self, loss: Loss) -> None:
        """Count a loss and keep it for a while."""
        self.losses += 1
        self.records += loss.lost
        self.by_topic[loss.topic] = self.by_topic.get(loss.topic, 0) + loss.lost
        self.recent = [*self.recent, loss][-RECENT_LOSSES:]


class Erasures(msgspec.Struct, frozen=True):
    """How often something was erased, and in which batch last: in the manifests and the status."""

    times: int = 0
    batch: int = 0
    at: str = ""
