"""Every state can be proved from the one before and the log; one that cannot be says why, and a false one is found."""

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from typer.testing import CliRunner

from driftline.cli.main import app
from driftline.learner.disk.checkpoint import path_of
from driftline.learner.rebuild.verify import verify
from driftline.stream.log.base import NewRecord
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, encode
from tests.faults.stage import SqliteStage, Stage, finish, learned, steps
from tests.often import kafka_in_torture

OFTEN = {"checkpoint_interval_s": 1e-6, "batch_records": 10}


def learn(stage: Stage, n: int, **options: Any) -> None:
    """Learn until so many labels were seen, then write a checkpoint."""
    with stage.learning(**options) as learner:
        steps(learner, learned(learner, n))
        finish(learner)


def three_checkpoints(stage: Stage) -> list[int]:
    for n in (20, 40, 60):
        stage.append(range(n - 20, n))
        learn(stage, n, batch_records=7)
    return stage.checkpoints()


def test_every_neighbour_is_proved_across_restarts_options_and_crashes(stage: Stage) -> None:
    stage.append(range(30))
    learn(stage, 30, batch_records=7)
    stage.append(range(30, 60))
    with stage.learning(batch_records=5, window_messages=8) as learner:  # crashes: the next one replays
        steps(learner, learned(learner, 60))
    stage.append([3, 61, 62])
    learn(stage, 63, window_messages=30, expire_as="b")
    stage.append(range(70, 90))
    learn(stage, 83, predictions=False)
    found = stage.command("verify")
    assert found.exit_code == 0, found.output
    a, b, c = stage.checkpoints()
    assert [line.split(":")[:2] for line in found.stdout.splitlines()] == [
        [f"checkpoint {a} to {b}", " the same"],
        [f"checkpoint {b} to {c}", " the same"],
    ]
    across = stage.command("verify", "--from", str(a), "--to", str(c))
    assert across.exit_code == 0, across.output
    assert f"checkpoint {a} to {c}: the same: {c - a} batches" in across.stdout
    assert stage.command("verify", "--from", str(b)).stdout.count("the same") == 1


def test_a_model_of_another_library_is_proved_where_pickles_are_allowed(tmp_path: Path) -> None:
    model = "river:naive_bayes.MultinomialNB?max_labels=4"
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data", allow_pickle=True))) as stage:
        for n in (20, 40, 60):
            stage.append(range(n - 20, n))
            learn(stage, n, batch_records=7, model=model)
        allowed, stage.stream = stage.stream, stage.stream.model_copy(update={"allow_pickle": False})
        found = stage.command("verify")
        assert found.exit_code == 2
        assert "--allow-pickle" in found.output
        stage.stream = allowed
        found = stage.command("verify")
        assert found.exit_code == 0, found.output
        assert found.stdout.count("the same") == 2
        flip(path_of(stage.stream.data / "checkpoints", stage.checkpoints()[-1]), "progress.safetensors")
        found = stage.command("verify")
        assert found.exit_code == 1, found.output
        assert "differs: progress.safetensors" in found.stdout


def flip(path: Path, file: str) -> None:
    """Flip a bit of a checkpoint's file, and let its checksums say that all is well."""
    content = bytearray((path / file).read_bytes())
    content[-9] ^= 4
    (path / file).write_bytes(content)
    seal(path)


def seal(path: Path) -> None:
    """Make a checkpoint's checksums those of what is there."""
    lines = [line.split("  ") for line in (path / "SHA256SUMS").read_text().splitlines()]
    sums = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for _, name in lines}
    (path / "SHA256SUMS").write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


@kafka_in_torture
@pytest.mark.parametrize("file", ["model.safetensors", "progress.safetensors", "drift.safetensors", "window-0.msgpack"])
def test_a_flipped_bit_behind_valid_checksums_is_found(stage: Stage, file: str) -> None:
    a, b, c = three_checkpoints(stage)
    flip(path_of(stage.stream.data / "checkpoints", c), file)
    found = stage.command("verify")
    assert found.exit_code == 1, found.output
    assert f"checkpoint {a} to {b}: the same" in found.stdout
    assert f"checkpoint {b} to {c}: differs: {file}" in found.stdout
    if file == "model.safetensors":
        assert "(1 of " in found.stdout, "it names the array"
    assert f"move checkpoint {c} and those behind it out of" in found.stdout
    path = path_of(stage.stream.data / "checkpoints", c)
    path.rename(path.with_name(f"moved-{c}"))  # as it says
    learn(stage, 60)
    again = stage.command("verify")
    assert again.exit_code == 0, again.output


def as_it_was_written_before(path: Path) -> None:
    """Make of a checkpoint what a version wrote that had no publish gate and counted nothing by reason."""
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["revision"], manifest["counts"]["rejected_by"], manifest["join_counts"][7:]
    (path / "manifest.json").write_text(json.dumps(manifest))
    drift = safetensors.numpy.load_file(path / "drift.safetensors")
    kept = {name: array for name, array in drift.items() if not name.startswith("gate")}
    assert len(kept) < len(drift)
    safetensors.numpy.save_file(kept, path / "drift.safetensors")
    seal(path)


@kafka_in_torture
def test_what_an_older_version_did_not_have_is_no_difference(stage: Stage) -> None:
    for n in (20, 40, 60):
        stage.append(range(n - 20, n))
        odd = [NewRecord(b"odd", b"no JSON"), NewRecord(b"x", encode(Feedback(f"nothing {n}", "a")))]
        stage.log.append(stage.stream.topics.feedback, odd)
        learn(stage, n + n // 20, batch_records=7, window_messages=4)
    a, b, c = stage.checkpoints()
    root = stage.stream.data / "checkpoints"
    for batch in (a, b, c):
        as_it_was_written_before(path_of(root, batch))
    found = stage.command("verify")
    assert found.exit_code == 0, found.output
    for earlier, later in ((a, b), (b, c)):
        assert f"checkpoint {earlier} to {later}: the same" in found.stdout
        assert f"checkpoint {later} is of an older version, which did not have drift.safetensors: gate" in found.stdout
    assert "manifest.json: counts" in found.stdout
    learn(stage, 63)  # the newest now is of this version, and made from one of before
    assert stage.command("verify").exit_code == 0

    manifest = path_of(root, c) / "manifest.json"
    manifest.write_text(re.sub(r'"labels_learned": \d+', '"labels_learned": 1', manifest.read_text()))
    seal(manifest.parent)
    found = stage.command("verify", "--from", str(b), "--to", str(c))
    assert found.exit_code == 1, found.output
    assert f"checkpoint {b} to {c}: differs: manifest.json: counts" in found.stdout


@kafka_in_torture
def test_a_damaged_checkpoint_is_named(stage: Stage) -> None:
    _, _, c = three_checkpoints(stage)
    model = path_of(stage.stream.data / "checkpoints", c) / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    found = stage.command("verify")
    assert found.exit_code == 1
    assert "damaged" in found.stdout
    assert "model.safetensors does not have the SHA-256" in found.stdout


def test_what_cannot_be_verified_is_said(stage: Stage) -> None:
    a, b, c = three_checkpoints(stage)
    feedback = stage.stream.topics.feedback
    stage.drop_below(feedback, 30)
    found = stage.command("verify")
    assert found.exit_code == 2, found.output
    assert f"checkpoint {a} to {b}: cannot be verified: the log dropped records" in found.stdout
    assert f"{feedback}[0]: 10 records, offsets 20 to 29" in found.stdout
    assert f"checkpoint {b} to {c}: the same" in found.stdout
    for journal in (stage.stream.data / "journal").glob(f"{b:012d}-*.journal"):
        journal.unlink()
    found = stage.command("verify", "--from", str(b))
    assert found.exit_code == 2
    assert "a journal is missing" in found.stdout
    for number in (a, b):
        assert stage.command("verify", "--from", str(a + 1), "--to", str(number)).exit_code == 2, (
            "there is none of that number"
        )


def test_losses_that_were_accepted_and_partitions_that_were_added(stage: Stage) -> None:
    stage.append(range(20))
    learn(stage, 20, batch_records=7)
    stage.append(range(20, 40))
    with stage.learning(batch_records=4) as learner:
        steps(learner, learned(learner, 40))
    for topic in stage.stream.topics[:2]:
        stage.drop_below(topic, 27)
    stage.append(range(40, 50))
    learn(stage, 43, accept_loss=True)
    stage.add_partitions(3)
    stage.append(range(50, 80))
    learn(stage, 73)
    found = stage.command("verify")
    assert found.exit_code == 0, found.output
    assert len(stage.newest().manifest.losses.recent) == 2
    assert len(stage.newest().windows) == 3


def test_records_taken_out_of_the_middle(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        three_checkpoints(stage)
        stage.take_out("feedback", [25, 33])
        found = stage.command("verify")
        assert found.exit_code == 2
        assert "feedback[0]: 2 records lost among offsets 2" in found.stdout
        assert found.stdout.count("the same") == 1


def test_records_taken_out_of_the_middle_and_accepted(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        stage.append(range(20))
        learn(stage, 20)
        stage.append(range(20, 40))
        with stage.learning(batch_records=7) as learner:
            steps(learner, learned(learner, 40))
        stage.take_out("feedback", [25, 33])
        learn(stage, 38, accept_loss=True)
        assert stage.newest().manifest.losses.records == 2
        found = stage.command("verify")
        assert found.exit_code == 0, found.output
        stage.take_out("feedback", [27])
        found = stage.command("verify")
        assert found.exit_code == 2
        assert "feedback[0]: 3 records lost among" in found.stdout


@kafka_in_torture
def test_beside_a_learner_that_drops_checkpoints_meanwhile(stage: Stage) -> None:
    a, b, _ = three_checkpoints(stage)
    with stage.learning(**OFTEN) as learner:
        stage.append(range(60, 120))
        verdicts = []

        def go_on(done: int, _: int) -> None:
            if done == 1:
                steps(learner, lambda: a not in stage.checkpoints())

        verdicts.append(verify(stage.stream.data, stage.log, a, b, on_batch=go_on))
        assert a not in stage.checkpoints()
        verdicts.append(verify(stage.stream.data, stage.log, a, b))
        finish(learner)
    assert [verdict.outcome for verdict in verdicts] == ["same", "gone"], verdicts
    assert stage.command("verify").exit_code == 0


def test_a_log_or_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        stage.append(range(5))
        with stage.learning() as learner:
            finish(learner)
        stage.log.append("feedback", [NewRecord(b"x", encode(Feedback("x", "a", text="y")))])
        only_one = stage.command("verify")
        assert only_one.exit_code == 2
        nowhere = CliRunner().invoke(app, ["verify", "--data", str(tmp_path / "none")])
        assert nowhere.exit_code == 2
        assert not (tmp_path / "none").exists()
