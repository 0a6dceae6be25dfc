"""scikit-multiflow's Hoeffding tree over hashed words. Its last version needs Python 3.8 and arrays that are dense."""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np
import pkg_resources
from sklearn.feature_extraction.text import HashingVectorizer
from skmultiflow.trees import HoeffdingTreeClassifier

from bench.peers.protocol import Answers, Peer

N_FEATURES = 1000  # each leaf looks at every one of them


class MultiflowPeer(Peer):
    """A model with `partial_fit` over dense arrays."""

    def __init__(self, n_labels: int) -> None:
        super().__init__(n_labels)
        self.model = HoeffdingTreeClassifier()
        self.classes = list(range(max(n_labels, 2)))
        self.hashing = HashingVectorizer(n_features=N_FEATURES, alternate_sign=False, norm=None)
        self.fitted = False

    def versions(self) -> dict[str, str]:
        """See Peer."""
        return {"scikit-multiflow": pkg_resources.get_distribution("scikit-multiflow").version}

    def prepare(self, texts: Sequence[str], truths: Sequence[int]) -> Sequence[Any]:
        """Hash the texts; see Peer."""
        return list(self.hashing.transform(texts).toarray())

    def predict(self, examples: Sequence[Any], truths: Sequence[int]) -> Any:
        """See Peer."""
        if not self.fitted:
            return None
        try:
            return self.model.predict_proba(np.asarray(examples))
        except ValueError:  # a leaf's naive Bayes gave what is no number, and its sum is refused
            return None

    def answers(self, scores: Any, truths: Sequence[int]) -> Answers:
        """See Peer."""
        if scores is None:
            return self.nothing_known(len(truths))
        scores = np.where(np.isfinite(scores), scores, 0.0)
        return self.from_scores([dict(enumerate(row)) for row in scores], truths)

    def learn(self, examples: Sequence[Any], truths: Sequence[int]) -> None:
        """See Peer."""
        self.model.partial_fit(np.asarray(examples), np.asarray(truths), classes=self.classes)
        self.fitted = True


PEERS: dict[str, Callable[[int], Peer]] = {"multiflow-tree": MultiflowPeer}
