"""River, as its documentation has it for text: a bag of words and word pairs, then a model.

The `-rich-` ones get all that rich.py makes, or the plain groups of it, pairs of words and of tokens too; the linear
ones rows of length 1, the logistic regression AdaGrad's steps, which were better than plain ones on every stream that
was tried. River's TF-IDF instead of the bag made the linear models worse and slower. What passive-aggressive models
call a probability is none: they answer with labels. River's Bernoulli model goes through every feature that it has
seen, for every text.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Callable, Sequence

from river import compose, feature_extraction, forest, linear_model, multiclass, naive_bayes, optim, tree

from bench.peers.protocol import Answers, Peer
from bench.peers.rich import rich, valued, with_pairs


class RiverPeer(Peer):
    """A River pipeline over texts; with `labels_alone` its probabilities are none."""

    def __init__(self, n_labels: int, model: Any, labels_alone: bool = False) -> None:
        super().__init__(n_labels)
        self.model, self.labels_alone = model, labels_alone

    def versions(self) -> dict[str, str]:
        """See Peer."""
        return {"river": version("river")}

    def predict(self, examples: Sequence[str], truths: Sequence[int]) -> Any:
        """See Peer."""
        return [self.model.predict_proba_one(text) for text in examples]

    def answers(self, scores: Any, truths: Sequence[int]) -> Answers:
        """See Peer."""
        found = self.from_scores(scores, truths)
        return self.labels_only(found.predicted) if self.labels_alone else found

    def learn(self, examples: Sequence[str], truths: Sequence[int]) -> None:
        """See Peer."""
        for text, truth in zip(examples, truths):
            self.model.learn_one(text, truth)


def _words(n: int) -> Any:
    return feature_extraction.BagOfWords(lowercase=True, ngram_range=(1, n))


def _all_labels(model: Any, n_labels: int) -> Any:
    """Let a two-class model tell more labels apart. Two stay as they are: half the work, the same answers."""
    return model if n_labels <= 2 else multiclass.OneVsRestClassifier(model)


def _pipeline(n_words: int, model: Callable[[int], Any], labels_alone: bool = False) -> Callable[[int], Peer]:
    return lambda n: RiverPeer(n, compose.Pipeline(_words(n_words), model(n)), labels_alone)


class RichPeer(RiverPeer):
    """A River model over what rich.py makes, as it is or of length 1."""

    def __init__(
        self,
        n_labels: int,
        model: Any,
        grams: str,
        groups: str,
        values: str,
        unit: bool,
        labels_alone: bool = False,
    ) -> None:
        super().__init__(n_labels, model, labels_alone)
        self.grams, self.groups, self.values, self.unit = grams, groups, values, unit

    def prepare(self, texts: Sequence[str], truths: Sequence[int]) -> Sequence[Any]:
        """Make the features; see Peer."""
        return [self._features(text) for text in texts]

    def _features(self, text: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for group, names in zip("wtcs", rich(text, self.grams, self.groups)):
            values = valued(with_pairs(names) if group in "wt" else names, self.values)
            found.update((f"{group} {name}", value) for name, value in values.items())
        if not self.unit:
            return found
        length = sum(value * value for value in found.values()) ** 0.5
        return {name: value / length for name, value in found.items()}


def _rich_logreg(n_labels: int, rate: str, grams: str = "none", groups: str = "all", values: str = "sum") -> Peer:
    model = linear_model.LogisticRegression(optim.AdaGrad(float(rate)))
    return RichPeer(n_labels, _all_labels(model, n_labels), grams, groups, values, unit=True)


def _rich_pa(n_labels: int, c: str, grams: str = "none", groups: str = "all", values: str = "sum") -> Peer:
    model = _all_labels(linear_model.PAClassifier(C=float(c)), n_labels)
    return RichPeer(n_labels, model, grams, groups, values, unit=True, labels_alone=True)


_BAYES: dict[str, Callable[[float], Any]] = {
    "multinomial": naive_bayes.MultinomialNB,
    "complement": naive_bayes.ComplementNB,
    "bernoulli": naive_bayes.BernoulliNB,
}


def _rich_nb(
    n_labels: int, kind: str, alpha: str, grams: str = "none", groups: str = "all", values: str = "sum"
) -> Peer:
    return RichPeer(n_labels, _BAYES[kind](float(alpha)), grams, groups, values, unit=False)


PEERS: dict[str, Callable[..., Peer]] = {
    "river-nb": _pipeline(2, lambda _: naive_bayes.MultinomialNB()),
    "river-logreg": _pipeline(2, lambda n: _all_labels(linear_model.LogisticRegression(), n)),
    "river-softmax": _pipeline(2, lambda _: linear_model.SoftmaxRegression()),
    "river-pa": _pipeline(2, lambda n: _all_labels(linear_model.PAClassifier(), n), labels_alone=True),
    "river-tree": _pipeline(1, lambda _: tree.HoeffdingTreeClassifier()),
    "river-tree-pairs": _pipeline(2, lambda _: tree.HoeffdingTreeClassifier()),
    "river-rich-nb": _rich_nb,
    "river-rich-logreg": _rich_logreg,
    "river-rich-pa": _rich_pa,
    "river-arf": _pipeline(1, lambda _: forest.ARFClassifier(seed=1)),
}
