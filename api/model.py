"""Which model is served, how good is it, and can this process do its work?

GET /model, /healthz and /readyz. Everything is read from what the watcher and the connection already hold, so these
answer at once whatever has failed. The counts and scores are the learner's own, at most a second old while it lives;
lag is taken from the log itself, so it is right even when the learner is dead.
"""

import time
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Response

from driftline.api import openapi
from driftline.api.connection import Connection
from driftline.api.errors import Error, json_response
from driftline.api.watcher import Served, Watcher
from driftline.learner.alarms import Alarms
from driftline.learner.checkpoint import Offsets
from driftline.learner.gate import GateReport
from driftline.learner.losses import Losses
from driftline.learner.status import Status


class Learner(msgspec.Struct, frozen=True):
    """What the learner said of itself last. A status that is old means that it is dead or stuck."""

    state: str
    alive: bool
    detail: str
    epoch: int
    pid: int
    status_age_seconds: float


class Scored(msgspec.Struct, frozen=True):
    """Predictions as served, compared with their labels."""

    labels: int
    accuracy: float
    log_loss: float


class DelayScored(msgspec.Struct, frozen=True):
    """Accuracy for labels that came so long after their message."""

    delay: str
    labels: int
    accuracy: float


class Progressive(msgspec.Struct, frozen=True):
    """Progressive validation: each label against the prediction made when its message came in."""

    labels: int
    accuracy: float
    log_loss: float
    calibration_error: float
    macro_f1: float
    recent: Scored
    by_delay: list[DelayScored]
    # Labels that were not scored, by why.
    unpredicted: int = 0  # their message came before the first label was learned
    unasked: int = 0  # they brought their text: nothing had been predicted
    corrections: int = 0  # they correct a label


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The model that answers now, and the learner behind it. What is not known yet is null."""

    version: str | None
    pinned_to: str | None  # the version that was chosen to answer in the latest's place; see GET /snapshots
    model: str | None
    labels: list[str]
    age_seconds: float | None  # since it was published
    unchanged_seconds: float | None  # since its version was published first, as far as this process saw
    feedback_offsets: dict[str, int]
    # What happened to records since the first one.
    messages_seen: int = 0
    labels_seen: int = 0
    labels_learned: int = 0
    refused: int = 0  # labels that the model could not learn: an error of its own, a number that was none
    orphaned: int = 0
    orphaned_by: dict[str, int] = {}  # the same, by the limit that they met while they waited for their message
    rejected: int = 0
    duplicates: int = 0
    repeated: int = 0
    corrected: int = 0
    retracted: int = 0
    expired: int = 0
    clock_jumps: int = 0  # timestamps too far from the log's clock to count
    over_quota: int = 0  # labels refused because their source sent too many
    unwritten: int = 0  # predictions too large for the log even without scores
    pending: int = 0  # messages that wait for a label now
    waiting: int = 0  # labels that wait for a message now
    accuracy: float | None  # of predictions as served
    progressive: Progressive | None
    drift: Alarms | None  # when the log loss of predictions as served changed, over all labels and for single ones
    losses: Losses | None  # records that the log no longer had when they were to be learned
    gate: GateReport | None  # whether the newest model is served, and by which losses that is judged
    over_quota_by_source: dict[str, int]
    lag: Offsets | None
    learner: Learner | None


class Alive(msgspec.Struct, frozen=True):
    """The process answers. What the learner does is said beside it: to start the API anew would not mend that."""

    status: str = "alive"
    learner: str | None = None  # its state, or `silent` where it says nothing any more; null where there was none yet


class Ready(msgspec.Struct, frozen=True):
    """Predictions are answered, and records appended. Warnings do not keep it from that."""

    status: str
    warnings: list[str]


class NotReady(Error, frozen=True):
    """Something is missing: every reason."""

    reasons: list[str]
    warnings: list[str]


TYPES: Final = (ModelAnswer, Alive, Ready, NotReady)


def router(watcher: Watcher, connection: Connection) -> APIRouter:
    """Return GET /model."""
    routes = APIRouter(tags=["operate"])

    @routes.get(
        "/model",
        summary="The served model, its accuracy, its counts and its lag",
        responses=openapi.answers(200, "What is known now.", openapi.ref("ModelAnswer")),
    )
    async def model() -> Response:
        return json_response(describe(watcher, connection))

    return routes


def health(watcher: Watcher, connection: Connection) -> APIRouter:
    """Return GET /healthz and GET /readyz."""
    routes = APIRouter(tags=["operate"])

    @routes.get(
        "/healthz",
        summary="Whether the process is alive",
        responses=openapi.answers(200, "It is.", openapi.ref("Alive")),
    )
    async def healthz() -> Response:
        return json_response(Alive(learner=_learner_state(watcher.status)))

    @routes.get(
        "/readyz",
        summary="Whether a model is loaded and the log answers",
        responses=openapi.answers(200, "Both.", openapi.ref("Ready"))
        | openapi.answers(503, "Not now: every reason.", openapi.ref("NotReady")),
    )
    async def readyz() -> Response:
        reasons, warnings = _reasons(watcher, connection), _warnings(watcher)
        if not reasons:
            return json_response(Ready("ready", warnings))
        action = "Mend what the reasons name; it becomes ready by itself."
        return json_response(NotReady("not-ready", "; ".join(reasons), action, reasons, warnings), 503)

    return routes


def describe(watcher: Watcher, connection: Connection) -> ModelAnswer:
    """Return what is known of the model and its learner."""
    served, status = watcher.served, watcher.status
    info, now = served.info if served else None, time.time()
    progressive = _progressive(status.progress) if status else None
    return ModelAnswer(
        version=info.version if info else None,
        pinned_to=watcher.pinned_to,
        model=info.model if info else status.model if status else None,
        labels=info.labels if info else [],
        age_seconds=_since(info.published_at, now) if info else None,
        unchanged_seconds=_since(served.changed_at, now) if served else None,
        feedback_offsets=info.feedback_offsets if info else {},
        **(_counts(status) if status else {}),
        accuracy=progressive.accuracy if progressive and progressive.labels else None,
        progressive=progressive,
        drift=status.drift if status else None,
        losses=status.losses if status else None,
        gate=status.gate if status else None,
        over_quota_by_source=status.over_quota if status else {},
        lag=connection.lag(status.positions if status else {}),
        learner=_learner(status) if status else None,
    )


def _since(then: float, now: float) -> float:
    return round(max(0.0, now - then), 3)


def _counts(status: Status) -> dict[str, Any]:
    known = msgspec.structs.asdict(status.counts) | msgspec.structs.asdict(status.join)
    known |= {"pending": status.pending, "waiting": status.waiting}
    return {name: value for name, value in known.items() if name in ModelAnswer.__struct_fields__}


def _progressive(summary: dict[str, Any]) -> Progressive | None:
    """Return the scores of a status, or None where it has none, or those of another version."""
    try:
        return msgspec.convert(summary, Progressive)
    except msgspec.ValidationError:
        return None


def _learner(status: Status) -> Learner:
    return Learner(status.state, status.alive, status.detail, status.epoch, status.pid, round(status.age_s, 3))


def _reasons(watcher: Watcher, connection: Connection) -> list[str]:
    reasons = []
    if not _answers(watcher.served):
        reasons.append(_missing(watcher))
    if connection.problem is not None:
        reasons.append(f"log: {connection.problem}")
    return reasons


def _answers(served: Served | None) -> bool:
    return served is not None and bool(served.info.labels)


def _missing(watcher: Watcher) -> str:
    status = watcher.status
    if watcher.snapshot_problem is not None:
        return f"model: {watcher.snapshot_problem}"
    if status is None:
        return "model: no learner has run on this data directory yet"
    if not status.alive:
        return f"model: there is no snapshot, and the learner is not at work ({_condition(status)})"
    if status.state == "recovering":
        return "model: the learner is recovering"
    return "model: nothing was learned yet; send messages and their labels"


def _warnings(watcher: Watcher) -> list[str]:
    warnings = []
    status = watcher.status
    if status is not None and not status.alive:
        warnings.append(f"learner: not at work ({_condition(status)}); predictions are answered, nothing is learned")
    elif status is not None and status.state == "waiting":
        warnings.append(f"learner: it waits ({status.detail}); predictions are answered, nothing is learned")
    if watcher.pinned_to is not None:
        warnings.append(f"model: pinned to {watcher.pinned_to}; what is learned since is not served")
    if _answers(watcher.served) and watcher.snapshot_problem is not None:
        warnings.append(f"model: {watcher.snapshot_problem}; the one before is served")
    if status is not None and status.gate.state == "shut":
        warnings.append(f"model: the newest is held back, the one before is served ({status.gate.why})")
    if watcher.status_problem is not None:
        warnings.append(f"learner: {watcher.status_problem}")
    return warnings


def _learner_state(status: Status | None) -> str | None:
    if status is None:
        return None
    at_work = status.state in {"recovering", "running", "waiting"}
    return "silent" if at_work and not status.alive else status.state


def _condition(status: Status) -> str:
    if status.state in {"paused", "stalled", "stopped", "failed"}:
        return f"{status.state}: {status.detail}" if status.detail else status.state
    return f"{status.state}, but silent for {status.age_s:.0f} s"
