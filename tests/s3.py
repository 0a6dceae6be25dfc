"""A real S3 server on this machine: moto's, which keeps to the protocol, over HTTP. What is in it lies in memory."""

import contextlib
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

KEY = "AKIADRIFTLINETESTS00"
SECRET = "a/secret+that-nobody/is+to+see=="


class S3:
    """The server. It may be stopped, and started again on its port; all that is in it stays."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.start()

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bucket(self) -> str:
        """Make a bucket, and return its name."""
        name = f"driftline-{uuid4().hex[:12]}"
        httpx.put(f"{self.url}/{name}", timeout=60).raise_for_status()
        return name

    @contextlib.contextmanager
    def knowing_nobody(self) -> Iterator[None]:
        """Have it refuse every key, for the length of a block."""
        reset = f"{self.url}/moto-api/reset-auth"
        httpx.post(reset, content=b"0", timeout=60).raise_for_status()
        try:
            yield
        finally:
            httpx.post(reset, content=b"inf", timeout=60).raise_for_status()


def variables(monkeypatch: pytest.MonkeyPatch, server: S3) -> None:
    """Set what every client of S3 reads."""
    given = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in {**given, "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
