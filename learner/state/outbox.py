"""What did the learner send out, and how much of it has arrived?

Predictions and rejected records, batch by batch, each batch only after its journal entry is durable. `delivered` is the
last batch up to which everything is durable in the log; the journal keeps it, so that after a crash only what may be
missing is sent again, with the same content. A log that is away is waited for: nothing is dropped, and once the outbox
is `full` the loop takes no more.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Final, NamedTuple

from driftline.stream.errors import LogUnavailable
from driftline.stream.log.base import Appended, Log, NewColumns, NewRecord

# Beyond these the outbox is full. With a batch more they are what a log queues without making the loop wait.
MAX_IN_FLIGHT: Final = 32  # batches
MAX_RECORDS: Final = 32_000
MAX_BYTES: Final = 64 << 20
RETRY_S: Final = 0.5
PATIENCE_S: Final = 5.0  # of a full one: a log that is only slow takes something sooner
_LOG: Final = logging.getLogger(__name__)


class _Sending(NamedTuple):
    batch: int
    topic: str
    records: Sequence[NewRecord]
    n_bytes: int
    since: float  # time.monotonic()
    future: "Future[Sequence[Appended]]"

    @property
    def failed(self) -> bool:
        """Whether it has to be sent again. Raises what sending again does not mend."""
        if not self.future.done() or (error := self.future.exception()) is None:
            return False
        if isinstance(error, LogUnavailable):
            return True
        raise error


class Outbox:
    """Sends records to the log in the background. One thread."""

    def __init__(self, log: Log, delivered: int) -> None:
        self._log = log
        self._sending: deque[_Sending] = deque()
        self._sent = delivered  # the last batch that was given to `send`
        self._records = self._bytes = 0
        self._retry_at = 0.0

    @property
    def delivered(self) -> int:
        """The last batch up to which everything is durable in the log."""
        self._settle()
        return self._sending[0].batch - 1 if self._sending else self._sent

    @property
    def full(self) -> bool:
        """Whether the log has to catch up before more is sent."""
        self._settle()
        return self._records > MAX_RECORDS or self._bytes > MAX_BYTES or len(self._sending) > MAX_IN_FLIGHT

    @property
    def problem(self) -> str:
        """Say that the log takes nothing, where that has the loop stand still; "" while it does not."""
        waited_s = time.monotonic() - self._sending[0].since if self.full and self._sending else 0.0
        return f"the log has not taken what was sent {waited_s:.0f} s ago" if waited_s > PATIENCE_S else ""

    def send(self, batch: int, outputs: Mapping[str, Sequence[NewRecord]]) -> None:
        """Send a batch's records by topic."""
        for topic, records in outputs.items():
            if records:
                if isinstance(records, NewColumns):
                    n_bytes = records.n_bytes
                else:
                    n_bytes = sum(len(record.key or b"") + len(record.value or b"") for record in records)
                future = self._log.submit(topic, records)
                self._sending.append(_Sending(batch, topic, records, n_bytes, time.monotonic(), future))
                self._records += len(records)
                self._bytes += n_bytes
        self._sent = batch

    def wait(self, timeout_s: float) -> None:
        """Return when something may have arrived, after `timeout_s` at the latest."""
        if self._sending:
            oldest = self._sending[0].future
            if oldest.done() and oldest.exception() is not None:
                time.sleep(min(timeout_s, max(0.0, self._retry_at - time.monotonic())))
            else:
                wait_for([oldest], timeout_s)
            self._settle()

    def flush(self, timeout_s: float, waiting: Callable[[], None] = lambda: None) -> bool:
        """Wait until everything sent is durable; tell whether it is. `waiting` is called about every RETRY_S."""
        deadline = time.monotonic() + timeout_s
        while self._sending and (left := deadline - time.monotonic()) > 0:
            self.wait(min(RETRY_S, left))
            waiting()
        return not self._sending

    def _settle(self) -> None:
        """Forget what has arrived, oldest first; send again what failed for now."""
        while self._sending and self._sending[0].future.done() and not self._sending[0].failed:
            arrived = self._sending.popleft()
            self._records -= len(arrived.records)
            self._bytes -= arrived.n_bytes
        if not self._sending or time.monotonic() < self._retry_at:
            return
        failed = [place for place, each in enumerate(self._sending) if each.failed]
        why = self._sending[failed[0]].future.exception() if failed else None
        for place in failed:
            each = self._sending[place]
            self._sending[place] = each._replace(future=self._log.submit(each.topic, each.records))
        if failed:
            self._retry_at = time.monotonic() + RETRY_S
            _LOG.warning("%d batches of output were not taken (%s); sending them again", len(failed), why)
