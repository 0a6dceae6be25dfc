"""How do the tests get programs in Java? A folder's pom.xml says which; Maven resolves them into its jars/, once."""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path


class NoJars(Exception):
    """The jars are not there and cannot be had; the text says why."""


def jars(folder: Path) -> Path:
    """Return the directory of a folder's jars, resolved by Maven where they are not there yet."""
    with (folder / "pom.xml").open("rb") as pom:
        fcntl.flock(pom, fcntl.LOCK_EX)  # of several test runs one resolves them, and none has them taken away
        return _resolved(folder, pom.read())


def _resolved(folder: Path, wanted: bytes) -> Path:
    pom, made = folder / "pom.xml", folder / "jars"
    stamp = made / "pom.xml"
    if stamp.exists() and stamp.read_bytes() == wanted:
        return made
    maven = shutil.which("mvn")
    if maven is None:
        raise NoJars(f"the jars of {folder.name} are not in {made.name}/ and there is no Maven to get them")
    with tempfile.TemporaryDirectory(dir=folder, prefix="jars.") as directory:
        fresh = Path(directory) / "jars"
        command = [maven, "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode != 0 or not list(fresh.glob("*.jar")):
            raise NoJars(f"Maven could not get the jars of {folder.name}: {(done.stdout + done.stderr)[-500:]}")
        (fresh / "pom.xml").write_bytes(wanted)
        shutil.rmtree(made, ignore_errors=True)
        fresh.rename(made)
    return made
