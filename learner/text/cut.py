"""What of a long text is read?

Its beginning and its end: who writes and what about stands in the first lines, what is wanted in the last ones. What is
between is left out, as if there were one space. On whole e-mails that is more accurate than the beginning alone, twice
as long (head and tail, as Sun et al. 2019 cut texts for BERT).
"""

from typing import Final

import numpy as np

from driftline.learner.text.fielded import text_end
from driftline.stream.kernels import copy, kernel
from driftline.stream.texts import PADDING, Texts

SPACE: Final = np.uint8(ord(" "))
FIRST_BITS, GOES_ON = np.uint8(0xC0), np.uint8(0x80)  # of a byte that does not begin a character in UTF-8


def cut(texts: Texts, most: int, tail: int) -> Texts:
    """Return texts of at most `most` characters, of which a longer text's last `tail` are its last ones.

    Without a tail the texts are returned as they are: whoever reads them leaves out what is beyond.
    """
    starts = texts.starts
    if not tail or not (starts[1:] - starts[:-1] > most).any():
        return texts
    ends = np.empty((len(texts), 2), np.int64)
    new_starts = np.zeros_like(starts)
    find_ends(texts.codes, starts, most, tail, ends, new_starts)
    codes = np.empty(new_starts[-1] + PADDING, np.uint8)
    copy_ends(texts.codes, starts, ends, new_starts, codes)
    codes.flags.writeable = False  # as those of strings: the kernels are compiled for such
    return Texts(codes, new_starts)


@kernel
def begins(byte):  # type: ignore[no-untyped-def]
    """Return whether a character begins with this byte of UTF-8."""
    return (byte & FIRST_BITS) != GOES_ON


@kernel
def find_ends(codes, starts, most, tail, ends, new_starts):  # type: ignore[no-untyped-def]
    """Write where the beginning of each text ends and its end begins, both where it stops if it is not cut."""
    for text in range(ends.shape[0]):
        start, stop = starts[text], starts[text + 1]
        ends[text, 0], ends[text, 1] = stop, stop
        size, n, end = stop - start, 0, stop
        if size > most:
            end = text_end(codes, start, stop)
            for at in range(start, end):
                n += int(begins(codes[at]))
        if n > most:
            at, n = start, 0
            while n < most - tail:
                n += int(begins(codes[at]))
                at += int(n < most - tail)
            ends[text, 0] = at
            at, n = end, 0  # the fields follow
            while n < tail:
                at -= 1
                n += int(begins(codes[at]))
            ends[text, 1] = at
            size = ends[text, 0] - start + 1 + stop - at
        new_starts[text + 1] = new_starts[text] + size


@kernel
def copy_ends(codes, starts, ends, new_starts, out):  # type: ignore[no-untyped-def]
    """Copy what `find_ends` found, and zeros behind the last text."""
    for text in range(ends.shape[0]):
        start, stop, to = starts[text], starts[text + 1], new_starts[text]
        first, last = ends[text, 0], ends[text, 1]
        copy(codes[start:first], out[to:])
        if last < stop:
            out[to + first - start] = SPACE
            copy(codes[last:stop], out[to + first - start + 1 :])
    out[new_starts[-1] :] = 0
