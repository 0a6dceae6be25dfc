"""Killed before any change of the disk, a rebuild leaves the old state or the new one; so does who takes it over."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.learner.disk.rebuilt import LeftOut
from driftline.learner.rebuild.rebuild import stage as build
from tests.faults.campaign import LOGS
from tests.faults.nursery import Nursery
from tests.faults.stage import SqliteStage, Stage, open_stage, oracle
from tests.faults.tally import tally
from tests.often import TORTURE

COMMAND = "make torture ONLY=test_rebuild_killed"
# From one kill to the next, in changes of the disk.
STRIDE = {"sqlite": 1 if TORTURE else 7, "kafka": 4}
KAFKA = pytest.param("kafka", marks=pytest.mark.skipif(not TORTURE, reason="in `make torture` only"))


@pytest.fixture(params=["sqlite", KAFKA])
def stage(request: pytest.FixtureRequest, memory: Path) -> Iterator[Stage]:
    """Give an empty log of one partition."""
    with open_stage(request, memory) as stage:
        yield stage


def name(stage: Stage) -> str:
    return "sqlite" if isinstance(stage, SqliteStage) else "kafka"


def killed(stage: Stage, nursery: Nursery, turn: int | None, *command: str) -> bool:
    """Run a command in a process that is killed before a change of the data directory; tell whether it got so far."""
    change = None if turn is None else (turn * STRIDE[name(stage)], str(stage.stream.data))
    child = nursery.start(*command, *stage.flags(), change=change)
    code = child.wait()
    assert code in {0, -signal.SIGKILL}, child.said
    return code != 0


def test_the_one_that_builds(stage: Stage, nursery: Nursery, tmp_path: Path) -> None:
    stage.append(range(40))
    stage.learn()
    old, new = stage.model(), oracle(tmp_path, range(3), range(4, 40))
    seen, turn = set(), 0
    while killed(stage, nursery, turn, "rebuild", "--exclude", "id=3"):
        turn += 1
        seen.add(stage.model() == new)
        assert stage.model() in {old, new}
        if turn % 4 == 0:  # what was put down whole is taken over; else nothing changes
            assert not killed(stage, nursery, None, "learn", "--stop-at-end")
            assert stage.model() in {old, new}
    assert turn * STRIDE[name(stage)] > 30
    assert seen == {True, False}
    assert stage.model() == new
    stage.append(range(40, 50))
    stage.learn()
    assert stage.model() == oracle(tmp_path, range(3), range(4, 50))
    tally(f"kill -9 of `driftline rebuild` before a change of the disk, {LOGS[name(stage)]}", COMMAND, turn)


def test_a_learner_that_takes_it_over(stage: Stage, nursery: Nursery, tmp_path: Path) -> None:
    stage.append(range(40))
    stage.learn()
    new = oracle(tmp_path, range(3), range(4, 45))
    build(stage.stream.data, stage.log, LeftOut(ids=["3"]))
    stage.append(range(40, 45))
    turn, seen = 0, set()
    while killed(stage, nursery, turn, "learn", "--stop-at-end"):
        turn += 1
        seen.add(stage.newest().manifest.rebuilt is not None)
    assert turn * STRIDE[name(stage)] > 20
    assert seen == {True, False}
    assert stage.model() == new
    assert stage.newest().manifest.counts.labels_seen == 44
    assert not (stage.stream.data / "rebuild").exists()
    tally(f"kill -9 of a learner that takes over a model built anew, {LOGS[name(stage)]}", COMMAND, turn)
