"""A message that left without a label and was learned as one is corrected by the label that comes late."""

import msgspec
import pytest

from driftline.learner.machine.machine import Machine
from driftline.stream.join.late import LATE_SHARE, Gone, Late
from driftline.stream.join.window_saved import FORMAT, LATE_FORMAT, Unwanted, decode
from driftline.stream.limits import Limits
from tests.learner.machine.test_machine import Stream, digest, machine, run

TEN = 10


def expired(n: int = TEN, **options: object) -> tuple[Stream, Machine]:
    """Return a stream of 2 n messages, of which the first n have left and were learned as ham; taken in."""
    stream, learner = Stream(), machine(expire_as="ham", window_messages=n, **options)
    for number in range(2 * n):
        stream.message(f"m{number}", f"text {number}")
    run(learner, stream.records)
    assert (learner.join.counts.expired, learner.counts.updates) == (n, n)
    stream.records.clear()
    return stream, learner


def test_a_late_label_is_a_correction() -> None:
    stream, learner = expired()
    for number in range(5, 10):
        stream.label(f"m{number}", "spam")
    run(learner, stream.records)
    counts = learner.join.counts
    assert (counts.corrected, learner.counts.labels_learned, learner.join.waiting) == (5, 5, 0)
    assert learner.progress.corrections == 5
    assert (learner.progress.labels, learner.progress.unpredicted) == (0, 0), (
        "a guess of ours is not what was predicted"
    )
    assert learner.classifier.predict_one("text 7") == "spam"


def test_it_is_a_message_with_a_label_from_then_on() -> None:
    stream, learner = expired()
    stream.label("m9", "ham")
    stream.label("m9", "spam")
    stream.label("m9", "spam")
    stream.label("m9", "ham", id="f", text="text 9")
    run(learner, stream.records)
    counts = learner.join.counts
    assert (counts.repeated, counts.corrected) == (2, 2), "it is ham already, then spam, spam again, and ham"
    assert learner.counts.labels_learned == 2


def test_a_label_with_the_text_corrects_it_too_and_with_another_one_is_about_that() -> None:
    stream, learner = expired()
    stream.label("m8", "spam", text="text 8")
    stream.label("m9", "spam", text="quite another text")
    stream.label("m9", "spam")
    run(learner, stream.records)
    counts = learner.join.counts
    assert (counts.corrected, learner.counts.labels_learned, counts.repeated) == (1, 2, 1)


def test_of_several_texts_with_an_id_none_is_meant_by_the_id_alone() -> None:
    stream, learner = Stream(), machine(expire_as="ham", window_messages=4)
    stream.message("m", "one")
    for number in range(3):
        stream.message(f"a{number}", "x")
    for number in range(4):
        stream.label(f"a{number}", "spam")  # these leave with a label
    stream.message("m", "two")
    for number in range(4):
        stream.message(f"b{number}", "x")
    stream.label("m", "spam")
    sent = run(learner, stream.records)
    assert learner.join.counts.ambiguous == 1
    assert b"ambiguous-id" in (sent["dead-letter"][0].value or b"")
    stream.records.clear()
    stream.label("m", "spam", text="two")
    run(learner, stream.records)
    assert learner.join.counts.corrected == 1


def test_it_is_kept_for_twice_the_time_that_a_message_has() -> None:
    stream, learner = Stream(), machine(expire_as="ham", window_hours=10 / 3_600_000)
    stream.message("m", "text")  # at 1000
    for number in range(11, 30):
        stream.records.append(
            stream.records[0].__class__(stream.records[0].partition, number, 990 + number, None, None)
        )
    for number in range(20):
        stream.message(f"n{number}", "x")  # at 1020 and later
    stream.label("m", "spam")
    run(learner, stream.records)
    assert (learner.join.counts.corrected, learner.join.waiting) == (0, 1)


def test_it_stands_in_the_checkpoint_and_is_erased_from_it() -> None:
    stream, learner = expired()
    (state,) = learner.join.state()
    assert decode(state).format == LATE_FORMAT
    assert [key for key, _ in decode(state).late] == [f"m{number}" for number in range(5, 10)]
    _, other = expired()
    other.join.load_state(other.join.counts, [state])
    other.join.configure(1, other.rules.limits)
    for each in (learner, other):
        stream.records.clear()
        for number in (6, 9):
            stream.label(f"m{number}", "spam")
        run(each, stream.records)
    assert digest(learner) == digest(other)
    assert other.join.counts.corrected == 2
    other.join.forget(Unwanted(frozenset(["m5"])))
    assert b"text 5" not in other.join.state()[0]
    assert b"text 7" in other.join.state()[0]
    other.join.forget(Unwanted(frozenset(other.join.late.homes)))
    assert decode(other.join.state()[0]).format == FORMAT, "where there is none it is as it ever was"


def test_by_the_rules_of_before_nothing_is_kept() -> None:
    _, learner = expired()
    learner.obey(msgspec.structs.replace(learner.rules, corrects_expired=False))
    stream = Stream()
    for number in range(30, 50):
        stream.message(f"m{number}", "text")
    before = len(learner.join.late.homes)
    run(learner, stream.records)
    assert len(learner.join.late.homes) == before


def test_without_a_label_to_expire_as_there_is_nothing_to_correct() -> None:
    stream, learner = Stream(), machine(window_messages=5)
    for number in range(10):
        stream.message(f"m{number}", f"text {number}")
    stream.label("m1", "spam")
    run(learner, stream.records)
    assert (len(learner.join.late.homes), learner.join.waiting) == (0, 1)


def test_a_part_of_the_limits_is_for_them_and_the_oldest_leave() -> None:
    late = Late()
    late.configure(Limits(40, 100_000, 10))
    for number in range(100):
        late.keep(number % 3, f"m{number}", Gone("x" * 50, "ham", number))
    assert list(late.homes) == [f"m{number}" for number in range(100 - int(40 * LATE_SHARE), 100)]
    late.configure(Limits(1_000, 10_000, 10))
    for number in range(100, 200):
        late.keep(number % 3, f"m{number}", Gone("x" * 50, "ham", number))
        assert late.n_bytes <= 10_000 * LATE_SHARE
    assert list(late.homes)[-1] == "m199"
    for key in list(late.homes):
        assert late.take(key, None, 200) is not None
    assert (late.n_bytes, late.homes) == (0, {})


def test_a_state_in_which_a_message_left_two_windows_is_refused() -> None:
    late = Late()
    late.load(0, [("m", Gone("x", "ham", 1))])
    with pytest.raises(ValueError, match="left two windows"):
        late.load(1, [("m", Gone("x", "ham", 1))])
