"""What has a sentence model learns, replays and is followed with the same bytes, or is refused with a clear word."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from driftline.learner.disk.checkpoint import Manifest, list_checkpoints, load_manifest
from driftline.learner.disk.rebuilt import LeftOut
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.embed import completed, embedder
from driftline.learner.embed.completed import Remembered, bring_their_own, completed_some
from driftline.learner.embed.embedder import Embedder
from driftline.learner.loop import intake
from driftline.learner.loop.loop import Learner
from driftline.learner.machine.machine import Machine
from driftline.learner.machine.restore import copied, describe, restore
from driftline.learner.models.classifier import Classifier
from driftline.learner.models.one_text import OneTextScorer
from driftline.learner.quality.evaluate import evaluate
from driftline.learner.rebuild.rebuild import stage
from driftline.learner.rebuild.verify import verify
from driftline.learner.registry import as_of_today, build_saved, make_classifier
from driftline.learner.report.status import read_status
from driftline.learner.serving.snapshot import Follower
from driftline.stream.errors import ConfigError
from driftline.stream.files.reader import Row
from driftline.stream.log.base import NewRecord
from driftline.stream.log.clock import Clock
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.texts import Texts
from driftline.stream.wire.fielded import join, text_of
from driftline.stream.wire.records import Feedback, Message
from driftline.stream.wire.records import encode as wire
from driftline.stream.wire.vector import vector_of, with_vector
from tests.learner.cluster.test_lessons import batch_of, follow, state_of
from tests.learner.models.test_classifiers import content, generated
from tests.sentence_models import DIMENSION, made_model
from tests.waiting import wait_until

SMALL = "bits=12&max_labels=6"
STEP_MS = 10
Records = list[tuple[bytes, bytes]]  # messages, and the label of each
ODD = ["", "free money now", "字 👍", "a\ud800b", join("own1x1", {"country": "NL", "amount": 5}), "word1 " * 500]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_model(tmp_path_factory.mktemp("embed") / "model")


def by_hand(classifier: Classifier, texts: Sequence[str]) -> list[str]:
    """Return texts with their vectors, one by one, as a sender would have sent them."""
    assert classifier.embedder is not None
    vectors = [vector_of(f"\0{classifier.embedder.vectors([text_of(text)])[0].decode()}") for text in texts]
    return [text if vector is None else with_vector(text, vector) for text, vector in zip(texts, vectors, strict=True)]


def test_it_learns_as_if_the_vectors_were_sent(model: Path) -> None:
    texts, labels = generated(150)
    texts[:: 150 // len(ODD)] = [*ODD, *texts[: len(texts[:: 150 // len(ODD)]) - len(ODD)]]
    ours = make_classifier(f"blend?{SMALL}&embed={model}")
    sent = make_classifier(f"blend?{SMALL}&dimension={DIMENSION}")
    whole = by_hand(ours, texts)
    ours.learn_many(texts, labels)
    sent.learn_many(whole, labels)
    assert content(ours) == content(sent)
    assert ours.predict_proba_many(texts).tobytes() == sent.predict_proba_many(whole).tobytes()
    scorer = OneTextScorer(ours)
    for text, complete in zip([*ODD, *texts[:5]], by_hand(ours, [*ODD, *texts[:5]]), strict=True):
        assert scorer(text) == ours.predict_proba_many([text])[0].tolist()
        assert ours.explain_one(text) == sent.explain_one(complete)
    assert any(each.kind == "vector" for each in ours.explain_one(texts[3], n_features=200).features)
    without = make_classifier(f"blend?{SMALL}")
    without.learn_many(texts, labels)
    assert content(without)["grams"] != content(ours)["grams"] or "ridge_weights" not in content(without)


def test_what_is_complete_stays_so(model: Path) -> None:
    classifier = make_classifier(f"blend?{SMALL}&embed={model}")
    once = classifier.complete(ODD)
    assert classifier.complete(once) == once
    own = with_vector("own1x1 word2", np.arange(1.0, DIMENSION + 1))
    assert classifier.complete([own]) == [own]
    assert [text_of(text) for text in once] == [text_of(text) for text in ODD]
    assert make_classifier(f"blend?{SMALL}").complete(ODD) is ODD


def test_bytes_and_strings_are_completed_alike(model: Path) -> None:
    classifier = make_classifier(f"blend?{SMALL}&embed={model}")
    assert classifier.embedder is not None
    texts = Texts.of([*ODD, *classifier.complete(ODD)])
    own = bring_their_own(texts)
    assert own.tolist() == [False] * len(ODD) + [True] * len(ODD)
    which = ~own
    which[1] = False
    found = completed_some(texts, which, classifier.embedder.vectors)
    whole = list(classifier.complete(ODD))
    assert list(found) == [whole[0], ODD[1], *whole[2:], *whole]


def test_evaluate_gives_what_a_loop_gives(model: Path) -> None:
    texts, labels = generated(120)

    def rows(texts: Sequence[str]) -> list[Row]:
        return [Row(None, text, label, 1) for text, label in zip(texts, labels, strict=True)]

    ours = make_classifier(f"blend?{SMALL}&embed={model}")
    found = evaluate(rows(texts), ours, delay=7, batch_rows=50)
    again = make_classifier(f"blend?{SMALL}&embed={model}")
    assert evaluate(rows(texts), again, delay=7, batch_rows=1).accuracy == found.accuracy
    assert content(again) == content(ours)
    plain = make_classifier(f"blend?{SMALL}&dimension={DIMENSION}")
    evaluate(rows(by_hand(ours, texts)), plain, delay=7)
    assert content(plain) == content(ours)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("embed=/nowhere", "there is no sentence model in /nowhere"),
        ("embed=", None),
        (f"embed_sha256={'0' * 64}", "there is none"),
        ("embed=/x&embed_sha256=12", "64 hexadecimal digits"),
        ("embed=/x&embed_made_by=me", "is filled in by itself"),
        ("embed=/x&embed_rate=-1", "must be 0 to 1,000,000"),
        ("embed=/x&embed_rate=1.5", "must be a whole number"),
        ("embed=/x&vectors=/y", "embed and vectors: the one or the other"),
        ("embed=some/model", r"ORGANISATION/NAME@REVISION"),
        ("embed=some/model@main", r"ORGANISATION/NAME@REVISION"),
    ],
)
def test_what_cannot_be_meant_is_refused(query: str, message: str | None) -> None:
    if message is None:
        assert make_classifier(f"blend?{SMALL}&{query}").spec == f"blend?{SMALL}"
        return
    with pytest.raises(ConfigError, match=message):
        make_classifier(f"blend?{SMALL}&{query}")


def test_its_settings_name_it_from_everywhere_and_old_ones_had_none(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    classifier = make_classifier(f"blend?{SMALL}&embed={model.name}")
    monkeypatch.chdir("/")
    config = json.loads(json.dumps(classifier.config()))
    assert config["embed"] == str(model)
    assert len(config["embed_sha256"]) == 64
    for again in (make_classifier(classifier.spec), build_saved(config)):
        assert again.config() == classifier.config()
    old = {name: value for name, value in make_classifier("blend").config().items() if not name.startswith("embed")}
    assert as_of_today(old) == make_classifier("blend").config()


# In the learner.


def machine_of(model: Path, rate: int, name: str = "l") -> Machine:
    rules = LearnerSettings(expire_as=None).rules(StreamSettings(data=Path("x")), 1)
    return Machine(rules, make_classifier(f"blend?{SMALL}&embed={model}&embed_rate={rate}"), name)


def stream_of(n: int) -> Records:
    texts, labels = generated(n)
    return [
        (wire(Message(f"m{at}", text)), wire(Feedback(f"m{at}", label)))
        for at, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]


def apply_all(machine: Machine, records: Records, size: int, first: int = 0) -> Machine:
    """Apply messages, each followed by its label, in batches of so many; each is STEP_MS behind the one before."""
    for begin in range(0, len(records), size):
        part, at = records[begin : begin + size], first + begin
        batch = batch_of([message for message, _ in part], [label for _, label in part], at)
        for chunk in batch.chunks:
            chunk.timestamps_ms[:] = 1_000_000 + STEP_MS * np.arange(at, at + len(part))
        batch.order = np.arange(2 * len(part)).reshape(2, -1).T.reshape(-1)  # a message, its label, the next message
        machine.apply(batch)
    return machine


def saved(machine: Machine) -> dict[str, Any]:
    manifest = describe(machine, 1, 1, {}, {}, Clock(), {})
    names = ("labels", "counts", "budget")
    return content(machine.classifier) | {name: msgspec.to_builtins(getattr(manifest, name)) for name in names}


def test_where_the_stream_is_cut_changes_nothing_nor_does_a_checkpoint(model: Path) -> None:
    records = stream_of(150)
    straight = apply_all(machine_of(model, 1), records, 150)
    assert 120 <= straight.counts.vectors_made < 140
    assert straight.counts.vectors_spared == 300 - straight.counts.vectors_made
    for size in (1, 7, 64):
        assert saved(apply_all(machine_of(model, 1), records, size)) == saved(straight)
    half = apply_all(machine_of(model, 1), records[:75], 75)
    manifest = describe(half, 1, 1, {}, {}, Clock(), {})
    manifest = msgspec.json.decode(msgspec.json.encode(manifest), type=type(manifest))
    kept = copied(half, manifest)
    kept.model = {name: array.copy() for name, array in kept.model.items()}
    again = restore(kept)
    apply_all(again, records[75:], 5, 75)
    assert content(again.classifier) == content(straight.classifier)
    assert again.budget == straight.budget


def test_texts_beyond_the_rate_are_learned_by_the_others(model: Path) -> None:
    records = stream_of(150)
    all_ = apply_all(machine_of(model, 0), records, 150)
    assert (all_.counts.vectors_made, all_.counts.vectors_spared) == (300, 0)
    some = apply_all(machine_of(model, 1), records, 150)
    assert some.counts.updates == all_.counts.updates == 150
    assert content(some.classifier)["ridge_weights"] != content(all_.classifier)["ridge_weights"]


def test_a_message_and_its_label_cost_one_vector_and_an_erasure_forgets_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, made = machine_of(model, 0), []
    one = Embedder._encode
    monkeypatch.setattr(Embedder, "_encode", lambda self, text: made.append(text) or one(self, text))
    records = stream_of(40)
    apply_all(machine, records, 8)
    assert len(made) == len({*made}) == 40
    machine.forget_vectors()
    apply_all(machine, [(wire(Message("again", made[0])), wire(Feedback("again", "label0")))], 1)
    assert made[40:] == [made[0]]


def test_what_is_remembered_is_bounded_and_changes_no_value(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence_model = make_classifier(f"blend?{SMALL}&embed={model}").embedder
    assert sentence_model is not None
    remembered = Remembered(sentence_model)
    texts, _ = generated(60)
    alone = sentence_model.vectors(texts)
    monkeypatch.setattr(completed, "MOST_REMEMBERED", 10)
    assert remembered.vectors(texts + texts) == alone + alone
    assert len(remembered._kept) == 10
    monkeypatch.setattr(completed, "MOST_BYTES", 3 * len(alone[0]))
    assert remembered.vectors(texts[::-1]) == alone[::-1]
    assert len(remembered._kept) == 3
    assert remembered._bytes == sum(map(len, remembered._kept.values()))


def test_who_follows_learns_the_same_and_makes_no_vector(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, pupil = machine_of(model, 1), make_classifier(f"blend?{SMALL}&embed={model}&embed_rate=1")
    records = stream_of(100)
    for begin in range(0, 100, 20):
        part = records[begin : begin + 20]
        follow(machine, pupil, batch_of([message for message, _ in part], [label for _, label in part], begin))
        assert state_of(pupil) == state_of(machine.classifier)
    assert machine.counts.vectors_spared > 0
    monkeypatch.setattr(Embedder, "_numbers", None)  # no vector of a text is made any more
    with pytest.raises(TypeError):
        pupil.predict_proba_many(["a"])


def newest(data: Path) -> Manifest:
    return load_manifest(list_checkpoints(data / "checkpoints")[0])


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all be as on a machine where the same files give other vectors: the probe is of other sentences."""
    monkeypatch.setattr(embedder, "SENTENCES", ("another processor",))
    monkeypatch.setattr("driftline.learner.embed.opened._OPEN", {})


def test_it_lives_through_restarts_and_what_is_another_is_refused(  # noqa: PLR0915
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = StreamSettings(data=tmp_path / "data")
    texts, labels = generated(200)
    path = made_model(tmp_path / "model")
    spec = f"blend?{SMALL}&embed={path}&embed_rate=1"
    monkeypatch.setattr(intake, "EMBED_RECORDS", 16)
    log = open_log(stream)
    log.create_topics(stream.topics)

    def teach(start: int, stop: int) -> None:
        for number in range(start, stop):
            feedback = {"message_id": f"m{number}", "label": labels[number], "text": texts[number]}
            key = f"m{number}".encode()
            log.append(stream.topics.feedback, [NewRecord(key, json.dumps(feedback).encode(), 1_000 + 100 * number)])

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

    def last_two() -> tuple[int, int]:
        last, first = (int(each.name) for each in list_checkpoints(stream.data / "checkpoints")[:2])
        return first, last

    try:
        teach(0, 100)
        learn(spec)
        teach(100, 150)
        learn(None, saves=False)
        teach(150, 200)
        path.rename(tmp_path / "away")
        assert "there is no sentence model in" in refused(lambda: learn(None))
        made_model(path, seed=4)
        assert "is not the model that was learned with" in refused(lambda: learn(None))
        assert "holds a model with the sentence model in" in refused(lambda: learn(spec))
        assert "is not the model" in refused(Follower(stream.data / "snapshots").look)
        first, last = last_two()
        assert "is not the model" in refused(lambda: verify(stream.data, log, first, last))
        made_model(path)  # the same again
        with monkeypatch.context() as there:
            elsewhere(there)
            for what in (lambda: learn(None), lambda: learn(spec), Follower(stream.data / "snapshots").look,
                         lambda: verify(stream.data, log, first, last)):  # fmt: skip
                assert "gives other vectors here than those that were learned with" in refused(what)
            stage(stream.data, log, LeftOut(), into=tmp_path / "anew")
            made_by = [newest(data).config["embed_made_by"] for data in (tmp_path / "anew", stream.data)]
            assert made_by[0] != made_by[1]
        other = made_model(tmp_path / "elsewhere")
        found = learn(f"blend?{SMALL}&embed={other}&embed_rate=1")  # the same, wherever it lies
        first, last = last_two()
        assert verify(stream.data, log, first, last).outcome == "same"
        assert "asks for one with no vectors" in refused(lambda: learn(f"blend?{SMALL}"))
        manifest = newest(stream.data)
        assert 60 <= manifest.counts.vectors_made < 200
        assert manifest.counts.vectors_made + manifest.counts.vectors_spared == 200
    finally:
        log.close()
    straight = make_classifier(spec)
    whole = straight.complete(texts)
    snapshot = Follower(stream.data / "snapshots").look()
    assert snapshot is not None
    straight.load_state(
        {name: array.copy() for name, array in state_arrays(found, straight).items()}, snapshot.info().labels
    )
    assert snapshot.model.predict_proba_many(texts)[1].tobytes() == straight.predict_proba_many(whole).tobytes()
    assert snapshot.model.makes_vectors


def state_arrays(found: dict[str, bytes], like: Classifier) -> dict[str, Any]:
    return {name: np.frombuffer(found[name], array.dtype).reshape(array.shape) for name, array in like.state().items()}


def test_one_that_is_killed_comes_to_the_bytes_of_one_that_is_not(tmp_path: Path) -> None:
    """A process learns, is killed while it does, and another one goes on; beside it one that was left alone."""
    texts, labels = generated(1200)
    spec = f"blend?{SMALL}&embed={made_model(tmp_path / 'model')}&embed_rate=1"
    streams = [StreamSettings(data=tmp_path / name) for name in ("killed", "alone")]
    for stream in streams:
        with closing(open_log(stream)) as log:
            log.create_topics(stream.topics)
            for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
                value = json.dumps({"message_id": f"m{number}", "label": label, "text": text}).encode()
                log.append(stream.topics.feedback, [NewRecord(f"m{number}".encode(), value, 1_000 + 100 * number)])

    killed = streams[0]
    command = [sys.executable, "-m", "driftline", "learn", "--data", str(killed.data), "--model", spec]
    options = ["--batch-records", "4", "--checkpoint-interval-s", "0.2"]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: process.poll() is not None or _learned(killed) > 0, 300)
            assert process.poll() is None
        finally:
            process.kill()
    found = []
    for stream in streams:
        with closing(open_log(stream)) as log, closing(Learner(stream, LearnerSettings(model=spec), log)) as learner:
            learner.start()
            learner.run(lambda: False, log.watermarks(stream.topics[:2]))
            found.append((content(learner._work.machine.classifier), learner._work.machine.budget))
            assert learner._work.machine.counts.updates == 1200
    assert found[0] == found[1]


def _learned(stream: StreamSettings) -> int:
    status = read_status(stream.data)
    return 0 if status is None else status.counts.labels_learned
