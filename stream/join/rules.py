"""Which records are joined without Python?

Nearly all: new and repeated messages, and labels of messages that are here. `take` goes through a batch's records in
their order and does with each what join/window.py says, in one call without the GIL. At the first record that is not of
this kind (a label that comes before its message, a second feedback id, an id with another text, whatever is neither
message nor label) it stops, for that record to be taken by the rules in Python, and is called again behind it. The
state is the same arrays.
Proved by test_what_the_kernel_takes_comes_out_as_one_by_one.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.stream.decode.scan import CONTENT, KEY, LABEL, MESSAGE, OWN, SIZE
from driftline.stream.join.feedback_said import LONGEST_WORD, SHORT, pack_word
from driftline.stream.join.message_rows import (
    ASIDE,
    AT,
    BYTES,
    CAME,
    FREE,
    HASH,
    HASH_SHIFT,
    ID_SIZE,
    LABEL_AT,
    LABEL_SIZE,
    LABEL_WEIGHT,
    LIVE,
    N_EARLY,
    N_SCORES,
    N_WORDS,
    NEXT,
    NOTE_SHIFT,
    NOTES,
    ROOM,
    ROW_BITS,
    ROWS,
    SCORES,
    SCORES_AT,
    SHARED,
    TEXT_SIZE,
    TIME_MS,
    WINDOW,
    WORDS_AT,
    WORDS_SIZE,
    add_note,
    find,
    hash_bytes,
    put,
    take_out,
    weight_of,
)
from driftline.stream.kernels import are_equal, copy, inlined, kernel, prefetch
from driftline.stream.siphash import new_secret

# Columns of a window: its oldest and its newest row, and when the oldest came; what it holds.
FIRST, LAST, FIRST_MS, COUNT, CLOCK_MS, N_BYTES, UNLABELLED, EARLY_DUE_MS = range(8)
N_WINDOW: Final = 8
# What all windows hold together.
ALL_MESSAGES, ALL_BYTES = range(2)
# Columns of a step: the text's row and where it stands; its label's column or -1; the record's place in the batch and
# its time; whether it is to be compared with what was served.
ROW, TEXT_AT, TEXT_BYTES, TARGET, PLACE, STEP_MS, SERVED = range(7)
N_STEP: Final = 7
# What `take` counts, PASSED being the most places that a look-up passed, and why it stopped: at a record that Python
# takes, or that there is no room for; or when it had taken one, and WHERE has a window that Python has to evict from.
N_STEPS, DUPLICATES, REPEATED, CORRECTED, EXPIRED, LABELS_SEEN, LABELS_LEARNED, PASSED, WHY, WHERE = range(10)
N_COUNTERS: Final = 10
DONE, ODD_RECORD, NO_ROOM, EVICTION = range(4)
AHEAD: Final = 12  # records for which the memory is asked early: a look into the table has to wait for it
NO_EXPIRY, ASK_FIRST = -1, -2  # instead of the column that messages are learned as when they leave unlabelled

Ints = NDArray[np.int64]


@inlined
def find_over(w, windows, total, limits):  # type: ignore[no-untyped-def]
    """Return the window whose oldest message has to leave, or -1.

    This one's by its age; where all together are beyond a limit, the oldest of all, so that it does not matter over how
    many partitions they are spread.
    """
    if windows[w, COUNT] > 0 and windows[w, CLOCK_MS] > windows[w, FIRST_MS] + limits[2]:
        return w
    if total[ALL_MESSAGES] <= limits[0] and total[ALL_BYTES] <= limits[1]:
        return -1
    oldest = -1
    for each in range(windows.shape[0]):
        if windows[each, COUNT] > 0 and (oldest < 0 or windows[each, FIRST_MS] < windows[oldest, FIRST_MS]):
            oldest = each
    return oldest


@inlined
def leave(w, windows, total, rows, now, notes, table):  # type: ignore[no-untyped-def]
    """Drop a window's oldest message."""
    window = windows[w]
    row = window[FIRST]
    note = notes[now[row] >> NOTE_SHIFT]
    weigh_in(row, -1, windows, total, rows, note)
    if note[LABEL_SIZE] < 0:
        window[UNLABELLED] -= 1
    window[COUNT] -= 1
    total[ALL_MESSAGES] -= 1
    window[FIRST] = rows[row, NEXT]
    if window[COUNT] == 0:
        window[LAST] = -1
    else:
        window[FIRST_MS] = rows[window[FIRST], TIME_MS]
    take_out(table, rows[row, HASH], row)
    now[row] &= ~LIVE


@inlined
def weigh_in(row, sign, windows, total, rows, note):  # type: ignore[no-untyped-def]
    """Add what a row weighs with a note to its window, or take it away."""
    n_bytes = sign * weight_of(rows[row], note)
    windows[rows[row, WINDOW], N_BYTES] += n_bytes
    total[ALL_BYTES] += n_bytes


@kernel
def evict(w, windows, total, limits, rows, now, notes, table, expire, steps, counters):  # type: ignore[no-untyped-def]
    """Drop the oldest messages beyond the limits; tell whether all are dropped.

    It stops where there is no room for the steps of those learned, and at one that is set aside: the rules in Python
    drop that.

    `expire` : the column that a message without a label is learned as, or NO_EXPIRY
    """
    over = find_over(w, windows, total, limits)
    while over >= 0:
        row = windows[over, FIRST]
        if now[row] & ASIDE:
            return False
        if notes[now[row] >> NOTE_SHIFT, LABEL_SIZE] < 0:
            if expire != NO_EXPIRY:
                if counters[N_STEPS] == steps.shape[0]:
                    return False
                add_step(steps, counters, rows, row, expire, -1, 0, 0)
            counters[EXPIRED] += 1
        leave(over, windows, total, rows, now, notes, table)
        over = find_over(w, windows, total, limits)
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
def find_label(label_table, label_spans, names, secret, data, at, size):  # type: ignore[no-untyped-def]
    """Return a label's column, or -1."""
    mask = label_table.shape[0] - 1
    h = hash_bytes(data, at, size, secret)
    place = h & mask
    while label_table[place] != FREE:
        column = label_table[place] & ROW_BITS
        start, length = label_spans[column, 0], label_spans[column, 1]
        if label_table[place] >> HASH_SHIFT == h and length == size and are_equal(data, at, names, start, size):
            return column
        place = (place + 1) & mask
    return np.int64(-1)


@inlined
def is_text_of(rows, kept, row, data, field):  # type: ignore[no-untyped-def]
    """Tell whether a record's text is a row's."""
    size = field[CONTENT + SIZE]
    at = rows[row, AT] + rows[row, ID_SIZE]
    return rows[row, TEXT_SIZE] == size and are_equal(data, field[CONTENT], kept, at, size)


@kernel
def append_row(rows, now, notes, kept, used, windows, total, w, n_scores, data, field, h, time_ms):  # type: ignore[no-untyped-def]
    """Append a message that came to a window."""
    row, at = used[ROWS], used[BYTES]
    key_size, text_size = field[KEY + SIZE], field[CONTENT + SIZE]
    copy(data[field[KEY] : field[KEY] + key_size], kept[at:])
    copy(data[field[CONTENT] : field[CONTENT] + text_size], kept[at + key_size :])
    to = rows[row]
    to[AT], to[ID_SIZE], to[TEXT_SIZE] = at, key_size, text_size
    to[TIME_MS], to[WINDOW], to[NEXT], to[HASH] = time_ms, w, -1, h
    to[SCORES_AT], to[N_SCORES] = used[SCORES], n_scores
    now[row] = LIVE | CAME
    used[ROWS] += 1
    used[BYTES] += key_size + text_size
    used[SCORES] += n_scores
    link(row, windows, total, rows, notes[0])
    return row


@inlined
def link(row, windows, total, rows, note):  # type: ignore[no-untyped-def]
    """Put a new row, with its note, behind its window's others."""
    window = windows[rows[row, WINDOW]]
    if window[COUNT] == 0:
        window[FIRST], window[FIRST_MS] = row, rows[row, TIME_MS]
    else:
        rows[window[LAST], NEXT] = row
    window[LAST] = row
    window[COUNT] += 1
    total[ALL_MESSAGES] += 1
    weigh_in(row, 1, windows, total, rows, note)
    if note[LABEL_SIZE] < 0:
        window[UNLABELLED] += 1


@kernel
def hash_keys(records, secret, hashes):  # type: ignore[no-untyped-def]
    """Write the hash of each record's key; 0 where it has none."""
    order, kinds, fields, _, _, _, _, data = records
    for place in range(order.shape[0]):
        record = order[place]
        has_key = kinds[record] in (MESSAGE, LABEL)
        hashes[place] = hash_bytes(data, fields[record, KEY], fields[record, KEY + SIZE], secret) if has_key else 0


@kernel
def take(  # type: ignore[no-untyped-def]  # noqa: PLR0911, PLR0912, PLR0915
    begin,
    records,
    hashes,
    store,
    n_scores_room,
    windows,
    total,
    limits,
    labels,
    width,
    expire,
    n_odd,
    steps,
    weights,
    counters,
):
    """Take records in, from place `begin` on, until one is not for here. Returns the next place.

    Parameters
    ----------
    records : (order, kinds, fields, weights, their bits, times_ms, partitions, data); times and partitions in the
        batch's order
    hashes : int64 [n], of the records' keys, in the batch's order
    store : (rows, now, notes, kept, table, used, early), of a Store; changed
    windows, total, limits : int64 [n_windows, N_WINDOW], int64 [2], changed; int64 [3], messages, bytes and age
    labels : (table, spans, names, secret), of a Names
    width, expire : how many labels are known; the column for what leaves unlabelled, NO_EXPIRY or ASK_FIRST
    n_odd : how many ids are such that all about them is for the rules in Python: labels wait for their message, or
        several texts came with them
    steps, weights, counters : int64 [room, N_STEP], float32 [room], int64 [N_COUNTERS], changed
    """
    order, kinds, fields, record_weights, weight_bits, times_ms, partitions, data = records
    rows, now, notes, kept, table, used, early = store
    label_table, label_spans, names, secret = labels
    for place in range(begin, order.shape[0]):
        record = order[place]
        field, kind = fields[record], kinds[record]
        counters[WHY] = ODD_RECORD
        if kind not in (MESSAGE, LABEL):
            return place
        h = hashes[place]
        prefetch(table, hashes[min(place + AHEAD, order.shape[0] - 1)] & (table.shape[0] - 1))
        row, passed = find(table, rows, kept, h, data, field[KEY], field[KEY + SIZE])
        counters[PASSED] = max(counters[PASSED], passed)
        w = rows[row, WINDOW] if row >= 0 else partitions[place]
        if (row < 0 and kind == LABEL) or w >= windows.shape[0]:
            return place
        clock_ms = max(windows[w, CLOCK_MS], times_ms[place])
        if clock_ms > windows[w, EARLY_DUE_MS]:
            return place
        column = np.int64(-1)
        if kind == MESSAGE:
            if row < 0:
                if n_odd > 0 and early[h & (N_EARLY - 1)] > 0:
                    return place
            elif now[row] & (CAME | SHARED) != CAME or not is_text_of(rows, kept, row, data, field):
                return place
        else:
            column = find_label(label_table, label_spans, names, secret, data, field[CONTENT], field[CONTENT + SIZE])
            if column < 0 or now[row] & SHARED:
                return place
            if field[OWN] >= 0:
                is_short = field[OWN + SIZE] <= SHORT and field[CONTENT + SIZE] <= SHORT
                if not is_short or notes[now[row] >> NOTE_SHIFT, WORDS_SIZE] > 0:
                    return place
        counters[WHY] = NO_ROOM
        more = field[KEY + SIZE] + field[CONTENT + SIZE] + LONGEST_WORD
        if counters[N_STEPS] == steps.shape[0] or used[ROWS] == rows.shape[0] or used[NOTES] == notes.shape[0]:
            return place
        if used[BYTES] + more > kept.shape[0] or used[SCORES] + width > n_scores_room:
            return place

        if kind == MESSAGE:
            if row >= 0:
                counters[DUPLICATES] += 1
            else:
                row = append_row(
                    rows, now, notes, kept, used, windows, total, w, width, data, field, h, times_ms[place]
                )
                put(table, h, row)
                weights[counters[N_STEPS]] = 1
                add_step(steps, counters, rows, row, -1, place, times_ms[place], 0)
        else:
            counters[LABELS_SEEN] += 1
            note = now[row] >> NOTE_SHIFT
            size, known, bits = field[CONTENT + SIZE], notes[note, LABEL_SIZE], np.int64(weight_bits[record])
            same = known == size and are_equal(kept, notes[note, LABEL_AT], data, field[CONTENT], size)
            same = same and notes[note, LABEL_WEIGHT] in (bits, 0)
            if field[OWN] >= 0 or not same:
                note = add_note(now, notes, used, row)
            if field[OWN] >= 0:
                at = used[BYTES]
                own, own_size = field[OWN], field[OWN + SIZE]
                used[BYTES] = pack_word(kept, at, data, own, own_size, field[CONTENT], size, bits)
                notes[note, WORDS_AT], notes[note, WORDS_SIZE], notes[note, N_WORDS] = at, used[BYTES] - at, 1
                windows[w, N_BYTES] += ROOM * (used[BYTES] - at)
                total[ALL_BYTES] += ROOM * (used[BYTES] - at)
            if same:
                counters[REPEATED] += 1
            else:
                if known < 0:
                    windows[w, UNLABELLED] -= 1
                else:
                    counters[CORRECTED] += 1
                copy(data[field[CONTENT] : field[CONTENT] + size], kept[used[BYTES] :])
                notes[note, LABEL_AT], notes[note, LABEL_SIZE], notes[note, LABEL_WEIGHT] = used[BYTES], size, bits
                used[BYTES] += size
                windows[w, N_BYTES] += ROOM * (size - max(known, 0))
                total[ALL_BYTES] += ROOM * (size - max(known, 0))
                weights[counters[N_STEPS]] = record_weights[record]
                served = np.int64(known < 0 and now[row] & CAME != 0)
                add_step(steps, counters, rows, row, column, place, times_ms[place], served)
                counters[LABELS_LEARNED] += 1
        windows[w, CLOCK_MS] = clock_ms
        if find_over(w, windows, total, limits) < 0:
            continue
        if expire == ASK_FIRST:
            counters[WHY], counters[WHERE] = EVICTION, w
            return place + 1
        n = counters[N_STEPS]
        whole = evict(w, windows, total, limits, rows, now, notes, table, expire, steps, counters)
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
        table, spans = np.full(2, FREE, np.int64), np.zeros((0, 2), np.int64)
        self.arrays = (table, spans, np.frombuffer(b"", np.uint8), new_secret())

    def update(self, labels: Sequence[str]) -> None:
        """Know these labels, by their columns."""
        if len(labels) == len(self._known) and self._known == labels:
            return
        self._known = list(labels)
        encoded = [label.encode("utf-8", "surrogatepass") for label in labels]
        sizes = np.array([len(each) for each in encoded], np.int64)
        names = np.frombuffer(b"".join(encoded), np.uint8)
        spans = np.stack([np.cumsum(sizes) - sizes, sizes], axis=1)
        table = np.full(1 << (2 * len(labels) + 1).bit_length(), FREE, np.int64)
        secret = new_secret()
        enter_labels(table, spans, names, secret)
        self.arrays = (table, spans, names, secret)


@kernel
def enter_labels(table, spans, names, secret):  # type: ignore[no-untyped-def]
    """Enter labels into an empty table."""
    for column in range(spans.shape[0]):
        put(table, hash_bytes(names, spans[column, 0], spans[column, 1], secret), column)
