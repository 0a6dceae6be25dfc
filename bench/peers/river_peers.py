"""River, in the settings that its documentation gives for text: a bag of words or TF-IDF, then a model."""

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

    def predict(self, examples: Sequence[str], truths: Sequence[int]) -> Answers:
        """See Peer."""
        return self.from_scores([self.model.predict_proba_one(text) for text in examples], truths)

    def learn(self, examples: Sequence[str], truths: Sequence[int]) -> None:
        """See Peer."""
        for text, truth in zip(examples, truths):
            self.model.learn_one(text, truth)


def _words(n: int) -> Any:
    return feature_extraction.BagOfWords(lowercase=True, ngram_range=(1, n))


def _tfidf() -> Any:
    return feature_extraction.TFIDF(lowercase=True, ngram_range=(1, 2))


def _all_labels(model: Any, n_labels: int) -> Any:
    """Let a two-class model tell more labels apart. Two stay as they are: half the work, the same answers."""
    return model if n_labels <= 2 else multiclass.OneVsRestClassifier(model)


PEERS: dict[str, Callable[[int], Peer]] = {
    "river-nb": lambda n: RiverPeer(n, compose.Pipeline(_words(2), naive_bayes.MultinomialNB())),
    "river-logreg": lambda n: RiverPeer(
        n, compose.Pipeline(_tfidf(), _all_labels(linear_model.LogisticRegression(), n))
    ),
    "river-pa": lambda n: RiverPeer(n, compose.Pipeline(_tfidf(), _all_labels(linear_model.PAClassifier(), n))),
    "river-tree": lambda n: RiverPeer(n, compose.Pipeline(_words(1), tree.HoeffdingTreeClassifier())),
    "river-arf": lambda n: RiverPeer(n, compose.Pipeline(_words(1), forest.ARFClassifier(seed=1))),
}
