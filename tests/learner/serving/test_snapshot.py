"""A snapshot comes back as the same model, each version once it is published; damage is never served."""

import multiprocessing
import time
import weakref
from collections.abc import Sequence
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.learner.models.classifier import Classifier
from driftline.learner.models.one_text import OneTextScorer
from driftline.learner.registry import REGISTRY, make_classifier
from driftline.learner.serving.snapshot import (
    KEPT,
    TRIES,
    Follower,
    Publisher,
    Snapshot,
    SnapshotInfo,
    list_snapshots,
    seal,
)
from driftline.stream.errors import StateError
from driftline.stream.process.memory import give_back_large_arrays
from tests.waiting import wait_until

TEXTS = ["win a prize", "see you at home", "", "\N{GRINNING FACE}"]
SPEC = "linear?bits=12&max_labels=8"


def taught(n: int = 20, spec: str = SPEC) -> Classifier:
    classifier = make_classifier(spec)
    for number in range(n):
        teach(classifier, number)
    return classifier


def teach(classifier: Classifier, number: int) -> None:
    classifier.learn_one(*(("win a prize now", "spam"), ("see you at home", "ham"))[number % 2])


def info_of(classifier: Classifier, version: str = "abc-20", epoch: int = 1) -> SnapshotInfo:
    return SnapshotInfo(
        version=version,
        epoch=epoch,
        model=classifier.spec,
        config=classifier.config(),
        labels=classifier.labels,
        labels_learned=20,
        feedback_offsets={"0": 20},
        published_at=time.time(),
    )


def publish(root: Path, classifier: Classifier, epoch: int = 1) -> Path:
    return Publisher(root, epoch).publish(classifier, info_of(classifier, epoch=epoch))


def scores_of(snapshot: Snapshot, texts: Sequence[str] = TEXTS) -> Any:
    return snapshot.model.predict_proba_many(texts)[1]


@pytest.mark.parametrize("name", REGISTRY)
def test_it_is_the_same_model_and_becomes_the_next(tmp_path: Path, name: str) -> None:
    """Tables are mapped for reading only: a kernel that changed one while it scores would end this process."""
    classifier = taught(3, f"{name}?bits=16&max_labels=8")
    publisher = Publisher(tmp_path, 1)
    path = publisher.publish(classifier, info_of(classifier, "v-3"))
    snapshot = Snapshot(path)
    other = snapshot.another_model()
    for number in range(4, 60):
        for model in (snapshot.model, other):
            info, scores = model.predict_proba_many(TEXTS)
            assert info.version == f"v-{number - 1}"
            assert info.labels == classifier.labels
            np.testing.assert_array_equal(scores, classifier.predict_proba_many(TEXTS))
            for text, row in zip(TEXTS * 2, [*scores.tolist(), *scores.tolist()], strict=True):
                assert model.predict_proba_one(text) == (info, row)
        classifier.learn_one(f"text {number}", f"label {number % 5}")
        assert publisher.publish(classifier, info_of(classifier, f"v-{number}")) == path


def test_a_new_label_shows_with_its_version(tmp_path: Path) -> None:
    classifier, publisher = taught(2), Publisher(tmp_path, 1)
    snapshot = Snapshot(publisher.publish(classifier, info_of(classifier)))
    assert scores_of(snapshot).shape == (4, 2)
    classifier.learn_one("nobody knows", "new")
    publisher.publish(classifier, info_of(classifier))
    assert scores_of(snapshot).shape == (4, 3)
    assert snapshot.info().labels == ["spam", "ham", "new"]
    assert snapshot.info() is snapshot.info()


def test_labels_that_no_longer_fit_their_room_get_a_new_file(tmp_path: Path) -> None:
    classifier, publisher = make_classifier("linear?bits=14&max_labels=4000"), Publisher(tmp_path, 1)
    classifier.learn_one("a", "x")
    paths = [publisher.publish(classifier, info_of(classifier))]
    follower = Follower(tmp_path)
    for number in range(4000 - 1):
        classifier.label_index(f"label {number} " + "äß" * 100)
        if number % 100 == 0:
            classifier.learn_one("a", f"label {number} " + "äß" * 100)
            paths.append(publisher.publish(classifier, info_of(classifier)))
            snapshot = follower.look()
            assert snapshot is not None
            assert snapshot.path == paths[-1]
            assert snapshot.model.predict_proba_many(["a"])[0].labels == classifier.labels
    assert 3 < len(set(paths)) < 10, "room doubles"
    assert len(list_snapshots(tmp_path)) == KEPT


def test_a_reader_has_no_copy_of_the_model(tmp_path: Path) -> None:
    give_back_large_arrays()  # as in a worker: what was freed does not count, whatever ran before in this process
    spec = "blend?bits=21"
    path = publish(tmp_path, taught(4, spec))
    small = Snapshot(publish(tmp_path / "small", taught(4, "blend?bits=12&max_labels=8")))  # all that there is but once
    before = own_bytes()
    snapshot = Snapshot(path)
    second = snapshot.another_model()
    assert second.predict_proba_many(TEXTS)[1].tobytes() == scores_of(snapshot).tobytes()
    model_bytes = sum(array.nbytes for array in make_classifier(spec).state().values())
    assert own_bytes() - before < model_bytes / 3
    del small


def own_bytes() -> int:
    """Return the memory that this process shares with nobody and with no file."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("Linux says so")


def test_a_request_that_is_overtaken_is_answered_from_a_copy(tmp_path: Path) -> None:
    classifier, publisher = taught(), Publisher(tmp_path, 1)
    snapshot = Snapshot(publisher.publish(classifier, info_of(classifier, "v-20")))
    asked = snapshot.model._classifier
    real, tries = asked.predict_proba_many, 0
    expected = {"v-20": classifier.predict_proba_many(TEXTS)}

    def overtaken(texts: Sequence[str]) -> Any:
        nonlocal tries
        tries += 1
        for _ in range(2):
            teach(classifier, 0)
            version = f"v-{len(expected) + 20}"
            expected[version] = classifier.predict_proba_many(TEXTS)
            publisher.publish(classifier, info_of(classifier, version))
        return real(texts)

    asked.predict_proba_many = overtaken  # type: ignore[method-assign]
    info, scores = snapshot.model.predict_proba_many(TEXTS)
    assert tries == TRIES + 1
    np.testing.assert_array_equal(scores, expected[info.version])
    del asked.predict_proba_many
    info, scores = snapshot.model.predict_proba_many(TEXTS)
    assert info.version == list(expected)[-1]
    np.testing.assert_array_equal(scores, expected[info.version])
    assert not asked.state()["slots"].flags.owndata, "the copy is gone"


def test_one_text_that_is_overtaken_is_answered_from_a_copy_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, publisher = taught(), Publisher(tmp_path, 1)
    model = Snapshot(publisher.publish(classifier, info_of(classifier, "v-20"))).model
    expected, copies = {"v-20": classifier.predict_proba_many(TEXTS)}, []

    class Overtaken(OneTextScorer):
        """Is slower than three publishes."""

        def __init__(self, asked: Classifier) -> None:
            super().__init__(asked)
            self._slots = weakref.ref(asked.state()["slots"])

        def __call__(self, text: str) -> list[float]:
            copies.append(self._slots)
            for _ in range(3):
                teach(classifier, 0)
                version = f"v-{len(expected) + 20}"
                expected[version] = classifier.predict_proba_many(TEXTS)
                publisher.publish(classifier, info_of(classifier, version))
            return super().__call__(text)

    with monkeypatch.context() as patched:
        patched.setattr("driftline.learner.serving.snapshot.OneTextScorer", Overtaken)
        info, row = model.predict_proba_one(TEXTS[0])
    assert len(copies) == TRIES + 1
    assert row == expected[info.version][0].tolist()
    assert copies[-1]() is None
    info, row = model.predict_proba_one(TEXTS[0])
    assert info.version == list(expected)[-1]
    assert row == expected[info.version][0].tolist()


VERSIONS = 3000
BURST = 100  # versions that are published as fast as can be
RACING = "blend?bits=14&max_labels=12"


def lesson(number: int) -> tuple[str, str]:
    return f"text {number % 37} and {number % 11}", f"label {number % 10}" if number > 100 else f"label {number % 2}"


def write_versions(root: Path, readers_ready: Any, seen: Sequence[Any] = ()) -> None:
    """Publish; now and then wait for readers whom a busy machine holds up, so that each sees many versions."""
    classifier, publisher = make_classifier(RACING), Publisher(root, 1)
    for number in range(VERSIONS):
        classifier.learn_one(*lesson(number))
        publisher.publish(classifier, info_of(classifier, str(number)))
        if number == 0:
            readers_ready.wait(240)
        elif number % BURST == 0:
            wait_until(lambda number=number: all(each.value > number - BURST for each in seen), 240)


def read_versions(root: Path, ready: Any, found: "SimpleQueue[Any]", newest: Any) -> None:
    """Ask until the last version is there; answer with which versions were seen, and which answers belong to none."""
    classifier = make_classifier(RACING)
    expected = []
    for number in range(VERSIONS):
        classifier.learn_one(*lesson(number))
        expected.append((list(classifier.labels), classifier.predict_proba_many(TEXTS)))
    snapshot = Follower(root).look()
    assert snapshot is not None
    ready.wait(240)
    seen, torn, asked = [], 0, 0
    deadline = time.monotonic() + 240
    while (not seen or seen[-1] != VERSIONS - 1) and time.monotonic() < deadline:
        info, scores = snapshot.model.predict_proba_many(TEXTS)
        number = int(info.version)
        asked += 1
        labels, right = expected[number]
        torn += info.labels != labels or scores.tobytes() != right.tobytes()
        for place, text in enumerate(TEXTS):
            one, row = snapshot.model.predict_proba_one(text)
            labels, right = expected[int(one.version)]
            torn += one.labels != labels or row != right[place].tolist()
            number = int(one.version)
        if not seen or number != seen[-1]:
            seen.append(number)
            newest.value = number
    found.put((seen, torn, asked))


def test_every_answer_is_one_version_s_while_a_process_publishes_as_fast_as_it_can(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, found = context.Barrier(3), context.SimpleQueue()
    newest = [context.Value("q", -1) for _ in range(2)]
    writer = context.Process(target=write_versions, args=(tmp_path, ready, newest))
    writer.start()
    wait_until(lambda: list_snapshots(tmp_path), 60, "the first version")
    readers = [context.Process(target=read_versions, args=(tmp_path, ready, found, each)) for each in newest]
    for reader in readers:
        reader.start()
    for process in (writer, *readers):
        process.join(300)
        assert process.exitcode == 0
    for seen, torn, asked in [found.get() for _ in readers]:
        assert torn == 0
        assert seen == sorted(seen), "an older version after a newer one"
        assert seen[-1] == VERSIONS - 1
        assert asked > len(seen) > 20


def test_a_reader_goes_on_when_the_learner_was_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(2)
    writer = context.Process(target=write_versions, args=(tmp_path, ready))
    writer.start()
    wait_until(lambda: list_snapshots(tmp_path), 60, "the first version")
    snapshot = Snapshot(list_snapshots(tmp_path)[0])
    ready.wait(240)
    wait_until(lambda: int(snapshot.info().version) > 50, 60, "it is in the middle of it")
    writer.kill()
    writer.join()
    info, scores = snapshot.model.predict_proba_many(TEXTS)
    classifier = make_classifier(RACING)
    for number in range(int(info.version) + 1):
        classifier.learn_one(*lesson(number))
    np.testing.assert_array_equal(scores, classifier.predict_proba_many(TEXTS))
    assert scores_of(Snapshot(snapshot.path)).tobytes() == scores.tobytes(), "who comes later, too"


def test_what_is_prepared_is_not_seen_before_it_is_published(tmp_path: Path) -> None:
    classifier, publisher = make_classifier(SPEC), Publisher(tmp_path, 1)
    publisher.prepare(classifier)
    assert Follower(tmp_path).look() is None
    teach(classifier, 0)
    path = publisher.publish(classifier, info_of(classifier))
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(scores_of(Snapshot(path)), classifier.predict_proba_many(TEXTS))


def test_two_files_are_kept_and_a_higher_epoch_is_newer(tmp_path: Path) -> None:
    (tmp_path / "00000001-0000000001.safetensors").write_bytes(b"of a version before")
    (tmp_path / ".writing-00000001-0000000009.model").write_bytes(b"of a learner that was killed")
    paths = [publish(tmp_path, taught(), epoch=epoch) for epoch in range(1, 6)]
    assert list_snapshots(tmp_path) == [paths[4], paths[3]]
    assert sorted(tmp_path.iterdir()) == paths[3:]


def test_a_follower_gives_the_newest_and_the_same_object_until_there_is_a_new_file(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "snapshots")
    assert follower.look() is None
    classifier, publisher = taught(2), Publisher(tmp_path / "snapshots", 1)
    publisher.publish(classifier, info_of(classifier))
    first = follower.look()
    publisher.publish(classifier, info_of(classifier))
    assert first is not None
    assert follower.look() is first
    publish(tmp_path / "snapshots", taught(), epoch=2)
    second = follower.look()
    assert second is not None
    assert second is not first


def test_a_follower_passes_over_damage_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish(tmp_path, taught(), epoch=1)
    follower = Follower(tmp_path)
    first = follower.look()
    damaged = publish(tmp_path, taught(), epoch=2)
    damaged.write_bytes(damaged.read_bytes()[:5000])
    assert [follower.look() for _ in range(3)] == [first] * 3
    assert caplog.text.count("cannot be read") == 1


@pytest.mark.parametrize("epoch", [1, 5])
def test_a_follower_takes_a_directory_that_was_replaced(tmp_path: Path, epoch: int) -> None:
    """Also where the file in it has the same name."""
    publish(tmp_path / "a", taught(), epoch=epoch)
    follower = Follower(tmp_path / "data")
    (tmp_path / "a").rename(tmp_path / "data")
    first = follower.look()
    assert first is not None
    (tmp_path / "data").rename(tmp_path / "gone")
    assert follower.look() is first
    publish(tmp_path / "data", taught(), epoch=1)
    again = follower.look()
    assert again is not None
    assert again is not first
    assert again.info().epoch == 1
    assert follower.look() is again


def test_damaged_info_and_any_other_format_are_refused(tmp_path: Path) -> None:
    path = publish(tmp_path, taught())
    content = path.read_bytes()
    start = content.index(b'{"format"')
    info = content[start : content.index(b"\0", start)]
    for old, new, message in (
        (b'"format":2', b'"format":7', "has format 7"),
        (b'"format":2', b'"format"=2', "cannot be read"),
        (b'"labels":["spam"', b'"labels":[12,  "', "cannot be read"),
        (b'"labels":["spam",', b'"labels":[       ', "1 labels fit neither"),
    ):
        assert old in info
        path.write_bytes(content.replace(seal(info), seal(info.replace(old, new))))
        with pytest.raises(StateError, match=message):
            Snapshot(path)
        path.write_bytes(content.replace(old, new))
        with pytest.raises(StateError, match="what stands beside the model is damaged"):
            Snapshot(path)
