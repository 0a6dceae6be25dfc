"""Does the blend mix as its plain version does, and is it better than its parts?"""

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.learner.blend import mixer
from tests.learner.models.test_classifiers import assert_probabilities, content, make_classifier, run, taught
from tests.often import times


@settings(deadline=None, max_examples=times(60, 20))
@given(st.integers(0, 2**32), st.integers(1, 7), st.integers(1, 60))
def test_the_mixer_equals_the_plain_version(seed: int, n_labels: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    n_experts = int(rng.integers(1, 8))
    n_first = int(rng.integers(0, n_experts + 1))
    weights, covariances = mixer.first_weights(n_labels, [2 / n_experts] * n_experts)
    factors, p, work = np.zeros(n_labels), np.zeros(n_labels, np.float32), np.empty((4, n_experts))
    surprises = mixer.no_surprises()
    plain = oracles.OracleMixer(n_experts, n_first)
    for _ in range(n):
        known = (rng.random(n_labels) < 0.8).astype(np.uint8)
        target, n_words, part = int(rng.integers(n_labels)), int(rng.integers(5000)), float(rng.uniform(0.1, 1))
        known[target] = 1
        logs = np.zeros((n_experts, n_labels), np.float32)
        for expert in range(n_experts):
            scores = rng.normal(0, 10, n_labels)
            assert mixer.log_softmax(scores, known, n_labels, logs[expert], p)
        contexts = mixer.choose_contexts(logs, n_first, n_words, known, n_labels)
        mixer.mix(logs, known, n_labels, weights, factors, contexts, p)
        columns = {label: logs[:, label].tolist() for label in range(n_labels) if known[label]}
        expected = plain.mix(columns, n_words)
        np.testing.assert_allclose(p, [expected.get(k, 0) for k in range(n_labels)], atol=1e-3)
        if mixer.is_another_world(p, known, target, part, n_labels, surprises):
            mixer.doubt(covariances)
        mixer.learn_weights(logs, known, p, target, part, n_labels, weights, covariances, factors, contexts, work)
        plain.learn(columns, n_words, target, part)


def test_a_state_with_one_row_a_label_is_taken_over() -> None:
    source = taught(make_classifier("blend?bits=12&max_labels=4"))
    state, rows = source.state(), 1 + mixer.N_LENGTHS
    once = {name: np.concatenate([state[name][:rows], state[name][rows::2]]) for name in ("weights", "covariances")}
    again = make_classifier(source.spec)
    again.load_state({**state, **once}, source.labels)
    for name, array in once.items():
        taken = again.state()[name]
        assert taken.shape == state[name].shape
        assert (taken[:rows] == array[:rows]).all()
        assert (taken[rows::2] == array[rows:]).all()
        assert (taken[rows + 1 :: 2] == array[rows:]).all()


def test_a_state_without_surprises_is_taken_over() -> None:
    source = taught(make_classifier("blend?bits=12&max_labels=4"))
    state = {name: array for name, array in source.state().items() if name != "surprises"}
    again = make_classifier(source.spec)
    again.load_state(state, source.labels)
    assert (again.state()["surprises"] == 0).all()


@pytest.mark.parametrize(("name", "array"), [("bayes", "counts"), ("blend", "grams")])
@pytest.mark.parametrize("damage", [np.nan, np.inf])
@pytest.mark.parametrize("labels", [["x", "y"], ["x", "y", "z"]])
def test_damaged_counts_are_refused_and_harm_nothing_else(
    name: str, array: str, damage: float, labels: list[str]
) -> None:
    classifier = make_classifier(f"{name}?bits=12&max_labels=10")
    classifier.learn_many(["a", "b", "c"][: len(labels)], labels)
    counts = classifier.state()[array]
    counts.reshape(len(counts), -1)[:, -1] = damage
    before = content(classifier)
    assert_probabilities(classifier.predict_proba_many(["a", "c"]))
    assert content(classifier) == before
    classifier.learn_many(["a", "c"], ["x", "y"])
    assert classifier.state()["counters"][1] == 2


def test_the_blend_is_better_than_its_parts_on_a_generated_stream() -> None:
    """Topics shift slowly: what a word says changes every 4,000 texts for a third of the words."""
    batch, labels = drifting(12_000)
    right = {}
    for spec in ("blend?bits=20", "linear?bits=20", "bayes?bits=20"):
        classifier = make_classifier(spec)
        scores = run(classifier, [(text, label, 1.0) for text, label in zip(batch, labels, strict=True)])
        targets = np.array([classifier.labels.index(label) for label in labels])
        right[spec] = (scores.argmax(axis=1) == targets).mean()
    best, *others = right.values()
    assert best > max(others), right


@pytest.mark.parametrize(("noise", "most"), [(0.0, 20), (0.05, 25), (0.1, 33), (0.2, 60)])
def test_words_whose_meaning_is_swapped_are_soon_unlearned(noise: float, most: int) -> None:
    """Where labels are noisy the experts are wrong for hundreds of labels; the mixer has to see that they are."""
    errors = []
    for seed in range(3):
        rng, before, n = np.random.default_rng(seed), 5000, 6000
        names = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(504)]
        keys = rng.integers(4, size=n)
        truth = (keys % 2) ^ (np.arange(n) >= before)
        is_noise = rng.random(n) < noise
        others = rng.integers(4, 504, size=(n, 6))
        texts = [
            " ".join(names[each] for each in rng.permutation([key, *row]))
            for key, row in zip(keys, others, strict=True)
        ]
        classifier = make_classifier("blend?bits=20")
        columns = np.array([classifier.label_index(name) for name in "ab"], np.int32)
        targets = columns[truth ^ is_noise]
        scores = classifier.score_and_learn(texts, targets, np.ones(n, np.float32))
        is_wrong = targets != scores.argmax(axis=1)
        errors.append(int(is_wrong[before:].sum()) - int(is_noise[before:].sum()))
    assert np.mean(errors) <= most, errors


def test_nothing_surprises_where_probabilities_are_right() -> None:
    """Labels drawn from the probabilities themselves: an alarm is rarer than one in ten thousand labels."""
    rng = np.random.default_rng(5)
    surprises, known, alarms = mixer.no_surprises(), np.ones(5, np.uint8), 0
    for _ in range(50_000):
        p = rng.dirichlet(np.full(5, rng.choice([0.05, 0.3, 2.0]))).astype(np.float32)
        alarms += mixer.is_another_world(p, known, int(rng.choice(5, p=p / p.sum(dtype=float))), 1.0, 5, surprises)
    assert alarms <= 5
    assert any(mixer.is_another_world(np.float32([0.9, 0.1]), known, 1, 1.0, 2, surprises) for _ in range(6))


def drifting(n: int, n_labels: int = 4, seed: int = 11) -> tuple[list[str], list[str]]:
    """Return texts of 10 words; a word means one label at a time, and a third of them change it now and then."""
    rng = np.random.default_rng(seed)
    owners = rng.integers(0, n_labels, 600)
    batch, labels = [], []
    for number in range(n):
        if number % 4000 == 3999:
            changed = rng.random(600) < 1 / 3
            owners[changed] = rng.integers(0, n_labels, changed.sum())
        label = int(rng.integers(n_labels))
        own = rng.choice(np.flatnonzero(owners == label), 3)
        common = rng.integers(0, 600, 7)
        batch.append(" ".join(f"w{word}" for word in rng.permutation(np.concatenate([own, common]))))
        labels.append(f"label{label}")
    return batch, labels
