"""What does a batch of records change?

The learner as a state machine: a state, and `apply`, which takes the next batch and gives what is to be sent out. All
that must come out the same in a replay is in here, so nothing in here looks at a clock, a random number, a file or the
network, and the state after some records does not depend on where they were cut into batches.

Three stages, with one value that goes through them, the plan:

1. `plan`: decode, find what belongs together, say which texts are to be scored and learned, in which order. A model
   that goes by what a text says gives its texts their vectors here, while the batch before is being learned.
2. `learn`: do that, in one call of the classifier, the one writer.
3. `finish`: keep the scores with their messages, compare labels with what was served, say what is to be sent.

Where a label gives its place to a new one (label_places.py) the batch is cut: what was planned of it is learned and
finished first, and so is the batch before, since a column then means another label. Where a batch ends changes nothing.

A batch may be planned while the one before it is being learned, in another thread: `plan` touches the windows, the
counts and the labels' names, `learn` the classifier's arrays, and neither what is the other's. Only a new label
concerns both, so `plan` calls `before_new_label` first, which has to return with nothing being learned; and before a
cut `land`, which has to return with all batches before finished.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.learner.disk.settings import Rules
from driftline.learner.embed.budget import Budget
from driftline.learner.embed.completed import Remembered, bring_their_own, completed_some
from driftline.learner.machine.label_places import Places
from driftline.learner.machine.outputs import Outputs, dead_letter, predictions
from driftline.learner.machine.plan import Given, Ints, Plan
from driftline.learner.machine.prediction_lines import Versions
from driftline.learner.models.classifier import Classifier, TooManyLabels
from driftline.learner.quality.alarms import Alarm, Alarms
from driftline.learner.quality.drift import Drift, Shift
from driftline.learner.quality.figures import Counts
from driftline.learner.quality.progress import Progress
from driftline.learner.quality.publish_gate import Gate
from driftline.learner.vectors.sent import count_unused
from driftline.stream.decode.batch import Decoded, decode_batch
from driftline.stream.errors import BadRecord
from driftline.stream.join.join import Join, Stop
from driftline.stream.join.message_rows import BIT, ROW, recall, remember
from driftline.stream.join.message_view import Labels
from driftline.stream.join.quota import Quota, Quotas, bounded
from driftline.stream.join.rules import ASK_FIRST, NO_EXPIRY, STEP, STOP, WINDOW, Names
from driftline.stream.join.steps import Steps
from driftline.stream.join.window import Window
from driftline.stream.log.base import Chunk, NewColumns, Record
from driftline.stream.log.clock import LAST_TIMESTAMP_MS
from driftline.stream.log.merge import Batch
from driftline.stream.texts import Texts
from driftline.stream.wire.records import LABELLED, Feedback, Message, Rejected, reject
from driftline.stream.words import counted


class Machine:
    """The state of a learner between two batches. One thread.

    Attributes
    ----------
    lineage : of the models from the next thing learned on; with what was learned it names a model
    raised : the drift alarms of the last batch
    delays_ms : int64, from message to label, of the labels of the last batch that were scored
    taken_over_ms : up to this time, the log's, what was served for messages was another model's, whose place this took
    """

    def __init__(self, rules: Rules, classifier: Classifier, lineage: str) -> None:
        self.classifier = classifier
        self.lineage, self._before = lineage, (lineage, 0)
        self.join = Join()
        self._names = Names()
        self.progress = Progress(classifier.max_labels)
        self.drift = Drift(classifier.max_labels)
        self.gate = Gate(classifier.max_labels)
        self.places = Places(classifier.max_labels)
        self.alarms = Alarms()
        self.taken_over_ms = -1
        self.raised: list[Alarm] = []
        self.delays_ms: Ints = np.empty(0, np.int64)
        self.obey(rules)
        self.counts = Counts()
        self.quotas = Quotas()
        self.budget = Budget()
        self._remembered = None if classifier.embedder is None else Remembered(classifier.embedder)

    def obey(self, rules: Rules) -> None:
        """Go by these rules from the next batch on."""
        self.rules = rules
        self._scheme = None if rules.labels is None else frozenset(rules.labels)
        self._named: tuple[list[str], list[str]] = [], []
        self.join.configure(rules.partitions, rules.limits)

    def renew(self, lineage: str) -> None:
        """Give the models of all that is learned from now on another lineage; this one keeps its name.

        Who goes on from a state that somebody else may go on from, too, comes to another model by as many labels.
        """
        if lineage != self.lineage:
            self.lineage, self._before = lineage, (self.version.rpartition("-")[0], self.counts.updates)

    @property
    def version(self) -> str:
        """Which model this is: equal versions are equal models."""
        return self._versions.at(self.counts.updates)

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
        admit: Callable[[Batch, Sequence[Any]], None] = lambda _, __: None,
        land: Callable[[], None] = lambda: None,
    ) -> Plan:
        """Take a batch's records in, all but what needs scores. Nothing has changed where `admit` raises.

        `admit` gets what was decoded alone, by its place in the chunks, and None for the others.
        """
        records = self._decode(batch) if len(batch) else None
        if records is not None:
            admit(batch, records.by_place())
            if self.rules.source_quota is not None:
                self._refuse_floods(self.rules.source_quota, records, batch.claims_ms)
        plan = Plan(batch, records, self.counts.updates, len(self.classifier.labels))
        self._before_new_label, self._land = before_new_label, land
        plan.corrections = -self.join.counts.corrected
        if records is not None:
            # What was planned of it before rows move is learned and finished before the next batch is planned.
            self.join.make_room(len(batch), 2 * len(records.data), len(batch) * plan.growth[-1][1])
            self._take(plan, records)
        self._close(plan)
        self.counts.clock_jumps += batch.disbelieved
        for rejected in plan.rejected:
            self.counts.reject(rejected.error)
        return plan

    def _close(self, plan: Plan) -> None:
        """Have a plan be ready to be learned: all its steps are there."""
        store, steps = self.join.store, plan.steps
        if plan.records is not None:
            self.places.see(steps, plan.n_seen, self.classifier, store)
            plan.rows = steps.rows.copy()
            store.pending.append(plan.rows)
            texts = steps.texts(store)
            dimension = self.classifier.dimension
            self.counts.vectors_unused += count_unused(texts.codes, texts.starts, plan.steps_scored, dimension)
            plan.texts = self._completed(steps, texts)
        plan.labels = list(self.classifier.labels)
        plan.corrections += self.join.counts.corrected
        n_scored = len(plan.steps_scored)
        self.counts.messages_seen += n_scored
        self.counts.updates += len(plan.steps) - n_scored

    def _completed(self, steps: Steps, texts: Texts) -> Texts:
        """Return the steps' texts, those with their vectors that get one: by the records alone, whatever it costs."""
        if self._remembered is None or not len(texts):
            return texts
        which = ~bring_their_own(texts)
        rate = self.classifier.embed_rate
        given = self.budget.take(steps.times_ms[which], steps.targets[which] >= 0, rate)
        which[which] = given
        n = int(np.count_nonzero(given))
        self.counts.vectors_made += n
        self.counts.vectors_spared += len(given) - n
        return completed_some(texts, which, self._remembered.vectors)

    def forget_vectors(self) -> None:
        """Keep no vector of a text: some of these are to be erased."""
        if self._remembered is not None:
            self._remembered.forget()

    def _decode(self, batch: Batch) -> Decoded:
        return decode_batch(
            batch,
            self._has_messages,
            self.rules.max_record_bytes,
            LAST_TIMESTAMP_MS,
            reading=self.rules.reading,
            as_written=not self.rules.one_form,
        )

    def _refuse_floods(self, quota: Quota, records: Decoded, claims_ms: NDArray[np.int64] | None) -> None:
        """Put a reason in the place of each label beyond its source's quota."""
        for place in records.may_be_labels().tolist():
            index = int(records.order[place])
            record = records.found.get(index)  # a scanned label has no source
            if index in records.found and type(record) is not Feedback:
                continue
            source = record.source if record is not None else None
            time_ms = int(records.times_ms[place])
            claim_ms = time_ms if claims_ms is None else int(claims_ms[place])
            rules = self.rules
            if not self.quotas.admit(source, time_ms, quota, claim_ms, rules.sources, by_name=rules.quota_by_name):
                detail = f"source {bounded(source)!r} sent more labels than its quota allows"
                if not rules.quota_by_name and self.quotas.is_new(source, rules.sources):
                    detail = f"source {bounded(source)!r} is new, and all new ones sent more labels than a quota allows"
                records.replace(index, BadRecord("over-quota", detail))
                self.counts.over_quota += 1

    def _has_messages(self, chunk: Chunk) -> bool:
        return chunk.partition.topic == self.rules.topics.messages

    def _take(self, plan: Plan, records: Decoded) -> None:
        """Take records in, nearly all by a kernel; the others, where they are in its way, one by one."""
        place, n = 0, len(plan.batch)
        while place < n:
            stop = self._take_plain(plan, records, place)
            place = stop.place
            if stop.why == STOP.NO_ROOM:
                self._make_more_room(plan, records, place)
            elif stop.why == STOP.EVICTION:
                self._evict(plan, self.join.windows[stop.window])
            elif stop.why != STOP.DONE:
                self._one(plan, records, place)
                place += 1

    def _take_plain(self, plan: Plan, records: Decoded, place: int) -> Stop:
        self._names.update(self._usable_labels())
        n = plan.steps.n
        stop = self.join.take(records, place, self._names, plan.growth[-1][1], self._expiry(), plan.steps)
        if self.rules.expire_as is not None and self.rules.corrects_expired:
            new = plan.steps.table[n : plan.steps.n]
            for row in new[new[:, STEP.PLACE] < 0, STEP.ROW].tolist():
                self.join.keep_expired(row, self.rules.expire_as)
        self.counts.labels_seen += stop.labels_seen
        self.counts.labels_learned += stop.labels_learned
        return stop

    def _usable_labels(self) -> list[str]:
        """Return the labels by column, in the place of those that may not be used a name that none has."""
        labels, scheme = self.classifier.labels, self._scheme
        if scheme is None:
            return labels
        if self._named[0] != labels:
            self._named = list(labels), [label if label in scheme else f"\0{label}" for label in labels]
        return self._named[1]

    def _expiry(self) -> int:
        """Return the column that a message is learned as when it leaves without a label."""
        label, classifier = self.rules.expire_as, self.classifier
        if label is None:
            return NO_EXPIRY
        if classifier.knows(label):
            return classifier.label_index(label)
        return ASK_FIRST if len(classifier.labels) < classifier.max_labels else NO_EXPIRY

    def _make_more_room(self, plan: Plan, records: Decoded, place: int) -> None:
        left = len(plan.batch) - place
        plan.steps.ensure(plan.steps.n + left + 1)
        self.join.store.ensure(left + 1, 2 * len(records.data), (left + 1) * plan.growth[-1][1])

    def _one(self, plan: Plan, records: Decoded, place: int) -> None:
        """Take any record in."""
        record = records.record(place)
        timestamp_ms, partition = int(records.times_ms[place]), int(records.partitions[place])
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
        entry, labels = window.add_message(message, timestamp_ms, plan.growth[-1][1])
        if entry is not None:
            plan.steps.add(self.join.store, entry.row, place=place, time_ms=timestamp_ms)
        if labels:
            self._plan_labels(plan, place, labels, timestamp_ms)
        self._evict(plan, window)

    def _feedback(self, plan: Plan, place: int, feedback: Feedback, timestamp_ms: int, partition: int) -> None:
        is_learned = feedback.op == "upsert" or self.rules.reading == LABELLED  # to take labels back needs no place
        refusal = self._refusal(plan, feedback.label, timestamp_ms) if is_learned else None
        if refusal is not None:
            plan.rejected.append(_reject(plan.batch[place], *refusal))
            return
        self.counts.labels_seen += 1
        window = self.join.of_feedback(partition, feedback.message_id)
        orphan = None
        if self.join.may_be_refused(feedback):
            detail = f"no message {feedback.message_id!r} came while the label could wait"
            orphan = _reject(plan.batch[place], "orphaned", detail)
        labels = window.add_feedback(feedback, timestamp_ms, orphan)
        if labels:
            self._plan_labels(plan, place, labels, timestamp_ms)
        self._evict(plan, window)

    def _refusal(self, plan: Plan, label: str, time_ms: int) -> tuple[str, str] | None:
        """Return why a label cannot be learned, whatever its message is: the error, and more. None where it can."""
        classifier, scheme = self.classifier, self._scheme
        if scheme is not None and label not in scheme:
            return "unknown-label", f"label {label!r} is none of the {counted(len(scheme), 'label')} that there are"
        if not self._is_full or classifier.knows(label) or self._find_place(plan, time_ms) is not None:
            return None
        return "too-many-labels", f"label {label!r} is new, and max_labels is {classifier.max_labels}"

    def _plan_labels(self, plan: Plan, place: int, labels: Labels, now_ms: int) -> None:
        for label in labels:
            feedback, entry, time_ms = label.feedback, label.entry, label.timestamp_ms
            # It may have waited for its message, and others took the last places.
            refusal = self._refusal(plan, feedback.label, now_ms)
            if refusal is not None:
                waited, (error, detail) = label.orphan or _reject(plan.batch[place], "", ""), refusal
                plan.rejected.append(msgspec.structs.replace(waited, error=error, detail=detail))
                plan.corrections -= label.corrects
                continue
            target = self._column(plan, feedback.label, now_ms)
            served = entry.came and not label.corrects
            plan.steps.add(self.join.store, entry.row, target, feedback.weight, place, time_ms, served=served)
            self.counts.labels_learned += 1

    def _evict(self, plan: Plan, window: Window) -> None:
        expired, orphans = self.join.evict(window)
        plan.rejected += orphans
        label = self.rules.expire_as
        if not expired or label is None or (self._is_full and not self.classifier.knows(label)):
            return  # in the latter case they have no label to be learned as
        target = self._column(plan, label)
        for entry in expired:
            plan.steps.add(self.join.store, entry.row, target)
            if self.rules.corrects_expired:
                self.join.keep_expired(entry.row, label)

    def _column(self, plan: Plan, label: str, time_ms: int | None = None) -> int:
        """Return a label's column; a new one's is one that none has yet, or else that gives its place at a time."""
        if self.classifier.knows(label):
            return self.classifier.label_index(label)
        if self._is_full and time_ms is not None:
            self._make_place(plan, label, time_ms)
        else:
            self._before_new_label()
        column = self.classifier.label_index(label)
        plan.growth.append((len(plan.steps), len(self.classifier.labels)))
        return column

    # Where one label gives its place to another.

    @property
    def _is_full(self) -> bool:
        return len(self.classifier.labels) >= self.classifier.max_labels

    def _find_place(self, plan: Plan, time_ms: int) -> int | None:
        """Return the column that gives its place at a time, by all that was planned until now; None where none does."""
        after_ms, steps = self.rules.free_after_ms, plan.steps
        if after_ms is None or not self.classifier.gives_places:
            return None
        self.places.see(steps, plan.n_seen, self.classifier, self.join.store)
        plan.n_seen = len(steps)
        return self.places.oldest(len(self.classifier.labels), time_ms - after_ms, self._spared)

    @property
    def _spared(self) -> int | None:
        """The column that never gives its place."""
        label = self.rules.expire_as
        return None if label is None else self.classifier.columns.get(label)

    @property
    def n_places(self) -> int:
        """How many new labels can be learned now."""
        classifier, after_ms = self.classifier, self.rules.free_after_ms
        n = classifier.max_labels - len(classifier.labels)
        if after_ms is None:
            return n
        now_ms = int(self.join.columns[:, WINDOW.CLOCK_MS].max(initial=0))
        return n + self.places.n_free(len(classifier.labels), now_ms - after_ms, self._spared)

    def _make_place(self, plan: Plan, label: str, time_ms: int) -> None:
        """Give a column to a new label. All that came before is finished first: a column then means another label."""
        column = self._find_place(plan, time_ms)
        if column is None:
            raise TooManyLabels(f"label {label!r} is new, and max_labels is {self.classifier.max_labels}")
        self._land()
        part = plan.cut_off()
        self._close(part)
        self.learn(part)
        self._finish(part)  # its rows stay pending until the rest is finished, too
        plan.updates += int(np.count_nonzero(part.steps.targets >= 0))
        plan.corrections = -self.join.counts.corrected
        part.given = Given(column, self.places.give(column, time_ms), label)
        self.classifier.clear(column, part.given.imprints)
        self.classifier.rename(column, label)
        for each in (self.progress, self.drift, self.gate):
            each.clear(column)
        self.counts.places_given += 1

    # 2. The one writer.

    def learn(self, plan: Plan) -> None:
        """Score the plan's texts, and learn those that have a label. May run in another thread than the rest."""
        targets, weights = plan.steps.targets, plan.steps.weights[: len(plan.steps)]
        before = self.classifier.n_refused
        plan.scores = self.classifier.score_and_learn(plan.texts, targets, weights)
        plan.refused = self.classifier.n_refused - before

    # 3. What was served, and how good it was.

    def finish(self, plan: Plan) -> Outputs:
        """Take in what the classifier said and return what is to be sent, by topic."""
        self._finish(plan)
        parts = [*plan.parts, plan]
        self.raised = [alarm for part in parts for alarm in part.raised]
        self.delays_ms = np.concatenate([part.delays_ms for part in parts])
        store, topics = self.join.store, self.rules.topics
        done = {id(part.rows) for part in parts}
        store.pending = [rows for rows in store.pending if id(rows) not in done]
        return {
            topics.predictions: NewColumns.joined([part.predictions for part in parts]),
            topics.dead_letter: [dead_letter(each, self.rules.max_record_bytes) for each in plan.rejected],
        }

    def _finish(self, plan: Plan) -> None:
        steps = plan.steps_scored
        scores, n_labels = plan.scores[steps], plan.n_labels(steps)
        store = self.join.store
        remember(store.rows, store.now, store.scores, plan.rows[steps], scores, n_labels)
        is_label = (plan.steps.targets >= 0) & (plan.steps.places >= 0)
        self._count_refused(plan, int(np.count_nonzero(is_label)))
        unscored = int(np.count_nonzero(is_label & (plan.steps.served == 0)))
        self.progress.pass_over(plan.corrections, unscored - plan.corrections)
        self._measure(plan)
        if self.rules.predictions:
            plan.predictions, unwritten = predictions(plan, scores, n_labels, self.rules, self._versions)
            self.counts.unwritten += unwritten

    def _count_refused(self, plan: Plan, n_labels: int) -> None:
        """Take back what was counted as learned and was not. Which steps they were no kernel says, only how many."""
        self.counts.refused += plan.refused
        self.counts.labels_learned -= min(plan.refused, n_labels)

    def _measure(self, plan: Plan) -> None:
        """Compare labels with what was served when their message came in.

        Not for corrections, which would count twice, nor where a label brought the text and nothing had been served.
        """
        steps = plan.steps_served
        if not len(steps):
            return
        store, rows = self.join.store, plan.rows[steps]
        scores = np.empty((len(steps), len(self.classifier.labels)), np.float32)
        recall(store.rows, store.now, store.scores, rows, scores)
        came_ms = store.rows[rows, ROW.TIME_MS]
        self.places.forget_others(scores, came_ms)
        truth = plan.steps.targets[steps]
        predicted = np.where(scores.any(axis=1), scores.argmax(axis=1), -1).astype(np.int32)
        delay_ms = plan.steps.times_ms[steps] - came_ms
        p_truth = scores[np.arange(len(steps)), truth]
        plan.delays_ms = np.maximum(delay_ms, 0)
        plan.predicted = predicted
        self.progress.add(predicted, truth, p_truth, scores.max(axis=1, initial=0), plan.delays_ms)
        # The gate judges this model, not the one before, by labels that it could predict.
        own = came_ms > np.maximum(self.taken_over_ms, self.places.since_ms[truth])
        known = np.where(own & (store.now[rows] & BIT.SCORED > 0), store.rows[rows, ROW.N_SCORES], 0)
        margin = self.rules.publish_margin
        self.gate.add(truth, scores, known, math.inf if margin is None else margin)
        for which, shift in self.drift.add(predicted, truth, p_truth):
            alarm = self._alarm(shift, plan.batch[int(plan.steps.places[steps[which]])], plan.labels)
            self.alarms.add(alarm)
            plan.raised.append(alarm)

    def _alarm(self, shift: Shift, record: Record, labels: Sequence[str]) -> Alarm:
        return Alarm(
            label=None if shift.column is None else labels[shift.column],
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

    @property
    def _versions(self) -> Versions:
        before, last = self._before
        return Versions(before, self.lineage, last)


def _reject(record: Record, error: str, detail: str) -> Rejected:
    return reject(*record.partition, record.offset, record.value or b"", error, detail)
