"""How is a copy made by hand, and gone on from? `driftline backup` and `driftline restore`.

A copy is the same as those that a learner makes by itself, in the same kind of place. It may be made beside a learner:
its newest checkpoint is held by second names, so that the learner may let it go meanwhile.
"""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable
from driftline.learner.disk.lock import Lock, alone
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.learner.store.stored import Stored
from driftline.learner.store.uploads import hold
from driftline.stream.errors import ConfigError, StateError

DIRECTORY: Final = "backup"  # of the data directory, while a copy is made
LOCK: Final = "backup.lock"
# What a learner has written: with any of it a restored checkpoint would not be the only state in the directory.
STATE: Final = ("checkpoints", "journal", "snapshots", "bases", "rebuild")
TRIES: Final = 5
RETRY_S: Final = 0.2


def back_up(data: Path, store: CheckpointStore) -> Stored:
    """Put the newest whole checkpoint of a data directory into a store; a learner may be at work.

    Raises
    ------
    StateError : there is none; or another backup is under way.
    StoreError : it cannot be put there.
    """
    if not data.is_dir():
        raise StateError(f"{data} is not there: name the learner's directory with --data")
    with alone(data / LOCK, f"another backup of {data} is under way; wait for it"):
        why = f"{data} holds no checkpoint: no learner has run there yet"
        for _ in range(TRIES):
            for path in checkpoints.list_checkpoints(data / "checkpoints"):
                durable.remove(data / DIRECTORY)  # also what one has left that was killed
                try:
                    return store.put(hold(path, data / DIRECTORY))
                except (StateError, FileNotFoundError) as error:  # damaged; or the learner has just let it go
                    why = f"no checkpoint in {data} is whole: {error}"
                finally:
                    durable.remove(data / DIRECTORY)
            time.sleep(RETRY_S)
        raise StateError(why)


def restore(
    data: Path, store: CheckpointStore, batch: int | None, on_bytes: Callable[[int, int], None] = lambda *_: None
) -> Stored:
    """Fetch a checkpoint into a data directory without one; return which.

    A learner that goes on from it is later than all that have put checkpoints there, also where it is not the newest.

    Parameters
    ----------
    batch : which; None: the newest that is whole
    on_bytes : called with how many came in so far, of how many

    Raises
    ------
    StateError : the directory has a learner's state, or a learner.
    ConfigError : there is no checkpoint, or none of this batch.
    StoreDamaged : it is not whole.
    """
    with closing(Lock(data)) as lock:
        root = data / "checkpoints"
        durable.make_directory(root)
        durable.remove_partial(root)  # left by one that was killed here
        if found := [name for name in STATE if any((data / name).glob("*"))]:
            raise StateError(
                f"{data} has a learner's state already ({', '.join(found)}): nothing was changed. Name an empty "
                "directory with --data; or stop the learner, move these away, and restore again"
            )
        names = store.names()
        lock.announce(max([lock.last_epoch(), *(name.epoch for name in names)]))
        done = 0

        def note(checkpoint: Stored, n: int) -> None:
            nonlocal done
            done += n
            on_bytes(done, checkpoint.bytes)

        if batch is None:
            if (newest := store.fetch_newest(root, note)) is None:
                raise ConfigError(f"{store.where} has no checkpoint: nothing was put there yet, or it is another place")
            return newest[0]
        if (chosen := next((each for each in store.checkpoints() if each.batch == batch), None)) is None:
            there = ", ".join(str(name.batch) for name in names) or "none"
            raise ConfigError(f"batch: {store.where} has no whole checkpoint {batch}; there are: {there}")
        store.fetch(chosen, root, lambda n: note(chosen, n))
        return chosen
