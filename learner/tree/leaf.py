"""How does a leaf predict and learn?

By predictors that all leaves share, naive Bayes, softmax regression and their mixture, and by its own, each of which
departs from what is shared only as far as the leaf's texts say. The leaf uses whichever has had the least log loss
lately (adaptive leaves: Gama et al. 2003, Holmes et al. 2005).

Bit-exact on one machine: every sum runs in a fixed order.
"""

import math
from typing import Final

import numpy as np

from driftline.learner.explain.rows import (
    LANES,
    MIN_GRADIENT,
    SURE_ALONE,
    beside_nothing,
    is_alone,
    learn_label,
    softmax,
    to_gradients,
)
from driftline.learner.kernels import inlined, kernel
from driftline.learner.models.linear import FIRST_SUM, learn_two, score, take_rows
from driftline.learner.tree.growth import (
    PROMISE_SPAN,
    take_block,
    try_split,
)
from driftline.learner.tree.layout import (
    ADAPTIVE,
    COUNTER,
    ENTRY,
    LEAF_INPUTS,
    LINK,
    PREDICTOR,
    ROW,
    SCORE,
    SHARED_INPUTS,
    TOTAL,
    VALUE,
    find,
    insert,
    key_of,
)

LOSS_RATE: Final = 0.005  # the decay of a predictor's loss: its last 200 texts count
MAX_LOSS: Final = 9.0
LEAST_SHARE: Final = 1e-20  # of a label that was last learned long ago: all of it would be forgotten else, and log 0
PRIOR_EXAMPLES: Final = 5.0  # how many examples the shared share of labels counts for at a leaf
PRIOR_TOKENS: Final = 300.0  # the same for the shared frequencies of words
ALPHA: Final = 0.3  # smoothing of the shared frequencies
FLATTENED_FROM: Final = 8.0  # tokens
MAX_UNIT: Final = 1e6  # then all counts are divided by it
FORGOTTEN: Final = np.float32(1e-3)  # of an example
MAX_MIX_GRADIENT: Final = 2.0
MAX_MIX: Final = 4.0  # no weight runs away
FACTORS: Final = 8  # counts multiplied before a logarithm is taken
MOST_AT_ONCE: Final = 1024  # features whose rows hardly ever overlap


@inlined
def score_bayes(memory, work, n, n_labels):  # type: ignore[no-untyped-def]
    """Write the shared naive Bayes scores, in natural logarithms: prior, then n tokens.

    Counts are multiplied, and the logarithm taken of FACTORS at a time: it would be most of the time.
    """
    out, products, frequencies = work.rows[ROW.RAW_BAYES], work.products, memory.frequencies
    alpha = ALPHA * memory.unit[0]
    smoothing = alpha * (memory.counters[COUNTER.N_SLOTS_USED] + 1)
    examples = 0.0
    for label in range(n_labels):
        examples += memory.totals[label, TOTAL.EXAMPLES]
    for label in range(n_labels):
        out[label] = 0
        if memory.known[label]:
            share = max(memory.totals[label, TOTAL.EXAMPLES] / examples, LEAST_SHARE)
            out[label] = math.log(share) - n * math.log(memory.totals[label, TOTAL.TOKENS] + smoothing)
    if n_labels == 2:  # the same products in registers
        for begin in range(0, n, FACTORS):
            one, other = 1.0, 1.0
            for i in range(begin, min(begin + FACTORS, n)):
                row = frequencies[work.tokens[i] : work.tokens[i] + 2]
                one *= row[0] + alpha
                other *= row[1] + alpha
            out[0] += math.log(one)
            out[1] += math.log(other)
        return
    products[:n_labels] = 1
    for i in range(n):
        base = work.tokens[i]
        for label in range(n_labels):
            products[label] *= frequencies[base + label] + alpha
        if (i + 1) % FACTORS == 0 or i == n - 1:
            for label in range(n_labels):
                out[label] += math.log(products[label])
                products[label] = 1


@inlined
def mix(rows, inputs, weights, known, n_labels, predictor):  # type: ignore[no-untyped-def]
    """Write the scores and probabilities of a mixture: the weighted sum of scores (logistic mixing, as in PAQ)."""
    mixed = rows[ROW.SCORES + predictor]
    if n_labels == 2:  # the same sums in registers
        first, second = np.float32(0), np.float32(0)
        for i, row in enumerate(inputs):
            weight = np.float32(weights[i])
            first += weight * rows[row, 0]
            second += weight * rows[row, 1]
        mixed[0], mixed[1] = first, second
    else:
        mixed[:n_labels] = 0
        for i, row in enumerate(inputs):
            weight = np.float32(weights[i])
            for label in range(n_labels):
                mixed[label] += weight * rows[row, label]
    softmax(mixed, known, n_labels, rows[predictor])


@inlined
def score_shared(memory, work, n_tokens, n_labels):  # type: ignore[no-untyped-def]
    """Write scores and probabilities of the shared naive Bayes and mixture; those of the linear model are there.

    Naive Bayes is flattened: the tokens of a text are not independent, least of a long one.
    """
    rows, known = work.rows, memory.known
    score_bayes(memory, work, n_tokens, n_labels)
    examples = 0.0
    for label in range(n_labels):
        examples += memory.totals[label, TOTAL.EXAMPLES]
    factor = np.float32(1 / math.sqrt(1 + n_tokens / FLATTENED_FROM))
    for label in range(n_labels):
        rows[SCORE.BAYES, label] = rows[ROW.RAW_BAYES, label] * factor
        share = max(memory.totals[label, TOTAL.EXAMPLES] / examples, LEAST_SHARE)
        rows[ROW.PRIOR, label] = math.log(share) if known[label] else np.float32(0)
    softmax(rows[SCORE.BAYES], known, n_labels, rows[PREDICTOR.BAYES])
    mix(rows, SHARED_INPUTS, memory.values[0, VALUE.MIX :], known, n_labels, PREDICTOR.SHARED_MIX)


@inlined
def score_leaf(memory, work, words, n_local, n_tokens, n_labels, leaf):  # type: ignore[no-untyped-def]
    """Write scores and probabilities of a leaf's own predictors; those of the shared ones are there.

    Majority: its labels' shares, smoothed by the shared ones. Naive Bayes: its words' frequencies, smoothed by the
    shared ones. Linear: the shared mixture and the leaf's corrections. So a leaf that has seen nothing equals what is
    shared. Its own mixture weighs the shared mixture and how far each of these three departs from what is shared.
    """
    rows, known, totals = work.rows, memory.known, memory.totals
    block = memory.links[leaf, LINK.BLOCK] - 1
    if block < 0:
        for label in range(n_labels):
            rows[SCORE.MAJORITY, label] = rows[ROW.PRIOR, label]
        softmax(rows[SCORE.MAJORITY], known, n_labels, rows[PREDICTOR.MAJORITY])
        return
    keys, entries, own = memory.keys[block], memory.entries[block], memory.leaf_totals[block]
    alpha = ALPHA * memory.unit[0]
    smoothing = alpha * (memory.counters[COUNTER.N_SLOTS_USED] + 1)
    scale = np.float32(1 / math.sqrt(n_local + 1.0))
    factor = np.float32(1 / math.sqrt(1 + n_tokens / FLATTENED_FROM))
    examples = PRIOR_EXAMPLES
    for label in range(n_labels):
        examples += own[label, TOTAL.EXAMPLES]
    for label in range(n_labels):
        rows[ROW.SHARE_GAIN, label] = 0
        rows[ROW.BAYES_GAIN, label] = 0
        rows[ROW.CORRECTION, label] = 0
        if known[label]:
            share = math.exp(rows[ROW.PRIOR, label])
            rows[ROW.SHARE_GAIN, label] = math.log((own[label, TOTAL.EXAMPLES] / share + PRIOR_EXAMPLES) / examples)
        rows[SCORE.MAJORITY, label] = rows[ROW.PRIOR, label] + rows[ROW.SHARE_GAIN, label]
    softmax(rows[SCORE.MAJORITY], known, n_labels, rows[PREDICTOR.MAJORITY])
    if leaf == 0:
        return

    for label in range(n_labels):
        if known[label]:
            per_count = (totals[label, TOTAL.TOKENS] + smoothing) / PRIOR_TOKENS
            gain = rows[ROW.SHARE_GAIN, label] - n_local * math.log(1 + own[label, TOTAL.TOKENS] / PRIOR_TOKENS)
            place = find(keys, key_of(np.uint32(0), label))
            correction = entries[place, ENTRY.WEIGHT] if place >= 0 else np.float32(0)
            product = 1.0
            for i in range(n_local):
                place = find(keys, key_of(words[i], label))
                if place >= 0:
                    correction += entries[place, ENTRY.WEIGHT]
                    count = entries[place, ENTRY.COUNT]
                    if count > 0:
                        product *= 1 + count * per_count / (memory.frequencies[work.tokens[i] + label] + alpha)
                        if product > 1e100:
                            gain += math.log(product)
                            product = 1.0
            rows[ROW.BAYES_GAIN, label] = (gain + math.log(product)) * factor
            rows[ROW.CORRECTION, label] = correction * scale
        rows[SCORE.LEAF_BAYES, label] = rows[SCORE.BAYES, label] + rows[ROW.BAYES_GAIN, label]
        rows[SCORE.LEAF_LINEAR, label] = rows[SCORE.SHARED_MIX, label] + rows[ROW.CORRECTION, label]
    softmax(rows[SCORE.LEAF_BAYES], known, n_labels, rows[PREDICTOR.LEAF_BAYES])
    softmax(rows[SCORE.LEAF_LINEAR], known, n_labels, rows[PREDICTOR.LEAF_LINEAR])
    mix(rows, LEAF_INPUTS, memory.values[leaf, VALUE.MIX :], known, n_labels, PREDICTOR.LEAF_MIX)


@inlined
def n_predictors(memory, leaf):  # type: ignore[no-untyped-def]
    """Return how many predictors a leaf has: the root and closed leaves have nothing that is not shared."""
    return len(PREDICTOR) if leaf > 0 and memory.links[leaf, LINK.BLOCK] > 0 else PREDICTOR.LEAF_BAYES


@inlined
def choose_predictor(memory, leaf, asked):  # type: ignore[no-untyped-def]
    """Return the predictor that a leaf uses: that of least recent loss, or the one that is asked for."""
    n = n_predictors(memory, leaf)
    if asked != ADAPTIVE:
        return asked if asked < n else asked - PREDICTOR.LEAF_BAYES + PREDICTOR.BAYES
    best = PREDICTOR.SHARED_MIX
    for candidate in range(n):
        if memory.values[leaf, VALUE.LOSSES + candidate] < memory.values[leaf, VALUE.LOSSES + best]:
            best = candidate
    return best


@inlined
def learn_corrections(memory, work, options, words, n_local, n_labels, leaf, target, weight):  # type: ignore[no-untyped-def]
    """Move a leaf's own linear weights by the gradient of its loss, over the shared scores.

    Only pairs of word and label that were seen together have a weight: with two labels one of the two is enough.
    """
    block = memory.links[leaf, LINK.BLOCK] - 1
    keys, entries, rows = memory.keys[block], memory.entries[block], work.rows
    scale = np.float32(1 / math.sqrt(n_local + 1.0))
    step = options.leaf_rate * min(weight, np.float32(1))
    for label in range(n_labels):
        gradient = rows[PREDICTOR.LEAF_LINEAR, label] - (np.float32(1) if label == target else np.float32(0))
        if not memory.known[label] or abs(gradient) < MIN_GRADIENT:
            continue
        gradient *= scale
        square = gradient * gradient
        for i in range(-1, n_local):
            place = find(keys, key_of(words[i] if i >= 0 else np.uint32(0), label))
            if place >= 0:
                past = entries[place, ENTRY.SQUARES] * options.kept
                entries[place, ENTRY.WEIGHT] -= step * gradient / math.sqrt(past + square + FIRST_SUM)
                entries[place, ENTRY.SQUARES] = past + square


@inlined
def learn_mix(rows, inputs, weights, known, n_labels, predictor, target, step):  # type: ignore[no-untyped-def]
    """Move the weights of a mixture by the gradient of its log loss."""
    for i, row in enumerate(inputs):
        gradient = 0.0
        for label in range(n_labels):
            if known[label]:
                gradient += (rows[predictor, label] - (1.0 if label == target else 0.0)) * rows[row, label]
        gradient = min(max(gradient, -MAX_MIX_GRADIENT), MAX_MIX_GRADIENT)
        weights[i] = min(max(weights[i] - step * gradient, -MAX_MIX), MAX_MIX)


@inlined
def learn_leaf(memory, work, options, words, n_local, n_tokens, n_labels, leaf, target, weight, part):  # type: ignore[no-untyped-def]
    """Learn a text at its leaf: losses, counts, corrections; then split it or reopen it, where that is due.

    Of losses and corrections only a part of a step, 0 to 1.
    """
    links, values = memory.links, memory.values
    if part > 0:
        values[leaf, VALUE.VISITS] += 1
        rate = max(LOSS_RATE, 1 / values[leaf, VALUE.VISITS]) * part
        for predictor in range(n_predictors(memory, leaf)):
            loss = min(-math.log(work.rows[predictor, target]), MAX_LOSS)
            place = VALUE.LOSSES + predictor
            values[leaf, place] += rate * (loss - values[leaf, place])
        if leaf > 0 and links[leaf, LINK.BLOCK] > 0:
            step = options.mix_rate * min(weight, np.float32(1)) * part
            learn_mix(
                work.rows,
                LEAF_INPUTS,
                values[leaf, VALUE.MIX :],
                memory.known,
                n_labels,
                PREDICTOR.LEAF_MIX,
                target,
                step,
            )
        used = work.rows[choose_predictor(memory, leaf, options.leaf), target]
        values[leaf, VALUE.LOSS] += min(-math.log(used), MAX_LOSS)
        if memory.counters[COUNTER.N_TEXTS] - values[leaf, VALUE.SINCE] > PROMISE_SPAN:
            values[leaf, VALUE.LOSS] /= 2
            values[leaf, VALUE.SINCE] += PROMISE_SPAN / 2
    values[leaf, VALUE.SEEN] += weight
    due = values[leaf, VALUE.SEEN] - values[leaf, VALUE.TRIED] >= options.grace_period
    if due:
        values[leaf, VALUE.TRIED] = values[leaf, VALUE.SEEN]
    if links[leaf, LINK.BLOCK] == 0:
        if due:
            take_block(memory, leaf)
        return
    block = links[leaf, LINK.BLOCK] - 1
    keys, entries = memory.keys[block], memory.entries[block]
    memory.leaf_totals[block, target, TOTAL.EXAMPLES] += weight
    memory.leaf_totals[block, target, TOTAL.TOKENS] += weight * n_tokens
    for i in range(-1, n_local):
        place = insert(keys, entries, key_of(words[i] if i >= 0 else np.uint32(0), target))
        entries[place, ENTRY.COUNT] += weight
    if leaf > 0 and part > 0:
        learn_corrections(
            memory, work, options, words, n_local, n_labels, leaf, target, min(weight, np.float32(1)) * part
        )
    if due:
        try_split(memory, work, options, leaf, n_labels)


@inlined
def at_once(two, n):  # type: ignore[no-untyped-def]
    """Return whether two labels of n features are learned at once, in some work space.

    Where rows overlap one of two steps is lost then, as in `linear`: of long texts that would be felt.
    """
    return n <= MOST_AT_ONCE and 6 * (n + LANES) <= two.shape[0]


@inlined
def score_rows(slots, bases, values, n, two):  # type: ignore[no-untyped-def]
    """Return what `score` returns of two labels, and leave the features' rows in `two`, as `take_rows` does."""
    take_rows(slots, bases, n, two)
    first, second = np.float32(0), np.float32(0)
    for i in range(n):
        row = two[4 * i : 4 * i + 4]
        first += row[0] * values[i]
        second += row[2] * values[i]
    return first, second


@inlined
def learn_linear(memory, work, options, n, n_labels, target, weight, two):  # type: ignore[no-untyped-def]
    """Learn a text in the shared linear model, as `linear` does. Returns whether its scores stayed finite.

    `two` holds the rows of two labels, as `score_rows` has left them, if they are learned at once.
    """
    z, p, slots = work.rows[SCORE.LINEAR], work.rows[ROW.SCRATCH], memory.slots.reshape(-1)
    values, scratch = work.planes[0], (work.planes[1], work.planes[2])
    are_two = n_labels == 2 and at_once(two, n)
    one, left = np.float32(1), weight
    while left > 0:
        if not softmax(z, memory.known, n_labels, p):
            return False
        if is_alone(memory.known, n_labels):  # as in `linear`
            p[target] = beside_nothing(z[target])
            if p[target] > SURE_ALONE:
                break
        if not to_gradients(p, target, n_labels):
            break
        share = min(left, one)
        if are_two:
            gradients = two[4 * (n + LANES) :]
            learn_two(slots, work.bases, values, n, p, options.rate, share, options.kept, two, gradients)
        else:
            for label in range(n_labels):
                if p[label] != 0:
                    learn_label(
                        (slots, slots), 2, (2 * label, 2 * label + 1), work.bases, values, n,
                        p[label], options.rate, share, options.kept, FIRST_SUM, scratch,
                    )  # fmt: skip
        left -= share
        if left > 0 and are_two:
            z[0], z[1] = score_rows(slots, work.bases, values, n, two)
        elif left > 0:
            score(slots, work.bases, values, n, n_labels, z)
    return True


@kernel
def rescale(memory):  # type: ignore[no-untyped-def]
    """Divide all that naive Bayes has counted by MAX_UNIT, and drop what is as good as forgotten."""
    used = 0
    for slot in range(memory.frequencies.shape[0]):
        count = memory.frequencies[slot] / np.float32(MAX_UNIT)
        memory.frequencies[slot] = count if count > FORGOTTEN else np.float32(0)
        used += int(count > FORGOTTEN)
    memory.counters[COUNTER.N_SLOTS_USED] = used
    for label in range(memory.totals.shape[0]):
        memory.totals[label, TOTAL.EXAMPLES] /= MAX_UNIT
        memory.totals[label, TOTAL.TOKENS] /= MAX_UNIT
    memory.unit[0] /= MAX_UNIT


@inlined
def learn_bayes(memory, work, options, n_tokens, target, weight):  # type: ignore[no-untyped-def]
    """Count a text in the shared naive Bayes. Earlier ones count less, since each adds a little more than the last."""
    amount = weight * memory.unit[0]
    for i in range(n_tokens):
        base = work.tokens[i]
        if memory.frequencies[base + target] == 0:
            memory.counters[COUNTER.N_SLOTS_USED] += 1
        memory.frequencies[base + target] += amount
    memory.totals[target, TOTAL.EXAMPLES] += amount
    memory.totals[target, TOTAL.TOKENS] += amount * n_tokens
    memory.unit[0] *= options.growth
    if memory.unit[0] > MAX_UNIT:
        rescale(memory)
