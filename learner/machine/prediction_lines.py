"""How are a batch's predictions written? As the JSON that msgspec makes of each `Prediction`, by a kernel.

Scores are told to a millionth, the best ones first, at the same score by column. No object is made for a prediction: a
line is bytes of one array (test_prediction_lines.py compares them with msgspec's).
"""

from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.learner.models.classifier import Scores
from driftline.stream.kernels import kernel
from driftline.stream.wire.column import PADDING, Column

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

MILLION: Final = 1_000_000
_SCORE_BYTES: Final = len('"":0.000001,')
_LINE_BYTES: Final = 256  # names of fields, best score, number of updates and time: more than they ever take
_ESCAPED: Final = 6  # bytes of a byte, at most
_DAY_MS: Final = 86_400_000
_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
_SHORT: Final = np.zeros(128, np.uint8)  # what follows a backslash for these; 0: they are no such
for _byte, _letter in zip(b'"\\\b\f\n\r\t', b'"\\bfnrt', strict=True):
    _SHORT[_byte] = _letter
_ID, _LABEL, _SCORE, _SCORES, _VERSION, _TS, _END, _NULL = (
    np.frombuffer(part, np.uint8)
    for part in (
        b'{"message_id":"',
        b'","label":',
        b',"score":',
        b',"scores":{',
        b'},"model_version":"',
        b'","ts":"',
        b'"}',
        b"null",
    )
)


class Strings(NamedTuple):
    """Strings one behind the other: `data` uint8, `ends` int64 [n + 1], the first 0."""

    data: Bytes
    ends: Ints

    @classmethod
    def of(cls, parts: list[bytes]) -> "Strings":
        """Return some."""
        return cls(np.frombuffer(b"".join(parts), np.uint8), np.cumsum([0, *map(len, parts)]))


class Versions(NamedTuple):
    """What models are called: by their lineage, which is another one after the `last` update, and their updates."""

    before: str
    after: str
    last: int

    def at(self, updates: int) -> str:
        """Return what the model is called that was updated so often."""
        return f"{self.before if updates <= self.last else self.after}-{updates}"


def write_lines(
    keys: tuple[Bytes, Ints, Ints],
    scores: Scores,
    n_labels: Ints,
    n_best: int,
    labels: list[str],
    versions: Versions,
    updates: Ints,
    times_ms: Ints,
    stamps: Strings,
) -> Column:
    """Return n predictions as JSON.

    Parameters
    ----------
    keys : ids in UTF-8: bytes, where each begins [n], how many each has [n]
    scores : float32 [n, n_columns], from 0 to 1
    n_labels : [n], how many labels were known; of none, or where all have 0, no label is told
    n_best : how many are told at most
    labels : by column
    updates : [n], of the model
    times_ms : [n], since 1970, up to the year 9999
    stamps : n times to be told in their place; empty: that one
    """
    n, sizes = len(scores), keys[2]
    names = Strings.of([msgspec.json.encode(label) for label in labels])
    longest = int(np.diff(names.ends).max(initial=len(_NULL)))
    n_best = min(n_best, scores.shape[1])
    before, after = (np.frombuffer(f"{lineage}-".encode(), np.uint8) for lineage in versions[:2])
    per_line = _LINE_BYTES + len(before) + len(after) + longest + n_best * (longest + _SCORE_BYTES)
    room = _ESCAPED * int(sizes.sum()) + len(stamps.data) + n * per_line
    out, ends = np.empty(room, np.uint8), np.zeros(n + 1, np.int64)
    best: Ints = np.empty((2, n_best), np.int64)
    _write(keys, scores, n_labels, best, names, before, after, versions.last, updates, times_ms, stamps, out, ends)
    data = np.zeros(ends[n] + PADDING, np.uint8)  # what is kept has no more room than it needs
    data[: ends[n]] = out[: ends[n]]
    return Column(data, ends, None)


def column_of(data: Bytes, starts: Ints, sizes: Ints) -> Column:
    """Return strings that lie at some places of others as a column."""
    ends = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    out = np.zeros(ends[-1] + PADDING, np.uint8)
    _collect(data, starts, out, ends)
    return Column(out, ends, None)


@kernel
def _collect(data, starts, out, ends):  # type: ignore[no-untyped-def]
    """Copy strings, one behind the other."""
    for i in range(starts.shape[0]):
        _put(out, ends[i], data, starts[i], starts[i] + ends[i + 1] - ends[i])


@kernel
def _write(keys, scores, n_labels, best, names, before, after, last, updates, times_ms, stamps, out, ends):  # type: ignore[no-untyped-def]
    """Write a line for each row of scores; `ends` gets where each ends."""
    data, starts, sizes = keys
    at = 0
    for i in range(scores.shape[0]):
        n_told = _rank(scores[i], n_labels[i], best)
        at = _put(out, at, _ID, 0, _ID.shape[0])
        at = _put_escaped(out, at, data, starts[i], starts[i] + sizes[i])
        at = _put(out, at, _LABEL, 0, _LABEL.shape[0])
        at = _put_name(out, at, names, best[0, 0]) if n_told > 0 else _put(out, at, _NULL, 0, _NULL.shape[0])
        at = _put(out, at, _SCORE, 0, _SCORE.shape[0])
        at = _put_score(out, at, best[1, 0] if n_told > 0 else 0)
        at = _put(out, at, _SCORES, 0, _SCORES.shape[0])
        for j in range(n_told):
            if j > 0:
                at = _put_byte(out, at, 44)  # a comma
            at = _put_name(out, at, names, best[0, j])
            at = _put_byte(out, at, 58)  # a colon
            at = _put_score(out, at, best[1, j])
        at = _put(out, at, _VERSION, 0, _VERSION.shape[0])
        lineage = before if updates[i] <= last else after
        at = _put(out, at, lineage, 0, lineage.shape[0])
        at = _put_number(out, at, updates[i])
        at = _put(out, at, _TS, 0, _TS.shape[0])
        if stamps[1][i + 1] > stamps[1][i]:
            at = _put(out, at, stamps[0], stamps[1][i], stamps[1][i + 1])
        else:
            at = _put_time(out, at, times_ms[i])
        at = _put(out, at, _END, 0, _END.shape[0])
        ends[i + 1] = at


@kernel
def _rank(scores, n_labels, best):  # type: ignore[no-untyped-def]
    """Write the columns of the best scores and their millionths, best first; return how many, 0 where all are 0."""
    n = 0
    for column in range(min(n_labels, scores.shape[0])):
        value = np.int64(np.rint(np.float64(scores[column]) * MILLION))
        if n == best.shape[1] and value <= best[1, n - 1]:
            continue
        place = n if n < best.shape[1] else n - 1
        while place > 0 and best[1, place - 1] < value:
            best[0, place], best[1, place] = best[0, place - 1], best[1, place - 1]
            place -= 1
        best[0, place], best[1, place] = column, value
        n = min(n + 1, best.shape[1])
    return n if n > 0 and best[1, 0] > 0 else 0


@kernel
def _put(out, at, source, start, end):  # type: ignore[no-untyped-def]
    """Append bytes; return the new end, as all that follow do."""
    for i in range(start, end):
        out[at + i - start] = source[i]
    return at + end - start


@kernel
def _put_byte(out, at, byte):  # type: ignore[no-untyped-def]
    out[at] = byte
    return at + 1


@kernel
def _put_name(out, at, names, column):  # type: ignore[no-untyped-def]
    return _put(out, at, names[0], names[1][column], names[1][column + 1])


@kernel
def _put_escaped(out, at, data, start, end):  # type: ignore[no-untyped-def]
    """Append what stands in a string of JSON."""
    for i in range(start, end):
        byte = data[i]
        short = _SHORT[byte] if byte < 128 else np.uint8(0)
        if short > 0:
            out[at], out[at + 1] = 92, short
            at += 2
        elif byte < 32:
            out[at], out[at + 1], out[at + 2], out[at + 3] = 92, 117, 48, 48
            out[at + 4], out[at + 5] = _DIGITS[byte >> 4], _DIGITS[byte & 15]
            at += 6
        else:
            out[at] = byte
            at += 1
    return at


@kernel
def _put_score(out, at, millionths):  # type: ignore[no-untyped-def]
    """Append a number of millionths as the shortest decimal of its double: `1.0`, `0.25`, `1e-6`."""
    if 0 < millionths < 10:
        out[at], out[at + 1], out[at + 2], out[at + 3] = 48 + millionths, 101, 45, 54
        return at + 4
    at = _put_number(out, at, millionths // MILLION)
    at = _put_byte(out, at, 46)
    left, unit = millionths % MILLION, MILLION // 10
    while True:
        out[at] = 48 + left // unit
        left, unit, at = left % unit, unit // 10, at + 1
        if left == 0:
            return at


@kernel
def _put_number(out, at, number):  # type: ignore[no-untyped-def]
    """Append an integer that is not negative."""
    n_digits, rest = 1, number // 10
    while rest > 0:
        n_digits, rest = n_digits + 1, rest // 10
    return _put_digits(out, at, number, n_digits)


@kernel
def _put_digits(out, at, number, n_digits):  # type: ignore[no-untyped-def]
    """Append the last digits of a number."""
    for i in range(n_digits):
        out[at + n_digits - 1 - i] = 48 + number % 10
        number //= 10
    return at + n_digits


@kernel
def _put_time(out, at, time_ms):  # type: ignore[no-untyped-def]
    """Append a time since 1970 as `2026-11-30T06:37:53.120Z`.

    Years are counted from March of the year 0, in eras of 400: the day that leap years add is then the last of a year.
    """
    days, rest = time_ms // _DAY_MS, time_ms % _DAY_MS
    days += 719_468  # from March of the year 0 to 1970
    era, day = days // 146_097, days % 146_097
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153  # from March on, five months have 153 days
    day -= (153 * month + 2) // 5
    year += 400 * era + (1 if month >= 10 else 0)
    at = _put_digits(out, at, year, 4)
    at = _put_part(out, at, 45, month + 3 if month < 10 else month - 9)
    at = _put_part(out, at, 45, day + 1)
    at = _put_part(out, at, 84, rest // 3_600_000)
    at = _put_part(out, at, 58, rest // 60_000 % 60)
    at = _put_part(out, at, 58, rest // 1_000 % 60)
    at = _put_byte(out, at, 46)
    at = _put_digits(out, at, rest % 1_000, 3)
    return _put_byte(out, at, 90)


@kernel
def _put_part(out, at, mark, number):  # type: ignore[no-untyped-def]
    return _put_digits(out, _put_byte(out, at, mark), number, 2)


def warm_up() -> None:
    """Compile the kernel, or load it compiled, so that no batch waits for that."""
    one: Ints = np.ones(1, np.int64)
    keys = np.frombuffer(b"id", np.uint8), np.zeros(1, np.int64), one
    scores: Scores = np.ones((1, 1), np.float32)
    column_of(*keys)
    write_lines(keys, scores, one, 1, ["a"], Versions("", "", 0), one, one, Strings.of([b""]))
