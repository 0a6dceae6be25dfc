"""Which entries count follows from the journal's order alone, whoever wrote what, and however often."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from driftline.learner.cluster import entries
from driftline.learner.cluster.entries import (
    PIECE_BYTES,
    Batch,
    Claim,
    Entry,
    HandOver,
    Lesson,
    Mark,
    Restart,
    decode,
    encode,
)
from driftline.learner.cluster.order import MOST_OPEN, Order
from driftline.learner.disk.settings import LearnerSettings
from driftline.stream.process.settings import StreamSettings

RULES = LearnerSettings().rules(StreamSettings(data=Path("x")), 1)


def claim(epoch: int, holder: str = "a") -> Claim:
    return Claim(epoch, holder, f"lineage-{epoch}", RULES)


def batch(epoch: int, number: int, texts: bytes = b"") -> Batch:
    lessons = [Lesson(texts, b"", b"", b"", ["a"])] if texts else []
    return Batch(epoch, number, 0, [(0, 0, number, number + 1, 1)], number, number, lessons)


def read(order: Order, written: list[Entry]) -> list[Entry]:
    values = [value for entry in written for value in encode(entry)]
    found = (order.take(order.offset, value) for value in values)
    return [entry for entry in found if entry is not None]


def test_what_an_overtaken_leader_still_writes_counts_for_nobody() -> None:
    order = Order()
    late = [batch(1, 3), Mark(1, 2), Restart(1, 0, "old"), claim(1, "b")]
    good = [claim(1), batch(1, 1), batch(1, 2), claim(2, "b"), batch(2, 3)]
    assert read(order, [*good[:4], *late, *good[4:], *late]) == good
    assert (order.epoch, order.batch, order.n_void) == (2, 3, 8)


def test_a_batch_that_was_written_twice_or_does_not_follow_counts_once_or_not() -> None:
    order = Order()
    assert read(order, [claim(1), batch(1, 1), batch(1, 1), batch(1, 3), batch(1, 2)]) == [
        claim(1),
        batch(1, 1),
        batch(1, 2),
    ]


def test_a_restart_says_which_batch_comes_next() -> None:
    order = Order(1, 7)
    kept = [Restart(1, 0, "anew"), batch(1, 1)]
    assert read(order, [batch(1, 1), *kept]) == kept


def test_who_asks_for_the_lead_is_heard_whatever_the_epoch() -> None:
    assert read(Order(5), [HandOver("me")]) == [HandOver("me")]


def test_large_entries_come_in_pieces_which_others_may_lie_between() -> None:
    large, other = batch(1, 1, b"x" * (3 * PIECE_BYTES)), claim(2, "b")
    pieces, order = encode(large), Order(1)
    assert len(pieces) == 4
    assert all(len(piece) < PIECE_BYTES + 100 for piece in pieces)
    mixed = [*pieces[:2], *encode(batch(9, 9)), *encode(batch(0, 1, b"y" * (2 * PIECE_BYTES))), *pieces[2:]]
    assert [entry for value in mixed if (entry := order.take(0, value)) is not None] == [large]
    order = Order(1)
    assert [e for v in (*pieces[:3], *encode(other), pieces[3]) if (e := order.take(0, v)) is not None] == [other]


def test_pieces_without_an_end_are_forgotten() -> None:
    order = Order(1)
    for _ in range(3 * MOST_OPEN):
        order.take(0, encode(batch(1, 1, b"x" * (2 * PIECE_BYTES)))[0])
    assert len(order._open) == MOST_OPEN
    whole = batch(1, 1, b"y" * (2 * PIECE_BYTES))
    assert read(order, [whole]) == [whole]
    assert order._n_bytes == sum(len(part) for parts in order._open.values() for part in parts)


def test_half_of_an_entry_that_is_written_anew_is_no_part_of_it() -> None:
    whole, order = batch(1, 1, b"z" * (3 * PIECE_BYTES)), Order(1)
    for value in encode(whole)[:2]:
        assert order.take(0, value) is None
    assert read(order, [whole]) == [whole]


@given(st.binary(max_size=60))
def test_bytes_of_strangers_are_stepped_over(value: bytes) -> None:
    order = Order(3, 4)
    entry = order.take(7, value)
    assert order.offset == 8
    assert entry is None or isinstance(entry, entries.HandOver | Claim | Batch | Mark | Restart | entries.Entry)


def test_a_kind_that_this_version_does_not_know_is_stepped_over() -> None:
    import msgspec  # noqa: PLC0415

    assert decode(msgspec.msgpack.encode(["tomorrow", 1, 2, 3])) is None
    assert decode(None) is None


@given(st.lists(st.tuples(st.sampled_from("cb"), st.integers(1, 4), st.integers(1, 6)), max_size=40), st.data())
def test_whoever_reads_it_from_anywhere_comes_to_the_same(
    steps: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    written: list[Entry] = [claim(e, str(n)) if kind == "c" else batch(e, n) for kind, e, n in steps]
    whole = Order()
    found = [whole.take(at, value) for at, entry in enumerate(written) for value in encode(entry)]
    cut = data.draw(st.integers(0, len(written)))
    first = Order()
    for at, entry in enumerate(written[:cut]):
        first.take(at, encode(entry)[0])
    second = Order(first.epoch, first.batch, first.offset)
    assert [second.take(at, encode(entry)[0]) for at, entry in enumerate(written[cut:], cut)] == found[cut:]
    batches = [entry.batch for entry in found if isinstance(entry, Batch)]
    assert batches == list(range(1, len(batches) + 1))
    epochs = [entry.epoch for entry in found if isinstance(entry, Claim)]
    assert epochs == sorted(set(epochs))
