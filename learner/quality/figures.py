"""Which figures does a learner give of itself?

Types alone, which checkpoints and the status are made of: who only reads a status loads nothing else.
"""

from typing import Literal

import msgspec

Offsets = dict[str, dict[str, int]]  # topic, partition's number as text (JSON has no other keys), offset


class Counts(msgspec.Struct):
    """What happened to records since the first one."""

    messages_seen: int = 0
    labels_seen: int = 0
    labels_learned: int = 0  # corrections included; without what the model refused
    updates: int = 0  # what the model was given to learn: these, what it refused, and expired messages
    rejected: int = 0  # records that went to the dead-letter topic
    tombstones: int = 0
    clock_jumps: int = 0  # timestamps too far from the log's clock to count
    over_quota: int = 0  # labels beyond their source's quota; rejected, too
    unwritten: int = 0  # predictions too large for the log even without scores
    refused: int = 0  # of `updates`, what the model could not learn: an error of its own, a number that was none
    places_given: int = 0  # labels that gave their place to a new one
    vectors_unused: int = 0  # messages with a vector that the model does not take: scored and learned without it
    vectors_made: int = 0  # texts of messages and of labels that got one by the model's sentence model
    vectors_spared: int = 0  # those beyond `embed_rate`: scored and learned without one
    rejected_by: dict[str, int] = msgspec.field(default_factory=dict)  # the same as `rejected`, by error

    def reject(self, error: str) -> None:
        """Count a record that goes to the dead-letter topic."""
        self.rejected += 1
        self.rejected_by[error] = self.rejected_by.get(error, 0) + 1


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """The gate as people see it. Losses are null until there were labels enough."""

    state: Literal["open", "shut"] = "open"
    why: str = ""  # it is shut, or what else keeps the newest model from being served
    times: int = 0  # it was shut, since the first record
    recent_loss: float | None = None  # as served, of the last RECENT labels
    prior_loss: float | None = None  # of the mean prediction for the same labels
    before_loss: float | None = None  # over the labels before; while it is shut, when it was shut
