"""Every classifier of the installed River: which can be named, which a file builds. docs/models.md says the same."""

import importlib
import inspect
import pkgutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import river
from river.base import Classifier, MultiLabelClassifier

from driftline.learner.foreign.adapter import Adapter
from driftline.learner.registry import build_saved, make_classifier
from tests.learner.models.test_classifiers import assert_probabilities, generated
from tests.often import only_long

LOGISTIC = "linear_model.LogisticRegression"
DENSE = "text.bits=6&text.dense=1"
BY_NAME = {
    "active.EntropySampler": f"classifier={LOGISTIC}",
    "drift.DriftRetrainingClassifier": f"model={LOGISTIC}&drift_detector=drift.binary.DDM",
    "dummy.NoChangeClassifier": "",
    "dummy.PriorClassifier": "",
    "ensemble.ADWINBaggingClassifier": f"model={LOGISTIC}&n_models=2",
    "ensemble.ADWINBoostingClassifier": f"model={LOGISTIC}&n_models=2",
    "ensemble.AdaBoostClassifier": f"model={LOGISTIC}&n_models=2",
    "ensemble.BOLEClassifier": f"model={LOGISTIC}&n_models=2",
    "ensemble.BaggingClassifier": f"model={LOGISTIC}&n_models=2",
    "ensemble.LeveragingBaggingClassifier": f"model={LOGISTIC}&n_models=2",
    "ensemble.SRPClassifier": f"model=naive_bayes.MultinomialNB&n_models=2&{DENSE}",
    "facto.FMClassifier": "",
    "facto.HOFMClassifier": "",
    "forest.AMFClassifier": f"n_estimators=2&{DENSE}",
    "forest.ARFClassifier": f"n_models=2&{DENSE}",
    "imblearn.HardSamplingClassifier": f"classifier={LOGISTIC}&size=10&p=0.5",
    "linear_model.ALMAClassifier": "",
    "linear_model.AdPredictor": "",
    "linear_model.LogisticRegression": "",
    "linear_model.PAClassifier": "",
    "linear_model.Perceptron": "",
    "linear_model.SoftmaxRegression": "",
    "multiclass.OneVsOneClassifier": f"classifier={LOGISTIC}",
    "multiclass.OneVsRestClassifier": f"classifier={LOGISTIC}",
    "multiclass.OutputCodeClassifier": f"classifier={LOGISTIC}&code_size=6",
    "naive_bayes.BernoulliNB": "",
    "naive_bayes.ComplementNB": "",
    "naive_bayes.GaussianNB": DENSE,
    "naive_bayes.MultinomialNB": "",
    "neighbors.KNNClassifier": "",
    "tree.ExtremelyFastDecisionTreeClassifier": DENSE,
    "tree.HoeffdingAdaptiveTreeClassifier": DENSE,
    "tree.HoeffdingTreeClassifier": DENSE,
    "tree.LASTClassifier": DENSE,
    "tree.SGTClassifier": DENSE,
}
# A list, a dict, a metric, a class of another library, or names of fields for features.
BY_FILE = {
    "compat.SKL2RiverClassifier": """
        from sklearn.linear_model import SGDClassifier
        hashed = preprocessing.FeatureHasher(n_features=64, seed=1)
        filled = compose.FuncTransformer(fill)
        model = SGDClassifier(loss="log_loss", random_state=1)
        return BAG | hashed | filled | compat.SKL2RiverClassifier(model, [0, 1])
    """,
    "ensemble.StackingClassifier": """
        return BAG | ensemble.StackingClassifier(
            [naive_bayes.MultinomialNB(), linear_model.LogisticRegression()], linear_model.LogisticRegression()
        )
    """,
    "ensemble.VotingClassifier": """
        return BAG | ensemble.VotingClassifier([naive_bayes.MultinomialNB(), naive_bayes.ComplementNB()])
    """,
    "facto.FFMClassifier": "return BAG | compose.FuncTransformer(fields) | facto.FFMClassifier(seed=1)",
    "facto.FwFMClassifier": "return BAG | compose.FuncTransformer(fields) | facto.FwFMClassifier(seed=1)",
    "imblearn.RandomOverSampler": "return BAG | imblearn.RandomOverSampler(NB, {0: 0.5, 1: 0.5}, seed=1)",
    "imblearn.RandomSampler": "return BAG | imblearn.RandomSampler(NB, {0: 0.5, 1: 0.5}, seed=1)",
    "imblearn.RandomUnderSampler": "return BAG | imblearn.RandomUnderSampler(NB, {0: 0.5, 1: 0.5}, seed=1)",
    "model_selection.BanditClassifier": """
        models = [linear_model.LogisticRegression(optim.SGD(rate)) for rate in (0.1, 1.0)]
        return BAG | model_selection.BanditClassifier(models, metrics.Accuracy(), bandit.EpsilonGreedy(0.1, seed=1))
    """,
    "model_selection.SuccessiveHalvingClassifier": """
        models = [linear_model.LogisticRegression(optim.SGD(rate)) for rate in (0.1, 0.3, 1.0, 3.0)]
        return BAG | model_selection.SuccessiveHalvingClassifier(models, metrics.Accuracy(), budget=200)
    """,
}
SLOWEST = "facto.HOFMClassifier"  # as long as all others; FMClassifier is the same with less
NOT_HERE = {"misc.ZstdClassifier": (3, 14)}  # the first Python that has what it needs
HEAD = """\
from river import (bandit, compat, compose, ensemble, facto, feature_extraction, imblearn, linear_model, metrics,
                   model_selection, naive_bayes, optim, preprocessing)

BAG = feature_extraction.BagOfWords(lowercase=True)
NB = naive_bayes.MultinomialNB()


def fields(x):
    return {f"word_{name}": value for name, value in x.items()}


def fill(x):
    return {n: x.get(n, 0) for n in range(64)}


def build():
"""


def classifiers_of_river() -> set[str]:
    """Return what River offers as classifiers of one label: module.Class."""
    found = set()
    for module in pkgutil.iter_modules(river.__path__):
        if module.name in ("base", "checks", "datasets", "test_estimators"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names = vars(importlib.import_module(f"river.{module.name}"))
        for name, cls in names.items():
            is_one = isinstance(cls, type) and issubclass(cls, Classifier) and not issubclass(cls, MultiLabelClassifier)
            if is_one and not inspect.isabstract(cls) and not name.startswith("_"):
                found.add(f"{module.name}.{name}")
    return found


def learns(classifier: Adapter) -> None:
    """Let it learn half, ask, keep, open, and learn the rest: what it gives are probabilities, and the same ones."""
    texts, labels = generated(160)
    pairs = [(text, label) for text, label in zip(texts, labels, strict=True) if label in sorted(set(labels))[:2]]
    half = len(pairs) // 2
    classifier.learn_many(*zip(*pairs[:half], strict=True))
    before = classifier.state()["pickle"].tobytes()
    assert_probabilities(classifier.predict_proba_many(texts))
    opened = build_saved(classifier.config(), allow_pickle=True)
    opened.load_state({name: array.copy() for name, array in classifier.state().items()}, classifier.labels)
    again = build_saved(classifier.config(), allow_pickle=True)
    again.learn_many(*zip(*pairs[:half], strict=True))
    assert again.state()["pickle"].tobytes() == before, "a replay gives another model"
    for each in (classifier, opened):
        each.learn_many(*zip(*pairs[half:], strict=True))
    assert classifier.n_refused == 0
    np.testing.assert_array_equal(opened.predict_proba_many(texts), classifier.predict_proba_many(texts))


def test_the_lists_are_all_that_river_has() -> None:
    assert BY_NAME.keys() | BY_FILE.keys() | NOT_HERE.keys() == classifiers_of_river()


@pytest.mark.parametrize("name", [pytest.param(name, marks=only_long if name == SLOWEST else ()) for name in BY_NAME])
def test_by_name(name: str) -> None:
    classifier = make_classifier(f"river:{name}?{BY_NAME[name] or 'text.bits=14'}", allow_pickle=True)
    assert isinstance(classifier, Adapter)
    learns(classifier)


@pytest.mark.parametrize("name", BY_FILE)
def test_by_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    body = inspect.cleandoc(BY_FILE[name]).splitlines()
    path.write_text(HEAD + "".join(f"    {line}\n" for line in body))
    classifier = make_classifier(f"file:{path}?text.raw=1", allow_pickle=True)
    assert isinstance(classifier, Adapter)
    learns(classifier)


@pytest.mark.parametrize("name", NOT_HERE)
def test_of_a_later_python(name: str) -> None:
    if sys.version_info >= NOT_HERE[name]:
        pytest.skip("this Python has it: it belongs into the list of names")
    with pytest.raises(Exception, match=r"requires Python 3\.14"):
        make_classifier(f"river:{name}", allow_pickle=True)
