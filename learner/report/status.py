"""What is the learner doing?

A small JSON file in the data directory, put in place anew about twice a second, so that an API, a health check or a
person can see the learner without asking it. It may be older than the truth by that much, never half-written.
"""

import os
import time
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from driftline.learner.disk import durable
from driftline.learner.disk.lock import is_held
from driftline.learner.disk.losses import Erasures, Losses
from driftline.learner.disk.rebuilt import Rebuilt
from driftline.learner.quality.alarms import Alarms
from driftline.learner.quality.figures import Counts, GateReport, Offsets
from driftline.learner.report.follow_report import FollowReport
from driftline.learner.report.starting import Start
from driftline.learner.store.upload_report import UploadReport
from driftline.stream.errors import StateError
from driftline.stream.limits import JoinCounts

FILE: Final = "status.json"
STALE_S: Final = 15.0
AT_WORK: Final = frozenset({"starting", "recovering", "running", "standby", "following", "waiting"})


# waiting: at work, but the log does not answer. paused: the disk is full, or too much of what comes cannot be read.
# stalled: it should be at work, and nothing moves.
# starting: nothing is learned yet, and `start` says why not.
# standby: another learner leads, and this one is ready to (cluster/).
# following: it learns what the one that leads does, for an API beside it, and nothing else (follow/).
State = Literal[
    "starting",
    "recovering",
    "running",
    "standby",
    "following",
    "waiting",
    "paused",
    "stalled",
    "stopped",
    "failed",
]


class Status(msgspec.Struct, kw_only=True):
    """What a learner says of itself."""

    state: State
    detail: str = ""
    at: float  # seconds since 1970
    pid: int
    epoch: int
    model: str
    version: str
    labels: list[str]
    places: int = 0  # how many labels the model can have; 0: not told
    places_left: int = 0  # how many new ones it would learn now, in the place of labels that give theirs too
    counts: Counts
    join: JoinCounts
    pending: int  # messages waiting for a label
    waiting: int  # labels waiting for a message
    positions: Offsets
    progress: dict[str, Any]
    drift: Alarms = msgspec.field(default_factory=Alarms)
    losses: Losses = msgspec.field(default_factory=Losses)
    rebuilt: Rebuilt | None = None
    erased: Erasures = Erasures()
    checkpoint: int = 0  # batch of the newest checkpoint on the disk
    batch: int = 0
    window_bytes: int = 0
    checkpoint_seconds: float = 0.0  # how long the last one took, while the loop went on
    checkpoint_pause_seconds: float = 0.0  # how long the loop stood still for it
    snapshot_seconds: float = 0.0
    gate: GateReport = GateReport()
    over_quota: dict[str, int] = {}  # labels refused, by source
    stalls: int = 0  # since the process began
    uploads: UploadReport | None = None  # where checkpoints go to a store, too
    start: Start | None = None  # what it is at, where the state is starting
    following: FollowReport | None = None  # of one that follows: how far behind it is
    gone: bool = False  # no learner holds the directory; found out when this is read

    @property
    def age_s(self) -> float:
        """How long ago this was written."""
        return max(0.0, time.time() - self.at)

    @property
    def alive(self) -> bool:
        """Whether a learner is at work."""
        return self.state in AT_WORK and self.age_s < STALE_S and not self.gone

    @property
    def word(self) -> str:
        """What everybody calls it: its state, or of one that says it is at work and is not, `gone` or `silent`."""
        if self.state not in AT_WORK or self.alive:
            return self.state
        return "gone" if self.gone else "silent"

    @property
    def idle(self) -> str | None:
        """Why nothing is learned now; None where a learner takes what comes."""
        word, detail = self.word, f" ({self.detail})" if self.detail else ""
        who = "learner" if self.following is None else "follower"
        if word in {"running", "following"}:
            return None
        if word == "silent":
            return f"the {who} is silent: it said that it was {self.state} {self.age_s:.0f} s ago"
        if word == "gone":
            return f"the {who} is gone: it was {self.state}, and nobody has the data directory now"
        says = {
            "starting": "is starting",
            "recovering": "is recovering" if self.following is None else "is catching up",
            "waiting": "waits",
            "failed": "has failed",
            "standby": "stands by",
        }
        return f"the {who} {says.get(word, f'is {word}')}{detail}"


_STATUS: Final = msgspec.json.Decoder(Status)


def blank_status(model: str) -> Status:
    """Return the status of a learner that has done nothing yet."""
    from driftline.learner.quality.progress import Progress  # noqa: PLC0415  (who only reads one needs no arrays)

    return Status(
        state="waiting",
        at=time.time(),
        pid=0,
        epoch=0,
        model=model,
        version="",
        labels=[],
        counts=Counts(),
        join=JoinCounts(),
        pending=0,
        waiting=0,
        positions={},
        progress=Progress().summary(),
    )


def write_status(data: Path, status: Status) -> None:
    """Put the status in place. Raises DiskFull: then the one before is still there."""
    durable.replace(data / FILE, msgspec.json.encode(status), f"-{status.epoch:08d}")


def change_status(
    data: Path, status: Status, state: State, detail: str, epoch: int, start: Start | None = None
) -> None:
    """Write a status of which nothing changes but the state, for a learner that has not started. Raises DiskFull."""
    status.state, status.detail, status.at, status.pid = state, detail, time.time(), os.getpid()
    status.start, status.epoch = start, max(status.epoch, epoch)
    write_status(data, status)


def last_status(data: Path, model: str) -> Status:
    """Return what the last learner said, for one that has said nothing yet; else that of one of a model, blank."""
    try:
        found = read_status(data)
    except StateError:  # of another version, or damaged: it will be written anew
        found = None
    return found or blank_status(model)


def read_status(data: Path) -> Status | None:
    """Return the last status, or None where no learner has run yet.

    Raises
    ------
    StateError : the file is not a status of this version.
    """
    try:
        status = _STATUS.decode((data / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise StateError(f"{data / FILE} is not a status of this version of Driftline: {error}") from error
    status.gone = is_held(data) is False
    return status
