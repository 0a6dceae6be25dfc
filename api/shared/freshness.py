"""Has the served model learned a label yet?

A label that was appended has been learned once the served model's feedback offset of its partition is above its own.
Who asks with `min_feedback_offset` waits for that; and the time from a label's append to the model that reflects it is
measured here, where both ends of it are seen. One task looks for all who wait. Each waits in the line of one partition,
by offset, so a new version wakes those whose label it has learned, and nobody is looked at who goes on waiting. What
cannot come is not waited for: a partition that there is not, an offset behind the log's end, a learner that learns
nothing.
"""

import asyncio
import logging
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from driftline.api.errors import ApiError, stopping
from driftline.api.http.traces import Learning, Trace
from driftline.api.load.waiting import Places
from driftline.api.settings import ApiSettings
from driftline.api.shared.connection import Connection, unavailable
from driftline.api.shared.metrics import Metrics
from driftline.api.shared.watcher import Watcher
from driftline.learner.serving.snapshot import SnapshotInfo
from driftline.stream.log.base import Appended, TopicPartition

LOOK_S: Final = 0.005  # while somebody waits
MAX_WAITING: Final = 1000
MAX_WAITING_EACH: Final = 250  # of one caller
MAX_MEASURED: Final = 256  # labels on their way whose time is taken; of the others it is not
MAX_MEASURED_S: Final = 300.0  # a label that took longer is counted with this: no learner was at work
_LOG: Final = logging.getLogger(__name__)


# 7.0 is a whole number in JSON.
_Number = Annotated[int, Meta(ge=0, le=1 << 53)] | Annotated[float, Meta(ge=0, le=2.0**53, multiple_of=1)]


class FeedbackOffset(msgspec.Struct, frozen=True):
    """Where a label lies in the log, as the answer to POST /feedback says it."""

    partition: _Number
    offset: _Number


FeedbackOffsets = Annotated[list[FeedbackOffset], Meta(max_length=1000)]


class _Waiter:
    """Who waits, and for what still: for each partition, the highest offset. In one partition's line at a time."""

    def __init__(self, least: Mapping[int, int], number: int) -> None:
        self.left, self.number, self.since = dict(least), number, time.monotonic()
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.place: tuple[int, int] | None = None  # partition and offset of the line where it stands


class _Lines:
    """Those who wait, a line for each partition, by offset."""

    def __init__(self) -> None:
        self._lines: dict[int, list[tuple[int, int, _Waiter]]] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __iter__(self) -> Iterator[_Waiter]:
        return iter([waiter for line in self._lines.values() for _, _, waiter in line])

    def put(self, waiter: _Waiter) -> None:
        partition, offset = next(iter(waiter.left.items()))
        insort(self._lines.setdefault(partition, []), (offset, waiter.number, waiter))
        waiter.place = partition, offset

    def drop(self, waiter: _Waiter) -> None:
        if waiter.place is None:
            return
        partition, offset = waiter.place
        line = self._lines[partition]
        del line[bisect_left(line, (offset, waiter.number))]
        self._tidy(partition)
        waiter.place = None

    def take(self, learned: Mapping[str, int]) -> list[_Waiter]:
        """Take out those whose label in that line is learned: below a partition's feedback offset."""
        found = []
        for partition, line in list(self._lines.items()):
            n = bisect_left(line, (learned.get(str(partition), 0),))
            found += [waiter for _, _, waiter in line[:n]]
            del line[:n]
            self._tidy(partition)
        for waiter in found:
            waiter.place = None
        return found

    def _tidy(self, partition: int) -> None:
        if not self._lines[partition]:
            del self._lines[partition]


class Freshness:
    """Follows the labels that the served model has learned. On the event loop only."""

    def __init__(
        self, watcher: Watcher, connection: Connection, topic: str, metrics: Metrics, settings: ApiSettings
    ) -> None:
        self._watcher, self._connection, self._topic = watcher, connection, topic
        self._metrics, self._wait_s = metrics, settings.max_wait_s
        self._measured: deque[tuple[Appended, float, Learning | None]] = deque()
        self._places = Places(MAX_WAITING, MAX_WAITING_EACH, "requests wait for a label")
        self._lines = _Lines()
        self._far: dict[int, _Waiter] = {}  # whose label was not in the log by the last look
        self._ends: dict[int, int] = {}  # of partitions, by what was appended here since
        self._number = 0
        self._stopping = False
        self._woken_by: SnapshotInfo | None = None
        self._measured_by: SnapshotInfo | None = None
        self._looked_at = 0.0
        self._said = ""
        self._somebody = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Let nobody wait any more: who does is told to come again."""
        self._stopping = True
        self._end_all(stopping)

    def start(self) -> None:
        """Begin to look. Once, in the lifespan."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="freshness")

    async def close(self) -> None:
        """Look no more, and end what was traced."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for _, _, learning in self._measured:
            if learning is not None:
                learning.end(None)

    def appended(self, places: Sequence[Appended], trace: Trace | None = None) -> None:
        """Take the time of the last label of a request, which is durable now, and trace it to its end."""
        for partition, offset in places:
            self._ends[partition] = max(offset + 1, self._ends.get(partition, 0))
        if places and len(self._measured) < MAX_MEASURED:
            learning = trace.learn(places[-1]) if trace is not None else None
            self._measured.append((places[-1], time.monotonic(), learning))
            self._measured_by = None
            self._somebody.set()

    async def wait(self, asked: Sequence[FeedbackOffset], caller: bytes = b"") -> None:
        """Return once the served model has learned labels.

        Parameters
        ----------
        caller : who waits; one has only so many places

        Raises
        ------
        ApiError : 409, it has not within `max_wait_s`, nothing is learned now, it is pinned, or there is no such label;
            429, 503, too many wait already; 503, the log was never reached, or the API is being stopped.
        """
        least: dict[int, int] = {}
        for each in asked:
            partition = int(each.partition)
            least[partition] = max(int(each.offset), least.get(partition, 0))
        left = self._left(least)
        if not left:
            return
        self._check(left)
        with self._places.take(caller):
            self._number += 1
            waiter = _Waiter(left, self._number)
            self._lines.put(waiter)
            if any(offset >= self._end(partition) for partition, offset in left.items()):
                self._far[waiter.number] = waiter
            self._somebody.set()
            try:
                async with asyncio.timeout(self._wait_s):
                    await waiter.future
            except TimeoutError:
                if self._left(least):
                    raise self._too_late(least) from None
            finally:
                self._lines.drop(waiter)
                self._far.pop(waiter.number, None)
                if waiter.future.done() and not waiter.future.cancelled():
                    waiter.future.exception()  # looked at, where the time was over in the same moment

    def _left(self, least: Mapping[int, int]) -> dict[int, int]:
        """Return the labels that the served model has not learned yet."""
        learned = self._learned()
        return {partition: offset for partition, offset in least.items() if learned.get(str(partition), 0) <= offset}

    def _learned(self) -> Mapping[str, int]:
        info = self._info()
        return info.feedback_offsets if info is not None else {}

    def _info(self) -> SnapshotInfo | None:
        served = self._watcher.served
        return served.quick.info() if served is not None else None

    def _check(self, left: Mapping[int, int]) -> None:
        """Refuse who would wait for what cannot come."""
        if self._stopping:
            raise stopping()
        marks = self._connection.watermarks
        if marks is None:  # then nobody could have had that offset from here
            raise unavailable(self._connection.problem or "the log is being opened")
        for partition in left:
            if TopicPartition(self._topic, partition) not in marks and partition not in self._ends:
                n = sum(each.topic == self._topic for each in marks)
                raise ApiError(
                    409,
                    "unknown-partition",
                    f"min_feedback_offset names partition {partition} of {self._topic}, which has {n}",
                    "Send the partition and the offset that the answer to POST /feedback had.",
                )
        if self._watcher.pinned_to is not None:
            raise self._too_late(left)  # it never will
        if (idle := self._idle()) is not None:
            raise _not_learning(idle)

    def _idle(self) -> str | None:
        """Return why nothing will be learned for now. A recovery is nearly over, so it is waited for."""
        idle, status = self._watcher.idle_now(), self._watcher.status
        recovers = status is not None and status.word == "recovering"
        return None if recovers else idle

    def _end(self, partition: int) -> int:
        """Return the offset that the next label of a partition gets, as far as is known here."""
        return max(
            self._connection.written.get(TopicPartition(self._topic, partition), 0), self._ends.get(partition, 0)
        )

    def _too_late(self, least: Mapping[int, int]) -> ApiError:
        learned, pinned_to = self._learned(), self._watcher.pinned_to
        if pinned_to is not None:
            message = f"the served model is pinned to {pinned_to}, which has not learned that label"
            action = "DELETE /snapshots/active has the latest served again."
            return ApiError(409, "pinned", message, action)
        behind, offset = next(iter(self._left(least).items()))
        return ApiError(
            409,
            "not-learned-yet",
            f"after {self._wait_s:g} s the served model has learned partition {behind} up to offset "
            f"{learned.get(str(behind), 0)}, not yet {offset}",
            "Ask again; GET /model says whether the learner is at work, and its lag.",
            {"Retry-After": "1"},
        )

    # The task that looks.

    async def _run(self) -> None:
        while True:
            await self._somebody.wait()
            self._guarded(self._wake)
            self._guarded(self._measure)
            if not self._lines and not self._measured:
                self._somebody.clear()
            await asyncio.sleep(LOOK_S)

    def _guarded(self, look: Callable[[], None]) -> None:
        """Look; where that fails nobody goes on waiting for it, and the next one may do."""
        try:
            look()
        except Exception as error:
            if repr(error) != self._said:
                _LOG.exception("whether a label was learned could not be seen; it is looked at again")
            self._said = why = repr(error)
            self._end_all(
                lambda: ApiError(
                    503,
                    "not-readable",
                    f"the served model's version cannot be read just now: {why}",
                    "Ask again, and look at the API's log.",
                    {"Retry-After": "1"},
                )
            )

    def _wake(self) -> None:
        """Let those go on whose labels are learned by now, and those for whom there is nothing to wait for."""
        if not self._lines:
            return
        info = self._info()
        if info is not self._woken_by:
            self._woken_by = info
            for waiter in self._lines.take(info.feedback_offsets if info is not None else {}):
                waiter.left = self._left(waiter.left)
                if waiter.left:
                    self._lines.put(waiter)
                elif not waiter.future.done():
                    waiter.future.set_result(None)
        if self._watcher.pinned_to is not None:
            for waiter in self._lines:
                self._fail(waiter, self._too_late(waiter.left))
        elif (idle := self._idle()) is not None:
            self._end_all(lambda: _not_learning(idle))
        elif self._connection.looked_at != self._looked_at:
            self._looked_at = self._connection.looked_at
            self._end_far()

    def _end_far(self) -> None:
        """End those whose label was not in the log at a look that began after they came."""
        for waiter in list(self._far.values()):
            if waiter.since >= self._looked_at:
                continue
            del self._far[waiter.number]
            for partition, offset in waiter.left.items():
                if offset >= (end := self._end(partition)):
                    message = (
                        f"there is no label at offset {offset} of partition {partition}: {self._topic} ends at {end}"
                    )
                    action = "Send the partition and the offset that the answer to POST /feedback had."
                    self._fail(waiter, ApiError(409, "no-such-label", message, action))

    def _end_all(self, error: Callable[[], ApiError]) -> None:
        for waiter in self._lines:
            self._fail(waiter, error())

    def _fail(self, waiter: _Waiter, error: ApiError) -> None:
        self._lines.drop(waiter)
        if not waiter.future.done():
            waiter.future.set_exception(error)

    def _measure(self) -> None:
        """Take the time of those that are learned, where anything is new, and of those that took too long."""
        if not self._measured:
            return
        info, now = self._info(), time.monotonic()
        if info is self._measured_by and now - self._measured[0][1] <= MAX_MEASURED_S:
            return
        self._measured_by = info
        offsets = info.feedback_offsets if info is not None else {}
        for _ in range(len(self._measured)):
            place, since, learning = self._measured.popleft()
            learned = offsets.get(str(place.partition), 0) > place.offset
            if not learned and now - since <= MAX_MEASURED_S:
                self._measured.append((place, since, learning))
                continue
            self._metrics.count_label_to_serving(now - since)
            if learning is not None:
                learning.end(info.version if info is not None and learned else None)


def _not_learning(idle: str) -> ApiError:
    return ApiError(
        409,
        "not-learning",
        f"that label is not learned yet, and none is learned now: {idle}",
        "Ask without min_feedback_offset for what the model says now, or again once the learner is at work.",
        {"Retry-After": "1"},
    )
