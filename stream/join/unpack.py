"""How do rows come out of a checkpoint again? What join/codec.py wrote, many at once, straight into a store's arrays.

A file may be damaged, so all is read twice: first everything is checked and measured, then it is copied to where there
is room for it. Nothing is taken for a place or a size that was not compared with the data before.
Proved by test_any_messages_are_those_that_msgspec_reads.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.stream.decode.scan import is_utf8
from driftline.stream.join.message_rows import (
    ASIDE_HASH,
    BIT,
    NOTE,
    NOTE_SHIFT,
    ROW,
    USED,
    MessageStore,
    add_note,
    bare_size,
    find,
    find_whole,
    hash_bytes,
    put,
)
from driftline.stream.join.rules import link
from driftline.stream.kernels import copy, kernel
from driftline.stream.limits import MOST

# Kinds of values.
ODD, NIL, BOOL, INT, TEXT, BINARY, ARRAY = range(7)
# What a message has, and of which kind each is; a label and scores may be nil as well. Of each are found where its
# content begins, its number or size (-1 for nil), and where it ends.
PAIR, KEY, ENTRY, CONTENT, TIME, HAS_COME, IS_ASIDE, LABEL, HOW_HEAVY, WORDS, SERVED = range(11)
KINDS: Final = (ARRAY, TEXT, ARRAY, TEXT, INT, BOOL, BOOL, TEXT, INT, ARRAY, BINARY)
N_FIELDS: Final = 11
BEGIN, NUMBER, END = range(3)
MOST_BITS: Final = (1 << 31) - 1  # of a weight: a float32 that is not negative
MOST_WORDS: Final = (1 << 16) - 1  # of one message: so many can be written


def _heads() -> NDArray[np.int64]:
    """Return for each first byte of a value its kind, how many bytes follow that say a number, and the number else."""
    heads = np.zeros((256, 3), np.int64)
    heads[0xC0, 0] = NIL
    for kind, first, n in ((INT, 0x00, 128), (ARRAY, 0x90, 16), (TEXT, 0xA0, 32), (BOOL, 0xC2, 2)):
        heads[first : first + n, 0], heads[first : first + n, 2] = kind, range(n)
    for kind, first, sizes in ((BINARY, 0xC4, (1, 2, 4)), (INT, 0xCC, (1, 2, 4, 8)), (TEXT, 0xD9, (1, 2, 4))):
        heads[first : first + len(sizes), 0], heads[first : first + len(sizes), 1] = kind, sizes
    heads[0xDC], heads[0xDD] = (ARRAY, 2, 0), (ARRAY, 4, 0)
    return heads


HEADS: Final = _heads()


@kernel
def unpack_head(data, at):  # type: ignore[no-untyped-def]
    """Return a value's kind, its number or size, and where its content begins; ODD where it cannot be one."""
    if at >= data.shape[0]:
        return ODD, np.int64(0), at
    kind, n, number = HEADS[data[at], 0], HEADS[data[at], 1], HEADS[data[at], 2]
    begin = at + 1 + n
    if begin > data.shape[0]:
        return ODD, np.int64(0), at
    for i in range(at + 1, begin):
        number = number << 8 | np.int64(data[i])
    if number < 0 or (kind in (TEXT, BINARY) and number > data.shape[0] - begin):  # below 0: it has 64 bits
        return ODD, np.int64(0), at
    return kind, number, begin


@kernel
def unpack_message(data, at, fields):  # type: ignore[no-untyped-def]
    """Write where a message's fields stand; return where it ends, or -1 where it is none."""
    for field in range(N_FIELDS):
        kind, number, at = unpack_head(data, at)
        if kind != KINDS[field]:
            if kind != NIL or field not in (LABEL, SERVED):
                return np.int64(-1)
            number = np.int64(-1)
        fields[field, BEGIN], fields[field, NUMBER] = at, number
        if kind in (TEXT, BINARY):
            at += number
        if field == WORDS:
            for _ in range(number):
                at = after_word(data, at)
                if at < 0:
                    return np.int64(-1)
        fields[field, END] = at
    return at if fields[PAIR, NUMBER] == 2 and fields[ENTRY, NUMBER] == 8 else np.int64(-1)


@kernel
def after_word(data, at):  # type: ignore[no-untyped-def]
    """Return where a word ends (join/feedback_said.py), or -1 where it is none."""
    kind, n, at = unpack_head(data, at)
    if kind != ARRAY or n != 3:
        return np.int64(-1)
    for field in range(2):
        kind, size, at = unpack_head(data, at)
        if kind == TEXT and is_utf8(data, at, at + size):
            at += size
        elif kind != NIL or field == 0:
            return np.int64(-1)
    kind, weight, at = unpack_head(data, at)
    return at if kind == INT and weight <= MOST_BITS else np.int64(-1)


@kernel
def check_messages(data, at, n, fields, need):  # type: ignore[no-untyped-def]
    """Add up what room messages need; return how many come before the first that cannot be read.

    Parameters
    ----------
    data, at, n : uint8; where the messages begin; how many there are
    fields : int64 [N_FIELDS, 3], changed
    need : int64 [3], added to: rows, bytes and scores
    """
    for i in range(n):
        at = unpack_message(data, at, fields)
        if at < 0 or fields[TIME, NUMBER] >= MOST:
            return i
        if fields[HOW_HEAVY, NUMBER] > (MOST_BITS if fields[LABEL, NUMBER] >= 0 else 0):
            return i
        if fields[WORDS, NUMBER] > MOST_WORDS or (fields[SERVED, NUMBER] > 0 and fields[SERVED, NUMBER] % 4 > 0):
            return i
        for field in (KEY, CONTENT, LABEL):
            if not is_utf8(data, fields[field, BEGIN], fields[field, END]):
                return i
        need[USED.ROWS] += 1
        for field in (KEY, CONTENT, LABEL, WORDS):
            need[USED.BYTES] += fields[field, END] - fields[field, BEGIN]
        need[USED.SCORES] += max(fields[SERVED, NUMBER], 0) // 4
    return n


@kernel
def keep_field(data, field, kept, used):  # type: ignore[no-untyped-def]
    """Copy a field's content behind what is kept; return where it begins there."""
    at = used[USED.BYTES]
    copy(data[field[BEGIN] : field[END]], kept[at:])
    used[USED.BYTES] += field[END] - field[BEGIN]
    return at


@kernel
def append_messages(data, at, n, fields, w, windows, total, store):  # type: ignore[no-untyped-def]
    """Append messages that were checked to a window; return how many come before the first that is there already.

    Parameters
    ----------
    data, at, n, fields : as above
    w, windows, total : the window's number; int64 [n_windows, len(WINDOW)], int64 [2], changed
    store : (rows, now, notes, kept, scores, table, used, secret), of a store with room for them; changed; scores: uint8
    """
    rows, now, notes, kept, scores, table, used, secret = store
    for i in range(n):
        at = unpack_message(data, at, fields)
        key_size, text_size = fields[KEY, NUMBER], fields[CONTENT, NUMBER]
        row = used[USED.ROWS]
        to = rows[row]
        to[ROW.AT], to[ROW.ID_SIZE] = keep_field(data, fields[KEY], kept, used), key_size
        keep_field(data, fields[CONTENT], kept, used)
        to[ROW.TEXT_SIZE], to[ROW.TIME_MS] = text_size, fields[TIME, NUMBER]
        if fields[IS_ASIDE, NUMBER]:
            size = key_size + bare_size(kept, to[ROW.AT] + key_size, text_size)
            h = hash_bytes(kept, to[ROW.AT], size, secret) | ASIDE_HASH
            there, _ = find_whole(table, rows, kept, h, kept[to[ROW.AT] : to[ROW.AT] + size], key_size, size)
        else:
            h = hash_bytes(kept, to[ROW.AT], key_size, secret)
            there, _ = find(table, rows, kept, h, kept, to[ROW.AT], key_size)
        if there >= 0:
            return i
        to[ROW.WINDOW], to[ROW.NEXT], to[ROW.HASH] = w, -1, h
        to[ROW.SCORES_AT], to[ROW.N_SCORES] = used[USED.SCORES], max(fields[SERVED, NUMBER], 0) // 4
        copy(data[fields[SERVED, BEGIN] : fields[SERVED, END]], scores[4 * used[USED.SCORES] :])
        used[USED.SCORES] += to[ROW.N_SCORES]
        now[row] = (
            BIT.LIVE
            | (BIT.CAME if fields[HAS_COME, NUMBER] else 0)
            | (BIT.SCORED if fields[SERVED, NUMBER] >= 0 else 0)
        )
        now[row] |= BIT.ASIDE if fields[IS_ASIDE, NUMBER] else 0
        used[USED.ROWS] += 1
        put(table, h, row)
        if fields[LABEL, NUMBER] >= 0 or fields[WORDS, NUMBER] > 0:
            note = notes[add_note(now, notes, used, row)]
            if fields[LABEL, NUMBER] >= 0:
                note[NOTE.LABEL_AT], note[NOTE.LABEL_SIZE] = (
                    keep_field(data, fields[LABEL], kept, used),
                    fields[LABEL, NUMBER],
                )
                note[NOTE.LABEL_WEIGHT] = fields[HOW_HEAVY, NUMBER]
            if fields[WORDS, NUMBER] > 0:
                note[NOTE.WORDS_AT] = keep_field(data, fields[WORDS], kept, used)
                note[NOTE.WORDS_SIZE], note[NOTE.N_WORDS] = (
                    used[USED.BYTES] - note[NOTE.WORDS_AT],
                    fields[WORDS, NUMBER],
                )
        link(row, windows, total, rows, notes[now[row] >> NOTE_SHIFT])
    return n


def restore(
    packed: bytes | memoryview, store: MessageStore, number: int, windows: NDArray[np.int64], total: NDArray[np.int64]
) -> None:
    """Append a window's messages.

    Parameters
    ----------
    packed : an array of pairs of an id and its entry, in msgpack
    store, windows, total : changed
    number : of the window

    Raises
    ------
    ValueError : a message cannot be read, or its id is there already
    """
    data, fields, need = np.frombuffer(packed, np.uint8), np.empty((N_FIELDS, 3), np.int64), np.zeros(3, np.int64)
    kind, n, at = unpack_head(data, 0)
    if kind != ARRAY:
        raise ValueError("its messages are no array")
    if (good := check_messages(data, at, n, fields, need)) < n:
        raise ValueError(f"message {good} is none, or has a wrong time, weight, word or scores")
    store.ensure(*need.tolist())
    arrays = store.rows, store.now, store.notes, store.kept, store.scores.view(np.uint8)
    whole = (*arrays, store.table, store.used, store.secret)
    good = append_messages(data, at, n, fields, number, windows, total, whole)
    if good < n:
        raise ValueError(f"the id of message {good} is there twice")
