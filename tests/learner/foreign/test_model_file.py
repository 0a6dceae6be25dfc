"""A model that a file builds: found, guarded, kept with its file, and the same wherever it is opened."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from river import compose, feature_extraction, naive_bayes

from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.foreign.adapter import Adapter
from driftline.learner.foreign.model_file import MAX_BYTES
from driftline.learner.loop.loop import Learner
from driftline.learner.registry import build_saved, make_classifier
from driftline.learner.serving.snapshot import Follower
from driftline.stream.errors import ConfigError
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.fielded import join
from tests.learner.foreign.test_adapters import refused
from tests.learner.models.test_classifiers import HOSTILE, assert_probabilities, generated

BAG = """\
from river import compose, feature_extraction, naive_bayes

def tokens(text):
    return text.lower().split()

def build(alpha=1.0):
    return compose.Pipeline(feature_extraction.BagOfWords(tokenizer=tokens), naive_bayes.MultinomialNB(alpha))
"""
PIPELINE = """\
import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier


class Texts:
    def __init__(self):
        self.rows = HashingVectorizer(n_features=2**12, analyzer="char_wb", ngram_range=(2, 4))
        self.model = SGDClassifier(loss="log_loss", random_state=1)

    def partial_fit(self, texts, labels, classes=None):
        self.model.partial_fit(self.rows.transform(texts), labels, classes=classes)

    def predict_proba(self, texts):
        return self.model.predict_proba(self.rows.transform(texts))
"""
OF_A_CLASS = PIPELINE + "\n\ndef build():\n    return Texts()\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def make(spec: str) -> Adapter:
    classifier = make_classifier(spec, allow_pickle=True)
    assert isinstance(classifier, Adapter)
    return classifier


@pytest.mark.parametrize("text", [BAG, OF_A_CLASS], ids=["river", "partial_fit"])
def test_it_learns_texts_and_goes_on_from_its_bytes(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "model.py", text)
    spec = f"file:{path}:build?text.raw=1&max_labels=4"
    straight = make(spec)
    assert straight.spec == "file:model.py:build?text.raw=1&max_labels=4"
    path.unlink()  # what is kept has its own copy
    texts, labels = generated(600)
    straight.learn_many(texts[:300], labels[:300])
    opened = build_saved(json.loads(json.dumps(straight.config())), allow_pickle=True)
    opened.load_state({name: array.copy() for name, array in straight.state().items()}, straight.labels)
    for classifier in (straight, opened):
        classifier.learn_many(texts[300:], labels[300:])
    assert straight.state()["pickle"].tobytes() == opened.state()["pickle"].tobytes()
    assert straight.config() == opened.config()
    np.testing.assert_array_equal(straight.predict_proba_many(texts), opened.predict_proba_many(texts))
    assert np.mean([p == label for p, label in zip(straight.predict_many(texts), labels, strict=True)]) > 0.85


def test_a_river_pipeline_gets_the_text_itself(tmp_path: Path) -> None:
    texts, labels = generated(200)
    ours = make(f"file:{write(tmp_path / 'm.py', BAG)}?text.raw=1&alpha=0.5")
    theirs = compose.Pipeline(feature_extraction.BagOfWords(), naive_bayes.MultinomialNB(0.5))
    theirs["BagOfWords"].processing_steps[-1:] = [str.split]
    for text, label in zip(texts, labels, strict=True):
        expected, found = theirs.predict_proba_one(text), ours.predict_proba_one(text)
        assert {name: pytest.approx(score, abs=1e-6) for name, score in expected.items()} == found
        theirs.learn_one(text, label)
        ours.learn_one(text, label)


def test_hostile_texts_end_nothing(tmp_path: Path) -> None:
    for text in (BAG, OF_A_CLASS):
        classifier = make(f"file:{write(tmp_path / 'm.py', text)}?text.raw=1&max_labels=4")
        classifier.learn_many([*HOSTILE, "\ud83d half", "a b"], (["x", "y"] * len(HOSTILE))[: len(HOSTILE) + 2])
        assert_probabilities(classifier.predict_proba_many(HOSTILE))


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    classifier = make(f"file:{write(tmp_path / 'm.py', BAG)}?text.raw=1&text.max_chars=16&text.tail_chars=4")
    assert classifier._raw("a" * 20 + "bbbb") == "a" * 11 + " bbbb"
    assert classifier._raw("\ud83d") == "?"


def test_models_of_one_file_share_nothing(tmp_path: Path) -> None:
    """Not even what the file keeps for itself and puts into each."""
    text = "from river import naive_bayes\nKEPT = naive_bayes.MultinomialNB()\ndef build():\n    return KEPT\n"
    spec = f"file:{write(tmp_path / 'm.py', text)}"
    first = make(spec)
    empty = first.state()["pickle"].tobytes()
    first.learn_many(["a b", "c d"], ["x", "y"])
    assert make(spec).state()["pickle"].tobytes() == empty != first.state()["pickle"].tobytes()


def test_what_is_said_of_explanations(tmp_path: Path) -> None:
    classifier = make(f"file:{write(tmp_path / 'm.py', BAG)}?text.raw=1")
    classifier.learn_many(["win a prize", "lunch at noon"] * 8, ["spam", "ham"] * 8)
    explanation = classifier.explain_one("a prize at noon")
    assert {each.text for each in explanation.features} == {"a", "prize", "at", "noon"}


@pytest.mark.parametrize(
    ("text", "query", "message"),
    [
        (None, "", "m.py cannot be read: No such file"),
        (b"\xff\xfe", "", "it is no UTF-8"),
        ("#" * (MAX_BYTES + 1), "", "longer than 65,536 bytes"),
        ("def build(:\n", "", "m.py cannot be run: SyntaxError"),
        ("x = 1\nimport no_such_package\n", "", "m.py cannot be run: line 2: ModuleNotFoundError.*no_such_package"),
        ("def make():\n    pass\ndef other():\n    pass\n", "", "has no function 'build'; it has make, other"),
        ("build = 3\n", "", "has no function 'build'; it has none"),
        ("def build():\n    return 3\n", "", "returns, a int, must have learn_one and predict_one.*partial_fit"),
        ("def build():\n    pass\n    return 1 / 0\n", "", r"build\(\) failed: line 3: ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", "", "m.py cannot be run: line 2: SystemExit: 3"),
        ("def build():\n    raise SystemExit(3)\n", "", r"build\(\) failed: line 2: SystemExit: 3"),
        (BAG, "?text.raw=1&beta=2", r"build\(\) cannot be called so: got an unexpected keyword argument 'beta'"),
        (BAG, "", "cannot learn and score hashed text: .*; if it takes texts, add text.raw=1"),
        (BAG, "?text.raw=1&file.sha256=12", "the file's SHA-256 is [0-9a-f]{64}, not 12"),
        (
            BAG.replace("tokenizer=tokens", "tokenizer=lambda text: text.split()"),
            "?text.raw=1",
            "cannot be kept: .*pickle",
        ),
        (
            "from river import imblearn, naive_bayes\ndef build():\n"
            "    return imblearn.RandomSampler(naive_bayes.MultinomialNB(), {0: .5, 1: .5})\n",
            "",
            "is not the same model twice.*a seed",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str | bytes | None, query: str, message: str) -> None:
    path = tmp_path / "m.py"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        make_classifier(f"file:{path}{query}", allow_pickle=True)


def test_without_the_flag_nothing_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = write(tmp_path / "m.py", f"open({str(trace)!r}, 'w').close()\n{BAG}")
    assert "--allow-pickle" in refused(lambda: make_classifier(f"file:{path}"))
    assert not trace.exists()
    config = make(f"file:{path}?text.raw=1").config()
    trace.unlink()
    assert "--allow-pickle" in refused(lambda: build_saved(config))
    assert not trace.exists()


def test_it_lives_through_a_restart_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path / "data", allow_pickle=True)
    texts, labels = generated(200)
    path = write(tmp_path / "model.py", BAG)
    spec = f"file:{path}?text.raw=1"
    log = open_log(stream)
    log.create_topics(stream.topics)

    def teach(start: int, stop: int) -> None:
        for number in range(start, stop):
            feedback = {"message_id": f"m{number}", "label": labels[number], "text": texts[number]}
            key = f"m{number}".encode()
            log.append(stream.topics.feedback, [NewRecord(key, json.dumps(feedback).encode(), 1_000 + number)])

    def learn(model: str | None) -> bytes:
        learner = Learner(stream, LearnerSettings(model=model), log)
        try:
            learner.start()
            learner.run(lambda: False, log.watermarks(stream.topics[:2]))
            return learner._work.machine.classifier.state()["pickle"].tobytes()
        finally:
            learner.close()

    try:
        teach(0, 100)
        learn(spec)
        straight = make(spec)
        write(path, BAG.replace("alpha=1.0", "alpha=2.0"))
        teach(100, 200)
        with pytest.raises(ConfigError, match=r"the file of .*model.py.* has changed: .*rebuild --model"):
            learn(spec)
        content = learn(None)  # by its own copy
        assert len(list_checkpoints(stream.data / "checkpoints")) > 1
        path.unlink()
        other = write(tmp_path / "elsewhere.py", BAG).rename(tmp_path / "model.py")
        assert learn(f"file:{other}:build?text.raw=1") == content  # the same file, wherever it lies
    finally:
        log.close()
    straight.learn_many(texts, labels)
    assert content == straight.state()["pickle"].tobytes()
    snapshot = Follower(stream.data / "snapshots", allow_pickle=True).look()
    assert snapshot is not None
    assert snapshot.model.predict_proba_many(texts)[1].tobytes() == straight.predict_proba_many(texts).tobytes()


def test_the_command_line(command_line: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    """In processes of their own, and from another directory: nobody but the first needs the file."""
    texts, labels = generated(100)
    rows = "".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in zip(texts, labels, strict=True))
    write(tmp_path / "rows.jsonl", rows)
    write(tmp_path / "model.py", OF_A_CLASS)
    model = ("--model", "file:model.py?text.raw=1&max_labels=4")

    def ran(*arguments: str) -> str:
        done = command_line(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    ran("send", "rows.jsonl")
    ran("learn", "--stop-at-end", "--allow-pickle", *model)
    (tmp_path / "model.py").unlink()
    assert json.loads(ran("predict", "--allow-pickle", "--json", texts[0]))["label"] == labels[0]
    ran("verify", "--allow-pickle")


def test_any_class_may_take_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"texts_{random.Random(1).randrange(10**9)}"
    write(tmp_path / f"{name}.py", PIPELINE)
    classifier = make(f"class:{name}.Texts?text.raw=1&max_labels=4")
    texts, labels = generated(300)
    classifier.learn_many(texts, labels)
    assert np.mean([p == label for p, label in zip(classifier.predict_many(texts), labels, strict=True)]) > 0.85
    seen: list[Any] = []
    monkeypatch.setattr(classifier._model, "predict_proba", lambda rows: seen.append(rows) or np.ones((1, 4)) / 4)
    classifier.predict_many(["A text"])
    assert seen == [["A text"]]


DICTS = """
from river import compose, feature_extraction, naive_bayes

def category(x):
    return {f"country={x['country']}": 1} if "country" in x else {}

def build():
    words = feature_extraction.BagOfWords(on="text")
    return (words + compose.FuncTransformer(category)) | naive_bayes.MultinomialNB()
"""


def test_a_model_that_takes_dicts_gets_the_fields(tmp_path: Path) -> None:
    classifier = make(f"file:{write(tmp_path / 'm.py', DICTS)}?text.fields=1")
    given = {"country": "NL", "n": 5, "tags": ["a", "b"], "urgent": True}
    assert classifier._raw(join("win", given)) == {**given, "text": "win"}
    assert classifier._raw("win") == {"text": "win"}
    assert classifier._raw(join("win", {"text": "mine"})) == {"text": "win"}
    for _ in range(20):
        classifier.learn_one(join("noise", {"country": "NL"}), "a")
        classifier.learn_one(join("noise", {"country": "BE"}), "b")
    assert classifier.predict_one(join("noise", {"country": "NL"})) == "a"
    assert classifier.predict_one(join("noise", {"country": "BE"})) == "b"
    text_alone = make(f"file:{write(tmp_path / 'm.py', BAG)}?text.raw=1")
    assert text_alone._raw(join("win", given)) == "win"
