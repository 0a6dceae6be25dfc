"""What is a classifier?

Something that scores texts and learns labels, one after another. The whole of it is one method, `score_and_learn`:
texts in their order, some with a label; each text is scored by the model as it stands at that moment, then, where it
has a label, learned. So a call over a batch means exactly a loop of calls over its texts, wherever the batch is cut,
and test-then-train costs one pass. River's names are made of it below.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from driftline.learner.embed.completed import completed
from driftline.learner.embed.embedder import Embedder
from driftline.learner.explain.explain import Explanation, Step, explain
from driftline.learner.explain.parts import Hashed, Part
from driftline.learner.explain.sketch import Mark, Sketch, look_up
from driftline.learner.explain.trace import trace
from driftline.learner.explain.traced import Feature
from driftline.learner.models.rehearsal import Rehearsal, Rows, as_they_are, interleaved, plan
from driftline.learner.text.features import TextSettings, read
from driftline.stream.errors import DriftlineError, StateError

Scores = NDArray[np.float32]  # [n_texts, n_labels], rows sum to 1, or to 0 while no label was known
State = dict[str, NDArray[Any]]
Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a kernel, and its arguments
_NO_TARGET: NDArray[np.int32] = np.full(1, -1, np.int32)  # of one text, and its weight; only read
_NO_WEIGHT: NDArray[np.float32] = np.ones(1, np.float32)


class TooManyLabels(DriftlineError):
    """A label beyond `max_labels`; the model keeps those that it has."""


def options_set(settings: Any) -> dict[str, Any]:
    """Return the fields of a settings object that are not at their defaults."""
    fields = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {name: value for name, value in fields.items() if value != type(settings).__dataclass_fields__[name].default}


def spec_of(name: str, options: Mapping[str, Any]) -> str:
    """Return the specification, `name?option=value&option=value`, that stands for a classifier with these options."""
    values = (f"{option}={int(value) if isinstance(value, bool) else value}" for option, value in options.items())
    return f"{name}?{'&'.join(values)}" if options else name


class Classifier(ABC):
    """Scores and learns texts. Not thread-safe: one writer; readers have a copy of their own (see snapshot.py)."""

    # Arrays of `state` that a reader may score by while the writer changes them (snapshot.py): only numbers, on which
    # no index, no loop's end and no label depends. `load_state` keeps these as they are, and a score changes none.
    tables: ClassVar[frozenset[str]] = frozenset()
    # Arrays of `state` that only learning looks at: they are not published, a reader has zeros for them.
    steps: ClassVar[frozenset[str]] = frozenset()

    # Whether a label's column can be cleared, for another label to have it (label_places.py).
    gives_places: ClassVar[bool] = False

    # How many numbers vectors have that it learns from where they come with texts (vectors/sent.py); 0: from none.
    dimension: int = 0

    spec: str  # what `make_classifier` builds it from; options at their defaults left out
    labels: list[str]  # in the order in which each was first learned; a column of the scores each
    columns: dict[str, int]  # of the labels
    max_labels: int
    settings: TextSettings = TextSettings()  # which features its texts are turned into
    embedder: Embedder | None = None  # what gives texts vectors, in the classifiers that go by such
    embed_rate: int = 0  # texts that get one in a second of the log's time; 0: all
    _sketch: Sketch | None = None  # what was learned where, in the classifiers that keep it

    @property
    def n_refused(self) -> int:
        """How many labels it was given and could not learn."""
        return 0

    @abstractmethod
    def score_and_learn(self, texts: Sequence[str], targets: NDArray[np.int32], weights: NDArray[np.float32]) -> Scores:
        """Score each text, then learn it where it has a target.

        Parameters
        ----------
        texts : n strings, as `complete` returns them
        targets : int32 [n], the label's column (from `label_index`), or -1: score only
        weights : float32 [n], how many times over a label counts; more than MAX_REPEATS (64) count as that. A text with
            one that is not finite and above 0 is scored only, and counted in `n_refused`.

        Returns
        -------
        scores : float32 [n, len(self.labels)], from before the text's own label was learned. A label that was not
            known at that moment has 0; a row is all 0 while none was.
        """

    def call(
        self, texts: Sequence[str], targets: NDArray[np.int32], weights: NDArray[np.float32], scores: Scores
    ) -> Call | None:
        """Return the kernel and the arguments by which `score_and_learn` scores texts; None where there is no kernel.

        They hold until the next `load_state`, whatever is written into the texts and scores in between.
        """
        del texts, targets, weights, scores
        return None

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return every setting as JSON types, for `build`: a later version's defaults must not change a checkpoint."""

    @abstractmethod
    def state(self) -> State:
        """Return every array that the model consists of. They are the model's own: copy before learning on."""

    @abstractmethod
    def load_state(self, state: State, labels: Sequence[str]) -> None:
        """Take over arrays as `state` gave them, and the labels. It may keep them; those in `tables` it must."""

    def _checked(self, state: State, labels: Sequence[str]) -> State:
        """Return arrays that may be taken over, copying only those that are not laid out as the kernels need them.

        Raises
        ------
        StateError : an array is missing or of another shape or type, or the labels do not fit.
        """
        name_of_model = self.spec.partition("?")[0]
        taken: State = {}
        for name, own in self.state().items():
            given = state.get(name)
            if given is None or given.shape != own.shape or given.dtype != own.dtype:
                found = "nothing" if given is None else f"{given.dtype} {list(given.shape)}"
                raise StateError(
                    f"{name_of_model}: array {name!r} must be {own.dtype} {list(own.shape)}, but is {found}"
                )
            taken[name] = np.asarray(np.require(given, own.dtype, ["C", "A", "W"]))
        if len(labels) > self.max_labels or not 0 <= taken["counters"][0] <= len(labels):
            raise StateError(
                f"{name_of_model}: {len(labels)} labels fit neither max_labels={self.max_labels} nor the arrays"
            )
        return taken

    def complete(self, texts: Sequence[str], threads: int | None = None) -> Sequence[str]:
        """Return texts with all that the model goes by: a vector, where it has a sentence model. Any thread.

        What is complete stays as it is. Whoever may not be held up has this done apart: it takes a millisecond a text.

        Parameters
        ----------
        threads : that may be used for it; None: as many as there are processors
        """
        return texts if self.embedder is None else completed(texts, partial(self.embedder.vectors, threads=threads))

    # What explains a text (explain.py). The defaults are those of a classifier that cannot be looked into.

    def trace(self, text: str) -> list[Feature]:
        """Return the features of a text with their places."""
        return trace(text, self.settings)

    def part(self, hashed: Hashed) -> Part | None:
        """Return the log scores of a text's labels taken apart by its features; None where they are no such sum."""
        del hashed
        return None

    def path(self, features: Sequence[Feature]) -> list[Step]:
        """Return what was asked of a text before the sum was chosen that `part` gives."""
        del features
        return []

    def mark(self, feature: Feature) -> Mark | None:
        """Return whether a feature was learned, and whether its slots are shared; None where that is not kept."""
        return None if self._sketch is None else look_up(self._sketch, feature.hash, self._reach(feature))

    def _reach(self, feature: Feature) -> int:
        """Return how near another place must be so that its slots and this feature's meet."""
        del feature
        return len(self.labels)

    def knows(self, label: str) -> bool:
        """Tell whether a label has a column."""
        return label in self.columns

    def label_index(self, label: str) -> int:
        """Return a label's column, making one for a new label. Raises TooManyLabels."""
        index = self.columns.get(label)
        if index is None:
            if len(self.labels) >= self.max_labels:
                raise TooManyLabels(
                    f"label {label!r} would be number {len(self.labels) + 1}, but max_labels is {self.max_labels}"
                )
            index = self.columns[label] = len(self.labels)
            self.labels.append(label)
        return index

    def imprint(self, text: str) -> NDArray[np.uint32]:
        """Return what `clear` has to know of a text that a label was learned with. Any thread, one at a time.

        uint32 [1 + n]: how many of its features are words, pairs or of its shape; then the features, these first.
        """
        raise NotImplementedError(f"{self.spec} gives no places")

    def clear(self, column: int, imprints: Sequence[NDArray[np.uint32]]) -> None:
        """Make a label unknown, as if it had never been learned; nothing may be learned at that time.

        What it has for itself goes: what it was learned with from the features of these texts, its share, its factor.
        Other labels keep what they learned of those texts.
        """
        raise NotImplementedError(f"{self.spec} gives no places")

    def rename(self, column: int, label: str) -> None:
        """Give a column that was cleared to another label."""
        del self.columns[self.labels[column]]
        self.columns[label] = column
        self.labels[column] = label

    def _set_labels(self, labels: Sequence[str], max_labels: int) -> None:
        self.labels = list(labels)
        self.max_labels = max_labels
        self.columns = {label: index for index, label in enumerate(self.labels)}

    # River's names, and the batch forms.

    def learn_many(self, texts: Sequence[str], labels: Sequence[str], weights: Sequence[float] | None = None) -> None:
        """Learn texts with their labels, in order.

        Raises
        ------
        TooManyLabels : what came before that label was learned, as by a loop of `learn_one`.
        ValueError : there are not as many of one as of the others.
        """
        used = np.ones(len(texts), np.float32) if weights is None else np.asarray(weights, np.float32)
        if len(labels) != len(texts) or used.shape != (len(texts),):
            raise ValueError(
                f"{len(texts)} texts, {len(labels)} labels and {used.size} weights: as many of each are needed"
            )
        targets: list[int] = []
        try:
            targets.extend(map(self.label_index, labels))
        finally:  # also where one label was too many
            n = len(targets)
            self.score_and_learn(self.complete(texts[:n]), np.array(targets, np.int32), used[:n])

    def predict_proba_many(self, texts: Sequence[str]) -> Scores:
        """Return the scores of texts; changes nothing."""
        texts = self.complete(texts)
        if len(texts) == 1:
            return self.score_and_learn(texts, _NO_TARGET, _NO_WEIGHT)
        return self.score_and_learn(texts, np.full(len(texts), -1, np.int32), np.ones(len(texts), np.float32))

    def predict_many(self, texts: Sequence[str]) -> list[str | None]:
        """Return the best label of each text, or None while no label is known."""
        scores = self.predict_proba_many(texts)
        if not self.labels:
            return [None] * len(texts)
        best = scores.argmax(axis=1).tolist()
        return [self.labels[at] if row[at] > 0 else None for at, row in zip(best, scores, strict=True)]

    def learn_one(self, text: str, label: str, weight: float = 1.0) -> None:
        """Learn one text with its label."""
        self.learn_many([text], [label], [weight])

    def predict_proba_one(self, text: str) -> dict[str, float]:
        """Return the score of each known label."""
        return dict(zip(self.labels, self.predict_proba_many([text])[0].tolist(), strict=True))

    def predict_one(self, text: str) -> str | None:
        """Return the best label, or None while no label is known."""
        return self.predict_many([text])[0]

    def explain_one(self, text: str, labels: Sequence[str] | None = None, n_features: int = 20) -> Explanation:
        """Tell which words and n-grams spoke for which label, and by how much; changes nothing.

        Parameters
        ----------
        labels : those to be explained; None: the three best
        n_features : how many to list, those first that say most of the first label

        Raises
        ------
        UnknownLabel : a label was never learned
        ConfigError : n_features is negative
        """
        return explain(self, self.complete([text])[0], labels, n_features)


class Compiled(Classifier):
    """A classifier of which one call of a kernel is all there is to it."""

    _rehearsal: Rehearsal | None = None  # where it learns by gradients, and so forgets

    def score_and_learn(self, texts: Sequence[str], targets: NDArray[np.int32], weights: NDArray[np.float32]) -> Scores:
        """Score each text, then learn it where it has a target; see `Classifier`."""
        rows = as_they_are(targets, weights) if self._rehearsal is None else plan(self._rehearsal, targets, weights)
        scores = np.zeros((len(rows.targets), len(self.labels)), np.float32)
        if len(rows.targets) > len(targets):
            texts = interleaved(read(texts, self.settings), rows)
        kernel, arguments = self.call_rows(texts, rows, scores)
        kernel(*arguments)
        return scores if len(scores) == len(targets) else scores[rows.targets >= -1]

    def call(
        self, texts: Sequence[str], targets: NDArray[np.int32], weights: NDArray[np.float32], scores: Scores
    ) -> Call:
        """Return the kernel and its arguments; see `Classifier`."""
        return self.call_rows(texts, as_they_are(targets, weights), scores)

    @abstractmethod
    def call_rows(self, texts: Sequence[str], rows: Rows, scores: Scores) -> Call:
        """Return the kernel and its arguments, for texts among which some that are rehearsed may stand."""
