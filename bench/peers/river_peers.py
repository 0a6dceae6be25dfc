"""River, as its documentation has it for text: a bag of words and word pairs, then a model.

The `-rich-` ones get all that rich.py makes, pairs of words and of tokens too, counted; the logistic regression rows of
length 1, and AdaGrad's steps, which were better than plain ones on every stream that was tried. River's TF-IDF instead
of the bag made the linear models worse and slower.
"""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Callable, Sequence

from river import compose, feature_extraction, forest, linear_model, multiclass, naive_bayes, optim, tree

from bench.peers.protocol import Answers, Peer
from bench.peers.rich import rich


class RiverPeer(Peer):
    """A River pipeline over texts."""

    def __init__(self, n_labels: int, model: Any) -> None:
        super().__init__(n_labels)
        self.model = model

    def versions(self) -> dict[str, str]:
        """See Peer."""
        return {"river": version("river")}

    def predict(self, examples: Sequence[str], truths: Sequence[int]) -> Any:
        """See Peer."""
        return [self.model.predict_proba_one(text) for text in examples]

    def answers(self, scores: Any, truths: Sequence[int]) -> Answers:
        """See Peer."""
        return self.from_scores(scores, truths)

    def learn(self, examples: Sequence[str], truths: Sequence[int]) -> None:
        """See Peer."""
        for text, truth in zip(examples, truths):
            self.model.learn_one(text, truth)


def _words(n: int) -> Any:
    return feature_extraction.BagOfWords(lowercase=True, ngram_range=(1, n))


def _all_labels(model: Any, n_labels: int) -> Any:
    """Let a two-class model tell more labels apart. Two stay as they are: half the work, the same answers."""
    return model if n_labels <= 2 else multiclass.OneVsRestClassifier(model)


def _pipeline(n_words: int, model: Callable[[int], Any]) -> Callable[[int], Peer]:
    return lambda n_labels: RiverPeer(n_labels, compose.Pipeline(_words(n_words), model(n_labels)))


class RichPeer(RiverPeer):
    """A River model over the counts of all that rich.py makes, as they are or of length 1."""

    def __init__(self, n_labels: int, model: Any, grams: str, unit: bool) -> None:
        super().__init__(n_labels, model)
        self.grams, self.unit = grams, unit

    def prepare(self, texts: Sequence[str], truths: Sequence[int]) -> Sequence[Any]:
        """Count the features; see Peer."""
        return [self._counted(text) for text in texts]

    def _counted(self, text: str) -> dict[str, float]:
        counts: Counter[str] = Counter()
        for group, names in zip("wtcs", rich(text, self.grams)):
            counts.update([f"{group} {name}" for name in names])
            if group in "wt":
                counts.update([f"{group}{group} {a} {b}" for a, b in pairwise(names)])
        if not self.unit:
            return dict(counts)
        length = sum(count * count for count in counts.values()) ** 0.5
        return {name: count / length for name, count in counts.items()}


def _rich_logreg(n_labels: int, grams: str, rate: str) -> Peer:
    model = linear_model.LogisticRegression(optim.AdaGrad(float(rate)))
    return RichPeer(n_labels, _all_labels(model, n_labels), grams, unit=True)


PEERS: dict[str, Callable[..., Peer]] = {
    "river-nb": _pipeline(2, lambda _: naive_bayes.MultinomialNB()),
    "river-logreg": _pipeline(2, lambda n: _all_labels(linear_model.LogisticRegression(), n)),
    "river-softmax": _pipeline(2, lambda _: linear_model.SoftmaxRegression()),
    "river-pa": _pipeline(2, lambda n: _all_labels(linear_model.PAClassifier(), n)),
    "river-tree": _pipeline(1, lambda _: tree.HoeffdingTreeClassifier()),
    "river-tree-pairs": _pipeline(2, lambda _: tree.HoeffdingTreeClassifier()),
    "river-rich-nb": lambda n, alpha: RichPeer(n, naive_bayes.MultinomialNB(float(alpha)), "none", unit=False),
    "river-rich-logreg": _rich_logreg,
    "river-arf": _pipeline(1, lambda _: forest.ARFClassifier(seed=1)),
}
