"""How many texts get a vector: by the log's time alone, wherever the records are cut."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline.learner.embed.budget import Budget

START_MS = 1_700_000_000_000
Times = NDArray[np.int64]


def take(budget: Budget, times_ms: list[int], rate: int, *, labels: bool = False) -> list[bool]:
    return budget.take(np.array(times_ms, np.int64), np.full(len(times_ms), labels), rate).tolist()


def test_a_minutes_worth_may_come_at_once_and_then_so_many_a_second() -> None:
    budget = Budget()
    assert sum(take(budget, [START_MS] * 1000, 10)) == 600
    later = take(budget, [START_MS + 1_000] * 15, 10)
    assert later == [True] * 10 + [False] * 5
    assert sum(take(budget, [START_MS + 3_600_000] * 1000, 10)) == 600


def test_messages_and_labels_take_nothing_from_each_other() -> None:
    budget = Budget()
    take(budget, [START_MS] * 1000, 10)
    assert sum(take(budget, [START_MS] * 1000, 10, labels=True)) == 600


def test_a_time_that_goes_back_and_one_that_there_is_not_count_as_the_latest() -> None:
    budget = Budget()
    take(budget, [START_MS] * 600, 10)
    assert not any(take(budget, [0, START_MS - 3_600_000, START_MS], 10))
    assert take(budget, [START_MS + 100, 0, START_MS + 200], 10) == [True, False, True]


def test_without_a_rate_all_get_one() -> None:
    budget = Budget()
    assert all(take(budget, [START_MS] * 100_000, 0))
    assert budget == Budget(), "and nothing is counted"


@pytest.mark.parametrize("rate", [1, 7, 1_000_000])
def test_never_more_than_the_rate_and_a_minute_of_it(rate: int) -> None:
    rng = np.random.default_rng(rate)
    times = START_MS + np.cumsum(rng.integers(0, 2_000 // min(rate, 100), 5_000))
    given_ = np.array(take(Budget(), times.tolist(), rate))
    for start in range(0, 5_000, 500):
        for stop in range(start + 500, 5_001, 500):
            span_s = (times[stop - 1] - times[start]) / 1_000
            assert given_[start:stop].sum() <= rate * (60 + span_s) + 1


@given(
    st.lists(st.tuples(st.integers(0, 40_000), st.booleans()), max_size=60),
    st.lists(st.integers(0, 60), max_size=4),
    st.integers(1, 3),
)
def test_where_it_is_cut_and_saved_changes_nothing(steps: list[tuple[int, bool]], cuts: list[int], rate: int) -> None:
    times = START_MS + np.array([time for time, _ in steps], np.int64)
    labels = np.array([is_label for _, is_label in steps], np.bool_)
    whole, parts = Budget(), Budget()
    expected = whole.take(times, labels, rate).tolist()
    found = []
    borders = [0, *sorted(cuts), len(steps)]
    for start, stop in pairwise(borders):
        found += parts.take(times[start:stop], labels[start:stop], rate).tolist()
        parts = msgspec.json.decode(msgspec.json.encode(parts), type=Budget)
    assert (found, parts) == (expected, whole)
