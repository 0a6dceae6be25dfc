"""The join in plain Python, an object for each message: what join/window.py has to do, for its tests.

For each partition a window holds the messages that came in lately, each with the scores that were served for it and the
label that it was given, and beside them the labels that came before their message. Bounded by count and bytes, of all
windows together, and by age (the log's time, never this machine's). Nothing here knows a model: what is to be learned
is returned, and the loop learns it.
"""

import hashlib
import struct
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Final

import msgspec

from driftline.stream.limits import JoinCounts, Limits
from driftline.stream.wire.records import Feedback, Message, Rejected

ENTRY_BYTES: Final = 640
ROOM: Final = 4
SHORT: Final = 40
# A source that labels one message for ever cannot fill the window: what older feedback said of it is forgotten.
MAX_IDS_PER_MESSAGE: Final = 64
MAX_EARLY_PER_MESSAGE: Final = 16
# Labels without a message get this part of the limits, so that a flood of them cannot push the messages out.
EARLY_SHARE: Final = 0.25

Word = tuple[str, str | None, int]  # what a feedback said: its id, its label (None: a retraction), its weight


class Entry(msgspec.Struct, gc=False, eq=False):
    """A message in the window. The loop fills in `scores` once it has them; all else only the window changes."""

    key: str
    window: int
    text: str
    timestamp_ms: int
    n_scores: int
    came: bool = True  # False while only a label that carries the text itself came
    aside: bool = False  # its id names another message
    label: str | None = None  # learned last
    label_weight: int = 0
    words: list[Word] = []
    scores: bytes | None = None  # float32 [n_labels known then], as served

    @property
    def n_bytes(self) -> int:
        strings = [self.key, self.text, self.label or "", *map(msgspec.msgpack.encode, self.words)]
        n = sum(len(each if isinstance(each, bytes) else each.encode()) for each in strings)
        return ENTRY_BYTES + ROOM * (n + 4 * self.n_scores)

    @property
    def state(self) -> tuple[str, list[object]]:
        entry = [self.text, self.timestamp_ms, self.came, self.aside]
        return self.key, [*entry, self.label, self.label_weight, self.words, self.scores]


class Early(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A label that waits for its message, and what goes to the dead-letter topic if that never comes.

    Without an orphan it is only there to be known when it comes again.
    """

    feedback: Feedback
    timestamp_ms: int
    orphan: Rejected | None

    @property
    def n_bytes(self) -> int:
        feedback, orphan = self.feedback, self.orphan
        strings = [feedback.message_id, feedback.message_id, feedback.label, feedback.id or ""]
        strings += [orphan.detail, orphan.value_start] if orphan else []
        return 3 * ENTRY_BYTES + ROOM * sum(map(len, strings))


class Label(msgspec.Struct, frozen=True, gc=False):
    """A label to be learned now. `corrects` tells that another label of that message was learned before."""

    entry: Entry
    feedback: Feedback
    timestamp_ms: int
    corrects: bool
    orphan: Rejected | None = None  # where it had to wait: what it is on the dead-letter topic


Labels = tuple[Label, ...]


class Window:
    """The messages of one partition that can still be labelled, and its labels that wait for a message."""

    def __init__(self, number: int, join: "Join") -> None:
        self.number, self._join, self._counts = number, join, join.counts
        self.oldest: deque[Entry] = deque()
        self.early: OrderedDict[str, list[Early]] = OrderedDict()
        self.clock_ms = 0
        self._refused: list[Rejected] = []

    @property
    def messages(self) -> dict[str, Entry]:
        return self._join.messages

    @property
    def n_bytes(self) -> int:
        return sum(entry.n_bytes for entry in self.oldest)

    @property
    def early_bytes(self) -> int:
        return sum(each.n_bytes for waiting in self.early.values() for each in waiting)

    def add_message(self, message: Message, timestamp_ms: int, n_scores: int) -> tuple[Entry | None, Labels]:
        """Take a message in.

        Returns
        -------
        entry : to be scored; None where the message was there already
        labels : that waited for it, to be learned once it was scored
        """
        self.clock_ms = max(self.clock_ms, timestamp_ms)
        key = message.id
        others = self._join.of_id(key)
        entry = next((each for each in others if each.text == message.text), None)
        if entry is not None and entry.came:
            self._counts.duplicates += 1
            return None, ()
        for other in others:
            other.aside = True
        if entry is None:
            self._counts.other_texts += bool(others)
            entry = self._insert(key, message.text, timestamp_ms, n_scores)
        else:
            entry.came, entry.n_scores = True, n_scores
        entry.aside = False
        self.messages[key] = entry
        return entry, self._settle_early(key, entry)

    def add_feedback(self, feedback: Feedback, timestamp_ms: int, orphan: Rejected | None) -> Labels:
        """Take a label in and return what is to be learned now."""
        key, text = feedback.message_id, feedback.text
        named, of_id = self.messages.get(key), self._join.of_id(key)
        entry = named if text is None else next((each for each in of_id if each.text == text), None)
        labels: Labels = ()
        if feedback.op == "retract":
            self._retract(feedback, entry, timestamp_ms)
        elif entry is not None:
            labels = self._settle(entry, feedback, timestamp_ms, orphan)
        elif text is not None:
            self._counts.other_texts += bool(of_id)
            entry = self._insert(key, text, timestamp_ms, 0)
            entry.came = False
            if named is None:
                self.messages[key] = entry
                labels = self._settle_early(key, entry)
            else:
                entry.aside = True
            labels = (*labels, *self._settle(entry, feedback, timestamp_ms, orphan))
        elif any(each.label is None for each in of_id):
            self._refuse(feedback, orphan)
        else:
            self._wait(feedback, timestamp_ms, orphan)
        self.clock_ms = max(self.clock_ms, timestamp_ms)
        return labels

    def take_refused(self) -> list[Rejected]:
        """Return the labels that were refused since the last time."""
        refused, self._refused = self._refused, []
        return refused

    def state(self) -> bytes:
        """Return everything, as bytes that depend on nothing else."""
        messages = [entry.state for entry in self.oldest]
        return msgspec.msgpack.encode([3, self.clock_ms, messages, list(self.early.items())])

    def _insert(self, key: str, text: str, timestamp_ms: int, n_scores: int) -> Entry:
        entry = Entry(key, self.number, text, timestamp_ms, n_scores)
        self.oldest.append(entry)
        return entry

    def _settle(
        self, entry: Entry, feedback: Feedback, timestamp_ms: int, orphan: Rejected | None, *, waited: bool = False
    ) -> Labels:
        weight, known = bits(feedback.weight), entry.label
        if self._is_known(entry, feedback, waited=waited):
            self._counts.repeated += 1
            return ()
        same = known == feedback.label and entry.label_weight in (weight, 0)
        others = [each for each in self._join.of_id(entry.key) if each is not entry]
        unclear = others and (known is not None or any(each.label is None for each in others))
        if feedback.text is None and unclear and not same:
            self._refuse(feedback, orphan)
            return ()
        self._remember(entry, feedback)
        if same:
            self._counts.repeated += 1
            return ()
        self._counts.corrected += known is not None
        entry.label, entry.label_weight = feedback.label, weight
        return (Label(entry, feedback, timestamp_ms, known is not None),)

    def _is_known(self, entry: Entry, feedback: Feedback, *, waited: bool = False) -> bool:
        if feedback.id is None:
            return False
        word = word_of(feedback)
        said = [each for each in entry.words if each[0] == word[0]]
        self._counts.reused_ids += bool(said) and said != [word] and not waited
        return said == [word]

    def _remember(self, entry: Entry, feedback: Feedback) -> None:
        if feedback.id is not None:
            word = word_of(feedback)
            words = [each for each in entry.words if each[0] != word[0]]
            entry.words = [*words, word][-MAX_IDS_PER_MESSAGE:]

    def _refuse(self, feedback: Feedback, orphan: Rejected | None) -> None:
        assert orphan is not None
        self._counts.ambiguous += 1
        detail = (
            f"several texts came with the id {feedback.message_id!r}, and which of them the label is about cannot be "
            "told; send it with its text, or give each message an id of its own"
        )
        self._refused.append(msgspec.structs.replace(orphan, error="ambiguous-id", detail=detail))

    def _settle_early(self, key: str, entry: Entry) -> Labels:
        labels: list[Label] = []
        for each in self._drop_early(key):
            if each.orphan is None:
                self._remember(entry, each.feedback)
            else:
                settled = self._settle(entry, each.feedback, each.timestamp_ms, each.orphan, waited=True)
                labels += [msgspec.structs.replace(label, orphan=each.orphan) for label in settled]
        return tuple(labels)

    def _drop_early(self, key: str) -> list[Early]:
        self._join.homes.pop(key, None)
        return self.early.pop(key, [])

    def _retract(self, feedback: Feedback, entry: Entry | None, timestamp_ms: int) -> None:
        """Drop the labels that still wait. One that was learned stays in the model until it is built anew."""
        key = feedback.message_id
        if entry is not None:
            if self._is_known(entry, feedback):
                self._counts.repeated += 1
                return
            self._remember(entry, feedback)
        elif key in self.early:
            if self._is_repeated(self.early[key], feedback):
                return
            known = [Early(each.feedback, each.timestamp_ms, None) for each in self.early[key] if each.feedback.id]
            if feedback.id is not None:
                known.append(Early(bare(feedback), timestamp_ms, None))
            self._keep_early(key, known)
        self._counts.retracted += 1

    def _wait(self, feedback: Feedback, timestamp_ms: int, orphan: Rejected | None) -> None:
        key = feedback.message_id
        if not self._is_repeated(self.early.get(key, []), feedback):
            self._counts.early += 1
            self._keep_early(key, [*self.early.get(key, []), Early(bare(feedback), timestamp_ms, orphan)])

    def _is_repeated(self, waiting: list[Early], feedback: Feedback) -> bool:
        if feedback.id is None:
            said = waiting[-1:] if waiting and waiting[-1].orphan else []
        else:
            said = [each for each in waiting if each.feedback.id == feedback.id][-1:]
        content = bits(feedback.weight), feedback.label, feedback.op
        repeated = [(bits(each.feedback.weight), each.feedback.label, each.feedback.op) for each in said] == [content]
        self._counts.repeated += repeated
        self._counts.reused_ids += bool(said) and feedback.id is not None and not repeated
        return repeated

    def _keep_early(self, key: str, waiting: list[Early]) -> None:
        if not waiting:
            self._drop_early(key)
            return
        self.early[key] = waiting
        self._join.homes[key] = self
        while len(waiting) > MAX_EARLY_PER_MESSAGE:
            first = waiting.pop(0)
            if first.orphan is not None:
                count_orphan(self._counts, "number")
                self._refused.append(first.orphan)
            self.early.move_to_end(key)


def word_of(feedback: Feedback) -> Word:
    """Return what a feedback with an id said."""
    label = None if feedback.op == "retract" else short(feedback.label)
    return short(feedback.id or ""), label, bits(feedback.weight)


def short(text: str) -> str:
    """Return an id or a label as it is kept."""
    raw = text.encode()
    return text if len(raw) <= SHORT else "\0" + hashlib.blake2b(raw, digest_size=16).hexdigest()


def bits(weight: float) -> int:
    """Return the bits of a weight, as a float32."""
    return int.from_bytes(struct.pack(">f", weight), "big")


def bare(feedback: Feedback) -> Feedback:
    """Return a label without what nobody asks of it while it waits."""
    return msgspec.structs.replace(feedback, source=None, ts=None, text=None)


def count_orphan(counts: JoinCounts, reason: str) -> None:
    """Count a label that leaves without its message."""
    counts.orphaned += 1
    counts.orphaned_by[reason] = counts.orphaned_by.get(reason, 0) + 1


class Join:
    """One window for each partition of the messages, as a consumer group would spread them.

    A record's key is its message's id, so a label comes from the partition with the same number as its message. Where a
    producer forgot the key it does not: then the other windows of this process are searched before a label has to wait.
    """

    def __init__(self) -> None:
        self.counts = JoinCounts()
        self.windows: list[Window] = []
        self.messages: dict[str, Entry] = {}  # of all windows, by the ids that name them
        self.homes: dict[str, Window] = {}  # which of them has the labels that wait for a message

    def configure(self, n_partitions: int, limits: Limits) -> None:
        """Keep to these limits, with so many partitions; windows that are there stay."""
        self._limits, self._early_limits = limits, limits.share(EARLY_SHARE)
        self.windows += [Window(number, self) for number in range(len(self.windows), n_partitions)]

    def of_id(self, key: str) -> list[Entry]:
        """Return all messages with an id."""
        return [entry for window in self.windows for entry in window.oldest if entry.key == key]

    def state(self) -> list[bytes]:
        """Return the windows' state."""
        return [window.state() for window in self.windows]

    def evict(self, window: Window) -> tuple[list[Entry], list[Rejected]]:
        """Drop what is beyond the limits, oldest first: messages that nobody labelled, labels that found no message."""
        refused = window.take_refused()
        return list(self.evict_messages(window)), [*refused, *self.evict_early(window)]

    def evict_messages(self, window: Window) -> Iterator[Entry]:
        """Drop what is too old in a window, or beyond the limits in any."""
        limits = self._limits
        while True:
            full = [each for each in self.windows if each.oldest]
            if window.oldest and window.clock_ms > window.oldest[0].timestamp_ms + limits.age_ms:
                leaves = window.oldest.popleft()
            elif self._weight() > limits.n_bytes or sum(len(each.oldest) for each in full) > limits.messages:
                leaves = min(full, key=lambda each: each.oldest[0].timestamp_ms).oldest.popleft()
            else:
                return
            if self.messages.get(leaves.key) is leaves:
                del self.messages[leaves.key]
            if leaves.label is None:
                self.counts.expired += 1
                yield leaves

    def _weight(self) -> int:
        shared = {entry.key for window in self.windows for entry in window.oldest if entry.aside}
        return sum(each.n_bytes for each in self.windows) + sum(ENTRY_BYTES + ROOM * len(key) for key in shared)

    def evict_early(self, window: Window) -> Iterator[Rejected]:
        """Drop the labels that wait too long at a window, or beyond the limits at any."""
        limits = self._early_limits
        while waits := [each for each in self.windows if each.early]:
            if window.early and first(window).timestamp_ms < window.clock_ms - limits.age_ms:
                reason, victim = "age", window
            elif len(self.homes) > limits.messages:
                reason, victim = "number", min(waits, key=lambda each: first(each).timestamp_ms)
            elif sum(each.early_bytes for each in self.windows) > limits.n_bytes:
                reason, victim = "bytes", min(waits, key=lambda each: first(each).timestamp_ms)
            else:
                return
            key, waiting = victim.early.popitem(last=False)
            del self.homes[key]
            for each in waiting:
                if each.orphan is not None:
                    count_orphan(self.counts, reason)
                    yield each.orphan

    @property
    def n_bytes(self) -> int:
        """Return what all weigh."""
        return self._weight() + sum(each.early_bytes for each in self.windows)

    def of_message(self, partition: int, message_id: str) -> Window:
        """Return the window that a message goes to: where its label waits, or its partition's own."""
        entry = self.messages.get(message_id)
        return self.windows[entry.window] if entry else self.homes.get(message_id) or self.windows[partition]

    def of_feedback(self, partition: int, message_id: str) -> Window:
        """Return the window that holds a label's message or others of its labels, or else its partition's own."""
        return self.of_message(partition % len(self.windows), message_id)


def first(window: Window) -> Early:
    """Return the label that waits longest."""
    return next(iter(window.early.values()))[0]
