"""How does a model with partial_fit learn from our texts, as scikit-learn's do, and what does it say?"""

import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.learner.foreign.adapter import LEARNED, Adapter


class PartialFitAdapter(Adapter):
    """A model with partial_fit and predict_proba, on rows of 2**bits columns.

    partial_fit has to know every class at its first call, long before the labels are known: the classes are the
    columns' numbers up to `max_labels`. Those that were never learned have no part in the scores, but their room is
    taken from the start: scikit-learn's SGDClassifier has 2**bits numbers of 8 bytes for each.
    """

    def _make(self) -> Any:
        model = self._made_by.new()
        parameters = inspect.signature(model.partial_fit).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        self._takes_weight = takes_any or "sample_weight" in parameters
        self._takes_classes = takes_any or "classes" in parameters
        return model

    def _rows(self, hashed: Iterable[NDArray[np.uint32]]) -> Iterable[Any]:
        from scipy.sparse import csr_matrix  # noqa: PLC0415  (slow, and only where it is used)

        width = 1 << self.settings.bits
        for indices in self._indices(hashed):
            values = np.full(len(indices), self._value(len(indices)))
            if self.settings.dense:
                row = np.zeros((1, width))
                row[0, indices] = values
                yield row
            else:
                yield csr_matrix((values, indices.astype(np.int32), np.array([0, len(indices)], np.int32)), (1, width))

    def _raw(self, text: str) -> list[str]:
        """Return a batch of one text."""
        return [super()._raw(text)]

    def _score(self, row: Any, n_labels: int) -> Sequence[float] | NDArray[np.float64]:
        given = np.asarray(self._model.predict_proba(row), np.float64)[0]
        scores = np.zeros(max(self.max_labels, n_labels, len(given)))
        classes = getattr(self._model, "classes_", None)
        if classes is None or len(classes) != len(given):
            scores[: len(given)] = given
        else:
            scores[np.asarray(classes, np.int64)] = given
        return scores[:n_labels]

    def _learn(self, row: Any, target: int, weight: float) -> None:
        options: dict[str, Any] = {}
        if self._takes_classes and not self._counters[LEARNED]:
            options["classes"] = np.arange(max(2, self.max_labels))
        if self._takes_weight:
            options["sample_weight"] = np.array([weight])
        for _ in range(1 if self._takes_weight else self._times(target, weight)):
            self._model.partial_fit(row, np.array([target]), **options)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Without scikit-learn's checks of each number, and in one thread.

        For one text, BLAS's threads cost twenty times what they save, and could change the last bits of a sum.
        """
        with ExitStack() as stack:
            stack.enter_context(super()._quiet())
            if "sklearn" in sys.modules:
                from sklearn import config_context  # noqa: PLC0415

                stack.enter_context(config_context(assume_finite=True))
                stack.enter_context(_thread_pools().limit(limits=1))
            yield


@cache
def _thread_pools() -> Any:
    """Return what holds back the threads of the libraries that are loaded (scikit-learn brings it)."""
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415

    return ThreadpoolController()
