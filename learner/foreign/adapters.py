"""How does a model of another library learn from our texts?

`river:`, `sklearn:` and `class:` models behind the `Classifier` protocol (named.py finds them), and those that a file
builds (model_file.py). A text becomes hashed words and pairs, each an index under 2**bits, or stays as it is for a
model that takes texts (`text.raw`); a label is its column's number, so nothing of ours depends on how Python hashes
text. Texts are scored and learned one by one, so a batch is exactly a loop. What a foreign model gives back is not
believed: what is not a probability becomes one, and an error of its own is a text not learned.

Its state is a pickle, which runs any code when it is opened: `models.build` refuses these models, and `load_state`
refuses to open a state, unless the operator allowed it. Its memory is its own affair, bounded by 2**bits features and
`max_labels` labels alone; one that takes texts has only the latter bound.
"""

import inspect
import io
import logging
import pickle
import random
import sys
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.explain.sketch import Sketch, is_due, new_sketch, note, sketch_of, sketch_state
from driftline.learner.explain.trace import Feature
from driftline.learner.foreign.model_file import DIGEST, SOURCE, ModelFile
from driftline.learner.foreign.named import FILE, LIBRARIES, Named, check_allowed, parse
from driftline.learner.models.classifier import Classifier, Scores, State, options_set
from driftline.learner.text.features import TextSettings, features
from driftline.stream.errors import ConfigError, StateError
from driftline.stream.words import counted

MAX_REPEATS: Final = 64  # of one label, whatever its weight: as for `linear`
LEAST: Final = 1e-30  # of a known label: only a label that was not known has exactly 0
SKETCH_BITS: Final = 20  # a sketch of more places would be larger than most models
ARGUMENT_NAMED: Final = {"classifier": "argument.classifier"}  # in a configuration: there it is the model's own name
TEXT: Final = "text."  # before our options' names, so that none hides an argument of the model
_TRIED: Final = ("one text", "another")
_DRAWS: Final = 32  # times two texts: enough for nearly anything that is drawn to differ
_HINT: Final = "; if it takes texts, add text.raw=1"
REFUSED, LEARNED = 0, 1  # places in counters
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ForeignSettings(TextSettings):
    """Which features a foreign model gets, and how many labels. On the command line all but the last after `text.`."""

    chars: bool = False  # these models take a microsecond or more for each feature
    max_features: int = 4096
    bits: int = 18  # 2**bits features
    norm: bool = False  # each value 1 / sqrt(their number), not 1
    raw: bool = False  # no features: the text itself
    dense: bool = False  # zeros too, not only what occurs: a tree of River sees no other way what is absent
    max_labels: int = 64

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if not 1 <= self.bits <= 30:
            raise ConfigError(f"text.bits={self.bits}: it must be 1 to 30")
        if self.dense and self.bits > 16:
            raise ConfigError(f"text.bits={self.bits}: with text.dense=1 it must be 1 to 16")
        if self.dense and self.raw:
            raise ConfigError("text.raw=1: the model gets the text itself, so there is nothing for text.dense=1 to do")
        if not 1 <= self.max_labels <= 100_000:
            raise ConfigError(f"max_labels={self.max_labels}: it must be 1 to 100000")


@dataclass(frozen=True, kw_only=True)
class PartialFitSettings(ForeignSettings):
    """The same for models that learn by partial_fit: scaled as scikit-learn's HashingVectorizer does."""

    norm: bool = True
    max_labels: int = 16  # each takes its room and its time from the start


def option_name(field: str) -> str:
    """Return how a field of the settings is called in a specification."""
    return field if field == "max_labels" else TEXT + field


def settings_class(prefix: str) -> type[ForeignSettings]:
    """Return the settings of a library's models."""
    return ForeignSettings if prefix in ("river", FILE) else PartialFitSettings


def make_adapter(
    name: str, settings: ForeignSettings, arguments: Mapping[str, Any], *, allow_pickle: bool
) -> "Adapter":
    """Return a new foreign classifier.

    Parameters
    ----------
    name : prefix:module.Class
    settings : ours, of the class that `settings_class` gives
    arguments : of the model's class
    allow_pickle : whether `load_state` may open a pickle

    Raises
    ------
    ConfigError : it cannot be found, made, or taught a hashed text.
    """
    prefix, _, path = name.partition(":")
    kept = {key: value for key, value in arguments.items() if key in (SOURCE, DIGEST)}
    given = {key: parse(key, value) for key, value in arguments.items() if key not in kept}
    if prefix == FILE:
        source, digest = kept.get(SOURCE), kept.get(DIGEST)
        made_by = ModelFile.read(name, given) if source is None else ModelFile(name, str(source), given)
        if digest not in (None, made_by.digest):
            raise ConfigError(f"model {name}: the file's SHA-256 is {made_by.digest}, not {digest}")
        return _kind_of(made_by)(made_by, settings, allow_pickle)
    kind = RiverAdapter if prefix == "river" else PartialFitAdapter
    return kind(Named(LIBRARIES[prefix], path, given), settings, allow_pickle)


def _kind_of(file: ModelFile) -> "type[RiverAdapter | PartialFitAdapter]":
    """Look at a model that a file builds. Raises ConfigError where it is none."""
    model = file.new()
    if callable(getattr(model, "learn_one", None)) and callable(getattr(model, "predict_one", None)):
        return RiverAdapter
    if callable(getattr(model, "partial_fit", None)) and callable(getattr(model, "predict_proba", None)):
        return PartialFitAdapter
    raise ConfigError(
        f"model {file.name}: what it returns, a {type(model).__name__}, must have learn_one and predict_one, as "
        "River's have, or partial_fit and predict_proba, as scikit-learn's"
    )


def warm_up() -> None:
    """Compile what a foreign model's texts are hashed and noted with, or load it compiled."""
    found, _ = features(["a", "e\u0301"], TextSettings())
    sketch = new_sketch(1)
    is_due(sketch)
    note(found, len(found), sketch)


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
        options = {option_name(name): int(value) for name, value in options_set(settings).items()}
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
                what, hint = ("text", "") if self.settings.raw else ("hashed text", _HINT)
                raise ConfigError(f"{self.spec} cannot learn and score {what}: {error}{hint}") from error
            try:
                _Unpickler(io.BytesIO(_dumps(self._model))).load()
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
            found.append(_dumps(self._model))
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
        return map(self._raw, texts) if self.settings.raw else self._rows(hashed)

    def _raw(self, text: str) -> Any:
        """Return a text as a model that takes texts gets it: cut as ours are, and half a surrogate pair is a `?`."""
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
            "pickle": np.frombuffer(_dumps(content), np.uint8),
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
            written_by, model = _Unpickler(io.BytesIO(content.tobytes())).load()
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


def _version(package: str) -> str:
    return str(getattr(sys.modules.get(package), "__version__", "?"))


class _Pickler(pickle.Pickler):
    """The same bytes for the same model, as far as that can be had: whatever was loaded before, and whatever was not.

    - Equal text may be one object or two, and an array's dtype another object once it was loaded: both go by value.
    - River gives each of a tree's many distributions a random generator of its own, 2.5 kB, which nobody seeded or
      uses. They are saved as one, which makes the pickle of a tree thirty times smaller.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self._unseeded = random.Random(0)

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is str:
            return sys.intern(obj)
        if isinstance(obj, np.dtype) and obj.isbuiltin == 1:
            return ("dtype", obj.str)
        return None

    def reducer_override(self, obj: Any) -> Any:
        if type(getattr(obj, "_rng", None)) is random.Random and getattr(obj, "seed", 0) is None:
            new, arguments, state, *rest = obj.__reduce_ex__(5)
            if isinstance(state, dict):
                return (new, arguments, state | {"_rng": self._unseeded}, *rest)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        return sys.intern(pid) if isinstance(pid, str) else np.dtype(pid[1])


def _dumps(content: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file).dump(content)
    return file.getvalue()
