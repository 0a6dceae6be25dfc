"""Which model is to be served: the latest, or one that somebody rolled back to?

The latest, unless a choice was made (versions.py). A chosen one that cannot be served is reported once, and the latest
is served.
"""

import logging
from pathlib import Path
from typing import Final

from driftline.learner.serving.snapshot import Follower, Snapshot
from driftline.learner.serving.versions import Versions
from driftline.stream.errors import ConfigError, StateError

_LOG: Final = logging.getLogger(__name__)


class SnapshotChooser:
    """What is to be served of a data directory, as that changes. One thread.

    Attributes
    ----------
    pinned_to : the version that is served in the latest's place, or None
    problem : why the one that was chosen, or any, is not served, or None
    """

    def __init__(self, data: Path, *, allow_pickle: bool = False) -> None:
        self._follower = Follower(data / "snapshots", allow_pickle=allow_pickle)
        self._versions, self._allow_pickle = Versions(data), allow_pickle
        self._choice = ""
        self._snapshot: Snapshot | None = None
        self._why_not: str | None = None  # the one that was chosen is not
        self.pinned_to: str | None = None
        self.problem: str | None = None

    def look(self) -> Snapshot | None:
        """Return what is to be served, the same object while it is the same file; None while there is nothing.

        Raises ConfigError for a pickle that may not be opened.
        """
        choice = self._versions.choice()
        try:
            if choice != self._choice:
                self._choice = choice
                self._choose()
            if self._snapshot is not None:
                self._snapshot.check()
                return self._snapshot
        except (StateError, ConfigError) as error:
            version, self._snapshot, self.pinned_to = self._versions.active().version, None, None
            self._why_not = f"version {version}, which was chosen, cannot be served ({error}); the latest is"
            _LOG.error("%s", self._why_not)
        newest = self._follower.look()
        self.problem = self._why_not or self._follower.problem
        return newest

    def _choose(self) -> None:
        version = self._versions.active().version
        self._snapshot = self.pinned_to = self.problem = self._why_not = None
        if version is not None:
            self._snapshot = self._versions.open(version, allow_pickle=self._allow_pickle)
            self.pinned_to = version
