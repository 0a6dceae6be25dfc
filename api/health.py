"""Is the API there, and what of it works: predictions, taking messages and labels, learning?

GET /healthz and GET /readyz. Ready is who can take messages and labels: were it who can predict, a fresh install behind
a Service that routes to ready pods only would wait for ever for its first label. What of it works is said by part.
Everything is read from what the watcher and the connection already hold, so these answer at once whatever has failed.
"""

from typing import Final

import msgspec
from fastapi import APIRouter, Response

from driftline.api import openapi
from driftline.api.connection import Connection
from driftline.api.errors import ApiError, Error, json_response
from driftline.api.watcher import Served, Watcher
from driftline.learner.status import AT_WORK, Status

_ACTION: Final = "Mend what the reasons name; it becomes ready by itself."


class Alive(msgspec.Struct, frozen=True):
    """The process answers. What the learner does is said beside it: to start the API anew would not mend that."""

    status: str = "alive"
    learner: str | None = None  # its state, or `silent` where it says nothing any more; null where there was none yet


class Part(msgspec.Struct, frozen=True):
    """Whether a part works now; why not, or null."""

    ready: bool
    why: str | None


class Parts(msgspec.Struct, frozen=True):
    """What works now: predictions, messages and labels becoming durable, labels being learned."""

    predict: Part
    take: Part
    learn: Part


class Ready(msgspec.Struct, frozen=True):
    """Messages and labels are taken. The parts say what else works; warnings do not keep it from being ready."""

    status: str
    parts: Parts
    warnings: list[str]


class NotReady(Error, frozen=True):
    """Nothing can be taken: every reason."""

    reasons: list[str]
    parts: Parts
    warnings: list[str]


TYPES: Final = (Alive, Ready, NotReady)


class Health:
    """Judges what the watcher and the connection hold. On the event loop only."""

    def __init__(self, watcher: Watcher, connection: Connection) -> None:
        self._watcher, self._connection = watcher, connection

    def parts(self) -> Parts:
        """Return what works now."""
        served, problem = self._watcher.served, self._connection.problem
        why_not = None if answers(served) else missing(self._watcher)
        idle = _not_learning(self._watcher)
        return Parts(Part(why_not is None, why_not), Part(problem is None, problem), Part(idle is None, idle))

    def check(self) -> None:
        """Raise ApiError (503) where messages and labels cannot be taken."""
        if (problem := self._connection.problem) is not None:
            raise ApiError(503, "not-ready", f"log: {problem}", _ACTION, {"Retry-After": "1"})

    def router(self) -> APIRouter:
        """Return GET /healthz and GET /readyz."""
        routes = APIRouter(tags=["operate"])

        @routes.get(
            "/healthz",
            summary="Whether the process is alive",
            responses=openapi.answers(200, "It is.", openapi.ref("Alive")),
        )
        async def is_alive() -> Response:
            return json_response(Alive(learner=_state(self._watcher.status)))

        @routes.get(
            "/readyz",
            summary="Whether messages and labels are taken, and what else works",
            responses=openapi.answers(200, "They are.", openapi.ref("Ready"))
            | openapi.answers(503, "Not now: every reason.", openapi.ref("NotReady")),
        )
        async def is_ready() -> Response:
            parts, warnings = self.parts(), self._warnings()
            if parts.take.ready:
                return json_response(Ready("ready", parts, warnings))
            reasons = [f"log: {parts.take.why}"]
            return json_response(NotReady("not-ready", "; ".join(reasons), _ACTION, reasons, parts, warnings), 503)

        return routes

    def _warnings(self) -> list[str]:
        watcher, status, warnings = self._watcher, self._watcher.status, []
        predicts = answers(watcher.served)
        if not predicts:
            warnings.append(f"model: {missing(watcher)}")
        if (idle := _not_learning(watcher)) is not None:
            warnings.append(f"learner: {idle}; {'predictions are answered, ' if predicts else ''}nothing is learned")
        if watcher.pinned_to is not None:
            warnings.append(f"model: pinned to {watcher.pinned_to}; what is learned since is not served")
        if predicts and watcher.snapshot_problem is not None:
            warnings.append(f"model: {watcher.snapshot_problem}; the one before is served")
        if status is not None and status.gate.state == "shut":
            warnings.append(f"model: the newest is held back, the one before is served ({status.gate.why})")
        if watcher.status_problem is not None and status is not None:
            warnings.append(f"learner: {watcher.status_problem}")
        return warnings


def answers(served: Served | None) -> bool:
    """Tell whether a model answers: one that has learned something."""
    return served is not None and bool(served.info.labels)


def missing(watcher: Watcher) -> str:
    """Return why no model answers, where none does."""
    if watcher.snapshot_problem is not None:
        return watcher.snapshot_problem
    idle = _not_learning(watcher)
    return f"there is none yet, {idle or 'nothing was learned; labels show a moment after they were sent'}"


def _not_learning(watcher: Watcher) -> str | None:
    """Return why nothing is learned now; None where a learner takes what comes."""
    status = watcher.status
    if status is None:
        return watcher.status_problem or "no learner has run on this data directory yet"
    if not status.alive:
        return f"the learner is not at work ({_condition(status)})"
    if status.state == "starting":
        return f"the learner is starting ({status.detail})"
    if status.state == "recovering":
        return f"the learner is recovering ({status.detail})" if status.detail else "the learner is recovering"
    if status.state == "waiting":
        return f"the learner waits ({status.detail})"
    return None


def _state(status: Status | None) -> str | None:
    if status is None:
        return None
    return "silent" if status.state in AT_WORK and not status.alive else status.state


def _condition(status: Status) -> str:
    if status.state not in AT_WORK:
        return f"{status.state}: {status.detail}" if status.detail else status.state
    return f"{status.state}, but silent for {status.age_s:.0f} s"
