"""Do the wheels work in bare Pythons, as pip installs them from a registry? `make wheel` asks for a table.

    python -m tests.wheel dist python3.11 python3.12

Ours come from the directory, whatever a registry has under their names; theirs from the registry. In each Python two
environments:

1. `pip install driftline-client`: what it takes beside the bare environment, which processor time
   `from driftline import Client` takes, and that the command says what is missing.
2. `pip install driftline`: `driftline --help`, and `driftline up` with a label posted and a prediction asked by the
   client of the first; kernels are compiled anew, which takes a minute. Ctrl-C ends it.

With uvx on the path (UVX names it), `uvx driftline --version` too.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

START_S: Final = 900.0  # kernels are compiled first
ASK: Final = """
import sys
from driftline import Client
with Client(sys.argv[1], tries=1000) as client:
    client.label("a", "spam", text="win a prize")
    last = client.label("b", "ham", text="lunch at noon")
    print(client.predict("a prize", after=last).label)
"""
IMPORT: Final = """
import time
begun = time.process_time()
from driftline import Client
print(time.process_time() - begun)
"""


def main(wheels: Path, pythons: Sequence[str]) -> None:
    """Print a table, a row for each Python. Raises AssertionError where something does not work."""
    print("| Python | client, MB | its blocks, MB | import, ms | server, MB | prediction |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as ours:
        found = {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in wheels.resolve().glob("*.whl")}
        assert found.keys() == {"driftline", "driftline-client"}, f"{wheels} has {sorted(found)}"
        ours.writelines(f"{name} @ {wheel.as_uri()}\n" for name, wheel in found.items())
        ours.flush()
        for python in pythons:
            with tempfile.TemporaryDirectory() as directory:
                print("|", " | ".join(tried(ours.name, python, Path(directory))), "|", flush=True)
        if uvx := shutil.which(os.environ.get("UVX", "uvx")):
            said = output(uvx, "--constraints", ours.name, "driftline", "--version")
            print(f"\nuvx: {said.strip()}")


def tried(ours: str, python: str, directory: Path) -> list[str]:
    """Try the wheels that a file of constraints names with a Python; return the row."""
    client, server = directory / "client", directory / "server"
    n_bytes, n_blocks = install(python, client, ours, "driftline-client")
    own = client / "bin" / "python", "-P"  # what is installed, not what is in this directory
    refused = subprocess.run([*own, "-m", "driftline", "up"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1, refused.stderr
    assert re.fullmatch(r"driftline: .* pip install driftline\n", refused.stderr), refused.stderr
    imported = min(float(output(*own, "-c", IMPORT)) for _ in range(5))
    n_bytes_server, _ = install(python, server, ours, "driftline")
    assert "driftline" in output(server / "bin" / "driftline", "--help")
    with up(server, directory) as url:
        label = output(*own, "-c", ASK, url).strip()
    assert label == "spam"
    version = output(*own, "-c", "import platform; print(platform.python_version())").strip()
    sizes = [f"{size / 1e6:.2f}" for size in (n_bytes, n_blocks, n_bytes_server)]
    return [version, *sizes[:2], f"{imported * 1e3:.0f}", sizes[2], label]


def install(python: str, environment: Path, ours: str, name: str) -> tuple[int, int]:
    """Install one into a new environment; return what that added: bytes of files, and of the blocks they take."""
    subprocess.run([python, "-m", "venv", environment], check=True)
    before = size(environment)
    pip = [environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--constraint", ours, name], check=True)
    assert output(*pip, "check") == "No broken requirements found.\n"
    after = size(environment)
    return after[0] - before[0], after[1] - before[1]


def size(environment: Path) -> tuple[int, int]:
    """Return the bytes of the files of an environment's packages, and of the blocks that they take, as du has them."""
    (packages,) = environment.glob("lib/python*/site-packages")
    found = list(packages.rglob("*"))
    n_blocks = sum(path.stat().st_blocks for path in found)  # of 512 bytes
    return sum(path.stat().st_size for path in found if path.is_file()), 512 * n_blocks


def output(*command: str | Path) -> str:
    """Return what a command prints. Raises AssertionError where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def up(environment: Path, directory: Path) -> Iterator[str]:
    """Run `driftline up`; give its URL once it is ready, and demand that Ctrl-C ends it as it should."""
    command = [environment / "bin" / "driftline", "up", "--port", "0", "--workers", "2", "--data", directory / "data"]
    with (
        (directory / "said").open("w") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        try:
            deadline = time.monotonic() + START_S
            while not (found := re.search(r"http://[0-9.:]+", (directory / "said").read_text())):
                assert process.poll() is None, (directory / "said").read_text()
                assert time.monotonic() < deadline, "it is not up"
                time.sleep(0.1)
            yield found[0]
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(60) == 0, (directory / "said").read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
