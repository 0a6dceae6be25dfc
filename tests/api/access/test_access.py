"""Who comes in, how often, and from which page? Over a real server."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import APIRouter, FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.api.access import keys
from driftline.api.access.keys import Key, Keys, Role
from driftline.api.access.rate import TABLE_BYTES, Rate, address_of
from driftline.api.access.security import Access
from driftline.api.run.server import serve
from driftline.api.settings import ApiSettings
from driftline.stream.errors import ConfigError, StateError
from driftline.stream.process.log_lines import JsonLines
from tests.clock import Clock
from tests.data import ROOT
from tests.often import times
from tests.place import Place, add_key, get, post, refusal, running
from tests.ports import reserved
from tests.waiting import wait_until


@pytest.fixture
def place(place: Place) -> Place:
    """Give one that has a model."""
    place.publish()
    return place


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

    def test_none_is_lost_where_several_change_them(self, tmp_path: Path) -> None:
        """Several processes add keys, and take back some, as fast as they can."""
        path = tmp_path / "keys"
        program = """if True:
            import sys
            from pathlib import Path
            from driftline.api.access import keys
            path, name = Path(sys.argv[1]), sys.argv[2]
            for number in range(40):
                with keys.changing(path) as known:
                    known.append(keys.new_key(f"{name}-{number}", keys.Role.LABEL)[1])
                if number % 4 == 3:
                    with keys.changing(path) as known:
                        known[:] = [key for key in known if key.name != f"{name}-{number}"]
        """
        command = [sys.executable, "-c", program, str(path)]
        processes = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("a", "b", "c")]
        assert [process.wait(240) for process in processes] == [0, 0, 0]
        expected = {f"{name}-{number}" for name in "abc" for number in range(40) if number % 4 != 3}
        assert {key.name for key in keys.read(path)} == expected
        assert len(keys.read(path)) == len(expected)

    def test_one_that_stands_still_with_them_is_waited_for_a_while(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("driftline.api.access.keys.LOCK_S", 0.05)
        with (
            keys.changing(tmp_path / "keys") as known,
            pytest.raises(StateError, match=r"keys\.lock has been held"),
            keys.changing(tmp_path / "keys"),
        ):
            pass
        assert known == []

    def test_who_may_read_them_stays(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        keys.save(path, [])
        path.chmod(0o640)
        with keys.changing(path) as known:
            known.append(keys.new_key("bob", Role.LABEL)[1])
        assert path.stat().st_mode & 0o777 == 0o640

    def test_what_is_refused_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text("nonsense")
        with pytest.raises(ConfigError, match="line 1"), keys.changing(path):
            pass
        assert path.read_text() == "nonsense"

    @pytest.mark.parametrize("name", ["", "a b", "a\n", "a" * 65, "ä"])
    def test_names_that_are_none(self, name: str) -> None:
        with pytest.raises(ConfigError, match="name"):
            keys.new_key(name, Role.ADMIN)

    def test_a_file_that_is_damaged_or_gone_opens_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("driftline.api.access.keys.LOOK_S", -1.0)
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
                assert f'data-port="{port}"' in get(base).text  # where the page finds the reference


class TestOrigins:
    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://", "evil"])
    @pytest.mark.parametrize("path", ["/predict", "/messages", "/model"])
    def test_pages_of_others_are_refused(self, url: str, origin: str, path: str) -> None:
        answer = httpx.post(url + path, json={"text": "a"}, headers={"Origin": origin}, timeout=30)
        assert refusal(answer, 403)["code"] == "cross-origin"
        assert "access-control-allow-origin" not in answer.headers

    def test_a_name_that_begins_or_ends_as_ours_is_another(self, place: Place) -> None:
        """An origin is ours, or allowed, whole: as its scheme, host and port stand there."""
        allowed = "https://app.example.org"
        with running(place.stream, cors_origin=[allowed]) as url:
            others = [
                f"{url}0",
                url[:-1],
                f"{url}.evil.example",
                f"{url}/",
                url.rpartition(":")[0],
                f"{url}@evil.example",
            ]
            others += [url.replace("//", "//evil.example."), f"{url}, {url}", url.removeprefix("http:"), "http://"]
            others += [f"{allowed}.evil.example", f"{allowed}:8000", allowed[:-1], allowed.replace("https", "http")]
            others += [allowed.replace("app.", "evilapp."), f"{allowed} {allowed}"]
            for origin in others:
                answer = httpx.post(f"{url}/predict", json={"text": "a"}, headers={"Origin": origin}, timeout=30)
                assert refusal(answer, 403)["code"] == "cross-origin", origin
                assert "access-control-allow-origin" not in answer.headers
            for origin in (url, allowed, allowed.upper()):
                answer = httpx.post(f"{url}/predict", json={"text": "a"}, headers={"Origin": origin}, timeout=30)
                assert answer.is_success, origin

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


@pytest.mark.long
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

            @settings(max_examples=times(20, 8), deadline=None, suppress_health_check=list(HealthCheck))
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
