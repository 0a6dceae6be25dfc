"""How is a client generated from a description, and how does it call? For each generator, where its tools are here.

Each function generates into a directory of its own, calls every operation, and returns what came. What is missing is
raised as Missing, which says what.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests import maven

HERE = Path(__file__).parent
GENERATE_S = 600
KEPT = 8  # of what the generators made
OWN = "openapi-python-client==0.29.0"


class Missing(Exception):
    """A tool is not on this machine, or what it needs cannot be fetched; the text says which."""


class Answer(NamedTuple):
    """What came of a call; the error is empty where the client could read the answer."""

    operation: str
    status: int
    error: str


def java(url: str, document: Path, calls: Path, directory: Path) -> list[Answer]:
    """Generate with openapi-generator's java (library native), compile, call."""
    javac, java = _tool("javac"), _tool("java")
    source = _openapi_generator(
        "java", document, directory, "library=native,useJakartaEe=true", "--global-property",
        "apis,models,supportingFiles,apiTests=false,modelTests=false,apiDocs=false,modelDocs=false",
    )  # fmt: skip
    files = [str(HERE / "Call.java"), *map(str, sorted((source / "src/main/java").rglob("*.java")))]
    _run([javac, "-nowarn", "-proc:none", "-cp", f"{_jars()}/*", "-d", "classes", *files], directory)
    return _answers([java, "-cp", f"{directory}/classes:{_jars()}/*", "Call", url, str(calls)], directory)


def go(url: str, document: Path, calls: Path, directory: Path) -> list[Answer]:
    """Generate with openapi-generator's go, compile, call."""
    tool = _tool("go")
    names = ["--git-host", "example.com", "--git-user-id", "driftline", "--git-repo-id", "client"]
    source = _openapi_generator("go", document, directory, "withGoMod=true,generateInterfaces=false", *names)
    shutil.rmtree(source / "test", ignore_errors=True)  # it would need a library of assertions
    (source / "cmd").mkdir()
    shutil.copy(HERE / "call.go", source / "cmd" / "main.go")
    _run([tool, "mod", "tidy"], source, fetches=True)
    _run([tool, "build", "-o", "call", "./cmd"], source)
    return _answers([str(source / "call"), url, str(calls)], source)


def typescript(url: str, document: Path, calls: Path, directory: Path) -> list[Answer]:
    """Generate with openapi-generator's typescript-fetch, compile, call."""
    node = _tool("node")
    names = "modelPropertyNaming=original,paramNaming=original"
    source = _openapi_generator("typescript-fetch", document, directory, names)
    files = map(str, sorted(source.rglob("*.ts")))
    compiler = str(_modules() / "typescript" / "bin" / "tsc")
    options = ["--strict", "--target", "es2022", "--module", "commonjs", "--lib", "es2022,dom", "--outDir", "js"]
    _run([node, compiler, *options, "--rootDir", str(source), *files], directory)
    shutil.copy(HERE / "call.mjs", directory)
    return _answers([node, "call.mjs", url, str(calls), str(directory / "js" / "index.js")], directory)


def openapi_python_client(document: Path, directory: Path) -> None:
    """Generate with openapi-python-client, the package `made`. It needs another Typer than ours: a place of its own."""
    said = "project_name_override: made\npackage_name_override: made\npost_hooks: []\n"

    def make(place: Path) -> None:
        config = directory / "config.yml"
        config.write_text(said)
        options = ["--meta", "none", "--output-path", str(place), "--config", str(config), "--fail-on-warning"]
        command = [str(_own_python()), "-m", "openapi_python_client", "generate", "--path", str(document), *options]
        _run(command, directory)

    _made(directory / "made", document, OWN + said, make)


def _own_python() -> Path:
    """Return a Python that has openapi-python-client, made and filled once."""
    place, done = HERE / "venv", HERE / "venv" / "filled"
    with (HERE / "venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(place)], HERE)
            install = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*install, OWN], HERE, fetches=True)
            done.touch()
    return place / "bin" / "python"


def python(document: Path, directory: Path) -> Path:
    """Generate with openapi-generator's python; return where its package is."""
    return _openapi_generator("python", document, directory, "packageName=generated_python")


def newman(url: str, document: Path, calls: Path, directory: Path) -> list[Answer]:
    """Make a collection of requests, by the examples, and have newman send it."""
    del calls
    node, modules = _tool("node"), _modules()
    collection, report = directory / "collection.json", directory / "report.json"
    convert, options = modules / "openapi-to-postmanv2" / "bin" / "openapi2postmanv2.js", "parametersResolution=Example"

    def make(place: Path) -> None:
        _run([node, str(convert), "-s", str(document), "-o", str(place), "-O", options], directory)

    _made(collection, document, options + (HERE / "package-lock.json").read_text(), make)
    send = [node, str(modules / "newman" / "bin" / "newman.js"), "run", str(collection), "--env-var", f"baseUrl={url}"]
    _run([*send, "--reporters", "json", "--reporter-json-export", str(report)], directory)
    return [_sent(each["item"]["request"], each) for each in json.loads(report.read_text())["run"]["executions"]]


def _sent(request: dict[str, Any], execution: dict[str, Any]) -> Answer:
    """Return what came of a request that newman sent, by its method and path, `/a/:b`."""
    name = f"{request['method']} /{'/'.join(request['url']['path'])}"
    return Answer(name, execution.get("response", {}).get("code", 0), str(execution.get("requestError", "")))


def _openapi_generator(name: str, document: Path, directory: Path, options: str, *more: str) -> Path:
    source = directory / "source"
    command = [_tool("java"), "-cp", f"{_jars()}/*", "org.openapitools.codegen.OpenAPIGenerator", "generate"]

    def make(place: Path) -> None:
        _run([*command, "-g", name, "-i", str(document), "-o", str(place), "-p", options, *more], directory)

    _made(source, document, " ".join([name, options, *more, (HERE / "pom.xml").read_text()]), make)
    return source


def _made(target: Path, document: Path, how: str, make: Callable[[Path], None]) -> None:
    """Have at a place what a generator makes of a description: of the same one, in the same way, it is made once."""
    sources = HERE / "made"
    sources.mkdir(exist_ok=True)
    key = hashlib.sha256(how.encode() + b"\0" + document.read_bytes()).hexdigest()[:16]
    kept = sources / f"{target.name}-{key}"
    with (sources / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            for old in sorted(sources.glob(f"{target.name}-*"), key=lambda each: each.stat().st_mtime)[:-KEPT]:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            with tempfile.TemporaryDirectory(dir=sources) as place:
                make(Path(place) / target.name)
                (Path(place) / target.name).rename(kept)
        shutil.copytree(kept, target) if kept.is_dir() else shutil.copy(kept, target)


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"there is no {name}")
    return found


def _jars() -> Path:
    try:
        return maven.jars(HERE)
    except maven.NoJars as error:
        raise Missing(str(error)) from None


def _modules() -> Path:
    """Return the directory of Node's modules, installed where they are not there yet."""
    place, wanted = HERE / "node_modules", (HERE / "package-lock.json").read_bytes()
    stamp = place / ".driftline-lock"
    with (HERE / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_bytes() != wanted:
            _run([_tool("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], HERE, fetches=True)
            stamp.write_bytes(wanted)
    return place


def _run(command: list[str], directory: Path, *, fetches: bool = False) -> str:
    """Run a program to its end; return what it printed. What may fail for want of a network is Missing."""
    done = subprocess.run(
        command, cwd=directory, env=os.environ | {"CI": "true"}, capture_output=True, text=True, check=False,
        timeout=GENERATE_S,
    )  # fmt: skip
    if done.returncode != 0:
        said = f"{' '.join(command[:4])} ... ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}"
        raise Missing(said) if fetches else AssertionError(said)
    return done.stdout


def _answers(command: list[str], directory: Path) -> list[Answer]:
    return [Answer(**json.loads(line)) for line in _run(command, directory).splitlines()]
