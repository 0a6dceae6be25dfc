"""Imports run one way: api -> learner -> stream, and the command line on top; the bench stands beside the API."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "stream": {"stream"},
    "learner": {"stream", "learner"},
    "api": {"stream", "learner", "api"},
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
    ours = {"stream", "learner", "api", "driftline", "bench", "tests"}
    for path in files:
        assert imported(path) & ours <= MAY_IMPORT[folder], path


@pytest.mark.parametrize("path", [path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py")], ids=str)
def test_every_file_says_which_question_it_answers(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "a module opens with what it is for"
