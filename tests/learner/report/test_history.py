"""What went on is there afterwards, in points as long as they have to be, and in bounded room."""

from pathlib import Path

import numpy as np
import pytest

from driftline.learner.report.history import FILE, PERIODS_S, ROWS, SERIES, History, Points, Totals, read_history

START = 1_800_000_000  # a full hour


def mean(points: Points, series: str) -> list[float]:
    weight, total = points.values[:, SERIES.index(series), :2].T
    return [float(x) for x in total / np.maximum(weight, 1e-9)]


def least_and_most(points: Points, series: str) -> list[tuple[float, float]]:
    return [(float(low), float(high)) for low, high in points.values[:, SERIES.index(series), 2:]]


def run(history: History, first: int, seconds: int, per_second: int = 10) -> None:
    """Have so many seconds pass, each with messages of which four in five are predicted right."""
    for second in range(seconds + 1):
        n = (first - START + second) * per_second
        totals = Totals(n, n, n, n * 4 // 5, n * 0.25)
        history.add_delays(np.array([1.0, 3.0]))
        history.tick(first + second + 0.25, totals, lag=second)


def test_seconds(tmp_path: Path) -> None:
    history = History(tmp_path)
    run(history, START, 20)
    points = read_history(tmp_path, START, START + 20, 100)
    assert points.period_s == 1
    assert points.time.tolist() == list(range(START, START + 20))
    assert mean(points, "messages_per_second") == pytest.approx([10.0] * 20)
    assert mean(points, "accuracy") == pytest.approx([0.8] * 20)
    assert mean(points, "log_loss") == pytest.approx([0.25] * 20)
    assert mean(points, "label_delay_seconds") == pytest.approx([2.0] * 20)
    assert least_and_most(points, "label_delay_seconds") == [(1.0, 3.0)] * 20
    assert mean(points, "lag")[1:] == pytest.approx([float(second) for second in range(2, 21)])


@pytest.mark.parametrize("most", [1, 3, 7, 60, 1000])
def test_points_put_together_say_the_same(tmp_path: Path, most: int) -> None:
    history = History(tmp_path)
    run(history, START + 7, 100)
    points = read_history(tmp_path, START, START + 200, most)
    assert len(points.time) <= most or points.period_s == 1
    assert (points.time % points.period_s == 0).all()
    assert points.values[:, SERIES.index("messages_per_second"), 1].sum() == pytest.approx(1000)
    assert points.values[:, SERIES.index("accuracy"), :2].sum(axis=0) == pytest.approx([1000, 800])
    assert max(high for _, high in least_and_most(points, "lag")) == 100


def test_what_is_long_past_is_there_in_minutes_and_hours(tmp_path: Path) -> None:
    history = History(tmp_path)
    for minute in range(3 * 60):
        at = START + 60 * minute
        history.tick(at, Totals(minute * 30, minute * 30, minute * 30, minute * 15, minute * 3.0), 0)
    points = read_history(tmp_path, START, START + 3 * 3600, 2000)
    assert points.period_s == 60
    assert len(points.time) == 3 * 60 - 1
    assert mean(points, "messages_per_second") == pytest.approx([0.5] * len(points.time))
    later = read_history(tmp_path, START, START + 3 * 86400, 2000)
    assert later.period_s == 3600
    assert mean(later, "accuracy") == pytest.approx([0.5] * 3)


def test_it_survives_a_restart_and_a_gap(tmp_path: Path) -> None:
    for first in (START, START + 30):
        history = History(tmp_path)
        run(history, first, 10)
        history.close()
    points = read_history(tmp_path, START, START + 60, 100)
    assert points.time.tolist() == [*range(START, START + 10), *range(START + 30, START + 40)]
    by_minute = read_history(tmp_path, START, START + 60, 1)
    assert mean(by_minute, "messages_per_second") == pytest.approx([10.0])


def test_it_takes_the_same_room_for_ever(tmp_path: Path) -> None:
    history = History(tmp_path)
    size = (tmp_path / FILE).stat().st_size
    for second in range(0, 3000, 2):
        history.tick(START + second, Totals(second, 0, 0, 0, 0.0), 0)
    assert (tmp_path / FILE).stat().st_size == size < 1 << 20
    assert len(read_history(tmp_path, START + 2900, START + 3000, 2000).time) == 49  # the last one is not over
    assert sum(ROWS) < 6000
    assert list(PERIODS_S) == sorted(PERIODS_S)


def test_a_clock_that_is_set_back_ends_nothing(tmp_path: Path) -> None:
    history = History(tmp_path)
    run(history, START + 100, 5)
    run(history, START, 5)
    assert read_history(tmp_path, START, START + 200, 1000).time[:5].tolist() == list(range(START, START + 5))


@pytest.mark.parametrize("content", [b"", b"something else", b"x" * 1_100_000])
def test_a_file_that_is_none_of_ours_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert not len(read_history(tmp_path, 0, START, 10).time)
    run(History(tmp_path), START, 5)
    assert len(read_history(tmp_path, START, START + 10, 10).time) == 5


def test_half_written_rows_do_not_count(tmp_path: Path) -> None:
    run(History(tmp_path), START, 5)
    content = bytearray((tmp_path / FILE).read_bytes())
    assert len(read_history(tmp_path, START, START + 10, 10).time) == 5
    place = content.index(np.float64(START + 2).tobytes())
    content[place : place + 8] = np.float64(START + 3).tobytes()
    (tmp_path / FILE).write_bytes(content)
    assert START + 2 not in read_history(tmp_path, START, START + 10, 10).time


def test_a_directory_that_takes_nothing_is_no_error(tmp_path: Path) -> None:
    history = History(tmp_path / "missing")
    run(history, START, 3)
    assert not len(read_history(tmp_path / "missing", START, START + 10, 10).time)
