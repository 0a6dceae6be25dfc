"""River, as its documentation has it for text: a bag of words and word pairs, then a model.

Its TF-IDF instead of the bag made the linear models worse and slower on every stream that was tried.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Callable, Sequence

from river import compose, feature_extraction, forest, linear_model, multiclass, naive_bayes, tree

from bench.peers.protocol import Answers, Peer


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


PEERS: dict[str, Callable[[int], Peer]] = {
    "river-nb": _pipeline(2, lambda _: naive_bayes.MultinomialNB()),
    "river-logreg": _pipeline(2, lambda n: _all_labels(linear_model.LogisticRegression(), n)),
    "river-softmax": _pipeline(2, lambda _: linear_model.SoftmaxRegression()),
    "river-pa": _pipeline(2, lambda n: _all_labels(linear_model.PAClassifier(), n)),
    "river-tree": _pipeline(1, lambda _: tree.HoeffdingTreeClassifier()),
    "river-tree-pairs": _pipeline(2, lambda _: tree.HoeffdingTreeClassifier()),
    "river-arf": _pipeline(1, lambda _: forest.ARFClassifier(seed=1)),
}
