"""What did the learner send out, and how much of it has arrived?

Predictions and rejected records, batch by batch, each batch only after its journal entry is durable. `delivered` is the
last batch up to which everything is durable in the log; the journal keeps it, so that after a crash only what may be
missing is sent again, with the same content. A log that is away is waited for: nothing is dropped.
"""

import logging
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Final, NamedTuple

from stream.errors import LogUnavailable
from stream.log import Appended, Log, NewRecord

# Batches sent and not yet durable; one more waits for the oldest.
MAX_IN_FLIGHT: Final = 32
RETRY_S: Final = 0.5
_LOG: Final = logging.getLogger(__name__)


class _Sending(NamedTuple):
    batch: int
    topic: str
    records: list[NewRecord]
    future: "Future[list[Appended]]"


class Outbox:
    """Sends records to the log in the background. One thread."""

    def __init__(self, log: Log, delivered: int) -> None:
        self._log = log
        self._sending: deque[_Sending] = deque()
        self._sent = delivered  # the last batch that was given to `send`

    @property
    def delivered(self) -> int:
        """The last batch up to which everything is durable in the log."""
        self._settle(0.0)
        return self._sending[0].batch - 1 if self._sending else self._sent

    def send(self, batch: int, outputs: Mapping[str, list[NewRecord]]) -> None:
        """Send a batch's records by topic; may wait while too many batches are under way."""
        for topic, records in outputs.items():
            if records:
                self._sending.append(_Sending(batch, topic, records, self._log.submit(topic, records)))
        self._sent = batch
        while len(self._sending) > MAX_IN_FLIGHT:
            self._settle(RETRY_S)

    def flush(self) -> None:
        """Return once everything sent is durable."""
        while self._sending:
            self._settle(RETRY_S)

    def _settle(self, timeout_s: float) -> None:
        """Forget what has arrived, oldest first; send again what failed for now."""
        while self._sending:
            oldest = self._sending[0]
            try:
                oldest.future.result(timeout=timeout_s)
            except LogUnavailable as error:
                _LOG.warning("%s does not take records: %s; trying again", oldest.topic, error)
                time.sleep(RETRY_S)
                again = self._log.submit(oldest.topic, oldest.records)
                self._sending[0] = oldest._replace(future=again)
                return
            except TimeoutError:
                return
            self._sending.popleft()
