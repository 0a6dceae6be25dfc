"""What does a text look like?

Words are hashed without regard to case, and each once (features.py). What that leaves out is hashed here, a few
features a text: words as they are written, where that is with capitals; the first word and the last new one; and
amounts: of words, characters, lines, capitals, digits, signs. An amount is the step of a logarithm, so that a feature
stands for "about so many". As in features.py, nothing depends on the platform: it is part of the checkpoint format.
"""

from typing import Final

import numpy as np

from driftline.learner.kernels import AT_ONCE, count_bits, first_bit, in_range, kernel
from driftline.learner.text.characters import CLASS_SHIFT, FOLD_MASK, IGNORED, SPACE, WORD
from driftline.learner.text.features import code_points, max_chars_of
from driftline.learner.text.fielded import has_fields, text_end
from driftline.learner.text.hashes import MULTIPLIER, finish
from driftline.learner.text.tokens import (
    ALONE,
    DELETE,
    DIGITS,
    LAST_BIT,
    LETTERS,
    LOWER,
    N_BLANKS,
    N_DIGITS,
    N_LETTERS,
    ONE,
    UNDERSCORE,
    first_bits,
    is_ascii,
)
from driftline.stream.texts import PADDING

CASED_SEED: Final = np.uint64(0x082EFA98EC4E6C89)  # the digits of pi, after hashes.py's
SHAPE_SEED: Final = np.uint64(0x452821E638D01377)
N_AMOUNTS: Final = 12
N_ENDS: Final = 2  # the first word and the last new one
MAX_CASED: Final = 256  # words with capitals that are hashed; of a text all in capitals the first ones tell enough
MAX_SHAPE: Final = MAX_CASED + N_ENDS + N_AMOUNTS
MOST_WORDS: Final = 15  # that the share of capitals is told apart for
LINE: Final = 10
CAPITALS: Final = np.uint8(ord("A"))
DIGIT_0, DIGIT_9, LAST_ASCII = 48, 57, 127


@kernel
def step_of(amount):  # type: ignore[no-untyped-def]
    """Return 2 log2(1 + amount), rounded down: 0, 2, 3, 4, 4, 5, 5, 6, ... In whole numbers, so exact everywhere."""
    square = np.int64(1 + amount) * np.int64(1 + amount)
    step = 0
    while square > 1:
        square >>= 1
        step += 1
    return step


@kernel
def keep_distinct(features, n, places):  # type: ignore[no-untyped-def]
    """Keep the first of each feature. `places` is overwritten. Returns how many there are."""
    size = 64
    while size < 4 * n:
        size *= 2
    places[:size] = 0
    kept = 0
    for i in range(n):
        feature = max(features[i], np.uint32(1))  # 0 marks a free place
        place = feature & (size - 1)
        while places[place] != 0 and places[place] != feature:
            place = (place + 1) & (size - 1)
        if places[place] == 0:
            places[place] = feature
            features[kept] = feature
            kept += 1
    return kept


@kernel
def read_ascii(text, size, out):  # type: ignore[no-untyped-def]
    """Do what `read_points` does for a text of ASCII: a bit for each of 64 places says what stands there.

    Only words with capitals are looked at one character at a time.
    """
    n = 0
    n_tokens = n_capital = n_upper_words = n_upper = n_digits = n_words = np.int64(0)
    n_lines = n_spaces = np.int64(1)  # a text ends like a line
    word_before, seen = np.uint64(0), np.int64(0)  # whether a word goes on, and up to where capitals were looked at
    for place in range(0, size, AT_ONCE):
        valid = first_bits(size - place)
        capitals = in_range(text, place, CAPITALS, N_LETTERS) & valid
        digits = in_range(text, place, DIGITS, N_DIGITS) & valid
        word = in_range(text, place, LETTERS, N_LETTERS) | in_range(text, place, UNDERSCORE, ALONE)
        word = word & valid | capitals | digits
        begins = word & ~(word << ONE | word_before)
        word_before = word >> LAST_BIT
        space = in_range(text, place, np.uint8(0), N_BLANKS) | in_range(text, place, DELETE, ALONE)
        n_tokens += np.int64(count_bits(begins))
        n_capital += np.int64(count_bits(begins & capitals))
        n_upper += np.int64(count_bits(capitals))
        n_digits += np.int64(count_bits(digits))
        n_words += np.int64(count_bits(word))
        n_spaces += np.int64(count_bits(space & valid))
        n_lines += np.int64(count_bits(in_range(text, place, np.uint8(LINE), ALONE) & valid))
        while capitals:
            begin = place + np.int64(first_bit(capitals))
            capitals &= capitals - ONE
            if begin < seen:
                continue
            while begin > 0 and is_word(text[begin - 1]):
                begin -= 1
            h, end, upper = CASED_SEED, begin, 0
            while end < size and is_word(text[end]):
                h = (h ^ np.uint64(text[end])) * MULTIPLIER
                upper += int(np.uint8(text[end] - CAPITALS) < N_LETTERS)
                end += 1
            n_upper_words += int(upper == end - begin and upper > 1)
            if n < MAX_CASED:
                out[n] = finish(h)
                n += 1
            seen = end
    n_signs = size - n_words - (n_spaces - 1)
    return n, (n_tokens, n_capital, n_upper_words, n_upper, n_digits, n_signs, n_lines, 0, n_spaces)


@kernel
def is_word(byte):  # type: ignore[no-untyped-def]
    """Return whether an ASCII character is of a word."""
    small = np.uint8(byte | LOWER)
    return np.uint8(small - LETTERS) < N_LETTERS or np.uint8(byte - DIGITS) < N_DIGITS or byte == UNDERSCORE


@kernel
def read_points(points, size, table, out):  # type: ignore[no-untyped-def]
    """Write the hashes of words with capitals. Returns how many, and what else is counted in a text."""
    n = 0
    n_tokens, n_capital, n_upper_words, n_upper, n_digits, n_signs, n_lines, n_far, n_spaces = 0, 0, 0, 0, 0, 0, 0, 0, 0
    h = CASED_SEED
    length, upper = 0, 0  # of the word under way, and how much of it is in capitals
    for i in range(size + 1):
        code = points[i] if i < size else np.uint32(LINE)
        entry = table[code]
        kind = entry >> CLASS_SHIFT
        if kind == WORD:
            is_upper = int((entry & FOLD_MASK) != code)
            n_capital += is_upper * int(length == 0)
            upper += is_upper
            n_digits += int(DIGIT_0 <= code <= DIGIT_9)
            length += 1
            h = (h ^ np.uint64(code)) * MULTIPLIER
        else:
            if length:
                n_tokens += 1
                n_upper += upper
                n_upper_words += int(upper == length and length > 1)
                if upper and n < MAX_CASED:
                    out[n] = finish(h)
                    n += 1
                h, length, upper = CASED_SEED, 0, 0
            if kind == SPACE:
                n_spaces += 1
                n_lines += int(code == LINE)
            else:
                n_signs += int(kind != IGNORED)
        n_far += int(code > LAST_ASCII)
    return n, (n_tokens, n_capital, n_upper_words, n_upper, n_digits, n_signs, n_lines, n_far, n_spaces)


@kernel
def hash_shape(codes, start, stop, table, buffers, n_words, out):  # type: ignore[no-untyped-def]
    """Write the features of one text's shape, without its fields.

    Parameters
    ----------
    codes, start, stop, table : as in `hash_text`
    buffers : as `hash_text` left them: the first begins with n_words distinct words. The second is overwritten
    out : uint32 [MAX_SHAPE], changed: words with capitals, each once; the ends; at last N_AMOUNTS amounts

    Returns
    -------
    n : how many there are
    """
    words, places = buffers[0], buffers[1]
    if has_fields(codes, start, stop):
        stop, n_words = text_end(codes, start, stop), buffers[-1][0]
    size = min(stop - start, max_chars_of(buffers))
    text = codes[start : start + size + PADDING]
    if is_ascii(text, size):
        n, counts = read_ascii(text, size, out)
    else:
        points, size = code_points(codes, start, stop, buffers)
        n, counts = read_points(points, size, table, out)
    n_tokens, n_capital, n_upper_words, n_upper, n_digits, n_signs, n_lines, n_far, n_spaces = counts
    n = keep_distinct(out, n, places)
    if n_words:
        out[n] = finish((SHAPE_SEED ^ np.uint64(N_AMOUNTS)) * MULTIPLIER ^ np.uint64(words[0]))
        out[n + 1] = finish((SHAPE_SEED ^ np.uint64(N_AMOUNTS + 1)) * MULTIPLIER ^ np.uint64(words[n_words - 1]))
        n += N_ENDS
    size = max(size, 1)
    share = 8 * n_capital // max(n_tokens, 1)
    amounts = (
        step_of(size),
        step_of(n_tokens),
        step_of(n_lines),
        step_of(n_digits),
        step_of(n_signs),
        step_of(n_far),
        step_of(n_upper_words),
        share,
        share + 16 * min(n_tokens, MOST_WORDS),
        16 * n_upper // size,
        32 * n_signs // size,
        step_of(max(n_spaces - n_tokens, 0)),
    )
    for i in range(N_AMOUNTS):
        out[n + i] = finish((SHAPE_SEED ^ np.uint64(i)) * MULTIPLIER ^ np.uint64(1 + amounts[i]))
    return n + N_AMOUNTS
