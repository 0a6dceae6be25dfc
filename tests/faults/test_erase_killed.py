"""Killed before any change of the disk, who erases something has it done in the end, and loses nothing else."""

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from driftline.learner.rebuild import erase
from driftline.stream.log.base import NewRecord
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode
from tests.faults.nursery import Nursery
from tests.faults.stage import MODEL, START_MS, SqliteStage, oracle
from tests.faults.tally import tally
from tests.grep import grep
from tests.often import TORTURE

COMMAND = "make torture ONLY=test_erase_killed"
STRIDE = 1 if TORTURE else 18  # from one kill to the next, in changes of the disk
TEXT = "Please pay Erika Mustermann, DE89 3704 0044 0532 0130 00"


@pytest.fixture
def stage(memory: Path) -> Iterator[SqliteStage]:
    """Give a stage whose log is in the data directory, with three checkpoints and a base."""
    with closing(SqliteStage(StreamSettings(data=memory / "data"))) as stage:
        for start in range(0, 40, 8):
            stage.append(range(start, start + 8))
            if start == 8:
                secret(stage)
            stage.learn()
        yield stage


def secret(stage: SqliteStage) -> None:
    stage.log.append("messages", [NewRecord(b"secret", encode(Message("secret", TEXT)), START_MS + 31)])
    stage.log.append("feedback", [NewRecord(b"secret", encode(Feedback("secret", "a")), START_MS + 32)])


def where(data: Path) -> list[str]:
    return grep(data, "Mustermann")


def killed(stage: SqliteStage, nursery: Nursery, turn: int | None, *command: str) -> bool:
    """Run a command in a process that is killed before a change of the data directory; tell whether it got so far."""
    change = None if turn is None else (turn * STRIDE, str(stage.stream.data))
    child = nursery.start(*command, *stage.flags(), change=change)
    code = child.wait()
    assert code in {0, -signal.SIGKILL}, child.said
    return code != 0


def test_who_erases_and_who_does_it_at_the_next_start(stage: SqliteStage, nursery: Nursery, tmp_path: Path) -> None:
    assert [path for path in where(stage.stream.data) if "/bases/" in path]
    before, turn = stage.model(), 0
    request = erase.ask(stage.stream.data, ["secret"])
    asked = erase.read(request)
    while request.exists():
        learner = ("learn", "--stop-at-end", "--model", MODEL)
        command = ("erase", "--id", "no such") if turn % 2 else learner
        killed(stage, nursery, turn, *command)
        turn += 1
        assert stage.model() == before, "nothing else was lost"
        assert turn < 1000
    assert turn * STRIDE > 20
    while erase.pending(stage.stream.data):
        assert not killed(stage, nursery, None, "erase", "--id", "no such")
    assert where(stage.stream.data) == []
    assert asked is not None
    done = [each for each in erase.read_done(stage.stream.data) if erase.answers(each, asked)]
    assert done[-1].records == {"messages": 1, "feedback": 1, "predictions": 1}
    assert stage.newest().manifest.losses.losses == 0
    assert stage.command("verify").exit_code == 0
    stage.append(range(40, 50))
    stage.learn()
    assert stage.newest().manifest.counts.labels_seen == 51
    assert stage.command("verify").exit_code == 0
    assert stage.command("rebuild").exit_code == 0
    assert stage.model() == oracle(tmp_path, range(16), range(16, 50))
    tally("kill -9 before a change of the disk while a message is erased, embedded log", COMMAND, turn)
