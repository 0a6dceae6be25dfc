"""What is said where only the client is installed, and more is asked for?

`pip install driftline-client` brings the files that client/pyproject.toml names, this one among them, and the client's
libraries; `pip install driftline` all others. Whether those are there is looked up once something was missed: so no
start takes longer for it. Of libraries the metadata tell; where there are none, as in a program that was frozen,
whatever is there works.
"""

import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from driftline.stream.errors import NotInstalled

NAMED: Final = 3  # the others are counted
# One that is needed with an extra, or on some systems or Pythons only, has a marker: it alone does not tell.
_ALWAYS: Final = re.compile(r"([\w.-]+)[^;]*")


def is_alone() -> bool:
    """Tell whether the client's files are all that there are. A folder that pip left behind is none."""
    found = find_spec("driftline.learner")
    return found is None or found.origin is None


def not_installed(what: str, error: ModuleNotFoundError) -> NotInstalled | ModuleNotFoundError:
    """Return what to raise instead of an error: what `what` needs, or the same where nothing is missing."""
    if is_alone():
        return NotInstalled(f"{what} {_why_alone()}")
    names = _missing()
    if not names:
        return error
    more = len(names) - NAMED
    shown = ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
    why = f"needs libraries that are not installed ({shown}); get them with: pip install driftline"
    return NotInstalled(f"{what} {why}")


def _missing() -> list[str]:
    """Return the libraries that `driftline` needs and that are not installed."""
    try:
        needed = [found[1] for each in metadata.requires("driftline") or () if (found := _ALWAYS.fullmatch(each))]
    except metadata.PackageNotFoundError:
        return []
    return [name for name in needed if not _is_installed(name)]


def _why_alone() -> str:
    """Say what is missing, also where the rest is installed: in another place, where Python does not look for it."""
    try:
        rest = metadata.distribution("driftline")
    except metadata.PackageNotFoundError:
        return "needs more than the client; get it with: pip install driftline"
    here, there = Path(__file__).parent.parent, Path(str(rest.locate_file("")))
    if there == here:
        again = f"pip install --force-reinstall --no-deps driftline=={rest.version}"
        return f"needs files that are gone from {there / 'driftline'}; get them with: {again}"
    again = f"pip install --ignore-installed --no-deps driftline-client=={rest.version}"
    return (
        f"needs the client beside the rest, but driftline-client is in {here} and driftline in {there}; put it there "
        f"with: {again}"
    )


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
