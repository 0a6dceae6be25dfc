"""Imports run one way: cli -> api -> learner -> stream; the bench stands beside the API."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "stream": {"stream"},
    "learner": {"stream", "learner"},
    "api": {"stream", "learner", "api"},
    "cli": {"stream", "learner", "api", "cli"},
    "bench": {"stream", "learner", "bench"},
}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_never_turn_round(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    ours = {"stream", "learner", "api", "cli", "driftline", "bench", "tests"}
    for path in files:
        assert imported(path) & ours <= MAY_IMPORT[folder], path


@pytest.mark.parametrize("path", [path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py")], ids=str)
def test_every_file_says_which_question_it_answers(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "a module opens with what it is for"


RECOVERY = [
    *("checkpoint", "journal", "ledger", "lock", "loop", "outbox", "rebuild", "recovery", "service"),
    *("staged", "status", "versions", "work"),
]
WRITES = {"fsync", "fdatasync", "rename", "write", "write_bytes", "write_text", "truncate", "unlink", "rmtree"}


@pytest.mark.parametrize("name", RECOVERY)
def test_what_must_last_is_written_by_one_module(name: str) -> None:
    """Only learner/durable.py writes, syncs, renames and deletes; the rest asks it to."""
    tree = ast.parse((ROOT / "learner" / f"{name}.py").read_text())
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    own = [call.attr for call in calls if isinstance(call, ast.Attribute) and ast.unparse(call.value) != "durable"]
    assert not WRITES & set(own)


def test_a_start_imports_nothing_that_it_does_not_need() -> None:
    """The learner and the API are ready soon: plots and the libraries of foreign models wait until one is asked for."""
    code = (
        "import sys, api.app, api.server, learner.loop, learner.service\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'matplotlib', 'river', 'sklearn', 'pandas'})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert ended.stdout.split() == []
