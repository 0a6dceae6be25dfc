"""How well, and how fast, does a classifier learn a stream?

Progressive validation (test, then train): every text is scored by the model as it stands when the text comes, and the
label is learned `delay` messages later; it is compared with that first score (delayed progressive validation). Batches
are for speed only: the order of scoring and learning is exact, so the results do not depend on their size.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.models.classifier import Classifier, Scores
from driftline.learner.quality.drift import Drift, Shift
from driftline.learner.quality.progress import Progress
from driftline.stream.errors import ConfigError
from driftline.stream.files.reader import Row

BATCH_ROWS: Final = 1000
CURVE_POINTS: Final = 200
CURVE_WINDOW: Final = 1000


class Curve(NamedTuple):
    """A learning curve: after how many labels, the accuracy over all of them and over the last `window`."""

    labels: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    recent_accuracy: NDArray[np.float64]
    window: int


class Result(NamedTuple):
    """What progressive validation found. `seconds` is the classifier's own time, reading excluded.

    All labels are counted; the scores are over those whose message had a prediction, that is, came after the first
    label was learned.
    """

    model: str
    delay: int
    messages: int
    labels: int
    accuracy: float
    macro_f1: float
    log_loss: float
    calibration_error: float
    seconds: float
    curve: Curve
    shifts: tuple[Shift, ...] = ()  # when the loss had changed: what would have been drift alarms
    refused: int = 0  # labels that the model could not learn
    unknown: int = 0  # labels that it had not learned when their message came
    known_log_loss: float = 0.0  # without them

    @property
    def messages_per_second(self) -> float:
        """How many messages were scored, and learned where they had a label, in a second."""
        return self.messages / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return everything but the curve and the delay, as JSON types; of the changes, how many there were."""
        fields = self._asdict()
        del fields["curve"], fields["delay"], fields["shifts"]
        overall, of_labels = ([s for s in self.shifts if (s.column is None) == whole] for whole in (True, False))
        alarms = {"overall": _tally(overall), "by_label": _tally(of_labels)}
        return fields | {"messages_per_second": self.messages_per_second, "drift_alarms": alarms}


def _tally(shifts: list[Shift]) -> dict[str, int]:
    worse = sum(shift.change == "worse" for shift in shifts)
    return {"worse": worse, "better": len(shifts) - worse}


def evaluate(
    rows: Iterable[Row],
    classifier: Classifier,
    delay: int = 0,
    *,
    model: str = "",
    batch_rows: int = BATCH_ROWS,
    on_batch: Callable[[int], None] | None = None,
) -> Result:
    """Score and learn a stream with a fresh classifier; compile its kernels first (see `warm_up`).

    Parameters
    ----------
    delay : the label of row i is learned after row i + delay was scored
    model : the result's name
    on_batch : called after each batch with its number of rows
    """
    evaluation = Evaluation(classifier, delay, model)
    rows = iter(rows)
    while batch := list(islice(rows, batch_rows)):
        evaluation.add(batch)
        if on_batch:
            on_batch(len(batch))
    return evaluation.finish()


def warm_up(classifier: Classifier) -> None:
    """Make a throw-away classifier compile what it needs, so that no evaluation pays for it."""
    classifier.learn_many(["warm", "up"], ["a", "b"])
    classifier.predict_many(["warm up"])


class Evaluation:
    """An evaluation under way, so that several classifiers can share one reading of a stream.

    Raises
    ------
    ConfigError : the delay is negative.
    """

    def __init__(self, classifier: Classifier, delay: int = 0, model: str = "") -> None:
        if delay < 0:
            raise ConfigError(f"delay: must be 0 or more messages, got {delay}")
        self._classifier, self._delay, self._model = classifier, delay, model
        self._progress = Progress(classifier.max_labels)
        self._drift = Drift(classifier.max_labels)
        self._shifts: list[Shift] = []
        self._messages = 0
        self._seconds = 0.0
        self._waiting: deque[tuple[int, str, str]] = deque()  # number, text, label: scored, to be learned
        self._scored: deque[tuple[int, float, float]] = deque()  # what was predicted, the truth's score, its own
        self._correct: list[NDArray[np.bool_]] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Score rows, and learn the labels that are due, in the exact order and in one call.

        1. Lay the texts out: each row where it is scored, and behind row i the labelled row i - delay, to be learned.
           Without a delay both are one.
        2. Score and learn.
        3. Keep each row's prediction. It waits for its label; the score of the second entry is not looked at.
        4. Count the labels that were learned.
        """
        texts: list[str] = []
        targets: list[int] = []
        truths: list[int] = []
        places: list[int] = []  # where each labelled row was scored
        for row, whole in zip(rows, self._complete([row.text for row in rows]), strict=True):
            texts.append(whole)
            targets.append(-1)
            if row.label is not None:
                places.append(len(texts) - 1)
                self._waiting.append((self._messages, whole, row.label))
            while self._waiting and self._waiting[0][0] <= self._messages - self._delay:
                text, truth = self._due()
                truths.append(truth)
                if self._delay == 0:
                    targets[-1] = truth
                else:
                    texts.append(text)
                    targets.append(truth)
            self._messages += 1
        scores = self._run(texts, targets)
        self._keep(scores, places, [row.label for row in rows if row.label is not None])
        self._count(truths)

    def finish(self) -> Result:
        """Learn the labels that are still to come and return what was found."""
        texts: list[str] = []
        truths: list[int] = []
        while self._waiting:
            text, truth = self._due()
            texts.append(text)
            truths.append(truth)
        if texts:
            self._run(texts, truths)
            self._count(truths)
        progress = self._progress
        return Result(
            self._model,
            self._delay,
            self._messages,
            progress.labels + progress.unpredicted,
            progress.accuracy,
            progress.macro_f1,
            progress.log_loss,
            progress.calibration_error,
            self._seconds,
            _curve(np.concatenate([np.zeros(0, np.bool_), *self._correct])),
            tuple(self._shifts),
            self._classifier.n_refused,
            progress.unknown,
            progress.known_log_loss,
        )

    def _due(self) -> tuple[str, int]:
        _, text, label = self._waiting.popleft()
        return text, self._classifier.label_index(label)

    def _complete(self, texts: Sequence[str]) -> Sequence[str]:
        begin = time.perf_counter()
        found = self._classifier.complete(texts)
        self._seconds += time.perf_counter() - begin
        return found

    def _run(self, texts: list[str], targets: list[int]) -> Scores:
        columns = np.array(targets, np.int32)
        weights = np.ones(len(texts), np.float32)
        begin = time.perf_counter()
        scores = self._classifier.score_and_learn(texts, columns, weights)
        self._seconds += time.perf_counter() - begin
        return scores

    def _keep(self, scores: Scores, places: list[int], labels: list[str]) -> None:
        if not places:
            return
        if not scores.shape[1]:
            self._scored.extend((-1, 0.0, 0.0) for _ in places)
            return
        own = scores[places]
        predicted = np.where(own.max(axis=1) > 0, own.argmax(axis=1), -1)
        column = {label: index for index, label in enumerate(self._classifier.labels)}
        # A label that nothing has learned yet has no column: its score was 0.
        truths = np.array([column.get(label, -1) for label in labels])
        p_truth = np.where(truths >= 0, own[np.arange(len(own)), truths], 0.0)
        self._scored.extend(zip(predicted.tolist(), p_truth.tolist(), own.max(axis=1).tolist(), strict=True))

    def _count(self, truths: list[int]) -> None:
        if not truths:
            return
        scored = [self._scored.popleft() for _ in truths]
        predicted = np.array([column for column, _, _ in scored], np.int32)
        truth = np.array(truths, np.int32)
        p_truth, p_predicted = (np.array([each[place] for each in scored], np.float32) for place in (1, 2))
        self._progress.add(predicted, truth, p_truth, p_predicted)
        self._shifts += [shift for _, shift in self._drift.add(predicted, truth, p_truth)]
        self._correct.append((predicted == truth)[predicted >= 0])


def _curve(correct: NDArray[np.bool_]) -> Curve:
    """Return the accuracy at up to CURVE_POINTS places, evenly apart, the last one at the end."""
    n = len(correct)
    window = max(min(CURVE_WINDOW, n // 10), 1)
    at = np.linspace(0, n, min(n, CURVE_POINTS) + 1).astype(np.int64)[1:]
    sums = np.concatenate([[0], np.cumsum(correct)])
    recent = (sums[at] - sums[np.maximum(at - window, 0)]) / np.maximum(np.minimum(at, window), 1)
    return Curve(at, sums[at] / np.maximum(at, 1), recent, window)
