"""What is said where only the client is installed, and more is asked for?

`pip install driftline` brings the client's libraries, `pip install 'driftline[server]'` all others. Which are missing
is looked up once something was missed, in the metadata of what is installed: so no start takes longer for it, and where
there are no metadata, as in a program that was frozen, whatever is there works.
"""

import re
from importlib import metadata
from typing import Final

from driftline.stream.errors import NotInstalled

NAMED: Final = 3  # the others are counted
# One that is needed on some systems or Pythons only has a longer marker: it alone does not tell.
_SERVER: Final = re.compile(r"""([\w.-]+)[^;]*;\s*extra\s*==\s*['"]server['"]\s*""")


def missing() -> list[str]:
    """Return the libraries of the extra `server` that are not installed."""
    try:
        needed = [found[1] for each in metadata.requires("driftline") or () if (found := _SERVER.fullmatch(each))]
    except metadata.PackageNotFoundError:
        return []
    return [name for name in needed if not _is_installed(name)]


def not_installed(what: str, error: ModuleNotFoundError) -> NotInstalled | ModuleNotFoundError:
    """Return what to raise instead of an error: which libraries `what` needs, or the same where none is missing."""
    names = missing()
    if not names:
        return error
    more = len(names) - NAMED
    shown = ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
    return NotInstalled(
        f"{what} needs libraries that are not installed ({shown}); get them with: pip install 'driftline[server]'"
    )


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
