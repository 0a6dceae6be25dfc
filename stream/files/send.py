"""How do labelled texts get into the log?

1. Messages are appended in small groups, in the rows' order; then the labels that are due: those of the messages that
   lie `label_delay` or more messages back. The rest of the labels follows at the end.
2. Appends are pipelined: a bounded number of records is on its way, and every append's future is looked at. What the
   summary counts is durable.

A message's id is its row's, else made unique for this run. A label's id is of this run and its place in it: a record
that gets into the log twice counts once, and what a later run says is said anew. So a file with ids may be sent again:
a label that a message has is not learned again, and one that it no longer has is a correction, also back to what it
was. Memory holds the labels that are not due, so it grows with the delay, not with the file.
"""

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

import msgspec

from driftline.stream.errors import BadRecord, ConfigError, DriftlineError, LogError
from driftline.stream.files.reader import Row
from driftline.stream.log.base import Appended, Log, NewRecord
from driftline.stream.wire.fielded import join, split
from driftline.stream.wire.note import Noted
from driftline.stream.wire.records import (
    Message,
    Topics,
    check_feedback,
    check_message,
    encode,
    encode_record,
)
from driftline.stream.wire.vector import without_vector

LEAST_RATE: Final = 0.001  # a message every twenty minutes
MAX_GROUP: Final = 500
MAX_RECORDS_IN_FLIGHT: Final = 8192
MAX_BYTES_IN_FLIGHT: Final = 1 << 25


class Sent(NamedTuple):
    """What is durable in the log; `skipped` counts the rows that no learner could have read."""

    messages: int
    labels: int
    skipped: int
    seconds: float


def send(
    log: Log,
    topics: Topics,
    rows: Iterable[Row],
    label_delay: int = 0,
    *,
    rate: float | None = None,
    max_record_bytes: int = 1 << 20,
    on_skipped: Callable[[Row, str], None] | None = None,
    on_durable: Callable[[int, int], None] | None = None,
) -> Sent:
    """Append messages, and their labels `label_delay` messages later.

    Parameters
    ----------
    log : topics that are missing are made
    label_delay : how many messages after its message a label is appended; 0: right after it
    rate : messages per second; None: as fast as the log takes them
    max_record_bytes : rows that would make a larger record are skipped
    on_skipped : called with each row that is skipped, and why
    on_durable : called now and then with the messages and labels that are durable so far

    Raises
    ------
    ConfigError : a negative delay, or a rate that is not above 0.
    LogError : an append failed; some records may be in the log. Sending the file again is safe where its rows have ids.
    DriftlineError, KeyboardInterrupt : out of the rows; the messages that were sent by then have their labels.
    """
    if label_delay < 0:
        raise ConfigError(f"label delay: must be 0 or more messages, got {label_delay}")
    if rate is not None and not LEAST_RATE <= rate < float("inf"):
        raise ConfigError(f"rate: must be {LEAST_RATE:g} messages per second or more, and finite; got {rate:g}")
    log.create_topics(topics)
    sender = _Sender(log, topics, max_record_bytes, on_skipped, on_durable)
    group_size = _group_size(label_delay, rate)
    begin = time.monotonic()
    group: list[Row] = []
    try:
        for row in rows:
            group.append(row)
            if len(group) == group_size:
                sender.messages(group)
                group.clear()
                sender.labels(keep=label_delay)
                if rate is not None:
                    time.sleep(max(0.0, begin + sender.submitted_messages / rate - time.monotonic()))
    except LogError:
        raise
    except (KeyboardInterrupt, DriftlineError) as error:  # what was read of a damaged file is sent
        sender.messages([] if isinstance(error, KeyboardInterrupt) else group)
        sender.labels(keep=0)
        sender.settle(0, 0)
        raise
    sender.messages(group)
    sender.labels(keep=label_delay)
    sender.labels(keep=0)
    sender.settle(0, 0)
    return Sent(sender.durable_messages, sender.durable_labels, sender.skipped, time.monotonic() - begin)


def _group_size(label_delay: int, rate: float | None) -> int:
    """Return how many messages go together: few beside the delay, and beside a tenth of a second."""
    size = min(max(label_delay // 4, 1), MAX_GROUP)
    return size if rate is None else min(size, max(int(rate / 10), 1))


class _InFlight(NamedTuple):
    future: "Future[Sequence[Appended]]"
    messages: int
    labels: int
    n_bytes: int


class _Sender:
    """Appends in flight, and the labels that are not due yet."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        max_record_bytes: int,
        on_skipped: Callable[[Row, str], None] | None,
        on_durable: Callable[[int, int], None] | None,
    ) -> None:
        self._log, self._topics, self._max_record_bytes = log, topics, max_record_bytes
        self._on_skipped, self._on_durable = on_skipped, on_durable
        self._run, self._labels = uuid.uuid4().hex[:12], 0
        self._in_flight: deque[_InFlight] = deque()
        self._records_in_flight = self._bytes_in_flight = 0
        self._pending: deque[tuple[int, NewRecord]] = deque()  # each label with its message's number
        self.submitted_messages = self.durable_messages = self.durable_labels = self.skipped = 0

    def messages(self, rows: Iterable[Row]) -> None:
        records = []
        for row in rows:
            try:
                message, feedback = self._records(row)
            except BadRecord as error:
                self.skipped += 1
                if self._on_skipped:
                    self._on_skipped(row, error.detail)
                continue
            records.append(message)
            if feedback is not None:
                self._pending.append((self.submitted_messages + len(records), feedback))
        self.submitted_messages += len(records)
        self._submit(self._topics.messages, records, len(records), 0)

    def labels(self, keep: int) -> None:
        """Append the labels of all but the last `keep` messages."""
        records = []
        while self._pending and self._pending[0][0] <= self.submitted_messages - keep:
            # The clock is read now: a label is as old as its sending, not as its message.
            records.append(self._pending.popleft()[1]._replace(timestamp_ms=_now_ms()))
            if len(records) == MAX_GROUP:
                self._submit(self._topics.feedback, records, 0, len(records))
                records = []
        self._submit(self._topics.feedback, records, 0, len(records))

    def settle(self, max_records: int, max_bytes: int) -> None:
        """Wait until no more than this is in flight."""
        while self._in_flight and (self._records_in_flight > max_records or self._bytes_in_flight > max_bytes):
            oldest = self._in_flight.popleft()
            oldest.future.result()
            self._records_in_flight -= oldest.messages + oldest.labels
            self._bytes_in_flight -= oldest.n_bytes
            self.durable_messages += oldest.messages
            self.durable_labels += oldest.labels
            if self._on_durable:
                self._on_durable(self.durable_messages, self.durable_labels)

    def _records(self, row: Row) -> tuple[NewRecord, NewRecord | None]:
        message = Message(id=row.id or f"{self._run}-{row.line}", text=row.text, ts=row.time)
        text, fields = split(row.text)
        if join(text, fields) == without_vector(row.text):  # else there is a NUL in it that ends no field
            check_message(msgspec.structs.replace(message, text=text))
        else:
            check_message(message)
        key = message.id.encode()
        records = [NewRecord(key, encode_record(message), _now_ms())]
        if row.label is not None:
            self._labels += 1
            source, weight, note = row.said
            own = f"{self._run}-{self._labels}"
            feedback = Noted(message.id, row.label, id=own, weight=weight, source=source, note=note)
            check_feedback(feedback)
            records.append(NewRecord(key, encode(feedback)))
        for record in records:
            if len(record.value or b"") > self._max_record_bytes:
                raise BadRecord(
                    "too-large",
                    f"its record has {len(record.value or b'')} bytes, max_record_bytes is {self._max_record_bytes}",
                )
        return records[0], records[1] if len(records) > 1 else None

    def _submit(self, topic: str, records: list[NewRecord], messages: int, labels: int) -> None:
        if not records:
            return
        n_bytes = sum(len(record.value or b"") for record in records)
        self._in_flight.append(_InFlight(self._log.submit(topic, records), messages, labels, n_bytes))
        self._records_in_flight += len(records)
        self._bytes_in_flight += n_bytes
        self.settle(MAX_RECORDS_IN_FLIGHT, MAX_BYTES_IN_FLIGHT)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
