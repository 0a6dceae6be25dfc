"""What is a Hoeffding tree's memory made of?

Arrays that are all there from the start, so that memory cannot grow. Node 0 is the root; a node with PRESENT 0 is a
leaf. An open leaf has a block: a small open-addressed table of (feature, label) -> count, weight, sum of squared
gradients. A leaf without a block is closed: it predicts by what is shared, and collects nothing.

Zero means empty everywhere; a label stands in a key as label + 1, a block in a link as block + 1, a node in owners too.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.kernels import kernel
from driftline.learner.text.hashes import HALF, MULTIPLIER

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
    features: NDArray[np.uint32]  # [2, max_features] of a text, and of the next
    bases: NDArray[np.uint32]  # [max_features + 1] of the linear model
    planes: NDArray[np.float32]  # [3, max_features + 1 + LANES] values, and what learn_label works with
    tokens: NDArray[np.uint32]  # [max_features] bases of naive Bayes
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
