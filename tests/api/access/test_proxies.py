"""Who asks behind proxies, and at which path: rates and log lines are the client's, and nobody can choose another's."""

import logging
import random
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.api.access.rate import address_of
from driftline.api.proxies import Proxies, networks
from driftline.api.settings import ApiSettings
from driftline.learner.report.health import Health
from driftline.stream.process.flags import BadOptions, build_settings
from tests.place import Place, address, get, running
from tests.waiting import wait_until

LOCAL = "10.0.0.0/8"


def client(peer: str, *headers: str, trusted: tuple[str, ...] = (LOCAL,)) -> str:
    sent = [(b"x-forwarded-for", header.encode("latin-1")) for header in headers]
    return Proxies(networks(trusted)).client(peer, [(b"host", b"a"), (b"forwarded", b"for=198.51.100.99"), *sent])


@pytest.mark.parametrize(
    ("peer", "headers", "found"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.1",), "192.0.2.1"),  # from whom nobody trusts
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("1.1.1.1, 198.51.100.1",), "198.51.100.1"),  # the first is made up
        ("10.0.0.1", ("1.1.1.1", "198.51.100.1"), "198.51.100.1"),
        ("10.0.0.1", ("198.51.100.1, 10.0.0.2",), "198.51.100.1"),
        ("10.0.0.1", ("198.51.100.1", "10.0.0.2,10.0.0.3"), "198.51.100.1"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),  # all are trusted: the one furthest away
        ("10.0.0.1", ("1.1.1.1, unknown, 10.0.0.2",), "10.0.0.2"),  # who is behind it cannot be known
        ("10.0.0.1", ("1.1.1.1, _hidden",), "10.0.0.1"),
        ("10.0.0.1", ("1.1.1.1,,",), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.1:4711",), "198.51.100.1"),
        ("10.0.0.1", ("[2001:DB8::7]:4711",), "2001:db8::7"),
        ("10.0.0.1", ("2001:db8:0::7",), "2001:db8::7"),
        ("10.0.0.1", ('"[2001:db8::7]"',), "2001:db8::7"),
        ("10.0.0.1", ("::ffff:198.51.100.1",), "198.51.100.1"),
        ("::ffff:10.0.0.1", ("198.51.100.1",), "198.51.100.1"),  # by IPv4, over a socket of both kinds
        ("::ffff:192.0.2.1", (), "192.0.2.1"),
        ("fe80::1%eth0", ("198.51.100.1",), "fe80::1"),
        ("10.0.0.1", ("\xff\xfe",), "10.0.0.1"),
        ("", ("198.51.100.1",), ""),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_trusted_proxy(
    peer: str, headers: tuple[str, ...], found: str
) -> None:
    assert client(peer, *headers) == found


def test_networks_are_of_both_kinds() -> None:
    assert client("fd00::1", "198.51.100.1", trusted=("fd00::/8",)) == "198.51.100.1"
    assert client("192.0.2.1", "198.51.100.1", trusted=("*",)) == "198.51.100.1"
    assert client("2001:db8::1", "198.51.100.1", trusted=("*",)) == "198.51.100.1"
    assert client("10.0.0.1", "198.51.100.1", trusted=("::ffff:10.0.0.0/104",)) == "198.51.100.1"
    assert client("10.0.0.1", "198.51.100.1", trusted=("10.0.0.1",)) == "198.51.100.1"
    assert client("10.0.0.2", "198.51.100.1", trusted=("10.0.0.1",)) == "10.0.0.2"
    assert client("10.0.0.1", "198.51.100.1", trusted=()) == "10.0.0.1"


@pytest.mark.parametrize("form", ["10.0.0.1,fd00::/8,[2001:db8::7]", '["10.0.0.1", "fd00::/8", "2001:db8::7"]'])
def test_several_are_named_in_a_variable(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_TRUSTED_PROXIES", form)
    trusted = tuple(build_settings(ApiSettings, {}).trusted_proxies)
    for peer in ("10.0.0.1", "fd00::5", "2001:db8::7"):
        assert client(peer, "198.51.100.1", trusted=trusted) == "198.51.100.1"
    assert client("2001:db8::8", "198.51.100.1", trusted=trusted) == "2001:db8::8"


def test_a_long_header_takes_no_long_time() -> None:
    assert client("10.0.0.1", "1.1.1.1," + "10.0.0.2," * 10_000 + "10.0.0.3") == "10.0.0.2"


@given(st.lists(st.text(alphabet='0123456789abcdef.:[]%, "', max_size=30), max_size=5))
def test_no_header_breaks_it(headers: list[str]) -> None:
    assert client("10.0.0.1", *headers)
    assert client("192.0.2.1", *headers) == "192.0.2.1"


@pytest.mark.parametrize("bad", ["proxy.example", "10.0.0.0/33", "10.0.0", "-1"])
def test_what_is_no_network_is_refused(bad: str) -> None:
    with pytest.raises(BadOptions, match="is no address and no network"):
        build_settings(ApiSettings, {"trusted_proxies": ["10.0.0.1", bad]})


def forwarded(whom: str) -> dict[str, str]:
    return {"X-Forwarded-For": whom}


def test_rates_are_each_client_s(place: Place) -> None:
    place.publish()
    with running(place.stream, rate_limit=0.001, trusted_proxies=["127.0.0.1"]) as url:

        def ask(whom: str) -> int:
            return httpx.post(f"{url}/predict", json={"text": "a"}, headers=forwarded(whom), timeout=30).status_code

        one, other = (f"198.51.100.{n}" for n in random.sample(range(1, 250), 2))
        assert [ask(one), ask(one)] == [200, 429]
        assert [ask(f"1.1.1.1, {one}"), ask(f"{one}:4711")] == [429, 429], "whatever it makes up in front"
        assert ask(other) == 200
    with running(place.stream, rate_limit=0.001) as url:
        assert [ask(one), ask(other)] == [200, 429], "a header of a proxy that nobody named is nothing"


def test_the_access_log_has_the_client(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.publish()
    caplog.set_level(logging.INFO, "driftline.access")
    with running(place.stream, access_log=True, trusted_proxies=["127.0.0.0/8"]) as url:
        for _ in range(2):  # the head is new, then known
            httpx.post(f"{url}/predict", json={"text": "a"}, headers=forwarded("198.51.100.7"), timeout=30)
        wait_until(lambda: len(caplog.records) == 2)
    assert {record.fields["client"] for record in caplog.records} == {"198.51.100.7"}  # type: ignore[attr-defined]


def test_clients_of_ipv4_are_told_apart_on_a_socket_of_both_kinds() -> None:
    found = [Proxies([]).client(f"::ffff:192.0.2.{n}", []) for n in range(3)]
    assert found == [f"192.0.2.{n}" for n in range(3)]
    assert len(set(map(address_of, found))) == 3


@pytest.fixture
def both_kinds() -> None:
    """Skip where this machine has no IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


@pytest.mark.usefixtures("both_kinds")
@pytest.mark.parametrize("host", ["::", "[::]"])
def test_every_address_is_of_both_kinds(place: Place, host: str, caplog: pytest.LogCaptureFixture) -> None:
    place.publish()
    caplog.set_level(logging.INFO, "driftline.access")
    with running(place.stream, host=host, open=True, access_log=True) as url:
        port = address(url)[1]
        for asked in ("127.0.0.1", "[::1]", "localhost"):
            assert httpx.get(f"http://{asked}:{port}/healthz", timeout=30).status_code == 200
        wait_until(lambda: len(caplog.records) == 3)
    clients = {record.fields["client"] for record in caplog.records}  # type: ignore[attr-defined]
    assert clients == {"127.0.0.1", "::1"}


@pytest.mark.usefixtures("both_kinds")
def test_the_learner_s_health_is_of_both_kinds() -> None:
    health = Health("::", 0, lambda: None)
    try:
        for asked in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{asked}:{health.port}/healthz", timeout=30).json()["state"] == "starting"
    finally:
        health.close()


class TestRootPath:
    """Where a proxy has the API at a path: it takes that path away, or leaves it."""

    @pytest.fixture(scope="class")
    @classmethod
    def rooted(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        place = Place(tmp_path_factory.mktemp("root"))
        place.publish()
        with running(place.stream, root_path="/ml/driftline/", keep_alive_s=5) as url:
            yield url

    @pytest.mark.parametrize("prefix", ["", "/ml/driftline"])
    def test_requests_with_it_and_without(self, rooted: str, prefix: str) -> None:
        with httpx.Client(base_url=rooted + prefix, timeout=30) as http:
            for _ in range(3):  # the first head is new, the others are known
                assert http.post("/predict", json={"text": "prize"}).status_code == 200
            assert http.post("/predict", content=iter([b'{"text": "prize"}'])).status_code == 200
            assert http.get("/v2/models/driftline/versions/lineage-4/ready").status_code == 200
            assert http.get("/").headers["content-type"].startswith("text/html")
            assert 'route="/predict"' in http.get("/metrics").text

    @pytest.mark.parametrize("prefix", ["", "/ml/driftline"])
    def test_the_reference_is_found_there(self, rooted: str, prefix: str) -> None:
        assert "url: 'openapi.json'" in get(f"{rooted}{prefix}/docs").text  # so beside it, wherever that is
        document = get(f"{rooted}{prefix}/openapi.json").json()
        assert document["servers"][0] == {"url": "/ml/driftline"}  # where clients of the description look first

    def test_its_own_name_leads_into_it(self, rooted: str) -> None:
        """Else what the page asks for by relative addresses would be looked for beside it."""
        answer = get(f"{rooted}/ml/driftline")
        assert (answer.status_code, answer.headers["location"]) == (308, "/ml/driftline/")
        assert get(f"{rooted}/ml/driftlines").status_code == 404

    @pytest.mark.parametrize("bad", ["driftline", "/a b", "//a", "/a//b", "http://a/b", "/" + "a" * 300])
    def test_what_is_no_path_is_refused(self, bad: str) -> None:
        with pytest.raises(BadOptions, match="--root-path"):
            build_settings(ApiSettings, {"root_path": bad})


class TestKeepAlive:
    def test_an_idle_connection_outlives_a_load_balancer_s_patience(self) -> None:
        assert ApiSettings().keep_alive_s > 60 + 10

    def test_it_is_closed_in_the_end(self, place: Place) -> None:
        """After keep_alive_s, not before; one that never asked for anything after receive_timeout_s."""
        place.publish()
        with running(place.stream, keep_alive_s=3.0, receive_timeout_s=1.0) as url:
            began = time.monotonic()
            with (
                socket.create_connection(address(url), timeout=60) as asked,
                socket.create_connection(address(url), timeout=60) as silent,
            ):
                for known in (False, True):
                    asked.sendall(b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{"text": "a"}')
                    assert asked.recv(1 << 16).startswith(b"HTTP/1.1 200"), known
                assert silent.recv(1) == b""
                closed_silent = time.monotonic() - began
                assert asked.recv(1) == b""
                assert time.monotonic() - began > 3.0
                assert closed_silent > 1.0
