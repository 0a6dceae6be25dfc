"""Stopped while its kernels compile, a command ends soon, with its exit code, and without a traceback.

SIGTERM may have to wait for what compiles, and so comes where some kernels are missing, not all.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from driftline.stream import kernels
from tests.data import ROOT
from tests.waiting import wait_until

COMPILES = "compiling the kernels of "
WITHIN_S = 120
SLOW = ("blend.*", "rules.*", "features.*", "scan.*")  # what is compiled in less than two seconds is not said


@pytest.mark.parametrize(
    ("words", "number", "says"),
    [
        ("learn", signal.SIGTERM, "stopped"),
        ("up --port 0", signal.SIGINT, "Stopped."),
        ("serve --port 0 --workers 2", signal.SIGINT, ""),
    ],
)
def test_while_kernels_compile(words: str, number: signal.Signals, says: str, tmp_path: Path) -> None:
    """Ctrl-C reaches every process of a terminal, SIGTERM the first one."""
    if number == signal.SIGTERM and kernels.DIRECTORY is not None:
        kept = Path(kernels.DIRECTORY)
        shutil.copytree(kept, tmp_path / "kernels" / kept.name, ignore=shutil.ignore_patterns(*SLOW))
    with started(words, tmp_path) as process:
        assert process.stderr is not None
        lines = []
        while COMPILES not in (line := process.stderr.readline()):
            lines.append(line)
            if not line or '"learning"' in line or "learning" in line.split():
                process.kill()
                pytest.fail(f"nothing was compiled: {''.join(lines)}")
        lines.append(line)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=WITHIN_S)
    said = "".join(lines) + err + out
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "Error" not in said
    assert says in said
    if words.startswith("serve"):  # whichever of its processes compiles
        assert all(json.loads(line) for line in said.splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, which says what is loaded")
def test_while_its_libraries_are_loaded(tmp_path: Path) -> None:
    with started("up --port 0", tmp_path) as process:
        wait_until(lambda: "pydantic_core" in Path(f"/proc/{process.pid}/maps").read_text())
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, out, err) == (128 + signal.SIGINT, "", "")


def started(words: str, path: Path) -> subprocess.Popen[str]:
    """Return a command at the head of a group of processes, which keeps its kernels below this directory."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DRIFTLINE_")}
    environment |= {"NUMBA_CACHE_DIR": str(path / "kernels"), "PYTHONPATH": str(ROOT)}
    if words.startswith("serve"):
        environment["DRIFTLINE_LOG_FORMAT"] = "json"
    return subprocess.Popen(
        [sys.executable, "-m", "driftline", *words.split(), "--data", str(path / "data")],
        cwd=path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
