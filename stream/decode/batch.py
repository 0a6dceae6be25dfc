"""What does a batch say? Its values, decoded into columns: the ordinary ones by a scan, the rest one by one."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.stream.decode.scan import CONTENT, KEY, LABEL, MESSAGE, N_FIELDS, ODD, OWN, SIZE, scan
from driftline.stream.log.base import Chunk
from driftline.stream.log.merge import Batch
from driftline.stream.wire.column import PADDING, Column
from driftline.stream.wire.events import has_event_headers
from driftline.stream.wire.many import decode_feedbacks, decode_messages
from driftline.stream.wire.records import READING, Feedback, Message

OTHER: Final = 3  # neither a message nor a label: what it is stands in `found`

Ints = NDArray[np.int64]


class Decoded(NamedTuple):
    """A batch's records, chunk by chunk, in columns.

    Attributes
    ----------
    order : of the batch
    kinds, fields : see decode/scan.py; or OTHER
    weights : float32, of labels
    times_ms, partitions : in the batch's order
    data : uint8, where fields stand
    found : those that were decoded one by one, by their place in the chunks: Message, Feedback, BadRecord or None
    hashes : int64 [n], of the keys, in the batch's order; who joins writes them
    """

    order: Ints
    kinds: NDArray[np.int8]
    fields: Ints
    weights: NDArray[np.float32]
    times_ms: Ints
    partitions: Ints
    data: NDArray[np.uint8]
    found: dict[int, Any]
    hashes: Ints

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """What a kernel is told."""
        bits = self.weights.view(np.int32)
        return self.order, self.kinds, self.fields, self.weights, bits, self.times_ms, self.partitions, self.data

    def record(self, place: int) -> Any:
        """Return one record of the batch, as it is decoded alone."""
        index = int(self.order[place])
        if index in self.found:
            return self.found[index]
        key, content, own = (self._text(index, field) for field in (KEY, CONTENT, OWN))
        if self.kinds[index] == MESSAGE:
            return Message(key, content)
        return Feedback(key, content, own)

    def by_place(self) -> list[Any]:
        """Return what was decoded one by one, by its place in the chunks; None for what was not."""
        listed: list[Any] = [None] * len(self.kinds)
        for index, record in self.found.items():
            listed[index] = record
        return listed

    def may_be_labels(self) -> Ints:
        """Return the places in the batch of all but the messages."""
        return np.flatnonzero(self.kinds[self.order] != MESSAGE)

    def replace(self, index: int, record: Any) -> None:
        """Put something else in the place of a record of the chunks, to be looked at alone."""
        self.found[index], self.kinds[index] = record, OTHER

    def key(self, place: int) -> bytes:
        """Return the id of a message, or of a label's message."""
        start, size = self.fields[self.order[place], [KEY, KEY + SIZE]].tolist()
        return self.data[start : start + size].tobytes()

    def _text(self, index: int, field: int) -> Any:
        start, size = self.fields[index, [field, field + SIZE]].tolist()
        return None if start < 0 else self.data[start : start + size].tobytes().decode()


def decode_batch(
    batch: Batch,
    is_message: Callable[[Chunk], bool],
    max_bytes: int,
    last_ms: int,
    *,
    reading: int = READING,
    as_written: bool = False,
) -> Decoded:
    """Decode a batch. Times are kept to 0..last_ms; for `reading` and `as_written` see `decode_feedbacks`."""
    chunks = batch.chunks
    values = Column.joined([Column.of(chunk.values) for chunk in chunks])
    n = len(values)
    kinds, fields = np.empty(n, np.int8), np.empty((n, N_FIELDS), np.int64)
    weights = np.ones(n, np.float32)
    found: dict[int, Any] = {}
    first, end = 0, len(values.data)
    for chunk in chunks:
        part = slice(first, first + len(chunk))
        starts = values.starts[first : part.stop + 1]
        scan(values.data, starts, is_message(chunk), max_bytes, fields[part], kinds[part])
        if chunk.headers:  # of an event the value is not the whole record
            kinds[part][list(map(has_event_headers, chunk.headers))] = ODD
        odd = np.flatnonzero(kinds[part] == ODD)
        if len(odd):
            decode: Any = decode_messages if is_message(chunk) else partial(decode_feedbacks, as_written=as_written)
            decode = partial(decode, reading=reading)
            headers = [chunk.headers[place] for place in odd.tolist()] if chunk.headers else None
            records = decode(Column.of(chunk.values).some(odd.tolist()), headers, max_bytes)
            found |= dict(zip((odd + first).tolist(), records, strict=True))
        first = part.stop
    data = values.data
    if found and (extra := _lay_out(found, kinds, fields, weights, end)):
        data = np.concatenate([data, np.frombuffer(extra, np.uint8)])
        data.flags.writeable = False
    times_ms = np.concatenate([chunk.timestamps_ms for chunk in chunks])[batch.order]
    numbers = np.array([chunk.partition.partition for chunk in chunks], np.int64)
    partitions = np.repeat(numbers, [len(chunk) for chunk in chunks])[batch.order]
    return Decoded(
        batch.order,
        kinds,
        fields,
        weights,
        np.clip(times_ms, 0, last_ms),
        partitions,
        data,
        found,
        np.empty(n, np.int64),
    )


def _lay_out(
    found: dict[int, Any], kinds: NDArray[np.int8], fields: Ints, weights: NDArray[np.float32], end: int
) -> bytes:
    """Put records that were decoded alone behind the others, which end there, as columns; return their bytes.

    A label that is no plain one, and what is neither message nor label, is OTHER.
    """
    kinds[list(found)] = OTHER
    messages = [(index, record) for index, record in found.items() if type(record) is Message]
    labels = [
        (index, record)
        for index, record in found.items()
        if type(record) is Feedback and record.op == "upsert" and record.text is None
    ]
    rows = [index for index, _ in messages + labels]
    texts: dict[int, list[str | None]] = {
        KEY: [*[record.id for _, record in messages], *[record.message_id for _, record in labels]],
        CONTENT: [*[record.text for _, record in messages], *[record.label for _, record in labels]],
        OWN: [*[None for _ in messages], *[record.id for _, record in labels]],
    }
    kinds[rows[: len(messages)]], kinds[rows[len(messages) :]] = MESSAGE, LABEL
    weights[rows[len(messages) :]] = [record.weight for _, record in labels]
    extra: list[bytes] = []
    for field, those in texts.items():
        raw = [b"" if text is None else text.encode() for text in those]
        sizes = np.array(list(map(len, raw)), np.int64)
        there = np.array([text is not None for text in those], np.bool_)
        places = end + np.cumsum(sizes) - sizes
        end += int(sizes.sum())
        chars = np.array([len(text or "") for text in those], np.int64)
        for column, numbers in enumerate((places, sizes, chars)):
            fields[rows, field + column] = np.where(there, numbers, -1)
        extra += raw
    return b"".join([*extra, bytes(PADDING)]) if rows else b""
