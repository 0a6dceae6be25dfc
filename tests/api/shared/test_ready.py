"""Is what GET /readyz says what happens? Each part, while one thing after another is broken for real."""

import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftline.api.shared import taking
from driftline.api.shared.taking import Taking
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.quality.figures import Counts
from driftline.learner.report.follow_report import FollowReport
from driftline.learner.report.status import Status, read_status
from driftline.learner.state.outbox import MAX_IN_FLIGHT, Outbox
from driftline.stream.errors import LogDenied, LogError, LogUnavailable
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, encode
from tests.clock import Clock
from tests.place import Place, get, post, refusal, running
from tests.stream.log.test_append import locked
from tests.waiting import delete, wait_until

HOUR_S = 3600


def parts(url: str) -> dict[str, bool]:
    return {name: part["ready"] for name, part in get(f"{url}/readyz").json()["parts"].items()}


def why(url: str, part: str) -> str:
    return str(get(f"{url}/readyz").json()["parts"][part]["why"])


def ready_by_metrics(url: str) -> dict[str, bool]:
    lines = [line for line in get(f"{url}/metrics").text.splitlines() if line.startswith("driftline_ready{")]
    return {line.partition('part="')[2].partition('"')[0]: line.endswith(" 1.0") for line in lines}


def send(url: str) -> httpx.Response:
    return post(f"{url}/feedback", {"message_id": "m", "label": "spam", "text": "a prize"})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "IDLE_S", 0.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("asked", [False, True])
def test_a_log_that_another_process_has_locked(place: Place, asked: bool) -> None:
    """Whether anybody sent something meanwhile or not."""
    place.publish()
    place.report(at=time.time() + HOUR_S)
    with running(place.stream, append_timeout_s=0.5) as url:
        wait_until(lambda: parts(url) == {"predict": True, "take": True, "learn": True})
        with locked(place.stream.data / "log.db"):
            if asked:
                assert refusal(send(url), 503)["code"] == "append-timeout"
            wait_until(lambda: not parts(url)["take"], what="it says so")
            answer = get(f"{url}/readyz")
            assert refusal(answer, 503)["code"] == "not-ready"
            assert "taken nothing for" in why(url, "take")
            assert parts(url) == {"predict": True, "take": False, "learn": True} == ready_by_metrics(url)
            assert "driftline_log_up 0.0" in get(f"{url}/metrics").text
            assert refusal(send(url), 503)["code"] == "append-timeout", "so it is"
            assert refusal(get(f"{url}/v2/health/ready"), 503)["code"] == "not-ready"
        wait_until(lambda: send(url).status_code == 202, what="it is taken again")
        wait_until(lambda: ready_by_metrics(url) == {"predict": True, "take": True, "learn": True})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.usefixtures("impatient")
def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    """Seen without anybody sending anything; it is ready again by itself once there is room."""
    place = Place(tmp_path, log=f"sqlite:///{small_disk / 'log.db'}")
    place.publish()
    place.report(at=time.time() + HOUR_S)
    with running(place.stream) as url:
        wait_until(lambda: parts(url)["take"])
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            wait_until(lambda: not parts(url)["take"] or fill(file), what="it says so")
        assert "disk is full" in why(url, "take")
        wait_until(lambda: send(url).status_code == 503)
        assert parts(url) == {"predict": True, "take": False, "learn": True}
        filler.unlink()
        wait_until(lambda: parts(url)["take"], what="there is room")
        assert send(url).status_code == 202


def fill(file: Any) -> None:
    """Take what room there is by now: a checkpoint of the log's may have given some back."""
    try:
        while file.write(bytes(512)):
            pass
    except OSError:
        pass


def test_a_snapshot_that_somebody_deleted(tmp_path: Path) -> None:
    """The mapping goes on; the learner puts a new file there; an API that starts before that says what lacks."""
    stream = StreamSettings(data=tmp_path / "data")
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        learner = Learner(stream, LearnerSettings(model="linear?bits=12"), log)
        with closing(learner):
            learner.start()
            teach(log, 0)
            step(learner, lambda: (stream.data / "snapshots").is_dir() and read(stream).counts.labels_learned == 10)
            with running(stream) as url:
                wait_until(lambda: parts(url)["predict"])
                for number in (1, 2):
                    delete(stream.data / "snapshots")
                    assert post(f"{url}/predict", {"text": "word 3"}).status_code == 200
                    with running(stream) as other:
                        assert not parts(other)["predict"]
                        assert "labels learned, and the model of them is not in" in why(other, "predict")
                        teach(log, number)
                        step(learner, lambda other=other: parts(other)["predict"])
                        body = {"text": "x", "min_feedback_offset": {"partition": 0, "offset": 10 * number + 9}}
                        step(learner, lambda url=url, body=body: post(f"{url}/predict", body).status_code == 200)


def teach(log: Log, turn: int) -> None:
    labels = [Feedback(f"{turn}-{n}", "ab"[n % 2], text=f"word {n}") for n in range(10)]
    log.append("feedback", [NewRecord(each.message_id.encode(), encode(each)) for each in labels])


def read(stream: StreamSettings) -> Status:
    found = read_status(stream.data)
    assert found is not None
    return found


def step(learner: Learner, until: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        learner.step(0.02)


def test_a_learner_says_in_the_same_words_what_it_does(place: Place) -> None:
    """In the part, the warning and the model's description."""
    place.publish()
    said = {
        "running": None,
        "starting": "the learner is starting (why)",
        "recovering": "the learner is recovering (why)",
        "waiting": "the learner waits (why)",
        "paused": "the learner is paused (why)",
        "stalled": "the learner is stalled (why)",
        "stopped": "the learner is stopped (why)",
        "failed": "the learner has failed (why)",
    }
    with running(place.stream) as url:
        for state, reason in said.items():
            place.report(state=state, detail="why", at=time.time() + HOUR_S)
            wait_until(lambda state=state: get(f"{url}/healthz").json()["learner"] == state)
            ready = get(f"{url}/readyz").json()
            assert ready["parts"]["learn"] == {"ready": reason is None, "why": reason}
            assert [each for each in ready["warnings"] if each.startswith("learner:")] == (
                [f"learner: {reason}; predictions are answered, nothing is learned"] if reason else []
            )
            assert get(f"{url}/model").json()["learner"]["word"] == state
        place.report(at=time.time() - 100)
        wait_until(lambda: get(f"{url}/healthz").json()["learner"] == "silent")
        assert why(url, "learn").startswith("the learner is silent: it said that it was running 1")


# What becomes of appends.


class Probed:
    """A log whose trials are ended by the test; `can` says whether there are any."""

    def __init__(self, *, can: bool = True) -> None:
        self.can, self.probes = can, list[Future[None]]()

    def probe(self) -> "Future[None] | None":
        if not self.can:
            return None
        self.probes.append(Future())
        return self.probes[-1]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> tuple[Taking, Clock]:
    clock = Clock()
    monkeypatch.setattr(taking, "time", clock)
    return Taking(10.0), clock


def submit(followed: Taking) -> "Future[Any]":
    future: Future[Any] = Future()
    assert followed.submit(lambda: future) is future
    return future


def test_what_appends_say(taken: tuple[Taking, Clock]) -> None:
    followed, clock = taken
    first, second = submit(followed), submit(followed)
    assert followed.problem is None
    clock.now += 9
    second.set_result([])
    assert followed.problem is None
    clock.now += 2
    assert followed.problem == "the log has taken nothing for 11 s"
    first.set_exception(LogUnavailable("the disk is full"))
    assert followed.problem == "the disk is full"
    submit(followed).set_exception(LogError("that one is too large"))
    assert followed.problem == "the disk is full"
    submit(followed).set_result([])
    assert followed.problem is None
    submit(followed).set_exception(LogError("that one is too large"))
    assert followed.problem is None, "it says nothing of the next"
    with pytest.raises(LogError):
        followed.submit(lambda: raising(LogError("closed")))
    clock.now += 100
    assert followed.problem is None


def raising(error: Exception) -> Any:
    raise error


def test_it_is_tried_where_nothing_tells(taken: tuple[Taking, Clock]) -> None:
    followed, clock = taken
    log: Any = Probed()
    for _ in range(3):  # at the start, and never two at once
        followed.look(log)
    assert len(log.probes) == 1
    clock.now += 11
    assert followed.problem == "the log has taken nothing for 11 s"
    log.probes[0].set_result(None)
    assert followed.problem is None
    followed.look(log)
    assert len(log.probes) == 1, "it has just been taken"
    clock.now += taking.IDLE_S
    followed.look(log)
    log.probes[1].set_exception(LogError("a damaged page"))
    assert followed.problem == "a damaged page"
    followed.look(log)
    log.probes[2].set_exception(LogDenied("no right"))
    assert followed.problem == "no right"
    submit(followed).set_result([])
    assert followed.problem is None
    submit(followed).set_exception(LogError("odd"))
    followed.look(log)
    assert len(log.probes) == 4, "an error of which nobody knows whose it is has it tried"


def test_where_it_cannot_be_tried_an_append_is_let_through_again(taken: tuple[Taking, Clock]) -> None:
    """Else who is not ready would get none, and stay so."""
    followed, clock = taken
    log: Any = Probed(can=False)
    followed.look(log)
    submit(followed).set_exception(LogUnavailable("no broker"))
    assert followed.problem == "no broker"
    clock.now += taking.AGAIN_S + 1
    assert followed.problem is None
    submit(followed).set_exception(LogUnavailable("no broker"))
    assert followed.problem == "no broker"


def test_the_embedded_log_is_tried_by_a_commit_that_leaves_no_record(tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path)
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        before = log.describe(stream.topics)
        for _ in range(3):
            future = log.probe()
            assert future is not None
            assert future.result(60) is None
        assert log.describe(stream.topics) == before
        with closing(sqlite3.connect(tmp_path / "log.db")) as db:
            assert db.execute("SELECT count(*) FROM meta WHERE name = 'probed'").fetchone() == (1,)
        (tmp_path / "log.db").rename(tmp_path / "away")
        future = log.probe()
        assert future is not None
        assert "deleted or replaced" in str(future.exception(60))
    with pytest.raises(LogError, match="closed"):
        log.probe()


class Held:
    """A log that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, *_: Any) -> "Future[Any]":
        self.futures.append(Future())
        return self.futures[-1]


def test_a_learner_whose_output_is_not_taken_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once that has it stand still, and not where the log is only slow."""
    clock = Clock()
    monkeypatch.setattr("driftline.learner.state.outbox.time", clock)
    log: Any = Held()
    outbox = Outbox(log, 0)
    for batch in range(MAX_IN_FLIGHT):
        outbox.send(batch, {"predictions": [NewRecord(None, b"x")]})
    clock.now += 60
    assert outbox.problem == "", "it goes on"
    outbox.send(MAX_IN_FLIGHT, {"predictions": [NewRecord(None, b"x")]})
    assert outbox.problem == "the log has not taken what was sent 60 s ago"
    log.futures[0].set_result([])
    assert outbox.problem == ""


def test_a_probe_waits_for_nothing_that_is_held(tmp_path: Path) -> None:
    """Closing a log settles it, as it does an append."""
    stream = StreamSettings(data=tmp_path)
    log = open_log(stream)
    futures: list[Any] = [log.probe() for _ in range(10)]
    closer = threading.Thread(target=log.close)
    closer.start()
    closer.join(60)
    assert all(future.done() for future in futures)


def test_one_that_follows_is_ready_while_it_is_near_enough(place: Place) -> None:
    """Before the first label, too; and one that has learned, and shows no model, is not."""
    with running(place.stream, follow=True, max_follower_lag_s=5.0) as url:
        wait_until(lambda: parts(url) == {"predict": False, "take": True, "learn": False, "follow": False})
        assert why(url, "follow") == "no follower has said yet how far it is"
        assert get(f"{url}/readyz").json()["reasons"] == ["follower: no follower has said yet how far it is"]
        assert refusal(get(f"{url}/v2/health/ready"), 503)["code"] == "not-ready"
        at = time.time() + HOUR_S
        report = FollowReport(store="file:///store", behind_entries=0, behind_s=0.0, at=at)
        place.report(state="waiting", at=at, counts=Counts(), following=report)
        wait_until(lambda: get(f"{url}/readyz").status_code == 200, what="a fresh install becomes ready")
        assert ready_by_metrics(url) == {"predict": False, "take": True, "learn": False, "follow": True}
        place.report(state="following", at=at, counts=Counts(updates=4, labels_learned=4), following=report)
        wait_until(lambda: "not in" in (why(url, "follow") or ""), what="it has learned, and shows nothing")
        place.publish()
        wait_until(lambda: parts(url) == {"predict": True, "take": True, "learn": True, "follow": True})
        assert get(f"{url}/v2/health/ready").status_code == 200
        assert get(f"{url}/model").json()["learner"]["following"]["behind_s"] == 0.0
        assert "driftline_follower_by_lessons 1.0" in get(f"{url}/metrics").text
        report.behind_s, report.behind_entries = 6.0, 40
        place.report(state="following", at=at, counts=Counts(updates=4, labels_learned=4), following=report)
        wait_until(lambda: not parts(url)["follow"])
        assert "6 s, 40 entries of the journal, behind; at most 5 s are allowed" in why(url, "follow")
        report.behind_s, report.at = 0.0, time.time() - 60
        place.report(state="following", at=time.time() - 60, following=report)
        wait_until(lambda: "follower is silent" in why(url, "follow"), what="nobody knows what came since")
        assert not parts(url)["learn"]
        assert post(f"{url}/predict", {"text": "a prize"}).status_code == 200, "it answers on"
