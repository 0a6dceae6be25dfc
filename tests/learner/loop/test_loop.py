"""The learner recovers whatever lies in its directory, and no record ends it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.disk.journal import Journal
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.state.outbox import Outbox
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode

MODEL = "linear?bits=10&max_labels=4"


@pytest.fixture
def stream(tmp_path: Path) -> StreamSettings:
    return StreamSettings(data=tmp_path)


@pytest.fixture
def log(stream: StreamSettings) -> Iterator[Log]:
    log = open_log(stream)
    log.create_topics(stream.topics)
    yield log
    log.close()


def append(log: Log, first: int, count: int, timestamp_ms: int | None = None) -> None:
    for number in range(first, first + count):
        key = str(number)
        log.append("messages", [NewRecord(key.encode(), encode(Message(key, f"text {number}")), timestamp_ms)])
        log.append("feedback", [NewRecord(key.encode(), encode(Feedback(key, "ab"[number % 2])), timestamp_ms)])


def learn(stream: StreamSettings, log: Log) -> bytes:
    """Learn to the end and return the bytes of the model's checkpoint."""
    learner = Learner(stream, LearnerSettings(model=MODEL), log)
    try:
        learner.start()
        learner.run(lambda: False, log.watermarks(stream.topics[:2]))
    finally:
        learner.close()
    return (list_checkpoints(stream.data / "checkpoints")[0] / "model.safetensors").read_bytes()


def test_a_damaged_newest_checkpoint_is_made_again_from_the_one_before(stream: StreamSettings, log: Log) -> None:
    append(log, 0, 5)
    model = learn(stream, log)
    damaged = list_checkpoints(stream.data / "checkpoints")[0]
    (damaged / "model.safetensors").write_bytes(model[:-1])
    assert learn(stream, log) == model
    assert [path.name for path in (stream.data / "checkpoints").glob("damaged-*")] == [f"damaged-{damaged.name}-2"]
    append(log, 5, 5)
    assert learn(stream, log) != model


def state_of(learner: Learner) -> list[object]:
    """Return all that a replay has to give again."""
    learner._land()
    machine = learner._work.machine
    arrays = (machine.classifier.state(), machine.progress.state(), machine.drift.state())
    parts = {f"{n}{name}": array.tobytes() for n, each in enumerate(arrays) for name, array in each.items()}
    return [parts, machine.join.state(), machine.join.counts, machine.counts, machine.classifier.labels]


def test_planning_a_batch_while_another_is_learned_gives_the_bytes_of_one_after_the_other(
    stream: StreamSettings, log: Log
) -> None:
    append(log, 0, 120)
    log.append("feedback", [NewRecord(b"0", encode(Feedback(str(n), label))) for n, label in enumerate("abcda")])
    append(log, 120, 40)
    # Nothing is published: for that a batch is waited for, on a busy machine after each.
    settings = LearnerSettings(model=MODEL, batch_records=7, publish_interval_s=1e6)
    learner = Learner(stream, settings, log)
    in_flight = 0
    try:
        learner.start()
        while not learner._work.reached(log.watermarks(stream.topics[:2])):
            learner.step()
            in_flight += learner._flight is not None
        overlapped = state_of(learner)
    finally:
        learner.close()
    again = Learner(stream, settings, log)
    try:
        again.start()  # replays the journal's batches, each to its end before the next
        assert state_of(again) == overlapped
    finally:
        again.close()
    assert in_flight > 20
    assert overlapped[4] == ["a", "b", "c", "d"]


def test_a_batch_is_not_seen_outside_before_its_entry_is_durable(
    stream: StreamSettings, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, 0, 50)
    events: list[tuple[str, int]] = []
    append_entry, send = Journal.append, Outbox.send

    def appended(self: Journal, batch: int, *rest: Any) -> None:
        append_entry(self, batch, *rest)
        events.append(("durable", batch))

    def sent(self: Outbox, batch: int, *rest: Any) -> None:
        events.append(("sent", batch))
        send(self, batch, *rest)

    monkeypatch.setattr(Journal, "append", appended)
    monkeypatch.setattr(Outbox, "send", sent)
    learner = Learner(stream, LearnerSettings(model=MODEL, batch_records=7), log)
    try:
        learner.start()
        learner.run(lambda: False, log.watermarks(stream.topics[:2]))
    finally:
        learner.close()
    batches = [batch for what, batch in events if what == "sent"]
    assert batches == list(range(1, 1 + len(batches)))
    assert all(events.index(("durable", batch)) < events.index(("sent", batch)) for batch in batches)


def test_at_the_end_of_the_log_a_checkpoint_is_waited_for(
    stream: StreamSettings, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that answers too late for whoever is told to stop is late for nobody who was told to go to the end."""
    monkeypatch.setattr("driftline.learner.state.ledger.CONFIRM_S", 0.0)
    append(log, 0, 20)
    learn(stream, log)
    assert [int(path.name) > 0 for path in list_checkpoints(stream.data / "checkpoints")] == [True, False]


@pytest.mark.parametrize("timestamp_ms", [-(1 << 63), -1, 0, 253_402_300_800_000, (1 << 63) - 1])
def test_no_timestamp_ends_or_stops_the_learner(stream: StreamSettings, log: Log, timestamp_ms: int) -> None:
    append(log, 0, 3)
    append(log, 3, 3, timestamp_ms)
    append(log, 6, 3)
    learner = Learner(stream, LearnerSettings(model=MODEL), log)
    try:
        learner.start()
        learner.run(lambda: False, log.watermarks(stream.topics[:2]))
        counts = learner.status("stopped").counts
    finally:
        learner.close()
    assert (counts.messages_seen, counts.rejected) == (9, 0)
    assert log.watermarks(["predictions"])[next(iter(log.watermarks(["predictions"])))].high == 9
