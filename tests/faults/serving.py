"""An API of its own for a test: a real process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from driftline.stream.process.settings import StreamSettings
from tests.data import ROOT
from tests.ports import reserved
from tests.waiting import wait_until


@contextmanager
def api(stream: StreamSettings, *pids: list[int]) -> Iterator[httpx.Client]:
    """Serve the API until it answers, and to the end of the block; add its process to the lists given."""
    names = ("--data", str(stream.data), "--log", stream.log_url, "--prefix", stream.prefix)
    command, environment = [sys.executable, "-m", "driftline", "serve", *names], os.environ | {"PYTHONPATH": str(ROOT)}
    with (
        reserved() as port,
        subprocess.Popen([*command, "--port", str(port)], cwd=ROOT, env=environment) as process,
    ):
        for each in pids:
            each.append(process.pid)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                wait_until(lambda: answers(client), 60, "the API answers")
                yield client
        finally:
            process.terminate()


def answers(client: httpx.Client) -> bool:
    """Tell whether it does."""
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False
