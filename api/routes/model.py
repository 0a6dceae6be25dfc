"""Which model is served, how good is it, and can this process do its work?

GET /model. Everything is read from what the watcher and the connection already hold, so it answers at once whatever has
failed. The counts and scores are the learner's own, at most a second old while it lives;
lag is taken from the log itself, so it is right even when the learner is dead.
"""

import time
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Response

from driftline.api.errors import json_response
from driftline.api.http import openapi
from driftline.api.shared.connection import Connection
from driftline.api.shared.watcher import Watcher
from driftline.learner.disk.checkpoint import by_topic
from driftline.learner.disk.losses import Losses
from driftline.learner.quality.alarms import Alarms
from driftline.learner.quality.figures import GateReport, Offsets
from driftline.learner.report.follow_report import FollowReport
from driftline.learner.report.starting import Start
from driftline.learner.report.status import Status


class Learner(msgspec.Struct, frozen=True):
    """What the learner said of itself last. A status that is old means that it is dead or stuck."""

    state: str
    word: str  # the state, or `gone`, `silent` of one that is not at work although it said so
    alive: bool
    detail: str
    epoch: int
    pid: int
    status_age_seconds: float
    start: Start | None = None  # what it is at, and how much of that is done, while it is starting
    following: FollowReport | None = None  # of one that follows a learner elsewhere: how far behind it is


class Scored(msgspec.Struct, frozen=True):
    """Predictions as served, compared with their labels."""

    labels: int
    accuracy: float
    log_loss: float
    known_log_loss: float | None = None  # without labels that the model had not learned when their message came


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
    known_log_loss: float | None = None  # without those that are `unknown`
    unknown: int = 0  # labels that the model had not learned when their message came: each adds 34.5 to the sum
    # Labels that were not scored, by why.
    unpredicted: int = 0  # their message came before the first label was learned
    unasked: int = 0  # they brought their text: nothing had been predicted
    corrections: int = 0  # they correct a label


_PROGRESSIVE: Final = msgspec.json.Decoder(Progressive)  # `convert` knows it then, whichever thread is the first


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The model that answers now, and the learner behind it. What is not known yet is null."""

    version: str | None
    pinned_to: str | None  # the version that was chosen to answer in the latest's place; see GET /snapshots
    model: str | None
    labels: list[str]
    places: int = 0  # how many labels the learner's model can have
    places_taken: int = 0  # how many it has
    places_left: int = 0  # how many new ones it would learn now, in the place of labels that give theirs too
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
    other_texts: int = 0  # messages and labels that brought another text than their message's id had
    reused_ids: int = 0  # feedback ids that came again with something else to say
    ambiguous: int = 0  # labels without a text, refused: several texts came with their message's id
    corrected: int = 0
    retracted: int = 0
    expired: int = 0
    clock_jumps: int = 0  # timestamps too far from the log's clock to count
    over_quota: int = 0  # labels refused because their source sent too many
    unwritten: int = 0  # predictions too large for the log even without scores
    vectors_unused: int = 0  # messages with a vector that the model does not take: scored and learned without it
    vectors_made: int = 0  # texts of messages and of labels that got one by the model's sentence model
    vectors_spared: int = 0  # those beyond `embed_rate`: scored and learned without one
    pending: int = 0  # messages that wait for a label now
    waiting: int = 0  # labels that wait for a message now
    accuracy: float | None  # of predictions as served
    progressive: Progressive | None
    drift: Alarms | None  # when the log loss of predictions as served changed, over all labels and for single ones
    losses: Losses | None  # records that the log no longer had when they were to be learned
    gate: GateReport | None  # whether the newest model is served, and by which losses that is judged
    over_quota_by_source: dict[str, int]
    lag: Offsets | None  # up to what can be read now
    held_back: Offsets = {}  # offsets behind that, which a transaction holds back that is open (Kafka)
    learner: Learner | None


TYPES: Final = (ModelAnswer,)


def router(watcher: Watcher, connection: Connection) -> APIRouter:
    """Return GET /model."""
    routes = APIRouter(tags=["operate"])

    @routes.get(
        "/model",
        summary="The served model, its accuracy, its counts and its lag",
        responses=openapi.answers(200, "What is known now.", openapi.ref("ModelAnswer")),
    )
    async def get_model() -> Response:
        return json_response(describe(watcher, connection))

    return routes


def describe(watcher: Watcher, connection: Connection) -> ModelAnswer:
    """Return what is known of the model and its learner. On the event loop only."""
    served, status = watcher.served, watcher.status
    info, now = served.now() if served else None, time.time()
    progressive = _progressive(status.progress) if status else None
    return ModelAnswer(
        version=info.version if info else None,
        pinned_to=watcher.pinned_to,
        model=info.model if info else status.model if status else None,
        labels=info.labels if info else [],
        places=status.places if status else 0,
        places_taken=len(status.labels) if status else 0,
        places_left=status.places_left if status else 0,
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
        held_back=by_topic(connection.held_back),
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
    age_s = round(status.age_s, 3)
    said = status.state, status.word, status.alive, status.detail, status.epoch, status.pid
    return Learner(*said, age_s, status.start, status.following)
