"""Do several processes serve as one, over one mapped snapshot, and outlive each other?"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from driftline.api.server import serve
from driftline.api.settings import ApiSettings
from driftline.learner.snapshot import list_snapshots
from driftline.stream.errors import ConfigError
from driftline.stream.settings import StreamSettings
from tests.place import Place, address, get, post, read_all
from tests.test_claims import ask
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent


@pytest.fixture
def place(place: Place) -> Place:
    """Give one that has a model."""
    place.publish()
    return place


class TestWorkers:
    @contextmanager
    def serving(self, place: Place, *options: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
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
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
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

    def test_what_a_worker_refuses_is_said(self, place: Place) -> None:
        with pytest.raises(ConfigError, match="carrier-pigeon"):
            serve(StreamSettings(data=place.stream.data, log="carrier-pigeon://a"), ApiSettings(port=0, workers=2))


def predicted(url: str) -> float:
    """Return how many predictions the metrics count."""
    found = re.search(r'http_requests_total{code="200",route="/predict"} (\S+)', get(f"{url}/metrics").text)
    return float(found[1]) if found else 0.0


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def answers(url: str) -> bool:
    """Ask on a new connection: whose worker was killed is closed."""
    try:
        return post(f"{url}/predict", {"text": "a"}).is_success
    except httpx.TransportError:
        return False
