"""How does a Hoeffding tree grow on words, one text at a time, in memory that never grows?

Domingos & Hulten 2000 (VFDT), with leaves that choose their predictor (Gama et al. 2003; Holmes et al. 2005) and
branches that are challenged when they become worse (Bifet & Gavalda 2009). A node asks: does the text have this word?

Layout. Node 0 is the root; a node with PRESENT 0 is a leaf. An open leaf has a block: a small open-addressed table of
(feature, label) -> count, weight, sum of squared gradients. A leaf without a block is closed: it predicts by what is
shared, and collects nothing. All nodes and blocks are there from the start, so memory cannot grow.

Zero means empty everywhere; a label stands in a key as label + 1, a block in a link as block + 1. Bit-exact on one
machine: every sum runs in the order of features, labels or places.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.kernels import kernel
from learner.linear import FIRST_SUM, LEAST, MAX_REPEATS, MIN_GRADIENT, score
from learner.text import HALF, MULTIPLIER, hash_text

PARENT, PRESENT, ABSENT, BLOCK, DEPTH, ALTERNATE, USED = range(7)  # columns of links
SEEN, TRIED, LOSS, SINCE, VISITS, FAST, SLOW, DUELS, AHEAD, LOSSES = range(10)  # columns of values
MAJORITY, BAYES, LINEAR, SHARED_MIX, LEAF_BAYES, LEAF_LINEAR, LEAF_MIX, N_PREDICTORS = range(8)  # rows of work.rows
SCORES = N_PREDICTORS  # in the next rows, the predictors' scores
PRIOR, BAYES_GAIN, CORRECTION, SHARE_GAIN, RAW_BAYES, SCRATCH, N_ROWS = range(2 * N_PREDICTORS, 2 * N_PREDICTORS + 7)
SHARED_INPUTS = (PRIOR, SCORES + BAYES, SCORES + LINEAR)  # what the shared mixture weighs, with the root's weights
LEAF_INPUTS = (SCORES + SHARED_MIX, BAYES_GAIN, CORRECTION, SHARE_GAIN)  # what a leaf's own mixture weighs
MIX = LOSSES + N_PREDICTORS  # the first weight of the mixture, a column of values
N_LABELS, REFUSED, N_TEXTS, N_SLOTS_USED, N_SPLITS, N_CLOSED, N_ALARMS, N_REPLACED, N_COUNTERS = range(9)
N_LINKS, N_VALUES = USED + 1, MIX + 4
COUNT, WEIGHT, SQUARES = range(3)  # columns of entries
EXAMPLES, TOKENS = range(2)  # columns of totals and leaf_totals

ADAPTIVE: Final = -1
WINDOW: Final = 8  # places of a block that a key may stand in; the least counted gives way
LOCAL_WORDS: Final = 512  # of a text, that leaves look at: of whole e-mails the headers and the first page
LOSS_RATE: Final = 0.005  # the decay of a predictor's loss: its last 200 texts count
INHERITED: Final = 100.0  # how many texts a parent's losses count for in its child
MAX_LOSS: Final = 9.0
PRIOR_EXAMPLES: Final = 5.0  # how many examples the shared share of labels counts for at a leaf
PRIOR_TOKENS: Final = 300.0  # the same for the shared frequencies of words
ALPHA: Final = 0.3  # smoothing of the shared frequencies
FLATTENED_FROM: Final = 8.0  # tokens
MAX_UNIT: Final = 1e6  # then all counts are divided by it
MAX_MIX_GRADIENT: Final = 2.0
DOUBT: Final = 0.02  # what an own predictor must make up for before it is used
FIRST_TRUST: Final = 0.5  # in corrections
FAST_RATE: Final = 0.01
SLOW_RATE: Final = 0.001
WATCH_FROM: Final = 300.0  # texts at a node before its errors mean something
WATCH_SIGMAS: Final = 4.0
MIN_DUELS: Final = 100.0
MAX_DUELS: Final = 3000.0  # undecided until then: no better
DUEL_DELTA: Final = 0.01
MAX_MIX: Final = 4.0  # no weight runs away
MIN_BRANCH: Final = 0.01  # of a leaf's examples, on either side of a split
PROMISE_SPAN: Final = 20000.0  # texts after which a leaf's past losses count half
TAKEOVER: Final = 1.5  # how much more promising a closed leaf must be to take an open one's block


class Memory(NamedTuple):
    """All that is learned. n_nodes, n_blocks and block_size are fixed; block_size is a power of two."""

    slots: NDArray[np.float32]  # [2**bits, 2] shared linear model: weight, sum of squared gradients
    frequencies: NDArray[np.float32]  # [2**(bits - 1)] shared naive Bayes: count of (feature, label)
    totals: NDArray[np.float64]  # [max_labels, 2] examples and tokens of each label
    known: NDArray[np.uint8]  # [max_labels]
    counters: NDArray[np.int64]  # [N_COUNTERS]
    unit: NDArray[np.float64]  # [1] what an example of weight 1 adds to frequencies and totals: past ones count less
    links: NDArray[np.int32]  # [n_nodes, N_LINKS]
    features: NDArray[np.uint32]  # [n_nodes] the word that an inner node asks for
    values: NDArray[np.float64]  # [n_nodes, N_VALUES]
    keys: NDArray[np.uint64]  # [n_blocks, block_size] feature << 32 | label + 1
    entries: NDArray[np.float32]  # [n_blocks, block_size, 3] count, weight, sum of squared gradients
    leaf_totals: NDArray[np.float32]  # [n_blocks, max_labels, 2] examples and tokens of each label
    owners: NDArray[np.int32]  # [n_blocks] node + 1


class Work(NamedTuple):
    """What is overwritten by every text."""

    rows: NDArray[np.float32]  # [N_ROWS, max_labels] probabilities of each predictor, from SCORES on their scores
    bases: NDArray[np.int64]  # [max_features + 1] of the linear model
    tokens: NDArray[np.int64]  # [max_features] bases of naive Bayes
    products: NDArray[np.float64]  # [max_labels]
    found: NDArray[np.uint32]  # [2 * block_size] features of a block
    sums: NDArray[np.float64]  # [2 * block_size, 3] count, impurity where present, and where absent


class Options(NamedTuple):
    """Settings, as the kernel takes them."""

    rate: np.float32
    leaf_rate: np.float32
    mix_rate: np.float32
    chars_value: np.float32
    kept: np.float32
    growth: float
    leaf: int  # a predictor, or ADAPTIVE
    gini: int
    grace_period: float
    delta: float
    tau: float
    max_depth: int
    drift: int


@kernel
def hoeffding_bound(value_range, delta, n):  # type: ignore[no-untyped-def]
    """Return how far the mean of n values may be from its expectation, but for a probability of delta."""
    return math.sqrt(value_range * value_range * math.log(1 / delta) / (2 * n))


@kernel
def key_of(feature, label):  # type: ignore[no-untyped-def]
    """Return the key of a pair, never 0."""
    return (np.uint64(feature) << HALF) | np.uint64(label + 1)


@kernel
def find(keys, key):  # type: ignore[no-untyped-def]
    """Return a key's place in a block, or -1."""
    mask = keys.shape[0] - 1
    h = np.int64((key * MULTIPLIER) >> HALF)
    for step in range(WINDOW):
        place = (h + step) & mask
        if keys[place] == key:
            return place
        if keys[place] == 0:
            return -1
    return -1


@kernel
def insert(keys, entries, key):  # type: ignore[no-untyped-def]
    """Return a key's place in a block, made where it had none: an empty one, or that of the least counted."""
    mask = keys.shape[0] - 1
    h = np.int64((key * MULTIPLIER) >> HALF)
    least = h & mask
    for step in range(WINDOW):
        place = (h + step) & mask
        if keys[place] == key:
            return place
        if keys[place] == 0:
            least = place
            break
        if entries[place, COUNT] < entries[least, COUNT]:
            least = place
    keys[least] = key
    entries[least, :] = 0
    return least


@kernel
def softmax(scores, known, n_labels, out):  # type: ignore[no-untyped-def]
    """Write the probabilities of known labels; returns whether all scores were finite. The sum is in 64 bits.

    As in `linear`, but there 500 equal shares in 32 bits may sum to 1 + 2e-5, which a leaf shows.
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
def score_bayes(memory, work, n, n_labels):  # type: ignore[no-untyped-def]
    """Write the shared naive Bayes scores, in natural logarithms: prior, then n tokens.

    Counts are multiplied, and the logarithm taken of eight at a time: it would be most of the time.
    """
    out, products, frequencies = work.rows[RAW_BAYES], work.products, memory.frequencies
    alpha = ALPHA * memory.unit[0]
    smoothing = alpha * (memory.counters[N_SLOTS_USED] + 1)
    examples = 0.0
    for label in range(n_labels):
        examples += memory.totals[label, EXAMPLES]
    for label in range(n_labels):
        out[label] = 0
        if memory.known[label]:
            share = memory.totals[label, EXAMPLES] / examples
            out[label] = math.log(share) - n * math.log(memory.totals[label, TOKENS] + smoothing)
    products[:n_labels] = 1
    for i in range(n):
        base = work.tokens[i]
        for label in range(n_labels):
            products[label] *= frequencies[base + label] + alpha
        if i & 7 == 7 or i == n - 1:
            for label in range(n_labels):
                out[label] += math.log(products[label])
                products[label] = 1


@kernel
def mix(rows, inputs, weights, known, n_labels, predictor):  # type: ignore[no-untyped-def]
    """Write the scores and probabilities of a mixture: the weighted sum of scores (logistic mixing, as in PAQ)."""
    mixed = rows[SCORES + predictor]
    mixed[:n_labels] = 0
    for i, row in enumerate(inputs):
        weight = np.float32(weights[i])
        for label in range(n_labels):
            mixed[label] += weight * rows[row, label]
    softmax(mixed, known, n_labels, rows[predictor])


@kernel
def score_shared(memory, work, n_tokens, n_labels):  # type: ignore[no-untyped-def]
    """Write scores and probabilities of the shared naive Bayes and mixture; those of the linear model are there.

    Naive Bayes is flattened: the tokens of a text are not independent, least of a long one.
    """
    rows, known = work.rows, memory.known
    score_bayes(memory, work, n_tokens, n_labels)
    examples = 0.0
    for label in range(n_labels):
        examples += memory.totals[label, EXAMPLES]
    factor = np.float32(1 / math.sqrt(1 + n_tokens / FLATTENED_FROM))
    for label in range(n_labels):
        rows[SCORES + BAYES, label] = rows[RAW_BAYES, label] * factor
        rows[PRIOR, label] = math.log(memory.totals[label, EXAMPLES] / examples) if known[label] else np.float32(0)
    softmax(rows[SCORES + BAYES], known, n_labels, rows[BAYES])
    mix(rows, SHARED_INPUTS, memory.values[0, MIX:], known, n_labels, SHARED_MIX)


@kernel
def score_leaf(memory, work, words, n_local, n_tokens, n_labels, leaf):  # type: ignore[no-untyped-def]
    """Write scores and probabilities of a leaf's own predictors; those of the shared ones are there.

    Majority: its labels' shares, smoothed by the shared ones. Naive Bayes: its words' frequencies, smoothed by the
    shared ones. Linear: the shared mixture and the leaf's corrections. So a leaf that has seen nothing equals what is
    shared. Its own mixture weighs the shared mixture and how far each of these three departs from what is shared.
    """
    rows, known, totals = work.rows, memory.known, memory.totals
    block = memory.links[leaf, BLOCK] - 1
    if block < 0:
        for label in range(n_labels):
            rows[SCORES + MAJORITY, label] = rows[PRIOR, label]
        softmax(rows[SCORES + MAJORITY], known, n_labels, rows[MAJORITY])
        return
    keys, entries, own = memory.keys[block], memory.entries[block], memory.leaf_totals[block]
    alpha = ALPHA * memory.unit[0]
    smoothing = alpha * (memory.counters[N_SLOTS_USED] + 1)
    scale = np.float32(1 / math.sqrt(n_local + 1.0))
    factor = np.float32(1 / math.sqrt(1 + n_tokens / FLATTENED_FROM))
    examples = PRIOR_EXAMPLES
    for label in range(n_labels):
        examples += own[label, EXAMPLES]
    for label in range(n_labels):
        rows[SHARE_GAIN, label] = 0
        rows[BAYES_GAIN, label] = 0
        rows[CORRECTION, label] = 0
        if known[label]:
            share = math.exp(rows[PRIOR, label])
            rows[SHARE_GAIN, label] = math.log((own[label, EXAMPLES] / share + PRIOR_EXAMPLES) / examples)
        rows[SCORES + MAJORITY, label] = rows[PRIOR, label] + rows[SHARE_GAIN, label]
    softmax(rows[SCORES + MAJORITY], known, n_labels, rows[MAJORITY])
    if leaf == 0:
        return

    for label in range(n_labels):
        if known[label]:
            per_count = (totals[label, TOKENS] + smoothing) / PRIOR_TOKENS
            gain = rows[SHARE_GAIN, label] - n_local * math.log(1 + own[label, TOKENS] / PRIOR_TOKENS)
            place = find(keys, key_of(np.uint32(0), label))
            correction = entries[place, WEIGHT] if place >= 0 else np.float32(0)
            product = 1.0
            for i in range(n_local):
                place = find(keys, key_of(words[i], label))
                if place >= 0:
                    correction += entries[place, WEIGHT]
                    count = entries[place, COUNT]
                    if count > 0:
                        product *= 1 + count * per_count / (memory.frequencies[work.tokens[i] + label] + alpha)
                        if product > 1e100:
                            gain += math.log(product)
                            product = 1.0
            rows[BAYES_GAIN, label] = (gain + math.log(product)) * factor
            rows[CORRECTION, label] = correction * scale
        rows[SCORES + LEAF_BAYES, label] = rows[SCORES + BAYES, label] + rows[BAYES_GAIN, label]
        rows[SCORES + LEAF_LINEAR, label] = rows[SCORES + SHARED_MIX, label] + rows[CORRECTION, label]
    softmax(rows[SCORES + LEAF_BAYES], known, n_labels, rows[LEAF_BAYES])
    softmax(rows[SCORES + LEAF_LINEAR], known, n_labels, rows[LEAF_LINEAR])
    mix(rows, LEAF_INPUTS, memory.values[leaf, MIX:], known, n_labels, LEAF_MIX)


@kernel
def n_predictors(memory, leaf):  # type: ignore[no-untyped-def]
    """Return how many predictors a leaf has: the root and closed leaves have nothing that is not shared."""
    return N_PREDICTORS if leaf > 0 and memory.links[leaf, BLOCK] > 0 else LEAF_BAYES


@kernel
def chosen(memory, leaf, asked):  # type: ignore[no-untyped-def]
    """Return the predictor that a leaf uses: that of least recent loss, or the one that is asked for."""
    n = n_predictors(memory, leaf)
    if asked != ADAPTIVE:
        return asked if asked < n else asked - LEAF_BAYES + BAYES
    best = SHARED_MIX
    for candidate in range(n):
        if memory.values[leaf, LOSSES + candidate] < memory.values[leaf, LOSSES + best]:
            best = candidate
    return best


@kernel
def xlogx(x):  # type: ignore[no-untyped-def]
    """Return x log x, 0 at 0."""
    return x * math.log(x) if x > 0 else 0.0


@kernel
def part(x, gini):  # type: ignore[no-untyped-def]
    """Return what a label's count adds to a node's purity."""
    return x * x if gini else xlogx(x)


@kernel
def purity_to_impurity(n, purity, gini):  # type: ignore[no-untyped-def]
    """Return n times the impurity of n examples (entropy in bits, or Gini), from the sum of `part` over labels."""
    if n <= 0:
        return 0.0
    return n - purity / n if gini else (xlogx(n) - purity) / math.log(2)


@kernel
def best_split(memory, work, options, leaf, n_labels):  # type: ignore[no-untyped-def]
    """Return the best word to split a leaf on (0: none), its gain, the second best gain, n, and the gain's range.

    Both sides' impurities are sums over (word, label), with what a word was never seen with left out: one pass over
    the block finds them for all words. O(block_size).
    """
    block, gini = memory.links[leaf, BLOCK] - 1, options.gini
    keys, entries, totals = memory.keys[block], memory.entries[block], memory.leaf_totals[block]
    n, purity, seen_labels = 0.0, 0.0, 0
    for label in range(n_labels):
        if totals[label, EXAMPLES] > 0:
            seen_labels += 1
            n += totals[label, EXAMPLES]
            purity += part(np.float64(totals[label, EXAMPLES]), gini)
    value_range = 1.0 if gini else math.log2(max(seen_labels, 2))
    if seen_labels < 2:
        return np.uint32(0), 0.0, 0.0, n, value_range

    found, sums = work.found, work.sums
    mask = found.shape[0] - 1
    found[:] = 0
    sums[:] = 0
    for i in range(keys.shape[0]):
        feature = np.uint32(keys[i] >> HALF)
        count = np.float64(entries[i, COUNT])
        if feature == 0 or count <= 0:
            continue
        place = np.int64(feature) & mask
        while found[place] != 0 and found[place] != feature:
            place = (place + 1) & mask
        found[place] = feature
        total = np.float64(totals[np.int64(keys[i] & np.uint64(0xFFFFFFFF)) - 1, EXAMPLES])
        sums[place, 0] += count
        sums[place, 1] += part(count, gini)
        sums[place, 2] += part(max(total - count, 0.0), gini) - part(total, gini)

    before = purity_to_impurity(n, purity, gini)
    best, first, second = np.uint32(0), 0.0, 0.0
    for place in range(found.shape[0]):
        present = sums[place, 0]
        absent = n - present
        if present < MIN_BRANCH * n or absent < MIN_BRANCH * n or found[place] == 0:
            continue
        after = purity_to_impurity(present, sums[place, 1], gini)
        after += purity_to_impurity(absent, purity + sums[place, 2], gini)
        gain = (before - after) / n
        if gain > first:
            best, first, second = found[place], gain, first
        elif gain > second:
            second = gain
    return best, first, second, n, value_range


@kernel
def promise(memory, node):  # type: ignore[no-untyped-def]
    """Return how much loss a leaf causes for each text of the stream: what a split there could save."""
    return memory.values[node, LOSS] / (memory.counters[N_TEXTS] - memory.values[node, SINCE] + 200.0)


@kernel
def take_block(memory, node):  # type: ignore[no-untyped-def]
    """Give a leaf a block: a free one, or the least promising leaf's, which is closed. Returns it, or -1."""
    block = -1
    least = promise(memory, node) / TAKEOVER
    for candidate in range(memory.owners.shape[0]):
        if memory.owners[candidate] == 0:
            block = candidate
            break
        other = promise(memory, memory.owners[candidate] - 1)
        if other < least and memory.owners[candidate] - 1 != node:
            block, least = candidate, other
    if block >= 0:
        if memory.owners[block] > 0:
            memory.links[memory.owners[block] - 1, BLOCK] = 0
            memory.counters[N_CLOSED] += 1
        memory.owners[block] = node + 1
        memory.links[node, BLOCK] = block + 1
        memory.keys[block, :] = 0
        memory.entries[block, :, :] = 0
        memory.leaf_totals[block, :, :] = 0
        memory.values[node, SEEN] = 0
        memory.values[node, TRIED] = 0
    return block


@kernel
def free_node(memory):  # type: ignore[no-untyped-def]
    """Return a node that is not used, or -1."""
    for node in range(1, memory.links.shape[0]):
        if memory.links[node, USED] == 0:
            return node
    return -1


@kernel
def make_leaf(memory, node, parent, like):  # type: ignore[no-untyped-def]
    """Make a node a leaf without a block, that expects of its predictors what another node found."""
    memory.links[node, :] = 0
    memory.values[node, :] = 0
    memory.links[node, USED] = 1
    memory.links[node, PARENT] = parent
    memory.links[node, DEPTH] = memory.links[parent, DEPTH] + 1
    memory.values[node, LOSSES:] = memory.values[like, LOSSES:]  # and the mixture's weights
    memory.values[node, VISITS] = min(memory.values[like, VISITS], INHERITED)
    memory.values[node, SINCE] = memory.counters[N_TEXTS]


@kernel
def split(memory, leaf, feature):  # type: ignore[no-untyped-def]
    """Make a leaf an inner node. Its children begin with its corrections, and count anew. Returns whether it could."""
    present = free_node(memory)
    if present < 0:
        return False
    make_leaf(memory, present, leaf, leaf)
    absent = free_node(memory)
    if absent < 0:
        memory.links[present, USED] = 0
        return False
    make_leaf(memory, absent, leaf, leaf)
    links, block = memory.links, memory.links[leaf, BLOCK] - 1
    for child in (present, absent):
        memory.values[child, LOSS] = memory.values[leaf, LOSS] / 2
        memory.values[child, SINCE] = memory.values[leaf, SINCE]
        if leaf == 0:  # what is shared was its own until now
            for predictor in range(LEAF_BAYES, N_PREDICTORS):
                shared = memory.values[0, LOSSES + predictor - LEAF_BAYES + BAYES]
                memory.values[child, LOSSES + predictor] = shared + DOUBT
            memory.values[child, MIX : MIX + 4] = 0
            memory.values[child, MIX] = 1
            memory.values[child, MIX + 2] = FIRST_TRUST
    links[leaf, PRESENT], links[leaf, ABSENT], links[leaf, BLOCK] = present, absent, 0
    links[absent, BLOCK] = block + 1
    memory.owners[block] = absent + 1
    memory.features[leaf] = feature
    for column in (SEEN, FAST, SLOW):
        memory.values[leaf, column] = 0
    memory.leaf_totals[block, :, :] = 0
    memory.entries[block, :, COUNT] = 0
    other = take_block(memory, present)
    if other >= 0 and links[absent, BLOCK] > 0:
        memory.keys[other, :] = memory.keys[block, :]
        memory.entries[other, :, :] = memory.entries[block, :, :]
    memory.counters[N_SPLITS] += 1
    return True


@kernel
def try_split(memory, work, options, leaf, n_labels):  # type: ignore[no-untyped-def]
    """Split a leaf if its best word is better than the second best, or as good as any, but for a chance of delta.

    The bound compares the two best words (Domingos & Hulten, section 2). A tie under tau is split too, but never on
    what may be chance: n times the gain in nats is half the G statistic.
    """
    if memory.links[leaf, DEPTH] >= options.max_depth:
        return False
    best, first, second, n, value_range = best_split(memory, work, options, leaf, n_labels)
    if best == 0:
        return False
    bound = hoeffding_bound(value_range, options.delta, n)
    real = first * n * math.log(2) > math.log(1 / options.delta)
    if real and (first - second > bound or bound < options.tau):
        return split(memory, leaf, best)
    return False


@kernel
def learn_corrections(memory, work, options, words, n_local, n_labels, leaf, target, weight):  # type: ignore[no-untyped-def]
    """Move a leaf's own linear weights by the gradient of its loss, over the shared scores.

    Only pairs of word and label that were seen together have a weight: with two labels one of the two is enough.
    """
    block = memory.links[leaf, BLOCK] - 1
    keys, entries, rows = memory.keys[block], memory.entries[block], work.rows
    scale = np.float32(1 / math.sqrt(n_local + 1.0))
    step = options.leaf_rate * min(weight, np.float32(1))
    for label in range(n_labels):
        gradient = rows[LEAF_LINEAR, label] - (np.float32(1) if label == target else np.float32(0))
        if not memory.known[label] or abs(gradient) < MIN_GRADIENT:
            continue
        gradient *= scale
        square = gradient * gradient
        for i in range(-1, n_local):
            place = find(keys, key_of(words[i] if i >= 0 else np.uint32(0), label))
            if place >= 0:
                past = entries[place, SQUARES] * options.kept
                entries[place, WEIGHT] -= step * gradient / math.sqrt(past + square + FIRST_SUM)
                entries[place, SQUARES] = past + square


@kernel
def learn_mix(rows, inputs, weights, known, n_labels, predictor, target, step):  # type: ignore[no-untyped-def]
    """Move the weights of a mixture by the gradient of its log loss."""
    for i, row in enumerate(inputs):
        gradient = 0.0
        for label in range(n_labels):
            if known[label]:
                gradient += (rows[predictor, label] - (1.0 if label == target else 0.0)) * rows[row, label]
        gradient = min(max(gradient, -MAX_MIX_GRADIENT), MAX_MIX_GRADIENT)
        weights[i] = min(max(weights[i] - step * gradient, -MAX_MIX), MAX_MIX)


@kernel
def learn_leaf(memory, work, options, words, n_local, n_tokens, n_labels, leaf, target, weight, is_new):  # type: ignore[no-untyped-def]
    """Learn a text at its leaf: losses, counts, corrections; then split it or reopen it, where that is due."""
    links, values = memory.links, memory.values
    if not is_new:
        values[leaf, VISITS] += 1
        rate = max(LOSS_RATE, 1 / values[leaf, VISITS])
        for predictor in range(n_predictors(memory, leaf)):
            loss = min(-math.log(work.rows[predictor, target]), MAX_LOSS)
            place = LOSSES + predictor
            values[leaf, place] += rate * (loss - values[leaf, place])
        if leaf > 0 and links[leaf, BLOCK] > 0:
            step = options.mix_rate * min(weight, np.float32(1))
            learn_mix(work.rows, LEAF_INPUTS, values[leaf, MIX:], memory.known, n_labels, LEAF_MIX, target, step)
        used = work.rows[chosen(memory, leaf, options.leaf), target]
        values[leaf, LOSS] += min(-math.log(used), MAX_LOSS)
        if memory.counters[N_TEXTS] - values[leaf, SINCE] > PROMISE_SPAN:
            values[leaf, LOSS] /= 2
            values[leaf, SINCE] += PROMISE_SPAN / 2
    values[leaf, SEEN] += weight
    due = values[leaf, SEEN] - values[leaf, TRIED] >= options.grace_period
    if due:
        values[leaf, TRIED] = values[leaf, SEEN]
    if links[leaf, BLOCK] == 0:
        if due:
            take_block(memory, leaf)
        return
    block = links[leaf, BLOCK] - 1
    keys, entries = memory.keys[block], memory.entries[block]
    memory.leaf_totals[block, target, EXAMPLES] += weight
    memory.leaf_totals[block, target, TOKENS] += weight * n_tokens
    for i in range(-1, n_local):
        place = insert(keys, entries, key_of(words[i] if i >= 0 else np.uint32(0), target))
        entries[place, COUNT] += weight
    if leaf > 0 and not is_new:
        learn_corrections(memory, work, options, words, n_local, n_labels, leaf, target, weight)
    if due:
        try_split(memory, work, options, leaf, n_labels)


@kernel
def learn_linear(memory, work, options, n_plain, n, scale, n_labels, target, weight):  # type: ignore[no-untyped-def]
    """Learn a text in the shared linear model, as `linear` does. Returns whether its scores stayed finite."""
    z, p, slots = work.rows[SCORES + LINEAR], work.rows[SCRATCH], memory.slots
    one, left = np.float32(1), weight
    while left > 0:
        if not softmax(z, memory.known, n_labels, p):
            return False
        p[target] -= one
        learned = True
        for label in range(n_labels):
            if abs(p[label]) < MIN_GRADIENT:
                p[label] = 0
            else:
                learned = False
        if learned:
            break
        share = min(left, one)
        step = options.rate * share
        for i in range(n):
            base = work.bases[i]
            x = scale if i < n_plain else scale * options.chars_value
            for label in range(n_labels):
                if p[label] != 0:
                    gradient = p[label] * x
                    past = slots[base + label, 1] * options.kept
                    square = gradient * gradient
                    slots[base + label, 0] -= step * gradient / math.sqrt(past + square + FIRST_SUM)
                    slots[base + label, 1] = past + share * square
        left -= share
        if left > 0:
            score(slots, work.bases, n_plain, n, scale, options.chars_value, n_labels, z)
    return True


@kernel
def learn_bayes(memory, work, options, n_tokens, target, weight):  # type: ignore[no-untyped-def]
    """Count a text in the shared naive Bayes. Earlier ones count less, since each adds a little more than the last."""
    amount = weight * memory.unit[0]
    for i in range(n_tokens):
        base = work.tokens[i]
        if memory.frequencies[base + target] == 0:
            memory.counters[N_SLOTS_USED] += 1
        memory.frequencies[base + target] += amount
    memory.totals[target, EXAMPLES] += amount
    memory.totals[target, TOKENS] += amount * n_tokens
    memory.unit[0] *= options.growth
    if memory.unit[0] > MAX_UNIT:
        memory.frequencies[:] /= np.float32(MAX_UNIT)
        memory.totals[:] /= MAX_UNIT
        memory.unit[0] /= MAX_UNIT


@kernel
def next_node(memory, words, n_local, node):  # type: ignore[no-untyped-def]
    """Return the child of an inner node that a text goes to."""
    feature = memory.features[node]
    for i in range(n_local):
        if words[i] == feature:
            return memory.links[node, PRESENT]
    return memory.links[node, ABSENT]


@kernel
def leaf_of(memory, words, n_local, node):  # type: ignore[no-untyped-def]
    """Return the leaf under a node that a text belongs to."""
    while memory.links[node, PRESENT] > 0:
        node = next_node(memory, words, n_local, node)
    return node


@kernel
def free_orphans(memory):  # type: ignore[no-untyped-def]
    """Free every node whose parent is free, its alternates included, and their blocks. O(nodes * depth), but rare."""
    links = memory.links
    changed = True
    while changed:
        changed = False
        for node in range(1, links.shape[0]):
            if links[node, USED] == 1 and links[links[node, PARENT], USED] == 0:
                free(memory, node)
                changed = True


@kernel
def free(memory, node):  # type: ignore[no-untyped-def]
    """Free a node and its block. Its children are orphans then."""
    if memory.links[node, BLOCK] > 0:
        memory.owners[memory.links[node, BLOCK] - 1] = 0
    memory.links[node, :] = 0
    memory.values[node, :] = 0


@kernel
def replace(memory, node):  # type: ignore[no-untyped-def]
    """Put a node's alternate in its place; the branch that it had is freed."""
    links, values = memory.links, memory.values
    alternate = links[node, ALTERNATE]
    free(memory, links[node, PRESENT])
    free(memory, links[node, ABSENT])
    free_orphans(memory)
    for column in (PRESENT, ABSENT, BLOCK):
        links[node, column] = links[alternate, column]
    for column in (PRESENT, ABSENT):
        if links[node, column] > 0:
            links[links[node, column], PARENT] = node
    if links[node, BLOCK] > 0:
        memory.owners[links[node, BLOCK] - 1] = node + 1
    memory.features[node] = memory.features[alternate]
    values[node, :LOSSES] = values[alternate, :LOSSES]
    if node > 0:  # the root's are the shared mixture's
        values[node, LOSSES:] = values[alternate, LOSSES:]
    values[node, DUELS], values[node, AHEAD] = 0, 0
    links[node, ALTERNATE] = 0
    links[alternate, BLOCK] = 0  # it is the node's now
    free(memory, alternate)
    memory.counters[N_REPLACED] += 1


@kernel
def drop_alternate(memory, node):  # type: ignore[no-untyped-def]
    """Free a node's alternate and all under it."""
    free(memory, memory.links[node, ALTERNATE])
    free_orphans(memory)
    memory.links[node, ALTERNATE] = 0
    memory.values[node, DUELS], memory.values[node, AHEAD] = 0, 0


@kernel
def watch(memory, leaf, error):  # type: ignore[no-untyped-def]
    """Follow the errors of all branches that a text came through; where they have risen, let an alternate grow.

    Two decayed means, of about 100 and 1,000 texts; the deepest node where the short one is WATCH_SIGMAS above the
    long one. (Bifet & Gavalda use ADWIN; its buckets at every node would be most of the memory.)
    """
    links, values = memory.links, memory.values
    alarm, challenged, node = -1, False, leaf
    while node > 0:
        node = links[node, PARENT]
        values[node, SEEN] += 1
        for column, rate in ((FAST, FAST_RATE), (SLOW, SLOW_RATE)):
            values[node, column] += max(rate, 1 / values[node, SEEN]) * (error - values[node, column])
        slow = values[node, SLOW]
        deviation = math.sqrt((slow * (1 - slow) + 1e-3) * FAST_RATE / (2 - FAST_RATE))
        challenged = challenged or links[node, ALTERNATE] > 0
        if alarm < 0 and values[node, SEEN] > WATCH_FROM and values[node, FAST] - slow > WATCH_SIGMAS * deviation:
            alarm = node
    if alarm < 0 or challenged:
        return
    memory.counters[N_ALARMS] += 1
    values[alarm, SLOW] = values[alarm, FAST]
    alternate = free_node(memory)
    if alternate > 0:
        make_leaf(memory, alternate, alarm, leaf)
        links[alternate, DEPTH] = links[alarm, DEPTH]
        values[alternate, MIX : MIX + 4] = 0
        values[alternate, MIX] = 1
        values[alternate, MIX + 2] = FIRST_TRUST
        values[alternate, LOSS] = values[leaf, LOSS]
        if take_block(memory, alternate) >= 0:
            links[alarm, ALTERNATE] = alternate
            values[alarm, DUELS], values[alarm, AHEAD] = 0, 0
        else:
            free(memory, alternate)


@kernel
def duel(memory, work, options, words, n_local, n_tokens, n_labels, target, weight, loss):  # type: ignore[no-untyped-def]
    """Let the alternate of the first node on a text's way that has one score and learn it too; keep the better."""
    links, values = memory.links, memory.values
    node = 0
    while links[node, ALTERNATE] == 0:
        if links[node, PRESENT] == 0:
            return
        node = next_node(memory, words, n_local, node)
    leaf = leaf_of(memory, words, n_local, links[node, ALTERNATE])
    score_leaf(memory, work, words, n_local, n_tokens, n_labels, leaf)
    other = min(-math.log(work.rows[chosen(memory, leaf, options.leaf), target]), MAX_LOSS)
    learn_leaf(memory, work, options, words, n_local, n_tokens, n_labels, leaf, target, weight, False)
    values[node, DUELS] += 1
    values[node, AHEAD] += min(max(loss - other, -1.0), 1.0)
    n = values[node, DUELS]
    if n >= MIN_DUELS:
        bound = hoeffding_bound(2.0, DUEL_DELTA, n)
        if values[node, AHEAD] / n > bound:
            replace(memory, node)
        elif values[node, AHEAD] / n < -bound or n >= MAX_DUELS:
            drop_alternate(memory, node)


@kernel
def score_and_learn(codes, starts, targets, weights, table, text_arguments, buffers, options, memory, work, scores):  # type: ignore[no-untyped-def]  # noqa: PLR0915
    """Score each text, then learn it: test-then-train in one pass.

    Parameters
    ----------
    codes, starts : from `codepoints`
    targets : int32 [n_texts], label or -1
    weights : float32 [n_texts], above 0
    memory : Memory, changed
    scores : float32 [n_texts, labels], changed: the probabilities

    Notes
    -----
    1. Hash. The shared models' slots lie as in `linear`: base + label, the bias at the end.
    2. Score with the shared models.
    3. Go down to the leaf, score with its own, and take the predictor that it trusts.
    4. Learn at the leaf, against the shared scores as they were; then in the shared models.

    O(features * labels + depth * words). Only a text with a target changes anything.
    """
    rows, counters, known, slots = work.rows, memory.counters, memory.known, memory.slots
    max_labels = known.shape[0]
    span = np.uint64(slots.shape[0] - 2 * max_labels)
    token_span = np.uint64(memory.frequencies.shape[0] - max_labels)
    features = buffers[0]
    for text in range(targets.shape[0]):
        # 1
        n_words, n_tokens, n = hash_text(codes, starts[text], starts[text + 1], table, text_arguments, buffers)
        for i in range(n):
            work.bases[i + 1] = np.int64((np.uint64(features[i]) * span) >> HALF)
        for i in range(n_tokens):
            work.tokens[i] = np.int64((np.uint64(features[i]) * token_span) >> HALF)
        work.bases[0] = slots.shape[0] - max_labels
        n_plain = n_tokens + 1
        n += 1
        n_local = min(n_words, LOCAL_WORDS)
        scale = np.float32(1 / math.sqrt(n_plain + (n - n_plain) * options.chars_value * options.chars_value))
        target = targets[text]
        weight = min(weights[text], np.float32(MAX_REPEATS + 1))
        if target >= 0 and not 0 < weights[text] < np.inf:
            counters[REFUSED] += 1
            target = np.int32(-1)

        # 2
        n_labels = counters[N_LABELS]
        n_scored = max(n_labels, target + 1)
        is_new = target >= 0 and known[target] == 0
        leaf = leaf_of(memory, features, n_local, 0)
        score(slots, work.bases, n_plain, n, scale, options.chars_value, n_scored, rows[SCORES + LINEAR])
        if n_labels > 0:
            finite = softmax(rows[SCORES + LINEAR], known, n_labels, rows[LINEAR])
            if not finite:
                scores[text, :n_labels] = rows[LINEAR, :n_labels]
                if target >= 0:
                    counters[REFUSED] += 1
                continue
            score_shared(memory, work, n_tokens, n_labels)

            # 3
            score_leaf(memory, work, features, n_local, n_tokens, n_labels, leaf)
            scores[text, :n_labels] = rows[chosen(memory, leaf, options.leaf), :n_labels]
        if target < 0:
            continue

        # 4
        counters[N_TEXTS] += 1
        loss = 0.0 if is_new else min(-math.log(scores[text, target]), MAX_LOSS)
        learn_leaf(memory, work, options, features, n_local, n_tokens, n_labels, leaf, target, weight, is_new)
        if options.drift and not is_new:
            error = 0.0 if scores[text].argmax() == target else 1.0
            watch(memory, leaf, error)
            duel(memory, work, options, features, n_local, n_tokens, n_labels, target, weight, loss)
        if not is_new:
            step = options.mix_rate * min(weight, np.float32(1))
            learn_mix(rows, SHARED_INPUTS, memory.values[0, MIX:], known, n_labels, SHARED_MIX, target, step)
        known[target] = 1
        counters[N_LABELS] = n_scored
        if learn_linear(memory, work, options, n_plain, n, scale, n_scored, target, weight):
            learn_bayes(memory, work, options, n_tokens, target, weight)
        else:
            counters[REFUSED] += 1
