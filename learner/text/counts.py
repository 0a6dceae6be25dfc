"""How often does a word come?

A word counts once, however often it stands in a text (repeats.py). In long texts, as tickets and articles are, how
often says something beside it: so a word that comes for the second time is one more feature, and so for the third, the
fourth and at some numbers beyond. Each takes the place of a repeat that was dropped: no text has more features for it.
Of words that begin with a letter, and of all that is beyond ASCII: signs and numbers come again in every text (with
numbers, e-mails whose labels came late had 6 % more errors).
"""

from typing import Final

import numpy as np

from driftline.learner.kernels import first_bit, inlined, kernel
from driftline.learner.text.hashes import MULTIPLIER, finish
from driftline.learner.text.repeats import drop_repeats, place_of
from driftline.learner.text.tokens import LETTERS, N_ASCII, N_LETTERS, ONE

TIMES_SEED: Final = np.uint64(0x3F84D5B5B5470917)  # the digits of pi, after fielded.py's
TIMES: Final = (2, 3, 4, 5, 6, 8, 12)
_WANTED: Final = np.uint64(sum(1 << n for n in TIMES))
_MANY: Final = np.uint8(TIMES[-1] + 1)
_LEAST_PLACES: Final = 16
_BITS: Final = np.uint64(64)  # of what `place_of` shifts


@inlined
def is_of_word(code):  # type: ignore[no-untyped-def]
    """Return whether a token that begins with this byte counts: of ASCII a letter, else any."""
    return (np.uint8(code - LETTERS) < N_LETTERS) | (code >= N_ASCII)


@kernel
def count_words(dropped, n_dropped, folded, counting, secret):  # type: ignore[no-untyped-def]
    """Write what says how often words come.

    Parameters
    ----------
    dropped : of the repeats that were dropped the hashes, and where they begin in `folded`, in the text's order; the
        hashes are overwritten by features
    counting : uint32 and uint8 [4 n_dropped or more, a power of two], overwritten

    Returns
    -------
    n : how many features there are
    """
    hashes, begins = dropped
    words, times = counting
    size = _LEAST_PLACES
    while size < 2 * n_dropped:
        size *= 2
    words[:size] = 0
    mask, shift = np.uint32(size - 1), _BITS - first_bit(np.uint64(size))
    n = 0
    for i in range(n_dropped):
        word = hashes[i]
        if not is_of_word(folded[begins[i]]):
            continue
        place = place_of(word, secret, shift)
        while words[place] != 0 and words[place] != word:
            place = (place + np.uint32(1)) & mask
        if words[place] == 0:
            words[place], times[place] = word, 1
        times[place] = min(times[place] + 1, _MANY)
        count = np.uint64(times[place])
        if _WANTED >> count & ONE:
            hashes[n] = finish((TIMES_SEED ^ np.uint64(word)) * MULTIPLIER ^ count)
            n += 1
    return n


@kernel
def append_counts(out, n, dropped, n_counts, size, distinct, secret):  # type: ignore[no-untyped-def]
    """Append features of `count_words` to the first n, which are in a table as in `drop_repeats`. Returns how many."""
    for i in range(n_counts):
        out[n + i] = dropped[0][i]
    return drop_repeats(out, n, n + n_counts, n, size, distinct, secret)


@kernel
def insert_counts(out, n_plain, n, dropped, n_counts):  # type: ignore[no-untyped-def]
    """Put features of `count_words` before the n-grams of a text that has few features. Returns where both end."""
    features, kept = dropped[0], 0
    for i in range(n_counts):
        feature, is_new = max(features[i], np.uint32(1)), True
        for j in range(n):
            is_new &= out[j] != feature
        features[kept] = feature
        kept += int(is_new)
    for i in range(n - n_plain):
        out[n - 1 - i + kept] = out[n - 1 - i]
    for i in range(kept):
        out[n_plain + i] = features[i]
    return n_plain + kept, n + kept
