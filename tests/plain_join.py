"""The join in plain Python, an object for each message: what stream/join.py has to do, for its tests.

For each partition a window holds the messages that came in lately, each with the scores that were served for it and the
label that it was given, and beside them the labels that came before their message. A label that comes again is known
there. Bounded by count, bytes and age (the log's time, never this machine's). Nothing here knows a model: what is to be
learned is returned, and the loop learns it.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from driftline.stream.limits import JoinCounts, Limits
from driftline.stream.records import Feedback, Message, Rejected

# What an entry takes beside its characters: the struct, the strings' heads, its place in the table.
ENTRY_BYTES: Final = 400
FEEDBACK_BYTES: Final = ENTRY_BYTES // 4  # and a feedback id beside its characters
# A source that labels one message for ever cannot fill the window: older feedback ids of that message are forgotten.
MAX_IDS_PER_MESSAGE: Final = 64
MAX_EARLY_PER_MESSAGE: Final = 16
# Labels without a message get this part of the limits, so that a flood of them cannot push the messages out.
EARLY_SHARE: Final = 0.25


class Entry(msgspec.Struct, gc=False, array_like=True):
    """A message in the window. The loop fills in `scores` once it has them; all else only the window changes."""

    text: str
    timestamp_ms: int
    n_bytes: int
    came: bool = True  # False while only a label that carries the text itself came
    label: str | None = None  # learned last
    feedback_ids: tuple[str, ...] = ()
    scores: bytes | None = None  # float32 [n_labels known then], as served
    window: int = 0  # its number


class Early(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A label that waits for its message, and what goes to the dead-letter topic if that never comes."""

    feedback: Feedback
    timestamp_ms: int
    orphan: Rejected


class Label(msgspec.Struct, frozen=True, gc=False):
    """A label to be learned now. `corrects` tells that another label of that message was learned before."""

    entry: Entry
    feedback: Feedback
    timestamp_ms: int
    corrects: bool
    orphan: Rejected | None = None  # where it had to wait: what it is on the dead-letter topic


Labels = tuple[Label, ...]


class Window:
    """The messages of one partition that can still be labelled, and its labels that wait for a message.

    Parameters
    ----------
    number : of the partition
    messages : by id, those of all windows of a join; changed
    homes : which of them has the labels that wait for a message; changed
    """

    def __init__(
        self, number: int, limits: Limits, counts: JoinCounts, messages: dict[str, Entry], homes: "dict[str, Window]"
    ) -> None:
        self.number = number
        self.messages, self.homes = messages, homes
        self._counts = counts
        self.oldest: deque[str] = deque()  # the ids of this window's messages
        self.early: OrderedDict[str, list[Early]] = OrderedDict()
        self.clock_ms = 0
        self.n_bytes = self.early_bytes = 0
        self.unlabelled = 0
        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """Keep to these limits from the next `evict` on."""
        self._limits, self._early_limits = limits, limits.share(EARLY_SHARE)

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
            entry = self._insert(key, message.text, timestamp_ms, score_bytes)
        elif entry.came:
            self._counts.duplicates += 1
            self._pass(timestamp_ms)
            return None, ()
        else:
            entry.came = True
            entry.n_bytes += score_bytes
            self.n_bytes += score_bytes
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
            entry = self._insert(feedback.message_id, feedback.text, timestamp_ms, 0)
            entry.came = False
            labels = (*self._settle_early(feedback.message_id, entry), *self._settle(entry, feedback, timestamp_ms))
        else:
            assert orphan is not None, "add_feedback needs the orphan where `feedback.message_id in messages` is false"
            self._wait(Early(feedback, timestamp_ms, orphan))
            labels = ()
        self._pass(timestamp_ms)
        return labels

    def _pass(self, timestamp_ms: int) -> None:
        self.clock_ms = max(self.clock_ms, timestamp_ms)

    def evict(self) -> tuple[list[Entry], list[Rejected]]:
        """Drop what is beyond the limits, oldest first: messages that nobody labelled, labels that found no message."""
        return self._evict_messages(), list(self._evict_early()) if self.early else []

    def state(self) -> bytes:
        """Return everything, as bytes that depend on nothing else."""
        messages = [(key, self.messages[key]) for key in self.oldest]
        return msgspec.msgpack.encode([self.clock_ms, messages, list(self.early.items())])

    def _insert(self, key: str, text: str, timestamp_ms: int, score_bytes: int) -> Entry:
        n_bytes = ENTRY_BYTES + 4 * (len(key) + len(text)) + score_bytes  # a character takes up to 4 bytes
        entry = self.messages[key] = Entry(text, timestamp_ms, n_bytes, window=self.number)
        self.oldest.append(key)
        self.n_bytes += n_bytes
        self.unlabelled += 1
        return entry

    def _settle(self, entry: Entry, feedback: Feedback, timestamp_ms: int) -> Labels:
        known = entry.label
        if feedback.id is not None:
            ids = entry.feedback_ids
            if feedback.id in ids:
                self._counts.repeated += 1
                return ()
            entry.feedback_ids = (*ids[1 - MAX_IDS_PER_MESSAGE :], feedback.id)
            grown = FEEDBACK_BYTES + 4 * len(feedback.id)
            entry.n_bytes += grown
            self.n_bytes += grown
        if known is None:
            self.unlabelled -= 1
        elif known == feedback.label:
            self._counts.repeated += 1
            return ()
        else:
            self._counts.corrected += 1
        entry.label = feedback.label
        return (Label(entry, feedback, timestamp_ms, known is not None),)

    def _settle_early(self, key: str, entry: Entry) -> Labels:
        waiting = self.early.pop(key, [])
        self.homes.pop(key, None)
        self.early_bytes -= _early_bytes(waiting)
        return tuple(
            msgspec.structs.replace(label, orphan=each.orphan)
            for each in waiting
            for label in self._settle(entry, each.feedback, each.timestamp_ms)
        )

    def _retract(self, feedback: Feedback, entry: Entry | None) -> None:
        """Drop the labels that still wait. One that was learned stays in the model until it is built anew."""
        self._counts.retracted += 1
        if entry is None:
            self.early_bytes -= _early_bytes(self.early.pop(feedback.message_id, []))
            self.homes.pop(feedback.message_id, None)

    def _wait(self, early: Early) -> None:
        key = early.feedback.message_id
        waiting = self.early.setdefault(key, [])
        self.homes[key] = self
        known = any(early.feedback.id is not None and each.feedback.id == early.feedback.id for each in waiting)
        if known or len(waiting) >= MAX_EARLY_PER_MESSAGE:
            self._counts.repeated += 1
            return
        self._counts.early += 1
        waiting.append(early)
        self.early_bytes += _early_bytes([early])

    def _evict_messages(self) -> list[Entry]:
        limits, messages, oldest = self._limits, self.messages, self.oldest
        expired = []
        while oldest:
            young = self.clock_ms <= messages[oldest[0]].timestamp_ms + limits.age_ms
            if young and len(oldest) <= limits.messages and self.n_bytes <= limits.n_bytes:
                break
            key = oldest.popleft()
            entry = messages.pop(key)
            self.n_bytes -= entry.n_bytes
            if entry.label is None:
                self.unlabelled -= 1
                self._counts.expired += 1
                expired.append(entry)
        return expired

    def _evict_early(self) -> Iterator[Rejected]:
        limits, early = self._early_limits, self.early
        while early:
            too_old = next(iter(early.values()))[0].timestamp_ms < self.clock_ms - limits.age_ms
            too_many, too_large = len(early) > limits.messages, self.early_bytes > limits.n_bytes
            if not (too_old or too_many or too_large):
                return
            reason = "age" if too_old else "number" if too_many else "bytes"
            key, waiting = early.popitem(last=False)
            del self.homes[key]
            self.early_bytes -= _early_bytes(waiting)
            for each in waiting:
                self._counts.orphaned += 1
                self._counts.orphaned_by.setdefault(reason, 0)
                self._counts.orphaned_by[reason] += 1
                yield each.orphan


def _early_bytes(waiting: Sequence[Early]) -> int:
    return sum(3 * ENTRY_BYTES + 4 * (len(each.feedback.message_id) + len(each.feedback.label)) for each in waiting)


class Join:
    """One window for each partition of the messages, as a consumer group would spread them.

    A record's key is its message's id, so a label comes from the partition with the same number as its message. Where a
    producer forgot the key it does not: then the other windows of this process are searched before a label has to wait.
    """

    def __init__(self) -> None:
        self.counts = JoinCounts()
        self.windows: list[Window] = []
        self.messages: dict[str, Entry] = {}  # of all windows: one look-up, however many there are
        self.homes: dict[str, Window] = {}  # which of them has the labels that wait for a message

    def configure(self, n_partitions: int, limits: Limits) -> None:
        """Share the limits among so many partitions; windows that are there stay."""
        share = self._share = limits.share(1 / n_partitions)
        self.windows += [
            Window(number, share, self.counts, self.messages, self.homes)
            for number in range(len(self.windows), n_partitions)
        ]
        for window in self.windows:
            window.limit(share)

    def state(self) -> list[bytes]:
        """Return the windows' state."""
        return [window.state() for window in self.windows]

    def of_message(self, partition: int, message_id: str) -> Window:
        """Return the window that a message goes to: where its label waits, or its partition's own."""
        entry = self.messages.get(message_id)
        return self.windows[entry.window] if entry else self.homes.get(message_id) or self.windows[partition]

    def of_feedback(self, partition: int, message_id: str) -> Window:
        """Return the window that holds a label's message or others of its labels, or else its partition's own."""
        return self.of_message(partition % len(self.windows), message_id)
