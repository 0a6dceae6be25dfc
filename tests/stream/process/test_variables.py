"""Which variables of the environment count: not those that Kubernetes and Docker make, nor empty or misspelt ones."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driftline.api.settings import ApiSettings
from driftline.learner.disk.settings import LearnerSettings
from driftline.stream.errors import ConfigError
from driftline.stream.process import variables
from driftline.stream.process.flags import BadOptions, build_settings, check_config_file, check_variables
from driftline.stream.process.settings import Settings, StreamSettings
from tests.data import ROOT
from tests.place import Place, running

CLASSES: list[type[Settings]] = [StreamSettings, LearnerSettings, ApiSettings]
# What Kubernetes gives every container of a namespace with a Service, and Docker every container with a link.
SERVICE = {
    "_SERVICE_HOST": "10.43.7.62",
    "_SERVICE_PORT": "8000",
    "_SERVICE_PORT_HTTP": "8000",
    "_SERVICE_PORT_8000_UDP": "8000",
    "_PORT": "tcp://10.43.7.62:8000",
    **{
        f"_PORT_8000_{protocol}{part}": value
        for protocol in ("TCP", "UDP", "SCTP")
        for part, value in {
            "": f"{protocol.lower()}://10.43.7.62:8000",
            "_PROTO": protocol.lower(),
            "_PORT": "8000",
            "_ADDR": "10.43.7.62",
            "_PORT_START": "8000",
        }.items()
    },
    "_NAME": "/web/driftline",
    "_ENV_PATH": "/usr/bin",
    "_ENV_DRIFTLINE_DATA": "/data",
}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go where no driftline.toml is, without variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith(variables.PREFIX)]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "service",
    ["DRIFTLINE", *(f"DRIFTLINE_{name}" for name in ("API", "HEALTH", "ADMIN", "MODEL", "LOG", "SERVICE", "A_1"))],
)
@pytest.mark.parametrize("lower", [False, True])
def test_variables_of_a_service_or_a_link_are_none_of_ours(
    service: str, lower: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SERVICE.items():
        monkeypatch.setenv((service + name).lower() if lower else service + name, value)
    for protocol in ("udp", "sctp"):
        monkeypatch.setenv(f"{service}_PORT", f"{protocol}://[fd00::1]:53")
        assert variables.options() == {}
        assert check_variables() == []
        assert all(build_settings(cls, {}) == cls() for cls in CLASSES)
        assert build_settings(ApiSettings, {}).port == 8000


def test_what_is_meant_for_us_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_PORT", "9000")
    monkeypatch.setenv("DRIFTLINE_MODEL_NAME", "spam")
    monkeypatch.setenv("driftline_health_port", "9001")
    assert build_settings(ApiSettings, {}).port == 9000
    assert build_settings(ApiSettings, {}).model_name == "spam"
    assert build_settings(LearnerSettings, {}).health_port == 9001


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_variable_is_none(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every option: `${X:-}` in a compose file or a script means that nobody said anything."""
    Path("driftline.toml").write_text('prefix = "p"\n')
    for cls in CLASSES:
        for name in cls.model_fields:
            monkeypatch.setenv(f"DRIFTLINE_{name.upper()}", empty)
    monkeypatch.setenv("DRIFTLINE_NOTHING_OF_OURS", empty)
    assert check_variables() == []
    assert build_settings(StreamSettings, {}).model_dump() == StreamSettings.model_construct(prefix="p").model_dump()
    for cls in CLASSES[1:]:
        assert build_settings(cls, {}).model_dump() == cls.model_construct().model_dump()


LISTS = [(cls, name) for cls in CLASSES for name, field in cls.model_fields.items() if "list" in str(field.annotation)]


@pytest.mark.parametrize(("cls", "name"), LISTS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("10.0.0.1", ["10.0.0.1"]),
        ("10.0.0.1,10.0.0.2", ["10.0.0.1", "10.0.0.2"]),
        (" 10.0.0.1 ,\n10.0.0.2, ", ["10.0.0.1", "10.0.0.2"]),
        ('["10.0.0.1", "10.0.0.2"]', ["10.0.0.1", "10.0.0.2"]),
        (",", []),
    ],
)
def test_a_list_is_written_with_commas_or_as_json(
    cls: type[Settings], name: str, text: str, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DRIFTLINE_{name.upper()}", text)
    assert getattr(build_settings(cls, {}), name) == parts


def test_a_list_that_is_none_says_how_one_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(LISTS) >= 3
    for bad in ('["a"', "[1]", "[" * 100_000):
        monkeypatch.setenv("DRIFTLINE_ALLOWED_HOST", bad)
        with pytest.raises(BadOptions, match='not a list of texts: write a,b or \\["a","b"\\]'):
            build_settings(ApiSettings, {})


@pytest.mark.parametrize(
    ("name", "meant"),
    [("PARTITION", "PARTITIONS"), ("WINDOW_HOUR", "WINDOW_HOURS"), ("ALLOWED_HOSTS", "ALLOWED_HOST"), ("KEYS", "KEY")],
)
def test_a_misspelt_variable_is_refused_with_what_is_meant(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DRIFTLINE_{name}", "1")
    with pytest.raises(ConfigError, match=f"DRIFTLINE_{name}: no option reads this; is DRIFTLINE_{meant} meant"):
        check_variables()


def test_a_misspelt_entry_of_the_file_is_refused_with_what_is_meant() -> None:
    Path("driftline.toml").write_text("window_hour = 1\n")
    with pytest.raises(ConfigError, match=r"unknown entry window_hour \(is window_hours meant\?\); known are: "):
        check_config_file()


@pytest.mark.parametrize("name", ["IMAGE", "VERSION", "ENVIRONMENT", "POD_UID"])
def test_a_variable_near_nothing_of_ours_is_told_of_and_keeps_nothing_from_starting(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DRIFTLINE_{name}", "1")
    (remark,) = check_variables()
    assert remark.startswith(f"DRIFTLINE_{name}: no option reads this variable")


def test_variables_of_this_repository_are_no_misspelt_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEY", "METRICS_KEY_FILE", "TEST_DATA", "TEST_KAFKA", "TORTURE", "TORTURE_SCALE", "SOAK_S", "TALLY"):
        monkeypatch.setenv(f"DRIFTLINE_{name}", "1")
    assert check_variables() == []


def driftline(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "driftline", *arguments]
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True, check=False
    )


def test_the_commands_tell() -> None:
    done = driftline("keys", "list", DRIFTLINE_PORT="tcp://10.43.7.62:8000", DRIFTLINE_IMAGE="a")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == ("driftline: DRIFTLINE_IMAGE: no option reads this variable; `--help` names those that are\n")
    done = driftline("keys", "list", "--log-format", "json", DRIFTLINE_IMAGE="a")
    assert '"level": "warning"' in done.stderr
    done = driftline("keys", "list", DRIFTLINE_DTAA="a")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is DRIFTLINE_DATA meant?" in done.stderr


def health(*processes: int) -> subprocess.CompletedProcess[str]:
    """Ask about these processes, and those that they started, as in a container it does about all of Driftline's."""
    program = [shutil.which("python3") or sys.executable, "-I", "-S", str(ROOT / "deploy" / "health")]
    return subprocess.run(
        [*program, *map(str, processes)], capture_output=True, text=True, check=False, timeout=60, env={}
    )


LISTENS = """
import socket, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

def serve(host, status):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()
    class Server(HTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = Server((host, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port

print(*(serve(host, int(status)) for host, status in zip(sys.argv[1::2], sys.argv[2::2])), flush=True)
sys.stdin.read()
"""


@contextmanager
def listening(*arguments: str) -> Iterator[tuple[int, list[str]]]:
    """Run a process that started one that listens on some hosts, and answers each with a status; give its ports."""
    above = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    command = [sys.executable, "-c", above, LISTENS, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.pid, process.stdout.readline().split()


@pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux")
def test_the_container_s_health_check_finds_out_where_anything_listens(place: Place) -> None:
    """Whoever named the port, and whatever host: it asks the kernel."""
    with running(place.stream) as url:
        port = url.rpartition(":")[2]
        asked = health(os.getpid())
        assert f"{port}: well" in asked.stdout
    hosts = ["0.0.0.0", "127.0.0.2", *(["::", "::1"] if socket.has_ipv6 else [])]
    for host in hosts:
        with listening(host, "200", "127.0.0.1", "200") as (process, (first, second)):
            asked = health(process)
            assert (asked.returncode, asked.stderr) == (0, "")
            assert set(re.findall(r"\d+: [a-z ]*[a-z]", asked.stdout)) == {f"{first}: well", f"{second}: well"}
    with listening("127.0.0.1", "200", "127.0.0.1", "503") as (process, (first, second)):
        asked = health(process)
        assert asked.returncode == 1
        assert f"{first}: well" in asked.stdout
        assert f"{second}: not well" in asked.stdout
    with listening() as (process, _):
        asked = health(process)
        assert (asked.returncode, asked.stdout) == (1, "nothing listens\n")


@pytest.mark.parametrize("none", [None, "", "tcp://10.43.7.62:8001"])
def test_the_container_s_entrypoint_fills_in_what_is_empty(none: str | None, tmp_path: Path) -> None:
    command = tmp_path / "driftline"
    command.write_text("#!/bin/sh\nenv; echo command: $@\n")
    command.chmod(0o755)
    given = {} if none is None else dict.fromkeys(("DATA", "LOG_FORMAT"), "") | {"HEALTH_PORT": none}
    environment = {f"DRIFTLINE_{name}": value for name, value in given.items()}
    environment |= {"NUMBA_CACHE_DIR": str(tmp_path), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command_line = ["sh", str(ROOT / "deploy" / "entrypoint"), "up", "--open"]
    lines = subprocess.run(
        command_line, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {"DRIFTLINE_DATA=/data", "DRIFTLINE_LOG_FORMAT=json", "DRIFTLINE_HEALTH_PORT=8001"} <= set(lines)
    assert lines[-1] == "command: up --open"
