"""What does a person see who looks over the learner's shoulder?

The last messages with what was predicted and what their label said, which labels were taken for which, and the messages
to label next: a small JSON file in the data directory, put in place anew at most twice a second. It survives a restart
and is no part of any model; nothing that is learned depends on it.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.learner.disk import durable
from driftline.learner.machine.machine import Machine
from driftline.learner.machine.plan import Plan
from driftline.learner.quality.progress import Progress
from driftline.learner.report.confusion import Confused, Pairs
from driftline.learner.report.history import History, Totals
from driftline.learner.report.label_requests import N_SCORES, Estimate, LabelRequest, Requests, Shown
from driftline.stream.errors import DiskFull
from driftline.stream.join.message_view import Entry
from driftline.stream.join.window_saved import Unwanted
from driftline.stream.wire.fielded import Fields, join
from driftline.stream.wire.records import Feedback

FILE: Final = "review.json"
KEPT: Final = 100  # messages, and labels
LOOK_S: Final = 0.5  # in so long at most KEPT are taken in: people read no faster
MAX_MATRIX: Final = 12
MAX_TAKEN_BACK: Final = 1000

Row = NDArray[np.float32]  # [labels], a message's scores


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A message that came in, or a label that met its message."""

    id: str
    text: str  # its first MAX_TEXT_CHARS characters
    truncated: bool  # of the text, or of a field
    timestamp_ms: int  # of the message's record
    predicted: str | None  # null: no label was known
    score: float
    label: str | None = None  # what it really was; null: not known yet
    retracted: bool = False  # it was taken back; what the model has learned of it stays until a correction or a rebuild
    delay_seconds: float | None = None  # of the label
    fields: Fields = {}  # as in LabelRequest


class Confusion(msgspec.Struct, frozen=True):
    """How often a label (row) was predicted as which (column), among the commonest labels."""

    labels: list[str] = []
    counts: list[list[int]] = []


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """Everything; the newest first."""

    messages: list[Seen] = []
    labelled: list[Seen] = []
    confusion: Confusion = Confusion()
    confused: Confused = Confused()
    requests: list[LabelRequest] = []
    requests_per_hour: float = 0.0
    estimate: Estimate = msgspec.field(default_factory=Estimate)


_REVIEW: Final = msgspec.json.Decoder(Review)


def read_review(data: Path) -> Review:
    """Return the last review; an empty one where there is none that can be read."""
    try:
        return _REVIEW.decode((data / FILE).read_bytes())
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
        self._pairs = Pairs(last.confused)
        known = [*reversed(last.messages), *reversed(last.labelled)]
        # Messages whose label was taken back, and which. Another label that they have now was not.
        self._taken_back = OrderedDict((each.id, each.label) for each in known if each.retracted)
        self._messages = deque(map(_plain, reversed(last.messages)), KEPT)
        self._labelled = deque(map(_plain, reversed(last.labelled)), KEPT)
        self._next_look = 0.0
        self._room = [0, 0]  # for messages and labels, until the next look
        self._written = b""

    def see(self, machine: Machine, plan: Plan) -> None:
        """Look at a batch that was learned. Costs about a hundredth of learning it."""
        self.history.add_delays(plan.delays_ms / 1000)
        self._pairs.see(plan.labels, plan.steps.targets[plan.steps_served], plan.predicted)
        self._see_retractions(machine, plan)
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
            self._messages.append(_seen(plan, entry, timestamp_ms, plan.scores[step]))
        for step in served[len(served) - n_labels :].tolist():
            self._labelled.append(_labelled(machine, plan, step))

    def _see_retractions(self, machine: Machine, plan: Plan) -> None:
        """Note which messages' labels were taken back, and which of these have one again."""
        for record in plan.records.found.values() if plan.records else ():  # what has an `op`, or a source, is there
            if type(record) is Feedback and record.op == "retract":
                entry = None if record.label else machine.join.messages.get(record.message_id)
                self._taken_back[record.message_id] = record.label if entry is None else entry.label or ""
            elif type(record) is Feedback:
                self._taken_back.pop(record.message_id, None)
        while len(self._taken_back) > MAX_TAKEN_BACK:
            self._taken_back.popitem(last=False)

    def _label_of(self, request: LabelRequest, machine: Machine) -> str | None:
        """Return the label of a message that was asked about. Raises KeyError where none would be taken as its own."""
        entry = _find(request, machine)
        if entry is None or (entry.label is None and (entry.aside or machine.join.waits_aside(request.id))):
            raise KeyError(request.id)
        return None if self._is_taken_back(request.id, entry.label) else entry.label

    def _is_taken_back(self, key: str, label: str | None) -> bool:
        return label is not None and self._taken_back.get(key) == label

    def report(self, machine: Machine, lag: int) -> None:
        """Let the outside see it. Where the disk takes nothing, what was there before stays. Raises Overtaken."""
        self._check()
        counts, progress = machine.counts, machine.progress
        loss = progress.log_loss * progress.labels
        totals = Totals(counts.messages_seen, counts.labels_learned, progress.labels, progress.correct, loss)
        self.history.tick(time.time(), totals, lag)
        entries = machine.join.messages
        for key, label in list(self._taken_back.items()):
            entry = entries.get(key)
            if entry is not None and entry.label != label:  # it has another one now
                del self._taken_back[key]
        self.requests.settle(lambda request: self._label_of(request, machine))
        review = Review(
            messages=[self._by_now(each, machine) for each in reversed(self._messages)],
            labelled=[self._by_now(each, machine) for each in reversed(self._labelled)],
            confusion=_confusion(progress, machine.classifier.labels),
            confused=self._pairs.shown(progress, machine.classifier.labels),
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

    def _by_now(self, seen: Seen, machine: Machine) -> Seen:
        """Return a message with the last word on it."""
        entry = _find(seen, machine)
        label = seen.label if entry is None else entry.label
        retracted = self._is_taken_back(seen.id, label)
        if label == seen.label and not retracted:
            return seen
        return msgspec.structs.replace(seen, label=label, retracted=retracted)

    def forget(self, unwanted: Unwanted) -> None:
        """Show these messages no more."""
        gone = unwanted.ids | unwanted.texts
        for shown in (self._messages, self._labelled):
            kept = [each for each in shown if each.id not in gone]
            shown.clear()
            shown.extend(kept)
        self.requests.forget(gone)
        for key in gone & self._taken_back.keys():
            del self._taken_back[key]

    def close(self) -> None:
        """Give back what is open."""
        self.history.close()


def _entry(machine: Machine, plan: Plan, step: int) -> Entry:
    """Return a step's message, which may have left the window."""
    return Entry(machine.join.store, int(plan.rows[step]))


def _request(machine: Machine, plan: Plan, step: int, chance: float) -> LabelRequest:
    entry, scores, labels = _entry(machine, plan, step), plan.scores[step], plan.labels
    shown = Shown.of(entry.text)
    best = np.argsort(-scores, kind="stable")[:N_SCORES].tolist()
    known = {labels[column]: round(float(scores[column]), 6) for column in best if scores[column] > 0}
    return LabelRequest(
        id=entry.key,
        text=shown.text,
        fields=shown.fields,
        truncated=shown.truncated,
        timestamp_ms=int(plan.steps.times_ms[step]),
        label=next(iter(known), None),
        score=next(iter(known.values()), 0.0),
        scores=known,
        chance=chance,
    )


def _seen(plan: Plan, entry: Entry, timestamp_ms: int, scores: Row) -> Seen:
    shown = Shown.of(entry.text)
    best = int(scores.argmax()) if len(scores) else 0
    known = bool(scores[best : best + 1].any())
    return Seen(
        id=entry.key,
        text=shown.text,
        fields=shown.fields,
        truncated=shown.truncated,
        timestamp_ms=timestamp_ms,
        predicted=plan.labels[best] if known else None,
        score=round(float(scores[best]), 6) if known else 0.0,
    )


def _labelled(machine: Machine, plan: Plan, step: int) -> Seen:
    """Return one of the labels that met what was served for their message."""
    entry = _entry(machine, plan, step)
    came_ms = entry.timestamp_ms
    scores = np.frombuffer(entry.scores or b"", np.float32).copy()
    if len(scores):
        machine.places.forget_others(scores[np.newaxis], np.array([came_ms]))
    seen = _seen(plan, entry, came_ms, scores)
    label = plan.labels[plan.steps.targets[step]]
    delay_s = max(0, int(plan.steps.times_ms[step]) - came_ms) / 1000
    return msgspec.structs.replace(seen, label=label, delay_seconds=delay_s)


def _plain(seen: Seen) -> Seen:
    return msgspec.structs.replace(seen, retracted=False) if seen.retracted else seen


def _find(shown: Seen | LabelRequest, machine: Machine) -> Entry | None:
    """Return what was shown, where it is still there: the id may name another text by now."""
    named = machine.join.messages.get(shown.id)
    if named is not None and Shown.of(named.text)[:2] == (shown.text, shown.fields):
        return named
    return None if shown.truncated else machine.join.messages.aside(shown.id, join(shown.text, shown.fields))


def _confusion(progress: Progress, labels: list[str]) -> Confusion:
    """Return the part of the matrix that shows the commonest labels."""
    matrix = progress.confusion
    commonest = np.argsort(-progress.support[: len(matrix)], kind="stable")[:MAX_MATRIX]
    return Confusion([labels[column] for column in commonest], matrix[np.ix_(commonest, commonest)].tolist())
