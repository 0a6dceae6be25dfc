"""A learner that does not get on is seen from outside, in the log, the status and over HTTP."""

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

from learner.health import Health
from learner.loop import Learner
from learner.settings import LearnerSettings
from learner.status import read_status
from learner.watchdog import Watchdog, stacks
from stream.errors import ConfigError
from stream.log import NewRecord, open_log
from stream.records import Feedback, encode
from stream.settings import StreamSettings
from tests.waiting import wait_until


class Watched:
    """A watchdog, and what it was told and has told."""

    def __init__(self) -> None:
        self.lag, self.told = 0, [""]
        self.dog = Watchdog(0.1, lambda: self.lag, self.told.append)

    def beat_for(self, seconds: float, state: str = "running", *, moving: bool = False) -> None:
        end, batch = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            batch += moving
            self.dog.beat(batch, state)
            time.sleep(0.005)


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.dog.close()


def test_who_gets_on_or_has_nothing_to_do_is_not_stalled(watched: Watched) -> None:
    watched.beat_for(0.3)
    watched.lag = 5
    watched.beat_for(0.3, moving=True)
    for state in ("waiting", "paused"):
        watched.beat_for(0.3, state)
    assert (watched.dog.problem, watched.dog.stalls) == ("", 0)


@pytest.mark.parametrize("state", ["recovering", "stopped", "failed"])
def test_what_takes_its_time_is_not_stalled(watched: Watched, state: str) -> None:
    watched.lag = 5
    watched.dog.beat(1, state)
    time.sleep(0.4)
    assert watched.dog.stalls == 0


def test_a_loop_that_takes_nothing_although_records_wait_is_stalled(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.lag = 1234
    watched.beat_for(0.5)
    assert "1,234 wait" in watched.dog.problem == watched.told[-1]
    watched.beat_for(0.3, moving=True)
    assert (watched.dog.problem, watched.dog.stalls) == ("", 1)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"], "each is said once"


@pytest.mark.parametrize("state", ["running", "waiting", "paused"])
def test_a_loop_that_does_not_come_round_is_stalled(watched: Watched, state: str) -> None:
    watched.dog.beat(1, state)
    wait_until(lambda: "has not come round" in watched.told[-1], 5)


def test_the_log_says_where_each_thread_stands() -> None:
    def hang_in_this_function(release: threading.Event) -> None:
        release.wait()

    release = threading.Event()
    thread = threading.Thread(target=hang_in_this_function, args=(release,), name="someone")
    thread.start()
    found = stacks()
    release.set()
    thread.join()
    assert "someone:" in found
    assert "hang_in_this_function" in found


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
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
        wait_until(lambda: get(health.port, "/healthz")[0] == 503, 10)
        answer = msgspec.json.decode(get(health.port, "/healthz")[1])
        assert (answer["state"], answer["stalls"]) == ("stalled", 1)
        assert "has not come round" in answer["detail"]
        wait_until(lambda: (status := read_status(tmp_path)) and (status.state, status.alive) == ("stalled", False))
        assert b"driftline_learner_stalled 1.0" in get(health.port, "/metrics")[1]
        (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert "release.wait" in said
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
