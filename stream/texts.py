"""How do texts get to the kernels?

As bytes: the UTF-8 of all texts of a batch, one after another, and where each begins. So what came as UTF-8 (a record's
value, a request's body) goes in without ever being a `str`, and ASCII is read 64 characters at a time.
"""

from collections.abc import Sequence
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from driftline.stream.kernels import copy, kernel

END: Final = "\0"  # of a text with fields or a vector (wire/fielded.py, wire/vector.py), and of no other
PADDING: Final = 160  # bytes behind the last text: kernels read past a text's end, and look at none of it


class Texts(Sequence[str]):
    """A batch of texts as the kernels read them, and a sequence of strings to whoever has no kernel.

    Attributes
    ----------
    codes : uint8 [starts[n] + PADDING or more], UTF-8. Bytes that are no UTF-8 give features of no meaning, no more;
        what stands behind the last text is not looked at.
    starts : int64 [n + 1], where each text begins; it ends where the next one begins
    is_ascii : whether all are known to be ASCII
    """

    is_ascii = False

    def __init__(self, codes: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        if len(starts) == 0 or starts[0] < 0 or (starts[1:] < starts[:-1]).any() or starts[-1] + PADDING > len(codes):
            raise ValueError(
                "`starts` must rise, from 0 or more, and leave PADDING bytes of `codes` behind the last text"
            )
        self.codes, self.starts = codes, starts

    @classmethod
    def of(cls, texts: Sequence[str], max_chars: int | None = None) -> "Texts":
        """Return texts as they are, or encode strings: of ASCII the first `max_chars` characters, where that is given.

        Of others all: how many characters they have is known only when they are in one form (text/normal.py).

        Half of a surrogate pair, which JSON can spell and UTF-8 refuses, gets the three bytes that it would have.
        """
        if isinstance(texts, Texts):
            return texts
        sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        if max_chars is not None and len(texts) and sizes.max() > max_chars:
            texts = [text[:max_chars] if text.isascii() and text[-1:] != END else text for text in texts]
            sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        is_ascii = all(map(str.isascii, texts))
        if is_ascii:
            codes = "".join((*texts, "\0" * PADDING)).encode()
        else:
            parts = [text.encode("utf-8", "surrogatepass") for text in texts]
            codes = b"".join((*parts, bytes(PADDING)))
            sizes = np.fromiter(map(len, parts), np.int64, len(parts))
        starts = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        made = cls.__new__(cls)
        made.codes, made.starts, made.is_ascii = np.frombuffer(codes, np.uint8), starts, is_ascii
        return made

    @classmethod
    def gathered(cls, data: NDArray[np.uint8], places: NDArray[np.int64], sizes: NDArray[np.int64]) -> "Texts":
        """Return texts that lie in UTF-8 at these places of an array, in any order, with these bytes each."""
        starts = np.zeros(len(places) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        codes = np.empty(starts[-1] + PADDING, np.uint8)
        gather(data, places, starts, codes)
        codes.flags.writeable = False  # as those of strings: the kernels are compiled for such
        return cls(codes, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return self.codes[self.starts[at] : self.starts[at + 1]].tobytes().decode("utf-8", "surrogatepass")


@kernel
def gather(data, places, starts, codes):  # type: ignore[no-untyped-def]
    """Copy the bytes of texts behind one another, and zeros behind the last."""
    for text in range(places.shape[0]):
        size = starts[text + 1] - starts[text]
        copy(data[places[text] : places[text] + size], codes[starts[text] :])
    codes[starts[-1] :] = 0
