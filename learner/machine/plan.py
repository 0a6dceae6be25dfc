"""What is to be done with a batch? A plan: its texts in order, to be scored, and those with a target to be learned."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.models.classifier import Scores
from driftline.learner.quality.alarms import Alarm
from driftline.stream.decode.batch import Decoded
from driftline.stream.join.steps import Steps
from driftline.stream.log.base import NewColumns
from driftline.stream.log.merge import Batch
from driftline.stream.wire.records import Rejected

Ints = NDArray[np.int64]


class Given(NamedTuple):
    """A column that was given to another label, once what was planned before was finished."""

    column: int
    imprints: list[NDArray[np.uint32]]  # of what the label before was learned with: Classifier.clear
    label: str  # that has it now


class Plan:
    """A batch on its way. Its steps, in order, are texts to score; those with a target are then learned."""

    def __init__(self, batch: Batch, records: Decoded | None, updates: int, n_labels: int) -> None:
        self.batch, self.records = batch, records
        self.steps = Steps(2 * len(batch))
        self.texts: Sequence[str] = ()  # of the steps, once all are there
        self.rows: Ints = np.empty(0, np.int64)  # of the steps; kept up when the window's rows move
        self.labels: list[str] = []  # by column, once all is planned: a later batch may give a column another one
        self.parts: list[Plan] = []  # what was cut off in front, and is finished
        self.given: Given | None = None  # what was done behind this part
        self.n_seen = 0  # steps that places know of
        self.predictions = NewColumns.of([], [], [])
        self.raised: list[Alarm] = []
        self.delays_ms: Ints = np.empty(0, np.int64)
        self.predicted: NDArray[np.int32] = np.empty(
            0, np.int32
        )  # column of what was served, by steps_served; -1: none
        self.growth = [(0, n_labels)]  # from which step on how many labels are known
        self.rejected: list[Rejected] = []
        self.updates = updates  # before the batch
        self.scores: Scores = np.empty((0, 0), np.float32)
        self.refused = 0  # steps that the classifier could not learn
        self.corrections = 0  # steps with another label than one before

    def cut_off(self) -> "Plan":
        """Return what was planned so far as a plan of its own; this one is of what follows."""
        part = Plan(self.batch, self.records, self.updates, 0)
        part.steps, part.growth = self.steps.cut_off(), self.growth
        part.n_seen, part.corrections = self.n_seen, self.corrections
        self.parts.append(part)
        self.growth = [(0, self.growth[-1][1])]
        self.n_seen = self.corrections = 0
        return part

    @cached_property
    def steps_scored(self) -> Ints:
        """The messages' steps, once all is planned."""
        return np.flatnonzero(self.steps.targets < 0)

    @cached_property
    def steps_served(self) -> Ints:
        """The steps whose label is to be compared with what was served, once all is planned."""
        return np.flatnonzero(self.steps.served)

    def n_labels(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many labels the model knew at these steps."""
        first, known = zip(*self.growth, strict=True)
        return np.array(known, np.int64)[np.searchsorted(first, steps, side="right") - 1]
