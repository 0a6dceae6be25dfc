"""Which features does a text have?

Text to hashed features of 32 bits: its tokens, pairs of adjacent tokens, and character n-grams. The hash and the
character classes (characters.py) never depend on the platform, the Python or the run: they are part of the checkpoint
format. Time and memory are linear in the text's length and bounded by the settings.

Hashes are in 64-bit arithmetic without sign (FNV-1a's loop; a multiplier and an end of murmur3's kind, since a bare
product has no good low bits). Of a token's folded UTF-8, eight bytes at a time, the first one lowest, then zeros:

    h = WORD_SEED;  for each eight bytes c:  h = (mixed(h) ^ c) * MULTIPLIER, the first time h itself;  then  finish(h)

of an n-gram: h = CHARS_SEED;  for each code point c:  h = (h ^ c) * MULTIPLIER;  then  finish(h)

of a pair: finish((PAIR_SEED ^ first) * MULTIPLIER ^ second) of its tokens' hashes: order counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from learner.characters import (
    APOSTROPHE,
    CHARACTER,
    CLASS_SHIFT,
    FOLD_MASK,
    IGNORED,
    N_CODEPOINTS,
    SPACE,
    SYMBOL,
    WORD,
    load_table,
)
from learner.cut import cut
from learner.kernels import AT_ONCE, count_bits, eight_bytes, first_bit, in_range, inlined, kernel, same
from stream.errors import ConfigError
from stream.texts import PADDING, Texts

WORD_SEED: Final = np.uint64(0x243F6A8885A308D3)  # the digits of pi
PAIR_SEED: Final = np.uint64(0x13198A2E03707344)
CHARS_SEED: Final = np.uint64(0xA4093822299F31D0)
MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
FINISHER: Final = np.uint64(0xFF51AFD7ED558CCD)  # murmur3's
HALF: Final = np.uint64(32)

MAX_RUN: Final = 3  # "!!!!!" is the token "!!!"
BOUNDARY: Final = 0  # between words in the folded text; NUL itself is a space, so it cannot occur there

FIRST: Final = 3  # place of a text's first byte or code point in the buffers, spaces before it
WHOLE: Final = 64  # loops over places run to a multiple of this: what is left of a vectorised loop is slow
BLOCK: Final = 256  # places whose n-grams are hashed at once: what that needs stays in the nearest cache
GROUP: Final = 16  # characters copied, and places of bits written, at once
FEW: Final = 64  # features that are compared each with each; of more a table finds the repeats
MANY: Final = 2048  # from here on that table is small rather than empty, so that it stays in the cache
N_ASCII: Final = np.uint8(128)
BLANK, QUOTE, DIGITS, LETTERS, UNDERSCORE, DELETE = map(np.uint8, b" '0a_\x7f")
ALONE, N_DIGITS, N_LETTERS, N_BLANKS = map(np.uint8, (1, 10, 26, 33))
LOWER: Final = np.uint8(32)  # the bit that makes a letter small
IN_SPACE, IN_WORD, UNSPACED = map(np.uint32, (0, 1, 1 << 30))  # keys of places; a symbol's: its code
THREE: Final = np.uint64(3)
ONE, TWO, LAST_BIT, BYTE, EIGHT = map(np.uint64, (1, 2, 63, 8, 8))  # indices without sign are not looked at for < 0
EVERY: Final = np.uint64(2**64 - 1)
IS_SPACE, IS_WORD, IS_CHARACTER, IS_SYMBOL, IS_APOSTROPHE, IS_IGNORED = map(
    np.uint32, (SPACE, WORD, CHARACTER, SYMBOL, APOSTROPHE, IGNORED)
)  # of one type: numba compares a number without sign with one that has one as floats
SHIFT, FOLDED = np.uint32(CLASS_SHIFT), np.uint32(FOLD_MASK)
LAST_POINT: Final = N_CODEPOINTS - 1

Buffers = tuple[NDArray[Any], ...]


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Which features a text is turned into. Part of the checkpoint format."""

    pairs: bool = True  # of adjacent tokens
    chars: bool = True  # character n-grams inside the boundaries of words
    chars_min: int = 3
    chars_max: int = 5
    max_chars: int = 8192  # of a longer text only so many are read ...
    tail_chars: int = 0  # ... of which so many are its last ones; see cut.py
    max_features: int = 32768  # words go first, then pairs, then n-grams

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 2 <= self.chars_min <= self.chars_max <= 16:
            raise ConfigError(
                f"chars_min={self.chars_min} and chars_max={self.chars_max}: they must be 2 to 16, in this order"
            )
        for name in ("max_chars", "max_features"):
            if not 1 <= getattr(self, name) <= 1 << 24:
                raise ConfigError(f"{name}={getattr(self, name)}: it must be 1 to {1 << 24}")
        longest = max(self.max_chars - 2, 0)
        if not 0 <= self.tail_chars <= longest:
            raise ConfigError(f"tail_chars={self.tail_chars}: it must be 0 to {longest}, 2 less than max_chars")

    @cached_property
    def kernel_arguments(self) -> tuple[int, int, int, int, int]:
        """What `hash_text` is told: pairs or not, a bit for each length of n-gram, the longest or 0, and limits."""
        wanted = sum(1 << length for length in self.lengths)
        longest = self.lengths[-1] if self.chars else 0
        return int(self.pairs), wanted, longest, self.max_features, self.max_chars

    @property
    def lengths(self) -> range:
        """The lengths of n-grams."""
        return range(self.chars_min, self.chars_max + 1)


@cache
def character_table() -> NDArray[np.uint32]:
    """Return the packed character entries, read once a process."""
    table = load_table()
    table.flags.writeable = False
    return table


N_INPUTS: Final = 7  # of `kernel_inputs`


def kernel_inputs(
    texts: Sequence[str],
    targets: NDArray[np.int32],
    weights: NDArray[np.float32],
    settings: TextSettings,
    buffers: Buffers,
) -> tuple[Any, ...]:
    """Return what every classifier's kernel begins with: codes, starts, targets, weights, table, arguments, buffers."""
    most = None if settings.tail_chars else settings.max_chars  # what is beyond need not be encoded then
    ready = cut(Texts.of(texts, most), settings.max_chars, settings.tail_chars)
    return (
        ready.codes,
        ready.starts,
        np.ascontiguousarray(targets, np.int32),
        np.ascontiguousarray(weights, np.float32),
        character_table(),
        settings.kernel_arguments,
        buffers,
    )


def text_buffers(settings: TextSettings) -> Buffers:
    """Return what `hash_text` writes into: the features, and what it works with. For one thread at a time."""
    free = 64
    while free < 8 * settings.max_features:
        free *= 2
    n_lengths = len(settings.lengths)
    n_words = max(min(settings.max_chars, settings.max_features), FEW)  # as many pairs may be hashed, and cut then
    places = settings.max_chars + FIRST + 1 + WHOLE
    return (
        np.empty(max(n_words, settings.max_features) + n_words + BLOCK * n_lengths, np.uint32),
        np.empty(free, np.uint32),  # distinct features
        np.zeros(4 * settings.max_chars + FIRST + 3 * WHOLE, np.uint8),  # folded UTF-8
        *np.zeros((2, settings.max_chars + 1 + 2 * GROUP), np.int32),  # where in it each token begins, and ends
        *np.zeros((3, places), np.uint32),  # code points, folded ones, and keys: of what is not ASCII
        np.zeros(2 * settings.max_chars + 1 + settings.chars_max + WHOLE, np.uint32),  # folded ones between boundaries
        np.empty(BLOCK, np.uint64),  # unfinished hashes of n-grams
        np.empty((n_lengths, BLOCK), np.uint32),
        *np.empty((2, BLOCK), np.uint8),
    )


def features(texts: Sequence[str], settings: TextSettings) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the features of texts, uint32, and where each text's begin, int64 [n_texts + 1]."""
    ready = cut(Texts.of(texts), settings.max_chars, settings.tail_chars)
    buffers = text_buffers(settings)
    arguments = settings.kernel_arguments
    found = []
    for start, stop in pairwise(ready.starts):
        _, _, n = hash_text(ready.codes, start, stop, character_table(), arguments, buffers)
        found.append(buffers[0][:n].copy())
    ends = np.cumsum([0, *map(len, found)], dtype=np.int64)
    return np.concatenate(found) if found else np.empty(0, np.uint32), ends


@kernel
def mixed(h):  # type: ignore[no-untyped-def]
    """Return a hash whose low bits depend on its high ones."""
    return h ^ (h >> HALF)


@kernel
def finish(h):  # type: ignore[no-untyped-def]
    """Return the 32 bits of a hash that is complete."""
    return np.uint32((mixed(h) * FINISHER) >> HALF)


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
def max_chars_of(buffers):  # type: ignore[no-untyped-def]
    """Return at how many characters a text is cut."""
    return buffers[5].shape[0] - (FIRST + 1 + WHOLE)


@kernel
def code_points(codes, start, stop, buffers):  # type: ignore[no-untyped-def]
    """Return the code points of a text, in a buffer, cut as `hash_text` cuts it; and how many there are."""
    return buffers[5], decode(codes, start, stop, max_chars_of(buffers), buffers[5])


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


@kernel
def drop_repeats(out, begin, end, n, size, distinct):  # type: ignore[no-untyped-def]
    """Append those of the features out[begin:end] that are new to the first n. Returns how many there are then."""
    to = np.uint64(n)
    mask = np.uint32(size - 1)
    for i in range(begin, end):
        feature = max(out[i], np.uint32(1))  # 0 marks a free place in `distinct`
        place = feature & mask
        held = distinct[place]
        while (held != 0) & (held != feature):  # not `and`: one branch, which is seldom taken, and not two
            place = (place + np.uint32(1)) & mask
            held = distinct[place]
        distinct[place] = feature
        out[to] = feature
        to += np.uint64(held == 0)
    return np.int64(to)


@kernel
def are_same_tokens(folded, at, other, length):  # type: ignore[no-untyped-def]
    """Return whether two tokens of as many bytes are the same."""
    for done in range(0, length, 8):
        kept = EVERY >> (EIGHT * (BYTE - np.uint64(min(length - done, 8))))
        if (eight_bytes(folded, at + done) ^ eight_bytes(folded, other + done)) & kept != np.uint64(0):
            return False
    return True


@kernel
def drop_tokens(out, n, folded, begins, ends, size, distinct):  # type: ignore[no-untyped-def]
    """Do what `drop_repeats` does for the hashes of n tokens, and drop the places of the tokens that are repeats.

    What has the hash of an earlier token, but is another one, stays: its n-grams are its own.

    Returns
    -------
    n_hashes, n_tokens : how many there are of each then
    """
    to, fresh = np.uint64(0), np.uint64(0)
    mask = np.uint32(size - 1)
    first = distinct[size : 2 * size]  # where a feature's token is
    for i in range(n):
        feature = max(out[i], np.uint32(1))
        place = feature & mask
        held = distinct[place]
        while (held != 0) & (held != feature):
            place = (place + np.uint32(1)) & mask
            held = distinct[place]
        begin, end = begins[i], ends[i]
        is_new = held == 0
        if not is_new:
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
    return np.int64(to), np.int64(fresh)


@kernel
def table_size(n):  # type: ignore[no-untyped-def]
    """Return how many places a table of n features has."""
    size = FEW
    while size < (8 if n < MANY else 2) * n:
        size *= 2
    return size


@kernel
def drop_few(out, n_words, n_plain, n):  # type: ignore[no-untyped-def]
    """Drop the repeats of fewer than FEW features, each compared with all before it. Returns where each kind ends."""
    repeated = np.uint64(0)
    for i in range(FEW):
        out[i] = max(out[i], np.uint32(1))  # as in `drop_repeats`
    for i in range(1, n):
        earlier = (ONE << np.uint64(i)) - ONE
        is_repeated = in_range(out, 0, out[i], np.uint32(ALONE)) & earlier != np.uint64(0)
        repeated |= np.uint64(is_repeated) << np.uint64(i)
    if repeated == np.uint64(0):
        return n_words, n_plain, n
    kept = np.uint64(0)
    for i in range(n):
        out[kept] = out[i]
        kept += np.uint64(1) - (repeated >> np.uint64(i) & ONE)
    n_words -= np.int64(count_bits(repeated & ((ONE << np.uint64(n_words)) - ONE)))
    n_plain -= np.int64(count_bits(repeated & ((ONE << np.uint64(n_plain)) - ONE)))
    return n_words, n_plain, np.int64(kept)


@inlined
def hash_text(codes, start, stop, table, arguments, buffers):  # type: ignore[no-untyped-def]
    """Write the features of one text, each once.

    Parameters
    ----------
    codes : uint8 [n], UTF-8 of several texts and PADDING, as in `Texts`; the text is codes[start:stop]
    table : uint32 [0x110000], from `character_table`
    arguments : (int, int, int, int, int), `TextSettings.kernel_arguments`
    buffers : from `text_buffers`; the first gets the features, the others are overwritten

    Returns
    -------
    n_words, n_pairs_end, n_end : int, where each kind ends in the first buffer

    Notes
    -----
    1. Tokens of the first max_chars characters. A word is a run of word characters, a symbol's token the run of it up
       to MAX_RUN; an unspaced script's character is a token.
    2. Pairs of adjacent tokens.
    3. Character n-grams of what is between two BOUNDARIES, these included. Of ASCII that is one token, and a token that
       was there before has none that are new: it is left out, but where that might change at which feature it ends.
    4. Repeats are dropped: how often a word stands in a text says little about its label, and in long texts it drowns
       the rest (on whole e-mails, repeats kept made three times the errors).

    O(stop - start). Bit-exact: part of the checkpoint format.
    """
    pairs, wanted, longest, room, max_chars = arguments
    out, distinct, folded, begins, ends, points, smalls, keys, spread, hashes, grams, alive, lengths = buffers

    # 1
    size, end = min(stop - start, max_chars), 0
    is_plain = fold_ascii(codes[start : start + size + PADDING], size, folded)
    if is_plain:
        n_tokens = list_ascii(folded, size, begins, ends)
    else:
        n_points = decode(codes, start, stop, max_chars, points)
        end = read_codes(points, n_points, table, smalls, keys)
        n_tokens = list_tokens(smalls, keys, end, folded, begins, ends)
    n_words = min(n_tokens, room)
    hash_tokens(folded, begins, ends, n_words, out)

    # 2
    n_plain = n_words + max(min(n_words - 1, room - n_words), 0) * pairs

    # 3
    n = n_plain
    work = (hashes, grams, alive, lengths)
    if longest > 0 and is_plain:
        n_most = n_plain + n_words + grams.shape[0] * size  # of two characters a token has one more than characters
        places = table_size(n_most)
        if FEW <= n_most <= room and 2 * places <= distinct.shape[0]:
            distinct[:places] = 0
            n_words_end, n_fresh = drop_tokens(out, n_words, folded, begins, ends, places, distinct)
            n_plain_end = drop_repeats(out, n_words, n_plain, n_words_end, places, distinct)
            n_spread = spread_ascii(folded, begins, ends, n_fresh, spread)
            n = hash_ngrams(spread, n_spread, wanted, longest, room, n_plain_end, out, work)
            return n_words_end, n_plain_end, drop_repeats(out, n_plain_end, n, n_plain_end, places, distinct)
    if longest > 0 and n < room:
        if is_plain:
            n_spread = spread_ascii(folded, begins, ends, n_tokens, spread)
        else:
            n_spread = spread_tokens(smalls, keys, end, spread)
        n = hash_ngrams(spread, n_spread, wanted, longest, room, n, out, work)

    # 4
    if n < FEW:
        return drop_few(out, n_words, n_plain, n)
    size = table_size(n)
    distinct[:size] = 0
    n_words_end = drop_repeats(out, 0, n_words, 0, size, distinct)
    n_plain_end = drop_repeats(out, n_words, n_plain, n_words_end, size, distinct)
    return n_words_end, n_plain_end, drop_repeats(out, n_plain, n, n_plain_end, size, distinct)
