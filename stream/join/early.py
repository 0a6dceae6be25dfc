"""What is known of a label that waits for its message?

Of one message a tuple of them, in the order in which they came; never changed, so that who holds one can read on in it.
"""

from typing import Final

import msgspec

from driftline.stream.join.feedback_said import weight_bits
from driftline.stream.join.message_rows import ENTRY_BYTES, ROOM
from driftline.stream.wire.records import Feedback, Rejected

EARLY_BYTES: Final = 3 * ENTRY_BYTES  # what one takes beside its strings: objects, and its place among the others


class Early(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A label that waits for its message, and what goes to the dead-letter topic if that never comes.

    Without an `orphan` it does not wait: it was taken back, or is what took labels back, and is there to be known when
    it comes again.
    """

    feedback: Feedback
    timestamp_ms: int
    orphan: Rejected | None

    @classmethod
    def of(cls, feedback: Feedback, timestamp_ms: int, orphan: Rejected | None) -> "Early":
        """Return a label without what nobody asks of it while it waits: its source may be as long as a record."""
        bare = Feedback(feedback.message_id, feedback.label, feedback.id, feedback.op, feedback.weight)
        return cls(bare, timestamp_ms, orphan)

    def taken_back(self) -> "Early":
        """Return it as one that does not wait any more."""
        return Early(self.feedback, self.timestamp_ms, None)

    @property
    def n_bytes(self) -> int:
        """What it takes in memory."""
        said = self.feedback
        n = 2 * len(said.message_id) + len(said.label) + len(said.id or "")
        if self.orphan is not None:
            n += len(self.orphan.detail) + len(self.orphan.value_start)
        return EARLY_BYTES + ROOM * n


Waiting = tuple[Early, ...]


def find_id(waiting: Waiting, feedback_id: str | None) -> Early | None:
    """Return the last one with a feedback's id, where it has one."""
    same = (each for each in reversed(waiting) if each.feedback.id == feedback_id)
    return None if feedback_id is None else next(same, None)


def say_the_same(one: Feedback, other: Feedback) -> bool:
    """Tell whether two labels of a message say the same of it."""
    return (one.op, one.label, weight_bits(one.weight)) == (other.op, other.label, weight_bits(other.weight))


def is_repeated(waiting: Waiting, feedback: Feedback) -> bool:
    """Tell whether a feedback says again what its id said, or, where it has none, what was said last."""
    known = find_id(waiting, feedback.id)
    if feedback.id is None and waiting and waiting[-1].orphan is not None:
        known = waiting[-1]
    return known is not None and say_the_same(known.feedback, feedback)


def weigh(waiting: Waiting) -> int:
    """Return what they take in memory."""
    return sum(each.n_bytes for each in waiting)
