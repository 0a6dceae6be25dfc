"""How do messages, labels and predictions get out over HTTP, however many there are?

GET /export streams a row a message, in a format of learner/export/rows.py: a few of them are in memory at a time, and a
client that reads slowly holds up nobody but itself. MAX_AT_ONCE of them run at once. What was sent is whole where the
answer ends as HTTP has it; where something breaks in the middle, the connection does.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from driftline.api.errors import SAFE_HEADERS, ApiError
from driftline.api.http import openapi, query
from driftline.api.routes.messages import UNAVAILABLE, filter_parameters, filters_of
from driftline.api.shared.catalogue import Catalogue, refused
from driftline.learner.catalogue.search import Search
from driftline.learner.export.rows import FORMATS, TYPES, written
from driftline.stream.errors import ConfigError
from driftline.stream.process import threads

MAX_AT_ONCE: Final = 2
ENDS: Final = {"argilla": "json", "label-studio": "json", "prodigy": "jsonl"}
_FORMAT: Final = query.parameter(
    "format",
    "A row a message as JSON lines, CSV or Parquet, or as another labelling tool reads it.",
    {"type": "string", "enum": list(FORMATS), "default": "jsonl"},
)


class _Exports:
    """How many run."""

    def __init__(self) -> None:
        self.running = 0


def router(catalogue: Catalogue) -> APIRouter:
    """Return GET /export."""
    routes, exports = APIRouter(tags=["review"], route_class=openapi.BareRoute), _Exports()
    binary: dict[str, Any] = {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind in TYPES.values()}

    @routes.get(
        "/export",
        summary="All messages that are asked for, with their labels and predictions, as a file",
        responses={200: {"description": "The file.", "content": binary}} | openapi.refused_parameter() | UNAVAILABLE,
        openapi_extra={"parameters": [_FORMAT, *filter_parameters()]},
    )
    async def export_messages(request: Request) -> Response:
        filters, form = filters_of(request), query.choice(request, "format", FORMATS)
        progress = await catalogue.freshen()
        await catalogue.ask(lambda search: search.page(filters, n=1))  # what cannot be asked is refused at once
        told = catalogue.told(progress)
        if not told.ready:
            raise ApiError(
                503,
                "catalogue-not-ready",
                told.problem or f"the log is still being read: {told.behind:,} records to go",
                "Ask again once `index` of GET /messages says `ready`; it goes on while somebody asks.",
                {"Retry-After": "5"},
            )
        if exports.running >= MAX_AT_ONCE:
            raise ApiError(
                503, "busy", f"{exports.running} exports are running", "Try again later.", {"Retry-After": "10"}
            )
        search = Search(catalogue.data, alone=True)
        try:
            export = _Export(search, written(search.each(filters), form))
        except ConfigError as error:
            raise refused(error) from None
        headers = {"Content-Disposition": f'attachment; filename="driftline.{ENDS.get(form, form)}"'}
        answer = StreamingResponse(_sent(export, exports), media_type=TYPES[form], headers=headers)
        answer.raw_headers += SAFE_HEADERS
        return answer

    return routes


class _Export:
    """One export; its parts are made in threads, one at a time."""

    def __init__(self, search: Search, parts: Iterator[bytes]) -> None:
        self._search, self._parts, self._lock, self._closed = search, parts, threading.Lock(), False

    def part(self) -> bytes | None:
        """Return the next part, None behind the last one."""
        with self._lock:
            return None if self._closed else next(self._parts, None)

    def close(self) -> None:
        """Give back the connection, once no thread uses it."""
        with self._lock:
            self._closed = True
            self._search.close()


async def _sent(export: _Export, exports: _Exports) -> AsyncIterator[bytes]:
    exports.running += 1
    try:
        while (part := await asyncio.to_thread(export.part)) is not None:
            if part:
                yield part
    finally:
        exports.running -= 1
        threads.start("export-end", export.close)
