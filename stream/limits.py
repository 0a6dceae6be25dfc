"""What may wait for its label, and what became of what waited? Only numbers: whoever shows them needs nothing else."""

from typing import Final, NamedTuple

import msgspec

# Why a label left without its message: it had waited as long as one may, or too many did, or they weighed too much.
ORPHANED_BY: Final = ("age", "number", "bytes")
MOST: Final = 1 << 61  # of any limit, time or weight: sums of two stay in 64 bits


class Limits(NamedTuple):
    """What may wait: a number of messages, their bytes, and their age. Of all partitions together."""

    messages: int
    n_bytes: int
    age_ms: int

    def share(self, part: float) -> "Limits":
        """Return these limits for a part of the stream; age stays."""
        return Limits(max(1, int(self.messages * part)), max(1, int(self.n_bytes * part)), self.age_ms)


class JoinCounts(msgspec.Struct, array_like=True):
    """What happened at the window since the first record."""

    duplicates: int = 0  # messages with an id and a text that were there
    repeated: int = 0  # labels known already: the same feedback again, or what the message's label is
    corrected: int = 0
    retracted: int = 0
    early: int = 0
    expired: int = 0  # messages that left without a label
    orphaned: int = 0  # labels that left without their message
    orphaned_by: dict[str, int] = msgspec.field(default_factory=dict)  # the same, by the limit that they met
    other_texts: int = 0  # messages and labels that brought another text than their message's id had
    reused_ids: int = 0  # feedback ids that came again with something else to say
    ambiguous: int = 0  # labels without a text, refused: their message's id has several

    def orphan(self, reason: str, labels: int) -> None:
        """Count labels that leave without their message."""
        self.orphaned += labels
        self.orphaned_by[reason] = self.orphaned_by.get(reason, 0) + labels


class ClockRule(NamedTuple):
    """How far a record may move a clock.

    max_jump_ms : None: every timestamp is believed
    only_votes : the rule of versions that knew of nothing but 1, without the stretch, and of VOTES votes
    """

    max_jump_ms: int | None = None
    only_votes: bool = False
