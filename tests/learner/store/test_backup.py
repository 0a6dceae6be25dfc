"""A copy is made beside a learner that works, and gone on from in a directory that is empty, or not at all."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.disk.lock import Lock, alone, last_epoch
from driftline.learner.store import backup
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.learner.store.stored import Name
from driftline.stream.errors import ConfigError, StateError, StoreDamaged
from driftline.stream.process.settings import StreamSettings
from tests.faults.stage import SqliteStage, finish
from tests.learner.store.conftest import Make, content


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    stream = StreamSettings(data=tmp_path / "data", log=f"sqlite:///{tmp_path / 'log.db'}")
    with contextlib.closing(SqliteStage(stream)) as stage:
        yield stage


def said(result: Result) -> str:
    assert result.exit_code == 0, result.exception
    return result.output


def test_what_was_backed_up_is_restored_and_learned_on(stage: SqliteStage, url: str) -> None:
    stage.append(range(30))
    stage.learn()
    assert "has no checkpoint" in said(stage.command("backup", url, "--list"))
    assert "(30 labels learned, " in said(stage.command("backup", url))
    made = json.loads(said(stage.command("backup", url, "--json")))
    assert (made["batch"], made["labels_learned"], made["epoch"]) == (stage.checkpoints()[-1], 30, 1)
    stage.append(range(30, 50))
    with stage.learning() as learner:  # while one is at work
        for _ in range(3):
            learner.step()
        said(stage.command("backup", "--checkpoints", url))
        finish(learner)
    said(stage.command("backup", url))
    there = json.loads(said(stage.command("backup", url, "--list", "--json")))["checkpoints"]
    assert [each["labels_learned"] for each in there] == [50, 30]
    assert said(stage.command("backup", url, "--list")).count(there[0]["created_at"]) >= 1
    expected = stage.model()
    whole = content(list_checkpoints(stage.stream.data / "checkpoints")[0])
    shutil.rmtree(stage.stream.data)
    restored = said(stage.command("restore", url))
    assert "50 labels learned" in restored
    assert f"driftline learn --data {stage.stream.data} --log {stage.stream.log_url}" in restored
    assert content(list_checkpoints(stage.stream.data / "checkpoints")[0]) == whole
    stage.append(range(50, 60))
    learner = stage.learn()
    assert learner.status("stopped").counts.labels_learned == 60
    assert stage.model() != expected


def test_an_older_one_is_restored_and_what_goes_on_from_it_is_the_newest_then(stage: SqliteStage, url: str) -> None:
    """Otherwise whoever begins with an empty directory would take the one that somebody went back from."""
    stage.stream = stage.stream.model_copy(update={"checkpoints": url})
    for first in (0, 10, 20):
        stage.append(range(first, first + 10))
        stage.learn()
    store = CheckpointStore(url)
    before = store.names()
    shutil.rmtree(stage.stream.data)
    assert "10 labels learned" in said(stage.command("restore", url, "--batch", str(before[-1].batch)))
    assert stage.checkpoints() == [before[-1].batch]
    stage.append(range(30, 32))
    learner = stage.learn(batch_records=100)
    assert learner.status("stopped").epoch == before[0].epoch + 1
    newest = store.newest()
    assert newest is not None
    assert newest.name > before[0]
    assert newest.labels_learned == 32
    for message, arguments in (("no whole checkpoint 77; there are: ", ("--batch", "77")), ("has no checkpoint", ())):
        shutil.rmtree(stage.stream.data)
        refused = stage.command("restore", url if arguments else url + "/other", *arguments)
        assert isinstance(refused.exception, ConfigError)
        assert message in str(refused.exception)


@pytest.mark.parametrize("there", ["checkpoints", "journal", "snapshots", "bases"])
def test_a_directory_with_a_learner_s_state_is_left_alone(stage: SqliteStage, url: str, there: str) -> None:
    stage.append(range(3))
    stage.learn()
    said(stage.command("backup", url))
    for path in stage.stream.data.iterdir():
        if path.name != there and path.is_dir():
            shutil.rmtree(path)
    if there == "bases":
        (stage.stream.data / there / "000000000001").mkdir(parents=True)
    before = sorted(map(str, (stage.stream.data / there).rglob("*")))
    refused = stage.command("restore", url)
    assert isinstance(refused.exception, StateError)
    assert f"has a learner's state already ({there}): nothing was changed" in str(refused.exception)
    assert sorted(map(str, (stage.stream.data / there).rglob("*"))) == before


def test_beside_a_learner_nothing_is_restored(stage: SqliteStage, url: str) -> None:
    with contextlib.closing(Lock(stage.stream.data)):
        refused = stage.command("restore", url)
    assert isinstance(refused.exception, StateError)
    assert "another learner is at work" in str(refused.exception)


def test_what_is_damaged_in_the_store_leaves_the_directory_as_it_was(url: str, make: Make, tmp_path: Path) -> None:
    store, data = CheckpointStore(url), tmp_path / "restored"
    put = store.put(make(7, 5))
    store._store.delete(put.directory + "model.safetensors")
    for batch in (None, 7):
        with pytest.raises(StoreDamaged):
            backup.restore(data, store, batch)
    assert not list(data.glob("checkpoints/*"))
    (data / "checkpoints/.writing-000000000007-fetched").mkdir()  # by one that was killed
    store._store.put(put.directory + "model.safetensors", content(tmp_path / "disk/000000000007")["model.safetensors"])
    assert backup.restore(data, store, None).name == Name(5, 7)
    assert last_epoch(data) == 5


def test_of_checkpoints_on_the_disk_the_newest_whole_one_is_copied(url: str, make: Make, tmp_path: Path) -> None:
    store, data = CheckpointStore(url), tmp_path / "data"
    with pytest.raises(StateError, match="is not there"):
        backup.back_up(data, store)
    for batch in (1, 2):
        make(batch, root="data/checkpoints")
    (data / "checkpoints/000000000002/window-0.msgpack").write_bytes(b"no window")
    (data / "backup/left").mkdir(parents=True)  # by one that was killed
    assert backup.back_up(data, store).name == Name(1, 1)
    assert not (data / "backup").exists()
    with alone(data / backup.LOCK, "held"), pytest.raises(StateError, match="another backup"):
        backup.back_up(data, store)


def test_a_learner_may_let_a_checkpoint_go_while_it_is_copied(
    url: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, data = CheckpointStore(url), tmp_path / "data"
    path = make(1, root="data/checkpoints")
    expected, put_file = content(path), CheckpointStore.put_file

    def after_it_went(self: CheckpointStore, *arguments: object) -> object:
        durable.remove(path)
        return put_file(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CheckpointStore, "put_file", after_it_went)
    put = backup.back_up(data, store)
    assert not path.exists()
    assert content(store.fetch(put, tmp_path / "fetched")) == expected


def test_no_place_is_refused(stage: SqliteStage) -> None:
    for name in ("backup", "restore"):
        refused = stage.command(name)
        assert isinstance(refused.exception, ConfigError)
        assert "name the place" in str(refused.exception)
