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


class _Link(NamedTuple):
    """Columns of links."""

    PARENT: int = 0
    PRESENT: int = 1
    ABSENT: int = 2
    BLOCK: int = 3
    DEPTH: int = 4
    ALTERNATE: int = 5
    USED: int = 6


class _Predictor(NamedTuple):
    """Rows of work.rows, and columns of values from LOSSES on: by what a leaf predicts."""

    MAJORITY: int = 0
    BAYES: int = 1
    LINEAR: int = 2
    SHARED_MIX: int = 3
    LEAF_BAYES: int = 4
    LEAF_LINEAR: int = 5
    LEAF_MIX: int = 6


class _Row(NamedTuple):
    """Rows of work.rows behind those of the predictors."""

    SCORES: int = 7  # and in the next rows, the predictors' scores
    PRIOR: int = 14
    BAYES_GAIN: int = 15
    CORRECTION: int = 16
    SHARE_GAIN: int = 17
    RAW_BAYES: int = 18
    SCRATCH: int = 19


class _Value(NamedTuple):
    """Columns of values."""

    SEEN: int = 0
    TRIED: int = 1
    LOSS: int = 2
    SINCE: int = 3
    VISITS: int = 4
    FAST: int = 5
    SLOW: int = 6
    DUELS: int = 7
    AHEAD: int = 8
    LOSSES: int = 9  # one for each predictor
    MIX: int = 16  # the first weight of the leaf's own mixture


class _Counter(NamedTuple):
    """Places in counters."""

    N_LABELS: int = 0
    REFUSED: int = 1
    N_TEXTS: int = 2
    N_SLOTS_USED: int = 3
    N_SPLITS: int = 4
    N_CLOSED: int = 5
    N_ALARMS: int = 6
    N_REPLACED: int = 7


class _Entry(NamedTuple):
    """Columns of entries."""

    COUNT: int = 0
    WEIGHT: int = 1
    SQUARES: int = 2


class _Total(NamedTuple):
    """Columns of totals and leaf_totals."""

    EXAMPLES: int = 0
    TOKENS: int = 1


LINK, PREDICTOR, ROW, VALUE = _Link(), _Predictor(), _Row(), _Value()
COUNTER, ENTRY, TOTAL = _Counter(), _Entry(), _Total()
SCORE: Final = _Predictor(*range(ROW.SCORES, ROW.SCORES + len(PREDICTOR)))  # rows of the predictors' scores
# What the shared mixture weighs, with the root's weights; and what a leaf's own mixture weighs.
SHARED_INPUTS: Final = (ROW.PRIOR, SCORE.BAYES, SCORE.LINEAR)
LEAF_INPUTS: Final = (SCORE.SHARED_MIX, ROW.BAYES_GAIN, ROW.CORRECTION, ROW.SHARE_GAIN)
N_ROWS: Final = ROW.SCRATCH + 1
N_VALUES: Final = VALUE.MIX + len(LEAF_INPUTS)
ADAPTIVE: Final = -1
WINDOW: Final = 8  # places of a block that a key may stand in; the least counted gives way


class Memory(NamedTuple):
    """All that is learned. n_nodes, n_blocks and block_size are fixed; block_size is a power of two."""

    slots: NDArray[np.float32]  # [2**bits, 2] shared linear model: weight, sum of squared gradients
    frequencies: NDArray[np.float32]  # [2**(bits - 1)] shared naive Bayes: count of (feature, label)
    totals: NDArray[np.float64]  # [max_labels, 2] examples and tokens of each label
    known: NDArray[np.uint8]  # [max_labels]
    counters: NDArray[np.int64]  # [len(COUNTER)]
    unit: NDArray[np.float64]  # [1] what an example of weight 1 adds to frequencies and totals: past ones count less
    links: NDArray[np.int32]  # [n_nodes, len(LINK)]
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
        if entries[place, ENTRY.COUNT] < entries[least, ENTRY.COUNT]:
            least = place
    keys[least] = key
    entries[least, :] = 0
    return least
