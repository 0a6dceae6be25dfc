"""Which models of the past are there, and which one answers?

GET /snapshots and GET /snapshots/{version} tell; POST /snapshots/{version}/activate has one answer in the latest's
place, and DELETE /snapshots/active the latest again. The choice lies in the data directory (serving/versions.py), so it
holds for every process that serves from there, at its next look, and after a restart. The learner goes on learning.
Where several machines have the same models (learner/shared/), it goes through the topic that they share, and holds for
all of them.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response

from driftline.api.errors import ApiError, json_response
from driftline.api.hidden import without_paths
from driftline.api.http import openapi
from driftline.api.shared.together import Together
from driftline.api.shared.watcher import Watcher
from driftline.learner.serving.versions import Kept, Recent, UnknownVersion, Versions
from driftline.learner.shared import asking
from driftline.learner.shared.models import try_model
from driftline.stream.errors import ConfigError, StateError, StoreUnavailable
from driftline.stream.process.settings import StreamSettings

_T = TypeVar("_T")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be served again."""

    version: str
    created_at: str
    active: bool  # whether it answers in the latest's place
    pinned: bool  # whether it is never dropped
    name: str  # that it was pinned with
    model: str
    labels: list[str]
    labels_learned: int
    feedback_offsets: dict[str, int]
    checkpoint: int
    lineage: str
    recent: Recent  # how good predictions were that were served then, over the last 1,000 labels
    bytes: int
    sha256: str


class SnapshotsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The models that can be served again, newest first, and the one that answers."""

    served: str | None  # the version that answers now
    pinned_to: str | None  # the version that was chosen to answer; null: the latest does
    snapshots: list[Snapshot]


class ActiveAnswer(msgspec.Struct, frozen=True):
    """What was chosen. Every process serves it at its next look, within a second."""

    pinned_to: str | None


TYPES: Final = (SnapshotsAnswer, Snapshot, ActiveAnswer)
_VERSION: Final = openapi.path_parameter("version", "As GET /snapshots lists it.", {"type": "string"}, openapi.VERSION)
_ERROR: Final = openapi.content(openapi.ref("Error"))
_ON_ITS_WAY: Final = openapi.answers(
    202, "It is chosen, and will be served; this machine has not come to it yet.", openapi.ref("ActiveAnswer")
)
_UNKNOWN: Final[dict[int | str, Any]] = {404: {"description": "No such version is kept.", "content": _ERROR}}
_CANNOT: Final[dict[int | str, Any]] = {
    409: {"description": "It cannot be loaded; nothing has changed.", "content": _ERROR},
    503: {"description": "The data directory cannot be written, or what it needs does not answer.", "content": _ERROR},
}


def router(data: Path, watcher: Watcher) -> APIRouter:
    """Return GET /snapshots and GET /snapshots/{version}."""
    routes = APIRouter(tags=["operate"], route_class=openapi.BareRoute)
    versions = Versions(data)

    @routes.get(
        "/snapshots",
        summary="The models that can be served again",
        responses=openapi.answers(200, "Newest first.", openapi.ref("SnapshotsAnswer")),
    )
    async def list_snapshots(_: Request) -> Response:
        served = watcher.served
        kept, pinned_to = await _ask(lambda: ([*_describe(versions, versions.kept())], versions.active().version))
        answer = SnapshotsAnswer(served=served.info.version if served else None, pinned_to=pinned_to, snapshots=kept)
        return json_response(answer)

    @routes.get(
        "/snapshots/{version}",
        summary="One of them",
        responses=openapi.answers(200, "What is known of it.", openapi.ref("Snapshot")) | _UNKNOWN | _CANNOT,
        openapi_extra={"parameters": [_VERSION]},
    )
    async def get_snapshot(request: Request) -> Response:
        version = request.path_params["version"]
        return json_response(await _ask(lambda: _describe(versions, [versions.get(version)])[0]))

    return routes


def admin_router(stream: StreamSettings, together: Together) -> APIRouter:
    """Return POST /snapshots/{version}/activate and DELETE /snapshots/active, which change what is served."""
    routes = APIRouter(tags=["operate"], route_class=openapi.BareRoute)
    versions, allow_pickle = Versions(stream.data), stream.allow_pickle

    async def choose(topic: str, version: str | None) -> Response:
        """Have all machines serve a version, or the latest."""
        served = await together.ask(topic, asking.choose(version))
        return json_response(ActiveAnswer(version), 200 if served else 202)

    @routes.post(
        "/snapshots/{version}/activate",
        summary="Serve this version in the latest's place",
        responses=openapi.answers(200, "It is chosen.", openapi.ref("ActiveAnswer")) | _ON_ITS_WAY | _UNKNOWN | _CANNOT,
        openapi_extra={"parameters": [_VERSION]},
    )
    async def activate_snapshot(request: Request) -> Response:
        version = request.path_params["version"]
        if (there := await together.there()) is not None:
            await _ask(lambda: try_model(stream, version))
            return await choose(there.topic, version)
        await _ask(lambda: versions.activate(version, allow_pickle=allow_pickle))
        return json_response(ActiveAnswer(version))

    @routes.delete(
        "/snapshots/active",
        summary="Serve the latest again",
        responses=openapi.answers(200, "The latest is served.", openapi.ref("ActiveAnswer")) | _ON_ITS_WAY | _CANNOT,
    )
    async def serve_latest_snapshot(_: Request) -> Response:
        if (there := await together.there()) is not None:
            return await choose(there.topic, None)
        await _ask(versions.deactivate)
        return json_response(ActiveAnswer(None))

    return routes


def _describe(versions: Versions, kept: list[Kept]) -> list[Snapshot]:
    pins, active = versions.pins(), versions.active().version
    return [
        Snapshot(
            version=each.version,
            created_at=each.created_at,
            active=each.version == active,
            pinned=each.version in pins,
            name=pins[each.version].name if each.version in pins else "",
            model=each.model,
            labels=each.labels,
            labels_learned=each.labels_learned,
            feedback_offsets=each.feedback_offsets,
            checkpoint=each.checkpoint,
            lineage=each.lineage,
            recent=each.recent,
            bytes=each.n_bytes,
            sha256=each.sha256,
        )
        for each in kept
    ]


async def _ask(question: Callable[[], _T]) -> _T:
    """Ask the disk in a thread. Raises ApiError for what cannot be answered."""
    try:
        return await asyncio.to_thread(question)
    except UnknownVersion as error:
        raise ApiError(
            404, "unknown-version", without_paths(str(error)), "GET /snapshots lists those that are kept."
        ) from None
    except (StateError, ConfigError) as error:
        raise ApiError(
            409, "not-loadable", without_paths(str(error)), "Choose another version; what was served is served on."
        ) from None
    except StoreUnavailable as error:
        raise ApiError(
            503, "store-unavailable", str(error), "Nothing has changed; try again shortly.", {"Retry-After": "1"}
        ) from None
    except OSError as error:
        raise ApiError(
            503, "not-writable", without_paths(str(error)), "Let the API write to the data directory, and try again."
        ) from None
