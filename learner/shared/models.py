"""Where do the models lie that can be served again, so that every machine can serve them?

In the store of checkpoints, below models/, each one object that is named by its version and its SHA-256: apart from the
checkpoints, since a checkpoint goes when newer ones come, and the model of it may stay for long. Where the checkpoint
is in the store its model is copied there, without a way over this machine. Nothing here chooses which are kept: that
does the leader (versions.py, `keep`), and tells the others.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from driftline.learner.serving.versions import MODEL, Kept, Versions
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.learner.store.stored import Name, StoredFile
from driftline.stream.errors import StateError, StoreDamaged
from driftline.stream.process.settings import StreamSettings

MODELS: Final = "models/"
_KEY: Final = re.compile(MODELS + r"([A-Za-z0-9._-]{1,100})-([0-9a-f]{64})\.safetensors")


class ModelName(NamedTuple):
    """What a model in the store is called."""

    version: str
    sha256: str

    @property
    def key(self) -> str:
        """Of its object."""
        return f"{MODELS}{self.version}-{self.sha256}.safetensors"


def name_of(kept: Kept) -> ModelName:
    """Return what a version's model is called."""
    return ModelName(kept.version, kept.sha256)


class Models:
    """The models of the past in a store. Any process; one thread at a time for `put`, any for the rest.

    Raises
    ------
    StoreUnavailable : from any method: it does not answer, or (StoreDenied) refuses.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store

    def names(self) -> set[ModelName]:
        """Return which are there."""
        found = (_KEY.fullmatch(key) for key in self._store.keys(MODELS))
        return {ModelName(each[1], each[2]) for each in found if each is not None}

    def newest(self) -> Name | None:
        """Return the name of the newest checkpoint beside them."""
        return next(iter(self._store.names()), None)

    def put(self, kept: Kept, path: Path, check: Callable[[], None] = lambda: None) -> None:
        """Put a version's model there, from its checkpoint if that is there, else from this disk.

        Parameters
        ----------
        path : where it lies on this disk
        check : called before it is there; what it raises prevents that

        Raises
        ------
        StateError, OSError : it is damaged, or gone.
        """
        key = name_of(kept).key
        checkpoint = self._store.read(Name(kept.epoch, kept.checkpoint))
        check()
        if checkpoint is not None and checkpoint.files[MODEL].sha256 == kept.sha256:
            try:
                self._store.copy(checkpoint.directory + MODEL, key)
            except FileNotFoundError:
                pass  # it was pruned just now
            else:
                return
        self._store.put_file(path, key, kept.sha256, check)

    def drop(self, name: ModelName) -> None:
        """Have a model there no more; one that is gone already is fine."""
        self._store.delete(name.key)

    def content(self, kept: Kept) -> Iterator[bytes]:
        """Give a version's model, piece by piece. Raises StoreDamaged, at the end at the latest."""
        expected = StoredFile(kept.n_bytes, kept.sha256)
        return self._store.pieces(name_of(kept).key, expected, f"the model of version {kept.version}")


def have_model(versions: Versions, models: Models | None, version: str) -> None:
    """Return once a version's model is on this disk: fetched, where it is not.

    Raises
    ------
    UnknownVersion : it is not kept.
    StateError : the store does not have it, or what it has is damaged; there is no store.
    StoreUnavailable : the store does not answer; DiskFull : there is no room.
    """
    kept = versions.get(version)
    if versions.has_model(version):
        return
    if models is None:
        raise StateError(f"the model of version {version} is not on this disk: name the store with --checkpoints")
    try:
        versions.bring(kept, models.content(kept))
    except StoreDamaged as error:
        raise StateError(str(error)) from None


def try_model(stream: StreamSettings, version: str) -> None:
    """Return where a version can be served; its model is on this disk then.

    Raises
    ------
    ConfigError : it is of another library, and that was not allowed; else as `have_model`.
    """
    versions = Versions(stream.data)
    have_model(versions, None if stream.checkpoints is None else Models(CheckpointStore(stream.checkpoints)), version)
    versions.open(version, allow_pickle=stream.allow_pickle)
