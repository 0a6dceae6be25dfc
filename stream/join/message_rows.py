"""How are the messages kept that wait for their labels? In arrays: one row each, and no object.

A row's id and text stand in one array of bytes, its scores in another. A row does not change; what becomes of it, the
label that it was given and the feedback that said so, is a note, and each change is another note behind the last. One
word a row, `now`, says which note holds, and whether the row lives. All but these words (and NEXT, HASH) is only ever
appended to; a row that leaves is dead, and when there is no room left, what lives is moved into new arrays. So who has
a copy of the words and holds the arrays can read on in them, in another thread too (join/window_saved.py).

A table of hashes finds rows by id; a hit is compared byte by byte. Where several texts came with one id, that finds the
row of the message that came last; the others are ASIDE, and are found by id and text. The hashes have a secret of this
process (siphash.py), so that nobody can send ids that collide: no outcome depends on them. Should a look-up still pass
more than LONGEST places, the join gives the store another secret.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.stream.kernels import are_equal, copy, inlined, kernel
from driftline.stream.siphash import new_secret, siphash
from driftline.stream.wire.vector import BEHIND, VECTOR, without_vector_bytes


class _Row(NamedTuple):
    """Columns of a row."""

    AT: int = 0  # where its id begins; behind it stands its text
    ID_SIZE: int = 1  # bytes
    TEXT_SIZE: int = 2  # bytes
    TIME_MS: int = 3
    WINDOW: int = 4
    NEXT: int = 5  # row of the same window, -1: none
    HASH: int = 6
    SCORES_AT: int = 7  # this and the next may change until the row is SCORED
    N_SCORES: int = 8


class _Note(NamedTuple):
    """Columns of a note; 0 or -1 marks what is not there."""

    LABEL_AT: int = 0
    LABEL_SIZE: int = 1  # bytes
    LABEL_WEIGHT: int = 2  # the bits of a float32, 0 where it is not known
    WORDS_AT: int = 3  # what feedback with an id of its own said, see join/feedback_said.py
    WORDS_SIZE: int = 4  # bytes
    N_WORDS: int = 5


class _Bit(NamedTuple):
    """Bits of a row's word; above them stands its note's number."""

    LIVE: int = 1
    CAME: int = 2
    SCORED: int = 4
    SHARED: int = 8  # other texts of its id are there, ASIDE
    ASIDE: int = 16


class _Used(NamedTuple):
    """What `used` counts."""

    ROWS: int = 0
    BYTES: int = 1
    SCORES: int = 2
    NOTES: int = 3


ROW, NOTE, BIT, USED = _Row(), _Note(), _Bit(), _Used()
NO_NOTE: Final = _Note(0, -1, 0, 0, 0, 0)  # the first note: of all rows that have none
BITS: Final = sum(BIT)
NOTE_SHIFT: Final = 5
LEAST: Final = 1 << 10  # rows
N_EARLY: Final = 1 << 18
# An entry of the table: 30 bits of the hash of what finds its row, whether that is the id and the text, 32 bits of its
# row's number.
FREE: Final = -1
ASIDE_HASH: Final = 1 << 30
HASH_SHIFT: Final = 32
ROW_BITS: Final = (1 << HASH_SHIFT) - 1
# Places of the table that a look-up may pass. Where it is three quarters full, of hashes that nobody chose, one look-up
# in 10**16 passes so many: runs of n places are about as rare as exp(-n * (0.75 - 1 - ln 0.75)) (Knuth 6.4).
LONGEST: Final = 1 << 10
SPARE: Final = 3  # arrays have room for so many times what lives, so that it is moved seldom
# What a row takes in memory: so many bytes for each byte that lives (SPARE, and once more while it is moved), and the
# same for its columns, its note and its places in the table. See test_what_is_counted_is_what_is_taken.
ROOM: Final = SPARE + 1
VECTOR_KIND: Final = np.uint8(ord(VECTOR))
ENTRY_BYTES: Final = 640

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Arrays = tuple[Ints, Ints, Ints, Bytes, NDArray[np.float32]]  # rows, now, notes, kept, scores
_HASH_BITS: Final = np.uint64((1 << 30) - 1)


@kernel
def hash_bytes(data, at, size, secret):  # type: ignore[no-untyped-def]
    """Return a hash of some bytes, of 30 bits."""
    return np.int64(siphash(data, at, size, secret) & _HASH_BITS)


@kernel
def find(table, rows, kept, h, data, at, size):  # type: ignore[no-untyped-def]
    """Return the row of an id, or -1; and how many places were passed."""
    mask = table.shape[0] - 1
    place = h & mask
    while table[place] != FREE:
        row = table[place] & ROW_BITS
        same = table[place] >> HASH_SHIFT == h and rows[row, ROW.ID_SIZE] == size
        if same and are_equal(data, at, kept, rows[row, ROW.AT], size):
            return row, (place - h) & mask
        place = (place + 1) & mask
    return np.int64(-1), (place - h) & mask


@kernel
def bare_size(data, at, size):  # type: ignore[no-untyped-def]
    """Return how many bytes of a text are not its vector, which says nothing of whether two are the same; as
    `without_vector` does (wire/vector.py).
    """
    end = at + size - len(BEHIND)
    if end < at or data[end] != VECTOR_KIND or data[end + 1] != 0:
        return size
    while end > at and data[end - 1] != 0:
        end -= 1
    if end - 2 < at or data[end - 2] != 0:  # before its name, which is empty
        return size
    for i in range(at, end - 2):
        if data[i] == 0:
            return end - 1 - at  # with its fields
    return end - 2 - at


@kernel
def find_whole(table, rows, kept, h, data, size, n):  # type: ignore[no-untyped-def]
    """Return the row, set aside, of an id of so many bytes and a text behind it, n bytes together, as `find` does.

    The text without its vector.
    """
    mask = table.shape[0] - 1
    place = h & mask
    while table[place] != FREE:
        row = table[place] & ROW_BITS
        at = rows[row, ROW.AT]
        same = table[place] >> HASH_SHIFT == h and rows[row, ROW.ID_SIZE] == size
        same = same and bare_size(kept, at + size, rows[row, ROW.TEXT_SIZE]) == n - size
        if same and are_equal(data, 0, kept, at, n):
            return row, (place - h) & mask
        place = (place + 1) & mask
    return np.int64(-1), (place - h) & mask


@inlined
def weight_of(row, note):  # type: ignore[no-untyped-def]
    """Return what a row takes in memory, with its note: bytes."""
    n = row[ROW.ID_SIZE] + row[ROW.TEXT_SIZE] + max(note[NOTE.LABEL_SIZE], 0) + note[NOTE.WORDS_SIZE]
    return ENTRY_BYTES + ROOM * (n + 4 * row[ROW.N_SCORES])


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
def add_note(now, notes, used, row):  # type: ignore[no-untyped-def]
    """Append a copy of a row's note, to be changed before anyone else looks; return its number."""
    note = used[USED.NOTES]
    copy(notes[now[row] >> NOTE_SHIFT], notes[note])
    now[row] = note << NOTE_SHIFT | now[row] & BITS
    used[USED.NOTES] += 1
    return note


@kernel
def weigh(rows, now, notes, stays, need):  # type: ignore[no-untyped-def]
    """Add up how many rows stay, their bytes, their scores and their notes."""
    for row in range(stays.shape[0]):
        if stays[row]:
            note = notes[now[row] >> NOTE_SHIFT]
            need[USED.ROWS] += 1
            need[USED.BYTES] += (
                rows[row, ROW.ID_SIZE]
                + rows[row, ROW.TEXT_SIZE]
                + max(note[NOTE.LABEL_SIZE], 0)
                + note[NOTE.WORDS_SIZE]
            )
            need[USED.SCORES] += rows[row, ROW.N_SCORES]
            need[USED.NOTES] += 1


@kernel
def move_bytes(rows, row, at, size, kept, to, end):  # type: ignore[no-untyped-def]
    """Copy what a row points to behind what was copied before; return the new end."""
    if size > 0:
        copy(kept[rows[row, at] : rows[row, at] + size], to[end:])
    rows[row, at] = end
    return end + max(size, 0)


@kernel
def move(old, fresh, stays, places, used):  # type: ignore[no-untyped-def]
    """Move rows that stay, and what belongs to them, into other arrays.

    Parameters
    ----------
    old, fresh : (rows, now, notes, kept, scores), of which `fresh` is changed; its first note is there
    stays : bool [n_before]
    places : int64 [n_before], gets each row's new place, or -1
    used : changed
    """
    rows, now, notes, kept, scores = old
    to_rows, to_now, to_notes, to_kept, to_scores = fresh
    n, n_bytes, n_scores, n_notes = 0, 0, 0, 1
    for row in range(stays.shape[0]):
        places[row] = n if stays[row] else -1
        if not stays[row]:
            continue
        copy(rows[row], to_rows[n])
        n_bytes = move_bytes(
            to_rows, n, ROW.AT, rows[row, ROW.ID_SIZE] + rows[row, ROW.TEXT_SIZE], kept, to_kept, n_bytes
        )
        n_scores = move_bytes(to_rows, n, ROW.SCORES_AT, rows[row, ROW.N_SCORES], scores, to_scores, n_scores)
        to_now[n] = now[row] & BITS
        note = now[row] >> NOTE_SHIFT
        if note > 0:
            copy(notes[note], to_notes[n_notes])
            n_bytes = move_bytes(to_notes, n_notes, NOTE.LABEL_AT, notes[note, NOTE.LABEL_SIZE], kept, to_kept, n_bytes)
            n_bytes = move_bytes(to_notes, n_notes, NOTE.WORDS_AT, notes[note, NOTE.WORDS_SIZE], kept, to_kept, n_bytes)
            to_now[n] |= n_notes << NOTE_SHIFT
            n_notes += 1
        n += 1
    for row in range(n):
        if to_rows[row, ROW.NEXT] >= 0:
            to_rows[row, ROW.NEXT] = places[to_rows[row, ROW.NEXT]]
    used[USED.ROWS], used[USED.BYTES], used[USED.SCORES], used[USED.NOTES] = n, n_bytes, n_scores, n_notes


@kernel
def remember(rows, now, scores, which, found, widths):  # type: ignore[no-untyped-def]
    """Keep scores with their rows, as many of each as there were labels."""
    for i in range(which.shape[0]):
        row = which[i]
        start = rows[row, ROW.SCORES_AT]
        for label in range(min(widths[i], rows[row, ROW.N_SCORES])):
            scores[start + label] = found[i, label]
        now[row] |= BIT.SCORED


@kernel
def recall(rows, now, scores, which, found):  # type: ignore[no-untyped-def]
    """Write what was kept of each row, behind it zeros."""
    for i in range(which.shape[0]):
        row = which[i]
        start = rows[row, ROW.SCORES_AT]
        n = rows[row, ROW.N_SCORES] if now[row] & BIT.SCORED else 0
        for label in range(found.shape[1]):
            found[i, label] = scores[start + label] if label < n else np.float32(0)


class MessageStore:
    """Rows, and a table that finds them. One thread changes it.

    Attributes
    ----------
    rows : int64 [room, len(ROW)]
    now : int64 [room], for each row its note's number and LIVE, CAME, SCORED, SHARED, ASIDE
    notes : int64 [room, len(NOTE)]
    kept : uint8, ids, texts, labels
    scores : float32
    used : int64 [4], how much is of rows, bytes, scores and notes
    heads : int64 [n_windows, ...], what a caller keeps for each window; its columns FIRST and LAST name rows
    pending : arrays of rows that someone will ask for; kept up when rows move
    secret : of the hashes
    passed : the most places that a look-up had to pass since the secret is this one
    """

    def __init__(self) -> None:
        self.secret, self.passed = new_secret(), 0
        self.early: NDArray[np.uint16] = np.zeros(N_EARLY, np.uint16)  # ids with such a hash that are for the rules
        self.pending: list[Ints] = []
        self.clear()

    def clear(self) -> None:
        """Drop everything."""
        self.rows, self.now, self.notes, self.kept, self.scores = _fresh(0, 0, 0, 0)
        self.table: Ints = np.full(_table_size(LEAST), FREE, np.int64)
        self.used: Ints = np.array([0, 0, 0, 1])
        self.early[:] = 0

    def find(self, key: bytes) -> int:
        """Return the row of an id, or -1."""
        data = np.frombuffer(key, np.uint8)
        return self._found(*find(self.table, self.rows, self.kept, self.hash(data), data, 0, len(data)))

    def find_aside(self, key: bytes, text: bytes) -> int:
        """Return the row of an id and a text that was set aside, or -1."""
        data = np.frombuffer(key + without_vector_bytes(text), np.uint8)
        h = self.hash(data) | ASIDE_HASH
        return self._found(*find_whole(self.table, self.rows, self.kept, h, data, len(key), len(data)))

    def _found(self, row: int, passed: int) -> int:
        self.passed = max(self.passed, passed)
        return row

    def hash(self, data: Bytes) -> int:
        """Return the hash of an id, or of an id and a text."""
        return int(hash_bytes(data, 0, len(data), self.secret))

    def change_secret(self) -> None:
        """Hash all rows anew; O(rows). Rows stay where they are; what else was hashed, `early` too, is the caller's."""
        self.secret, self.passed = new_secret(), 0
        hash_rows(self.rows, self.now, self.kept, int(self.used[USED.ROWS]), self.secret)
        self._enter()

    def set_bit(self, row: int, bit: int, *, on: bool) -> None:
        """Change a bit of a row's word."""
        self.now[row] = self.now[row] | bit if on else self.now[row] & ~bit

    def set_aside(self, row: int, *, aside: bool) -> None:
        """Have a row be found by its id and text, or again by its id alone."""
        take_out(self.table, self.rows[row, ROW.HASH], row)
        self.set_bit(row, BIT.ASIDE, on=aside)
        at, key_size, text_size = self.rows[row, [ROW.AT, ROW.ID_SIZE, ROW.TEXT_SIZE]].tolist()
        text = self.read(at + key_size, text_size) if aside else b""
        h = self.hash(self.kept[at : at + key_size + len(without_vector_bytes(text))])
        self.rows[row, ROW.HASH] = h | ASIDE_HASH if aside else h
        put(self.table, self.rows[row, ROW.HASH], row)

    def append(self, key: bytes, text: bytes, n_scores: int, values: dict[int, int], bits: int) -> int:
        """Append a row with these values of columns, and these bits of its word, and return it."""
        self.ensure(1, len(key) + len(text), n_scores)
        row = int(self.used[USED.ROWS])
        h = self.hash(np.frombuffer(key + without_vector_bytes(text) if bits & BIT.ASIDE else key, np.uint8))
        h |= ASIDE_HASH if bits & BIT.ASIDE else 0
        self.rows[row] = 0
        for column, value in {
            ROW.ID_SIZE: len(key),
            ROW.TEXT_SIZE: len(text),
            ROW.NEXT: -1,
            ROW.HASH: h,
            **values,
        }.items():
            self.rows[row, column] = value
        self.rows[row, ROW.AT] = self.keep(key + text)
        self.now[row] = bits
        self.reserve(row, n_scores)
        self.used[USED.ROWS] += 1
        put(self.table, h, row)
        return row

    def note_of(self, row: int) -> Ints:
        """Return the note that holds of a row; only to be read."""
        note: Ints = self.notes[self.now[row] >> NOTE_SHIFT]
        return note

    def note(self, row: int, values: dict[int, int]) -> None:
        """Change columns of a row's note."""
        if self.used[USED.NOTES] == len(self.notes):
            self.notes = _longer(self.notes, 2 * len(self.notes))
        note = add_note(self.now, self.notes, self.used, row)
        for column, value in values.items():
            self.notes[note, column] = value

    def keep(self, data: bytes) -> int:
        """Append bytes and return where they begin."""
        self.ensure(0, len(data), 0)
        at = int(self.used[USED.BYTES])
        self.kept[at : at + len(data)] = np.frombuffer(data, np.uint8)
        self.used[USED.BYTES] += len(data)
        return at

    def reserve(self, row: int, n_scores: int) -> None:
        """Make room for the scores of a row that has none yet."""
        self.ensure(0, 0, n_scores)
        self.rows[row, [ROW.SCORES_AT, ROW.N_SCORES]] = self.used[USED.SCORES], n_scores
        self.used[USED.SCORES] += n_scores

    def hold(self, first: int) -> Arrays:
        """Return the arrays, rows and words from one row on, for another thread to read them as they are now."""
        end = self.used[USED.ROWS]
        return self.rows[first:end], self.now[first:end].copy(), self.notes, self.kept, self.scores

    def read(self, at: int, size: int) -> bytes:
        """Return bytes that were kept."""
        return self.kept[at : at + size].tobytes()

    def ensure(self, n_rows: int, n_bytes: int, n_scores: int) -> None:
        """Make room for so much more, and for as many notes as rows, with everything in its place."""
        need = self.used + np.array((n_rows, n_bytes, n_scores, n_rows))
        if need[USED.ROWS] > len(self.rows):
            room = 2 * int(need[USED.ROWS])
            self.rows, self.now = _longer(self.rows, room), _longer(self.now, room)
            self._enter()
        if need[USED.BYTES] > len(self.kept):
            self.kept = _longer(self.kept, 2 * int(need[USED.BYTES]))
        if need[USED.SCORES] > len(self.scores):
            self.scores = _longer(self.scores, 2 * int(need[USED.SCORES]))
        if need[USED.NOTES] > len(self.notes):
            self.notes = _longer(self.notes, 2 * int(need[USED.NOTES]))

    def make_room(self, n_rows: int, n_bytes: int, n_scores: int, heads: Sequence[Ints]) -> None:
        """The same, but rows may move: of those that are dead only the pending ones stay.

        Parameters
        ----------
        heads : views of whatever names rows (-1: none), changed
        """
        need = np.array((n_rows, n_bytes, n_scores, n_rows))
        if np.all(self.used + need <= (len(self.rows), len(self.kept), len(self.scores), len(self.notes))):
            return
        n = int(self.used[USED.ROWS])
        stays = (self.now[:n] & BIT.LIVE).astype(np.bool_)
        for which in self.pending:
            stays[which[which >= 0]] = True
        weigh(self.rows, self.now, self.notes, stays, need)
        places: Ints = np.empty(n, np.int64)
        old, fresh = self._arrays(), _fresh(*(SPARE * need).tolist())
        move(old, fresh, stays, places, self.used)
        self.rows, self.now, self.notes, self.kept, self.scores = fresh
        for which in [*self.pending, *heads]:
            there = which >= 0
            which[there] = places[which[there]]
        self._enter()

    def _arrays(self) -> Arrays:
        return self.rows, self.now, self.notes, self.kept, self.scores

    def _enter(self) -> None:
        """Enter all rows that live into a table that fits."""
        size = _table_size(len(self.rows))
        if size == len(self.table):
            self.table.fill(FREE)
        else:
            self.table = np.full(size, FREE, np.int64)
        enter(self.table, self.rows, self.now, int(self.used[USED.ROWS]))


@kernel
def hash_rows(rows, now, kept, n, secret):  # type: ignore[no-untyped-def]
    """Write the hash of what finds each row."""
    for row in range(n):
        is_aside = now[row] & BIT.ASIDE != 0
        at, size = rows[row, ROW.AT], rows[row, ROW.ID_SIZE]
        if is_aside:
            size += bare_size(kept, at + size, rows[row, ROW.TEXT_SIZE])
        rows[row, ROW.HASH] = hash_bytes(kept, at, size, secret) | (ASIDE_HASH if is_aside else 0)


@kernel
def enter(table, rows, now, n):  # type: ignore[no-untyped-def]
    """Enter all rows that live into an empty table."""
    for row in range(n):
        if now[row] & BIT.LIVE:
            put(table, rows[row, ROW.HASH], row)


def _fresh(n_rows: int, n_bytes: int, n_scores: int, n_notes: int) -> Arrays:
    """Return rows, now, notes, kept and scores with room for so much; nothing is in them but the first note."""
    n_rows, notes = max(LEAST, n_rows), np.empty((max(LEAST, n_notes), len(NOTE)), np.int64)
    notes[0] = NO_NOTE
    kept, scores = np.empty(max(64 * LEAST, n_bytes), np.uint8), np.empty(max(2 * LEAST, n_scores), np.float32)
    return np.empty((n_rows, len(ROW)), np.int64), np.empty(n_rows, np.int64), notes, kept, scores


def _table_size(n_rows: int) -> int:
    """Return how large a table for so many rows is: at most three quarters full."""
    return 1 << (4 * n_rows // 3).bit_length()


def _longer(array: NDArray[Any], room: int) -> NDArray[Any]:
    longer = np.empty((room, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer
