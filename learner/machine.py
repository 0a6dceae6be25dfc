"""What does a batch of records change?

The learner as a state machine: a state, and `apply`, which takes the next batch and gives what is to be sent out. All
that must come out the same in a replay is in here, so nothing in here looks at a clock, a random number, a file or the
network, and the state after some records does not depend on where they were cut into batches.

Three stages, with one value that goes through them, the plan:

1. `plan`: decode, find what belongs together, say which texts are to be scored and learned, in which order.
2. `learn`: do that, in one call of the classifier, the one writer.
3. `finish`: keep the scores with their messages, compare labels with what was served, say what is to be sent.

A batch may be planned while the one before it is being learned, in another thread: `plan` touches the windows, the
counts and the labels' names, `learn` the classifier's arrays, and neither what is the other's. Only a new label
concerns both, so `plan` calls `before_new_label` first, which has to return with nothing being learned.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from learner.alarms import Alarm, Alarms
from learner.checkpoint import Counts
from learner.classifier import Classifier, Scores, TooManyLabels
from learner.drift import Drift, Shift
from learner.gate import Gate
from learner.progress import Progress
from learner.settings import Rules
from stream.clock import LAST_TIMESTAMP_MS
from stream.errors import BadRecord
from stream.fit import fit_prediction, fit_rejected
from stream.join import Entry, Join, Labels, Window
from stream.log import Chunk, NewRecord, Record
from stream.merge import Batch
from stream.plain import Ints, Run, join_run, odd_places
from stream.quota import Quota, Quotas, bounded
from stream.records import (
    Feedback,
    Message,
    Prediction,
    Rejected,
    decode_feedbacks,
    decode_messages,
    encode_lines,
    reject,
)

Outputs = Mapping[str, list[NewRecord]]  # by topic
Decoded = Message | Feedback | BadRecord | None  # None: a tombstone

# Fewer records are sooner taken one by one than together.
MANY: Final = 16


class Served(NamedTuple):
    """Labels to be compared with what was served: columns, entries, times, the records' places in the batch."""

    targets: list[int]
    entries: list[Entry]
    times_ms: list[int]
    places: list[int]

    def add(self, targets: list[int], entries: list[Entry], times_ms: list[int], places: list[int]) -> None:
        """Add labels."""
        self.targets.extend(targets)
        self.entries.extend(entries)
        self.times_ms.extend(times_ms)
        self.places.extend(places)


class Plan:
    """A batch on its way. Its steps, in order, are texts to score; those with a target are then learned."""

    def __init__(self, batch: Batch, updates: int, n_labels: int) -> None:
        self.batch = batch
        self.texts: list[str] = []
        self.learned: list[int] = []  # the steps that have a target
        self.targets: list[int] = []
        self.weights: dict[int, float] = {}  # of steps, where it is not 1
        self.entries: list[Entry] = []  # of the messages, which are the other steps
        self.messages: list[tuple[Message, int]] = []  # with their times
        self.growth = [(0, n_labels)]  # from which step on how many labels are known
        self.served = Served([], [], [], [])
        self.rejected: list[Rejected] = []
        self.updates = updates  # before the batch
        self.scores: Scores = np.empty((0, 0), np.float32)

    def learn(self, text: str, target: int, weight: float) -> None:
        """Add a step that learns."""
        step = len(self.texts)
        self.texts.append(text)
        self.learned.append(step)
        self.targets.append(target)
        if weight != 1.0:
            self.weights[step] = weight

    def steps_scored(self) -> NDArray[np.int64]:
        """Return the messages' steps."""
        scored = np.ones(len(self.texts), bool)
        scored[self.learned] = False
        return np.flatnonzero(scored)

    def n_labels(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many labels the model knew at these steps."""
        first, known = zip(*self.growth, strict=True)
        return np.array(known, np.int64)[np.searchsorted(first, steps, side="right") - 1]


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
        self.gate = Gate(classifier.max_labels)
        self.alarms = Alarms()
        self.raised: list[Alarm] = []
        self.obey(rules)
        self.counts = Counts()
        self.quotas = Quotas()

    def obey(self, rules: Rules) -> None:
        """Go by these rules from the next batch on."""
        self.rules = rules
        self.join.configure(rules.partitions, rules.limits)

    @property
    def version(self) -> str:
        """Which model this is: equal versions are equal models."""
        return self._version(self.counts.updates)

    def apply(self, batch: Batch) -> Outputs:
        """Take a batch in and return what is to be sent, by topic."""
        plan = self.plan(batch)
        self.learn(plan)
        return self.finish(plan)

    # 1. Decode, find what belongs together.

    def plan(
        self,
        batch: Batch,
        before_new_label: Callable[[], None] = lambda: None,
        admit: Callable[[Batch, Sequence[Decoded]], None] = lambda _, __: None,
    ) -> Plan:
        """Take a batch's records in, all but what needs scores. Nothing has changed where `admit` raises."""
        plan = Plan(batch, self.counts.updates, len(self.classifier.labels))
        self._before_new_label = before_new_label
        found, times_ms, partitions = self._decode(batch)
        admit(batch, found)
        if self.rules.source_quota is not None:
            self._refuse_floods(self.rules.source_quota, batch, found, times_ms)
        if not self._plan_run(plan, 0, self._whole(batch, found, times_ms, partitions)):
            records = [found[place] for place in batch.order.tolist()]
            for start, stop in _runs(odd_places(records, self.join, self.classifier.columns), len(records)):
                part = slice(start, stop)
                run = Run.of(records[part], times_ms[part], partitions[part])
                if stop - start < MANY or not self._plan_run(plan, start, run):
                    self._one_by_one(plan, start, records[part], times_ms[part], partitions[part])
        self.counts.clock_jumps += batch.disbelieved
        self.counts.messages_seen += len(plan.entries)
        self.counts.updates += len(plan.targets)
        for rejected in plan.rejected:
            self.counts.reject(rejected.error)
        return plan

    def _decode(self, batch: Batch) -> tuple[list[Decoded], Ints, Ints]:
        """Return a batch's records chunk by chunk, and in the batch's order their times and partitions' numbers."""
        found: list[Decoded] = []
        for chunk in batch.chunks:
            decode = decode_messages if self._has_messages(chunk) else decode_feedbacks
            found += decode(chunk.values, chunk.headers, self.rules.max_record_bytes)
        times_ms = np.concatenate([chunk.timestamps_ms for chunk in batch.chunks])[batch.order]
        numbers = [chunk.partition.partition for chunk in batch.chunks]
        partitions = np.repeat(numbers, [len(chunk) for chunk in batch.chunks])[batch.order]
        return found, np.clip(times_ms, 0, LAST_TIMESTAMP_MS), partitions

    def _refuse_floods(self, quota: Quota, batch: Batch, found: list[Decoded], times_ms: Ints) -> None:
        """Put a reason in the place of each label beyond its source's quota."""
        for place, time_ms in zip(batch.order.tolist(), times_ms.tolist(), strict=True):
            record = found[place]
            if type(record) is Feedback and not self.quotas.admit(record.source, time_ms, quota):
                detail = f"source {bounded(record.source)!r} sent more labels than its quota allows"
                found[place] = BadRecord("over-quota", detail)
                self.counts.over_quota += 1

    def _has_messages(self, chunk: Chunk) -> bool:
        return chunk.partition.topic == self.rules.topics.messages

    def _whole(self, batch: Batch, found: list[Decoded], times_ms: Ints, partitions: Ints) -> Run:
        """Return a batch as a run; what can be no part of one is left out of it."""
        is_message = np.repeat([self._has_messages(chunk) for chunk in batch.chunks], list(map(len, batch.chunks)))
        of_kind = is_message[batch.order]
        places = np.flatnonzero(of_kind), np.flatnonzero(~of_kind)
        messages, feedbacks = (
            [record for place in batch.order[each].tolist() if type(record := found[place]) is kind]
            for each, kind in zip(places, (Message, Feedback), strict=True)
        )
        return Run(messages, feedbacks, places, times_ms, partitions)

    def _plan_run(self, plan: Plan, first: int, run: Run) -> bool:
        """Take plain records in together, where they are; `first` is the place of the first in the batch."""
        messages, feedbacks, places, times_ms, _ = run
        if len(messages) + len(feedbacks) < len(times_ms):
            return False
        score_bytes, may_expire = 4 * plan.growth[-1][1], self.rules.expire_as is None
        joined = join_run(self.join, run, self.classifier.columns, score_bytes, may_expire=may_expire)
        if joined is None:
            return False
        texts = np.empty(len(times_ms), object)
        texts[places[0]] = [message.text for message in messages]
        texts[places[1]] = [entry.text for entry in joined.labelled]
        steps = (places[1] + len(plan.texts)).tolist()
        plan.texts += texts.tolist()
        plan.learned += steps
        plan.targets += joined.columns
        plan.entries += joined.entries
        if self.rules.predictions:
            plan.messages += zip(messages, times_ms[places[0]].tolist(), strict=True)
        weights = [feedback.weight for feedback in feedbacks]
        if weights.count(1.0) < len(weights):
            plan.weights.update(zip(steps, weights, strict=True))
        label_places, label_times = (places[1] + first).tolist(), times_ms[places[1]].tolist()
        plan.served.add(joined.columns, joined.labelled, label_times, label_places)
        self.counts.labels_seen += len(feedbacks)
        self.counts.labels_learned += len(feedbacks)
        return True

    def _one_by_one(self, plan: Plan, first: int, records: list[Any], times_ms: Ints, partitions: Ints) -> None:
        """Take any records in; `first` is the place of the first in the batch."""
        for place, record, timestamp_ms, partition in zip(
            count(first), records, times_ms.tolist(), partitions.tolist(), strict=False
        ):
            if type(record) is Message:
                self._message(plan, place, record, timestamp_ms, partition)
            elif type(record) is Feedback:
                self._feedback(plan, place, record, timestamp_ms, partition)
            elif record is None:
                self.counts.tombstones += 1
            else:
                plan.rejected.append(_reject(plan.batch[place], record.error, record.detail))

    def _message(self, plan: Plan, place: int, message: Message, timestamp_ms: int, partition: int) -> None:
        window = self.join.of_message(partition, message.id)
        entry, labels = window.add_message(message, timestamp_ms, 4 * plan.growth[-1][1])
        if entry is not None:
            plan.texts.append(message.text)
            plan.entries.append(entry)
            if self.rules.predictions:
                plan.messages.append((message, timestamp_ms))
        if labels:
            self._plan_labels(plan, place, labels)
        if window.over:
            self._evict(plan, window)

    def _feedback(self, plan: Plan, place: int, feedback: Feedback, timestamp_ms: int, partition: int) -> None:
        classifier = self.classifier
        if len(classifier.labels) >= classifier.max_labels and not classifier.knows(feedback.label):
            limit = classifier.max_labels
            detail = f"label {feedback.label!r} is new, and max_labels is {limit}"
            plan.rejected.append(_reject(plan.batch[place], "too-many-labels", detail))
            return
        self.counts.labels_seen += 1
        window = self.join.of_feedback(partition, feedback.message_id)
        orphan = None
        if feedback.message_id not in window.messages:
            detail = f"no message {feedback.message_id!r} came while the label could wait"
            orphan = _reject(plan.batch[place], "orphaned", detail)
        labels = window.add_feedback(feedback, timestamp_ms, orphan)
        if labels:
            self._plan_labels(plan, place, labels)
        if window.over:
            self._evict(plan, window)

    def _plan_labels(self, plan: Plan, place: int, labels: Labels) -> None:
        for label in labels:
            feedback, entry = label.feedback, label.entry
            try:
                target = self._column(plan, feedback.label)
            except TooManyLabels as error:  # it waited for its message, and others took the last places
                waited = label.orphan or _reject(plan.batch[place], "", "")
                plan.rejected.append(msgspec.structs.replace(waited, error="too-many-labels", detail=str(error)))
                continue
            plan.learn(entry.text, target, feedback.weight)
            self.counts.labels_learned += 1
            if entry.came and not label.corrects:
                plan.served.add([target], [entry], [label.timestamp_ms], [place])

    def _evict(self, plan: Plan, window: Window) -> None:
        expired, orphans = window.evict()
        plan.rejected += orphans
        label = self.rules.expire_as
        if not expired or label is None:
            return
        with suppress(TooManyLabels):  # then they have no label to be learned as
            target = self._column(plan, label)
            for entry in expired:
                plan.learn(entry.text, target, 1.0)

    def _column(self, plan: Plan, label: str) -> int:
        """Return a label's column. Raises TooManyLabels."""
        if self.classifier.knows(label):
            return self.classifier.label_index(label)
        self._before_new_label()
        column = self.classifier.label_index(label)
        plan.growth.append((len(plan.texts), column + 1))
        return column

    # 2. The one writer.

    def learn(self, plan: Plan) -> None:
        """Score the plan's texts, and learn those that have a label. May run in another thread than the rest."""
        targets = np.full(len(plan.texts), -1, np.int32)
        weights = np.ones(len(plan.texts), np.float32)
        targets[plan.learned] = plan.targets
        weights[list(plan.weights)] = list(plan.weights.values())
        plan.scores = self.classifier.score_and_learn(plan.texts, targets, weights)

    # 3. What was served, and how good it was.

    def finish(self, plan: Plan) -> Outputs:
        """Take in what the classifier said and return what is to be sent, by topic."""
        steps = plan.steps_scored()
        scores, n_labels = plan.scores[steps], plan.n_labels(steps)
        self._remember(plan, scores, n_labels)
        self._measure(plan)
        topics = self.rules.topics
        return {
            topics.predictions: self._predictions(plan, steps, scores, n_labels) if self.rules.predictions else [],
            topics.dead_letter: [self._dead_letter(rejected) for rejected in plan.rejected],
        }

    def _remember(self, plan: Plan, scores: Scores, n_labels: NDArray[np.int64]) -> None:
        """Keep each message's scores with it, as many as there were labels when it came."""
        raw, width = scores.tobytes(), 4 * scores.shape[1]
        for entry, start, size in zip(plan.entries, count(0, width), (4 * n_labels).tolist(), strict=False):
            entry.scores = raw[start : start + size]

    def _measure(self, plan: Plan) -> None:
        """Compare labels with what was served when their message came in.

        Not for corrections, which would count twice, nor where a label brought the text and nothing had been served.
        """
        self.raised = []
        targets, entries, times_ms, places = plan.served
        if not targets:
            return
        n_labels = len(self.classifier.labels)
        rows = b"".join([entry.scores or b"" for entry in entries])
        known = np.full(len(entries), n_labels)
        if len(rows) < 4 * n_labels * len(entries):  # some had fewer labels to choose from
            known = np.array([len(entry.scores or b"") // 4 for entry in entries])
            rows = b"".join([(entry.scores or b"").ljust(4 * n_labels, b"\0") for entry in entries])
        scores = np.frombuffer(rows, np.float32).reshape(len(entries), n_labels)
        truth = np.array(targets, np.int32)
        predicted = np.where(scores.any(axis=1), scores.argmax(axis=1), -1).astype(np.int32)
        delay_ms = np.array(times_ms, np.int64) - np.array([entry.timestamp_ms for entry in entries], np.int64)
        p_truth = scores[np.arange(len(entries)), truth]
        self.progress.add(predicted, truth, p_truth, scores.max(axis=1, initial=0), np.maximum(delay_ms, 0))
        margin = self.rules.publish_margin
        self.gate.add(truth, scores, known, math.inf if margin is None else margin)
        for which, shift in self.drift.add(predicted, truth, p_truth):
            alarm = self._alarm(shift, plan.batch[places[which]])
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

    def _predictions(
        self, plan: Plan, steps: NDArray[np.int64], scores: Scores, n_labels: NDArray[np.int64]
    ) -> list[NewRecord]:
        if not plan.entries:
            return []
        rows = scores.astype(np.float64).round(6)
        n_best = min(self.rules.predictions_scores, rows.shape[1])
        best = np.argsort(-rows, axis=1, kind="stable")[:, :n_best]
        values = np.take_along_axis(rows, best, axis=1)
        # A label that came later in the batch stands last, with 0, and is left out; where all are 0, none was known.
        n_known = np.where(values[:, :1].any(axis=1), n_labels, 0)
        labels = self.classifier.labels
        known = [
            dict(zip([labels[column] for column in columns[:n]], of_columns, strict=False))
            for columns, of_columns, n in zip(best.tolist(), values.tolist(), n_known.tolist(), strict=True)
        ]
        updates = plan.updates + np.searchsorted(plan.learned, steps)
        messages, times_ms = zip(*plan.messages, strict=True)
        ids = [message.id for message in messages]
        predictions = map(
            Prediction,
            ids,
            [next(iter(each), None) for each in known],
            [next(iter(each.values()), 0.0) for each in known],
            known,
            map(self._version, updates.tolist()),
            _timestamps(messages, times_ms),
        )
        encoded = encode_lines(predictions).split(b"\n")[:-1]  # JSON has no line break of its own
        if max(map(len, encoded)) <= self.rules.max_record_bytes:
            return list(map(NewRecord, map(str.encode, ids), encoded, times_ms))
        return self._fitting(ids, encoded, times_ms)

    def _fitting(self, ids: list[str], encoded: list[bytes], times_ms: Sequence[int]) -> list[NewRecord]:
        """Return those of the predictions that the log takes, cut where they have to be."""
        limit = self.rules.max_record_bytes
        values = [value if len(value) <= limit else fit_prediction(value, limit) for value in encoded]
        self.counts.unwritten += values.count(None)
        columns = zip(ids, values, times_ms, strict=True)
        return [NewRecord(key.encode(), value, time_ms) for key, value, time_ms in columns if value is not None]

    def _dead_letter(self, rejected: Rejected) -> NewRecord:
        key = f"{rejected.topic}-{rejected.partition}-{rejected.offset}"
        return NewRecord(key.encode(), fit_rejected(rejected, self.rules.max_record_bytes))

    def _version(self, updates: int) -> str:
        return f"{self.lineage}-{updates}"


def _runs(odd: list[int], n: int) -> Iterator[tuple[int, int]]:
    """Yield where each run of records that are not odd starts and ends, and each of odd ones, among n."""
    start = 0
    for place in [*odd, n]:
        if start < place:
            yield start, place
        if place < n:
            yield place, place + 1
        start = place + 1


def _timestamps(messages: Sequence[Message], times_ms: Sequence[int]) -> list[str]:
    """Return the messages' own times, or else the log's: a prediction written again is the same."""
    stamps: list[str] = np.datetime_as_string(np.array(times_ms, "M8[ms]"), timezone="UTC").tolist()
    for index, message in enumerate(messages):
        if message.ts is not None:
            stamps[index] = message.ts.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return stamps


def _reject(record: Record, error: str, detail: str) -> Rejected:
    return reject(*record.partition, record.offset, record.value or b"", error, detail)
