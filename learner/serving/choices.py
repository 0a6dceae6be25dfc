"""Which version was chosen to be served in the latest's place, if any?

A file in `snapshots/`, of which the highest number counts: written, synced, renamed, the directory synced; then older
ones go. A name is never used again. Who may choose, and what, is versions.py's affair.
"""

from pathlib import Path
from typing import Final

import msgspec

from driftline.learner.disk import durable

PREFIX: Final = "active-"
DAMAGES: Final = (OSError, ValueError, TypeError, RecursionError)


class Active(msgspec.Struct, frozen=True):
    """Which version is served; null: the latest."""

    version: str | None
    at: str


_ACTIVE: Final = msgspec.json.Decoder(Active)


class Choices:
    """The choices of a data directory. Any process, any thread; who chooses has the lock of versions.py."""

    def __init__(self, data: Path) -> None:
        self._root = data / "snapshots"

    def choose(self, active: Active) -> None:
        """Make a choice."""
        before = self._all()
        number = 1 + (int(before[0].name.removeprefix(PREFIX)) if before else 0)
        path = self._root / f"{PREFIX}{number:08d}"
        durable.AppendFile(path, msgspec.json.encode(active)).close()
        for older in before:
            durable.remove(older)

    def active(self) -> Active:
        """Return which version is served. A choice that cannot be read counts as none."""
        for path in self._all()[:1]:
            try:
                return _ACTIVE.decode(path.read_bytes())
            except DAMAGES:
                break
        return Active(None, "")

    def newest(self) -> str:
        """Return the name of the newest choice, another one for each; "" where there was never one."""
        return next((path.name for path in self._all()), "")

    def _all(self) -> list[Path]:
        try:
            found = [path for path in self._root.iterdir() if path.name.startswith(PREFIX)]
        except FileNotFoundError:
            return []
        return sorted(found, reverse=True)
