"""Does docker-compose.cluster.yml hang together, and does its load balancer lose no request?"""

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.data import ROOT
from tests.place import Place, running
from tests.ports import reserved
from tests.waiting import wait_until

COMPOSE = ROOT / "docker-compose.cluster.yml"
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
BALANCER = ROOT / "deploy" / "cluster" / "haproxy.cfg"
KAFKAS, LEARNERS, APIS = ["kafka-1", "kafka-2", "kafka-3"], ["learner-1", "learner-2"], ["api-1", "api-2"]


def test_there_is_all_that_a_cluster_has() -> None:
    assert sorted(SERVICES) == sorted([*KAFKAS, *LEARNERS, *APIS, "store", "balancer"])


def test_compose_takes_it() -> None:
    """Whichever of the two reads it."""
    docker, old = shutil.which("docker"), shutil.which("docker-compose")
    commands = [[old]] if old else []
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        commands.append([docker, "compose"])
    if not commands:
        pytest.skip("neither docker compose nor docker-compose is installed")
    for command in commands:
        done = subprocess.run(
            [*command, "-f", COMPOSE, "config"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert yaml.safe_load(done.stdout)["services"].keys() == SERVICES.keys()


def test_each_record_outlives_a_broker() -> None:
    for number, name in enumerate(KAFKAS, 1):
        settings = SERVICES[name]["environment"]
        assert settings["KAFKA_NODE_ID"] == number
        assert settings["KAFKA_ADVERTISED_LISTENERS"] == f"INTERNAL://{name}:9092"
        assert re.findall(r"@([\w-]+):", settings["KAFKA_CONTROLLER_QUORUM_VOTERS"]) == KAFKAS
        for replicas in ("DEFAULT", "OFFSETS_TOPIC", "TRANSACTION_STATE_LOG"):
            assert settings[f"KAFKA_{replicas}_REPLICATION_FACTOR"] == 3
        assert settings["KAFKA_MIN_INSYNC_REPLICAS"] == settings["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == 2


def test_learners_and_replicas_are_told_the_same() -> None:
    assert len({tuple(SERVICES[name]["command"]) for name in LEARNERS}) == 1
    assert len({tuple(SERVICES[name]["command"]) for name in APIS}) == 1
    options = [SERVICES[name]["environment"] for name in (*LEARNERS, *APIS)]
    for each in options:
        assert each["DRIFTLINE_LOG"] == "kafka://" + ",".join(f"{name}:9092" for name in KAFKAS)
        assert each["DRIFTLINE_REPLICATION"] == 3
        assert each.items() >= options[0].items()
    key, secret = options[0]["AWS_ACCESS_KEY_ID"], options[0]["AWS_SECRET_ACCESS_KEY"]
    assert SERVICES["store"]["environment"] == {"ROOT_ACCESS_KEY": key, "ROOT_SECRET_KEY": secret}
    bucket = options[0]["DRIFTLINE_CHECKPOINTS"].split("/")[2]
    assert f"mkdir -p /data/{bucket} " in SERVICES["store"]["entrypoint"][-1]
    disks = [SERVICES[name].get("volumes", []) for name in (*LEARNERS, *APIS)]
    assert disks == [[f"{name}:/data"] for name in (*LEARNERS, *APIS)], "none shares a disk, and none is without a name"


def test_only_this_machine_reaches_it_and_nothing_is_without_a_limit() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8000:8000"]
    for name, service in SERVICES.items():
        assert service["mem_limit"], name
        assert service["pids_limit"]
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
        if name not in KAFKAS:
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
        if "build" not in service:
            assert re.fullmatch(r"\$\{\w+_IMAGE:-[a-z/]+:v?\d[\w.-]*(@sha256:[0-9a-f]{64})?\}", service["image"])
    kafka = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["kafka"]["image"]
    assert {SERVICES[name]["image"] for name in KAFKAS} == {kafka}


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.cluster.yml"])
def test_no_check_of_health_starts_a_java(name: str) -> None:
    """Several of them, each ten seconds, took all of a busy machine from the brokers that they asked."""
    services = yaml.safe_load((ROOT / name).read_text())["services"]
    checks = {
        name: " ".join(service["healthcheck"]["test"]) for name, service in services.items() if "healthcheck" in service
    }
    assert any(name.startswith("kafka") for name in checks)
    for check in checks.values():
        assert "/opt/kafka" not in check
        assert "java" not in check


def test_the_balancer_knows_each_replica() -> None:
    text = BALANCER.read_text()
    servers = re.findall(r"^    server (\S+) (\S+):8000$", text, re.M)
    assert servers == [(name, name) for name in APIS] * 2, "those that are ready, and those that live"
    (mounted,) = [each.split(":")[0] for each in SERVICES["balancer"]["volumes"]]
    assert (ROOT / mounted).resolve() == BALANCER


@contextmanager
def balanced(directory: Path, servers: list[str]) -> Iterator[str]:
    """Run the load balancer with its own configuration, but for the addresses; give its URL."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        pytest.skip("haproxy is not installed")
    with reserved() as port, reserved() as health:
        text = BALANCER.read_text().replace("    default-server resolvers docker init-addr last,libc,none\n", "")
        text = re.sub(r"^resolvers docker\n(    .*\n)+", "", text, flags=re.M)
        text = text.replace("bind :8000", f"bind 127.0.0.1:{port}").replace("bind :8404", f"bind 127.0.0.1:{health}")
        lines = [f"    server s{number} {url.removeprefix('http://')}" for number, url in enumerate(servers)]
        text = re.sub(r"(^    server .*\n)+", "\n".join(lines) + "\n", text, flags=re.M)
        (directory / "haproxy.cfg").write_text(text)
        with subprocess.Popen([program, "-f", directory / "haproxy.cfg"], stdout=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: answers(f"http://127.0.0.1:{health}/healthz"))
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def test_no_request_is_lost_when_a_replica_goes(tmp_path: Path) -> None:
    """Neither a prediction nor a label; and one that takes no labels is not asked."""
    places = [Place(tmp_path / name) for name in ("one", "two")]
    for place in places:
        place.publish()
    with ExitStack() as stack, reserved() as nobody:
        away = Place(tmp_path / "away", log=f"kafka://127.0.0.1:{nobody}")
        stays = stack.enter_context(running(places[0].stream))
        unready = stack.enter_context(running(away.stream))
        assert httpx.get(f"{unready}/readyz", timeout=30).status_code == 503
        going = stack.enter_context(ExitStack())
        goes = going.enter_context(running(places[1].stream))
        url = stack.enter_context(balanced(tmp_path, [stays, unready, goes]))
        wait_until(lambda: answers(f"{url}/readyz"))
        codes: list[int] = []
        gone, enough = threading.Event(), threading.Event()

        def ask() -> None:
            with httpx.Client(timeout=60) as client:
                number = after = 0
                while after < 50:
                    number, after = number + 1, after + gone.is_set()
                    label = {"message_id": f"m{number}", "label": "spam", "text": "win a prize"}
                    codes.append(client.post(f"{url}/feedback", json=label).status_code)
                    codes.append(client.post(f"{url}/predict", json={"text": "win a prize"}).status_code)
                    if number == 50:
                        enough.set()

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            assert enough.wait(120)
            going.close()
        finally:
            gone.set()
            thread.join(240)
        assert not thread.is_alive()
        assert set(codes) == {200, 202}
        assert len(codes) >= 200


def steadily(method: str, url: str, body: dict[str, str] | None = None) -> httpx.Response:
    """Ask, and again where the connection ends: as the balancer finds that the last one is not ready it ends some."""
    found: list[httpx.Response] = []

    def answered() -> bool:
        with suppress(httpx.TransportError):
            found.append(httpx.request(method, url, json=body, timeout=60))
        return bool(found)

    wait_until(answered)
    return found[0]


def test_where_no_replica_takes_labels_they_still_predict_and_say_so(tmp_path: Path) -> None:
    """A broker that has gone leaves all of them without a log for a moment."""
    with ExitStack() as stack, reserved() as nobody:
        urls = []
        for name in ("one", "two"):
            place = Place(tmp_path / name, log=f"kafka://127.0.0.1:{nobody}")
            place.publish()
            urls.append(stack.enter_context(running(place.stream)))
        url = stack.enter_context(balanced(tmp_path, urls))
        wait_until(lambda: steadily("GET", f"{url}/healthz").status_code == 200)
        assert [steadily("GET", f"{each}/readyz").status_code for each in (*urls, url)] == [503] * 3
        for _ in range(4):
            assert steadily("POST", f"{url}/predict", {"text": "win a prize"}).status_code == 200
        refused = steadily("POST", f"{url}/feedback", {"message_id": "m", "label": "spam", "text": "x"})
        assert (refused.status_code, refused.json()["code"]) == (503, "log-unavailable")
