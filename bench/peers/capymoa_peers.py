"""MOA's trees and its stochastic gradient descent by way of CapyMOA, over hashed words.

Rows are dense, as CapyMOA makes them: each leaf looks at every feature. A feature is a number, how often its words come
(`sum`), or one of two categories, whether they come (`once`).
"""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import version
from typing import Any, Callable, Sequence

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

os.environ.setdefault("CAPYMOA_DATASETS_DIR", os.path.join(tempfile.gettempdir(), "capymoa"))  # else where it is run

from capymoa.base import MOAClassifier
from capymoa.classifier import EFDT, AdaptiveRandomForestClassifier, HoeffdingTree
from capymoa.core import LabeledInstance
from capymoa.stream import Schema
from moa.classifiers.functions import SGDMultiClass

from bench.peers.protocol import Answers, Peer

N_FEATURES = 1024


class CapyMoaPeer(Peer):
    """A model of MOA's, in its virtual machine in the same process."""

    def __init__(self, n_labels: int, model: Callable[[Any], Any], values: str = "sum") -> None:
        super().__init__(n_labels)
        if values not in ("sum", "once"):
            raise ValueError(f"values={values}: it must be sum or once")
        once = values == "once"
        names = [f"f{number}" for number in range(N_FEATURES)]
        categories = {"label": [str(label) for label in range(max(n_labels, 2))]}
        if once:
            categories.update((name, ["0", "1"]) for name in names)
        self.schema = Schema.from_custom([*names, "label"], "label", categories=categories)
        self.model = model(self.schema)
        self.hashing = HashingVectorizer(n_features=N_FEATURES, alternate_sign=False, norm=None, binary=once)

    def versions(self) -> dict[str, str]:
        """See Peer."""
        return {"capymoa": version("capymoa")}

    def prepare(self, texts: Sequence[str], truths: Sequence[int]) -> Sequence[Any]:
        """Hash the texts, each with its label; see Peer."""
        rows = self.hashing.transform(texts).toarray()
        return [LabeledInstance.from_array(self.schema, row, truth) for row, truth in zip(rows, truths)]

    def predict(self, examples: Sequence[Any], truths: Sequence[int]) -> Any:
        """See Peer."""
        return [self.model.predict_proba(example) for example in examples]

    def answers(self, scores: Any, truths: Sequence[int]) -> Answers:
        """See Peer. Where a model has no votes, or none that are numbers, there is nothing."""
        return self.from_scores([{} if row is None else dict(enumerate(np.asarray(row))) for row in scores], truths)

    def learn(self, examples: Sequence[Any], truths: Sequence[int]) -> None:
        """See Peer."""
        for example in examples:
            self.model.train(example)


def _forest(n_labels: int, trees: str, values: str = "sum") -> Peer:
    return CapyMoaPeer(
        n_labels, lambda schema: AdaptiveRandomForestClassifier(schema, ensemble_size=int(trees)), values
    )


def _sgd(n_labels: int, rate: str, values: str = "sum") -> Peer:
    """Under the logistic loss; MOA's own rate, 0.0001, is far too small for rows of words."""
    options = f"-o LOGLOSS -r {float(rate)}"
    return CapyMoaPeer(n_labels, lambda schema: MOAClassifier(SGDMultiClass, schema, options), values)


PEERS: dict[str, Callable[..., Peer]] = {
    "capymoa-tree": lambda n, values="sum": CapyMoaPeer(n, HoeffdingTree, values),
    "capymoa-efdt": lambda n, values="sum": CapyMoaPeer(n, EFDT, values),
    "capymoa-arf": _forest,
    "capymoa-sgd": _sgd,
}
