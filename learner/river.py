"""How does one of our classifiers run inside River?

`RiverClassifier("linear?bits=20")` is a `river.base.Classifier`: it runs in River's `evaluate.progressive_val_score`,
as the last step of a River pipeline, and passes River's own `check_estimator`. It takes texts, or dicts with one.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from river import base

from driftline.learner.registry import make_classifier
from driftline.stream.errors import BadRecord
from driftline.stream.wire.fielded import END, join

_NO_WORD: Final = re.compile(r"\W")


class RiverClassifier(base.Classifier):
    """One of Driftline's classifiers as one of River's.

    Parameters
    ----------
    spec
        As on Driftline's command line: `linear`, `linear?bits=20&chars=0`.
    on
        A dict with a string under this name is that text, and what else is in it are its fields (strings, numbers,
        booleans, lists of strings). Any other dict becomes a text, a word for each entry in the order of the names:
        {"size": 2.5, "colour": "red"} is "colour_red size_2_5". So a number is a word like any other, near no other
        number: this is for texts.

    Examples
    --------
    >>> model = RiverClassifier("linear?bits=18")
    >>> model.learn_one("win a prize", "spam")
    >>> model.learn_one({"text": "lunch at noon"}, "ham")
    >>> model.predict_one("a prize")
    'spam'
    """

    def __init__(self, spec: str = "linear", on: str = "text") -> None:
        self.spec = spec
        self.on = on
        self._classifier = make_classifier(spec)
        # Ours are strings; River's are as they first came, and equal ones are one: 1, 1.0 and True, but not "1".
        self._names: dict[base.typing.ClfTarget, str] = {}
        self._labels: dict[str, base.typing.ClfTarget] = {}

    @property
    def _multiclass(self) -> bool:
        return True

    def _more_tags(self) -> set[str]:
        return {base.tags.TEXT_INPUT}

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        yield {"spec": "linear?bits=12&max_labels=20"}

    def learn_one(self, x: Any, y: base.typing.ClfTarget, w: float = 1.0) -> None:
        """Learn a text, or a dict, with its label, `w` times over; more than 64 times count as 64, 0 is nothing.

        Raises
        ------
        ValueError : `w` is negative, infinite or no number
        """
        if not 0 <= w < math.inf:
            raise ValueError(f"w={w}: a weight must be 0 or more, and finite")
        if w == 0:
            return
        label = self._names[y] if y in self._names else self._new_name(y)
        self._classifier.learn_one(self._text(x), label, w)
        self._names[y] = label
        self._labels.setdefault(label, y)

    def predict_proba_one(self, x: Any, **kwargs: Any) -> dict[base.typing.ClfTarget, float]:
        """Return the probability of each label that was learned."""
        del kwargs
        scores = self._classifier.predict_proba_one(self._text(x))
        total = sum(scores.values()) or 1.0  # they are of 32 bits, and sum to 1 within these
        return {self._labels[label]: score / total for label, score in scores.items() if label in self._labels}

    def _new_name(self, y: base.typing.ClfTarget) -> str:
        value = y.item() if isinstance(y, np.generic) else y
        name = value if isinstance(value, str) else repr(value)
        while name in self._labels:  # of another one: 1 and "1"
            name += "'"
        return name

    def _text(self, x: Any) -> str:
        if isinstance(x, str):
            return x.replace(END, " ")  # to a classifier of ours it would end the text (wire/fielded.py)
        if not isinstance(x, Mapping):
            raise TypeError(f"a text or a dict is needed, not {type(x).__name__}")
        text = x.get(self.on)
        if isinstance(text, str):
            values = {str(name): _plain(value) for name, value in x.items() if name != self.on}
            try:
                return join(text.replace(END, " "), values)
            except BadRecord as bad:
                raise ValueError(bad.detail) from None
        return " ".join(sorted(_NO_WORD.sub("_", f"{name}_{value}") for name, value in x.items()))

    def __getstate__(self) -> dict[str, Any]:
        state = {name: array.copy() for name, array in self._classifier.state().items()}
        kept = {name: value for name, value in vars(self).items() if name != "_classifier"}
        return kept | {"_classifier": (state, list(self._classifier.labels))}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        state, labels = kept["_classifier"]
        vars(self).update(kept)
        self._classifier = make_classifier(self.spec)
        self._classifier.load_state(state, labels)


def _plain(value: Any) -> Any:
    """Return a number of NumPy's as one of Python's."""
    return value.item() if isinstance(value, np.generic) else value
