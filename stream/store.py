"""How are the messages kept that wait for their labels? In arrays: one row each, and no object.

A row's id and text stand in one array of bytes, beside them the label that it was given and the ids of the labels that
said so, its scores in another. These two are only ever appended to; a row that leaves is dead, and when there is no
room left, what lives is moved together, and what rows point to into new arrays. So who holds an old one can read on in
it, in another thread too. A table of hashes finds rows by id; a hit is compared byte by byte. Its seeds are of this
process, so that nobody can send ids that collide: no outcome depends on them.
"""

import os
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.kernels import are_equal, copy, kernel

# Columns of a row: where its id begins, behind which its text stands; sizes are bytes. 0 or -1 marks what is not there.
AT, ID_SIZE, TEXT_SIZE, TIME_MS, WEIGHT, WINDOW, NEXT, STATE = range(8)
LABEL_AT, LABEL_SIZE, IDS_AT, IDS_SIZE, N_IDS, SCORES_AT, N_SCORES = range(8, 15)
N_COLUMNS: Final = 15
LIVE, CAME, SCORED = 1, 2, 4  # bits of STATE; above them stands the id's hash
STATE_SHIFT: Final = 8
LEAST: Final = 1 << 10  # rows
N_EARLY: Final = 1 << 18
# An entry of the table: 31 bits of the id's hash, 32 of its row's number.
FREE: Final = -1
HASH_SHIFT: Final = 32
ROW_BITS: Final = (1 << HASH_SHIFT) - 1
SPARE: Final = 3  # arrays have room for so many times what lives, so that it is moved seldom

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
_HALF: Final = np.uint64(32)
_BYTE: Final = np.uint64(8)
_HASH_BITS: Final = np.uint64((1 << 31) - 1)


@kernel
def hash_bytes(data, at, size, seeds):  # type: ignore[no-untyped-def]
    """Return a hash of some bytes, of 31 bits."""
    h = seeds[0] ^ np.uint64(size)
    multiplier = seeds[1]
    for start in range(0, size, 8):
        word = np.uint64(0)
        for i in range(start, min(start + 8, size)):
            word = (word << _BYTE) | np.uint64(data[at + i])
        h = (h ^ word) * multiplier
        h ^= h >> _HALF
    h = h * multiplier
    return np.int64((h ^ (h >> _HALF)) & _HASH_BITS)


@kernel
def find(table, rows, kept, h, data, at, size):  # type: ignore[no-untyped-def]
    """Return the row of an id, or -1."""
    mask = table.shape[0] - 1
    place = h & mask
    while table[place] != FREE:
        row = table[place] & ROW_BITS
        same = table[place] >> HASH_SHIFT == h and rows[row, ID_SIZE] == size
        if same and are_equal(data, at, kept, rows[row, AT], size):
            return row
        place = (place + 1) & mask
    return np.int64(-1)


@kernel
def put(table, h, row):  # type: ignore[no-untyped-def]
    """Enter a row that is not there."""
    mask = table.shape[0] - 1
    place = h & mask
    while table[place] != FREE:
        place = (place + 1) & mask
    table[place] = h << HASH_SHIFT | row


@kernel
def take_out(table, h, row):  # type: ignore[no-untyped-def]
    """Take a row out. What follows moves up, so that no look-up has to pass places that are free again."""
    mask = table.shape[0] - 1
    place = h & mask
    while table[place] & ROW_BITS != row:
        place = (place + 1) & mask
    free = place
    while True:
        place = (place + 1) & mask
        if table[place] == FREE:
            break
        home = (table[place] >> HASH_SHIFT) & mask
        if (place - home) & mask >= (place - free) & mask:
            table[free] = table[place]
            free = place
    table[free] = FREE


@kernel
def weigh(rows, stays, need):  # type: ignore[no-untyped-def]
    """Add up how many rows stay, their bytes and their scores."""
    for row in range(stays.shape[0]):
        if stays[row]:
            need[0] += 1
            need[1] += rows[row, ID_SIZE] + rows[row, TEXT_SIZE] + max(rows[row, LABEL_SIZE], 0) + rows[row, IDS_SIZE]
            need[2] += rows[row, N_SCORES]


@kernel
def move_bytes(rows, row, at, size, kept, to, end):  # type: ignore[no-untyped-def]
    """Copy what a row points to behind what was copied before; return the new end."""
    if size > 0:
        copy(kept[rows[row, at] : rows[row, at] + size], to[end:])
    rows[row, at] = end
    return end + max(size, 0)


@kernel
def move(rows, n_before, stays, new, table, kept, to_kept, scores, to_scores, used):  # type: ignore[no-untyped-def]
    """Move rows that stay to the front, where they are, and what they point to into other arrays.

    `new`, int64 [n_before], gets each row's new place, or -1.
    """
    n, n_bytes, n_scores = 0, 0, 0
    for row in range(n_before):
        new[row] = n if stays[row] else -1
        if not stays[row]:
            continue
        copy(rows[row], rows[n])
        n_bytes = move_bytes(rows, n, AT, rows[n, ID_SIZE] + rows[n, TEXT_SIZE], kept, to_kept, n_bytes)
        n_bytes = move_bytes(rows, n, LABEL_AT, rows[n, LABEL_SIZE], kept, to_kept, n_bytes)
        n_bytes = move_bytes(rows, n, IDS_AT, rows[n, IDS_SIZE], kept, to_kept, n_bytes)
        n_scores = move_bytes(rows, n, SCORES_AT, rows[n, N_SCORES], scores, to_scores, n_scores)
        n += 1
    for row in range(n):
        if rows[row, NEXT] >= 0:
            rows[row, NEXT] = new[rows[row, NEXT]]
    for place in range(table.shape[0]):
        if table[place] != FREE:
            row = table[place] & ROW_BITS
            table[place] = (table[place] - row) | new[row]
    used[0], used[1], used[2] = n, n_bytes, n_scores


@kernel
def remember(rows, scores, which, found, widths):  # type: ignore[no-untyped-def]
    """Keep scores with their rows, as many of each as there were labels."""
    for i in range(which.shape[0]):
        row = which[i]
        start = rows[row, SCORES_AT]
        for label in range(min(widths[i], rows[row, N_SCORES])):
            scores[start + label] = found[i, label]
        rows[row, STATE] |= SCORED


@kernel
def recall(rows, scores, which, found):  # type: ignore[no-untyped-def]
    """Write what was kept of each row, behind it zeros."""
    for i in range(which.shape[0]):
        row = which[i]
        start = rows[row, SCORES_AT]
        n = rows[row, N_SCORES] if rows[row, STATE] & SCORED else 0
        for label in range(found.shape[1]):
            found[i, label] = scores[start + label] if label < n else np.float32(0)


class Store:
    """Rows, and a table that finds them. One thread changes it.

    Attributes
    ----------
    rows : int64 [room, N_COLUMNS]
    kept : uint8, ids, texts, labels
    scores : float32
    used : int64 [3], how much of these three is
    heads : int64 [n_windows, ...], what a caller keeps for each window; its columns FIRST and LAST name rows
    pending : arrays of rows that someone will ask for; kept up when rows move
    """

    def __init__(self) -> None:
        self.seeds = np.frombuffer(os.urandom(16), np.uint64) | np.uint64(1)
        self.early: NDArray[np.uint16] = np.zeros(N_EARLY, np.uint16)  # how many waiting labels have such a hash
        self.pending: list[Ints] = []
        self.clear()

    def clear(self) -> None:
        """Drop everything."""
        self.rows: Ints = np.zeros((LEAST, N_COLUMNS), np.int64)
        self.kept: Bytes = np.zeros(64 * LEAST, np.uint8)
        self.scores: NDArray[np.float32] = np.zeros(2 * LEAST, np.float32)
        self.table: Ints = _table(LEAST)
        self.used: Ints = np.zeros(3, np.int64)
        self.early[:] = 0

    def find(self, key: bytes) -> int:
        """Return the row of an id, or -1."""
        data = np.frombuffer(key, np.uint8)
        return int(find(self.table, self.rows, self.kept, self.hash(data), data, 0, len(data)))

    def hash(self, data: Bytes) -> int:
        """Return the hash of an id."""
        return int(hash_bytes(data, 0, len(data), self.seeds))

    def append(self, key: bytes, text: bytes, n_scores: int, values: dict[int, int]) -> int:
        """Append a row with these values of columns, and return it."""
        self.ensure(1, len(key) + len(text), n_scores)
        row = int(self.used[0])
        self.rows[row] = 0
        self.rows[row, [AT, ID_SIZE, TEXT_SIZE, LABEL_SIZE, NEXT]] = 0, len(key), len(text), -1, -1
        for column, value in values.items():
            self.rows[row, column] = value
        self.rows[row, AT] = self.keep(key + text)
        self.reserve(row, n_scores)
        self.used[0] += 1
        h = self.hash(np.frombuffer(key, np.uint8))
        self.rows[row, STATE] |= h << STATE_SHIFT
        put(self.table, h, row)
        return row

    def keep(self, data: bytes) -> int:
        """Append bytes and return where they begin."""
        self.ensure(0, len(data), 0)
        at = int(self.used[1])
        self.kept[at : at + len(data)] = np.frombuffer(data, np.uint8)
        self.used[1] += len(data)
        return at

    def reserve(self, row: int, n_scores: int) -> None:
        """Make room for a row's scores."""
        self.ensure(0, 0, n_scores)
        self.rows[row, [SCORES_AT, N_SCORES]] = self.used[2], n_scores
        self.used[2] += n_scores

    def read(self, at: int, size: int) -> bytes:
        """Return bytes that were kept."""
        return self.kept[at : at + size].tobytes()

    def ensure(self, n_rows: int, n_bytes: int, n_scores: int) -> None:
        """Make room for so much more, with everything in its place."""
        need = self.used + np.array((n_rows, n_bytes, n_scores))
        if need[0] > len(self.rows):
            self._resize(2 * int(need[0]))
        if need[1] > len(self.kept):
            self.kept = _longer(self.kept, 2 * int(need[1]))
        if need[2] > len(self.scores):
            self.scores = _longer(self.scores, 2 * int(need[2]))

    def make_room(self, n_rows: int, n_bytes: int, n_scores: int, heads: Sequence[Ints]) -> None:
        """The same, but rows may move: of those that are dead only the pending ones stay.

        Parameters
        ----------
        heads : views of whatever names rows (-1: none), changed
        """
        more = (n_rows, n_bytes, n_scores)
        if np.all(self.used + more <= (len(self.rows), len(self.kept), len(self.scores))):
            return
        rows, n = self.rows, int(self.used[0])
        stays = (rows[:n, STATE] & LIVE).astype(np.bool_)
        for which in self.pending:
            stays[which[which >= 0]] = True
        need = np.array(more)
        weigh(rows, stays, need)
        kept, scores = self.kept, self.scores
        self.kept = np.empty(max(64 * LEAST, SPARE * need[1]), np.uint8)
        self.scores = np.empty(max(2 * LEAST, SPARE * need[2]), np.float32)
        new: Ints = np.empty(n, np.int64)
        move(rows, n, stays, new, self.table, kept, self.kept, scores, self.scores, self.used)
        for which in [*self.pending, *heads]:
            there = which >= 0
            which[there] = new[which[there]]
        room = max(LEAST, SPARE * int(need[0]))
        if not need[0] <= len(rows) // 2 or len(rows) > 4 * room:
            self._resize(room)

    def _resize(self, room: int) -> None:
        self.rows = _longer(self.rows[: self.used[0]], room)
        self.table = _table(room)
        enter(self.table, self.rows, int(self.used[0]))


@kernel
def enter(table, rows, n):  # type: ignore[no-untyped-def]
    """Enter all rows that live into an empty table."""
    for row in range(n):
        if rows[row, STATE] & LIVE:
            put(table, rows[row, STATE] >> STATE_SHIFT, row)


def _table(n_rows: int) -> Ints:
    """Return an empty table for so many rows, at most three quarters full."""
    return np.full(1 << (4 * n_rows // 3).bit_length(), FREE, np.int64)


def _longer(array: NDArray[Any], room: int) -> NDArray[Any]:
    longer = np.empty((room, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer
