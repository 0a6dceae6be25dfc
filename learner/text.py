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
from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from learner.characters import APOSTROPHE, CHARACTER, CLASS_SHIFT, FOLD_MASK, IGNORED, SPACE, WORD, load_table
from learner.kernels import kernel
from stream.errors import ConfigError

WORD_SEED: Final = np.uint64(0x243F6A8885A308D3)  # the digits of pi
PAIR_SEED: Final = np.uint64(0x13198A2E03707344)
CHARS_SEED: Final = np.uint64(0xA4093822299F31D0)
MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
FINISHER: Final = np.uint64(0xFF51AFD7ED558CCD)  # murmur3's
HALF: Final = np.uint64(32)

MAX_RUN: Final = 3  # "!!!!!" is the token "!!!"
BOUNDARY: Final = 0  # between words in the folded text; NUL itself is a space, so it cannot occur there


Buffers = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]


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

    @property
    def kernel_arguments(self) -> tuple[int, int, int]:
        """What `hash_text` is told: pairs or not, a bit for each length of n-gram, the longest (none: 0)."""
        lengths = sum(1 << length for length in self.lengths)
        return int(self.pairs), lengths, self.chars_max if self.chars else 0

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
    """Return the code points of all texts, each cut at max_chars, and where each text's begin (n_texts + 1)."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if len(texts) and lengths.max() > max_chars:
        texts = [text[:max_chars] for text in texts]
        np.minimum(lengths, max_chars, out=lengths)
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    # surrogatepass: JSON can say "\ud800", and no text may stop the stream.
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32), starts


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
    """Return what `hash_text` writes into: the features, and two it works with. For one thread at a time."""
    places = 64
    while places < 8 * settings.max_features:
        places *= 2
    return (
        np.empty(settings.max_features, np.uint32),
        np.empty(places, np.uint32),
        np.empty(2 * settings.max_chars + 2, np.uint32),
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
def hash_text(codes, start, stop, table, arguments, buffers):  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915
    """Write the features of one text, each once.

    Parameters
    ----------
    codes : uint32 [n], code points; the text is codes[start:stop]
    table : uint32 [0x110000], from `character_table`
    arguments : (int, int, int), `TextSettings.kernel_arguments`
    buffers : three uint32 arrays, from `text_buffers`; the first gets the features, the others are overwritten

    Returns
    -------
    n_words, n_pairs_end, n_end : int, where each kind ends in the first buffer

    Notes
    -----
    1. Tokens. A word is a run of word characters, a symbol's token the run of it up to MAX_RUN; an unspaced script's
       character is a token. The folded tokens are kept, BOUNDARY between them; unspaced characters stay together.
    2. Pairs of adjacent tokens.
    3. Character n-grams of what is between two BOUNDARIES, these included.
    4. Repeats are dropped: how often a word stands in a text says little about its label, and in long texts it drowns
       the rest (on whole e-mails, repeats kept made three times the errors).

    O(stop - start). Bit-exact: part of the checkpoint format.
    """
    pairs, lengths, chars_max = arguments
    out, distinct, folded = buffers
    room = out.shape[0]
    n = 0
    folded[0] = BOUNDARY
    n_folded = 1

    # 1
    i = start
    after_character = False
    while i < stop:
        entry = table[codes[i]]
        kind = entry >> CLASS_SHIFT
        code = entry & FOLD_MASK
        i += 1
        if kind == IGNORED:
            continue
        if kind != CHARACTER and after_character:
            folded[n_folded] = BOUNDARY
            n_folded += 1
        after_character = kind == CHARACTER
        if kind == SPACE:
            continue
        h = (WORD_SEED ^ np.uint64(code)) * MULTIPLIER
        folded[n_folded] = code
        n_folded += 1
        if kind == WORD:
            while i < stop:
                entry = table[codes[i]]
                kind = entry >> CLASS_SHIFT
                if kind != WORD:
                    if kind == APOSTROPHE:
                        if i + 1 == stop or table[codes[i + 1]] >> CLASS_SHIFT != WORD:
                            break
                    elif kind != IGNORED:
                        break
                i += 1
                if kind != IGNORED:
                    code = entry & FOLD_MASK
                    h = (h ^ np.uint64(code)) * MULTIPLIER
                    folded[n_folded] = code
                    n_folded += 1
        elif kind != CHARACTER:
            run = 1
            while i < stop:
                entry = table[codes[i]]
                if entry >> CLASS_SHIFT != IGNORED:
                    if entry & FOLD_MASK != code:
                        break
                    run += 1
                    if run <= MAX_RUN:
                        h = (h ^ np.uint64(code)) * MULTIPLIER
                        folded[n_folded] = code
                        n_folded += 1
                i += 1
        if not after_character:
            folded[n_folded] = BOUNDARY
            n_folded += 1
        if n < room:
            out[n] = finish(h)
            n += 1
    if after_character:
        folded[n_folded] = BOUNDARY
        n_folded += 1
    n_words = n

    # 2
    if pairs:
        for i in range(min(n_words - 1, room - n_words)):
            h = (PAIR_SEED ^ np.uint64(out[i])) * MULTIPLIER
            out[n] = finish(h ^ np.uint64(out[i + 1]))
            n += 1
    n_pairs_end = n

    # 3
    if chars_max > 0:
        for i in range(n_folded - 1):
            h = CHARS_SEED
            for j in range(i, min(i + chars_max, n_folded)):
                h = (h ^ np.uint64(folded[j])) * MULTIPLIER
                if (lengths >> (j - i + 1)) & 1 and n < room:
                    out[n] = finish(h)
                    n += 1
                if folded[j] == BOUNDARY and j > i:
                    break

    # 4
    size = 64
    while size < 8 * n:
        size *= 2
    distinct[:size] = 0
    n_end = n
    n = 0
    ends = (n_words, n_pairs_end, n_end)
    begin = 0
    n_words = 0
    n_pairs_end = 0
    for kind in range(3):
        for i in range(begin, ends[kind]):
            feature = max(out[i], np.uint32(1))  # 0 marks a free place in `distinct`
            place = feature & (size - 1)
            held = distinct[place]
            while held != 0 and held != feature:  # noqa: PLR1714  (a tuple would be slower)
                place = (place + 1) & (size - 1)
                held = distinct[place]
            distinct[place] = feature
            out[n] = feature
            n += int(held == 0)  # instead of a branch, which nothing could predict
        begin = ends[kind]
        if kind == 0:
            n_words = n
        elif kind == 1:
            n_pairs_end = n
    return n_words, n_pairs_end, n
