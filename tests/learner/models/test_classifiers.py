"""One set of checks over every learner: a new classifier is added to CLASSIFIERS and gets them all."""

import json
from collections.abc import Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier

from driftline.learner import registry
from driftline.learner.blend.blend import blend_and_learn
from driftline.learner.models.bayes import count_and_score
from driftline.learner.models.classifier import Classifier, Scores, TooManyLabels
from driftline.learner.models.linear import score_and_learn
from driftline.learner.models.one_text import OneTextScorer
from driftline.learner.text.features import text_buffers
from driftline.learner.text.shape import MAX_CASED
from driftline.stream.errors import StateError
from driftline.stream.wire.fielded import join, text_of
from tests.often import only_long, times
from tests.vectors import MADE

make_classifier = partial(registry.make_classifier, allow_pickle=True)
# Foreign models get the checks that every classifier can be asked to pass; ours get those of how well it learns, too.
FOREIGN = [
    "river:naive_bayes.MultinomialNB?text.bits=12&max_labels=5",
    "river:linear_model.LogisticRegression?text.bits=12&max_labels=5",
    "sklearn:linear_model.SGDClassifier?loss=log_loss&text.bits=10&max_labels=5",
    "sklearn:naive_bayes.MultinomialNB?text.bits=10&max_labels=5",
]
CLASSIFIERS = [
    "linear?bits=18&max_labels=600",
    "linear?bits=18&max_labels=600&chars=0",
    "tree?bits=18&max_labels=600&memory_mb=8.0",
    "tree?bits=18&max_labels=600&memory_mb=6.0&grace_period=20.0&delta=0.01&tau=1.0&chars=0",
    "bayes?bits=18&max_labels=600",
    "bayes?bits=18&max_labels=600&chars=0&complement=1&half_life=1000",
    "blend?bits=18&max_labels=600",
    "blend?bits=18&max_labels=600&chars=0",
    f"blend?bits=18&max_labels=600&vectors={MADE}",
]
WORDS = [
    *("free", "money", "now", "meeting", "at", "noon", "please", "call", "win", "prize", "lunch", "report"),
    *("字漢", "ไทย", "👍", "!!!", "don't"),
]
HOSTILE = [
    "",
    " ",
    "\0",
    "\0" * 500,
    "a" * 300_000,
    "字" * 100_000,
    "!?" * 100_000,
    "\ud800 lone \udfff",
    "'" * 10_000,
    "\u200d" * 10_000,
    "e\u0301\u0300" * 5_000,
    "\u202e right to left",
    "\U0010ffff\ufffe\uffff",
    " ".join(str(i) for i in range(50_000)),
    "%s %n {0} ${x} <script>",
]
ours = pytest.mark.parametrize("spec", CLASSIFIERS, indirect=True)
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
rows = st.lists(
    st.tuples(texts, st.sampled_from(["a", "b", "c", None]), st.sampled_from([0.25, 1.0, 1.0, 2.5, 1e6])), max_size=30
)


def tried(*specs: str) -> list[Any]:
    """Return parameters; the last of the foreign ones, the second of its library, is for `make torture`."""
    return [pytest.param(spec, marks=only_long) if spec == FOREIGN[-1] else spec for spec in specs]


@pytest.fixture(params=tried(*CLASSIFIERS, *FOREIGN))
def spec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def classifier(spec: str) -> Classifier:
    return make_classifier(spec)


def content(classifier: Classifier) -> dict[str, bytes]:
    """Return a model's state as bytes, in a form that pytest can compare."""
    return {name: array.tobytes() for name, array in classifier.state().items()}


def generated(n: int, n_labels: int = 3, seed: int = 7) -> tuple[list[str], list[str]]:
    """Return texts of 12 words, of which a third come from their label's own 40 words, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_labels, n)
    own, common = rng.integers(0, 40, (n, 12)), rng.integers(0, 300, (n, 12))
    is_own = rng.random((n, 12)) < 0.3
    batch = [
        " ".join(f"own{label}x{o}" if mine else f"word{c}" for o, c, mine in zip(*row, strict=True))
        for label, row in zip(labels, zip(own, common, is_own, strict=True), strict=True)
    ]
    return batch, [f"label{label}" for label in labels]


def taught(classifier: Classifier, n: int = 200) -> Classifier:
    classifier.learn_many(*generated(n))
    return classifier


def run(classifier: Classifier, batch: Sequence[tuple[str, str | None, float]]) -> Scores:
    """Score and learn rows in one call."""
    targets = [-1 if label is None else classifier.label_index(label) for _, label, _ in batch]
    weights = np.array([weight for *_, weight in batch], np.float32)
    return classifier.score_and_learn([text for text, *_ in batch], np.array(targets, np.int32), weights)


def assert_probabilities(scores: NDArray[np.float32], some: bool = True) -> None:
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    assert (scores <= 1 + 1e-6).all()
    if some:
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_works_before_the_first_label(classifier: Classifier) -> None:
    assert classifier.predict_one("anything") is None
    assert classifier.predict_proba_one("anything") == {}
    assert classifier.predict_many(["a", "b"]) == [None, None]
    assert classifier.predict_proba_many(["a", "b"]).shape == (2, 0)


def test_one_label_is_certain(classifier: Classifier) -> None:
    classifier.learn_one("x", "only")
    assert classifier.predict_proba_one("y") == {"only": 1.0}


def test_no_texts(classifier: Classifier) -> None:
    classifier.learn_many([], [])
    assert classifier.predict_many([]) == []


def test_predicting_changes_nothing(classifier: Classifier) -> None:
    taught(classifier)
    before = content(classifier)
    classifier.predict_proba_many([*HOSTILE, *generated(100, seed=8)[0]])
    classifier.predict_one("free money")
    assert content(classifier) == before


def test_scores_are_probabilities(classifier: Classifier) -> None:
    taught(classifier)
    assert_probabilities(classifier.predict_proba_many([*HOSTILE, *generated(100, seed=8)[0]]))


def test_a_label_is_not_seen_before_it_was_learned(classifier: Classifier) -> None:
    scores = run(classifier, [("a", None, 1), ("a", "x", 1), ("a", "y", 1), ("a", "y", 1), ("a", None, 1)])
    assert scores[0].tolist() == [0, 0]
    assert scores[1].tolist() == [0, 0]
    assert scores[2].tolist() == [1, 0]
    assert 0 < scores[3, 1] < scores[4, 1] < 1


def test_a_label_that_was_only_registered_has_no_share(classifier: Classifier) -> None:
    classifier.label_index("never learned")
    classifier.learn_one("a", "x")
    assert classifier.predict_proba_one("a") == {"never learned": 0.0, "x": 1.0}
    assert classifier.predict_one("a") == "x"


def test_exactly_0_means_that_a_label_was_not_known(classifier: Classifier) -> None:
    for _ in range(300):
        classifier.learn_many(["yes yes", "no no"], ["a", "b"], [1e6, 1e6])
    assert (classifier.predict_proba_many(["yes yes", "no no", "neither"]) > 0).all()


@pytest.mark.parametrize("name", ["linear", "bayes", "tree", "blend"])
@pytest.mark.parametrize("turned", [False, True])
def test_one_text_of_each_label_is_enough_to_tell_them(name: str, turned: bool) -> None:
    """Whichever came first: a label is learned while it is the only one."""
    classifier = make_classifier(name)
    rows = [("You won a prize, call now", "spam"), ("Running late, see you at home", "ham")]
    classifier.learn_many(*zip(*(reversed(rows) if turned else rows), strict=True))
    assert classifier.predict_many(["You won a prize", "see you at home"]) == ["spam", "ham"]


@pytest.mark.parametrize("name", ["linear", "bayes", "blend"])
@pytest.mark.parametrize("n", [10, 100, 1000])
def test_the_first_text_of_a_second_label_does_not_take_all(name: str, n: int) -> None:
    classifier = make_classifier(name)
    batch, labels = generated(n + 200, 1)
    classifier.learn_many(batch[:n], labels[:n])
    classifier.learn_one("win a free prize now word1 word2 word3", "spam")
    assert np.mean([label == "label0" for label in classifier.predict_many(batch[n:])]) > 0.75
    for _ in range(4):
        classifier.learn_one("win a free prize now word4 word5 word6", "spam")
    assert classifier.predict_one("win a free prize now") == "spam"


@pytest.mark.parametrize("name", ["linear", "bayes", "tree", "blend"])
def test_a_weight_above_64_counts_as_64(name: str) -> None:
    heavy, most = make_classifier(f"{name}?bits=12&max_labels=4"), make_classifier(f"{name}?bits=12&max_labels=4")
    for classifier, weight in ((heavy, 1e6), (most, 64.0)):
        classifier.learn_many(["a b", "c d", "a c"], ["x", "y", "x"], [weight] * 3)
    assert content(heavy) == content(most)


@ours
def test_a_late_label_is_learned(classifier: Classifier) -> None:
    taught(classifier, 1000)
    for _ in range(10):
        classifier.learn_one("quite unheard of", "late")
    assert classifier.predict_one("quite unheard of") == "late"
    batch, labels = generated(300, seed=9)
    assert np.mean([p == label for p, label in zip(classifier.predict_many(batch), labels, strict=True)]) > 0.75


@ours
def test_hostile_texts_are_learned_and_harm_nothing(classifier: Classifier) -> None:
    taught(classifier, 1000)
    for label in ("label0", "label1", "label2"):
        classifier.learn_many(HOSTILE, [label] * len(HOSTILE))
    for array in classifier.state().values():
        assert np.isfinite(array).all()
    batch, labels = generated(300, seed=9)
    assert np.mean([p == label for p, label in zip(classifier.predict_many(batch), labels, strict=True)]) > 0.75


def test_one_text_is_scored_as_in_a_batch(classifier: Classifier) -> None:
    """By a call made ready once, whatever was asked before, and whatever is learned in between."""
    assert OneTextScorer(classifier)("anything") == []
    taught(classifier)
    single = OneTextScorer(classifier)
    fielded = [join(text, {"country": "NL", "e\u0301": "word1", "n": 5}) for text in ("", "own1x1", "\u00e9 own1x1")]
    batch = [*HOSTILE, *generated(40, seed=9)[0], "", "own1x1"] if classifier.spec in CLASSIFIERS else WORDS
    batch = [*batch, *fielded]
    for text in (*batch, *reversed(batch)):
        assert single(text) == classifier.predict_proba_many([text])[0].tolist()
    before = content(classifier)
    taught(classifier, 50)
    single(batch[0])
    assert single(batch[-1]) == classifier.predict_proba_many([batch[-1]])[0].tolist()
    assert content(classifier) != before
    after = content(classifier)
    single(batch[0])
    assert content(classifier) == after


def fielded(n: int, by: str, seed: int = 3) -> tuple[list[str], list[str]]:
    """Return texts that tell nothing, with fields of which one decides, and their labels."""
    rng = np.random.default_rng(seed)
    batch, labels = [], []
    for _ in range(n):
        countries, amount = ["NL", "BE", "DE", "FR"], float(np.exp(rng.normal(4, 2)))
        fields = {
            "country": countries[rng.integers(4)],
            "amount": amount,
            "subject": " ".join(f"word{w}" for w in rng.integers(0, 40, 4)),
            "urgent": bool(rng.integers(2)),
            "tags": [f"t{tag}" for tag in rng.integers(0, 6, 2)],
        }
        decided: dict[str, Any] = {
            "country": countries.index(fields["country"]) % 3,
            "amount": int(amount > 30) + int(amount > 200),
            "urgent": int(fields["urgent"]),
            "tags": int("t1" in fields["tags"]),
        }
        batch.append(join(" ".join(f"word{w}" for w in rng.integers(0, 300, 12)), fields))
        labels.append(f"label{decided[by]}")
    return batch, labels


@ours
@pytest.mark.parametrize("by", ["country", "amount", "urgent", "tags"])
def test_a_field_that_decides_is_learned(classifier: Classifier, by: str) -> None:
    classifier.learn_many(*fielded(1500, by))
    batch, labels = fielded(300, by, seed=4)
    with_fields, without = (
        np.mean([p == label for p, label in zip(classifier.predict_many(some), labels, strict=True)])
        for some in (batch, [text_of(text) for text in batch])
    )
    assert without < 0.75
    # Naive Bayes believes all words, those that tell nothing too.
    assert with_fields > (without + 0.1 if classifier.spec.startswith("bayes") else 0.9)


def test_fields_are_learned_as_one_by_one(classifier: Classifier, spec: str) -> None:
    batch, labels = fielded(60, "country")
    other = make_classifier(spec)
    for text, label in zip(batch, labels, strict=True):
        other.learn_one(text, label)
    classifier.learn_many(batch, labels)
    assert content(classifier) == content(other)
    assert_probabilities(classifier.predict_proba_many(batch))


@pytest.mark.parametrize("name", ["linear", "bayes", "tree", "blend"])
def test_words_crossed_with_a_field_say_what_neither_says_alone(name: str) -> None:
    rng = np.random.default_rng(5)
    accuracy = {}
    for cross in ("", "&cross=country"):
        classifier = make_classifier(f"{name}?bits=18&max_labels=4&chars=0{cross}")
        rows = [(int(a), int(b)) for a, b in rng.integers(0, 2, (900, 2))]
        batch = [join(f"{'so' if a else 'if'} noise", {"country": "NL" if b else "BE"}) for a, b in rows]
        labels = ["same" if a == b else "other" for a, b in rows]
        classifier.learn_many(batch[:700], labels[:700])
        right = [p == label for p, label in zip(classifier.predict_many(batch[700:]), labels[700:], strict=True)]
        accuracy[cross] = np.mean(right)
    assert accuracy["&cross=country"] > 0.95
    assert name == "tree" or accuracy[""] < 0.75, "a sum cannot tell; a tree may"


def test_same_input_same_bytes(spec: str) -> None:
    first, second = taught(make_classifier(spec)), taught(make_classifier(spec))
    assert content(first) == content(second)
    probes = generated(50, seed=8)[0]
    assert first.predict_proba_many(probes).tobytes() == second.predict_proba_many(probes).tobytes()


@settings(
    deadline=None,
    max_examples=times(40, 15),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batch=rows, cuts=st.lists(st.integers(0, 30), max_size=4))
def test_a_batch_is_a_loop_wherever_it_is_cut(
    spec: str, batch: list[tuple[str, str | None, float]], cuts: list[int]
) -> None:
    whole, loop, parts = (make_classifier(spec) for _ in range(3))
    scores = run(whole, batch)
    for number, row in enumerate(batch):
        one = run(loop, [row])
        assert one[0].tobytes() == scores[number, : one.shape[1]].tobytes()
        assert not scores[number, one.shape[1] :].any()
    edges = [0, *sorted(min(cut, len(batch)) for cut in cuts), len(batch)]
    for start, stop in pairwise(edges):
        run(parts, batch[start:stop])
    assert content(whole) == content(loop) == content(parts)
    assert whole.labels == loop.labels == parts.labels
    if len(batch):
        assert_probabilities(scores, some=False)


def test_learn_many_is_a_loop_of_learn_one(spec: str) -> None:
    many, one = make_classifier(spec), make_classifier(spec)
    batch, labels = generated(100)
    weights = np.random.default_rng(1).uniform(0.1, 3, 100).tolist()
    many.learn_many(batch, labels, weights)
    for row in zip(batch, labels, weights, strict=True):
        one.learn_one(*row)
    assert content(many) == content(one)


def test_saved_and_loaded_goes_on_the_same(spec: str, tmp_path: Path) -> None:
    batch, labels = generated(300)
    straight = make_classifier(spec)
    straight.learn_many(batch[:150], labels[:150])
    for name, array in straight.state().items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="c") for name in straight.state()}
    loaded = make_classifier(straight.spec)
    loaded.load_state(mapped, straight.labels)
    assert content(loaded) == content(straight)
    on_disk = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for classifier in (straight, loaded):
        classifier.learn_many(batch[150:], labels[150:])
        classifier.learn_one("one more", "new label")
    assert content(loaded) == content(straight)
    assert loaded.labels == straight.labels
    assert loaded.predict_proba_many(batch).tobytes() == straight.predict_proba_many(batch).tobytes()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == on_disk


def test_a_read_only_state_is_copied(spec: str) -> None:
    first, second = taught(make_classifier(spec)), make_classifier(spec)
    state = {name: array.copy() for name, array in first.state().items()}
    for array in state.values():
        array.flags.writeable = False
    second.load_state(state, first.labels)
    taught(first), taught(second)
    assert content(first) == content(second)


def test_a_state_of_another_shape_is_refused(classifier: Classifier) -> None:
    state = classifier.state()
    for name in state:
        with pytest.raises(StateError, match=name):
            classifier.load_state({**state, name: state[name][:-1].copy()}, [])
    with pytest.raises(StateError):
        classifier.load_state({}, [])


@ours
def test_memory_stays_what_it_was_with_500_labels(classifier: Classifier) -> None:
    size = sum(array.nbytes for array in classifier.state().values())
    rng = np.random.default_rng(3)
    batch = [f"only{i} and{i} {rng.integers(1000)}" for i in range(500)]
    for _ in range(3):
        classifier.learn_many(batch, [f"label{i}" for i in range(500)])
    assert len(classifier.labels) == 500
    assert sum(array.nbytes for array in classifier.state().values()) == size
    assert_probabilities(classifier.predict_proba_many(batch[:20]))


def test_500_labels_are_told_apart() -> None:
    classifier = make_classifier("linear?bits=20")
    batch = [f"topic{i} of the house number{i}" for i in range(500)]
    labels = [f"label{i}" for i in range(500)]
    for _ in range(4):
        classifier.learn_many(batch, labels)
    assert np.mean([p == label for p, label in zip(classifier.predict_many(batch), labels, strict=True)]) > 0.95


@ours
def test_one_label_too_many_is_refused_and_harms_nothing(classifier: Classifier) -> None:
    classifier.learn_many([f"t{i}" for i in range(600)], [f"l{i}" for i in range(600)])
    before = content(classifier)
    with pytest.raises(TooManyLabels, match="600"):
        classifier.learn_one("t", "one too many")
    assert content(classifier) == before
    assert len(classifier.labels) == 600


def test_a_batch_with_a_label_too_many_is_a_loop_up_to_it() -> None:
    batch, loop = (make_classifier("linear?bits=10&max_labels=2") for _ in range(2))
    with pytest.raises(TooManyLabels, match="'z'"):
        batch.learn_many(["a b", "c d", "e f", "a b"], ["x", "y", "z", "x"])
    loop.learn_one("a b", "x")
    loop.learn_one("c d", "y")
    assert (batch.labels, content(batch)) == (loop.labels, content(loop))


@pytest.mark.parametrize(("labels", "weights"), [(["x"], None), (["x", "y", "z"], None), (["x", "y"], [1.0])])
def test_as_many_texts_as_labels_and_weights(spec: str, labels: list[str], weights: list[float] | None) -> None:
    classifier = make_classifier(spec)
    with pytest.raises(ValueError, match="2 texts"):
        classifier.learn_many(["a", "b"], labels, weights)
    assert classifier.labels == []


@ours
def test_a_text_that_brings_a_label_is_scored_as_it_was_predicted(spec: str) -> None:
    for known in range(1, 5):
        classifier = make_classifier(spec)
        texts, labels = generated(200, n_labels=known)
        classifier.learn_many(texts, labels)
        text = "own0x1 own1x2 word3 word4 and more that is new"
        predicted = classifier.predict_proba_many([text])[0]
        scored = run(classifier, [(text, "another", 1.0)])[0]
        assert scored[:known].tolist() == predicted.tolist()


@ours
def test_a_kernel_reads_no_further_than_its_texts(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match="3 texts, 3 targets and 1 weights"):
        classifier.score_and_learn(["a"] * 3, np.full(3, -1, np.int32), np.ones(1, np.float32))


def test_no_label_is_named_before_one_is_known(classifier: Classifier) -> None:
    classifier.learn_one("a b c", "x", float("nan"))
    assert classifier.predict_one("a b c") is None


@pytest.mark.parametrize("name", ["linear", "bayes", "tree", "blend"])
@pytest.mark.parametrize("most", [1, 8, 64])
def test_few_features_of_texts_with_many_capitals(name: str, most: int) -> None:
    """What is worked with has room for all of them, not only for what is kept."""
    batch, loop = (make_classifier(f"{name}?bits=12&max_labels=4&max_features={most}") for _ in range(2))
    texts = [" ".join(f"W{turn}x{word}" for word in range(300)) for turn in range(20)]
    labels = ["ab"[turn % 2] for turn in range(20)]
    batch.learn_many(texts, labels)
    for text, label in zip(texts, labels, strict=True):
        loop.learn_one(text, label)
    assert content(batch) == content(loop)
    if name == "blend":
        assert text_buffers(batch.settings)[1].size >= 4 * MAX_CASED


@ours
@pytest.mark.parametrize("weight", [1e-6, 1e6, 3e38])
def test_no_weight_blows_a_model_up(classifier: Classifier, weight: float) -> None:
    taught(classifier, 1000)
    classifier.learn_one("own0x1 own1x2 word3", "label2", weight)
    for array in classifier.state().values():
        assert np.isfinite(array).all()
    batch, labels = generated(300, seed=9)
    assert np.mean([p == label for p, label in zip(classifier.predict_many(batch), labels, strict=True)]) > 0.75


@ours
def test_a_larger_weight_teaches_more(spec: str) -> None:
    scores = []
    for weight in (0.1, 1.0, 3.0, 100.0):
        classifier = taught(make_classifier(spec))
        classifier.learn_one("something else", "label1", weight)
        scores.append(classifier.predict_proba_one("something else")["label1"])
    assert scores == sorted(scores)
    assert 2 * (1 - scores[-1]) < 1 - scores[0], "the odds"


@ours
def test_a_rare_label_is_found(classifier: Classifier) -> None:
    """One text in 50 is of the rare label; its precision and recall, test-then-train over the last half."""
    rng = np.random.default_rng(5)
    rare = rng.random(4000) < 0.02
    batch, _ = generated(4000, 1)
    batch = [
        f"{text} {'win a prize' if r else 'see you'} {rng.integers(50)}" for text, r in zip(batch, rare, strict=True)
    ]
    scores = run(classifier, [(text, "rare" if r else "usual", 1.0) for text, r in zip(batch, rare, strict=True)])
    found = scores[2000:, classifier.labels.index("rare")] > 0.5
    assert found[rare[2000:]].mean() > 0.9
    assert (found & ~rare[2000:]).sum() <= 2


@ours
def test_as_good_as_scikit_learn_on_a_generated_stream(spec: str) -> None:
    """Test-then-train over 3,000 texts, neither trivial nor hopeless; SGD learns in batches of 50, as is usual."""
    batch, labels = generated(3000, 5)
    classifier = make_classifier(spec)
    scores = run(classifier, [(text, label, 1.0) for text, label in zip(batch, labels, strict=True)])
    targets = np.array([classifier.labels.index(label) for label in labels])
    ours = (scores.argmax(axis=1) == targets)[50:].mean()
    assert 0.75 < ours < 0.999
    # Without n-grams a little behind, where nearly all pairs are noise; another seed moves it by half a point.
    assert ours > accuracy_of_scikit_learn() - 0.015


@cache
def accuracy_of_scikit_learn() -> float:
    batch, labels = generated(3000, 5)
    vectors, targets = HashingVectorizer(n_features=2**18, ngram_range=(1, 2)).transform(batch), np.array(labels)
    model = SGDClassifier(loss="log_loss", random_state=0)
    right = 0
    for start in range(0, 3000, 50):
        part = slice(start, start + 50)
        if start:
            right += int((model.predict(vectors[part]) == targets[part]).sum())
        model.partial_fit(vectors[part], targets[part], classes=np.unique(targets))
    return right / 2950


@ours
def test_a_turned_concept_is_learned_anew(classifier: Classifier) -> None:
    batch, labels = generated(8000)
    turned = [{"label0": "label1", "label1": "label2", "label2": "label0"}[label] for label in labels]
    classifier.learn_many(batch[:3000], labels[:3000])
    classifier.learn_many(batch[3000:7500], turned[3000:7500])
    predicted = classifier.predict_many(batch[7500:])
    assert np.mean([p == label for p, label in zip(predicted, turned[7500:], strict=True)]) > 0.85


def test_a_classifier_is_built_again_from_its_config_and_its_spec(spec: str, classifier: Classifier) -> None:
    config = json.loads(json.dumps(classifier.config()))
    again = registry.build_saved(config, allow_pickle=True)
    assert again.config() == classifier.config()
    assert again.spec == classifier.spec == make_classifier(classifier.spec).spec
    assert content(taught(again)) == content(taught(classifier)) == content(taught(make_classifier(spec)))


def test_there_is_one_compiled_kernel() -> None:
    registry.warm_up("linear")
    for spec in ("linear", *CLASSIFIERS):
        classifier = make_classifier(spec)
        run(classifier, [])
        taught(classifier)
        classifier.predict_many(["a"])
    for kernel in (score_and_learn, count_and_score, blend_and_learn):
        assert len(kernel.signatures) == 1
