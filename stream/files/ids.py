"""Is what a file calls an id one? The same id with another text is none.

A column called `id` may hold a customer's number, and messages of one number would be taken for one message. So the
texts of ids are remembered, as hashes: what came within the last million or so of different ids is known again, in
memory of a fixed size, whatever the file's.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

import numpy as np

from driftline.stream.files.reader import Row
from driftline.stream.wire.vector import without_vector

LOOKED_AT: Final = 10_000  # rows of a file before an id column that nobody named is believed
_SETS: Final = 1 << 18
_WAYS: Final = 4


class Ids:
    """The texts that ids came with: 16 MiB. The oldest of those that share a place is forgotten."""

    def __init__(self) -> None:
        self._known = np.zeros((_SETS, _WAYS, 2), np.uint64)
        self._next = np.zeros(_SETS, np.uint8)

    def is_other(self, id: str, text: str) -> bool:
        """Whether an id came before with another text; else it is known from now on."""
        key, content = _hash(id), _hash(without_vector(text))
        place = key % _SETS
        ways = self._known[place]
        for way in range(_WAYS):
            if int(ways[way, 0]) == key:
                return int(ways[way, 1]) != content
        ways[self._next[place]] = key, content
        self._next[place] = (self._next[place] + 1) % _WAYS
        return False


def first_repeated(rows: Iterable[Row]) -> Row | None:
    """Return the first of the LOOKED_AT first rows whose id came before with another text."""
    ids = Ids()
    return next((row for row in islice(rows, LOOKED_AT) if row.id and ids.is_other(row.id, row.text)), None)


def with_sound_ids(rows: Iterable[Row], on_other: Callable[[Row], Row | None]) -> Iterator[Row]:
    """Give rows; one whose id came before with another text as what `on_other` makes of it, None for nothing."""
    ids = Ids()
    for row in rows:
        if row.id and ids.is_other(row.id, row.text):
            if (sound := on_other(row)) is not None:
                yield sound
        else:
            yield row


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") or 1
