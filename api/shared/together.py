"""How does a route ask for what has to hold on all machines?

Where this data directory is one of several (learner/shared/), what is chosen, erased or claimed goes through the topic
that all of them read: it is appended, and a process beside this one carries it out here when it comes back, in the
order that is the same everywhere. Where the directory is one machine's own, nobody asks here.
"""

import asyncio
import time
from pathlib import Path
from typing import Final

from driftline.api.errors import ApiError
from driftline.api.hidden import without_paths
from driftline.api.shared.connection import Connection
from driftline.learner.shared import applied, asking
from driftline.learner.shared.applied import Applied
from driftline.learner.shared.claims import Table, read_table
from driftline.stream.errors import StateError
from driftline.stream.log.base import NewRecord

WAIT_S: Final = 5.0
POLL_S: Final = 0.01


class Together:
    """What the routes need of the other machines. On the event loop."""

    def __init__(self, data: Path, connection: Connection) -> None:
        self._data, self._connection = data, connection

    async def there(self) -> Applied | None:
        """Return how far this directory is; None where it is one machine's own. Raises ApiError."""
        try:
            return await asyncio.to_thread(applied.read, self._data)
        except (StateError, OSError) as error:
            raise _behind(without_paths(str(error))) from None

    async def append(self, topic: str, record: NewRecord) -> int:
        """Append what is asked for, and return its offset once that is durable. Raises ApiError."""
        (place,) = await self._connection.append(topic, [record])
        return place.offset

    async def ask(self, topic: str, record: NewRecord) -> bool:
        """Append it and wait until it is carried out here; tell whether it is by now: it will be, in any case.

        Raises
        ------
        ApiError : 503, it was not appended, or nobody knows.
        """
        offset, deadline = await self.append(topic, record), time.monotonic() + WAIT_S
        while not (done := await asyncio.to_thread(self._is_done, record, offset)) and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
        return done

    async def claims(self) -> Table:
        """Return who labels what, on all machines."""
        return await asyncio.to_thread(read_table, self._data)

    def _is_done(self, record: NewRecord, offset: int) -> bool:
        try:
            return asking.is_carried_out(self._data, record, offset)
        except (StateError, OSError):
            return False


def _behind(why: str) -> ApiError:
    return ApiError(
        503, "not-shared", why, "Start what reads the shared topic here, and try again.", {"Retry-After": "1"}
    )
