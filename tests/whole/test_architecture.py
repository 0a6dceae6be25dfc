"""Imports run one way: cli -> api -> learner -> stream; the bench stands beside the API; one name holds all."""

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.data import ROOT

MAY_IMPORT = {
    "stream": {"stream"},
    "learner": {"stream", "learner"},
    "api": {"stream", "learner", "api"},
    "cli": {"stream", "learner", "api", "cli"},
    "bench": {"stream", "learner", "bench"},
}


def imported(path: Path) -> set[str]:
    """Return the full names of the modules that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_never_turn_round(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        found = {tuple(name.split(".")[:2]) for name in imported(path)}
        assert ("driftline",) not in found, f"{path}: name the folder"
        assert {name[1] for name in found if name[0] == "driftline"} <= MAY_IMPORT[folder], path
        assert not {name[0] for name in found} & {"stream", "learner", "api", "cli", "tests"}, path
        assert folder == "bench" or "bench" not in {name[0] for name in found}, path


# The rooms of each folder, and the files beside them, in their order: each imports only what stands before it.
ROOMS = {
    "stream": "errors version surrogates words limits kernels texts siphash wire process log decode join files",
    "learner": "kernels text vectors embed explain models blend tree foreign registry river quality disk store machine"
    " serving report rebuild shared state loop cluster follow catalogue export",
    "api": "errors hidden proxies settings access load http shared routes protocols gate app run addresses calls"
    " client",
    "cli": "streams terminal help reading waiting commands copies main",
}
MOST_FILES = 14  # in a room
MOST_LINES = 500  # in a file


@cache
def modules() -> dict[str, set[str]]:
    """Return the modules of ours that each module imports, at once or later, but for its types only."""
    files = {
        ".".join(("driftline", *path.relative_to(ROOT).with_suffix("").parts)): path
        for folder in ROOMS
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    found = {}
    for name, path in files.items():
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        asked = {node.module or "" for node in nodes} | {f"{n.module}.{each.name}" for n in nodes for each in n.names}
        found[name] = (asked | imported(path)) & files.keys()
    return found


@pytest.mark.parametrize("folder", ROOMS)
def test_a_room_imports_only_those_before_it(folder: str) -> None:
    order = ROOMS[folder].split()
    assert {path.stem for path in (ROOT / folder).iterdir() if path.name[0] != "_"} - {"dashboard"} == set(order)
    for name, others in modules().items():
        if name.startswith(f"driftline.{folder}."):
            place = order.index(name.split(".")[2])
            later = {each for each in others if each.startswith(f"driftline.{folder}.")}
            assert all(order.index(each.split(".")[2]) <= place for each in later), f"{name} imports {sorted(later)}"


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    """Not even one that imports late."""
    left = modules()
    while left:
        free = {name for name, others in left.items() if not others & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {name: others for name, others in left.items() if name not in free}


def test_rooms_and_files_are_small_enough_to_be_read() -> None:
    for folder in ROOMS:
        for room in (ROOT / folder, *(path for path in (ROOT / folder).rglob("*") if (path / "__init__.py").exists())):
            files = [path for path in room.glob("*.py") if path.name != "__init__.py"]
            assert len(files) <= MOST_FILES, room
            assert max((len(path.read_text().splitlines()) for path in files), default=0) <= MOST_LINES, room


@pytest.mark.parametrize("path", [path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py")], ids=str)
def test_every_file_says_which_question_it_answers(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "a module opens with what it is for"


RECOVERY = [
    *("disk/checkpoint", "serving/choices", "disk/journal", "state/ledger", "disk/lock", "loop/loop", "state/outbox"),
    *("rebuild/rebuild", "loop/recovery", "loop/service", "loop/swap", "report/status", "serving/versions"),
    "state/state",
]
WRITES = {"fsync", "fdatasync", "rename", "write", "write_bytes", "write_text", "truncate", "unlink", "rmtree"}


@pytest.mark.parametrize("name", RECOVERY)
def test_what_must_last_is_written_by_one_module(name: str) -> None:
    """Only learner/disk/durable.py writes, syncs, renames and deletes; the rest asks it to."""
    tree = ast.parse((ROOT / "learner" / f"{name}.py").read_text())
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    own = [call.attr for call in calls if isinstance(call, ast.Attribute) and ast.unparse(call.value) != "durable"]
    assert not WRITES & set(own)


@pytest.mark.parametrize("folder", ["stream", "learner", "api", "driftline"])
def test_types_are_made_known_to_msgspec_where_they_are_imported(folder: str) -> None:
    """By a Decoder at the top of a module: two threads that are the first to decode a type crash the process (0.22)."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("msgspec."):
                late = ast.unparse(node.func).endswith(".decode") and any(each.arg == "type" for each in node.keywords)
                assert not late, f"{path}:{node.lineno}: decode with a Decoder that is made once"


def test_nothing_stands_in_the_way_of_folders_of_these_names(tmp_path: Path) -> None:
    """A project with an api/, cli/, stream/ or learner/ of its own, as many have, has the client and the command."""
    for folder in ("api", "cli", "stream", "learner", "tests", "bench"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("NAME = 'mine'")
    (tmp_path / "app.py").write_text(
        "import api, cli, learner, stream\n"
        "from driftline import AsyncClient, Client\n"
        "import driftline.cli.main, driftline.learner.loop.service, driftline.api.run.server\n"
        "assert {each.NAME for each in (api, cli, learner, stream)} == {'mine'}\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    for words in (["app.py"], ["-m", "driftline", "--version"]):
        ended = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        assert ended.returncode == 0, ended.stderr.decode()


def test_a_start_imports_nothing_that_it_does_not_need() -> None:
    """The learner and the API are ready soon: plots and the libraries of foreign models wait until one is asked for."""
    code = (
        "import sys, driftline.api.app, driftline.api.run.server, driftline.learner.loop.service\n"
        "heavy = {'matplotlib', 'river', 'sklearn', 'pandas', 'obstore'}\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & heavy)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert ended.stdout.split() == []
