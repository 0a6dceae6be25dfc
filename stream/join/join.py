"""Which message is a label about?

For each partition a window holds the messages that came in lately, each with the scores that were served for it and the
label that it was given, and beside them the labels that came before their message. Bounded by count and bytes, of all
windows together, and by age (the log's time, never this machine's). Nothing here knows a model: what is to be learned
is returned, and the loop learns it.

An id is not believed over the content. What comes again with the same id and the same content is a repetition; with
other content it is something new:

- A message is an id, a text and its fields (wire/fielded.py). The same id with another text is another message, and
  what the id names from then on; those that came before are set aside, and leave as any others do.
- A label with a text is about that text; where it leaves the fields out, about the message that its id names, if that
  has this text. One without a text is about the message that its id names; where texts were set aside it is taken only
  if it can be no other's: that message has no label, and all the others have. Else it is refused.
- A feedback whose id is there with another label, weight or op is another one. The last word on a message counts: a
  label that is not what the message has is a correction, also where it was the label before.

The rules stand in window.py, record by record; rules.py has those of them that nearly all records need, for many
records at once. The messages are rows of message_rows.py. Here is what concerns all windows.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from driftline.stream.decode.batch import Decoded, decode_batch
from driftline.stream.join.feedback_said import weight_bits
from driftline.stream.join.message_rows import BIT, USED, recall, remember
from driftline.stream.join.message_view import Entry
from driftline.stream.join.rules import COUNTER, NO_EXPIRY, TOTAL, WINDOW, Names, hash_keys, take
from driftline.stream.join.shared import Shared
from driftline.stream.join.steps import Steps
from driftline.stream.join.window import NEVER, Window
from driftline.stream.join.window_saved import Frozen, Unwanted, forget
from driftline.stream.limits import JoinCounts, Limits
from driftline.stream.log.base import Chunk, TopicPartition
from driftline.stream.log.merge import Batch
from driftline.stream.wire.records import Message, Rejected


class Stop(NamedTuple):
    """Where and why the kernel stopped, which window is meant, and what it did with labels until there."""

    place: int
    why: int
    window: int
    labels_seen: int
    labels_learned: int


class Join(Shared):
    """One window for each partition of the messages, as a consumer group would spread them.

    A record's key is its message's id, so a label comes from the partition with the same number as its message. Where a
    producer forgot the key it does not: then the other windows of this process are searched before a label has to wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[Window] = []

    def configure(self, n_partitions: int, limits: Limits) -> None:
        """Keep to these limits, with so many partitions; windows that are there stay, and what is in them."""
        self.set_limits(limits)
        self._add_windows(n_partitions)
        for window in self.windows:
            window.see_early()

    def _add_windows(self, n: int) -> None:
        more = max(n - len(self.windows), 0)
        fresh = np.zeros((more, len(WINDOW)), np.int64)
        fresh[:, [WINDOW.FIRST, WINDOW.LAST]], fresh[:, WINDOW.EARLY_DUE_MS] = -1, NEVER
        self.columns = np.concatenate([self.columns, fresh])
        self.windows += [Window(self, number) for number in range(len(self.windows), len(self.windows) + more)]

    def make_room(self, n_rows: int, n_bytes: int, n_scores: int) -> None:
        """Make room for what a batch may bring; entries move. Rows that `store.pending` names are kept up."""
        self.store.make_room(n_rows, n_bytes, n_scores, [self.columns[:, WINDOW.FIRST], self.columns[:, WINDOW.LAST]])

    def state(self) -> list[bytes]:
        """Return the windows' state."""
        return [b"".join(frozen.encode()) for frozen in self.freeze()]

    def freeze(self) -> list[Frozen]:
        """Return the windows as they are now."""
        oldest = self.columns[self.columns[:, WINDOW.COUNT] > 0, WINDOW.FIRST]
        arrays = self.store.hold(int(oldest.min(initial=self.store.used[USED.ROWS])))
        return [window.freeze(arrays) for window in self.windows]

    def forget(self, unwanted: Unwanted) -> None:
        """Forget messages and labels that wait, as if they had not come; counts stay. Nothing may be pending."""
        self.load_state(self.counts, [forget(state, unwanted) for state in self.state()])

    def load_state(self, counts: JoinCounts, windows: Sequence[bytes]) -> None:
        """Take over what a join with so many windows had."""
        self.clear(counts)
        self.windows = []
        self._add_windows(len(windows))
        for window, state in zip(self.windows, windows, strict=True):
            window.load_state(state)
        for row in np.flatnonzero(self.store.now[: self.store.used[USED.ROWS]] & BIT.ASIDE).tolist():
            self.share(Entry(self.store, row), 1)

    def take(self, records: Decoded, place: int, names: Names, width: int, expire: int, steps: Steps) -> Stop:
        """Take a batch's records in, from a place on, until one is not for the kernel; see join/rules.py.

        Parameters
        ----------
        width : how many labels are known: so many scores each message gets
        expire : as what messages without a label are learned when they leave
        steps : appended to
        """
        store, counters, counts = self.store, self.scratch[1], self.counts
        if place == 0:
            self.keep_apart()
            hash_keys(records.columns, store.secret, records.hashes)
        counters[:] = 0
        counters[COUNTER.N_STEPS] = steps.n
        arrays = store.rows, store.now, store.notes, store.kept, store.table, store.used, store.early
        place = take(
            place,
            records.columns,
            records.hashes,
            arrays,
            len(store.scores),
            self.columns,
            self.total,
            self.limits_array,
            names.arrays,
            width,
            expire,
            len(self.homes) + len(self.shared),
            steps.table,
            steps.weights,
            counters,
        )
        counted = counters.tolist()
        steps.n = counted[COUNTER.N_STEPS]
        store.passed = max(store.passed, counted[COUNTER.PASSED])
        counts.duplicates += counted[COUNTER.DUPLICATES]
        counts.repeated += counted[COUNTER.REPEATED]
        counts.corrected += counted[COUNTER.CORRECTED]
        counts.expired += counted[COUNTER.EXPIRED]
        return Stop(
            place,
            counted[COUNTER.WHY],
            counted[COUNTER.WHERE],
            counted[COUNTER.LABELS_SEEN],
            counted[COUNTER.LABELS_LEARNED],
        )

    def evict(self, window: Window) -> tuple[list[Entry], list[Rejected]]:
        """Drop what is beyond the limits, oldest first.

        Returns
        -------
        expired : messages of this window that nobody labelled
        rejected : labels that found no message, and those that the window refused since the last time
        """
        expired = self.evict_messages(window.number)
        return expired, [*window.take_refused(), *self._evict_early(window)]

    def _evict_early(self, window: Window) -> Iterator[Rejected]:
        """Drop the labels that wait too long at a window, or beyond the limits at any; give what they are then."""
        limits = self.early_limits
        while self.homes:
            if window.early and window.early_since_ms < window.clock_ms - limits.age_ms:
                reason, victim = "age", window
            elif len(self.homes) > limits.messages or self.early_bytes > limits.n_bytes:
                reason = "number" if len(self.homes) > limits.messages else "bytes"
                victim = min((each for each in self.windows if each.early), key=lambda each: each.early_since_ms)
            else:
                return
            if orphans := victim.drop_early():
                self.counts.orphan(reason, len(orphans))
            yield from orphans

    def of_message(self, partition: int, message_id: str) -> Window:
        """Return the window that a message goes to: where its label waits, or its partition's own."""
        entry = self.messages.get(message_id)
        return self.windows[entry.window if entry else self.homes.get(message_id, partition)]

    def of_feedback(self, partition: int, message_id: str) -> Window:
        """Return the window that holds a label's message or others of its labels, or else its partition's own."""
        home = self.late.homes.get(message_id)
        return self.of_message(partition % len(self.windows) if home is None else home, message_id)

    @property
    def n_bytes(self) -> int:
        """What the windows weigh."""
        return int(self.total[TOTAL.BYTES]) + self.early_bytes + self.late.n_bytes

    @property
    def pending(self) -> int:
        """Messages that wait for a label."""
        return int(self.columns[:, WINDOW.UNLABELLED].sum())

    @property
    def waiting(self) -> int:
        """Labels that wait for a message."""
        return sum(
            each.orphan is not None for window in self.windows for of_one in window.early.values() for each in of_one
        )


def warm_up() -> None:
    """Compile the kernels, or load them compiled, so that no message waits for that."""
    messages, feedback = (TopicPartition(topic, 0) for topic in ("messages", "feedback"))
    values = {messages: b'{"id":"m","text":""}', feedback: b'{"message_id":"m","label":"a"}'}
    zero = np.zeros(1, np.int64)
    chunks = [Chunk(partition, zero, zero, [b""], [value]) for partition, value in values.items()]
    records = decode_batch(Batch(chunks, np.arange(2), []), lambda chunk: chunk.partition == messages, 64, 0)
    join, names, steps = Join(), Names(), Steps(2)
    join.configure(1, Limits(1, 1 << 20, 1))
    names.update(["a"])
    join.take(records, 0, names, 1, NO_EXPIRY, steps)
    steps.texts(join.store)
    remember(join.store.rows, join.store.now, join.store.scores, steps.rows[:1], np.zeros((1, 1), np.float32), zero)
    recall(join.store.rows, join.store.now, join.store.scores, steps.rows, np.zeros((2, 1), np.float32))
    join.make_room(1 << 16, 0, 0)
    join.set_label(join.messages["m"], "a", weight_bits(1.0))
    join.windows[0].add_message(Message("m", "another text"), 0, 1)
    join.messages.aside("m", "")
    join.evict_messages(0)
    join.store.change_secret()
    join.load_state(join.counts, join.state())
