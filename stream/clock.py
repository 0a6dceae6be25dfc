"""What time is it in the log?

The highest timestamp read so far, but producers write the timestamps: a single one from the year 2100 would make all
messages in the join window too old at once. So a record moves a clock by at most `max_jump_ms`. What lies further ahead
is a vote for a jump, what does not takes one vote back (Boyer and Moore 1991), and with VOTES votes the clock goes to
the lowest time that was voted for: after an idle week the hundredth record sets it right, and no producer whose clock
is wrong can, while others send more than it does. A time further away than `max_jump_ms`, ahead or behind, does not
count: the clock stands in for it. The first record is taken at its word: where that was wrong, all have its time until
the world gets there, so that nothing leaves the window by age, only by number and bytes.

All of this is a function of the records in their order, wherever they are cut. Each partition has a clock for its place
among the others, and all together have one for the times (merge.py).
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

# More than one producer's batch usually has, so that one batch with a wrong time is no majority.
VOTES: Final = 100
# What a producer may give for a time is any 64-bit number; a date ends with the year 9999.
LAST_TIMESTAMP_MS: Final = 253_402_300_799_999

Ints = NDArray[np.int64]


class Clock(NamedTuple):
    """The time, and the votes for a later one."""

    now_ms: int = 0  # 0: there was no record yet
    ahead_ms: int = 0  # the lowest time that was voted for
    votes: int = 0


def advance(clock: Clock, times_ms: Ints, max_jump_ms: int | None) -> tuple[Ints, Clock]:
    """Let records pass.

    Parameters
    ----------
    times_ms : int64 [n], the records' timestamps, n >= 1
    max_jump_ms : None: every timestamp is believed

    Returns
    -------
    keys : int64 [n], what the clock shows when each record has passed; never falls
    clock : after the last
    """
    times_ms = np.where(times_ms > LAST_TIMESTAMP_MS, -1, times_ms)
    start = clock.now_ms or max(0, int(times_ms[0]))
    keys = np.maximum.accumulate(np.maximum(times_ms, start))
    if max_jump_ms is None:
        return keys, Clock(int(keys[-1]))
    if clock.votes or not start or (np.diff(keys, prepend=start) > max_jump_ms).any():
        return _advance_one_by_one(clock, times_ms, max_jump_ms)
    return keys, Clock(int(keys[-1]))


def believed(times_ms: Ints, keys: Ints, max_jump_ms: int | None) -> tuple[Ints, int]:
    """Return the records' times, the clock's where one does not count, and of how many that is so."""
    if max_jump_ms is None:
        return times_ms, 0
    wrong = (times_ms > keys) | (times_ms < keys - max_jump_ms)
    n_wrong = int(np.count_nonzero(wrong))
    return np.where(wrong, keys, times_ms) if n_wrong else times_ms, n_wrong


def _advance_one_by_one(clock: Clock, times_ms: Ints, max_jump_ms: int) -> tuple[Ints, Clock]:
    now_ms, ahead_ms, votes = clock
    keys = []
    for time_ms in times_ms.tolist():
        if not now_ms or time_ms <= now_ms + max_jump_ms:
            now_ms = max(now_ms, time_ms)
            votes = max(0, votes - 1)
        else:
            ahead_ms = min(ahead_ms, time_ms) if votes else time_ms
            votes += 1
            if votes == VOTES:
                now_ms, votes = ahead_ms, 0
        keys.append(now_ms)
    return np.array(keys, np.int64), Clock(now_ms, ahead_ms if votes else 0, votes)
