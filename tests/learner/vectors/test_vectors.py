"""A model with word vectors is that of one file: what it learns lives through restarts, and another file is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.learner.blend import ridge
from driftline.learner.blend.blend import blend_and_learn
from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.models.classifier import Classifier
from driftline.learner.rebuild.verify import verify
from driftline.learner.registry import as_of_today, build_saved, make_classifier
from driftline.learner.serving.snapshot import Follower
from driftline.learner.vectors import table
from driftline.learner.vectors.opened import SUFFIX
from driftline.stream.errors import ConfigError
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.learner.models.test_classifiers import content, generated, run, taught
from tests.vectors import DIMENSION, MADE, made

SMALL = "bits=12&max_labels=6"


def arrays(classifier: Classifier) -> dict[str, NDArray[np.float64]]:
    return {name: array for name, array in classifier.state().items() if name.startswith("ridge_")}


class PlainRidge:
    """Least squares with a ridge, learned recursively, as a page of a textbook has it: of a few labels."""

    def __init__(self, dimension: int, sent: bool = False) -> None:
        self.widening = ridge.SENT_WIDENING / (dimension + 1) if sent else ridge.WIDENING
        self.covariance = np.eye(dimension + 1) * ridge.FIRST_VARIANCE
        self.weights: dict[int, NDArray[np.float64]] = {}

    def learn(self, vector: NDArray[np.float64], target: int, weight: float) -> None:
        self.weights.setdefault(target, np.zeros(len(vector)))
        spread = np.trace(self.covariance)
        moves = self.covariance @ vector
        gain = weight / (1 + weight * vector @ moves)
        for label, weights in list(self.weights.items()):
            error = (label == target) - weights @ vector
            if abs(error) >= ridge.LEAST_ERROR:
                self.weights[label] = weights + error * gain * moves
        grown = 1 + weight * self.widening if spread < len(vector) * ridge.FIRST_VARIANCE else 1
        self.covariance = self.covariance * grown - gain * np.outer(moves, moves)


@pytest.mark.parametrize(
    ("dimension", "sent"), [(2, False), (15, False), (16, False), (63, False), (2, True), (99, True)]
)
def test_the_ridge_equals_the_plain_one(dimension: int, sent: bool) -> None:
    """Of up to 63 numbers the whole covariance is kept; of a vector that is the text's own, of up to 511."""
    rng = np.random.default_rng(dimension)
    meaning = ridge.Meaning(None, 5, dimension) if sent else ridge.Meaning(fake(dimension), 5)
    plain = PlainRidge(dimension, sent)
    _, _, learned, space, _ = meaning.arguments
    known = np.zeros(5, np.uint8)
    for _ in range(300):
        vector = np.append(rng.normal(size=dimension), 1)
        vector[:dimension] /= np.linalg.norm(vector[:dimension])
        target, weight = int(rng.integers(4)), float(rng.choice([0.25, 1, 1, 2.5, 64]))
        known[target] = 1
        space.vector[: dimension + 1] = vector
        assert ridge.learn_ridge(learned, space, dimension, known, target, 4, np.float32(weight))
        plain.learn(vector, target, weight)
    for label, weights in plain.weights.items():
        np.testing.assert_allclose(learned.weights[label, : dimension + 1], weights, atol=2e-3)
    used = learned.covariance[: dimension + 1, : dimension + 1]
    np.testing.assert_allclose(used, plain.covariance, atol=1e-3)
    assert not learned.weights[:, dimension + 1 :].any()
    assert not learned.covariance[dimension + 1 :].any()


def test_longer_vectors_have_blocks() -> None:
    """As good as the plain one where numbers of different blocks do not hang together, and bounded."""
    dimension = 150
    rng = np.random.default_rng(1)
    meaning = ridge.Meaning(fake(dimension), 2)
    _, _, learned, space, _ = meaning.arguments
    assert learned.covariance.shape == (160, ridge.BLOCK)
    turn, known, right = rng.normal(size=dimension), np.ones(2, np.uint8), []
    logs, p = np.zeros(2, np.float32), np.zeros(2, np.float32)
    for _ in range(1500):
        vector = rng.normal(size=dimension) / np.sqrt(dimension)
        target = int(vector @ turn > 0)
        space.vector[: dimension + 1] = np.append(vector, 1)
        assert ridge.score_ridge(learned, space, True, known, 2, logs, p)
        right.append(p.argmax() == target)
        assert ridge.learn_ridge(learned, space, dimension, known, target, 2, np.float32(1))
    assert np.mean(right[500:]) > 0.85
    assert np.isfinite(learned.covariance).all()


@pytest.mark.parametrize(("sent", "shape"), [(2, (16, 16)), (384, (400, 400)), (511, (512, 512)), (768, (784, 400)),
                                             (1536, (1552, 400)), (2048, (2064, 416))])  # fmt: skip
def test_a_texts_own_vector_has_the_longest_blocks_that_are_alike(sent: int, shape: tuple[int, int]) -> None:
    assert ridge.Meaning(None, 2, sent).arguments[2].covariance.shape == shape


class fake:  # noqa: N801
    """A table of which only the dimension is asked."""

    words = table.no_words()

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension


def test_words_that_were_never_learned_are_told_by_their_neighbours(tmp_path: Path) -> None:
    """A label's words lie together in the file; those that are asked of were in no text that was learned."""
    rng = np.random.default_rng(5)
    centres, letters = rng.normal(size=(3, 8)), list("abcdefghijklmnopqrstuvwxyz")
    words = [["".join(rng.choice(letters, 7)) for _ in range(40)] for _ in centres]
    lines = [
        f"{word} {' '.join(map(str, (centre + rng.normal(0, 0.5, 8)).tolist()))}\n"
        for centre, own in zip(centres, words, strict=True)
        for word in own
    ]
    (tmp_path / "words.vec").write_text("".join(lines))
    right = []
    for spec in ("blend?bits=16", f"blend?bits=16&vectors={tmp_path / 'words.vec'}"):
        classifier = make_classifier(spec)
        for number in range(120):
            classifier.learn_one(f"{words[number % 3][number // 3 % 20]} {number}", f"label{number % 3}")
        asked = [(f"{word} 999", f"label{label}") for label in range(3) for word in words[label][20:]]
        right.append(np.mean([classifier.predict_one(text) == label for text, label in asked]))
    without, with_ = right
    assert with_ > 0.9
    assert with_ > without + 0.3


def test_a_model_without_vectors_has_nothing_of_them() -> None:
    classifier = make_classifier(f"blend?{SMALL}")
    assert not arrays(taught(classifier))
    assert classifier.state()["weights"].shape[1] == 5
    config = {name: value for name, value in classifier.config().items() if not name.startswith("vectors")}
    assert as_of_today(config) == classifier.config()


def test_kernels_are_compiled_once_for_models_with_and_without() -> None:
    taught(make_classifier(f"blend?{SMALL}"), 20)
    before = len(blend_and_learn.signatures)
    taught(make_classifier(f"blend?{SMALL}&vectors={MADE}"), 20)
    assert len(blend_and_learn.signatures) == before


def test_a_text_of_unknown_words_teaches_the_ridge_nothing() -> None:
    classifier = taught(make_classifier(f"blend?{SMALL}&vectors={MADE}"))
    before = {name: array.copy() for name, array in arrays(classifier).items()}
    classifier.learn_many(["nobody knows these", "", "!!"], ["label0", "label1", "other"])
    for name, array in arrays(classifier).items():
        np.testing.assert_array_equal(array, before[name])
    classifier.learn_one("nobody knows own0x2", "label1")
    assert not np.array_equal(arrays(classifier)["ridge_weights"], before["ridge_weights"])


def test_a_label_that_gives_its_place_leaves_nothing() -> None:
    classifier = taught(make_classifier(f"blend?{SMALL}&vectors={MADE}"))
    assert arrays(classifier)["ridge_weights"][1].any()
    classifier.clear(1, [])
    assert not arrays(classifier)["ridge_weights"][1].any()


@pytest.mark.parametrize("name", ["ridge_weights", "ridge_covariance"])
def test_damaged_numbers_are_refused(name: str) -> None:
    classifier = taught(make_classifier(f"blend?{SMALL}&vectors={MADE}"))
    arrays(classifier)[name][:] = np.nan
    scores = run(classifier, [("own0x2 word4", "label1", 1.0)] * 3)
    assert np.isfinite(scores).all()
    assert classifier.n_refused > 0


def test_what_is_rehearsed_teaches_the_ridge_too() -> None:
    """In a run of one label the others' texts are learned again; a text's words are kept, so it has its vector."""
    classifier = make_classifier(f"blend?bits=16&max_labels=6&vectors={MADE}")
    texts, labels = generated(600)
    order = np.argsort(np.array(labels), kind="stable")
    classifier.learn_many([texts[at] for at in order], [labels[at] for at in order])
    forgetful = make_classifier(f"blend?bits=16&max_labels=6&rehearse=0&vectors={MADE}")
    forgetful.learn_many([texts[at] for at in order], [labels[at] for at in order])
    assert not np.array_equal(arrays(classifier)["ridge_weights"], arrays(forgetful)["ridge_weights"])
    assert np.isfinite(arrays(classifier)["ridge_covariance"]).all()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("vectors=/nowhere/words.vec", "/nowhere/words.vec cannot be read: No such file"),
        ("vectors=", None),
        (f"vectors_sha256={'0' * 64}", "there is none"),
        (f"vectors={MADE}&vectors_sha256=12", "64 hexadecimal digits"),
        (f"vectors={MADE}&vectors_sha256={'0' * 64}", "is not the file that the model has learned with"),
        ("vectors=a&b", "must be setting=value"),
        ("vectors=/", "the file /model.safetensors cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(query: str, message: str | None) -> None:
    if message is None:
        assert make_classifier(f"blend?{SMALL}&{query}").spec == f"blend?{SMALL}"
        return
    with pytest.raises(ConfigError, match=message):
        make_classifier(f"blend?{SMALL}&{query}")


def test_a_name_that_no_specification_can_have_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "a&b.vec")
    config = make_classifier(f"blend?{SMALL}").config() | {"vectors": str(path)}
    with pytest.raises(ConfigError, match="no & and"):
        build_saved(config)


def test_a_relative_name_is_the_same_file_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "made?.vec")
    monkeypatch.chdir(tmp_path)
    classifier = taught(make_classifier(f"blend?{SMALL}&vectors=made?.vec"))
    monkeypatch.chdir("/")
    for again in (make_classifier(classifier.spec), build_saved(json.loads(json.dumps(classifier.config())))):
        assert again.config() == classifier.config()
        assert content(taught(again)) == content(classifier)


def test_it_lives_through_a_restart_and_another_file_is_refused(tmp_path: Path) -> None:  # noqa: PLR0915
    stream = StreamSettings(data=tmp_path / "data")
    texts, labels = generated(200)
    path = made(tmp_path / "words.vec")
    spec = f"blend?{SMALL}&vectors={path}"
    log = open_log(stream)
    log.create_topics(stream.topics)

    def teach(start: int, stop: int) -> None:
        for number in range(start, stop):
            feedback = {"message_id": f"m{number}", "label": labels[number], "text": texts[number]}
            key = f"m{number}".encode()
            log.append(stream.topics.feedback, [NewRecord(key, json.dumps(feedback).encode(), 1_000 + number)])

    def learn(model: str | None, saves: bool = True) -> dict[str, bytes]:
        learner = Learner(stream, LearnerSettings(model=model), log)
        try:
            learner.start()
            if saves:
                learner.run(lambda: False, log.watermarks(stream.topics[:2]))
            else:
                learner.step()  # and then it is as one that was killed
            return content(learner._work.machine.classifier)
        finally:
            learner.close()

    def refused(what: Callable[[], object]) -> str:
        with pytest.raises(ConfigError) as error:
            what()
        return str(error.value)

    try:
        teach(0, 100)
        learn(spec)
        teach(100, 150)
        learn(None, saves=False)
        teach(150, 200)
        own = path.with_name(path.name + SUFFIX)
        for gone in (path, own):
            gone.rename(gone.with_suffix(".away"))
        assert "cannot be read" in refused(lambda: learn(None))
        made(path, seed=4)
        assert "is not the file that the model has learned with" in refused(lambda: learn(None))
        assert "holds a model with the word vectors in" in refused(lambda: learn(spec))
        assert "is not the file" in refused(Follower(stream.data / "snapshots").look)
        last, first = (int(each.name) for each in list_checkpoints(stream.data / "checkpoints")[:2])
        assert "is not the file" in refused(lambda: verify(stream.data, log, first, last))
        made(path)  # the same one again
        other = made(tmp_path / "elsewhere.vec")
        found = learn(f"blend?{SMALL}&vectors={other}")  # the same, whatever it is called
        last, first = (int(each.name) for each in list_checkpoints(stream.data / "checkpoints")[:2])
        assert verify(stream.data, log, first, last).outcome == "same"
        assert "with no vectors" in refused(lambda: learn(f"blend?{SMALL}"))
    finally:
        log.close()
    straight = make_classifier(spec)
    straight.learn_many(texts, labels)
    assert found == content(straight)
    snapshot = Follower(stream.data / "snapshots").look()
    assert snapshot is not None
    assert snapshot.model.predict_proba_many(texts)[1].tobytes() == straight.predict_proba_many(texts).tobytes()
    assert snapshot.model.predict_proba_one(texts[0])[1] == straight.predict_proba_many(texts)[0].tolist()
    assert snapshot.model.explain_one(texts[0])[1] == straight.explain_one(texts[0])


def test_the_dimension_of_the_made_file() -> None:
    assert make_classifier(f"blend?{SMALL}&vectors={MADE}").state()["ridge_weights"].shape == (6, 16)
    assert DIMENSION < 16
