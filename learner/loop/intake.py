"""When is it better to take nothing more in?

When most of what comes cannot be read: a producer is broken, or writes something else to this topic, and to pour the
topic into the dead-letter topic would help nobody. Before a batch changes anything, it is looked at: where more than
`limit` of RECENT records that follow one another could not be read, the batch is refused. Nothing of it is lost; it
is taken once a person has allowed it (`--dead-letter-limit 1`).

Only records that cannot be read count. Labels that found no message, labels beyond `max_labels` and labels beyond a
quota go to the dead-letter topic, too, but who sends those must not be able to stop the others. Nothing that a model
depends on is decided here, so none of this is replayed.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.machine.machine import Machine
from driftline.stream.errors import BadRecord, TooManyDeadLetters
from driftline.stream.log.merge import Batch

RECENT: Final = 1000
EMBED_RECORDS: Final = 256  # in a batch, where a sentence model makes vectors: a second or two, not half a minute
LEAST: Final = 500  # of fewer records the share says little


class Intake:
    """Remembers which of the last records could be read. One thread.

    Parameters
    ----------
    limit : the share that may be unreadable; 1: any
    topic : for dead letters, to be named
    records : in a batch, at most
    """

    def __init__(self, limit: float, topic: str, records: int = 4096) -> None:
        self._limit, self._topic, self._records = limit, topic, records
        self._recent: NDArray[np.bool_] = np.zeros(0, bool)

    def most(self, machine: Machine) -> int:
        """Return how many records the next batch may have: few where each text may take a millisecond or several."""
        return self._records if machine.classifier.embedder is None else min(self._records, EMBED_RECORDS)

    def admit(self, batch: Batch, found: Sequence[Any]) -> None:
        """Take note of a batch.

        Parameters
        ----------
        found : n records, what was read of each or BadRecord; in the order of the batch's chunks

        Raises
        ------
        TooManyDeadLetters : it is to be left where it is; no note was taken.
        """
        bad = np.zeros(len(found), bool)
        if BadRecord in set(map(type, found)):
            bad = np.fromiter((type(each) is BadRecord for each in found), bool, len(found))[batch.order]
        flags = np.concatenate([self._recent, bad])
        if bad.any():
            self._check(flags, batch, found)
        self._recent = flags[-RECENT:]

    def _check(self, flags: NDArray[np.bool_], batch: Batch, found: Sequence[Any]) -> None:
        sums = np.concatenate([[0], np.cumsum(flags)])
        ends = np.arange(max(len(self._recent), LEAST), len(sums))
        starts = np.maximum(ends - RECENT, 0)
        n_bad = sums[ends] - sums[starts]
        over = np.flatnonzero(n_bad > self._limit * (ends - starts))
        if len(over):
            n = int((ends - starts)[over[0]])
            raise TooManyDeadLetters(self._explain(int(n_bad[over[0]]), n, batch, found))

    def _explain(self, n_bad: int, n: int, batch: Batch, found: Sequence[Any]) -> str:
        bad = [index for index, place in enumerate(batch.order.tolist()) if type(found[place]) is BadRecord]
        kinds = Counter((batch[index].partition.topic, found[batch.order[index]].error) for index in bad)
        (topic, error), _ = kinds.most_common(1)[0]
        example = next(index for index in bad if batch[index].partition.topic == topic)
        record, why = batch[example], found[batch.order[example]]
        return (
            f"{n_bad:,} of {n:,} records cannot be read, most of them in {topic} ({error}), such as {record.partition} "
            f"offset {record.offset} ({why}). Nothing more is taken in, and nothing is lost. Mend what writes to "
            f"{topic}; then start the learner once with --dead-letter-limit 1, which sends them to {self._topic}"
        )
