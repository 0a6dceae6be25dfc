"""Is a kernel ever older than what it was compiled from?"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from driftline.stream.kernels import FOLDERS, KEPT, PREFIX, digest
from tests.data import ROOT

PROBE = """
from driftline.stream.kernels import kernel
from driftline.stream.probe_rule import RULE

@kernel
def probe():
    return RULE

print(probe())
"""


OWN = """
import numba

@numba.njit(cache=True)
def own():
    return 1

own()
print(own.stats.cache_path)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a copy of the folders that have kernels."""
    package = tmp_path / "copy" / "driftline"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, package / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text("")
    return package


@pytest.mark.parametrize(
    "file", ["stream/kernels.py", "stream/limits.py", "learner/text/hashes.py", "learner/text/characters.py"]
)
def test_a_change_of_what_a_kernel_is_made_of_gives_a_new_digest(package: Path, file: str) -> None:
    before = digest(package)
    assert digest(ROOT) == before
    with (package / file).open("a") as source:
        source.write("\nNEW = 1\n")
    assert digest(package) != before


def test_a_change_of_what_no_kernel_sees_does_not(package: Path) -> None:
    before = digest(package)
    for file in ("learner/report/status.py", "stream/process/flags.py", "learner/loop/loop.py"):
        (package / file).write_text("")
    assert digest(package) == before


def run_probe(package: Path, **variables: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(package.parent), "HOME": str(package)} | variables
    command = [sys.executable, "-c", "import driftline.stream.probe"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=package).stdout


@pytest.mark.parametrize("chosen", ["", "chosen"])
def test_a_constant_of_another_file_is_never_the_old_one(package: Path, chosen: str) -> None:
    """Wherever the kernels are kept: numba looks at the file of the kernel alone, and at no other of its sources."""
    chosen = str(package / chosen) if chosen else ""
    (package / "stream" / "probe.py").write_text(PROBE)
    rule, base = package / "stream" / "probe_rule.py", package / "stream" / "probe_base.py"
    rule.write_text("from driftline.stream.probe_base import BASE\nRULE = BASE + 1\n")
    base.write_text("BASE = 1\n")
    assert run_probe(package, NUMBA_CACHE_DIR=chosen) == "2\n"
    assert run_probe(package, NUMBA_CACHE_DIR=chosen) == "2\n"
    base.write_text("BASE = 2\n")
    assert run_probe(package, NUMBA_CACHE_DIR=chosen) == "3\n"


def test_who_compiles_kernels_beside_ours_keeps_them_where_it_did(package: Path) -> None:
    """Ours are told to numba one by one; a program that imports us has its own as if it did not."""
    (package / "stream" / "probe_rule.py").write_text("RULE = 1\n")
    (package / "stream" / "probe.py").write_text(f"{PROBE}print(probe.stats.cache_path)\n" + OWN)
    for chosen in ("", str(package / "chosen")):
        _, ours, own = run_probe(package, NUMBA_CACHE_DIR=chosen).splitlines()
        assert PREFIX in ours
        assert PREFIX not in own
        assert own.startswith(chosen or str(package / "stream" / "__pycache__"))


def test_an_option_of_numba_has_kernels_of_its_own(package: Path) -> None:
    (package / "stream" / "probe.py").write_text(PROBE)
    (package / "stream" / "probe_rule.py").write_text("RULE = 1\n")
    for options in ({}, {"NUMBA_BOUNDSCHECK": "1"}):
        run_probe(package, NUMBA_CACHE_DIR=str(package / "kernels"), **options)
    assert len(list((package / "kernels").iterdir())) == 2


def test_kernels_of_few_states_are_kept(package: Path) -> None:
    """Their number is bounded; those that were used last stay, and the one in use is among them."""
    (package / "stream" / "probe.py").write_text(PROBE)
    (package / "stream" / "probe_rule.py").write_text("RULE = 1\n")
    for age in range(KEPT + 3):
        old = package / "kernels" / f"{PREFIX}{age}"
        old.mkdir(parents=True)
        os.utime(old, (1e9 - age, 1e9 - age))
    run_probe(package, NUMBA_CACHE_DIR=str(package / "kernels"))
    left = {path.name for path in (package / "kernels").iterdir()}
    assert left == {f"{PREFIX}{digest(package)}", *(f"{PREFIX}{age}" for age in range(KEPT - 1))}
