"""Each label is learned once, in its order, if its message is there in time; the window keeps to its limits."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.stream.join import message_rows, window_saved
from driftline.stream.join.join import Join
from driftline.stream.join.message_rows import ENTRY_BYTES, ROOM
from driftline.stream.join.message_view import Labels
from driftline.stream.join.window import Window
from driftline.stream.limits import JoinCounts, Limits
from driftline.stream.wire.records import Feedback, Message, Rejected
from tests import plain_join
from tests.often import times

WIDE = Limits(messages=1000, n_bytes=1 << 24, age_ms=1_000_000)


class Table:
    """A join of one partition, driven as the loop drives it."""

    def __init__(self, limits: Limits = WIDE, n_partitions: int = 1, kind: Any = Join) -> None:
        self.join = kind()
        self.join.configure(n_partitions, limits)
        self.n_scores = 2
        self.expired: list[str] = []
        self.orphans: list[Rejected] = []
        self.now = 0

    def message(self, key: str, text: str = "hello", at: int | None = None, partition: int = 0) -> Labels:
        self.now = self.now + 1 if at is None else at
        window = self.join.of_message(partition, key)
        _, labels = window.add_message(Message(key, text), self.now, self.n_scores)
        self._evict(window)
        return labels

    def label(self, key: str, label: str, at: int | None = None, partition: int = 0, **fields: object) -> list[str]:
        self.now = self.now + 1 if at is None else at
        feedback = Feedback(key, label, **fields)  # type: ignore[arg-type]
        orphan = Rejected("feedback", partition, self.now, "orphaned", "", "", "")
        window = self.join.of_feedback(partition, key)
        labels = window.add_feedback(feedback, self.now, orphan)
        self._evict(window)
        return [each.feedback.label for each in labels]

    def _evict(self, window: Window) -> None:
        expired, orphans = self.join.evict(window)
        self.expired += [entry.text for entry in expired]
        self.orphans += orphans


def test_a_label_is_learned_with_its_message() -> None:
    table = Table()
    table.message("m", "text of m")
    assert table.join.pending == 1
    assert table.label("m", "spam") == ["spam"]
    assert table.join.pending == 0


def test_a_label_before_its_message_waits() -> None:
    table = Table()
    assert table.label("m", "spam") == []
    assert table.join.waiting == 1
    (label,) = table.message("m", "text of m")
    assert (label.entry.text, label.feedback.label, label.corrects) == ("text of m", "spam", False)
    assert (table.join.waiting, table.join.counts.early) == (0, 1)


def test_the_same_feedback_twice_is_learned_once_early_or_late() -> None:
    table = Table()
    table.message("m")
    assert table.label("m", "spam", id="f") == ["spam"]
    assert table.label("m", "spam", id="f") == []
    assert table.label("m", "spam") == []
    table.label("n", "spam", id="g")
    table.label("n", "spam", id="g")
    table.label("n", "spam", id="h")
    assert [label.feedback.label for label in table.message("n")] == ["spam"]
    assert table.join.counts.repeated == 4
    assert table.join.counts.reused_ids == 0


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("ids", ["fgh", "fff", [None] * 3, "fgf"])
def test_the_last_word_counts(ids: Sequence[str | None], *, late: bool) -> None:
    """Spam, ham, spam: under ids of their own, under one, under none. With the first's id the third is that again."""
    table = Table()
    learned = [each.feedback.label for each in table.message("m")] if late else []
    for feedback_id, label in zip(ids, ("spam", "ham", "spam"), strict=True):
        learned += table.label("m", label, id=feedback_id)
    if not late:
        learned += [each.feedback.label for each in table.message("m")]
    again = ids == "fgf"
    assert learned == ["spam", "ham", "spam"][: 2 if again else 3]
    counts = table.join.counts
    assert (counts.corrected, counts.repeated, counts.reused_ids) == (1 if again else 2, int(again), 2 * (ids == "fff"))
    for feedback_id, label in [(ids[1], "ham"), (ids[2], "spam")]:
        repeated = feedback_id is not None and ids != "fff" and (feedback_id, label) != ("f", "ham")
        assert table.label("m", label, id=feedback_id) == ([] if repeated else [label]), "each request comes again"


@pytest.mark.parametrize("first", [{}, {"weight": 2.0}, {"op": "retract"}, {"text": "hello"}])
@pytest.mark.parametrize("late", [True, False])
def test_an_id_that_says_something_else_says_something_new(first: dict[str, Any], *, late: bool) -> None:
    table = Table()
    if late:
        table.message("m")
    table.label("m", "spam", id="f", **first)
    before = table.join.counts.repeated
    learned = table.label("m", "ham", id="f")
    learned += [] if late else [each.feedback.label for each in table.message("m")]
    assert learned[-1:] == ["ham"]
    assert table.join.counts.repeated == before
    retracted_before_anything = "op" in first and not late
    assert table.join.counts.reused_ids == (0 if retracted_before_anything else 1)


def test_a_weight_that_changes_is_learned_and_the_same_one_is_not() -> None:
    table = Table()
    table.message("m")
    assert table.label("m", "spam", weight=0.1) == ["spam"]
    assert table.label("m", "spam", weight=0.1) == []
    assert table.label("m", "spam", weight=3.0) == ["spam"]
    assert table.label("m", "spam", id="f", weight=3.0) == []
    assert table.label("m", "spam", id="f", weight=4.0) == ["spam"]
    assert (table.join.counts.corrected, table.join.counts.reused_ids) == (2, 1)


@pytest.mark.parametrize("key", ["k", "\N{EURO SIGN}" * 300])
def test_ids_and_labels_of_any_length_are_told_apart(key: str) -> None:
    table = Table()
    table.message("m")
    for label in (key, key + "x", key):
        for feedback_id in (key, key + "y"):
            learned = table.label("m", label, id=feedback_id + label)
            assert learned == ([label] if feedback_id == key and (label != key or not table.label("m", label)) else [])
    assert all(len(each.encode()) <= 40 for word in table.join.messages["m"].words for each in word[:2])


class TestRetractions:
    """A retraction that is sent twice is one, whatever came between; what it took back does not come back by itself."""

    def test_labels_that_it_took_back_while_they_waited_do_not_come_back(self) -> None:
        table = Table()
        for _ in range(2):
            table.label("m", "spam", id="f")
            table.label("m", "spam", id="r", op="retract")
        assert (table.join.waiting, table.join.counts.retracted, table.join.counts.repeated) == (0, 1, 2)
        assert table.message("m") == ()
        assert table.label("m", "spam", id="f") == []
        assert table.label("m", "spam", id="g") == ["spam"]

    def test_one_that_comes_again_does_not_take_what_came_meanwhile(self) -> None:
        table = Table()
        table.label("m", "spam", id="f")
        table.label("m", "spam", id="r", op="retract")
        table.label("m", "spam", id="g")
        table.label("m", "spam", id="r", op="retract")
        assert [each.feedback.id for each in table.message("m")] == ["g"]

    def test_the_last_word_counts_across_one(self) -> None:
        table = Table()
        table.message("m")
        assert table.label("m", "spam", id="f") == ["spam"]
        assert table.label("m", "spam", id="r", op="retract") == []
        assert table.label("m", "ham", id="g") == ["ham"]
        assert table.label("m", "spam", id="r", op="retract") == []
        assert table.label("m", "spam", id="f") == []
        assert table.label("m", "spam", id="h") == ["spam"]
        assert table.join.counts.retracted == 1

    def test_those_without_ids_leave_nothing_behind(self) -> None:
        table = Table()
        table.label("m", "spam")
        table.label("m", "spam", op="retract")
        assert not table.join.homes
        assert table.join.n_bytes == 0


class TestTexts:
    """An id is not believed over the content: what is learned is learned on the text that it is about."""

    def learned(self, table: Table, label: str, **fields: Any) -> list[tuple[str, str]]:
        window = table.join.of_feedback(0, "m")
        orphan = Rejected("feedback", 0, 7, "orphaned", "", "", "")
        found = window.add_feedback(Feedback("m", label, **fields), 9, orphan)
        table._evict(window)
        return [(each.entry.text, each.feedback.label) for each in found]

    def test_each_label_with_a_text_is_about_that_text(self) -> None:
        table = Table()
        assert self.learned(table, "spam", text="A") == [("A", "spam")]
        assert self.learned(table, "ham", text="B") == [("B", "ham")]
        assert self.learned(table, "ham", text="B") == self.learned(table, "spam", text="A") == []
        assert self.learned(table, "ham", text="A") == [("A", "ham")]
        counts = table.join.counts
        assert (counts.other_texts, counts.repeated, counts.corrected) == (1, 2, 1)

    def test_one_feedback_id_with_two_texts(self) -> None:
        table = Table()
        assert self.learned(table, "spam", id="f", text="A") == [("A", "spam")]
        assert self.learned(table, "spam", id="f", text="B") == [("B", "spam")]
        for text in "AB":
            assert self.learned(table, "spam", id="f", text=text) == []

    def test_a_text_that_the_message_does_not_have_is_learned_for_itself(self) -> None:
        table = Table()
        table.message("m", "A")
        assert self.learned(table, "ham", text="B") == [("B", "ham")]
        assert self.learned(table, "spam") == [("A", "spam")], "B has a label, so it is A's"
        assert self.learned(table, "ham") == [], "A's or B's?"
        assert [each.error for each in table.orphans] == ["ambiguous-id"]
        assert self.learned(table, "ham", text="A") == [("A", "ham")]

    def test_a_message_with_another_text_is_another_message(self) -> None:
        table = Table()
        assert [table.message("m", text) for text in "AB"] == [(), ()]
        entry, _ = table.join.windows[0].add_message(Message("m", "C"), 9, 2)
        assert entry is not None, "each is scored"
        counts = table.join.counts
        assert (counts.duplicates, counts.other_texts, table.join.pending) == (0, 2, 3)
        for text in "ABC":
            assert table.join.windows[0].add_message(Message("m", text), 9, 2) == (None, ())
        assert counts.duplicates == 3

    def test_a_label_that_may_be_anothers_is_not_learned(self) -> None:
        table = Table()
        for text in "AB":
            table.message("m", text)
        assert self.learned(table, "spam") == []
        assert (table.join.counts.ambiguous, table.orphans[0].error, table.orphans[0].offset) == (1, "ambiguous-id", 7)
        assert "send it with its text" in table.orphans[0].detail
        assert self.learned(table, "spam", text="A") == [("A", "spam")]
        assert self.learned(table, "ham") == [("B", "ham")], "only B has none"
        assert self.learned(table, "ham") == []
        assert self.learned(table, "spam") == []
        assert (table.join.counts.ambiguous, table.join.counts.repeated) == (2, 1)

    def test_labels_one_after_the_other_are_each_about_the_message_before_it(self) -> None:
        table = Table()
        for text, label in [("A", "spam"), ("B", "ham"), ("C", "ham"), ("D", "spam")]:
            table.message("m", text)
            assert self.learned(table, label) == [(text, label)]
        assert table.join.counts.corrected == 0

    def test_labels_that_waited_are_about_the_first(self) -> None:
        table = Table()
        table.label("m", "spam")
        assert [each.entry.text for each in table.message("m", "A")] == ["A"]
        assert table.message("m", "B") == ()
        assert self.learned(table, "ham") == [("B", "ham")]

    def test_a_message_that_comes_after_a_label_with_its_text_is_what_the_id_names(self) -> None:
        table = Table()
        table.label("m", "spam", text="A")
        table.label("m", "ham", text="B")
        entry, _ = table.join.windows[0].add_message(Message("m", "B"), 9, 2)
        assert entry is not None
        assert (entry.text, entry.label, table.join.messages["m"].text) == ("B", "ham", "B")
        entry, _ = table.join.windows[0].add_message(Message("m", "A"), 9, 2)
        assert entry is not None
        assert (entry.text, entry.label, table.join.messages["m"].text) == ("A", "spam", "A")

    def test_they_leave_as_any_others_do(self) -> None:
        table = Table(Limits(2, 1 << 24, 1_000_000))
        for text in "ABC":
            table.message("m", text)
        assert (table.expired, table.join.pending) == (["A"], 2)
        assert self.learned(table, "spam", text="B") == [("B", "spam")]
        table.message("n", "other")
        assert self.learned(table, "ham") == [("C", "ham")], "A and B are gone"
        assert self.learned(table, "spam") == [("C", "spam")]
        assert not table.join.shared

    def test_an_id_that_all_messages_have_costs_no_more_with_each(self) -> None:
        table = Table(Limits(50, 1 << 24, 1_000_000))
        for number in range(2000):
            table.message("m", f"text {number}")
        assert (len(table.expired), table.join.pending, table.join.shared) == (1950, 50, {"m": [49, 49]})
        assert self.learned(table, "spam", text="text 1990") == [("text 1990", "spam")]


def test_another_label_is_a_correction_and_the_first_again_after_it_too() -> None:
    table = Table()
    table.message("m")
    assert [table.label("m", label) for label in ("spam", "ham", "ham", "spam")] == [["spam"], ["ham"], [], ["spam"]]
    assert table.join.counts.corrected == 2


def test_a_repeated_message_is_counted_and_not_scored_again() -> None:
    table = Table()
    table.message("m", "first")
    entry, _ = table.join.windows[0].add_message(Message("m", "first"), 9, 2)
    assert entry is None
    assert table.join.counts.duplicates == 1
    assert table.join.windows[0].messages["m"].text == "first"


def test_a_label_with_its_own_text_needs_no_message() -> None:
    table = Table()
    assert table.label("m", "spam", text="own text") == ["spam"]
    assert table.label("m", "spam", text="own text") == []
    entry, labels = table.join.windows[0].add_message(Message("m", "own text"), 9, 2)
    assert entry is not None, "the message is scored when it comes"
    assert labels == ()
    assert table.join.pending == 0


def test_a_label_with_text_brings_those_that_waited_with_it() -> None:
    table = Table()
    table.label("m", "spam")
    assert table.label("m", "ham", text="own text") == ["spam", "ham"]


def test_a_retracted_label_that_waited_is_dropped_and_one_that_was_learned_stays() -> None:
    table = Table()
    table.label("m", "spam")
    table.label("m", "spam", op="retract")
    assert table.message("m") == ()
    table.label("m", "ham")
    assert table.label("m", "ham", op="retract") == []
    assert table.join.counts.retracted == 2


def test_a_label_on_another_partition_finds_its_message() -> None:
    table = Table(n_partitions=3)
    table.message("m", partition=2)
    assert table.label("m", "spam", partition=0) == ["spam"]
    table.label("n", "spam", partition=0)
    assert [label.feedback.label for label in table.message("n", partition=1)] == ["spam"]


class TestLimits:
    """What leaves is counted, oldest first."""

    def test_count(self) -> None:
        table = Table(Limits(3, 1 << 24, 1_000_000))
        for number in range(5):
            table.message(f"m{number}", f"text {number}")
        assert table.expired == ["text 0", "text 1"]
        assert table.join.counts.expired == 2
        assert table.label("m0", "spam") == []

    def test_a_labelled_message_leaves_silently(self) -> None:
        table = Table(Limits(1, 1 << 24, 1_000_000))
        table.message("m")
        table.label("m", "spam")
        table.message("n")
        assert (table.expired, table.join.counts.expired, table.join.pending) == ([], 0, 1)

    def test_bytes(self) -> None:
        table = Table(Limits(1000, 100_000, 1_000_000))
        for number in range(100):
            table.message(f"m{number}", "x" * 1000)
            assert table.join.n_bytes <= 100_000
        assert len(table.expired) == 100 - 100_000 // (ENTRY_BYTES + ROOM * (1003 + 8))

    def test_age_by_the_logs_time(self) -> None:
        table = Table(Limits(1000, 1 << 24, 100))
        table.message("m", "old", at=1000)
        table.message("n", "new", at=1100)
        assert table.expired == []
        table.message("o", "newest", at=1101)
        assert table.expired == ["old"]

    def test_labels_age_the_window_as_messages_do(self) -> None:
        table = Table(Limits(1000, 1 << 24, 100))
        table.message("m", "old", at=1000)
        table.label("x", "spam", at=1101)
        assert table.expired == ["old"]

    def test_an_orphan_goes_to_the_dead_letters(self) -> None:
        table = Table(Limits(1000, 1 << 24, 100))
        table.label("m", "spam", at=1000)
        table.message("n", at=1101)
        assert [orphan.offset for orphan in table.orphans] == [1000]
        assert (table.join.counts.orphaned, table.join.waiting) == (1, 0)

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            (Limits(1000, 1 << 24, 100), "age"),
            (Limits(8, 1 << 24, 100_000), "number"),
            (Limits(1000, 16 * ENTRY_BYTES, 100_000), "bytes"),
        ],
    )
    def test_orphans_are_counted_by_the_limit_that_they_met(self, limits: Limits, reason: str) -> None:
        table = Table(limits)
        for number in range(10):
            table.label(f"m{number}", "spam", at=1000 + 50 * number)
        counts = table.join.counts
        assert counts.orphaned == len(table.orphans) > 0
        assert counts.orphaned_by == {reason: counts.orphaned}
        old = msgspec.json.decode(b"[0,0,0,0,0,0,6]", type=JoinCounts)  # of a checkpoint from before there were reasons
        assert (old.orphaned, old.orphaned_by) == (6, {})

    def test_a_flood_of_orphans_does_not_push_the_messages_out(self) -> None:
        table = Table(Limits(100, 1 << 24, 1_000_000))
        table.message("m")
        for number in range(1000):
            table.label(f"unknown{number}", "spam")
            table.label("unknown", "spam", id=str(number))
        assert table.label("m", "spam") == ["spam"]
        assert len(table.orphans) + table.join.waiting + table.join.counts.repeated == 2000
        assert table.join.counts.orphaned == len(table.orphans)

    def test_a_flood_of_labels_for_a_message_that_never_comes_hides_nobody_else(self) -> None:
        """Of one message the last sixteen wait; the others go to the dead letters, as those do that wait too long."""
        table = Table(Limits(1000, 1 << 24, 500))
        table.label("flood", "x")
        table.label("other", "x")
        for number in range(1000):
            table.label("flood", f"label {number}")
        assert table.join.waiting == 16
        assert table.join.counts.orphaned_by == {"number": 985, "age": 1}
        assert [each.feedback.label for each in table.message("flood")][-1] == "label 999"

    def test_a_flood_of_labels_for_one_message_is_bounded(self) -> None:
        table = Table()
        table.message("m")
        for number in range(1000):
            table.label("m", "spam", id=f"id{number}")
        assert len(table.join.windows[0].messages["m"].words) == 64
        weighed = table.join.n_bytes
        for number in range(1000):
            table.label("m", "spam", id=f"id{number}")
        assert table.join.n_bytes == weighed


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("mlr"), st.sampled_from("abcde"), st.sampled_from("xyz"), st.none() | st.sampled_from("123")
    ),
    max_size=60,
)


@given(EVENTS, st.integers(1, 6), st.integers(0, 59))
def test_any_history_keeps_the_books_and_survives_a_save(
    events: list[tuple[str, str, str, str | None]], size: int, cut: int
) -> None:
    table, saved = Table(Limits(size, 1 << 20, 25)), Table(Limits(size, 1 << 20, 25))
    table.n_scores = saved.n_scores = 0
    learned: Counter[tuple[str, str]] = Counter()
    for number, (kind, key, label, feedback_id) in enumerate(events):
        if number == cut:
            saved.join.load_state(table.join.counts, table.join.state())
            saved.now = table.now
            table = saved
        if kind == "m":
            learned.update((key, each.feedback.id or "") for each in table.message(key))
        else:
            op = "retract" if kind == "r" else "upsert"
            learned.update((key, feedback_id or "") for _ in table.label(key, label, id=feedback_id, op=op))
        (window,) = table.join.windows
        assert len(window.messages) <= size
        assert window.n_bytes == sum(entry.n_bytes for entry in window.messages.values())
        assert table.join.pending == sum(entry.label is None for entry in window.messages.values())
        assert window.early_bytes >= 0
        assert (window.early_bytes == 0) == (not window.early)
    (window,) = table.join.windows
    again = Join()
    again.configure(1, Limits(size, 1 << 20, 25))
    again.load_state(table.join.counts, table.join.state())
    assert again.state() == table.join.state()
    assert (again.n_bytes, again.pending, again.waiting) == (table.join.n_bytes, table.join.pending, table.join.waiting)


@pytest.mark.parametrize("state", [b"", b"\xc1", b"\x93\x00\x90\x91\x05"])
def test_a_state_that_is_none_is_refused(state: bytes) -> None:
    table = Table()
    with pytest.raises(Exception, match="the join window of the checkpoint cannot be read"):
        table.join.load_state(table.join.counts, [state])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["message", "label", "plain", "heavy", "text", "retract", "named retract"]),
        st.integers(0, 30) | st.integers(0, 2),
        st.integers(0, 3),
        st.integers(-5, 5),  # time that passed
        st.integers(0, 1),  # partition
    ),
    max_size=60,
)
Step = tuple[str, int, int, int, int]
TIGHT = Limits(messages=20, n_bytes=1 << 16, age_ms=50)


def text(number: int) -> str:
    """Return one of four."""
    return f"t\N{LATIN SMALL LETTER E WITH ACUTE}xt {number}" * 30


def apply(table: Table, steps: list[Step]) -> list[Any]:
    """Return which labels were to be learned, and of which texts."""
    learned: list[Any] = []
    for kind, key, number, passed, partition in steps:
        at = max(0, table.now + passed)
        if kind == "message":
            labels = table.message(str(key), text(number), at, partition)
            learned += [(each.entry.text, each.feedback, each.corrects, each.orphan) for each in labels]
        else:
            fields: dict[str, Any] = {
                "message": {},
                "label": {"id": f"f{number}"},
                "plain": {},
                "heavy": {"id": "f" * 50 * number + "0", "weight": 0.1},
                "text": {"text": text(number), "id": f"f{key}" if key % 2 else None},
                "retract": {"op": "retract"},
                "named retract": {"op": "retract", "id": f"f{number}"},
            }[kind]
            label = f"label {number % 2}" + "!" * 50 * (number % 3)
            learned.append(table.label(str(key), label, at, partition, **fields))
    return learned


@settings(max_examples=times(300, 75))
@given(STEPS, st.lists(STEPS, max_size=6))
def test_it_does_what_the_plain_join_does(before: list[Step], after: list[Step]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(message_rows, "LEAST", 4)
        one = Table(TIGHT, 2)
        other = Table(TIGHT, 2, plain_join.Join)
        for steps in (before, *after):
            assert apply(one, steps) == apply(other, steps)
            assert one.join.state() == other.join.state()
            assert one.join.n_bytes == other.join.n_bytes
            assert (one.join.counts, one.expired, one.orphans) == (other.join.counts, other.expired, other.orphans)
            one.join.make_room(len(steps), 1000, 100)  # rows move


@given(STEPS, st.lists(STEPS, max_size=12))
def test_a_frozen_window_is_encoded_as_it_was_while_the_window_goes_on(
    before: list[Step], meanwhile: list[list[Step]]
) -> None:
    table = Table(TIGHT, 2)
    apply(table, before)
    expected = table.join.state()
    encoded = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_saved, "SLICE", 3)
        patch.setattr(window_saved, "EARLY_SLICE", 2)
        patch.setattr(message_rows, "LEAST", 4)
        for frozen in table.join.freeze():
            parts = []
            for part in frozen.encode():
                parts.append(part)
                if meanwhile:
                    apply(table, meanwhile.pop())
                    table.join.make_room(1000, 1000, 1000)
            encoded.append(b"".join(parts))
    assert encoded == expected


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 300, 65_535, 65_536])
def test_a_window_of_any_size_is_encoded(n: int) -> None:
    table = Table(Limits(1 << 20, 1 << 30, 1 << 30))
    for number in range(n):
        table.message(str(number))
    (state,) = table.join.state()
    assert [key for key, _ in msgspec.msgpack.decode(state)[2]] == [str(number) for number in range(n)]
