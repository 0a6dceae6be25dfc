"""How does a learner get from a checkpoint to where it was?

a, b and c of the recovery (learner/loop.py): what the log still has of what came after the checkpoint is counted, then
applied again in the journals' order, and what may not have been sent is sent again, with the same content. Nothing here
is written to the disk.
"""

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from learner.alarms import log_alarms
from learner.checkpoint import Manifest, by_partition
from learner.journal import Applied
from learner.machine import Machine
from learner.outbox import Outbox
from learner.positions import Shortfall, Standing, Stock, compare, reached
from stream.errors import LogUnavailable
from stream.log import Log, TopicState
from stream.merge import Merger

POLL_S: Final = 0.05
START_S: Final = 10.0  # how long brokers may take to elect leaders
_LOG: Final = logging.getLogger(__name__)


def describe(log: Log, topics: Sequence[str]) -> Mapping[str, TopicState]:
    """Return topics as they are, once all are there and have a leader. Raises LogUnavailable."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            found = log.describe(topics)
            if len(found) == len(topics):
                break
            raise LogUnavailable(f"{' or '.join(topics)} was deleted just now; start again")
        except LogUnavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)
    if None in (state.identity for state in found.values()):
        _LOG.warning("the log gives its topics no ids: that one was made again shows only where it is shorter")
    return found


def check_unchanged(log: Log, known: Mapping[str, TopicState]) -> None:
    """Refuse what was replayed from a topic that was made again meanwhile. Raises LogUnavailable."""
    now = describe(log, list(known))
    if any(state.identity != known[topic].identity for topic, state in now.items()):
        raise LogUnavailable("a topic was made again during the recovery; start again")


def take_stock(
    manifest: Manifest, todo: Sequence[Applied], log: Mapping[str, TopicState], *, accept_loss: bool
) -> Stock:
    """Compare a checkpoint, and the journal after it, with the log.

    Raises
    ------
    RecordsLost : something is gone, and that was not accepted.
    """
    held = by_partition(manifest.positions)
    standing = Standing(held, reached(held, todo), by_partition(manifest.ends), manifest.identities)
    stock = compare(standing, log)
    if not accept_loss:
        stock.refuse()
    return stock


def replay(
    todo: Sequence[Applied],
    machine: Machine,
    merger: Merger,
    outbox: Outbox,
    stock: Stock,
    *,
    accept_loss: bool,
    on_batch: Callable[[int], None],
    on_wait: Callable[[], None],
) -> None:
    """Apply batches again. What is found to be missing is added to the stock's losses.

    Parameters
    ----------
    outbox : what comes after its `delivered` is sent
    on_batch : called with each batch's number once it was applied
    on_wait : called while the log takes no more in

    Raises
    ------
    RecordsLost : that was not accepted. Nothing that comes of it was sent; all of it is counted first.
    """
    short, delivered = Shortfall(), outbox.delivered
    for applied in todo:
        if applied.rules != machine.rules:
            machine.obey(applied.rules)
            merger.obey(applied.rules.max_clock_jump_ms)
        batch = merger.take_spans(applied.spans)
        if short.add(applied.spans, batch.spans):
            machine.lineage = new_lineage()  # as where spans are left out
        if short.losses() and not accept_loss:
            continue
        outputs = machine.apply(batch) if len(batch) else {}
        if applied.batch > delivered:
            while outbox.full:
                outbox.wait(POLL_S)
                on_wait()
            outbox.send(applied.batch, outputs)
            log_alarms(machine.raised if len(batch) else [])
        on_batch(applied.batch)
    stock.losses.extend(short.losses())
    if not accept_loss:
        stock.refuse()


def new_lineage() -> str:
    """Return a name for models that none had before."""
    return uuid.uuid4().hex[:8]
