"""What moves the log's clock: a stream's pace, what the log noted, a majority; no few wrong times, no cuts."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.stream.join.quota import Quota, Quotas
from driftline.stream.limits import ClockRule
from driftline.stream.log.clock import (
    LAST_TIMESTAMP_MS,
    SLEEP_MS,
    VOTES,
    Clock,
    Passed,
    _pass_one_by_one,
    advance,
    believed,
)

HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_750_000_000_000
RULE = ClockRule(DAY)


def passed(timestamps: Sequence[int], rule: ClockRule = RULE, appended: Sequence[int] | None = None) -> Passed:
    noted = None if appended is None else np.array(appended, np.int64)
    return advance(Clock(), np.array(timestamps, np.int64), rule, noted)


def times_of(timestamps: Sequence[int], rule: ClockRule = RULE, appended: Sequence[int] | None = None) -> list[int]:
    """Return the times that count."""
    keys = passed(timestamps, rule, appended).keys
    return list(believed(np.array(timestamps, np.int64), keys, rule.max_jump_ms)[0].tolist())


def refused(timestamps: Sequence[int], quota: Quota, rule: ClockRule = RULE) -> int:
    """Return how many labels of one source a quota refuses."""
    keys, on_trial, _ = passed(timestamps, rule)
    own = np.array(timestamps, np.int64)
    times = believed(own, keys, rule.max_jump_ms)[0]
    claims = times if on_trial is None else np.where(on_trial, own, times)
    quotas = Quotas()
    return sum(not quotas.admit("crm", *pair) for pair in _interleaved(times.tolist(), quota, claims.tolist()))


def _interleaved(times: list[int], quota: Quota, claims: list[int]) -> list[tuple[int, Quota, int]]:
    return [(time, quota, claim) for time, claim in zip(times, claims, strict=True)]


def business_days(a_day: int, days: int, rng: random.Random, *, hours: float = 8) -> list[int]:
    """Return the times of a stream that sleeps at night and over the weekends."""
    found: list[int] = []
    for day in range(days):
        if day % 7 < 5:
            found += sorted(NOW + day * DAY + round(rng.random() * hours * HOUR) for _ in range(a_day))
    return found


# Streams that sleep.


@pytest.mark.parametrize("hours", [8, 0.001, 0])
@pytest.mark.parametrize("a_day", [1, 2, 7, 30, 31, 100, 1000])
def test_a_quota_by_the_day_is_right_for_a_stream_that_sleeps_at_night_and_over_weekends(
    a_day: int, hours: float
) -> None:
    # Days are whole days of the log's time here: the first hour of each is at its beginning.
    start = NOW % DAY
    stamps = [stamp - start for stamp in business_days(a_day, 21, random.Random(a_day), hours=hours)]
    assert refused(stamps, Quota(a_day, DAY)) == 0
    assert refused([*stamps, *stamps[-a_day:]], Quota(a_day, DAY)) == a_day
    assert a_day < 10 or refused(stamps, Quota(a_day, DAY), ClockRule(DAY, only_votes=True)) > 0, "what it was"


@pytest.mark.parametrize("gap_h", [23.9, 24, 24.1, 25, 36, 72, 7 * 24, 30 * 24])
def test_the_clock_follows_a_steady_stream_however_slow(gap_h: float) -> None:
    rng = random.Random(4)
    stamps = [NOW + round(n * gap_h * HOUR) + rng.randrange(-60_000, 60_000) for n in range(60)]
    keys = passed(stamps).keys
    assert (keys[:4] >= NOW - 60_000).all()
    assert (np.array(stamps)[4:] - keys[4:] <= 60_000 * 2).all(), "after three it knows the pace"
    assert refused([stamp - NOW % DAY for stamp in stamps], Quota(1, 12 * HOUR)) == 0


@pytest.mark.parametrize("asleep_days", [2.7, 5, 14, 100, 300])
@pytest.mark.parametrize("pace", [DAY, HOUR, 60_000, 50, 0])
def test_after_a_sleep_the_clock_is_right_within_a_share_of_a_days_records(asleep_days: float, pace: int) -> None:
    stamps = [NOW + n * pace for n in range(300)]
    later = [stamps[-1] + round(asleep_days * DAY) + n * pace for n in range(300)]
    keys = passed([*stamps, *later]).keys[300:]
    right = int(np.flatnonzero(np.array(later) - keys <= max(HOUR, pace))[0])
    assert right <= {DAY: 3, HOUR: 3, 60_000: VOTES, 50: VOTES, 0: VOTES}[pace]


@pytest.mark.parametrize("asleep_h", [30, 64, 150])
@pytest.mark.parametrize("burst", [1, 2, 3, 4, 5, 8, 9, 12, 30, 100])
def test_a_stream_of_bursts_is_never_further_behind_than_one_sleep(burst: int, asleep_h: int) -> None:
    stamps = [NOW + asleep_h * HOUR * (number // burst) + 2 * (number % burst) for number in range(max(60, 6 * burst))]
    keys = passed(stamps, RULE).keys
    behind_h = (np.array(stamps) - keys).max() / HOUR
    assert behind_h <= asleep_h * (2 if burst == 1 else 1) + 1  # of three votes the first two are behind


def test_after_an_idle_week_most_records_set_the_clock_right() -> None:
    later = NOW + 7 * DAY
    times = times_of([*range(NOW, NOW + 10), *(later + number for number in range(VOTES + 5))])
    assert times[9 : VOTES + 9] == [NOW + 9] * VOTES  # all votes but the last
    assert times[VOTES + 9 :] == [later + number for number in range(VOTES - 1, VOTES + 5)]


# Times that are wrong.


@pytest.mark.parametrize("far", [40 * HOUR, 5 * DAY, 40 * DAY, 365 * DAY, 27_000 * DAY])
@pytest.mark.parametrize("few", [1, 2, 9, 50, VOTES - 1])
def test_a_few_times_ahead_move_no_clock_of_a_fast_stream(far: int, few: int) -> None:
    for before in ([NOW + n for n in range(500)], business_days(1000, 14, random.Random(2))):
        middle = len(before) // 2 + 3
        wrong = [before[middle - 1] + far + n for n in range(few)]
        with_them = [*before[:middle], *wrong, *before[middle:]]
        keys = passed(with_them).keys
        assert keys[middle + few - 1] <= before[middle - 1]
        assert keys[-1] == before[-1]


@pytest.mark.parametrize("few", [1, 5, 20])
@pytest.mark.parametrize("a_day", [1, 5, 30])
def test_a_few_times_of_2100_move_no_clock_of_a_slow_stream(a_day: int, few: int) -> None:
    stamps = business_days(a_day, 42, random.Random(a_day))
    for middle in (len(stamps) // 2, 5 * a_day):  # the second is a Monday's first
        wrong = [NOW + 27_000 * DAY + n * HOUR for n in range(few)]
        keys = passed([*stamps[:middle], *wrong, *stamps[middle:]]).keys
        assert keys.max() == stamps[-1]


def test_two_times_ahead_move_no_clock_of_a_slow_stream() -> None:
    stamps = [NOW + n * DAY for n in range(40)]
    for far in (10 * DAY, 100 * DAY, 365 * DAY):
        keys = passed([*stamps[:20], stamps[19] + far, stamps[19] + far + HOUR, *stamps[20:]]).keys
        assert keys.max() == stamps[-1]


def test_a_producer_whose_clock_is_wrong_is_outvoted_for_ever() -> None:
    stamps = [NOW + number if number % 5 < 3 else NOW + 400 * DAY for number in range(20_000)]
    times = times_of(stamps)
    assert max(times) == NOW + 19_997
    assert [time for time, stamp in zip(times, stamps, strict=True) if stamp < NOW + DAY] == [
        stamp for stamp in stamps if stamp < NOW + DAY
    ]


def test_one_vote_for_a_time_that_nobody_else_comes_near_keeps_no_clock_back() -> None:
    """After a single time near the clock, all others lie so much further on that they have nothing to do with it."""
    later = [NOW + 100 * DAY + n for n in range(3 * VOTES)]
    assert passed([*range(NOW, NOW + 20), NOW + 2 * DAY, *later]).keys[-1] == later[-1]


def test_a_source_whose_clock_is_ahead_has_its_quota_and_no_more() -> None:
    day = NOW - NOW % DAY
    quotas, quota, admitted = Quotas(), Quota(10, DAY), 0
    stamps = [day + n * 1000 + (5 * DAY if n % 2 else 0) for n in range(2000)]
    keys, on_trial, _ = passed(stamps)
    assert on_trial is not None
    for n, (key, stamp) in enumerate(zip(keys.tolist(), stamps, strict=True)):
        if n % 2:
            admitted += quotas.admit("wrong", key, quota, stamp if on_trial[n] else key)
        else:
            assert quotas.admit("right", stamp, quota) == (n < 20)
    assert 10 <= admitted <= 20


def test_times_near_the_clock_count_whatever_their_order() -> None:
    stamps = [NOW, NOW + HOUR, NOW - HOUR, NOW + 24 * HOUR, NOW + 47 * HOUR, NOW + 30 * HOUR]
    assert times_of(stamps) == stamps


def test_a_timestamp_far_off_is_that_of_the_clock() -> None:
    far = [NOW + 1000 * DAY, NOW - 1000 * DAY, 0, -5, LAST_TIMESTAMP_MS + 1, (1 << 63) - 1, -(1 << 63)]
    for stamp in far:
        assert times_of([NOW, stamp, NOW + 1]) == [NOW, NOW, NOW + 1]
    stamps = np.array([NOW, *far], np.int64)
    keys, _, clock = advance(Clock(), stamps, RULE)
    assert believed(stamps, keys, DAY)[1] == len(far)
    assert clock.now_ms == NOW


def test_a_first_record_from_the_future_makes_no_later_one_old() -> None:
    assert times_of([NOW + 400 * DAY, NOW, NOW + 1]) == [NOW + 400 * DAY] * 3


def test_without_a_limit_every_time_counts() -> None:
    stamps = [NOW, NOW + 1000 * DAY, NOW]
    assert times_of(stamps, ClockRule()) == stamps


# What the log noted itself.


def test_a_time_that_the_log_noted_is_believed_at_once() -> None:
    stamps = [*range(NOW, NOW + 100), NOW + 64 * HOUR, NOW + 300 * DAY]
    assert times_of(stamps, appended=stamps) == stamps
    noted = [stamp + 5 * HOUR for stamp in stamps]
    assert times_of(stamps, appended=noted) == stamps


def test_a_time_ahead_of_what_the_log_noted_is_not() -> None:
    stamps = [*range(NOW, NOW + 100), NOW + 27_000 * DAY, NOW + 3 * DAY, NOW + 100]
    assert passed(stamps, appended=range(NOW, NOW + len(stamps))).keys[-1] == NOW + 100
    first = [NOW + 400 * DAY, NOW + 1]
    assert times_of(first, appended=[NOW, NOW + 1]) == [NOW, NOW + 1]


def test_a_machine_whose_own_clock_was_wrong_for_a_while_moves_nothing_far() -> None:
    stamps = [NOW, NOW + 1, NOW + SLEEP_MS + DAY, NOW + 27_000 * DAY, NOW + 2]
    assert passed(stamps, appended=stamps).keys.max() == NOW + 2


# The rule.


STAMPS = st.lists(
    st.sampled_from([0, 1, 5, 9, 12, 13, 14, 30, 31, 50, 60, 90, 100, 120, 1000, -3, LAST_TIMESTAMP_MS + 7]),
    min_size=1,
    max_size=300,
)
RULES = st.sampled_from([ClockRule(), ClockRule(3), ClockRule(10), ClockRule(3, only_votes=True)])


@given(STAMPS, st.lists(st.integers(1, 299), max_size=5), RULES, st.sampled_from([0, 1, 7]), st.booleans())
def test_the_clock_does_not_depend_on_the_cuts(
    stamps: list[int], cuts: list[int], rule: ClockRule, slope: int, noted: bool
) -> None:
    whole = np.array(stamps, np.int64) + slope * np.arange(len(stamps))
    appended = 2 * np.arange(len(stamps)) if noted else None
    keys, on_trial, clock = advance(Clock(), whole, rule, appended)
    ends = sorted({*(cut for cut in cuts if cut < len(stamps)), len(stamps)})
    found: list[int] = []
    trials: list[bool] = []
    running = Clock()
    for start, end in zip([0, *ends], ends, strict=False):
        part = advance(running, whole[start:end], rule, None if appended is None else appended[start:end])
        found += part.keys.tolist()
        trials += part.on_trial.tolist() if part.on_trial is not None else [False] * (end - start)
        running = part.clock
    assert (found, running) == (keys.tolist(), clock)
    assert trials == (on_trial.tolist() if on_trial is not None else [False] * len(stamps))
    assert (np.diff(keys) >= 0).all()
    assert believed(whole, keys, rule.max_jump_ms)[0].max() <= keys[-1] or rule.max_jump_ms is None


@given(st.lists(st.integers(-3, 10), min_size=1, max_size=60), st.integers(0, 60))
def test_what_moves_the_clock_at_once_moves_it_as_one_by_one(steps: list[int], cut: int) -> None:
    """And it knows as well what is usual between two records, which counts only once a record is far away."""
    times_ms = NOW + np.cumsum(steps)
    quick, slow = Clock(), Clock()
    for part in (times_ms[:cut], times_ms[cut:]):
        if len(part):
            quick = advance(quick, part, ClockRule(100)).clock
            slow = _pass_one_by_one(slow, part, 100, None).clock
            assert quick == slow


def test_the_rule_of_before_is_as_it_was() -> None:
    """Journals of before name it, and are replayed by it."""
    rule = ClockRule(DAY, only_votes=True)
    later = NOW + 7 * DAY
    times = times_of([NOW, *(later + number for number in range(VOTES + 5))], rule)
    assert times[:VOTES] == [NOW] * VOTES
    assert times[VOTES:] == [later, *(later + number for number in range(VOTES, VOTES + 5))]
    assert passed([NOW, later], rule, [NOW, later]).clock == Clock(NOW, later, 1)
