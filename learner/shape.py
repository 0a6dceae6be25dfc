"""What does a text look like?

Words are hashed without regard to case, and each once (text.py). What that leaves out is hashed here, a few features a
text: words as they are written, where that is with capitals; the first word and the last new one; and amounts: of
words, characters, lines, capitals, digits, signs. An amount is the step of a logarithm, so that a feature stands for
"about so many". As in text.py, nothing depends on the platform: it is part of the checkpoint format.
"""

from typing import Final

import numpy as np

from learner.characters import CLASS_SHIFT, FOLD_MASK, IGNORED, SPACE, WORD
from learner.kernels import kernel
from learner.text import MULTIPLIER, code_points, finish

CASED_SEED: Final = np.uint64(0x082EFA98EC4E6C89)  # the digits of pi, after text.py's
SHAPE_SEED: Final = np.uint64(0x452821E638D01377)
N_AMOUNTS: Final = 12
N_ENDS: Final = 2  # the first word and the last new one
MAX_CASED: Final = 256  # words with capitals that are hashed; of a text all in capitals the first ones tell enough
MAX_SHAPE: Final = MAX_CASED + N_ENDS + N_AMOUNTS
MOST_WORDS: Final = 15  # that the share of capitals is told apart for
LINE: Final = 10
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
def hash_shape(codes, start, stop, table, buffers, n_words, out):  # type: ignore[no-untyped-def]
    """Write the features of one text's shape.

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
    points, size = code_points(codes, start, stop, buffers)
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
