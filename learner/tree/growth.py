"""When does a leaf split, which leaves may collect statistics, and when does a branch go?

Splits: Domingos & Hulten 2000 (VFDT), by the Hoeffding bound. A node asks whether a text has a word, so that a block's
counts of (word, label) are all that a split needs. Blocks: the least promising leaf gives its own up (section 3 there).
Branches: where errors rise an alternate grows beside the branch, and takes its place if it is better (Bifet & Gavalda
2009, Hoeffding Adaptive Tree, with two decayed means in place of ADWIN).
"""

import math
from typing import Final

import numpy as np

from driftline.learner.kernels import copy, inlined, kernel
from driftline.learner.text.hashes import HALF
from driftline.learner.tree.layout import COUNTER, ENTRY, LINK, PREDICTOR, TOTAL, VALUE

INHERITED: Final = 100.0  # how many texts a parent's losses count for in its child
DOUBT: Final = 0.02  # what an own predictor must make up for before it is used
FIRST_TRUST: Final = 0.5  # in corrections
MIN_BRANCH: Final = 0.01  # of a leaf's examples, on either side of a split
PROMISE_SPAN: Final = 20000.0  # texts after which a leaf's past losses count half
TAKEOVER: Final = 1.5  # how much more promising a closed leaf must be to take an open one's block
FAST_RATE: Final = 0.01
SLOW_RATE: Final = 0.001
WATCH_FROM: Final = 300.0  # texts at a node before its errors mean something
WATCH_SIGMAS: Final = 4.0


@kernel
def hoeffding_bound(value_range, delta, n):  # type: ignore[no-untyped-def]
    """Return how far the mean of n values may be from its expectation, but for a probability of delta."""
    return math.sqrt(value_range * value_range * math.log(1 / delta) / (2 * n))


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
    block, gini = memory.links[leaf, LINK.BLOCK] - 1, options.gini
    keys, entries, totals = memory.keys[block], memory.entries[block], memory.leaf_totals[block]
    n, purity, seen_labels = 0.0, 0.0, 0
    for label in range(n_labels):
        if totals[label, TOTAL.EXAMPLES] > 0:
            seen_labels += 1
            n += totals[label, TOTAL.EXAMPLES]
            purity += part(np.float64(totals[label, TOTAL.EXAMPLES]), gini)
    value_range = 1.0 if gini else math.log2(max(seen_labels, 2))
    if seen_labels < 2:
        return np.uint32(0), 0.0, 0.0, n, value_range

    found, sums = work.found, work.sums
    mask = found.shape[0] - 1
    found[:] = 0
    sums[:] = 0
    for i in range(keys.shape[0]):
        feature = np.uint32(keys[i] >> HALF)
        count = np.float64(entries[i, ENTRY.COUNT])
        if feature == 0 or count <= 0:
            continue
        place = np.int64(feature) & mask
        while found[place] != 0 and found[place] != feature:
            place = (place + 1) & mask
        found[place] = feature
        total = np.float64(totals[np.int64(keys[i] & np.uint64(0xFFFFFFFF)) - 1, TOTAL.EXAMPLES])
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
    return memory.values[node, VALUE.LOSS] / (
        memory.counters[COUNTER.N_TEXTS] - memory.values[node, VALUE.SINCE] + 200.0
    )


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
            memory.links[memory.owners[block] - 1, LINK.BLOCK] = 0
            memory.counters[COUNTER.N_CLOSED] += 1
        memory.owners[block] = node + 1
        memory.links[node, LINK.BLOCK] = block + 1
        memory.keys[block, :] = 0
        memory.entries[block, :, :] = 0
        memory.leaf_totals[block, :, :] = 0
        memory.values[node, VALUE.SEEN] = 0
        memory.values[node, VALUE.TRIED] = 0
    return block


@kernel
def free_node(memory):  # type: ignore[no-untyped-def]
    """Return a node that is not used, or -1."""
    for node in range(1, memory.links.shape[0]):
        if memory.links[node, LINK.USED] == 0:
            return node
    return -1


@kernel
def make_leaf(memory, node, parent, like):  # type: ignore[no-untyped-def]
    """Make a node a leaf without a block, that expects of its predictors what another node found."""
    memory.links[node, :] = 0
    memory.values[node, :] = 0
    memory.links[node, LINK.USED] = 1
    memory.links[node, LINK.PARENT] = parent
    memory.links[node, LINK.DEPTH] = memory.links[parent, LINK.DEPTH] + 1
    copy(memory.values[like, VALUE.LOSSES :], memory.values[node, VALUE.LOSSES :])  # and the mixture's weights
    memory.values[node, VALUE.VISITS] = min(memory.values[like, VALUE.VISITS], INHERITED)
    memory.values[node, VALUE.SINCE] = memory.counters[COUNTER.N_TEXTS]


@kernel
def split(memory, leaf, feature):  # type: ignore[no-untyped-def]
    """Make a leaf an inner node. Its children begin with its corrections, and count anew. Returns whether it could."""
    present = free_node(memory)
    if present < 0:
        return False
    make_leaf(memory, present, leaf, leaf)
    absent = free_node(memory)
    if absent < 0:
        free(memory, present)
        return False
    make_leaf(memory, absent, leaf, leaf)
    links, block = memory.links, memory.links[leaf, LINK.BLOCK] - 1
    for child in (present, absent):
        memory.values[child, VALUE.LOSS] = memory.values[leaf, VALUE.LOSS] / 2
        memory.values[child, VALUE.SINCE] = memory.values[leaf, VALUE.SINCE]
        if leaf == 0:  # what is shared was its own until now
            for predictor in range(PREDICTOR.LEAF_BAYES, len(PREDICTOR)):
                shared = memory.values[0, VALUE.LOSSES + predictor - PREDICTOR.LEAF_BAYES + PREDICTOR.BAYES]
                memory.values[child, VALUE.LOSSES + predictor] = shared + DOUBT
            memory.values[child, VALUE.MIX : VALUE.MIX + 4] = 0
            memory.values[child, VALUE.MIX] = 1
            memory.values[child, VALUE.MIX + 2] = FIRST_TRUST
    links[leaf, LINK.PRESENT], links[leaf, LINK.ABSENT], links[leaf, LINK.BLOCK] = present, absent, 0
    links[absent, LINK.BLOCK] = block + 1
    memory.owners[block] = absent + 1
    memory.features[leaf] = feature
    for column in (VALUE.SEEN, VALUE.FAST, VALUE.SLOW):
        memory.values[leaf, column] = 0
    memory.leaf_totals[block, :, :] = 0
    memory.entries[block, :, ENTRY.COUNT] = 0
    other = take_block(memory, present)
    if other >= 0 and links[absent, LINK.BLOCK] > 0:
        copy(memory.keys[block], memory.keys[other])
        copy(memory.entries[block].reshape(-1), memory.entries[other].reshape(-1))
    memory.counters[COUNTER.N_SPLITS] += 1
    return True


@kernel
def try_split(memory, work, options, leaf, n_labels):  # type: ignore[no-untyped-def]
    """Split a leaf if its best word is better than the second best, or as good as any, but for a chance of delta.

    The bound compares the two best words (Domingos & Hulten, section 2). A tie under tau is split too, but never on
    what may be chance: n times the gain in nats is half the G statistic.
    """
    if memory.links[leaf, LINK.DEPTH] >= options.max_depth:
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
def free(memory, node):  # type: ignore[no-untyped-def]
    """Free a node and its block. Its children are orphans then."""
    if memory.links[node, LINK.BLOCK] > 0:
        memory.owners[memory.links[node, LINK.BLOCK] - 1] = 0
    memory.links[node, :] = 0
    memory.values[node, :] = 0


@kernel
def free_orphans(memory):  # type: ignore[no-untyped-def]
    """Free every node whose parent is free, its alternates included, and their blocks. O(nodes * depth), but rare."""
    links = memory.links
    changed = True
    while changed:
        changed = False
        for node in range(1, links.shape[0]):
            if links[node, LINK.USED] == 1 and links[links[node, LINK.PARENT], LINK.USED] == 0:
                free(memory, node)
                changed = True


@kernel
def replace(memory, node):  # type: ignore[no-untyped-def]
    """Put a node's alternate in its place; the branch that it had is freed."""
    links, values = memory.links, memory.values
    alternate = links[node, LINK.ALTERNATE]
    free(memory, links[node, LINK.PRESENT])
    free(memory, links[node, LINK.ABSENT])
    free_orphans(memory)
    for column in (LINK.PRESENT, LINK.ABSENT, LINK.BLOCK):
        links[node, column] = links[alternate, column]
    for column in (LINK.PRESENT, LINK.ABSENT):
        if links[node, column] > 0:
            links[links[node, column], LINK.PARENT] = node
    if links[node, LINK.BLOCK] > 0:
        memory.owners[links[node, LINK.BLOCK] - 1] = node + 1
    memory.features[node] = memory.features[alternate]
    copy(values[alternate, : VALUE.LOSSES], values[node, : VALUE.LOSSES])
    if node > 0:  # the root's are the shared mixture's
        copy(values[alternate, VALUE.LOSSES :], values[node, VALUE.LOSSES :])
    values[node, VALUE.DUELS], values[node, VALUE.AHEAD] = 0, 0
    links[node, LINK.ALTERNATE] = 0
    links[alternate, LINK.BLOCK] = 0  # it is the node's now
    free(memory, alternate)
    memory.counters[COUNTER.N_REPLACED] += 1


@kernel
def drop_alternate(memory, node):  # type: ignore[no-untyped-def]
    """Free a node's alternate and all under it."""
    free(memory, memory.links[node, LINK.ALTERNATE])
    free_orphans(memory)
    memory.links[node, LINK.ALTERNATE] = 0
    memory.values[node, VALUE.DUELS], memory.values[node, VALUE.AHEAD] = 0, 0


@inlined
def watch(memory, leaf, error):  # type: ignore[no-untyped-def]
    """Follow the errors of all branches that a text came through; where they have risen, let an alternate grow.

    Two decayed means, of about 100 and 1,000 texts; the deepest node where the short one is WATCH_SIGMAS above the
    long one. (Bifet & Gavalda use ADWIN; its buckets at every node would be most of the memory.)
    """
    links, values = memory.links, memory.values
    alarm, challenged, node = -1, False, leaf
    while node > 0:
        node = links[node, LINK.PARENT]
        values[node, VALUE.SEEN] += 1
        for column, rate in ((VALUE.FAST, FAST_RATE), (VALUE.SLOW, SLOW_RATE)):
            values[node, column] += max(rate, 1 / values[node, VALUE.SEEN]) * (error - values[node, column])
        slow = values[node, VALUE.SLOW]
        deviation = math.sqrt((slow * (1 - slow) + 1e-3) * FAST_RATE / (2 - FAST_RATE))
        challenged = challenged or links[node, LINK.ALTERNATE] > 0
        if (
            alarm < 0
            and values[node, VALUE.SEEN] > WATCH_FROM
            and values[node, VALUE.FAST] - slow > WATCH_SIGMAS * deviation
        ):
            alarm = node
    if alarm < 0 or challenged:
        return
    memory.counters[COUNTER.N_ALARMS] += 1
    values[alarm, VALUE.SLOW] = values[alarm, VALUE.FAST]
    alternate = free_node(memory)
    if alternate > 0:
        make_leaf(memory, alternate, alarm, leaf)
        links[alternate, LINK.DEPTH] = links[alarm, LINK.DEPTH]
        values[alternate, VALUE.MIX : VALUE.MIX + 4] = 0
        values[alternate, VALUE.MIX] = 1
        values[alternate, VALUE.MIX + 2] = FIRST_TRUST
        values[alternate, VALUE.LOSS] = values[leaf, VALUE.LOSS]
        if take_block(memory, alternate) >= 0:
            links[alarm, LINK.ALTERNATE] = alternate
            values[alarm, VALUE.DUELS], values[alarm, VALUE.AHEAD] = 0, 0
        else:
            free(memory, alternate)
