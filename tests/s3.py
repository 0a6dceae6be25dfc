"""A real S3 server on this machine: moto's, which keeps to the protocol, over HTTP. What is in it lies in memory."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

KEY = "AKIADRIFTLINETESTS00"
SECRET = "a/secret+that-nobody/is+to+see=="


class S3:
    """The server. It may be stopped, and started again on its port; all that is in it stays."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        app, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

        def answer(environ: Any, start_response: Any) -> Any:
            """Answer one after another: to put where there is none, moto looks and puts in two steps, and S3 in one."""
            with one_at_a_time:
                return app(environ, start_response)

        self._server = make_server("127.0.0.1", self.port, answer, threaded=True, request_handler=MotoRequestHandler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

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
