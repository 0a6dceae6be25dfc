"""All there is goes into one file beside a learner at work, and another machine goes on from it as after a crash."""

import contextlib
import io
import json
import shutil
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import list_checkpoints, load_checkpoint
from driftline.learner.disk.lock import last_epoch
from driftline.learner.store.whole import MANIFEST, back_up_whole, restore_whole
from driftline.stream.errors import ConfigError, DriftlineError, LogUnavailable, StateError, StoreDamaged
from driftline.stream.log.sqlite.copied import frozen
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import decode_prediction
from tests.faults.stage import SqliteStage
from tests.often import times
from tests.place import read_all

STEPS = 12


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        yield stage


def elsewhere(path: Path) -> contextlib.closing[SqliteStage]:
    return contextlib.closing(SqliteStage(StreamSettings(data=path)))


def said(result: Result) -> str:
    assert result.exit_code == 0, result.exception
    return result.output


def predicted(stage: SqliteStage) -> dict[str, set[tuple[str | None, float]]]:
    """Return each message's predictions; one that was sent twice with the same content is one."""
    found: dict[str, set[tuple[str | None, float]]] = {}
    for record in read_all(stage.stream, stage.stream.topics.predictions):
        assert record.value is not None
        said = decode_prediction(record.value)
        found.setdefault(said.message_id, set()).add((said.label, said.score))
    assert all(len(each) == 1 for each in found.values())
    return found


@pytest.mark.long
def test_a_backup_beside_a_learner_goes_on_to_the_same_model(stage: SqliteStage, tmp_path: Path) -> None:
    """Between any two steps: whoever starts on it learns each label once, and comes to the model of the first."""
    for turn in range(times(2, STEPS)):
        first = 40 * turn
        stage.append(range(first, first + 40))
        target = tmp_path / f"{turn}.tar{'.gz' if turn % 2 else ''}"
        with stage.learning(batch_records=7) as learner:
            for _ in range(turn % STEPS + 1):
                learner.step()
            whole = back_up_whole(stage.stream, target)  # and then it goes on
            learner.run(lambda: False, stage.log.watermarks(stage.stream.topics[:2]))
        assert whole.log == "log.db"
        restored = StreamSettings(data=tmp_path / f"restored-{turn}")
        assert restore_whole(restored, target) == whole
        with elsewhere(restored.data) as other:
            assert last_epoch(restored.data) >= whole.epoch
            status = other.learn(batch_records=7).status("stopped")
            assert status.counts.labels_learned == first + 40
            assert other.model() == stage.model()
            assert predicted(other) == predicted(stage)
            assert "the same" in said(other.command("verify"))


def test_under_load_nothing_acknowledged_before_is_missing(stage: SqliteStage, tmp_path: Path) -> None:
    """Somebody appends all the time; the lock is held for a moment only."""
    stop, sent = threading.Event(), [0]

    def send() -> None:
        while not stop.is_set():
            stage.append(range(sent[0], sent[0] + 20))
            sent[0] += 20

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with stage.learning(batch_records=50) as learner:
            for turn in range(3):
                for _ in range(5):
                    learner.step()
                acknowledged = sent[0]
                back_up_whole(stage.stream, tmp_path / f"{turn}.tar")
                restored = StreamSettings(data=tmp_path / f"restored-{turn}")
                restore_whole(restored, tmp_path / f"{turn}.tar")
                with elsewhere(restored.data) as other:
                    status = other.learn().status("stopped")
                    n = status.counts.labels_learned
                    assert n >= acknowledged
                    assert n <= len(predicted(other)) <= n + 20  # of the last ones the labels had not come yet
    finally:
        stop.set()
        thread.join()


def test_what_people_gave_comes_along(stage: SqliteStage, tmp_path: Path) -> None:
    stage.append(range(5))
    stage.learn()
    data = stage.stream.data
    for name in ("api-keys", "erase/later.json", "snapshots/kept/v1/model.safetensors"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(name.encode())
    (data / "erase" / f"{durable.TEMPORARY}half").write_bytes(b"")
    target = tmp_path / "deep" / "one.tar"
    told = said(stage.command("backup", str(target)))
    assert "is written and was read again: checkpoint" in told
    assert "(5 labels learned)" in told
    again = stage.command("backup", str(target))
    assert isinstance(again.exception, ConfigError)
    assert "is there already" in str(again.exception)
    with elsewhere(tmp_path / "new") as other:  # its log is there by now
        refused = other.command("restore", str(target))
        assert isinstance(refused.exception, StateError)
        assert "log.db is there already: nothing was changed" in str(refused.exception)
    shutil.rmtree(tmp_path / "new")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "api-keys").write_bytes(b"mine")
    there = ("--data", str(tmp_path / "new"), "--log", f"sqlite:///{tmp_path / 'new/log.db'}")
    restored = said(stage.command("restore", str(target), *there))
    assert "It goes on as after a crash" in restored
    assert (tmp_path / "new/api-keys").read_bytes() == b"mine"
    assert (tmp_path / "new/erase/later.json").read_bytes() == b"erase/later.json"
    assert (tmp_path / "new/snapshots/kept/v1/model.safetensors").exists()
    assert not list((tmp_path / "new").rglob(f"{durable.TEMPORARY}*"))
    assert (tmp_path / "new/log.db").stat().st_mode & 0o77 == 0
    made = json.loads(said(stage.command("backup", str(tmp_path / "two.tar"), "--json")))
    assert (made["labels_learned"], made["log"], made["format"]) == (5, "log.db", 1)
    refused = stage.command("restore", str(target))
    assert "has a learner's state already" in str(refused.exception)


def test_without_an_embedded_log_the_rest_is_copied(stage: SqliteStage, tmp_path: Path) -> None:
    """Kafka's topics stay where they are: the learner takes from them what came after."""
    stage.append(range(9))
    stage.learn()
    kafka = stage.stream.model_copy(update={"log": "kafka://127.0.0.1:1"})
    whole = back_up_whole(kafka, tmp_path / "one.tar")
    assert whole.log is None
    restored = kafka.model_copy(update={"data": tmp_path / "new"})
    assert restore_whole(restored, tmp_path / "one.tar") == whole
    path = list_checkpoints(tmp_path / "new/checkpoints")[0]
    assert load_checkpoint(path).manifest.counts.labels_learned == 9
    with_log = back_up_whole(stage.stream, tmp_path / "two.tar")
    assert with_log.log
    with pytest.raises(ConfigError, match="leave --log away"):
        restore_whole(kafka.model_copy(update={"data": tmp_path / "other"}), tmp_path / "two.tar")
    assert not list((tmp_path / "other").glob("checkpoints"))


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def write(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def test_what_is_damaged_or_no_backup_changes_nothing(stage: SqliteStage, tmp_path: Path) -> None:
    stage.append(range(5))
    stage.learn()
    whole = tmp_path / "whole.tar"
    back_up_whole(stage.stream, whole)
    files, content = members(whole), whole.read_bytes()
    bad = tmp_path / "bad.tar"
    new = StreamSettings(data=tmp_path / "new")

    def refused(kind: type[DriftlineError], match: str) -> None:
        with pytest.raises(kind, match=match):
            restore_whole(new, bad)
        assert {path.name for path in new.data.iterdir()} <= {"learner.lock"}

    at = content.index(files["log.db"]) + 5000
    bad.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    refused(StoreDamaged, "bad.tar is damaged: log.db")
    for cut in (len(content) // 2, len(content) - 12_000):
        bad.write_bytes(content[:cut])
        refused(StoreDamaged, "cut short")
    write(bad, {name: each for name, each in files.items() if "manifest" not in name})
    refused(StoreDamaged, "manifest.json")
    write(bad, files | {MANIFEST: files[MANIFEST].replace(b'"format": 1', b'"format": 2')})
    refused(ConfigError, "take a newer version")
    write(bad, {"../out": b"", **files})
    refused(ConfigError, "is no backup")
    bad.write_bytes(b"no tar at all" * 1000)
    refused(ConfigError, "is no backup")
    bad.unlink()
    refused(ConfigError, "cannot be read")
    assert restore_whole(new, whole).labels_learned == 5


def test_what_is_damaged_here_is_not_copied(stage: SqliteStage, tmp_path: Path) -> None:
    target = tmp_path / "one.tar"
    stage.stream.data.mkdir(exist_ok=True)
    with pytest.raises(StateError, match="no learner has run there"):
        back_up_whole(stage.stream, target)
    stage.append(range(5))
    stage.learn()
    path = list_checkpoints(stage.stream.data / "checkpoints")[0] / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StateError, match=r"model\.safetensors is damaged: nothing was written"):
        back_up_whole(stage.stream, target)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    path.write_bytes(content)
    back_up_whole(stage.stream, target)


def test_the_lock_on_writing_is_held_for_the_look_alone(stage: SqliteStage) -> None:
    stage.append(range(5))
    path = stage.stream.data / "log.db"

    def locked() -> None:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as db, pytest.raises(sqlite3.OperationalError):
            db.execute("BEGIN IMMEDIATE")

    with frozen(path, locked) as log:
        stage.append(range(5, 9))
        log.copy(path.with_name("copy.db"))
    with contextlib.closing(sqlite3.connect(path.with_name("copy.db"))) as copied:
        assert copied.execute("SELECT high FROM partitions WHERE topic = 'messages'").fetchall() == [(5,)]

    def fails() -> None:
        raise LogUnavailable("no")

    with pytest.raises(LogUnavailable, match="no"), frozen(path, fails):
        pass
    stage.append(range(9, 10))
