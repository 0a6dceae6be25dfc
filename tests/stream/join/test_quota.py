"""A source sends so many labels in a stretch of the log's time and no more, and names are worth nothing."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.stream.join.quota import (
    HOUR_MS,
    MAX_COMING,
    MAX_KNOWN,
    MAX_NAMED,
    MAX_SOURCES,
    NEW,
    OTHERS,
    SILENT_HOURS,
    UNNAMED,
    Quota,
    Quotas,
    bounded,
    sender,
)

TEN_A_MINUTE = Quota(10, 60_000)


def test_a_quota_is_read() -> None:
    assert Quota.parse("1000/min") == Quota(1000, 60_000)
    assert Quota.parse("1/d") == Quota(1, 86_400_000)
    for text in ("0/min", "5", "5/week", "-1/s", "1e3/s", ""):
        with pytest.raises(ValueError, match="is no quota"):
            Quota.parse(text)


@pytest.mark.parametrize("by_name", [False, True])
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "a/x", "b", "c", "d/y", None, "open/z"]), st.integers(0, 30)), max_size=100
    ),
    st.integers(1, 4),
)
def test_each_source_has_its_own_count_in_each_stretch(
    by_name: bool, labels: list[tuple[str | None, int]], most: int
) -> None:
    state, allowed = Quotas(known={"a": 0, "b": 0}), Counter[tuple[int, str]]()
    stretch = n_refused = 0
    for source, time_ms in labels:
        stretch = max(stretch, time_ms // 10)  # what is late counts in the stretch that runs
        admitted = state.admit(source, time_ms, Quota(most, 10), by_name=by_name)
        one = bounded(source) if by_name else {"c": NEW, "d": NEW}.get(sender(source), sender(source))
        assert admitted == (allowed[stretch, one] < most)
        allowed[stretch, one] += admitted
        n_refused += not admitted
    assert sum(state.refused.values()) == n_refused


@pytest.mark.parametrize("n", [1_000, 3 * MAX_SOURCES])
def test_a_new_name_for_each_label_gains_nothing(n: int) -> None:
    state = Quotas()
    names = [f"name {number}" for number in range(n)]
    assert sum(state.admit(name, number % 60_000, TEN_A_MINUTE) for number, name in enumerate(names)) == 10
    assert state.sent == {NEW: n}
    assert len(state.refused) == MAX_NAMED + 1
    assert sum(state.refused.values()) == n - 10
    assert state.refused[OTHERS] == n - 10 - MAX_NAMED
    assert state.admit(None, 5, TEN_A_MINUTE), "who has no name goes on"


def test_by_the_rule_of_before_any_name_has_a_quota() -> None:
    state = Quotas()
    names = [f"name {number}" for number in range(MAX_SOURCES + 100)]
    assert sum(state.admit(name, 5, Quota(3, 60_000), by_name=True) for name in names) == MAX_SOURCES + 3
    assert not any(state.known or state.coming)


def test_all_names_behind_one_key_are_one_source() -> None:
    state = Quotas(known={"alice": 0, "bob": 0})
    assert sum(state.admit(f"alice/{number}", 5, TEN_A_MINUTE) for number in range(1_000)) == 10
    assert sum(state.admit("bob", 5, TEN_A_MINUTE) for _ in range(20)) == 10
    assert state.refused == {"alice": 990, "bob": 10}


def test_all_that_comes_from_an_open_api_is_one_source() -> None:
    state = Quotas()
    names = ["open", None, "", "/x", *(f"open/{number}" for number in range(1_000))]
    assert sum(state.admit(name, 5, TEN_A_MINUTE) for name in names) == 10
    assert state.sent == {UNNAMED: 1_004}
    assert not state.coming


def test_who_has_come_in_different_hours_is_counted_for_itself() -> None:
    state = Quotas()
    assert state.admit("alice", 0, TEN_A_MINUTE)
    assert state.is_new("alice")
    assert state.admit("alice", HOUR_MS, TEN_A_MINUTE)
    assert not state.is_new("alice")
    for number in range(1_000):
        state.admit(f"name {number}", HOUR_MS + 60_000, TEN_A_MINUTE)
    assert sum(state.admit("alice", HOUR_MS + 60_001, TEN_A_MINUTE) for _ in range(20)) == 10


def test_in_an_hour_one_name_becomes_known_that_has_come_longest() -> None:
    """So whoever invents names, and has the patience to season them, gains one quota an hour, and MAX_KNOWN in all."""
    state, honest = Quotas(), [f"person {number}" for number in range(3)]
    for hour in range(5):
        for name in honest:
            assert state.admit(name, hour * HOUR_MS, TEN_A_MINUTE)
        for number in range(1_000):
            state.admit(f"name {number}", hour * HOUR_MS + 60_000 * (1 + number // 20), TEN_A_MINUTE)
    assert list(state.known)[:3] == honest, "those who came first, of many that come as often"
    assert len(state.known) == 4
    for hour in range(5, 5 + 2 * MAX_KNOWN):
        for number in range(1_000):
            state.admit(f"name {number}", hour * HOUR_MS + 60_000 * (number // 20), TEN_A_MINUTE)
        state.admit("person 0", hour * HOUR_MS, TEN_A_MINUTE)
    assert len(state.known) == MAX_KNOWN
    assert len(state.coming) <= MAX_COMING
    assert "person 0" in state.known


def test_a_name_that_is_silent_gives_its_place_to_another() -> None:
    state = Quotas(known={f"name {number}": 0 for number in range(MAX_KNOWN)})
    for hour in (0, 1, SILENT_HOURS - 1):
        state.admit("alice", hour * HOUR_MS, TEN_A_MINUTE)
        state.admit("name 7", hour * HOUR_MS, TEN_A_MINUTE)
    assert state.is_new("alice")
    state.admit("alice", SILENT_HOURS * HOUR_MS, TEN_A_MINUTE)
    assert "alice" in state.known
    assert "name 7" in state.known
    assert len(state.known) == MAX_KNOWN


def test_what_is_remembered_of_new_names_is_bounded() -> None:
    state = Quotas()
    for number in range(3 * MAX_COMING):
        state.admit(f"name {number}", 0, Quota(1_000_000, 60_000))
    assert len(state.coming) == MAX_COMING
    assert len(state.sent) == 1


def test_where_an_operator_says_which_sources_there_are_no_other_is_ever_known() -> None:
    state, listed = Quotas(known={"mallory": 0}), ("alice", "bob")
    for hour in range(5):
        at = hour * HOUR_MS
        assert sum(state.admit(f"m{number}", at, TEN_A_MINUTE, listed=listed) for number in range(50)) == 10
        assert not state.admit("mallory", at, TEN_A_MINUTE, listed=listed)
        for name in listed:
            assert sum(state.admit(f"{name}/{number}", at, TEN_A_MINUTE, listed=listed) for number in range(20)) == 10


def test_a_long_name_is_short_and_no_others() -> None:
    names = {bounded("x" * 5000 + end) for end in "abc"} | {bounded("x" * 100), bounded("x" * 101), bounded(None)}
    assert len(names) == 6
    assert max(map(len, names)) <= 100
