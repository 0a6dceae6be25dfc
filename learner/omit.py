"""Which labels is a model built without?

Those that were taken back later: a retraction takes out all labels of its message that lie before it in its partition,
or, where the producer spread them over several, that are not younger. And those that were asked to be left out, by
source, id, label or time; what an excluded source took back stays. And what was erased, where the log still has it. The
retractions are collected first, in one pass over the labels, into a table on the disk: there may be any number.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.rebuilt import LeftOut
from driftline.stream.bounded import Bounded
from driftline.stream.log import Chunk, Log, TopicPartition
from driftline.stream.merge import Batch
from driftline.stream.records import Feedback, decode_feedbacks

READ_RECORDS: Final = 8192
ASKED: Final = 500  # ids looked up at once
_MAKE: Final = """
CREATE TABLE retracted (
    message_id TEXT, partition INTEGER, offset INTEGER, timestamp_ms INTEGER, PRIMARY KEY (message_id, partition)
) WITHOUT ROWID
"""
_ADD: Final = """
INSERT INTO retracted VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    offset = max(offset, excluded.offset), timestamp_ms = max(timestamp_ms, excluded.timestamp_ms)
"""


class Retraction(NamedTuple):
    """The last one of a message in a partition, and the highest time of any there."""

    partition: int
    offset: int
    timestamp_ms: int

    def takes(self, partition: int, offset: int, timestamp_ms: int) -> bool:
        """Tell whether it takes a label out."""
        return offset < self.offset if partition == self.partition else timestamp_ms <= self.timestamp_ms


class Retractions:
    """All retractions of a log, on the disk. One thread.

    Parameters
    ----------
    path : of a file that is made if it is not there; "" for a temporary one
    """

    def __init__(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path)
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'retracted'").fetchone():
            self._db.execute(_MAKE)

    def collect(
        self,
        log: Log,
        starts: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        left_out: LeftOut,
        max_record_bytes: int,
        on_records: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Read labels from some positions up to others, and keep what was taken back."""
        reader = Bounded(log.reader(starts), starts, ends)
        with closing(reader), self._db:
            while not all(map(reader.at_end, reader.partitions)):
                for chunk in reader.fetch(READ_RECORDS, 0.05):
                    self._db.executemany(_ADD, _retractions(chunk, left_out, max_record_bytes))
                    on_records(len(chunk))

    def of(self, message_ids: Iterable[str]) -> dict[str, list[Retraction]]:
        """Return the retractions of those messages that have any."""
        ids = list(dict.fromkeys(message_ids))
        found: dict[str, list[Retraction]] = {}
        for start in range(0, len(ids), ASKED):
            asked = ids[start : start + ASKED]
            sql = f"SELECT * FROM retracted WHERE message_id IN ({','.join('?' * len(asked))})"
            for message_id, *place in self._db.execute(sql, asked):
                found.setdefault(message_id, []).append(Retraction(*place))
        return found

    @property
    def any(self) -> bool:
        """Whether there is one at all."""
        return self._db.execute("SELECT 1 FROM retracted LIMIT 1").fetchone() is not None

    def close(self) -> None:
        """Give back the file."""
        self._db.close()


def _retractions(chunk: Chunk, left_out: LeftOut, max_record_bytes: int) -> list[tuple[str, int, int, int]]:
    decoded = decode_feedbacks(chunk.values, chunk.headers, max_record_bytes)
    return [
        (feedback.message_id, chunk.partition.partition, offset, timestamp_ms)
        for feedback, offset, timestamp_ms in zip(
            decoded, chunk.offsets.tolist(), chunk.timestamps_ms.tolist(), strict=True
        )
        if type(feedback) is Feedback and feedback.op == "retract" and not _is_excluded(feedback, left_out)
    ]


def _is_excluded(feedback: Feedback, left_out: LeftOut) -> bool:
    return feedback.source in left_out.sources or feedback.id in left_out.ids or feedback.message_id in left_out.ids


class Omit:
    """Takes labels out of batches. One thread.

    Attributes
    ----------
    retracted, excluded : how many it took out because they were taken back, and because it was asked to
    """

    def __init__(
        self,
        topic: str,
        left_out: LeftOut,
        retractions: Retractions,
        max_record_bytes: int,
        erased: Mapping[TopicPartition, set[int]] | None = None,
    ) -> None:
        self._topic, self._left_out, self._max_record_bytes = topic, left_out, max_record_bytes
        self._retractions = retractions if retractions.any else None
        self._erased = {partition: np.array(sorted(offsets)) for partition, offsets in (erased or {}).items()}
        self._idle = self._retractions is None and left_out == LeftOut() and not self._erased
        self.retracted = self.excluded = 0

    def __call__(self, batch: Batch) -> Batch:
        """Return a batch without them; its spans stay."""
        if self._idle:
            return batch
        kept = [
            self._kept(chunk) if chunk.partition.topic == self._topic else np.ones(len(chunk), bool)
            for chunk in batch.chunks
        ]
        there = [~np.isin(chunk.offsets, self._erased.get(chunk.partition, ())) for chunk in batch.chunks]
        by_place = np.concatenate(kept) & np.concatenate(there)
        return batch if by_place.all() else select(batch, by_place[batch.order])

    def _kept(self, chunk: Chunk) -> NDArray[np.bool_]:
        """Return which of a chunk's records stay: all that are no label to be left out."""
        decoded = decode_feedbacks(chunk.values, chunk.headers, self._max_record_bytes)
        labels = [(place, feedback) for place, feedback in enumerate(decoded) if type(feedback) is Feedback]
        retracted = self._retractions.of(feedback.message_id for _, feedback in labels) if self._retractions else {}
        until_ms, names = self._left_out.until_ms, self._left_out.labels
        kept = np.ones(len(chunk), bool)
        for place, feedback in labels:
            offset, timestamp_ms = int(chunk.offsets[place]), int(chunk.timestamps_ms[place])
            is_label = feedback.op == "upsert"
            late = until_ms is not None and timestamp_ms > until_ms
            if _is_excluded(feedback, self._left_out) or (is_label and (late or feedback.label in names)):
                kept[place] = False
                self.excluded += is_label
            elif is_label and any(
                each.takes(chunk.partition.partition, offset, timestamp_ms)
                for each in retracted.get(feedback.message_id, ())
            ):
                kept[place] = False
                self.retracted += 1
        return kept


def select(batch: Batch, kept: NDArray[np.bool_]) -> Batch:
    """Return a batch with some of its records; `kept` goes by the batch's order."""
    by_place = np.zeros(len(batch), bool)
    by_place[batch.order] = kept
    chunks, start = [], 0
    for chunk in batch.chunks:
        places = np.flatnonzero(by_place[start : start + len(chunk)])
        start += len(chunk)
        if len(places):
            chunks.append(chunk if len(places) == len(chunk) else _pick(chunk, places))
    order = (np.cumsum(by_place) - 1)[batch.order[kept]]
    claims_ms = None if batch.claims_ms is None else batch.claims_ms[kept]
    return Batch(chunks, order, batch.spans, batch.disbelieved, claims_ms)


def _pick(chunk: Chunk, places: NDArray[np.int64]) -> Chunk:
    chosen = places.tolist()
    return Chunk(
        chunk.partition,
        chunk.offsets[places],
        chunk.timestamps_ms[places],
        [chunk.keys[place] for place in chosen],
        [chunk.values[place] for place in chosen],
        chunk.headers and [chunk.headers[place] for place in chosen],
    )
