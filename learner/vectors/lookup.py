"""Which vector does a text have?

The mean of the rows of its distinct words, scaled to length 1, then one number that all texts have alike: what is
learned of that is a label's bias. A text of which no word has a row has no vector, and nobody says anything of it.
What has to come from the memory is asked for first: words, then rows, then they are added up.
"""

import math
from typing import Final

import numpy as np

from driftline.learner.kernels import kernel, prefetch_only
from driftline.learner.vectors.table import LANES

MOST: Final = 512  # words of a text, the first ones that have a row
LEAST_LENGTH: Final = np.float32(1e-20)  # of a sum of rows: words may undo each other
ALIKE: Final = np.float32(1)
LINE: Final = 32  # numbers of a row in a cache line


@kernel
def ask_for_words(features, n_words, words):  # type: ignore[no-untyped-def]
    """Let the places of a text's words come from the memory while something else is done."""
    entries = words[0]
    mask = entries.shape[0] // 2 - 1
    for i in range(min(n_words, MOST)):
        prefetch_only(entries, 2 * (np.int64(features[i]) & mask))


@kernel
def find_rows(features, n_words, words, width, found):  # type: ignore[no-untyped-def]
    """Write the rows of a text's words, and let them come from the memory. Returns how many there are."""
    entries, _, rows = words
    mask = np.int64(entries.shape[0] // 2 - 1)
    n = 0
    for i in range(n_words):
        place = np.int64(features[i]) & mask
        while entries[2 * place + 1] != 0 and entries[2 * place] != features[i]:
            place = (place + 1) & mask
        row = np.int64(entries[2 * place + 1]) - 1
        if row >= 0:
            for at in range(0, width, LINE):
                prefetch_only(rows, row * width + at)
            found[n] = row
            n += 1
            if n == MOST:
                break
    return n


@kernel
def dot(one, other, lanes):  # type: ignore[no-untyped-def]
    """Return the sum of products of two rows, vectorised."""
    for lane in range(LANES):
        lanes[lane] = 0
    for begin in range(0, one.shape[0], LANES):
        first, second = one[begin : begin + LANES], other[begin : begin + LANES]
        for lane in range(LANES):
            lanes[lane] += first[lane] * second[lane]
    total = lanes[0]
    for lane in range(1, LANES):
        total += lanes[lane]
    return total


@kernel
def add_up(found, n, words, dimension, vector, lanes):  # type: ignore[no-untyped-def]
    """Write a text's vector from its rows. Returns whether it has one."""
    _, scales, rows = words
    width = vector.shape[0]
    for i in range(width):
        vector[i] = np.float32(0)
    for i in range(n):
        row, scale = rows[found[i] * width : (found[i] + 1) * width], scales[found[i]]
        for k in range(width):
            vector[k] += scale * np.float32(row[k])
    return scale_to_one(dimension, vector, lanes)


@kernel
def scale_to_one(dimension, vector, lanes):  # type: ignore[no-untyped-def]
    """Make a vector as long as all are, and put ALIKE behind it. Returns whether it has a length."""
    length = np.float32(math.sqrt(dot(vector, vector, lanes)))
    if not LEAST_LENGTH < length < np.inf:
        return False
    inverse = np.float32(1) / length
    for i in range(dimension):
        vector[i] *= inverse
    vector[dimension] = ALIKE
    return True
