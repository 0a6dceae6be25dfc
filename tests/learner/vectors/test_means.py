"""The means of labels' vectors are those of a textbook, and a label without one is as near as the others are."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.learner.blend import ridge
from driftline.learner.blend.means import KEPT, MEANS_SCALE, Means, learn_means, score_means
from driftline.learner.models.classifier import Classifier
from driftline.learner.registry import build_saved, make_classifier
from driftline.stream.wire.vector import with_vector

SENT = "blend?bits=12&max_labels=4&dimension=24"
Vectors = NDArray[np.float64]


def vectors_of(n: int, dimension: int, seed: int = 1) -> Vectors:
    found = np.random.default_rng(seed).normal(size=(n, dimension))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def opened(dimension: int) -> tuple[Any, Means]:
    _, _, _, space, means = ridge.Meaning(None, 4, dimension).arguments
    return space, means


def logs_of(space: Any, means: Means, vector: Vectors, known: NDArray[np.uint8]) -> NDArray[np.float32]:
    logs, p = np.zeros(4, np.float32), np.zeros(4, np.float32)
    space.vector[: len(vector)], space.vector[len(vector)] = vector, 1
    assert score_means(means, space, True, known, 4, logs, p)
    np.testing.assert_allclose(np.exp(logs[known > 0]), p[known > 0], rtol=1e-4, atol=1e-6)
    return logs


@pytest.mark.parametrize("dimension", [2, 24, 100])
def test_they_are_the_plain_ones(dimension: int) -> None:
    space, means = opened(dimension)
    rng, sums = np.random.default_rng(dimension), np.zeros((3, dimension))
    for vector in vectors_of(300, dimension):
        label, weight = int(rng.integers(3)), float(rng.choice([0.25, 1, 2.5, 64]))
        space.vector[:dimension], space.vector[dimension] = vector, 1
        learn_means(means, space, dimension, label, np.float32(weight))
        sums[label] = sums[label] * float(KEPT) + weight * vector
    assert not means.sums[:, dimension:].any(), "what all texts have alike is no part of it"
    known = np.array([1, 1, 1, 0], np.uint8)
    for vector in vectors_of(5, dimension, seed=2):
        cosines = sums @ vector / np.linalg.norm(sums, axis=1)
        expected = float(MEANS_SCALE) * cosines
        expected -= np.log(np.exp(expected).sum())
        found = logs_of(space, means, vector, known)
        np.testing.assert_allclose(found[:3], np.maximum(expected, -15), atol=1e-3)


def test_a_label_that_has_learned_no_vector_is_as_near_as_the_others() -> None:
    space, means = opened(24)
    known = np.ones(4, np.uint8)
    nothing = logs_of(space, means, vectors_of(1, 24)[0], known)
    np.testing.assert_allclose(nothing, np.log(0.25), atol=1e-6)
    for label, vector in enumerate(vectors_of(2, 24)):
        space.vector[:24] = vector
        learn_means(means, space, 24, label, np.float32(1))
    between = vectors_of(2, 24).T @ [0.8, 0.6]
    near, far, *without = logs_of(space, means, between / np.linalg.norm(between), known)
    assert near > without[0] == without[1] > far
    np.testing.assert_allclose(without[0], (near + far) / 2, atol=1e-4)


def test_vectors_that_undo_each_other_are_none() -> None:
    space, means = opened(2)
    for vector in ([1.0, 0.0], [-float(KEPT), 0.0]):
        space.vector[:2] = vector
        learn_means(means, space, 2, 0, np.float32(1))
    assert means.scales[0] == 0
    assert np.isfinite(logs_of(space, means, np.array([0.6, 0.8]), np.ones(4, np.uint8))).all()


def taught() -> Classifier:
    classifier = make_classifier(SENT)
    for number, vector in enumerate(vectors_of(60, 24)):
        classifier.learn_one(with_vector(f"text {number}", vector), "abc"[number % 3])
    classifier.learn_one("no vector", "d")
    return classifier


def test_they_are_part_of_the_state_and_a_cleared_label_has_none() -> None:
    classifier = taught()
    again = build_saved(classifier.config())
    again.load_state({name: array.copy() for name, array in classifier.state().items()}, classifier.labels)
    asked = [with_vector(f"asked {number}", vector) for number, vector in enumerate(vectors_of(9, 24, seed=3))]
    np.testing.assert_array_equal(again.predict_proba_many(asked), classifier.predict_proba_many(asked))
    state = classifier.state()
    assert (state["means_scales"] > 0).tolist() == [True, True, True, False]
    classifier.clear(1, [])
    assert not state["means_sums"][1].any()
    assert state["means_scales"][1] == 0
    assert "means_sums" not in make_classifier("blend?bits=12&max_labels=4").state()


def test_an_explanation_has_their_part() -> None:
    """What is taken apart adds up to what the experts say together."""
    classifier = taught()
    found = classifier.explain_one(with_vector("asked of", vectors_of(1, 24, seed=4)[0]), ["a", "b"], n_features=999)
    said = {
        label: found.bias[label] + sum(each.shares[label] for each in found.features) + found.rest[label]
        for label in "ab"
    }
    odds = np.log(found.scores["a"] / found.scores["b"])
    assert said["a"] - said["b"] == pytest.approx(odds, abs=1e-3)
    (vector,) = (each for each in found.features if each.kind == "vector")
    assert vector.shares["a"] != 0
