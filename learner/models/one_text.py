"""How is one text scored soonest?

What a batch needs first, its texts in one array, arguments for the kernel, room for the scores, takes two to four times
as long as to score a short text. So all of that is made once, and a text is written into the room that is there.
The classifier's arrays may change in between; once it has others (`load_state`), there must be another `OneTextScorer`.
"""

from typing import Any, Final

import numba
import numpy as np
from numba._dispatcher import compute_fingerprint

from driftline.learner.models.classifier import Classifier
from driftline.learner.text.forms import load_forms
from driftline.learner.text.normal import is_odd
from driftline.stream.texts import PADDING, Texts

_ENTRIES: Final[dict[tuple[Any, bytes], Any]] = {}  # a few for each kind of classifier
MAX_BYTES: Final = 1 << 16  # of a text in UTF-8; only what a text needs of it is ever touched


class OneTextScorer:
    """Scores one text at a time, as `Classifier.predict_proba_many` does. One thread, the classifier's."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        settings = classifier.settings
        self._most = min(settings.max_chars, MAX_BYTES) if settings.tail_chars else MAX_BYTES  # of what need not be cut
        room, starts = np.zeros(MAX_BYTES + PADDING, np.uint8), np.zeros(2, np.int64)
        codes = room.view()
        codes.flags.writeable = False  # the kernels are compiled for such
        self._room, self._starts, self._codes = room.data, starts.data, codes
        self._forms = load_forms() if settings.hashing > 1 else None
        self._scores = np.zeros((1, len(classifier.labels)), np.float32)
        target, weight = np.full(1, -1, np.int32), np.ones(1, np.float32)
        call = classifier.call(Texts(codes, starts), target, weight, self._scores)
        self._kernel: Any = None if call is None else _entry(*call)
        self._arguments: tuple[Any, ...] = () if call is None else call[1]

    def __call__(self, text: str) -> list[float]:
        """Return the score of each label."""
        if self._classifier.embedder is not None:
            text = self._classifier.complete([text])[0]
        encoded = text.encode("utf-8", "surrogatepass")
        size = len(encoded)
        if self._kernel is None or size > self._most:
            return self._classifier.predict_proba_many([text])[0].tolist()  # type: ignore[no-any-return]
        self._room[:size] = encoded
        if self._forms is not None and not text.isascii() and is_odd(self._codes, 0, size, self._forms):
            return self._classifier.predict_proba_many([text])[0].tolist()  # type: ignore[no-any-return]
        self._starts[1] = size
        self._scores.fill(0)
        self._kernel(*self._arguments)
        return self._scores[0].tolist()  # type: ignore[no-any-return]


def _entry(kernel: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what a kernel calls for arguments of these types: to find it takes as long as to score a short text."""
    key = kernel, compute_fingerprint(arguments)
    entry = _ENTRIES.get(key)
    if entry is None:
        kernel(*arguments)
        compiled = kernel.overloads.get(tuple(map(numba.typeof, arguments)))  # this takes a millisecond
        entry = _ENTRIES[key] = kernel if compiled is None else compiled.entry_point
    return entry
