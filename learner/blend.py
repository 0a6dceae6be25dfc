"""How do several experts share one pass over a text, and mix?

Five experts read the same hashed features, each once, and mixer.py makes one prediction of theirs:

    0  grams    softmax regression on all features, AdaGrad       } grams: a weight; gram_squares: their sum
    1  plain    the same without n-grams                          } terms: two weights
    2  wary     the same, a Gaussian for each weight              } term_states: a sum of squares, a variance
    3  terms    naive Bayes on words and pairs                    } counts
    4  all      naive Bayes on all features                       }

Features: words and pairs, the text's shape (shape.py), and n-grams of two lengths: short ones tell languages, long ones
the parts of words, and those between add little. What steps go by lies apart from the weights: with many labels all are
scored, but few are changed. Only n-grams are many, so the tables of terms have half of the slots. Memory is fixed,
whatever the number of labels.
One thread at a time may use an object; its kernel holds no GIL.

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
    LANES,
    MAX_REPEATS,
    N_LABELS,
    REFUSED,
    SCALE,
    WORDS,
    add_log_counts,
    add_rows,
    ask_for,
    count_label,
    fetch,
    grow_scale,
    learn_label,
    place,
    put_back,
)
from learner.kernels import kernel
from learner.mixer import LEAST_LOG, choose_contexts, first_weights, learn_weights, log_softmax, mix
from learner.parts import Counted, Hashed, Part, Row, bayes_part, limited_part, linear_part, weighted
from learner.shape import MAX_SHAPE, N_AMOUNTS, hash_shape
from learner.sketch import Sketch, is_due, new_sketch, note, sketch_of, sketch_state
from learner.text import TextSettings, hash_text, kernel_inputs, text_buffers
from learner.trace import Feature, trace, trace_shape
from stream.errors import ConfigError

TERMS, DISTINCT_TERMS = WORDS, DISTINCT_WORDS  # in the totals of naive Bayes: here they are of words and pairs
GRAMS, PLAIN, WARY, BAYES_TERMS, BAYES_ALL = range(5)
N_LINEAR: Final = 3
N_EXPERTS: Final = 5
FIRST_WEIGHTS: Final = (0.4, 0.4, 0.4, 0.2, 0.2)  # more than 1 in all: experts that agree are more than one's evidence
TERM_WIDTH: Final = 2  # weights of a (feature, label) pair among the terms, and as many values that their steps go by
TERM_SHARE: Final = 1  # the tables of terms have 2**(bits - TERM_SHARE) slots

GRAMS_RATE: Final = np.float32(1.0)
GRAMS_SUM: Final = np.float32(1e-2)  # so that the high rate does not hit at the first sight of a feature
PLAIN_RATE: Final = np.float32(0.5)
FIRST_SUM: Final = np.float32(1e-5)
MIN_GRADIENT: Final = np.float32(1e-2)  # as in experts.py; there are other experts to tell small differences
KEPT: Final = np.float32(1 - 1e-4)  # of a sum of squares at a step, and of a variance's precision
CHARS_VALUE: Final = np.float32(0.4)
SHAPE_VALUE: Final = np.float32(0.1)  # of an amount, however long the text: one of a thousand features would be lost
FIRST_VARIANCE: Final = np.float32(4)
ALPHA: Final = 0.03
FLATTEN_TERMS: Final = 0.5
FLATTEN_ALL: Final = 0.6


@dataclass(frozen=True, kw_only=True)
class BlendSettings(TextSettings):
    """Options of `blend`."""

    bits: int = 22  # 2**bits slots of 12 bytes, and half as many of 16
    chars_min: int = 2
    chars_max: int = 4
    chars_step: int = 2  # n-grams of 2 and 4 characters
    half_life: float = 5_000.0  # of what naive Bayes counts, in labels learned; 0: never forget
    max_labels: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        check_slots(self.bits, self.max_labels)
        check_half_life(self.half_life)
        if not 1 <= self.chars_step <= 16:
            raise ConfigError(f"chars_step={self.chars_step}: it must be 1 to 16")

    @property
    def lengths(self) -> range:
        """The lengths of n-grams."""
        return range(self.chars_min, self.chars_max + 1, self.chars_step)


class Blend(Classifier):
    """Five experts on hashed words, pairs, shape and character n-grams, mixed in the logistic domain."""

    tables = frozenset({"grams", "terms", "counts", "sketch"})
    steps = frozenset({"gram_squares", "term_states", "covariances"})

    settings: BlendSettings
    _sketch: Sketch

    def __init__(self, settings: BlendSettings | None = None) -> None:
        self.settings = settings or BlendSettings()
        self.spec = spec_of("blend", options_set(self.settings))
        self._set_labels([], self.settings.max_labels)
        slots = 1 << self.settings.bits
        term_states = np.zeros((slots >> TERM_SHARE, TERM_WIDTH), np.float32)
        term_states[:, 1] = FIRST_VARIANCE
        weights, covariances = first_weights(self.max_labels, FIRST_WEIGHTS)
        self._state: State = {
            "grams": np.zeros(slots, np.float32),
            "gram_squares": np.zeros(slots, np.float32),
            "terms": np.zeros((slots >> TERM_SHARE, TERM_WIDTH), np.float32),
            "term_states": term_states,
            "counts": np.zeros(slots, np.float32),
            "totals": np.zeros((self.max_labels, 3)),
            "overall": np.array([1.0, 0, 0]),
            "weights": weights,
            "covariances": covariances,
            "factors": np.zeros(self.max_labels),
            "known": np.zeros(self.max_labels, np.uint8),
            "counters": np.zeros(2, np.int64),
        }
        self._sketch = new_sketch(slots - 2 * self.max_labels)
        self._buffers = text_buffers(self.settings)
        places = self.settings.max_features + MAX_SHAPE + 1
        self._work = (
            np.empty(MAX_SHAPE, np.uint32),  # features of the shape
            np.empty((2, places), np.int64),  # first slots among the grams and counts, of this text and the next
            np.empty((2, places), np.int64),  # ... and among the terms
            np.zeros(self.max_labels + LANES, np.float32),  # sums over features
            np.zeros(self.max_labels * TERM_WIDTH + LANES, np.float32),
            np.empty((3, self.max_labels + LANES), np.float64),
            np.empty((N_EXPERTS, self.max_labels), np.float32),  # log probabilities
            np.empty((N_EXPERTS, self.max_labels), np.float32),  # probabilities, then gradients
            np.zeros((4, places + LANES), np.float32),  # values of features, and what learns a label
            np.empty((4, N_EXPERTS)),  # of the mixer
        )

    @property
    def n_refused(self) -> int:
        """How many texts were not learned: their weight was no weight, or a score not finite (damaged slots)."""
        return int(self._state["counters"][REFUSED])

    def score_and_learn(self, texts: Sequence[str], targets: NDArray[np.int32], weights: NDArray[np.float32]) -> Scores:
        """Score each text, then learn it where it has a target; see `Classifier`."""
        scores = np.zeros((len(texts), len(self.labels)), np.float32)
        state = self._state
        blend_and_learn(
            *kernel_inputs(texts, targets, weights, self.settings, self._buffers),
            growth(self.settings.half_life),
            (state["grams"], state["terms"].reshape(-1), state["counts"]),
            (state["gram_squares"], state["term_states"].reshape(-1)),
            (state["totals"], state["overall"]),
            (state["weights"], state["covariances"], state["factors"]),
            state["known"],
            state["counters"],
            self._sketch,
            self._work,
            scores,
        )
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
        logs, state = self._work[6], self._state
        known = state["known"]
        n_labels = int(state["counters"][N_LABELS])
        contexts = choose_contexts(logs, hashed.n_words, known, n_labels)
        weights = state["weights"][[0, *contexts]].sum(axis=0)
        parts = [
            limited_part(part, len(hashed.features), known[:n_labels] > 0, float(LEAST_LOG))
            for part in self._experts(hashed, n_labels)
        ]
        factors = Part(state["factors"][:n_labels], lambda at: np.zeros((at.stop - at.start, n_labels)))
        return weighted([*zip(weights.tolist(), parts, strict=True), (1.0, factors)])

    def _experts(self, hashed: Hashed, n_labels: int) -> list[Part]:
        state, kinds = self._state, hashed.kinds
        amounts, chars, terms = kinds == "amount", kinds == "chars", (kinds == "word") | (kinds == "pair")
        n_first = 1 + len(kinds) - int(amounts.sum()) - int(chars.sum())
        gram_value = 1 / math.sqrt(n_first + int(chars.sum()) * float(CHARS_VALUE) ** 2)
        term_value = 1 / math.sqrt(n_first)

        def linear(weights: NDArray[np.float32], bias: float, value: float, chars_value: float) -> Part:
            values: Row = np.select([chars, amounts], [chars_value, float(SHAPE_VALUE)], value)
            return linear_part(weights, self.max_labels, hashed, bias, values, n_labels)

        counts = (state["counts"], state["totals"], state["overall"])
        on_terms = Counted(*counts, TERMS, DISTINCT_TERMS, ALPHA, FLATTEN_TERMS, False)
        on_all = Counted(*counts, FEATURES, DISTINCT_FEATURES, ALPHA, FLATTEN_ALL, False)
        return [
            linear(state["grams"], gram_value, gram_value, gram_value * float(CHARS_VALUE)),
            linear(state["terms"][:, 0], term_value, term_value, 0.0),
            linear(state["terms"][:, 1], term_value, term_value, 0.0),
            bayes_part(on_terms, self.max_labels, hashed, terms, False, n_labels),
            bayes_part(on_all, self.max_labels, hashed, ~amounts, True, n_labels),
        ]

    def trace(self, text: str) -> list[Feature]:
        """Return the features of a text: those of its shape come before its n-grams."""
        features = trace(text, self.settings)
        n_plain = sum(feature.kind != "chars" for feature in features)
        return [*features[:n_plain], *trace_shape(text, self.settings, features), *features[n_plain:]]

    def _reach(self, feature: Feature) -> int:
        """Return as `Classifier` says; the table of terms has half of the places."""
        return len(self.labels) << (TERM_SHARE if feature.kind != "chars" else 0)


@kernel
def place_all(features, n_plain, n, shape, n_shape, tables, max_labels, bases):  # type: ignore[no-untyped-def]
    """Write the first slots: of the bias, words and pairs, the shape, n-grams.

    Each part begins a place early, with a bias that the part before it overwrites; so the last part goes first.
    """
    grams, terms, _ = tables
    gram_bases, term_bases = bases
    slots = grams.shape[0]
    place(features[n_plain:], n - n_plain, slots, max_labels, gram_bases[n_plain + n_shape :])
    place(shape, n_shape, slots, max_labels, gram_bases[n_plain:])
    place(features, n_plain, slots, max_labels, gram_bases)
    slots = terms.shape[0] // TERM_WIDTH
    place(shape, n_shape, slots, max_labels, term_bases[n_plain:])
    place(features, n_plain, slots, max_labels, term_bases)


@kernel
def score_linear(tables, bases, ends, values, known, n_labels, sums, logs, p):  # type: ignore[no-untyped-def]
    """Write the log probabilities and probabilities of the linear experts. Returns whether all were finite."""
    grams, terms, _ = tables
    gram_bases, term_bases = bases
    n_words, n_amounts, n = ends
    gram_value, chars_value, term_value = values
    gram_sums, term_sums, z = sums
    gram_sums[:n_labels] = 0
    term_sums[: n_labels * TERM_WIDTH] = 0
    add_rows(grams, 1, gram_bases, 0, n_words, gram_value, n_labels, gram_sums)
    add_rows(grams, 1, gram_bases, n_words, n_amounts, SHAPE_VALUE, n_labels, gram_sums)
    add_rows(grams, 1, gram_bases, n_amounts, n, chars_value, n_labels, gram_sums)
    add_rows(terms, TERM_WIDTH, term_bases, 0, n_words, term_value, n_labels, term_sums)
    add_rows(terms, TERM_WIDTH, term_bases, n_words, n_amounts, SHAPE_VALUE, n_labels, term_sums)
    finite = True
    for expert in range(N_LINEAR):
        for label in range(n_labels):
            z[label] = gram_sums[label] if expert == GRAMS else term_sums[label * TERM_WIDTH + expert - PLAIN]
        finite = log_softmax(z, known, n_labels, logs[expert], p[expert]) and finite
    return finite


@kernel
def to_large_gradients(p, target, n_labels):  # type: ignore[no-untyped-def]
    """Turn probabilities into gradients of the log loss, small ones into 0. Returns whether any is left."""
    p[target] -= np.float32(1)
    some = False
    for label in range(n_labels):
        is_large = abs(p[label]) >= MIN_GRADIENT
        p[label] = p[label] if is_large else np.float32(0)
        some = some or is_large
    return some


@kernel
def fill_values(ends, plain, chars, values):  # type: ignore[no-untyped-def]
    """Write the value of each feature: of the plain ones, of amounts, of n-grams."""
    n_words, n_amounts, n = ends
    values[:n_words] = plain
    values[n_words:n_amounts] = SHAPE_VALUE
    values[n_amounts:n] = chars


@kernel
def learn_grams(grams, squares, bases, n, gradients, part, n_labels, planes):  # type: ignore[no-untyped-def]
    """A step of the expert on all features, of labels whose gradient is not small. The first plane has the values."""
    values, work = planes[0], (planes[1], planes[2])
    for label in range(n_labels):
        gradient = gradients[label]
        if gradient != 0:
            learn_label(
                (grams, squares), 1, (label, label), bases, values, n,
                gradient, GRAMS_RATE, part, KEPT, GRAMS_SUM, work,
            )  # fmt: skip


@kernel
def learn_wary(terms, states, at, bases, n, gradient, part, planes):  # type: ignore[no-untyped-def]
    """A step of one label's weights that have variances: both are at `at` of the rows.

    The precision grows by p(1 - p) x**2, and slowly forgets towards that of FIRST_VARIANCE.
    """
    one = np.float32(1)
    forgotten = (one - KEPT) / FIRST_VARIANCE
    curve = part * abs(gradient) * (one - abs(gradient))  # p(1 - p), from the gradient p - y, whichever y is
    values, weights, variances, products = planes[0], planes[1], planes[2], planes[3]
    fetch(terms, TERM_WIDTH, at, bases, n, weights)
    fetch(states, TERM_WIDTH, at, bases, n, variances)
    for i in range(n):
        products[i] = variances[i] * values[i] * values[i]
    spread = np.float32(0)
    for i in range(n):
        spread += products[i]
    step = part * gradient / (one + curve * spread)
    for i in range(n):
        x, variance = values[i], variances[i]
        weights[i] -= step * x * variance
        variances[i] = variance / (KEPT + variance * (curve * x * x + forgotten))
    put_back(weights, terms, TERM_WIDTH, at, bases, n)
    put_back(variances, states, TERM_WIDTH, at, bases, n)


@kernel
def learn_terms(terms, states, bases, n, gradients, part, n_labels, planes):  # type: ignore[no-untyped-def]
    """A step of the experts on terms, of labels whose gradient is not small. The first plane has the values."""
    values, work = planes[0], (planes[1], planes[2])
    for label in range(n_labels):
        plain, wary = gradients[PLAIN, label], gradients[WARY, label]
        at = label * TERM_WIDTH
        if plain != 0:
            learn_label(
                (terms, states), TERM_WIDTH, (at, at), bases, values, n,
                plain, PLAIN_RATE, part, KEPT, FIRST_SUM, work,
            )  # fmt: skip
        if wary != 0:
            learn_wary(terms, states, at + 1, bases, n, wary, part, planes)


@kernel
def score_bayes(counts, bases, n_plain, ends, totals, overall, known, n_labels, rows, logs, p):  # type: ignore[no-untyped-def]
    """Write the log probabilities of both naive Bayes experts.

    To the one on terms, a term never seen is evidence: for the label of which least is known. To the other it is none.
    Together they tell apart what is new from what is unclear.

    Returns
    -------
    finite : whether all scores were
    new_terms, new_features : how many no label ever had
    """
    products, sums, z = rows[0], rows[1], rows[2]
    n_words, n_amounts, n = ends
    inverse = 1 / (ALPHA * overall[SCALE])
    sums[:n_labels] = 0
    seen_terms = add_log_counts(counts, bases, 1, 1 + n_plain, inverse, n_labels, False, products, sums)
    bayes_scores(sums, n_plain, totals, TERMS, DISTINCT_TERMS, overall, ALPHA, FLATTEN_TERMS, n_labels, False, z)
    finite = log_softmax(z, known, n_labels, logs[BAYES_TERMS], p[BAYES_TERMS])
    seen = seen_terms + add_log_counts(counts, bases, 1 + n_plain, n_words, inverse, n_labels, False, products, sums)
    seen += add_log_counts(counts, bases, n_amounts, n, inverse, n_labels, False, products, sums)
    bayes_scores(sums, seen, totals, FEATURES, DISTINCT_FEATURES, overall, ALPHA, FLATTEN_ALL, n_labels, False, z)
    finite = log_softmax(z, known, n_labels, logs[BAYES_ALL], p[BAYES_ALL]) and finite
    return finite, n_plain - seen_terms, n - N_AMOUNTS - 1 - seen


@kernel
def learn_bayes(  # type: ignore[no-untyped-def]
    counts, bases, n_plain, ends, new_terms, new_features, totals, overall, target, weight, grows
):
    """Count a label for both naive Bayes experts."""
    n_words, n_amounts, n = ends
    amount = np.float32(min(weight, np.float32(MAX_REPEATS)) * overall[SCALE])
    overall[DISTINCT_TERMS] += new_terms
    overall[DISTINCT_FEATURES] += new_features
    count_label(counts, bases, 1, n_words, target, amount)
    count_label(counts, bases, n_amounts, n, target, amount)
    totals[target, DOCUMENTS] += amount
    totals[target, TERMS] += n_plain * amount
    totals[target, FEATURES] += (n - N_AMOUNTS - 1) * amount
    grow_scale(counts, totals, overall, grows)


@kernel
def blend_and_learn(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915
    codes, starts, targets, weights, table, text_arguments, buffers, grows,
    tables, states, bayes_totals, mixing, known, counters, sketch, work, scores,
):  # fmt: skip
    """Score each text, then learn it: test-then-train in one pass.

    Parameters
    ----------
    codes, starts, targets, weights, table, text_arguments, buffers : as in linear.py
    grows : float64, growth of naive Bayes's scale at a label
    tables : grams, terms, counts, flat; changed
    states : gram_squares, term_states, flat; changed
    bayes_totals : as in bayes.py; changed
    mixing : weights, covariances and factors, as in mixer.py; changed
    known, counters : as in linear.py; changed
    sketch : changed: the features of texts to be learned
    work : arrays that are overwritten
    scores : float32 [n_texts, labels], changed: the probabilities

    Notes
    -----
    1. Hash the next text, and ask the memory for its slots; what follows is about the text before. Slots are those of
       bias, words, pairs, words as written; amounts; n-grams: `ends` says where each of the three ends. Values: 1, and
       less an n-gram, divided by the Euclidean norm of both; SHAPE_VALUE an amount.
    2. Score: each expert, then the mixer, with the labels known by now.
    3. Learn. The mixer learns from what was predicted, so only labels that were known; then every expert on its own.
       A weight of 2.5 is two steps and a half one, as in linear.py; naive Bayes counts it at once.

    O(features * labels). Bit-exact on one machine.
    """
    shape, all_gram_bases, all_term_bases, gram_sums, term_sums, rows, logs, p, planes, mixer_work = work
    grams, terms, counts = tables
    totals, overall = bayes_totals
    mixer_weights, covariances, factors = mixing
    max_labels = known.shape[0]
    one = np.float32(1)
    sums = (gram_sums, term_sums, rows[0])
    n_texts = targets.shape[0]
    next_words, next_plain, next_n, next_shape = 0, 0, 0, 0
    for turn in range(n_texts + 1):
        # 1
        n_words, n_plain, n, n_shape = next_words, next_plain, next_n, next_shape
        if turn < n_texts:
            start, stop = starts[turn], starts[turn + 1]
            next_words, next_plain, next_n = hash_text(codes, start, stop, table, text_arguments, buffers)
            next_shape = hash_shape(codes, start, stop, table, buffers, next_words, shape)
            bases = (all_gram_bases[turn & 1], all_term_bases[turn & 1])
            place_all(buffers[0], next_plain, next_n, shape, next_shape, tables, max_labels, bases)
            n_terms = 1 + next_plain + next_shape
            ask_for(terms, bases[1], n_terms, TERM_WIDTH, counters[N_LABELS])
            ask_for(grams, bases[0], n_terms + next_n - next_plain, 1, counters[N_LABELS])
            ask_for(counts, bases[0], n_terms + next_n - next_plain, 1, counters[N_LABELS])
            if targets[turn] >= 0 and 0 < weights[turn] < np.inf and is_due(sketch):
                note(buffers[0], next_n, sketch)
                note(shape, next_shape, sketch)
        if turn == 0:
            continue
        text = turn - 1
        gram_bases, term_bases = all_gram_bases[text & 1], all_term_bases[text & 1]
        bases = (gram_bases, term_bases)
        n_first = 1 + n_plain + n_shape - N_AMOUNTS
        ends = (n_first, n_first + N_AMOUNTS, 1 + n + n_shape)
        gram_value = np.float32(1 / math.sqrt(n_first + (n - n_plain) * CHARS_VALUE * CHARS_VALUE))
        values = (gram_value, gram_value * CHARS_VALUE, np.float32(1 / math.sqrt(n_first)))

        # 2
        target = targets[text]
        n_labels = counters[N_LABELS]
        contexts = (0, 0)
        new_terms, new_features = n_plain, n + n_shape - N_AMOUNTS
        finite = True
        if n_labels > 0:
            finite = score_linear(tables, bases, ends, values, known, n_labels, sums, logs, p)
            bayes_finite, new_terms, new_features = score_bayes(
                counts, gram_bases, n_plain, ends, totals, overall, known, n_labels, rows, logs, p
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
            learn_weights(
                logs, known, scores[text], target, part, n_labels,
                mixer_weights, covariances, factors, contexts, mixer_work,
            )  # fmt: skip
            fresh = False
        else:
            known[target] = 1
            n_labels = counters[N_LABELS] = max(n_labels, target + 1)
            fresh = True
        for repeat in range(MAX_REPEATS + 1):
            if (fresh or repeat > 0) and not score_linear(tables, bases, ends, values, known, n_labels, sums, logs, p):
                counters[REFUSED] += 1
                break
            some = False
            for expert in range(N_LINEAR):
                some = to_large_gradients(p[expert], target, n_labels) or some
            if not some:
                break
            part = min(weight_left, one)
            fill_values(ends, values[0], values[1], planes[0])
            learn_grams(grams, states[0], gram_bases, ends[2], p[GRAMS], part, n_labels, planes)
            planes[0, :n_first] = values[2]
            learn_terms(terms, states[1], term_bases, ends[1], p, part, n_labels, planes)
            weight_left -= part
            if weight_left <= 0:
                break
        learn_bayes(
            counts, gram_bases, n_plain, ends, new_terms, new_features, totals, overall, target, weights[text], grows
        )
