"""What was served is the past: a model that is built anew changes none of its figures, and `verify` knows."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.learner.disk.checkpoint import Checkpoint
from driftline.learner.quality.drift import Drift
from driftline.learner.quality.progress import Progress
from driftline.learner.report.status import read_status
from driftline.stream.log.base import NewRecord
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode
from tests.faults.stage import START_MS, SqliteStage, text


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        yield stage


def say(stage: SqliteStage, number: int, label: str | None = None, **fields: Any) -> None:
    """Append a message, or with a label a label that needs one."""
    if label is None:
        topic, value = "messages", encode(Message(str(number), text(number)))
    else:
        topic, value = "feedback", encode(Feedback(str(number), label, **fields))
    say.time_ms += 1
    stage.log.append(topic, [NewRecord(b"%d" % number, value, START_MS + say.time_ms)])


say.time_ms = 0


def served(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Return all that a checkpoint knows of predictions as served, but the gate and what is known of labels."""
    arrays = {name: array for name, array in checkpoint.drift.items() if not name.startswith(("gate_", "places_"))}
    return {name: array.tobytes() for name, array in {**checkpoint.progress, **arrays}.items()}


def test_a_model_built_anew_leaves_the_figures_as_they_were(stage: SqliteStage) -> None:
    """Messages first, labels later: a model that was built from the log alone would have predicted other things."""
    for number in range(60):
        say(stage, number)
        if number >= 5:
            say(stage, number - 5, "ab"[(number - 5) % 3 == 0])
    for number in (3, 10):
        say(stage, number, "b" if number == 10 else "a", id=f"correction-{number}")
    stage.append(range(100, 103))  # each label brings its text, and comes behind its message
    say(stage, 200, "a", text="nobody had asked")
    stage.learn(batch_records=7)
    before = stage.newest()
    assert stage.command("rebuild").exit_code == 0
    after = stage.newest()
    assert served(after) == served(before)
    assert after.manifest.alarms == before.manifest.alarms
    proved = stage.command("verify", "--to", str(after.manifest.batch))
    assert proved.exit_code == 0, proved.output
    assert "the model was built anew between them" in proved.stdout
    said = stage.command("status").stdout
    assert "9 labels: 6 whose message came before the first label was learned, 1 that brought their text" in said
    assert "2 that correct one" in said


def test_a_label_after_the_stroke_is_compared_with_what_the_model_before_had_predicted(stage: SqliteStage) -> None:
    for number in range(30):
        say(stage, number)
        say(stage, number, "ab"[number % 3 == 0], source="bot" if number % 2 else None)
    say(stage, 900)
    stage.learn()
    before = stage.newest()
    found = stage.command("rebuild", "--exclude", "source=bot")
    assert found.exit_code == 0
    assert stage.newest().manifest.labels == before.manifest.labels
    assert (stage.newest().manifest.counts.labels_learned, before.manifest.counts.labels_learned) == (15, 30)
    say(stage, 900, "b")
    stage.learn()
    status = read_status(stage.stream.data)
    assert status is not None
    scored = before.manifest.counts.labels_learned - 1 + 1  # the first one had no prediction
    assert status.progress["labels"] == scored
    proved = stage.command("verify")
    assert proved.exit_code == 0, proved.output

    # The same without a rebuild: the same predictions were served, so the same figures come out.
    other = SqliteStage(StreamSettings(data=stage.stream.data.parent / "other"))
    with contextlib.closing(other):
        for number in range(30):
            say(other, number)
            say(other, number, "ab"[number % 3 == 0], source="bot" if number % 2 else None)
        say(other, 900)
        other.learn()
        say(other, 900, "b")
        other.learn()
        assert served(other.newest())["recent_loss"] == served(stage.newest())["recent_loss"]
        assert served(other.newest()) == served(stage.newest())


def test_labels_that_the_new_model_does_not_know_keep_the_totals(stage: SqliteStage) -> None:
    for number in range(30):
        say(stage, number)
        say(stage, number, "cab"[number % 3])
    say(stage, 900)
    stage.learn()
    before = stage.newest()
    assert stage.command("rebuild", "--exclude", "label=c").exit_code == 0
    after = stage.newest()
    assert after.manifest.labels == ["a", "b"]
    for name in ("totals", "loss", "recent_loss", "recent_correct", "bins", "delays", "unscored"):
        assert after.progress[name].tobytes() == before.progress[name].tobytes(), name
    assert after.progress["support"].tolist() == before.progress["support"][1:].tolist()
    assert after.progress["confusion"].tolist() == before.progress["confusion"][1:, 1:].tolist()
    say(stage, 900, "b")
    stage.learn()
    assert stage.command("verify").exit_code == 0


def test_across_a_stroke_from_a_checkpoint_long_before_it(stage: SqliteStage) -> None:
    for part in (range(20), range(20, 40)):
        stage.append(part)
        stage.learn(batch_records=7)
    first = stage.checkpoints()[-2]
    assert stage.command("rebuild", "--exclude", "id=3").exit_code == 0
    last = stage.checkpoints()[-1]
    found = stage.command("verify", "--from", str(stage.checkpoints()[0]), "--to", str(last))
    assert found.exit_code == 0, (first, found.output)


def test_figures_keep_their_labels_where_columns_move() -> None:
    progress, drift = Progress(4), Drift(4)
    truth = np.array([0, 1, 2, 2, 1, 0, 2] * 30, np.int32)
    predicted = np.array([0, 1, 2, 1, 1, 2, 2] * 30, np.int32)
    p = np.linspace(0.1, 0.9, len(truth), dtype=np.float32)
    progress.add(predicted, truth, p, p)
    drift.add(predicted, truth, p)
    there = np.array([2, 0, 1])
    moved = progress.carried(there, 8)
    assert moved.support[there].tolist() == progress.support.tolist()
    assert moved.confusion[np.ix_(there, there)].tolist() == progress.confusion.tolist()
    back = moved.carried(np.argsort(there), 4)
    assert {name: array.tobytes() for name, array in back.state().items()} == {
        name: array.tobytes() for name, array in progress.state().items()
    }
    again = drift.carried(there, 8).carried(np.argsort(there), 4)
    assert {name: array.tobytes() for name, array in again.state().items()} == {
        name: array.tobytes() for name, array in drift.state().items()
    }


def test_the_gate_judges_the_new_model_alone(stage: SqliteStage) -> None:
    """What the model before had predicted for messages that are labelled after the stroke does not count for it."""
    for number in range(20):
        say(stage, number)
        say(stage, number, "ab"[number % 3 == 0])
    say(stage, 900)
    stage.learn()
    assert stage.command("rebuild").exit_code == 0
    before = stage.newest().drift["gate_counts"].tolist()
    say(stage, 900, "a")
    stage.learn()
    assert stage.newest().drift["gate_counts"].tolist() == before
    say(stage, 901)
    say(stage, 901, "a")
    stage.learn()
    assert stage.newest().drift["gate_counts"].tolist() != before
