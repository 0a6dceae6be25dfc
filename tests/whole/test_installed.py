"""What does a stranger have who installs it: the client alone, all of it, and beside packages of these names?"""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import driftline
from tests.packages import CLIENT, ROOT, Environment, build, needed
from tests.place import Place, running
from tests.waiting import wait_until

MOST_BYTES = (
    5_300_000  # of the client beside Python itself, compiled: a tenth more than there are, 0.15 MB of them ours
)
NAMES = ("api", "cli", "stream", "learner", "tests", "bench", "docs")
OF_SERVER = {"Classifier", "RiverClassifier", "make_classifier"}
MORE = "needs more than the client; get it with: pip install driftline"
MISSING = re.compile(
    r"driftline: the command needs libraries that are not installed \([\w-]+, [\w-]+, [\w-]+ and \d+ more\); "
    r"get them with: pip install driftline"
)
USER = '''
"""A program of a user's own."""

import driftline
from driftline import AsyncClient, Classifier, Client, ConfigError, DriftlineError, Label, Message, NotInstalled
from driftline import Prediction, Refused, RiverClassifier, Sent, make_classifier


def ask(client: Client) -> str:
    sent: list[Sent] = client.send_many(["a", Message("b", metadata={"from": "me"})])
    told: Sent = client.label_many([Label(sent[0].id, "spam", weight=2.0)])[0]
    found: Prediction = client.predict("a", after=told)
    reveal_type(found.scores)
    return found.label


async def ask_soon() -> float:
    async with AsyncClient("http://127.0.0.1:8000", key="dlk_a") as client:
        return (await client.predict("a")).score


def learn() -> str:
    model: Classifier = make_classifier("linear?bits=12")
    model.learn_one("a", "spam")
    reveal_type(model.predict_one("a"))
    RiverClassifier("linear?bits=12").learn_one("a", "spam")
    return str(model.predict_one("a"))


def why(error: DriftlineError) -> tuple[int, str]:
    reveal_type(driftline.__version__)
    if isinstance(error, Refused):
        return error.status, error.code + error.action
    return (2 if isinstance(error, ConfigError) else 1), str(isinstance(error, NotInstalled))
'''


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the wheels, by the names of what they hold."""
    path = tmp_path_factory.mktemp("wheels")
    for project in (CLIENT, ROOT):
        build(project, path, "wheel")
    return {each.name.split("-")[0].replace("_", "-"): each for each in path.glob("*.whl")}


@pytest.fixture(scope="module")
def light(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Give an environment after `pip install driftline-client`."""
    environment = Environment(tmp_path_factory.mktemp("light") / "environment")
    environment.link(needed("driftline-client") - {"driftline-client"})
    environment.install(wheels["driftline-client"])
    return environment


@pytest.fixture(scope="module")
def some(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Give an environment with both, and some of the libraries, as a web application has it: typer, pydantic."""
    environment = Environment(tmp_path_factory.mktemp("some") / "environment")
    environment.link(needed("httpx", "msgspec", "typer", "rich", "pydantic-settings"))
    environment.install(*wheels.values(), compiled=False)
    return environment


class TestTheClientAlone:
    def test_it_is_small(self, light: Environment) -> None:
        assert needed("driftline-client") - needed("httpx", "msgspec") == {"driftline-client"}
        there = [path for top in light.site_packages.iterdir() for path in (top, *top.resolve().rglob("*"))]
        assert any(path.suffix == ".pyc" for path in there)
        sizes = {path: path.stat().st_size for path in there if path.is_file() and "-pytest-" not in path.name}
        assert sum(sizes.values()) < MOST_BYTES

    def test_it_asks_and_tells(self, light: Environment, tmp_path: Path) -> None:
        """All that is for it can be imported, and loads what it brings and nothing else."""
        place = Place(tmp_path)
        place.publish()
        names = sorted(set(driftline.__all__) - OF_SERVER)
        (tmp_path / "program.py").write_text(
            "import asyncio, sys\n"
            f"from driftline import {', '.join(names)}\n"
            "from driftline import *\n"
            "import driftline\n"
            "with Client(sys.argv[1]) as client:\n"
            "    print(client.send('a', id='m').id, client.label('m', 'spam').message_id)\n"
            "    print(client.predict('prize').label)\n"
            "async def main():\n"
            "    async with AsyncClient(sys.argv[1]) as client:\n"
            "        print((await client.predict('lunch')).label)\n"
            "asyncio.run(main())\n"
            f"print(__version__, set({names!r}) <= set(dir(driftline)), {OF_SERVER!r} & set(dir(driftline)))\n"
            f"print(sorted(driftline.__all__) == {names!r})\n"
            "print(*(name for name in sys.modules if name.startswith('driftline.')))\n"
        )
        with running(place.stream) as url:
            done = light.run("python", "-W", "error", "program.py", url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[:4] == ["m m", "spam", "ham", f"{driftline.__version__} True set()"]
        assert lines[4] == "True", "import * brings what is there, and so does not fail"
        # What it loads is what there is; `python -m driftline` below loads one more.
        package = light.site_packages / "driftline"
        there = {path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py")}
        modules = {".".join(path.parts).removesuffix(".__init__") for path in there}
        assert modules == {"driftline", "driftline.__main__", *lines[5].split()}

    @pytest.mark.parametrize("words", [[], ["--help"], ["up"]])
    def test_the_command_says_what_is_missing(self, words: list[str], light: Environment, tmp_path: Path) -> None:
        assert not (light.bin / "driftline").exists()
        done = light.run("python", "-m", "driftline", *words, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"driftline: the command {MORE}\n")

    @pytest.mark.parametrize("name", sorted(OF_SERVER))
    def test_so_do_the_names_that_need_more(self, name: str, light: Environment, tmp_path: Path) -> None:
        code = f"try:\n from driftline import {name}\nexcept ImportError as error:\n print(type(error).__name__, error)"
        done = light.run("python", "-c", code, cwd=tmp_path)
        kind, _, message = done.stdout.strip().partition(" ")
        assert kind == "NotInstalled", done.stderr
        assert message == f"driftline.{name} {MORE}"
        uncaught = light.run("python", "-c", f"import driftline; driftline.{name}", cwd=tmp_path).stderr
        assert uncaught.endswith(f"driftline.stream.errors.NotInstalled: {message}\n")
        assert "During handling" not in uncaught

    def test_a_folder_that_was_left_behind_is_nothing(self, light: Environment, tmp_path: Path) -> None:
        """Another user's Python compiled into it: pip takes away what it knows of."""
        beside = Environment(tmp_path / "environment")
        beside.link(needed("httpx", "msgspec"))
        shutil.copytree(light.site_packages / "driftline", beside.site_packages / "driftline")
        (beside.site_packages / "driftline" / "learner" / "__pycache__").mkdir(parents=True)
        done = beside.run("python", "-m", "driftline", "up", cwd=beside.bin)
        assert done.stderr == f"driftline: the command {MORE}\n"

    def test_it_says_where_the_rest_is_that_it_cannot_reach(
        self, light: Environment, wheels: dict[str, Path], tmp_path: Path
    ) -> None:
        """As in a virtual environment that sees a system's packages, which the client is one of."""
        zipfile.ZipFile(wheels["driftline"]).extractall(tmp_path)
        done = light.run("python", "-m", "driftline", "up", cwd=tmp_path, PYTHONPATH=str(tmp_path))
        (line,) = done.stderr.splitlines()
        assert line == (
            "driftline: the command needs the client beside the rest, but driftline-client is in "
            f"{light.site_packages} and driftline in {tmp_path}; put it there with: pip install --ignore-installed "
            f"--no-deps driftline-client=={driftline.__version__}"
        )
        with zipfile.ZipFile(wheels["driftline-client"]) as client:
            client.extractall(tmp_path)
        done = light.run("python", "-m", "driftline", "up", cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert MISSING.fullmatch(done.stderr.removesuffix("\n")), "it is there, and so are its files"
        shutil.rmtree(tmp_path / "driftline" / "learner")
        done = light.run("python", "-m", "driftline", "up", cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert done.stderr == (
            f"driftline: the command needs files that are gone from {tmp_path / 'driftline'}; get them with: "
            f"pip install --force-reinstall --no-deps driftline=={driftline.__version__}\n"
        )


class TestWithoutItsLibraries:
    """Both wheels, put in place by something that leaves libraries out."""

    def test_help_is_shown_and_what_needs_more_says_so(self, some: Environment, tmp_path: Path) -> None:
        assert "driftline up" in some.run("driftline", "up", "--help", cwd=tmp_path).stdout
        for words in (["up"], ["learn"], ["serve"], ["evaluate", "-"], ["predict", "a"], ["send", "-"]):
            done = some.run("driftline", *words, cwd=tmp_path)
            (line,) = done.stderr.splitlines()
            assert MISSING.fullmatch(line), (words, line)
            assert done.returncode == 1

    def test_it_says_so_as_json_where_all_lines_are(self, some: Environment, tmp_path: Path) -> None:
        done = some.run("python", "-m", "driftline", "up", cwd=tmp_path, DRIFTLINE_LOG_FORMAT="json")
        (line,) = done.stderr.splitlines()
        assert MISSING.fullmatch("driftline: " + json.loads(line)["message"])

    def test_a_module_of_the_user_s_that_is_missing_is_no_library_of_ours(self) -> None:
        """All is installed here, so the error is what it was."""
        code = (
            "import sys, driftline.__main__, driftline.cli.main as commands\n"
            "def run(): import nobody_has_this\n"
            "commands.main = run\n"
            "driftline.__main__.main()\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stderr.endswith("ModuleNotFoundError: No module named 'nobody_has_this'\n")


class TestTwoWheels:
    """They share the folder `driftline`, and no file."""

    @pytest.mark.parametrize("order", [["driftline-client", "driftline"], ["driftline", "driftline-client"]])
    def test_either_comes_and_goes_without_the_other(
        self, order: list[str], wheels: dict[str, Path], tmp_path: Path
    ) -> None:
        environment = Environment(tmp_path / "environment")
        for name in order:
            environment.install(wheels[name], compiled=False)
        environment.install(*wheels.values(), compiled=False, again=True)
        name, other = order
        for each in order:
            self.check_whole(environment, each)
        environment.uninstall(name)
        self.check_whole(environment, other)
        names = {each.metadata["Name"] for each in metadata.distributions(path=[str(environment.site_packages)])}
        assert names == {other}
        environment.install(wheels[name], compiled=False)
        for each in order:
            self.check_whole(environment, each)

    def check_whole(self, environment: Environment, name: str) -> None:
        """Look at each file that one of them has brought."""
        (found,) = metadata.distributions(name=name, path=[str(environment.site_packages)])
        files = [each for each in found.files or () if each.hash]
        assert len(files) > 10
        for each in files:
            digest = hashlib.sha256(each.locate().read_bytes()).digest()
            assert each.hash is not None
            assert each.hash.value == base64.urlsafe_b64encode(digest).decode().rstrip("="), each


class TestTypes:
    """Of what is at the top of the package, as a user's type checker sees it, all installed or the client alone."""

    @pytest.fixture(params=["the client alone", "all of it"])
    def checked(self, request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
        """Give what mypy says, and before it which of them are there."""
        python = sys.executable
        if request.param == "the client alone":
            python = str(request.getfixturevalue("light").bin / "python")
        (tmp_path / "program.py").write_text(USER)
        (tmp_path / "misspelt.py").write_text("from driftline import Clinet\n")
        command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--python-executable", python]
        # What it knows of the libraries it keeps from one run to the next.
        known = ["--cache-dir", str(ROOT / ".mypy_cache" / request.param)]
        done = subprocess.run(
            [*command, *known, "program.py", "misspelt.py"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert not done.stderr, done.stderr
        return [request.param, *done.stdout.splitlines()]

    def test_they_are_seen(self, checked: list[str]) -> None:
        there, *lines = checked
        missing = [line for line in lines if line.startswith("misspelt.py")]
        assert len(missing) == 1
        assert 'Module "driftline" has no attribute "Clinet"' in missing[0]
        notes = [line for line in lines if line not in missing]
        assert [re.sub(r'.*Revealed type is "(.*)"', r"\1", line).replace("builtins.", "") for line in notes] == [
            "dict[str, float]",
            "str | None" if there == "all of it" else "Any",
            "str",
        ]

    def test_the_program_uses_all_that_there_is(self) -> None:
        assert all(re.search(rf"\b{name}\b", USER) for name in driftline.__all__)


def test_the_face_is_what_it_says() -> None:
    """Each name is there, and found once."""
    assert set(driftline.__all__) <= set(dir(driftline))
    for name in driftline.__all__:
        assert getattr(driftline, name) is getattr(driftline, name)
    with pytest.raises(AttributeError, match="module 'driftline' has no attribute 'Clinet'"):
        driftline.Clinet  # type: ignore[attr-defined]  # noqa: B018


class TestBesideOthers:
    """Packages called `api`, `cli`, `stream` and so on are a user's own, wherever they are."""

    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        """Give a directory with such packages; each tells of its import in a file of the process's."""
        self.put_packages(tmp_path / "project", "here")
        self.put_packages(tmp_path / "path", "on PYTHONPATH")
        return tmp_path / "project"

    @pytest.fixture
    def environment(self, tmp_path: Path) -> Environment:
        """Give an environment that has such packages installed, and this tree, editable: behind them."""
        environment = Environment(tmp_path / "environment")
        self.put_packages(environment.site_packages, "installed")
        environment.link(needed("driftline"))
        script = (Path(sys.executable).parent / "driftline").read_text()
        assert script.startswith(f"#!{sys.executable}\n")
        (environment.bin / "driftline").write_text(script.replace(sys.executable, str(environment.bin / "python"), 1))
        (environment.bin / "driftline").chmod(0o755)
        return environment

    def put_packages(self, at: Path, where: str) -> None:
        for name in NAMES:
            (at / name).mkdir(parents=True)
            tells = f"with open(os.environ['TOLD'], 'a') as told: print({name!r}, file=told)"
            (at / name / "__init__.py").write_text(f"import os\nWHERE = {where!r}\n{tells}\n")

    def test_server_command_and_client_work(self, environment: Environment, project: Path, tmp_path: Path) -> None:
        """With workers, which are forked from a process that imports by name, and a learner that is spawned."""
        app = (
            "import sys, api, cli, learner, stream\n"
            "from driftline import Client\n"
            "print({each.WHERE for each in (api, cli, learner, stream)})\n"
            "with Client(sys.argv[1], tries=100) as client:\n"
            "    client.label('a', 'spam', text='win a prize')\n"
            "    last = client.label('b', 'ham', text='lunch at noon')\n"
            "    for _ in range(20): print(client.predict('a prize', after=last).label)\n"
        )
        (project / "app.py").write_text(app)
        told = {name: str(tmp_path / name) for name in ("server", "command", "app")}
        path = {"PYTHONPATH": str(tmp_path / "path")}
        data = ["--data", str(tmp_path / "data")]
        with self.up(environment, project, *data, TOLD=told["server"], **path) as url:
            done = environment.run("python", "app.py", url, cwd=project, TOLD=told["app"], **path)
            assert done.returncode == 0, done.stderr
            assert done.stdout.split("\n") == ["{'here'}", *["spam"] * 20, ""]
            for words in (["driftline"], ["python", "-m", "driftline"]):

                def said(words: list[str] = words) -> bool:
                    """What the learner says of itself may be half a second old."""
                    done = environment.run(*words, "status", *data, cwd=project, TOLD=told["command"], **path)
                    assert done.returncode == 0, done.stderr
                    return "2 learned" in done.stdout

                wait_until(said)
        assert not Path(told["server"]).exists(), "it imported what is not its own"
        assert not Path(told["command"]).exists()
        assert Path(told["app"]).read_text().split() == ["api", "cli", "learner", "stream"]

    @contextlib.contextmanager
    def up(self, environment: Environment, cwd: Path, *options: str, **variables: str) -> Iterator[str]:
        command = [str(environment.bin / "python"), "-m", "driftline", "up", "--port", "0", "--workers", "2"]
        process = subprocess.Popen(
            [*command, "--model", "linear?bits=12", *options],
            cwd=cwd,
            env=os.environ | {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1"} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        said = ""
        try:
            while not (found := re.search(r"http://[0-9.:]+", said)):
                line = process.stdout.readline()
                assert line, said
                said += line
            yield found[0]
            os.killpg(process.pid, signal.SIGINT)
            said += process.stdout.read()
            assert process.wait(60) == 0, said
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
