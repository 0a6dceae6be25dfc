"""What is a drift alarm, and how many were there?

Plain data: it stands in the checkpoint's manifest, in the status and in GET /model as it is.
"""

import logging
from typing import Final, Literal

import msgspec

from driftline.stream.words import counted

RECENT_ALARMS: Final = 20
LOGGED: Final = 5  # of a batch
_LOG: Final = logging.getLogger(__name__)

Change = Literal["worse", "better"]


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """The loss of predictions as served has changed, more than by chance."""

    label: str | None  # true label of the predictions concerned; null: all of them
    change: Change
    loss_before: float  # mean log loss, each at most drift.MAX_LOSS
    loss_after: float
    labels_before: int  # that these are means over
    labels_after: int
    at_label: int  # how many labels had been scored by then
    timestamp_ms: int  # of the record that showed it: the label's, or where the label had waited, its message's
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """Say it in a line for the log."""
        whose = "predictions" if self.label is None else f"predictions of label {self.label!r}"
        return (
            f"drift: {whose} got {self.change}, log loss {self.loss_before:.3f} "
            f"over {counted(self.labels_before, 'label')}, then {self.loss_after:.3f} over {self.labels_after:,}; "
            f"at label {self.at_label:,}, {self.topic}/{self.partition} offset {self.offset}"
        )


class Changes(msgspec.Struct):
    """How often predictions got worse, and better."""

    worse: int = 0
    better: int = 0

    def add(self, change: Change) -> None:
        """Count one."""
        if change == "worse":
            self.worse += 1
        else:
            self.better += 1


class Alarms(msgspec.Struct):
    """All alarms since the first record; of the last RECENT_ALARMS everything, the newest last."""

    alarms: int = 0
    overall: Changes = msgspec.field(default_factory=Changes)
    by_label: dict[str, Changes] = msgspec.field(default_factory=dict)  # only those that had one
    recent: list[Alarm] = msgspec.field(default_factory=list)

    def add(self, alarm: Alarm) -> None:
        """Count an alarm and keep it for a while."""
        self.alarms += 1
        changes = self.overall if alarm.label is None else self.by_label.setdefault(alarm.label, Changes())
        changes.add(alarm.change)
        self.recent = [*self.recent, alarm][-RECENT_ALARMS:]


def log_alarms(alarms: list[Alarm]) -> None:
    """Say a batch's alarms, not more lines than a reader takes in: who labels at random could fill a disk."""
    for alarm in sorted(alarms, key=lambda alarm: alarm.change == "better")[:LOGGED]:
        _LOG.log(logging.WARNING if alarm.change == "worse" else logging.INFO, "%s", alarm)
    if len(alarms) > LOGGED:
        _LOG.info("drift: %d more alarms in this batch; GET /model has the last", len(alarms) - LOGGED)
