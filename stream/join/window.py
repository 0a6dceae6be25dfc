"""What becomes of a message, or of a label, at its window? The rules, record by record (join.py has them in words)."""

from collections import OrderedDict
from typing import Final

import msgspec

from driftline.stream.errors import StateError
from driftline.stream.join.early import Early, Waiting, find_id, is_repeated, weigh
from driftline.stream.join.feedback_said import weight_bits, word_of
from driftline.stream.join.late import Gone
from driftline.stream.join.message_rows import BIT, ROW, Arrays
from driftline.stream.join.message_view import Entry, Label, Labels
from driftline.stream.join.rules import WINDOW, link
from driftline.stream.join.shared import Shared
from driftline.stream.join.unpack import restore
from driftline.stream.join.window_saved import Frozen, decode
from driftline.stream.wire.fielded import is_of
from driftline.stream.wire.records import Feedback, Message, Rejected
from driftline.stream.wire.vector import without_vector

# A source that labels one message for ever cannot fill the window: what older feedback said of it is forgotten.
MAX_IDS_PER_MESSAGE: Final = 64
MAX_EARLY_PER_MESSAGE: Final = 16
NEVER: Final = (1 << 63) - 1


class Window:
    """The messages of one partition that can still be labelled, and its labels that wait for a message.

    Parameters
    ----------
    shared : with the other windows
    number : of the partition
    """

    def __init__(self, shared: Shared, number: int) -> None:
        self._shared, self.number = shared, number
        self.store, self.messages = shared.store, shared.messages
        self.early: OrderedDict[str, Waiting] = OrderedDict()  # frozen ones hold the tuples
        self.early_bytes = 0
        self._refused: list[Rejected] = []  # since the last `evict`

    def _get(self, column: int) -> int:
        return int(self._shared.columns[self.number, column])

    @property
    def clock_ms(self) -> int:
        """The highest time of a record that concerned it."""
        return self._get(WINDOW.CLOCK_MS)

    @property
    def n_bytes(self) -> int:
        """What its messages weigh."""
        return self._get(WINDOW.N_BYTES)

    def add_message(self, message: Message, timestamp_ms: int, n_scores: int) -> tuple[Entry | None, Labels]:
        """Take a message in.

        Returns
        -------
        entry : to be scored; None where the message was there already
        labels : that waited for it, to be learned once it was scored
        """
        shared, key = self._shared, message.id
        named = self.messages.get(key)
        entry = self._of_text(key, message.text, named)
        self._pass(timestamp_ms)
        if entry is not None and entry.came:
            shared.counts.duplicates += 1
            return None, ()
        if named is not None and (entry is None or entry.aside):
            shared.set_aside(named, aside=True)
        if entry is None:
            shared.counts.other_texts += key in shared.shared
            entry = self._insert(key, message.text, timestamp_ms, n_scores, BIT.CAME)
        else:
            if entry.aside:
                shared.set_aside(entry, aside=False)
            shared.weigh(entry, lambda: entry.come(n_scores))
        return entry, self._settle_early(key, entry) if self.early else ()

    def add_feedback(self, feedback: Feedback, timestamp_ms: int, orphan: Rejected | None) -> Labels:
        """Take a label in and return what is to be learned now.

        `orphan` : what it is on the dead-letter topic, if it cannot be learned; needed where `may_be_refused` says so.
        """
        shared, key, text = self._shared, feedback.message_id, feedback.text
        named = self.messages.get(key)
        entry = named if text is None else self._of_text(key, text, named) or self._of_bare(text, named)
        labels: Labels = ()
        if feedback.op == "retract":
            self._retract(feedback, entry, timestamp_ms)
        elif entry is not None:
            labels = self._settle(entry, feedback, timestamp_ms, orphan)
        elif text is None and (shared.waits_aside(key) or shared.late.is_shared(key)):
            self._refuse(feedback, orphan)
        elif (gone := shared.late.take(key, text, self.clock_ms)) is not None:
            entry, before = self._bring_back(key, gone, timestamp_ms, named)
            labels = (*before, *self._settle(entry, feedback, timestamp_ms, orphan))
        elif text is not None:
            shared.counts.other_texts += named is not None or key in shared.shared
            entry = self._insert(key, text, timestamp_ms, 0, 0 if named is None else BIT.ASIDE)
            before = self._settle_early(key, entry) if named is None else ()
            labels = (*before, *self._settle(entry, feedback, timestamp_ms, orphan))
        else:
            self._wait(feedback, timestamp_ms, orphan)
        self._pass(timestamp_ms)
        return labels

    def _pass(self, timestamp_ms: int) -> None:
        columns = self._shared.columns
        columns[self.number, WINDOW.CLOCK_MS] = max(self.clock_ms, timestamp_ms)

    def take_refused(self) -> list[Rejected]:
        """Return the labels that were refused since the last time."""
        refused, self._refused = self._refused, []
        return refused

    def freeze(self, arrays: Arrays) -> Frozen:
        """Return everything as it is now; `arrays` are what the store has."""
        late = self._shared.late.of_window(self.number)
        return Frozen(self.number, self.clock_ms, arrays, self._get(WINDOW.COUNT), list(self.early.values()), late)

    def load_state(self, state: bytes) -> None:
        """Take over what a frozen one's parts are together; there has to be nothing yet."""
        try:
            loaded = decode(state)
            self._shared.columns[self.number, WINDOW.CLOCK_MS] = loaded.clock_ms
            restore(loaded.messages, self.store, self.number, self._shared.columns, self._shared.total)
            self._restore_early(loaded.early)
            self._shared.late.load(self.number, loaded.late)
        except (ValueError, RecursionError, OverflowError) as error:
            raise StateError(f"the join window of the checkpoint cannot be read: {error}") from None

    def _restore_early(self, early: list[tuple[str, list[Early]]]) -> None:
        if any({each.feedback.message_id for each in waiting} != {key} for key, waiting in early):
            raise ValueError("labels that wait are none, or of other messages")
        if not self._shared.homes.keys().isdisjoint(key for key, _ in early):
            raise ValueError("labels wait at two windows")
        for key, waiting in early:
            self._keep_early(key, tuple(waiting))

    def _insert(self, key: str, text: str, timestamp_ms: int, n_scores: int, bits: int) -> Entry:
        shared = self._shared
        bits |= BIT.LIVE | (BIT.SHARED if key in shared.shared and not bits & BIT.ASIDE else 0)
        values = {ROW.TIME_MS: timestamp_ms, ROW.WINDOW: self.number}
        entry = Entry(self.store, self.store.append(key.encode(), text.encode(), n_scores, values, bits))
        link(entry.row, shared.columns, shared.total, self.store.rows, self.store.note_of(entry.row))
        if entry.aside:
            shared.share(entry, 1)
        return entry

    def _bring_back(self, key: str, gone: Gone, timestamp_ms: int, named: Entry | None) -> tuple[Entry, Labels]:
        """Have a message that left be there again, with the label that it was learned as then."""
        entry = self._insert(key, gone.text, timestamp_ms, 0, BIT.CAME | (0 if named is None else BIT.ASIDE))
        self._shared.set_label(entry, gone.label, weight_bits(1.0))
        return entry, self._settle_early(key, entry) if named is None else ()

    def _of_text(self, key: str, text: str, named: Entry | None) -> Entry | None:
        """Return the message with an id and a text; `named` is that which the id alone names.

        Its vector may be another one, or none: who computes it again may get one that differs in its last bits.
        """
        if named is not None and without_vector(named.text) == without_vector(text):
            return named
        return self.messages.aside(key, text) if key in self._shared.shared else None

    def _of_bare(self, text: str, named: Entry | None) -> Entry | None:
        """Return what an id names, where it has fields and this text: who labels need not send the fields again."""
        return named if named is not None and is_of(text, named.text) else None

    def _settle(
        self, entry: Entry, feedback: Feedback, timestamp_ms: int, orphan: Rejected | None, *, waited: bool = False
    ) -> Labels:
        counts, known, weight = self._shared.counts, entry.label, weight_bits(feedback.weight)
        same = known == feedback.label and entry.label_weight in (weight, 0)
        if self._is_known(entry, feedback, waited=waited):
            return ()
        if feedback.text is None and not same and self._shared.is_ambiguous(entry):
            self._refuse(feedback, orphan)
            return ()
        self._remember(entry, feedback)
        if same:
            counts.repeated += 1
            return ()
        counts.corrected += known is not None
        self._shared.set_label(entry, feedback.label, weight)
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
        self._shared.counts.repeated += repeated
        self._shared.counts.reused_ids += known is not None and not repeated and not waited
        return repeated

    def _remember(self, entry: Entry, feedback: Feedback) -> None:
        """Have a message know a feedback when it comes again."""
        if feedback.id is None:
            return
        word = word_of(feedback)
        words = [each for each in entry.words if each.id != word.id]
        self._shared.weigh(entry, lambda: entry.set_words([*words[1 - MAX_IDS_PER_MESSAGE :], word]))

    def _refuse(self, feedback: Feedback, orphan: Rejected | None) -> None:
        assert orphan is not None, "add_feedback needs the orphan where `may_be_refused` says so"
        self._shared.counts.ambiguous += 1
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
        counts, key = self._shared.counts, feedback.message_id
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
        self._shared.counts.early += 1
        self._keep_early(feedback.message_id, (*waiting, Early.of(feedback, timestamp_ms, orphan)))

    def _is_repeated(self, waiting: Waiting, feedback: Feedback) -> bool:
        """Tell whether what waits says this already, and count it."""
        counts, repeated = self._shared.counts, is_repeated(waiting, feedback)
        counts.repeated += repeated
        counts.reused_ids += not repeated and find_id(waiting, feedback.id) is not None
        return repeated

    def _keep_early(self, key: str, waiting: Waiting) -> None:
        """Put labels in the place of those that wait for a message: the last ones, if they are too many."""
        before = self.early.get(key, ())
        for each in waiting[:-MAX_EARLY_PER_MESSAGE]:
            if each.orphan is not None:
                self._shared.counts.orphan("number", 1)
                self._refused.append(each.orphan)
            if before:
                self.early.move_to_end(key)  # whoever waits longest stands first
        waiting = waiting[-MAX_EARLY_PER_MESSAGE:]
        if waiting:
            self.early[key] = waiting
        if waiting and not before:
            self._shared.wait_for(key, self.number)
        elif before and not waiting:
            del self.early[key]
            self._shared.wait_no_more(key)
        grown = weigh(waiting) - weigh(before)
        self.early_bytes += grown
        self._shared.early_bytes += grown
        self.see_early()

    def see_early(self) -> None:
        """Say from when on a label has waited too long."""
        due = self.early_since_ms + self._shared.limits.age_ms if self.early else NEVER
        self._shared.columns[self.number, WINDOW.EARLY_DUE_MS] = min(due, NEVER)

    @property
    def early_since_ms(self) -> int:
        """When the label came that waits longest."""
        return next(iter(self.early.values()))[0].timestamp_ms

    def drop_early(self) -> list[Rejected]:
        """Drop the labels of the message that is waited for longest; return what they are on the dead-letter topic."""
        key, waiting = next(iter(self.early.items()))
        self._keep_early(key, ())
        return [each.orphan for each in waiting if each.orphan is not None]
