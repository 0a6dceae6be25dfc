"""Which labels are taken for which, among all that there are?

Of the first MAX_CONFUSION_LABELS labels progressive validation has exact counts (quality/progress.py). Pairs that have
a later one are counted here, by name: they are no part of a model, and a replay does not count them again. After a
restart they go on from the pairs that were shown last; the rarest are given up where there are more than MAX_RARE.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.learner.quality.progress import MAX_CONFUSION_LABELS, Progress

MAX_PAIRS: Final = 1000  # that are shown
MAX_RARE: Final = 20_000  # that are counted here

Pair = tuple[str, str]  # what it was, what was predicted


class Confused(msgspec.Struct, frozen=True):
    """The pairs of labels that are confused most, the commonest first: [what it was, what was predicted, how often].

    Both are places in `labels`. `mistakes` is how many labels were predicted as another one in all.
    """

    labels: list[str] = []
    pairs: list[tuple[int, int, int]] = []
    mistakes: int = 0


class Pairs:
    """Counts pairs of which one label is a late one. One thread, the loop's.

    Parameters
    ----------
    last : what was shown last, before a restart
    """

    def __init__(self, last: Confused) -> None:
        names = last.labels
        self._last = {(names[truth], names[guess]): n for truth, guess, n in last.pairs}
        self._counts: Counter[Pair] = Counter()

    def see(self, labels: Sequence[str], truth: NDArray[np.int32], predicted: NDArray[np.int32]) -> None:
        """Count a batch: columns of what it was, and of what was predicted (-1: nothing)."""
        if len(labels) <= MAX_CONFUSION_LABELS:
            return
        late = (predicted >= 0) & (truth != predicted) & (np.maximum(truth, predicted) >= MAX_CONFUSION_LABELS)
        self._counts.update(
            (labels[a], labels[b]) for a, b in zip(truth[late].tolist(), predicted[late].tolist(), strict=True)
        )
        if len(self._counts) > MAX_RARE:
            self._counts = Counter(dict(self._counts.most_common(MAX_RARE // 2)))

    def shown(self, progress: Progress, labels: Sequence[str]) -> Confused:
        """Return the pairs that are confused most."""
        column = {label: place for place, label in enumerate(labels)}
        if self._last:  # the labels of a start are known now: those pairs that have a late one are counted here
            late = {
                pair: n
                for pair, n in self._last.items()
                if max(column.get(each, -1) for each in pair) >= MAX_CONFUSION_LABELS
            }
            self._counts.update(late)
            self._last = {}
        matrix = progress.confusion.copy()
        np.fill_diagonal(matrix, 0)
        flat = matrix.ravel()
        n = min(MAX_PAIRS, int(np.count_nonzero(flat)))
        most = np.argpartition(-flat, n - 1)[:n] if n else np.empty(0, np.int64)
        side = len(matrix)
        pairs = [(int(at) // side, int(at) % side, int(flat[at])) for at in most]
        known = ((column.get(a), column.get(b), n) for (a, b), n in self._counts.items())
        pairs += [(a, b, n) for a, b, n in known if a is not None and b is not None]
        pairs = sorted(pairs, key=lambda each: (-each[2], each[0], each[1]))[:MAX_PAIRS]
        used = {place: name for name, place in enumerate(sorted({place for pair in pairs for place in pair[:2]}))}
        return Confused(
            [labels[place] for place in used],
            [(used[truth], used[guess], n) for truth, guess, n in pairs],
            progress.labels - progress.correct,
        )
