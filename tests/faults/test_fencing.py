"""A learner that is stopped, overtaken and woken writes nothing, and says why it ends.

It is stopped at a random moment: then not a byte of the data directory changes after it was woken, but for one write
that it had decided on. That moment is met rarely by chance, so it is also stopped by itself between its look at the
lock and a write: that write is of no effect, whatever recovery reads, also that of a third learner after the second
was killed.
"""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from driftline.api.shared.watcher import Watcher
from driftline.learner.disk.journal import Head, Journal, path_of, read_since
from driftline.learner.disk.lock import Lock, last_epoch
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.report.history import FILE as HISTORY
from driftline.learner.report.review import FILE as REVIEW
from driftline.learner.report.status import FILE as STATUS
from driftline.learner.report.status import read_status, write_status
from driftline.stream.errors import Overtaken, StateError
from driftline.stream.log.base import TopicPartition
from driftline.stream.log.merge import Span
from driftline.stream.log.sqlite.file import sqlite_path
from driftline.stream.process.settings import StreamSettings
from tests.faults.campaign import INTERVALS, LOGS, Course, check, check_predictions, command
from tests.faults.nursery import Child, Nursery, Stop, wait_until_stopped
from tests.faults.points import POINTS
from tests.faults.stage import SqliteStage, finish, learned, steps
from tests.faults.tally import tally
from tests.learner.serving.test_snapshot import info_of, publish, taught
from tests.often import TORTURE, times
from tests.ports import reserved
from tests.waiting import wait_until

COMMAND = "make torture ONLY=test_fencing"
AT_RANDOM = {"sqlite": times(200, 4), "kafka": times(20, 1)}
EACH = {"sqlite": times(4, 1), "kafka": times(1, 0)}
# Behind the look at the lock, and before what it is for.
BETWEEN = [name for name in POINTS if name[0] in "4567bd" and name != "5 half of its entry is written"]
SHORT = [name for name in BETWEEN if name.startswith(("5", "6 before", "7.iii before the"))]


def files(data: Path) -> dict[str, str]:
    """Return what is in a data directory: each file's digest."""
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(data.rglob("*"))
        if path.is_file()
    }


def overtake(nursery: Nursery, stream: StreamSettings, stop: Stop | None = None) -> Child:
    """Start a learner that takes over, and goes on to the end unless it is killed before."""
    child = nursery.start(*command(stream, "--take-over", "--stop-at-end", "--checkpoint-interval-s", "60"), stop=stop)
    assert child.wait() in ({-signal.SIGKILL, 0} if stop else {0}), child.said
    return child


def holds_the_log(stream: StreamSettings) -> bool:
    """Tell whether one that stands still is in the middle of a transaction of the embedded log: nobody gets past it."""
    if not stream.log_url.startswith("sqlite"):
        return False
    with contextlib.closing(sqlite3.connect(sqlite_path(stream.log_url), timeout=0, isolation_level=None)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        db.execute("ROLLBACK")
    return False


def wake(child: Child) -> None:
    """Let one that was overtaken go on; it has to end, and to say why."""
    child.send(signal.SIGCONT)
    assert child.wait() == 3, child.said
    assert "was taken over by another learner" in child.said
    assert "Traceback" not in child.said


def test_nothing_is_written_by_the_one_overtaken(course: Course, nursery: Nursery) -> None:
    rng, done, tries = random.Random(course.name), 0, 0
    while done < AT_RANDOM[course.name]:
        tries += 1
        stream = course.at(f"stopped-{tries}")
        first = nursery.start(*command(stream, "--checkpoint-interval-s", rng.choice(INTERVALS)))
        wait_until(lambda stream=stream: last_epoch(stream.data), what="it has the directory")
        time.sleep(rng.uniform(0, 0.2))
        first.send(signal.SIGSTOP)
        if not wait_until_stopped(first) or holds_the_log(stream):
            first.send(signal.SIGKILL)
            first.wait()
            continue
        overtake(nursery, stream)
        before = files(stream.data)
        wake(first)
        after = files(stream.data)
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        if changed:
            check_late(changed, stream)
            third = nursery.start(*command(stream, "--stop-at-end"))
            assert third.wait() == 0, third.said
        check(course, stream)
        shutil.rmtree(stream.data)
        done += 1
        tally(
            f"SIGSTOP of the learner at random times, takeover, SIGCONT, {LOGS[course.name]}",
            COMMAND,
            1,
            finished_a_write=int(bool(changed)),
        )
    check_predictions(course)


def check_late(changed: set[str], stream: StreamSettings) -> None:
    """One thing in each of its two threads, as disk/lock.py says, and nothing that is the other's."""
    own = ("snapshots/00000001-", "snapshots/.writing-00000001-", "snapshots/kept/")
    of_first = {name for name in changed if name.endswith("-00000001.journal") or name.startswith(own)}
    others = changed - of_first
    if STATUS in others:
        found = read_status(stream.data)
        assert found is not None
        assert found.epoch == 1
    assert others in ({STATUS}, {REVIEW}, {HISTORY}, set())
    # A snapshot that is kept is two files, in a directory that is named anew once both are whole.
    things = {
        name.replace(".writing-", "").removesuffix("/manifest.json").removesuffix("/model.safetensors")
        for name in changed
    }
    assert len(things) <= 2


def test_a_write_that_was_decided_on_before_is_of_no_effect(course: Course, nursery: Nursery) -> None:
    if not EACH[course.name]:
        pytest.skip("in `make torture` only")
    rng, done = random.Random(f"{course.name} between"), 0
    names = (BETWEEN if TORTURE else SHORT) * EACH[course.name]
    for number, name in enumerate(names):
        stream = course.at(f"between-{number}")
        options = ("--stop-at-end", "--checkpoint-interval-s", rng.choice(INTERVALS))
        if rng.random() < 0.5 or name.startswith("b"):  # so that there is something to apply again
            child = nursery.start(*command(stream, *options), stop=Stop("5 its entry is durable", 4))
            assert child.wait() == -signal.SIGKILL, child.said
        first = nursery.start(*command(stream, *options), stop=Stop(name, 1 + rng.randrange(2), signal.SIGSTOP))
        if not wait_until_stopped(first) or holds_the_log(stream):
            first.send(signal.SIGKILL)
            first.wait()
            continue  # it has no such step, or not so often
        killed = rng.random() < 0.7
        overtake(nursery, stream, Stop("5 its entry is durable", 3) if killed else None)
        first.send(signal.SIGCONT)
        assert first.wait() in {0, 3}, first.said  # 0: that was its last write
        third = nursery.start(*command(stream, "--stop-at-end"))
        assert third.wait() == 0, third.said
        check(course, stream)
        shutil.rmtree(stream.data)
        done += 1
        what = "SIGSTOP between its look at the lock and a write, takeover, SIGCONT"
        tally(f"{what}, {LOGS[course.name]}", COMMAND, 1)
    check_predictions(course)
    assert done >= len(names) / 2


def test_a_takeover_without_a_log_ends_no_one(nursery: Nursery, tmp_path: Path) -> None:
    """It waits for the log, as any start does, and takes nothing over before that is there."""
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage, stage.learning() as learner:
        stage.append(range(20))
        steps(learner, learned(learner, 20))
        with reserved() as port:
            log = ("--log", f"kafka://127.0.0.1:{port}")
            child = nursery.start("learn", "--data", str(stage.stream.data), *log, "--take-over")
            wait_until(lambda: "waiting for it" in child.said, 300, "it waits for the log")
            learner._lock.check()
            assert read_status(stage.stream.data).pid == os.getpid()  # type: ignore[union-attr]
            child.send(signal.SIGTERM)
            assert child.wait() == 0, child.said
        stage.append(range(20, 30))
        steps(learner, learned(learner, 30))
        finish(learner)


# The parts.


def test_a_lock_that_was_taken_over_says_so(tmp_path: Path) -> None:
    first = Lock(tmp_path)
    first.announce(4)
    first.check()
    with pytest.raises(StateError, match=r"another learner is at work .*epoch 4.*--take-over"):
        Lock(tmp_path)
    second = Lock(tmp_path, take_over=True)
    assert second.last_epoch() == 5
    with pytest.raises(Overtaken, match=r"was taken over by another learner \(process \d+ on .*, epoch 5\)"):
        first.check()
    with pytest.raises(Overtaken):
        first.announce(6)
    second.announce(6)
    third = Lock(tmp_path, take_over=True)
    first.close()
    with pytest.raises(Overtaken):
        second.check()
    third.check()
    with pytest.raises(StateError):
        Lock(tmp_path)
    second.close()
    third.close()
    Lock(tmp_path).close()
    Lock(tmp_path, take_over=True).close()


def test_overtaken_after_its_status_it_leaves_what_people_look_at(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage, stage.learning() as learner:
        stage.append(range(20))
        steps(learner, learned(learner, 20))
        learner._outside._reporter._check = lambda: None  # it has looked at the lock for its status
        with contextlib.closing(Lock(stage.stream.data, take_over=True)) as other:
            other.announce(2)
            before = files(stage.stream.data)
            with pytest.raises(Overtaken):
                learner._outside.report("running")
        after = files(stage.stream.data)
        changed = {name for name in after if before.get(name) != after[name] and not name.startswith("log.db")}
        assert changed <= {STATUS}  # the log is everyone's
        assert before.keys() == after.keys()


def test_an_entry_written_after_the_takeover_is_left_out(tmp_path: Path) -> None:
    partition = TopicPartition("messages", 0)
    rules = LearnerSettings().rules(StreamSettings(), 1)

    def span(start: int) -> list[Span]:
        return [Span(partition, start, start + 5)]

    overtaken = Journal(path_of(tmp_path, 0, 1), Head(0, 1, rules, [partition]))
    overtaken.append(1, 0, span(0))
    overtaken.append(2, 0, span(5))
    following = Journal(path_of(tmp_path, 2, 2), Head(2, 2, rules, [partition]))
    overtaken.append(3, 0, span(20))  # it had looked before
    following.append(3, 0, span(10))
    for journal in (overtaken, following):
        journal.close()
    assert [(each.batch, each.spans) for each in read_since(tmp_path, 0)] == [(1, span(0)), (2, span(5)), (3, span(10))]


def test_the_api_takes_only_the_highest_epoch(tmp_path: Path, course: Course) -> None:
    """Neither a snapshot nor a status of a learner that was overtaken, however late it comes."""
    if course.name != "sqlite":
        pytest.skip("once is enough")
    status = read_status(course.at("undisturbed").data)
    assert status is not None
    lock = Lock(tmp_path)
    lock.announce(7)
    status.epoch = 7
    write_status(tmp_path, status)
    publish(tmp_path / "snapshots", taught(), epoch=7)
    watcher = Watcher(tmp_path)
    watcher.start()
    publish(tmp_path / "snapshots", taught(), epoch=6)
    status.epoch, status.detail = 6, "overtaken"
    write_status(tmp_path, status)
    for _ in range(3):
        watcher._look_for_snapshot()
        watcher._look_for_status()
    watcher.close()
    lock.close()
    assert watcher.status is not None
    assert watcher.status.epoch == 7
    assert watcher.served is not None
    assert watcher.served.info.epoch == 7
    assert (tmp_path / STATUS).exists()
    assert info_of(taught(), epoch=6).epoch < 7
