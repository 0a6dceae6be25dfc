"""How does naive Bayes learn from one text at a time?

Multinomial naive Bayes on hashed features: what is learned is counts, so one text of a label already tells much. Old
labels are forgotten exponentially, by `half_life` labels: later ones count more and more, and all is divided when the
scale has become large, so that a label costs the same however many there are. Memory is fixed, as in linear.py.
One thread at a time may use an object; its kernel holds no GIL.

The sum of log likelihoods is divided by a power of the text's length (`flatten`): features depend on each other, and
taken as independent they make every long text certain. Features that no label ever had say nothing: counted as
unlikely for all, they would be least unlikely for the rarest label. `complement` counts what the other labels have
(Rennie et al. 2003).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.learner.explain.parts import Counted, Hashed, Part, bayes_part
from driftline.learner.explain.rows import (
    COUNTER,
    LANES,
    MAX_REPEATS,
    MOST_CLEARED,
    OVERALL,
    TOTAL,
    add_log_counts,
    ask_for,
    count_label,
    grow_scale,
    place,
    slots_of,
    softmax,
)
from driftline.learner.explain.sketch import Sketch, new_sketch, note_texts, sketch_of, sketch_state
from driftline.learner.kernels import kernel
from driftline.learner.models.classifier import Call, Classifier, Scores, State, options_set, spec_of
from driftline.learner.text.features import N_INPUTS, TextSettings, hash_text, imprint, kernel_inputs, text_buffers
from driftline.stream.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BayesSettings(TextSettings):
    """Options of `bayes`."""

    bits: int = 22  # 2**bits slots of 4 bytes
    alpha: float = 0.1
    flatten: float = 0.7  # 0: the textbook's; 1: the mean over features
    half_life: float = 5_000.0  # labels learned until one counts half; 0: never forget
    complement: bool = False
    max_labels: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        check_slots(self.bits, self.max_labels)
        if not 1e-3 <= self.alpha <= 10:
            raise ConfigError(f"alpha={self.alpha}: it must be 0.001 to 10")
        if not 0 <= self.flatten <= 1:
            raise ConfigError(f"flatten={self.flatten}: it must be 0 to 1")
        check_half_life(self.half_life)


def check_slots(bits: int, max_labels: int) -> None:
    """Refuse a table that its labels would fill."""
    if not 8 <= bits <= 30:
        raise ConfigError(f"bits={bits}: it must be 8 to 30")
    limit = 1 << (bits - 4)
    if not 1 <= max_labels <= limit:
        raise ConfigError(f"max_labels={max_labels}: with bits={bits} it must be 1 to {limit}")


def check_half_life(half_life: float) -> None:
    """Refuse a half-life in which nothing could be learned."""
    if half_life and not 10 <= half_life <= 1e12:
        raise ConfigError(f"half_life={half_life}: it must be 10 to 1e12 labels, or 0: never forget")


def growth(half_life: float) -> float:
    """Return how much more a label counts than the one before."""
    return float(2 ** (1 / half_life)) if half_life else 1.0


class Bayes(Classifier):
    """Multinomial naive Bayes with forgetting on hashed words, pairs and character n-grams."""

    tables = frozenset({"counts", "sketch"})
    gives_places = True

    settings: BayesSettings
    _sketch: Sketch

    def __init__(self, settings: BayesSettings | None = None) -> None:
        self.settings = settings or BayesSettings()
        self.spec = spec_of("bayes", options_set(self.settings))
        self._set_labels([], self.settings.max_labels)
        self._counts: NDArray[np.float32] = np.zeros(1 << self.settings.bits, np.float32)
        self._totals: NDArray[np.float64] = np.zeros((self.max_labels, 3), np.float64)
        self._overall: NDArray[np.float64] = np.array([1.0, 0, 0])
        self._known: NDArray[np.uint8] = np.zeros(self.max_labels, np.uint8)
        self._counters: NDArray[np.int64] = np.zeros(2, np.int64)
        self._sketch = new_sketch(len(self._counts) - 2 * self.max_labels)
        self._arguments = (
            self.settings.alpha,
            self.settings.flatten,
            growth(self.settings.half_life),
            self.settings.complement,
        )
        self._buffers = text_buffers(self.settings)
        self._rows: NDArray[np.float64] = np.empty((3, self.max_labels + LANES), np.float64)
        self._bases: NDArray[np.int64] = np.empty((2, self.settings.max_features + 1), np.int64)

    @property
    def n_refused(self) -> int:
        """How many texts were not learned: their weight was no weight, or a score not finite (damaged counts)."""
        return int(self._counters[COUNTER.REFUSED])

    def score_and_learn(self, texts: Sequence[str], targets: NDArray[np.int32], weights: NDArray[np.float32]) -> Scores:
        """Score each text, then learn it where it has a target; see `Classifier`."""
        scores = np.zeros((len(texts), len(self.labels)), np.float32)
        kernel, arguments = self.call(texts, targets, weights, scores)
        kernel(*arguments)
        note_texts(*arguments[:N_INPUTS], self._sketch)
        return scores

    def call(
        self, texts: Sequence[str], targets: NDArray[np.int32], weights: NDArray[np.float32], scores: Scores
    ) -> Call:
        """Return the kernel and its arguments; see `Classifier`."""
        return count_and_score, (
            *kernel_inputs(texts, targets, weights, self.settings, self._buffers),
            self._arguments,
            self._counts,
            self._totals,
            self._overall,
            self._known,
            self._counters,
            self._rows,
            self._bases,
            scores,
        )

    def config(self) -> dict[str, Any]:
        """Return every setting: what stands in a checkpoint must not change with the defaults of a later version."""
        return {"classifier": "bayes", **asdict(self.settings)}

    def state(self) -> State:
        """Return the model's own arrays."""
        return {
            "counts": self._counts,
            "totals": self._totals,
            "overall": self._overall,
            "known": self._known,
            "counters": self._counters,
            **sketch_state(self._sketch),
        }

    def load_state(self, state: State, labels: Sequence[str]) -> None:
        """Take over arrays, copying only those that are not laid out as the kernel needs them."""
        taken = self._checked(state, labels)
        self._counts, self._totals, self._overall = taken["counts"], taken["totals"], taken["overall"]
        self._known, self._counters = taken["known"], taken["counters"]
        self._sketch = sketch_of(taken)
        self._set_labels(labels, self.max_labels)

    def imprint(self, text: str) -> NDArray[np.uint32]:
        """Return what `clear` has to know of a text; see `Classifier`."""
        return imprint(text, self.settings, MOST_CLEARED)

    def clear(self, column: int, imprints: Sequence[NDArray[np.uint32]]) -> None:
        """Make a label unknown; see `Classifier`."""
        for each in imprints:
            self._counts[column + slots_of(each[1:], len(self._counts), self.max_labels)[1:]] = 0
        self._totals[column] = 0
        self._known[column] = 0

    def part(self, hashed: Hashed) -> Part:
        """Return the log scores of labels: the prior, and a log likelihood for each feature."""
        settings = self.settings
        counted = Counted(
            self._counts,
            self._totals,
            self._overall,
            TOTAL.FEATURES,
            OVERALL.DISTINCT_FEATURES,
            settings.alpha,
            settings.flatten,
            settings.complement,
        )
        everything = np.ones(len(hashed.features), np.bool_)
        return bayes_part(counted, self.max_labels, hashed, everything, True, int(self._counters[COUNTER.N_LABELS]))


@kernel
def bayes_scores(  # type: ignore[no-untyped-def]
    sums, n, totals, column, distinct, overall, alpha, flatten, n_labels, complement, out
):
    """Write log prior and log likelihood of each label, flattened.

    `sums` are those of log(1 + count / alpha) over n features; log alpha is the same for every label.
    """
    scale = overall[OVERALL.SCALE]
    smooth = alpha * scale * max(overall[distinct], 1.0)
    power = 1.0 / max(n, 1) ** flatten
    everything = 0.0
    for label in range(n_labels):
        everything += totals[label, column]
    for label in range(n_labels):
        prior = math.log(totals[label, TOTAL.DOCUMENTS] / scale + 0.5)
        if complement:
            likelihood = sums[label] + n * math.log(max(everything - totals[label, column], 0.0) + smooth)
        else:
            likelihood = sums[label] - n * math.log(totals[label, column] + smooth)
        out[label] = (prior + likelihood) * power


@kernel
def count_and_score(  # type: ignore[no-untyped-def]
    codes, starts, targets, weights, table, text_arguments, buffers, arguments,
    counts, totals, overall, known, counters, rows, bases, scores,
):  # fmt: skip
    """Score each text, then learn it: test-then-train in one pass.

    Parameters
    ----------
    codes, starts, targets, weights, table, text_arguments, buffers : as in linear.py
    arguments : (float64, float64, float64, bool), alpha, flatten, growth of the scale at a label, complement or not
    counts : float32 [2**bits], of (feature, label), times the scale; changed
    totals : float64 [max_labels, 3], documents, (unused), features of each label, times the scale; changed
    overall : float64 [3], scale, (unused), features that occurred; changed
    known, counters : as in linear.py; changed
    rows, bases : float64 [3, max_labels + LANES] and int64 [2, max_features + 1], overwritten
    scores : float32 [n_texts, labels], changed: the probabilities

    Notes
    -----
    1. Hash the next text, and ask the memory for its slots; what follows is about the text before.  2. Score with the
    labels known by now.  3. Count. A weight over MAX_REPEATS counts so much. O(features * labels). Bit-exact on one
    machine.
    """
    alpha, flatten, grows, complement = arguments
    products, sums, logs = rows[0], rows[1], rows[2]
    n_texts = targets.shape[0]
    next_n = 0
    for turn in range(n_texts + 1):
        # 1
        n = next_n
        if turn < n_texts:
            _, _, next_n = hash_text(codes, starts[turn], starts[turn + 1], table, text_arguments, buffers)
            place(buffers[0], next_n, counts.shape[0], known.shape[0], bases[turn & 1])
            ask_for(counts, bases[turn & 1], 1 + next_n, 1, counters[COUNTER.N_LABELS])
        if turn == 0:
            continue
        text = turn - 1
        places = bases[text & 1]

        # 2
        n_labels = counters[COUNTER.N_LABELS]
        finite = True
        n_seen = 0
        if n_labels > 0:
            sums[:n_labels] = 0
            inverse = 1 / (alpha * overall[OVERALL.SCALE])
            n_seen = add_log_counts(counts, places, 1, n + 1, inverse, n_labels, complement, products, sums)
            bayes_scores(
                sums,
                n_seen,
                totals,
                TOTAL.FEATURES,
                OVERALL.DISTINCT_FEATURES,
                overall,
                alpha,
                flatten,
                n_labels,
                complement,
                logs,
            )
            finite = softmax(logs, known, n_labels, scores[text])

        # 3
        target = targets[text]
        if target >= 0:
            if not finite or not 0 < weights[text] < np.inf:
                counters[COUNTER.REFUSED] += 1
                continue
            amount = np.float32(min(weights[text], np.float32(MAX_REPEATS)) * overall[OVERALL.SCALE])
            overall[OVERALL.DISTINCT_FEATURES] += n - n_seen
            count_label(counts, places, 1, n + 1, target, amount)
            totals[target, TOTAL.DOCUMENTS] += amount
            totals[target, TOTAL.FEATURES] += n * amount
            known[target] = 1
            counters[COUNTER.N_LABELS] = max(n_labels, target + 1)
            grow_scale(counts, totals, overall, grows)
