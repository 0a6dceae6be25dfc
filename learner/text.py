"""Which features does a text have?

Text to hashed features of 32 bits: its tokens, pairs of adjacent tokens, and character n-grams. The hash and the
character classes (characters.py) never depend on the platform, the Python or the run: they are part of the checkpoint
format. Time and memory are linear in the text's length and bounded by the settings.

The hash of a run of folded code points, in 64-bit arithmetic without sign (FNV-1a's loop; a multiplier and an end of
murmur3's kind, since a bare product has no good low bits):

    h = seed of the kind;  for each code point c:  h = (h ^ c) * MULTIPLIER;  then  finish(h), 32 bits

A pair is finish((PAIR_SEED ^ first) * MULTIPLIER ^ second) of its tokens' hashes: order counts.
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
    SPACE,
    SYMBOL,
    WORD,
    load_table,
)
from learner.kernels import copy, kernel
from stream.errors import ConfigError

WORD_SEED: Final = np.uint64(0x243F6A8885A308D3)  # the digits of pi
PAIR_SEED: Final = np.uint64(0x13198A2E03707344)
CHARS_SEED: Final = np.uint64(0xA4093822299F31D0)
MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
FINISHER: Final = np.uint64(0xFF51AFD7ED558CCD)  # murmur3's
HALF: Final = np.uint64(32)

MAX_RUN: Final = 3  # "!!!!!" is the token "!!!"
BOUNDARY: Final = 0  # between words in the folded text; NUL itself is a space, so it cannot occur there


FIRST: Final = 3  # place of a text's first code point in the buffers, spaces before it
WHOLE: Final = 64  # loops over places run to a multiple of this: what is left of a vectorised loop is slow
BLOCK: Final = 256  # places whose n-grams are hashed at once: what that needs stays in the nearest cache
N_ASCII: Final = np.uint32(128)
BLANK, QUOTE, DIGITS, LETTERS, UNDERSCORE, DELETE = map(np.uint32, b" '0a_\x7f")
IN_SPACE, IN_WORD, UNSPACED, LEFT_OUT = map(np.uint32, (0, 1, 1 << 30, 1 << 31))  # keys of places; a symbol's: its code
LOWER, N_LETTERS, N_DIGITS = map(np.uint32, (32, 26, 10))  # LOWER is the bit that makes a letter small
PADDING: Final = "\0" * (WHOLE + 3)
THREE: Final = np.uint64(3)
ONE: Final = np.uint64(1)  # indices without sign need no look at whether they count from the end

Buffers = tuple[NDArray[Any], ...]


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Which features a text is turned into. Part of the checkpoint format."""

    pairs: bool = True  # of adjacent tokens
    chars: bool = True  # character n-grams inside the boundaries of words
    chars_min: int = 3
    chars_max: int = 5
    max_chars: int = 8192  # what is beyond is not read
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

    @cached_property
    def kernel_arguments(self) -> tuple[int, int, int, int]:
        """What `hash_text` is told: pairs or not, a bit for each length of n-gram, the longest (0: none), features."""
        wanted = sum(1 << length for length in self.lengths)
        return int(self.pairs), wanted, self.lengths[-1] if self.chars else 0, self.max_features

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


def codepoints(texts: Sequence[str], max_chars: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the code points of all texts, each cut at max_chars, and where each text's begin (n_texts + 1).

    PADDING follows: loops read past the end.
    """
    if len(texts) == 1:  # what many texts need would take longer than to score this one
        text = texts[0][:max_chars]
        starts = np.array((0, len(text)), np.int64)
        return np.frombuffer((text + PADDING).encode("utf-32-le", "surrogatepass"), np.uint32), starts
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if len(texts) and lengths.max() > max_chars:
        texts = [text[:max_chars] for text in texts]
        np.minimum(lengths, max_chars, out=lengths)
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    # surrogatepass: JSON can say "\ud800", and no text may stop the stream.
    return np.frombuffer("".join((*texts, PADDING)).encode("utf-32-le", "surrogatepass"), np.uint32), starts


def kernel_inputs(
    texts: Sequence[str],
    targets: NDArray[np.int32],
    weights: NDArray[np.float32],
    settings: TextSettings,
    buffers: Buffers,
) -> tuple[Any, ...]:
    """Return what every classifier's kernel begins with: codes, starts, targets, weights, table, arguments, buffers."""
    codes, starts = codepoints(texts, settings.max_chars)
    return (
        codes,
        starts,
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
    places = settings.max_chars + FIRST + 1 + WHOLE
    return (
        np.empty(settings.max_features + BLOCK * n_lengths, np.uint32),
        np.empty(free, np.uint32),  # distinct features
        *np.zeros((2, places), np.uint32),  # folded code points, and keys
        np.zeros(2 * settings.max_chars + 1 + settings.chars_max + WHOLE, np.uint32),  # the same between boundaries
        np.empty(max(places, BLOCK), np.uint64),  # unfinished hashes
        np.empty((n_lengths, BLOCK), np.uint32),
        *np.empty((2, BLOCK), np.uint8),
    )


def features(texts: Sequence[str], settings: TextSettings) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the features of texts, uint32, and where each text's begin, int64 [n_texts + 1]."""
    codes, starts = codepoints(texts, settings.max_chars)
    buffers = text_buffers(settings)
    arguments = settings.kernel_arguments
    found = []
    for start, stop in pairwise(starts):
        _, _, n = hash_text(codes, start, stop, character_table(), arguments, buffers)
        found.append(buffers[0][:n].copy())
    ends = np.cumsum([0, *map(len, found)], dtype=np.int64)
    return np.concatenate(found) if found else np.empty(0, np.uint32), ends


@kernel
def finish(h):  # type: ignore[no-untyped-def]
    """Return the 32 bits of a hash that is complete."""
    h = (h ^ (h >> HALF)) * FINISHER
    return np.uint32(h >> HALF)


@kernel
def whole(n):  # type: ignore[no-untyped-def]
    """Return the next multiple of WHOLE."""
    return (n + WHOLE - 1) & -WHOLE


@kernel
def is_ascii(text, n):  # type: ignore[no-untyped-def]
    """Tell whether `read_ascii` can read a text: vectorised."""
    together = np.uint32(0)
    for i in range(whole(n)):
        together |= text[i] if i < n else np.uint32(0)
    return together < N_ASCII


@kernel
def is_word(code):  # type: ignore[no-untyped-def]
    """Tell whether a folded code point under 128 is part of a word wherever it stands."""
    return (code - LETTERS < N_LETTERS) | (code - DIGITS < N_DIGITS) | (code == UNDERSCORE)


@kernel
def read_ascii(text, n, folded, keys):  # type: ignore[no-untyped-def]
    """Do what `read_codes` does for code points under 128: vectorised, but for leaving out what runs past MAX_RUN."""
    for i in range(whole(n)):
        code = text[i]
        folded[FIRST + i] = code | (LOWER if (code | LOWER) - LETTERS < N_LETTERS else np.uint32(0))
    folded[FIRST + n] = BOUNDARY
    codes, keys_here = folded[FIRST:], keys[FIRST:]
    first, second, before, after = folded[FIRST - 3 :], folded[FIRST - 2 :], folded[FIRST - 1 :], folded[FIRST + 1 :]
    some = False
    for i in range(n):
        code = codes[i]
        inside = (code == QUOTE) & is_word(before[i]) & is_word(after[i])
        space = (code <= BLANK) | (code == DELETE)
        word = is_word(code) | inside
        full = (code == before[i]) & (code == second[i]) & (code == first[i]) & (not (word | space))
        keys_here[i] = LEFT_OUT if full else IN_WORD if word else IN_SPACE if space else code
        some |= full
    end = np.uint64(FIRST + n)
    if some:
        end = np.uint64(FIRST)
        for i in range(n):
            key = keys_here[i]
            folded[end] = codes[i]
            keys[end] = key
            end += np.uint64(key != LEFT_OUT)
    return end


@kernel
def read_codes(text, n, table, folded, keys):  # type: ignore[no-untyped-def]
    """Write from FIRST on what each code point is folded to, and a key that a token's places share. Returns the end.

    Left out are ignored code points, and symbols past MAX_RUN. An apostrophe is part of a word or a symbol from here
    on. Places are spaces before (from the start, as 0) and after the text.
    """
    if is_ascii(text, n):
        end = read_ascii(text, n, folded, keys)
    else:
        end = np.uint64(FIRST)
        for i in range(n):
            entry = table[text[i]]
            kind = entry >> CLASS_SHIFT
            code = entry & FOLD_MASK
            before = keys[end - ONE]
            if kind == APOSTROPHE:
                inside = before == IN_WORD and i + 1 < n and table[text[i + 1]] >> CLASS_SHIFT == WORD
                kind = np.uint32(WORD) if inside else np.uint32(SYMBOL)
            key = code
            if kind == WORD:
                key = IN_WORD
            elif kind == SPACE:
                key = IN_SPACE
            elif kind == CHARACTER:
                key = UNSPACED | np.uint32(end & ONE)  # another one than the next's
            full = (kind == SYMBOL) & (before == key) & (keys[end - ONE - ONE] == key) & (keys[end - THREE] == key)
            folded[end] = code
            keys[end] = key
            end += np.uint64((kind != IGNORED) & (not full))
    keys[end] = IN_SPACE
    return np.int64(end)


@kernel
def go_on(h, before, here, code):  # type: ignore[no-untyped-def]
    """Return the hash after one more code point of a token, or after its first: told by the keys of both places."""
    return ((h if here == before else WORD_SEED) ^ np.uint64(code)) * MULTIPLIER


@kernel
def ends(here, after):  # type: ignore[no-untyped-def]
    """Return 1 if a token ends at a place, by its key and the next one's, else 0."""
    return np.uint64((here != IN_SPACE) & (here != after))


@kernel
def hash_tokens(folded, keys, end, hashes):  # type: ignore[no-untyped-def]
    """Write the unfinished hash of each token. Returns how many there are.

    The hash of a place is kept where a token ends and overwritten elsewhere: no branch that nothing could predict. Two
    halves of the text take turns, because a step has to wait for the one before.
    """
    middle = (FIRST + end) // 2
    while keys[middle] == keys[middle - 1] and middle > FIRST:
        middle -= 1
    length = middle - FIRST
    later = hashes[length:]
    n, n_later = np.uint64(0), np.uint64(0)
    h, h_later = WORD_SEED, WORD_SEED
    codes, codes_later = folded[FIRST:], folded[middle:]
    before, here, after = keys[FIRST - 1 :], keys[FIRST:], keys[FIRST + 1 :]
    before_later, here_later, after_later = keys[middle - 1 :], keys[middle:], keys[middle + 1 :]
    for i in range(length):
        h = go_on(h, before[i], here[i], codes[i])
        hashes[n] = h
        n += ends(here[i], after[i])
        h_later = go_on(h_later, before_later[i], here_later[i], codes_later[i])
        later[n_later] = h_later
        n_later += ends(here_later[i], after_later[i])
    for i in range(length, end - middle):
        h_later = go_on(h_later, before_later[i], here_later[i], codes_later[i])
        later[n_later] = h_later
        n_later += ends(here_later[i], after_later[i])
    copy(later[: np.int64(n_later)], hashes[np.int64(n) :])
    return np.int64(n + n_later)


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
def hash_text(codes, start, stop, table, arguments, buffers):  # type: ignore[no-untyped-def]
    """Write the features of one text, each once.

    Parameters
    ----------
    codes : uint32 [n], code points; the text is codes[start:stop]
    table : uint32 [0x110000], from `character_table`
    arguments : (int, int, int, int), `TextSettings.kernel_arguments`
    buffers : from `text_buffers`; the first gets the features, the others are overwritten

    Returns
    -------
    n_words, n_pairs_end, n_end : int, where each kind ends in the first buffer

    Notes
    -----
    1. Tokens. A word is a run of word characters, a symbol's token the run of it up to MAX_RUN; an unspaced script's
       character is a token.
    2. Pairs of adjacent tokens.
    3. Character n-grams of what is between two BOUNDARIES, these included.
    4. Repeats are dropped: how often a word stands in a text says little about its label, and in long texts it drowns
       the rest (on whole e-mails, repeats kept made three times the errors).

    O(stop - start). Bit-exact: part of the checkpoint format.
    """
    pairs, wanted, longest, room = arguments
    out, distinct, folded, keys, spread, hashes, grams, alive, lengths = buffers

    # 1
    end = read_codes(codes[start : stop + len(PADDING)], stop - start, table, folded, keys)
    n_words = min(hash_tokens(folded, keys, end, hashes), room)
    for i in range(n_words):
        out[i] = finish(hashes[i])

    # 2
    n_pairs = max(min(n_words - 1, room - n_words), 0) if pairs else 0
    first, second, made = out[:n_pairs], out[1:], out[n_words:]
    for i in range(n_pairs):
        h = (PAIR_SEED ^ np.uint64(first[i])) * MULTIPLIER
        made[i] = finish(h ^ np.uint64(second[i]))
    n_plain = n_words + n_pairs

    # 3
    n = n_plain
    if longest > 0 and n < room:
        n_spread = spread_tokens(folded, keys, end, spread)
        n = hash_ngrams(spread, n_spread, wanted, longest, room, n, out, (hashes, grams, alive, lengths))

    # 4
    size = 64
    while size < 8 * n:
        size *= 2
    distinct[:size] = 0
    n_words_end = drop_repeats(out, 0, n_words, 0, size, distinct)
    n_plain_end = drop_repeats(out, n_words, n_plain, n_words_end, size, distinct)
    return n_words_end, n_plain_end, drop_repeats(out, n_plain, n, n_plain_end, size, distinct)
