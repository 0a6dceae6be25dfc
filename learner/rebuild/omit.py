"""Which labels is a model built without?

Those that were taken back later: a retraction takes out all labels of its message that lie before it in its partition,
or, where the producer spread them over several, that are not younger; one with a text takes out none that have another.
And those that were asked to be left out, by source, id, label or time; what an excluded source took back stays. And
what was erased, where the log still has it.

What comes twice is once, as in the join: a retraction that is sent again takes nothing more out, and a label that was
taken out does not come back when it is sent again.

The retractions are collected first, in one pass over the labels, into a table on the disk: there may be any number.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.disk.rebuilt import LeftOut
from driftline.stream.join.feedback_said import weight_bits
from driftline.stream.log.base import Chunk, Log, TopicPartition
from driftline.stream.log.bounded import Bounded
from driftline.stream.log.merge import Batch
from driftline.stream.wire.fielded import text_of
from driftline.stream.wire.many import decode_feedbacks
from driftline.stream.wire.records import Feedback
from driftline.stream.wire.vector import without_vector

READ_RECORDS: Final = 8192
ASKED: Final = 400  # pairs looked up at once
# A text is its hash. Of a retraction it may be NO_TEXT, and for labels without a text each is under ANY_TEXT too.
NO_TEXT: Final = ""
ANY_TEXT: Final = "*"
# Before the hash of a text alone: what a retraction said with fields to labels without, and the other way round.
WITH_FIELDS, WITHOUT_FIELDS = "+", "-"
# `retracted`: the last offset of a partition's retractions, and their highest time. `said`: ids whose last word is a
# retraction. `taken`: ids of labels that were taken out, with what they said last.
_MAKE: Final = """
CREATE TABLE retracted (
    message_id TEXT, text TEXT, partition INTEGER, offset INTEGER, timestamp_ms INTEGER,
    PRIMARY KEY (message_id, text, partition)
) WITHOUT ROWID;
CREATE TABLE said (
    message_id TEXT, text TEXT, id TEXT, partition INTEGER, PRIMARY KEY (message_id, text, id, partition)
) WITHOUT ROWID;
CREATE TABLE taken (
    message_id TEXT, id TEXT, partition INTEGER, label TEXT, weight INTEGER, PRIMARY KEY (message_id, id, partition)
) WITHOUT ROWID;
"""
_ADD: Final = """
INSERT INTO retracted VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
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
    """All retractions of a log, and the labels that they took out so far, on the disk. One thread.

    Parameters
    ----------
    path : of a file that is made if it is not there; "" for a temporary one

    Raises
    ------
    sqlite3.Error : it cannot be read.
    """

    def __init__(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path)
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'retracted'").fetchone():
            self._db.executescript(_MAKE)
        self._db.execute("SELECT 1 FROM taken LIMIT 1")  # an older version had none: that is refused here

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
        found = False
        with closing(reader), self._db:
            while not all(map(reader.at_end, reader.partitions)):
                for chunk in reader.fetch(READ_RECORDS, 0.05):
                    decoded = decode_feedbacks(chunk.values, chunk.headers, max_record_bytes)
                    for place, feedback in enumerate(decoded):
                        if type(feedback) is not Feedback or _is_excluded(feedback, left_out):
                            continue
                        if feedback.op == "retract":
                            found = True
                            self._add(feedback, chunk, place)
                        elif found and feedback.id is not None:
                            self._db.execute(
                                "DELETE FROM said WHERE (message_id, text, id, partition) = (?, ?, ?, ?)",
                                (*_key(feedback), chunk.partition.partition),
                            )
                    on_records(len(chunk))

    def _add(self, feedback: Feedback, chunk: Chunk, place: int) -> None:
        message_id, text, feedback_id = _key(feedback)
        number, offset = chunk.partition.partition, int(chunk.offsets[place])
        if feedback_id is not None:
            said = (message_id, text, feedback_id, number)
            if not self._db.execute("INSERT OR IGNORE INTO said VALUES (?, ?, ?, ?)", said).rowcount:
                return  # it was said already
        for each in (text, ANY_TEXT, *_beside(feedback.text, of_label=False)):
            self._db.execute(_ADD, (message_id, each, number, offset, int(chunk.timestamps_ms[place])))

    def of(self, labels: Iterable[Feedback]) -> dict[tuple[str, str], list[Retraction]]:
        """Return the retractions that may take some labels out, by message and `texts_of` a label."""
        asked = list(dict.fromkeys((each.message_id, text) for each in labels for text in texts_of(each)))
        found: dict[tuple[str, str], list[Retraction]] = {}
        for start in range(0, len(asked), ASKED):
            some = asked[start : start + ASKED]
            sql = f"SELECT * FROM retracted WHERE (message_id, text) IN (VALUES {','.join(['(?, ?)'] * len(some))})"
            for message_id, text, *place in self._db.execute(sql, [value for pair in some for value in pair]):
                found.setdefault((message_id, text), []).append(Retraction(*place))
        return found

    def note_taken(self, label: Feedback, partition: int) -> None:
        """Keep what a label said that was taken out."""
        if label.id is not None:
            said = label.message_id, label.id, partition, label.label, weight_bits(label.weight)
            self._db.execute("INSERT OR REPLACE INTO taken VALUES (?, ?, ?, ?, ?)", said)

    def comes_again(self, label: Feedback, partition: int) -> bool:
        """Tell whether a label says what its id said when it was taken out. One that says something else is another."""
        if label.id is None:
            return False
        where, key = "WHERE (message_id, id, partition) = (?, ?, ?)", (label.message_id, label.id, partition)
        said = self._db.execute(f"SELECT label, weight FROM taken {where}", key).fetchone()
        if said is None or said == (label.label, weight_bits(label.weight)):
            return said is not None
        self._db.execute(f"DELETE FROM taken {where}", key)
        return False

    @property
    def any(self) -> bool:
        """Whether there is one at all."""
        return self._db.execute("SELECT 1 FROM retracted LIMIT 1").fetchone() is not None

    def keep(self) -> None:
        """Keep what was taken out, for whoever builds on; what is not kept is not there the next time."""
        self._db.commit()

    def close(self) -> None:
        """Give back the file."""
        self._db.close()


def texts_of(label: Feedback) -> tuple[str, ...]:
    """Return under which texts a label's retractions are found."""
    if label.text is None:
        return (ANY_TEXT,)
    return (NO_TEXT, _hash(label.text), *_beside(label.text, of_label=True))


def _beside(text: str | None, *, of_label: bool) -> tuple[str, ...]:
    """Return under which text a label and a retraction meet of which one leaves out the fields that the other has."""
    if text is None:
        return ()
    bare = text_of(text)
    return ((WITH_FIELDS if (bare == without_vector(text)) == of_label else WITHOUT_FIELDS) + _hash(bare),)


def _key(feedback: Feedback) -> tuple[str, str, str | None]:
    return feedback.message_id, NO_TEXT if feedback.text is None else _hash(feedback.text), feedback.id


def _hash(text: str) -> str:
    return hashlib.blake2b(without_vector(text).encode(), digest_size=16).hexdigest()


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
        retracted = self._retractions.of(feedback for _, feedback in labels) if self._retractions else {}
        until_ms, names = self._left_out.until_ms, self._left_out.labels
        kept = np.ones(len(chunk), bool)
        for place, feedback in labels:
            offset, timestamp_ms = int(chunk.offsets[place]), int(chunk.timestamps_ms[place])
            is_label = feedback.op == "upsert"
            late = until_ms is not None and timestamp_ms > until_ms
            if _is_excluded(feedback, self._left_out) or (is_label and (late or feedback.label in names)):
                kept[place] = False
                self.excluded += is_label
            elif is_label and self._retractions is not None:
                number = chunk.partition.partition
                found = [each for text in texts_of(feedback) for each in retracted.get((feedback.message_id, text), ())]
                if any(each.takes(number, offset, timestamp_ms) for each in found):
                    self._retractions.note_taken(feedback, number)
                elif not found or not self._retractions.comes_again(feedback, number):
                    continue
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
