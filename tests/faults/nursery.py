"""Processes of the command line that start at once, and stop where they are told to.

`python -m tests.faults.nursery MODEL` imports everything and loads the kernels, then forks a process for each order, a
line of JSON on its standard input. The children are real processes of the real command line: only what every start
would do again is done before. They end with the nursery, and it with whoever started it.
"""

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.data import ROOT

PR_SET_PDEATHSIG: Final = 1
# What the command line imports where it needs it.
LOADED: Final = (
    *("driftline.cli.main", "driftline.learner.loop.service", "driftline.api.run.server"),
    *("driftline.stream.log.kafka.log", "driftline.stream.log.sqlite.log"),
    *(
        "driftline.learner.follow.service",
        "rich.console",
        "rich.progress",
        "rich.table",
        "rich.traceback",
        "tests.faults.killed",
        "tests.faults.points",
    ),
)
FOLLOW: Final = "follow"  # in a command's place: a follower without an API, as `serve --follow` has one beside it


class Stop(NamedTuple):
    """Where a process stops itself: at a step of points.py, the nth time, by a signal."""

    point: str
    nth: int
    signal: int = signal.SIGKILL


class Child:
    """A process of a nursery."""

    def __init__(self, nursery: "Nursery", pid: int, output: Path) -> None:
        self.pid, self._nursery, self._output = pid, nursery, output
        self._descriptor = os.pidfd_open(pid)
        self.code: int | None = None

    def send(self, number: int) -> None:
        """Send a signal; one that has ended does not mind."""
        if self.code is None:
            os.kill(self.pid, number)

    def running(self) -> bool:
        """Tell whether it has not ended."""
        return self.code is None and not select.select([self._descriptor], [], [], 0)[0]

    def stopped(self) -> bool:
        """Tell whether it stands still."""
        with contextlib.suppress(FileNotFoundError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return False

    def wait(self, timeout_s: float = 120.0) -> int:
        """Return its exit code, as subprocess has them."""
        if self.code is None:
            if not select.select([self._descriptor], [], [], timeout_s)[0]:
                raise TimeoutError(f"process {self.pid} goes on after {timeout_s:g} s: {self.said}")
            self.code = os.waitstatus_to_exitcode(self._nursery.order(reap=self.pid)["status"])
            os.close(self._descriptor)
        return self.code

    @property
    def said(self) -> str:
        """What it has printed."""
        return self._output.read_text(errors="replace")


class Nursery:
    """Starts processes. One thread."""

    def __init__(self, model: str, directory: Path) -> None:
        self._directory, self._count = directory, 0
        directory.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery", model],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "500", "NO_COLOR": "1", "PYTHONUTF8": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._children: list[Child] = []

    def start(
        self,
        *arguments: str,
        stop: Stop | None = None,
        change: tuple[int, str] | None = None,
        namespace: str | None = None,
    ) -> Child:
        """Start the command line with these arguments.

        Parameters
        ----------
        stop : where it stops itself
        change : before which change of which directory it kills itself, see killed.py
        namespace : of the network that it is in, see tests/net.py
        """
        self._count += 1
        output = self._directory / f"{self._count}.txt"
        output.touch()
        order = {"stop": stop, "change": change, "namespace": namespace, "output": str(output)}
        child = Child(self, self.order(start=arguments, **order)["pid"], output)
        self._children = [each for each in self._children if each.code is None] + [child]
        return child

    def run(
        self, *arguments: str, cwd: Path, environment: Mapping[str, str], stdin: str = "", strict: bool = False
    ) -> "subprocess.CompletedProcess[str]":
        """Run the command line to its end, as `subprocess.run` does.

        Parameters
        ----------
        environment : all variables that the process has; what Python itself reads at its start comes too late
        strict : let warnings be errors
        """
        self._count += 1
        output, error, given = (self._directory / f"{self._count}.{name}" for name in ("out", "err", "in"))
        given.write_text(stdin, encoding="utf-8")
        for file in (output, error):
            file.touch()
        files = {"output": str(output), "error": str(error), "input": str(given)}
        process = {"cwd": str(cwd), "environment": dict(environment), "strict": strict}
        pid = self.order(start=arguments, **process, **files)["pid"]
        child = Child(self, pid, output)
        self._children = [each for each in self._children if each.code is None] + [child]
        code = child.wait(240)
        said = [file.read_text(encoding="utf-8") for file in (output, error)]
        return subprocess.CompletedProcess(list(arguments), code, *said)

    def order(self, **order: Any) -> Any:
        """Give an order and return what is answered."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(order), file=self._process.stdin)
        line = self._process.stdout.readline()
        assert line, "the nursery has ended"
        return json.loads(line)

    def close(self) -> None:
        """End everything."""
        for child in self._children:
            if child.code is None:
                child.send(signal.SIGKILL)
                child.wait()
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout
        self._process.stdout.close()


def main() -> None:
    """Fork as ordered."""
    _load(sys.argv[1])
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        if "reap" in order:
            answer = {"status": os.waitpid(order["reap"], 0)[1]}
        else:
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                _run(order, parent)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


def _load(model: str) -> None:
    """Do what no process under test needs to do again. Starts no thread: a child would not have it."""
    for name in LOADED:
        importlib.import_module(name)
    from driftline.learner import registry  # noqa: PLC0415
    from driftline.learner.disk.settings import DEFAULT_MODEL  # noqa: PLC0415
    from driftline.learner.loop import warm  # noqa: PLC0415
    from driftline.stream.log.kafka import librdkafka, sender  # noqa: PLC0415

    for name in (registry.make_classifier(model).config()["classifier"], DEFAULT_MODEL):
        registry.warm_up(name)
    warm.warm_up()
    librdkafka.warm_up()
    sender.warm_up()
    assert threading.active_count() == 1


def _run(order: dict[str, Any], parent: int) -> None:
    """Be a process of the command line, from here on to its end."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    output = order["output"]
    for name, flags, target in (
        (order.get("input", os.devnull), os.O_RDONLY, 0),
        (output, os.O_WRONLY | os.O_APPEND, 1),
        (order.get("error", output), os.O_WRONLY | os.O_APPEND, 2),
    ):
        os.dup2(os.open(name, flags), target)
    faulthandler.enable(2)  # a crash says where
    if "cwd" in order:  # as `python -m driftline` there
        os.chdir(order["cwd"])
        sys.path.insert(0, order["cwd"])
        os.environ.clear()
        os.environ.update(order["environment"])
        if order["strict"]:
            warnings.simplefilter("error")
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    code = 1
    try:
        from driftline.cli.main import main  # noqa: PLC0415
        from tests import net  # noqa: PLC0415
        from tests.faults import followed, killed, points  # noqa: PLC0415

        if order.get("namespace"):
            net.enter(order["namespace"])
        if order.get("stop"):
            points.stop_at(*order["stop"])
        if order.get("change"):
            killed.stop_before_change(*order["change"])
        sys.argv = [str(ROOT / "driftline" / "__main__.py"), *order["start"]]
        if order["start"][0] == FOLLOW:
            followed.follow(*order["start"][1:])
        else:
            main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        import traceback  # noqa: PLC0415

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait_until_stopped(child: Child, timeout_s: float = 60.0) -> bool:
    """Return True once a process stands still, False where it has ended before that."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if child.stopped():
            return True
        if not child.running():
            return False
        time.sleep(0.002)
    raise TimeoutError(f"process {child.pid} neither stands still nor ends")


if __name__ == "__main__":
    main()
