"""What is built of Driftline, and environments in which it is installed as strangers have it."""

import os
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "client"  # which has a wheel of its own
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))


def build(project: Path, target: Path, *what: str) -> None:
    """Build the wheel and the sdist of a source tree, or only `what`, into a directory."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target), *(f"-t={each}" for each in what)]
    done = subprocess.run(command, cwd=project, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def needed(*requirements: str) -> set[str]:
    """Return the names of what requirements bring, and of all that these need, as this environment has them."""
    found: set[tuple[str, frozenset[str]]] = set()
    left = [Requirement(each) for each in requirements]
    while left:
        wanted = left.pop()
        key = canonical(wanted.name), frozenset(wanted.extras)
        if key in found:
            continue
        found.add(key)
        needs, extras = map(Requirement, metadata.requires(wanted.name) or ()), ("", *wanted.extras)
        left += [
            each
            for each in needs
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return {name for name, _ in found}


def canonical(name: str) -> str:
    """Return the name of a package as all spellings of it are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Environment:
    """A virtual environment of this Python, without a network: what is in it are links to what this one has.

    Attributes
    ----------
    bin : where its commands are
    site_packages : where its packages are
    """

    def __init__(self, path: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True)
        self.bin = path / "bin"
        self.site_packages = path / SITE_PACKAGES.relative_to(sys.prefix)

    def link(self, names: set[str]) -> None:
        """Have packages of this environment there as well: all their files, the way into an editable install too."""
        for name in names:
            files = metadata.files(name)
            assert files, f"{name} does not say which files it has"
            for top in {each.parts[0] for each in files} - {"..", "__pycache__"}:
                if not (self.site_packages / top).exists():
                    (self.site_packages / top).symlink_to(SITE_PACKAGES / top)

    def install(self, *wheels: Path, compiled: bool = True, again: bool = False) -> None:
        """Install wheels as pip does, and nothing that they need; `again`: in the place of themselves."""
        options = ["--no-index", "--no-deps", "--compile" if compiled else "--no-compile"]
        self._pip("install", *options, *(["--force-reinstall"] if again else []), *map(str, wheels))

    def uninstall(self, name: str) -> None:
        """Take a package away."""
        self._pip("uninstall", "--yes", name)

    def run(self, *words: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run one of its commands in a directory, to its end."""
        return subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            cwd=cwd,
            env=self._variables() | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def _pip(self, command: str, *words: str) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(self.bin / "python")]
        subprocess.run([*pip, command, "--quiet", *words], check=True, env=self._variables())

    def _variables(self) -> dict[str, str]:
        """Return the environment's variables, without what leads to this tree."""
        return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
