"""Models of other libraries behind ours, and ours inside River: found, made, guarded, kept."""

import importlib.util
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from river import compose, evaluate, feature_extraction, linear_model, metrics, multiclass, naive_bayes
from river.checks import check_estimator
from sklearn.linear_model import SGDClassifier

from driftline.api.shared.watcher import Watcher
from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.foreign import named
from driftline.learner.foreign.adapter import Adapter
from driftline.learner.foreign.river_models import RiverAdapter
from driftline.learner.foreign.settings import ForeignSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.models.classifier import Classifier, TooManyLabels
from driftline.learner.quality.evaluate import evaluate as evaluate_ours
from driftline.learner.registry import REGISTRY, as_of_today, build_saved, make_classifier
from driftline.learner.river import RiverClassifier
from driftline.learner.serving.snapshot import Follower, Publisher, Snapshot, SnapshotInfo
from driftline.stream.errors import ConfigError, StateError
from driftline.stream.files.reader import Row
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.fielded import join
from tests.learner.models.test_classifiers import HOSTILE, assert_probabilities, generated, run
from tests.often import only_long

BAYES = "river:naive_bayes.MultinomialNB"
MODELS = {
    BAYES: 0.9,
    "river:linear_model.LogisticRegression": 0.85,
    "river:tree.HoeffdingTreeClassifier?grace_period=50&text.bits=7&text.dense=1&text.pairs=0": 0.5,
    "sklearn:linear_model.SGDClassifier?loss=log_loss&text.bits=14&max_labels=4": 0.9,
    "sklearn:naive_bayes.MultinomialNB?text.bits=12&max_labels=4": 0.85,
    "class:test_adapters.Counts?step=2&text.bits=12": 0.85,
}


def make(spec: str) -> Adapter:
    classifier = make_classifier(spec, allow_pickle=True)
    assert isinstance(classifier, Adapter)
    return classifier


POISONS = {"no-number": np.nan, "endless": np.inf, "negative": -1.0}


class Counts:
    """A classifier of somebody's own: no weights, no classes in advance, and as bad as `poison` wants it."""

    def __init__(self, step: float = 1.0, poison: str = "") -> None:
        self.step, self.poison = step, poison
        self.counts: dict[int, NDArray[np.float64]] = {}
        self.calls = 0

    def partial_fit(self, rows: Any, targets: NDArray[np.int64]) -> None:
        self.calls += 1
        if self.poison == "raise" and self.calls > 4:
            raise ArithmeticError("no more")
        of_label = self.counts.setdefault(int(targets[0]), np.ones(rows.shape[1]))
        of_label[rows.indices] += self.step

    def predict_proba(self, rows: Any) -> NDArray[np.float64]:
        if self.poison == "raise" and self.calls > 4:
            raise ArithmeticError("no more")
        logs = np.array(
            [np.log(self.counts[k] / self.counts[k].sum())[rows.indices].sum() for k in sorted(self.counts)]
        )
        scores = np.exp(logs - logs.max())[None]
        if self.calls > 4 and self.poison:
            scores[0, -1] = POISONS[self.poison]
        return scores

    @property
    def classes_(self) -> NDArray[np.int64]:
        return np.array(sorted(self.counts))


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


# What they learn.


@pytest.mark.parametrize("spec", MODELS)
def test_it_learns(spec: str) -> None:
    texts, labels = generated(900)
    classifier = make(spec)
    classifier.learn_many(texts[:600], labels[:600])
    predicted = classifier.predict_many(texts[600:])
    assert np.mean([p == label for p, label in zip(predicted, labels[600:], strict=True)]) > MODELS[spec]
    assert_probabilities(classifier.predict_proba_many(texts))
    assert classifier.n_refused == 0


def test_river_through_the_adapter_is_river() -> None:
    texts, labels = generated(300)
    for spec, model in (
        (BAYES, naive_bayes.MultinomialNB()),
        ("river:linear_model.LogisticRegression", multiclass.OneVsRestClassifier(linear_model.LogisticRegression())),
    ):
        classifier = make(spec)
        rows = list(classifier._rows(classifier._hashed(texts)))
        scores = run(classifier, [(text, label, 1.0) for text, label in zip(texts, labels, strict=True)])
        for row, label, ours in zip(rows, labels, scores, strict=True):
            theirs = model.predict_proba_one(row)
            for name, score in theirs.items():
                assert ours[classifier.labels.index(name)] == pytest.approx(score, abs=1e-6)
            model.learn_one(row, label)


def test_scikit_learn_through_the_adapter_is_scikit_learn() -> None:
    texts, labels = generated(100)
    classifier = make("sklearn:linear_model.SGDClassifier?loss=log_loss&text.bits=12&max_labels=3")
    model = SGDClassifier(loss="log_loss", random_state=0)
    rows = list(classifier._rows(classifier._hashed(texts)))
    scores = run(classifier, [(text, label, 1.0) for text, label in zip(texts, labels, strict=True)])
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        if number > 20:
            np.testing.assert_allclose(scores[number], model.predict_proba(row)[0], atol=1e-6)
        model.partial_fit(row, [classifier.labels.index(label)], classes=range(3))


def test_nested_models_and_arguments() -> None:
    classifier = make("river:ensemble.BaggingClassifier?n_models=2&model=linear_model.LogisticRegression&model.l2=0.5")
    bag = classifier._model.classifier  # one versus the rest
    assert len(bag) == 2
    assert bag[0].l2 == 0.5
    assert bag.seed == 0  # set, so that a replay gives the same
    assert make("river:tree.HoeffdingTreeClassifier?binary_split=true&max_depth=none")._model.binary_split is True


def test_seeds_make_a_replay_the_same() -> None:
    texts, labels = generated(60)
    spec = "river:forest.ARFClassifier?n_models=3&text.bits=6&text.dense=1"
    first, second = make(spec), make(spec)
    for classifier in (first, second):
        classifier.learn_many(texts, labels)
    assert first.state()["pickle"].tobytes() == second.state()["pickle"].tobytes()


@pytest.mark.parametrize("spec", MODELS)
def test_a_tree_and_the_others_go_on_from_their_bytes(spec: str) -> None:
    texts, labels = generated(120)
    straight, loaded = make(spec), make(spec)
    straight.learn_many(texts[:60], labels[:60])
    loaded.load_state({name: array.copy() for name, array in straight.state().items()}, straight.labels)
    for classifier in (straight, loaded):
        classifier.learn_many(texts[60:], labels[60:])
    assert straight.state()["pickle"].tobytes() == loaded.state()["pickle"].tobytes()
    assert straight.predict_proba_many(texts).tobytes() == loaded.predict_proba_many(texts).tobytes()


def test_one_label_too_many_is_refused() -> None:
    classifier = make(f"{BAYES}?max_labels=2")
    classifier.learn_many(["a", "b"], ["x", "y"])
    with pytest.raises(TooManyLabels, match="2"):
        classifier.learn_one("c", "z")
    assert classifier.predict_one("a") == "x"


def test_hostile_texts_and_weights_end_nothing() -> None:
    for spec in (BAYES, "river:linear_model.LogisticRegression", "class:test_adapters.Counts"):
        classifier = make(spec)
        for weight in (1.0, 1e-6, 3e38):
            classifier.learn_many(HOSTILE, ["x", "y", "z"] * 5, [weight] * 15)
        assert_probabilities(classifier.predict_proba_many(HOSTILE))
        # River's MultinomialNB divides by zero as long as all it has learned is an empty text.
        refused = classifier.n_refused
        assert refused == (spec == BAYES)
        classifier.learn_many(["a"] * 4, ["x"] * 4, [0.0, -1.0, np.nan, np.inf])
        assert classifier.n_refused == refused + 4


# What is not believed.


@pytest.mark.parametrize("poison", [*POISONS, "raise"])
def test_no_score_that_is_none_gets_out(poison: str, caplog: pytest.LogCaptureFixture) -> None:
    classifier = make(f"class:test_adapters.Counts?poison={poison}")
    for _ in range(4):
        classifier.learn_many(["a b", "c d"], ["x", "y"])
    np.testing.assert_array_equal(classifier.predict_proba_many(["a", "c"]), np.full((2, 2), 0.5, np.float32))
    assert classifier.n_refused == (4 if poison == "raise" else 3)
    assert caplog.text.count("could not learn") == (poison == "raise")


def test_an_argument_may_be_called_classifier() -> None:
    """In a configuration that is the name of the model itself."""
    made = make("river:multiclass.OneVsRestClassifier?classifier=linear_model.LogisticRegression&text.bits=8")
    made.learn_many(["a b", "c d"] * 20, ["x", "y"] * 20)
    again = build_saved(made.config(), allow_pickle=True)
    again.load_state(made.state(), made.labels)
    assert again.config() == made.config()
    assert again.predict_proba_one("a b") == made.predict_proba_one("a b")
    assert made.predict_one("c d") == "y"


def test_what_was_saved_before_there_were_raw_texts_is_the_same_model() -> None:
    config = make(BAYES).config()
    saved = {name: value for name, value in config.items() if name != "text.raw"}
    assert as_of_today(saved) == config == build_saved(saved, allow_pickle=True).config()


def test_scores_that_are_no_numbers_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    made = make("sklearn:naive_bayes.GaussianNB?text.bits=8&text.dense=1&var_smoothing=0.0")
    made.learn_many(["a b", "c d"] * 5, ["x", "y"] * 5)
    made.predict_many(["a b"])
    assert made.n_refused
    assert [record.message for record in caplog.records if "not finite" in record.message]


def test_labels_that_are_equal_are_one_in_river() -> None:
    model = RiverClassifier("linear?bits=12")
    for text, label in [("one", 1), ("one", 1.0), ("two", "1"), ("two", "1'"), ("three", True), ("", ""), ("", "")]:
        model.learn_one(text, label)
    scores = model.predict_proba_one("one")
    assert list(scores) == [1, "1", "1'", ""]
    assert sum(scores.values()) == pytest.approx(1)


def test_a_poisoned_river_model_gives_equal_scores_and_is_counted() -> None:
    """River 0.26's LogisticRegression stays NaN for good once it was given one."""
    classifier = make("river:linear_model.LogisticRegression")
    classifier.learn_many(["a", "b"], ["x", "y"])
    classifier._model.learn_one({1: float("nan")}, 0)
    before = classifier.n_refused
    np.testing.assert_array_equal(classifier.predict_proba_many(["a", "b"]), np.full((2, 2), 0.5, np.float32))
    assert classifier.n_refused == before == 0
    classifier.learn_one("a", "x")
    assert classifier.n_refused == 1


# What cannot be meant.


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("river:naive_bayes.Multinomial", "river.naive_bayes has no class 'Multinomial'; there are .*MultinomialNB"),
        ("river:bayes.MultinomialNB", "the modules of river are .*naive_bayes"),
        ("river:MultinomialNB", "river:module.Class"),
        ("river:linear_model.LinearRegression", "must be a classifier of River; there are .*LogisticRegression"),
        (f"{BAYES}?alfa=1", "has no argument 'alfa'; it has alpha"),
        (f"{BAYES}?text.colour=1", "text.bits, text.norm, text.raw, text.fields, text.dense, max_labels"),
        (f"{BAYES}?text.bits=31", "1 to 30"),
        (f"{BAYES}?text.dense=1", "1 to 16"),
        (f"{BAYES}?text.dense=1&text.bits=8&text.raw=1", "the text itself, so there is nothing for text.dense=1"),
        (f"{BAYES}?text.raw=1", "cannot learn and score text: "),
        (f"{BAYES}?max_labels=0", "1 to 100000"),
        (f"{BAYES}?max_labels=many", "a whole number"),
        (f"{BAYES}?alpha=nan", "finite"),
        (f"{BAYES}?alpha.x=1", "needs alpha=module.Class"),
        ("river:ensemble.BaggingClassifier", "cannot be made with no arguments: .*model.*built in a file"),
        ("river:ensemble.BaggingClassifier?model=tree.Nothing", "has no class 'Nothing'"),
        ("sklearn:linear_model.LogisticRegression", "must have partial_fit and predict_proba; there are SGDClassifier"),
        ("sklearn:linear_model.SGDClassifier", "cannot learn and score hashed text: .*predict_proba"),
        ("sklearn:linear_model.SGDClassifier?loss=log_loss&alpha=-1", "alpha"),
        ("class:subprocess.Popen?args=true", "cannot be used"),
        ("class:no_such_package.Model", "No module named"),
        ("class:test_adapters.Counts?poison=raise&colour=1", "step, poison"),
        ("torch:nn.Linear", "there are .*linear.*river:module.Class"),
    ],
)
def test_what_is_wrong_is_said_with_what_there_is(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_classifier(spec, allow_pickle=True)


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    with pytest.raises(ConfigError, match=r"sklearn, which is not installed: pip install 'driftline\[sklearn\]'"):
        make_classifier("sklearn:naive_bayes.MultinomialNB", allow_pickle=True)


def test_what_stands_in_the_place_of_multiflow_is_said() -> None:
    with pytest.raises(ConfigError, match=r"became River.*river:tree\.HoeffdingTreeClassifier"):
        make_classifier("multiflow:trees.HoeffdingTreeClassifier", allow_pickle=True)


# The pickle.


class Bomb:
    """What a pickle can do: this one writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "opened")


def publish(root: Path, classifier: Classifier, epoch: int = 1) -> Path:
    info = SnapshotInfo(
        version="v-1",
        epoch=epoch,
        model=classifier.spec,
        config=classifier.config(),
        labels=classifier.labels,
        labels_learned=1,
        feedback_offsets={"0": 1},
        published_at=time.time(),
    )
    return Publisher(root, epoch).publish(classifier, info)


def mined(path: Path) -> Adapter:
    classifier = make(BAYES)
    classifier.learn_one("a", "x")
    classifier._model = Bomb(path)
    return classifier


def test_a_pickle_is_never_opened_without_the_flag(tmp_path: Path) -> None:
    trace, root = tmp_path / "trace", tmp_path / "data" / "snapshots"
    path = publish(root, mined(trace))
    assert "--allow-pickle" in refused(lambda: Snapshot(path))
    assert "--allow-pickle" in refused(Follower(root).look)
    watcher = Watcher(tmp_path / "data")
    assert "--allow-pickle" in refused(watcher.start)
    watcher.close()
    state, config = mined(trace).state(), mined(trace).config()
    assert "--allow-pickle" in refused(lambda: build_saved(config))
    guarded = RiverAdapter(
        named.Named(named.LIBRARIES["river"], "naive_bayes.MultinomialNB", {}), ForeignSettings(), False
    )
    assert "--allow-pickle" in refused(lambda: guarded.load_state(state, ["x"]))
    assert not trace.exists()
    with pytest.raises(StateError, match="holds a"):  # with the flag it is opened, and then refused for what it is
        Snapshot(path, allow_pickle=True)
    assert trace.exists(), "the bomb is none: this test could not fail"


def refused(call: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


def test_without_the_flag_a_name_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mined_module.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "--allow-pickle" in refused(lambda: make_classifier("class:mined_module.Model"))
    assert not (tmp_path / "trace").exists()


def test_a_watcher_goes_on_with_the_model_before_a_pickle(tmp_path: Path) -> None:
    ours = make_classifier("linear?bits=12&max_labels=8")
    ours.learn_one("a", "x")
    publish(tmp_path / "snapshots", ours)
    watcher = Watcher(tmp_path)
    watcher.start()
    try:
        publish(tmp_path / "snapshots", mined(tmp_path / "trace"), epoch=2)
        watcher._look_for_snapshot()
        assert "--allow-pickle" in str(watcher.snapshot_problem)
        assert watcher.served is not None
        assert watcher.served.info.epoch == 1
    finally:
        watcher.close()
    assert not (tmp_path / "trace").exists()


def test_damaged_bytes_are_refused() -> None:
    classifier = make(BAYES)
    classifier.learn_one("a", "x")
    state = {name: array.copy() for name, array in classifier.state().items()}
    for damaged in (state["pickle"][:-1], state["pickle"][:0], state["pickle"].astype(np.int8)):
        with pytest.raises(StateError, match="pickle"):
            make(BAYES).load_state(state | {"pickle": damaged}, ["x"])
    with pytest.raises(StateError, match="max_labels"):
        make(BAYES).load_state(state, ["x"] * 65)


def test_another_version_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = make(BAYES)
    classifier.learn_one("a", "x")
    state = {name: array.copy() for name, array in classifier.state().items()}
    monkeypatch.setattr("river.__version__", "99.0")
    make(BAYES).load_state(state, ["x"])
    assert "is read by river 99.0" in caplog.text


# Through the learner, on a real log.


def test_a_foreign_model_lives_through_a_restart(tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path / "data", allow_pickle=True)
    texts, labels = generated(200)
    log = open_log(stream)
    log.create_topics(stream.topics)

    def teach(start: int, stop: int) -> None:
        for number in range(start, stop):
            feedback = {"message_id": f"m{number}", "label": labels[number], "text": texts[number]}
            key = f"m{number}".encode()
            log.append(stream.topics.feedback, [NewRecord(key, json.dumps(feedback).encode(), 1_000 + number)])

    def learn(stream: StreamSettings, model: str | None) -> tuple[bytes, int]:
        learner = Learner(stream, LearnerSettings(model=model), log)
        try:
            learner.start()
            learner.run(lambda: False, log.watermarks(stream.topics[:2]))
            classifier = learner._work.machine.classifier
            return classifier.state()["pickle"].tobytes(), learner.status("stopped").counts.labels_learned
        finally:
            learner.close()

    try:
        teach(0, 100)
        guarded = stream.model_copy(update={"allow_pickle": False})
        with pytest.raises(ConfigError, match="--allow-pickle"):
            learn(guarded, BAYES)
        learn(stream, BAYES)
        teach(100, 200)
        with pytest.raises(ConfigError, match="--allow-pickle"):
            learn(guarded, None)
        content, learned = learn(stream, None)
        assert learned == 200
        assert len(list_checkpoints(stream.data / "checkpoints")) > 1
    finally:
        log.close()
    straight = make(BAYES)
    straight.learn_many(texts, labels)
    assert content == straight.state()["pickle"].tobytes()
    snapshot = Follower(stream.data / "snapshots", allow_pickle=True).look()
    assert snapshot is not None
    assert snapshot.model.predict_proba_many(texts)[1].tobytes() == straight.predict_proba_many(texts).tobytes()


def test_the_command_line(command_line: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    """`evaluate` keeps nothing, so it needs no flag; what keeps or opens a state does, and says so in one line."""
    texts, labels = generated(100)
    rows = "".join(f'{{"text": "{text}", "label": "{label}"}}\n' for text, label in zip(texts, labels, strict=True))
    (tmp_path / "rows.jsonl").write_text(rows)
    done = command_line("evaluate", "rows.jsonl", "--json", "--model", BAYES)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["model"] == BAYES
    for command in (["learn", "--stop-at-end", "--model", BAYES], ["up", "--port", "0", "--model", BAYES]):
        done = command_line(*command)
        assert done.returncode == 1
        assert "allow it with --allow-pickle" in done.stderr
        assert "Traceback" not in done.stderr
    assert command_line("send", "rows.jsonl").returncode == 0
    done = command_line("learn", "--stop-at-end", "--model", BAYES, "--allow-pickle")
    assert done.returncode == 0, done.stderr
    for command in (["predict", texts[0]], ["serve", "--port", "0"], ["learn", "--stop-at-end"]):
        done = command_line(*command)
        assert done.returncode == 1
        assert "allow it with --allow-pickle" in done.stderr
        assert "Traceback" not in done.stderr
    done = command_line("predict", "--allow-pickle", "--json", texts[0])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == labels[0]


# Ours inside River.


@pytest.mark.parametrize(
    "name", [name if name == "linear" else pytest.param(name, marks=only_long) for name in REGISTRY]
)
def test_rivers_own_checks(name: str) -> None:
    check_estimator(RiverClassifier(f"{name}?bits=12&max_labels=20"))


@pytest.mark.parametrize("name", REGISTRY)
def test_rivers_progressive_validation_gives_our_accuracy(name: str) -> None:
    texts, labels = generated(500)
    spec = f"{name}?bits=14&max_labels=20"
    rows = [
        Row(str(number), text, label, number) for number, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    ours = evaluate_ours(rows, make_classifier(spec))
    for dataset in (
        zip(texts, labels, strict=True),
        (({"text": t}, label) for t, label in zip(texts, labels, strict=True)),
    ):
        metric = metrics.Accuracy()
        evaluate.progressive_val_score(dataset, RiverClassifier(spec), metric)
        assert metric.get() == pytest.approx(ours.accuracy, abs=1e-12)


def test_in_a_pipeline_of_river() -> None:
    texts, labels = generated(300)
    pipeline = compose.Pipeline(feature_extraction.BagOfWords(), RiverClassifier("linear?bits=14"))
    for text, label in zip(texts, labels, strict=True):
        pipeline.learn_one(text, label)
    assert np.mean([pipeline.predict_one(text) == label for text, label in zip(texts, labels, strict=True)]) > 0.9


def test_labels_come_back_as_they_were_given() -> None:
    model = RiverClassifier("linear?bits=12")
    for x, y in (("yes", True), ("no", np.bool_(False)), ("two", 2), ("word", "w")) * 5:
        model.learn_one(x, y)
    assert [model.predict_one(x) for x in ({"text": "yes"}, "no", "two", "word")] == [True, False, 2, "w"]
    with pytest.raises(TypeError, match="text or a dict"):
        model.learn_one(5, True)


def test_what_is_beside_the_text_in_a_dict_of_rivers_are_its_fields() -> None:
    model = RiverClassifier("linear?bits=14")
    for n in range(60):
        x = {"text": "noise", "country": "NL" if n % 2 else "BE", "amount": np.float64(n), "tags": ["a"], "none": None}
        model.learn_one(x, bool(n % 2))
    assert [model.predict_one({"text": "noise", "country": each}) for each in ("NL", "BE")] == [True, False]
    assert model.predict_proba_one("noise\0country\0NLs\0") == model.predict_proba_one("noise country NLs")
    with pytest.raises(ValueError, match=r"fields\.x must be"):
        model.learn_one({"text": "a", "x": {}}, True)


@pytest.mark.parametrize("library", ["river:naive_bayes.MultinomialNB", "sklearn:naive_bayes.MultinomialNB"])
def test_a_model_of_hashed_features_has_those_of_fields(library: str) -> None:
    classifier = make_classifier(f"{library}?text.bits=14&max_labels=2&text.cross=country", allow_pickle=True)
    assert "text.cross=country" in classifier.spec
    for n in range(80):
        classifier.learn_one(join("noise", {"country": "NL" if n % 2 else "BE"}), "ab"[n % 2])
    assert [classifier.predict_one(join("noise", {"country": each})) for each in ("NL", "BE")] == ["b", "a"]


def test_weights_are_learned_by_a_model_that_knows_none() -> None:
    """Four texts of a weight of a quarter are one, and two of 2.5 are five."""
    light, whole = (make_classifier("river:naive_bayes.MultinomialNB?text.bits=12", allow_pickle=True) for _ in "ab")
    for classifier, weights in ((light, [0.25] * 4 + [2.5] * 2), (whole, [1.0, 5.0])):
        classifier.learn_many(["a b", "c d"], ["x", "y"])
        classifier.learn_many(["a e"] * len(weights), ["y"] * len(weights), weights)
    assert light.predict_proba_one("a e") == whole.predict_proba_one("a e")


def test_weight_that_is_owed_is_kept_and_was_none_before() -> None:
    spec = "river:naive_bayes.MultinomialNB?text.bits=12"
    classifier, again, before = (make_classifier(spec, allow_pickle=True) for _ in range(3))
    classifier.learn_many(["a b", "c d", "a e"], ["x", "y", "y"], [1, 1, 0.75])
    again.load_state(classifier.state(), classifier.labels)
    for each in (classifier, again):
        each.learn_one("a e", "y", 0.25)
    assert again.predict_proba_one("a e") == classifier.predict_proba_one("a e")
    state = classifier.state()
    assert state["owed"].tolist()[:2] == [0, 0]
    del state["owed"]
    before.load_state(state, classifier.labels)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_river_hears_of_a_weight_that_is_none(weight: float) -> None:
    model = RiverClassifier("linear?bits=12")
    with pytest.raises(ValueError, match="0 or more"):
        model.learn_one("a", "x", weight)
    model.learn_one("a", "x", 0.0)
    assert model.predict_proba_one("a") == {}
    model.learn_one("a", "x", 2.0)
    assert model.predict_one("a") == "x"
