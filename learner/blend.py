"""How do several experts share one pass over a text, and mix?

Six experts read the same hashed features, each once, and mixer.py makes one prediction of theirs:

    0  quick    softmax regression on all features, a high AdaGrad rate     } grams: two weights, their two sums
    1  calm     the same with a low rate, for streams with noise            }
    2  plain    softmax regression on words and pairs, AdaGrad              } terms: two weights, a sum, a variance
    3  wary     the same, a Gaussian for each weight                        }
    4  words    naive Bayes on words                                        } counts
    5  all      naive Bayes on all features                                 }

What experts know of a feature and a label lies side by side: a cache line has that of two labels. Words and pairs are
fewer, so their table has half of the slots. Memory is fixed, whatever the number of labels. One thread at a time may
use an object; its kernel holds no GIL.

Variances: the diagonal Kalman filter on the softmax (as AdPredictor, Graepel et al. 2010, section 3.3, with
Laplace's approximation): a weight moves by its variance, and evidence shrinks that; it slowly widens again.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from learner.bayes import bayes_scores, check_half_life, check_slots, growth
from learner.classifier import Classifier, Scores, State, options_set, spec_of
from learner.experts import (
    DISTINCT_FEATURES,
    DISTINCT_WORDS,
    DOCUMENTS,
    FEATURES,
    MAX_REPEATS,
    N_LABELS,
    REFUSED,
    SCALE,
    WORDS,
    adagrad,
    add_log_counts,
    add_rows,
    count_label,
    grow_scale,
    place,
    to_gradients,
)
from learner.kernels import kernel
from learner.mixer import FIRST_WEIGHTS, LEAST_LOG, N_LENGTHS, choose_contexts, learn_weights, log_softmax, mix
from learner.parts import Counted, Hashed, Part, bayes_part, limited_part, linear_part, weighted
from learner.sketch import Sketch, new_sketch, note_texts, sketch_of, sketch_state
from learner.text import TextSettings, hash_text, kernel_inputs, text_buffers
from learner.trace import Feature

QUICK, CALM, PLAIN, WARY, BAYES_WORDS, BAYES_ALL = range(6)
N_LINEAR: Final = 4
N_EXPERTS: Final = 6
WIDTH: Final = 4  # values of a (feature, label) pair in the tables: two weights, then what each step goes by
TERM_SHARE: Final = 1  # the table of terms has 2**(bits - TERM_SHARE) slots

QUICK_RATE: Final = np.float32(1.0)
QUICK_SUM: Final = np.float32(1e-2)  # so that the high rate does not hit at the first sight of a feature
CALM_RATE: Final = np.float32(0.2)
PLAIN_RATE: Final = np.float32(0.5)
FIRST_SUM: Final = np.float32(1e-5)
KEPT: Final = np.float32(1 - 1e-4)  # of a sum of squares at a step, and of a variance's precision
CHARS_VALUE: Final = np.float32(0.4)
FIRST_VARIANCE: Final = np.float32(4)
ALPHA: Final = 0.03
FLATTEN: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class BlendSettings(TextSettings):
    """Options of `blend`."""

    bits: int = 22  # 2**bits slots of 20 bytes, and half as many of 16
    half_life: float = 5_000.0  # of what naive Bayes counts, in labels learned; 0: never forget
    max_labels: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        check_slots(self.bits, self.max_labels)
        check_half_life(self.half_life)


class Blend(Classifier):
    """Six experts on hashed words, pairs and character n-grams, mixed in the logistic domain."""

    tables = frozenset({"grams", "terms", "counts", "sketch"})

    settings: BlendSettings
    _sketch: Sketch

    def __init__(self, settings: BlendSettings | None = None) -> None:
        self.settings = settings or BlendSettings()
        self.spec = spec_of("blend", options_set(self.settings))
        self._set_labels([], self.settings.max_labels)
        slots = 1 << self.settings.bits
        terms = np.zeros((slots >> TERM_SHARE, WIDTH), np.float32)
        terms[:, 3] = FIRST_VARIANCE
        weights = np.zeros((1 + N_LENGTHS + self.max_labels, N_EXPERTS + 1))
        weights[0, :N_EXPERTS] = FIRST_WEIGHTS / N_EXPERTS
        self._state: State = {
            "grams": np.zeros((slots, WIDTH), np.float32),
            "terms": terms,
            "counts": np.zeros(slots, np.float32),
            "totals": np.zeros((self.max_labels, 3)),
            "overall": np.array([1.0, 0, 0]),
            "weights": weights,
            "factors": np.zeros(self.max_labels),
            "known": np.zeros(self.max_labels, np.uint8),
            "counters": np.zeros(2, np.int64),
        }
        self._sketch = new_sketch(slots - 2 * self.max_labels)
        self._buffers = text_buffers(self.settings)
        places = self.settings.max_features + 1
        self._work = (
            np.empty(places, np.int64),  # first slots among the grams and counts
            np.empty(places, np.int64),  # ... and among the terms
            np.empty(self.max_labels * WIDTH, np.float32),  # sums over features
            np.empty(self.max_labels * WIDTH, np.float32),
            np.empty((3, self.max_labels), np.float64),
            np.empty((N_EXPERTS, self.max_labels), np.float32),  # log probabilities
            np.empty((N_EXPERTS, self.max_labels), np.float32),  # probabilities, then gradients
            np.empty(self.max_labels, np.int64),  # labels to be changed
        )

    @property
    def n_refused(self) -> int:
        """How many texts were not learned: their weight was no weight, or a score not finite (damaged slots)."""
        return int(self._state["counters"][REFUSED])

    def score_and_learn(self, texts: Sequence[str], targets: NDArray[np.int32], weights: NDArray[np.float32]) -> Scores:
        """Score each text, then learn it where it has a target; see `Classifier`."""
        scores = np.zeros((len(texts), len(self.labels)), np.float32)
        state = self._state
        inputs = kernel_inputs(texts, targets, weights, self.settings, self._buffers)
        blend_and_learn(
            *inputs,
            growth(self.settings.half_life),
            (state["grams"].reshape(-1), state["terms"].reshape(-1), state["counts"]),
            (state["totals"], state["overall"]),
            (state["weights"], state["factors"]),
            state["known"],
            state["counters"],
            self._work,
            scores,
        )
        note_texts(*inputs, self._sketch)
        return scores

    def config(self) -> dict[str, Any]:
        """Return every setting: what stands in a checkpoint must not change with the defaults of a later version."""
        return {"classifier": "blend", **asdict(self.settings)}

    def state(self) -> State:
        """Return the model's own arrays."""
        return {**self._state, **sketch_state(self._sketch)}

    def load_state(self, state: State, labels: Sequence[str]) -> None:
        """Take over arrays, copying only those that are not laid out as the kernel needs them."""
        taken = self._checked(state, labels)
        self._sketch = sketch_of(taken)
        self._state = {name: taken[name] for name in self._state}
        self._set_labels(labels, self.max_labels)

    def part(self, hashed: Hashed) -> Part:
        """Return the log scores of labels: experts' log probabilities, weighted, and the labels' factors."""
        self.predict_proba_many([hashed.text])  # leaves the log probabilities that the weights are chosen by
        logs, state = self._work[5], self._state
        known = state["known"]
        n_labels = int(state["counters"][N_LABELS])
        contexts = choose_contexts(logs, hashed.n_words, known, n_labels)
        weights = state["weights"][[0, *contexts], :N_EXPERTS].sum(axis=0)
        parts = [
            limited_part(part, len(hashed.features), known[:n_labels] > 0, float(LEAST_LOG))
            for part in self._experts(hashed, n_labels)
        ]
        factors = Part(state["factors"][:n_labels], lambda at: np.zeros((at.stop - at.start, n_labels)))
        return weighted([*zip(weights.tolist(), parts, strict=True), (1.0, factors)])

    def _experts(self, hashed: Hashed, n_labels: int) -> list[Part]:
        state, n, n_plain = self._state, len(hashed.features), hashed.n_plain
        gram_value = 1 / math.sqrt(1 + n_plain + (n - n_plain) * float(CHARS_VALUE) ** 2)
        term_value = 1 / math.sqrt(1 + n_plain)
        tables = {
            "grams": (gram_value, hashed.values(gram_value, gram_value * float(CHARS_VALUE))),
            "terms": (term_value, hashed.values(term_value, 0.0)),
        }
        linear = [
            linear_part(state[table][:, column], self.max_labels, hashed, bias, values, n_labels)
            for table, (bias, values) in tables.items()
            for column in (0, 1)
        ]
        counts = (state["counts"], state["totals"], state["overall"])
        words = Counted(*counts, WORDS, DISTINCT_WORDS, ALPHA, FLATTEN, False)
        everything = Counted(*counts, FEATURES, DISTINCT_FEATURES, ALPHA, FLATTEN, False)
        return [
            *linear,
            bayes_part(words, self.max_labels, hashed, hashed.n_words, n_labels),
            bayes_part(everything, self.max_labels, hashed, None, n_labels),
        ]

    def _reach(self, feature: Feature) -> int:
        """Return as `Classifier` says; the table of words and pairs has half of the places."""
        return len(self.labels) << (TERM_SHARE if feature.kind != "chars" else 0)


@kernel
def score_linear(tables, bases, n_plain, n, values, known, n_labels, sums, logs, p):  # type: ignore[no-untyped-def]
    """Write the log probabilities and probabilities of the linear experts. Returns whether all were finite."""
    grams, terms, _ = tables
    gram_bases, term_bases = bases
    gram_value, chars_value, term_value = values
    gram_sums, term_sums, z = sums
    gram_sums[: n_labels * WIDTH] = 0
    term_sums[: n_labels * WIDTH] = 0
    add_rows(grams, WIDTH, gram_bases, 0, n_plain, gram_value, n_labels, gram_sums)
    add_rows(grams, WIDTH, gram_bases, n_plain, n, chars_value, n_labels, gram_sums)
    add_rows(terms, WIDTH, term_bases, 0, n_plain, term_value, n_labels, term_sums)
    finite = True
    for expert in range(N_LINEAR):
        for label in range(n_labels):
            z[label] = (
                gram_sums[label * WIDTH + expert] if expert < PLAIN else term_sums[label * WIDTH + expert - PLAIN]
            )
        finite = log_softmax(z, known, n_labels, logs[expert], p[expert]) and finite
    return finite


@kernel
def learn_grams(grams, bases, n_plain, n, values, gradients, part, n_labels, active):  # type: ignore[no-untyped-def]
    """A step of the experts on all features, of labels whose gradient is not small."""
    n_active = 0
    for label in range(n_labels):
        if gradients[QUICK, label] != 0 or gradients[CALM, label] != 0:
            active[n_active] = label
            n_active += 1
    for i in range(n):
        x = values[0] if i < n_plain else values[1]
        for a in range(n_active):
            label = active[a]
            row = grams[(bases[i] + label) * WIDTH : (bases[i] + label + 1) * WIDTH]
            gradient = gradients[QUICK, label] * x
            if gradient != 0:
                row[0], row[2] = adagrad(row[0], row[2] * KEPT, gradient, QUICK_RATE * part, part, QUICK_SUM)
            gradient = gradients[CALM, label] * x
            if gradient != 0:
                row[1], row[3] = adagrad(row[1], row[3] * KEPT, gradient, CALM_RATE * part, part, FIRST_SUM)


@kernel
def learn_terms(terms, bases, n, x, sums, gradients, part, n_labels):  # type: ignore[no-untyped-def]
    """A step of the experts on words and pairs. `sums` still has, for each label, the sum of variances times x.

    The precision grows by p(1 - p) x**2, and slowly forgets towards that of FIRST_VARIANCE.
    """
    one = np.float32(1)
    forgotten = (one - KEPT) / FIRST_VARIANCE
    for label in range(n_labels):
        plain, wary = gradients[PLAIN, label] * x, gradients[WARY, label]
        if plain == 0 and wary == 0:
            continue
        curve = part * abs(wary) * (one - abs(wary))  # p(1 - p), from the gradient p - y, whichever y is
        step = part * wary * x / (one + curve * x * sums[label * WIDTH + 3])
        evidence = curve * x * x + forgotten
        for i in range(n):
            row = terms[(bases[i] + label) * WIDTH : (bases[i] + label + 1) * WIDTH]
            if plain != 0:
                row[0], row[2] = adagrad(row[0], row[2] * KEPT, plain, PLAIN_RATE * part, part, FIRST_SUM)
            if wary != 0:
                row[1] -= step * row[3]
                row[3] = row[3] / (KEPT + row[3] * evidence)


@kernel
def score_bayes(counts, bases, n_words, n, totals, overall, known, n_labels, rows, logs, p):  # type: ignore[no-untyped-def]
    """Write the log probabilities of both naive Bayes experts.

    To the one on words, a word never seen is evidence: for the label of which least is known. To the other it is none.
    Together they tell apart what is new from what is unclear.

    Returns
    -------
    finite : whether all scores were
    new_words, new_features : how many no label ever had
    """
    products, sums, z = rows[0], rows[1], rows[2]
    inverse = 1 / (ALPHA * overall[SCALE])
    sums[:n_labels] = 0
    seen_words = add_log_counts(counts, bases, 1, 1 + n_words, inverse, n_labels, False, products, sums)
    bayes_scores(sums, n_words, totals, WORDS, DISTINCT_WORDS, overall, ALPHA, FLATTEN, n_labels, False, z)
    finite = log_softmax(z, known, n_labels, logs[BAYES_WORDS], p[BAYES_WORDS])
    seen = seen_words + add_log_counts(counts, bases, 1 + n_words, 1 + n, inverse, n_labels, False, products, sums)
    bayes_scores(sums, seen, totals, FEATURES, DISTINCT_FEATURES, overall, ALPHA, FLATTEN, n_labels, False, z)
    finite = log_softmax(z, known, n_labels, logs[BAYES_ALL], p[BAYES_ALL]) and finite
    return finite, n_words - seen_words, n - seen


@kernel
def learn_bayes(  # type: ignore[no-untyped-def]
    counts, bases, n_words, n, new_words, new_features, totals, overall, target, weight, grows
):
    """Count a label for both naive Bayes experts."""
    amount = np.float32(min(weight, np.float32(MAX_REPEATS)) * overall[SCALE])
    overall[DISTINCT_WORDS] += new_words
    overall[DISTINCT_FEATURES] += new_features
    count_label(counts, bases, 1, 1 + n, target, amount)
    totals[target, DOCUMENTS] += amount
    totals[target, WORDS] += n_words * amount
    totals[target, FEATURES] += n * amount
    grow_scale(counts, totals, overall, grows)


@kernel
def blend_and_learn(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915
    codes, starts, targets, weights, table, text_arguments, buffers, grows,
    tables, bayes_totals, mixing, known, counters, work, scores,
):  # fmt: skip
    """Score each text, then learn it: test-then-train in one pass.

    Parameters
    ----------
    codes, starts, targets, weights, table, text_arguments, buffers : as in linear.py
    grows : float64, growth of naive Bayes's scale at a label
    tables : grams, terms, counts, flat; changed
    bayes_totals : as in bayes.py; changed
    mixing : weights and factors, as in mixer.py; changed
    known, counters : as in linear.py; changed
    work : arrays that are overwritten
    scores : float32 [n_texts, labels], changed: the probabilities

    Notes
    -----
    1. Hash, and find the slots. Values: 1 a word, pair and the bias, less an n-gram, divided by the Euclidean norm.
    2. Score: each expert, then the mixer, with the labels known by now.
    3. Learn. The mixer learns from what was predicted, so only labels that were known; then every expert on its own.
       A weight of 2.5 is two steps and a half one, as in linear.py; naive Bayes counts it at once.

    O(features * labels). Bit-exact on one machine.
    """
    gram_bases, term_bases, gram_sums, term_sums, rows, logs, p, active = work
    grams, terms, counts = tables
    totals, overall = bayes_totals
    mixer_weights, factors = mixing
    max_labels = known.shape[0]
    one = np.float32(1)
    bases = (gram_bases, term_bases)
    sums = (gram_sums, term_sums, rows[0])
    for text in range(targets.shape[0]):
        # 1
        n_words, n_plain, n = hash_text(codes, starts[text], starts[text + 1], table, text_arguments, buffers)
        place(buffers[0], n, counts.shape[0], max_labels, gram_bases)
        place(buffers[0], n_plain, terms.shape[0] // WIDTH, max_labels, term_bases)
        gram_value = np.float32(1 / math.sqrt(1 + n_plain + (n - n_plain) * CHARS_VALUE * CHARS_VALUE))
        values = (gram_value, gram_value * CHARS_VALUE, np.float32(1 / math.sqrt(1 + n_plain)))

        # 2
        target = targets[text]
        n_labels = counters[N_LABELS]
        contexts = (0, 0)
        new_words, new_features = n_words, n
        finite = True
        if n_labels > 0:
            finite = score_linear(tables, bases, 1 + n_plain, 1 + n, values, known, n_labels, sums, logs, p)
            bayes_finite, new_words, new_features = score_bayes(
                counts, gram_bases, n_words, n, totals, overall, known, n_labels, rows, logs, p
            )
            finite = finite and bayes_finite
            if finite:
                contexts = choose_contexts(logs, n_words, known, n_labels)
                mix(logs, known, n_labels, mixer_weights, factors, contexts, scores[text])
            else:
                for label in range(n_labels):
                    scores[text, label] = known[label] / np.float32(known[:n_labels].sum())

        # 3
        if target < 0:
            continue
        weight_left = weights[text]
        if not finite or not 0 < weight_left < np.inf:
            counters[REFUSED] += 1
            continue
        if target < n_labels and known[target]:
            part = min(weight_left, one)
            learn_weights(logs, known, scores[text], target, part, n_labels, mixer_weights, factors, contexts)
            fresh = False
        else:
            known[target] = 1
            n_labels = counters[N_LABELS] = max(n_labels, target + 1)
            fresh = True
        for repeat in range(MAX_REPEATS + 1):
            if (fresh or repeat > 0) and not score_linear(
                tables, bases, 1 + n_plain, 1 + n, values, known, n_labels, sums, logs, p
            ):
                counters[REFUSED] += 1
                break
            some = False
            for expert in range(N_LINEAR):
                some = to_gradients(p[expert], target, n_labels) or some
            if not some:
                break
            part = min(weight_left, one)
            learn_grams(grams, gram_bases, 1 + n_plain, 1 + n, values, p, part, n_labels, active)
            learn_terms(terms, term_bases, 1 + n_plain, values[2], term_sums, p, part, n_labels)
            weight_left -= part
            if weight_left <= 0:
                break
        learn_bayes(
            counts, gram_bases, n_words, n, new_words, new_features, totals, overall, target, weights[text], grows
        )
