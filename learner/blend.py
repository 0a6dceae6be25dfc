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
    grow_scale,
    learn_label,
    place,
    to_gradients,
)
from learner.kernels import kernel
from learner.mixer import FIRST_WEIGHTS, N_LENGTHS, choose_contexts, learn_weights, log_softmax, mix
from learner.text import TextSettings, hash_text, kernel_inputs, text_buffers

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
        self._buffers = text_buffers(self.settings)
        places = self.settings.max_features + 1 + LANES
        self._work = (
            np.empty((2, places), np.int64),  # first slots among the grams and counts, of this text and the next
            np.empty((2, places), np.int64),  # ... and among the terms
            np.zeros(self.max_labels * WIDTH + LANES, np.float32),  # sums over features
            np.zeros(self.max_labels * WIDTH + LANES, np.float32),
            np.empty((3, self.max_labels + LANES), np.float64),
            np.empty((N_EXPERTS, self.max_labels), np.float32),  # log probabilities
            np.empty((N_EXPERTS, self.max_labels), np.float32),  # probabilities, then gradients
            np.zeros((3, places), np.float32),  # values of features, and what learn_label works with
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
            (state["grams"].reshape(-1), state["terms"].reshape(-1), state["counts"]),
            (state["totals"], state["overall"]),
            (state["weights"], state["factors"]),
            state["known"],
            state["counters"],
            self._work,
            scores,
        )
        return scores

    def config(self) -> dict[str, Any]:
        """Return every setting: what stands in a checkpoint must not change with the defaults of a later version."""
        return {"classifier": "blend", **asdict(self.settings)}

    def state(self) -> State:
        """Return the model's own arrays."""
        return dict(self._state)

    def load_state(self, state: State, labels: Sequence[str]) -> None:
        """Take over arrays, copying only those that are not laid out as the kernel needs them."""
        self._state = self._checked(state, labels)
        self._set_labels(labels, self.max_labels)


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
def learn_grams(grams, bases, n_plain, n, values, gradients, part, n_labels, planes):  # type: ignore[no-untyped-def]
    """A step of the experts on all features, of labels whose gradient is not small."""
    inputs, work = planes[0], (planes[1], planes[2])
    inputs[:n_plain] = values[0]
    inputs[n_plain:n] = values[1]
    for label in range(n_labels):
        quick, calm = gradients[QUICK, label], gradients[CALM, label]
        offset = label * WIDTH
        if quick != 0:
            learn_label(grams, WIDTH, offset, 2, bases, inputs, n, quick, QUICK_RATE, part, KEPT, QUICK_SUM, work)
        if calm != 0:
            learn_label(grams, WIDTH, offset + 1, 2, bases, inputs, n, calm, CALM_RATE, part, KEPT, FIRST_SUM, work)


@kernel
def learn_terms(terms, bases, n, x, sums, gradients, part, n_labels, planes):  # type: ignore[no-untyped-def]
    """A step of the experts on words and pairs. `sums` still has, for each label, the sum of variances times x.

    The precision grows by p(1 - p) x**2, and slowly forgets towards that of FIRST_VARIANCE.
    """
    one = np.float32(1)
    forgotten = (one - KEPT) / FIRST_VARIANCE
    inputs, work = planes[0], (planes[1], planes[2])
    inputs[:n] = x
    for label in range(n_labels):
        plain, wary = gradients[PLAIN, label], gradients[WARY, label]
        offset = label * WIDTH
        if plain != 0:
            learn_label(terms, WIDTH, offset, 2, bases, inputs, n, plain, PLAIN_RATE, part, KEPT, FIRST_SUM, work)
        if wary != 0:
            curve = part * abs(wary) * (one - abs(wary))  # p(1 - p), from the gradient p - y, whichever y is
            step = part * wary * x / (one + curve * x * sums[offset + 3])
            evidence = curve * x * x + forgotten
            for i in range(n):
                row = terms[bases[i] * WIDTH + offset : bases[i] * WIDTH + offset + WIDTH]
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
    1. Hash the next text, and ask the memory for its slots; what follows is about the text before. Values: 1 a word,
       pair and the bias, less an n-gram, divided by the Euclidean norm.
    2. Score: each expert, then the mixer, with the labels known by now.
    3. Learn. The mixer learns from what was predicted, so only labels that were known; then every expert on its own.
       A weight of 2.5 is two steps and a half one, as in linear.py; naive Bayes counts it at once.

    O(features * labels). Bit-exact on one machine.
    """
    all_gram_bases, all_term_bases, gram_sums, term_sums, rows, logs, p, planes = work
    grams, terms, counts = tables
    totals, overall = bayes_totals
    mixer_weights, factors = mixing
    max_labels = known.shape[0]
    one = np.float32(1)
    sums = (gram_sums, term_sums, rows[0])
    n_texts = targets.shape[0]
    next_words, next_plain, next_n = 0, 0, 0
    for turn in range(n_texts + 1):
        # 1
        n_words, n_plain, n = next_words, next_plain, next_n
        if turn < n_texts:
            next_words, next_plain, next_n = hash_text(
                codes, starts[turn], starts[turn + 1], table, text_arguments, buffers
            )
            gram_bases, term_bases = all_gram_bases[turn & 1], all_term_bases[turn & 1]
            place(buffers[0], next_n, counts.shape[0], max_labels, gram_bases)
            place(buffers[0], next_plain, terms.shape[0] // WIDTH, max_labels, term_bases)
            ask_for(terms, term_bases, 1 + next_plain, WIDTH, counters[N_LABELS])
            ask_for(grams, gram_bases, 1 + next_n, WIDTH, counters[N_LABELS])
            ask_for(counts, gram_bases, 1 + next_n, 1, counters[N_LABELS])
        if turn == 0:
            continue
        text = turn - 1
        gram_bases, term_bases = all_gram_bases[text & 1], all_term_bases[text & 1]
        bases = (gram_bases, term_bases)
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
            learn_grams(grams, gram_bases, 1 + n_plain, 1 + n, values, p, part, n_labels, planes)
            learn_terms(terms, term_bases, 1 + n_plain, values[2], term_sums, p, part, n_labels, planes)
            weight_left -= part
            if weight_left <= 0:
                break
        learn_bayes(
            counts, gram_bases, n_words, n, new_words, new_features, totals, overall, target, weights[text], grows
        )
