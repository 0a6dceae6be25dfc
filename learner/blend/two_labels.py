"""How do the experts of `blend` score and learn a text of two labels?

The common case, and the fastest. Two labels' weights are each other's negatives, by the gradients' symmetry; so one is
summed up and stepped, and the other written down. With a third label both are there, and go their own ways
(rows.py).

Each row is read once: what all experts need of it goes to a plane of its own, a value a feature, and all arithmetic is
on planes, LANES features at once. What steps go by is asked for as soon as it is known that there is a step.
"""

import math
from typing import Final

import numpy as np

from driftline.learner.blend.mixer import log_softmax
from driftline.learner.blend.rows import (
    ALPHA,
    DISTINCT_TERMS,
    EXPERT,
    EXPONENT,
    EXPONENT_BIAS,
    EXPONENT_OF_1,
    EXPONENT_SHIFT,
    FIRST_SUM,
    FIRST_VARIANCE,
    FLATTEN_ALL,
    FLATTEN_TERMS,
    GRAMS_RATE,
    GRAMS_SUM,
    KEPT,
    LOG_2,
    MIN_GRADIENT,
    PLAIN_RATE,
    SHAPE_VALUE,
    TERMS,
    WIDTH,
)
from driftline.learner.explain.rows import LANES, OVERALL, TOTAL, adagrad, ask_for
from driftline.learner.kernels import kernel
from driftline.learner.models.bayes import bayes_scores
from driftline.learner.text.shape import N_AMOUNTS

N_PLANES: Final = 9
GRAM_VALUES, GRAM_WEIGHTS, COUNTS, OTHER_COUNTS, TERM_VALUES, PLAIN_WEIGHTS, WARY_WEIGHTS, PASTS, VARIANCES = range(9)
BLOCKS: Final = 16  # factors of a lane multiplied before its exponent is taken out: 1e16 each would still be finite
ONE, TWO, THREE = np.uint64(1), np.uint64(2), np.uint64(3)


@kernel
def fill(plane, start, stop, value):  # type: ignore[no-untyped-def]
    """Write the same value at some places."""
    for i in range(start, stop):
        plane[i] = value


@kernel
def whole(n):  # type: ignore[no-untyped-def]
    """Return the next multiple of LANES."""
    return (n + LANES - 1) & -LANES


@kernel
def fetch_linear(tables, bases, ends, values, planes):  # type: ignore[no-untyped-def]
    """Write the planes of a text's values, weights and counts, and zeros up to the next multiple of LANES."""
    grams, terms = tables
    gram_bases, term_bases = bases
    n_words, n_amounts, n = ends
    gram_value, chars_value, term_value = values
    weights, counts, others = planes[GRAM_WEIGHTS], planes[COUNTS], planes[OTHER_COUNTS]
    for i in range(n):
        row = np.uint64(WIDTH * gram_bases[i])
        weights[i], counts[i], others[i] = grams[row], grams[row + ONE], grams[row + THREE]
    plain, wary = planes[PLAIN_WEIGHTS], planes[WARY_WEIGHTS]
    for i in range(n_amounts):
        row = np.uint64(WIDTH * term_bases[i])
        plain[i], wary[i] = terms[row], terms[row + ONE]
    for plane in (weights, counts, others, planes[GRAM_VALUES]):
        fill(plane, n, whole(n), np.float32(0))
    for plane in (plain, wary, planes[TERM_VALUES]):
        fill(plane, n_amounts, whole(n_amounts), np.float32(0))
    fill(planes[GRAM_VALUES], 0, n_words, gram_value)
    fill(planes[GRAM_VALUES], n_words, n_amounts, SHAPE_VALUE)
    fill(planes[GRAM_VALUES], n_amounts, n, chars_value)
    fill(planes[TERM_VALUES], 0, n_words, term_value)
    fill(planes[TERM_VALUES], n_words, n_amounts, SHAPE_VALUE)


@kernel
def dot(one, other, n, sums):  # type: ignore[no-untyped-def]
    """Return the sum of products of two planes, which have zeros past n."""
    lanes = sums[:LANES]
    for lane in range(LANES):
        lanes[lane] = np.float32(0)
    for begin in range(0, n, LANES):
        first, second = one[begin : begin + LANES], other[begin : begin + LANES]
        for lane in range(LANES):
            lanes[lane] += first[lane] * second[lane]
    total = np.float32(0)
    for lane in range(LANES):
        total += lanes[lane]
    return total


@kernel
def score_linear_two(tables, bases, ends, values, known, planes, z, logs, p):  # type: ignore[no-untyped-def]
    """Do what `score_linear` does; the planes are left for the other experts, and for learning."""
    fetch_linear(tables, bases, ends, values, planes)
    n_amounts, n = ends[1], ends[2]
    finite = True
    for expert in range(3):
        weights = planes[GRAM_WEIGHTS if expert == EXPERT.GRAMS else PLAIN_WEIGHTS + expert - EXPERT.PLAIN]
        inputs = planes[GRAM_VALUES if expert == EXPERT.GRAMS else TERM_VALUES]
        z[0] = dot(weights, inputs, n if expert == EXPERT.GRAMS else n_amounts, planes[PASTS])
        z[1] = -z[0]
        finite = log_softmax(z, known, 2, logs[expert], p[expert]) and finite
    return finite


@kernel
def take_exponents(bits):  # type: ignore[no-untyped-def]
    """Leave LANES products, whose bits are given, their mantissas. Returns the sum of their exponents."""
    total = np.int64(0)
    for lane in range(LANES):
        exponent = bits[lane] & EXPONENT
        finite = exponent != EXPONENT  # what is not must stay so: it is refused
        total += ((exponent >> EXPONENT_SHIFT) - EXPONENT_BIAS) if finite else np.int64(0)
        bits[lane] = ((bits[lane] & ~EXPONENT) | EXPONENT_OF_1) if finite else bits[lane]
    return total


@kernel
def multiply(planes, start, stop, inverse, rows, bits):  # type: ignore[no-untyped-def]
    """Multiply LANES products of each label by 1 + count * inverse of some features, and count in PASTS what was seen.

    Returns the sums of the exponents that were taken out of the products, the first two of `rows`: they are mantissas.
    """
    factors, its, seen = rows[0, :LANES], rows[1, :LANES], planes[PASTS, :LANES]
    exponents, other = np.int64(0), np.int64(0)
    zero, one = np.float32(0), np.float32(1)  # whole numbers are exact up to 2**24
    first = min(whole(start), stop)
    last = max(stop & -LANES, first)
    for group in range(first, last, LANES * BLOCKS):
        for begin in range(group, min(group + LANES * BLOCKS, last), LANES):
            counts, others = planes[COUNTS, begin : begin + LANES], planes[OTHER_COUNTS, begin : begin + LANES]
            for lane in range(LANES):
                factors[lane] *= 1.0 + counts[lane] * inverse
                its[lane] *= 1.0 + others[lane] * inverse
                seen[lane] += one if counts[lane] + others[lane] > zero else zero
        exponents += take_exponents(bits[0])
        other += take_exponents(bits[1])
    for edge in ((start, first), (last, stop)):
        for i in range(edge[0], edge[1]):
            lane = i & (LANES - 1)
            count, its_count = planes[COUNTS, i], planes[OTHER_COUNTS, i]
            factors[lane] *= 1.0 + count * inverse
            its[lane] *= 1.0 + its_count * inverse
            seen[lane] += one if count + its_count > zero else zero
    return exponents + take_exponents(bits[0]), other + take_exponents(bits[1])


@kernel
def whole_sum(lanes):  # type: ignore[no-untyped-def]
    """Return the sum of LANES whole numbers."""
    total = np.float32(0)
    for lane in range(LANES):
        total += lanes[lane]
    return np.int64(total)


@kernel
def log_product(mantissas):  # type: ignore[no-untyped-def]
    """Return the logarithm of the product of LANES mantissas."""
    product = 1.0
    for lane in range(LANES):
        product *= mantissas[lane]
    return math.log(product)


@kernel
def score_bayes_two(planes, n_plain, ends, totals, overall, known, rows, bits, logs, p):  # type: ignore[no-untyped-def]
    """Do what `score_bayes` does, from planes, whose counts are changed."""
    sums, z = rows[2], rows[3]
    n_words, n_amounts, n = ends
    inverse = 1 / (ALPHA * overall[OVERALL.SCALE])
    for label in range(2):
        planes[COUNTS + label, 0] = np.float32(0)
        fill(planes[COUNTS + label], n_words, n_amounts, np.float32(0))
        fill(rows[label], 0, LANES, 1.0)
    fill(planes[PASTS], 0, LANES, np.float32(0))
    first, other = multiply(planes, 0, 1 + n_plain, inverse, rows, bits)
    seen_terms = whole_sum(planes[PASTS])
    sums[0], sums[1] = log_product(rows[0]) + LOG_2 * first, log_product(rows[1]) + LOG_2 * other
    bayes_scores(sums, n_plain, totals, TERMS, DISTINCT_TERMS, overall, ALPHA, FLATTEN_TERMS, 2, False, z)
    finite = log_softmax(z, known, 2, logs[EXPERT.BAYES_TERMS], p[EXPERT.BAYES_TERMS])
    more, other_more = multiply(planes, 1 + n_plain, whole(n), inverse, rows, bits)
    n_seen = whole_sum(planes[PASTS])
    sums[0] = log_product(rows[0]) + LOG_2 * (first + more)
    sums[1] = log_product(rows[1]) + LOG_2 * (other + other_more)
    bayes_scores(
        sums, n_seen, totals, TOTAL.FEATURES, OVERALL.DISTINCT_FEATURES, overall, ALPHA, FLATTEN_ALL, 2, False, z
    )
    finite = log_softmax(z, known, 2, logs[EXPERT.BAYES_ALL], p[EXPERT.BAYES_ALL]) and finite
    return finite, n_plain - seen_terms, n - N_AMOUNTS - 1 - n_seen


@kernel
def ask_for_steps(states, bases, ends, p, target):  # type: ignore[no-untyped-def]
    """Let what the steps to come go by come from the memory."""
    gram_squares, term_states = states
    gram_bases, term_bases = bases
    if np.float32(1) - p[EXPERT.GRAMS, target] >= MIN_GRADIENT:
        ask_for(gram_squares, gram_bases, ends[2], 1, 1)
    if np.float32(1) - min(p[EXPERT.PLAIN, target], p[EXPERT.WARY, target]) >= MIN_GRADIENT:
        ask_for(term_states, term_bases, ends[1], WIDTH, 1)


@kernel
def step_squares(planes, values, weights, n, gradient, rate, least, part):  # type: ignore[no-untyped-def]
    """Take an AdaGrad step of the first label's weights, as `learn_label` in rows.py."""
    step = rate * part
    for begin in range(0, n, LANES):
        end = begin + LANES
        block, sums, inputs = planes[weights, begin:end], planes[PASTS, begin:end], planes[values, begin:end]
        for lane in range(LANES):
            block[lane], sums[lane] = adagrad(
                block[lane], sums[lane] * KEPT, gradient * inputs[lane], step, part, least
            )


@kernel
def step_variances(planes, n, gradient, part):  # type: ignore[no-untyped-def]
    """Take a step of the first label's weights that have variances, as `learn_variances` does."""
    one = np.float32(1)
    forgotten = (one - KEPT) / FIRST_VARIANCE
    curve = part * abs(gradient) * (one - abs(gradient))
    values, weights, variances, products = (
        planes[TERM_VALUES], planes[WARY_WEIGHTS], planes[VARIANCES], planes[GRAM_VALUES],
    )  # fmt: skip
    for i in range(whole(n)):
        products[i] = variances[i] * values[i]
    step = part * gradient / (one + curve * dot(products, values, n, planes[COUNTS]))
    for i in range(n):
        x, variance = values[i], variances[i]
        weights[i] -= step * products[i]
        variances[i] = variance / (KEPT + variance * (curve * x * x + forgotten))


@kernel
def put_grams(planes, tables, bases, start, stop, target, amount):  # type: ignore[no-untyped-def]
    """Write both labels' weights and sums of squares, and count the target."""
    grams, squares = tables
    weights, pasts = planes[GRAM_WEIGHTS], planes[PASTS]
    count = ONE + TWO * np.uint64(target)
    for i in range(start, stop):
        base = np.uint64(bases[i])
        row = TWO * base
        grams[row], grams[row + TWO] = weights[i], -weights[i]
        grams[row + count] += amount
        squares[base] = squares[base + ONE] = pasts[i]


@kernel
def learn_grams_two(tables, states, bases, ends, gradient, part, target, amount, planes):  # type: ignore[no-untyped-def]
    """Take a step of expert 0, and count an amount of the target for naive Bayes, from the planes that scoring left."""
    grams, squares, gram_bases = tables[0], states[0], bases[0]
    n_words, n_amounts, n = ends
    pasts = planes[PASTS]
    for i in range(n):
        pasts[i] = squares[np.uint64(gram_bases[i])]
    step_squares(planes, GRAM_VALUES, GRAM_WEIGHTS, n, gradient, GRAMS_RATE, GRAMS_SUM, part)
    both = (grams, squares)
    nothing = np.float32(0)
    put_grams(planes, both, gram_bases, 0, 1, target, nothing)
    put_grams(planes, both, gram_bases, 1, n_words, target, amount)
    put_grams(planes, both, gram_bases, n_words, n_amounts, target, nothing)
    put_grams(planes, both, gram_bases, n_amounts, n, target, amount)


@kernel
def learn_terms_two(tables, states, bases, ends, plain_gradient, wary_gradient, part, planes):  # type: ignore[no-untyped-def]
    """Take a step of experts 1 and 2, from the planes that scoring left."""
    terms, term_states, term_bases = tables[1], states[1], bases[1]
    n = ends[1]
    pasts, variances = planes[PASTS], planes[VARIANCES]
    for i in range(n):
        row = np.uint64(WIDTH * term_bases[i])
        pasts[i], variances[i] = term_states[row], term_states[row + ONE]
    fill(variances, n, whole(n), np.float32(0))
    if plain_gradient != 0:
        step_squares(planes, TERM_VALUES, PLAIN_WEIGHTS, n, plain_gradient, PLAIN_RATE, FIRST_SUM, part)
    if wary_gradient != 0:
        step_variances(planes, n, wary_gradient, part)
    plain, wary = planes[PLAIN_WEIGHTS], planes[WARY_WEIGHTS]
    for i in range(n):
        row = np.uint64(WIDTH * term_bases[i])
        terms[row], terms[row + ONE], terms[row + TWO], terms[row + THREE] = plain[i], wary[i], -plain[i], -wary[i]
        term_states[row], term_states[row + ONE] = pasts[i], variances[i]
        term_states[row + TWO], term_states[row + THREE] = pasts[i], variances[i]
