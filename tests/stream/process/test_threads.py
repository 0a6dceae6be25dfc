"""A thread that an error ends takes its process with it, and says why; one that others wait for keeps its errors."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from driftline.learner.disk.positions import Standing
from driftline.learner.report.status import read_status
from driftline.learner.report.watchdog import Watchdog
from driftline.learner.state.committer import Committer
from driftline.learner.state.watch import Watch
from driftline.stream.errors import LogError, StateError
from driftline.stream.log.base import TopicPartition
from driftline.stream.process import threads
from tests.data import ROOT
from tests.waiting import wait_until

FOLDERS = ("stream", "learner", "api", "cli")


def run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_an_error_that_escapes_a_thread_ends_the_process_with_the_reason() -> None:
    done = run("""
        import threading
        from driftline.stream.process import log_lines
        from driftline.stream.process import threads

        def fail(): raise KeyError("the reason")

        log_lines.begin("json")
        with threads.saying(lambda why: print("last words:", why, flush=True)):
            threads.start("carrier", fail)
            threading.Event().wait()  # as one that waits for it would, for ever
    """)
    assert done.returncode == threads.EXIT_CODE
    assert "last words: thread carrier has ended by KeyError('the reason')" in done.stdout
    assert "thread carrier has ended" in done.stderr
    assert "Traceback" in done.stderr


def test_a_learner_that_ends_so_says_it_in_its_status(tmp_path: Path) -> None:
    done = run(
        """
        import sys
        from pathlib import Path
        from driftline.learner.loop import loop
        from driftline.learner.loop import service
        from driftline.learner.disk.settings import LearnerSettings
        from driftline.stream.process import threads
        from driftline.stream.process.settings import StreamSettings

        def started(_): threads.start("carrier", lambda: 1 // 0)

        stream = StreamSettings(data=Path(sys.argv[1]))
        service.learn(stream, LearnerSettings(model="linear?bits=8&max_labels=4"), on_start=started)
        """,
        str(tmp_path),
    )
    assert done.returncode == threads.EXIT_CODE
    status = read_status(tmp_path)
    assert status is not None
    assert status.state == "failed"
    assert "thread carrier has ended by ZeroDivisionError" in status.detail


def test_every_thread_of_ours_is_begun_so() -> None:
    """`make` gives one that its owner starts; only the demo's, which nothing waits for, is a plain one."""
    plain = [
        (path.name, line.strip())
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in path.read_text().splitlines()
        if "threading.Thread(" in line and path.name != "threads.py"
    ]
    assert [name for name, _ in plain] == ["up.py"], plain


class Failing:
    """A log that fails as none should."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def commit(self, *_: Any) -> None:
        self.asked += 1
        raise self.error

    def describe(self, *_: Any) -> Mapping[str, Any]:
        self.asked += 1
        raise self.error


@pytest.mark.parametrize("error", [StateError("a damaged page"), KeyError("messages[1]"), LogError("away")])
def test_the_committer_goes_on_whatever_a_commit_raises(error: Exception) -> None:
    log: Any = Failing(error)
    committer = Committer(log, "group")
    for n in range(1, 4):
        committer.tell({TopicPartition("messages", 0): n})
        wait_until(lambda n=n: log.asked >= n, what="it has tried")
    committer.close(60.0)
    assert not committer._busy


@pytest.mark.parametrize("error", [StateError("a damaged page"), KeyError("messages[1]"), RuntimeError("odd")])
def test_who_waits_for_a_look_at_the_log_hears_what_it_raised(error: Exception) -> None:
    log: Any = Failing(error)
    with contextlib.closing(Watch(log, ["messages"])) as watch:
        for _ in range(2):
            watch.ask(Standing({}, {}, {}, {}))
            with pytest.raises((StateError, LogError), match=str(error.args[0]).replace("[", r"\[")):
                watch.answer(60.0)


def test_the_watchdog_looks_again_where_it_could_not() -> None:
    problems: list[str] = []
    looked = threading.Event()

    def lag() -> int:
        if not looked.is_set():
            looked.set()
            raise KeyError("messages[1]")
        return 5

    dog = Watchdog(0.02, lag, problems.append)
    dog.beat(1, "running")
    wait_until(lambda: bool(problems), what="it sees that nothing moves")
    dog.close()


class TestHeard:
    """What waits in a library is waited for so that signals come through."""

    def test_what_it_gives_and_raises_comes_out(self) -> None:
        assert threads.heard("giving", lambda: threading.current_thread().name) == "giving"
        with pytest.raises(TimeoutError, match="its own"):
            threads.heard("raising", lambda: raised(TimeoutError("its own")))

    def test_a_signal_ends_the_waiting(self) -> None:
        waits, go_on = threading.Event(), threading.Event()

        def hang() -> None:
            waits.set()
            go_on.wait(240)

        def send() -> None:
            assert waits.wait(60)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, lambda *_: raised(KeyboardInterrupt()))
        sending = threads.start("sending", send)
        try:
            with pytest.raises(KeyboardInterrupt):
                threads.heard("hanging", hang)
        finally:
            signal.signal(signal.SIGUSR1, before)
            go_on.set()
            sending.join(60)


def raised(error: BaseException) -> Any:
    raise error
