"""What do the windows of a join share?

The messages of all of them are rows of one store, and the limits are of all together. What changes a message's weight,
which texts share an id, and at which window labels wait, is counted here.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from driftline.stream.join.late import Gone, Late
from driftline.stream.join.message_rows import BIT, ENTRY_BYTES, LONGEST, N_EARLY, ROOM, MessageStore
from driftline.stream.join.message_view import Entry, Messages
from driftline.stream.join.rules import COUNTER, NO_EXPIRY, STEP, TOTAL, WINDOW, Ints, evict, find_over, leave
from driftline.stream.limits import MOST, JoinCounts, Limits
from driftline.stream.wire.records import Feedback

# Labels without a message get this part of the limits, so that a flood of them cannot push the messages out.
EARLY_SHARE: Final = 0.25
_SCRATCH: Final = 256


class Shared:
    """What the windows share.

    Attributes
    ----------
    store, columns : the messages of all windows; int64 [n_windows, len(WINDOW)], what each window counts
    total : int64 [2], how many messages there are in all windows, and what they weigh
    limits, limits_array : of all windows together, oldest first; the same as int64 [3]
    homes : of each message whose labels wait for it, the window that has them
    shared : of each id of which messages are set aside how many these are, and how many of them have no label
    late : the messages that left without a label, were learned as one, and can still be corrected
    """

    limits: Limits
    early_limits: Limits
    limits_array: Ints

    def __init__(self) -> None:
        self.counts = JoinCounts()
        self.homes: dict[str, int] = {}
        self.early_bytes = 0
        self.shared: dict[str, list[int]] = {}
        self.late = Late()
        self.store = MessageStore()
        self.messages = Messages(self.store)
        self.columns: Ints = np.zeros((0, len(WINDOW)), np.int64)
        self.total: Ints = np.zeros(2, np.int64)
        self.scratch = np.zeros((_SCRATCH, len(STEP)), np.int64), np.zeros(len(COUNTER), np.int64)

    def set_limits(self, limits: Limits) -> None:
        """Keep to these limits from now on."""
        self.limits, self.early_limits = limits, limits.share(EARLY_SHARE)
        self.late.configure(limits)
        self.limits_array = np.array([min(limit, MOST) for limit in self.limits], np.int64)

    def clear(self, counts: JoinCounts) -> None:
        """Forget all but the limits; these are the counts from now on."""
        self.counts = counts
        self.homes, self.shared, self.early_bytes = {}, {}, 0
        self.late.clear()
        self.columns = np.zeros((0, len(WINDOW)), np.int64)
        self.total[:] = 0
        self.store.clear()

    def keep_apart(self) -> None:
        """Have no look-up pass more than LONGEST places for longer than a batch, whatever was sent."""
        if self.store.passed > LONGEST:
            self.store.change_secret()
            self.store.early[:] = 0
            for key in (*self.homes, *self.shared):
                self._mark(key, 1)

    def evict_messages(self, number: int) -> list[Entry]:
        """Drop what is too old in a window, or beyond the limits in any; return the messages that had no label."""
        steps, counters = self.scratch
        store, expired = self.store, []
        whole = False
        while not whole:
            counters[:] = 0
            arrays = store.rows, store.now, store.notes, store.table
            whole = evict(number, self.columns, self.total, self.limits_array, *arrays, NO_EXPIRY + 1, steps, counters)
            self.counts.expired += int(counters[COUNTER.EXPIRED])
            expired += [Entry(store, row) for row in steps[: counters[COUNTER.N_STEPS], STEP.ROW].tolist()]
            if not whole:
                expired += self._evict_aside(number)
        return expired

    def _evict_aside(self, number: int) -> list[Entry]:
        """Drop the message that has to leave next, if it is one that was set aside; return it if it had no label."""
        store, window = self.store, int(find_over(number, self.columns, self.total, self.limits_array))
        entry = Entry(store, int(self.columns[window, WINDOW.FIRST]))
        if not entry.aside:
            return []
        self.share(entry, -1)
        leave(window, self.columns, self.total, store.rows, store.now, store.notes, store.table)
        if entry.label is not None:
            return []
        self.counts.expired += 1
        return [entry]

    def keep_expired(self, row: int, label: str) -> None:
        """Keep a message that has left without a label, and was learned as this one, for its true label."""
        entry = Entry(self.store, row)
        key = entry.key
        alone = not entry.aside and key not in self.shared
        self.late.keep(entry.window, key, Gone(entry.text, label, entry.timestamp_ms, alone))

    # Texts that share an id.

    def set_aside(self, entry: Entry, *, aside: bool) -> None:
        """Have an id name another message than this one, or this one again."""
        self.store.set_aside(entry.row, aside=aside)
        self.share(entry, 1 if aside else -1)

    def share(self, entry: Entry, n: int) -> None:
        """Count a message as set aside, or as so no more."""
        key = entry.key
        if key not in self.shared:
            self.shared[key] = [0, 0]
            self.total[TOTAL.BYTES] += ENTRY_BYTES + ROOM * len(key)
            self._mark(key, 1)
        of_key = self.shared[key]
        of_key[0] += n
        of_key[1] += n if entry.label is None else 0
        if not of_key[0]:
            del self.shared[key]
            self.total[TOTAL.BYTES] -= ENTRY_BYTES + ROOM * len(key)
            self._mark(key, -1)
        if (named := self.messages.get(key)) is not None:
            self.store.set_bit(named.row, BIT.SHARED, on=key in self.shared)

    def waits_aside(self, key: str) -> bool:
        """Tell whether a message with an id was set aside before it had a label."""
        return key in self.shared and self.shared[key][1] > 0

    def is_ambiguous(self, entry: Entry) -> bool:
        """Tell whether a label without a text, which is not what this message has, may be another's of its id."""
        key = entry.key
        return key in self.shared and (self.shared[key][1] > 0 or entry.label is not None)

    def may_be_refused(self, feedback: Feedback) -> bool:
        """Tell whether a label might not be learned: it has to wait, or which message it is about cannot be told."""
        key = feedback.message_id
        plain = feedback.text is None and feedback.op == "upsert"
        return plain and (key in self.shared or key not in self.messages)

    # What changes what a message weighs.

    def set_label(self, entry: Entry, label: str, weight: int) -> None:
        """Note the label that is learned."""
        if entry.label is None:
            self.columns[entry.window, WINDOW.UNLABELLED] -= 1
            if entry.aside:
                self.shared[entry.key][1] -= 1
        self.weigh(entry, lambda: entry.set_label(label, weight))

    def weigh(self, entry: Entry, change: Callable[[], None]) -> None:
        """Change a message, and count what it weighs more or less."""
        before = entry.n_bytes
        change()
        grown = entry.n_bytes - before
        self.columns[entry.window, WINDOW.N_BYTES] += grown
        self.total[TOTAL.BYTES] += grown

    # Where labels wait.

    def wait_for(self, key: str, home: int) -> None:
        """Note that a label waits for its message at a window, the one of this number."""
        self.homes[key] = home
        self._mark(key, 1)

    def wait_no_more(self, key: str) -> None:
        """Note that none waits any more."""
        del self.homes[key]
        self._mark(key, -1)

    def _mark(self, key: str, n: int) -> None:
        """Say that what concerns an id is for the rules here, or is not any more."""
        place = self.store.hash(np.frombuffer(key.encode(), np.uint8)) & (N_EARLY - 1)
        marks = int(self.store.early[place])
        if marks < np.iinfo(np.uint16).max:  # else nobody knows how many there were
            self.store.early[place] = marks + n
