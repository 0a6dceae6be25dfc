"""Which features of a text are repeats?

Repeats drown the rest in long texts (on whole e-mails, repeats kept made three times the errors): a feature counts
once. How often a word comes is told apart (counts.py), which needs the words that were dropped.

A table finds them. Whoever writes a text can choose features that have the same last bits, and say one of them over and
over, so its places are not these bits: a feature's place is the first bits of its product with a secret odd number of
this process (multiply-shift, Dietzfelbinger et al. 1997: two features that somebody chose share one of m places with a
chance of 2 / m). Which features there are, and in which order, does not depend on it.
Proved by test_features_that_share_their_last_bits_take_no_longer.
"""

from typing import Final

import numpy as np

from driftline.learner.kernels import count_bits, eight_bytes, first_bit, in_range, inlined, kernel
from driftline.learner.text.hashes import BYTE, EIGHT
from driftline.learner.text.tokens import ALONE, EVERY, ONE

FEW: Final = 64  # features that are compared each with each; of more a table finds the repeats
MANY: Final = 2048  # from here on that table is small rather than empty, so that it stays in the cache
_WORD: Final = np.uint64(64)


@inlined
def place_of(feature, secret, shift):  # type: ignore[no-untyped-def]
    """Return where in a table of 2**(64 - shift) places a feature is looked for first."""
    return np.uint32((np.uint64(feature) * secret) >> shift)


@kernel
def drop_repeats(out, begin, end, n, size, distinct, secret):  # type: ignore[no-untyped-def]
    """Append those of the features out[begin:end] that are new to the first n. Returns how many there are then."""
    to = np.uint64(n)
    mask = np.uint32(size - 1)
    shift = _WORD - first_bit(np.uint64(size))
    for i in range(begin, end):
        feature = max(out[i], np.uint32(1))  # 0 marks a free place in `distinct`
        place = place_of(feature, secret, shift)
        held = distinct[place]
        while (held != 0) & (held != feature):  # not `and`: one branch, which is seldom taken, and not two
            place = (place + np.uint32(1)) & mask
            held = distinct[place]
        distinct[place] = feature
        out[to] = feature
        to += np.uint64(held == 0)
    return np.int64(to)


@kernel
def drop_words(out, n, begins, size, distinct, secret, dropped):  # type: ignore[no-untyped-def]
    """Do what `drop_repeats` does for the hashes of n tokens.

    Parameters
    ----------
    begins : where each token begins
    dropped : uint32 and int32 [n + 1 or more], changed: the hashes of the repeats, and where these begin

    Returns
    -------
    n_hashes, n_dropped : how many there are of each then
    """
    hashes, places = dropped
    to, n_dropped = np.uint64(0), np.uint64(0)
    mask = np.uint32(size - 1)
    shift = _WORD - first_bit(np.uint64(size))
    for i in range(n):
        feature = max(out[i], np.uint32(1))
        place = place_of(feature, secret, shift)
        held = distinct[place]
        while (held != 0) & (held != feature):
            place = (place + np.uint32(1)) & mask
            held = distinct[place]
        distinct[place] = feature
        out[to] = feature
        hashes[n_dropped], places[n_dropped] = feature, begins[i]
        to += np.uint64(held == 0)
        n_dropped += np.uint64(held != 0)
    return np.int64(to), np.int64(n_dropped)


@kernel
def are_same_tokens(folded, at, other, length):  # type: ignore[no-untyped-def]
    """Return whether two tokens of as many bytes are the same."""
    for done in range(0, length, 8):
        kept = EVERY >> (EIGHT * (BYTE - np.uint64(min(length - done, 8))))
        if (eight_bytes(folded, at + done) ^ eight_bytes(folded, other + done)) & kept != np.uint64(0):
            return False
    return True


@kernel
def drop_tokens(out, n, folded, begins, ends, size, distinct, secret, dropped):  # type: ignore[no-untyped-def]
    """Do what `drop_words` does for the hashes of n tokens, and drop the places of the tokens that are repeats.

    What has the hash of an earlier token, but is another one, stays: its n-grams are its own.

    Returns
    -------
    n_hashes, n_tokens, n_dropped : how many there are of each then
    """
    hashes, places = dropped
    to, fresh, n_dropped = np.uint64(0), np.uint64(0), np.uint64(0)
    mask = np.uint32(size - 1)
    shift = _WORD - first_bit(np.uint64(size))
    first = distinct[size : 2 * size]  # where a feature's token is
    for i in range(n):
        feature = max(out[i], np.uint32(1))
        place = place_of(feature, secret, shift)
        held = distinct[place]
        while (held != 0) & (held != feature):
            place = (place + np.uint32(1)) & mask
            held = distinct[place]
        begin, end = begins[i], ends[i]
        is_new = held == 0
        if not is_new:
            hashes[n_dropped], places[n_dropped] = feature, begin
            n_dropped += ONE
            earlier = first[place]
            length = end - begin
            if ends[earlier] - begins[earlier] == length and are_same_tokens(folded, begin, begins[earlier], length):
                continue
        else:
            distinct[place] = feature
            first[place] = fresh
            out[to] = feature
            to += ONE
        begins[fresh], ends[fresh] = begin, end
        fresh += ONE
    return np.int64(to), np.int64(fresh), np.int64(n_dropped)


@kernel
def table_size(n):  # type: ignore[no-untyped-def]
    """Return how many places a table of n features has."""
    size = FEW
    while size < (8 if n < MANY else 2) * n:
        size *= 2
    return size


@kernel
def drop_few(out, n_words, n_plain, n, begins, dropped):  # type: ignore[no-untyped-def]
    """Drop the repeats of fewer than FEW features, each compared with all before it.

    Returns
    -------
    n_words, n_plain, n, n_dropped : where each kind ends, and how many words were dropped, as `drop_words` does
    """
    hashes, places = dropped
    repeated, n_dropped = np.uint64(0), np.int64(0)
    for i in range(FEW):
        out[i] = max(out[i], np.uint32(1))  # as in `drop_repeats`
    for i in range(1, n):
        earlier = (ONE << np.uint64(i)) - ONE
        is_repeated = in_range(out, 0, out[i], np.uint32(ALONE)) & earlier != np.uint64(0)
        repeated |= np.uint64(is_repeated) << np.uint64(i)
    if repeated == np.uint64(0):
        return n_words, n_plain, n, n_dropped
    for i in range(n_words):
        hashes[n_dropped], places[n_dropped] = out[i], begins[i]
        n_dropped += np.int64(repeated >> np.uint64(i) & ONE)
    kept = np.uint64(0)
    for i in range(n):
        out[kept] = out[i]
        kept += np.uint64(1) - (repeated >> np.uint64(i) & ONE)
    n_words -= n_dropped
    n_plain -= np.int64(count_bits(repeated & ((ONE << np.uint64(n_plain)) - ONE)))
    return n_words, n_plain, np.int64(kept), n_dropped
