"""In which pieces are words and their vectors read? So many at a time: memory does not grow with the file."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

LINES: Final = 4096  # words of a block
LEAST_DIMENSION: Final = 2  # with one number a word fastText's first line could be a word's, too
MOST_DIMENSION: Final = 512

Floats = NDArray[np.float32]


class Block(NamedTuple):
    """Some words, in the order of their file."""

    words: list[str]
    vectors: Floats  # [words, dimension], finite
