"""A reverse proxy that puts an API behind a prefix, as one in front of it would."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.place import address

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date"}


class Proxy(NamedTuple):
    """Where the API is now, and what was asked beside the prefix."""

    url: str
    strays: list[str]


@contextmanager
def behind(url: str, prefix: str) -> Iterator[Proxy]:
    """Give the API at `url` another address, `prefix` before each path; the API is not told of it."""
    strays: list[str] = []
    host, port = address(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if not self.path.startswith(prefix + "/"):
                strays.append(self.path)
                self.send_response(404)
                self.send_header("content-length", "0")
                self.end_headers()
                return
            with closing(http.client.HTTPConnection(host, port, timeout=60)) as onward:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                onward.request(self.command, self.path.removeprefix(prefix), body or None, headers)
                answer = onward.getresponse()
                content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            if answer.status != 304:
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Proxy(f"http://127.0.0.1:{server.server_address[1]}{prefix}", strays)
        finally:
            server.shutdown()
            thread.join()
