"""How do messages, labels and predictions get out over HTTP, however many there are?

GET /export streams a row a message, in a format of learner/export/rows.py: a few of them are in memory at a time, and a
client that reads slowly holds up nobody but itself. `format=records` has each record of the log as it came
(records.py), and asks no catalogue. MAX_AT_ONCE of them run at once. What was sent is whole where the
answer ends as HTTP has it; where something breaks in the middle, the connection does.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import closing
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.responses import PlainTextResponse, StreamingResponse

from driftline.api.errors import SAFE_HEADERS, ApiError
from driftline.api.http import openapi, query
from driftline.api.routes.messages import UNAVAILABLE, filter_parameters, filters_of
from driftline.api.shared.catalogue import Catalogue, refused
from driftline.learner.catalogue.search import Filters, Search
from driftline.learner.export.records import records
from driftline.learner.export.rows import FORMATS, TYPES, written
from driftline.learner.rebuild.erase import left_of
from driftline.stream.errors import ConfigError
from driftline.stream.log.open import open_to_keep
from driftline.stream.process import threads
from driftline.stream.process.settings import StreamSettings

MAX_AT_ONCE: Final = 2
RECORDS: Final = "records"
ENDS: Final = {"argilla": "json", "label-studio": "json", "prodigy": "jsonl", RECORDS: "jsonl"}
_FORMAT: Final = query.parameter(
    "format",
    "A row a message as JSON lines, CSV or Parquet, or as another labelling tool reads it; or (records) all messages "
    "and labels of the log as they came, for `driftline send`.",
    query.words((*FORMATS, RECORDS)),
)


class _Exports:
    """How many run."""

    def __init__(self) -> None:
        self.running = 0


def router(catalogue: Catalogue) -> APIRouter:
    """Return GET /export."""
    routes, exports = APIRouter(tags=["review"], route_class=openapi.BareRoute), _Exports()
    content: dict[str, Any] = {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind in TYPES.values()}
    content["application/json"] = {"schema": {"type": "array", "items": {"type": "object"}}}
    content[TYPES["parquet"]] = {"schema": {"type": "string", "format": "binary"}}

    @routes.get(
        "/export",
        response_class=PlainTextResponse,  # so that this type is described first: clients take the first one
        summary="All messages that are asked for, with their labels and predictions, as a file",
        responses={200: {"description": "The file.", "content": content}} | openapi.refused_parameter() | UNAVAILABLE,
        openapi_extra={"parameters": [_FORMAT, *filter_parameters()]},
    )
    async def export_messages(request: Request) -> Response:
        filters, form = filters_of(request), query.choice(request, "format", (*FORMATS, RECORDS))
        if form == RECORDS:
            if filters != Filters():
                raise refused(ConfigError("format=records has all that the log has; leave out what chooses among it"))
            check_room()
            stream = catalogue.stream
            return _answer(_Export(_records(stream), lambda: None), exports, form)
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
        check_room()
        search = Search(catalogue.data, alone=True)
        try:
            export = _Export(written(search.each(filters), form), search.close)
        except ConfigError as error:
            raise refused(error) from None
        return _answer(export, exports, form)

    def check_room() -> None:
        if exports.running >= MAX_AT_ONCE:
            raise ApiError(
                503, "busy", f"{exports.running} exports are running", "Try again later.", {"Retry-After": "10"}
            )

    return routes


class _Export:
    """One export; its parts are made in threads, one at a time."""

    def __init__(self, parts: Generator[bytes, None, None], close: Callable[[], None]) -> None:
        self._parts, self._close, self._lock, self._closed = parts, close, threading.Lock(), False

    def part(self) -> bytes | None:
        """Return the next part, None behind the last one."""
        with self._lock:
            return None if self._closed else next(self._parts, None)

    def close(self) -> None:
        """Give back what it has, once no thread uses it."""
        with self._lock:
            self._closed = True
            self._parts.close()
            self._close()


def _records(stream: StreamSettings) -> Generator[bytes, None, None]:
    with closing(open_to_keep(stream)) as log:
        yield from records(log, stream.topics, left_of(stream.data), stream.max_record_bytes)


def _answer(export: _Export, exports: _Exports, form: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="driftline.{ENDS.get(form, form)}"'}
    answer = StreamingResponse(_sent(export, exports), media_type=TYPES.get(form, TYPES["jsonl"]), headers=headers)
    answer.raw_headers += SAFE_HEADERS
    return answer


async def _sent(export: _Export, exports: _Exports) -> AsyncIterator[bytes]:
    exports.running += 1
    try:
        while (part := await asyncio.to_thread(export.part)) is not None:
            if part:
                yield part
    finally:
        exports.running -= 1
        threads.start("export-end", export.close)
