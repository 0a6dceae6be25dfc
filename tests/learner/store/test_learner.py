"""A learner's checkpoints are in the store; whoever begins with an empty directory goes on from the newest."""

import contextlib
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.loop import fetching
from driftline.learner.loop.loop import Learner
from driftline.learner.report.health import _OfStatus
from driftline.learner.report.status import change_status, read_status
from driftline.learner.state import ledger
from driftline.learner.store import address
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.errors import StoreUnavailable
from driftline.stream.process.settings import StreamSettings
from tests.faults.nursery import Nursery, Stop
from tests.faults.points import STORE_POINTS
from tests.faults.stage import SqliteStage, finish, learned
from tests.grep import grep
from tests.learner.store.conftest import content
from tests.s3 import KEY, S3, SECRET, variables
from tests.waiting import wait_until


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    (tmp_path / "store").mkdir()
    where = {"data": tmp_path / "data", "log": f"sqlite:///{tmp_path / 'log.db'}"}
    with contextlib.closing(SqliteStage(StreamSettings(**where, checkpoints=f"file://{tmp_path}/store"))) as stage:
        yield stage


@pytest.fixture
def store(stage: SqliteStage) -> CheckpointStore:
    assert stage.stream.checkpoints is not None
    return CheckpointStore(stage.stream.checkpoints)


def at(stage: SqliteStage, name: str, **changes: Any) -> SqliteStage:
    """Return the same log with a data directory of another name."""
    data = stage.stream.data.with_name(name)
    return SqliteStage(stage.stream.model_copy(update={"data": data, **changes}))


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_learner_whose_directory_is_gone_goes_on_from_the_store(
    stage: SqliteStage, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def note(data: Path, status: Any, state: Any, detail: str, *rest: Any) -> None:
        told.append(detail)
        change_status(data, status, state, detail, *rest)

    monkeypatch.setattr(fetching, "change_status", note)
    if kind == "s3":
        bucket = request.getfixturevalue("s3").bucket()
        stage.stream = stage.stream.model_copy(update={"checkpoints": f"s3://{bucket}/x"})
    store = CheckpointStore(stage.stream.checkpoints or "")
    stage.append(range(40))
    stopped = stage.learn().status("stopped")
    assert stopped.uploads is not None
    assert (stopped.uploads.batch, stopped.uploads.failures) == (stopped.checkpoint, 0)
    assert store.names()[0] == (1, stopped.checkpoint)
    told.clear()
    shutil.rmtree(stage.stream.data)
    stage.append(range(40, 70))
    with stage.learning(batch_records=7) as learner:
        assert told[0] == "fetching the checkpoint"
        status = learner.status("running")
        assert (status.batch, status.counts.labels_learned, status.epoch) == (stopped.checkpoint, 40, 2)
        wait_until(lambda: learner.step(0.0) >= 0 and learned(learner, 70)(), what="it learns the rest")
        finish(learner)
    assert store.names()[0].epoch == 2
    verified = stage.command("verify")
    assert verified.exit_code == 0, verified.output
    undisturbed = at(stage, "undisturbed", checkpoints=None)
    undisturbed.learn()
    assert stage.model() == undisturbed.model()
    undisturbed.close()


def test_a_directory_with_checkpoints_of_its_own_keeps_to_them(stage: SqliteStage, store: CheckpointStore) -> None:
    stage.append(range(10))
    stage.learn()
    other = at(stage, "other")
    stage.append(range(10, 20))
    other.learn()  # begins with the store's
    assert store.names()[0].epoch == 2
    with stage.learning() as learner:
        status = learner.status("running")
        assert (status.counts.labels_learned, status.epoch) == (10, 2)
    other.close()


def test_no_version_names_two_models_where_two_go_on_from_one_checkpoint(stage: SqliteStage, tmp_path: Path) -> None:
    """Without its journal: fetched from the store, restored, or copied by hand."""
    stage.append(range(30))
    stage.learn()
    versions: dict[str, bytes] = {}
    checkpoint = list_checkpoints(stage.stream.data / "checkpoints")[0]
    for number, how in enumerate(("store", "store", "restore", "copy", "copy")):
        other = at(stage, f"other-{number}", checkpoints=stage.stream.checkpoints if how == "store" else None)
        if how == "copy":
            shutil.copytree(checkpoint, other.stream.data / "checkpoints" / checkpoint.name)
        elif how == "restore":
            assert other.command("restore", f"file://{tmp_path}/store").exit_code == 0
        other.append([100 + number])  # each comes to its own model, by as many labels
        with other.learning() as learner:
            came = learned(learner, 31 + number)
            while not came():
                learner.step(0.02)
            learner._land()
            state = learner._work.machine.classifier.state()
            model = b"".join(array.tobytes() for _, array in sorted(state.items()))
            version = learner.status("running").version
            assert versions.setdefault(version, model) == model, version
        other.close()
    assert len(versions) == 5
    assert len({version.partition("-")[0] for version in versions}) == 5, "each has a lineage of its own"


def test_of_two_that_went_on_from_one_checkpoint_the_first_has_the_store(
    stage: SqliteStage, store: CheckpointStore
) -> None:
    """Until the other one starts again: it is the later one, then."""
    stage.append(range(10))
    stage.learn()
    one, two = at(stage, "one"), at(stage, "two")
    with one.learning() as first, two.learning() as second:
        stage.append(range(10, 20))
        for learner in (first, second):
            wait_until(lambda learner=learner: learner.step(0.0) >= 0 and learned(learner, 20)(), what="it learns")
            finish(learner)
            stage.append([20])
        refused, taken = second.status("stopped").uploads, first.status("stopped").uploads
        assert refused is not None
        assert "is of another learner: two that went on from one checkpoint need a place each" in refused.why
        assert taken is not None
        assert taken.why == ""
    assert [name.epoch for name in store.names()] == [2, 1, 1]
    two.learn()
    assert store.names()[0].epoch == 3
    for each in (one, two):
        each.close()


def test_a_start_without_news_brings_what_a_store_lacks(stage: SqliteStage, store: CheckpointStore) -> None:
    stage.append(range(10))
    alone = at(stage, stage.stream.data.name, checkpoints=None)
    alone.learn()
    alone.close()
    assert store.names() == []
    learner = stage.learn()
    assert [name.batch for name in store.names()] == [learner.status("stopped").checkpoint]


def test_only_each_so_manieth_goes_and_the_last(stage: SqliteStage, store: CheckpointStore) -> None:
    stage.append(range(60))
    options = {"batch_records": 4, "checkpoint_interval_s": 1e-6, "upload_every": 1000, "keep_uploads": 100}
    status = stage.learn(**options).status("stopped")
    assert status.checkpoint > 3
    assert [name.batch for name in store.names()] == [status.checkpoint, 0]


def test_a_store_that_is_away_keeps_nothing_from_going_on(
    stage: SqliteStage, s3: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(address, "RETRIES", 0)
    monkeypatch.setattr(ledger, "UPLOAD_S", 0.2)
    server = S3()
    variables(monkeypatch, server)
    bucket = s3.bucket()
    stage.append(range(20))
    before = at(stage, stage.stream.data.name, checkpoints=None)
    before.learn()  # an empty directory would wait
    before.close()
    stage.stream = stage.stream.model_copy(update={"checkpoints": f"s3://{bucket}/x"})
    server.stop()
    with stage.learning(batch_records=4, checkpoint_interval_s=1e-6) as learner:
        stage.append(range(20, 40))
        wait_until(lambda: learner.step(0.0) >= 0 and learned(learner, 40)(), what="it learns on")

        def told() -> bool:
            """The file is written now and then: until then it is that of the one before."""
            shown = learner.step(0.0) >= 0 and read_status(stage.stream.data)
            return bool(shown and shown.uploads and shown.uploads.failures)

        wait_until(told, what="it is told")
        finish(learner)
        status = learner.status("stopped")
    assert status.checkpoint == status.batch
    assert f"checkpoint {status.batch} is not in s3://{bucket}/x: s3://" in caplog.text
    said = read_status(stage.stream.data)
    assert said is not None
    assert said.uploads is not None
    assert "Connection refused" in said.uploads.why
    registry = CollectorRegistry()
    registry.register(_OfStatus(lambda: said))
    metrics = generate_latest(registry).decode()
    assert "driftline_uploads_failing 1.0" in metrics
    shown = stage.command("status").output
    assert "failing (" in shown
    server.start()
    monkeypatch.setattr(ledger, "UPLOAD_S", 60.0)
    stage.learn()
    newest = CheckpointStore(f"s3://{bucket}/x").newest()
    assert newest is not None
    assert newest.batch == status.batch, "the next start has put it there"
    for secret in (KEY, SECRET):
        assert grep(stage.stream.data, secret) == []
        assert secret not in shown + metrics
        assert not [
            each for each in caplog.records if each.name.startswith("driftline") and secret in each.getMessage()
        ]
    server.stop()


def test_an_empty_directory_waits_for_a_store_that_is_away(
    stage: SqliteStage, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not begin with nothing: a model would be forgotten for a cable."""
    monkeypatch.setattr(address, "RETRIES", 0)
    server = S3()
    variables(monkeypatch, server)
    stage.stream = stage.stream.model_copy(update={"checkpoints": f"s3://{s3.bucket()}/x"})
    server.stop()
    learner = stage.learner()
    with contextlib.closing(learner), pytest.raises(StoreUnavailable):
        learner.start()
    assert stage.checkpoints() == []
    assert not hasattr(learner, "_work")
    server.start()
    stage.append(range(3))
    stage.learn()
    server.stop()


def test_erased_texts_leave_the_store_with_the_next_checkpoint(stage: SqliteStage, tmp_path: Path) -> None:
    stage.append(range(12))
    stage.learn(keep_uploads=5)
    root = tmp_path / "store"
    assert grep(root, "text 7 about"), "the window has it"
    erased = stage.command("erase", "--id", "7", "--checkpoints", str(stage.stream.checkpoints))
    assert erased.exit_code == 0, erased.output
    assert grep(root, "text 7 about") == []
    assert grep(root, "text 8 about")


@pytest.mark.parametrize("point", STORE_POINTS)
def test_killed_at_any_step_of_an_upload_the_store_is_whole(
    stage: SqliteStage, store: CheckpointStore, nursery: Nursery, point: str, tmp_path: Path
) -> None:
    assert stage.stream.checkpoints is not None
    flags = ["--model", "linear?bits=10&max_labels=4", "--batch-records", "8", "--checkpoint-interval-s", "0.001"]
    flags += ["--checkpoints", stage.stream.checkpoints, "--keep-uploads", "2", "--stop-at-end"]
    stage.append(range(30))
    stage.learn(batch_records=8)
    stage.append(range(30, 60))
    if "fetched" in point or "its name" in point:
        shutil.rmtree(stage.stream.data)
    child = nursery.start("learn", *stage.flags(*flags), stop=Stop(point, 1))
    assert child.wait() == -signal.SIGKILL, child.said
    for number, each in enumerate(store.checkpoints()):
        store.fetch(each, tmp_path / f"fetched-{number}")
    assert store.newest_manifest() is not None
    done = nursery.start("learn", *stage.flags(*flags))
    assert done.wait() == 0, done.said
    newest = store.newest()
    assert newest is not None
    assert newest.labels_learned == 60
    own = list_checkpoints(stage.stream.data / "checkpoints")[0]
    assert content(store.fetch(newest, tmp_path / "last")) == content(own)
    assert json.loads((stage.stream.data / "status.json").read_bytes())["uploads"]["why"] == ""
    undisturbed = at(stage, "undisturbed", checkpoints=None)
    undisturbed.learn()
    assert stage.model() == undisturbed.model()
    undisturbed.close()
    stage.append([60])
    stage.learn(keep_uploads=2)
    left = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "store" / "files").iterdir())
    assert left == sorted(map(str, store.names())), "nothing is left of what was broken off"
    assert len(left) <= 2


def test_a_loop_does_not_wait_for_an_upload(
    stage: SqliteStage, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held up for as long as it takes: the loop learns on, and makes the next checkpoints."""
    open_, came, put_file = threading.Event(), threading.Event(), CheckpointStore.put_file

    def slow(*arguments: Any) -> Any:
        came.set()
        assert open_.wait(240)
        return put_file(*arguments)

    monkeypatch.setattr(CheckpointStore, "put_file", slow)
    stage.append(range(40))
    with stage.learning(batch_records=4, checkpoint_interval_s=1e-6) as learner:
        assert came.wait(60)
        wait_until(lambda: learner.step(0.0) >= 0 and learner.status("running").checkpoint > 12, what="checkpoints")
        uploads = learner.status("running").uploads
        assert uploads is not None
        assert uploads.batch is None
        assert len(list((stage.stream.data / "uploads").iterdir())) == 2, "no more is held than that and the newest"
        open_.set()
        finish(learner)
    assert store.names()[0].batch == learner.status("stopped").checkpoint
    assert isinstance(learner, Learner)
