"""What does a batch of the log's records change in the catalogue?

The rules are the join's (stream/join/join.py), as far as they can be had without its window:

- A message is an id, its text and its fields: what comes again so is a repetition, with other content it is another
  message, and what the id names from then on. Those before stay, with their labels.
- A label with a text is about the message with its id and that text, with its fields or, where it brings none, without.
  Where there is no such message, it is one itself, until the message comes.
- A label without a text is about the message that its id names when it comes; else it waits for one. (The join refuses
  it where an id has several texts, but for one case; here it goes to the newest.)
- A label whose own id is known with the same label, weight and op is a repetition. The last word counts; one that takes
  labels back leaves none.
- A prediction is of the message that its id names.

What was refused by a limit of the learner (an unknown label, a quota) is here all the same: the log does not say.
Erased records that the log still has are left out. One transaction a batch, and the positions are in it: whatever is
killed, the next one goes on behind it.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from driftline.learner.catalogue import file
from driftline.learner.catalogue.file import FROM_LABEL, FROM_MESSAGE, NO_SCORE, explained
from driftline.learner.catalogue.words import spaced
from driftline.stream.log.base import Chunk, TopicPartition
from driftline.stream.log.merge import Batch
from driftline.stream.wire.fielded import split
from driftline.stream.wire.many import decode_feedbacks, decode_messages
from driftline.stream.wire.note import read_note
from driftline.stream.wire.records import Feedback, Message, Prediction, Topics, decode_prediction
from driftline.stream.wire.vector import without_vector

DROPPED: Final = 500  # messages dropped in one transaction, at most
Found = Message | tuple[Feedback, str | None] | Prediction | None


class Taker:
    """Writes one file. One thread.

    Parameters
    ----------
    limit : messages that it holds at most; beyond, the oldest go
    left : offsets that were erased and that the log may still have

    Raises
    ------
    Unusable, Damaged : also from each method.
    """

    def __init__(
        self,
        path: Path,
        topics: Topics,
        limit: int,
        max_record_bytes: int,
        left: Mapping[TopicPartition, set[int]],
    ) -> None:
        self.path = path
        self._topics, self._limit, self._max_record_bytes, self._left = topics, limit, max_record_bytes, left
        with explained(path):
            self._db = file.connect(path)
            try:
                self.positions = {
                    TopicPartition(topic, partition): position
                    for topic, partition, position in self._db.execute("SELECT * FROM positions")
                }
                self.meta = file.meta(self._db)
                self.count = int(self._db.execute("SELECT count(*) FROM messages").fetchone()[0])
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Give back the file."""
        with suppress(sqlite3.Error):
            self._db.close()

    def note(self, name: str, value: str) -> None:
        """Note something of the whole."""
        with explained(self.path):
            file.note(self._db, name, value)
            self.meta[name] = value

    def take(self, batch: Batch, positions: Mapping[TopicPartition, int]) -> None:
        """Take a batch in; `positions` are those behind it."""
        found = self._decoded(batch.chunks)
        with self._transaction():
            for place in batch.order.tolist():
                partition, offset, timestamp_ms, record = found[place]
                if isinstance(record, Message):
                    self._message(record, partition, offset, timestamp_ms)
                elif isinstance(record, Prediction):
                    self._prediction(record, partition, offset)
                elif record is not None:
                    self._label(record[0], record[1], partition, offset, timestamp_ms)
            self._note_positions(positions)
            self._drop_oldest()

    def note_positions(self, positions: Mapping[TopicPartition, int]) -> None:
        """Note from where on the log is to be read."""
        with self._transaction():
            self._note_positions(positions)

    def drop_before(self, lows: Mapping[TopicPartition, int]) -> bool:
        """Drop some of what the log has no longer, or is beyond the limit; tell whether there may be more.

        `lows` : the log's first offsets
        """
        more = False
        with self._transaction():
            for (topic, partition), low in lows.items():
                if topic == self._topics.predictions:
                    more |= self._delete("predictions", partition, low)
                    continue
                origin = FROM_MESSAGE if topic == self._topics.messages else FROM_LABEL
                rows = self._db.execute(
                    "SELECT number FROM messages WHERE origin = ? AND partition = ? AND offset < ? LIMIT ?",
                    (origin, partition, low, DROPPED),
                ).fetchall()
                self._forget(number for (number,) in rows)
                more |= len(rows) == DROPPED
                if origin == FROM_LABEL and not more:
                    more |= self._delete_labels(partition, low)
            self._drop_oldest()  # the limit may be another one than it was
            more |= self.count > self._limit
        return more

    def _decoded(self, chunks: Iterable[Chunk]) -> list[tuple[int, int, int, Found]]:
        """Return the partition, offset, time and content of each record; None for what is none."""
        found: list[tuple[int, int, int, Found]] = []
        for chunk in chunks:
            topic, partition = chunk.partition
            left = self._left.get(chunk.partition, set())
            records: list[Found]
            if topic == self._topics.messages:
                many = decode_messages(chunk.values, chunk.headers, self._max_record_bytes)
                records = [each if isinstance(each, Message) else None for each in many]
            elif topic == self._topics.feedback:
                labels = decode_feedbacks(chunk.values, chunk.headers, self._max_record_bytes)
                records = [
                    (each, read_note(value or b"")) if isinstance(each, Feedback) else None
                    for each, value in zip(labels, chunk.values, strict=True)
                ]
            else:
                records = list(map(_prediction_in, chunk.values))
            offsets, times_ms = chunk.offsets.tolist(), chunk.timestamps_ms.tolist()
            found += [
                (partition, offset, time_ms, None if offset in left else record)
                for offset, time_ms, record in zip(offsets, times_ms, records, strict=True)
            ]
        return found

    def _message(self, message: Message, partition: int, offset: int, timestamp_ms: int) -> None:
        whole = without_vector(message.text)
        digest = _digest(whole)
        rows = self._db.execute("SELECT number, origin FROM messages WHERE id = ? AND whole = ?", (message.id, digest))
        known = rows.fetchone()
        metadata = bytes(message.metadata).decode() or "{}"
        if known is None:
            number = self._insert(message.id, whole, metadata, FROM_MESSAGE, partition, offset, timestamp_ms)
            self._claim(message.id, number)
        elif known[1] == FROM_LABEL:  # a label brought its text; now it is here itself
            place = FROM_MESSAGE, partition, offset, timestamp_ms, known[0]
            self._db.execute(
                "UPDATE messages SET (origin, partition, offset, timestamp_ms) = (?, ?, ?, ?) WHERE number = ?", place
            )
            self._db.execute("UPDATE texts SET metadata = ? WHERE number = ?", (metadata, known[0]))

    def _label(self, feedback: Feedback, note: str | None, partition: int, offset: int, timestamp_ms: int) -> None:
        key = feedback.message_id
        if feedback.id is not None:
            said = self._db.execute(
                "SELECT label, op, weight FROM labels WHERE message_id = ? AND id = ? ORDER BY number DESC LIMIT 1",
                (key, feedback.id),
            ).fetchone()
            if said is not None and said[1:] == (feedback.op, feedback.weight) and _says(feedback, said[0]):
                return
        message = self._message_of(feedback, partition, offset, timestamp_ms)
        self._db.execute(
            "INSERT INTO labels VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(message, key, partition, offset, timestamp_ms, feedback.label, feedback.op, feedback.source),
                *(feedback.weight, feedback.id, note),
            ),
        )
        if message is not None:
            self._count_label(
                message, feedback.label, feedback.op, feedback.source, timestamp_ms, feedback.weight, note
            )

    def _message_of(self, feedback: Feedback, partition: int, offset: int, timestamp_ms: int) -> int | None:
        """Return the number of the message that a label is about; None: it has to wait."""
        key = feedback.message_id
        if feedback.text is None:
            return self._named(key)
        whole = without_vector(feedback.text)
        digest = _digest(whole)
        row = self._db.execute(
            "SELECT number FROM messages WHERE id = ? AND (whole = ? OR plain = ?)"
            " ORDER BY whole = ? DESC, number DESC",
            (key, digest, digest, digest),
        ).fetchone()
        if row is not None:
            return int(row[0])
        if feedback.op == "retract":
            return None
        return self._insert(key, whole, "{}", FROM_LABEL, partition, offset, timestamp_ms)

    def _named(self, key: str) -> int | None:
        row = self._db.execute("SELECT max(number) FROM messages WHERE id = ?", (key,)).fetchone()
        return None if row[0] is None else int(row[0])

    def _prediction(self, said: Prediction, partition: int, offset: int) -> None:
        message = self._named(said.message_id)
        scores = msgspec.json.encode(said.scores).decode()
        self._db.execute(
            "INSERT INTO predictions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (message, said.message_id, partition, offset, said.label, said.score, scores, said.model_version, said.ts),
        )
        if message is not None:
            self._show_prediction(message, said.label, said.score, said.model_version)

    def _insert(
        self, key: str, whole: str, metadata: str, origin: int, partition: int, offset: int, timestamp_ms: int
    ) -> int:
        text, fields = split(whole)
        digest = _digest(whole)
        plain = digest if not fields else _digest(text)
        cursor = self._db.execute(
            "INSERT INTO messages (id, origin, partition, offset, timestamp_ms, whole, plain, score)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (key, origin, partition, offset, timestamp_ms, digest, plain, NO_SCORE),
        )
        number, told = int(cursor.lastrowid or 0), msgspec.json.encode(fields).decode()
        self._db.execute("INSERT INTO texts VALUES (?, ?, ?, ?)", (number, text, told, metadata))
        self._db.execute("INSERT INTO words (rowid, text, fields) VALUES (?, ?, ?)", (number, *_words(text, told)))
        self.count += 1
        return number

    def _claim(self, key: str, number: int) -> None:
        """Give a message the labels and predictions that waited for it."""
        waiting = self._db.execute(
            "SELECT number, label, op, source, timestamp_ms, weight, note FROM labels"
            " WHERE message_id = ? AND message IS NULL ORDER BY number",
            (key,),
        ).fetchall()
        for place, *said in waiting:
            self._db.execute("UPDATE labels SET message = ? WHERE number = ?", (number, place))
            self._count_label(number, *said)
        found = self._db.execute(
            "SELECT number, label, score, model_version FROM predictions"
            " WHERE message_id = ? AND message IS NULL ORDER BY number",
            (key,),
        ).fetchall()
        for place, *said in found:
            self._db.execute("UPDATE predictions SET message = ? WHERE number = ?", (number, place))
            self._show_prediction(number, *said)

    def _count_label(
        self, number: int, label: str, op: str, source: str | None, time_ms: int, weight: float, note: str | None
    ) -> None:
        stands = op != "retract"
        self._db.execute(
            "UPDATE messages SET label = ?, label_source = ?, label_ms = ?, weight = ?, note = ?, retracted = ?,"
            " n_labels = n_labels + 1 WHERE number = ?",
            (label if stands else None, source, time_ms, weight, note, not stands, number),
        )

    def _show_prediction(self, number: int, label: str | None, score: float, model_version: str) -> None:
        self._db.execute(
            "UPDATE messages SET predicted = ?, score = ?, model_version = ? WHERE number = ?",
            (label, score, model_version, number),
        )

    def _drop_oldest(self) -> None:
        """Drop what is beyond the limit, oldest first: of messages, and of labels and predictions that wait."""
        if self.count > self._limit:
            n = min(self.count - self._limit, 4 * DROPPED)
            rows = self._db.execute("SELECT number FROM messages ORDER BY number LIMIT ?", (n,)).fetchall()
            self._forget(number for (number,) in rows)
        for table in ("labels", "predictions"):  # each message has one or two, as a rule
            self._db.execute(
                f"DELETE FROM {table} WHERE number IN (SELECT number FROM {table} WHERE message IS NULL"
                f" AND number < (SELECT max(number) FROM {table}) - ? LIMIT ?)",
                (2 * self._limit + DROPPED, 4 * DROPPED),
            )

    def _forget(self, numbers: Iterable[int]) -> None:
        """Drop messages, and what was said of them."""
        for number in numbers:
            text, fields = self._db.execute("SELECT text, fields FROM texts WHERE number = ?", (number,)).fetchone()
            (key,) = self._db.execute("SELECT id FROM messages WHERE number = ?", (number,)).fetchone()
            self._db.execute(
                "INSERT INTO words (words, rowid, text, fields) VALUES ('delete', ?, ?, ?)",
                (number, *_words(text, fields)),
            )
            self._db.execute("DELETE FROM messages WHERE number = ?", (number,))
            self._db.execute("DELETE FROM texts WHERE number = ?", (number,))
            for table in ("labels", "predictions"):
                self._db.execute(f"DELETE FROM {table} WHERE message_id = ? AND message = ?", (key, number))
            self.count -= 1

    def _delete(self, table: str, partition: int, low: int) -> bool:
        """Delete rows of a table whose records the log has no longer; tell whether there may be more."""
        sql = f"SELECT number FROM {table} WHERE partition = ? AND offset < ? LIMIT ?"
        rows = self._db.execute(sql, (partition, low, DROPPED)).fetchall()
        self._db.executemany(f"DELETE FROM {table} WHERE number = ?", rows)
        return len(rows) == DROPPED

    def _delete_labels(self, partition: int, low: int) -> bool:
        """Delete labels that wait for a message, and that the log has no longer: others go with their message."""
        rows = self._db.execute(
            "SELECT number FROM labels WHERE partition = ? AND offset < ? AND message IS NULL LIMIT ?",
            (partition, low, DROPPED),
        ).fetchall()
        self._db.executemany("DELETE FROM labels WHERE number = ?", rows)
        return len(rows) == DROPPED

    def _note_positions(self, positions: Mapping[TopicPartition, int]) -> None:
        rows = [(*partition, position) for partition, position in positions.items()]
        self._db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", rows)
        self.positions.update(positions)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Do all of it or nothing."""
        before = self.count
        with explained(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self.count = before
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise


def _prediction_in(value: bytes | None) -> Prediction | None:
    with suppress(ValueError, RecursionError):
        return decode_prediction(value or b"")
    return None


def _says(feedback: Feedback, label: str) -> bool:
    return feedback.op == "retract" or feedback.label == label


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _words(text: str, fields: str) -> tuple[str, str]:
    return spaced(text), spaced(fields) if fields != "{}" else ""
