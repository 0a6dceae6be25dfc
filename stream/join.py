"""Which message is a label about?

For each partition a window holds the messages that came in lately, each with the scores that were served for it and the
label that it was given, and beside them the labels that came before their message. A label that comes again is known
there. Bounded by count, bytes and age (the log's time, never this machine's). Nothing here knows a model: what is to be
learned is returned, and the loop learns it.

The messages are rows of stream/store.py. Here are the rules, record by record; stream/plain.py has those of them that
nearly all records need, for many records at once.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from driftline.stream.batch import Decoded, decode_batch
from driftline.stream.entry import Early, Entry, Label, Labels, Messages
from driftline.stream.errors import StateError
from driftline.stream.limits import MOST, JoinCounts, Limits
from driftline.stream.log import Chunk, TopicPartition
from driftline.stream.merge import Batch
from driftline.stream.plain import (
    CLOCK_MS,
    CORRECTED,
    COUNT,
    DUPLICATES,
    EARLY_DUE_MS,
    ENTRY_BYTES,
    EXPIRED,
    FEEDBACK_BYTES,
    FIRST,
    LABELS_LEARNED,
    LABELS_SEEN,
    LAST,
    N_BYTES,
    N_COUNTERS,
    N_STEP,
    N_STEPS,
    N_WINDOW,
    NO_EXPIRY,
    REPEATED,
    ROW,
    UNLABELLED,
    WHERE,
    WHY,
    Ints,
    Names,
    evict,
    hash_keys,
    link,
    take,
)
from driftline.stream.records import Feedback, Message, Rejected
from driftline.stream.saved import Frozen, Unwanted, decode, forget
from driftline.stream.steps import Steps
from driftline.stream.store import (
    CAME,
    LIVE,
    N_EARLY,
    ROWS,
    TIME_MS,
    WEIGHT,
    WINDOW,
    Arrays,
    Store,
    recall,
    remember,
)
from driftline.stream.unpack import restore

__all__ = ["ENTRY_BYTES", "Entry", "Frozen", "Join", "JoinCounts", "Label", "Labels", "Limits", "Window"]

# A source that labels one message for ever cannot fill the window: older feedback ids of that message are forgotten.
MAX_IDS_PER_MESSAGE: Final = 64
MAX_EARLY_PER_MESSAGE: Final = 16
# Labels without a message get this part of the limits, so that a flood of them cannot push the messages out.
EARLY_SHARE: Final = 0.25
NEVER: Final = (1 << 63) - 1
_SCRATCH: Final = 256


class Window:
    """The messages of one partition that can still be labelled, and its labels that wait for a message.

    Parameters
    ----------
    join : that it is one of; what windows share is there
    number : of the partition
    """

    def __init__(self, join: "Join", number: int) -> None:
        self._join, self.number = join, number
        self.store, self.messages = join.store, join.messages
        self.early: OrderedDict[str, tuple[Early, ...]] = OrderedDict()  # frozen ones hold the tuples
        self.early_bytes = 0

    def _get(self, column: int) -> int:
        return int(self._join.columns[self.number, column])

    def _add(self, column: int, amount: int) -> None:
        self._join.columns[self.number, column] += amount

    @property
    def clock_ms(self) -> int:
        """The highest time of a record that concerned it."""
        return self._get(CLOCK_MS)

    @property
    def n_bytes(self) -> int:
        """What its messages weigh."""
        return self._get(N_BYTES)

    @property
    def unlabelled(self) -> int:
        """How many of its messages have no label."""
        return self._get(UNLABELLED)

    def add_message(self, message: Message, timestamp_ms: int, score_bytes: int) -> tuple[Entry | None, Labels]:
        """Take a message in.

        Returns
        -------
        entry : to be scored; None where the message was there already
        labels : that waited for it, to be learned once it was scored
        """
        key = message.id
        entry = self.messages.get(key)
        if entry is None:
            entry = self._insert(key, message.text, timestamp_ms, score_bytes, came=True)
        elif entry.came:
            self._join.counts.duplicates += 1
            self._pass(timestamp_ms)
            return None, ()
        else:
            entry.come(score_bytes)
            self._add(N_BYTES, score_bytes)
        self._pass(timestamp_ms)
        return entry, self._settle_early(key, entry) if self.early else ()

    def add_feedback(self, feedback: Feedback, timestamp_ms: int, orphan: Rejected | None) -> Labels:
        """Take a label in and return what is to be learned now; `orphan` is needed where the message is not here."""
        entry = self.messages.get(feedback.message_id)
        if feedback.op == "retract":
            self._retract(feedback, entry)
            labels: Labels = ()
        elif entry is not None:
            labels = self._settle(entry, feedback, timestamp_ms)
        elif feedback.text is not None:
            entry = self._insert(feedback.message_id, feedback.text, timestamp_ms, 0, came=False)
            labels = (*self._settle_early(feedback.message_id, entry), *self._settle(entry, feedback, timestamp_ms))
        else:
            assert orphan is not None, "add_feedback needs the orphan where `feedback.message_id in messages` is false"
            self._wait(Early(feedback, timestamp_ms, orphan))
            labels = ()
        self._pass(timestamp_ms)
        return labels

    def _pass(self, timestamp_ms: int) -> None:
        columns = self._join.columns
        columns[self.number, CLOCK_MS] = max(self.clock_ms, timestamp_ms)

    def evict(self) -> tuple[list[Entry], list[Rejected]]:
        """Drop what is beyond the limits, oldest first: messages that nobody labelled, labels that found no message."""
        expired = self._join.evict_messages(self.number)
        return expired, list(self._evict_early()) if self.early else []

    def freeze(self, arrays: Arrays) -> Frozen:
        """Return everything as it is now; `arrays` are what the store has."""
        return Frozen(self.number, self.clock_ms, arrays, self._get(COUNT), list(self.early.values()))

    def load_state(self, state: bytes) -> None:
        """Take over what a frozen one's parts are together; there has to be nothing yet."""
        try:
            loaded = decode(state)
            self._join.columns[self.number, CLOCK_MS] = loaded.clock_ms
            restore(loaded.messages, self.store, self.number, self._join.columns)
            self._restore_early(loaded.early)
        except (ValueError, RecursionError, OverflowError) as error:
            raise StateError(f"the join window of the checkpoint cannot be read: {error}") from None

    def _restore_early(self, early: list[tuple[str, list[Early]]]) -> None:
        self.early = OrderedDict((key, tuple(waiting)) for key, waiting in early)
        if any({each.feedback.message_id for each in waiting} != {key} for key, waiting in self.early.items()):
            raise ValueError("labels that wait are none, or of other messages")
        if not self._join.homes.keys().isdisjoint(self.early):
            raise ValueError("labels wait at two windows")
        for key in self.early:
            self._join.wait_for(key, self)
        self.early_bytes = sum(map(_early_bytes, self.early.values()))
        self._see_early()

    def _insert(self, key: str, text: str, timestamp_ms: int, score_bytes: int, *, came: bool) -> Entry:
        n_bytes = ENTRY_BYTES + 4 * (len(key) + len(text)) + score_bytes  # a character takes up to 4 bytes
        return self._append(key, text, timestamp_ms, score_bytes // 4, n_bytes, came=came)

    def _append(self, key: str, text: str, timestamp_ms: int, n_scores: int, n_bytes: int, *, came: bool) -> Entry:
        values = {TIME_MS: timestamp_ms, WEIGHT: n_bytes, WINDOW: self.number}
        row = self.store.append(key.encode(), text.encode(), n_scores, values, LIVE | (CAME if came else 0))
        link(self.store.rows, self._join.columns, row)
        return Entry(self.store, row)

    def _settle(self, entry: Entry, feedback: Feedback, timestamp_ms: int) -> Labels:
        known = entry.label
        counts = self._join.counts
        if feedback.id is not None:
            ids = entry.feedback_ids
            if feedback.id in ids:
                counts.repeated += 1
                return ()
            grown = FEEDBACK_BYTES + 4 * len(feedback.id)
            entry.set_feedback_ids((*ids[1 - MAX_IDS_PER_MESSAGE :], feedback.id), grown)
            self._add(N_BYTES, grown)
        if known is None:
            self._add(UNLABELLED, -1)
        elif known == feedback.label:
            counts.repeated += 1
            return ()
        else:
            counts.corrected += 1
        entry.set_label(feedback.label)
        return (Label(entry, feedback, timestamp_ms, known is not None),)

    def _settle_early(self, key: str, entry: Entry) -> Labels:
        return tuple(
            msgspec.structs.replace(label, orphan=each.orphan)
            for each in self._drop_early(key)
            for label in self._settle(entry, each.feedback, each.timestamp_ms)
        )

    def _drop_early(self, key: str) -> tuple[Early, ...]:
        waiting = self.early.pop(key, None)
        if waiting is None:
            return ()
        self._join.wait_no_more(key)
        self.early_bytes -= _early_bytes(waiting)
        self._see_early()
        return waiting

    def _see_early(self) -> None:
        """Say from when on a label has waited too long."""
        due = next(iter(self.early.values()))[0].timestamp_ms + self._join.limits.age_ms if self.early else NEVER
        self._join.columns[self.number, EARLY_DUE_MS] = min(due, NEVER)

    def _retract(self, feedback: Feedback, entry: Entry | None) -> None:
        """Drop the labels that still wait. One that was learned stays in the model until it is built anew."""
        self._join.counts.retracted += 1
        if entry is None:
            self._drop_early(feedback.message_id)

    def _wait(self, early: Early) -> None:
        key = early.feedback.message_id
        if key not in self.early:
            self.early[key] = ()
            self._join.wait_for(key, self)
        waiting = self.early[key]
        known = any(early.feedback.id is not None and each.feedback.id == early.feedback.id for each in waiting)
        if known or len(waiting) >= MAX_EARLY_PER_MESSAGE:
            self._join.counts.repeated += 1
            return
        self._join.counts.early += 1
        self.early[key] = (*waiting, early)
        self.early_bytes += _early_bytes([early])
        self._see_early()

    def _evict_early(self) -> Iterator[Rejected]:
        limits, early = self._join.limits.share(EARLY_SHARE), self.early
        while early:
            key, waiting = next(iter(early.items()))
            if waiting[0].timestamp_ms < self.clock_ms - limits.age_ms:
                reason = "age"
            elif len(early) > limits.messages:
                reason = "number"
            elif self.early_bytes > limits.n_bytes:
                reason = "bytes"
            else:
                return
            self._drop_early(key)
            self._join.counts.orphan(reason, len(waiting))
            yield from (each.orphan for each in waiting)


def _early_bytes(waiting: Sequence[Early]) -> int:
    return sum(3 * ENTRY_BYTES + 4 * (len(each.feedback.message_id) + len(each.feedback.label)) for each in waiting)


class Stop(NamedTuple):
    """Where and why the kernel stopped, which window is meant, and what it did with labels until there."""

    place: int
    why: int
    window: int
    labels_seen: int
    labels_learned: int


class Join:
    """One window for each partition of the messages, as a consumer group would spread them.

    A record's key is its message's id, so a label comes from the partition with the same number as its message. Where a
    producer forgot the key it does not: then the other windows of this process are searched before a label has to wait.

    Attributes
    ----------
    store, columns : the messages of all windows; int64 [n_windows, N_WINDOW], what each window counts
    limits, room : of one window; the same as int64 [3]
    """

    def __init__(self) -> None:
        self.counts = JoinCounts()
        self.windows: list[Window] = []
        self.homes: dict[str, Window] = {}  # which of them has the labels that wait for a message
        self.store = Store()
        self.messages = Messages(self.store)
        self.columns: Ints = np.zeros((0, N_WINDOW), np.int64)
        self._scratch = np.zeros((_SCRATCH, N_STEP), np.int64), np.zeros(N_COUNTERS, np.int64)

    def configure(self, n_partitions: int, limits: Limits) -> None:
        """Share the limits among so many partitions; windows that are there stay."""
        self.limits = limits.share(1 / n_partitions)
        self.room = np.array([min(limit, MOST) for limit in self.limits], np.int64)
        self._add_windows(n_partitions)
        for window in self.windows:
            window._see_early()

    def _add_windows(self, n: int) -> None:
        more = max(n - len(self.windows), 0)
        fresh = np.zeros((more, N_WINDOW), np.int64)
        fresh[:, [FIRST, LAST]], fresh[:, EARLY_DUE_MS] = -1, NEVER
        self.columns = np.concatenate([self.columns, fresh])
        self.windows += [Window(self, number) for number in range(len(self.windows), len(self.windows) + more)]

    def make_room(self, n_rows: int, n_bytes: int, n_scores: int) -> None:
        """Make room for what a batch may bring; entries move. Rows that `store.pending` names are kept up."""
        self.store.make_room(n_rows, n_bytes, n_scores, [self.columns[:, FIRST], self.columns[:, LAST]])

    def state(self) -> list[bytes]:
        """Return the windows' state."""
        return [b"".join(frozen.encode()) for frozen in self.freeze()]

    def freeze(self) -> list[Frozen]:
        """Return the windows as they are now."""
        oldest = self.columns[self.columns[:, COUNT] > 0, FIRST]
        arrays = self.store.hold(int(oldest.min(initial=self.store.used[ROWS])))
        return [window.freeze(arrays) for window in self.windows]

    def forget(self, unwanted: Unwanted) -> None:
        """Forget messages and labels that wait, as if they had not come; counts stay. Nothing may be pending."""
        self.load_state(self.counts, [forget(state, unwanted) for state in self.state()])

    def load_state(self, counts: JoinCounts, windows: Sequence[bytes]) -> None:
        """Take over what a join with so many windows had."""
        self.counts = counts
        self.homes, self.windows = {}, []
        self.columns = np.zeros((0, N_WINDOW), np.int64)
        self.store.clear()
        self._add_windows(len(windows))
        for window, state in zip(self.windows, windows, strict=True):
            window.load_state(state)

    def take(self, records: Decoded, place: int, names: Names, width: int, expire: int, steps: Steps) -> Stop:
        """Take a batch's records in, from a place on, until one is not for the kernel; see stream/plain.py.

        Parameters
        ----------
        width : how many labels are known: so many scores each message gets
        expire : as what messages without a label are learned when they leave
        steps : appended to
        """
        store, counters, counts = self.store, self._scratch[1], self.counts
        if place == 0:
            hash_keys(records.columns, store.seeds, records.hashes)
        counters[:] = 0
        counters[N_STEPS] = steps.n
        arrays = store.rows, store.now, store.notes, store.kept, store.table, store.used, store.seeds, store.early
        place = take(
            place,
            records.columns,
            records.hashes,
            arrays,
            len(store.scores),
            self.columns,
            self.room,
            names.arrays,
            width,
            expire,
            len(self.homes),
            steps.table,
            steps.weights,
            counters,
        )
        counted = counters.tolist()
        steps.n = counted[N_STEPS]
        counts.duplicates += counted[DUPLICATES]
        counts.repeated += counted[REPEATED]
        counts.corrected += counted[CORRECTED]
        counts.expired += counted[EXPIRED]
        return Stop(place, counted[WHY], counted[WHERE], counted[LABELS_SEEN], counted[LABELS_LEARNED])

    def evict_messages(self, number: int) -> list[Entry]:
        """Drop what is beyond a window's limits; return the messages that had no label."""
        steps, counters = self._scratch
        store, expired = self.store, []
        whole = False
        while not whole:
            counters[:] = 0
            arrays = store.rows, store.now, store.notes, store.table
            whole = evict(number, self.columns, self.room, *arrays, NO_EXPIRY + 1, steps, counters)
            self.counts.expired += int(counters[EXPIRED])
            expired += [Entry(store, row) for row in steps[: counters[N_STEPS], ROW].tolist()]
        return expired

    def wait_for(self, key: str, home: Window) -> None:
        """Note that a label waits for its message at a window."""
        self.homes[key] = home
        place = self._early_place(key)
        self.store.early[place] = min(int(self.store.early[place]) + 1, np.iinfo(np.uint16).max)

    def wait_no_more(self, key: str) -> None:
        """Note that none waits any more."""
        del self.homes[key]
        place = self._early_place(key)
        if self.store.early[place] < np.iinfo(np.uint16).max:  # else nobody knows how many there were
            self.store.early[place] -= 1

    def _early_place(self, key: str) -> int:
        return self.store.hash(np.frombuffer(key.encode(), np.uint8)) & (N_EARLY - 1)

    def of_message(self, partition: int, message_id: str) -> Window:
        """Return the window that a message goes to: where its label waits, or its partition's own."""
        entry = self.messages.get(message_id)
        return self.windows[entry.window] if entry else self.homes.get(message_id) or self.windows[partition]

    def of_feedback(self, partition: int, message_id: str) -> Window:
        """Return the window that holds a label's message or others of its labels, or else its partition's own."""
        return self.of_message(partition % len(self.windows), message_id)

    @property
    def n_bytes(self) -> int:
        """What the windows weigh."""
        return int(self.columns[:, N_BYTES].sum()) + sum(window.early_bytes for window in self.windows)

    @property
    def pending(self) -> int:
        """Messages that wait for a label."""
        return int(self.columns[:, UNLABELLED].sum())

    @property
    def waiting(self) -> int:
        """Labels that wait for a message."""
        return sum(len(each) for window in self.windows for each in window.early.values())


def warm_up() -> None:
    """Compile the kernels, or load them compiled, so that no message waits for that."""
    messages, feedback = (TopicPartition(topic, 0) for topic in ("messages", "feedback"))
    values = {messages: b'{"id":"m","text":""}', feedback: b'{"message_id":"m","label":"a"}'}
    zero = np.zeros(1, np.int64)
    chunks = [Chunk(partition, zero, zero, [b""], [value]) for partition, value in values.items()]
    records = decode_batch(Batch(chunks, np.arange(2), []), lambda chunk: chunk.partition == messages, 64, 0)
    join, names, steps = Join(), Names(), Steps(2)
    join.configure(1, Limits(1, 1 << 20, 1))
    names.update(["a"], join.store.seeds)
    join.take(records, 0, names, 1, NO_EXPIRY, steps)
    steps.texts(join.store)
    remember(join.store.rows, join.store.now, join.store.scores, steps.rows[:1], np.zeros((1, 1), np.float32), zero)
    recall(join.store.rows, join.store.now, join.store.scores, steps.rows, np.zeros((2, 1), np.float32))
    join.make_room(1 << 16, 0, 0)
    join.messages["m"].set_label("a")
    join.windows[0].add_message(Message("by the rules in Python", ""), 0, 4)
    join.evict_messages(0)
    join.load_state(join.counts, join.state())
