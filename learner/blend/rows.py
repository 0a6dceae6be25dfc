"""How do the experts of `blend` score a text's features and learn them?

Kernels over two tables, each a row of WIDTH values a label: of all features a weight and a count (`grams`), of
words, pairs and shape two weights (`terms`). What stands in one row is one wait for the memory, so what reads the same
features shares a table; what steps go by lies apart. Rows begin at even slots: those of two labels are never cut by a
cache line, and either have the same slots or none in common.

What is here is for any number of labels; for two, the common case, two_labels.py does the same faster.
"""

import math
from typing import Final, NamedTuple

import numpy as np

from driftline.learner.blend.mixer import log_softmax
from driftline.learner.explain.rows import (
    LANES,
    OVERALL,
    PRODUCTS,
    TOTAL,
    adagrad,
    add_rows,
    ask_for,
    count_label,
    fetch,
    grow_scale,
    place,
    put_back,
)
from driftline.learner.kernels import kernel
from driftline.learner.models.bayes import bayes_scores
from driftline.learner.text.shape import N_AMOUNTS

TERMS, DISTINCT_TERMS = TOTAL.WORDS, OVERALL.DISTINCT_WORDS  # in the totals of naive Bayes: here also of pairs


class _Expert(NamedTuple):
    """Numbers of the experts."""

    GRAMS: int = 0
    PLAIN: int = 1
    WARY: int = 2
    BAYES_TERMS: int = 3
    BAYES_ALL: int = 4


EXPERT: Final = _Expert()
N_LINEAR: Final = 3
WIDTH: Final = 2  # values of a (feature, label) pair in a row: a weight and a count, or two weights
COUNT: Final = 1  # its column
ROWS_APART: Final = 2

GRAMS_RATE: Final = np.float32(1.0)
GRAMS_SUM: Final = np.float32(1e-2)  # so that the high rate does not hit at the first sight of a feature
PLAIN_RATE: Final = np.float32(0.5)
FIRST_SUM: Final = np.float32(1e-5)
MIN_GRADIENT: Final = np.float32(1e-2)  # as in rows.py; there are other experts to tell small differences
KEPT: Final = np.float32(1 - 1e-4)  # of a sum of squares at a step, and of a variance's precision
CHARS_VALUE: Final = np.float32(0.4)  # of an n-gram: a word has many of them, all much alike
SHAPE_VALUE: Final = np.float32(0.1)  # of an amount, however long the text: one of a thousand features would be lost
FIRST_VARIANCE: Final = np.float32(4)
ALPHA: Final = 0.03
FLATTEN_TERMS: Final = 0.5
FLATTEN_ALL: Final = 0.6
LONG: Final = 100  # distinct words: on e-mails naive Bayes was too sure, though likelihoods are flattened

EXPONENT: Final = np.int64(0x7FF) << np.int64(52)  # the bits of a float64's
EXPONENT_SHIFT: Final = np.int64(52)
EXPONENT_BIAS: Final = np.int64(1023)
EXPONENT_OF_1: Final = EXPONENT_BIAS << EXPONENT_SHIFT
LOG_2: Final = math.log(2)


@kernel
def place_all(features, n_plain, n, shape, n_shape, tables, max_labels, bases):  # type: ignore[no-untyped-def]
    """Write the first slots: of the bias, words and pairs, the shape, n-grams.

    Each part begins a place early, with a bias that the part before it overwrites; so the last part goes first.
    """
    grams, terms = tables
    gram_bases, term_bases = bases
    slots = grams.shape[0] // WIDTH
    place(features[n_plain:], n - n_plain, slots, max_labels, gram_bases[n_plain + n_shape :])
    place(shape, n_shape, slots, max_labels, gram_bases[n_plain:])
    place(features, n_plain, slots, max_labels, gram_bases)
    slots = terms.shape[0] // WIDTH
    place(shape, n_shape, slots, max_labels, term_bases[n_plain:])
    place(features, n_plain, slots, max_labels, term_bases)
    for i in range(1 + n + n_shape):
        gram_bases[i] &= -ROWS_APART
    for i in range(1 + n_plain + n_shape):
        term_bases[i] &= -ROWS_APART


@kernel
def ask_for_third(grams, bases, n, third, n_labels):  # type: ignore[no-untyped-def]
    """Let the rows of a third of n features come from the memory: 0, 1 or 2."""
    begin, end = n * third // 3, n * (third + 1) // 3
    ask_for(grams, bases[begin:], end - begin, WIDTH, n_labels)


@kernel
def score_linear(tables, bases, ends, values, known, n_labels, sums, logs, p):  # type: ignore[no-untyped-def]
    """Write the log probabilities and probabilities of the linear experts. Returns whether all were finite."""
    grams, terms = tables
    gram_bases, term_bases = bases
    n_words, n_amounts, n = ends
    gram_value, chars_value, term_value = values
    gram_sums, term_sums, z = sums
    gram_sums[: n_labels * WIDTH] = 0
    term_sums[: n_labels * WIDTH] = 0
    add_rows(grams, WIDTH, gram_bases, 0, n_words, gram_value, n_labels, gram_sums)
    add_rows(grams, WIDTH, gram_bases, n_words, n_amounts, SHAPE_VALUE, n_labels, gram_sums)
    add_rows(grams, WIDTH, gram_bases, n_amounts, n, chars_value, n_labels, gram_sums)
    add_rows(terms, WIDTH, term_bases, 0, n_words, term_value, n_labels, term_sums)
    add_rows(terms, WIDTH, term_bases, n_words, n_amounts, SHAPE_VALUE, n_labels, term_sums)
    finite = True
    for expert in range(N_LINEAR):
        for label in range(n_labels):
            z[label] = (
                gram_sums[label * WIDTH] if expert == EXPERT.GRAMS else term_sums[label * WIDTH + expert - EXPERT.PLAIN]
            )
        finite = log_softmax(z, known, n_labels, logs[expert], p[expert]) and finite
    return finite


@kernel
def multiply_counts(table, bases, start, stop, inverse, n_labels, products, bits, exponents):  # type: ignore[no-untyped-def]
    """Multiply the product of each label by 1 + count * inverse of some features. Returns how many have any count.

    `bits` are those of the products: their exponents are taken out now and then and added up apart, so that one
    logarithm a label is enough. Vectorised; what the rows hold beyond n_labels is read, but counts for nothing.
    """
    n_seen = 0
    padded = (n_labels + LANES - 1) // LANES * LANES
    for first in range(start, stop, PRODUCTS):
        for i in range(first, min(first + PRODUCTS, stop)):
            begin = WIDTH * bases[i]
            seen = False
            if begin + WIDTH * padded <= table.shape[0]:
                for at in range(0, padded, LANES):
                    row, factors = table[begin + WIDTH * at :][: WIDTH * LANES], products[at : at + LANES]
                    for lane in range(LANES):
                        count = row[WIDTH * lane + 1]
                        seen |= (count > 0) & (at + lane < n_labels)
                        factors[lane] *= 1.0 + count * inverse
            else:
                for label in range(n_labels):
                    count = table[begin + WIDTH * label + 1]
                    seen |= count > 0
                    products[label] *= 1.0 + count * inverse
            n_seen += seen
        for label in range(padded):
            exponent = bits[label] & EXPONENT
            finite = exponent != EXPONENT  # what is not must stay so: it is refused
            exponents[label] += ((exponent >> EXPONENT_SHIFT) - EXPONENT_BIAS) if finite else np.int64(0)
            bits[label] = ((bits[label] & ~EXPONENT) | EXPONENT_OF_1) if finite else bits[label]
    return n_seen


@kernel
def add_logs(products, exponents, n_labels, logs):  # type: ignore[no-untyped-def]
    """Write the logarithms of the products."""
    for label in range(n_labels):
        logs[label] = math.log(products[label]) + LOG_2 * exponents[label]


@kernel
def score_bayes(grams, bases, n_plain, ends, totals, overall, known, n_labels, rows, bits, logs, p):  # type: ignore[no-untyped-def]
    """Write the log probabilities of both naive Bayes experts.

    To the one on terms, a term never seen is evidence: for the label of which least is known. To the other it is none.
    Together they tell apart what is new from what is unclear.

    Returns
    -------
    finite : whether all scores were
    new_terms, new_features : how many no label ever had
    """
    products, sums, z = rows[0], rows[2], rows[3]
    n_words, n_amounts, n = ends
    inverse = 1 / (ALPHA * overall[OVERALL.SCALE])
    places = ((1, 1 + n_plain), (1 + n_plain, n_words), (n_amounts, n))
    n_seen, seen_terms = 0, 0
    products[: n_labels + LANES] = 1
    bits[1, : n_labels + LANES] = 0
    sums[:n_labels] = 0
    for which in range(3):
        start, stop = places[which]
        n_seen += multiply_counts(grams, bases, start, stop, inverse, n_labels, products, bits[0], bits[1])
        if which != 1:
            add_logs(products, bits[1], n_labels, sums)
        if which == 0:
            seen_terms = n_seen
            bayes_scores(
                sums, n_plain, totals, TERMS, DISTINCT_TERMS, overall, ALPHA, FLATTEN_TERMS, n_labels, False, z
            )
            finite = log_softmax(z, known, n_labels, logs[EXPERT.BAYES_TERMS], p[EXPERT.BAYES_TERMS])
    bayes_scores(
        sums, n_seen, totals, TOTAL.FEATURES, OVERALL.DISTINCT_FEATURES, overall, ALPHA, FLATTEN_ALL, n_labels, False, z
    )
    finite = log_softmax(z, known, n_labels, logs[EXPERT.BAYES_ALL], p[EXPERT.BAYES_ALL]) and finite
    return finite, n_plain - seen_terms, n - N_AMOUNTS - 1 - n_seen


@kernel
def calmness(n_words):  # type: ignore[no-untyped-def]
    """Return what the certainty of naive Bayes is multiplied by, for a text of so many distinct words."""
    return np.float32(math.sqrt(LONG / max(n_words, LONG)))


@kernel
def calm_down(logs, n_words, n_labels):  # type: ignore[no-untyped-def]
    """Make the log probabilities of naive Bayes smaller where a text is long."""
    share = calmness(n_words)
    if share < 1:
        for expert in (EXPERT.BAYES_TERMS, EXPERT.BAYES_ALL):
            for label in range(n_labels):
                logs[expert, label] *= share


@kernel
def to_large_gradients(p, target, n_labels, least):  # type: ignore[no-untyped-def]
    """Turn probabilities into gradients of the log loss, those under the least into 0. Returns whether any is left."""
    p[target] -= np.float32(1)
    some = False
    for label in range(n_labels):
        is_large = abs(p[label]) >= least
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
def learn_squares(  # type: ignore[no-untyped-def]
    table, steps, width, column, label, bases, n, gradient, rate, least, part, planes
):
    """Take an AdaGrad step of one label's weights, as `learn_label` in rows.py.

    Weights are in a column of the rows of `table`; sums of squares in those of `steps`, `width` a label.
    """
    values, weights, squares = planes[0], planes[1], planes[2]
    fetch(table, WIDTH, WIDTH * label + column, bases, n, weights)
    fetch(steps, width, width * label + column, bases, n, squares)
    step = rate * part
    for begin in range(0, n, LANES):
        end = begin + LANES
        block, sums, inputs = weights[begin:end], squares[begin:end], values[begin:end]
        for lane in range(LANES):
            block[lane], sums[lane] = adagrad(
                block[lane], sums[lane] * KEPT, gradient * inputs[lane], step, part, least
            )
    put_back(weights, table, WIDTH, WIDTH * label + column, bases, n)
    put_back(squares, steps, width, width * label + column, bases, n)


@kernel
def learn_variances(terms, states, label, bases, n, gradient, part, planes):  # type: ignore[no-untyped-def]
    """A step of one label's weights that have variances.

    The precision grows by p(1 - p) x**2, and slowly forgets towards that of FIRST_VARIANCE.
    """
    one = np.float32(1)
    forgotten = (one - KEPT) / FIRST_VARIANCE
    curve = part * abs(gradient) * (one - abs(gradient))  # p(1 - p), from the gradient p - y, whichever y is
    values, weights, variances, products = planes[0], planes[1], planes[2], planes[3]
    at = WIDTH * label + EXPERT.WARY - EXPERT.PLAIN
    fetch(terms, WIDTH, at, bases, n, weights)
    fetch(states, WIDTH, at, bases, n, variances)
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
    put_back(weights, terms, WIDTH, at, bases, n)
    put_back(variances, states, WIDTH, at, bases, n)


@kernel
def learn_linear(tables, states, bases, ends, values, gradients, part, n_labels, planes):  # type: ignore[no-untyped-def]
    """A step of the linear experts, of labels whose gradient is not small."""
    grams, terms = tables
    gram_squares, term_states = states
    gram_bases, term_bases = bases
    n_words, n_amounts, n = ends
    fill_values(ends, values[0], values[1], planes[0])
    for label in range(n_labels):
        gradient = gradients[EXPERT.GRAMS, label]
        if gradient != 0:
            learn_squares(
                grams, gram_squares, 1, 0, label, gram_bases, n, gradient, GRAMS_RATE, GRAMS_SUM, part, planes
            )
    planes[0, :n_words] = values[2]
    for label in range(n_labels):
        gradient = gradients[EXPERT.PLAIN, label]
        if gradient != 0:
            learn_squares(
                terms, term_states, WIDTH, 0, label, term_bases, n_amounts,
                gradient, PLAIN_RATE, FIRST_SUM, part, planes,
            )  # fmt: skip
        gradient = gradients[EXPERT.WARY, label]
        if gradient != 0:
            learn_variances(terms, term_states, label, term_bases, n_amounts, gradient, part, planes)


@kernel
def learn_counts(counts, bases, ends, target, amount):  # type: ignore[no-untyped-def]
    """Count an amount of a label with features: not the bias, not those of amounts."""
    n_words, n_amounts, n = ends
    count_label(counts, bases, 1, n_words, target, amount)
    count_label(counts, bases, n_amounts, n, target, amount)


@kernel
def learn_totals(  # type: ignore[no-untyped-def]
    counts, n_plain, ends, new_terms, new_features, totals, overall, target, amount, grows
):
    """Count an amount of a label for both naive Bayes experts: in the totals."""
    n = ends[2]
    overall[DISTINCT_TERMS] += new_terms
    overall[OVERALL.DISTINCT_FEATURES] += new_features
    totals[target, TOTAL.DOCUMENTS] += amount
    totals[target, TERMS] += n_plain * amount
    totals[target, TOTAL.FEATURES] += (n - N_AMOUNTS - 1) * amount
    grow_scale(counts, totals, overall, grows)
