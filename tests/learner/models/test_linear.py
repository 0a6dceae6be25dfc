"""Does the linear classifier learn as its plain version, and refuse what would harm it?"""

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.learner.explain.rows import MAX_REPEATS
from driftline.learner.models.linear import Linear, LinearSettings
from tests.learner.models.test_classifiers import (
    CLASSIFIERS,
    assert_probabilities,
    content,
    make_classifier,
    rows,
    run,
    taught,
)
from tests.often import times


@settings(deadline=None, max_examples=times(60, 20))
@given(rows, st.booleans(), st.integers(8, 12))
def test_linear_equals_the_plain_version(batch: list[tuple[str, str | None, float]], chars: bool, bits: int) -> None:
    options = LinearSettings(bits=bits, max_labels=20, chars=chars, decay=0.01)
    fast, plain = Linear(options), oracles.OracleLinear(options)
    for text, label, weight in batch:
        target = -1 if label is None else fast.label_index(label)
        scores = run(fast, [(text, label, weight)])[0]
        expected = plain.score_and_learn(text, target, min(weight, MAX_REPEATS))
        np.testing.assert_allclose(scores, [expected.get(k, 0) for k in range(len(scores))], atol=2e-3)
    slots = fast.state()["slots"]
    assert set(np.flatnonzero(slots[:, 1])) <= set(plain.sums)
    np.testing.assert_allclose(slots[list(plain.sums), 1], list(plain.sums.values()), rtol=2e-2, atol=1e-4)


def test_weight_two_is_twice() -> None:
    spec = f"{CLASSIFIERS[0]}&rehearse=0"  # which counts texts
    once, twice = taught(make_classifier(spec)), taught(make_classifier(spec))
    once.learn_one("quite new", "label0", 2.0)
    twice.learn_many(["quite new"] * 2, ["label0"] * 2)
    twice.state()["sketch_texts"][0] -= 1  # which counts texts, whatever their weight
    assert content(once) == content(twice)


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_and_counted(damage: float) -> None:
    classifier = Linear(LinearSettings(bits=12, max_labels=10))
    classifier.learn_many(["a", "b"], ["x", "y"])
    classifier.state()["slots"][:, 0] = damage
    before = classifier.state()["slots"].tobytes()
    assert_probabilities(classifier.predict_proba_many(["a", "c"]))
    assert classifier.n_refused == 0
    classifier.learn_many(["a", "c"], ["x", "y"])
    assert classifier.n_refused == 2
    assert classifier.state()["slots"].tobytes() == before


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    classifier = Linear(LinearSettings(bits=12, max_labels=10))
    classifier.learn_one("a", "x", weight)
    assert classifier.n_refused == 1
    assert classifier.predict_proba_one("a") == {"x": 0.0}
    assert not classifier.state()["slots"].any()
