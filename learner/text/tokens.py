"""Where in a text are its tokens?

A word is a run of word characters, a symbol's token the run of it up to MAX_RUN; an unspaced script's character is a
token. Of ASCII, 64 places at a time by their bits, else by the classes of characters.py: both give the same tokens.
"""

from typing import Final

import numpy as np

from driftline.learner.kernels import AT_ONCE, count_bits, first_bit, in_range, kernel, same
from driftline.learner.text.characters import (
    APOSTROPHE,
    CHARACTER,
    CLASS_SHIFT,
    FOLD_MASK,
    IGNORED,
    N_CODEPOINTS,
    SPACE,
    SYMBOL,
    WORD,
)

MAX_RUN: Final = 3  # "!!!!!" is the token "!!!"
BOUNDARY: Final = 0  # between words in the folded text; NUL itself is a space, so it cannot occur there
FIRST: Final = 3  # place of a text's first byte or code point in the buffers, spaces before it
WHOLE: Final = 64  # loops over places run to a multiple of this: what is left of a vectorised loop is slow
GROUP: Final = 16  # characters copied, and places of bits written, at once
N_ASCII: Final = np.uint8(128)
QUOTE, DIGITS, LETTERS, UNDERSCORE, DELETE = map(np.uint8, b"'0a_\x7f")
ALONE, N_DIGITS, N_LETTERS, N_BLANKS = map(np.uint8, (1, 10, 26, 33))
LOWER: Final = np.uint8(32)  # the bit that makes a letter small
IN_SPACE, IN_WORD, UNSPACED = map(np.uint32, (0, 1, 1 << 30))  # keys of places; a symbol's: its code
ONE, TWO, THREE, LAST_BIT = map(np.uint64, (1, 2, 3, 63))  # indices without sign are not looked at for < 0
EVERY: Final = np.uint64(2**64 - 1)
IS_SPACE, IS_WORD, IS_CHARACTER, IS_SYMBOL, IS_APOSTROPHE, IS_IGNORED = map(
    np.uint32, (SPACE, WORD, CHARACTER, SYMBOL, APOSTROPHE, IGNORED)
)  # of one type: numba compares a number without sign with one that has one as floats
SHIFT, FOLDED = np.uint32(CLASS_SHIFT), np.uint32(FOLD_MASK)
LAST_POINT: Final = N_CODEPOINTS - 1


@kernel
def whole(n):  # type: ignore[no-untyped-def]
    """Return the next multiple of WHOLE."""
    return (n + WHOLE - 1) & -WHOLE


@kernel
def is_ascii(text, n):  # type: ignore[no-untyped-def]
    """Return whether n bytes are all ASCII."""
    others = np.uint64(0)
    for place in range(0, n, AT_ONCE):
        others |= in_range(text, place, N_ASCII, N_ASCII) & first_bits(n - place)
    return others == np.uint64(0)


@kernel
def fold_ascii(text, n, folded):  # type: ignore[no-untyped-def]
    """Write n bytes with small letters from FIRST on, and BOUNDARY. Returns whether all were ASCII: vectorised."""
    for i in range(whole(n)):
        code = text[i]
        small = np.uint8(code | LOWER)
        folded[FIRST + i] = small if np.uint8(small - LETTERS) < N_LETTERS else code
    folded[FIRST + n] = BOUNDARY
    return is_ascii(text, n)


@kernel
def first_bits(n):  # type: ignore[no-untyped-def]
    """Return a number of n bits, all of them where there are not so many."""
    return EVERY if n >= AT_ONCE else (ONE << np.uint64(n)) - ONE


@kernel
def write_places(bits, at, n, out):  # type: ignore[no-untyped-def]
    """Append the place, from `at` on, of every bit. Returns how many there are then. Writes past them."""
    end = n + np.int64(count_bits(bits))
    for begin in range(n, end, GROUP):
        for i in range(GROUP):
            out[np.uint64(begin + i)] = at + np.int64(first_bit(bits))
            bits &= bits - ONE
    return end


@kernel
def list_ascii(folded, n, begins, ends):  # type: ignore[no-untyped-def]
    """Write where each token of a text of `fold_ascii` begins and ends. Returns how many there are.

    A bit for each of 64 places says what stands there, and a shift what stood before: no branch that nothing could
    predict. `word`, `run` and `kept` end as they were for the places before.
    """
    word, run, kept = np.uint64(0), np.uint64(0), np.uint64(0)
    n_begins, n_ends = 0, 0
    for place in range(0, n + 1, AT_ONCE):
        at = FIRST + place
        valid = first_bits(n - place)
        word_before, run_before, kept_before = word >> LAST_BIT, run, kept >> LAST_BIT
        word = in_range(folded, at, LETTERS, N_LETTERS) | in_range(folded, at, DIGITS, N_DIGITS)
        word |= in_range(folded, at, UNDERSCORE, ALONE)
        after = folded[at + AT_ONCE]
        word_after = np.uint64(
            (np.uint8(after - LETTERS) < N_LETTERS) | (np.uint8(after - DIGITS) < N_DIGITS) | (after == UNDERSCORE)
        )
        word &= valid
        word_after &= np.uint64(n - place > AT_ONCE)
        quote = in_range(folded, at, QUOTE, ALONE)
        word |= quote & (word << ONE | word_before) & (word >> ONE | word_after << LAST_BIT)
        space = in_range(folded, at, np.uint8(0), N_BLANKS) | in_range(folded, at, DELETE, ALONE)
        run = same(folded, at, at - 1) & ~(word | space)
        full = run & (run << ONE | run_before >> LAST_BIT) & (run << TWO | run_before >> (LAST_BIT - ONE))  # MAX_RUN
        kept = ~(space | full) & valid
        goes_on = kept & (run | (word & (word << ONE | word_before)))
        n_begins = write_places(kept & ~goes_on, at, n_begins, begins)
        n_ends = write_places((kept << ONE | kept_before) & ~goes_on, at, n_ends, ends)
    return n_begins


@kernel
def rest_of(byte):  # type: ignore[no-untyped-def]
    """Return the bits that a byte adds to a code point that began before it."""
    return np.int64(byte) & 63


@kernel
def decode(codes, start, stop, most, points):  # type: ignore[no-untyped-def]
    """Write the code points of UTF-8, `most` at most. Returns how many. What is no UTF-8 gives some code point."""
    n = 0
    i = start
    while i < stop and n < most:
        first = np.int64(codes[i])
        second, third, last = rest_of(codes[i + 1]), rest_of(codes[i + 2]), rest_of(codes[i + 3])
        if first < N_ASCII:
            point = first
            i += 1
        elif first < 0xE0:
            point = (first & 31) << 6 | second
            i += 2
        elif first < 0xF0:
            point = (first & 15) << 12 | second << 6 | third
            i += 3
        else:
            point = (first & 7) << 18 | second << 12 | third << 6 | last
            i += 4
        points[n] = min(point, LAST_POINT)
        n += 1
    return n


@kernel
def read_codes(points, n, table, folded, keys):  # type: ignore[no-untyped-def]
    """Write from FIRST on what each code point is folded to, and a key that a token's places share. Returns the end.

    Left out are ignored code points, and symbols past MAX_RUN. An apostrophe is part of a word or a symbol from here
    on. Places are spaces before (from the start, as 0) and after the text.
    """
    end = np.uint64(FIRST)
    for i in range(n):
        entry = table[points[i]]
        kind = np.uint32(entry >> SHIFT)
        code = np.uint32(entry & FOLDED)
        before = keys[end - ONE]
        if kind == IS_APOSTROPHE:
            inside = before == IN_WORD and i + 1 < n and np.uint32(table[points[i + 1]] >> SHIFT) == IS_WORD
            kind = IS_WORD if inside else IS_SYMBOL
        key = code
        if kind == IS_WORD:
            key = IN_WORD
        elif kind == IS_SPACE:
            key = IN_SPACE
        elif kind == IS_CHARACTER:
            key = np.uint32(UNSPACED | np.uint32(end & ONE))  # another one than the next's
        full = (kind == IS_SYMBOL) & (before == key) & (keys[end - ONE - ONE] == key) & (keys[end - THREE] == key)
        folded[end] = code
        keys[end] = key
        end += np.uint64((kind != IS_IGNORED) & (not full))
    keys[end] = IN_SPACE
    return np.int64(end)


@kernel
def list_tokens(points, keys, end, folded, begins, ends):  # type: ignore[no-untyped-def]
    """Write the UTF-8 of the tokens of `read_codes`, and where each begins and ends. Returns how many there are."""
    n, at = 0, FIRST
    for i in range(FIRST, end):
        key, code = keys[i], np.int64(points[i])
        if key == IN_SPACE:
            continue
        if key != keys[i - 1]:
            begins[n] = at
        if code < N_ASCII:
            folded[at] = code
        else:
            n_more = 1 + int(code >= 0x800) + int(code >= 0x10000)
            folded[at] = (0x7F80 >> n_more) & 0xFF | code >> 6 * n_more
            for _ in range(n_more):
                n_more -= 1
                at += 1
                folded[at] = 0x80 | code >> 6 * n_more & 63
        at += 1
        if key != keys[i + 1]:
            ends[n] = at
            n += 1
    return n
