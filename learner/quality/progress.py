"""How good are the predictions, so far and of late?

Progressive validation: each label is compared with the prediction that was made when its message came in. Everything
is a count or a sum, added in the order of the labels: the same labels give the same bytes, wherever they are cut into
batches. A label costs the same however many came before; memory is bounded by `max_labels`. A label whose message came
before the model knew any label has no prediction to be compared with: it is counted apart, as River leaves it out. So
are corrections, which would count twice, and labels that brought their text, for which nothing had been predicted.

A label that was new when its message came had no share in the prediction: it costs 34.5, as much as a hundred others.
So the log loss of those that were known by then is told, too: without it a stream on which labels are born looks like
a model that is broken.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.kernels import kernel
from driftline.stream.errors import StateError

RECENT_LABELS: Final = 1000
CALIBRATION_BINS: Final = 15  # of equal width, as Guo et al. 2017 have it
MIN_PROBABILITY: Final = 1e-15  # log loss is clipped here, as River does: at most 34.5 for a label
MAX_LOSS: Final = -math.log(MIN_PROBABILITY)
DELAY_EDGES_MS: Final = (1_000, 10_000, 60_000, 600_000, 3_600_000, 86_400_000)
DELAY_NAMES: Final = ("<1s", "<10s", "<1min", "<10min", "<1h", "<1d", ">=1d")
# The matrix is kept among the first labels only: 0.5 MB. Each label's own counts are exact for all of them.
MAX_CONFUSION_LABELS: Final = 256

Ints = NDArray[np.int64]


class Progress:
    """Progressive validation of one model. Not thread-safe.

    Parameters
    ----------
    max_labels : label columns lie below it

    Attributes
    ----------
    labels, correct : how many labels were scored, and how many of them had been predicted
    unpredicted : how many labels had no prediction to be scored
    unknown : how many of `labels` had no share in their prediction: the model had not learned them by then
    corrections, unasked : how many were not scored since they replaced one, or since no message had come
    """

    def __init__(self, max_labels: int = 1000) -> None:
        self.max_labels = max_labels
        self.labels = self.correct = self.unpredicted = self.unknown = self.corrections = self.unasked = 0
        self._loss = 0.0
        self._support, self._predicted, self._hits = (np.zeros(0, np.int64) for _ in range(3))
        self._confusion = np.zeros((0, 0), np.int64)
        self._recent_correct = np.zeros(RECENT_LABELS, np.uint8)
        self._recent_loss = np.zeros(RECENT_LABELS, np.float64)
        self._delays = np.zeros((len(DELAY_NAMES), 2), np.int64)  # labels, correct
        self._bins = np.zeros((CALIBRATION_BINS, 2))  # correct, sum of the predicted labels' scores
        self._n_columns = 0  # the arrays are longer: they double

    def add(
        self,
        predicted: NDArray[np.int32],
        truth: NDArray[np.int32],
        p_truth: NDArray[np.float32],
        p_predicted: NDArray[np.float32],
        delay_ms: Ints | None = None,
    ) -> None:
        """Count labels, in their order.

        Parameters
        ----------
        predicted : int32 [n], the predicted label's column, or -1: there was no prediction
        truth : int32 [n], the label's column
        p_truth : float32 [n], the score that the label had in the prediction; what is no number counts as 0
        p_predicted : float32 [n], the score of the predicted label, likewise
        delay_ms : int64 [n], from message to label; None: not known

        Raises
        ------
        ValueError : a column outside -1 (0) to max_labels - 1; nothing was counted then.
        """
        if not len(truth):
            return
        highest = int(max(truth.max(), predicted.max()))
        if truth.min() < 0 or predicted.min() < -1 or highest >= self.max_labels:
            raise ValueError(f"label columns must lie in 0 to {self.max_labels - 1} (predicted: or be -1)")
        self._grow(highest + 1)
        served = predicted >= 0
        self.unpredicted += int(np.count_nonzero(~served))
        predicted, truth = predicted[served], truth[served]
        p_truth, p_predicted = p_truth[served], p_predicted[served]
        right = predicted == truth
        clipped = _clipped(p_truth, MIN_PROBABILITY)
        self.unknown += int(np.count_nonzero(clipped <= MIN_PROBABILITY))
        loss = -np.log(clipped)
        self._count_recent(right, loss)
        columns = self._support, self._predicted, self._hits
        count(predicted, truth, _clipped(p_predicted, 0.0), *columns, self._confusion, self._bins)
        if delay_ms is not None:
            bucket = np.searchsorted(DELAY_EDGES_MS, delay_ms[served], side="right")
            count_delays(bucket, right, self._delays)
        self.labels += len(truth)
        self.correct += int(np.count_nonzero(right))
        # cumsum adds one by one; sum() adds in pairs, so that its last bits would depend on where a batch ends.
        self._loss = float(np.cumsum(np.concatenate([[self._loss], loss]))[-1])

    def pass_over(self, corrections: int, unasked: int) -> None:
        """Count labels that are not to be scored."""
        self.corrections += corrections
        self.unasked += unasked

    def clear(self, column: int) -> None:
        """Forget a label's own figures: its column is another one's from now on. What counts all labels stays."""
        if column < self._n_columns:
            self._support[column] = self._predicted[column] = self._hits[column] = 0
        if column < len(self._confusion):
            self._confusion[column] = self._confusion[:, column] = 0

    def carried(self, columns: Ints, max_labels: int) -> "Progress":
        """Return the same for a model whose labels have other columns.

        Parameters
        ----------
        columns : int64 [n_columns or more], each one's new column, or -1: its own counts go
        max_labels : of that model
        """
        state, found = self.state(), Progress(max_labels)
        old = np.flatnonzero(columns[: self._n_columns] >= 0)
        new = columns[old]
        n = int(new.max(initial=-1)) + 1
        side = min(n, MAX_CONFUSION_LABELS)
        for name in ("support", "predicted", "hits"):
            counts = np.zeros(n, np.int64)
            counts[new] = state[name][old]
            state[name] = counts
        confusion = np.zeros((side, side), np.int64)
        shown = (old < len(state["confusion"])) & (new < side)
        confusion[np.ix_(new[shown], new[shown])] = state["confusion"][np.ix_(old[shown], old[shown])]
        found.load_state(state | {"confusion": confusion})
        return found

    def _count_recent(self, right: NDArray[np.bool_], loss: NDArray[np.float64]) -> None:
        n = min(len(loss), RECENT_LABELS)
        if not n:
            return
        places = np.arange(self.labels + len(loss) - n, self.labels + len(loss)) % RECENT_LABELS
        self._recent_correct[places] = right[-n:]
        self._recent_loss[places] = loss[-n:]

    def _grow(self, n_columns: int) -> None:
        self._n_columns = max(self._n_columns, n_columns)
        old = len(self._support)
        if self._n_columns <= old:
            return
        new = min(max(2 * old, self._n_columns, 8), self.max_labels)
        self._support, self._predicted, self._hits = (
            np.concatenate([counts, np.zeros(new - old, np.int64)])
            for counts in (self._support, self._predicted, self._hits)
        )
        side = min(new, MAX_CONFUSION_LABELS)
        self._confusion = np.pad(self._confusion, (0, side - len(self._confusion)))

    @property
    def accuracy(self) -> float:
        """The share of labels that had been predicted; 0 before the first."""
        return self.correct / max(self.labels, 1)

    @property
    def log_loss(self) -> float:
        """The mean of -ln p_truth, p_truth clipped at 1e-15; 0 before the first."""
        return self._loss / max(self.labels, 1)

    @property
    def known_log_loss(self) -> float:
        """The same over the labels that were known when their message came."""
        return max(0.0, self._loss - self.unknown * MAX_LOSS) / max(self.labels - self.unknown, 1)

    @property
    def calibration_error(self) -> float:
        """The expected calibration error: by how much the best score is off the share that was right, 0 to 1.

        The mean over bins of equal width, weighted by their labels (Guo et al. 2017, equation 3).
        """
        return float(np.abs(self._bins[:, 0] - self._bins[:, 1]).sum()) / max(self.labels, 1)

    @property
    def macro_f1(self) -> float:
        """The unweighted mean F1 of the labels that occurred or were predicted, as scikit-learn has it."""
        occurred = self.support + self.predicted > 0
        return float(self.f1[occurred].mean()) if occurred.any() else 0.0

    @property
    def recent_accuracy(self) -> float:
        """Accuracy over the last 1,000 labels."""
        n = min(self.labels, RECENT_LABELS)
        return float(self._recent_correct[:n].sum()) / max(n, 1)

    @property
    def recent_log_loss(self) -> float:
        """Log loss over the last 1,000 labels."""
        n = min(self.labels, RECENT_LABELS)
        return float(self._recent_loss[:n].sum()) / max(n, 1)

    @property
    def recent_known_log_loss(self) -> float:
        """Log loss over those of the last 1,000 labels that were known when their message came."""
        recent = self._recent_loss[: min(self.labels, RECENT_LABELS)]
        known = recent[recent < MAX_LOSS - 1e-6]
        return float(known.sum()) / max(len(known), 1)

    @property
    def support(self) -> Ints:
        """How often each label occurred: int64 [n_columns]."""
        return self._support[: self._n_columns]

    @property
    def predicted(self) -> Ints:
        """How often each label was predicted: int64 [n_columns]."""
        return self._predicted[: self._n_columns]

    @property
    def precision(self) -> NDArray[np.float64]:
        """How many predictions of each label were right; 0 where it was never predicted."""
        return self._hits[: self._n_columns] / np.maximum(self.predicted, 1)

    @property
    def recall(self) -> NDArray[np.float64]:
        """How many occurrences of each label were predicted; 0 where it never occurred."""
        return self._hits[: self._n_columns] / np.maximum(self.support, 1)

    @property
    def f1(self) -> NDArray[np.float64]:
        """The harmonic mean of precision and recall; 0 where neither is defined."""
        f1: NDArray[np.float64] = 2 * self._hits[: self._n_columns] / np.maximum(self.support + self.predicted, 1)
        return f1

    @property
    def confusion(self) -> Ints:
        """Labels by what they were (row) and what was predicted (column), among the first MAX_CONFUSION_LABELS."""
        side = min(self._n_columns, MAX_CONFUSION_LABELS)
        return self._confusion[:side, :side]

    def summary(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Return all but the confusion matrix as finite JSON values; each label's own where `names` are given."""
        n_recent = min(self.labels, RECENT_LABELS)
        by_delay = [
            {"delay": name, "labels": int(labels), "accuracy": int(correct) / max(int(labels), 1)}
            for name, (labels, correct) in zip(DELAY_NAMES, self._delays, strict=True)
        ]
        columns = zip(names, self.precision, self.recall, self.f1, self.support, self.predicted, strict=False)
        return {
            "labels": self.labels,
            "correct": self.correct,
            "unpredicted": self.unpredicted,
            "unknown": self.unknown,
            "corrections": self.corrections,
            "unasked": self.unasked,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": self.log_loss,
            "known_log_loss": self.known_log_loss,
            "calibration_error": self.calibration_error,
            "recent": {
                "labels": n_recent,
                "accuracy": self.recent_accuracy,
                "log_loss": self.recent_log_loss,
                "known_log_loss": self.recent_known_log_loss,
            },
            "by_delay": by_delay,
            "by_label": {
                name: {
                    "precision": float(precision),
                    "recall": float(recall),
                    "f1": float(f1),
                    "support": int(support),
                    "predicted": int(predicted),
                }
                for name, precision, recall, f1, support, predicted in columns
            },
        }

    def state(self) -> dict[str, NDArray[Any]]:
        """Return copies of everything counted; the same labels give the same bytes."""
        return {
            "totals": np.array([self.labels, self.correct, self.unpredicted], np.int64),
            "unscored": np.array([self.corrections, self.unasked], np.int64),
            "unknown": np.array([self.unknown], np.int64),
            "loss": np.array([self._loss], np.float64),
            "support": self.support.copy(),
            "predicted": self.predicted.copy(),
            "hits": self._hits[: self._n_columns].copy(),
            "confusion": self.confusion.copy(),
            "recent_correct": self._recent_correct.copy(),
            "recent_loss": self._recent_loss.copy(),
            "delays": self._delays.copy(),
            "bins": self._bins.copy(),
        }

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Take over what `state` gave, by copy.

        Raises
        ------
        StateError : an array is missing or has another shape or type; nothing was changed then.
        """
        state = {"unscored": np.zeros(2, np.int64), "unknown": np.zeros(1, np.int64), **state}  # older states have none
        self._check(state)
        self._n_columns = len(state["support"])
        self.labels, self.correct, self.unpredicted = (int(total) for total in state["totals"])
        self.corrections, self.unasked = (int(total) for total in state["unscored"])
        self.unknown = int(state["unknown"][0])
        self._loss = float(state["loss"][0])
        self._support, self._predicted = state["support"].copy(), state["predicted"].copy()
        self._hits, self._confusion = state["hits"].copy(), state["confusion"].copy()
        self._recent_correct, self._recent_loss = state["recent_correct"].copy(), state["recent_loss"].copy()
        self._delays, self._bins = state["delays"].copy(), state["bins"].copy()

    def _check(self, state: dict[str, NDArray[Any]]) -> None:
        columns = len(state["support"]) if "support" in state else 0
        side = min(columns, MAX_CONFUSION_LABELS)
        shapes = {"support": (columns,), "predicted": (columns,), "hits": (columns,), "confusion": (side, side)}
        for name, own in Progress(1).state().items():
            shape = shapes.get(name, own.shape)
            array = state.get(name)
            if array is None or array.shape != shape or array.dtype != own.dtype:
                found = "missing" if array is None else f"{array.dtype} {array.shape}"
                raise StateError(f"progress: array {name!r} must be {own.dtype} {shape}, but is {found}")
        if columns > self.max_labels:
            raise StateError(f"progress: {columns} labels were counted, but max_labels is {self.max_labels}")


def _clipped(p: NDArray[np.float32], least: float) -> NDArray[np.float64]:
    clipped: NDArray[np.float64] = np.fmin(np.fmax(p.astype(np.float64), least), 1.0)
    return clipped


@kernel
def count(predicted, truth, p, support, n_predicted, hits, confusion, bins):  # type: ignore[no-untyped-def]
    """Count labels, one after another: a sum's last bits depend on the order."""
    for i in range(truth.shape[0]):
        label, guess = truth[i], predicted[i]
        right = label == guess
        support[label] += 1
        n_predicted[guess] += 1
        hits[label] += right
        if label < MAX_CONFUSION_LABELS and guess < MAX_CONFUSION_LABELS:
            confusion[label, guess] += 1
        which = min(np.int64(p[i] * CALIBRATION_BINS), CALIBRATION_BINS - 1)
        bins[which, 0] += right
        bins[which, 1] += p[i]


@kernel
def count_delays(buckets, right, delays):  # type: ignore[no-untyped-def]
    """Count labels, and those predicted, by how late they came."""
    for i in range(buckets.shape[0]):
        delays[buckets[i], 0] += 1
        delays[buckets[i], 1] += right[i]


def warm_up() -> None:
    """Compile the kernels, or load them compiled."""
    one = np.zeros(1, np.int32)
    Progress(1).add(one, one, one.astype(np.float32), one.astype(np.float32), one.astype(np.int64))
