"""Does naive Bayes count as its plain version does?"""

import numpy as np
import oracles
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.learner.explain.rows import MAX_REPEATS
from driftline.learner.models.bayes import Bayes, BayesSettings
from tests.learner.models.test_classifiers import generated, rows, run
from tests.often import times


@settings(deadline=None, max_examples=times(60, 20))
@given(rows, st.booleans(), st.integers(8, 12), st.sampled_from([0.0, 10.0, 1000.0]), st.booleans())
def test_bayes_equals_the_plain_version(
    batch: list[tuple[str, str | None, float]], chars: bool, bits: int, half_life: float, complement: bool
) -> None:
    options = BayesSettings(bits=bits, max_labels=16, chars=chars, half_life=half_life, complement=complement)
    fast, plain = Bayes(options), oracles.OracleBayes(options)
    for text, label, weight in batch * 3:
        target = -1 if label is None else fast.label_index(label)
        scores = run(fast, [(text, label, weight)])[0]
        expected = plain.score_and_learn(text, target, min(weight, MAX_REPEATS))
        np.testing.assert_allclose(scores, [expected.get(k, 0) for k in range(len(scores))], atol=1e-3)


def test_counts_that_were_divided_go_on() -> None:
    """A half-life of 10 labels divides every 200; nothing that is remembered changes by it."""
    options = BayesSettings(bits=12, max_labels=16, half_life=10.0)
    fast, plain = Bayes(options), oracles.OracleBayes(options)
    batch, labels = generated(500)
    for text, label in zip(batch, labels, strict=True):
        target = fast.label_index(label)
        scores = run(fast, [(text, label, 1.0)])[0]
        expected = plain.score_and_learn(text, target, 1.0)
        np.testing.assert_allclose(scores, [expected.get(k, 0) for k in range(len(scores))], atol=1e-3)
    assert 1 <= fast.state()["overall"][0] < 1e6
