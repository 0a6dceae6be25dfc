"""Which words and n-grams spoke for which label, and by how much?

A classifier whose log score is a sum over features is taken apart exactly (parts.py). One that is not is asked again,
with one word, or field, left out at a time (occlusion), at most MAX_WORDS words: what one adds is what is lost without
it.

Shares are in natural logarithms, over the mean of all known labels: e to the power of the difference of two labels'
shares is the factor by which a feature turned the odds between them. So bias, rest and the shares of all features add
up to the log probability of a label, but for what is the same for every label.
"""

from collections.abc import Sequence
from typing import Final, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.learner.explain.parts import Hashed, Part, slices
from driftline.learner.explain.sketch import Mark
from driftline.learner.explain.traced import Feature, Span
from driftline.stream.errors import ConfigError, DriftlineError
from driftline.stream.wire.fielded import Value, join, split, text_of
from driftline.stream.wire.fields import as_name
from driftline.stream.wire.names import same_name
from driftline.stream.wire.vector import vector_of, with_vector

N_LABELS_SHOWN: Final = 3
MAX_WORDS: Final = 128  # left out, one at a time
LEAST: Final = 1e-30  # a probability below it counts as this much

Shares = NDArray[np.float64]  # [features, labels asked for]


class Explained(Protocol):
    """What is asked of a classifier to explain its scores; see classifier.py."""

    labels: list[str]

    def predict_proba_many(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the scores of texts."""

    def trace(self, text: str) -> list[Feature]:
        """Return the features of a text with their places."""

    def part(self, hashed: Hashed) -> Part | None:
        """Return the log scores of a text's labels taken apart by its features; None where they are no such sum."""

    def path(self, features: Sequence[Feature]) -> "list[Step]":
        """Return what was asked of a text before the sum was chosen that `part` gives."""

    def mark(self, feature: Feature) -> Mark | None:
        """Return whether a feature was learned, and whether its slots are shared; None where that is not kept."""


class UnknownLabel(DriftlineError):
    """A label that was never learned cannot be explained."""


class FeatureShare(msgspec.Struct, frozen=True, kw_only=True):
    """What a feature of a text speaks for."""

    # word, pair (of adjacent words), chars (an n-gram); of the text's shape: case, first, last, amount; of a field:
    # field (its value, a word, a bin), field_pair, cross (a word of the text where the field has a value); vector: all
    # numbers together of the one that came with the text
    kind: str
    text: (
        str  # in lower case, but for case; a space at an end of an n-gram is the edge of a word; of an amount its name
    )
    spans: list[
        Span
    ]  # where it stands in the text: first character, one past the last, in code points; amounts, fields, vectors: []
    field: str | None = None  # the name of the field that it is of
    shares: dict[str, float]  # what it adds to each explained label
    known: bool | None  # it was learned; where it is shared: it may have been; None: this model does not keep it
    shared: bool | None  # others were learned in its slots, so what it adds may be theirs


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A question that a tree asked on the way to a text's leaf."""

    word: str | None  # of a field "name: value"; None: one that the text does not have; the tree knows its hash only
    present: bool


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a text was scored as it was."""

    label: str | None  # the best; None: no label is known
    scores: dict[str, float]  # the probability of each label
    method: Literal["sum", "occlusion"]
    bias: dict[str, float]  # of each explained label, what it has whatever the text; occlusion knows none
    rest: dict[str, float]  # what the features that are not listed add together; the same
    features: list[FeatureShare]  # those that say most of the first explained label first
    n_features: int  # how many there are; with occlusion: how many words were left out in turn
    path: list[Step]  # of a tree, from its root to the leaf whose sum this is


def explain(classifier: Explained, text: str, labels: Sequence[str] | None, n_features: int) -> Explanation:
    """Explain a text's scores; see `Classifier.explain_one`."""
    if n_features < 0:
        raise ConfigError(f"features={n_features}: it must be 0 or more")
    scores = classifier.predict_proba_many([text])[0]
    known = np.flatnonzero(scores > 0)
    asked = _columns(classifier, scores, labels)
    features = classifier.trace(text) if len(known) else []
    part = classifier.part(hashed(text, features)) if len(known) else None
    if part is not None:
        constant, shares = _sums(part, len(features), known, asked)
    else:
        words = [feature for feature in features if feature.kind == "word"][:MAX_WORDS]
        features = [*words, *_whole_fields(text)]
        shares = _losses(classifier, text, features, known, asked)
    names = [classifier.labels[column] for column in asked]
    order = np.argsort(-np.abs(shares[:, 0]), kind="stable") if len(asked) else np.arange(0)
    listed, others = order[:n_features], order[n_features:]
    return Explanation(
        label=classifier.labels[int(scores.argmax())] if len(known) else None,
        scores=dict(zip(classifier.labels, scores.tolist(), strict=True)),
        method="occlusion" if part is None else "sum",
        bias={} if part is None else dict(zip(names, constant.tolist(), strict=True)),
        rest={} if part is None else dict(zip(names, shares[others].sum(axis=0).tolist(), strict=True)),
        features=[
            _share(classifier, features[index], dict(zip(names, shares[index].tolist(), strict=True)))
            for index in listed.tolist()
        ],
        n_features=len(features),
        path=classifier.path(features) if part is not None else [],
    )


def hashed(text: str, features: Sequence[Feature]) -> Hashed:
    """Return features as classifiers take them."""
    return Hashed(
        text,
        np.fromiter((feature.hash for feature in features), np.uint32, len(features)),
        np.array([feature.kind for feature in features], np.str_),
    )


def _columns(classifier: Explained, scores: NDArray[np.float32], labels: Sequence[str] | None) -> list[int]:
    """Return the columns of the labels asked for, or of the best."""
    if labels is None:
        best = np.argsort(-scores, kind="stable")[:N_LABELS_SHOWN]
        return [column for column in best.tolist() if scores[column] > 0]
    known = {label: column for column, label in enumerate(classifier.labels) if scores[column] > 0}
    labels = [label if label in known else same_name(label) for label in labels]
    for label in labels:
        if label not in known:
            some = ", ".join(list(known)[:10]) + (", ..." if len(known) > 10 else "")
            raise UnknownLabel(f"label {label!r} was never learned; known are: {some or 'none yet'}")
    return [known[label] for label in dict.fromkeys(labels)]


def _sums(part: Part, n: int, known: NDArray[np.int64], asked: list[int]) -> tuple[NDArray[np.float64], Shares]:
    """Return the constant of each label asked for, and what each of n features adds to it, over the mean of all."""

    def over_mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        centred: NDArray[np.float64] = rows[..., asked] - rows[..., known].mean(axis=-1, keepdims=True)
        return centred

    constant = over_mean(part.constant)
    shares = np.zeros((n, len(asked)))
    for at in slices(n, len(part.constant)):
        shares[at] = over_mean(part.rows(at))
    if not (np.isfinite(shares).all() and np.isfinite(constant).all()):  # damaged: then all labels have equal scores
        constant, shares = np.zeros_like(constant), np.zeros_like(shares)
    return constant, shares


def _losses(
    classifier: Explained, text: str, words: list[Feature], known: NDArray[np.int64], asked: list[int]
) -> Shares:
    """Return what each label asked for loses when a word is left out, wherever it stands."""
    if not words:
        return np.zeros((0, len(asked)))
    scores = classifier.predict_proba_many([text, *(_without(text, word) for word in words)])
    logs = np.log(np.maximum(scores.astype(np.float64), LEAST))
    logs -= logs[:, known].mean(axis=1, keepdims=True)
    lost: Shares = logs[0, asked] - logs[1:, asked]
    return lost


def _whole_fields(text: str) -> list[Feature]:
    """Return a feature for each of a text's fields: what is left out of it at once."""
    return [Feature(0, "field", shown(value), [], name) for name, value in split(text)[1].items()]


def shown(value: Value) -> str:
    """Return a field's value as one line."""
    return ", ".join(value) if isinstance(value, list) else as_name(value)


def _without(whole: str, word: Feature) -> str:
    """Return a text without a field, or with spaces in place of a word, as long as it was: so what else is read of it
    is the same.
    """
    if word.field:
        text, fields = split(whole)
        left = join(text, {name: value for name, value in fields.items() if name != word.field})
        vector = vector_of(whole)
        return left if vector is None else with_vector(left, vector)
    text = text_of(whole)
    stops = [0, *(stop for _, stop in word.spans)]
    starts = [*(start for start, _ in word.spans), len(text)]
    kept = [text[stop:start] for stop, start in zip(stops, starts, strict=True)]
    gaps = [" " * (stop - start) for start, stop in word.spans]
    return "".join(part for pair in zip(kept, [*gaps, ""], strict=True) for part in pair) + whole[len(text) :]


def _share(classifier: Explained, feature: Feature, shares: dict[str, float]) -> FeatureShare:
    mark = classifier.mark(feature) if feature.hash else None
    return FeatureShare(
        kind=feature.kind,
        text=feature.text,
        spans=feature.spans,
        field=feature.field or None,
        shares=shares,
        known=None if mark is None else mark.known,
        shared=None if mark is None else mark.shared,
    )
