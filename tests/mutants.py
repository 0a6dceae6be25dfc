"""Which changes of the code does no test notice? A program: `python -m tests.mutants [ROOM ...] [--each N] [--seed S]`.

A mutant is one small change in one function: a condition turned round, a limit one off, a call left out. All modules
are imported, the kernels compiled and the tests collected once; each mutant is then a fork in which one function's code
is replaced, and that runs the tests of its room until one fails. No file is changed. Mutants are a sample of all that
there are, the same for a seed. Kernels are left out: they equal their plain twins on generated input, and take a minute
each to compile. So are the words of errors.

Prints the score of each module, and the mutants that lived, each with its line: look at them one by one, some change
nothing that anybody could see.
"""

import argparse
import ast
import gc
import importlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple

import pytest
from _pytest.main import pytest_runtestloop as runtestloop

ROOT: Final = Path(__file__).resolve().parent.parent
# For each room its modules, and the test files that are to notice: those which need no other process.
ROOMS: Final = {
    "stream": {
        "join/window join/early": "test_join test_ids test_machine",
        "log/clock join/quota": "test_quota test_clock",
        "log/merge": "test_merge test_clock test_positions",
        "wire/records": "test_records test_wire test_names test_numbers",
        "log/base log/sqlite/log log/sqlite/writer log/sqlite/file": "test_sqlite_log test_log test_append test_wake",
    },
    "learner": {
        "disk/durable disk/journal": "test_durable test_journal test_checkpoint",
        "disk/checkpoint state/saver": "test_checkpoint test_saver",
        "disk/lock": "test_lock test_takeover test_operate",
        "disk/losses disk/positions": "test_positions test_loss",
        "disk/full": "test_saver",
        "machine/machine": "test_machine test_ids test_loop test_review test_names",
    },
    "api": {
        "access/keys access/rate gate": "test_access test_connections test_proxies test_api",
        "errors routes/predict routes/feedback": "test_api test_protocols test_feedback_labels test_claims",
    },
}
OPPOSITES: Final[dict[type[ast.AST], type[ast.AST]]] = {
    one: other
    for pair in (
        (ast.Lt, ast.LtE),
        (ast.Gt, ast.GtE),
        (ast.Eq, ast.NotEq),
        (ast.Is, ast.IsNot),
        (ast.In, ast.NotIn),
        (ast.And, ast.Or),
        (ast.Add, ast.Sub),
        (ast.BitAnd, ast.BitOr),
        (ast.LShift, ast.RShift),
    )
    for one, other in (pair, pair[::-1])
} | {ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.Mult}
OPTIONS: Final = [
    *("-x", "-o", "addopts=--strict-markers", "-p", "no:terminal", "-p", "no:cacheprovider", "-k", "not kafka"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # what was imported before is not rewritten
]
DEADLINE_S: Final = 60.0  # and ten times what the tests take without a change


class Mutant(NamedTuple):
    """A change of the n-th place of a function that can be changed."""

    path: Path
    function: str
    n: int
    line: int
    what: str


class Change(ast.NodeTransformer):
    """Finds the places of a function that can be changed; changes the n-th."""

    def __init__(self, n: int = -1) -> None:
        self.n, self.found = n, list[tuple[int, str]]()

    def _is_it(self, node: Any, what: str) -> bool:
        self.found.append((node.lineno, what))
        return len(self.found) - 1 == self.n

    def visit(self, node: ast.AST) -> Any:
        """Change what is below a node, and the node."""
        if isinstance(node, (ast.JoinedStr, ast.Assert, ast.Raise, ast.arguments)):
            return self._left_out(node)
        if isinstance(node, ast.AnnAssign):
            node.value = self.visit(node.value) if node.value else None
            return node
        self.generic_visit(node)
        return self._changed(node)

    def _left_out(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Raise) and self._is_it(node, "left out"):
            return ast.copy_location(ast.Pass(), node)
        return node

    def _changed(self, node: Any) -> ast.AST:
        field = {ast.Compare: "ops", ast.BoolOp: "op", ast.BinOp: "op", ast.AugAssign: "op"}.get(type(node))
        if field is not None:
            held = getattr(node, field)
            old = held[0] if isinstance(held, list) else held
            new = OPPOSITES.get(type(old))
            if new is not None and self._is_it(node, f"{type(old).__name__} becomes {new.__name__}"):
                setattr(node, field, [new(), *held[1:]] if isinstance(held, list) else new())
        if isinstance(node, (ast.If, ast.While, ast.IfExp)) and self._is_it(node, "turned round"):
            node.test = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and self._is_it(node, "without not"):
            return node.operand
        if isinstance(node, ast.Constant) and type(node.value) in (int, bool) and self._is_it(node, "another constant"):
            node.value = node.value + 1 if type(node.value) is int else not node.value
        is_call = isinstance(node, ast.Expr) and not isinstance(node.value, (ast.Constant, ast.Yield, ast.YieldFrom))
        is_set = isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Name, ast.Tuple))
        is_left = is_call or is_set or isinstance(node, (ast.AugAssign, ast.Continue, ast.Break, ast.Delete))
        if is_left and self._is_it(node, "left out"):
            return ast.copy_location(ast.Pass(), node)
        return node


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Give the outermost functions and the methods of a module, by their qualified names; no kernels."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = {each.id for each in node.decorator_list if isinstance(each, ast.Name)}
            if not names & {"kernel", "inlined"} and node.name != "warm_up":
                yield prefix + node.name, node


def mutants_of(path: Path) -> list[Mutant]:
    """Return all mutants of a module."""
    found = []
    for name, node in functions(ast.parse(path.read_text())):
        change = Change()
        node.body = [change.visit(each) for each in node.body]
        found += [Mutant(path, name, n, line, what) for n, (line, what) in enumerate(change.found)]
    return found


def code_of(code: CodeType, name: str) -> CodeType:
    """Return the code object of a function in that of its module."""
    left = [code]
    while left:
        one = left.pop()
        if one.co_qualname == name:
            return one
        left += [each for each in one.co_consts if isinstance(each, CodeType)]
    raise LookupError(name)


def functions_there() -> dict[tuple[Path, str], list[FunctionType]]:
    """Return the functions of ours that there are in this process, by module and qualified name."""
    found: dict[tuple[Path, str], list[FunctionType]] = {}
    gc.unfreeze()  # what tests/conftest.py has put aside when tests were collected in this process
    for each in gc.get_objects():
        if type(each) is FunctionType and (each.__module__ or "").startswith("driftline."):
            place = Path(each.__code__.co_filename).resolve(), each.__code__.co_qualname
            found.setdefault(place, []).append(each)
    return found


def put_in(mutant: Mutant, there: list[FunctionType]) -> None:
    """Give a function, wherever it is bound, the changed code."""
    tree = ast.parse(mutant.path.read_text())
    node = dict(functions(tree))[mutant.function]
    change = Change(mutant.n)
    node.body = [change.visit(each) for each in node.body]
    new = code_of(compile(ast.fix_missing_locations(tree), str(mutant.path), "exec"), mutant.function)
    for function in there:
        function.__code__ = new


class Measure:
    """A plugin of pytest: runs the tests that were collected once as they are, then once for each mutant, in forks."""

    def __init__(self, mutants: list[Mutant]) -> None:
        self.mutants, self.lived, self.deadline_s = mutants, list[Mutant](), 1800.0
        self._there = functions_there()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Do so in the stead of pytest's own loop."""
        began = time.monotonic()
        if not self._passes(session, None):
            sys.exit("they do not pass without a change")
        self.deadline_s = DEADLINE_S + 10 * (time.monotonic() - began)
        for mutant in self.mutants:
            if self._passes(session, mutant):
                self.lived.append(mutant)
        return True

    def _passes(self, session: pytest.Session, mutant: Mutant | None) -> bool:
        """Tell whether the tests pass, in a fork, before it takes too long."""
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.setsid()
                if mutant:
                    put_in(mutant, self._there[mutant.path, mutant.function])
                runtestloop(session)
                code = int(session.testsfailed > 0)
            finally:
                os._exit(code)
        until = time.monotonic() + self.deadline_s
        while time.monotonic() < until:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status) == 0
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False


def import_all() -> None:
    """Import what is measured, and what the tests need; compile the kernels."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    for folder in ROOMS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            importlib.import_module(".".join(("driftline", *path.relative_to(ROOT).with_suffix("").parts)))
    from driftline.learner import registry  # noqa: PLC0415
    from driftline.learner.disk.settings import DEFAULT_MODEL  # noqa: PLC0415
    from driftline.learner.loop import warm  # noqa: PLC0415

    warm.warm_up()
    registry.warm_up(DEFAULT_MODEL)
    registry.warm_up("linear")


def main() -> None:
    """Measure the rooms that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("rooms", nargs="*", help="folders, or modules as stream/join/window; all without")
    parser.add_argument("--each", type=int, default=30, help="mutants of each group of modules")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    import_all()
    os.chdir(tempfile.mkdtemp(prefix="driftline-mutants-"))  # what hypothesis finds is of the mutants
    for folder, groups in ROOMS.items():
        for modules, names in groups.items():
            names_of = {f"{folder}/{each}" for each in modules.split()}
            asked = names_of if not options.rooms or folder in options.rooms else names_of & {*options.rooms}
            if asked:
                paths = [ROOT / f"{name}.py" for name in sorted(asked)]
                tests = [str(path) for name in names.split() for path in (ROOT / "tests").rglob(f"{name}.py")]
                measure(paths, tests, options.each, options.seed)


def measure(paths: list[Path], tests: list[str], n: int, seed: int) -> None:
    """Print which of n mutants of some modules lived, and how many did."""
    every = [mutant for path in paths for mutant in mutants_of(path)]
    chosen = random.Random(seed).sample(every, min(n, len(every)))
    measured = Measure(chosen)
    if code := pytest.main([*OPTIONS, *tests], plugins=[measured]):
        sys.exit(f"pytest ended with {code}; run it alone on {' '.join(tests)}")
    for path, function, number, line, what in measured.lived:
        said = path.read_text().splitlines()[line - 1].strip()
        print(f"lived: {path.relative_to(ROOT)}:{line} {function}, {number}, {what}: {said}")
    where = " ".join(str(path.relative_to(ROOT)) for path in paths)
    print(
        f"{where}: {len(chosen) - len(measured.lived)} of {len(chosen)} noticed, of {len(every)} that there are",
        flush=True,
    )


if __name__ == "__main__":
    main()
