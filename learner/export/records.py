"""How does all that a model was learned from get into one file, so that it can be learned again, the same?

A line for each record of the log's messages and labels, in the order in which the learner takes them (merge.py), with
its time: `{"topic":"messages","timestamp_ms":...,"value":{...}}`. The value is the record's own; one that is no plain
JSON (a CloudEvent) is written as what was read of it. Late labels, corrections and what was taken back so stand where
they stood. What no learner can read, and what was erased, is left out. `driftline send` reads it (files/records.py).
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Final

import msgspec

from driftline.stream.errors import BadRecord
from driftline.stream.files.records import Line
from driftline.stream.limits import ClockRule
from driftline.stream.log.base import Chunk, Log, TopicPartition
from driftline.stream.log.bounded import Bounded
from driftline.stream.log.merge import Merger
from driftline.stream.wire.events import has_event_headers, may_be_event
from driftline.stream.wire.fields import mend_escapes
from driftline.stream.wire.many import decode_feedbacks, decode_messages
from driftline.stream.wire.note import Noted, read_note
from driftline.stream.wire.records import Feedback, Message, Topics, encode_record

STEP_RECORDS: Final = 2048
CLOCK_RULE: Final = ClockRule(max_jump_ms=24 * 3_600_000)  # as the learner's by default: for the order of records


def records(
    log: Log,
    topics: Topics,
    left: Mapping[TopicPartition, set[int]],
    max_record_bytes: int,
    on_records: Callable[[int, int], None] = lambda *_: None,
) -> Generator[bytes, None, None]:
    """Give the lines, some at a time: of all that is in the log now.

    Parameters
    ----------
    left : offsets that were erased and that the log may still have
    on_records : called with how many records were read, and how many of them are in the file

    Raises LogError.
    """
    marks = log.watermarks(topics[:2])
    starts = {partition: mark.low for partition, mark in marks.items()}
    ends = {partition: mark.high for partition, mark in marks.items()}
    encode = msgspec.json.Encoder().encode
    with ExitStack() as opened:
        readers = []
        for topic in (topics.feedback, topics.messages):
            own = {partition: start for partition, start in starts.items() if partition.topic == topic}
            readers.append(opened.enter_context(closing(Bounded(log.reader(own), own, ends))))
        merger = Merger(readers, starts, {}, CLOCK_RULE)
        while not merger.at_end:
            batch = merger.take(STEP_RECORDS, 1.0)
            lines = [line for chunk in batch.chunks for line in _lines(chunk, topics, left, max_record_bytes)]
            found = [line for place in batch.order.tolist() if (line := lines[place]) is not None]
            on_records(len(batch), len(found))
            if found:
                yield b"".join(encode(line) + b"\n" for line in found)


def _lines(
    chunk: Chunk, topics: Topics, left: Mapping[TopicPartition, set[int]], max_record_bytes: int
) -> Iterator[Line | None]:
    is_message = chunk.partition.topic == topics.messages
    decode = decode_messages if is_message else decode_feedbacks
    read = decode(chunk.values, chunk.headers, max_record_bytes)
    gone = left.get(chunk.partition, set())
    for place, record in enumerate(read):
        offset = int(chunk.offsets[place])
        if record is None or isinstance(record, BadRecord) or offset in gone:
            yield None
            continue
        key, own = chunk.keys[place], record.id if isinstance(record, Message) else record.message_id
        headers = chunk.headers[place] if chunk.headers else None
        yield Line(
            topic="messages" if is_message else "feedback",
            timestamp_ms=int(chunk.timestamps_ms[place]),
            key=None if key is None or key == own.encode() else key.decode("utf-8", "replace"),
            value=msgspec.Raw(_value(record, chunk.values[place] or b"", is_event=has_event_headers(headers))),
        )


def _value(record: Message | Feedback, value: bytes, *, is_event: bool) -> bytes:
    """Return a record's value: its own bytes where they are one line of plain JSON."""
    is_plain = not is_event and not may_be_event(value) and value[:1] == b"{" and b"\n" not in value
    if is_plain and mend_escapes(value) == value:
        return value.strip()
    if isinstance(record, Feedback) and (note := read_note(value)) is not None:
        names = Feedback.__struct_fields__
        record = Noted(**{name: getattr(record, name) for name in names}, note=note)
    return encode_record(record)
