"""How does one expert score a text and learn it?

The steps that `linear`, `bayes` and `blend` are made of, each a kernel over hashed features. A (feature, label) pair is
a slot of a table of fixed size, a row of one or more values: feature h has the slots base + label,
base = h * (slots - 2 max_labels) / 2**32, side by side, so that a few labels are one cache line, and never past the
end. The bias has the last max_labels slots for itself. Sums run in the order of features: bit-exact on one machine.

Rows are cut out as slices before they are read: numba then knows that no index is negative, and the loop is vectorised.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.kernels import kernel, prefetch

MIN_GRADIENT: Final = np.float32(3e-3)  # spares most labels of many a step, and at no loss of accuracy
SURE_ALONE: Final = np.float32(0.9)  # the only label is learned so far: more, and a second one could not catch up
MAX_REPEATS: Final = 64  # a label of a larger weight: a text is long since learned by then
LEAST: Final = np.float32(1e-30)  # of a known label: only a label that was not known has exactly 0
PRODUCTS: Final = 16  # counts multiplied before a logarithm is taken: 1e16 each would still be finite
RENORMALISE: Final = 1e6  # the scale at which counts are divided by it

LANES: Final = 16  # features that a step is computed for at once
MOST_LINES: Final = 4096  # cache lines asked for in advance: more would drive each other out of the cache

HALF: Final = np.uint64(32)
MOST_CLEARED: Final = 4096  # features of a text that are known when its label is cleared; words and pairs come first


class _Counter(NamedTuple):
    """Places in counters."""

    N_LABELS: int = 0
    REFUSED: int = 1


class _Total(NamedTuple):
    """Columns of the totals of labels."""

    DOCUMENTS: int = 0
    WORDS: int = 1
    FEATURES: int = 2


class _Overall(NamedTuple):
    """Places in the totals of all."""

    SCALE: int = 0
    DISTINCT_WORDS: int = 1
    DISTINCT_FEATURES: int = 2


COUNTER, TOTAL, OVERALL = _Counter(), _Total(), _Overall()


@kernel
def place(features, n, slots, max_labels, bases):  # type: ignore[no-untyped-def]
    """Write the first slot of the bias, then of each feature."""
    span = np.uint64(slots - 2 * max_labels)
    bases[0] = slots - max_labels
    for i in range(n):
        bases[i + 1] = np.int64((np.uint64(features[i]) * span) >> HALF)


def slots_of(features: NDArray[np.uint32], slots: int, max_labels: int) -> NDArray[np.int64]:
    """Return what `place` writes, for a few texts: the first slot of the bias, then of each feature."""
    span = np.uint64(slots - 2 * max_labels)
    bases = ((features.astype(np.uint64) * span) >> HALF).astype(np.int64)
    return np.concatenate([np.array([slots - max_labels], np.int64), bases])


@kernel
def softmax(scores, known, n_labels, out):  # type: ignore[no-untyped-def]
    """Write the probabilities of known labels, equal ones if a score is not finite. Returns whether all were.

    The sum is in 64 bits: in 32, 500 equal shares sum to 1 + 2e-5.
    """
    finite = True
    top = np.float32(-np.inf)
    for label in range(n_labels):
        if known[label]:
            finite = finite and np.isfinite(scores[label])
            top = max(top, scores[label])
    total = 0.0
    for label in range(n_labels):
        out[label] = np.float32(0)
        if known[label]:
            out[label] = max(np.float32(math.exp(scores[label] - top)), LEAST) if finite else np.float32(1)
        total += out[label]
    for label in range(n_labels):
        out[label] = np.float32(out[label] / total)
    return finite


@kernel
def is_alone(known, n_labels):  # type: ignore[no-untyped-def]
    """Return whether only one label is known."""
    n = 0
    for label in range(n_labels):
        n += int(known[label] != 0)
        if n > 1:
            return False
    return n == 1


@kernel
def beside_nothing(score):  # type: ignore[no-untyped-def]
    """Return the probability of a label beside one of which nothing is known, whose score is 0."""
    return np.float32(1 / (1 + math.exp(-score)))


@kernel
def to_gradients(p, target, n_labels):  # type: ignore[no-untyped-def]
    """Turn probabilities into gradients of the log loss, small ones into 0. Returns whether any is left."""
    p[target] -= np.float32(1)
    some = False
    for label in range(n_labels):
        if abs(p[label]) < MIN_GRADIENT:
            p[label] = 0
        else:
            some = True
    return some


@kernel
def adagrad(weight, past, gradient, step, part, least):  # type: ignore[no-untyped-def]
    """Return a weight and its sum of squared gradients after a step; a part of one counts so much of the square."""
    square = gradient * gradient
    return weight - step * gradient / np.float32(math.sqrt(past + square + least)), past + part * square


@kernel
def ask_for(table, bases, n, width, n_labels):  # type: ignore[no-untyped-def]
    """Let the rows of features, of so many labels, come from the memory while something else is done."""
    line = 64 // table.itemsize
    n_lines = (max(n_labels, 1) * width + line - 1) // line
    for i in range(min(n, MOST_LINES // n_lines)):
        for which in range(n_lines):
            prefetch(table, bases[i] * width + which * line)


@kernel
def fetch(table, width, offset, bases, n, out):  # type: ignore[no-untyped-def]
    """Write the value at `offset` of the row of every feature."""
    for i in range(n):
        out[i] = table[np.uint64(bases[i] * width + offset)]


@kernel
def put_back(values, table, width, offset, bases, n):  # type: ignore[no-untyped-def]
    """Undo `fetch`."""
    for i in range(n):
        table[np.uint64(bases[i] * width + offset)] = values[i]


@kernel
def learn_label(  # type: ignore[no-untyped-def]
    tables, width, offsets, bases, values, n, gradient, rate, part, kept, least, work
):
    """Take an AdaGrad step of one label's weight of every feature.

    Weights and sums are at `offsets` of the rows of two tables, which may be one. Vectorised: what stands in the rows
    is fetched, changed and put back. So all steps are from what stood there before, and where two features have the
    same slot the later one's counts.
    """
    weights, pasts = work
    fetch(tables[0], width, offsets[0], bases, n, weights)
    fetch(tables[1], width, offsets[1], bases, n, pasts)
    step = rate * part
    for begin in range(0, n, LANES):
        end = begin + LANES
        block, sums, inputs = weights[begin:end], pasts[begin:end], values[begin:end]
        for lane in range(LANES):
            block[lane], sums[lane] = adagrad(
                block[lane], sums[lane] * kept, gradient * inputs[lane], step, part, least
            )
    put_back(weights, tables[0], width, offsets[0], bases, n)
    put_back(pasts, tables[1], width, offsets[1], bases, n)


@kernel
def add_row(row, value, out):  # type: ignore[no-untyped-def]
    """Add a row, times a value, to out."""
    for i in range(row.shape[0]):
        out[i] += row[i] * value


@kernel
def add_rows(table, width, bases, start, stop, value, n_labels, out):  # type: ignore[no-untyped-def]
    """Add the rows of features, times their value, to out: [n_labels * width + LANES], as the table, which is flat."""
    n = n_labels * width
    if n == 2:  # two labels: the same sums in registers
        a, b = out[0], out[1]
        for i in range(start, stop):
            row = table[bases[i] * width : bases[i] * width + 2]
            a, b = a + row[0] * value, b + row[1] * value
        out[0], out[1] = a, b
        return
    if n == 4:
        a, b, c, d = out[0], out[1], out[2], out[3]
        for i in range(start, stop):
            row = table[bases[i] * width : bases[i] * width + 4]
            a, b, c, d = a + row[0] * value, b + row[1] * value, c + row[2] * value, d + row[3] * value
        out[0], out[1], out[2], out[3] = a, b, c, d
        return
    # Whole vectors: what is left of a loop would be slow. What they hold beyond n is never looked at.
    padded = (n + LANES - 1) // LANES * LANES
    i = start
    while i + 3 < stop:
        first, second, third, last = bases[i], bases[i + 1], bases[i + 2], bases[i + 3]
        if max(first, second, third, last) * width + padded > table.shape[0]:
            for k in range(i, i + 4):
                add_row(table[bases[k] * width : bases[k] * width + n], value, out)
        else:
            for begin in range(0, padded, LANES):
                a, b = table[first * width + begin :][:LANES], table[second * width + begin :][:LANES]
                c, d = table[third * width + begin :][:LANES], table[last * width + begin :][:LANES]
                sums = out[begin : begin + LANES]
                for lane in range(LANES):
                    sums[lane] = sums[lane] + a[lane] * value + b[lane] * value + c[lane] * value + d[lane] * value
        i += 4
    for k in range(i, stop):
        add_row(table[bases[k] * width : bases[k] * width + n], value, out)


@kernel
def multiply(row, inverse, n_labels, products):  # type: ignore[no-untyped-def]
    """Multiply each product by 1 + count * inverse. Returns the most of the first n_labels counts: vectorised."""
    most = np.float32(0)
    for begin in range(0, row.shape[0], LANES):
        block, factors = row[begin : begin + LANES], products[begin : begin + LANES]
        for lane in range(LANES):
            count = block[lane] if begin + lane < n_labels else np.float32(0)
            most = count if count > most else most
            factors[lane] *= 1.0 + count * inverse
    return most


@kernel
def add_log_counts(counts, bases, start, stop, inverse, n_labels, complement, products, out):  # type: ignore[no-untyped-def]
    """Add the sum over features of log(1 + count * inverse) of each label to out. Returns how many have any count.

    The logarithm is that of a product of PRODUCTS factors: one instead of so many. `complement` takes the count of all
    other labels, and subtracts.
    """
    n_seen = 0
    if n_labels == 2 and not complement:  # the same in registers
        for first in range(start, stop, PRODUCTS):
            one, other = 1.0, 1.0
            for i in range(first, min(first + PRODUCTS, stop)):
                row = counts[bases[i] : bases[i] + 2]
                n_seen += (row[0] > 0) | (row[1] > 0)
                one *= 1.0 + row[0] * inverse
                other *= 1.0 + row[1] * inverse
            out[0] += math.log(one)
            out[1] += math.log(other)
        return n_seen
    padded = (n_labels + LANES - 1) // LANES * LANES
    for first in range(start, stop, PRODUCTS):
        products[:padded] = 1
        for i in range(first, min(first + PRODUCTS, stop)):
            row = counts[bases[i] : bases[i] + n_labels]
            if not complement and bases[i] + padded <= counts.shape[0]:
                n_seen += int(multiply(counts[bases[i] : bases[i] + padded], inverse, n_labels, products) > 0)
                continue
            everything = np.float32(0)
            for label in range(n_labels):
                everything += row[label]
            if everything > 0:
                for label in range(n_labels):
                    count = max(everything - row[label], np.float32(0)) if complement else row[label]
                    products[label] *= 1.0 + count * inverse
            n_seen += int(everything > 0)
        for label in range(n_labels):
            log = math.log(products[label])
            out[label] += -log if complement else log
    return n_seen


@kernel
def count_label(counts, bases, start, stop, label, amount):  # type: ignore[no-untyped-def]
    """Count a label with features."""
    for i in range(start, stop):
        counts[bases[i] + label] += amount


@kernel
def grow_scale(counts, totals, overall, growth):  # type: ignore[no-untyped-def]
    """Forget a little: let later labels count more, and divide all by the scale when it has become large."""
    overall[OVERALL.SCALE] *= growth
    if overall[OVERALL.SCALE] > RENORMALISE:
        inverse = np.float32(1 / overall[OVERALL.SCALE])
        for slot in range(counts.shape[0]):
            counts[slot] *= inverse
        for label in range(totals.shape[0]):
            for column in range(totals.shape[1]):
                totals[label, column] /= overall[OVERALL.SCALE]
        overall[OVERALL.SCALE] = 1.0
