"""scikit-learn, set as in its own example "Out-of-core classification of text documents", with word pairs added."""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np
import sklearn
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import MultinomialNB

from bench.peers.protocol import Answers, Peer


class SklearnPeer(Peer):
    """A model with `partial_fit` over hashed n-grams. All labels must be named at the first call."""

    def __init__(self, n_labels: int, batch: int, model: Any, **hashing: Any) -> None:
        super().__init__(n_labels)
        self.batch, self.model = batch, model
        self.classes = np.arange(max(n_labels, 2))
        self.hashing = HashingVectorizer(n_features=2**18, alternate_sign=False, **hashing)
        self.fitted = False

    def versions(self) -> dict[str, str]:
        """See Peer."""
        return {"scikit-learn": sklearn.__version__, "numpy": np.__version__}

    def predict(self, examples: Sequence[str], truths: Sequence[int]) -> Any:
        """See Peer."""
        return self._scores(self.hashing.transform(examples))

    def learn(self, examples: Sequence[str], truths: Sequence[int]) -> None:
        """See Peer."""
        self._fit(self.hashing.transform(examples), truths)

    def predict_and_learn(self, examples: Sequence[str], truths: Sequence[int]) -> Any:
        """Hash once for both; see Peer."""
        features = self.hashing.transform(examples)
        scores = self._scores(features)
        self._fit(features, truths)
        return scores

    def _scores(self, features: Any) -> Any:
        return self.model.predict_proba(features) if self.fitted else None

    def answers(self, scores: Any, truths: Sequence[int]) -> Answers:
        """See Peer."""
        if scores is None:
            return self.nothing_known(len(truths))
        p_truth = scores[np.arange(len(truths)), np.asarray(truths)]
        return Answers(scores.argmax(axis=1).tolist(), p_truth.tolist(), scores.max(axis=1).tolist())

    def _fit(self, features: Any, truths: Sequence[int]) -> None:
        self.model.partial_fit(features, truths, classes=self.classes)
        self.fitted = True


def _sgd(n_labels: int, batch: int, **hashing: Any) -> Peer:
    return SklearnPeer(n_labels, batch, SGDClassifier(loss="log_loss", random_state=1), **hashing)


def _bayes(n_labels: int, batch: int) -> Peer:
    return SklearnPeer(n_labels, batch, MultinomialNB(alpha=0.01), ngram_range=(1, 2))


PEERS: dict[str, Callable[[int], Peer]] = {
    "sklearn-sgd-100": lambda n: _sgd(n, 100, ngram_range=(1, 2)),
    "sklearn-sgd-1": lambda n: _sgd(n, 1, ngram_range=(1, 2)),
    "sklearn-sgd-chars-100": lambda n: _sgd(n, 100, ngram_range=(3, 5), analyzer="char_wb"),
    "sklearn-nb-100": lambda n: _bayes(n, 100),
    "sklearn-nb-1": lambda n: _bayes(n, 1),
}
