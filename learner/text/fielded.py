"""Which features do a text's fields have?

Fields stand behind their text (stream/wire/fielded.py): name, END, value and its kind, END. Each name is a namespace of
its own: the hash of the name goes into each feature, so a word in the subject is another feature than in the text.

- A string, a truth, an item of a list: the whole value, as it is written, is a category. A string of several words has
  these and their pairs too, folded as the text's are.
- A number: itself, its sign, and the bins that it falls into: of a 256th, a 32nd, a quarter of an octave, an octave and
  four of them, each once as it is and once half a bin further. So numbers that are near share most features, on every
  scale, and a number that nobody sent before has bins that are known. Bins are read from the number's own bits, whose
  value is the logarithm, in a straight line between powers of two. So they need no scale that is known beforehand; and
  none that is learned, as running quantiles would be: with these a number would be another feature today than tomorrow,
  for each that learns or answers, and what a text's features are would depend on what came before it.
- A field that is not there has no feature. A vector, which stands behind all of them (stream/wire/vector.py), has none
  either: who learns from it reads it there (vectors/sent.py).

Categories and bins of all fields go first, then words: so no long field pushes another one out. Part of the checkpoint
format.
"""

from typing import Final

import numpy as np

from driftline.learner.kernels import copy, inlined, kernel
from driftline.learner.text.hashes import MULTIPLIER, finish, hash_tokens
from driftline.learner.text.repeats import drop_repeats, table_size
from driftline.learner.text.tokens import decode, fold_ascii, list_ascii, list_tokens, read_codes
from driftline.stream.texts import PADDING
from driftline.stream.wire.fielded import KIND
from driftline.stream.wire.vector import VECTOR

VECTOR_KIND: Final = np.uint8(ord(VECTOR))
FIELD_SEED: Final = np.uint64(0xBE5466CF34E90C6C)  # the digits of pi, after shape.py's
CROSS_SEED: Final = np.uint64(0xC0AC29B7C97C50DD)
VALUE, WORD, PAIR, NUMBER = map(np.uint64, (1, 2, 3, 4))  # what of a field a feature is; a number's have more behind it
BINS: Final = (44, 47, 50, 52, 54)  # how many of a number's last bits each bin leaves out: 52 is an octave
N_TILES: Final = 2 * len(BINS)
ITSELF, SIGN = N_TILES, N_TILES + 1
CROSSED_BIN: Final = 2 * BINS.index(52)  # what of a number is crossed with words
HALF_OF: Final = 2  # fields have at most this part of the features, and so has the text for certain
CROSSED_OF: Final = 4  # words crossed with fields at most this one
MAX_CATEGORIES: Final = 64  # that are crossed
STRING, TRUTH, ITEM, IS_NUMBER = (np.uint8(ord(kind)) for kind in (KIND.STRING, KIND.TRUTH, KIND.ITEM, KIND.NUMBER))
DIGITS: Final = 16  # of a number
OF_TEXT: Final = 13  # buffers of `text_buffers` that a text without fields needs; those for fields are behind them ...
OF_FIELDS: Final = OF_TEXT + 2  # ... and these end here
_FIRST_DIGIT, _FIRST_LETTER = np.uint8(ord("0")), np.uint8(ord("a"))
_MASK: Final = 2**64 - 1


def name_hash(name: bytes) -> int:
    """Return what stands for a field's name in its features, of 64 bits."""
    h = int(FIELD_SEED)
    for byte in name:
        h = (h ^ byte) * int(MULTIPLIER) & _MASK
    return h


@kernel
def end_of(codes, at, stop):  # type: ignore[no-untyped-def]
    """Return where the next END is, or `stop`."""
    while at < stop and codes[at] != 0:
        at += 1
    return at


@inlined
def has_fields(codes, start, stop):  # type: ignore[no-untyped-def]
    """Return whether a text has fields, or a vector."""
    return stop > start and codes[stop - 1] == 0


@kernel
def text_end(codes, start, stop):  # type: ignore[no-untyped-def]
    """Return where a text ends and its fields begin."""
    return end_of(codes, start, stop) if has_fields(codes, start, stop) else stop


@kernel
def fields_end(codes, start, stop):  # type: ignore[no-untyped-def]
    """Return where a text's fields end and its vector begins, with an empty name; `stop` where it has none."""
    if stop - start < 2 or codes[stop - 1] != 0 or codes[stop - 2] != VECTOR_KIND:
        return stop
    at = stop - 2
    while at > start and codes[at - 1] != 0:
        at -= 1
    return at - 1 if at - 2 >= start and codes[at - 2] == 0 else stop


@kernel
def go_through(h, codes, at, end):  # type: ignore[no-untyped-def]
    """Return a hash after some bytes."""
    for i in range(at, end):
        h = (h ^ np.uint64(codes[i])) * MULTIPLIER
    return h


@kernel
def feature_of(name, what, value):  # type: ignore[no-untyped-def]
    """Return a feature of a field."""
    return finish(((name ^ what) * MULTIPLIER) ^ value)


@kernel
def crossed_with(category, word):  # type: ignore[no-untyped-def]
    """Return the feature of a word where a field has a value."""
    return finish(((CROSS_SEED ^ np.uint64(category)) * MULTIPLIER) ^ np.uint64(word))


@kernel
def bits_of(codes, at):  # type: ignore[no-untyped-def]
    """Return the number of 64 bits that DIGITS digits are."""
    bits = np.uint64(0)
    for i in range(DIGITS):
        code = codes[at + i]
        digit = code - _FIRST_LETTER + np.uint8(10) if code >= _FIRST_LETTER else code - _FIRST_DIGIT
        bits = (bits << np.uint64(4)) | np.uint64(digit & np.uint8(15))
    return bits


@kernel
def hash_number(name, bits, which):  # type: ignore[no-untyped-def]
    """Return one of a number's features: of a tile, ITSELF or its SIGN."""
    sign, size = bits >> np.uint64(63), bits & np.uint64(2**63 - 1)
    what = NUMBER + np.uint64(which)
    if which == ITSELF:
        return feature_of(name, what, bits)
    if which == SIGN:
        return feature_of(name, what, np.uint64(0) if size == np.uint64(0) else np.uint64(1) + sign)
    shift = np.uint64(BINS[which >> 1])
    further = (np.uint64(1) << (shift - np.uint64(1))) if which & 1 else np.uint64(0)
    return feature_of(name, what, ((size + further) >> shift) << np.uint64(1) | sign)


@kernel
def is_crossed(name, crossed):  # type: ignore[no-untyped-def]
    """Return whether a field is to be crossed with words."""
    for i in range(crossed.shape[0]):  # noqa: SIM110  (a generator would need numba's runtime)
        if crossed[i] == name:
            return True
    return False


@kernel
def with_category(categories, n, category):  # type: ignore[no-untyped-def]
    """Append a category to n that words are crossed with, once, if there is room. Returns how many there are then."""
    if n == MAX_CATEGORIES:
        return n
    for i in range(n):
        if categories[i] == category:
            return n
    categories[n] = category
    return n + 1


@kernel
def list_words(codes, at, end, table, max_chars, buffers):  # type: ignore[no-untyped-def]
    """Write where the tokens of a value are. Returns how many there are."""
    _, _, folded, begins, ends, points, smalls, keys = buffers[:8]
    size = min(end - at, max_chars)
    if fold_ascii(codes[at : at + size + PADDING], size, folded):
        return list_ascii(folded, size, begins, ends)
    n = decode(codes, at, end, max_chars, points)
    return list_tokens(smalls, keys, read_codes(points, n, table, smalls, keys), folded, begins, ends)


@kernel
def next_field(codes, at, stop):  # type: ignore[no-untyped-def]
    """Return where the value of the field at a place begins, and where it ends; at or before its beginning: none is."""
    value = end_of(codes, at, stop) + 1
    end = end_of(codes, value, stop)
    return value, end if end < stop else value


@kernel
def hash_values(codes, start, stop, room, region, buffers):  # type: ignore[no-untyped-def]
    """Write the categories and bins of fields. Returns how many, and how many of them are to be crossed with words."""
    categories, crossed = buffers[OF_TEXT:OF_FIELDS]
    n, n_categories, at = 0, 0, start
    while at < stop and n < room:
        value, end = next_field(codes, at, stop)
        if end <= value:
            break
        name = go_through(FIELD_SEED, codes, at, value - 1)
        kind = codes[end - 1]
        cross = is_crossed(name, crossed)
        if kind == IS_NUMBER and end - 1 - value == DIGITS:
            bits = bits_of(codes, value)
            is_zero = bits << np.uint64(1) == np.uint64(0)
            if cross:
                category = hash_number(name, bits, ITSELF if is_zero else CROSSED_BIN)
                n_categories = with_category(categories, n_categories, category)
            for which in range(N_TILES if is_zero else 0, N_TILES + 2):
                if n < room:
                    region[n] = hash_number(name, bits, which)
                    n += 1
        elif kind in (STRING, TRUTH, ITEM):
            region[n] = finish(go_through((name ^ VALUE) * MULTIPLIER, codes, value, end - 1))
            if cross:
                n_categories = with_category(categories, n_categories, region[n])
            n += 1
        at = end + 1
    return n, n_categories


@kernel
def hash_words(codes, start, stop, table, max_chars, behind, room, n, region, buffers):  # type: ignore[no-untyped-def]
    """Append to n terms the words of strings that have several; or the pairs of these, `behind` so many of all terms.

    Returns how many there are then. A value is read again for its pairs: so all words have room before they have.
    """
    begins, ends, folded, scratch = buffers[3], buffers[4], buffers[2], buffers[8]
    n_terms, at = n, start
    to = behind if behind else n  # where what is written now goes
    while at < stop and n_terms < room:
        value, end = next_field(codes, at, stop)
        if end <= value:
            break
        n_tokens = list_words(codes, value, end - 1, table, max_chars, buffers) if codes[end - 1] == STRING else 0
        if n_tokens > 1:
            name = go_through(FIELD_SEED, codes, at, value - 1)
            n_words = min(n_tokens, room - n_terms)
            hash_tokens(folded, begins, ends, n_words, scratch)
            n_terms += n_words
            if behind:
                for i in range(min(n_words - 1, room - to)):
                    region[to + i] = feature_of(name, PAIR, np.uint64(scratch[n_words + i]))
                to += max(min(n_words - 1, room - to), 0)
            else:
                for i in range(n_words):
                    region[to + i] = feature_of(name, WORD, np.uint64(scratch[i]))
                to += n_words
        at = end + 1
    return to


@kernel
def move_up(out, start, stop, by):  # type: ignore[no-untyped-def]
    """Move features to make room before them: the last one first."""
    for i in range(stop - start):
        at = stop - 1 - i
        out[at + by] = out[at]


@kernel
def hash_fields(codes, start, stop, table, arguments, buffers):  # type: ignore[no-untyped-def]
    """Write the features of a text's fields, each once, to the end of the first buffer.

    Parameters
    ----------
    codes, table, arguments, buffers : as in `hash_text`; the fields are codes[start:stop]

    Returns
    -------
    n_terms, n_pairs, n_categories : how many categories, bins and words there are; pairs of words behind them; and
        categories to be crossed with the text's words, in the buffer for them

    Notes
    -----
    1. Categories and bins of all fields.
    2. Words of strings, which are a category alone where there is only one; then their pairs.
    3. Repeats are dropped. Where a text may have less features by so many, the end of the buffer is free for these.
    """
    pairs, room, max_chars, secret = arguments[0], arguments[3] // HALF_OF, arguments[4], np.uint64(arguments[5])
    out, distinct = buffers[0], buffers[1]
    region = out[out.shape[0] - room :]
    n_values, n_categories = hash_values(codes, start, stop, room, region, buffers)
    n = hash_words(codes, start, stop, table, max_chars, 0, room, n_values, region, buffers)
    n_all = n
    if pairs and n_values < n < room:
        n_all = hash_words(codes, start, stop, table, max_chars, n, room, n_values, region, buffers)
    size = table_size(n_all)
    distinct[:size] = 0
    n_terms = drop_repeats(region, 0, n, 0, size, distinct, secret)
    n_kept = drop_repeats(region, n, n_all, n_terms, size, distinct, secret)
    move_up(region, 0, n_kept, room - n_kept)
    return n_terms, n_kept - n_terms, n_categories


@kernel
def put_between(out, ends, added, n_categories, buffers):  # type: ignore[no-untyped-def]
    """Put the features of fields behind the text's words and pairs, and words crossed with fields behind these.

    Parameters
    ----------
    out : with the text's features, and those of fields at its end, changed
    ends : of the text's words, pairs and n-grams
    added : how many terms, pairs and crossed words there are to be, in this order
    n_categories : with which words are crossed, each with all before the next word
    """
    n_words, n_plain, n = ends
    n_terms, n_pairs, n_crossed = added
    of_fields, at = buffers[1], n_plain + n_terms + n_pairs
    copy(out[out.shape[0] - n_terms - n_pairs :], of_fields)  # what moves may get to where they are
    move_up(out, n_plain, n, n_terms + n_pairs + n_crossed)
    move_up(out, n_words, n_plain, n_terms)
    copy(of_fields[:n_terms], out[n_words:])
    copy(of_fields[n_terms : n_terms + n_pairs], out[n_plain + n_terms :])
    categories = buffers[OF_TEXT]
    for i in range(n_crossed):
        feature = crossed_with(categories[i % n_categories], out[i // n_categories])
        out[at + i] = max(feature, np.uint32(1))  # as in `drop_repeats`
