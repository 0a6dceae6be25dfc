"""How far a follower is behind is never told as less than it is, and not known where it cannot be."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from driftline.learner.follow import lag as lags
from driftline.learner.follow.lag import Behind, Lag
from driftline.learner.follow.untaken import PATIENCE_S, Untaken
from driftline.learner.report.follow_report import FollowReport
from driftline.stream.errors import LogUnavailable
from driftline.stream.log.base import Log, NewRecord, TopicState, Watermarks
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with closing(open_log(StreamSettings(data=tmp_path))) as log:
        yield log


def append(log: Log, count: int) -> None:
    log.append("journal", [NewRecord(None, b"x")] * count)


class TestLag:
    def test_before_a_look_nothing_is_known_and_of_no_journal_nothing_is_missing(self, log: Log) -> None:
        lag = Lag(log, ("journal",))
        assert lag.behind(0, None) is None
        lag.look()
        assert lag.behind(0, None) == Behind(0, 0.0)

    def test_it_is_the_lesser_of_two_bounds(self, log: Log) -> None:
        log.create_topics(["journal"], "entries")
        append(log, 3)
        lag, long_ago_ms = Lag(log, ("journal",)), int(1000 * (time.time() - 500))
        lag.look()
        assert lag.behind(3, long_ago_ms) == Behind(0, 0.0), "an entry that came long ago is no lag"
        assert lag.behind(1, None) is None, "it was behind before anybody looked"
        found = lag.behind(1, long_ago_ms)
        assert found is not None
        assert found.entries == 2
        assert found.seconds >= 500
        append(log, 2)
        lag.look()
        found = lag.behind(3, long_ago_ms)
        assert found is not None
        assert found.entries == 2
        assert found.seconds < 400, "a moment ago there was no more than this"

    def test_what_was_seen_before_counts_however_often_it_is_looked(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lags, "LOOKS", 100)
        log.create_topics(["journal"], "entries")
        lag = Lag(log, ("journal",))
        lag.look()
        append(log, 1)
        for _ in range(500):
            lag.look()
        found = lag.behind(0, None)
        assert found is not None
        assert 0 < found.seconds < 400
        assert len(lag._looks) <= 100
        assert lag.behind(1, None) == Behind(0, 0.0)

    def test_a_log_that_is_silent_says_nothing(self, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
        lag = Lag(log, ("journal",))
        lag.look()

        def away(_: object) -> None:
            raise LogUnavailable("away")

        monkeypatch.setattr(log, "describe", away)
        lag.look()
        assert lag.problem == "away"
        assert lag.behind(0, None) == Behind(0, 0.0), "for a moment what was known is good enough"
        monkeypatch.setattr(lags, "SILENT_S", 0.0)
        assert lag.behind(0, None) is None


class TestUntaken:
    def test_what_comes_and_nobody_takes_is_told_after_a_while(self) -> None:
        untaken = Untaken(["feedback"])

        def see(end: int, batch: int, now: float) -> int:
            return untaken.see({"feedback": TopicState(None, {0: Watermarks(0, end)})}, batch, now)

        assert see(10, 1, 0.0) == 0, "an end that lies behind the last record is none"
        assert see(10, 1, 100.0) == 0
        assert see(12, 1, 101.0) == 0
        assert see(12, 1, 101.0 + PATIENCE_S / 2) == 0
        assert see(13, 1, 102.0 + PATIENCE_S) == 3
        assert see(13, 2, 103.0 + PATIENCE_S) == 0, "a learner took something"


class TestReport:
    def test_who_says_nothing_is_further_behind_with_each_second(self) -> None:
        report = FollowReport(store="s")
        assert "not known" in (report.too_far(10) or "")
        report.behind_s, report.behind_entries, report.at = 1.0, 7, time.time()
        assert report.too_far(10) is None
        assert report.now_behind_s == 1.0
        report.at -= 100
        assert "7 entries" in (report.too_far(10) or "")
        assert report.too_far(1000) is None
        report.beside = "its figures are old"
        assert report.too_far(1000) == "its figures are old"
