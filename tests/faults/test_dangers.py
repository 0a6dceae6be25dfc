"""What a stream may do to a learner: each danger that docs/dangers.md names, and what happens then."""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.machine.machine import Machine
from driftline.learner.registry import make_classifier
from driftline.learner.report.status import read_status
from driftline.learner.serving.snapshot import Follower
from driftline.stream.errors import TooManyDeadLetters
from driftline.stream.join.window import MAX_IDS_PER_MESSAGE
from driftline.stream.log.base import NewRecord, Record, TopicPartition
from driftline.stream.log.merge import Merger
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, decode_prediction, decode_rejected, encode
from tests.data import batch
from tests.faults.stage import START_MS, SqliteStage, finish, label, learned, message, oracle, steps, text

DAY_MS: Final = 86_400_000
HOUR_MS = 3_600_000


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    stage = SqliteStage(StreamSettings(data=tmp_path / "data"))
    yield stage
    stage.close()


def learn_all(stage: SqliteStage, **options: Any) -> Any:
    """Learn to the end and return the last status."""
    with stage.learning(**options) as learner:
        learner.run(lambda: False, stage.log.watermarks(stage.stream.topics[:2]))
        return learner.shown


def sent(stage: SqliteStage, topic: str) -> list[bytes]:
    marks = stage.log.watermarks([topic])
    reader = stage.log.reader({partition: mark.low for partition, mark in marks.items()})
    found: list[bytes] = []
    while len(found) < sum(mark.high - mark.low for mark in marks.values()):
        found += [record.value or b"" for record in reader.read(10_000, 1.0)]
    reader.close()
    return found


def at(record: NewRecord, timestamp_ms: int) -> NewRecord:
    return record._replace(timestamp_ms=timestamp_ms)


def feedback(number: int, name: str, **fields: Any) -> NewRecord:
    value = encode(Feedback(str(number), name, **fields))
    return NewRecord(b"%d" % number, value, START_MS + 2 * number + 1)


# Duplicates, reordering, labels before their messages.


def test_what_comes_twice_and_in_any_order_is_learned_once(stage: SqliteStage) -> None:
    numbers = list(range(300))
    messages, labels = [message(n) for n in numbers] * 2, [feedback(n, "ab"[n % 2], id=f"f{n}") for n in numbers] * 3
    random.Random(4).shuffle(messages)
    random.Random(5).shuffle(labels)
    stage.log.append("feedback", labels[:450])  # at once: the log's order is by time, these have to wait
    stage.log.append("messages", messages)
    stage.log.append("feedback", labels[450:])
    status = learn_all(stage)
    assert (status.counts.messages_seen, status.counts.labels_learned) == (300, 300)
    assert (status.join.duplicates, status.join.repeated, status.join.orphaned) == (300, 600, 0)
    assert sent(stage, "dead-letter") == []


# Clocks.


def test_one_timestamp_from_the_future_expires_nothing(stage: SqliteStage) -> None:
    stage.log.append("messages", [message(n) for n in range(200)])
    stage.log.append("messages", [at(message(200), START_MS + 400 * DAY_MS), at(message(201), 0)])
    stage.log.append("messages", [message(n) for n in range(202, 300)])
    stage.log.append("feedback", [at(feedback(0, "a"), START_MS + 9000 * DAY_MS)])
    stage.log.append("feedback", [feedback(n, "ab"[n % 2]) for n in range(1, 300)])
    status = learn_all(stage)
    assert (status.counts.labels_learned, status.join.expired) == (300, 0)
    assert status.counts.clock_jumps == 3


def test_after_a_year_without_records_the_clock_follows_and_old_messages_leave(stage: SqliteStage) -> None:
    stage.log.append("messages", [message(n) for n in range(50)])
    stage.log.append("messages", [at(message(n), START_MS + 365 * DAY_MS) for n in range(50, 200)])
    status = learn_all(stage)
    assert (status.join.expired, status.counts.clock_jumps) == (50 + 99, 99)  # the last vote is believed


def test_a_quota_by_the_day_refuses_nobody_who_sleeps_over_weekends(stage: SqliteStage) -> None:
    """30 labels each business day of three weeks, and one from the year 2100 each Monday; the quota is 40."""
    first = START_MS - START_MS % DAY_MS - 30 * DAY_MS
    for day in [day for day in range(21) if day % 7 < 5]:
        times = [first + day * DAY_MS + 8 * HOUR_MS + n * 15 * 60_000 for n in range(30)]
        labels = [at(feedback(30 * day + n, "ab"[n % 2], text=text(n), source="crm"), ms) for n, ms in enumerate(times)]
        if day % 7 == 0:
            wrong = feedback(10_000 + day, "a", text=text(0), source="other")
            labels.insert(3, at(wrong, first + 27_000 * DAY_MS))
        stage.log.append("feedback", labels)
    status = learn_all(stage, source_quota="40/d", batch_records=7)
    assert (status.counts.labels_learned, status.over_quota) == (453, {})


def test_messages_leave_by_age_in_a_stream_of_one_a_day(stage: SqliteStage) -> None:
    for day in range(60):
        weekend = 2 * (day // 5)
        stage.log.append("messages", [at(message(day), START_MS + (day + weekend - 90) * DAY_MS + (day % 3) * 60_000)])
    stage.log.append("messages", [at(message(1000), START_MS + 27_000 * DAY_MS)])
    status = learn_all(stage, window_hours=24.0 * 5)
    assert 5 <= status.pending <= 7, "of the last five days, and the one of 2100"
    assert status.join.expired == 61 - status.pending


def test_votes_for_a_later_clock_are_in_the_checkpoint(stage: SqliteStage, tmp_path: Path) -> None:
    def records(numbers: Iterable[int], later_ms: int) -> None:
        for n in numbers:
            stage.log.append("messages", [at(message(n), START_MS + later_ms + n)])
            stage.log.append("feedback", [at(label(n), START_MS + later_ms + n)])

    records(range(60), 0)
    records(range(60, 90), 40 * DAY_MS)
    with stage.learning() as learner:
        steps(learner, learned(learner, 90))
        finish(learner)
        assert [votes for _, votes in stage.newest().manifest.ahead["messages"].values()] == [30]
        assert stage.newest().manifest.clock[2] == 59  # the last label of before comes behind the first vote
    records(range(90, 200), 40 * DAY_MS)
    with stage.learning() as learner:  # crashes, so that its batches are replayed
        steps(learner, learned(learner, 200))
    status = learn_all(stage)
    assert 99 <= status.counts.clock_jumps <= 101
    whole = SqliteStage(StreamSettings(data=tmp_path / "whole", log=stage.stream.log_url))
    assert learn_all(whole).counts == status.counts
    assert whole.model() == stage.model()
    whole.close()


# Floods.


def test_one_message_that_is_labelled_for_ever_takes_no_more_room(stage: SqliteStage) -> None:
    stage.log.append("messages", [message(0)])
    stage.log.append("feedback", [feedback(0, "ab"[n % 2], id=f"label {n}") for n in range(5000)])
    with stage.learning() as learner:
        steps(learner, learned(learner, 5000))
        (entry,) = learner._work.machine.join.messages.values()
        assert len(entry.words) == MAX_IDS_PER_MESSAGE
        assert learner.status("running").join.corrected == 4999


def machine(**options: Any) -> Machine:
    rules = LearnerSettings(**options).rules(StreamSettings(), 1)
    return Machine(rules, make_classifier("linear?bits=12&max_labels=100"), lineage="abc")


def labels(names: Sequence[str], **fields: Any) -> list[Record]:
    partition = TopicPartition("feedback", 0)
    values = [encode(Feedback(f"m{n}", name, text="some text", **fields)) for n, name in enumerate(names)]
    return [Record(partition, n, 1000 + n, None, value) for n, value in enumerate(values)]


def test_a_new_label_in_every_record_ends_as_dead_letters_and_costs_no_more() -> None:
    learner = machine()
    taken = learner.apply(batch(labels([f"label {n}" for n in range(2100)])))
    assert len(learner.classifier.labels) == 100
    assert learner.counts.labels_learned == 100
    dead = [decode_rejected(record.value or b"") for record in taken["dead-letter"]]
    assert len(dead) == 2000
    assert {each.error for each in dead} == {"too-many-labels"}
    costs: list[list[float]] = [[], []]
    for _ in range(5):  # the least of some: what else is at work on the machine shares its caches
        others, known = [f"other {n}" for n in range(2000)], [f"label {n % 100}" for n in range(2000)]
        for names, cost in zip((others, known), costs, strict=True):
            learner, records = machine(), batch(labels(names))
            learner.apply(batch(labels([f"label {n}" for n in range(100)])))
            started = time.process_time()
            learner.apply(records)
            cost.append(time.process_time() - started)
    assert min(costs[0]) < 3 * min(costs[1]), "a label that is refused costs no more than one that is learned"


def test_a_source_that_floods_labels_is_cut_off_and_the_others_are_not() -> None:
    records = labels(["spam"] * 5000, source="bot")
    for n in range(0, 5000, 50):
        value = encode(Feedback(f"h{n}", "ham", text="hello", source=f"person {n % 3}"))
        records.insert(n + n // 50, Record(TopicPartition("feedback", 0), 5000 + n, 1000 + n, None, value))
    outcomes = []
    for cuts in ([], [7, 100, 1234, 5000]):
        learner, dead = machine(source_quota="100/s", sources=["bot", "person 0", "person 1", "person 2"]), []
        ends = [*cuts, len(records)]
        for start, end in zip([0, *ends], ends, strict=False):
            dead += learner.apply(batch(records[start:end]))["dead-letter"]
        outcomes.append((dead, learner.counts, learner.quotas, learner.classifier.state()["slots"].tobytes()))
        assert learner.counts.labels_learned == 500 + 100  # in five seconds of the log's time, and all of the people's
        assert learner.counts.over_quota == 4500 == learner.counts.rejected == len(dead)
        assert learner.quotas.refused == {"bot": 4500}
        first = decode_rejected(dead[0].value or b"")
        assert (first.error, first.offset) == ("over-quota", 100)
    assert outcomes[0] == outcomes[1]


def test_a_source_that_takes_a_new_name_for_each_label_is_cut_off_and_who_is_known_is_not() -> None:
    partition = TopicPartition("feedback", 0)
    outcomes = []
    for cuts in ([], [3, 500, 777, 1500]):
        learner, records = machine(source_quota="10/min"), labels([])
        for hour in range(2):  # honest sources come first, some labels an hour
            for n in range(9):
                said = Feedback(f"h{hour} {n}", "ham", text="hello", source=f"person {n % 3}")
                records.append(Record(partition, len(records), 3_600_000 * hour + n, None, encode(said)))
        for n in range(1000):
            said = Feedback(f"m{n}", "spam", text="some text", source=f"name {n}")
            records.append(Record(partition, len(records), 7_200_000 + n, None, encode(said)))
            if n % 100 == 0:
                said = Feedback(f"p{n}", "ham", text="hello", source="person 0")
                records.append(Record(partition, len(records), 7_200_000 + n, None, encode(said)))
        ends = [*cuts, len(records)]
        dead = [
            each
            for at, end in zip([0, *ends], ends, strict=False)
            for each in learner.apply(batch(records[at:end]))["dead-letter"]
        ]
        outcomes.append((dead, learner.counts, learner.quotas, learner.classifier.state()["slots"].tobytes()))
        assert learner.counts.labels_learned == 18 + 10 + 10, "of all the names as many as of one"
        assert learner.counts.over_quota == 990
        detail = decode_rejected(dead[0].value or b"").detail
        assert detail == "source 'name 10' is new, and all new ones sent more labels than a quota allows"
    assert outcomes[0] == outcomes[1]


def test_a_quota_is_the_same_after_a_crash(stage: SqliteStage, tmp_path: Path) -> None:
    def flood(numbers: Iterable[int]) -> None:
        stage.log.append("feedback", [feedback(n, "ab"[n % 2], text=text(n), source="bot") for n in numbers])

    options = {"source_quota": "300/d", "batch_records": 64}
    flood(range(200))
    with stage.learning(**options) as learner:
        steps(learner, learned(learner, 200))
        finish(learner)
    flood(range(200, 500))
    with stage.learning(**options) as learner:
        steps(learner, lambda: learner.status("running").counts.over_quota == 200)
    status = learn_all(stage, source_quota="1000/d")  # the batches before go by the rules of then
    assert (status.counts.labels_learned, status.over_quota) == (300, {"bot": 200})
    whole = SqliteStage(StreamSettings(data=tmp_path / "whole", log=stage.stream.log_url))
    learn_all(whole, **options)
    assert whole.model() == stage.model()
    whole.close()


# Large records.


def test_huge_messages_come_in_small_batches(tmp_path: Path) -> None:
    stage = SqliteStage(StreamSettings(data=tmp_path / "data", max_record_bytes=1 << 21))
    value = encode(Message("m", "word " * (1 << 18)))
    for _ in range(5):
        stage.log.append("messages", [NewRecord(b"m", value)] * 20)
    partition = TopicPartition("messages", 0)
    merger = Merger([stage.log.reader({partition: 0})], {partition: 0}, {})
    sizes = []
    while sum(sizes) < 100:
        taken = merger.take(4096, 5.0)
        assert sum(len(each or b"") for chunk in taken.chunks for each in chunk.values) <= 32 << 20
        sizes.append(len(taken))
    assert max(sizes) == (32 << 20) // len(value)
    stage.close()


def test_what_is_sent_fits_into_the_smallest_log(tmp_path: Path) -> None:
    stage = SqliteStage(StreamSettings(data=tmp_path / "data", max_record_bytes=1 << 10))
    names = [f"{n:03d}" + "\N{GRINNING FACE}" * 100 for n in range(100)]
    for n, name in enumerate(names):
        stage.log.append("feedback", [feedback(n, name, text=text(n))])
    strange = encode(Message("\x01" * 30, "strange"))
    stage.log.append("messages", [NewRecord(b"m", encode(Message("m" * 500, "some text"))), NewRecord(b"s", strange)])
    event = {"ce_specversion": b"1.0", "ce_id": b"\x01" * 500, "content-type": b"text/plain"}
    stage.log.append("messages", [NewRecord(b"e", b'"hi"', None, list(event.items()))])
    stage.log.append("messages", [NewRecord(b"x", b"\x01\xff" * 400)])
    status = learn_all(stage, model="linear?bits=10&max_labels=100", predictions_scores=100, dead_letter_limit=1.0)
    found = [decode_prediction(value) for value in sent(stage, "predictions")]
    assert [each.message_id for each in found] == ["m" * 500, "\x01" * 30]
    assert all(0 <= len(each.scores) < 5 and each.label for each in found)
    (dead,) = [decode_rejected(value) for value in sent(stage, "dead-letter") if b'"x' not in value[:0]]
    assert (dead.error, dead.offset) == ("not-utf8", 3)
    assert (status.state, status.counts.unwritten) == ("stopped", 1)


# Dead letters.


def junk(n: int) -> list[NewRecord]:
    return [NewRecord(b"%d" % number, b"%d is no message" % number, START_MS + number) for number in range(n)]


def test_a_topic_of_junk_pauses_the_learner_and_nothing_is_lost(stage: SqliteStage, tmp_path: Path) -> None:
    stage.append(range(400))
    with stage.learning(batch_records=100) as learner:
        steps(learner, learned(learner, 400))
        stage.log.append("messages", junk(3000))
        stage.append(range(400, 500))
        steps(learner, lambda: (status := read_status(stage.stream.data)) and status.state == "paused")
        status = learner.shown
        for part in ("messages (wrong-type)", "messages[0] offset", "--dead-letter-limit 1", "dead-letter"):
            assert part in status.detail
        positions = learner.positions
        for _ in range(5):
            assert learner.step(0.01) == 0
        assert learner.positions == positions
        assert positions[TopicPartition("messages", 0)] < 400 + 3000
        finish(learner)  # a checkpoint is written, of what came before
    before = stage.newest().manifest.counts
    assert 500 <= before.rejected < 1000
    with pytest.raises(TooManyDeadLetters):  # to the end there is no way: that must not wait for ever
        learn_all(stage, batch_records=1000)
    status = learn_all(stage, dead_letter_limit=1.0)
    assert (status.counts.rejected, status.counts.labels_learned) == (3000, 500)
    dead = [decode_rejected(value).offset for value in sent(stage, "dead-letter")]
    assert sorted(dead) == list(range(400, 3400))
    assert stage.model() == oracle(tmp_path, range(500))


def test_some_junk_among_the_rest_is_no_reason_to_pause(stage: SqliteStage) -> None:
    for start in range(0, 2000, 100):
        stage.append(range(start, start + 100))
        stage.log.append("messages", junk(150))
    assert learn_all(stage).counts.rejected == 3000


def test_labels_that_are_refused_for_other_reasons_pause_nobody(stage: SqliteStage) -> None:
    stage.log.append("feedback", [feedback(n, f"label {n}", text=text(n), source="bot") for n in range(3000)])
    assert learn_all(stage, source_quota="100/d").counts.rejected == 3000 - 4  # max_labels


# The publish gate.


def served(stage: SqliteStage) -> str:
    newest = Follower(stage.stream.data / "snapshots").look()
    assert newest is not None
    return newest.info().version


def test_a_flood_of_wrong_labels_is_learned_and_not_served(stage: SqliteStage) -> None:
    right, wrong = (lambda n: "ab"[n % 3 == 0]), (lambda n: "ab"[n % 3 != 0])
    with stage.learning(publish_interval_s=0.0, batch_records=50) as learner:
        for start in range(0, 1200, 100):  # labels come 100 late
            stage.log.append("messages", [message(n) for n in range(start, start + 100)])
            steps(learner, lambda start=start: learner.status("running").counts.messages_seen >= start + 100)
            if start:
                stage.log.append("feedback", [feedback(n, right(n)) for n in range(start - 100, start)])
        steps(learner, learned(learner, 1100))
        stage.log.append("messages", [message(n) for n in range(1200, 2000)])
        steps(learner, lambda: learner.status("running").counts.messages_seen >= 2000)
        assert learner.status("running").gate.state == "open"

        stage.log.append("feedback", [feedback(n, wrong(n), source="bot") for n in range(1100, 1700)])
        steps(learner, learned(learner, 1700))
        finish(learner)
        gate = learner.shown.gate
        assert (gate.state, gate.times) == ("shut", 1)
        assert gate.recent_loss > max(gate.before_loss, gate.prior_loss) + 0.75
        kept = served(stage)
        newest = learner.status("running").version
        assert int(kept.split("-")[1]) <= 1100 + 400 < int(newest.split("-")[1])
    with stage.learning(publish_interval_s=0.0, batch_records=50) as learner:  # a new start changes nothing
        assert learner.status("running").gate.state == "shut"
        assert served(stage) == kept
        for start in range(2000, 3400, 100):  # the flood is over, and the model comes back
            stage.log.append("messages", [message(n) for n in range(start, start + 100)])
            steps(learner, lambda start=start: learner.status("running").counts.messages_seen >= start + 100)
            stage.log.append("feedback", [feedback(n, right(n)) for n in range(start, start + 100)])
            steps(learner, learned(learner, start - 300 + 100))
        finish(learner)
        assert learner.shown.gate.state == "open"
        assert served(stage) == learner.shown.version


def test_a_model_that_is_not_finite_is_not_served(stage: SqliteStage) -> None:
    stage.append(range(50))
    with stage.learning(publish_interval_s=0.0) as learner:
        steps(learner, learned(learner, 50))
        finish(learner)
        kept = served(stage)
        slots = learner._work.machine.classifier.state()["slots"]
        whole = slots.copy()
        slots[np.flatnonzero(slots)[0]] = np.nan
        stage.append(range(50, 60))
        steps(learner, learned(learner, 60))
        finish(learner)
        assert served(stage) == kept
        gate = learner.shown.gate
        assert gate.state == "shut"
        assert "'slots' holds a number that is not finite" in gate.why
        slots[:] = whole
        stage.append(range(60, 70))
        steps(learner, learned(learner, 70))
        finish(learner)
        assert (learner.shown.gate.state, served(stage)) == ("open", learner.shown.version)


def test_rules_of_before_have_no_limits() -> None:
    """A journal of a version that knew nothing of them is replayed as it was."""
    known = msgspec.to_builtins(LearnerSettings().rules(StreamSettings(), 1))
    for name in ("max_clock_jump_ms", "source_quota", "publish_margin", "only_votes", "quota_by_name"):
        del known[name]
    old = msgspec.convert(known, type(LearnerSettings().rules(StreamSettings(), 1)))
    assert (old.max_clock_jump_ms, old.source_quota, old.publish_margin, old.only_votes) == (None, None, None, True)
    assert old.quota_by_name


def test_the_rules_come_through_a_journal() -> None:
    options = {"source_quota": "5/h", "max_clock_jump_hours": 2.0, "publish_margin": float("inf")}
    rules = LearnerSettings(**options).rules(StreamSettings(), 3)  # type: ignore[arg-type]
    for codec in (msgspec.json, msgspec.msgpack):
        assert codec.decode(codec.encode(rules), type=type(rules)) == rules
    assert (rules.max_clock_jump_ms, rules.source_quota, rules.publish_margin) == (7_200_000, (5, 3_600_000), None)
