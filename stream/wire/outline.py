"""What is in some JSON, told without an object made of it?

msgspec makes half a million lists of a megabyte of brackets, and Python's collector looks through all of them again and
again: seconds, for one record within every limit. So what nobody has to see (a message's metadata), and what may be too
much to be looked at, is only read over here: a byte at a time, without the GIL, and with nothing to be collected.

`fault` says of a value what msgspec would say that decodes all of it. Proved by test_a_value_is_taken_as_msgspec_does.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.stream.kernels import are_equal, kernel

MAX_DIGITS: Final = 4300  # of a whole number, its sign included: Python's own limit
GOOD, MALFORMED, OUT_OF_RANGE, HALF = 0, 1, 2, 3
_STACK: Final = 256  # brackets that are open at once; what is deeper is refused before
MAX_NUMBERS: Final = 2048  # of a vector (vector.py, which needs this file)
_MAX_EXPONENT: Final = 1 << 40  # more counts as this much
_QUOTE, _ESCAPE, _MINUS, _PLUS, _POINT, _ZERO, _NINE = map(np.uint8, b'"\\-+.09')
_OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST, _COLON, _COMMA, _U = map(np.uint8, b"{}[]:,u")
_VECTOR: Final = np.frombuffer(b'vector"', np.uint8)
_EXPONENT: Final = np.uint8(ord("e"))
_CALLED: Final = np.frombuffer(b'"\\/bfnrt', np.uint8)  # what may follow a backslash, beside `u`
_TRUE, _FALSE, _NULL = (np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null"))
# The least number that is too large for a double, 2**1024 - 2**970: its digits, of which the first counts 10**308.
_TOO_LARGE: Final = np.frombuffer(str(2**1024 - 2**970).encode(), np.uint8)
_FIRST_EXPONENT: Final = len(_TOO_LARGE) - 1
_FFFD: Final = np.frombuffer(b"ufffd", np.uint8)


class Outline(NamedTuple):
    """How much there is in some JSON."""

    values: int  # commas and brackets that open, outside strings, and outside vectors of MAX_NUMBERS at most
    items: int  # elements of the list that it is; 0 where it is none


class Fault(NamedTuple):
    """What is wrong with a value, and where."""

    kind: int  # MALFORMED, OUT_OF_RANGE, or HALF: a half of a surrogate pair
    place: int


def outline(value: bytes) -> Outline:
    """Count what is in some JSON; of what is none it counts something."""
    found = np.zeros(2, np.int64)
    _count(np.frombuffer(value, np.uint8), found)
    return Outline(*found.tolist())


def is_deeper(value: bytes, most: int) -> bool:
    """Tell whether more than so many brackets are open at once somewhere, whatever else the value is."""
    return bool(_is_deeper(np.frombuffer(value, np.uint8), most))


def fault(value: bytes) -> Fault | None:
    """Return the first reason for which msgspec would not decode a value; it is UTF-8 and at most _STACK deep."""
    kind, place = _fault(np.frombuffer(value, np.uint8), np.empty(_STACK, np.uint8))
    return None if kind == GOOD else Fault(kind, place)


def mended(value: bytes) -> bytes:
    """Return JSON in which an escape that is half of a surrogate pair is one of U+FFFD."""
    out: NDArray[np.uint8] = np.frombuffer(value, np.uint8).copy()
    _mend(out)
    return out.tobytes()


def is_compiled() -> bool:
    """Tell whether nobody has to wait for the kernels."""
    return bool(_mend.signatures)


def warm_up() -> None:
    """Compile the kernels, or load them compiled."""
    outline(b"[]")
    is_deeper(b"[]", 1)
    fault(b"[]")
    mended(b'""')  # last: it says that all are


@kernel
def _after_string(data, at):  # type: ignore[no-untyped-def]
    """Return the place behind a string that begins before this one, whatever is in it."""
    end = data.shape[0]
    while at < end:
        if data[at] == _QUOTE:
            return at + 1
        at += 2 if data[at] == _ESCAPE and at + 1 < end else 1
    return end


@kernel
def _is_blank(byte):  # type: ignore[no-untyped-def]
    return byte in (32, 10, 13, 9)


@kernel
def _after_numbers(data, at):  # type: ignore[no-untyped-def]
    """Return the place behind so many numbers of a list as a vector may have: no object is made of them together."""
    n = 0
    while at < data.shape[0]:
        byte = data[at]
        is_number = _ZERO <= byte <= _NINE or byte in (_POINT, _MINUS, _PLUS) or byte | 32 == _EXPONENT
        if not is_number and not _is_blank(byte) and byte != _COMMA:
            break
        n += int(byte == _COMMA)
        if n == MAX_NUMBERS:
            break
        at += 1
    return at


@kernel
def _count(data, found):  # type: ignore[no-untyped-def]
    at, depth, values, items = 0, 0, 0, 0
    end = data.shape[0]
    is_list, is_vector = False, False
    while at < end:
        byte = data[at]
        at += 1
        if is_vector and byte == _OPEN_LIST:
            at = _after_numbers(data, at)
        is_vector = is_vector and (byte == _COLON or _is_blank(byte))
        if byte == _QUOTE:
            start = at
            at = _after_string(data, at)
            is_vector = at - start == _VECTOR.shape[0] and are_equal(data, start, _VECTOR, 0, at - start)
        elif byte == _COMMA:
            values += 1
            items += depth == 1
        elif byte in (_OPEN_LIST, _OPEN):
            if values == 0:
                is_list = byte == _OPEN_LIST
            values += 1
            depth += 1
        elif byte in (_CLOSE_LIST, _CLOSE):
            depth -= 1
    found[0], found[1] = values, items + 1 if is_list else 0


@kernel
def _is_deeper(data, most):  # type: ignore[no-untyped-def]
    at, depth = 0, 0
    end = data.shape[0]
    while at < end:
        byte = data[at]
        at += 1
        if byte == _QUOTE:
            at = _after_string(data, at)
        elif byte in (_OPEN_LIST, _OPEN):
            depth += 1
            if depth > most:
                return True
        elif byte in (_CLOSE_LIST, _CLOSE):
            depth -= 1
    return False


@kernel
def _hexadecimal(data, at):  # type: ignore[no-untyped-def]
    """Return the number that four digits are, or -1."""
    if at + 4 > data.shape[0]:
        return -1
    number = 0
    for i in range(at, at + 4):
        digit = np.int64(data[i])
        if 48 <= digit <= 57:
            digit -= 48
        elif 65 <= digit <= 70 or 97 <= digit <= 102:
            digit = (digit & 7) + 9
        else:
            return -1
        number = number << 4 | int(digit)
    return number


@kernel
def _half_or_pair(data, at):  # type: ignore[no-untyped-def]
    r"""Return 1 for an escape `\u` at a place that is half of a surrogate pair, 2 for the first of two, else 0."""
    first = _hexadecimal(data, at + 2)
    if first & 0xF800 != 0xD800 or first < 0:
        return 0
    follows = at + 8 <= data.shape[0] and data[at + 6] == _ESCAPE and data[at + 7] == _U
    second = _hexadecimal(data, at + 8) if follows else -1
    return 2 if first < 0xDC00 and second >= 0 and second & 0xFC00 == 0xDC00 else 1


@kernel
def _mend(data):  # type: ignore[no-untyped-def]
    at = 0
    end = data.shape[0]
    while at < end:
        if data[at] != _ESCAPE:
            at += 1
            continue
        size = 2
        if at + 1 < end and data[at + 1] == _U:
            halves = _half_or_pair(data, at)
            if halves:
                size = 6 * halves
            if halves == 1:
                for i in range(5):
                    data[at + 1 + i] = _FFFD[i]
        at += size


@kernel
def _fault_of_string(data, at):  # type: ignore[no-untyped-def]
    """Return what is wrong with a string that begins before a place, and where; or where it ends."""
    end = data.shape[0]
    while at < end:
        byte = data[at]
        if byte == _QUOTE:
            return GOOD, at + 1
        if byte < 32:
            return MALFORMED, at
        if byte != _ESCAPE:
            at += 1
        elif at + 1 < end and data[at + 1] == _U:
            if _hexadecimal(data, at + 2) < 0:
                return MALFORMED, at
            halves = _half_or_pair(data, at)
            if halves == 1:
                return HALF, at
            at += 12 if halves else 6
        else:
            is_known = False
            for i in range(_CALLED.shape[0]):
                is_known |= at + 1 < end and data[at + 1] == _CALLED[i]
            if not is_known:
                return MALFORMED, at
            at += 2
    return MALFORMED, at


@kernel
def _after_digits(data, at):  # type: ignore[no-untyped-def]
    while at < data.shape[0] and _ZERO <= data[at] <= _NINE:
        at += 1
    return at


@kernel
def _is_too_large(data, at, end, exponent):  # type: ignore[no-untyped-def]
    """Tell whether digits, with a point among them or not, are too large for a double.

    `exponent` : of 10, of the digit before the point
    """
    compared = -1  # digits, from the first that is not 0
    for i in range(at, end):
        digit = data[i]
        if digit == _POINT:
            continue
        if compared < 0:
            if digit == _ZERO:
                exponent -= 1
                continue
            if exponent != _FIRST_EXPONENT:
                return exponent > _FIRST_EXPONENT
            compared = 0
        if compared == _TOO_LARGE.shape[0]:
            return True
        if digit != _TOO_LARGE[compared]:
            return digit > _TOO_LARGE[compared]
        compared += 1
    if compared < 0:
        return False
    rest = 0
    for i in range(compared, _TOO_LARGE.shape[0]):
        rest += _TOO_LARGE[i] != _ZERO
    return rest == 0


@kernel
def _fault_of_number(data, at):  # type: ignore[no-untyped-def]
    """Return what is wrong with a number at a place, and where; or where it ends."""
    end, start = data.shape[0], at
    if at < end and data[at] == _MINUS:
        at += 1
    digits = at
    at = _after_digits(data, at)
    n_whole = at - digits
    if n_whole == 0 or (n_whole > 1 and data[digits] == _ZERO):
        return MALFORMED, start
    is_whole = True
    if at < end and data[at] == _POINT:
        is_whole = False
        point = at
        at = _after_digits(data, at + 1)
        if at == point + 1:
            return MALFORMED, start
    last = at
    exponent = 0
    if at < end and (data[at] == 69 or data[at] == 101):
        is_whole = False
        at += 1
        sign = 1
        if at < end and (data[at] == _MINUS or data[at] == _PLUS):
            sign = -1 if data[at] == _MINUS else 1
            at += 1
        first = at
        at = _after_digits(data, at)
        if at == first:
            return MALFORMED, start
        for i in range(first, at):
            exponent = min(exponent * 10 + int(data[i]) - 48, _MAX_EXPONENT)
        exponent *= sign
    if is_whole:
        return (OUT_OF_RANGE if at - start > MAX_DIGITS else GOOD), at if at - start <= MAX_DIGITS else start
    if _is_too_large(data, digits, last, exponent + n_whole - 1):
        return OUT_OF_RANGE, start
    return GOOD, at


@kernel
def _fault_of_word(data, at, word):  # type: ignore[no-untyped-def]
    for i in range(word.shape[0]):
        if at + i >= data.shape[0] or data[at + i] != word[i]:
            return MALFORMED, at
    return GOOD, at + word.shape[0]


@kernel
def _after_space(data, at):  # type: ignore[no-untyped-def]
    while at < data.shape[0] and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@kernel
def _fault_of_scalar(data, at):  # type: ignore[no-untyped-def]
    """Return what is wrong with a value that is no list and no object, and where; or where it ends."""
    if data[at] == _QUOTE:
        return _fault_of_string(data, at + 1)
    if data[at] == _TRUE[0]:
        return _fault_of_word(data, at, _TRUE)
    if data[at] == _FALSE[0]:
        return _fault_of_word(data, at, _FALSE)
    if data[at] == _NULL[0]:
        return _fault_of_word(data, at, _NULL)
    return _fault_of_number(data, at)


@kernel
def _fault(data, stack):  # type: ignore[no-untyped-def]  # noqa: PLR0911, PLR0912
    """Return what is wrong with a value, and where; or GOOD. `stack` : the brackets that are open."""
    end, depth = data.shape[0], 0
    at = _after_space(data, 0)
    while True:
        # A value is to come, in an object behind its name.
        if depth and stack[depth - 1] == _OPEN:
            if at >= end or data[at] != _QUOTE:
                return MALFORMED, at
            kind, at = _fault_of_string(data, at + 1)
            if kind != GOOD:
                return kind, at
            at = _after_space(data, at)
            if at >= end or data[at] != _COLON:
                return MALFORMED, at
            at = _after_space(data, at + 1)
        if at >= end:
            return MALFORMED, at
        if data[at] == _OPEN or data[at] == _OPEN_LIST:
            if depth == stack.shape[0]:
                return MALFORMED, at
            stack[depth] = data[at]
            depth += 1
            at = _after_space(data, at + 1)
            if at < end and data[at] != stack[depth - 1] + 2:  # a bracket that closes is two behind the one that opens
                continue
        else:
            kind, at = _fault_of_scalar(data, at)
            if kind != GOOD:
                return kind, at
            at = _after_space(data, at)
        # Behind a value, or behind a bracket that is closed at once.
        while depth and at < end and data[at] == stack[depth - 1] + 2:
            depth -= 1
            at = _after_space(data, at + 1)
        if depth == 0:
            return (GOOD if at == end else MALFORMED), at
        if at >= end or data[at] != _COMMA:
            return MALFORMED, at
        at = _after_space(data, at + 1)
