"""Do several processes serve as one, over one mapped snapshot, and outlive each other?"""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from driftline.api.run import workers
from driftline.api.run.server import serve
from driftline.api.settings import ApiSettings
from driftline.learner.serving.snapshot import list_snapshots
from driftline.stream.errors import ConfigError
from driftline.stream.process.settings import StreamSettings
from tests.api.shared.test_claims import ask
from tests.data import ROOT
from tests.place import Place, address, get, post, read_all, running
from tests.waiting import wait_until


@pytest.fixture
def place(place: Place) -> Place:
    """Give one that has a model."""
    place.publish()
    return place


class TestWorkers:
    @contextmanager
    def serving(self, place: Place, *options: str, **variables: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
        command = [
            sys.executable,
            "-m",
            "driftline",
            "serve",
            "--port",
            "0",
            "--data",
            str(place.stream.data),
            *options,
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"} | variables
        with subprocess.Popen(
            command, cwd=place.stream.data, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            said = ""
            while not (found := re.search(r"at (http://\S+)", said)):
                line = process.stdout.readline()
                assert line, process.communicate()[1]
                said += line
            try:
                yield found[1], process
            finally:
                process.terminate()
                process.communicate(timeout=60)

    def test_they_share_the_work_and_are_watched(self, place: Place) -> None:
        place.report()
        with self.serving(place, "--workers", "2", "--rate-limit", "1000") as (url, process):
            workers = children(children(process.pid)[-1])
            assert len(workers) == 2
            (snapshot,) = list_snapshots(place.stream.data / "snapshots")
            assert all(str(snapshot) in Path(f"/proc/{pid}/maps").read_text() for pid in workers)
            for _ in range(10):
                assert post(f"{url}/predict", {"text": "prize"}).json()["predictions"][0]["label"] == "spam"
            # One counts what it has not shown yet: so often the other is asked, too.
            wait_until(
                lambda: all(predicted(url) == 10 for _ in range(30)), what="each tells the others what it counted"
            )

            ask(place, [f"m{number}" for number in range(40)])
            body = {"n": 2}
            claimed = [post(f"{url}/label-requests/claim", body | {"labeller": f"p{n}"}).json() for n in range(20)]
            given = [each["id"] for answer in claimed for each in answer["requests"]]
            assert sorted(given) == sorted({f"m{number}" for number in range(40)}), "no message goes to two"
            shown = get(f"{url}/label-requests?n=40").json()["requests"]
            assert {each["claim"]["by"] for each in shown} == {f"p{n}" for n in range(20)}
            post(f"{url}/feedback", {"message_id": "m7", "label": "spam"})
            for _ in range(10):
                assert get(f"{url}/label-requests").json()["open"] == 39

            os.kill(workers[0], signal.SIGKILL)
            wait_until(lambda: len(set(children(children(process.pid)[-1])) - {workers[0]}) == 2)
            for _ in range(10):
                wait_until(lambda: answers(url))
            wait_until(lambda: predicted(url) >= 20, what="what a worker counted outlives it")

            with socket.create_connection(address(url), timeout=30) as begun:
                head = b"POST /messages HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\nExpect: 100-continue\r\n\r\n"
                begun.sendall(head)
                assert begun.recv(1000).startswith(b"HTTP/1.1 100 "), "a worker has it"
                process.terminate()
                begun.sendall(b'{"text": "a"}')
                assert begun.recv(1000).startswith(b"HTTP/1.1 202")
            out, err = process.communicate(timeout=60)
        assert process.returncode == 0, (out, err)
        (line,) = err.splitlines()
        assert "started again" in json.loads(line)["message"]
        assert len(read_all(place.stream, "messages")) == 1

    def test_they_outlive_what_they_were_forked_from(self, place: Place, tmp_path: Path) -> None:
        """Nobody has to be started anew for it; whoever ends later is, from another one."""
        with self.serving(place, "--workers", "2", TMPDIR=str(tmp_path)) as (url, process):
            (source,) = [each for each in children(process.pid) if children(each)]
            workers = children(source)
            assert not list(tmp_path.glob("driftline*")), "they share nothing that has a name"
            os.kill(source, signal.SIGKILL)
            for _ in range(20):
                assert answers(url)
            assert all(is_alive(pid) for pid in workers)
            os.kill(workers[0], signal.SIGKILL)
            wait_until(lambda: [each for each in children(process.pid) for each in children(each)], what="another one")
            wait_until(lambda: answers(url))
            process.terminate()
            _, err = process.communicate(timeout=60)
            wait_until(lambda: not any(is_alive(pid) for pid in workers), what="all have ended")
        assert process.returncode == 0, err
        assert "Aborted" not in err
        assert any("worker" in line and "started again" in line for line in err.splitlines())

    def test_they_end_with_what_started_them_and_leave_nothing(self, place: Place) -> None:
        with (
            tempfile.TemporaryDirectory() as name,  # the path of a socket in it is short
            self.serving(place, "--workers", "2", TMPDIR=name) as (_, process),
        ):
            temporary = Path(name)
            below = children(process.pid)
            workers = [each for child in below for each in children(child)]
            assert len(workers) == 2
            assert list(temporary.iterdir())
            process.kill()
            wait_until(lambda: not any(is_alive(pid) for pid in [*workers, *below]), what="all have ended")
            wait_until(lambda: not list(temporary.iterdir()), what="nothing is left")

    def test_without_room_for_a_temporary_file_it_is_said(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        def full() -> str:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("driftline.api.run.workers.util.get_temp_dir", full)
        with pytest.raises(ConfigError, match=r"workers: no temporary file can be made: .*No space left.*TMPDIR"):
            serve(place.stream, ApiSettings(port=0, workers=2))

    def test_a_temporary_directory_that_is_too_long_for_a_socket_is_said(
        self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("driftline.api.run.workers.util.get_temp_dir", lambda: str(tmp_path / ("x" * 90)))
        with pytest.raises(ConfigError, match=r"too long for a socket in it; set TMPDIR"):
            serve(place.stream, ApiSettings(port=0, workers=2))

    def test_kernels_that_are_compiled_first_may_take_long(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a slow machine, just installed, longer than workers that are there may take to accept requests."""
        start, compiled_s = workers._Workers._start, 0.0

        def start_late(self: workers._Workers, worker: workers._Worker) -> None:
            nonlocal compiled_s
            start(self, worker)
            compiled_s = 2 * workers.START_S

        late = SimpleNamespace(monotonic=lambda: time.monotonic() + compiled_s, sleep=time.sleep)
        monkeypatch.setattr(workers._Workers, "_start", start_late)
        monkeypatch.setattr(workers, "time", late)
        with running(place.stream, workers=2) as url:
            assert answers(url)
        assert compiled_s

    def test_what_a_worker_refuses_is_said(self, place: Place) -> None:
        with pytest.raises(ConfigError, match="carrier-pigeon"):
            serve(StreamSettings(data=place.stream.data, log="carrier-pigeon://a"), ApiSettings(port=0, workers=2))


def predicted(url: str) -> float:
    """Return how many predictions the metrics count."""
    found = re.search(r'http_requests_total{code="200",route="/predict"} (\S+)', get(f"{url}/metrics").text)
    return float(found[1]) if found else 0.0


def children(pid: int) -> list[int]:
    """Return a process's children; of one that has ended none."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Tell whether a process is there that has not ended; nobody may be there to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def answers(url: str) -> bool:
    """Ask on a new connection: whose worker was killed is closed."""
    try:
        return post(f"{url}/predict", {"text": "a"}).is_success
    except httpx.TransportError:
        return False
