"""Is the model good enough to be served?

A publish gate. It is shut, and the snapshot published last stays served, while the loss as served of the last RECENT
labels is worse by a margin than two others: than it was over the labels before, and than that of the same predictions
without their knowledge of the text (each replaced by the mean of the predictions before it, which is what predicting
the classes' frequencies comes to). It opens by itself once that no longer holds; what it was before is kept meanwhile.

What this sees: labels that contradict, confidently and in number, what was predicted for their messages. So a source
that labels the messages of the window wrongly shuts it, and so does a model that has gone wrong. What it does not see:
wrong labels that come at once, or with their text. The default model follows those within some ten labels, its loss is
good again, and nothing in the labels tells them from a change of the world; a quota by source is for them.

The loss as served is of predictions that the loop's model made when the messages came, whatever was published then, so
it is the newest model's own, late by as much as labels are. The same model's loss just before it learns each label is
not late, but sees nothing: on flipped labels it stays below that of the frequencies. The frequencies must be those of
the predictions' time: of the labels' time they would shut the gate at each change of the classes in labels that come
late. With the default margin it stays open on all streams in bench/REPORT, labels at once or late, and each flip of
their labels, 200 or 1,000 late, shuts it (test_gate.py).

A function of the labels in their order, wherever they are cut; NOT part of what a replay's model depends on.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.kernels import kernel
from driftline.learner.models.classifier import State
from driftline.learner.quality.figures import GateReport
from driftline.stream.errors import StateError

RECENT: Final = 200  # labels
BEFORE: Final = 1000  # labels before these weigh less and less
MAX_LOSS: Final = 7.0  # of a probability under 0.1 %: no single label decides
LOSS, PRIOR = 0, 1  # columns of the ring
SUM_LOSS, SUM_PRIOR, MEAN_BEFORE, REFERENCE, MARGIN = 0, 1, 2, 3, 4  # numbers
LABELS, SHUT, TIMES = 0, 1, 2  # counts

PREFIX: Final = "gate_"  # of its arrays, which lie beside others in a file


class Gate:
    """Watches the predictions of one model. Not thread-safe."""

    def __init__(self, max_labels: int) -> None:
        self._ring = np.zeros((RECENT, 2))
        self._mean = np.zeros(max_labels)  # of the predictions, by label
        self._numbers = np.zeros(5)
        self._counts = np.zeros(3, np.int64)

    def add(
        self, truth: NDArray[np.int32], scores: NDArray[np.float32], known: NDArray[np.int64], margin: float
    ) -> None:
        """Take labels in their order.

        Parameters
        ----------
        truth : int32 [n], the label's column
        scores : float32 [n, n_labels], as served; rows of zeros: no label was known then
        known : int64 [n], how many labels the model knew then: others could not be predicted, and do not count
        margin : nats
        """
        self._numbers[MARGIN] = margin
        _add(truth, scores, known, self._ring, self._mean, self._numbers, self._counts)

    def clear(self, column: int) -> None:
        """Forget how often a label was predicted: its column is another one's from now on."""
        self._mean[column] = 0

    @property
    def shut(self) -> bool:
        """Whether the model should not be published."""
        return bool(self._counts[SHUT])

    def report(self, why: str = "") -> GateReport:
        """Say how it stands; `why` is another reason not to serve the newest model."""
        recent, prior = self._numbers[:2] / RECENT
        before = self._numbers[REFERENCE if self.shut else MEAN_BEFORE]
        if self.shut:
            why = (
                f"log loss {recent:.2f} over the last {RECENT} labels, {before:.2f} before, {prior:.2f} without a look "
                "at the texts: the labels contradict what was predicted. Look at who sends them"
            )
        n = int(self._counts[LABELS])
        return GateReport(
            state="shut" if why else "open",
            why=why,
            times=int(self._counts[TIMES]),
            recent_loss=float(recent) if n >= RECENT else None,
            prior_loss=float(prior) if n >= RECENT else None,
            before_loss=float(before) if n >= 2 * RECENT else None,
        )

    def state(self) -> State:
        """Return copies of everything; the same labels give the same bytes."""
        mean = np.trim_zeros(self._mean, "b")
        arrays = {"ring": self._ring, "mean": mean, "numbers": self._numbers[:MARGIN], "counts": self._counts}
        return {PREFIX + name: array.copy() for name, array in arrays.items()}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave, other arrays beside it; nothing where there is none, as from before the gate.

        Raises
        ------
        StateError : an array is missing, or not what `state` gives.
        """
        given = {name.removeprefix(PREFIX): array for name, array in state.items() if name.startswith(PREFIX)}
        if not given:
            return
        try:
            mean = given["mean"]
            for own, name in ((self._ring, "ring"), (self._numbers[:MARGIN], "numbers"), (self._counts, "counts")):
                if given[name].shape != own.shape:
                    raise ValueError(f"{name} has shape {given[name].shape}")
                own[:] = given[name]
            self._mean[: len(mean)] = mean
        except (KeyError, ValueError) as error:
            raise StateError(f"the publish gate of the checkpoint cannot be read: {error!r}") from None
        if self._counts[LABELS] < 0:
            raise StateError("the publish gate of the checkpoint has seen fewer labels than none")


def warm_up() -> None:
    """Compile the kernel, or load it compiled, so that no label waits for that."""
    Gate(1).add(np.zeros(1, np.int32), np.ones((1, 1), np.float32), np.ones(1, np.int64), 1.0)


@kernel
def _add(truth, scores, known, ring, mean, numbers, counts):  # type: ignore[no-untyped-def]
    n_labels = scores.shape[1]
    for i in range(len(truth)):
        total = 0.0
        for c in range(n_labels):
            total += scores[i, c]
        if total <= 0.0:
            continue
        column = truth[i]
        if column < known[i]:
            _count(_loss(scores[i, column]), _loss(mean[column]), ring, numbers, counts)
            _judge(numbers, counts)
        for c in range(n_labels):
            score = scores[i, c] if np.isfinite(scores[i, c]) else np.float32(0.0)
            mean[c] += (score - mean[c]) / RECENT


@kernel
def _loss(p):  # type: ignore[no-untyped-def]
    """Return the log loss of a probability; what is no number is as bad as can be."""
    return min(MAX_LOSS, -np.log(p)) if p > 0.0 else MAX_LOSS


@kernel
def _count(loss, prior, ring, numbers, counts):  # type: ignore[no-untyped-def]
    n = counts[LABELS]
    place = n % RECENT
    if n >= RECENT:  # what leaves the recent labels becomes one of those before
        numbers[MEAN_BEFORE] += (ring[place, LOSS] - numbers[MEAN_BEFORE]) / min(n - RECENT + 1, BEFORE)
    numbers[SUM_LOSS] += loss - ring[place, LOSS]
    numbers[SUM_PRIOR] += prior - ring[place, PRIOR]
    ring[place, LOSS], ring[place, PRIOR] = loss, prior
    counts[LABELS] = n + 1


@kernel
def _judge(numbers, counts):  # type: ignore[no-untyped-def]
    if counts[LABELS] < 2 * RECENT:
        return
    recent, prior, margin = numbers[SUM_LOSS] / RECENT, numbers[SUM_PRIOR] / RECENT, numbers[MARGIN]
    if counts[SHUT]:
        if recent <= max(numbers[REFERENCE], prior) + margin / 2.0:  # half: it must not open and shut at each label
            counts[SHUT] = 0
    elif recent > max(numbers[MEAN_BEFORE], prior) + margin:
        counts[SHUT] = 1
        counts[TIMES] += 1
        numbers[REFERENCE] = numbers[MEAN_BEFORE]
