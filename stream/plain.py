"""Which records are joined without Python?

Nearly all: new and repeated messages, and labels of messages that are here. `take` goes through a batch's records in
their order and does with each what stream/join.py says, in one call without the GIL. At the first record that is not of
this kind (a label that comes before its message, a second feedback id, whatever is neither message nor label) it stops,
for that record to be taken by the rules in Python, and is called again behind it. The state is the same arrays.
Proved by test_what_the_kernel_takes_comes_out_as_one_by_one.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.stream.kernels import are_equal, copy, kernel, prefetch
from driftline.stream.scan import CHARS, CONTENT, KEY, LABEL, MESSAGE, OWN, SIZE
from driftline.stream.store import (
    AT,
    BYTES,
    CAME,
    FREE,
    GROWN,
    HASH,
    HASH_SHIFT,
    ID_SIZE,
    IDS_AT,
    IDS_SIZE,
    LABEL_AT,
    LABEL_SIZE,
    LIVE,
    N_EARLY,
    N_IDS,
    N_SCORES,
    NEXT,
    NOTE_SHIFT,
    NOTES,
    ROW_BITS,
    ROWS,
    SCORES,
    SCORES_AT,
    TEXT_SIZE,
    TIME_MS,
    WEIGHT,
    WINDOW,
    add_note,
    find,
    hash_bytes,
    put,
    take_out,
)

# What an entry takes beside its characters, of which each may take four bytes; and a feedback id beside its own.
ENTRY_BYTES: Final = 400
FEEDBACK_BYTES: Final = ENTRY_BYTES // 4

# Columns of a window.
FIRST, LAST, COUNT, CLOCK_MS, N_BYTES, UNLABELLED, EARLY_DUE_MS = range(7)
N_WINDOW: Final = 7
# Columns of a step: the text's row and where it stands; its label's column or -1; the record's place in the batch and
# its time; whether it is to be compared with what was served.
ROW, TEXT_AT, TEXT_BYTES, TARGET, PLACE, STEP_MS, SERVED = range(7)
N_STEP: Final = 7
# What `take` counts, and why it stopped: at a record that Python takes, or that there is no room for; or when it had
# taken one, and WHERE has a window that Python has to evict from.
N_STEPS, DUPLICATES, REPEATED, CORRECTED, EXPIRED, LABELS_SEEN, LABELS_LEARNED, WHY, WHERE = range(9)
N_COUNTERS: Final = 9
DONE, ODD_RECORD, NO_ROOM, EVICTION = range(4)
AHEAD: Final = 12  # records for which the memory is asked early: a look into the table has to wait for it
NO_EXPIRY, ASK_FIRST = -1, -2  # instead of the column that messages are learned as when they leave unlabelled

Ints = NDArray[np.int64]


@kernel
def put_head(kept, at, size):  # type: ignore[no-untyped-def]
    """Write the head of a string in msgpack; return where it ends."""
    if size < 32:
        kept[at] = 0xA0 | size
        return at + 1
    n = 1 if size < 1 << 8 else 2 if size < 1 << 16 else 4
    kept[at] = 0xD9 if n == 1 else 0xDA if n == 2 else 0xDB
    for i in range(n):
        kept[at + 1 + i] = (size >> (8 * (n - 1 - i))) & 0xFF
    return at + 1 + n


@kernel
def is_over(w, windows, limits, rows):  # type: ignore[no-untyped-def]
    """Tell whether a window's oldest message has to leave."""
    if windows[w, COUNT] == 0:
        return False
    old = windows[w, CLOCK_MS] > rows[windows[w, FIRST], TIME_MS] + limits[2]
    return old or windows[w, COUNT] > limits[0] or windows[w, N_BYTES] > limits[1]


@kernel
def evict(w, windows, limits, rows, now, notes, table, expire, steps, counters):  # type: ignore[no-untyped-def]
    """Drop a window's oldest messages beyond the limits; tell whether there was room for the steps of those learned.

    `expire` : the column that a message without a label is learned as, or NO_EXPIRY
    """
    while is_over(w, windows, limits, rows):
        row = windows[w, FIRST]
        note = notes[now[row] >> NOTE_SHIFT]
        if note[LABEL_SIZE] < 0:
            if expire != NO_EXPIRY:
                if counters[N_STEPS] == steps.shape[0]:
                    return False
                add_step(steps, counters, rows, row, expire, -1, 0, 0)
            windows[w, UNLABELLED] -= 1
            counters[EXPIRED] += 1
        windows[w, N_BYTES] -= rows[row, WEIGHT] + note[GROWN]
        windows[w, COUNT] -= 1
        windows[w, FIRST] = rows[row, NEXT]
        if windows[w, COUNT] == 0:
            windows[w, LAST] = -1
        take_out(table, rows[row, HASH], row)
        now[row] &= ~LIVE
    return True


@kernel
def add_step(steps, counters, rows, row, target, place, time_ms, served):  # type: ignore[no-untyped-def]
    """Append a step with a row's text."""
    step = steps[counters[N_STEPS]]
    step[ROW], step[TEXT_AT] = row, rows[row, AT] + rows[row, ID_SIZE]
    step[TEXT_BYTES], step[TARGET] = rows[row, TEXT_SIZE], target
    step[PLACE], step[STEP_MS], step[SERVED] = place, time_ms, served
    counters[N_STEPS] += 1


@kernel
def find_label(label_table, label_spans, names, seeds, data, at, size):  # type: ignore[no-untyped-def]
    """Return a label's column, or -1."""
    mask = label_table.shape[0] - 1
    h = hash_bytes(data, at, size, seeds)
    place = h & mask
    while label_table[place] != FREE:
        column = label_table[place] & ROW_BITS
        start, length = label_spans[column, 0], label_spans[column, 1]
        if label_table[place] >> HASH_SHIFT == h and length == size and are_equal(data, at, names, start, size):
            return column
        place = (place + 1) & mask
    return np.int64(-1)


@kernel
def append_row(rows, now, kept, used, windows, w, n_scores, data, field, h, time_ms):  # type: ignore[no-untyped-def]
    """Append a message that came to a window."""
    row, at = used[ROWS], used[BYTES]
    key_size, text_size = field[KEY + SIZE], field[CONTENT + SIZE]
    copy(data[field[KEY] : field[KEY] + key_size], kept[at:])
    copy(data[field[CONTENT] : field[CONTENT] + text_size], kept[at + key_size :])
    to = rows[row]
    to[AT], to[ID_SIZE], to[TEXT_SIZE] = at, key_size, text_size
    to[TIME_MS], to[WINDOW], to[NEXT], to[HASH] = time_ms, w, -1, h
    to[WEIGHT] = ENTRY_BYTES + 4 * n_scores + 4 * (field[KEY + CHARS] + field[CONTENT + CHARS])
    to[SCORES_AT], to[N_SCORES] = used[SCORES], n_scores
    now[row] = LIVE | CAME
    used[ROWS] += 1
    used[BYTES] += key_size + text_size
    used[SCORES] += n_scores
    link(rows, windows, row)
    return row


@kernel
def link(rows, windows, row):  # type: ignore[no-untyped-def]
    """Put a new row behind its window's others."""
    window = windows[rows[row, WINDOW]]
    if window[COUNT] == 0:
        window[FIRST] = row
    else:
        rows[window[LAST], NEXT] = row
    window[LAST] = row
    window[COUNT] += 1
    window[N_BYTES] += rows[row, WEIGHT]
    window[UNLABELLED] += 1


@kernel
def hash_keys(records, seeds, hashes):  # type: ignore[no-untyped-def]
    """Write the hash of each record's key; 0 where it has none."""
    order, kinds, fields, _, _, _, data = records
    for place in range(order.shape[0]):
        record = order[place]
        has_key = kinds[record] in (MESSAGE, LABEL)
        hashes[place] = hash_bytes(data, fields[record, KEY], fields[record, KEY + SIZE], seeds) if has_key else 0


@kernel
def take(  # type: ignore[no-untyped-def]  # noqa: PLR0911, PLR0912, PLR0915
    begin,
    records,
    hashes,
    store,
    n_scores_room,
    windows,
    limits,
    labels,
    width,
    expire,
    n_early,
    steps,
    weights,
    counters,
):
    """Take records in, from place `begin` on, until one is not for here. Returns the next place.

    Parameters
    ----------
    records : (order, kinds, fields, weights, times_ms, partitions, data); times and partitions in the batch's order
    hashes : int64 [n], of the records' keys, in the batch's order
    store : (rows, now, notes, kept, table, used, seeds, early), of a Store; changed
    windows, limits : int64 [n_windows, N_WINDOW], changed; int64 [3], messages, bytes and age of each
    labels : (table, spans, names), of a Names
    width, expire : how many labels are known; the column for what leaves unlabelled, NO_EXPIRY or ASK_FIRST
    n_early : how many labels wait for their message
    steps, weights, counters : int64 [room, N_STEP], float32 [room], int64 [N_COUNTERS], changed
    """
    order, kinds, fields, record_weights, times_ms, partitions, data = records
    rows, now, notes, kept, table, used, seeds, early = store
    label_table, label_spans, names = labels
    for place in range(begin, order.shape[0]):
        record = order[place]
        field, kind = fields[record], kinds[record]
        counters[WHY] = ODD_RECORD
        if kind not in (MESSAGE, LABEL):
            return place
        h = hashes[place]
        prefetch(table, hashes[min(place + AHEAD, order.shape[0] - 1)] & (table.shape[0] - 1))
        row = find(table, rows, kept, h, data, field[KEY], field[KEY + SIZE])
        w = rows[row, WINDOW] if row >= 0 else partitions[place]
        if (row < 0 and kind == LABEL) or w >= windows.shape[0]:
            return place
        clock_ms = max(windows[w, CLOCK_MS], times_ms[place])
        if clock_ms > windows[w, EARLY_DUE_MS]:
            return place
        column = np.int64(-1)
        if kind == MESSAGE:
            waits = n_early > 0 and row < 0 and early[h & (N_EARLY - 1)] > 0
            if waits or (row >= 0 and now[row] & CAME == 0):
                return place
        else:
            column = find_label(label_table, label_spans, names, seeds, data, field[CONTENT], field[CONTENT + SIZE])
            if column < 0 or (field[OWN] >= 0 and notes[now[row] >> NOTE_SHIFT, IDS_SIZE] > 0):
                return place
        counters[WHY] = NO_ROOM
        more = field[KEY + SIZE] + field[CONTENT + SIZE] + max(field[OWN + SIZE], 0) + 5
        if counters[N_STEPS] == steps.shape[0] or used[ROWS] == rows.shape[0] or used[NOTES] == notes.shape[0]:
            return place
        if used[BYTES] + more > kept.shape[0] or used[SCORES] + width > n_scores_room:
            return place

        if kind == MESSAGE:
            if row >= 0:
                counters[DUPLICATES] += 1
            else:
                row = append_row(rows, now, kept, used, windows, w, width, data, field, h, times_ms[place])
                put(table, h, row)
                weights[counters[N_STEPS]] = 1
                add_step(steps, counters, rows, row, -1, place, times_ms[place], 0)
        else:
            counters[LABELS_SEEN] += 1
            note = now[row] >> NOTE_SHIFT
            size, known = field[CONTENT + SIZE], notes[note, LABEL_SIZE]
            same = known == size and are_equal(kept, notes[note, LABEL_AT], data, field[CONTENT], size)
            if field[OWN] >= 0 or not same:
                note = add_note(now, notes, used, row)
            if field[OWN] >= 0:
                own_size, at = field[OWN + SIZE], used[BYTES]
                start = put_head(kept, at, own_size)
                copy(data[field[OWN] : field[OWN] + own_size], kept[start:])
                used[BYTES] = start + own_size
                notes[note, IDS_AT], notes[note, IDS_SIZE], notes[note, N_IDS] = at, start + own_size - at, 1
                grown = FEEDBACK_BYTES + 4 * field[OWN + CHARS]
                notes[note, GROWN] += grown
                windows[w, N_BYTES] += grown
            if same:
                counters[REPEATED] += 1
            else:
                if known < 0:
                    windows[w, UNLABELLED] -= 1
                else:
                    counters[CORRECTED] += 1
                copy(data[field[CONTENT] : field[CONTENT] + size], kept[used[BYTES] :])
                notes[note, LABEL_AT], notes[note, LABEL_SIZE] = used[BYTES], size
                used[BYTES] += size
                weights[counters[N_STEPS]] = record_weights[record]
                served = np.int64(known < 0 and now[row] & CAME != 0)
                add_step(steps, counters, rows, row, column, place, times_ms[place], served)
                counters[LABELS_LEARNED] += 1
        windows[w, CLOCK_MS] = clock_ms
        if expire == ASK_FIRST and is_over(w, windows, limits, rows):
            counters[WHY], counters[WHERE] = EVICTION, w
            return place + 1
        n = counters[N_STEPS]
        whole = evict(w, windows, limits, rows, now, notes, table, expire, steps, counters)
        for step in range(n, counters[N_STEPS]):
            weights[step] = 1
        if not whole:
            counters[WHY], counters[WHERE] = EVICTION, w
            return place + 1
    counters[WHY] = DONE
    return order.shape[0]


class Names:
    """The labels that are known, for the kernel to look up."""

    def __init__(self) -> None:
        self._known: list[str] = []
        self._seeds = np.zeros(2, np.uint64)
        self.arrays = (np.full(2, FREE, np.int64), np.zeros((0, 2), np.int64), np.frombuffer(b"", np.uint8))

    def update(self, labels: Sequence[str], seeds: NDArray[np.uint64]) -> None:
        """Know these labels, by their columns."""
        if len(labels) == len(self._known) and self._known == labels:
            return
        self._known = list(labels)
        encoded = [label.encode("utf-8", "surrogatepass") for label in labels]
        sizes = np.array([len(each) for each in encoded], np.int64)
        names = np.frombuffer(b"".join(encoded), np.uint8)
        spans = np.stack([np.cumsum(sizes) - sizes, sizes], axis=1)
        table = np.full(1 << (2 * len(labels) + 1).bit_length(), FREE, np.int64)
        enter_labels(table, spans, names, seeds)
        self.arrays = (table, spans, names)


@kernel
def enter_labels(table, spans, names, seeds):  # type: ignore[no-untyped-def]
    """Enter labels into an empty table."""
    for column in range(spans.shape[0]):
        put(table, hash_bytes(names, spans[column, 0], spans[column, 1], seeds), column)
