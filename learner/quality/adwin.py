"""When has the mean of a stream of numbers changed?

ADWIN (Bifet and Gavalda 2007, "Learning from time-changing data with adaptive windowing"): a window of all numbers
since the last change, kept as an exponential histogram, so that n numbers take O(log n) memory. The mean has changed if
the window can be cut in two whose means differ by more than chance explains. As River's `drift.ADWIN` has it: the bound
that knows the variance, a check at every CLOCK-th number, and a window that begins anew after a change; with that no
bucket is ever dropped, so none needs a variance of its own. `test_drift.py` proves that the changes are River's.

Numbers lie in 0 to 1. Many windows lie in one set of arrays, a row each: a checkpoint holds them as they are, and a
batch is one call. A number costs some 50 ns, however many came before; what comes out does not depend on batches.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.kernels import kernel

DELTA: Final = 0.002  # significance: about how often a check sees a change where there is none, at most
CLOCK: Final = 32
MAX_BUCKETS: Final = 5  # of a size: when there is one more, the oldest two become one of twice the size
MIN_PART: Final = 5  # numbers on each side of a cut
GRACE_PERIOD: Final = 10
LEVELS: Final = 48  # sizes of buckets, 1 to 2**47: more numbers than any stream has

SUM, SPREAD = 0, 1  # columns of totals; the spread is the sum of squared deviations from the mean


class Windows(NamedTuple):
    """The arrays of n windows."""

    widths: NDArray[np.int64]  # [n], numbers in the window
    totals: NDArray[np.float64]  # [n, 2], their sum and spread
    sizes: NDArray[np.int64]  # [n, LEVELS], how many buckets of 2**level numbers there are
    sums: NDArray[np.float64]  # [n, LEVELS, MAX_BUCKETS + 1], theirs, oldest first


class Found(NamedTuple):
    """Changes, in the order in which they were found: a column for each attribute."""

    number: NDArray[np.int64]  # which of the batch's numbers showed it
    window: NDArray[np.int64]
    widths: NDArray[np.int64]  # [n, 2], numbers before and after the likeliest place of the change
    means: NDArray[np.float64]  # [n, 2], theirs


def new_windows(n: int) -> Windows:
    """Return n empty windows."""
    return Windows(
        np.zeros(n, np.int64),
        np.zeros((n, 2), np.float64),
        np.zeros((n, LEVELS), np.int64),
        np.zeros((n, LEVELS, MAX_BUCKETS + 1), np.float64),
    )


def sound(windows: Windows) -> bool:
    """Whether arrays from outside fit each other, so that `add` stays within them."""
    widths, totals, sizes, sums = windows
    return bool(
        ((sizes >= 0) & (sizes <= MAX_BUCKETS)).all()
        and (widths == (sizes << np.arange(LEVELS)).sum(axis=1)).all()
        and np.isfinite(totals).all()
        and np.isfinite(sums).all()
    )


def add(windows: Windows, rows: NDArray[np.int32], numbers: NDArray[np.float64]) -> Found:
    """Add numbers, each to window 0 and to the one of its row (0: to no other), and return the changes."""
    most = 2 * len(numbers)
    found = Found(
        np.empty(most, np.int64), np.empty(most, np.int64), np.empty((most, 2), np.int64), np.empty((most, 2))
    )
    n: Any = _add(rows, numbers, *windows, *found)
    return Found(found.number[:n], found.window[:n], found.widths[:n], found.means[:n])


@kernel
def _add(rows, numbers, widths, totals, sizes, sums, number, window, parts, means):  # type: ignore[no-untyped-def]
    n_found = 0
    for i in range(len(numbers)):
        for turn in range(2 if rows[i] > 0 else 1):
            row = rows[i] if turn else 0
            _insert(numbers[i], row, widths, totals, sizes[row], sums[row])
            if widths[row] % CLOCK or widths[row] <= GRACE_PERIOD:
                continue
            n_before, sum_before = _best_cut(widths[row], totals[row], sizes[row], sums[row])
            if n_before:
                n_after = widths[row] - n_before
                number[n_found], window[n_found] = i, row
                parts[n_found, 0], parts[n_found, 1] = n_before, n_after
                means[n_found, 0], means[n_found, 1] = sum_before / n_before, (totals[row, SUM] - sum_before) / n_after
                n_found += 1
                widths[row] = 0
                totals[row] = 0.0
                sizes[row] = 0
    return n_found


@kernel
def _insert(x, row, widths, totals, sizes, sums):  # type: ignore[no-untyped-def]
    """Put a number in a bucket of its own, and merge the oldest two where there are too many of a size."""
    width = widths[row]
    if width:
        deviation = x - totals[row, SUM] / width
        totals[row, SPREAD] += width * deviation * deviation / (width + 1)
    totals[row, SUM] += x
    widths[row] = width + 1
    level = 0
    sums[0, sizes[0]] = x
    sizes[0] += 1
    while sizes[level] > MAX_BUCKETS:
        merged = sums[level, 0] + sums[level, 1]
        for k in range(MAX_BUCKETS - 1):
            sums[level, k] = sums[level, k + 2]
        sizes[level] -= 2
        level += 1
        sums[level, sizes[level]] = merged
        sizes[level] += 1


@kernel
def _best_cut(width, totals, sizes, sums):  # type: ignore[no-untyped-def]
    """Return how many of the oldest numbers differ most from the rest, and their sum; 0, 0 if by chance.

    A cut's bound (the paper's equation 3.1, with River's smaller numbers of each part): with m the harmonic mean of
    the parts' numbers, sqrt(2/m variance ln(2 ln(n)/delta)) + 2/(3m) ln(2 ln(n)/delta).
    """
    confidence = math.log(2.0 * math.log(width) / DELTA)
    variance = totals[SPREAD] / width
    n0, u0, u1 = 0, 0.0, totals[SUM]
    best, best_n0, best_u0 = 1.0, 0, 0.0
    for level in range(LEVELS - 1, -1, -1):
        for k in range(sizes[level]):
            n0 += 1 << level
            u0 += sums[level, k]
            u1 -= sums[level, k]
            n1 = width - n0
            if n0 < MIN_PART or n1 < MIN_PART:
                continue
            m = 1.0 / (n0 - MIN_PART + 1.0) + 1.0 / (n1 - MIN_PART + 1.0)
            bound = math.sqrt(2.0 * m * variance * confidence) + 2.0 / 3.0 * confidence * m
            difference = abs(u0 / n0 - u1 / n1)
            if difference > best * bound:
                best, best_n0, best_u0 = difference / bound, n0, u0
    return best_n0, best_u0
