"""scikit-learn, set as in its own example "Out-of-core classification of text documents", with word pairs added.

The `-rich-` ones get words, words as they are written with signs, the pairs of both, n-grams of characters by its own
analysers (`char_wb`, or `char` as they are written), and the shape that rich.py makes, each hashed by its vectorizer;
or the plain groups of these alone.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np
import sklearn
from scipy.sparse import hstack
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, MultinomialNB

from bench.peers.protocol import Answers, Peer
from bench.peers.rich import LENGTHS, MAX_CHARS, TOKEN, rich

FEW_LABELS = 12  # up to so many the rich rows may be wide, and learned in small batches


class SklearnPeer(Peer):
    """A model with `partial_fit` over hashed n-grams. All labels must be named at the first call."""

    def __init__(self, n_labels: int, batch: int, model: Any, **hashing: Any) -> None:
        super().__init__(n_labels)
        self.batch, self.model = batch, model
        self.classes = np.arange(max(n_labels, 2))
        self.hashing = self._hashing(**hashing)
        self.fitted = False

    def _hashing(self, **hashing: Any) -> Any:
        """Return what makes rows of texts."""
        return HashingVectorizer(n_features=2**18, alternate_sign=False, **hashing)

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


class RichHashing:
    """All groups of rich.py side by side, or the plain ones, each hashed by itself, as it is or of length 1."""

    def __init__(self, n_features: int, unit: bool, grams: str, groups: str, values: str) -> None:
        if values not in ("sum", "once"):
            raise ValueError(f"values={values}: it must be sum or once")
        common: dict[str, Any] = {
            "n_features": n_features,
            "alternate_sign": False,
            "norm": "l2" if unit else None,
            "binary": values == "once",
        }
        lengths = (LENGTHS[0], LENGTHS[-1])
        of_grams: dict[str, dict[str, Any]] = {
            "none": {},
            "inside": {"analyzer": "char_wb", "ngram_range": lengths},
            "across": {"analyzer": "char", "ngram_range": lengths, "lowercase": False},
        }
        more: list[dict[str, Any]] = [
            {"ngram_range": (1, 2), "lowercase": False, "token_pattern": TOKEN},
            {"analyzer": lambda text: rich(text).shape},
        ]
        parts = [{"ngram_range": (1, 2)}, *(more if groups == "all" else []), *filter(None, [of_grams[grams]])]
        self.parts = [HashingVectorizer(**part, **common) for part in parts]

    def transform(self, texts: Sequence[str]) -> Any:
        """Return a sparse row a text."""
        texts = [text[:MAX_CHARS] for text in texts]
        return hstack([part.transform(texts) for part in self.parts], format="csr")


class RichPeer(SklearnPeer):
    """A model over what rich.py makes."""

    def _hashing(self, **hashing: Any) -> Any:
        return RichHashing(2**18 if self.n_labels <= FEW_LABELS else 2**16, **hashing)


def _rich_sgd(n_labels: int, rate: str, grams: str = "none", groups: str = "all", values: str = "sum") -> Peer:
    model = SGDClassifier(loss="log_loss", penalty=None, learning_rate="constant", eta0=float(rate), random_state=1)
    batch = 10 if n_labels <= FEW_LABELS else 100
    return RichPeer(n_labels, batch, model, grams=grams, groups=groups, values=values, unit=True)


_BAYES: dict[str, Any] = {"multinomial": MultinomialNB, "complement": ComplementNB, "bernoulli": BernoulliNB}


def _rich_nb(
    n_labels: int, kind: str, alpha: str, grams: str = "none", groups: str = "all", values: str = "sum"
) -> Peer:
    model = _BAYES[kind](alpha=float(alpha))
    return RichPeer(n_labels, 100, model, grams=grams, groups=groups, values=values, unit=False)


def _sgd(n_labels: int, batch: int, **hashing: Any) -> Peer:
    return SklearnPeer(n_labels, batch, SGDClassifier(loss="log_loss", random_state=1), **hashing)


def _bayes(n_labels: int, batch: int) -> Peer:
    return SklearnPeer(n_labels, batch, MultinomialNB(alpha=0.01), ngram_range=(1, 2))


PEERS: dict[str, Callable[..., Peer]] = {
    "sklearn-rich-sgd": _rich_sgd,
    "sklearn-rich-nb": _rich_nb,
    "sklearn-sgd-100": lambda n: _sgd(n, 100, ngram_range=(1, 2)),
    "sklearn-sgd-1": lambda n: _sgd(n, 1, ngram_range=(1, 2)),
    "sklearn-sgd-chars-100": lambda n: _sgd(n, 100, ngram_range=(3, 5), analyzer="char_wb"),
    "sklearn-nb-100": lambda n: _bayes(n, 100),
    "sklearn-nb-1": lambda n: _bayes(n, 1),
}
