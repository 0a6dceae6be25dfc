"""Who comes in, how often, from which page, and how long may a client take? Over a real server."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import APIRouter, FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import keys
from api.keys import Key, Keys, Role
from api.rate import TABLE_BYTES, Rate, address_of
from api.security import Access
from api.server import serve
from api.settings import ApiSettings
from learner.snapshot import list_snapshots
from stream.errors import ConfigError
from stream.lines import JsonLines
from stream.settings import StreamSettings
from tests.place import TEXTS, Place, address, exchange, get, post, read_all, refusal, running
from tests.ports import reserved
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
PREDICT = b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{"text": "a"}'


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.publish()
    return place


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give an API without keys."""
    place = Place(tmp_path_factory.mktemp("gate"))
    place.publish()
    with running(place.stream) as url:
        yield url


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give an API that waits a second for its clients."""
    place = Place(tmp_path_factory.mktemp("slow"))
    place.publish()
    with running(place.stream, receive_timeout_s=1.0) as url:
        yield url


class Clock:
    """Stands in for the module `time`; the test says how late it is."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the clock of rates, which stands still."""
    clock = Clock()
    monkeypatch.setattr("api.rate.time", clock)
    return clock


def add_key(place: Place, role: Role, name: str = "") -> dict[str, str]:
    """Add a key to those in the data directory; return the header that sends it."""
    path = place.stream.data / keys.FILE
    secret, key = keys.new_key(name or role.name.lower(), role)
    keys.save(path, [*keys.read(path), key])
    return {"Authorization": f"Bearer {secret}"}


class TestKeys:
    def test_a_key_is_kept_as_a_digest(self, tmp_path: Path) -> None:
        secret, key = keys.new_key("bob", Role.LABEL)
        path = tmp_path / "new" / "keys"
        keys.save(path, [key])
        assert re.fullmatch(r"dlk_[\w-]{43}", secret)
        assert secret not in path.read_text()
        assert keys.read(path) == [key]
        kept = Keys(path)
        assert kept.find(secret.encode()) == key
        assert kept.find(secret[:-1].encode()) is kept.find(b"") is kept.find(b"a" * 10_000) is None
        assert keys.new_key("bob", Role.LABEL)[0] != secret

    @pytest.mark.parametrize(
        "line",
        ["bob", "sha256:ab predict bob", f"md5:{'a' * 64} predict bob", f"sha256:{'a' * 64} king bob",
         f"sha256:{'a' * 64} open bob", f"sha256:{'a' * 64} predict", f"sha256:{'A' * 64} predict bob"],
    )  # fmt: skip
    def test_lines_that_are_no_keys(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "keys").write_text(f"# a comment\n\n{line}\n")
        with pytest.raises(ConfigError, match="line 3"):
            Keys(tmp_path / "keys")
        with pytest.raises(ConfigError, match="api_keys"):
            Keys(tmp_path / "none", [line])

    @pytest.mark.parametrize("name", ["", "a b", "a\n", "a" * 65, "ä"])
    def test_names_that_are_none(self, name: str) -> None:
        with pytest.raises(ConfigError, match="name"):
            keys.new_key(name, Role.ADMIN)

    def test_a_file_that_is_damaged_or_gone_opens_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("api.keys.LOOK_S", -1.0)
        path = tmp_path / "keys"
        kept = Keys(path)
        assert not kept.needed()
        secret, key = keys.new_key("bob", Role.PREDICT)
        keys.save(path, [key])
        assert kept.needed()
        path.write_text("nonsense")
        for _ in range(3):
            assert kept.needed()
            assert kept.find(secret.encode()) == key
        path.unlink()
        assert kept.needed()
        assert kept.find(secret.encode()) == key
        assert len(caplog.records) == 2, "each is told once"
        keys.save(path, [])
        assert kept.needed(), "the last key was removed: nobody comes in"
        assert kept.find(secret.encode()) is None

    def test_roles(self, place: Place) -> None:
        headers = {role: add_key(place, role) for role in (Role.PREDICT, Role.LABEL, Role.ADMIN)}
        asked = {
            Role.PREDICT: [("POST", "/predict", {"text": "a"}), ("GET", "/model", None), ("GET", "/metrics", None)],
            Role.LABEL: [
                ("POST", "/messages", {"text": "a"}),
                ("POST", "/feedback", {"message_id": "m", "label": "a"}),
            ],
        }
        with running(place.stream) as url, httpx.Client(base_url=url, timeout=30) as http:
            for needed, requests in asked.items():
                for method, path, body in requests:
                    error = refusal(http.request(method, path, json=body), 401)
                    assert error["code"] == "no-key"
                    wrong = {"Authorization": f"Bearer dlk_{'a' * 43}"}
                    assert refusal(http.request(method, path, json=body, headers=wrong), 401)["code"] == "unknown-key"
                    for role, header in headers.items():
                        answer = http.request(method, path, json=body, headers=header)
                        if role < needed:
                            assert refusal(answer, 403)["code"] == "role"
                        else:
                            assert answer.is_success
            for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
                assert http.get(path).is_success
            secret = headers[Role.PREDICT]["Authorization"].partition(" ")[2]
            assert http.post("/predict", json={"text": "a"}, headers={"X-API-Key": secret}).is_success
            assert http.get("/model").headers["www-authenticate"] == "Bearer"
            assert http.get("/nothing").status_code == 404
            assert http.get("/predict").status_code == 405

    def test_keys_come_and_go_without_a_restart(self, place: Place) -> None:
        with running(place.stream) as url:
            assert post(f"{url}/predict", {"text": "a"}).is_success
            header = add_key(place, Role.PREDICT)
            wait_until(lambda: post(f"{url}/predict", {"text": "a"}).status_code == 401)
            assert httpx.post(f"{url}/predict", json={"text": "a"}, headers=header, timeout=30).is_success
            keys.save(place.stream.data / keys.FILE, [])
            wait_until(lambda: httpx.get(f"{url}/model", headers=header, timeout=30).status_code == 401)

    def test_keys_of_a_file_and_of_options(self, place: Place, tmp_path: Path) -> None:
        (one, first), (other, second) = (keys.new_key(name, Role.PREDICT) for name in ("one", "other"))
        keys.save(tmp_path / "file", [first])
        with running(place.stream, keys_file=tmp_path / "file", api_keys=[str(second)]) as url:
            for secret in (one, other):
                assert httpx.get(f"{url}/model", headers={"X-API-Key": secret}, timeout=30).is_success
            assert get(f"{url}/model").status_code == 401

    def test_an_operation_without_a_role_is_refused(self) -> None:
        app, router = FastAPI(), APIRouter()

        @router.get("/secret")
        async def secret() -> str:
            return "secret"

        access = Access(app)
        app.include_router(router)
        with pytest.raises(TypeError, match="GET /secret"):
            access.check()


class TestReach:
    def test_other_machines_need_a_key(self, place: Place) -> None:
        with pytest.raises(ConfigError, match=r"0\.0\.0\.0 .*`driftline keys add .* --open"):
            serve(place.stream, ApiSettings(port=0, host="0.0.0.0"))
        with pytest.raises(ConfigError, match="no API keys"):
            serve(place.stream, ApiSettings(port=0, admin_port=0, admin_host="0.0.0.0"))

    def test_unless_told_to(self, place: Place) -> None:
        with running(place.stream, host="0.0.0.0", open=True) as url:
            assert post(url.replace("0.0.0.0", "127.0.0.1") + "/predict", {"text": "a"}).is_success

    def test_or_there_is_one(self, place: Place) -> None:
        header = add_key(place, Role.PREDICT)
        with running(place.stream, host="0.0.0.0") as url:
            here = url.replace("0.0.0.0", "127.0.0.1")
            assert get(f"{here}/model").status_code == 401
            assert httpx.get(f"{here}/model", headers=header | {"Host": "api.example.org"}, timeout=30).is_success

    def test_a_port_of_its_own(self, place: Place) -> None:
        with reserved() as port, running(place.stream, admin_port=port) as url:
            admin = f"http://127.0.0.1:{port}"
            for path in ("/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css", "/metrics"):
                assert refusal(get(url + path), 404)["code"] == "not-found"
                assert get(admin + path).is_success
            for base in (url, admin):
                assert post(f"{base}/predict", {"text": "a"}).is_success
                assert get(f"{base}/healthz").is_success


class TestOrigins:
    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://", "evil"])
    @pytest.mark.parametrize("path", ["/predict", "/messages", "/model"])
    def test_pages_of_others_are_refused(self, url: str, origin: str, path: str) -> None:
        answer = httpx.post(url + path, json={"text": "a"}, headers={"Origin": origin}, timeout=30)
        assert refusal(answer, 403)["code"] == "cross-origin"
        assert "access-control-allow-origin" not in answer.headers

    def test_our_own_pages_are_not(self, url: str) -> None:
        assert httpx.post(f"{url}/predict", json={"text": "a"}, headers={"Origin": url}, timeout=30).is_success

    def test_allowed_ones(self, place: Place) -> None:
        origin = "https://app.example.org"
        with running(place.stream, cors_origin=[origin]) as url:
            for answer in (
                httpx.post(f"{url}/predict", json={"text": "a"}, headers={"Origin": origin}, timeout=30),
                httpx.post(f"{url}/predict", json={}, headers={"Origin": origin}, timeout=30),
                httpx.get(f"{url}/model", headers={"Origin": origin}, timeout=30),
            ):
                assert answer.status_code in (200, 422)
                assert answer.headers["access-control-allow-origin"] == origin
                assert answer.headers["vary"] == "origin"
            asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            preflight = httpx.options(f"{url}/predict", headers=asks, timeout=30)
            assert preflight.status_code == 204
            assert "POST" in preflight.headers["access-control-allow-methods"]
            assert "x-api-key" in preflight.headers["access-control-allow-headers"]
            refused = httpx.options(
                f"{url}/predict", headers=asks | {"Origin": "https://other.example.org"}, timeout=30
            )
            assert refused.status_code == 403

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "localhost.evil.example"])
    def test_names_that_a_site_could_give(self, url: str, host: str) -> None:
        assert refusal(httpx.get(f"{url}/model", headers={"Host": host}, timeout=30), 421)["code"] == "unknown-host"
        assert httpx.post(f"{url}/predict", json={"text": "a"}, headers={"Host": host}, timeout=30).status_code == 421

    @pytest.mark.parametrize(
        "host", ["localhost", "localhost:9", "127.0.0.1", "[::1]:8", "api", "me.localhost", "1.2.3.4"]
    )
    def test_names_that_it_could_not(self, url: str, host: str) -> None:
        assert httpx.get(f"{url}/model", headers={"Host": host}, timeout=30).is_success

    def test_a_name_that_was_allowed(self, place: Place) -> None:
        with running(place.stream, allowed_host=["api.example.org"]) as url:
            assert httpx.get(f"{url}/model", headers={"Host": "API.example.org:80"}, timeout=30).is_success


class TestRates:
    def test_a_bucket(self, clock: Clock) -> None:
        rate = Rate(10, memoryview(bytearray(TABLE_BYTES)), b"secret")
        mine, other = rate.place(b"mine"), rate.place(b"other")
        assert [rate.wait_s(mine) for _ in range(20)] == [0.0] * 20, "two seconds of it at once"
        assert rate.wait_s(mine) == rate.wait_s(mine) == pytest.approx(0.1), "what is refused costs nothing"
        assert rate.wait_s(other) == 0
        clock.now += 0.1
        assert rate.wait_s(mine) == 0
        assert rate.wait_s(mine) > 0
        clock.now += 1e6
        assert [bool(rate.wait_s(mine)) for _ in range(21)] == [False] * 20 + [True], "no more is saved up"

    def test_addresses(self) -> None:
        assert address_of("10.0.0.1") != address_of("10.0.0.2")
        assert address_of("2001:db8::1") == address_of("2001:db8::2") != address_of("2001:db8:0:1::1")
        assert address_of("") == b""

    def test_too_many_requests(self, place: Place, clock: Clock) -> None:
        with running(place.stream, rate_limit=5) as url, httpx.Client(base_url=url, timeout=30) as http:
            answers = [http.post("/predict", json={"text": "a"}) for _ in range(40)]
            limited = [answer for answer in answers if answer.status_code == 429]
            assert len(limited) == 30
            assert refusal(limited[0], 429)["code"] == "too-many-requests"
            assert int(limited[0].headers["retry-after"]) >= 1
            assert http.get("/model").status_code == 429, "every operation counts"
            assert all(http.get("/healthz").is_success for _ in range(20)), "whether it lives may always be asked"
            clock.now += 0.2
            assert [http.get("/model").is_success for _ in range(2)] == [True, False]

    @pytest.mark.usefixtures("clock")
    def test_each_key_has_its_own(self, place: Place) -> None:
        greedy, modest = add_key(place, Role.PREDICT, "greedy"), add_key(place, Role.PREDICT, "modest")
        with running(place.stream, rate_limit=1) as url, httpx.Client(base_url=url, timeout=30) as http:
            for header, before in ((greedy, 200), (modest, 200), ({"X-API-Key": "guess"}, 401)):
                found = [http.get("/model", headers=header).status_code for _ in range(3)]
                assert found == [before, before, 429]


class TestTwoWays:
    """A request in chunks goes the long way (a task, ASGI), one with a length the short one."""

    @settings(
        max_examples=100,
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


def timeless(answer: httpx.Response) -> object:
    content = answer.json()
    return {name: value for name, value in content.items() if name != "model_age_seconds"}


class TestSlowClients:
    @pytest.mark.parametrize(
        ("sent", "answer"),
        [
            (b"", b""),
            (b"\r\n", b""),
            (PREDICT, b"HTTP/1.1 200"),
            (PREDICT + b"\r\n", b"HTTP/1.1 200"),
            (b"POST /pre", b"HTTP/1.1 408"),
            (PREDICT[:-5], b"HTTP/1.1 408"),
            (PREDICT.replace(b"/predict", b"/messages")[:-5], b"HTTP/1.1 408"),
            (PREDICT.replace(b"Content-Length: 13", b"Transfer-Encoding: chunked")[:-13] + b"5\r\n{", b"HTTP/1.1 408"),
            (PREDICT + b"GET ", b"HTTP/1.1 200"),
        ],
        ids=["nothing", "a line", "idle", "idle, a line", "head", "body", "body, long way", "chunks", "second head"],
    )
    def test_are_closed_in_time(self, hasty: str, sent: bytes, answer: bytes) -> None:
        started, received = time.monotonic(), b""
        with socket.create_connection(address(hasty), timeout=30) as raw:  # without an end to wait for it fails
            raw.sendall(sent)
            while more := raw.recv(1 << 16):
                received += more
        assert time.monotonic() - started > 0.5
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


class TestAccessLog:
    def test_requests(self, place: Place, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "driftline.access")
        header = add_key(place, Role.PREDICT, "bob")
        with running(place.stream, access_log=True) as url:
            httpx.post(f"{url}/predict", json={"text": "secret text"}, headers=header, timeout=30)
            get(f"{url}/nothing%0Ahere")
        lines = [JsonLines().format(record) for record in caplog.records if record.name == "driftline.access"]
        first, second = map(json.loads, lines)
        assert (first["method"], first["path"], first["status"], first["key"]) == ("POST", "/predict", 200, "bob")
        assert (second["path"], second["status"], second["key"]) == ("/nothing\nhere", 404, None)
        assert "secret" not in "".join(lines)
        assert header["Authorization"].partition(" ")[2] not in "".join(lines)


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


def test_the_whole_description_with_keys_and_limits(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever the document allows, by whoever it is sent: nothing is answered with 500 or above."""
    place = Place(tmp_path_factory.mktemp("described"))
    place.publish()
    place.report()
    header = add_key(place, Role.ADMIN)
    statuses: set[int] = set()
    with running(place.stream, max_wait_s=0.05, max_items=5, max_text_chars=50, rate_limit=1000) as url:
        document = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [each.ok() for each in document.get_all_operations()]
        assert {operation.path for operation in operations} >= {"/predict", "/feedback", "/invocations", "/v2"}
        for operation in operations:

            @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(), known=st.booleans())
            def check(case: Any, known: bool) -> None:
                answer = case.call(headers=header if known else {}, timeout=30)
                statuses.add(answer.status_code)
                assert answer.status_code < 500, answer.text
                if answer.status_code >= 400:
                    assert set(answer.json()) >= {"error", "code", "action"}

            check()
    assert statuses >= {200, 202, 401, 422}


def test_the_kept_form_of_a_key_is_a_line() -> None:
    key = Key(bytes(range(32)), Role.ADMIN, "me@home")
    assert keys.parse([str(key)], "here") == [key]
