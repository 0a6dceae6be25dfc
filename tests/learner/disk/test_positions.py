"""What is lost is exactly what is neither held, nor replayed, nor still to be read; nothing is taken twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.learner.disk.journal import Applied
from driftline.learner.disk.positions import Shortfall, Standing, Stock, compare, reached
from driftline.learner.disk.settings import LearnerSettings
from driftline.stream.errors import RecordsLost
from driftline.stream.log.base import TopicPartition, TopicState, Watermarks
from driftline.stream.log.merge import Span
from driftline.stream.process.settings import StreamSettings

PARTITION = TopicPartition("feedback", 0)
RULES = LearnerSettings().rules(StreamSettings(), 1)


def stock_of(held: int, cuts: list[int], seen: int, mark: Watermarks, identity: str = "a") -> tuple[Stock, list[Span]]:
    """Compare a checkpoint at `held`, a journal that was cut into batches, and a log; return what is replayed too."""
    todo = [
        Applied(batch, 0, [Span(PARTITION, start, end)], RULES)
        for batch, (start, end) in enumerate(zip([held, *cuts], cuts, strict=False), 1)
        if start < end
    ]
    positions = {PARTITION: held}
    standing = Standing(positions, reached(positions, todo), {PARTITION: seen}, {"feedback": "a"})
    stock = compare(standing, {"feedback": TopicState(identity, {0: mark})})
    return stock, [span for applied in todo for span in stock.clip(applied).spans]


@given(st.integers(0, 30), st.lists(st.integers(0, 15), max_size=4), st.integers(0, 60), st.integers(0, 60), st.data())
def test_every_offset_is_held_or_replayed_or_read_or_lost(
    held: int, steps: list[int], seen: int, high: int, data: st.DataObject
) -> None:
    low = data.draw(st.integers(0, high))
    cuts = [held + sum(steps[: n + 1]) for n in range(len(steps))]
    applied = max([held, *cuts])
    stock, replayed = stock_of(held, cuts, seen, Watermarks(low, high))
    taken = [offset for span in replayed for offset in range(span.start, span.end)]
    position = max([stock.positions[PARTITION], *(span.end for span in replayed)])
    assert position == stock.positions[PARTITION] or taken
    still_there = range(position, high)
    assert set(taken) <= set(range(low, high)), "only what the log has is replayed"
    assert sorted({*taken, *still_there}) == sorted([*taken, *still_there]), "nothing twice"
    assert not set(taken) & set(range(held))
    # Of a log that ends behind what was applied, what was seen behind that is gone too.
    ever = range(max(applied, high, seen if applied > high else 0))
    missing = set(ever) - set(range(held)) - set(taken) - set(still_there)
    assert sum(loss.lost for loss in stock.losses) == len(missing)
    gone = [offset for loss in stock.losses for offset in range(loss.start, loss.end)]
    assert missing <= set(gone)
    assert len(gone) == len(set(gone)), "no range is named twice"
    assert bool(stock.losses) == (held < low or applied > high)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60), st.integers(0, 60))
def test_of_a_topic_made_again_nothing_is_replayed(held: int, step: int, seen: int, high: int) -> None:
    stock, replayed = stock_of(held, [held + step], seen, Watermarks(0, high), identity="b")
    assert stock.new_topics
    assert not replayed
    assert stock.positions == {PARTITION: 0}
    assert [loss.lost for loss in stock.losses] == [max(held + step, seen) - held]


def test_without_identities_only_offsets_are_compared() -> None:
    standing = Standing({PARTITION: 5}, {PARTITION: 5}, {}, {})
    for mark, losses in ((Watermarks(0, 9), 0), (Watermarks(0, 4), 1)):
        assert len(compare(standing, {"feedback": TopicState(None, {0: mark})}).losses) == losses
        known = standing._replace(identities={"feedback": "a"})
        assert len(compare(known, {"feedback": TopicState(None, {0: mark})}).losses) == losses


def test_partitions_come_and_never_go() -> None:
    standing = Standing({PARTITION: 5}, {PARTITION: 5}, {}, {"feedback": "a"})
    marks = {0: Watermarks(0, 9), 1: Watermarks(0, 3), 2: Watermarks(2, 3)}
    stock = compare(standing, {"feedback": TopicState("a", marks)})
    assert stock.added == [TopicPartition("feedback", 1), TopicPartition("feedback", 2)]
    assert stock.positions == {PARTITION: 5, TopicPartition("feedback", 1): 0, TopicPartition("feedback", 2): 2}
    assert [(loss.partition, loss.lost) for loss in stock.losses] == [(2, 2)]
    with pytest.raises(RecordsLost, match="has 0 partitions, it had 1"):
        compare(standing, {"feedback": TopicState("a", {})})


def test_a_refusal_says_what_where_how_much_and_what_to_do() -> None:
    stock, _ = stock_of(10, [20], 25, Watermarks(12, 15))
    with pytest.raises(RecordsLost) as error:
        stock.refuse()
    assert str(error.value) == (
        "feedback[0]: 2 records lost, offsets 10 to 11 are gone (dropped by retention or deleted before they were "
        "learned); feedback[0]: 10 records lost, offsets 15 to 24 are gone (the log ends before the last position: it "
        "was truncated, or put back from a copy). Put the records back from a copy of the log, or go on without them "
        "with --accept-loss"
    )


def test_a_span_is_short_by_what_was_not_found_of_it() -> None:
    """All of it, too; but not where nobody wrote down how many records it had."""
    other = TopicPartition("messages", 1)
    short = Shortfall()
    assert not short.add([Span(PARTITION, 0, 3, 3), Span(other, 0, 9)], [Span(PARTITION, 0, 3, 3)])
    assert short.losses() == []
    assert short.add([Span(PARTITION, 3, 4, 1), Span(other, 9, 12, 2)], [Span(other, 9, 12, 2)])
    assert short.add(
        [Span(PARTITION, 4, 9, 5), Span(other, 12, 15, 2)], [Span(PARTITION, 4, 9, 3), Span(other, 12, 15)]
    )
    assert not short.add([Span(PARTITION, 9, 12, 2)], [Span(PARTITION, 9, 12, 3)]), "more than there was is not less"
    found = [(loss.topic, loss.partition, loss.start, loss.end, loss.lost, loss.why) for loss in short.losses()]
    assert found == [("feedback", 0, 3, 9, 3, "compacted"), ("messages", 1, 12, 15, 2, "compacted")]
