"""What does a batch of records change?

The learner as a state machine: a state, and `apply`, which takes the next batch and gives what is to be sent out. All
that must come out the same in a replay is in here, so nothing in here looks at a clock, a random number, a file or the
network, and the state after some records does not depend on where they were cut into batches.

Two stages with one value between them, the plan: `_score_and_join` needs only the partitions' own records and a model
to read; `_learn` is the one writer. Here both run in one call of the classifier, in the records' order.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import msgspec
import numpy as np

from learner.alarms import Alarm, Alarms
from learner.checkpoint import Counts
from learner.classifier import Classifier, Scores, TooManyLabels
from learner.drift import Drift, Shift
from learner.progress import Progress
from learner.settings import Rules
from stream.errors import BadRecord
from stream.join import Entry, Join, Label, Window
from stream.log import NewRecord, Record
from stream.merge import Batch
from stream.records import (
    Message,
    Prediction,
    Rejected,
    decode_feedback,
    decode_message,
    encode,
    reject,
)

# What a producer may give for a time is any 64-bit number; a date ends with the year 9999.
LAST_TIMESTAMP_MS: Final = 253_402_300_799_999


class _Scored(msgspec.Struct, gc=False):
    """A message that is scored in this batch."""

    step: int
    entry: Entry
    message: Message
    timestamp_ms: int
    n_labels: int  # that the model knows at this point
    updates: int


class _Plan:
    """The steps of a batch, in order: texts to score, some of them to learn."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.targets: list[int] = []
        self.weights: list[float] = []
        self.scored: list[_Scored] = []
        self.labels: list[tuple[int, Label, Record]] = []  # to be compared with what was served
        self.rejected: list[Rejected] = []

    def step(self, text: str, target: int, weight: float) -> int:
        self.texts.append(text)
        self.targets.append(target)
        self.weights.append(weight)
        return len(self.texts) - 1


class Machine:
    """The state of a learner between two batches. One thread.

    Attributes
    ----------
    raised : the drift alarms of the last batch
    """

    def __init__(self, rules: Rules, classifier: Classifier, lineage: str) -> None:
        self.classifier = classifier
        self.lineage = lineage
        self.join = Join()
        self.progress = Progress(classifier.max_labels)
        self.drift = Drift(classifier.max_labels)
        self.alarms = Alarms()
        self.raised: list[Alarm] = []
        self.obey(rules)
        self.counts = Counts()

    def obey(self, rules: Rules) -> None:
        """Go by these rules from the next batch on."""
        self.rules = rules
        self.join.configure(rules.partitions, rules.limits)

    @property
    def version(self) -> str:
        """Which model this is: equal versions are equal models."""
        return self._version(self.counts.updates)

    def apply(self, batch: Batch) -> Mapping[str, list[NewRecord]]:
        """Take a batch in and return what is to be sent, by topic."""
        plan = _Plan()
        for record in batch.records:
            self._score_and_join(record, plan)
        scores = self._learn(plan)
        self._remember(plan, scores)
        self._measure(plan)
        self.counts.rejected += len(plan.rejected)
        topics = self.rules.topics
        return {
            topics.predictions: self._predictions(plan, scores) if self.rules.predictions else [],
            topics.dead_letter: [_dead_letter(rejected) for rejected in plan.rejected],
        }

    # Stage one: decode, find what belongs together.

    def _score_and_join(self, record: Record, plan: _Plan) -> None:
        if record.value is None:
            self.counts.tombstones += 1
            return
        if not 0 <= record.timestamp_ms <= LAST_TIMESTAMP_MS:
            record.timestamp_ms = min(max(record.timestamp_ms, 0), LAST_TIMESTAMP_MS)
        is_message = record.partition.topic == self.rules.topics.messages
        try:
            if is_message:
                self._message(record, plan)
            else:
                self._feedback(record, plan)
        except BadRecord as bad:
            plan.rejected.append(_reject(record, bad.error, bad.detail))

    def _message(self, record: Record, plan: _Plan) -> None:
        message = decode_message(record.value or b"", record.headers, self.rules.max_record_bytes)
        n_labels = len(self.classifier.labels)
        window = self.join.of_message(record.partition.partition, message.id)
        entry, labels = window.add_message(message, record.timestamp_ms, 4 * n_labels)
        if entry is not None:
            self.counts.messages_seen += 1
            step = plan.step(message.text, -1, 1.0)
            plan.scored.append(_Scored(step, entry, message, record.timestamp_ms, n_labels, self.counts.updates))
        if labels:
            self._plan_labels(record, labels, plan)
        if window.over:
            self._evict(window, plan)

    def _feedback(self, record: Record, plan: _Plan) -> None:
        value = record.value or b""
        feedback = decode_feedback(value, record.headers, self.rules.max_record_bytes)
        classifier = self.classifier
        if len(classifier.labels) >= classifier.max_labels and not classifier.knows(feedback.label):
            limit = classifier.max_labels
            raise BadRecord("too-many-labels", f"label {feedback.label!r} is new, and max_labels is {limit}")
        self.counts.labels_seen += 1
        window = self.join.of_feedback(record.partition.partition, feedback.message_id)
        orphan = None
        if feedback.message_id not in window.messages:
            detail = f"no message {feedback.message_id!r} came while the label could wait"
            orphan = _reject(record, "orphaned", detail)
        labels = window.add_feedback(feedback, record.timestamp_ms, orphan)
        if labels:
            self._plan_labels(record, labels, plan)
        if window.over:
            self._evict(window, plan)

    def _plan_labels(self, record: Record, labels: list[Label], plan: _Plan) -> None:
        for label in labels:
            feedback = label.feedback
            try:
                target = self.classifier.label_index(feedback.label)
            except TooManyLabels as error:  # it waited for its message, and others took the last places
                waited = label.orphan or _reject(record, "", "")
                plan.rejected.append(msgspec.structs.replace(waited, error="too-many-labels", detail=str(error)))
                continue
            plan.step(label.entry.text, target, feedback.weight)
            self.counts.labels_learned += 1
            self.counts.updates += 1
            if label.entry.came and not label.corrects:
                plan.labels.append((target, label, record))

    def _evict(self, window: Window, plan: _Plan) -> None:
        expired, orphans = window.evict()
        plan.rejected += orphans
        label = self.rules.expire_as
        if not expired or label is None:
            return
        with suppress(TooManyLabels):  # then they have no label to be learned as
            target = self.classifier.label_index(label)
            for entry in expired:
                plan.step(entry.text, target, 1.0)
                self.counts.updates += 1

    # Stage two: the one writer.

    def _learn(self, plan: _Plan) -> Scores:
        targets = np.array(plan.targets, np.int32)
        return self.classifier.score_and_learn(plan.texts, targets, np.array(plan.weights, np.float32))

    # What was served, and how good it was.

    def _remember(self, plan: _Plan, scores: Scores) -> None:
        """Keep each message's scores with it, as many as there were labels when it came."""
        raw, width = scores.tobytes(), 4 * scores.shape[1]
        for each in plan.scored:
            start = each.step * width
            each.entry.scores = raw[start : start + 4 * each.n_labels]

    def _measure(self, plan: _Plan) -> None:
        """Compare labels with what was served when their message came in.

        Not for corrections, which would count twice, nor where a label brought the text and nothing had been served.
        """
        served = plan.labels
        self.raised = []
        if not served:
            return
        n_labels = len(self.classifier.labels)
        rows = b"".join((label.entry.scores or b"").ljust(4 * n_labels, b"\0") for _, label, _ in served)
        scores = np.frombuffer(rows, np.float32).reshape(len(served), n_labels)
        truth = np.array([target for target, _, _ in served], np.int32)
        predicted = np.where(scores.any(axis=1), scores.argmax(axis=1), -1).astype(np.int32)
        delay_ms = np.array([label.timestamp_ms - label.entry.timestamp_ms for _, label, _ in served], np.int64)
        p_truth = scores[np.arange(len(served)), truth]
        self.progress.add(predicted, truth, p_truth, scores.max(axis=1, initial=0), np.maximum(delay_ms, 0))
        for place, shift in self.drift.add(predicted, truth, p_truth):
            alarm = self._alarm(shift, served[place][2])
            self.alarms.add(alarm)
            self.raised.append(alarm)

    def _alarm(self, shift: Shift, record: Record) -> Alarm:
        return Alarm(
            label=None if shift.column is None else self.classifier.labels[shift.column],
            change=shift.change,
            loss_before=shift.loss_before,
            loss_after=shift.loss_after,
            labels_before=shift.labels_before,
            labels_after=shift.labels_after,
            at_label=shift.at_label,
            timestamp_ms=record.timestamp_ms,
            topic=record.partition.topic,
            partition=record.partition.partition,
            offset=record.offset,
        )

    def _predictions(self, plan: _Plan, scores: Scores) -> list[NewRecord]:
        if not plan.scored:
            return []
        rows = scores[[each.step for each in plan.scored]].astype(np.float64).round(6)
        n_best = min(self.rules.predictions_scores, rows.shape[1])
        best = np.argsort(-rows, axis=1, kind="stable")[:, :n_best]
        names, labels = best.tolist(), self.classifier.labels
        values = np.take_along_axis(rows, best, axis=1).tolist()
        return [
            self._prediction(each, [labels[index] for index in indices], best_scores)
            for each, indices, best_scores in zip(plan.scored, names, values, strict=True)
        ]

    def _prediction(self, each: _Scored, labels: list[str], scores: list[float]) -> NewRecord:
        """Describe what was served; labels that came later in the batch stand last, with 0, and are left out."""
        known = dict(zip(labels[: each.n_labels], scores, strict=False)) if scores and scores[0] > 0 else {}
        prediction = Prediction(
            message_id=each.message.id,
            label=labels[0] if known else None,
            score=scores[0] if known else 0.0,
            scores=known,
            model_version=self._version(each.updates),
            ts=_timestamp(each.message, each.timestamp_ms),
        )
        return NewRecord(each.message.id.encode(), encode(prediction), each.timestamp_ms)

    def _version(self, updates: int) -> str:
        return f"{self.lineage}-{updates}"


def _timestamp(message: Message, timestamp_ms: int) -> str:
    """Return the message's own time, or else the log's: a prediction written again is the same."""
    when = message.ts
    if when is None:
        when = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _reject(record: Record, error: str, detail: str) -> Rejected:
    return reject(*record.partition, record.offset, record.value or b"", error, detail)


def _dead_letter(rejected: Rejected) -> NewRecord:
    return NewRecord(f"{rejected.topic}-{rejected.partition}-{rejected.offset}".encode(), encode(rejected))
