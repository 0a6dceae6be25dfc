"""How is the catalogue of messages asked, without holding anybody up?

Two threads ask it, and a question has it catch up with the log (learner/catalogue/keeping.py), for which it waits
FRESH_S at most: a label that was just given shows. Nothing here is on the event loop for longer than that takes to say.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec

from driftline.api.errors import ApiError
from driftline.api.hidden import Hidden
from driftline.api.settings import ApiSettings
from driftline.learner.catalogue.file import Unusable
from driftline.learner.catalogue.keeping import Keeper, Progress
from driftline.learner.catalogue.search import Search
from driftline.stream.errors import ConfigError
from driftline.stream.process.settings import StreamSettings

THREADS: Final = 2
MAX_WAITING: Final = 100  # questions; beyond, they are refused
FRESH_S: Final = 0.3
POLL_S: Final = 0.005
STALE_MS: Final = 500  # where another process reads the log: it says how far it is a few times a second
_T = TypeVar("_T")


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """How far the catalogue is with reading the log.

    `ready`: it had all; `indexed`: messages that it holds, of `limit` at most, the newest; `behind`: records not read
    yet; `oldest_ms`: when the oldest message came; `problem`: why it gets no further.
    """

    ready: bool
    indexed: int
    behind: int
    oldest_ms: int | None
    limit: int
    problem: str | None = None


class Catalogue:
    """Asks the catalogue. On the event loop, but for `search`, which is for threads of one's own."""

    def __init__(self, stream: StreamSettings, settings: ApiSettings) -> None:
        self.search = Search(stream.data)
        self.stream, self.data = stream, stream.data
        self._limit = settings.catalogue_messages
        self._keeper = Keeper(stream, self._limit)
        self._threads = ThreadPoolExecutor(THREADS, "catalogue-search")
        self._hidden = Hidden([stream.data])
        self._waiting = 0

    async def ask(self, question: Callable[[Search], _T]) -> _T:
        """Return the answer to a question, of a catalogue that is as new as can be had soon.

        Raises ApiError: 422 for what cannot be asked, 503 where it cannot be answered now.
        """
        await self.freshen()
        return await self._do(lambda: question(self.search))

    async def freshen(self) -> Progress:
        """Have it catch up, and wait a little for it; return how far it is."""
        began, began_ms = time.monotonic(), time.time_ns() // 1_000_000
        self._keeper.ask()
        while True:
            own = self._keeper.progress
            progress = own if own is not None else await self._do(self.search.progress)
            is_fresh = progress.looked_ms >= (began_ms if own is not None else began_ms - STALE_MS)
            if is_fresh or time.monotonic() - began > FRESH_S or self._keeper.problem is not None:
                return progress
            await asyncio.sleep(POLL_S if own is not None else 4 * POLL_S)

    def told(self, progress: Progress) -> Told:
        """Return how far it is, to be told."""
        problem, own = self._keeper.problem, self._keeper.progress or progress  # the file has it a little later
        return Told(
            ready=own.ready and problem is None,
            indexed=own.indexed,
            behind=own.behind,
            oldest_ms=progress.oldest_ms,
            limit=self._limit,
            problem=None if problem is None else self._hidden(problem),
        )

    async def _do(self, work: Callable[[], _T]) -> _T:
        if self._waiting >= MAX_WAITING:
            raise ApiError(
                503, "busy", "too many questions wait for the catalogue", "Try again shortly.", {"Retry-After": "1"}
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except ConfigError as error:
            raise refused(error) from None
        except Unusable as error:
            raise self.unavailable(error) from None
        finally:
            self._waiting -= 1

    def unavailable(self, error: Unusable) -> ApiError:
        """Return the error for who asks a catalogue that cannot answer now."""
        return ApiError(
            503,
            "catalogue-unavailable",
            self._hidden(str(error)),
            "Try again, with fewer messages to look through: a label, a time or a rarer word.",
            {"Retry-After": "1"},
        )

    def close(self) -> None:
        """Let go of everything."""
        self._keeper.close()
        self._threads.submit(self.search.close)
        self._threads.shutdown(wait=False, cancel_futures=False)


def refused(error: ConfigError) -> ApiError:
    """Return the error for what cannot be asked."""
    return ApiError(422, "bad-parameter", str(error), "See /docs for the parameters, with their limits.")
