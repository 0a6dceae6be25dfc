"""Who is taught what another one learned has the same model, byte for byte: no messages and no join are needed."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from driftline.learner.cluster import entries
from driftline.learner.cluster.entries import Batch, decode, encode, lessons, teach
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.machine.machine import Machine
from driftline.learner.machine.plan import Plan
from driftline.learner.registry import make_classifier
from driftline.stream.errors import StateError
from driftline.stream.log.base import Chunk, TopicPartition
from driftline.stream.log.merge import Batch as Records
from driftline.stream.log.merge import Span
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message
from driftline.stream.wire.records import encode as wire

MODELS = ["linear?bits=10", "blend?bits=12", "bayes?bits=10", "tree?bits=12", "river:naive_bayes.MultinomialNB"]
TEXTS = ["win a prize now", "see you at noon", "ünïcode ☂ text", "", "a\ud800b", "long " * 400, "win again"]


def records(numbers: list[int], topic: str, values: list[bytes], at: int) -> Chunk:
    n = len(numbers)
    return Chunk(TopicPartition(topic, 0), np.arange(at, at + n), np.full(n, 1_000_000 + at), [None] * n, values)


def batch_of(messages: list[bytes], labels: list[bytes], at: int) -> Records:
    chunks = [records(list(range(len(v))), t, v, at) for t, v in (("messages", messages), ("feedback", labels)) if v]
    n = sum(map(len, chunks))
    spans = [Span(chunk.partition, at, at + len(chunk), len(chunk)) for chunk in chunks]
    return Records(chunks, np.arange(n), spans)


def state_of(classifier: Any) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in classifier.state().items()}


def follow(machine: Machine, pupil: Any, batch: Records) -> Plan:
    before = machine.counts.updates
    plan = machine.plan(batch)
    taught = lessons(plan)
    (value,) = encode(Batch(1, 1, 0, [], machine.counts.updates, 0, taught))
    found = decode(value)
    assert isinstance(found, Batch)
    assert sum(teach(pupil, found.lessons)) == machine.counts.updates - before
    machine.learn(plan)
    machine.finish(plan)
    return plan


@pytest.mark.parametrize("model", MODELS)
def test_a_pupil_has_the_same_bytes_after_every_batch(model: str) -> None:
    spec = f"{model}{'&' if '?' in model else '?'}max_labels=8" if "river" not in model else model
    teacher, pupil = (make_classifier(spec, allow_pickle=True) for _ in range(2))
    machine = Machine(LearnerSettings(expire_as=None).rules(StreamSettings(data=Path("x")), 1), teacher, "l")
    for turn in range(6):
        ids = [f"{turn}-{n}" for n in range(len(TEXTS))]
        messages = [wire(Message(i, t)) for i, t in zip(ids, TEXTS, strict=True) if "\ud800" not in t]
        labels = [
            wire(Feedback(i, "abcdefg"[(turn + n) % (2 + turn)], weight=1 + n % 3)) for n, i in enumerate(ids) if n % 2
        ]
        corrections = [wire(Feedback(f"{turn - 1}-1", "z"))] if turn else []
        follow(machine, pupil, batch_of(messages, labels + corrections, 100 * turn))
        assert state_of(pupil) == state_of(teacher)
        assert pupil.labels == teacher.labels


def test_a_label_that_gives_its_place_does_so_for_the_pupil_too() -> None:
    spec = "blend?bits=12&max_labels=3"
    teacher, pupil = make_classifier(spec), make_classifier(spec)
    rules = LearnerSettings(free_labels_hours=1e-3).rules(StreamSettings(data=Path("x")), 1)
    machine = Machine(rules, teacher, "l")
    hour = 3_600_000
    for turn, label in enumerate(["a", "b", "c", "d", "e", "a", "b"]):
        batch = batch_of([wire(Message(str(turn), f"about {label} {turn}"))], [wire(Feedback(str(turn), label))], turn)
        for chunk in batch.chunks:
            chunk.timestamps_ms[:] = 1_000_000 + turn * hour
        follow(machine, pupil, batch)
        assert state_of(pupil) == state_of(teacher)
        assert (pupil.labels, pupil.columns) == (teacher.labels, teacher.columns)
    assert machine.counts.places_given > 0
    assert pupil.labels != ["a", "b", "c"]


@pytest.mark.parametrize(
    "change",
    [
        {"targets": np.array([5], "<i4").tobytes()},
        {"targets": np.array([-1], "<i4").tobytes()},
        {"sizes": np.array([3, 4], "<u4").tobytes()},
        {"sizes": np.array([2], "<u4").tobytes()},
        {"weights": b"1234567"},
        {"targets": b"123"},
        {"place": entries.GivenPlace(9, [], "x")},
    ],
)
def test_what_no_kernel_may_be_given_is_refused(change: dict[str, Any]) -> None:
    lesson = entries.Lesson(b"abc", np.array([3], "<u4").tobytes(), np.array([0], "<i4").tobytes(), b"", ["a"])
    pupil = make_classifier("linear?bits=10&max_labels=4")
    assert list(teach(pupil, [lesson])) == [1]
    before = state_of(pupil)
    with pytest.raises(StateError, match="damaged"):
        list(teach(pupil, [msgspec.structs.replace(lesson, **change)]))
    assert state_of(pupil) == before
