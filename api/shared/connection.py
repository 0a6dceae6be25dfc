"""Is the log there, what does it hold, does it take anything, and how does a request append to it?

A thread opens the log, makes missing topics and asks for the watermarks about once a second; while that fails it tries
again, and says why. So the API starts without a log, and lag is known whether or not a learner lives. What becomes of
appends is followed, too (taking.py): a log that answers may take nothing. The event loop never calls the log itself:
`submit` may wait for room.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from driftline.api.errors import ApiError
from driftline.api.hidden import Hidden
from driftline.api.load.holding import FREE_BYTES
from driftline.api.settings import ApiSettings
from driftline.api.shared.taking import Taking
from driftline.learner.quality.figures import Offsets
from driftline.stream.errors import ConfigError, DriftlineError, TopicMismatch
from driftline.stream.log.base import Appended, Log, NewRecord, TopicPartition, TopicState, Watermarks
from driftline.stream.log.open import open_log
from driftline.stream.log.sqlite.file import sqlite_path
from driftline.stream.log.transactions import held_back
from driftline.stream.process import threads
from driftline.stream.process.settings import StreamSettings

REFRESH_S: Final = 1.0
SILENT_S: Final = 10.0
FIRST_TRY_S: Final = 5.0
CLOSE_S: Final = 5.0
SUBMIT_THREADS: Final = 4
MAX_IN_FLIGHT_BYTES: Final = 64 << 20
_LOG: Final = logging.getLogger(__name__)


class Connection:
    """The API's one connection to the log. `append` on the event loop, `start` and `close` beside it.

    Attributes
    ----------
    watermarks : of all partitions, by the last look; None while the log was never reached
    written : where the next record of each goes, behind what a transaction that is open may hold back
    held_back : how many offsets of which partitions cannot be read before a transaction ends
    looked_at : when the last look began that the log answered (time.monotonic())
    """

    def __init__(self, stream: StreamSettings, settings: ApiSettings) -> None:
        self.watermarks: Mapping[TopicPartition, Watermarks] | None = None
        self.written: Mapping[TopicPartition, int] = {}
        self.held_back: Mapping[TopicPartition, int] = {}
        self.looked_at = 0.0
        self._seen: Mapping[str, TopicState] = {}
        self._taking = Taking(settings.append_timeout_s)
        self._stream, self._timeout_s = stream, settings.append_timeout_s
        self._problem: str | None = "the log is being opened"
        self._hidden = Hidden(_directories(stream))
        self._refusal: ConfigError | None = None
        self._log: Log | None = None
        self._answered = time.monotonic()
        self._in_flight_bytes = 0
        self._tried, self._closing = threading.Event(), threading.Event()
        self._thread = threads.make("log-connection", self._run)
        self._submitters = ThreadPoolExecutor(SUBMIT_THREADS, "log-submit")

    def start(self) -> None:
        """Begin to connect; return once the first try has ended, or takes long.

        Raises
        ------
        ConfigError : the log's options cannot be meant, so no try will ever do.
        """
        self._thread.start()
        self._tried.wait(FIRST_TRY_S)
        if self._refusal is not None:
            raise self._refusal

    def close(self) -> None:
        """Wait a little for what was submitted, then give everything back."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)
        self._submitters.shutdown(wait=False, cancel_futures=True)

    @property
    def problem(self) -> str | None:
        """Why the log cannot be used just now, or None."""
        if self._problem is not None:
            return self._hidden(self._problem)
        silent_s = time.monotonic() - self._answered
        if silent_s > SILENT_S:
            return f"the log has not answered for {silent_s:.0f} s"
        return self._hidden(self._taking.problem) if self._taking.problem is not None else None

    def lag(self, positions: Offsets) -> Offsets | None:
        """Return how many records of each partition lie behind positions, or None while the log was never reached.

        A partition without a position counts from its first record.
        """
        if self.watermarks is None:
            return None
        lag: Offsets = {topic: {} for topic in self._stream.topics[:2]}
        for (topic, partition), mark in self.watermarks.items():
            position = positions.get(topic, {}).get(str(partition), mark.low)
            lag[topic][str(partition)] = max(0, mark.high - max(position, mark.low))
        return lag

    async def append(self, topic: str, records: Sequence[NewRecord]) -> Sequence[Appended]:
        """Append records and return once they are durable.

        Raises
        ------
        ApiError : 503, the log did not take them, or not in time.
        """
        log = self._log
        if log is None:
            raise unavailable(self.problem or "the log is being opened")
        n_bytes = sum(len(record.value or b"") for record in records)
        is_small = n_bytes <= FREE_BYTES  # there are no more of them than connections, and nobody keeps them out
        if not is_small and self._in_flight_bytes + n_bytes > MAX_IN_FLIGHT_BYTES and self._in_flight_bytes:
            raise unavailable("more records are waiting for the log than it takes")
        self._in_flight_bytes += n_bytes
        try:
            async with asyncio.timeout(self._timeout_s):
                loop = asyncio.get_running_loop()
                submitted = await loop.run_in_executor(self._submitters, self._submit, log, topic, records)
                durable = asyncio.wrap_future(submitted)
                durable.add_done_callback(_retrieve)
                return await asyncio.shield(durable)  # a record on its way must not be cancelled inside the log
        except TimeoutError:
            raise ApiError(
                503,
                "append-timeout",
                f"not durable after {self._timeout_s:g} s; it may still become so",
                "Send it again with the same ids: what has come twice counts once.",
                {"Retry-After": "1"},
            ) from None
        except DriftlineError as error:
            raise unavailable(self._hidden(str(error))) from None
        finally:
            self._in_flight_bytes -= n_bytes

    def _submit(self, log: Log, topic: str, records: Sequence[NewRecord]) -> "Future[Sequence[Appended]]":
        return self._taking.submit(lambda: log.submit(topic, records))

    def _run(self) -> None:
        while not self._closing.is_set():
            self._refresh()
            self._tried.set()
            self._closing.wait(REFRESH_S)
        if self._log is not None:
            with suppress(Exception):  # it is over, whatever the log says to that
                self._log.close()

    def _refresh(self) -> None:
        try:
            if self._log is None:
                self._log = self._open()
            self._look(self._log)
            self._answered = time.monotonic()
            self._problem = None
            self._taking.look(self._log)
        except Exception as error:  # noqa: BLE001, RUF100  (the next try may do)
            if isinstance(error, ConfigError):
                self._refusal = error
            problem = str(error) or repr(error)
            if problem != self._problem:
                _LOG.warning("%s; trying again", problem)
            self._problem = problem

    def _look(self, log: Log) -> None:
        topics, began = self._stream.topics[:2], time.monotonic()
        found = log.describe(topics)
        if missing := [topic for topic in topics if topic not in found]:
            raise TopicMismatch(f"{', '.join(missing)}: the topic was deleted; start the learner, which makes it")
        marks = {TopicPartition(topic, p): mark for topic in topics for p, mark in found[topic].watermarks.items()}
        self.watermarks = marks
        self.written = {
            partition: mark.high + found[partition.topic].undecided.get(partition.partition, 0)
            for partition, mark in marks.items()
        }
        self.held_back, self._seen = held_back(self._seen, found), found
        self.looked_at = began

    def _open(self) -> Log:
        log = open_log(self._stream)
        try:
            log.create_topics(self._stream.topics)
        except BaseException:
            log.close()
            raise
        return log


def _directories(stream: StreamSettings) -> list[Path]:
    """Return those that an error of the log may name."""
    log = [sqlite_path(stream.log_url).parent] if stream.log_url.startswith("sqlite:") else []
    return [stream.data, *log, *([stream.kafka_config.parent] if stream.kafka_config else [])]


def unavailable(why: str) -> ApiError:
    """Return the error for who needs a log that takes nothing, or is not there."""
    return ApiError(503, "log-unavailable", why, "Try again shortly; GET /readyz says more.", {"Retry-After": "1"})


def _retrieve(future: "asyncio.Future[Sequence[Appended]]") -> None:
    """Look at the outcome of an append whose request has ended, so that nothing complains that nobody did."""
    if not future.cancelled():
        future.exception()
