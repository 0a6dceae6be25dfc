"""With what does a learner begin whose directory has no checkpoint? With the newest one in the store, if there is one.

There is no journal behind it here. So what came after it is read from the log by its positions, and learned under a
lineage of its own, as after every start: a version never stands for two models. A store that does not answer is waited
for (loop/service.py): to begin with nothing would be to forget a model for a cable.
"""

import logging
from contextlib import suppress
from functools import partial
from typing import Final

from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import Checkpoint, load_checkpoint
from driftline.learner.disk.lock import Lock
from driftline.learner.disk.settings import DEFAULT_MODEL
from driftline.learner.report.starting import Start, telling
from driftline.learner.report.status import change_status, last_status
from driftline.learner.state.ledger import Ledger
from driftline.learner.store.stored import Stored
from driftline.stream.errors import DiskFull
from driftline.stream.process import threads
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

_LOG: Final = logging.getLogger(__name__)


def fetch_newest(stream: StreamSettings, asked: str | None, ledger: Ledger, lock: Lock) -> Checkpoint | None:
    """Have the store's newest whole checkpoint in the data directory, and return it; None where there is none.

    `asked`: the model, as the status is to name it.

    Raises
    ------
    StoreUnavailable : the store does not answer, or refuses.
    StoreDamaged : it has checkpoints, and none is whole.
    Overtaken : another learner has taken over.
    """
    store = ledger.store
    if store is None:
        return None
    status, done, share = last_status(stream.data, asked or DEFAULT_MODEL), 0, 0.0

    def tell(start: Start) -> None:
        lock.check()
        with suppress(DiskFull):
            change_status(stream.data, status, "starting", str(start), lock.last_epoch(), start)

    def on_bytes(checkpoint: Stored, n: int) -> None:
        nonlocal done, share
        done += n
        share = min(1.0, done / max(1, checkpoint.bytes))

    root = stream.data / "checkpoints"
    with telling(tell, "fetching the checkpoint", lambda: share):
        durable.make_directory(root)
        names = threads.heard("fetching", store.names)
        ledger.begin_above(max((name.epoch for name in names), default=0))
        found = threads.heard("fetching", partial(store.fetch_newest, root, on_bytes))
    if found is None:
        _LOG.info("%s has no checkpoint yet: a model begins that has learned nothing", store.where)
        return None
    stored, path = found
    learned = counted(stored.labels_learned, "label")
    _LOG.warning(
        "%s has no checkpoint: going on from checkpoint %d of %s in %s, with %s learned; the log has the rest",
        *(stream.data, stored.batch, stored.created_at, store.where, learned),
    )
    return load_checkpoint(path)
