"""Which label gives its place to a new one?

A model has `max_labels` places. Where all are taken and a new label comes, one that was learned FEW times at most, and
not for `free_after_ms` of the log's time, gives its place: that which came least lately. So a flood of labels that mean
nothing takes no place for ever. Its column is cleared in whatever knows columns (machine.py), and for that a model has
to be told what the label was learned with: of labels learned so few times that is kept here, as hashed features, never
as text. A label that was learned more often keeps its place. A function of the records in their order. What nobody
keeps, since it has no limit, is which texts of others a linear weight of the label was moved against, a little each:
the label that has its place now begins as less likely for those.

A model of another library is a pickle, into which nobody looks: its labels keep their places.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.models.classifier import Classifier, State
from driftline.stream.errors import StateError
from driftline.stream.join.message_rows import MessageStore
from driftline.stream.join.rules import STEP
from driftline.stream.join.steps import Steps

FEW: Final = 3
MOST_KEPT: Final = 4096  # features of a label: of long texts words and pairs, which come first
UNTOLD: Final = FEW + 1  # how often a label was learned that was learned often, or of which nothing says it
NEVER: Final = -(1 << 62)
PREFIX: Final = "places_"  # of its arrays, which lie beside others in a file

Ints = NDArray[np.int64]


class Places:
    """How often each label was learned, until it was often, and when last. One thread, that which plans.

    Parameters
    ----------
    max_labels : columns lie below it

    Attributes
    ----------
    since_ms : int64 [max_labels], from when on a column is that of its label now; NEVER: it was no other's
    """

    def __init__(self, max_labels: int) -> None:
        self._learned = np.zeros(max_labels, np.int64)
        self._last_ms = np.zeros(max_labels, np.int64)
        self.since_ms = np.full(max_labels, NEVER, np.int64)
        self._n = 0  # columns of which anything is known
        self._n_often = 0  # labels that were learned more than FEW times
        self._kept: dict[int, list[NDArray[np.uint32]]] = {}

    def see(self, steps: Steps, start: int, classifier: Classifier, store: MessageStore) -> None:
        """Count the steps from one on. Where all labels were learned often there is nothing to be counted."""
        if not classifier.gives_places or self._n_often == len(classifier.labels):
            return
        columns = steps.table[start : steps.n, STEP.TARGET]
        which = np.flatnonzero(columns >= 0)
        which = which[self._learned[columns[which]] <= FEW]
        for column, at, size, place, time_ms in steps.table[start + which][
            :, [STEP.TARGET, STEP.TEXT_AT, STEP.TEXT_BYTES, STEP.PLACE, STEP.TIME_MS]
        ].tolist():
            self._n = max(self._n, column + 1)
            learned = self._learned[column]
            if learned > FEW:
                continue
            self._learned[column] += 1
            if learned == FEW:  # it keeps its place for good
                self._n_often += 1
                self._last_ms[column] = 0
                self._kept.pop(column, None)
                continue
            if place >= 0:  # what a message was learned as that left has no time
                self._last_ms[column] = time_ms
            kept = self._kept.setdefault(column, [])
            left = MOST_KEPT - sum(len(each) - 1 for each in kept)
            found = classifier.imprint(store.read(at, size).decode())[: 1 + left]
            found[0] = min(int(found[0]), len(found) - 1)
            kept.append(found)

    def oldest(self, n_labels: int, until_ms: int, spared: int | None) -> int | None:
        """Return the column that gives its place, None where none does.

        Parameters
        ----------
        n_labels : how many are known
        until_ms : a label that was learned after it keeps its place
        spared : a column that does in any case
        """
        columns = np.flatnonzero(self._may_give(n_labels, until_ms, spared))
        return int(columns[self._last_ms[columns].argmin()]) if len(columns) else None

    def n_free(self, n_labels: int, until_ms: int, spared: int | None) -> int:
        """Return how many labels would give their place; as `oldest`."""
        return int(np.count_nonzero(self._may_give(n_labels, until_ms, spared)))

    def _may_give(self, n_labels: int, until_ms: int, spared: int | None) -> NDArray[np.bool_]:
        learned = self._learned[:n_labels]
        may: NDArray[np.bool_] = (learned > 0) & (learned <= FEW) & (self._last_ms[:n_labels] <= until_ms)
        if spared is not None:
            may[spared] = False
        return may

    def give(self, column: int, time_ms: int) -> list[NDArray[np.uint32]]:
        """Have a column be another label's from a time on; return what `Classifier.clear` has to know."""
        self._learned[column] = self._last_ms[column] = 0
        self.since_ms[column] = time_ms
        return self._kept.pop(column, [])

    def forget_others(self, scores: NDArray[np.float32], times_ms: Ints) -> None:
        """Take from scores of messages what is of labels that have given their place since.

        A message that was predicted to be one of these has no prediction any more, as where a model takes another's
        place (served.py).

        Parameters
        ----------
        scores : float32 [n, n_labels], as served; changed
        times_ms : int64 [n], when the messages came
        """
        given = np.flatnonzero(self.since_ms[: scores.shape[1]] >= times_ms.min(initial=-NEVER))
        if not len(given):
            return
        stale = np.zeros(scores.shape, np.bool_)
        stale[:, given] = self.since_ms[given] >= times_ms[:, np.newaxis]
        gone = stale[np.arange(len(scores)), scores.argmax(axis=1)]
        scores[stale] = 0
        scores[gone] = 0

    def state(self) -> State:
        """Return copies of everything; the same records give the same bytes."""
        n, columns = self._n, sorted(self._kept)
        imprints = [each for column in columns for each in self._kept[column]]
        sizes = [(column, len(each)) for column in columns for each in self._kept[column]]
        arrays: dict[str, NDArray[Any]] = {
            "learned": self._learned[:n].copy(),
            "last_ms": self._last_ms[:n].copy(),
            "since_ms": self.since_ms[:n].copy(),
            "sizes": np.array(sizes, np.int64).reshape(-1, 2),
            "kept": np.concatenate([np.empty(0, np.uint32), *imprints]),
        }
        return {PREFIX + name: array for name, array in arrays.items()}

    def load_state(self, state: State, n_labels: int) -> None:
        """Take over what `state` gave, other arrays beside it; where there is none labels keep their places.

        Raises
        ------
        StateError : an array is missing, or not what `state` gives.
        """
        given = {name.removeprefix(PREFIX): array for name, array in state.items() if name.startswith(PREFIX)}
        if not given:
            self._learned[:n_labels], self._n, self._n_often = UNTOLD, n_labels, n_labels
            return
        try:
            n = self._n = len(given["learned"])
            self._learned[:n], self._last_ms[:n] = given["learned"], given["last_ms"]
            self.since_ms[:n] = given["since_ms"]
            self._n_often = int(np.count_nonzero(self._learned > FEW))
            ends = np.cumsum(given["sizes"][:, 1])
            if (given["sizes"] < 0).any() or int(ends[-1] if len(ends) else 0) != len(given["kept"]):
                raise ValueError("the sizes do not fit")
            for (column, size), end in zip(given["sizes"].tolist(), ends.tolist(), strict=True):
                imprint = given["kept"][end - size : end].copy()
                if column >= n_labels or imprint[0] >= size:
                    raise ValueError(f"column {column} is none, or has no features")
                self._kept.setdefault(column, []).append(imprint)
        except (KeyError, IndexError, ValueError) as error:
            raise StateError(f"what labels were learned with cannot be read: {error!r}") from None
