r"""How does a vector of a text travel with it? Behind its fields, in the same string.

Who sends a text may have a vector of it, from whatever model. Whoever keeps the text, replays or forgets it does so
with its vector; so it stands where fields do (fielded.py), as the value of the one that has no name, which is the last:

    win a prize\0\0Zi0AtAk8v\0               win a prize\0country\0NLs\0\0Zi0AtAk8v\0

its numbers as float16, little-endian, in base64 without padding, then VECTOR and END. No value of a field ends so, and
no text has END: a text has a vector if and only if it ends with these two. What comes before is as long as it was, and
says the same; a vector is of length 1, and so is what is read of it, on every machine the same bits.
"""

import base64
import binascii
import math
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from driftline.stream.errors import BadRecord
from driftline.stream.wire.fields import mend_escapes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

END: Final = "\0"
VECTOR: Final = "v"
BEHIND: Final = VECTOR + END
MIN_NUMBERS, MAX_NUMBERS = 2, 2048
_AT: Final = " - at `$.vector`"
ROUNDED: Final = 2e-3  # how far from 1 the squares of a vector may be that is of length 1: each is off by 2**-10
HALF_BITS, DIGIT_BITS = 16, 6
_BYTES: Final = 4  # of a number as it is sent in base64

_NUMBERS: Final = msgspec.json.Decoder(list[float])
_STRING: Final = msgspec.json.Decoder(str)
_PLACE: Final = re.compile(r"\$\[(\d+)\]")


def with_vector(whole: str, vector: "NDArray[np.floating[Any]]") -> str:
    """Return a text, with its fields or without, with a vector, as one string; in the place of another one, if any.

    Raises
    ------
    BadRecord : it is none: too few or too many numbers, one that is not finite, or all of them 0.
    """
    whole = without_vector(whole)
    return whole + ("" if whole[-1:] == END else END) + suffix(vector)


def with_vector_bytes(whole: bytes, vector: "NDArray[np.floating[Any]]") -> bytes:
    """Do what `with_vector` does for a text in UTF-8 that has no vector."""
    return whole + (b"" if whole[-1:] == b"\0" else b"\0") + suffix(vector).encode()


def suffix(vector: "NDArray[np.floating[Any]]") -> str:
    """Return what stands for a vector behind a text that ends with END: its empty name, its numbers. Raises BadRecord.

    What was read of a text (`vector_of`) gives the same again.
    """
    return END + base64.b64encode(_scaled(vector).tobytes()).decode().rstrip("=") + BEHIND


def has_vector(whole: str) -> bool:
    """Tell whether a text has a vector."""
    return _name_end(whole) > 0


def _name_end(whole: str) -> int:
    """Return where the name of a text's vector ends, which is empty; 0 where it has none."""
    place = whole.rfind(END, 0, -1) if whole[-2:] == BEHIND else 0
    return place if place > 0 and whole[place - 1] == END else 0


def without_vector(whole: str) -> str:
    """Return a text without its vector, with its fields."""
    name_end = _name_end(whole)
    if not name_end:
        return whole
    return whole[: name_end - 1] if whole.find(END) == name_end - 1 else whole[:name_end]


def without_vector_bytes(whole: bytes) -> bytes:
    """Do the same for a text in UTF-8."""
    return without_vector(whole.decode()).encode() if whole[-2:] == BEHIND.encode() else whole


def vector_of(whole: str) -> "NDArray[np.float16] | None":
    """Return the vector that a text has, or None."""
    import numpy as np  # noqa: PLC0415  (clients need this file's other names, and have no numpy)

    n = size_of(whole)
    if not n:
        return None
    digits = whole[whole.rfind(END, 0, -1) + 1 : -2]
    try:
        return np.frombuffer(_decoded(digits), "<f2", n).astype(np.float16)
    except (binascii.Error, ValueError):
        return None  # nothing that `with_vector` has made


def sent_again(whole: str) -> str | None:
    """Return the vector that a text has as `read_vector` takes it, in base64, from which it becomes the same again."""
    vector = vector_of(whole)
    return None if vector is None else base64.b64encode(vector.astype("<f4").tobytes()).decode()


def size_of(whole: str) -> int:
    """Return how many numbers the vector of a text has; 0 where it has none."""
    name_end = _name_end(whole)
    return (len(whole) - len(BEHIND) - (name_end + 1)) * DIGIT_BITS // HALF_BITS if name_end else 0


def digits_of(n: int) -> int:
    """Return how many characters of base64 n numbers are."""
    return -(-n * HALF_BITS // DIGIT_BITS)


def read_vector(raw: msgspec.Raw) -> "NDArray[np.float64]":
    """Return the numbers of a vector as it stands in a record: a list, or base64 of little-endian float32.

    Raises
    ------
    BadRecord : it is neither; `suffix` says whether its numbers are a vector.
    """
    import numpy as np  # noqa: PLC0415  (as above)

    value = bytes(raw)
    if value[:1] == b'"':
        return numbers_of(_STRING.decode(mend_escapes(value)))
    if value[:1] != b"[":
        raise BadRecord("wrong-type", f"vector must be a list of numbers, or a string of base64{_AT}")
    try:
        return np.array(_NUMBERS.decode(value), np.float64)
    except (ValueError, RecursionError) as error:
        place = _PLACE.search(str(error))
        which = f"vector[{place[1]}]" if place else "vector"
        if "out of range" in str(error):
            raise BadRecord("out-of-range", f"{which} is no number of 64 bits{_AT}") from None
        raise BadRecord("wrong-type", f"{which} is no number{_AT}") from None


def numbers_of(value: Any) -> "NDArray[np.float64]":
    """Return the numbers of a vector that is a string as above, or a sequence. Raises BadRecord."""
    import numpy as np  # noqa: PLC0415  (as above)

    if isinstance(value, str):
        return np.frombuffer(_unpacked(value), "<f4").astype(np.float64)
    for place, each in enumerate(value):
        if isinstance(each, bool | np.bool_) or not isinstance(each, int | float | np.floating | np.integer):
            raise BadRecord("wrong-type", f"vector[{place}] is no number{_AT}")
    try:
        return np.array(value, np.float64)
    except OverflowError:
        raise BadRecord("out-of-range", f"vector has a number that is no number of 64 bits{_AT}") from None


def _scaled(vector: "NDArray[np.floating[Any]]") -> "NDArray[np.float16]":
    """Return a vector of length 1. Each step is exact, or rounded in the one way that IEEE 754 has."""
    import numpy as np  # noqa: PLC0415  (as above)

    n = vector.size
    if vector.ndim != 1 or not MIN_NUMBERS <= n <= MAX_NUMBERS:
        many = f"{MIN_NUMBERS} to {MAX_NUMBERS:,}"
        raise BadRecord("out-of-range", f"vector has {n:,} numbers, it must have {many}{_AT}")
    numbers = vector.astype(np.float64)
    finite = np.isfinite(numbers)
    if not finite.all():
        raise BadRecord("out-of-range", f"vector[{int(finite.argmin())}] is not finite{_AT}")
    largest = np.abs(numbers).max()
    if largest == 0:
        raise BadRecord("out-of-range", f"vector has {n:,} numbers that are all 0, so it says nothing{_AT}")
    if largest < 1 + ROUNDED:
        halves = numbers.astype("<f2")
        if (halves == numbers).all() and abs(_squares(numbers) - 1) < ROUNDED:
            return halves  # what was scaled before: rounded again, it might be another one
    numbers /= largest
    return (numbers / math.sqrt(_squares(numbers))).astype("<f2")


def _squares(numbers: "NDArray[np.float64]") -> float:
    return math.fsum((numbers * numbers).tolist())  # numpy's sum is another one on another machine


def _decoded(text: str) -> bytes:
    """Return the bytes of base64, padded or not. Raises binascii.Error, ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _unpacked(text: str) -> bytes:
    """Return the bytes of base64 that was sent. Raises BadRecord."""
    try:
        found = _decoded(text)
    except (binascii.Error, ValueError):
        raise BadRecord("wrong-type", f"vector is a string, but no base64 (of float32, little-endian){_AT}") from None
    if len(found) % _BYTES:
        raise BadRecord("wrong-type", f"vector has {len(found):,} bytes in base64, which are no float32s of 4{_AT}")
    return found
