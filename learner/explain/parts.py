"""What does each feature add to a label's score?

The scores of our classifiers are sums over features, or sums of such sums: a `Part` is one of them taken apart, a
constant and a row for each feature, in natural logarithms. What is the same for all labels may be left out: it says
nothing. The same arithmetic as in the kernels, in 64 bits and in slices, so that memory stays bounded however many
features and labels there are; `tests/learner/explain/test_explain.py` holds the sums against what the kernels predict.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.explain.rows import HALF, OVERALL, TOTAL

WORDS: Final = ("word", "field")  # kinds of features that count as words
VECTOR: Final = "vector"  # the one that was sent with a text; no model has learned its hash, which is 0
PLAIN: Final = (*WORDS, "pair", "times", "field_pair", "cross")  # and all but n-grams, and a text's shape
CELLS: Final = 1 << 20  # (feature, label) pairs looked at in one slice

Row = NDArray[np.float64]  # [n_labels]
Rows = NDArray[np.float64]  # [features, n_labels]


class Hashed(NamedTuple):
    """A text, and its features: words and fields first, then pairs; n-grams come last."""

    text: str
    features: NDArray[np.uint32]
    kinds: NDArray[np.str_]  # of each feature, as in trace.py

    @property
    def n_words(self) -> int:
        """How many features are words."""
        return int(np.isin(self.kinds, WORDS).sum())

    @property
    def n_plain(self) -> int:
        """How many features are words and pairs."""
        return int(self.plain.sum())

    @property
    def plain(self) -> NDArray[np.bool_]:
        """Which features are words and pairs."""
        return np.isin(self.kinds, PLAIN)

    def values(self, plain: float, chars: float) -> Row:
        """Return a value for each feature, another one for n-grams."""
        values: Row = np.where(self.kinds == "chars", chars, plain)
        return values


class Part(NamedTuple):
    """A score of each label: constant + the sum of the rows of all features."""

    constant: Row
    rows: Callable[[slice], Rows]


class Counted(NamedTuple):
    """What naive Bayes has learned, as `bayes_scores` takes it."""

    counts: NDArray[np.float32]
    totals: NDArray[np.float64]
    overall: NDArray[np.float64]
    column: int  # of the totals
    distinct: int  # place in `overall`
    alpha: float
    flatten: float
    complement: bool


def slices(n: int, n_labels: int) -> Iterator[slice]:
    """Give slices of n features, each of at most CELLS (feature, label) pairs."""
    step = max(1, CELLS // max(n_labels, 1))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def total(part: Part, n: int) -> Row:
    """Return the score of each label for a text of n features."""
    scores = part.constant.copy()
    for at in slices(n, len(scores)):
        scores += part.rows(at).sum(axis=0)
    return scores


def weighted(parts: Sequence[tuple[float, Part]]) -> Part:
    """Return the weighted sum of parts."""
    constant = sum((weight * part.constant for weight, part in parts), np.zeros_like(parts[0][1].constant))

    def rows(at: slice) -> Rows:
        return sum((weight * part.rows(at) for weight, part in parts), np.zeros((at.stop - at.start, len(constant))))

    return Part(constant, rows)


def first_slots(features: NDArray[np.uint32], slots: int, max_labels: int, apart: int) -> NDArray[np.int64]:
    """Return where features' slots begin, as `place` does; they are multiples of `apart`."""
    bases = ((features.astype(np.uint64) * np.uint64(slots - 2 * max_labels)) >> HALF).astype(np.int64)
    return bases // apart * apart


def linear_part(
    weights: NDArray[np.float32], max_labels: int, hashed: Hashed, bias: float, values: Row, n: int, apart: int = 1
) -> Part:
    """Take the scores of n labels by a linear model apart: weights of a table as `place` lays it out, times values."""
    labels = np.arange(n)
    bases = first_slots(hashed.features, len(weights), max_labels, apart)

    def rows(at: slice) -> Rows:
        found: Rows = weights[bases[at, None] + labels].astype(np.float64) * values[at, None]
        return found

    return Part(weights[(len(weights) - max_labels) // apart * apart + labels].astype(np.float64) * bias, rows)


def bayes_part(
    counted: Counted, max_labels: int, hashed: Hashed, of: NDArray[np.bool_], only_seen: bool, n: int, apart: int = 1
) -> Part:
    """Take the scores of n labels by naive Bayes apart.

    Parameters
    ----------
    of : bool [features], those that count
    only_seen : of those, only what any label ever had
    """
    counts, totals, overall, column, distinct, alpha, flatten, complement = counted
    labels = np.arange(n)
    bases = first_slots(hashed.features, len(counts), max_labels, apart)
    scale = float(overall[OVERALL.SCALE])
    smooth = alpha * scale * max(float(overall[distinct]), 1.0)
    own = totals[:n, column]
    size = np.log((np.maximum(own.sum() - own, 0) if complement else own) + smooth)

    def seen(at: slice) -> tuple[Rows, NDArray[np.bool_]]:
        found = counts[bases[at, None] + labels].astype(np.float64)
        return found, of[at] & (found != 0).any(axis=1) if only_seen else of[at]

    n_counted = sum(int(seen(at)[1].sum()) for at in slices(len(bases), n))
    power = 1.0 / max(n_counted, 1) ** flatten

    def rows(at: slice) -> Rows:
        found, counts_at_all = seen(at)
        if complement:
            found = np.maximum(found.sum(axis=1, keepdims=True) - found, 0)
        logs = np.log1p(found / (alpha * scale)) - size
        return np.where(counts_at_all[:, None], (-logs if complement else logs) * power, 0.0)

    return Part(np.log(totals[:n, TOTAL.DOCUMENTS] / scale + 0.5) * power, rows)


def limited_part(part: Part, n_features: int, known: NDArray[np.bool_], least: float) -> Part:
    """Return log probabilities that are never below `least`, but for what is the same for all labels.

    A label that is below it has its distance from the best label shortened, and each feature its part of that alike.
    """
    scores = np.where(known, total(part, n_features), -np.inf)
    best = int(scores.argmax())
    shift = float(np.logaddexp.reduce(scores))
    logs = scores - shift
    share = np.ones(len(scores))
    low = known & (logs < least)
    share[low] = least / logs[low]

    def shorten(rows: Rows) -> Rows:
        top = rows[..., best : best + 1]
        return top + share * (rows - top)

    return Part(shorten(part.constant) + (1 - share) * (shift - scores[best]), lambda at: shorten(part.rows(at)))
