"""How do requests come in over a connection: in two ways with the same answers, and in time? Over a real server."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.api.access.keys import Role
from driftline.api.app import make_app
from driftline.api.http.protocol import MAX_AT_ONCE, Protocol
from driftline.api.run.server import OTHER_FILES
from driftline.api.settings import ApiSettings
from tests.often import times
from tests.place import TEXTS, Place, add_key, address, exchange, get, post, running
from tests.transport import Wires
from tests.waiting import wait_until

PREDICT = b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{"text": "a"}'


@pytest.fixture
def place(place: Place) -> Place:
    """Give one that has a model."""
    place.publish()
    return place


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give an API that waits a second for its clients."""
    place = Place(tmp_path_factory.mktemp("slow"))
    place.publish()
    with running(place.stream, receive_timeout_s=1.0, keep_alive_s=1.0) as url:
        yield url


def timeless(answer: httpx.Response) -> object:
    content = answer.json()
    return {name: value for name, value in content.items() if name != "model_age_seconds"}


class TestTwoWays:
    """A request in chunks goes the long way (a task, ASGI), one with a length the short one."""

    @settings(
        max_examples=times(100, 25),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        body=st.sampled_from(
            [b"", b"{}", b'{"text": 1}', b'{"text": "\xff"}', b'{"texts": []}', b'{"texts": ["a", "b"]}']
        )
        | st.text().map(lambda text: json.dumps({"text": text}).encode())
    )
    def test_same_answers(self, url: str, body: bytes) -> None:
        short = httpx.post(f"{url}/predict", content=body, timeout=30)
        long = httpx.post(f"{url}/predict", content=iter([body]), timeout=30)
        assert "content-length" in short.request.headers
        assert "content-length" not in long.request.headers
        assert short.status_code == long.status_code
        assert short.headers.keys() == long.headers.keys()
        assert timeless(short) == timeless(long)

    def test_refused_the_same(self, place: Place) -> None:
        add_key(place, Role.PREDICT)
        with running(place.stream) as url:
            for headers in ({}, {"X-API-Key": "a"}, {"Content-Encoding": "gzip"}, {"Origin": "https://evil.example"}):
                both = [
                    httpx.post(f"{url}/predict", content=c, headers=headers, timeout=30) for c in (b"{}", iter([b"{}"]))
                ]
                assert both[0].status_code == both[1].status_code >= 400
                assert both[0].json() == both[1].json()

    def test_large_ones_go_the_long_way(self, url: str) -> None:
        for texts in (TEXTS, TEXTS * 250):
            answer = post(f"{url}/predict", {"texts": texts})
            assert len(answer.json()["predictions"]) == len(texts)

    def test_pipelined(self, url: str) -> None:
        """Short and long ones in one packet are answered in their order."""
        many = json.dumps({"texts": TEXTS * 250}).encode()
        long = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(many) + many
        health = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
        last = b"GET /model HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        answer = exchange(url, PREDICT * 300 + health + PREDICT + long + PREDICT * 3 + last)
        bodies = [part.partition(b"\r\n\r\n")[2] for part in re.split(rb"(?=HTTP/1\.1 )", answer)[1:]]
        lengths = [len(json.loads(body).get("predictions", [])) for body in bodies]
        assert lengths == [1] * 300 + [0, 1, 1000, 1, 1, 1, 0]

    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    def test_the_last_on_a_connection(self, url: str, version: bytes) -> None:
        request = PREDICT.replace(b"1.1", version).replace(b"Host: a", b"Host: a\r\nConnection: close")
        head = exchange(url, request).partition(b"\r\n\r\n")[0].lower()
        assert head.startswith(b"http/1.1 200")
        assert b"connection: close" in head

    def test_continue(self, url: str) -> None:
        with socket.create_connection(address(url), timeout=60) as raw:
            raw.sendall(PREDICT.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")[:-13])
            assert raw.recv(100).startswith(b"HTTP/1.1 100 ")
            raw.sendall(PREDICT[-13:])
            assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")


def send_slowly(raw: socket.socket, content: bytes) -> None:
    for byte in content:
        raw.sendall(bytes([byte]))
        time.sleep(0.1)


def read_to_end(raw: socket.socket) -> int:
    """Return how many answers came."""
    n = 0
    with suppress(ConnectionError):
        while more := raw.recv(1 << 20):
            n += more.count(b"HTTP/1.1 200")
    return n


def is_open(port: int, client: int) -> bool:
    """Tell whether a server on a port has not closed its side; the client sees that only behind what it was sent."""
    ends, established = (f":{port:04X}", f":{client:04X}"), "01"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any((ours[-5:], theirs[-5:], state) == (*ends, established) for _, ours, theirs, state, *_ in lines)


SLOW = {  # what each sends before it falls silent, and how the answer begins
    "nothing": (b"", b""),
    "a line": (b"\r\n", b""),
    "idle": (PREDICT, b"HTTP/1.1 200"),
    "idle, a line": (PREDICT + b"\r\n", b"HTTP/1.1 200"),
    "head": (b"POST /pre", b"HTTP/1.1 408"),
    "body": (PREDICT[:-5], b"HTTP/1.1 408"),
    "body, long way": (PREDICT.replace(b"/predict", b"/messages")[:-5], b"HTTP/1.1 408"),
    "chunks": (
        PREDICT.replace(b"Content-Length: 13", b"Transfer-Encoding: chunked")[:-13] + b"5\r\n{",
        b"HTTP/1.1 408",
    ),
    "second head": (PREDICT + b"GET ", b"HTTP/1.1 200"),
}


@pytest.fixture(scope="module")
def closed(hasty: str) -> dict[str, tuple[float, bytes]]:
    """Give when each of them was closed and what it had got by then; they are silent at the same time."""

    def one(sent: bytes) -> tuple[float, bytes]:
        started, received = time.monotonic(), b""
        with socket.create_connection(address(hasty), timeout=30) as raw:  # without an end to wait for it fails
            raw.sendall(sent)
            while more := raw.recv(1 << 16):
                received += more
        return time.monotonic() - started, received

    with ThreadPoolExecutor(len(SLOW)) as pool:
        return dict(zip(SLOW, pool.map(one, [sent for sent, _ in SLOW.values()]), strict=True))


class TestSlowClients:
    @pytest.mark.parametrize("name", SLOW)
    def test_are_closed_in_time(self, closed: dict[str, tuple[float, bytes]], name: str) -> None:
        (_, answer), (taken_s, received) = SLOW[name], closed[name]
        assert taken_s > 0.5
        assert received.startswith(answer)
        assert bool(received) == bool(answer)

    def test_a_byte_at_a_time(self, hasty: str) -> None:
        """What comes slowly is closed as what does not come: the whole request has its time."""
        with closing(socket.create_connection(address(hasty), timeout=30)) as raw, pytest.raises(ConnectionError):
            send_slowly(raw, PREDICT.replace(b"/predict", b"/predict" + b"?" * 300))

    def test_who_does_not_read(self, hasty: str, caplog: pytest.LogCaptureFixture) -> None:
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.settimeout(30)
            raw.connect(address(hasty))
            raw.sendall(ask * 1000)
            wait_until(lambda: not is_open(address(hasty)[1], raw.getsockname()[1]), what="it is closed")
            assert read_to_end(raw) < 1000, "before all was answered"
        assert not caplog.records
        assert get(f"{hasty}/healthz").is_success

    def test_more_connections_than_there_may_be(self, place: Place) -> None:
        """Who keeps it waiting longest makes room; a request under way does not."""
        with running(place.stream, max_connections=3) as url:
            idle = [socket.create_connection(address(url), timeout=30) for _ in range(3)]
            try:
                for each in idle[1:]:
                    each.sendall(PREDICT)
                    assert each.recv(1000).startswith(b"HTTP/1.1 200")
                assert get(f"{url}/healthz").is_success
                assert idle[0].recv(1) == b"", "the one that never asked"
                idle[2].sendall(PREDICT)
                assert idle[2].recv(1000).startswith(b"HTTP/1.1 200")
            finally:
                for each in idle:
                    each.close()


class TestManyConnections:
    """Without a network: what each costs is counted, not measured."""

    @pytest.fixture
    def wires(self, place: Place) -> Wires:
        return Wires(make_app(place.stream, ApiSettings()).gate, max_connections=100)

    def test_room_is_made_without_looking_at_all(self, wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each goes in its turn, the one that has been waited for longest; so many more look at no more."""
        looks = 0
        is_waited_for = Protocol.is_waited_for

        def counted(protocol: Protocol) -> bool:
            nonlocal looks
            looks += 1
            return is_waited_for(protocol)

        async def connect() -> None:
            monkeypatch.setattr(Protocol, "is_waited_for", counted)
            first = [wires.connect() for _ in range(100)]
            first[0].protocol.data_received(b"POST /pre")  # its turn comes anew
            first[0].protocol.data_received(b"dict HT")
            others = [wires.connect() for _ in range(500)]
            assert looks == 500
            gone = [transport.is_closing() for transport in (*first, *others)]
            assert gone == [True] * 500 + [False] * 100
            await asyncio.sleep(0)

        asyncio.run(connect())

    def test_what_is_answered_makes_no_room(self, wires: Wires) -> None:
        async def connect() -> None:
            busy = [wires.connect() for _ in range(99)]
            for each in busy:
                each.protocol.data_received(b"GET /model HTTP/1.1\r\nHost: a\r\n\r\n")
            idle, another = wires.connect(), wires.connect()
            assert idle.is_closing()
            another.protocol.data_received(b"GET /model HTTP/1.1\r\nHost: a\r\n\r\n")
            late = wires.connect()
            assert (late.is_closing(), late.written[:12]) == (True, b"HTTP/1.1 503")
            for each in busy:
                await wires.settle(each)
                assert each.written.startswith(b"HTTP/1.1 200")
            assert not wires.connect().is_closing()
            assert busy[0].is_closing(), "answered first, and waited for since"

        asyncio.run(connect())

    def test_requests_that_wait_for_others_are_bounded(self, wires: Wires) -> None:
        """While one is answered, no more is read than came with it."""

        async def connect() -> None:
            transport = wires.connect()
            transport.protocol.data_received(b"GET /model HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
            assert len(transport.protocol.pipeline) == 49
            while transport.written.count(b"HTTP/1.1 200") < 50:
                assert len(transport.protocol.pipeline) < 50
                assert transport.is_paused or not transport.protocol.pipeline
                await asyncio.sleep(0)
            await wires.settle(transport)
            assert not transport.is_paused

        asyncio.run(connect())

    def test_an_offer_in_each_of_many_requests(self, wires: Wires) -> None:
        async def connect() -> None:
            transport = wires.connect()
            offer = PREDICT.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
            transport.protocol.data_received(offer * 2000)
            assert transport.written.count(b"HTTP/1.1 503") == MAX_AT_ONCE, "others have their turn"
            while transport.written.count(b"HTTP/1.1 503") < 2000:  # there is no model that answers
                await asyncio.sleep(0)
            await wires.settle(transport)
            assert not transport.is_paused

        asyncio.run(connect())


FILES = [((64, 64), 1000, 1), ((256, 512), 1000, 384), ((256, 4096), 1000, 1000), ((4096, 4096), 1000, 1000)]


def test_as_many_connections_as_there_may_be_files() -> None:
    """Each limit in a process of its own, forked from one that has imported everything."""
    program = f"""
import logging, os, resource
from driftline.api.run import server
from driftline.api.settings import ApiSettings
logging.basicConfig(format="%(message)s")
for limits, wanted, _ in {FILES}:
    print("---", flush=True)
    if os.fork() == 0:
        os.dup2(1, 2)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        found = server._allow_connections(ApiSettings(max_connections=wanted))
        print(found.max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    told = done.stdout.split("---\n")[1:]
    for (limits, wanted, taken), said in zip(FILES, told, strict=True):
        most, files = map(int, said.splitlines()[-1].split())
        assert most == taken
        assert files == max(limits[0], min(limits[1], wanted + OTHER_FILES))
        assert ("max_connections: " in said) == (taken < wanted)
