"""Has the served model learned a label yet?

A label that was appended has been learned once the served model's feedback offset of its partition is above its own.
Who asks with `min_feedback_offset` waits for that; and the time from a label's append to the model that reflects it is
measured here, where both ends of it are seen. One task looks for all who wait, so that a thousand cost what one does.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from driftline.api.errors import ApiError, stopping
from driftline.api.metrics import Metrics
from driftline.api.settings import ApiSettings
from driftline.api.traces import Learning, Trace
from driftline.api.watcher import Watcher
from driftline.stream.log import Appended

LOOK_S: Final = 0.005  # while somebody waits
MAX_WAITING: Final = 1000
MAX_MEASURED: Final = 256  # labels on their way whose time is taken; of the others it is not
MAX_MEASURED_S: Final = 300.0  # a label that took longer is counted with this: no learner was at work


# 7.0 is a whole number in JSON.
_Number = Annotated[int, Meta(ge=0, le=1 << 53)] | Annotated[float, Meta(ge=0, le=2.0**53, multiple_of=1)]


class FeedbackOffset(msgspec.Struct, frozen=True):
    """Where a label lies in the log, as the answer to POST /feedback says it."""

    partition: _Number
    offset: _Number


FeedbackOffsets = Annotated[list[FeedbackOffset], Meta(max_length=1000)]


class Freshness:
    """Follows the labels that the served model has learned. On the event loop only."""

    def __init__(self, watcher: Watcher, metrics: Metrics, settings: ApiSettings) -> None:
        self._watcher, self._metrics, self._wait_s = watcher, metrics, settings.max_wait_s
        self._measured: deque[tuple[Appended, float, Learning | None]] = deque()
        self._n_waiting, self._stopping = 0, False
        self._somebody = asyncio.Event()
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Let nobody wait any more: who does is told to come again."""
        self._stopping = True
        self._somebody.set()

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
        if places and len(self._measured) < MAX_MEASURED:
            learning = trace.learn(places[-1]) if trace is not None else None
            self._measured.append((places[-1], time.monotonic(), learning))
            self._somebody.set()

    async def wait(self, asked: Sequence[FeedbackOffset]) -> None:
        """Return once the served model has learned labels.

        Raises
        ------
        ApiError : 409, it has not within `max_wait_s`; 503, too many wait already, or the API is being stopped.
        """
        if self._learned(asked):
            return
        if self._watcher.pinned_to is not None:
            raise self._too_late(asked)  # it never will
        if self._n_waiting >= MAX_WAITING:
            raise ApiError(
                503, "busy", f"{MAX_WAITING} requests wait for a label already", "Try again.", {"Retry-After": "1"}
            )
        self._n_waiting += 1
        self._somebody.set()
        try:
            async with asyncio.timeout(self._wait_s), self._changed:
                await self._changed.wait_for(lambda: self._stopping or self._learned(asked))
            if not self._learned(asked):
                raise stopping()
        except TimeoutError:
            raise self._too_late(asked) from None
        finally:
            self._n_waiting -= 1

    def _learned(self, asked: Sequence[FeedbackOffset]) -> bool:
        offsets = self._offsets()
        return all(offsets.get(_name(each), 0) > each.offset for each in asked)

    def _offsets(self) -> Mapping[str, int]:
        served = self._watcher.served
        return served.quick.info().feedback_offsets if served is not None else {}

    def _too_late(self, asked: Sequence[FeedbackOffset]) -> ApiError:
        offsets = self._offsets()
        pinned_to = self._watcher.pinned_to
        if pinned_to is not None:
            message = f"the served model is pinned to {pinned_to}, which has not learned that label"
            action = "DELETE /snapshots/active has the latest served again."
            return ApiError(409, "pinned", message, action)
        behind = next(each for each in asked if offsets.get(_name(each), 0) <= each.offset)
        return ApiError(
            409,
            "not-learned-yet",
            f"after {self._wait_s:g} s the served model has learned partition {_name(behind)} up to offset "
            f"{offsets.get(_name(behind), 0)}, not yet {behind.offset:.0f}",
            "Ask again; GET /model says whether the learner is at work, and its lag.",
            {"Retry-After": "1"},
        )

    async def _run(self) -> None:
        while True:
            await self._somebody.wait()
            self._measure()
            if self._n_waiting:
                async with self._changed:
                    self._changed.notify_all()
            if not self._n_waiting and not self._measured:
                self._somebody.clear()
            await asyncio.sleep(LOOK_S)

    def _measure(self) -> None:
        if not self._measured:
            return
        served, now = self._watcher.served, time.monotonic()
        info = served.quick.info() if served is not None else None
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


def _name(place: FeedbackOffset) -> str:
    return str(int(place.partition))
