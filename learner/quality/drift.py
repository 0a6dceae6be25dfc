"""Have predictions got worse, or better, than they were?

The log loss of predictions as served, over all labels and for each true label, is watched for a change of its mean
(`quality/adwin.py`). A change is reported, and nothing else: no model is reset, and no rate is changed.

Log loss rather than errors, because a model's doubts grow before its errors do: with 30 % of 78 labels half swapped, it
took 47 labels to see, and 79 by errors; neither saw a worsening that was none. A loss is at most MAX_LOSS, because the
bound is for bounded numbers. Labels are watched for themselves among the first MAX_LABELS that occur: 2.7 KB each.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.models.classifier import State
from driftline.learner.quality import adwin
from driftline.learner.quality.adwin import Windows
from driftline.learner.quality.alarms import Change
from driftline.stream.errors import StateError

MAX_LABELS: Final = 100
MAX_LOSS: Final = 5.0  # of a probability under 0.7 %


class Shift(NamedTuple):
    """A change of the mean loss."""

    column: int | None  # of the true label; None: over all
    at_label: int  # how many labels had been scored by then
    labels_before: int
    labels_after: int
    loss_before: float
    loss_after: float

    @property
    def change(self) -> Change:
        """What it means."""
        return "worse" if self.loss_after > self.loss_before else "better"


class Drift:
    """Watches the predictions of one model. Not thread-safe."""

    def __init__(self, max_labels: int) -> None:
        self.labels = 0  # scored
        self._worse_at = -1  # how many, when predictions got worse overall the last time: a checkpoint says it
        self._rows = 1
        self._windows = adwin.new_windows(1 + min(max_labels, MAX_LABELS))

    def add(
        self, predicted: NDArray[np.int32], truth: NDArray[np.int32], p_truth: NDArray[np.float32]
    ) -> list[tuple[int, Shift]]:
        """Take labels in their order and return the changes, each with the index of the label that showed it.

        The parameters are those of `Progress.add`.
        """
        places = np.flatnonzero(predicted >= 0)
        if not len(places):
            return []
        rows = truth[places] + 1
        rows[rows >= len(self._windows.widths)] = 0
        self._rows = max(self._rows, int(rows.max()) + 1)
        p = np.fmin(np.fmax(p_truth[places].astype(np.float64), np.exp(-MAX_LOSS)), 1.0)  # what is no number is 0
        found = adwin.add(self._windows, rows, np.minimum(-np.log(p) / MAX_LOSS, 1.0))
        columns = (
            places[found.number],
            found.window - 1,
            self.labels + found.number + 1,
            *found.widths.T,
            *np.maximum(found.means * MAX_LOSS, 0.0).T,
        )
        self.labels += len(places)
        shifts = [
            (place, Shift(column if column >= 0 else None, *rest))
            for place, column, *rest in zip(*(each.tolist() for each in columns), strict=True)
        ]
        for _, shift in shifts:
            if shift.column is None and shift.change == "worse":
                self._worse_at = shift.at_label
        return shifts

    def clear(self, column: int) -> None:
        """Begin a label's window anew: its column is another one's from now on."""
        if column + 1 < self._rows:
            for own, fresh in zip(self._windows, adwin.new_windows(1), strict=True):
                own[column + 1] = fresh[0]

    def carried(self, columns: NDArray[np.int64], max_labels: int) -> "Drift":
        """Return the same for a model whose labels have other columns: int64, each one's new one, or -1: it goes."""
        found = Drift(max_labels)
        rows = np.concatenate([[0], columns[: self._rows - 1] + 1])
        kept = np.flatnonzero((rows < len(found._windows.widths)) & ((rows > 0) | (np.arange(len(rows)) == 0)))
        for own, given in zip(found._windows, self._windows, strict=True):
            own[rows[kept]] = given[kept]
        found.labels, found._worse_at, found._rows = self.labels, self._worse_at, int(rows[kept].max()) + 1
        return found

    def state(self) -> State:
        """Return copies of everything; the same labels give the same bytes."""
        arrays = {name: array[: self._rows].copy() for name, array in self._windows._asdict().items()}
        return arrays | {"labels": np.array([self.labels, self._worse_at], np.int64)}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave, by copy.

        Raises
        ------
        StateError : an array is missing, or not what `state` gives; nothing was changed then.
        """
        n_labels, windows = _checked(state, len(self._windows.widths))
        self.labels, self._worse_at = n_labels
        self._rows = len(windows.widths)
        self._windows = adwin.new_windows(len(self._windows.widths))
        for own, given in zip(self._windows, windows, strict=True):
            own[: self._rows] = given


def warm_up() -> None:
    """Compile the kernel, or load it compiled, so that no label waits for that."""
    Drift(1).add(np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1, np.float32))


def _checked(state: State, most_rows: int) -> tuple[tuple[int, int], Windows]:
    """Return a state's parts; the kernel trusts sizes to lie within their arrays."""
    n_rows = len(state["widths"]) if "widths" in state else 0
    if not 1 <= n_rows <= most_rows:
        raise StateError(f"drift: there are {n_rows} windows, but must be 1 to {most_rows}")
    expected = adwin.new_windows(n_rows)._asdict() | {"labels": np.zeros(2, np.int64)}
    for name, own in expected.items():
        array = state.get(name)
        if array is None or array.shape != own.shape or array.dtype != own.dtype:
            found = "missing" if array is None else f"{array.dtype} {array.shape}"
            raise StateError(f"drift: array {name!r} must be {own.dtype} {own.shape}, but is {found}")
    windows = Windows(*(state[name] for name in Windows._fields))
    n_labels, worse_at = state["labels"].tolist()
    if not adwin.sound(windows) or not -1 <= worse_at <= n_labels or n_labels < 0:
        raise StateError("drift: the windows' arrays contradict each other")
    return (n_labels, worse_at), windows
