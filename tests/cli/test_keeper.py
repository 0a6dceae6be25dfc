"""A learner that ends does not end `driftline up`: the API answers on, says so, and another learner is started."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

from driftline.cli.commands.keeper import Child, Keeper, is_past_first_checks
from driftline.learner.disk.lock import Lock
from driftline.learner.report.starting import Start
from driftline.learner.report.status import Status, read_status
from driftline.stream.errors import Overtaken
from tests.api.run.test_workers import children, is_alive
from tests.data import ROOT
from tests.place import Place
from tests.ports import reserved
from tests.waiting import wait_until


class Process:
    """A learner's process as the keeper sees it, which ends when it is told to."""

    def __init__(self, pid: int) -> None:
        self.pid, self.exitcode = pid, None
        self.sentinel, self._alive = os.pipe()

    def end(self, exit_code: int) -> None:
        self.exitcode = exit_code  # type: ignore[assignment]
        os.close(self._alive)

    def is_alive(self) -> bool:
        return self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        del timeout

    def terminate(self) -> None:
        self.end(0)


class Kept(Keeper):
    """A keeper of such processes."""

    def __init__(self, place: Place, needed: bool = True) -> None:
        self.stop = threading.Event()
        self.begun: list[Process] = []
        self.called: list[tuple[Any, ...]] = []
        child = Child("learner", lambda _: None, (True,), (False,), needed=needed)
        super().__init__(place.stream, child, self.stop)

    def _begin(self, arguments: tuple[Any, ...]) -> None:
        self.called.append(arguments)
        self.begun.append(Process(1000 + len(self.begun)))
        self._process = self.begun[-1]  # type: ignore[assignment]


@pytest.fixture
def kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Give a keeper that was started; its pauses are short."""
    monkeypatch.setattr("driftline.stream.process.pauses.FIRST_S", 0.01)
    kept = Kept(place)
    kept.start()
    yield kept
    kept.end()


def at_work(place: Place, kept: Kept) -> None:
    """Have the newest process say that it works, and wait until that was seen."""
    place.report(pid=kept.begun[-1].pid)
    wait_until(lambda: kept._worked, what="it is seen")


def said(place: Place) -> Status:
    status = read_status(place.stream.data)
    assert status is not None
    return status


class TestKeeper:
    @pytest.mark.parametrize("exit_code", [1, 2, 77])
    def test_what_never_worked_ends_everything(self, kept: Kept, exit_code: int) -> None:
        kept.begun[0].end(exit_code)
        assert kept.over.wait(60)
        assert kept.first_word(lambda _: True) == (False, None)
        assert kept.end() == exit_code
        assert len(kept.begun) == 1

    @pytest.mark.parametrize("exit_code", [1, 2, 77])
    def test_what_is_not_needed_ends_nothing(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, exit_code: int
    ) -> None:
        monkeypatch.setattr("driftline.stream.process.pauses.FIRST_S", 0.01)
        kept = Kept(place, needed=False)
        kept.start()
        kept.begun[0].end(exit_code)
        wait_until(lambda: len(kept.begun) == 2, what="another one is there")
        assert not kept.over.is_set()
        kept.end()

    def test_who_is_killed_before_it_worked_is_started_again(
        self, place: Place, kept: Kept, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(1, 4):
            kept.begun[-1].end(-signal.SIGKILL)
            wait_until(lambda number=number: len(kept.begun) == number + 1, what="another one is there")
        status = said(place)
        assert (status.state, status.alive) == ("failed", False)
        assert status.detail == "it was killed by SIGKILL; it is started again 0.04 s later"
        assert caplog.text.count("predictions are answered meanwhile") == 3
        assert not kept.over.is_set()

    @pytest.mark.parametrize("exit_code", [-signal.SIGBUS, 0, 1, 2])
    def test_who_worked_is_started_again_whatever_ended_it(self, place: Place, kept: Kept, exit_code: int) -> None:
        at_work(place, kept)
        kept.begun[0].end(exit_code)
        wait_until(lambda: len(kept.begun) == 2, what="another one is there")
        assert not kept.over.is_set()
        assert kept.called == [(True,), (False,)], "it takes nothing from a learner that came meanwhile"
        assert kept.end() == 0

    def test_what_it_said_itself_of_its_end_stays(self, place: Place, kept: Kept) -> None:
        at_work(place, kept)
        place.report(pid=kept.begun[0].pid, state="failed", detail="the disk is on fire")
        kept.begun[0].end(1)
        wait_until(lambda: len(kept.begun) == 2, what="another one is there")
        assert said(place).detail == "the disk is on fire; it is started again 0.01 s later"

    def test_where_another_learner_is_at_work_it_is_the_one_that_speaks(self, place: Place, kept: Kept) -> None:
        at_work(place, kept)
        lock = Lock(place.stream.data)
        place.report(pid=7, detail="I work")
        kept.begun[0].end(1)
        wait_until(lambda: len(kept.begun) == 2, what="another one is tried")
        assert (said(place).state, said(place).detail) == ("running", "I work")
        lock.close()

    def test_who_was_overtaken_is_not_started_again(
        self, place: Place, kept: Kept, caplog: pytest.LogCaptureFixture
    ) -> None:
        at_work(place, kept)
        kept.begun[0].end(Overtaken.exit_code)
        assert kept._thread is not None
        kept._thread.join(60)
        assert "another learner has taken over" in caplog.text
        assert (len(kept.begun), kept.over.is_set(), kept.end()) == (1, False, 0)

    def test_who_ends_because_all_ends_is_not_spoken_of(
        self, place: Place, kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A signal to all processes may end the learner before this one has heard of it."""
        monkeypatch.setattr("driftline.stream.process.pauses.FIRST_S", 60.0)
        kept._pauses.well()
        at_work(place, kept)
        kept.begun[0].end(0)
        time.sleep(0)
        kept.stop.set()
        assert kept.over.wait(60)
        assert kept.end() == 0
        assert caplog.text == ""

    def test_after_a_time_of_health_a_pause_is_short(
        self, place: Place, kept: Kept, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("driftline.cli.commands.keeper.WELL_S", 0.01)
        monkeypatch.setattr("driftline.cli.commands.keeper.LOOK_S", 0.01)
        at_work(place, kept)
        for number in range(1, 6):
            kept.begun[-1].end(1)
            wait_until(lambda number=number: len(kept.begun) == number + 1, what="another one is there")
        assert kept._pauses._next_s > 0.2
        held = Lock(place.stream.data)
        held.announce(1)
        wait_until(
            lambda: place.report(pid=kept.begun[-1].pid) is None and kept._pauses._next_s == 0.01,
            what="it is well again",
        )
        held.close()

    def test_a_system_that_starts_no_process_is_asked_again(
        self, place: Place, kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        at_work(place, kept)
        begin, failures = kept._begin, iter(range(2))

        def failing(arguments: tuple[Any, ...]) -> None:
            for _ in failures:
                raise OSError(11, "Resource temporarily unavailable")
            begin(arguments)

        monkeypatch.setattr(kept, "_begin", failing)
        kept.begun[0].end(-9)
        wait_until(lambda: len(kept.begun) == 2, what="another one is there")
        assert caplog.text.count("cannot be started again just now") == 2


class TestFirstWord:
    def test_nothing_of_another_one_counts(self, place: Place, kept: Kept) -> None:
        place.report(pid=1, state="running")
        threading.Timer(0.2, kept.begun[0].end, [1]).start()
        assert kept.first_word(is_past_first_checks) == (False, None)

    @pytest.mark.parametrize("state", ["running", "waiting", "recovering", "paused"])
    def test_it_is_up_once_the_learner_is_past_what_ends_it(self, place: Place, kept: Kept, state: str) -> None:
        place.report(pid=kept.begun[0].pid, state=state)
        heard, status = kept.first_word(is_past_first_checks)
        assert heard
        assert status is not None
        assert status.state == state

    def test_it_waits_for_checks_but_not_for_compiling(self, place: Place) -> None:
        for start, enough in [
            (Start("opening the log", None, time.time() - 100), False),
            (Start("compiling", 0.0, time.time()), False),
            (Start("compiling", 0.1, time.time() - 100), True),
        ]:
            place.report(pid=2, state="starting", start=start)
            assert is_past_first_checks(said(place)) is enough


@contextmanager
def up(place: Place, *options: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run `driftline up` in a process group of its own; what is left of it ends with the block."""
    with reserved() as port:
        command = [sys.executable, "-m", "driftline", "up", "--data", str(place.stream.data), "--port", str(port)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "300"}
        process = subprocess.Popen(
            [*command, *options],
            cwd=place.stream.data,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def asked(url: str, path: str = "/readyz") -> dict[str, Any]:
    """Return an answer; nothing where nobody answers yet."""
    try:
        answer = httpx.get(url + path, timeout=30)
    except httpx.TransportError:
        return {}
    found: dict[str, Any] = answer.json()
    return found


def predicts(url: str) -> bool:
    return httpx.post(f"{url}/predict", json={"text": "a"}, timeout=30).is_success


class TestUp:
    """Real processes."""

    def test_it_outlives_its_learner(self, place: Place) -> None:
        with up(place, "--model", "linear?bits=12") as (url, process):
            wait_until(lambda: asked(url).get("parts", {}).get("learn", {}).get("ready"), 240, "it learns")
            label = {"message_id": "m", "label": "spam", "text": "win a prize"}
            assert httpx.post(f"{url}/feedback", json=label, timeout=30).status_code == 202
            wait_until(
                lambda: httpx.post(f"{url}/predict", json={"text": "a"}, timeout=30).is_success, 60, "it is served"
            )
            first = said(place)
            os.kill(first.pid, signal.SIGKILL)

            def failed() -> bool:
                assert predicts(url)
                assert httpx.post(f"{url}/messages", json={"text": "a"}, timeout=30).status_code == 202
                return "killed by SIGKILL; it is started again" in (asked(url)["parts"]["learn"]["why"] or "")

            wait_until(failed, 60, "it says so")
            assert "killed by SIGKILL" in asked(url, "/model")["learner"]["detail"]
            wait_until(lambda: asked(url)["parts"]["learn"]["ready"] and said(place).epoch > first.epoch, 240, "again")
            label |= {"message_id": "n", "label": "ham"}
            assert httpx.post(f"{url}/feedback", json=label, timeout=30).status_code == 202
            wait_until(lambda: asked(url, "/model")["labels_learned"] == 2, 60, "it learns on, and nothing twice")
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "Stopped." in out
        assert [json.loads(line)["message"] for line in err.splitlines() if "started again" in line] == [
            "the learner was killed by SIGKILL; it is started again 1 s later, and predictions are answered meanwhile"
        ]

    def test_a_misspelt_model_ends_it_with_its_message(self, place: Place) -> None:
        with up(place, "--model", "blnd") as (_, process):
            out, err = process.communicate(timeout=240)
        assert process.returncode == 2
        assert re.search(r"model: .*blnd", err)
        assert "the learner ended with exit code 2; the lines above say why" in err
        assert "Traceback" not in err
        assert "Driftline is up" not in out

    def test_a_kafka_that_is_away_is_waited_for_and_said(self, place: Place) -> None:
        with reserved() as nobody, up(place, "--log", f"kafka://127.0.0.1:{nobody}") as (url, process):
            assert process.stdout is not None
            wait_until(lambda: asked(url), 240, "it answers")
            said_up = ""
            while "The learner waits" not in said_up:
                line = process.stdout.readline()
                assert line, process.communicate()[1]
                said_up += line
            assert "Until then messages and labels are refused" in said_up + process.stdout.readline()
            wait_until(lambda: f"127.0.0.1:{nobody}" in asked(url)["parts"]["learn"]["why"], what="the API has read it")
            assert httpx.get(f"{url}/readyz", timeout=30).status_code == 503
            assert httpx.get(f"{url}/healthz", timeout=30).json()["learner"] == "waiting"
            learners = [each for each in children(process.pid) if each == said(place).pid]
            assert len(learners) == 1
            process.kill()  # whatever it waits for, a learner ends with what started it
            wait_until(lambda: not is_alive(learners[0]), what="it has ended")
