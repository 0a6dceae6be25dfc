"""Killed before any change of the disk, a learner in which labels give their places comes to the same model."""

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.stream.log.base import NewRecord
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, encode
from tests.faults.nursery import Nursery
from tests.faults.stage import MODEL, START_MS, SqliteStage
from tests.faults.tally import tally
from tests.often import TORTURE

COMMAND = "make torture ONLY=test_places_killed"
STRIDE = 1 if TORTURE else 30  # from one kill to the next, in changes of the disk
HOUR_MS = 3_600_000
OPTIONS = ("--model", MODEL, "--free-labels-hours", "2", "--batch-records", "5", "--checkpoint-interval-s", "0.01")


@pytest.fixture
def stage(memory: Path) -> Iterator[SqliteStage]:
    with closing(SqliteStage(StreamSettings(data=memory / "data", log=f"sqlite:///{memory / 'log.db'}"))) as stage:
        yield stage


def fill(stage: SqliteStage) -> None:
    """Append labels of five stretches: the model has four places, and each stretch brings three labels that are new."""
    records = []
    for hour in range(0, 15, 3):
        for number in range(24):
            name = "good" if number % 4 == 0 else f"junk {hour} {number % 3}" if number < 6 else "good"
            value = encode(Feedback(f"{hour} {number}", name, text=f"words {number % 5} of {name}"))
            records.append(NewRecord(b"%d" % number, value, START_MS + hour * HOUR_MS + number))
    stage.log.append("feedback", records)


def test_a_learner_that_is_killed_gives_the_same_places(stage: SqliteStage, nursery: Nursery, tmp_path: Path) -> None:
    fill(stage)
    turn = 0
    while True:
        change = (turn * STRIDE, str(stage.stream.data))
        code = nursery.start("learn", "--stop-at-end", *OPTIONS, *stage.flags(), change=change).wait()
        assert code in {0, -signal.SIGKILL}
        turn += 1
        if code == 0:
            break
        assert turn < 1000
    assert turn > 2
    assert len(list_checkpoints(stage.stream.data / "checkpoints")) > 1
    whole = SqliteStage(StreamSettings(data=tmp_path / "whole", log=stage.stream.log_url))
    with closing(whole):
        whole.learn(free_labels_hours=2.0)
        assert whole.newest().manifest.counts.places_given >= 6
        assert whole.newest().manifest.counts == stage.newest().manifest.counts
        assert whole.newest().manifest.labels == stage.newest().manifest.labels
        assert whole.model() == stage.model()
    proved = stage.command("verify")
    assert proved.exit_code == 0, proved.output
    tally("kill -9 before a change of the disk while labels give their places, embedded log", COMMAND, turn)
