"""What learns labels from what words mean?

One more expert of `blend`, where texts have vectors: those of their words (vectors/lookup.py), or such as are sent with
them (vectors/sent.py). Least squares on a text's vector, for each label 1 where it is the text's and 0 where not, with
a ridge, learned recursively (Kalman filter; Plackett 1950). So a few labels teach it all that they can, and words that
were never learned are near others that were. Least squares, times SCALE, are the logarithms that the mixer takes.
Softmax regression and labels' means on words' vectors added nothing that showed beside it on nine streams. It learns
only what all experts together are not SURE of: that is better by every measure, and free where a stream is easy.

How uncertain the weights are is the same for all labels: one matrix, of which only blocks of so many numbers are kept,
so that a step's cost rises with the vector's length, not with its square. With up to 63 numbers a word that is all of
it; with blocks of 16 of those 50 that GloVe has, accuracy after 500 labels was .003 lower, after 10,000 the same. Of
a vector that is the text's own more is kept, since more is in it: of MiniLM's 384 numbers all, and then `blend` makes
26 to 28 % fewer errors on banking77, with blocks of 64 it made 17 % fewer. A step takes 10 microseconds more.

A text without a vector teaches nothing, and nothing is said of it: all labels are alike.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.blend.means import MEANS_SCALE, MEANS_TABLES, Means
from driftline.learner.blend.mixer import log_softmax
from driftline.learner.explain.parts import VECTOR, Hashed, Part
from driftline.learner.kernels import kernel
from driftline.learner.models.classifier import State
from driftline.learner.vectors.lookup import ALIKE, LEAST_LENGTH, MOST, dot
from driftline.learner.vectors.table import LANES, Table, no_words, width_of
from driftline.stream.wire.vector import vector_of

SCALE: Final = np.float32(6)  # where vectors are those of words ...
SENT_SCALE: Final = np.float32(10)  # ... and where they are the texts' own
BLOCK: Final = 64  # of words' vectors, numbers of which it is known together how uncertain they are ...
SENT_BLOCK: Final = 512  # ... and at most, of texts'
FIRST_VARIANCE: Final = 10.0
WIDENING: Final = 3e-4  # of variances at a step, up to the first ones on average, so that it never stops following ...
SENT_WIDENING: Final = 0.0154  # ... of texts' vectors, of all variances together: each of 384 widens by less
SURE: Final = np.float32(0.97)  # of a label, by all experts together: then there is nothing to be learned
LEAST_ERROR: Final = np.float32(1e-3)  # spares most labels of many a step


class Ridge(NamedTuple):
    """What is learned. `width` numbers a label, as a vector has; a model without vectors has none."""

    weights: NDArray[np.float32]  # [max_labels, width]
    covariance: NDArray[
        np.float32
    ]  # [width, numbers of a block or width if that is less], of a weight with its block's


class Space(NamedTuple):
    """What kernels write over."""

    rows: NDArray[np.int64]  # [2, MOST], of a table: of this text's words, and of the next one's
    halves: NDArray[np.uint16]  # [2, dimension], of vectors that are sent: this text's and the next one's; else [2, 0]
    vector: NDArray[np.float32]  # [width], the text's
    moves: NDArray[np.float32]  # [width]
    steps: NDArray[np.float32]  # [width]
    lanes: NDArray[np.float32]  # [LANES]
    scores: NDArray[np.float32]  # [max_labels]


RIDGE_TABLES: Final = frozenset({"ridge_weights"}) | MEANS_TABLES
RIDGE_STEPS: Final = frozenset({"ridge_covariance"})


class Meaning:
    """Which vectors texts have, and what is learned of them: the ridge. Without any there is none.

    Parameters
    ----------
    table : of word vectors
    sent : how many numbers a vector has that is sent with a text; one of the two is none

    Attributes
    ----------
    arguments : what the kernel is told: words, the vectors' dimension or 0, the ridge, its space, the means
    """

    def __init__(self, table: Table | None, max_labels: int, sent: int = 0) -> None:
        self.table, self.sent = table, sent
        self.dimension = dimension = sent if table is None else table.dimension
        n_labels, width = (max_labels, width_of(dimension)) if dimension else (0, 0)
        self.scale, block = (SENT_SCALE, _even(width, SENT_BLOCK)) if sent else (SCALE, min(width, BLOCK))
        covariance, used = np.zeros((width, block), np.float32), np.arange(min(dimension + 1, width))
        covariance[used, used % max(block, 1)] = FIRST_VARIANCE
        self._ridge = Ridge(np.zeros((n_labels, width), np.float32), covariance)
        self._space = Space(
            rows=np.zeros((2, MOST), np.int64),
            halves=np.zeros((2, sent), np.uint16),
            vector=np.zeros(width, np.float32),
            moves=np.zeros(width, np.float32),
            steps=np.zeros(width, np.float32),
            lanes=np.zeros(LANES, np.float32),
            scores=np.zeros(n_labels, np.float32),
        )
        self._words = no_words() if table is None else table.words
        n_means = max_labels if sent else 0
        self._means = Means(np.zeros((n_means, width), np.float32), np.zeros(n_means, np.float32))
        self.arguments = self._words, dimension, self._ridge, self._space, self._means

    def state(self) -> State:
        """Return the arrays as part of a model's state; a model without vectors has none."""
        parts = [("ridge", self._ridge)] * bool(self.dimension) + [("means", self._means)] * bool(self.sent)
        return {f"{of}_{name}": array for of, part in parts for name, array in part._asdict().items()}

    def load_state(self, state: State) -> None:
        """Take over what is part of a model's state."""
        if self.dimension:
            self._ridge = Ridge(**{name: state[f"ridge_{name}"] for name in Ridge._fields})
            if self.sent:
                self._means = Means(**{name: state[f"means_{name}"] for name in Means._fields})
            self.arguments = self._words, self.dimension, self._ridge, self._space, self._means

    def clear(self, column: int) -> None:
        """Forget what was learned of a label."""
        if self.dimension:
            self._ridge.weights[column] = 0
        if self.sent:
            self._means.sums[column], self._means.scales[column] = 0, 0

    def parts(self, hashed: Hashed, n_labels: int) -> list[Part]:
        """Take the scores of labels apart: what each word's row adds, once the vector's length is known; or the vector
        that was sent.
        """
        if not self.dimension:
            return []
        vectors = np.zeros((len(hashed.features), self.dimension))
        if self.table is None:
            sent = vector_of(hashed.text)
            if sent is not None and len(sent) == self.dimension:
                vectors[hashed.kinds == VECTOR] = sent
        else:
            vectors = self._of_words(self.table, hashed)
        length = float(np.linalg.norm(vectors.sum(axis=0)))
        if not LEAST_LENGTH < length < np.inf:
            nothing = Part(np.zeros(n_labels), lambda at: np.zeros((at.stop - at.start, n_labels)))
            return [nothing] * (2 if self.sent else 1)
        weights = float(self.scale) * self._ridge.weights[:n_labels].astype(np.float64)
        of_rows, bias = weights[:, : self.dimension].T / length, weights[:, self.dimension] * float(ALIKE)
        found = [Part(bias, lambda at: vectors[at] @ of_rows)]
        return [*found, self._of_means(vectors, length, n_labels)] if self.sent else found

    def _of_means(self, vectors: NDArray[np.float64], length: float, n_labels: int) -> Part:
        """Take the means' scores apart: all is the vector's, but what a label without a mean has."""
        scales = self._means.scales[:n_labels].astype(np.float64)
        of_rows = (
            float(MEANS_SCALE) * scales * self._means.sums[:n_labels, : self.dimension].astype(np.float64).T / length
        )
        if (scales > 0).any():
            of_rows[:, scales == 0] = of_rows[:, scales > 0].mean(axis=1, keepdims=True)
        return Part(np.zeros(n_labels), lambda at: vectors[at] @ of_rows)

    @staticmethod
    def _of_words(table: Table, hashed: Hashed) -> NDArray[np.float64]:
        """Return the row of each feature; of what has none, zeros."""
        rows = np.full(len(hashed.features), -1)
        rows[: hashed.n_words] = table.find(hashed.features[: hashed.n_words])
        rows[np.flatnonzero(rows >= 0)[MOST:]] = -1
        vectors = np.zeros((len(rows), table.dimension))
        vectors[rows >= 0] = table.vectors(rows[rows >= 0])
        return vectors


def _even(width: int, most: int) -> int:
    """Return how many numbers a block has, where all are as long as can be, and alike."""
    return -(-width // max(-(-width // most), 1) // LANES) * LANES


@kernel
def score_ridge(ridge, space, has_vector, known, n_labels, logs, p):  # type: ignore[no-untyped-def]
    """Write the log probabilities and probabilities of known labels. Returns whether all scores were finite."""
    scores, scale = space.scores, SENT_SCALE if space.halves.shape[1] > 0 else SCALE
    for label in range(n_labels):
        scores[label] = scale * dot(ridge.weights[label], space.vector, space.lanes) if has_vector else np.float32(0)
    return log_softmax(scores, known, n_labels, logs, p)


@kernel
def uncertainty(covariance, vector, moves):  # type: ignore[no-untyped-def]
    """Write the covariances of weights with a text's score; return the sum of the weights' variances."""
    spread = np.float32(0)
    for begin in range(0, vector.shape[0], covariance.shape[1]):
        size = min(vector.shape[0] - begin, covariance.shape[1])
        inputs, block = vector[begin : begin + size], moves[begin : begin + size]
        for k in range(size):
            block[k] = np.float32(0)
        for i in range(size):
            value = inputs[i]
            for k in range(size):
                block[k] += value * covariance[begin + i, k]
            spread += covariance[begin + i, i]
    return spread


@kernel
def shrink(covariance, moves, gain, grown):  # type: ignore[no-untyped-def]
    """Take what a text told out of the covariances, which have grown a little.

    In both halves exactly the same: what is not alike in them would grow, and never be taken out.
    """
    for begin in range(0, moves.shape[0], covariance.shape[1]):
        size = min(moves.shape[0] - begin, covariance.shape[1])
        block = moves[begin : begin + size]
        for i in range(size):
            move = block[i]
            for k in range(size):
                covariance[begin + i, k] = covariance[begin + i, k] * grown - gain * (move * block[k])


@kernel
def learn_ridge(ridge, space, dimension, known, target, n_labels, weight):  # type: ignore[no-untyped-def]
    """Learn a text that has a vector; a weight is as many steps, at once. Returns whether all was finite."""
    weights, vector, moves, steps = ridge.weights, space.vector, space.moves, space.steps
    spread = uncertainty(ridge.covariance, vector, moves)
    variance = dot(moves, vector, space.lanes)
    gain = np.float32(weight / (1 + weight * max(variance, np.float32(0))))
    if not gain * variance < np.inf:
        return False
    for i in range(vector.shape[0]):
        steps[i] = gain * moves[i]
    for label in range(n_labels):
        if known[label]:
            row = weights[label]
            error = np.float32(label == target) - dot(row, vector, space.lanes)
            if abs(error) >= LEAST_ERROR:
                for i in range(vector.shape[0]):
                    row[i] += error * steps[i]
    widening = SENT_WIDENING / (dimension + 1) if space.halves.shape[1] > 0 else WIDENING
    grown = 1 + weight * widening if spread < (dimension + 1) * FIRST_VARIANCE else 1.0
    shrink(ridge.covariance, moves, gain, np.float32(grown))
    return True
