"""With which checkpoint does a learner begin to follow a journal in the log?

With the newest that says up to where it is in this journal, and from where on the journal still has all: on this disk,
or in the store. One that says nothing of it (a learner alone wrote it), or that is of a journal that is gone, is one to
begin a journal with; the models of what follows then are of another lineage.
"""

import logging
from pathlib import Path
from typing import Final, NamedTuple

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import Checkpoint, Manifest
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.learner.store.stored import Stored
from driftline.stream.errors import StateError, StoreDamaged

_LOG: Final = logging.getLogger(__name__)


class Place(NamedTuple):
    """A journal: its topic's identity, and the first offset that is still there."""

    identity: str | None
    low: int

    def has(self, manifest: Manifest) -> bool:
        """Tell whether it has all that follows a checkpoint."""
        mark = manifest.journal
        return mark is not None and mark.identity == self.identity and mark.offset >= self.low


def find(root: Path, store: CheckpointStore, journal: Place) -> Checkpoint | None:
    """Return the newest checkpoint that belongs to the journal; None where there is none. It lies on this disk then.

    Parameters
    ----------
    root : where this disk's checkpoints lie

    Raises
    ------
    StoreUnavailable : the store does not answer.
    StoreDamaged : what is in it cannot be read, and there is none here; or it has just been pruned: look again.
    """
    durable.make_directory(root)
    here = _newest_here(root, journal)
    damaged: StoreDamaged | None = None
    for stored in store.checkpoints():
        try:
            manifest = store.manifest(stored)
            if not journal.has(manifest):
                continue
            if here is not None and _rank(here.manifest) >= _rank(manifest):
                return _kept(root, here)
            return _fetched(root, store, stored)
        except StoreDamaged as error:  # or it was pruned just now
            _LOG.error("%s; taking the one before", error)
            damaged = error
    if here is None and damaged is not None:
        raise damaged
    return here and _kept(root, here)


def _kept(root: Path, here: Checkpoint) -> Checkpoint:
    """Return a checkpoint of this disk; newer ones are set aside: they belong to no journal that others go by."""
    for path in checkpoints.list_checkpoints(root):
        if int(path.name) > here.manifest.batch:
            _LOG.warning("%s was learned alone, or under another journal: it is set aside", path)
            durable.set_aside(path, f"alone-{path.name}-{here.manifest.epoch}")
    return here


def _fetched(root: Path, store: CheckpointStore, stored: Stored) -> Checkpoint:
    """Have a checkpoint of the store on this disk, and none beside it."""
    _LOG.info("fetching the checkpoint of batch %d from %s", stored.batch, store.where)
    for older in checkpoints.list_checkpoints(root):
        if int(older.name) == stored.batch:  # of another epoch: what it was is in the store's, too
            durable.remove(older)
    path = store.fetch(stored, root)
    for older in checkpoints.list_checkpoints(root):
        if older != path:
            durable.remove(older)
    return checkpoints.load_checkpoint(path)


def to_begin_with(root: Path, store: CheckpointStore) -> Checkpoint | None:
    """Return the newest checkpoint of all, whatever it belongs to; None where there is none. Raises StateError."""
    if (here := checkpoints.load_newest(root)) is not None:
        return here
    found = store.fetch_newest(root)
    return None if found is None else checkpoints.load_checkpoint(found[1])


def _rank(manifest: Manifest) -> tuple[int, int]:
    return manifest.epoch, manifest.batch


def _newest_here(root: Path, journal: Place) -> Checkpoint | None:
    for path in checkpoints.list_checkpoints(root):
        try:
            if journal.has(checkpoints.load_manifest(path)):
                return checkpoints.load_checkpoint(path)
        except StateError as error:
            _LOG.error("%s; taking the one before", error)
    return None
