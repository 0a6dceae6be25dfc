"""Which records are joined without Python?

Nearly all: new and repeated messages, and labels of messages that are here. `take` goes through a batch's records in
their order and does with each what join/window.py says, in one call without the GIL. At the first record that is not of
this kind (a label that comes before its message, a second feedback id, an id with another text, whatever is neither
message nor label) it stops, for that record to be taken by the rules in Python, and is called again behind it. The
state is the same arrays.
Proved by test_what_the_kernel_takes_comes_out_as_one_by_one.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.stream.decode.scan import CONTENT, KEY, LABEL, MESSAGE, OWN, SIZE
from driftline.stream.join.feedback_said import LONGEST_WORD, SHORT, pack_word
from driftline.stream.join.message_rows import (
    BIT,
    FREE,
    HASH_SHIFT,
    N_EARLY,
    NOTE,
    NOTE_SHIFT,
    ROOM,
    ROW,
    ROW_BITS,
    USED,
    add_note,
    find,
    hash_bytes,
    put,
    take_out,
    weight_of,
)
from driftline.stream.kernels import are_equal, copy, inlined, kernel, prefetch
from driftline.stream.siphash import new_secret


class _Window(NamedTuple):
    """Columns of a window."""

    FIRST: int = 0  # its oldest row
    LAST: int = 1  # its newest
    FIRST_MS: int = 2  # when the oldest came
    COUNT: int = 3  # messages that it holds
    CLOCK_MS: int = 4
    N_BYTES: int = 5
    UNLABELLED: int = 6
    EARLY_DUE_MS: int = 7  # when the first label that waits has waited too long


class _Total(NamedTuple):
    """What all windows hold together."""

    MESSAGES: int = 0
    BYTES: int = 1


class _Step(NamedTuple):
    """Columns of a step."""

    ROW: int = 0  # that of its text
    TEXT_AT: int = 1
    TEXT_BYTES: int = 2
    TARGET: int = 3  # its label's column, or -1
    PLACE: int = 4  # the record's in the batch
    TIME_MS: int = 5  # the record's
    SERVED: int = 6  # 1: to be compared with what was served


class _Counter(NamedTuple):
    """What `take` counts, and why it stopped."""

    N_STEPS: int = 0
    DUPLICATES: int = 1
    REPEATED: int = 2
    CORRECTED: int = 3
    EXPIRED: int = 4
    LABELS_SEEN: int = 5
    LABELS_LEARNED: int = 6
    PASSED: int = 7  # the most places that a look-up passed
    WHY: int = 8  # one of STOP
    WHERE: int = 9  # at EVICTION: a window that Python has to evict from


class _Stop(NamedTuple):
    """Why `take` stopped: at a record that Python takes, or that there is no room for; or when it had taken one."""

    DONE: int = 0
    ODD_RECORD: int = 1
    NO_ROOM: int = 2
    EVICTION: int = 3


WINDOW, TOTAL, STEP, COUNTER, STOP = _Window(), _Total(), _Step(), _Counter(), _Stop()
AHEAD: Final = 12  # records for which the memory is asked early: a look into the table has to wait for it
NO_EXPIRY, ASK_FIRST = -1, -2  # instead of the column that messages are learned as when they leave unlabelled

Ints = NDArray[np.int64]


@inlined
def find_over(w, windows, total, limits):  # type: ignore[no-untyped-def]
    """Return the window whose oldest message has to leave, or -1.

    This one's by its age; where all together are beyond a limit, the oldest of all, so that it does not matter over how
    many partitions they are spread.
    """
    if windows[w, WINDOW.COUNT] > 0 and windows[w, WINDOW.CLOCK_MS] > windows[w, WINDOW.FIRST_MS] + limits[2]:
        return w
    if total[TOTAL.MESSAGES] <= limits[0] and total[TOTAL.BYTES] <= limits[1]:
        return -1
    oldest = -1
    for each in range(windows.shape[0]):
        if windows[each, WINDOW.COUNT] > 0 and (
            oldest < 0 or windows[each, WINDOW.FIRST_MS] < windows[oldest, WINDOW.FIRST_MS]
        ):
            oldest = each
    return oldest


@inlined
def leave(w, windows, total, rows, now, notes, table):  # type: ignore[no-untyped-def]
    """Drop a window's oldest message."""
    window = windows[w]
    row = window[WINDOW.FIRST]
    note = notes[now[row] >> NOTE_SHIFT]
    weigh_in(row, -1, windows, total, rows, note)
    if note[NOTE.LABEL_SIZE] < 0:
        window[WINDOW.UNLABELLED] -= 1
    window[WINDOW.COUNT] -= 1
    total[TOTAL.MESSAGES] -= 1
    window[WINDOW.FIRST] = rows[row, ROW.NEXT]
    if window[WINDOW.COUNT] == 0:
        window[WINDOW.LAST] = -1
    else:
        window[WINDOW.FIRST_MS] = rows[window[WINDOW.FIRST], ROW.TIME_MS]
    take_out(table, rows[row, ROW.HASH], row)
    now[row] &= ~BIT.LIVE


@inlined
def weigh_in(row, sign, windows, total, rows, note):  # type: ignore[no-untyped-def]
    """Add what a row weighs with a note to its window, or take it away."""
    n_bytes = sign * weight_of(rows[row], note)
    windows[rows[row, ROW.WINDOW], WINDOW.N_BYTES] += n_bytes
    total[TOTAL.BYTES] += n_bytes


@kernel
def evict(w, windows, total, limits, rows, now, notes, table, expire, steps, counters):  # type: ignore[no-untyped-def]
    """Drop the oldest messages beyond the limits; tell whether all are dropped.

    It stops where there is no room for the steps of those learned, and at one that is set aside: the rules in Python
    drop that.

    `expire` : the column that a message without a label is learned as, or NO_EXPIRY
    """
    over = find_over(w, windows, total, limits)
    while over >= 0:
        row = windows[over, WINDOW.FIRST]
        if now[row] & BIT.ASIDE:
            return False
        if notes[now[row] >> NOTE_SHIFT, NOTE.LABEL_SIZE] < 0:
            if expire != NO_EXPIRY:
                if counters[COUNTER.N_STEPS] == steps.shape[0]:
                    return False
                add_step(steps, counters, rows, row, expire, -1, 0, 0)
            counters[COUNTER.EXPIRED] += 1
        leave(over, windows, total, rows, now, notes, table)
        over = find_over(w, windows, total, limits)
    return True


@kernel
def add_step(steps, counters, rows, row, target, place, time_ms, served):  # type: ignore[no-untyped-def]
    """Append a step with a row's text."""
    step = steps[counters[COUNTER.N_STEPS]]
    step[STEP.ROW], step[STEP.TEXT_AT] = row, rows[row, ROW.AT] + rows[row, ROW.ID_SIZE]
    step[STEP.TEXT_BYTES], step[STEP.TARGET] = rows[row, ROW.TEXT_SIZE], target
    step[STEP.PLACE], step[STEP.TIME_MS], step[STEP.SERVED] = place, time_ms, served
    counters[COUNTER.N_STEPS] += 1


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
    at = rows[row, ROW.AT] + rows[row, ROW.ID_SIZE]
    return rows[row, ROW.TEXT_SIZE] == size and are_equal(data, field[CONTENT], kept, at, size)


@kernel
def append_row(rows, now, notes, kept, used, windows, total, w, n_scores, data, field, h, time_ms):  # type: ignore[no-untyped-def]
    """Append a message that came to a window."""
    row, at = used[USED.ROWS], used[USED.BYTES]
    key_size, text_size = field[KEY + SIZE], field[CONTENT + SIZE]
    copy(data[field[KEY] : field[KEY] + key_size], kept[at:])
    copy(data[field[CONTENT] : field[CONTENT] + text_size], kept[at + key_size :])
    to = rows[row]
    to[ROW.AT], to[ROW.ID_SIZE], to[ROW.TEXT_SIZE] = at, key_size, text_size
    to[ROW.TIME_MS], to[ROW.WINDOW], to[ROW.NEXT], to[ROW.HASH] = time_ms, w, -1, h
    to[ROW.SCORES_AT], to[ROW.N_SCORES] = used[USED.SCORES], n_scores
    now[row] = BIT.LIVE | BIT.CAME
    used[USED.ROWS] += 1
    used[USED.BYTES] += key_size + text_size
    used[USED.SCORES] += n_scores
    link(row, windows, total, rows, notes[0])
    return row


@inlined
def link(row, windows, total, rows, note):  # type: ignore[no-untyped-def]
    """Put a new row, with its note, behind its window's others."""
    window = windows[rows[row, ROW.WINDOW]]
    if window[WINDOW.COUNT] == 0:
        window[WINDOW.FIRST], window[WINDOW.FIRST_MS] = row, rows[row, ROW.TIME_MS]
    else:
        rows[window[WINDOW.LAST], ROW.NEXT] = row
    window[WINDOW.LAST] = row
    window[WINDOW.COUNT] += 1
    total[TOTAL.MESSAGES] += 1
    weigh_in(row, 1, windows, total, rows, note)
    if note[NOTE.LABEL_SIZE] < 0:
        window[WINDOW.UNLABELLED] += 1


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
    store : (rows, now, notes, kept, table, used, early), of a MessageStore; changed
    windows, total, limits : int64 [n_windows, len(WINDOW)], int64 [2], changed; int64 [3], messages, bytes and age
    labels : (table, spans, names, secret), of a Names
    width, expire : how many labels are known; the column for what leaves unlabelled, NO_EXPIRY or ASK_FIRST
    n_odd : how many ids are such that all about them is for the rules in Python: labels wait for their message, or
        several texts came with them
    steps, weights, counters : int64 [room, len(STEP)], float32 [room], int64 [len(COUNTER)], changed
    """
    order, kinds, fields, record_weights, weight_bits, times_ms, partitions, data = records
    rows, now, notes, kept, table, used, early = store
    label_table, label_spans, names, secret = labels
    for place in range(begin, order.shape[0]):
        record = order[place]
        field, kind = fields[record], kinds[record]
        counters[COUNTER.WHY] = STOP.ODD_RECORD
        if kind not in (MESSAGE, LABEL):
            return place
        h = hashes[place]
        prefetch(table, hashes[min(place + AHEAD, order.shape[0] - 1)] & (table.shape[0] - 1))
        row, passed = find(table, rows, kept, h, data, field[KEY], field[KEY + SIZE])
        counters[COUNTER.PASSED] = max(counters[COUNTER.PASSED], passed)
        w = rows[row, ROW.WINDOW] if row >= 0 else partitions[place]
        if (row < 0 and kind == LABEL) or w >= windows.shape[0]:
            return place
        clock_ms = max(windows[w, WINDOW.CLOCK_MS], times_ms[place])
        if clock_ms > windows[w, WINDOW.EARLY_DUE_MS]:
            return place
        column = np.int64(-1)
        if kind == MESSAGE:
            if row < 0:
                if n_odd > 0 and early[h & (N_EARLY - 1)] > 0:
                    return place
            elif now[row] & (BIT.CAME | BIT.SHARED) != BIT.CAME or not is_text_of(rows, kept, row, data, field):
                return place
        else:
            column = find_label(label_table, label_spans, names, secret, data, field[CONTENT], field[CONTENT + SIZE])
            if column < 0 or now[row] & BIT.SHARED:
                return place
            if field[OWN] >= 0:
                is_short = field[OWN + SIZE] <= SHORT and field[CONTENT + SIZE] <= SHORT
                if not is_short or notes[now[row] >> NOTE_SHIFT, NOTE.WORDS_SIZE] > 0:
                    return place
        counters[COUNTER.WHY] = STOP.NO_ROOM
        more = field[KEY + SIZE] + field[CONTENT + SIZE] + LONGEST_WORD
        if (
            counters[COUNTER.N_STEPS] == steps.shape[0]
            or used[USED.ROWS] == rows.shape[0]
            or used[USED.NOTES] == notes.shape[0]
        ):
            return place
        if used[USED.BYTES] + more > kept.shape[0] or used[USED.SCORES] + width > n_scores_room:
            return place

        if kind == MESSAGE:
            if row >= 0:
                counters[COUNTER.DUPLICATES] += 1
            else:
                row = append_row(
                    rows, now, notes, kept, used, windows, total, w, width, data, field, h, times_ms[place]
                )
                put(table, h, row)
                weights[counters[COUNTER.N_STEPS]] = 1
                add_step(steps, counters, rows, row, -1, place, times_ms[place], 0)
        else:
            counters[COUNTER.LABELS_SEEN] += 1
            note = now[row] >> NOTE_SHIFT
            size, known, bits = field[CONTENT + SIZE], notes[note, NOTE.LABEL_SIZE], np.int64(weight_bits[record])
            same = known == size and are_equal(kept, notes[note, NOTE.LABEL_AT], data, field[CONTENT], size)
            same = same and notes[note, NOTE.LABEL_WEIGHT] in (bits, 0)
            if field[OWN] >= 0 or not same:
                note = add_note(now, notes, used, row)
            if field[OWN] >= 0:
                at = used[USED.BYTES]
                own, own_size = field[OWN], field[OWN + SIZE]
                used[USED.BYTES] = pack_word(kept, at, data, own, own_size, field[CONTENT], size, bits)
                notes[note, NOTE.WORDS_AT], notes[note, NOTE.WORDS_SIZE], notes[note, NOTE.N_WORDS] = (
                    at,
                    used[USED.BYTES] - at,
                    1,
                )
                windows[w, WINDOW.N_BYTES] += ROOM * (used[USED.BYTES] - at)
                total[TOTAL.BYTES] += ROOM * (used[USED.BYTES] - at)
            if same:
                counters[COUNTER.REPEATED] += 1
            else:
                if known < 0:
                    windows[w, WINDOW.UNLABELLED] -= 1
                else:
                    counters[COUNTER.CORRECTED] += 1
                copy(data[field[CONTENT] : field[CONTENT] + size], kept[used[USED.BYTES] :])
                notes[note, NOTE.LABEL_AT], notes[note, NOTE.LABEL_SIZE], notes[note, NOTE.LABEL_WEIGHT] = (
                    used[USED.BYTES],
                    size,
                    bits,
                )
                used[USED.BYTES] += size
                windows[w, WINDOW.N_BYTES] += ROOM * (size - max(known, 0))
                total[TOTAL.BYTES] += ROOM * (size - max(known, 0))
                weights[counters[COUNTER.N_STEPS]] = record_weights[record]
                served = np.int64(known < 0 and now[row] & BIT.CAME != 0)
                add_step(steps, counters, rows, row, column, place, times_ms[place], served)
                counters[COUNTER.LABELS_LEARNED] += 1
        windows[w, WINDOW.CLOCK_MS] = clock_ms
        if find_over(w, windows, total, limits) < 0:
            continue
        if expire == ASK_FIRST:
            counters[COUNTER.WHY], counters[COUNTER.WHERE] = STOP.EVICTION, w
            return place + 1
        n = counters[COUNTER.N_STEPS]
        whole = evict(w, windows, total, limits, rows, now, notes, table, expire, steps, counters)
        for step in range(n, counters[COUNTER.N_STEPS]):
            weights[step] = 1
        if not whole:
            counters[COUNTER.WHY], counters[COUNTER.WHERE] = STOP.EVICTION, w
            return place + 1
    counters[COUNTER.WHY] = STOP.DONE
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
