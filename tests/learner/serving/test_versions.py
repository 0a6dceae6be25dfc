"""What was served once can be served again, byte for byte; what is pinned or served stays; damage is never served."""

import contextlib
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from driftline.learner.disk.checkpoint import path_of
from driftline.learner.registry import REGISTRY
from driftline.learner.serving.chooser import SnapshotChooser
from driftline.learner.serving.versions import Versions, least_needed
from driftline.stream.errors import StateError
from driftline.stream.process.settings import StreamSettings
from tests.faults.killed import killed_at
from tests.faults.stage import SqliteStage, finish, learned, steps, text

TEXTS = [text(number) for number in range(9)] + ["", "nobody knows"]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        yield stage


def learn(stage: SqliteStage, *stops: int, **options: Any) -> list[str]:
    """Learn ten labels more at each stop, with a checkpoint; return the versions that are kept, oldest first."""
    for stop in stops:
        stage.append(range(stop - 10, stop))
        with stage.learning(**options) as learner:
            steps(learner, learned(learner, stop))
            finish(learner)
    return [kept.version for kept in reversed(Versions(stage.stream.data).kept())]


def asked(stage: SqliteStage, *arguments: str) -> None:
    done = stage.command("snapshots", *arguments)
    assert done.exit_code == 0, done.exception


def scores_of(stage: SqliteStage, version: str) -> Any:
    return Versions(stage.stream.data).open(version).model.predict_proba_many(TEXTS)[1].tolist()


def test_one_is_kept_with_each_checkpoint_and_takes_no_room(stage: SqliteStage) -> None:
    versions = learn(stage, 10, 20, 30)
    assert [version.partition("-")[2] for version in versions] == ["10", "20", "30"]
    for kept in Versions(stage.stream.data).kept():
        checkpoint = path_of(stage.stream.data / "checkpoints", kept.checkpoint) / "model.safetensors"
        model = stage.stream.data / "snapshots" / "kept" / kept.version / "model.safetensors"
        assert model.samefile(checkpoint)
    newest = Versions(stage.stream.data).kept()[0]
    assert (newest.labels_learned, newest.feedback_offsets, newest.labels) == (30, {"0": 30}, ["b", "a"])
    assert newest.recent.labels > 0


@pytest.mark.parametrize("name", REGISTRY)
def test_it_answers_as_the_model_did_then(stage: SqliteStage, name: str) -> None:
    """It is mapped for reading only: a kernel that changed it while it scores would end this process."""
    spec = f"{name}?bits=10&max_labels=4"
    scores = {}
    for n in (20, 40):
        stage.append(range(n - 20, n))
        with stage.learning(model=spec) as learner:
            steps(learner, learned(learner, n))
            finish(learner)
            classifier = learner._work.machine.classifier
            scores[learner.status("running").version] = classifier.predict_proba_many(TEXTS).tolist()
    assert len(scores) == 2
    for version, expected in scores.items():
        assert scores_of(stage, version) == expected


def test_their_number_and_bytes_are_bounded_and_pinned_and_served_ones_stay(stage: SqliteStage) -> None:
    first, second = learn(stage, 10, 20)
    assert stage.command("snapshots", "pin", first, "--name", "before the sale").exit_code == 0
    assert stage.command("snapshots", "rollback", second).exit_code == 0
    versions = learn(stage, 30, 40, 50, 60, 70, keep_snapshots=2)
    assert versions[:2] == [first, second]
    assert len(versions) == 4
    assert [version.partition("-")[2] for version in versions[2:]] == ["30", "70"]
    assert stage.command("snapshots", "latest").exit_code == 0
    assert stage.command("snapshots", "unpin", first).exit_code == 0
    left = learn(stage, 80, keep_snapshots=2)
    assert len(left) == 2
    one = Versions(stage.stream.data).kept()[0].n_bytes
    assert len(learn(stage, 90, keep_snapshots_bytes=one)) == 1
    assert len(learn(stage, 100, keep_snapshots=0)) == 0


def test_the_further_back_the_further_apart() -> None:
    """One every half a minute for a day: of eight the youngest is new, the oldest old, each older by a factor."""
    times: list[float] = []
    for turn in range(2880):
        times.insert(0, 30.0 * turn)
        if len(times) > 8:
            times.pop(least_needed(times))
    ages = [times[0] - time for time in times]
    assert ages[0] == 0
    assert ages[1] <= 120
    assert ages[-1] == 30.0 * 2879
    assert all(older >= 1.3 * younger for younger, older in pairwise(ages[1:])), ages
    assert max(older / younger for younger, older in pairwise(ages[1:])) < 12, ages


def test_a_choice_holds_until_it_is_taken_back(stage: SqliteStage) -> None:
    first, second, third = learn(stage, 10, 20, 30)
    chosen = SnapshotChooser(stage.stream.data)
    assert version_of(chosen) == third
    for version in (first, second, first):
        said = stage.command("snapshots", "rollback", version)
        assert f"Version {version}" in said.stdout
        assert (version_of(chosen), chosen.pinned_to) == (version, version)
    assert f"pinned to {first}" in stage.command("snapshots").stdout
    stage.append(range(30, 40))
    with stage.learning() as learner:  # it starts, learns and publishes; the choice stays
        steps(learner, learned(learner, 40))
        finish(learner)
        latest = learner.status("running").version
    assert version_of(chosen) == first
    assert version_of(SnapshotChooser(stage.stream.data)) == first, "after a restart, too"
    status = stage.command("status")
    assert f"pinned to {first}" in status.stdout
    assert json.loads(stage.command("snapshots", "latest", "--json").stdout) == {"pinned_to": None}
    assert (version_of(chosen), chosen.pinned_to) == (latest, None)
    assert len([path for path in (stage.stream.data / "snapshots").iterdir() if path.name.startswith("active-")]) == 1


def version_of(chosen: SnapshotChooser) -> str:
    snapshot = chosen.look()
    assert snapshot is not None
    return snapshot.model.predict_proba_many(TEXTS)[0].version


def test_what_is_damaged_or_missing_is_refused_and_the_latest_is_served(stage: SqliteStage) -> None:
    first, second, third = learn(stage, 10, 20, 30)
    kept = stage.stream.data / "snapshots" / "kept"
    model = kept / first / "model.safetensors"
    content = model.read_bytes()
    for damage in (content[:-1], content[:100] + bytes([content[100] ^ 1]) + content[101:], b""):
        model.unlink()  # the checkpoint's stays whole
        model.write_bytes(damage)
        refused = stage.command("snapshots", "rollback", first)
        assert isinstance(refused.exception, StateError)
        assert "is damaged" in str(refused.exception)
    assert "no snapshot of version 'none-1' is kept" in str(stage.command("snapshots", "rollback", "none-1").exception)
    for odd in ("../checkpoints", "", ".", "a/b", "x" * 300):
        assert "is no version" in str(stage.command("snapshots", "show", odd).exception)
    chosen = SnapshotChooser(stage.stream.data)
    assert version_of(chosen) == third
    assert stage.command("snapshots", "rollback", second).exit_code == 0
    (kept / second / "model.safetensors").unlink()
    assert (version_of(chosen), chosen.pinned_to) == (third, None)
    assert chosen.problem is not None
    assert f"version {second}, which was chosen, cannot be served" in chosen.problem
    (kept / third / "manifest.json").write_text("{")
    assert [each.version for each in Versions(stage.stream.data).kept()] == [second, first]


def test_list_and_show_as_json(stage: SqliteStage) -> None:
    first, second = learn(stage, 10, 20)
    stage.command("snapshots", "pin", first, "--name", "good")
    found = json.loads(stage.command("snapshots", "--json").stdout)
    assert found["pinned_to"] is None
    assert [(each["version"], each["pinned"], each["name"]) for each in found["snapshots"]] == [
        (second, False, ""),
        (first, True, "good"),
    ]
    shown = json.loads(stage.command("snapshots", "show", first, "--json").stdout)
    assert shown == found["snapshots"][1]
    listed = stage.command("snapshots").stdout
    assert "pinned good" in listed
    assert "Served: the latest." in listed
    assert "sha256" in stage.command("snapshots", "show", first).stdout
    assert "is pinned already" in str(stage.command("snapshots", "pin", first).exception)
    assert "name a version" in str(stage.command("snapshots", "pin").exception)


def test_killed_before_any_change_of_the_disk_a_choice_is_the_old_or_the_new_one(stage: SqliteStage) -> None:
    first, second, third = learn(stage, 10, 20, 30)
    stage.log.close()
    steps = [("rollback", first), ("rollback", second), ("latest",)]
    seen, before = set(), third
    for step, after in zip(steps, (first, second, third), strict=True):
        kills = 0
        while killed_at(kills, stage.stream.data, lambda step=step: asked(stage, *step)):
            found = version_of(SnapshotChooser(stage.stream.data))
            assert found in {before, after}
            seen.add(found == after)
            kills += 1
        assert version_of(SnapshotChooser(stage.stream.data)) == after
        before = after
    assert seen == {True, False}
    assert [kept.version for kept in Versions(stage.stream.data).kept()] == [third, second, first]
