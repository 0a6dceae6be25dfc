"""Is every kernel compiled before the first record, request or label needs it?

Each classifier goes the main ways of learner, API and commands in a process of its own (kernel_paths.py), which knows
what is compiled by then: a kernel that comes late would be compiled, or read from the disk, while somebody waits.
"""

import os
import subprocess
import sys
from pathlib import Path

from driftline.learner.registry import REGISTRY
from tests.data import ROOT

MODELS = [*REGISTRY, "river:naive_bayes.MultinomialNB"]
FORGETFUL = """
import sys
from pathlib import Path
from driftline.learner.loop import warm
warm.join.warm_up = lambda: None
from tests import kernel_paths
kernel_paths.main(Path(sys.argv[1]), "", "linear?bits=12")
"""


def late(*command: str) -> list[tuple[str, str]]:
    """Return the kernels that came only once something had to be done, each behind the model that did it."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "were there before" in done.stderr
    return [(model, name) for model, name, _ in (line.split("\t") for line in done.stdout.splitlines())]


def test_no_kernel_comes_late(tmp_path: Path) -> None:
    assert late("-m", "tests.kernel_paths", str(tmp_path), "", *MODELS) == []


def test_no_kernel_comes_late_with_kafka(kafka: str, tmp_path: Path) -> None:
    assert late("-m", "tests.kernel_paths", str(tmp_path), kafka, "linear?bits=12") == []


def test_one_that_is_forgotten_would_be_seen(tmp_path: Path) -> None:
    names = {name for _, name in late("-c", FORGETFUL, str(tmp_path))}
    assert {
        "driftline.stream.join.rules.take",
        "driftline.stream.join.message_rows.put",
        "driftline.stream.decode.scan.scan",
    } <= names
