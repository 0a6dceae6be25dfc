"""How does a model of another library learn from our texts?

`river:`, `sklearn:` and `class:` models behind the `Classifier` protocol (named.py finds them), and those that a file
builds (model_file.py). A text and its fields become hashed words, pairs, categories and bins, each an index under
2**bits. Or the text stays as it is for a model that takes texts (`text.raw`: without its fields), or dicts with a text
in them (`text.fields`). A label is its column's number, so nothing of ours depends on how Python hashes
text. Texts are scored and learned one by one, so a batch is exactly a loop. What a foreign model gives back is not
believed: what is not a probability becomes one, and an error of its own is a text not learned.

Its state is a pickle, which runs any code when it is opened: `models.build` refuses these models, and `load_state`
refuses to open a state, unless the operator allowed it. Its memory is its own affair, bounded by 2**bits features and
`max_labels` labels alone; one that takes texts has only the latter bound.
"""

import logging
import sys
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.explain.sketch import Sketch, is_due, new_sketch, note, sketch_of, sketch_state
from driftline.learner.explain.traced import Feature
from driftline.learner.foreign.model_file import ModelFile
from driftline.learner.foreign.named import Named, check_allowed
from driftline.learner.foreign.pickles import dumps, loads
from driftline.learner.foreign.settings import ForeignSettings, option_name
from driftline.learner.models.classifier import Classifier, Scores, State, options_set
from driftline.learner.text.features import features
from driftline.stream.errors import ConfigError, StateError
from driftline.stream.wire.fielded import split
from driftline.stream.words import counted

MAX_REPEATS: Final = 64  # of one label, whatever its weight: as for `linear`
LEAST: Final = 1e-30  # of a known label: only a label that was not known has exactly 0
SKETCH_BITS: Final = 20  # a sketch of more places would be larger than most models
ARGUMENT_NAMED: Final = {"classifier": "argument.classifier"}  # in a configuration: there it is the model's own name
_TRIED: Final = ("one text", "another")
_DRAWS: Final = 32  # times two texts: enough for nearly anything that is drawn to differ
_HINT: Final = "; if it takes texts, add text.raw=1, and if it takes dicts with a text in them, text.fields=1"
TEXT: Final = "text"  # the text's name in such a dict
REFUSED, LEARNED = 0, 1  # places in counters
_LOG: Final = logging.getLogger(__name__)


class Adapter(Classifier):
    """A foreign model. Not thread-safe."""

    settings: ForeignSettings
    _sketch: Sketch

    def __init__(
        self,
        made_by: Named | ModelFile,
        settings: ForeignSettings,
        allow_pickle: bool,
    ) -> None:
        self.settings, self._made_by, self._allow_pickle = settings, made_by, allow_pickle
        self._name = made_by.name
        options = {
            option_name(name): value if isinstance(value, str) else int(value)
            for name, value in options_set(settings).items()
        }
        query = "&".join(f"{name}={value}" for name, value in (options | dict(made_by.arguments)).items())
        self.spec = f"{self._name}?{query}" if query else self._name
        self._set_labels([], settings.max_labels)
        self._known: NDArray[np.uint8] = np.zeros(self.max_labels, np.uint8)
        self._counters: NDArray[np.int64] = np.zeros(2, np.int64)
        self._owed: NDArray[np.float64] = np.zeros(self.max_labels)  # of each label, weight that is not yet learned
        self._sketch = new_sketch(1 << min(settings.bits, SKETCH_BITS))
        self._complained = False
        self._model = self._try_out()

    def _try_out(self) -> Any:
        """Return a new model, after another one has shown that it takes what it will get."""
        with self._quiet():
            try:
                self._model = self._make()
                for target, row in enumerate(self._inputs(_TRIED, self._hashed(_TRIED))):
                    self._learn(row, target, 1.0)
                    self._score(row, 2)
            except ConfigError:
                raise
            except Exception as error:
                what, hint = ("text", "") if self._is_raw else ("hashed text", _HINT)
                raise ConfigError(f"{self.spec} cannot learn and score {what}: {error}{hint}") from error
            try:
                loads(dumps(self._model))
            except Exception as error:
                raise ConfigError(
                    f"{self.spec} cannot be kept: it has learned something that no pickle holds, or that cannot be "
                    f"opened again: {error}"
                ) from error
            if isinstance(self._made_by, ModelFile) and self._draws():
                raise ConfigError(
                    f"{self.spec} is not the same model twice: it learned the same texts two times, and differs. "
                    "Give all in it that draws random numbers a seed; a replay could not make it again"
                )
            return self._make()

    def _draws(self) -> bool:
        """Tell whether two new models that learn the same differ: something in them is drawn, and has no seed."""
        found = []
        for _ in range(2):
            self._model = self._make()
            for n, row in enumerate([*self._inputs(_TRIED, self._hashed(_TRIED))] * _DRAWS):
                with suppress(Exception):  # as when it is at work: what it refuses is not learned
                    self._learn(row, int(n % 4 == 1), 1.0)
            found.append(dumps(self._model))
        return found[0] != found[1]

    @property
    def n_refused(self) -> int:
        """How many labels met a score that was no number, an error of the model, or a weight that was none."""
        return int(self._counters[REFUSED])

    def score_and_learn(self, texts: Sequence[str], targets: NDArray[np.int32], weights: NDArray[np.float32]) -> Scores:
        """Score each text, then learn it where it has a target; see `Classifier`."""
        scores = np.zeros((len(texts), len(self.labels)), np.float32)
        with self._quiet():
            hashed = self._hashed(texts)
            rows = zip(hashed, self._inputs(texts, hashed), targets.tolist(), weights.tolist(), scores, strict=True)
            for found, row, target, weight, out in rows:
                sound = self._write_scores(row, out)
                if target >= 0:
                    learned = self._learn_row(row, target, weight)
                    if learned and is_due(self._sketch):
                        note(found, len(found), self._sketch)
                    self._counters[REFUSED] += not (learned and sound)
        return scores

    def _write_scores(self, row: Any, out: NDArray[np.float32]) -> bool:
        """Write the probabilities of known labels, equal ones where the model gives none. Returns whether it did."""
        known = np.flatnonzero(self._known[: len(out)])
        if not len(known):
            return True
        try:
            given = np.asarray(self._score(row, len(out)), np.float64)[known]
        except Exception as error:  # noqa: BLE001, RUF100  (whatever it is, it must not end the stream)
            self._complain("score", error)
            given = np.full(len(known), np.nan)
        total = given.sum()
        sound = bool(np.isfinite(total) and (given >= 0).all())
        if not sound:
            self._complain("score", ValueError("its scores are not finite, or negative"))
        if sound and total > 0:
            out[known] = np.maximum(given / total, LEAST)
        else:
            out[known] = 1 / len(known)
        return sound

    def _learn_row(self, row: Any, target: int, weight: float) -> bool:
        if not 0 < weight < np.inf:
            return False
        try:
            self._learn(row, target, min(weight, MAX_REPEATS))
        except Exception as error:  # noqa: BLE001, RUF100  (as above)
            self._complain("learn", error)
            return False
        self._known[target] = 1
        self._counters[LEARNED] += 1
        return True

    def _times(self, target: int, weight: float) -> int:
        """Return how often a model that knows no weights learns a text now.

        Whole times; what is over is owed to the label, and counts with its next texts: four of a quarter are one. The
        first text of a label is learned once at least, or the label would be known and nothing of it.
        """
        self._owed[target] += weight
        times = max(int(self._owed[target]), int(not self._known[target]))
        self._owed[target] -= times
        return times

    def _complain(self, what: str, error: Exception) -> None:
        if not self._complained:
            _LOG.warning("%s could not %s a text: %r; such texts are counted only", self.spec, what, error)
            self._complained = True

    def _hashed(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Return each text's features."""
        found, starts = features(texts, self.settings)
        return [found[start:stop] for start, stop in pairwise(starts)]

    def _inputs(self, texts: Sequence[str], hashed: Iterable[NDArray[np.uint32]]) -> Iterable[Any]:
        """Give what the model gets of each text."""
        return map(self._raw, texts) if self._is_raw else self._rows(hashed)

    @property
    def _is_raw(self) -> bool:
        return self.settings.raw or self.settings.fields

    def _raw(self, whole: str) -> Any:
        """Return a text as a model that takes texts gets it: cut as ours are, and half a surrogate pair is a `?`."""
        text, fields = split(whole)
        text = self._cut(text)
        return {**fields, TEXT: text} if self.settings.fields else text

    def _cut(self, text: str) -> str:
        most, tail = self.settings.max_chars, self.settings.tail_chars
        if len(text) > most:
            text = f"{text[: most - tail - 1]} {text[-tail:]}" if tail else text[:most]
        return text if text.isascii() else text.encode("utf-8", "replace").decode()

    def _indices(self, hashed: Iterable[NDArray[np.uint32]]) -> Iterable[NDArray[np.uint32]]:
        """Give the places of each text's features, under 2**bits, in order, each once."""
        return (np.unique(found >> np.uint32(32 - self.settings.bits)) for found in hashed)

    def _value(self, n: int) -> float:
        return float(1 / np.sqrt(n)) if self.settings.norm and n else 1.0

    def _quiet(self) -> AbstractContextManager[Any]:
        """Give what keeps the model's arithmetic from warning: its results are looked at anyway."""
        return np.errstate(all="ignore")

    def _reach(self, feature: Feature) -> int:
        """Return 1: a foreign model has one place for a feature, whatever the number of labels."""
        del feature
        return 1

    # What the libraries differ in.

    @abstractmethod
    def _make(self) -> Any:
        """Return a new model."""

    @abstractmethod
    def _rows(self, hashed: Iterable[NDArray[np.uint32]]) -> Iterable[Any]:
        """Give each text's features as the model takes them."""

    @abstractmethod
    def _score(self, row: Any, n_labels: int) -> Sequence[float] | NDArray[np.float64]:
        """Return what the model gives each of the first labels."""

    @abstractmethod
    def _learn(self, row: Any, target: int, weight: float) -> None:
        """Let the model learn."""

    # What is kept.

    def config(self) -> dict[str, Any]:
        """Return every setting of ours, and the arguments that were given."""
        ours = {option_name(name): value for name, value in asdict(self.settings).items()}
        arguments = {ARGUMENT_NAMED.get(name, name): value for name, value in self._made_by.arguments.items()}
        return {**self._made_by.config(), **ours, **arguments}

    def state(self) -> State:
        """Return the model as a pickle's bytes, and what is kept beside it."""
        package = self._made_by.package
        content = (f"{package} {_version(package)}", self._model)
        return {
            "pickle": np.frombuffer(dumps(content), np.uint8),
            "known": self._known,
            "counters": self._counters,
            "owed": self._owed,
            **sketch_state(self._sketch),
        }

    def load_state(self, state: State, labels: Sequence[str]) -> None:
        """Open the pickle, where that was allowed."""
        check_allowed(self._name, self._allow_pickle)
        if len(labels) > self.max_labels:
            raise StateError(f"{self._name}: {counted(len(labels), 'label')}, but max_labels is {self.max_labels}")
        taken = {}
        kept: State = {"known": self._known, "counters": self._counters, "owed": self._owed}
        before: State = {"owed": np.zeros_like(self._owed)}  # what was, until it was kept
        for name, own in (kept | sketch_state(self._sketch)).items():
            given = (before | state).get(name)
            if given is None or given.shape != own.shape or given.dtype != own.dtype:
                found = "nothing" if given is None else f"{given.dtype} {list(given.shape)}"
                raise StateError(f"{self._name}: array {name!r} must be {own.dtype} {list(own.shape)}, but is {found}")
            taken[name] = given.copy()
        content = state.get("pickle")
        if content is None or content.dtype != np.uint8 or content.ndim != 1:
            raise StateError(f"{self._name}: array 'pickle' is missing, or not bytes")
        try:
            written_by, model = loads(content.tobytes())
        except Exception as error:
            raise StateError(
                f"{self._name}: array 'pickle' cannot be opened: it is damaged, or of another version: {error!r}"
            ) from error
        if type(model) is not type(self._model):
            raise StateError(f"{self._name}: array 'pickle' holds a {type(model).__name__}")
        package = self._made_by.package
        here = f"{package} {_version(package)}"
        if written_by != here:
            _LOG.warning("%s was written by %s and is read by %s: it may learn otherwise", self.spec, written_by, here)
        self._model, self._known, self._counters = model, taken["known"], taken["counters"]
        self._owed = taken["owed"]
        self._sketch = sketch_of(taken)
        self._set_labels(labels, self.max_labels)


def _version(package: str) -> str:
    return str(getattr(sys.modules.get(package), "__version__", "?"))
