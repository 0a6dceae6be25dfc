"""How are tokens, pairs and character n-grams hashed?

Never depending on the platform, the Python or the run: it is part of the checkpoint format. In 64-bit arithmetic
without sign (FNV-1a's loop; a multiplier and an end of murmur3's kind, since a bare product has no good low bits). Of a
token's folded UTF-8, eight bytes at a time, the first one lowest, then zeros:

    h = WORD_SEED;  for each eight bytes c:  h = (mixed(h) ^ c) * MULTIPLIER, the first time h itself;  then  finish(h)

of an n-gram: h = CHARS_SEED;  for each code point c:  h = (h ^ c) * MULTIPLIER;  then  finish(h)

of a pair: finish((PAIR_SEED ^ first) * MULTIPLIER ^ second) of its tokens' hashes: order counts.
"""

from typing import Final

import numpy as np

from driftline.learner.kernels import eight_bytes, kernel
from driftline.learner.text.tokens import BOUNDARY, EVERY, FIRST, GROUP, IN_SPACE, ONE, TWO, UNSPACED, whole

WORD_SEED: Final = np.uint64(0x243F6A8885A308D3)  # the digits of pi
PAIR_SEED: Final = np.uint64(0x13198A2E03707344)
CHARS_SEED: Final = np.uint64(0xA4093822299F31D0)
MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
FINISHER: Final = np.uint64(0xFF51AFD7ED558CCD)  # murmur3's
HALF: Final = np.uint64(32)
BLOCK: Final = 256  # places whose n-grams are hashed at once: what that needs stays in the nearest cache
BYTE, EIGHT = map(np.uint64, (8, 8))


@kernel
def mixed(h):  # type: ignore[no-untyped-def]
    """Return a hash whose low bits depend on its high ones."""
    return h ^ (h >> HALF)


@kernel
def finish(h):  # type: ignore[no-untyped-def]
    """Return the 32 bits of a hash that is complete."""
    return np.uint32((mixed(h) * FINISHER) >> HALF)


@kernel
def go_on(h, folded, at, length):  # type: ignore[no-untyped-def]
    """Return the hash after the next eight bytes, or as many as there are, one at least."""
    kept = EVERY >> (EIGHT * (BYTE - min(max(length, ONE), BYTE)))
    return (h ^ (eight_bytes(folded, at) & kept)) * MULTIPLIER


@kernel
def hash_tokens(folded, begins, ends, n, out):  # type: ignore[no-untyped-def]
    """Write the hashes of n tokens, and after them those of n - 1 pairs: what a pair needs is at hand.

    Sixteen bytes without a branch: few words are longer.
    """
    before = np.uint64(0)
    for i in range(n):
        at = begins[i]
        length = np.uint64(ends[i] - at)
        h = go_on(WORD_SEED, folded, at, length)
        second = go_on(mixed(h), folded, at + 8, length - BYTE)
        h = second if length > BYTE else h
        for more in range(16, np.int64(length), 8):
            h = go_on(mixed(h), folded, at + more, length - np.uint64(more))
        token = np.uint64(finish(h))
        out[np.uint64(n + max(i - 1, 0))] = finish((PAIR_SEED ^ before) * MULTIPLIER ^ token)  # the first is none
        out[i] = token
        before = token


@kernel
def spread_tokens(folded, keys, end, spread):  # type: ignore[no-untyped-def]
    """Write what n-grams are taken of: folded tokens, BOUNDARY around them. Returns how many places that takes.

    Characters of unspaced scripts stay together.
    """
    spread[0] = BOUNDARY
    n = ONE
    codes, before, here = folded[FIRST:], keys[FIRST - 1 :], keys[FIRST:]
    for i in range(end + 1 - FIRST):
        apart = (before[i] != IN_SPACE) & (here[i] != before[i]) & (here[i] & before[i] < UNSPACED)
        spread[n] = BOUNDARY
        n += np.uint64(apart)
        spread[n] = codes[i]
        n += np.uint64(here[i] != IN_SPACE)
    return np.int64(n)


@kernel
def spread_ascii(folded, begins, ends, n_tokens, spread):  # type: ignore[no-untyped-def]
    """Do what `spread_tokens` does for the tokens of `list_ascii`, GROUP characters at a time; write past the end."""
    spread[0] = BOUNDARY
    n = np.int64(1)
    for i in range(n_tokens):
        at, end = begins[i], ends[i]
        for begin in range(0, end - at, GROUP):
            codes, to = folded[at + begin :][:GROUP], spread[n + begin :][:GROUP]
            for lane in range(GROUP):
                to[lane] = codes[lane]
        n += end - at + 1
        spread[n - 1] = BOUNDARY
    return n


@kernel
def hash_ngrams(spread, n_spread, wanted, longest, room, n, out, work):  # type: ignore[no-untyped-def]
    """Append the hashes of n-grams between two boundaries, these included, to n features. Returns how many there are.

    By blocks: first those of one length at every place, which is vectorised, then they are put in order. An n-gram goes
    on until a boundary is inside of it, so the lengths that count are the first ones.
    """
    hashes, grams, alive, lengths = work
    for i in range(n_spread, n_spread + longest):
        spread[i] = BOUNDARY
    for begin in range(0, n_spread - 1, BLOCK):
        size = min(BLOCK, n_spread - 1 - begin)
        padded = whole(size)
        codes = spread[begin : begin + padded]
        for i in range(padded):
            hashes[i] = (CHARS_SEED ^ np.uint64(codes[i])) * MULTIPLIER
            alive[i] = 1
            lengths[i] = 0
        n_lengths = 0
        for length in range(2, longest + 1):
            codes = spread[begin + length - 1 : begin + length - 1 + padded]
            row = grams[min(n_lengths, grams.shape[0] - 1)]
            is_wanted = np.uint8((wanted >> length) & 1)
            for i in range(padded):
                h = (hashes[i] ^ np.uint64(codes[i])) * MULTIPLIER
                hashes[i] = h
                row[i] = finish(h)  # of a length that is not wanted: the next one overwrites it
                lengths[i] += alive[i] & is_wanted
                alive[i] &= np.uint8(codes[i] != BOUNDARY)
            n_lengths += (wanted >> length) & 1
        place = np.uint64(n)
        for i in range(size):
            if n_lengths == 3:  # the usual number: without a loop
                out[place], out[place + ONE], out[place + TWO] = grams[0, i], grams[1, i], grams[2, i]
            else:
                for which in range(n_lengths):
                    out[place + np.uint64(which)] = grams[which, i]
            place += np.uint64(lengths[i])
        n = min(np.int64(place), room)
        if n == room:
            break
    return n
