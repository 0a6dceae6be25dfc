"""How did it go over time?

A point for each second, folded into points for minutes and hours, in three rings of fixed size: the last quarter of an
hour, the last day, the last two months. A point holds of each series a weight, a sum, the least and the greatest
value, so any number of points can be put together into one. Time is this machine's: nothing a model depends on is here.

The rings are one file of a fixed size. Where a row belongs follows from its time, so there is nothing else to keep. Its
time stands at both of its ends: a row that is half-written, or of a time long past, does not count. The file is not
durable: after a power cut the last minutes may be missing.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

FILE: Final = "history"
MAGIC: Final = b"driftline history 1".ljust(64, b"\n")
SERIES: Final = ("accuracy", "log_loss", "messages_per_second", "labels_per_second", "lag", "label_delay_seconds")
PERIODS_S: Final = (1, 60, 3600)
ROWS: Final = (900, 1440, 1440)
_ROW: Final = np.dtype([("start", "<f8"), ("values", "<f8", (len(SERIES), 4)), ("end", "<f8")])
_STARTS: Final = np.cumsum((0, *ROWS))
N_ROWS: Final = int(_STARTS[-1])
ROW_BYTES: Final = _ROW.itemsize
_ACCURACY, _LOSS, _MESSAGES, _LABELS, _LAG, _DELAY = range(len(SERIES))

Values = NDArray[np.float64]  # [..., series, (weight, sum, least, greatest)]


class Totals(NamedTuple):
    """What was counted since the first record."""

    messages: int
    labels: int
    scored: int
    correct: int
    loss: float


class Points(NamedTuple):
    """Points of one length, in order; `time` is where each begins, seconds since 1970."""

    period_s: int
    time: NDArray[np.float64]
    values: Values


class History:
    """Keeps the rings of one learner. One thread. A disk that takes nothing leaves gaps, and is no error."""

    def __init__(self, data: Path) -> None:
        self._rows, self._file = _open(data)
        self._before: tuple[float, Totals] | None = None
        self._second = _empty()

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def add_delays(self, delays_s: NDArray[np.float64]) -> None:
        """Take in how long labels came after their messages."""
        if len(delays_s):
            _fold(self._second[_DELAY], len(delays_s), delays_s.sum(), delays_s.min(), delays_s.max())

    def tick(self, now: float, totals: Totals, lag: int) -> None:
        """Take in what was counted by now; where a second is over, it becomes a point."""
        _fold(self._second[_LAG], 1, lag, lag, lag)
        if self._before is None:
            self._before = now, totals
            return
        then, before = self._before
        if int(now) == int(then):
            return
        passed_s = now - then if now > then else 1.0
        messages, labels, scored, correct = (max(0, a - b) for a, b in zip(totals[:4], before[:4], strict=True))
        _add_mean(self._second[_MESSAGES], messages, passed_s)
        _add_mean(self._second[_LABELS], labels, passed_s)
        if scored > 0:
            _add_mean(self._second[_ACCURACY], correct, scored)
            _add_mean(self._second[_LOSS], max(0.0, totals.loss - before.loss), scored)
        self._keep(int(then), self._second)
        self._before, self._second = (now, totals), _empty()

    def _keep(self, second: int, values: Values) -> None:
        for level, period_s in enumerate(PERIODS_S):
            start = second // period_s * period_s
            place = _STARTS[level] + start // period_s % ROWS[level]
            row = self._rows[place : place + 1]
            if row["start"][0] != start:
                row["start"] = row["end"] = start
                row["values"] = _empty()
            _merge(row["values"][0], values)
            if self._file is not None:
                with suppress(OSError):
                    os.pwrite(self._file, row.tobytes(), len(MAGIC) + int(place) * ROW_BYTES)


class HistoryCopy:
    """The rings of a learner elsewhere, row by row. One thread, and no `History` beside it."""

    def __init__(self, data: Path) -> None:
        _, self._file = _open(data)

    def put(self, place: int, content: bytes) -> None:
        """Have a row as it is elsewhere. Raises ValueError, OSError.

        `content`: as `rows_of` has it
        """
        if not 0 <= place < N_ROWS or len(content) != ROW_BYTES:
            raise ValueError(f"the history has {N_ROWS} rows of {ROW_BYTES} bytes, and no row {place}")
        if self._file is not None:
            os.pwrite(self._file, content, len(MAGIC) + place * ROW_BYTES)

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            os.close(self._file)
        self._file = None


def rows_of(data: Path) -> NDArray[np.uint8]:
    """Return the rings' rows as bytes, [N_ROWS, ROW_BYTES]; zeros where none was written yet."""
    rows = _read(data / FILE)
    return np.zeros((N_ROWS, ROW_BYTES), np.uint8) if rows is None else rows.view(np.uint8).reshape(N_ROWS, ROW_BYTES)


def read_history(data: Path, since: float, until: float, max_points: int) -> Points:
    """Return what there is of a time, in at most so many points, none longer than it has to be.

    Parameters
    ----------
    since, until : seconds since 1970
    """
    rows = _read(data / FILE)
    levels = [] if rows is None else [_within(rows, level, since, until) for level in range(len(PERIODS_S))]
    first = min((each["start"][0] for each in levels if len(each)), default=until)
    extent_s = until - max(since, first)
    level = next((n for n, period in enumerate(PERIODS_S) if period * ROWS[n] >= extent_s), len(PERIODS_S) - 1)
    factor = max(1, int(-(-extent_s // (PERIODS_S[level] * max_points))))
    if not levels or not len(levels[level]):
        return Points(factor * PERIODS_S[level], np.zeros(0), np.zeros((0, len(SERIES), 4)))
    # Points begin at whole multiples of their length, so they stay the same from one question to the next. One more
    # than was asked for may be needed at an end; then all are twice as long.
    points = _put_together(levels[level], factor * PERIODS_S[level])
    return points if len(points.time) <= max_points else _put_together(levels[level], 2 * factor * PERIODS_S[level])


def _put_together(rows: NDArray[Any], period_s: int) -> Points:
    buckets = rows["start"] // period_s
    firsts = np.flatnonzero(np.diff(buckets, prepend=-1))
    values = rows["values"]
    merged = np.empty((len(firsts), len(SERIES), 4))
    merged[..., :2] = np.add.reduceat(values[..., :2], firsts)
    merged[..., 2] = np.minimum.reduceat(values[..., 2], firsts)
    merged[..., 3] = np.maximum.reduceat(values[..., 3], firsts)
    return Points(period_s, buckets[firsts] * period_s, merged)


def _within(rows: NDArray[Any], level: int, since: float, until: float) -> NDArray[Any]:
    """Return a ring's rows of a time, in order."""
    period_s, ring = PERIODS_S[level], rows[_STARTS[level] : _STARTS[level + 1]]
    start = ring["start"]
    oldest = max(since - period_s, until - period_s * ROWS[level])
    found = ring[(start > oldest) & (start <= until) & (start > 0) & (start == ring["end"]) & (start % period_s == 0)]
    in_order: NDArray[Any] = found[np.argsort(found["start"])]
    return in_order


def _open(data: Path) -> tuple[NDArray[Any], int | None]:
    """Return the rows, and the file that they are to be written to: made where there is none, None where it cannot."""
    rows = _read(data / FILE)
    fresh = rows is None
    rows = np.zeros(N_ROWS, _ROW) if rows is None else rows
    with suppress(OSError):
        if fresh and (data / FILE).exists():
            # Of another version, perhaps: not ours to delete.
            (data / FILE).replace(data / f"{FILE}.unknown")
        file = os.open(data / FILE, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if fresh else 0), 0o644)
        if fresh:
            os.pwrite(file, MAGIC + rows.tobytes(), 0)
        return rows, file
    return rows, None


def _read(path: Path) -> NDArray[Any] | None:
    """Return the rings' rows, writable; None where the file is not there or not one of this version."""
    with suppress(OSError):
        content = path.read_bytes()
        if content.startswith(MAGIC) and len(content) == len(MAGIC) + N_ROWS * ROW_BYTES:
            return np.frombuffer(bytearray(content[len(MAGIC) :]), _ROW)
    return None


def _empty() -> Values:
    return np.tile([0.0, 0.0, np.inf, -np.inf], (len(SERIES), 1))


def _add_mean(of_series: Values, total: float, weight: float) -> None:
    mean = total / weight
    _fold(of_series, weight, total, mean, mean)


def _fold(of_series: Values, weight: float, total: float, least: float, most: float) -> None:
    _merge(of_series, np.array([weight, total, least, most]))


def _merge(into: Values, more: Values) -> None:
    into[..., :2] += more[..., :2]
    into[..., 2] = np.minimum(into[..., 2], more[..., 2])
    into[..., 3] = np.maximum(into[..., 3], more[..., 3])
