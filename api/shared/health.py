"""Is the API there, and what of it works: predictions, taking messages and labels, learning?

GET /healthz and GET /readyz. Ready is who can take messages and labels: were it who can predict, a fresh install behind
a Service that routes to ready pods only would wait for ever for its first label. One that follows a learner elsewhere
must also be near enough to it, and have a model where that has one. What of it works is said by part.
Everything is read from what the watcher and the connection already hold, so these answer at once whatever has failed.
"""

from typing import Final

import msgspec
from fastapi import APIRouter, Response

from driftline.api.errors import ApiError, Error, json_response
from driftline.api.http import openapi
from driftline.api.shared.connection import Connection
from driftline.api.shared.watcher import Served, Watcher
from driftline.stream.log import transactions
from driftline.stream.words import counted

_ACTION: Final = "Mend what the reasons name; it becomes ready by itself."


class Alive(msgspec.Struct, frozen=True):
    """The process answers. What the learner does is said beside it: to start the API anew would not mend that."""

    status: str = "alive"
    learner: str | None = None  # its state; `gone` or `silent` where it only said so; null where there was none yet


class Part(msgspec.Struct, frozen=True):
    """Whether a part works now; why not, or null."""

    ready: bool
    why: str | None


class Parts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What works now: predictions, messages and labels becoming durable, labels being learned.

    `follow` is there where a learner on another machine is followed: whether the model here is near enough to its.
    """

    predict: Part
    take: Part
    learn: Part
    follow: Part | None = None


class Ready(msgspec.Struct, frozen=True):
    """Messages and labels are taken, and the model is near enough to the one that is followed, where one is.

    The parts say what else works; warnings do not keep it from being ready.
    """

    status: str
    parts: Parts
    warnings: list[str]


class NotReady(Error, frozen=True):
    """Nothing can be taken, or the model is too far behind: every reason."""

    reasons: list[str]
    parts: Parts
    warnings: list[str]


TYPES: Final = (Alive, Ready, NotReady)


class Health:
    """Judges what the watcher and the connection hold. On the event loop only.

    Parameters
    ----------
    most_behind_s : how far the follower beside this API may be behind; None: there is none
    """

    def __init__(self, watcher: Watcher, connection: Connection, most_behind_s: float | None = None) -> None:
        self._watcher, self._connection, self._most_behind_s = watcher, connection, most_behind_s

    def parts(self) -> Parts:
        """Return what works now."""
        served, problem = self._watcher.served, self._connection.problem
        why_not = None if answers(served) else missing(self._watcher)
        idle = self._watcher.idle
        parts = Parts(Part(why_not is None, why_not), Part(problem is None, problem), Part(idle is None, idle))
        if self._most_behind_s is None:
            return parts
        why_far = self._why_far(self._most_behind_s)
        return msgspec.structs.replace(parts, follow=Part(why_far is None, why_far))

    def _why_far(self, most_s: float) -> str | None:
        """Return why the model here may be too far behind the one that is learned; None where it is not."""
        status = self._watcher.status
        if status is None or status.following is None:
            return "no follower has said yet how far it is"
        if (why := status.following.too_far(most_s)) is not None:
            return f"{why} ({self._watcher.idle})" if self._watcher.idle else why
        if status.counts.updates and not answers(self._watcher.served):
            return missing(self._watcher)
        return None

    def check(self) -> None:
        """Raise ApiError (503) where this is not ready."""
        if reasons := _reasons(self.parts()):
            raise ApiError(503, "not-ready", "; ".join(reasons), _ACTION, {"Retry-After": "1"})

    def router(self) -> APIRouter:
        """Return GET /healthz and GET /readyz."""
        routes = APIRouter(tags=["operate"])

        @routes.get(
            "/healthz",
            summary="Whether the process is alive",
            responses=openapi.answers(200, "It is.", openapi.ref("Alive")),
        )
        async def is_alive() -> Response:
            status = self._watcher.status
            return json_response(Alive(learner=status.word if status is not None else None))

        @routes.get(
            "/readyz",
            summary="Whether messages and labels are taken, and what else works",
            responses=openapi.answers(200, "They are.", openapi.ref("Ready"))
            | openapi.answers(503, "Not now: every reason.", openapi.ref("NotReady")),
        )
        async def is_ready() -> Response:
            parts, warnings = self.parts(), self._warnings()
            if not (reasons := _reasons(parts)):
                return json_response(Ready("ready", parts, warnings))
            return json_response(NotReady("not-ready", "; ".join(reasons), _ACTION, reasons, parts, warnings), 503)

        return routes

    def _warnings(self) -> list[str]:
        watcher, status, warnings = self._watcher, self._watcher.status, []
        predicts = answers(watcher.served)
        if not predicts:
            warnings.append(f"model: {missing(watcher)}")
        if (idle := watcher.idle) is not None:
            who = "learner" if status is None or status.following is None else "follower"
            warnings.append(f"{who}: {idle}; {'predictions are answered, ' if predicts else ''}nothing is learned")
        if watcher.pinned_to is not None:
            warnings.append(f"model: pinned to {watcher.pinned_to}; what is learned since is not served")
        if predicts and watcher.snapshot_problem is not None:
            warnings.append(f"model: {watcher.snapshot_problem}; the one before is served")
        if status is not None and status.gate.state == "shut":
            warnings.append(f"model: the newest is held back, the one before is served ({status.gate.why})")
        if held := transactions.describe(self._connection.held_back):
            warnings.append(f"log: {held}")
        if watcher.status_problem is not None and status is not None:
            warnings.append(f"learner: {watcher.status_problem}")
        return warnings


def _reasons(parts: Parts) -> list[str]:
    """Return why this is not ready, one for each part that has to be."""
    needed = {"log": parts.take, "follower": parts.follow}
    return [f"{name}: {part.why}" for name, part in needed.items() if part is not None and not part.ready]


def answers(served: Served | None) -> bool:
    """Tell whether a model answers: one that has learned something."""
    return served is not None and bool(served.info.labels)


def missing(watcher: Watcher) -> str:
    """Return why no model answers, where none does."""
    if watcher.snapshot_problem is not None:
        return watcher.snapshot_problem
    status = watcher.status
    if status is not None and status.counts.labels_learned:
        learned = counted(status.counts.labels_learned, "label")
        return f"{learned} learned, and the model of them is not in {watcher.snapshots}; {watcher.idle or 'it comes'}"
    return f"there is none yet, {watcher.idle or 'nothing was learned; labels show a moment after they were sent'}"
