"""A vector that is sent with a text: read as it is, learned from by a model that takes such, and by no other one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftline.cli.commands.status import print_status
from driftline.learner.blend.settings import BlendSettings
from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.explain.trace import trace, trace_shape
from driftline.learner.loop.loop import Learner
from driftline.learner.models.classifier import Classifier
from driftline.learner.models.one_text import OneTextScorer
from driftline.learner.rebuild.verify import verify
from driftline.learner.registry import as_of_today, build_saved, make_classifier
from driftline.learner.report.metrics import of_learner
from driftline.learner.report.status import read_status
from driftline.learner.serving.snapshot import Follower
from driftline.learner.text.features import features
from driftline.learner.vectors.lookup import ALIKE
from driftline.learner.vectors.sent import read_sent, to_single, unpack
from driftline.learner.vectors.table import LANES, width_of
from driftline.stream.errors import ConfigError
from driftline.stream.join.message_rows import bare_size
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.texts import Texts
from driftline.stream.wire.fielded import join, text_of
from driftline.stream.wire.vector import size_of, vector_of, with_vector, without_vector
from tests.learner.models.test_classifiers import content
from tests.learner.text.test_shape import shape
from tests.learner.text.test_text_fields import FIELDS, SETTINGS, TEXT
from tests.often import times

N = 16
SMALL = "bits=12&max_labels=6"
SENT = f"blend?{SMALL}&dimension={N}"


def of(seed: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def read(whole: str, n: int) -> tuple[int, np.ndarray]:
    """Return what the kernel reads of a text that lies among others."""
    texts = Texts.of(["before\0\0AAv\0", whole, "behind"])
    halves = np.full(n, 7, np.uint16)
    return read_sent(texts.codes, texts.starts[1], texts.starts[2], halves), halves


def test_all_16_bit_numbers_are_read_as_numpy_reads_them() -> None:
    halves = np.arange(1 << 16).astype(np.uint16)
    found = np.array([to_single(half) for half in halves], np.float32)
    known = halves.view(np.float16).astype(np.float32)
    finite = np.isfinite(known)
    np.testing.assert_array_equal(found[finite].view(np.uint32), known[finite].view(np.uint32))
    assert np.isinf(found[~finite]).all()
    assert finite.sum() == (1 << 16) - 2 * (1 << 10)


@settings(max_examples=times(500, 100))
@given(TEXT, FIELDS, st.integers(2, 40), st.integers(0, 2**32 - 1))
@example("", {}, 2, 0)
def test_the_kernel_reads_what_was_put_on(text: str, fields: dict[str, Any], n: int, seed: int) -> None:
    whole = with_vector(join(text, fields), of(seed, n))
    known = vector_of(whole)
    assert known is not None
    is_there, halves = read(whole, n)
    assert is_there
    np.testing.assert_array_equal(halves.view(np.float16), known)
    vector = np.full(width_of(n), 9, np.float32)
    assert unpack(halves, n, vector, np.zeros(LANES, np.float32))
    np.testing.assert_allclose(vector[:n], known / np.linalg.norm(known.astype(np.float64)), rtol=1e-6)
    assert vector[n] == ALIKE
    assert not vector[n + 1 :].any()
    for other in {2, n - 1, n + 1, 3 * n} - {n, 1}:
        is_there, halves = read(whole, other)
        assert not is_there
        assert not halves.any()
    assert not read(join(text, fields), n)[0]


def test_what_is_no_vector_is_not_read() -> None:
    bits = np.array([0x7C00, 0, 0, 0], np.uint16)  # infinite: no text that was read has it
    assert not unpack(bits, 4, np.zeros(width_of(4), np.float32), np.zeros(LANES, np.float32))
    assert not unpack(np.zeros(4, np.uint16), 4, np.zeros(width_of(4), np.float32), np.zeros(LANES, np.float32))
    for damaged in ("\0\0AAA=v\0", "\0\0AA-Av\0", "\0\0\u00e9\u00e9v\0", "AAAv\0", "\0AAAAAAv\0", "v\0", "\0"):
        assert not read(damaged, 2)[0]


@settings(max_examples=times(500, 100))
@given(TEXT, FIELDS, SETTINGS)
@example("e\u0301" * 40, {}, BlendSettings())
@example("e\u0301" * 40, {"caf\u00e9": "e\u0301"}, BlendSettings(max_chars=30, tail_chars=28, cross="caf\u00e9"))
def test_a_vector_changes_no_feature(text: str, fields: dict[str, Any], options: Any) -> None:
    """Not of the text and its fields, not of its shape; neither in the kernels nor in their plain twins."""
    bare = join(text, fields)
    whole = with_vector(bare, of(5, 40))
    found, known = features([whole], options)[0], features([bare], options)[0]
    np.testing.assert_array_equal(found, known)
    traced = trace(whole, options)
    assert traced == trace(bare, options)
    assert shape(whole, options) == shape(bare, options)
    assert trace_shape(whole, options, traced) == trace_shape(bare, options, traced)


@settings(max_examples=times(1000, 300))
@given(st.text("\0vAa s", max_size=12))
@example("\0\0v\0")
@example("v\0")
@example("av\0")
@example("\0v\0")
@example("\0\0AAAAAv\0")
@example("\0\0AA AAv\0")
@example("\0\0AAAAAAv\0")
def test_what_no_vector_and_no_field_made_is_read_alike(whole: str) -> None:
    """A string that is none of ours, in kernels and in their twins."""
    data = whole.encode()
    found = features([whole], BlendSettings())[0].tolist()
    assert [each.hash for each in trace(whole, BlendSettings())] == found
    codes = np.frombuffer(b"a" + data + b"bv\0", np.uint8).copy()
    assert bare_size(codes, 1, len(data)) == len(without_vector(whole).encode())
    assert text_of(without_vector(whole)) == text_of(whole)
    vector = vector_of(whole)
    assert vector is None or len(vector) == size_of(whole)


STREAM = [(f"text number {i % 7} {'good' if i % 2 else 'bad'} e\u0301", "ab"[i % 2]) for i in range(60)]


def learned(spec: str, *, vectors: int = 0, one_by_one: bool = False) -> tuple[Classifier, np.ndarray]:
    """Return a classifier that has learned a stream, whose texts have vectors of so many numbers, and its scores."""
    classifier = make_classifier(spec)
    texts = [with_vector(text, of(i, vectors)) if vectors else text for i, (text, _) in enumerate(STREAM)]
    labels = [label for _, label in STREAM]
    targets = np.array([classifier.label_index(label) for label in labels], np.int32)
    weights = np.ones(len(texts), np.float32)
    if one_by_one:
        rows = [classifier.score_and_learn([text], targets[i : i + 1], weights[:1]) for i, text in enumerate(texts)]
        return classifier, np.concatenate(rows)
    return classifier, classifier.score_and_learn(texts, targets, weights)


@pytest.mark.parametrize("spec", [f"linear?{SMALL}", f"bayes?{SMALL}", f"blend?{SMALL}", "tree?max_labels=6", SENT])
def test_a_model_that_takes_no_such_vector_is_as_without(spec: str) -> None:
    one, scores = learned(spec)
    other, same = learned(spec, vectors=12)
    np.testing.assert_array_equal(scores, same)
    for name, array in one.state().items():
        np.testing.assert_array_equal(array, other.state()[name], name)


@pytest.mark.parametrize("given", ["text.bits=10", "text.raw=1", "text.fields=1"])
def test_a_model_of_another_library_is_as_without(given: str, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(
        "class Model:\n"
        "    def __init__(self): self.said = {}\n"
        "    def partial_fit(self, rows, labels, classes=None, sample_weight=None): self.said[repr(rows)] = labels[0]\n"
        "    def predict_proba(self, rows):\n"
        "        return [[1.0, 0.0] if self.said.get(repr(rows)) == 0 else [0.0, 1.0]]\n"
        "def build(): return Model()\n"
    )
    spec = "river:naive_bayes.MultinomialNB?" + given if "bits" in given else f"file:{file}:build?max_labels=2&{given}"
    fielded = join("noise", {"country": "NL"})
    scores = []
    for vector in (None, of(1)):
        classifier = make_classifier(spec, allow_pickle=True)
        texts = [text if vector is None else with_vector(text, vector) for text in ("good news", "bad news", fielded)]
        classifier.learn_many(texts, ["a", "b", "a"])
        scores.append(classifier.predict_proba_many(["good news", "bad news", fielded, texts[2], texts[0]]).tolist())
        assert classifier.predict_many(texts[:2]) == ["a", "b"]
    assert scores[0] == scores[1]


def pairs(n: int, seed: int, label: str | None = None) -> tuple[list[str], list[str]]:
    """Return texts that say nothing, with vectors that say all."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(3, N))
    labels = [label or "abc"[rng.integers(3)] for _ in range(n)]
    vectors = [centres["abc".index(each)] + rng.normal(0, 0.5, N) for each in labels]
    return [with_vector(f"text {rng.integers(1000)}", vector) for vector in vectors], labels


def right(classifier: Classifier, seed: int = 2) -> float:
    texts, labels = pairs(300, seed)
    return float(np.mean([found == label for found, label in zip(classifier.predict_many(texts), labels, strict=True)]))


def test_what_only_vectors_say_is_learned() -> None:
    texts, labels = pairs(300, 1)
    with_, without = make_classifier(SENT), make_classifier(f"blend?{SMALL}")
    with_.learn_many(texts, labels)
    without.learn_many(texts, labels)
    assert right(with_) > 0.95
    assert right(without) < 0.5
    bare = with_.predict_proba_many(["text 7"])
    assert np.isfinite(bare).all()
    assert abs(bare.sum() - 1) < 1e-5


def test_labels_that_come_sorted_are_not_forgotten() -> None:
    """What is rehearsed is rehearsed with its vector."""
    sorted_, without = make_classifier(SENT), make_classifier(f"{SENT}&rehearse=0")
    for turn in range(2):
        for label in "abc":
            texts, labels = pairs(200, 10 * turn + ord(label), label)
            sorted_.learn_many(texts, labels)
            without.learn_many(texts, labels)
    assert sorted_.state()["rehearsal_vectors"].any()
    assert "rehearsal_vectors" not in without.state()
    assert "rehearsal_vectors" not in make_classifier(f"blend?{SMALL}").state()
    assert right(sorted_) > 0.95
    weights = [each.state()["ridge_weights"] for each in (sorted_, without)]
    assert not np.array_equal(*weights), "the means forget nothing that comes sorted; the ridge would"


def test_how_texts_are_cut_into_batches_and_who_asks_makes_no_difference() -> None:
    one, scores = learned(SENT, vectors=N)
    other, same = learned(SENT, vectors=N, one_by_one=True)
    np.testing.assert_array_equal(scores, same)
    for name, array in one.state().items():
        np.testing.assert_array_equal(array, other.state()[name], name)
    again = build_saved(as_of_today(one.config()))
    again.load_state({name: array.copy() for name, array in one.state().items()}, one.labels)
    texts = [with_vector("e\u0301 good", of(3)), with_vector(join("a", {"b": "c"}), of(4)), "good", "x" * 9000]
    texts.append(with_vector("x " * 9000, of(5)))
    known = one.predict_proba_many(texts)
    np.testing.assert_array_equal(again.predict_proba_many(texts), known)
    scorer = OneTextScorer(one)
    np.testing.assert_array_equal([scorer(text) for text in texts], known)
    assert scorer(texts[0]) != scorer("e\u0301 good")


def test_a_label_whose_place_goes_to_another_takes_its_vectors_along() -> None:
    classifier = make_classifier(SENT)
    texts, labels = pairs(300, 1)
    classifier.learn_many(texts, labels)
    column = classifier.columns["b"]
    state = classifier.state()
    assert state["ridge_weights"][column].any()
    classifier.clear(column, [classifier.imprint(text) for text in texts])
    state = classifier.state()
    assert not state["ridge_weights"][column].any()
    gone = state["rehearsal_columns"] == -1
    assert gone.any()
    assert not state["rehearsal_vectors"][gone].any()


def test_an_explanation_says_what_the_vector_adds() -> None:
    classifier = make_classifier(SENT)
    texts, labels = pairs(300, 1)
    classifier.learn_many(texts, labels)
    told = classifier.explain_one(texts[0], n_features=500)
    sent = [feature for feature in told.features if feature.kind == "vector"]
    assert [(each.text, each.spans, each.known, each.shared) for each in sent] == [
        ("vector of 16 numbers", [], None, None)
    ]
    assert told.features[0] == sent[0], "nothing else says anything"
    assert told.label == labels[0]
    assert sent[0].shares[labels[0]] > 0
    logs = [
        told.bias[label] + sum(each.shares[label] for each in told.features) + told.rest[label] for label in told.bias
    ]
    known = [np.log(told.scores[label]) for label in told.bias]
    np.testing.assert_allclose(np.subtract(logs, logs[0]), np.subtract(known, known[0]), atol=1e-3)
    for other in ("text 7", with_vector("text 7", of(1, 12))):
        assert not [each for each in classifier.explain_one(other, n_features=500).features if each.kind == "vector"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("blend?dimension=1", "2 to 2048"),
        ("blend?dimension=2049", "2 to 2048"),
        ("blend?dimension=-3", "2 to 2048"),
        ("blend?dimension=x", "must be a whole number"),
        ("blend?dimension=8&vectors=glove.txt", "the one or the other"),
        ("linear?dimension=8", "has no setting"),
    ],
)
def test_what_cannot_be_meant_is_refused(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_classifier(spec)


def test_a_model_of_before_takes_no_vectors() -> None:
    config = make_classifier(f"blend?{SMALL}").config()
    del config["dimension"]
    assert build_saved(config).spec == f"blend?{SMALL}"
    assert make_classifier(SENT).spec == f"blend?bits=12&dimension={N}&max_labels=6"


def test_from_the_log_to_what_is_served_whatever_is_killed(tmp_path: Path) -> None:  # noqa: PLR0915  (one story)
    """Messages with a vector and labels without, labels with both, a restart that replays: the same bytes."""
    stream = StreamSettings(data=tmp_path / "data")
    wholes, labels = pairs(200, 1)
    vectors = [vector_of(whole) for whole in wholes]
    texts = [whole.partition("\0")[0] for whole in wholes]
    log = open_log(stream)
    log.create_topics(stream.topics)

    def send(start: int, stop: int) -> None:
        for number in range(start, stop):
            key, vector = f"m{number}", vectors[number]
            assert vector is not None
            said = {"text": texts[number], "vector": vector.tolist()}
            alone = number % 3 == 0
            if not alone:
                value = json.dumps({"id": key} | said).encode()
                log.append(stream.topics.messages, [NewRecord(key.encode(), value, 1_000 + number)])
            feedback = {"message_id": key, "label": labels[number]} | (said if alone else {})
            log.append(stream.topics.feedback, [NewRecord(key.encode(), json.dumps(feedback).encode(), 1_000 + number)])

    def learn(model: str | None, saves: bool = True) -> Classifier:
        learner = Learner(stream, LearnerSettings(model=model), log)
        try:
            learner.start()
            if saves:
                learner.run(lambda: False, log.watermarks(stream.topics[:2]))
            else:
                learner.step()  # and then it is as one that was killed
            return learner._work.machine.classifier
        finally:
            learner.close()

    try:
        send(0, 100)
        learn(SENT)
        send(100, 150)
        learn(None, saves=False)
        send(150, 200)
        found = learn(None)
        last, first = (int(each.name) for each in list_checkpoints(stream.data / "checkpoints")[:2])
        assert verify(stream.data, log, first, last).outcome == "same"
        with pytest.raises(ConfigError, match="holds a model"):
            learn(f"blend?{SMALL}")
    finally:
        log.close()
    straight = make_classifier(SENT)
    straight.learn_many(wholes, labels)
    assert content(found) == content(straight)
    assert right(found) > 0.9
    snapshot = Follower(stream.data / "snapshots").look()
    assert snapshot is not None
    assert snapshot.model.predict_proba_many(wholes)[1].tobytes() == straight.predict_proba_many(wholes).tobytes()
    assert snapshot.model.predict_proba_one(wholes[0])[1] == straight.predict_proba_many(wholes)[0].tolist()
    assert snapshot.model.predict_proba_one(wholes[0])[1] != straight.predict_proba_many([texts[0]])[0].tolist()
    assert snapshot.model.explain_one(wholes[0])[1] == straight.explain_one(wholes[0])
    review = (stream.data / "review.json").read_text()
    assert texts[199] in review
    assert wholes[199].split("\0")[-2] not in review, "nobody is shown the numbers"


def test_what_a_model_does_not_take_is_counted_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = StreamSettings(data=tmp_path / "data")
    log = open_log(stream)
    try:
        log.create_topics(stream.topics)
        for number in range(3):
            message = {"id": f"m{number}", "text": f"text {number}", "vector": [1, number]}
            log.append(stream.topics.messages, [NewRecord(b"m", json.dumps(message).encode(), 1_000 + number)])
            feedback = {"message_id": f"m{number}", "label": "ab"[number % 2]}
            log.append(stream.topics.feedback, [NewRecord(b"m", json.dumps(feedback).encode(), 1_000 + number)])
        learner = Learner(stream, LearnerSettings(model="linear?bits=10&max_labels=4", batch_records=1), log)
        try:
            learner.start()
            learner.run(lambda: False, log.watermarks(stream.topics[:2]))
        finally:
            learner.close()
    finally:
        log.close()
    said = [record.getMessage() for record in caplog.records if "does not take" in record.getMessage()]
    assert len(said) == 1
    assert "with a vector that linear?bits=10&max_labels=4 does not take" in said[0]
    status = read_status(stream.data)
    assert status is not None
    assert (status.counts.vectors_unused, status.counts.labels_learned) == (3, 3)
    print_status(status)
    shown = " ".join(capsys.readouterr().out.split())
    assert "3 messages with one that linear?bits=10&max_labels=4 does not take" in shown
    (metric,) = [metric for metric in of_learner(status) if metric.name == "driftline_unused_vectors"]
    assert metric.samples[0].value == 3
