"""A single timestamp moves no clock far, a majority does, and it does not matter where the records are cut."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftline.stream.clock import LAST_TIMESTAMP_MS, VOTES, Clock, advance, believed

HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_750_000_000_000


def times_of(timestamps: Sequence[int], max_jump_ms: int | None = DAY, clock: Clock = Clock()) -> list[int]:  # noqa: B008
    """Return the times that count."""
    stamps = np.array(timestamps, np.int64)
    keys, _ = advance(clock, stamps, max_jump_ms)
    return list(believed(stamps, keys, max_jump_ms)[0].tolist())


def test_times_near_the_clock_count_whatever_their_order() -> None:
    stamps = [NOW, NOW + HOUR, NOW - HOUR, NOW + 24 * HOUR, NOW + 47 * HOUR, NOW + 30 * HOUR]
    assert times_of(stamps) == stamps


def test_a_timestamp_far_off_is_that_of_the_clock() -> None:
    far = [NOW + 1000 * DAY, NOW - 1000 * DAY, 0, -5, LAST_TIMESTAMP_MS + 1, (1 << 63) - 1, -(1 << 63)]
    for stamp in far:
        assert times_of([NOW, stamp, NOW + 1]) == [NOW, NOW, NOW + 1]
    stamps = np.array([NOW, *far], np.int64)
    keys, clock = advance(Clock(), stamps, DAY)
    assert believed(stamps, keys, DAY)[1] == len(far)
    assert clock.now_ms == NOW


def test_after_an_idle_week_most_records_set_the_clock_right() -> None:
    later = NOW + 7 * DAY
    times = times_of([NOW, *(later + number for number in range(VOTES + 5))])
    assert times[:VOTES] == [NOW] * VOTES  # the first, and all votes but the last
    assert times[VOTES:] == [later, *(later + number for number in range(VOTES, VOTES + 5))]


def test_a_producer_whose_clock_is_wrong_is_outvoted_for_ever() -> None:
    stamps = [NOW + number if number % 5 < 3 else NOW + 400 * DAY for number in range(20_000)]
    times = times_of(stamps)
    assert max(times) == NOW + 19_997
    assert [time for time, stamp in zip(times, stamps, strict=True) if stamp < NOW + DAY] == [
        stamp for stamp in stamps if stamp < NOW + DAY
    ]


def test_records_days_apart_move_the_clock_too() -> None:
    times = times_of([NOW + 3 * DAY * number for number in range(3 * VOTES)])
    assert times[-1] > NOW + 3 * DAY * VOTES


def test_a_first_record_from_the_future_makes_no_later_one_old() -> None:
    assert times_of([NOW + 400 * DAY, NOW, NOW + 1]) == [NOW + 400 * DAY] * 3


def test_without_a_limit_every_time_counts() -> None:
    stamps = [NOW, NOW + 1000 * DAY, NOW]
    assert times_of(stamps, None) == stamps


STAMPS = st.lists(
    st.sampled_from([0, 1, 5, 9, 12, 30, 50, 100, 1000, -3, LAST_TIMESTAMP_MS + 7]), min_size=1, max_size=300
)


@given(STAMPS, st.lists(st.integers(1, 299), max_size=5), st.sampled_from([None, 3, 10]))
def test_the_clock_does_not_depend_on_the_cuts(stamps: list[int], cuts: list[int], limit: int | None) -> None:
    whole = np.array(stamps, np.int64)
    keys, clock = advance(Clock(), whole, limit)
    ends = sorted({*(cut for cut in cuts if cut < len(stamps)), len(stamps)})
    found, running = [], Clock()
    for start, end in zip([0, *ends], ends, strict=False):
        part, running = advance(running, whole[start:end], limit)
        found += part.tolist()
    assert (found, running) == (keys.tolist(), clock)
    assert (np.diff(keys) >= 0).all()
    assert believed(whole, keys, limit)[0].max() <= keys[-1] or limit is None
