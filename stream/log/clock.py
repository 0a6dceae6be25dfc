"""What time is it in the log?

The highest timestamp read so far, but producers write the timestamps: a single one from the year 2100 would make all
messages in the join window too old at once. A stream may sleep as well, and its first record after that is right. So a
record moves a clock

1. by `max_jump_ms` at most, or by STRETCH times what is usual between two records of this stream: one that has a record
   a day may miss three, one that has a thousand a second may not
2. as far as it says, up to SLEEP_MS, where the log itself has noted such a time when it was appended
3. else not: it is a vote for a jump. What is not that far ahead takes one vote back (Boyer and Moore 1991), and with
   enough votes the clock goes to the lowest time that was voted for. Enough are VOTES, more than one producer's batch
   usually has, so that one batch with a wrong time is no majority. Fewer do where they are spread over time, as the
   records of a slow stream are that goes on after a night or a weekend: a tenth of what would come in `max_jump_ms`
   at their pace. But never to a time further than SLEEP_MS away.

A time that is not reached so, or that lies further behind than `max_jump_ms`, does not count: the clock stands in for
it. What is a vote is also *on trial*: what has to be counted by the day, and can be counted both ways, goes by its own
time (quota.py), so that no label of a Monday counts for the Friday before.

The first record is taken at its word, or at the log's where it is ahead of that: where that was wrong, all have its
time until the world gets there, so that nothing leaves the window by age, only by number and bytes.

All of this is a function of the records in their order, wherever they are cut. Each partition has a clock for its place
among the others, and all together have one for the times (merge.py).
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.stream.limits import ClockRule

VOTES: Final = 100
FEW_VOTES: Final = 10  # at least, where the stream was a fast one before: three wrong times in a row may happen there
FEWEST_VOTES: Final = 3
SPREAD: Final = 10  # of the records that would come in `max_jump_ms`, one in so many has to vote
SLEEP_MS: Final = 366 * 86_400_000  # no stream that is used sleeps for longer
STRETCH: Final = 4
BLOCK: Final = 8  # records over which the usual time between two is measured
# What a producer may give for a time is any 64-bit number; a date ends with the year 9999.
LAST_TIMESTAMP_MS: Final = 253_402_300_799_999

Ints = NDArray[np.int64]


class Clock(NamedTuple):
    """The time, the votes for a later one, and what is usual between two records."""

    now_ms: int = 0  # 0: there was no record yet
    ahead_ms: int = 0  # the lowest time that was voted for
    votes: int = 0
    voted_ms: int = 0  # the last time that was voted for
    reached_ms: int = 0  # what the clock would show now, had it believed the votes
    usual_ms: int = 0  # between two records, over the last whole block of BLOCK records; 0: not known
    since_ms: int = 0  # what it showed when this block began
    n: int = 0  # records of this block


class Passed(NamedTuple):
    """What became of records.

    keys : int64 [n], what the clock shows when each has passed; never falls
    on_trial : bool [n], whether its own time may yet prove right; None where none is
    clock : after the last
    """

    keys: Ints
    on_trial: NDArray[np.bool_] | None
    clock: Clock


def advance(clock: Clock, times_ms: Ints, rule: ClockRule, appended_ms: Ints | None = None) -> Passed:
    """Let records pass.

    Parameters
    ----------
    times_ms : int64 [n], the records' timestamps, n >= 1
    appended_ms : int64 [n], when they were appended, where the log has noted that
    """
    times_ms = np.where(times_ms > LAST_TIMESTAMP_MS, -1, times_ms)
    start = clock.now_ms or max(0, int(times_ms[0]))
    keys = np.maximum.accumulate(np.maximum(times_ms, start))
    if rule.max_jump_ms is None:
        return Passed(keys, None, Clock(int(keys[-1])))
    near = not clock.votes and start > 0 and not (np.diff(keys, prepend=start) > rule.max_jump_ms).any()
    if rule.only_votes:
        return Passed(keys, None, Clock(int(keys[-1]))) if near else _count_votes(clock, times_ms, rule.max_jump_ms)
    if not near or (appended_ms is not None and not clock.now_ms):
        return _pass_one_by_one(clock, times_ms, rule.max_jump_ms, appended_ms)
    return Passed(keys, None, _measured(clock, keys))


def believed(times_ms: Ints, keys: Ints, max_jump_ms: int | None) -> tuple[Ints, int]:
    """Return the records' times, the clock's where one does not count, and of how many that is so."""
    if max_jump_ms is None:
        return times_ms, 0
    wrong = (times_ms > keys) | (times_ms < keys - max_jump_ms)
    n_wrong = int(np.count_nonzero(wrong))
    return np.where(wrong, keys, times_ms) if n_wrong else times_ms, n_wrong


def _measured(clock: Clock, keys: Ints) -> Clock:
    """Return a clock behind records that all moved it to these keys: as `_Running.move` for each."""
    begins = not clock.now_ms  # the first record moves nothing
    since_ms, n = clock.since_ms or clock.now_ms or int(keys[0]), clock.n + len(keys) - begins
    usual_ms = clock.usual_ms
    if n >= BLOCK:
        last = len(keys) - 1 - n % BLOCK  # the record that ended a block last
        before_ms = int(keys[last - BLOCK]) if last - BLOCK >= begins else since_ms
        since_ms = int(keys[last])
        usual_ms = usual(before_ms, since_ms)
    return Clock(int(keys[-1]), usual_ms=usual_ms, since_ms=since_ms, n=n % BLOCK)


class _Running:
    """A clock that records pass one by one."""

    def __init__(self, clock: Clock, max_jump_ms: int) -> None:
        self.now_ms, self.ahead_ms, self.votes, self.voted_ms, self.reached_ms = clock[:5]
        self.usual_ms, self.since_ms, self.n = clock[5:]
        self.since_ms = self.since_ms or self.now_ms
        self.max_jump_ms = max_jump_ms

    @property
    def clock(self) -> Clock:
        votes = self.ahead_ms, self.votes, self.voted_ms, self.reached_ms
        return Clock(self.now_ms, *(votes if self.votes else (0,) * 4), self.usual_ms, self.since_ms, self.n)

    @property
    def reach_ms(self) -> int:
        """How far a record moves it that nothing else speaks for."""
        return max(self.max_jump_ms, min(STRETCH * self.usual_ms, SLEEP_MS))

    def begin(self, time_ms: int, appended_ms: int | None) -> None:
        if appended_ms is not None and time_ms > appended_ms + self.max_jump_ms:
            time_ms = appended_ms
        self.now_ms = self.since_ms = max(0, time_ms)

    def move(self, time_ms: int) -> None:
        self.now_ms = max(self.now_ms, time_ms)
        self.n += 1
        if self.n == BLOCK:
            self.usual_ms, self.since_ms, self.n = usual(self.since_ms, self.now_ms), self.now_ms, 0

    def vote(self, time_ms: int) -> bool:
        """Take a vote; tell whether its time is on trial."""
        near, far = sorted((time_ms - self.now_ms, self.voted_ms - self.now_ms))
        apart = self.votes > 0 and far > STRETCH * near
        if apart and time_ms > self.voted_ms:  # it speaks against them, as what is near the clock does
            self.votes -= 1
            return False
        if apart or not self.votes:  # what is nearer is likelier
            self.ahead_ms = self.reached_ms = time_ms
            self.votes = 1
        else:
            self.votes += 1
            self.ahead_ms = min(self.ahead_ms, time_ms)
            step_ms = self.max_jump_ms * 5 // 4  # a day is not always quite a day
            if abs(time_ms - self.reached_ms) <= step_ms:
                self.reached_ms = max(self.reached_ms, time_ms)
            else:
                self.reached_ms = min(self.reached_ms, time_ms)
        self.voted_ms = time_ms
        if self.votes >= self.enough:
            self.usual_ms = max(1, self.usual_ms, int(self._pace_ms))  # so the next sleep of its kind needs no votes
            self.now_ms = self.since_ms = self.reached_ms
            self.votes = self.n = 0
        return time_ms - self.now_ms <= SLEEP_MS

    @property
    def enough(self) -> int:
        """How many votes move it."""
        if self.votes < FEWEST_VOTES or not self._pace_ms or self.ahead_ms - self.now_ms > SLEEP_MS:
            return VOTES
        fewest = max(FEWEST_VOTES, min(FEW_VOTES, self._share(self.usual_ms))) if self.usual_ms else FEWEST_VOTES
        return max(fewest, min(VOTES, self._share(self._pace_ms)))

    @property
    def _pace_ms(self) -> float:
        """The time between two votes, on average."""
        return abs(self.voted_ms - self.ahead_ms) / max(1, self.votes - 1)

    def _share(self, pace_ms: float) -> int:
        return int(self.max_jump_ms / (SPREAD * pace_ms))


def usual(since_ms: int, now_ms: int) -> int:
    """Return the time between two of BLOCK records; 0 stands for what is not known."""
    return max(1, (now_ms - since_ms) // BLOCK)


def _pass_one_by_one(clock: Clock, times_ms: Ints, max_jump_ms: int, appended_ms: Ints | None) -> Passed:
    running = _Running(clock, max_jump_ms)
    appended = appended_ms.tolist() if appended_ms is not None else [None] * len(times_ms)
    keys, on_trial = [], []
    for time_ms, noted_ms in zip(times_ms.tolist(), appended, strict=True):
        trial = False
        if not running.now_ms:
            running.begin(time_ms, noted_ms)
        elif time_ms <= running.now_ms + running.reach_ms:
            running.votes = max(0, running.votes - 1)
            running.move(time_ms)
        elif noted_ms is not None and abs(time_ms - noted_ms) <= max_jump_ms and time_ms - running.now_ms <= SLEEP_MS:
            running.votes = 0
            running.move(time_ms)
        else:
            trial = running.vote(time_ms)
        keys.append(running.now_ms)
        on_trial.append(trial)
    return Passed(np.array(keys, np.int64), np.array(on_trial) if any(on_trial) else None, running.clock)


def _count_votes(clock: Clock, times_ms: Ints, max_jump_ms: int) -> Passed:
    now_ms, ahead_ms, votes = clock[:3]
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
    return Passed(np.array(keys, np.int64), None, Clock(now_ms, ahead_ms if votes else 0, votes))
