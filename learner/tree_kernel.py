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
MAJORITY, BAYES, LINEAR, LEAF_BAYES, LEAF_LINEAR, MIXED, N_PREDICTORS = range(7)  # predictors; rows of work.rows
SCORES, RAW_BAYES, SCRATCH, N_ROWS = N_PREDICTORS, 2 * N_PREDICTORS, 2 * N_PREDICTORS + 1, 2 * N_PREDICTORS + 2
MIX = LOSSES + N_PREDICTORS  # the first weight of the mixture, a column of values
N_LABELS, REFUSED, N_TEXTS, N_SLOTS_USED, N_SPLITS, N_CLOSED, N_ALARMS, N_REPLACED, N_COUNTERS = range(9)
N_LINKS, N_VALUES = USED + 1, MIX + MIXED
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
def flattened(scores, n, n_labels, out):  # type: ignore[no-untyped-def]
    """Write naive Bayes scores, flattened: the tokens of a text are not independent, least of a long one."""
    factor = np.float32(1 / math.sqrt(1 + n / FLATTENED_FROM))
    for label in range(n_labels):
        out[label] = scores[label] * factor


@kernel
def score_leaf(memory, work, words, n_local, n_tokens, n_labels, leaf):  # type: ignore[no-untyped-def]
    """Write scores and probabilities of a leaf's own predictors; those of the shared ones are there already.

    Majority: its labels' shares, smoothed by the shared ones. Naive Bayes: its words' frequencies, smoothed by the
    shared ones. Linear: the shared scores and its own corrections. So a leaf that has seen nothing equals what is
    shared, and one that has seen much is its own. Mixture: the weighted sum of all scores (logistic mixing, as in PAQ).
    """
    rows, known, weights = work.rows, memory.known, memory.values[leaf, MIX:]
    block = memory.links[leaf, BLOCK] - 1
    examples, shared_examples = PRIOR_EXAMPLES, 0.0
    for label in range(n_labels):
        shared_examples += memory.totals[label, EXAMPLES]
        if block >= 0:
            examples += memory.leaf_totals[block, label, EXAMPLES]
    scores = rows[SCORES + MAJORITY]
    for label in range(n_labels):
        share = memory.totals[label, EXAMPLES] / shared_examples
        own = memory.leaf_totals[block, label, EXAMPLES] if block >= 0 else np.float32(0)
        scores[label] = math.log((own + PRIOR_EXAMPLES * share) / examples) if known[label] else np.float32(0)
    softmax(scores, known, n_labels, rows[MAJORITY])

    n_predictors = LEAF_BAYES
    if block >= 0 and leaf > 0:
        n_predictors = MIXED
        score_own(memory, work, words, n_local, n_labels, block, examples, shared_examples)
        flattened(rows[SCORES + LEAF_BAYES], n_tokens, n_labels, rows[SCORES + LEAF_BAYES])
        softmax(rows[SCORES + LEAF_BAYES], known, n_labels, rows[LEAF_BAYES])
        softmax(rows[SCORES + LEAF_LINEAR], known, n_labels, rows[LEAF_LINEAR])

    mixed = rows[SCORES + MIXED]
    for label in range(n_labels):
        mixed[label] = 0
        for predictor in range(n_predictors):
            mixed[label] += np.float32(weights[predictor]) * rows[SCORES + predictor, label]
    softmax(mixed, known, n_labels, rows[MIXED])


@kernel
def score_own(memory, work, words, n_local, n_labels, block, examples, shared_examples):  # type: ignore[no-untyped-def]
    """Write the scores of an open leaf's naive Bayes and linear model."""
    rows, keys, entries = work.rows, memory.keys[block], memory.entries[block]
    alpha = ALPHA * memory.unit[0]
    smoothing = alpha * (memory.counters[N_SLOTS_USED] + 1)
    scale = np.float32(1 / math.sqrt(n_local + 1.0))
    for label in range(n_labels):
        if not memory.known[label]:
            continue
        share = memory.totals[label, EXAMPLES] / shared_examples
        own = memory.leaf_totals[block, label]
        per_count = (memory.totals[label, TOKENS] + smoothing) / PRIOR_TOKENS
        gain = math.log((own[EXAMPLES] / share + PRIOR_EXAMPLES) / examples)
        gain -= n_local * math.log(1 + own[TOKENS] / PRIOR_TOKENS)
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
        rows[SCORES + LEAF_BAYES, label] = rows[RAW_BAYES, label] + gain + math.log(product)
        rows[SCORES + LEAF_LINEAR, label] = rows[SCORES + LINEAR, label] + correction * scale


@kernel
def chosen(memory, leaf, asked):  # type: ignore[no-untyped-def]
    """Return the predictor that a leaf uses: that of least recent loss, or the one that is asked for."""
    has_own = leaf > 0 and memory.links[leaf, BLOCK] > 0
    if asked != ADAPTIVE:
        return asked - 2 if asked in (LEAF_BAYES, LEAF_LINEAR) and not has_own else asked
    best = MIXED
    for candidate in range(MIXED if has_own else LEAF_BAYES):
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
            for shared, own in ((BAYES, LEAF_BAYES), (LINEAR, LEAF_LINEAR)):
                memory.values[child, LOSSES + own] = memory.values[leaf, LOSSES + shared]
                memory.values[child, MIX + shared] /= 2
                memory.values[child, MIX + own] = memory.values[child, MIX + shared]
    links[leaf, PRESENT], links[leaf, ABSENT], links[leaf, BLOCK] = present, absent, 0
    links[absent, BLOCK] = block + 1
    memory.owners[block] = absent + 1
    memory.features[leaf] = feature
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
def learn_mixture(memory, work, options, n_predictors, n_labels, leaf, target, weight):  # type: ignore[no-untyped-def]
    """Move the weights of a leaf's mixture by the gradient of its log loss."""
    rows = work.rows
    step = options.mix_rate * min(weight, np.float32(1))
    for predictor in range(n_predictors):
        gradient = 0.0
        for label in range(n_labels):
            if memory.known[label]:
                error = rows[MIXED, label] - (1.0 if label == target else 0.0)
                gradient += error * rows[SCORES + predictor, label]
        gradient = min(max(gradient, -MAX_MIX_GRADIENT), MAX_MIX_GRADIENT)
        weights = memory.values[leaf, MIX:]
        weights[predictor] = min(max(weights[predictor] - step * gradient, -MAX_MIX), MAX_MIX)


@kernel
def learn_leaf(memory, work, options, words, n_local, n_tokens, n_labels, leaf, target, weight, is_new):  # type: ignore[no-untyped-def]
    """Learn a text at its leaf: losses, counts, corrections; then split it or reopen it, where that is due."""
    links, values = memory.links, memory.values
    if not is_new:
        values[leaf, VISITS] += 1
        rate = max(LOSS_RATE, 1 / values[leaf, VISITS])
        n_predictors = MIXED if leaf > 0 and links[leaf, BLOCK] > 0 else LEAF_BAYES
        for predictor in range(N_PREDICTORS):
            if n_predictors <= predictor < MIXED:
                continue
            loss = min(-math.log(work.rows[predictor, target]), MAX_LOSS)
            place = LOSSES + predictor
            values[leaf, place] += rate * (loss - values[leaf, place])
        learn_mixture(memory, work, options, n_predictors, n_labels, leaf, target, weight)
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
def leaf_of(memory, words, n_local, node):  # type: ignore[no-untyped-def]
    """Return the leaf under a node that a text belongs to."""
    while memory.links[node, PRESENT] > 0:
        feature = memory.features[node]
        child = memory.links[node, ABSENT]
        for i in range(n_local):
            if words[i] == feature:
                child = memory.links[node, PRESENT]
                break
        node = child
    return node


@kernel
def score_and_learn(codes, starts, targets, weights, table, text_arguments, buffers, options, memory, work, scores):  # type: ignore[no-untyped-def]
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
            score_bayes(memory, work, n_tokens, n_labels)
            flattened(rows[RAW_BAYES], n_tokens, n_labels, rows[SCORES + BAYES])
            softmax(rows[SCORES + BAYES], known, n_labels, rows[BAYES])

            # 3
            score_leaf(memory, work, features, n_local, n_tokens, n_labels, leaf)
            scores[text, :n_labels] = rows[chosen(memory, leaf, options.leaf), :n_labels]
        if target < 0:
            continue

        # 4
        counters[N_TEXTS] += 1
        learn_leaf(memory, work, options, features, n_local, n_tokens, n_labels, leaf, target, weight, is_new)
        known[target] = 1
        counters[N_LABELS] = n_scored
        if learn_linear(memory, work, options, n_plain, n, scale, n_scored, target, weight):
            learn_bayes(memory, work, options, n_tokens, target, weight)
        else:
            counters[REFUSED] += 1
