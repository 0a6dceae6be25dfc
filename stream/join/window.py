"""Which message is a label about?

For each partition a window holds the messages that came in lately, each with the scores that were served for it and the
label that it was given, and beside them the labels that came before their message. Bounded by count and bytes, of all
windows together, and by age (the log's time, never this machine's). Nothing here knows a model: what is to be learned
is returned, and the loop learns it.

An id is not believed over the content. What comes again with the same id and the same content is a repetition; with
other content it is something new:

- A message is an id and a text. The same id with another text is another message, and what the id names from then on;
  those that came before are set aside, and leave as any others do.
- A label with a text is about that text. One without is about the message that its id names; where texts were set
  aside it is taken only if it can be no other's: that message has no label, and all the others have. Else it is
  refused.
- A feedback whose id is there with another label, weight or op is another one. The last word on a message counts: a
  label that is not what the message has is a correction, also where it was the label before.

The messages are rows of join/message_rows.py. Here are the rules, record by record; join/rules.py has those of them
that nearly all records need, for many records at once.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from driftline.stream.decode.batch import Decoded, decode_batch
from driftline.stream.errors import StateError
from driftline.stream.join.early import Early, Waiting, find_id, is_repeated, weigh
from driftline.stream.join.feedback_said import weight_bits, word_of
from driftline.stream.join.late import Gone, Late
from driftline.stream.join.message_rows import (
    ASIDE,
    CAME,
    ENTRY_BYTES,
    LIVE,
    LONGEST,
    N_EARLY,
    ROOM,
    ROWS,
    SHARED,
    TIME_MS,
    WINDOW,
    Arrays,
    Store,
    recall,
    remember,
)
from driftline.stream.join.message_view import Entry, Label, Labels, Messages
from driftline.stream.join.rules import (
    ALL_BYTES,
    CLOCK_MS,
    CORRECTED,
    COUNT,
    DUPLICATES,
    EARLY_DUE_MS,
    EXPIRED,
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
    PASSED,
    REPEATED,
    ROW,
    UNLABELLED,
    WHERE,
    WHY,
    Ints,
    Names,
    evict,
    find_over,
    hash_keys,
    leave,
    link,
    take,
)
from driftline.stream.join.steps import Steps
from driftline.stream.join.unpack import restore
from driftline.stream.join.window_saved import Frozen, Unwanted, decode, forget
from driftline.stream.limits import MOST, JoinCounts, Limits
from driftline.stream.log.base import Chunk, TopicPartition
from driftline.stream.log.merge import Batch
from driftline.stream.wire.records import Feedback, Message, Rejected

__all__ = ["ENTRY_BYTES", "Entry", "Frozen", "Join", "JoinCounts", "Label", "Labels", "Limits", "Window"]

# A source that labels one message for ever cannot fill the window: what older feedback said of it is forgotten.
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
        self.early: OrderedDict[str, Waiting] = OrderedDict()  # frozen ones hold the tuples
        self.early_bytes = 0
        self._refused: list[Rejected] = []  # since the last `evict`

    def _get(self, column: int) -> int:
        return int(self._join.columns[self.number, column])

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

    def add_message(self, message: Message, timestamp_ms: int, n_scores: int) -> tuple[Entry | None, Labels]:
        """Take a message in.

        Returns
        -------
        entry : to be scored; None where the message was there already
        labels : that waited for it, to be learned once it was scored
        """
        join, key = self._join, message.id
        named = self.messages.get(key)
        entry = self._of_text(key, message.text, named)
        self._pass(timestamp_ms)
        if entry is not None and entry.came:
            join.counts.duplicates += 1
            return None, ()
        if named is not None and (entry is None or entry.aside):
            join.set_aside(named, aside=True)
        if entry is None:
            join.counts.other_texts += key in join.shared
            entry = self._insert(key, message.text, timestamp_ms, n_scores, CAME)
        else:
            if entry.aside:
                join.set_aside(entry, aside=False)
            join.weigh(entry, lambda: entry.come(n_scores))
        return entry, self._settle_early(key, entry) if self.early else ()

    def add_feedback(self, feedback: Feedback, timestamp_ms: int, orphan: Rejected | None) -> Labels:
        """Take a label in and return what is to be learned now.

        `orphan` : what it is on the dead-letter topic, if it cannot be learned; needed where `may_be_refused` says so.
        """
        join, key, text = self._join, feedback.message_id, feedback.text
        named = self.messages.get(key)
        entry = named if text is None else self._of_text(key, text, named)
        labels: Labels = ()
        if feedback.op == "retract":
            self._retract(feedback, entry, timestamp_ms)
        elif entry is not None:
            labels = self._settle(entry, feedback, timestamp_ms, orphan)
        elif text is None and (join.waits_aside(key) or join.late.is_shared(key)):
            self._refuse(feedback, orphan)
        elif (gone := join.late.take(key, text, self.clock_ms)) is not None:
            entry, before = self._bring_back(key, gone, timestamp_ms, named)
            labels = (*before, *self._settle(entry, feedback, timestamp_ms, orphan))
        elif text is not None:
            join.counts.other_texts += named is not None or key in join.shared
            entry = self._insert(key, text, timestamp_ms, 0, 0 if named is None else ASIDE)
            before = self._settle_early(key, entry) if named is None else ()
            labels = (*before, *self._settle(entry, feedback, timestamp_ms, orphan))
        else:
            self._wait(feedback, timestamp_ms, orphan)
        self._pass(timestamp_ms)
        return labels

    def _pass(self, timestamp_ms: int) -> None:
        columns = self._join.columns
        columns[self.number, CLOCK_MS] = max(self.clock_ms, timestamp_ms)

    def evict(self) -> tuple[list[Entry], list[Rejected]]:
        """Drop what is beyond the limits, oldest first.

        Returns
        -------
        expired : messages that nobody labelled
        rejected : labels that found no message, and those that were refused since the last time
        """
        expired = self._join.evict_messages(self.number)
        refused, self._refused = self._refused, []
        return expired, [*refused, *self._join.evict_early(self)]

    def freeze(self, arrays: Arrays) -> Frozen:
        """Return everything as it is now; `arrays` are what the store has."""
        late = self._join.late.of_window(self.number)
        return Frozen(self.number, self.clock_ms, arrays, self._get(COUNT), list(self.early.values()), late)

    def load_state(self, state: bytes) -> None:
        """Take over what a frozen one's parts are together; there has to be nothing yet."""
        try:
            loaded = decode(state)
            self._join.columns[self.number, CLOCK_MS] = loaded.clock_ms
            restore(loaded.messages, self.store, self.number, self._join.columns, self._join.total)
            self._restore_early(loaded.early)
            self._join.late.load(self.number, loaded.late)
        except (ValueError, RecursionError, OverflowError) as error:
            raise StateError(f"the join window of the checkpoint cannot be read: {error}") from None

    def _restore_early(self, early: list[tuple[str, list[Early]]]) -> None:
        if any({each.feedback.message_id for each in waiting} != {key} for key, waiting in early):
            raise ValueError("labels that wait are none, or of other messages")
        if not self._join.homes.keys().isdisjoint(key for key, _ in early):
            raise ValueError("labels wait at two windows")
        for key, waiting in early:
            self._keep_early(key, tuple(waiting))

    def _insert(self, key: str, text: str, timestamp_ms: int, n_scores: int, bits: int) -> Entry:
        join = self._join
        bits |= LIVE | (SHARED if key in join.shared and not bits & ASIDE else 0)
        values = {TIME_MS: timestamp_ms, WINDOW: self.number}
        entry = Entry(self.store, self.store.append(key.encode(), text.encode(), n_scores, values, bits))
        link(entry.row, join.columns, join.total, self.store.rows, self.store.note_of(entry.row))
        if entry.aside:
            join.share(entry, 1)
        return entry

    def _bring_back(self, key: str, gone: Gone, timestamp_ms: int, named: Entry | None) -> tuple[Entry, Labels]:
        """Have a message that left be there again, with the label that it was learned as then."""
        entry = self._insert(key, gone.text, timestamp_ms, 0, CAME | (0 if named is None else ASIDE))
        self._join.set_label(entry, gone.label, weight_bits(1.0))
        return entry, self._settle_early(key, entry) if named is None else ()

    def _of_text(self, key: str, text: str, named: Entry | None) -> Entry | None:
        """Return the message with an id and a text; `named` is that which the id alone names."""
        if named is not None and named.text == text:
            return named
        return self.messages.aside(key, text) if key in self._join.shared else None

    def _settle(
        self, entry: Entry, feedback: Feedback, timestamp_ms: int, orphan: Rejected | None, *, waited: bool = False
    ) -> Labels:
        counts, known, weight = self._join.counts, entry.label, weight_bits(feedback.weight)
        same = known == feedback.label and entry.label_weight in (weight, 0)
        if self._is_known(entry, feedback, waited=waited):
            return ()
        if feedback.text is None and not same and self._join.is_ambiguous(entry):
            self._refuse(feedback, orphan)
            return ()
        self._remember(entry, feedback)
        if same:
            counts.repeated += 1
            return ()
        counts.corrected += known is not None
        self._join.set_label(entry, feedback.label, weight)
        return (Label(entry, feedback, timestamp_ms, known is not None),)

    def _is_known(self, entry: Entry, feedback: Feedback, *, waited: bool = False) -> bool:
        """Tell whether a message has this feedback already, and count it; also where only the id is known.

        `waited` : the id was counted when it came
        """
        if feedback.id is None:
            return False
        word = word_of(feedback)
        known = next((each for each in entry.words if each.id == word.id), None)
        repeated = known is not None and word.repeats(known)
        self._join.counts.repeated += repeated
        self._join.counts.reused_ids += known is not None and not repeated and not waited
        return repeated

    def _remember(self, entry: Entry, feedback: Feedback) -> None:
        """Have a message know a feedback when it comes again."""
        if feedback.id is None:
            return
        word = word_of(feedback)
        words = [each for each in entry.words if each.id != word.id]
        self._join.weigh(entry, lambda: entry.set_words([*words[1 - MAX_IDS_PER_MESSAGE :], word]))

    def _refuse(self, feedback: Feedback, orphan: Rejected | None) -> None:
        assert orphan is not None, "add_feedback needs the orphan where `may_be_refused` says so"
        self._join.counts.ambiguous += 1
        detail = (
            f"several texts came with the id {feedback.message_id!r}, and which of them the label is about cannot be "
            "told; send it with its text, or give each message an id of its own"
        )
        self._refused.append(msgspec.structs.replace(orphan, error="ambiguous-id", detail=detail))

    def _settle_early(self, key: str, entry: Entry) -> Labels:
        labels: list[Label] = []
        for each in self.early.get(key, ()):
            if each.orphan is None:
                self._remember(entry, each.feedback)
                continue
            for label in self._settle(entry, each.feedback, each.timestamp_ms, each.orphan, waited=True):
                labels.append(msgspec.structs.replace(label, orphan=each.orphan))
        self._keep_early(key, ())
        return tuple(labels)

    def _retract(self, feedback: Feedback, entry: Entry | None, timestamp_ms: int) -> None:
        """Drop the labels that still wait. One that was learned stays in the model until it is built anew."""
        counts, key = self._join.counts, feedback.message_id
        if entry is not None:
            if self._is_known(entry, feedback):
                return
            self._remember(entry, feedback)
        elif waiting := self.early.get(key, ()):
            if self._is_repeated(waiting, feedback):
                return
            known = tuple(each.taken_back() for each in waiting if each.feedback.id is not None)
            taker = (Early.of(feedback, timestamp_ms, None),) if feedback.id is not None else ()
            self._keep_early(key, known + taker)
        counts.retracted += 1

    def _wait(self, feedback: Feedback, timestamp_ms: int, orphan: Rejected | None) -> None:
        assert orphan is not None, "add_feedback needs the orphan where `may_be_refused` says so"
        waiting = self.early.get(feedback.message_id, ())
        if self._is_repeated(waiting, feedback):
            return
        self._join.counts.early += 1
        self._keep_early(feedback.message_id, (*waiting, Early.of(feedback, timestamp_ms, orphan)))

    def _is_repeated(self, waiting: Waiting, feedback: Feedback) -> bool:
        """Tell whether what waits says this already, and count it."""
        counts, repeated = self._join.counts, is_repeated(waiting, feedback)
        counts.repeated += repeated
        counts.reused_ids += not repeated and find_id(waiting, feedback.id) is not None
        return repeated

    def _keep_early(self, key: str, waiting: Waiting) -> None:
        """Put labels in the place of those that wait for a message: the last ones, if they are too many."""
        before = self.early.get(key, ())
        for each in waiting[:-MAX_EARLY_PER_MESSAGE]:
            if each.orphan is not None:
                self._join.counts.orphan("number", 1)
                self._refused.append(each.orphan)
            if before:
                self.early.move_to_end(key)  # whoever waits longest stands first
        waiting = waiting[-MAX_EARLY_PER_MESSAGE:]
        if waiting:
            self.early[key] = waiting
        if waiting and not before:
            self._join.wait_for(key, self)
        elif before and not waiting:
            del self.early[key]
            self._join.wait_no_more(key)
        grown = weigh(waiting) - weigh(before)
        self.early_bytes += grown
        self._join.early_bytes += grown
        self.see_early()

    def see_early(self) -> None:
        """Say from when on a label has waited too long."""
        due = self.early_since_ms + self._join.limits.age_ms if self.early else NEVER
        self._join.columns[self.number, EARLY_DUE_MS] = min(due, NEVER)

    @property
    def early_since_ms(self) -> int:
        """When the label came that waits longest."""
        return next(iter(self.early.values()))[0].timestamp_ms

    def drop_early(self) -> list[Rejected]:
        """Drop the labels of the message that is waited for longest; return what they are on the dead-letter topic."""
        key, waiting = next(iter(self.early.items()))
        self._keep_early(key, ())
        return [each.orphan for each in waiting if each.orphan is not None]


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
    total : int64 [2], how many messages there are in all windows, and what they weigh
    limits, room : of all windows together, oldest first; the same as int64 [3]
    shared : of each id of which messages are set aside how many these are, and how many of them have no label
    late : the messages that left without a label, were learned as one, and can still be corrected
    """

    def __init__(self) -> None:
        self.counts = JoinCounts()
        self.windows: list[Window] = []
        self.homes: dict[str, Window] = {}  # which of them has the labels that wait for a message
        self.early_bytes = 0
        self.shared: dict[str, list[int]] = {}
        self.late = Late()
        self.store = Store()
        self.messages = Messages(self.store)
        self.columns: Ints = np.zeros((0, N_WINDOW), np.int64)
        self.total: Ints = np.zeros(2, np.int64)
        self._scratch = np.zeros((_SCRATCH, N_STEP), np.int64), np.zeros(N_COUNTERS, np.int64)

    def configure(self, n_partitions: int, limits: Limits) -> None:
        """Keep to these limits, with so many partitions; windows that are there stay, and what is in them."""
        self.limits, self._early_limits = limits, limits.share(EARLY_SHARE)
        self.late.configure(limits)
        self.room = np.array([min(limit, MOST) for limit in self.limits], np.int64)
        self._add_windows(n_partitions)
        for window in self.windows:
            window.see_early()

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
        self.homes, self.shared, self.windows, self.early_bytes = {}, {}, [], 0
        self.late.clear()
        self.columns = np.zeros((0, N_WINDOW), np.int64)
        self.total[:] = 0
        self.store.clear()
        self._add_windows(len(windows))
        for window, state in zip(self.windows, windows, strict=True):
            window.load_state(state)
        for row in np.flatnonzero(self.store.now[: self.store.used[ROWS]] & ASIDE).tolist():
            self.share(Entry(self.store, row), 1)

    def take(self, records: Decoded, place: int, names: Names, width: int, expire: int, steps: Steps) -> Stop:
        """Take a batch's records in, from a place on, until one is not for the kernel; see join/rules.py.

        Parameters
        ----------
        width : how many labels are known: so many scores each message gets
        expire : as what messages without a label are learned when they leave
        steps : appended to
        """
        store, counters, counts = self.store, self._scratch[1], self.counts
        if place == 0:
            self._keep_apart()
            hash_keys(records.columns, store.secret, records.hashes)
        counters[:] = 0
        counters[N_STEPS] = steps.n
        arrays = store.rows, store.now, store.notes, store.kept, store.table, store.used, store.early
        place = take(
            place,
            records.columns,
            records.hashes,
            arrays,
            len(store.scores),
            self.columns,
            self.total,
            self.room,
            names.arrays,
            width,
            expire,
            len(self.homes) + len(self.shared),
            steps.table,
            steps.weights,
            counters,
        )
        counted = counters.tolist()
        steps.n = counted[N_STEPS]
        store.passed = max(store.passed, counted[PASSED])
        counts.duplicates += counted[DUPLICATES]
        counts.repeated += counted[REPEATED]
        counts.corrected += counted[CORRECTED]
        counts.expired += counted[EXPIRED]
        return Stop(place, counted[WHY], counted[WHERE], counted[LABELS_SEEN], counted[LABELS_LEARNED])

    def _keep_apart(self) -> None:
        """Have no look-up pass more than LONGEST places for longer than a batch, whatever was sent."""
        if self.store.passed > LONGEST:
            self.store.change_secret()
            self.store.early[:] = 0
            for key in (*self.homes, *self.shared):
                self._mark(key, 1)

    def evict_messages(self, number: int) -> list[Entry]:
        """Drop what is too old in a window, or beyond the limits in any; return the messages that had no label."""
        steps, counters = self._scratch
        store, expired = self.store, []
        whole = False
        while not whole:
            counters[:] = 0
            arrays = store.rows, store.now, store.notes, store.table
            whole = evict(number, self.columns, self.total, self.room, *arrays, NO_EXPIRY + 1, steps, counters)
            self.counts.expired += int(counters[EXPIRED])
            expired += [Entry(store, row) for row in steps[: counters[N_STEPS], ROW].tolist()]
            if not whole:
                expired += self._evict_aside(number)
        return expired

    def _evict_aside(self, number: int) -> list[Entry]:
        """Drop the message that has to leave next, if it is one that was set aside; return it if it had no label."""
        store, window = self.store, int(find_over(number, self.columns, self.total, self.room))
        entry = Entry(store, int(self.columns[window, FIRST]))
        if not entry.aside:
            return []
        self.share(entry, -1)
        leave(window, self.columns, self.total, store.rows, store.now, store.notes, store.table)
        if entry.label is not None:
            return []
        self.counts.expired += 1
        return [entry]

    def evict_early(self, window: Window) -> Iterator[Rejected]:
        """Drop the labels that wait too long at a window, or beyond the limits at any; give what they are then."""
        limits = self._early_limits
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
            self.total[ALL_BYTES] += ENTRY_BYTES + ROOM * len(key)
            self._mark(key, 1)
        of_key = self.shared[key]
        of_key[0] += n
        of_key[1] += n if entry.label is None else 0
        if not of_key[0]:
            del self.shared[key]
            self.total[ALL_BYTES] -= ENTRY_BYTES + ROOM * len(key)
            self._mark(key, -1)
        if (named := self.messages.get(key)) is not None:
            self.store.set_bit(named.row, SHARED, on=key in self.shared)

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
            self.columns[entry.window, UNLABELLED] -= 1
            if entry.aside:
                self.shared[entry.key][1] -= 1
        self.weigh(entry, lambda: entry.set_label(label, weight))

    def weigh(self, entry: Entry, change: Callable[[], None]) -> None:
        """Change a message, and count what it weighs more or less."""
        before = entry.n_bytes
        change()
        grown = entry.n_bytes - before
        self.columns[entry.window, N_BYTES] += grown
        self.total[ALL_BYTES] += grown

    # Where labels wait.

    def wait_for(self, key: str, home: Window) -> None:
        """Note that a label waits for its message at a window."""
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

    def of_message(self, partition: int, message_id: str) -> Window:
        """Return the window that a message goes to: where its label waits, or its partition's own."""
        entry = self.messages.get(message_id)
        return self.windows[entry.window] if entry else self.homes.get(message_id) or self.windows[partition]

    def of_feedback(self, partition: int, message_id: str) -> Window:
        """Return the window that holds a label's message or others of its labels, or else its partition's own."""
        home = self.late.homes.get(message_id)
        return self.of_message(partition % len(self.windows) if home is None else home, message_id)

    @property
    def n_bytes(self) -> int:
        """What the windows weigh."""
        return int(self.total[ALL_BYTES]) + self.early_bytes + self.late.n_bytes

    @property
    def pending(self) -> int:
        """Messages that wait for a label."""
        return int(self.columns[:, UNLABELLED].sum())

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
