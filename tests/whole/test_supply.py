"""What does Driftline stand on, and what of it ships? Bounds, images, one version, the packages that are built."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import driftline
from tests.data import ROOT
from tests.packages import CLIENT, build, canonical, needed
from tests.place import Place, get, running

PROJECT, OF_CLIENT = (tomllib.loads((each / "pyproject.toml").read_text())["project"] for each in (ROOT, CLIENT))
OURS = {"driftline", "driftline-client"}
# Whose inside is touched, and a place where: what is named there may be gone in any next version of the library.
INSIDE = {
    "uvicorn": [("api/http/protocol.py", "HttpToolsProtocol"), ("api/run/process.py", "capture_signals")],
    "numba": [("learner/models/one_text.py", "numba._dispatcher"), ("stream/kernels.py", "_nrt=False")],
    "river": [("learner/foreign/river_models.py", "._multiclass")],
    "starlette": [("api/errors.py", "self.raw_headers = ")],
}
SHIPS = ("stream", "learner", "api", "cli", "driftline")
IMAGE = re.compile(r"[a-z/]+:[\w.-]*\d[\w.-]*@sha256:[0-9a-f]{64}")
COPYLEFT = re.compile(r"GPL|GNU|MPL|Mozilla|EPL|Eclipse|CDDL|EUPL|OSL|SSPL|CC-BY-SA", re.IGNORECASE)
# Weak copyleft: a file that is changed stays under its licence. Nothing of it is changed, or linked into what is ours.
MAY_BE = {"certifi": "Mozilla Public License 2.0 (MPL 2.0)"}


def requirements() -> dict[str, Requirement]:
    """Return what the client and the server need, by name."""
    needs = map(Requirement, [*PROJECT["dependencies"], *OF_CLIENT["dependencies"]])
    return {found.name: found for found in needs if found.name not in OURS}


@pytest.mark.parametrize("name", INSIDE)
def test_a_library_whose_inside_is_touched_is_bounded(name: str) -> None:
    """To the series that was tried; and where nothing is touched any more the bound may go."""
    bound, here = requirements()[name].specifier, Version(metadata.version(name))
    assert here in bound
    assert Version(f"{here.major + 1}.0") not in bound
    assert here.major > 0 or Version(f"0.{here.minor + 1}.0") not in bound
    for path, what in INSIDE[name]:
        assert what in (ROOT / path).read_text(), f"{path} has no {what}: is {name} still to be bounded?"


def test_there_is_no_other_inside() -> None:
    """Modules of others whose names begin with an underscore are theirs; so are their attributes."""
    names = {name.replace("-", "_") for name in requirements()}
    found = set()
    for path in (path for folder in SHIPS for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        unread = {id(each) for node in ast.walk(tree) if is_for_types(node) for each in ast.walk(node)}
        imported: dict[str, str] = {}
        for node in ast.walk(tree):
            if id(node) in unread:
                continue
            if isinstance(node, ast.Import):
                imported |= {each.asname or each.name.split(".")[0]: each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        theirs = {name: whole for name, whole in imported.items() if whole.split(".")[0] in names}
        found |= {whole.split(".")[0] for whole in theirs.values() if is_inside(whole.split("."))}
        found |= {
            theirs[node.value.id].split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in theirs
            if is_inside([node.attr]) and id(node) not in unread
        }
    assert found <= INSIDE.keys()
    assert "numba" in found, "it looks, then"


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def is_inside(names: list[str]) -> bool:
    """Tell of names; librdkafka's own errors begin with an underscore in capitals."""
    return any(name.startswith("_") and not name.startswith("__") and not name.isupper() for name in names)


def test_images_are_named_by_version_and_digest() -> None:
    docker, compose = (ROOT / "Dockerfile").read_text(), yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", docker, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", docker, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    images = [service["image"] for service in compose["services"].values() if "build" not in service]
    assert len(images) == 3
    for image in [base, *(re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", each) for each in images)]:
        assert IMAGE.fullmatch(image), image


def test_the_image_s_user_is_a_number() -> None:
    """Else Kubernetes' runAsNonRoot refuses it: names say nothing."""
    (user,) = re.findall(r"^USER (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_there_is_one_version(tmp_path: Path) -> None:
    version = PROJECT["version"]
    assert driftline.__version__ == OF_CLIENT["version"] == version
    assert f"driftline-client=={version}" in PROJECT["dependencies"]
    said = subprocess.run([sys.executable, "-m", "driftline", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"driftline {version}\n"
    place = Place(tmp_path)
    place.publish()
    with running(place.stream) as url:
        assert get(f"{url}/openapi.json").json()["info"]["version"] == version
        assert get(f"{url}/version").text == get(f"{url}/v2").json()["version"] == version
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert newest == version
    spelled = [
        path
        for folder in SHIPS
        for path in (ROOT / folder).rglob("*.py")
        if f'"{version}"' in path.read_text() or f"'{version}'" in path.read_text()
    ]
    assert not spelled


def test_what_ships_has_a_licence_that_may_be() -> None:
    """The table is that of the server; `make sbom` writes it."""
    table = dict(re.findall(r"^\| ([\w.-]+) \| ([^|]+) \|", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE))
    del table["package"]
    assert {canonical(each) for each in table} == needed("driftline") - OURS
    assert {name: licence for name, licence in table.items() if COPYLEFT.search(licence)} == MAY_BE
    assert "UNKNOWN" not in table.values()


def test_whatever_installs_driftline_from_here_takes_both() -> None:
    """What needs no registry for the rest must not ask one for the client."""
    docker, make = ((ROOT / name).read_text() for name in ("Dockerfile", "Makefile"))
    assert re.findall(r"--find-links /wheels (.+) \\$", docker, re.MULTILINE) == ["/src/client /src"]
    assert re.findall(r"--find-links \.venv-ships/wheels (.+)", make) == ["./client ."]
    assert re.findall(r"^OURS := (.*)$", make, re.MULTILINE) == ["--editable ./client --editable ."]
    assert re.findall(r"_?INSTALL\) .*no-build-isolation (.*?)(?: \|\| .*)?$", make, re.MULTILINE) == [
        *("$(OURS)", "$(OURS)"),
        '--editable ".[$$peer]"',
    ]
    compiled = [each for each in re.findall(r"uv pip compile .*", make) if "--group docs" not in each]
    assert len(compiled) == 2
    assert all("--no-emit-package driftline-client " in each for each in compiled)
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert "driftline-client" not in pinned
    assert needed("driftline") - OURS <= set(map(canonical, pinned))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Give what is in each wheel; its source gives the same, and has the licence; that of the rest gives both."""
    path, version = tmp_path_factory.mktemp("built"), PROJECT["version"]
    sources = {"driftline": [], "driftline_client": [path / f"driftline-{version}" / "client"]}
    for name, project in (("driftline", ROOT), ("driftline_client", CLIENT)):
        build(project, path / "first")
        with tarfile.open(path / "first" / f"{name}-{version}.tar.gz") as packed:
            packed.extractall(path, filter="data")
        sources[name].append(path / f"{name}-{version}")
    content = {name: content_of(path / "first", name) for name in sources}
    for name, source in ((name, each) for name, places in sources.items() for each in places):
        assert (source / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
        build(source, path / "second", "wheel")
        assert content_of(path / "second", name) == content[name], source
    return content


def content_of(directory: Path, name: str) -> dict[str, bytes]:
    """Return what is in the wheel that was built there."""
    with zipfile.ZipFile(directory / f"{name}-{PROJECT['version']}-py3-none-any.whl") as wheel:
        return {each: wheel.read(each) for each in wheel.namelist()}


def test_what_is_built_has_all_that_a_stranger_needs(built: dict[str, dict[str, bytes]]) -> None:
    """Each file is in one of the wheels, and none is in both: taking one away leaves the other whole."""
    wanted = {
        f"driftline/{path.relative_to(ROOT)}"
        for folder in SHIPS[:-1]
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {f"driftline/{path.name}" for path in (ROOT / "driftline").iterdir() if path.is_file()}
    assert {"py.typed", "characters.npz", "forms.npz", "index.html", "main.js"} <= {Path(each).name for each in wanted}
    ours = {name: {each for each in content if each.startswith("driftline/")} for name, content in built.items()}
    assert ours["driftline_client"] | ours["driftline"] == wanted
    assert not ours["driftline_client"] & ours["driftline"]
    for name, content in built.items():
        others = content.keys() - ours[name]
        assert {each.partition("/")[0] for each in others} == {f"{name}-{PROJECT['version']}.dist-info"}
        about = next(text for each, text in content.items() if each.endswith("dist-info/METADATA")).decode()
        assert "License-Expression: MIT\nLicense-File: LICENSE\n" in about
        assert any(each.endswith("dist-info/licenses/LICENSE") for each in content)


def test_the_client_s_wheel_has_what_the_client_imports(built: dict[str, dict[str, bytes]]) -> None:
    """At once or later, but for what the names of the server and the command line need; test_installed.py runs it."""
    files = {each for each in built["driftline_client"] if each.endswith(".py")}
    assert len(files) > 8
    for path in files - {"driftline/__init__.py", "driftline/__main__.py"}:
        for node in ast.walk(ast.parse(built["driftline_client"][path])):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("driftline"):
                name = node.module.replace(".", "/")
                inside = {f"{name}/{each.name}.py" for each in node.names}
                assert f"{name}.py" in files or inside <= files, f"{path} imports {node.module}"
