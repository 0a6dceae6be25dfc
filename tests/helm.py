"""Helm and kustomize: those on the path, else those that `make .tools/helm` built with Go."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.data import ROOT
from tests.often import TORTURE


def tool(name: str) -> str:
    """Return where it is. `make torture` builds it with Go where it is not there; else the test is skipped."""
    built = ROOT / ".tools" / name
    if TORTURE and not built.exists() and shutil.which(name) is None and shutil.which("go") is not None:
        subprocess.run(["make", f".tools/{name}"], cwd=ROOT, check=True, capture_output=True)
    found = shutil.which(name) or (str(built) if built.exists() else None)
    if found is None:
        pytest.skip(f"{name} is not installed: `make .tools/{name}` builds it, with Go")
    return found


def template(*arguments: str | Path, version: str = "1.33.0") -> subprocess.CompletedProcess[str]:
    """Render the chart."""
    chart = ROOT / "deploy" / "helm" / "driftline"
    command = [tool("helm"), "template", "driftline", chart, "--kube-version", version, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def objects(*arguments: str | Path, version: str = "1.33.0") -> list[Any]:
    """Return the objects that come out."""
    done = template(*arguments, version=version)
    assert done.returncode == 0, done.stderr
    return list(filter(None, yaml.safe_load_all(done.stdout)))
