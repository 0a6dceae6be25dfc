"""Which vector came with a text?

It stands behind the text, as base64 of 16-bit numbers (stream/wire/vector.py). One of another length than the model's
is none. Of all that is known of a text it is the longest, so it is read once, to 16-bit numbers, which are kept of a
text that may be learned again (models/rehearsal.py); what is computed with is made of these.
"""

from functools import cache
from typing import Final

import numpy as np

from driftline.learner.kernels import kernel
from driftline.learner.text.fielded import VECTOR_KIND, fields_end
from driftline.learner.vectors.lookup import add_up, scale_to_one
from driftline.stream.errors import ConfigError
from driftline.stream.texts import Texts
from driftline.stream.wire.vector import DIGIT_BITS, HALF_BITS, MAX_NUMBERS, MIN_NUMBERS

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
NO_DIGIT: Final = 64
DIGITS: Final = np.full(256, NO_DIGIT, np.int64)
DIGITS[np.frombuffer(_ALPHABET, np.uint8)] = np.arange(len(_ALPHABET))
# A 16-bit number is its fraction of 10 bits, and 1 before that unless its exponent is 0, times a power of two.
FRACTION_BITS, EXPONENTS = 10, 32
HIDDEN: Final = 1 << FRACTION_BITS
SIGN: Final = 1 << 15
POWERS: Final = np.ldexp(np.float32(1), np.maximum(np.arange(EXPONENTS), 1) - 25)
POWERS[-1] = np.inf  # and no number: then the vector has no length


def check_dimension(dimension: int, vectors: str) -> None:
    """Refuse what cannot be meant. Raises ConfigError."""
    if dimension and not MIN_NUMBERS <= dimension <= MAX_NUMBERS:
        raise ConfigError(
            f"dimension={dimension}: it must be 0, or {MIN_NUMBERS} to {MAX_NUMBERS}: how many numbers the vector has "
            "that comes with a message"
        )
    if dimension and vectors:
        raise ConfigError(
            f"dimension={dimension} and vectors={vectors}: the one or the other; with `vectors` a text's vector is "
            "made of its words', with `dimension` it comes with the message"
        )


@cache
def dimension_of(spec: str) -> int:
    """Return how many numbers vectors have that a model takes with texts, by its specification; 0: it takes none."""
    name, _, query = spec.partition("?")
    given = dict(part.partition("=")[::2] for part in query.split("&"))
    return int(given.get("dimension", "0")) if name == "blend" else 0


@kernel
def count_unused(codes, starts, wanted, dimension):  # type: ignore[no-untyped-def]
    """Return how many of the wanted texts have a vector of another length than the dimension.

    `wanted` : int64 [n], which texts
    """
    n = 0
    for i in range(wanted.shape[0]):
        start, stop = starts[wanted[i]], starts[wanted[i] + 1]
        end = fields_end(codes, start, stop)
        n += int(end < stop and (stop - 3 - end) * DIGIT_BITS // HALF_BITS != dimension)
    return n


def warm_up() -> None:
    """Compile what no model calls, or load it compiled, so that no record waits for that."""
    texts = Texts.of(["a"])
    count_unused(texts.codes, texts.starts, np.zeros(1, np.int64), 0)


@kernel
def read_sent(codes, start, stop, halves):  # type: ignore[no-untyped-def]
    """Write the 16-bit numbers of a text's vector. Returns whether it has one of so many: 1 or 0.

    Parameters
    ----------
    codes, start, stop : as in `hash_text`
    halves : uint16 [dimension], changed; all 0 where there is none
    """
    size = (HALF_BITS * halves.shape[0] + DIGIT_BITS - 1) // DIGIT_BITS
    at = stop - 2 - size
    is_there = at - 2 >= start and codes[stop - 1] == 0 and codes[stop - 2] == VECTOR_KIND
    is_there = is_there and codes[at - 1] == 0 and codes[at - 2] == 0
    seen, bits, n_bits, n = 0, 0, 0, 0
    for i in range(at, stop - 2 if is_there else at):
        digit = DIGITS[codes[i]]
        seen |= digit
        bits = (bits << DIGIT_BITS | digit) & 0xFFFFFF
        n_bits += DIGIT_BITS
        if n_bits >= HALF_BITS:
            n_bits -= HALF_BITS
            half = bits >> n_bits & 0xFFFF
            halves[n] = half >> 8 | (half & 0xFF) << 8  # the lower byte comes first
            n += 1
    is_there = is_there and seen < NO_DIGIT
    if not is_there:
        for i in range(halves.shape[0]):
            halves[i] = 0
    return int(is_there)


@kernel
def copy_halves(halves, to):  # type: ignore[no-untyped-def]
    """Copy 16-bit numbers of a vector. Returns whether it is one: 1 or 0."""
    seen = np.uint16(0)
    for i in range(halves.shape[0]):
        to[i] = halves[i]
        seen |= halves[i]
    return int(seen != 0)


@kernel
def take_sent(codes, start, stop, again, slot, kept, halves):  # type: ignore[no-untyped-def]
    """Write the 16-bit numbers of a text's vector, or of one that was kept. Returns whether there is one: 1 or 0.

    Parameters
    ----------
    again : whether it is the one that is kept in a slot; or else one is kept there, where that is none below 0
    kept : uint16 [texts, dimension], changed
    """
    if again:
        return copy_halves(kept[slot], halves)
    is_there = read_sent(codes, start, stop, halves)
    if slot >= 0:
        copy_halves(halves, kept[slot])
    return is_there


@kernel
def to_single(half):  # type: ignore[no-untyped-def]
    """Return the number that 16 bits are, exactly; infinite where they are none."""
    exponent = np.int64(half) >> FRACTION_BITS & (EXPONENTS - 1)
    fraction = np.int64(half) & (HIDDEN - 1)
    size = np.float32(fraction + (HIDDEN if exponent > 0 else 0)) * POWERS[exponent]
    return -size if half & SIGN else size


@kernel
def unpack(halves, dimension, vector, lanes):  # type: ignore[no-untyped-def]
    """Write a text's vector from its 16-bit numbers. Returns whether it has one."""
    for i in range(dimension, vector.shape[0]):
        vector[i] = np.float32(0)
    for i in range(dimension):
        vector[i] = to_single(halves[i])
    return scale_to_one(dimension, vector, lanes)


@kernel
def write_vector(space, side, n, words, dimension):  # type: ignore[no-untyped-def]
    """Write a text's vector: from n rows, or from what was sent if n is 1. Returns whether it has one.

    `side` : of `space.rows` and `space.halves`, which of both texts it is
    """
    if space.halves.shape[1]:
        return n > 0 and unpack(space.halves[side], dimension, space.vector, space.lanes)
    return add_up(space.rows[side], n, words, dimension, space.vector, space.lanes)
