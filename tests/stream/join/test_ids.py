"""An id is not believed over the content, and the last word counts: from the log to the model."""

import contextlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.machine.machine import Machine
from driftline.learner.registry import make_classifier
from driftline.stream.files.reader import Row
from driftline.stream.files.send import send
from driftline.stream.join.message_rows import bare_size
from driftline.stream.log.base import Record, TopicPartition
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.fielded import join
from driftline.stream.wire.records import Feedback, Message, decode_message, decode_rejected, encode
from driftline.stream.wire.vector import with_vector as append_vector
from driftline.stream.wire.vector import without_vector_bytes
from tests.data import batch
from tests.stream.wire.test_fielded import FIELDS, TEXT
from tests.stream.wire.test_vector import VECTOR

MODEL = "linear?bits=10&max_labels=4"
Said = Message | Feedback
A, B, C = "You won a prize", "See you at home", "Call now"


def learn(*said: Said) -> tuple[Machine, list[str]]:
    """Return a machine that has taken records in, and the errors of those that it refused."""
    machine = Machine(LearnerSettings().rules(StreamSettings(), 1), make_classifier(MODEL), lineage="abc")
    errors = []
    for number, each in enumerate(said):
        topic = "messages" if isinstance(each, Message) else "feedback"
        record = Record(TopicPartition(topic, 0), number, 1000 + number, None, encode(each))
        sent = machine.apply(batch([record]))["dead-letter"]
        errors += [decode_rejected(record.value or b"").error for record in sent]
    return machine, errors


def assert_same_model(one: Machine, other: Machine) -> None:
    assert one.classifier.labels == other.classifier.labels
    for name, array in one.classifier.state().items():
        np.testing.assert_array_equal(array, other.classifier.state()[name])
    assert (one.progress.labels, one.progress.log_loss) == (other.progress.labels, other.progress.log_loss)


def renamed(said: Said, key: str) -> Said:
    return Message(key, said.text) if isinstance(said, Message) else Feedback(key, said.label, text=said.text)


STORIES: dict[str, list[tuple[str, Said]]] = {
    "labels with texts": [("a", Feedback("m", "spam", text=A)), ("b", Feedback("m", "ham", text=B))],
    "messages one after the other": [
        ("a", Message("m", A)),
        ("a", Feedback("m", "spam")),
        ("b", Message("m", B)),
        ("b", Feedback("m", "ham")),
        ("c", Message("m", C)),
        ("c", Feedback("m", "spam")),
    ],
    "messages, and labels that name their text": [
        ("a", Message("m", A)),
        ("b", Message("m", B)),
        ("a", Feedback("m", "spam", text=A)),
        ("b", Feedback("m", "ham")),
        ("a", Feedback("m", "ham", text=A)),
    ],
    "a label with another text than the message": [
        ("a", Message("m", A)),
        ("b", Feedback("m", "ham", text=B)),
        ("a", Feedback("m", "spam")),
        ("b", Message("m", B)),
    ],
}


@pytest.mark.parametrize("story", STORIES)
def test_texts_that_share_an_id_are_learned_as_if_each_had_its_own(story: str) -> None:
    shared, errors = learn(*(said for _, said in STORIES[story]))
    apart, _ = learn(*(renamed(said, key) for key, said in STORIES[story]))
    assert_same_model(shared, apart)
    assert errors == []
    assert shared.join.counts.other_texts == len({key for key, _ in STORIES[story]}) - 1
    assert shared.counts.labels_learned == apart.counts.labels_learned > 0


def test_each_message_that_comes_is_predicted() -> None:
    machine, _ = learn(*(Message("m", text) for text in (A, B, A, C, B)))
    assert (machine.counts.messages_seen, machine.join.counts.duplicates) == (3, 2)


def test_what_cannot_be_told_is_refused_and_changes_nothing() -> None:
    said = [Feedback("x", "spam", text=A), Feedback("y", "ham", text=B), Message("m", A), Message("m", B)]
    before, _ = learn(*said)
    after, errors = learn(*said, Feedback("m", "spam"), Feedback("m", "ham", id="f", source="someone"))
    assert errors == ["ambiguous-id"] * 2
    assert_same_model(before, after)
    assert (after.join.counts.ambiguous, after.counts.rejected_by) == (2, {"ambiguous-id": 2})
    assert after.join.pending == 2


@pytest.mark.parametrize("labels", ["aba", "abab", "abcba", "aab"])
def test_of_a_file_that_is_sent_again_with_other_labels_the_last_one_counts(tmp_path: Path, labels: str) -> None:
    stream = StreamSettings(data=tmp_path)
    for label in labels:  # a learner of its own each time: what is known goes through a checkpoint
        with contextlib.closing(open_log(stream)) as log:
            send(log, stream.topics, [Row("m", "hi", label, 1), Row("n", "there", "x", 2)], 1)
            machine = learn_all(stream, log)
            entry = machine.join.messages["m"]
            assert entry.label == label
    changes = sum(before != after for before, after in pairwise(labels))
    counts = machine.join.counts
    assert (counts.corrected, counts.repeated) == (changes, 2 * len(labels) - 2 - changes)
    assert machine.counts.labels_learned == 2 + changes
    assert (counts.other_texts, counts.reused_ids) == (0, 0)


NL, BE = {"country": "NL"}, {"country": "BE"}


def with_fields(said: Said, fields: dict[str, str]) -> Said:
    return msgspec.structs.replace(said, fields=msgspec.Raw(encode(fields)))


def test_a_message_is_its_text_and_its_fields() -> None:
    same, other = with_fields(Message("m", A), NL), with_fields(Message("m", A), BE)
    machine, _ = learn(same, same, other, Message("m", A))
    assert (machine.counts.messages_seen, machine.join.counts.duplicates) == (3, 1)
    assert machine.join.messages["m"].text == A
    asides = [machine.join.messages.aside("m", join(A, fields)) for fields in (NL, BE)]
    assert all(each is not None for each in asides)


@pytest.mark.parametrize("bare", [True, False])
def test_a_label_with_a_text_need_not_have_its_fields_too(bare: bool) -> None:
    label = Feedback("m", "spam", text=A)
    machine, errors = learn(with_fields(Message("m", A), NL), label if bare else with_fields(label, NL))
    plain, _ = learn(with_fields(Message("m", A), NL), Feedback("m", "spam"))
    assert_same_model(machine, plain)
    assert (errors, machine.join.counts.other_texts) == ([], 0)
    back, _ = learn(with_fields(Message("m", A), NL), label, Feedback("m", "spam", op="retract", text=A))
    assert back.join.counts.retracted == 1
    another, _ = learn(with_fields(Message("m", A), NL), with_fields(label, BE))
    assert another.join.counts.other_texts == 1


def test_a_label_with_fields_of_its_own_needs_no_message() -> None:
    machine, errors = learn(*[with_fields(Feedback(f"m{n}", "ab"[n % 2], text=A), (NL, BE)[n % 2]) for n in range(40)])
    assert errors == []
    scores = [machine.classifier.predict_proba_one(join(A, fields))["a"] for fields in (NL, BE)]
    assert scores[0] > 0.7
    assert scores[1] < 0.3


def learn_all(stream: StreamSettings, log: Any) -> Machine:
    learner = Learner(stream, LearnerSettings(model=MODEL), log)
    with contextlib.closing(learner):
        learner.start()
        learner.run(lambda: False, until=log.watermarks(stream.topics[:2]))
        return learner._work.machine


def with_vector(said: Said, *numbers: float) -> Said:
    return msgspec.structs.replace(said, vector=msgspec.Raw(encode(numbers)))


def test_a_text_is_the_same_whatever_its_vector() -> None:
    one, other = with_vector(Message("m", A), 1, 2), with_vector(Message("m", A), 1, 2.5)
    machine, errors = learn(one, one, other, Message("m", A))
    assert (machine.counts.messages_seen, machine.join.counts.duplicates, errors) == (1, 3, [])
    assert machine.join.messages["m"].text == decode_message(encode(one)).text, "the first one counts"
    fielded = with_vector(with_fields(Message("m", A), NL), 1, 2)
    machine, _ = learn(fielded, one, with_vector(Message("m", B), 1, 2))
    assert (machine.counts.messages_seen, machine.join.counts.other_texts) == (3, 2)


@pytest.mark.parametrize("vector", [(), (1, 2), (2, 1)])
@pytest.mark.parametrize("fields", [{}, NL])
def test_a_label_with_a_text_need_not_have_its_vector_too(fields: dict[str, str], vector: tuple[float, ...]) -> None:
    message = with_vector(with_fields(Message("m", A), NL), 1, 2)
    label = with_fields(Feedback("m", "spam", text=A), fields)
    label = with_vector(label, *vector) if vector else label
    machine, errors = learn(message, label)
    plain, _ = learn(message, Feedback("m", "spam"))
    assert_same_model(machine, plain)
    assert (errors, machine.join.counts.other_texts) == ([], 0)


def test_a_label_that_comes_before_its_message_has_the_same_text() -> None:
    label, message = Feedback("m", "spam", text=A), with_vector(Message("m", A), 1, 2)
    machine, errors = learn(with_vector(label, 1, 3), message, Feedback("m", "ham"))
    assert (errors, machine.join.counts.other_texts, machine.join.counts.corrected) == ([], 0, 1)


def test_texts_that_share_an_id_are_the_same_whatever_their_vectors() -> None:
    """Also those that the id does not name any more, through a checkpoint, and under another secret."""
    one, other = with_vector(Message("m", A), 1, 2), with_vector(with_fields(Message("m", A), NL), 1, 2)
    said = one, other, with_vector(Message("m", B), 1, 2)
    machine, errors = learn(*said)
    for again in ("", "restored", "another secret"):
        if again == "restored":
            machine.join.load_state(machine.join.counts, machine.join.state())
        elif again:
            machine.join.store.change_secret()
        for each in (Message("m", A), with_vector(Message("m", A), 1, 2.5)):
            record = Record(TopicPartition("messages", 0), 9, 2000, None, encode(each))
            machine.apply(batch([record]))
        label = Feedback("m", "spam", text=A)
        record = Record(TopicPartition("feedback", 0), 9, 2000, None, encode(label))
        machine.apply(batch([record]))
        entry = machine.join.messages.aside("m", A)
        assert entry is not None
        assert entry.label == "spam"
        assert entry.text == decode_message(encode(one)).text
    assert (machine.counts.messages_seen, machine.join.counts.duplicates, errors) == (3, 6, [])


@settings(max_examples=200)
@given(TEXT, FIELDS, VECTOR)
def test_the_kernel_leaves_the_vector_out_as_strings_do(text: str, fields: dict[str, Any], vector: np.ndarray) -> None:
    for whole in (join(text, fields), append_vector(join(text, fields), vector)):
        data = np.frombuffer(b"before\0" + whole.encode() + b"v\0", np.uint8).copy()
        assert bare_size(data, 7, len(whole.encode())) == len(without_vector_bytes(whole.encode()))
        assert without_vector_bytes(whole.encode()) == join(text, fields).encode()


@pytest.mark.parametrize(("model", "unused"), [(MODEL, 3), ("blend?bits=10&dimension=3&max_labels=4", 2)])
def test_vectors_that_the_model_does_not_take_are_counted(model: str, unused: int) -> None:
    said = [with_vector(Message(f"m{n}", A), *range(1, n + 2)) for n in range(1, 4)]
    machine = Machine(LearnerSettings().rules(StreamSettings(), 1), make_classifier(model), lineage="abc")
    records = [Record(TopicPartition("messages", 0), n, 1000 + n, None, encode(each)) for n, each in enumerate(said)]
    records.append(Record(TopicPartition("messages", 0), 9, 1009, None, encode(Message("plain", "no vector"))))
    machine.apply(batch(records[:2]))
    machine.apply(batch(records[2:]))
    assert (machine.counts.vectors_unused, machine.counts.messages_seen) == (unused, 4)
