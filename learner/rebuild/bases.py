"""From which states of the past can a model be built anew, where the log no longer goes back to its first record?

What retention took can be learned only once. So some checkpoints that are no longer needed for a recovery stay, evenly
apart, as long as the log still has all that came after them: a model that is built anew may begin with one, and all
that is older than it stays learned. Their number is bounded; none is kept that the log does not follow.

    bases/000000000042/     a checkpoint, as it was
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import Manifest, by_partition
from driftline.stream.errors import StateError
from driftline.stream.log.base import TopicPartition

DIRECTORY: Final = "bases"
Positions = Mapping[TopicPartition, int]


class Bases:
    """The bases of a data directory. One thread, but for `oldest`.

    Parameters
    ----------
    number : how many are kept, at most
    """

    def __init__(self, data: Path, number: int) -> None:
        self._data, self._root, self._number = data, data / DIRECTORY, number

    def take(self, path: Path, lows: Positions) -> None:
        """Keep a checkpoint that goes, where it is of use; else delete it.

        Parameters
        ----------
        lows : the first offset that each partition still has
        """
        if self._number:
            with suppress(StateError, OSError):  # a full disk is no reason to keep what has to go
                self.hold(path)
        durable.remove(path)
        self.thin(lows)

    def thin(self, lows: Positions) -> None:
        """Delete those that are of no use any more, and what is beyond the number."""
        found: list[tuple[Path, Manifest]] = []
        for path in checkpoints.list_checkpoints(self._root):
            manifest = _manifest(path)
            if manifest is not None and is_followed(manifest, lows):
                found.append((path, manifest))
            else:
                durable.remove(path)
        while len(found) > self._number:
            times = [datetime.fromisoformat(manifest.created_at).timestamp() for _, manifest in found]
            durable.remove(found.pop(least_needed(times))[0])

    def oldest(self, lows: Positions) -> tuple[Path, Manifest] | None:
        """Return the oldest state, base or checkpoint, that the log still follows; None where there is none."""
        for root in (self._root, self._data / "checkpoints"):
            for path in reversed(checkpoints.list_checkpoints(root)):
                manifest = _manifest(path)
                if manifest is not None and is_followed(manifest, lows):
                    return path, manifest
        return None

    def hold(self, path: Path) -> None:
        """Keep a checkpoint among the bases: its files get second names. Raises DiskFull."""
        if path.parent != self._root:
            with suppress(FileExistsError):
                durable.write_directory(self._root / path.name, {}, {each.name: each for each in path.iterdir()})

    def get(self, batch: int) -> Path:
        """Return where the one of a batch lies, if it does."""
        return checkpoints.path_of(self._root, batch)


def is_followed(manifest: Manifest, lows: Positions) -> bool:
    """Tell whether a log that begins at these offsets has all that came after a checkpoint."""
    positions = by_partition(manifest.positions)
    return all(positions.get(partition, 0) >= low for partition, low in lows.items())


def least_needed(times: list[float]) -> int:
    """Return which of some states to drop, given when each was made, newest first: so that those left lie evenly."""
    if len(times) < 3:
        return 0
    gaps = [times[i - 1] - times[i + 1] for i in range(1, len(times) - 1)]
    return 1 + gaps.index(min(gaps))


def _manifest(path: Path) -> Manifest | None:
    try:
        return checkpoints.load_manifest(path)
    except StateError:
        return None
