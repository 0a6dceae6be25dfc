"""A data directory that was copied, in part, too early or late: no version names two models, and nothing is silent."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.learner.loop.loop import Learner
from driftline.stream.errors import RecordsLost, StateError
from driftline.stream.log.base import NewRecord
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Message, encode
from tests.faults.stage import START_MS, SqliteStage, finish, learned, steps

Seen = dict[str, set[bytes]]  # versions, and the models that had them


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    """Give a stage whose log lies beside the data directory."""
    stream = StreamSettings(data=tmp_path / "data", log=f"sqlite:///{tmp_path / 'log.db'}")
    with contextlib.closing(SqliteStage(stream)) as stage:
        yield stage


def look(learner: Learner, seen: Seen) -> None:
    """Note which model has which version now."""
    state = learner._work.machine.classifier.state()
    content = b"".join(array.tobytes() for _, array in sorted(state.items()))
    seen.setdefault(learner.status("running").version, set()).add(content)


def learn(stage: SqliteStage, n: int, seen: Seen, **options: object) -> None:
    """Learn so many labels, a few at a time, and look at each version; then end in good order."""
    with stage.learning(**{"batch_records": 3, **options}) as learner:
        look(learner, seen)
        while not learned(learner, n)():
            learner.step(0.02)
            learner._land()
            look(learner, seen)
        finish(learner)


def crash(stage: SqliteStage, n: int, seen: Seen) -> None:
    with stage.learning(batch_records=3) as learner:
        while not learned(learner, n)():
            learner.step(0.02)
            learner._land()
            look(learner, seen)


def other(stage: SqliteStage, name: str, numbers: range, reverse: bool = True) -> SqliteStage:
    """Return a copy of the stage, its log too, to which the same numbers come in another order."""
    root = stage.stream.data.parent / name
    shutil.copytree(stage.stream.data, root / "data")
    stream = StreamSettings(data=root / "data", log=f"sqlite:///{root / 'log.db'}")
    stage.log.close()
    shutil.copy(stage.stream.data.parent / "log.db", root / "log.db")
    stage.log = SqliteStage(stage.stream).log
    copy = SqliteStage(stream)
    copy.append(reversed(numbers) if reverse else numbers)
    return copy


def assert_one_model_each(seen: Seen) -> None:
    assert len(seen) > 3
    assert [version for version, models in seen.items() if len(models) > 1] == []


def test_two_copies_that_both_go_on(stage: SqliteStage) -> None:
    """Stopped, copied, started: both learn the same number of labels, and have other models."""
    seen: Seen = {}
    stage.append(range(20))
    learn(stage, 20, seen)
    with contextlib.closing(other(stage, "copy", range(20, 40))) as copy:
        stage.append(range(20, 40))
        learn(stage, 40, seen)
        learn(copy, 40, seen)
        assert stage.model() != copy.model()
    assert_one_model_each(seen)


def test_copied_while_it_runs(stage: SqliteStage) -> None:
    seen: Seen = {}
    stage.append(range(20))
    crash(stage, 20, seen)  # as a copy finds it: a journal, and no checkpoint behind it
    with contextlib.closing(other(stage, "copy", range(20, 40))) as copy:
        stage.append(range(20, 40))
        learn(stage, 40, seen)
        learn(copy, 40, seen)
        assert stage.model() != copy.model()
        assert copy.command("verify").exit_code == 0
    assert_one_model_each(seen)


def test_a_checkpoint_without_its_journal(stage: SqliteStage) -> None:
    """What was learned behind it comes again, in other batches and perhaps in another order: under other names."""
    seen: Seen = {}
    stage.append(range(20))
    learn(stage, 20, seen)
    saved = stage.stream.data.parent / "saved"
    shutil.copytree(stage.stream.data / "checkpoints", saved)
    stage.append(range(20, 30))
    stage.append(range(30, 40))
    learn(stage, 40, seen)
    versions = set(seen)
    shutil.rmtree(stage.stream.data)
    shutil.copytree(saved, stage.stream.data / "checkpoints")
    learn(stage, 40, seen, batch_records=50)
    assert stage.newest().manifest.lineage not in {version.partition("-")[0] for version in versions}
    assert_one_model_each(seen)
    assert stage.command("verify", "--to", str(stage.checkpoints()[-1])).exit_code == 0


def test_an_older_copy_put_back_while_the_log_went_on(stage: SqliteStage) -> None:
    seen: Seen = {}
    stage.append(range(20))
    crash(stage, 20, seen)
    saved = stage.stream.data.parent / "saved"
    shutil.copytree(stage.stream.data, saved)
    stage.append(range(20, 40))
    learn(stage, 40, seen)
    shutil.rmtree(stage.stream.data)
    saved.rename(stage.stream.data)
    stage.append(range(40, 50))
    learn(stage, 50, seen, batch_records=50)
    assert stage.newest().manifest.counts.labels_learned == 50
    assert_one_model_each(seen)


def test_some_of_the_journals_are_refused(stage: SqliteStage) -> None:
    seen: Seen = {}
    stage.append(range(20))
    crash(stage, 20, seen)
    stage.append(range(20, 30))
    crash(stage, 30, seen)
    newest = stage.checkpoints()[-1]
    crash_epoch = sorted((stage.stream.data / "journal").glob("*.journal"))
    assert len(crash_epoch) >= 2
    for path in stage.stream.data.glob(f"checkpoints/{newest:012d}"):
        shutil.rmtree(path)
    journal = next(path for path in crash_epoch if not path.name.startswith(f"{newest:012d}"))
    journal.unlink()
    with pytest.raises(StateError, match="a journal is missing"):
        stage.learn()


def test_a_log_that_is_older_than_the_checkpoint_is_refused(stage: SqliteStage) -> None:
    seen: Seen = {}
    stage.append(range(20))
    stage.log.close()
    shutil.copy(stage.stream.data.parent / "log.db", stage.stream.data.parent / "older.db")
    stage.log = SqliteStage(stage.stream).log
    stage.append(range(20, 40))
    learn(stage, 40, seen)
    stage.log.close()
    for path in stage.stream.data.parent.glob("log.db*"):
        path.unlink()
    shutil.copy(stage.stream.data.parent / "older.db", stage.stream.data.parent / "log.db")
    stage.log = SqliteStage(stage.stream).log
    with pytest.raises(RecordsLost, match="put back from a copy"):
        stage.learn()


def test_a_restart_that_learns_nothing_keeps_the_version(stage: SqliteStage) -> None:
    """A version is another one with the next label, not with the next start; also where only messages come."""
    stage.append(range(20))
    with stage.learning() as learner:
        steps(learner, learned(learner, 20))
        finish(learner)
        version = learner.status("running").version
    for number in range(2):
        value = encode(Message(f"only {number}", "a message"))
        stage.log.append("messages", [NewRecord(b"only", value, START_MS + 100 + number)])
        with stage.learning() as learner:
            steps(learner, lambda n=number: learner.status("running").counts.messages_seen == 21 + n)
            assert learner.status("running").version == version
            if number:
                finish(learner)
    assert stage.newest().manifest.lineage == version.partition("-")[0]
