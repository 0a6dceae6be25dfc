"""How does a model of River's learn from our texts, and what does it say?"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.learner.foreign.adapter import Adapter


class RiverAdapter(Adapter):
    """A River model on {feature: value}. One that tells only two classes apart gets a copy for each label."""

    def _make(self) -> Any:
        model = one = self._made_by.new()
        if not model._multiclass:
            from river.multiclass import OneVsRestClassifier  # noqa: PLC0415

            model = OneVsRestClassifier(model)
        self._takes_weight = "w" in inspect.signature(one.learn_one).parameters
        return model

    def _rows(self, hashed: Iterable[NDArray[np.uint32]]) -> Iterable[dict[int, float]]:
        zeros = dict.fromkeys(range(1 << self.settings.bits), 0.0) if self.settings.dense else {}
        for indices in self._indices(hashed):
            yield zeros | dict.fromkeys(indices.tolist(), self._value(len(indices)))

    def _score(self, row: dict[int, float], n_labels: int) -> Sequence[float] | NDArray[np.float64]:
        scores = np.zeros(n_labels)
        try:
            for label, score in _answer(self._model.predict_proba_one(row)).items():
                if label < n_labels:
                    scores[label] = score
        except (NotImplementedError, AttributeError) as error:  # it has no probabilities
            if isinstance(error, AttributeError) and hasattr(self._model, "predict_proba_one"):
                raise
            label = _answer(self._model.predict_one(row))
            if label is not None:
                scores[label] = 1
        return scores

    def _learn(self, row: dict[int, float], target: int, weight: float) -> None:
        if self._takes_weight:
            self._model.learn_one(row, target, w=weight)
            return
        for _ in range(self._times(target, weight)):
            self._model.learn_one(row, target)


def _answer(given: Any) -> Any:
    """Return what a model of River's says; its active learners say in a second place whether they want the label."""
    return given[0] if isinstance(given, tuple) else given
