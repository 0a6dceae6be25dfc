"""How are many texts handed on without a string for each? As bytes, decoded where someone asks for one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.kernels import kernel

Ints = NDArray[np.int64]


class Texts(Sequence[str]):
    """Texts in UTF-8 in one array. Whoever has it may read it in any thread: nothing in it changes.

    Parameters
    ----------
    data : uint8
    starts, sizes, chars : int64 [n], where each text begins, its bytes and its characters
    """

    __slots__ = ("_chars", "_data", "_sizes", "_starts")

    def __init__(self, data: NDArray[np.uint8], starts: Ints, sizes: Ints, chars: Ints) -> None:
        self._data, self._starts, self._sizes, self._chars = data, starts, sizes, chars

    def __len__(self) -> int:
        """Return how many texts these are."""
        return len(self._starts)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return one text, or some of them."""
        if isinstance(index, slice):
            return Texts(self._data, self._starts[index], self._sizes[index], self._chars[index])
        start = self._starts[index]
        return self._data[start : start + self._sizes[index]].tobytes().decode()

    def codepoints(self, max_chars: int, padding: int) -> tuple[NDArray[np.uint32], Ints]:
        """Return the code points of all texts, each cut at max_chars, and where each text's begin; zeros follow."""
        starts = np.zeros(len(self) + 1, np.int64)
        np.cumsum(np.minimum(self._chars, max_chars), out=starts[1:])
        codes = np.empty(starts[-1] + padding, np.uint32)
        decode_texts(self._data, self._starts, starts, codes)
        codes.flags.writeable = False
        return codes, starts


@kernel
def decode_texts(data, places, starts, codes):  # type: ignore[no-untyped-def]
    """Write the code points of texts that are known to be UTF-8."""
    for text in range(places.shape[0]):
        at = places[text]
        to, end = starts[text], starts[text + 1]
        while to < end:
            first = np.uint32(data[at])
            if first < 0x80:
                codes[to] = first
                at += 1
            else:
                more = 1 if first < 0xE0 else 2 if first < 0xF0 else 3
                code = first & np.uint32(0x3F >> more)
                for i in range(more):
                    code = (code << np.uint32(6)) | np.uint32(data[at + 1 + i] & np.uint8(0x3F))
                codes[to] = code
                at += 1 + more
            to += 1
    codes[starts[-1] :] = 0
