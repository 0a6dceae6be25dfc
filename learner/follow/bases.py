"""With which checkpoint does a follower begin?

With the newest in the store of which the journal still has all that follows. Only its model and its manifest are
fetched. The last one stays on this disk, so that a start needs no store: the newest that belongs to the journal there
will do then.
"""

import logging
from pathlib import Path
from typing import Final

from driftline.learner.cluster.base import Place
from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import Manifest
from driftline.learner.models.classifier import State
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.learner.store.stored import Stored
from driftline.stream.errors import StateError, StoreUnavailable

DIRECTORY: Final = "followed"  # of the data directory
_LOG: Final = logging.getLogger(__name__)


class Bases:
    """The checkpoints that there are to begin with. One thread.

    Parameters
    ----------
    root : where the one lies that was taken last; all else there goes
    """

    def __init__(self, root: Path, store: CheckpointStore) -> None:
        self._root, self._store = root, store

    def newest(self, journal: Place, above: tuple[int, int]) -> Stored | None:
        """Return the newest in the store, where it belongs to the journal and is of this epoch and batch or later."""
        there = self._store.newest_manifest()
        if there is None or not journal.has(there[1]) or _rank(there[1]) < above:
            return None
        return there[0]

    def take(self, journal: Place, above: tuple[int, int]) -> tuple[Manifest, State] | None:
        """Return the newest, with its model; None where there is none yet.

        Parameters
        ----------
        above : the epoch and the batch that it has to have at least

        Raises
        ------
        StoreUnavailable : the store does not answer, and there is none here.
        StoreDamaged : what is in the store is not whole.
        DiskFull : there is no room.
        """
        durable.make_directory(self._root)
        try:
            stored = self.newest(journal, above)
            return None if stored is None else self._fetch(stored)
        except StoreUnavailable as error:
            if (here := self._here(journal, above)) is None:
                raise
            _LOG.warning("%s; going on from the checkpoint of batch %d on this disk", error, here[0].batch)
            return here

    def _fetch(self, stored: Stored) -> tuple[Manifest, State]:
        """Have it on this disk, and nothing else there; return it."""
        path = checkpoints.path_of(self._root, stored.batch)
        if (found := self._load(path)) is None or _rank(found[0]) != stored.name:
            durable.remove(path)  # of another epoch, or damaged
            _LOG.info("fetching the model of checkpoint %d from %s", stored.batch, self._store.where)
            self._store.fetch_model(stored, self._root)
            found = checkpoints.load_model(path)
        for other in self._root.iterdir():
            if other != path:
                durable.remove(other)
        return found

    def _load(self, path: Path) -> tuple[Manifest, State] | None:
        try:
            return checkpoints.load_model(path) if path.exists() else None
        except StateError as error:
            _LOG.warning("%s; it is fetched again", error)
            return None

    def _here(self, journal: Place, above: tuple[int, int]) -> tuple[Manifest, State] | None:
        for path in checkpoints.list_checkpoints(self._root):
            try:
                manifest = checkpoints.load_manifest(path)
                if journal.has(manifest) and _rank(manifest) >= above:
                    return checkpoints.load_model(path)
            except StateError as error:
                _LOG.warning("%s; it is passed over", error)
        return None


def _rank(manifest: Manifest) -> tuple[int, int]:
    return manifest.epoch, manifest.batch
