"""A source sends so many labels in a stretch of the log's time and no more, and what is remembered is bounded."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.stream import quota as quotas
from driftline.stream.quota import OTHERS, UNNAMED, Quota, Quotas, bounded


def test_a_quota_is_read() -> None:
    assert Quota.parse("1000/min") == Quota(1000, 60_000)
    assert Quota.parse("1/d") == Quota(1, 86_400_000)
    for text in ("0/min", "5", "5/week", "-1/s", "1e3/s", ""):
        with pytest.raises(ValueError, match="is no quota"):
            Quota.parse(text)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 30)), max_size=100),
    st.integers(1, 4),
)
def test_each_source_has_its_own_count_in_each_stretch(labels: list[tuple[str | None, int]], most: int) -> None:
    state, allowed = Quotas(), Counter[tuple[int, str | None]]()
    stretch = n_refused = 0
    for source, time_ms in labels:
        stretch = max(stretch, time_ms // 10)  # what is late counts in the stretch that runs
        admitted = state.admit(source, time_ms, Quota(most, 10))
        assert admitted == (allowed[stretch, source] < most)
        allowed[stretch, source] += admitted
        n_refused += not admitted
    assert sum(state.refused.values()) == n_refused
    assert set(state.refused) <= {"a", "b", UNNAMED}


def test_a_new_name_for_each_label_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "MAX_SOURCES", 50)
    monkeypatch.setattr(quotas, "MAX_NAMED", 10)
    state = Quotas()
    admitted = sum(state.admit(f"name {number}", 5, Quota(3, 60_000)) for number in range(10_000))
    assert admitted == 50 + 3
    assert not any(state.admit(f"other {number}", 5, Quota(3, 60_000)) for number in range(100))
    assert len(state.sent) == 51
    assert state.refused == {OTHERS: 10_000 - 53 + 100}
    assert state.admit("name 1", 60_000, Quota(3, 60_000))


def test_a_long_name_is_short_and_no_others() -> None:
    names = {bounded("x" * 5000 + end) for end in "abc"} | {bounded("x" * 100), bounded("x" * 101), bounded(None)}
    assert len(names) == 6
    assert max(map(len, names)) <= 100


def test_what_is_counted_for_people_has_so_many_names_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretch after stretch of names that were never there before."""
    monkeypatch.setattr(quotas, "MAX_NAMED", 3)
    state = Quotas()
    for number in range(20):
        for _ in range(3):
            state.admit(f"name {number}", 10 * number, Quota(1, 10))
    assert state.refused == {"name 0": 2, "name 1": 2, "name 2": 2, OTHERS: 34}
    state.admit("name 1", 200, Quota(1, 10))
    state.admit("name 1", 200, Quota(1, 10))
    assert state.refused["name 1"] == 3, "who has a place keeps it"
