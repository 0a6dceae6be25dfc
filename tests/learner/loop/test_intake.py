"""Intake is refused where most of what comes cannot be read, however it is cut into batches."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.learner.loop.intake import LEAST, RECENT, Intake
from driftline.stream.errors import BadRecord, TooManyDeadLetters
from driftline.stream.log.base import Chunk, TopicPartition
from driftline.stream.log.merge import Batch

TOPIC = TopicPartition("messages", 0)


def admit(intake: Intake, readable: Sequence[bool], first: int = 0) -> None:
    n = len(readable)
    offsets = np.arange(first, first + n)
    chunk = Chunk(TOPIC, offsets, offsets, [None] * n, [b"x"] * n)
    found = [object() if good else BadRecord("not-json", "it ends early") for good in readable]
    intake.admit(Batch([chunk], np.arange(n), []), found)


def admitted(readable: Sequence[bool], size: int, limit: float = 0.5) -> int:
    """Return how many records are taken before one batch is refused."""
    intake = Intake(limit, "dead-letter")
    for start in range(0, len(readable), size):
        try:
            admit(intake, readable[start : start + size], start)
        except TooManyDeadLetters:
            return start
    return len(readable)


@pytest.mark.parametrize("size", [1, 7, 100, 500])
def test_a_broken_producer_is_noticed_after_some_records(size: int) -> None:
    assert LEAST - size <= admitted([False] * 5000, size) <= LEAST
    after_good = admitted([True] * 3000 + [False] * 5000, size)
    assert 3000 + RECENT // 2 - size <= after_good <= 3000 + RECENT // 2 + 1


def test_half_of_them_may_be_bad_and_with_1_all() -> None:
    assert admitted([True, False] * 5000, 100) == 10_000
    assert admitted([False] * 10_000, 4096, 1.0) == 10_000
    assert admitted([True] * 9 + [False] * (LEAST - 10), 4096) == LEAST - 1  # too few to tell


def test_a_burst_inside_a_batch_counts() -> None:
    assert admitted([True] * 1500 + [False] * 800 + [True] * 1500, 4096) == 0


def test_a_batch_that_was_refused_is_not_remembered() -> None:
    intake = Intake(0.5, "dead-letter")
    admit(intake, [True] * 400)
    for _ in range(3):
        with pytest.raises(TooManyDeadLetters, match=r"401 of 801 records .* messages \(not-json\).*\[0\] offset 400"):
            admit(intake, [False] * 4000, 400)
    admit(intake, [False] * 400, 400)


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 300), st.sampled_from([0.1, 0.5, 0.9]))
def test_it_is_refused_exactly_where_a_window_has_too_many(readable: list[bool], size: int, limit: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("driftline.learner.loop.intake.RECENT", 20)
        patch.setattr("driftline.learner.loop.intake.LEAST", 10)
        expected = len(readable)
        for start in range(0, len(readable), size):
            ends = range(max(start + 1, 10), min(start + size, len(readable)) + 1)
            windows = [readable[max(0, end - 20) : end] for end in ends]
            over = any(window.count(False) > limit * len(window) for window in windows)
            if over and not all(readable[start : start + size]):  # what can be read is always taken
                expected = start
                break
        assert admitted(readable, size, limit) == expected
