"""A takeover ends a learner only once the next one can work; who is overtaken while it starts sees it."""

import contextlib
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    load_manifest,
    save_checkpoint,
    set_aside_newer,
)
from driftline.learner.disk.lock import Lock, last_epoch
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.loop.service import learn
from driftline.stream.errors import ConfigError, DriftlineError, Overtaken, RecordsLost, StateError
from driftline.stream.process.settings import StreamSettings
from tests.faults.stage import SqliteStage, finish, learned, steps
from tests.faults.test_fencing import files


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    """Give an embedded log of one partition."""
    stream = StreamSettings(data=tmp_path / "data", log=f"sqlite:///{tmp_path / 'log.db'}")
    with contextlib.closing(SqliteStage(stream)) as stage:
        yield stage


@pytest.fixture
def healthy(stage: SqliteStage) -> Iterator[Learner]:
    """Give a learner that is at work, with a checkpoint and batches behind it."""
    stage.append(range(20))
    with stage.learning() as learner:
        steps(learner, learned(learner, 20))
        steps(learner, learner._save)
        stage.append(range(20, 40))
        steps(learner, learned(learner, 40))
        yield learner


def damage_all(stage: SqliteStage) -> None:
    for path in list_checkpoints(stage.stream.data / "checkpoints"):
        model = path / "model.safetensors"
        model.write_bytes(model.read_bytes()[:-1])


def drop(stage: SqliteStage) -> None:
    for topic in stage.stream.topics[:2]:
        stage.drop_below(topic, 30)


WRONG: list[tuple[Callable[[SqliteStage], Any], dict[str, Any], type[DriftlineError], str]] = [
    (lambda _: None, {"model": "tree"}, ConfigError, "holds a model"),
    (lambda _: None, {"model": "river:no.Such"}, ConfigError, "river"),
    (damage_all, {}, StateError, "can be read"),
    (drop, {}, RecordsLost, "10 records lost"),
]


@pytest.mark.parametrize(("harm", "options", "kind", "said"), WRONG, ids=["model", "class", "checkpoints", "records"])
def test_what_could_not_go_on_ends_no_one(
    stage: SqliteStage,
    healthy: Learner,
    harm: Callable[[SqliteStage], Any],
    options: dict[str, Any],
    kind: type[DriftlineError],
    said: str,
) -> None:
    epoch, batch = last_epoch(stage.stream.data), healthy._work.batch
    harm(stage)
    with pytest.raises(kind, match=said):
        stage.learner(take_over=True, **options)
    assert last_epoch(stage.stream.data) == epoch
    healthy._lock.check()
    if harm is not drop:
        stage.append(range(40, 50))
        steps(healthy, learned(healthy, 50))
        assert healthy._work.batch > batch


def test_an_option_that_cannot_be_had_ends_no_one(stage: SqliteStage, healthy: Learner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = LearnerSettings(take_over=True, health_port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="health_port"):
            learn(stage.stream, settings)
    healthy._lock.check()


def test_one_that_can_work_takes_over(stage: SqliteStage, healthy: Learner) -> None:
    with stage.learning(take_over=True) as second:
        with pytest.raises(Overtaken, match="was taken over"):
            healthy.step()
        stage.append(range(40, 50))
        steps(second, learned(second, 50))
        finish(second)
    assert load_manifest(list_checkpoints(stage.stream.data / "checkpoints")[0]).counts.labels_learned == 50


def test_one_that_is_overtaken_while_it_starts_sees_it_and_changes_nothing(stage: SqliteStage) -> None:
    stage.append(range(20))
    stage.learn()
    first = stage.learner()
    first._lock.check()
    with stage.learning(take_over=True) as second, contextlib.closing(first):
        second._ledger._journal.settle()  # which a thread of its own begins
        half = stage.stream.data / "checkpoints" / f"{durable.TEMPORARY}000000000099-{second._ledger.epoch:08d}"
        half.mkdir()
        before = files(stage.stream.data)
        with pytest.raises(Overtaken, match="just starting"):
            first.start()
        first._lock.check = lambda: None  # type: ignore[method-assign]  (it had looked before)
        first._ledger.settle(first._lock.last)
        assert half.exists()
        assert files(stage.stream.data) == before
        half.rmdir()


def test_what_is_left_of_learners_before_goes_and_of_later_ones_stays(tmp_path: Path) -> None:
    names = ["000000000007-00000003", "000000000007-00000004.journal", "status.json-00000004", "reserve-12345678x"]
    later = ["000000000007-00000005", "000000000008-00000006.journal", "review.json-00000005"]
    with contextlib.closing(Lock(tmp_path)) as lock:
        lock.announce(4)
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path))) as stage:
        for name in names + later:
            (tmp_path / f"{durable.TEMPORARY}{name}").touch()
        with contextlib.closing(stage.learner()) as learner:
            learner._ledger.settle(learner._lock.last)
    left = {path.name.removeprefix(durable.TEMPORARY) for path in tmp_path.glob(f"{durable.TEMPORARY}*")}
    assert left == set(later)


def test_a_checkpoint_of_one_overtaken_is_set_aside_as_often_as_there_is_one(stage: SqliteStage) -> None:
    """It comes again where it is fetched from a store, or a copy of the directory is put back."""
    stage.append(range(20))
    stage.learn()
    (path, *_) = list_checkpoints(root := stage.stream.data / "checkpoints")
    checkpoint, before = load_checkpoint(path), load_manifest(path).epoch
    checkpoint.manifest.epoch = before + 1
    for _ in range(2):
        save_checkpoint(root, checkpoint)
        shutil.rmtree(path)
        shutil.copytree(root / f"overtaken-{path.name}-{before}", path)
    save_checkpoint(root, checkpoint)
    assert load_manifest(path).epoch == before + 1
    assert [each.name for each in root.glob("overtaken-*")] == [f"overtaken-{path.name}-{before}"]


def test_a_checkpoint_of_a_later_learner_is_not_set_aside(stage: SqliteStage) -> None:
    stage.append(range(20))
    stage.learn()
    (path, *_) = list_checkpoints(root := stage.stream.data / "checkpoints")
    set_aside_newer(root, 0, load_manifest(path).epoch - 1)
    assert path.exists()
    set_aside_newer(root, 0, load_manifest(path).epoch)
    assert not path.exists()
