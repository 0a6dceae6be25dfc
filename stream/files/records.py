"""How do records get from a file into the log as they were: in their order, each with its time?

Lines as learner/export/records.py writes them: `{"topic":"messages","timestamp_ms":...,"value":{...}}`. Each is read as
the learner would read it before it is appended; one that no learner could read is left out, and said. They are
appended in the file's order, each with its own time, so who learns them makes the same model. Sent twice, a label
counts once.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from driftline.stream.errors import BadRecord, ConfigError, DriftlineError
from driftline.stream.files.encoding import MAX_ROW_BYTES, Lines
from driftline.stream.files.source import DAMAGED, Source, unpacked
from driftline.stream.log.base import Appended, Log, NewRecord
from driftline.stream.wire.records import Topics, decode_feedback, decode_message

MESSAGES, FEEDBACK = "messages", "feedback"
GROUP: Final = 1000
MAX_IN_FLIGHT: Final = 8192
MAX_BYTES_IN_FLIGHT: Final = 1 << 25


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record. `key`: where it is not the message's id."""

    topic: Literal["messages", "feedback"]
    timestamp_ms: int
    key: str | None = None
    value: msgspec.Raw


LINE: Final = msgspec.json.Decoder(Line)


class SentRecords(NamedTuple):
    """What is durable in the log, and how many lines were left out."""

    messages: int
    labels: int
    skipped: int
    seconds: float


def is_records(path: str) -> bool:
    """Tell whether a file, not a pipe, begins with such a line."""
    if path == "-" or not Path(path).is_file():
        return False
    with suppress(OSError, EOFError, ValueError, DriftlineError, *DAMAGED), Source(path) as source:
        found = Lines(unpacked(source, path)[0], None).next()
        LINE.decode(found.encode())
        return True
    return False


def lines_in(path: str) -> Iterator[tuple[int, Line | str]]:
    """Give each line with its number: a record, or why it is none.

    Raises
    ------
    ConfigError : it cannot be opened. DriftlineError : it is damaged.
    """
    name = "standard input" if path == "-" else path
    try:
        source = Source(path)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from None
    with source:
        lines = Lines(unpacked(source, name)[0], "utf-8")
        try:
            while text := lines.next():
                if text.isspace():
                    continue
                if len(text) > MAX_ROW_BYTES:
                    yield lines.number, f"longer than {MAX_ROW_BYTES} bytes"
                    continue
                try:
                    yield lines.number, LINE.decode(text.encode())
                except (ValueError, RecursionError) as error:
                    yield lines.number, f"no record of an export: {error}"
        except (*DAMAGED, OSError) as error:
            raise DriftlineError(f"{name}: damaged after line {lines.number}: {error}") from None


def send_records(
    log: Log,
    topics: Topics,
    lines: Iterator[tuple[int, Line | str]],
    *,
    max_record_bytes: int = 1 << 20,
    on_skipped: Callable[[int, str], None] = lambda *_: None,
    on_durable: Callable[[int, int], None] = lambda *_: None,
) -> SentRecords:
    """Append records in their order. Topics that are missing are made.

    Parameters
    ----------
    on_skipped : called with the number of each line that is left out, and why
    on_durable : called now and then with the messages and labels that are durable so far

    Raises
    ------
    LogError : an append failed; some records may be in the log, and the file may be sent again.
    """
    log.create_topics(topics)
    began, skipped, done = time.monotonic(), 0, [0, 0]
    waiting: deque[tuple[Future[Sequence[Appended]], str, int, int]] = deque()
    flying = [0, 0]

    def settle(records: int, n_bytes: int) -> None:
        while waiting and (flying[0] > records or flying[1] > n_bytes):
            future, topic, n, size = waiting.popleft()
            future.result()
            flying[0] -= n
            flying[1] -= size
            done[topic == FEEDBACK] += n
            on_durable(*done)

    def submit(topic: str, group: list[NewRecord]) -> None:
        if group:
            size = sum(len(each.value or b"") for each in group)
            whole = topics.messages if topic == MESSAGES else topics.feedback
            waiting.append((log.submit(whole, group), topic, len(group), size))
            flying[0] += len(group)
            flying[1] += size
            settle(MAX_IN_FLIGHT, MAX_BYTES_IN_FLIGHT)

    topic, group, size = MESSAGES, list[NewRecord](), 0
    for number, line in lines:
        try:
            record = _record(line, max_record_bytes)
        except BadRecord as bad:
            skipped += 1
            on_skipped(number, bad.detail)
            continue
        kind = line.topic if isinstance(line, Line) else topic
        if kind != topic or len(group) == GROUP or size > MAX_BYTES_IN_FLIGHT:
            submit(topic, group)
            topic, group, size = kind, [], 0
        group.append(record)
        size += len(record.value or b"")
    submit(topic, group)
    settle(0, 0)
    return SentRecords(done[0], done[1], skipped, time.monotonic() - began)


def _record(line: Line | str, max_record_bytes: int) -> NewRecord:
    if isinstance(line, str):
        raise BadRecord("not-json", line)
    value = bytes(line.value)
    if line.topic == MESSAGES:
        own = decode_message(value, None, max_record_bytes).id
    else:
        own = decode_feedback(value, None, max_record_bytes).message_id
    key = own if line.key is None else line.key
    return NewRecord(key.encode("utf-8", "replace"), value, line.timestamp_ms)
