"""A snapshot comes back as the same model; readers share it and cannot change it; a damaged one is never served."""

import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from learner.classifier import Classifier
from learner.models import make_classifier
from learner.snapshot import FORMAT, Follower, Publisher, SnapshotInfo, list_snapshots, load_snapshot
from stream.errors import StateError

TEXTS = ["win a prize", "see you at home", "", "\N{GRINNING FACE}"]


def taught(n: int = 20) -> Classifier:
    classifier = make_classifier("linear?bits=12&max_labels=8")
    for number in range(n):
        classifier.learn_one(*(("win a prize now", "spam"), ("see you at home", "ham"))[number % 2])
    return classifier


def publish(root: Path, classifier: Classifier, epoch: int = 1, times: int = 1) -> Path:
    info = SnapshotInfo(
        version="abc-20",
        epoch=epoch,
        model=classifier.spec,
        config=classifier.config(),
        labels=classifier.labels,
        labels_learned=20,
        feedback_offsets={"0": 20},
        published_at=time.time(),
    )
    publisher = Publisher(root, epoch)
    return [publisher.publish(classifier, info) for _ in range(times)][-1]


def test_it_is_the_same_model(tmp_path: Path) -> None:
    classifier = taught()
    snapshot = load_snapshot(publish(tmp_path, classifier))
    assert snapshot.info.labels == classifier.labels
    np.testing.assert_array_equal(snapshot.classifier.predict_proba_many(TEXTS), classifier.predict_proba_many(TEXTS))


def test_the_safetensors_library_reads_it(tmp_path: Path) -> None:
    classifier = taught()
    found = safetensors.numpy.load_file(publish(tmp_path, classifier))
    state = classifier.state()
    assert found.keys() == state.keys()
    for name, array in state.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_learning_on_it_changes_neither_the_file_nor_another_reader(tmp_path: Path) -> None:
    path = publish(tmp_path, taught())
    content = path.read_bytes()
    one, other = load_snapshot(path), load_snapshot(path)
    before = other.classifier.predict_proba_many(TEXTS)
    one.classifier.learn_many(["win a prize"] * 50, ["ham"] * 50)
    np.testing.assert_array_equal(other.classifier.predict_proba_many(TEXTS), before)
    assert path.read_bytes() == content


def test_three_are_kept_and_a_higher_epoch_is_newer(tmp_path: Path) -> None:
    publish(tmp_path, taught(), epoch=1, times=12)
    newest = publish(tmp_path, taught(), epoch=2)
    paths = list_snapshots(tmp_path)
    assert len(paths) == 3
    assert paths[0] == newest


def test_a_follower_gives_the_newest_and_the_same_object_until_there_is_one(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "snapshots")
    assert follower.look() is None
    publish(tmp_path / "snapshots", taught(2))
    first = follower.look()
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


def test_a_follower_takes_a_directory_that_was_replaced(tmp_path: Path) -> None:
    publish(tmp_path / "a", taught(), epoch=5)
    follower = Follower(tmp_path / "data")
    (tmp_path / "a").rename(tmp_path / "data")
    assert follower.look() is not None
    (tmp_path / "data").rename(tmp_path / "gone")
    publish(tmp_path / "data", taught(), epoch=1)
    again = follower.look()
    assert again is not None
    assert again.info.epoch == 1


def test_any_truncation_and_any_other_format_is_refused(tmp_path: Path) -> None:
    path = publish(tmp_path, taught())
    content = path.read_bytes()
    for length in [*range(0, 2000, 13), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(StateError, match="cannot be read"):
            load_snapshot(path)
    path.write_bytes(content.replace(f'\\"format\\":{FORMAT}'.encode(), b'\\"format\\":7'))
    with pytest.raises(StateError, match="has format 7"):
        load_snapshot(path)
