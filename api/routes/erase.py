"""How is a message erased over HTTP?

DELETE /messages/{id} writes a request into the data directory (rebuild/erase.py), and answers once that is durable: the
learner does it between two batches, whatever is killed meanwhile. Here nothing is deleted. Where several machines
answer, the request goes to the topic that they share (learner/shared/), and whoever leads does it.
"""

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response

from driftline.api.errors import ApiError, json_response
from driftline.api.hidden import without_paths
from driftline.api.http import openapi
from driftline.api.shared.together import Together
from driftline.learner.rebuild.erase import ask
from driftline.learner.shared import asking
from driftline.stream.errors import StateError
from driftline.stream.wire.records import MAX_ID_CHARS


class ErasureAnswer(msgspec.Struct, frozen=True):
    """What is erased: the message, its labels, its prediction, and all that shows its text."""

    id: str
    request: str  # in the data directory, until it is done; `driftline erase --list` has what was


TYPES: Final = (ErasureAnswer,)
_PARAMETER: Final = openapi.path_parameter(
    "message_id",
    "The message's id; it may hold slashes.",
    {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS},
    "m1",
)
_ERROR: Final[dict[int | str, Any]] = {
    422: {"description": "This is no id.", "content": openapi.content(openapi.ref("Error"))},
    503: {"description": "It cannot be written down.", "content": openapi.content(openapi.ref("Error"))},
}


def router(data: Path, together: Together) -> APIRouter:
    """Return DELETE /messages/{message_id}."""
    routes = APIRouter(tags=["operate"], route_class=openapi.BareRoute)

    @routes.delete(
        "/messages/{message_id:path}",
        status_code=202,
        summary="Erase a message, its labels and its text",
        responses=openapi.answers(202, "It will be erased, whatever happens.", openapi.ref("ErasureAnswer")) | _ERROR,
        openapi_extra={"parameters": [_PARAMETER]},
    )
    async def erase_message(request: Request) -> Response:
        message_id = request.path_params["message_id"]
        if not 1 <= len(message_id) <= MAX_ID_CHARS:
            raise ApiError(
                422,
                "bad-id",
                f"a message's id has 1 to {MAX_ID_CHARS} characters, not {len(message_id)}",
                "Name the message as POST /messages did.",
            )
        if (there := await together.there()) is not None:
            record = asking.erase(asking.erasure([message_id]))
            await together.append(there.topic, record)
            name = (record.key or b"").decode().partition("/")[2]
            return json_response(ErasureAnswer(message_id, name), 202)
        try:
            path = await asyncio.to_thread(ask, data, [message_id])
        except (StateError, OSError) as error:
            raise ApiError(
                503,
                "not-writable",
                without_paths(str(error)),
                "Let the API write to the data directory, and try again.",
            ) from None
        return json_response(ErasureAnswer(message_id, path.stem), 202)

    return routes
