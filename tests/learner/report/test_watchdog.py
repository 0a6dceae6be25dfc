"""A learner that does not get on is seen from outside, in the log, the status and over HTTP."""

import contextlib
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.report.health import Health
from driftline.learner.report.status import Status, read_status
from driftline.learner.report.watchdog import REPLAYING, Watchdog, stacks
from driftline.stream.errors import ConfigError
from driftline.stream.log.base import NewRecord
from driftline.stream.log.merge import Merger
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, encode
from tests.faults.stage import SqliteStage, learned, steps
from tests.waiting import wait_until


class Clock:
    """Stands in for the module `time`; the test says how late it is, and sees how often the watchdog has looked."""

    def __init__(self) -> None:
        self.now, self.looks = 1000.0, 0

    def monotonic(self) -> float:
        self.looks += threading.current_thread().name == "watchdog"
        return self.now


class Watched:
    """A watchdog with a patience of a second, and what it was told and has told."""

    def __init__(self, clock: Clock) -> None:
        self.lag, self.told, self.clock, self.batch = 0, [""], clock, 0
        self.dog = Watchdog(1.0, lambda: self.lag, self.told.append)

    def beat_for(self, seconds: float, state: str = "running", *, moving: bool = False) -> None:
        for _ in range(round(seconds / 0.2)):
            self.batch += moving
            self.dog.beat(self.batch, state)
            self.pass_by(0.2)

    def pass_by(self, seconds: float) -> None:
        """Let time pass, no more than a fifth of a second, and the watchdog look at it once at least."""
        self.clock.now += seconds
        before = self.clock.looks
        wait_until(lambda: self.clock.looks >= before + 2, what="a look that has ended")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    clock = Clock()
    monkeypatch.setattr("driftline.learner.report.watchdog.time", clock)
    monkeypatch.setattr("driftline.learner.report.watchdog.TURN_S", 0.001)
    watched = Watched(clock)
    yield watched
    watched.dog.close()


def test_who_gets_on_or_has_nothing_to_do_is_not_stalled(watched: Watched) -> None:
    watched.beat_for(3)
    watched.lag = 5
    watched.beat_for(3, moving=True)
    for state in ("waiting", "paused"):
        watched.beat_for(3, state)
    assert (watched.dog.problem, watched.dog.stalls) == ("", 0)


@pytest.mark.parametrize("state", ["recovering", "stopped", "failed"])
def test_what_takes_its_time_is_not_stalled(watched: Watched, state: str) -> None:
    watched.lag = 5
    watched.dog.beat(1, state)
    for _ in range(20):
        watched.pass_by(0.2)
    assert watched.dog.stalls == 0


def test_a_loop_that_takes_nothing_although_records_wait_is_stalled(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.lag = 1234
    watched.beat_for(0.6)
    assert watched.dog.problem == ""
    watched.beat_for(0.8)
    assert "1,234 wait" in watched.dog.problem == watched.told[-1]
    watched.beat_for(3, moving=True)
    assert (watched.dog.problem, watched.dog.stalls) == ("", 1)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"], "each is said once"


@pytest.mark.parametrize("state", ["running", "waiting", "paused"])
def test_a_loop_that_does_not_come_round_is_stalled(watched: Watched, state: str) -> None:
    watched.dog.beat(1, state)
    for _ in range(6):
        watched.pass_by(0.2)
    assert "has not come round" in watched.told[-1]


def test_a_replay_has_to_get_on_too(watched: Watched) -> None:
    watched.lag = 5
    watched.beat_for(3, REPLAYING, moving=True)
    assert watched.dog.stalls == 0
    watched.beat_for(2, REPLAYING)
    assert "5 wait" in watched.dog.problem
    watched.beat_for(1, "waiting")
    assert (watched.dog.problem, watched.dog.stalls) == ("", 1)
    watched.dog.beat(9, REPLAYING)
    for _ in range(7):
        watched.pass_by(0.2)
    assert "has not come round" in watched.dog.problem


def test_the_log_says_where_each_thread_stands() -> None:
    entered, release = threading.Event(), threading.Event()

    def hang_in_this_function() -> None:
        entered.set()
        release.wait()

    thread = threading.Thread(target=hang_in_this_function, name="someone")
    thread.start()
    assert entered.wait(30)
    found = stacks()
    release.set()
    thread.join()
    assert "someone:" in found
    assert "hang_in_this_function" in found


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_learner_that_hangs_says_so_in_its_status_and_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = StreamSettings(data=tmp_path)
    log = open_log(stream)
    settings = LearnerSettings(model="linear?bits=8&max_labels=4", stall_after_s=0.3)
    learner = Learner(stream, settings, log)
    health = Health("127.0.0.1", 0, lambda: learner.shown)
    assert get(health.port, "/healthz")[0] == 200, "it has only begun"
    release = threading.Event()
    learner.start()
    try:
        log.append("feedback", [NewRecord(b"m", encode(Feedback("m", "a", text="hello")))])
        monkeypatch.setattr(learner._work.machine.classifier, "score_and_learn", lambda *_: release.wait())
        stopped = threading.Event()
        thread = threading.Thread(target=lambda: run_until(learner, stopped), name="loop")
        thread.start()
        # On a busy machine it may have stood still before, for as long as that.
        wait_until(lambda: "release.wait" in "".join(errors(caplog)[-1:]))
        wait_until(lambda: get(health.port, "/healthz")[0] == 503)
        answer = msgspec.json.decode(get(health.port, "/healthz")[1])
        assert (answer["state"], answer["stalls"]) == ("stalled", len(errors(caplog)))
        assert "has not come round" in answer["detail"]
        wait_until(lambda: (status := read_status(tmp_path)) and (status.state, status.alive) == ("stalled", False))
        assert b"driftline_learner_stalled 1.0" in get(health.port, "/metrics")[1]
        monkeypatch.undo()
        release.set()
        stopped.set()
        thread.join()
    finally:
        release.set()
        learner.close()
        log.close()
        health.close()
    assert get_fails(health.port)


def test_a_recovery_that_stands_still_says_so_in_its_status_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that waits for records that do not come."""
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path))) as stage:
        stage.append(range(40))
        with stage.learning(batch_records=8) as first:  # crashes
            steps(first, learned(first, 40))
        released, held = threading.Event(), threading.Event()
        take_spans = Merger.take_spans

        def held_up(self: Merger, spans: Any, on_wait: Any = lambda _: None) -> Any:
            while not released.is_set():
                held.set()
                on_wait(1.0)
                time.sleep(0.01)
            return take_spans(self, spans, on_wait)

        monkeypatch.setattr(Merger, "take_spans", held_up)
        learner = stage.learner(batch_records=8, stall_after_s=0.3)
        thread = threading.Thread(target=learner.start, name="loop")
        thread.start()
        try:
            wait_until(lambda: (found := read_status(tmp_path)) is not None and is_held_up(found))
            assert "held_up" in "".join(errors(caplog)), "where it stands"
        finally:
            released.set()
            thread.join()
        assert learner.status("running").counts.labels_learned == 40
        steps(learner, lambda: learner.shown is not None and learner.shown.state == "running")
        learner.close()


def is_held_up(status: Status) -> bool:
    """Tell whether a recovery says that it stands still."""
    recovering = status.detail.startswith("recovering, batch ")
    return status.state == "stalled" and recovering and "no record was taken" in status.detail


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def run_until(learner: Learner, stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            learner.step()
        except Exception:
            return


def get_fails(port: int) -> bool:
    try:
        get(port, "/healthz")
    except OSError:
        return True
    return False


def test_the_port_of_another_is_refused(tmp_path: Path) -> None:
    del tmp_path
    health: Any = Health("127.0.0.1", 0, lambda: None)
    with pytest.raises(ConfigError, match="health_port: 127"):
        Health("127.0.0.1", health.port, lambda: None)
    assert get(health.port, "/elsewhere")[0] == 404
    assert get(health.port, "/metrics")[0] == 200
    health.close()
