"""Which features does a text have?

Text to hashed features of 32 bits: its tokens, pairs of adjacent tokens, how often words come (counts.py), character
n-grams; and those of its fields (fielded.py). Time and memory are linear in the text's length and bounded by the
settings. Which features there are, and in which order, is part of the checkpoint format.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.kernels import inlined, kernel
from driftline.learner.text.characters import load_table
from driftline.learner.text.counts import append_counts, count_words, insert_counts
from driftline.learner.text.cut import cut
from driftline.learner.text.fielded import (
    CROSSED_OF,
    MAX_CATEGORIES,
    OF_FIELDS,
    OF_TEXT,
    fields_end,
    has_fields,
    hash_fields,
    name_hash,
    put_between,
    text_end,
)
from driftline.learner.text.hashes import BLOCK, hash_ngrams, hash_tokens, spread_ascii, spread_tokens
from driftline.learner.text.normal import normalised
from driftline.learner.text.repeats import FEW, drop_few, drop_repeats, drop_tokens, drop_words, table_size
from driftline.learner.text.tokens import FIRST, GROUP, WHOLE, decode, fold_ascii, list_ascii, list_tokens, read_codes
from driftline.stream.errors import ConfigError
from driftline.stream.texts import PADDING, Texts
from driftline.stream.wire.fielded import END, MAX_NAME_CHARS

Buffers = tuple[NDArray[Any], ...]


HASHING: Final = 3  # the number of this format
MAX_CROSSED: Final = 8  # fields


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Which features a text is turned into. Part of the checkpoint format."""

    pairs: bool = True  # of adjacent tokens
    chars: bool = True  # character n-grams inside the boundaries of words
    chars_min: int = 3
    chars_max: int = 5
    max_chars: int = 8192  # of a longer text only so many are read ...
    tail_chars: int = 0  # ... of which so many are its last ones; see cut.py
    max_features: int = 32768  # words go first, then pairs and counts, then n-grams
    hashing: int = (
        HASHING  # by which rules; 2: without counts.py; 1: texts are read as they are written, too (normal.py)
    )
    cross: str = ""  # fields whose values each word is crossed with: their names, joined by +

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 2 <= self.chars_min <= self.chars_max <= 16:
            raise ConfigError(
                f"chars_min={self.chars_min} and chars_max={self.chars_max}: they must be 2 to 16, in this order"
            )
        for name in ("max_chars", "max_features"):
            if not 1 <= getattr(self, name) <= 1 << 24:
                raise ConfigError(f"{name}={getattr(self, name)}: it must be 1 to {1 << 24}")
        if not 1 <= self.hashing <= HASHING:
            raise ConfigError(f"hashing={self.hashing}: it must be 1 to {HASHING}; a newer Driftline may know others")
        longest = max(self.max_chars - 2, 0)
        if not 0 <= self.tail_chars <= longest:
            raise ConfigError(f"tail_chars={self.tail_chars}: it must be 0 to {longest}, 2 less than max_chars")
        if len(self.crossed) > MAX_CROSSED or not all(0 < len(name) <= MAX_NAME_CHARS for name in self.crossed):
            raise ConfigError(f"cross={self.cross}: it must be the names of 1 to {MAX_CROSSED} fields, joined by +")
        if END in self.cross:
            raise ConfigError("cross: a field's name has no NUL character (U+0000)")

    @property
    def crossed(self) -> list[str]:
        """The fields whose values words are crossed with."""
        return self.cross.split("+") if self.cross else []

    @cached_property
    def kernel_arguments(self) -> tuple[int, int, int, int, int, int, int]:
        """What `hash_text` is told: pairs or not, a bit for each length of n-gram, the longest or 0, limits, secret,
        counts or not.
        """
        wanted = sum(1 << length for length in self.lengths)
        longest = self.lengths[-1] if self.chars else 0
        secret = int.from_bytes(os.urandom(8)) >> 1 | 1  # see repeats.py
        limits = self.max_features, self.max_chars
        return int(self.pairs), wanted, longest, *limits, secret, int(self.hashing > 2)

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


MAX_CHARS: Final = 1 << 62  # of a text whose last ones are wanted: all
LEAST_FREE: Final = 1024  # four places for each word with capitals of a text's shape, too (shape.py)
OF_DROPPED: Final = OF_FIELDS + 2  # buffers up to those for words that are repeats ...
OF_COUNTS: Final = OF_DROPPED + 2  # ... and for how often they come
N_INPUTS: Final = 7  # of `kernel_inputs`


def read(texts: Sequence[str], settings: TextSettings) -> Texts:
    """Return texts as kernels read them: in one form (normal.py), long ones cut (cut.py)."""
    most = None if settings.tail_chars else settings.max_chars  # what is beyond need not be encoded then
    ready = Texts.of(texts, most)
    if settings.hashing > 1:
        ready = normalised(ready, MAX_CHARS if most is None else most)
    return cut(ready, settings.max_chars, settings.tail_chars)


def kernel_inputs(
    texts: Sequence[str],
    targets: NDArray[np.int32],
    weights: NDArray[np.float32],
    settings: TextSettings,
    buffers: Buffers,
) -> tuple[Any, ...]:
    """Return what every classifier's kernel begins with: codes, starts, targets, weights, table, arguments, buffers."""
    ready = read(texts, settings)
    n = len(ready.starts) - 1
    if not n == len(targets) == len(weights):  # a kernel would read on behind them
        raise ValueError(f"{n} texts, {len(targets)} targets and {len(weights)} weights: as many of each are needed")
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
    free = LEAST_FREE
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
        np.empty(MAX_CATEGORIES, np.uint32),  # of fields that words are crossed with
        _crossed(settings),
        np.empty(n_words + 1, np.uint32),  # words that are repeats ...
        np.empty(n_words + 1, np.int32),  # ... where they begin ...
        np.empty(table_size(n_words), np.uint32),  # ... a table of them ...
        np.empty(table_size(n_words), np.uint8),  # ... and how often they come
        np.zeros(1, np.int64),  # how many of a text's words are its own, where it has fields
    )


def buffer_bytes(settings: TextSettings) -> int:
    """Return what the buffers take that a text without fields needs: a tree has the rest, and keeps its size."""
    return sum(buffer.nbytes for buffer in text_buffers(settings)[:OF_TEXT])


def _crossed(settings: TextSettings) -> NDArray[np.uint64]:
    """Return the hashes of the names of fields that words are crossed with."""
    names = Texts.of(settings.crossed)
    names = normalised(names, MAX_CHARS) if settings.hashing > 1 else names
    found = [name_hash(names.codes[start:stop].tobytes()) for start, stop in pairwise(names.starts)]
    return np.array(found, np.uint64)


def features(texts: Sequence[str], settings: TextSettings) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the features of texts, uint32, and where each text's begin, int64 [n_texts + 1]."""
    ready = read(texts, settings)
    buffers = text_buffers(settings)
    arguments = settings.kernel_arguments
    found = []
    for start, stop in pairwise(ready.starts):
        _, _, n = hash_text(ready.codes, start, stop, character_table(), arguments, buffers)
        found.append(buffers[0][:n].copy())
    ends = np.cumsum([0, *map(len, found)], dtype=np.int64)
    return np.concatenate(found) if found else np.empty(0, np.uint32), ends


def imprint(text: str, settings: TextSettings, most: int) -> NDArray[np.uint32]:
    """Return how many features of a text are words and pairs, then the first ones: uint32 [1 + n], n at most `most`."""
    ready, buffers = read([text], settings), text_buffers(settings)
    start, stop = ready.starts
    _, n_plain, n = hash_text(ready.codes, start, stop, character_table(), settings.kernel_arguments, buffers)
    return np.concatenate([np.array([min(n_plain, most)], np.uint32), buffers[0][: min(n, most)]])


@kernel
def max_chars_of(buffers):  # type: ignore[no-untyped-def]
    """Return at how many characters a text is cut."""
    return buffers[5].shape[0] - (FIRST + 1 + WHOLE)


@kernel
def code_points(codes, start, stop, buffers):  # type: ignore[no-untyped-def]
    """Return the code points of a text, in a buffer, cut as `hash_text` cuts it; and how many there are."""
    return buffers[5], decode(codes, start, stop, max_chars_of(buffers), buffers[5])


@inlined
def hash_plain(codes, start, stop, table, arguments, room, buffers):  # type: ignore[no-untyped-def]
    """Do what `hash_text` does for a text without fields. At most `room` features are written.

    Notes
    -----
    1. Tokens of the first max_chars characters.
    2. Pairs of adjacent tokens.
    3. Character n-grams of what is between two BOUNDARIES, these included. Of ASCII that is one token, and a token that
       was there before has none that are new: it is left out, but where that might change at which feature it ends.
    4. Repeats are dropped; how often a word comes goes behind the pairs, in the place of what was dropped.

    O(stop - start). Bit-exact: part of the checkpoint format.
    """
    pairs, wanted, longest, max_chars = arguments[0], arguments[1], arguments[2], arguments[4]
    secret = np.uint64(arguments[5])
    out, distinct, folded, begins, ends, points, smalls, keys, spread, hashes, grams, alive, lengths = buffers[:OF_TEXT]
    dropped, counting, counts = buffers[OF_FIELDS:OF_DROPPED], buffers[OF_DROPPED:OF_COUNTS], arguments[6]

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
            n_words_end, n_fresh, n_dropped = drop_tokens(
                out, n_words, folded, begins, ends, places, distinct, secret, dropped
            )
            n_plain_end = drop_repeats(out, n_words, n_plain, n_words_end, places, distinct, secret)
            if counts and n_dropped:
                n_counts = count_words(dropped, n_dropped, folded, counting, secret)
                n_plain_end = append_counts(out, n_plain_end, dropped, n_counts, places, distinct, secret)
            n_spread = spread_ascii(folded, begins, ends, n_fresh, spread)
            n = hash_ngrams(spread, n_spread, wanted, longest, room, n_plain_end, out, work)
            return n_words_end, n_plain_end, drop_repeats(out, n_plain_end, n, n_plain_end, places, distinct, secret)
    if longest > 0 and n < room:
        if is_plain:
            n_spread = spread_ascii(folded, begins, ends, n_tokens, spread)
        else:
            n_spread = spread_tokens(smalls, keys, end, spread)
        n = hash_ngrams(spread, n_spread, wanted, longest, room, n, out, work)

    # 4
    if n < FEW:
        n_words, n_plain, n, n_dropped = drop_few(out, n_words, n_plain, n, begins, dropped)
        if counts and n_dropped:
            n_counts = count_words(dropped, n_dropped, folded, counting, secret)
            n_plain, n = insert_counts(out, n_plain, n, dropped, n_counts)
        return n_words, n_plain, n
    size = table_size(n)
    distinct[:size] = 0
    n_words_end, n_dropped = drop_words(out, n_words, begins, size, distinct, secret, dropped)
    n_plain_end = drop_repeats(out, n_words, n_plain, n_words_end, size, distinct, secret)
    if counts and n_dropped:
        n_counts = count_words(dropped, n_dropped, folded, counting, secret)
        n_plain_end = append_counts(out, n_plain_end, dropped, n_counts, size, distinct, secret)
    return n_words_end, n_plain_end, drop_repeats(out, n_plain, n, n_plain_end, size, distinct, secret)


@kernel
def hash_with_fields(codes, start, stop, table, arguments, buffers):  # type: ignore[no-untyped-def]
    """Do what `hash_text` does for a text with fields, or with a vector, of which nothing is read.

    1. The features of the fields, at the end of the buffer.
    2. Those of the text, in the room that is left: half of all at least.
    3. Words crossed with values, a quarter of all at most: the last n-grams make way for them.
    """
    stop = fields_end(codes, start, stop)
    room, end = arguments[3], text_end(codes, start, stop)
    n_terms, n_pairs, n_categories = hash_fields(codes, end + 1, stop, table, arguments, buffers)
    left = room - n_terms - n_pairs
    n_words, n_plain, n = hash_plain(codes, start, end, table, arguments, left, buffers)
    buffers[-1][0] = n_words
    n_crossed = min(n_words * n_categories, room // CROSSED_OF, left - n_plain)
    n = min(n, left - n_crossed)
    put_between(buffers[0], (n_words, n_plain, n), (n_terms, n_pairs, n_crossed), n_categories, buffers)
    more = n_terms + n_pairs + n_crossed
    return n_words + n_terms, n_plain + more, n + more


@inlined
def hash_text(codes, start, stop, table, arguments, buffers):  # type: ignore[no-untyped-def]
    """Write the features of one text, and of its fields, each once.

    Parameters
    ----------
    codes : uint8 [n], UTF-8 of several texts and PADDING, as in `Texts`; the text is codes[start:stop]
    table : uint32 [0x110000], from `character_table`
    arguments : (int, int, int, int, int, int), `TextSettings.kernel_arguments`
    buffers : from `text_buffers`; the first gets the features, the others are overwritten

    Returns
    -------
    n_words, n_pairs_end, n_end : int, where each kind ends in the first buffer; what fields say counts as words, and
        as pairs what pairs of their words and words crossed with them say
    """
    if not has_fields(codes, start, stop):
        return hash_plain(codes, start, stop, table, arguments, arguments[3], buffers)
    return hash_with_fields(codes, start, stop, table, arguments, buffers)
