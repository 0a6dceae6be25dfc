"""Commands whose standard streams are closed, or cannot write every character."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from driftline.cli.streams import typed
from driftline.learner.registry import make_classifier
from driftline.learner.report.status import read_status
from driftline.stream.process.settings import StreamSettings
from tests.data import ROOT
from tests.learner.serving.test_snapshot import publish
from tests.often import TORTURE
from tests.ports import reserved
from tests.waiting import wait_until

ENCODINGS = [
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"PYTHONIOENCODING": "latin-1"},
    *([{"PYTHONIOENCODING": "ascii"}] if TORTURE else []),
]
CLOSED = [">&-", "2>&-", "<&-", "<&- >&- 2>&-"]


def run(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of the shell in which $D is the command line."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DRIFTLINE_", "PYTHONIO"))}
    known = {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "300", "D": f"{sys.executable} -m driftline"}
    line = ["sh", "-c", command]
    return subprocess.run(line, cwd=cwd, env=clean | known | environment, capture_output=True, check=False, timeout=240)


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    """Return a directory in which a model that knows letters beyond ASCII is kept."""
    classifier = make_classifier("linear?bits=12&max_labels=4")
    classifier.learn_many(["gew\u00f6hnlich \u65e5\u672c", "\U0001f600 prize"] * 3, ["schl\u00e4gt", "\u4e2d"] * 3)
    publish(tmp_path / "driftline-data" / "snapshots", classifier)
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("environment", ENCODINGS, ids=lambda each: next(iter(each.values())))
def test_no_character_ends_a_command(learned: Path, environment: dict[str, str]) -> None:
    text = "gew\u00f6hnlich \u65e5\u672c \U0001f600"
    for command in ("predict", "explain --json", *(("predict --json", "explain") if TORTURE else ())):
        done = run(f"$D {command} '{text}'", learned, **environment)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        if "--json" not in command:
            continue
        found = json.loads(done.stdout)
        assert found["label"] == "schl\u00e4gt"
        assert set(found["scores"]) == {"schl\u00e4gt", "\u4e2d"}
    done = run("$D keys list --data 'gew\u00f6hnlich' --prefix '\u65e5'", learned, **environment)
    assert done.returncode == 2
    assert b"--prefix" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_text_is_what_its_bytes_are_in_utf_8() -> None:
    assert typed("gew\u00f6hnlich \U0001f600") == "gew\u00f6hnlich \U0001f600"
    assert typed("gew\udcc3\udcb6hnlich") == "gew\u00f6hnlich", "as it comes where the locale is C"
    assert typed("a\udcff") == "a\ufffd"
    assert typed("a\ud800b") == "a\ufffdb"


def test_half_a_character_ends_no_command(learned: Path) -> None:
    """What is no UTF-8 comes as a surrogate, which no UTF-8 can write."""
    done = run("$D predict \"$(printf 'prize \\377')\"", learned)
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 1)
    assert done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("closed", CLOSED)
def test_commands_end_as_ever_where_streams_are_closed(learned: Path, closed: str) -> None:
    (learned / "f.csv").write_text("text,label\nwin a prize,spam\nsee you,ham\n")
    commands = {"keys add n --role admin": 0}
    if TORTURE or closed == CLOSED[-1]:
        commands |= {"predict prize": 0, "up --hlep": 2, "status": 1, "send f.csv": 0, "keys list": 0}
    for command, code in commands.items():
        done = run(f"$D {command} {closed}", learned)
        assert done.returncode == code, (command, done)
        assert b"Traceback" not in done.stdout + done.stderr
    assert (learned / "driftline-data" / "api-keys").read_text().startswith("sha256:")


@pytest.fixture
def port() -> Iterator[int]:
    """Give a port that nobody else gets."""
    with reserved() as port:
        yield port


def test_up_with_all_of_them_closed(tmp_path: Path, port: int) -> None:
    """No file gets the number of standard error, into which libraries write; it learns, and ends as ever."""
    stream = StreamSettings(data=tmp_path / "data")
    options = f"--data {stream.data} --port {port} --model 'linear?bits=12'"
    command = ["sh", "-c", f"exec {sys.executable} -m driftline up {options} <&- >&- 2>&-"]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                wait_until(lambda: (status := read_status(stream.data)) is not None and status.state == "running", 240)
                status = read_status(stream.data)
                assert status is not None
                for pid in (process.pid, status.pid):
                    assert {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)} == {os.devnull}
                label = {"message_id": "m", "label": "a", "text": "b"}
                wait_until(lambda: http.post("/feedback", json=label).status_code == 202)
                wait_until(lambda: http.post("/predict", json={"text": "b"}).is_success)
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
        finally:
            process.kill()
