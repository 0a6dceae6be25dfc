"""What a batch changes depends on its records and on nothing else: not on where the stream is cut."""

import gc
import os
import tracemalloc
from collections.abc import Sequence
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.machine.machine import Machine
from driftline.learner.machine.plan import Plan
from driftline.learner.machine.restore import watched
from driftline.learner.registry import make_classifier
from driftline.stream.decode.batch import Decoded
from driftline.stream.join import message_rows, shared
from driftline.stream.join.join import Stop
from driftline.stream.join.rules import STOP
from driftline.stream.log.base import NewRecord, Record, TopicPartition
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import LABELLED, Feedback, Message, decode_prediction, decode_rejected, encode
from tests.data import batch
from tests.often import times

MODEL = "linear?bits=10&max_labels=4"
MESSAGES, FEEDBACK = TopicPartition("messages", 0), TopicPartition("feedback", 0)


def machine(n_partitions: int = 1, **options: object) -> Machine:
    rules = LearnerSettings(**options).rules(StreamSettings(max_record_bytes=8192), n_partitions)  # type: ignore[arg-type]
    return Machine(rules, make_classifier(MODEL), lineage="abc")


class Stream:
    """Records with their offsets and times."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._next = {MESSAGES: 0, FEEDBACK: 0}

    def add(self, partition: TopicPartition, value: bytes | None) -> None:
        self.records.append(Record(partition, self._next[partition], 1000 + len(self.records), None, value))
        self._next[partition] += 1

    def message(self, key: str, text: str) -> None:
        self.add(MESSAGES, encode(Message(key, text)))

    def label(self, key: str, label: str, **fields: object) -> None:
        self.add(FEEDBACK, encode(Feedback(key, label, **fields)))  # type: ignore[arg-type]


def run(machine: Machine, records: Sequence[Record], cuts: Sequence[int] = ()) -> dict[str, list[NewRecord]]:
    """Apply records in batches that end at the cuts; return all that was sent."""
    sent: dict[str, list[NewRecord]] = {"predictions": [], "dead-letter": []}
    ends = [*sorted(set(cuts)), len(records)]
    for start, end in zip([0, *ends], ends, strict=False):
        if start < end:
            for topic, new in machine.apply(batch(records[start:end])).items():
                sent[topic] += new
    return sent


def digest(machine: Machine) -> str:
    arrays = machine.classifier.state() | {f"p{name}": each for name, each in machine.progress.state().items()}
    arrays |= {f"d{name}": each for name, each in watched(machine).items()}
    parts = [name.encode() + array.tobytes() for name, array in sorted(arrays.items())]
    state = [machine.classifier.labels, machine.counts, machine.join.counts, machine.join.state(), machine.alarms]
    state += [machine.quotas]
    return sha256(b"".join(parts) + msgspec.json.encode(state)).hexdigest()


@pytest.mark.parametrize("label", ["", "a label that nobody knows"])
def test_a_retraction_needs_no_label_and_no_place_for_one(label: str) -> None:
    """What a message was called is taken back, however many labels there are."""
    stream = Stream()
    for number in range(4):
        stream.label("x", f"l{number}", text="win a prize")
    stream.label("m", "l0", id="f")
    stream.label("m", label, id="r", op="retract")
    stream.label("m", label, id="r", op="retract")
    stream.message("m", "see you")
    learner = machine()
    assert run(learner, stream.records)["dead-letter"] == []
    counts = learner.join.counts
    assert (counts.retracted, counts.repeated, learner.counts.labels_learned) == (1, 1, 4)
    before = Machine(msgspec.structs.replace(learner.rules, reading=LABELLED), make_classifier(MODEL), lineage="abc")
    assert len(run(before, stream.records)["dead-letter"]) == 2
    assert before.counts.labels_learned == 5


def test_a_label_is_scored_with_the_prediction_that_was_served() -> None:
    stream = Stream()
    for number in range(20):
        stream.label(
            f"x{number}", "spam" if number % 2 else "ham", text="win a prize" if number % 2 else "see you at home"
        )
    stream.message("m", "win a prize now")
    for _ in range(20):
        stream.label("y", "ham", text="win a prize now")
        stream.label("y", "spam", text="win a prize now")
        stream.label("y", "ham", text="win a prize now")
    stream.label("m", "spam")
    learner = machine()
    sent = run(learner, stream.records)
    (prediction,) = map(decode_prediction, (record.value or b"" for record in sent["predictions"]))
    assert (prediction.message_id, prediction.label, prediction.model_version) == ("m", "spam", "abc-20")
    assert prediction.score == prediction.scores["spam"] > 0.5
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-5)
    assert (learner.progress.labels, learner.progress.correct) == (1, 1)


def test_a_prediction_before_the_first_label_says_so_and_is_not_scored() -> None:
    stream = Stream()
    stream.message("m", "hello")
    stream.label("m", "ham")
    learner = machine()
    (record,) = run(learner, stream.records)["predictions"]
    prediction = decode_prediction(record.value or b"")
    assert (prediction.label, prediction.score, prediction.scores) == (None, 0.0, {})
    assert prediction.ts == "1970-01-01T00:00:01.000Z"
    assert (learner.progress.labels, learner.progress.unpredicted) == (0, 1)


def test_a_correction_is_learned_and_not_scored_again() -> None:
    stream = Stream()
    stream.label("first", "ham", text="hello")
    stream.message("m", "hello")
    stream.label("m", "ham")
    stream.label("m", "spam")
    learner = machine()
    run(learner, stream.records)
    assert learner.counts.labels_learned == 3
    assert (learner.progress.labels, learner.progress.correct) == (1, 1)
    assert learner.classifier.labels == ["ham", "spam"]


def test_whatever_cannot_be_read_is_a_dead_letter_and_changes_nothing_else() -> None:
    stream = Stream()
    stream.message("m", "hello")
    stream.label("m", "ham")
    before = machine()
    run(before, stream.records)
    for number in range(1000):
        stream.add(MESSAGES if number % 2 else FEEDBACK, os.urandom(number % 300))
    stream.add(MESSAGES, b'{"id":"big","text":"' + b"x" * 8192 + b'"}')
    after = machine()
    dead = [decode_rejected(record.value or b"") for record in run(after, stream.records)["dead-letter"]]
    assert len(dead) == 1001 == after.counts.rejected
    assert {(each.topic, each.partition, each.offset) for each in dead} == {
        (*record.partition, record.offset) for record in stream.records[2:]
    }
    assert dead[-1].error == "too-large"
    assert dead[-1].value_sha256 == sha256(stream.records[-1].value or b"").hexdigest()
    assert len(dead[-1].value_start) == 200
    assert sum(after.counts.rejected_by.values()) == 1001
    after.counts.rejected, after.counts.rejected_by = 0, {}
    assert digest(after) == digest(before)


def test_a_tombstone_is_counted_and_no_error() -> None:
    stream = Stream()
    stream.add(MESSAGES, None)
    stream.add(FEEDBACK, None)
    learner = machine()
    assert run(learner, stream.records)["dead-letter"] == []
    assert learner.counts.tombstones == 2


def test_a_label_beyond_the_limit_is_a_dead_letter() -> None:
    stream = Stream()
    stream.label("early", "fifth")  # it fits when it comes, and no longer when its message does
    for number in range(5):
        stream.label(f"m{number}", f"label{number}", text="hello")
    stream.message("early", "hello")
    learner = machine()
    dead = [decode_rejected(record.value or b"") for record in run(learner, stream.records)["dead-letter"]]
    assert [(each.error, each.offset) for each in dead] == [("too-many-labels", 5), ("too-many-labels", 0)]
    assert learner.classifier.labels == [f"label{number}" for number in range(4)]


def test_a_message_that_leaves_unlabelled_is_learned_as_asked() -> None:
    stream = Stream()
    for number in range(5):
        stream.message(f"m{number}", f"text {number}")
    learner = machine(expire_as="ham", window_messages=2)
    run(learner, stream.records)
    assert (learner.counts.updates, learner.counts.labels_learned, learner.classifier.labels) == (3, 0, ["ham"])


def test_a_message_that_expires_when_there_is_no_label_left_is_not_learned() -> None:
    stream = Stream()
    for number in range(4):
        stream.label(f"x{number}", f"label{number}", text="hello")
    for number in range(5):
        stream.message(f"m{number}", f"text {number}")
    learner = machine(expire_as="ham", window_messages=1)
    run(learner, stream.records)
    assert (learner.counts.updates, learner.join.counts.expired) == (4, 4)


def test_a_label_that_brings_the_text_is_not_scored_with_a_later_prediction() -> None:
    stream = Stream()
    stream.label("x", "ham", text="hello")
    stream.label("m", "ham", text="hello")
    stream.message("m", "hello")
    learner = machine()
    assert len(run(learner, stream.records)["predictions"]) == 1
    assert (learner.progress.labels, learner.progress.unpredicted) == (0, 0)


LATE = 150


def drifting(n: int) -> Stream:
    """Return messages, each with its label LATE messages later; in the middle the labels change places."""
    stream = Stream()
    labels = []
    for number in range(n):
        label = "spam" if number % 2 else "ham"
        stream.message(f"m{number}", "win a prize now" if label == "spam" else "see you at home")
        labels.append(label if number < n // 2 else {"spam": "ham", "ham": "spam"}[label])
        if number >= LATE:
            stream.label(f"m{number - LATE}", labels[number - LATE])
    return stream


def test_an_alarm_says_which_record_showed_it() -> None:
    stream = drifting(1000)
    learner, raised = machine(), []
    for record in stream.records:
        learner.apply(batch([record]))
        assert all(
            (each.topic, each.partition, each.offset) == (*record.partition, record.offset) for each in learner.raised
        )
        assert all(each.timestamp_ms == record.timestamp_ms for each in learner.raised)
        raised += learner.raised
    worse = [each for each in raised if each.change == "worse"]
    assert {each.label for each in worse} == {None, "ham", "spam"}
    assert all(350 < each.at_label <= 500 and each.topic == "feedback" for each in worse)
    first = next(each for each in worse if each.label is None)
    assert first.offset == first.at_label + LATE  # before the first label was learned there was nothing to be scored
    assert learner.alarms.recent == raised[-20:]
    assert learner.alarms.alarms == len(raised)


def test_an_alarm_of_a_label_that_had_waited_names_its_message() -> None:
    stream = Stream()
    for number in range(600):  # in the second half by chance
        stream.label(f"m{number}", "ham" if number < 300 or number * 7 % 10 < 5 else "spam")
    for number in range(600):
        stream.message(f"m{number}", "hello")
    learner = machine()
    run(learner, stream.records)
    alarm = next(each for each in learner.alarms.recent if each.label is None)
    assert (alarm.topic, alarm.change, alarm.offset) == ("messages", "worse", alarm.at_label)
    assert 300 < alarm.offset < 500


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2000 - LATE), max_size=30))
def test_alarms_do_not_depend_on_the_cuts(cuts: list[int]) -> None:
    stream = drifting(1000)
    one, other = machine(), machine()
    assert run(one, stream.records) == run(other, stream.records, cuts)
    assert one.alarms.alarms > 3
    assert one.gate.report().times == 1
    assert digest(one) == digest(other)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["message", "label", "label", "own", "retract", "junk"]),
        st.sampled_from("abcdefgh"),
        st.sampled_from("vwxyz"),
        st.sampled_from(["win a prize", "see you", "", "\N{GRINNING FACE}!!"]),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=times(400, 100))
@given(
    EVENTS,
    st.lists(st.integers(0, 40), max_size=8),
    st.sampled_from([None, "old"]),
    st.sampled_from([24.0, 5 / 3_600_000]),
)
def test_the_outcome_does_not_depend_on_the_cuts(
    events: list[tuple[str, str, str, str]], cuts: list[int], expire_as: str | None, free_labels_hours: float
) -> None:
    stream = Stream()
    for kind, key, label, text in events:
        if kind == "message":
            stream.message(key, text)
        elif kind == "junk":
            stream.add(FEEDBACK, text.encode())
        else:
            own = {"text": text} if kind == "own" else {}
            stream.label(key, label, op="retract" if kind == "retract" else "upsert", **own)
    options = {"expire_as": expire_as, "window_messages": 4, "free_labels_hours": free_labels_hours}
    one, other = (machine(**options) for _ in range(2))
    assert run(one, stream.records) == run(other, stream.records, [cut for cut in cuts if cut <= len(stream.records)])
    assert digest(one) == digest(other)


MIXED = st.lists(
    st.tuples(
        st.sampled_from(["message", "message", "label", "label", "label", "own", "retract", "junk", "nothing"]),
        st.integers(0, 15),  # which message
        st.sampled_from(["ham", "ham", "spam", "x", "y", "z"]),
        st.sampled_from([None, None, "1", "2"]),  # the feedback's id
        st.sampled_from([1.0, 1.0, 2.5]),
        st.integers(0, 2),  # partition
        st.integers(-3, 5),  # time that passed
    ),
    max_size=80,
)


def mixed(events: Sequence[tuple[str, int, str, str | None, float, int, int]], n_partitions: int) -> list[Record]:
    """Return records of all kinds, on several partitions, whose times go back and forth."""
    records: list[Record] = []
    time = 1000
    for number, (kind, which, label, feedback_id, weight, partition, passed) in enumerate(events):
        time += passed
        topic = "messages" if kind == "message" or (kind in ("junk", "nothing") and which % 2) else "feedback"
        value: bytes | None = b"junk" if kind == "junk" else None
        if kind == "message":
            value = encode(Message(f"m{which}", f"{label} or not {which}"))
        elif kind not in ("junk", "nothing"):
            op = "retract" if kind == "retract" else "upsert"
            text = f"own {label}" if kind == "own" else None
            value = encode(Feedback(f"m{which}", label, feedback_id, op, weight, text=text))
        records.append(Record(TopicPartition(topic, partition % n_partitions), number, time, None, value))
    return records


Event = tuple[str, int, str, str | None, float, int, int]
TAUGHT: list[Event] = [("own", 98, "ham", None, 1.0, 0, 0), ("own", 99, "spam", None, 1.0, 0, 0)]


@st.composite
def mostly_plain(draw: st.DrawFn) -> list[Event]:
    """Draw messages whose labels come some records later, or now and then before, and a few records of any kind."""
    placed: list[tuple[float, Event]] = []
    for number in range(draw(st.integers(1, 30))):
        label = draw(st.sampled_from(["ham", "spam"]))
        partition, passed = draw(st.integers(0, 2)), draw(st.sampled_from([0, 1, 1, 3, -3]))
        placed.append((number, ("message", 100 + number, label, None, 1.0, partition, passed)))
        late = draw(st.sampled_from([0, 0, 1, 2, 5, 5, 8, 12, 20, None, -1]))
        if late is not None:
            feedback_id = draw(st.sampled_from([None, "f"]))
            weight = draw(st.sampled_from([1.0, 1.0, 2.5]))
            placed.append((number + late + 0.5, ("label", 100 + number, label, feedback_id, weight, partition, 0)))
    events = [event for _, event in sorted(placed)]
    for odd in draw(MIXED.filter(lambda odd: len(odd) <= 2) | st.just([])):
        events.insert(draw(st.integers(0, len(events))), odd)
    return TAUGHT + events


LIMITS: list[dict[str, object]] = [
    {},
    {"window_messages": 9},
    {"window_messages": 18},
    {"window_bytes": 1 << 16},  # see `mixed`
    {"window_hours": 6 / 3_600_000},
    {"window_hours": 15 / 3_600_000},
]


@settings(max_examples=times(600, 150))
@given(
    mostly_plain() | MIXED,
    st.lists(st.integers(0, 80), max_size=4),
    st.integers(1, 3),
    st.sampled_from(LIMITS),
    st.sampled_from([None, None, "ham"]),
    st.sampled_from([{}, {}, {"source_quota": "7/s"}, {"free_labels_hours": 4 / 3_600_000}]),
)
def test_what_the_kernel_takes_comes_out_as_one_by_one(
    events: list[Event],
    cuts: list[int],
    n_partitions: int,
    limits: dict[str, object],
    expire_as: str | None,
    quota: dict[str, object],
) -> None:
    records = mixed(events, n_partitions)
    if "window_bytes" in limits:
        for record in records:
            record.value = record.value and record.value.replace(b"or not", b"or not " * 250)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(message_rows, "LEAST", 4)  # so that rows move
        patch.setattr(shared, "LONGEST", 0)  # and get other hashes
        one = machine(n_partitions, expire_as=expire_as, **limits, **quota)
        sent = run(one, records, [cut for cut in (2, *cuts) if cut <= len(records)])
        patch.setattr(message_rows, "LEAST", 1 << 10)
        patch.setattr(shared, "LONGEST", 1 << 10)
        patch.setattr(Machine, "_take_plain", leave_to_python)
        other = machine(n_partitions, expire_as=expire_as, **limits, **quota)
        assert sent == run(other, records)
    assert digest(one) == digest(other)


def leave_to_python(_: Machine, __: Plan, ___: Decoded, place: int) -> Stop:
    """Take nothing, in the kernel's stead."""
    return Stop(place, STOP.ODD_RECORD, 0, 0, 0)


def test_a_plain_batch_is_taken_in_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    stream.label("first", "spam", text="win a prize")
    stream.label("second", "ham", text="see you")
    for number in range(2000):
        stream.message(f"m{number}", f"text {number}")
        if number >= 100:
            stream.label(f"m{number - 100}", "spam" if number % 3 else "ham", id=f"f{number}")
    learner = machine(window_messages=300)
    run(learner, stream.records[:500])
    monkeypatch.setattr(Machine, "_one", None)
    run(learner, stream.records[500:], range(150, len(stream.records) - 500, 150))
    assert (learner.counts.messages_seen, learner.counts.labels_learned) == (2000, 1902)
    assert learner.join.counts.expired == 0
    assert len(learner.join.messages) == 300


def test_a_batch_that_was_sent_leaves_nothing_in_memory() -> None:
    """But what has a limit: here the window is full from the second batch on."""
    learner = machine(window_messages=50, window_bytes=1 << 16)
    stream = Stream()
    for number in range(3000):
        stream.message(f"m{number}", f"text {number % 100}")
        stream.label(f"m{number}", "spam" if number % 2 else "ham")
    run(learner, stream.records[:2000], range(0, 2000, 200))
    tracemalloc.start()
    try:
        run(learner, stream.records[2000:4000], range(0, 2000, 200))
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        run(learner, stream.records[4000:], range(0, 2000, 200))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50 * 1000  # 1,000 predictions; one of them takes 400 bytes
