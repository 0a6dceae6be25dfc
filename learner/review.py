"""What does a person see who looks over the learner's shoulder?

The last messages with what was predicted and what their label said, which labels were taken for which, and the messages
to label next: a small JSON file in the data directory, put in place anew at most twice a second. It survives a restart
and is no part of any model; nothing that is learned depends on it.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.learner import durable
from driftline.learner.history import History, Totals
from driftline.learner.machine import Machine, Plan
from driftline.learner.progress import Progress
from driftline.learner.requests import MAX_TEXT_CHARS, N_SCORES, Estimate, LabelRequest, Requests
from driftline.stream.errors import DiskFull
from driftline.stream.join import Entry
from driftline.stream.saved import Unwanted

FILE: Final = "review.json"
KEPT: Final = 100  # messages, and labels
LOOK_S: Final = 0.5  # in so long at most KEPT are taken in: people read no faster
MAX_MATRIX: Final = 12

Row = NDArray[np.float32]  # [labels], a message's scores


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A message that came in, or a label that met its message."""

    id: str
    text: str  # its first MAX_TEXT_CHARS characters
    truncated: bool
    timestamp_ms: int  # of the message's record
    predicted: str | None  # null: no label was known
    score: float
    label: str | None = None  # what it really was; null: not known yet
    delay_seconds: float | None = None  # of the label


class Confusion(msgspec.Struct, frozen=True):
    """How often a label (row) was predicted as which (column), among the commonest labels."""

    labels: list[str] = []
    counts: list[list[int]] = []


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """Everything; the newest first."""

    messages: list[Seen] = []
    labelled: list[Seen] = []
    confusion: Confusion = Confusion()
    requests: list[LabelRequest] = []
    requests_per_hour: float = 0.0
    estimate: Estimate = msgspec.field(default_factory=Estimate)


def read_review(data: Path) -> Review:
    """Return the last review; an empty one where there is none that can be read."""
    try:
        return msgspec.json.decode((data / FILE).read_bytes(), type=Review)
    except (OSError, ValueError, RecursionError):
        return Review()


class Reviewer:
    """Watches a learner: history, requests, the last messages. One thread, the loop's.

    Parameters
    ----------
    per_hour : how many messages to choose for labelling
    epoch : of the learner; the seed of these choices
    check : raises where it was overtaken
    """

    def __init__(self, data: Path, per_hour: float, epoch: int, check: Callable[[], None] = lambda: None) -> None:
        self._data, self._per_hour, self._epoch, self._check = data, per_hour, epoch, check
        self.history = History(data)
        self.requests = Requests(per_hour, epoch)
        last = read_review(data)
        self.requests.open.update((each.id, each) for each in reversed(last.requests))
        self.requests.estimate = last.estimate
        self._messages = deque(reversed(last.messages), KEPT)
        self._labelled = deque(reversed(last.labelled), KEPT)
        self._next_look = 0.0
        self._room = [0, 0]  # for messages and labels, until the next look
        self._written = b""

    def see(self, machine: Machine, plan: Plan) -> None:
        """Look at a batch that was learned. Costs about a hundredth of learning it."""
        self.history.add_delays(machine.delays_ms / 1000)
        now = time.monotonic()
        scored, served = plan.steps_scored, plan.steps_served
        scores = plan.scores[scored]
        if self._per_hour and len(scored):
            places, chances = self.requests.draw(scores.max(axis=1, initial=0), now)
            for place, chance in zip(places, chances, strict=True):
                self.requests.add(_request(machine, plan, int(scored[place]), float(chance)))
        if now >= self._next_look:
            self._next_look, self._room = now + LOOK_S, [KEPT, KEPT]
        n_messages, n_labels = min(len(scored), self._room[0]), min(len(served), self._room[1])
        self._room = [self._room[0] - n_messages, self._room[1] - n_labels]
        for step in scored[len(scored) - n_messages :].tolist():
            entry, timestamp_ms = _entry(machine, plan, step), int(plan.steps.times_ms[step])
            self._messages.append(_seen(machine, entry, timestamp_ms, plan.scores[step]))
        for step in served[len(served) - n_labels :].tolist():
            self._labelled.append(_labelled(machine, plan, step))

    def report(self, machine: Machine, lag: int) -> None:
        """Let the outside see it. Where the disk takes nothing, what was there before stays. Raises Overtaken."""
        self._check()
        counts, progress = machine.counts, machine.progress
        loss = progress.log_loss * progress.labels
        totals = Totals(counts.messages_seen, counts.labels_learned, progress.labels, progress.correct, loss)
        self.history.tick(time.time(), totals, lag)
        entries = machine.join.messages
        self.requests.settle(lambda key: entries[key].label)
        review = Review(
            messages=[_with_label(each, machine) for each in reversed(self._messages)],
            labelled=[_with_label(each, machine) for each in reversed(self._labelled)],  # the last word, not the first
            confusion=_confusion(progress, machine.classifier.labels),
            requests=list(reversed(self.requests.open.values())),
            requests_per_hour=self._per_hour,
            estimate=self.requests.estimate,
        )
        encoded = msgspec.json.encode(review)
        if encoded != self._written:
            self._check()
            with suppress(OSError, DiskFull):
                durable.replace(self._data / FILE, encoded, f"-{self._epoch:08d}")
                self._written = encoded

    def forget(self, unwanted: Unwanted) -> None:
        """Show these messages no more."""
        gone = unwanted.ids | unwanted.texts
        for shown in (self._messages, self._labelled):
            kept = [each for each in shown if each.id not in gone]
            shown.clear()
            shown.extend(kept)
        for key in gone & self.requests.open.keys():
            del self.requests.open[key]

    def close(self) -> None:
        """Give back what is open."""
        self.history.close()


def _entry(machine: Machine, plan: Plan, step: int) -> Entry:
    """Return a step's message, which may have left the window."""
    return Entry(machine.join.store, int(plan.rows[step]))


def _request(machine: Machine, plan: Plan, step: int, chance: float) -> LabelRequest:
    entry, scores, labels = _entry(machine, plan, step), plan.scores[step], machine.classifier.labels
    text = entry.text
    best = np.argsort(-scores, kind="stable")[:N_SCORES].tolist()
    known = {labels[column]: round(float(scores[column]), 6) for column in best if scores[column] > 0}
    return LabelRequest(
        id=entry.key,
        text=text[:MAX_TEXT_CHARS],
        truncated=len(text) > MAX_TEXT_CHARS,
        timestamp_ms=int(plan.steps.times_ms[step]),
        label=next(iter(known), None),
        score=next(iter(known.values()), 0.0),
        scores=known,
        chance=chance,
    )


def _seen(machine: Machine, entry: Entry, timestamp_ms: int, scores: Row) -> Seen:
    text = entry.text
    best = int(scores.argmax()) if len(scores) else 0
    known = bool(scores[best : best + 1].any())
    return Seen(
        id=entry.key,
        text=text[:MAX_TEXT_CHARS],
        truncated=len(text) > MAX_TEXT_CHARS,
        timestamp_ms=timestamp_ms,
        predicted=machine.classifier.labels[best] if known else None,
        score=round(float(scores[best]), 6) if known else 0.0,
    )


def _labelled(machine: Machine, plan: Plan, step: int) -> Seen:
    """Return one of the labels that met what was served for their message."""
    entry = _entry(machine, plan, step)
    came_ms = entry.timestamp_ms
    seen = _seen(machine, entry, came_ms, np.frombuffer(entry.scores or b"", np.float32))
    label = machine.classifier.labels[plan.steps.targets[step]]
    delay_s = max(0, int(plan.steps.times_ms[step]) - came_ms) / 1000
    return msgspec.structs.replace(seen, label=label, delay_seconds=delay_s)


def _with_label(seen: Seen, machine: Machine) -> Seen:
    entry = machine.join.messages.get(seen.id)
    if entry is None or entry.label == seen.label:
        return seen
    return msgspec.structs.replace(seen, label=entry.label)


def _confusion(progress: Progress, labels: list[str]) -> Confusion:
    """Return the part of the matrix that shows the commonest labels."""
    matrix = progress.confusion
    commonest = np.argsort(-progress.support[: len(matrix)], kind="stable")[:MAX_MATRIX]
    return Confusion([labels[column] for column in commonest], matrix[np.ix_(commonest, commonest)].tolist())
