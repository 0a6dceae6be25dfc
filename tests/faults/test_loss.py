"""Loss is never silent, and what is not lost is learned once: on both logs, with a real broker that tests may stop.

Each test says what happens to the log; the model is then compared, byte for byte, with that of a learner that was
never disturbed and got exactly the records that are left.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.disk.losses import Loss, Losses
from driftline.learner.report.status import read_status
from driftline.learner.state import watch
from driftline.learner.state.ledger import Ledger
from driftline.stream.errors import LogError, RecordsLost
from driftline.stream.log.base import TopicPartition
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.faults.stage import (
    START_MS,
    KafkaStage,
    SqliteStage,
    Stage,
    finish,
    label,
    learned,
    message,
    oracle,
    steps,
)
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.2)
    monkeypatch.setattr(watch, "MISSING_S", 0.1)


def refused(stage: Stage, *reasons: str) -> None:
    """Start without leave to lose anything; that changes nothing."""
    before = [path.name for path in list_checkpoints(stage.stream.data / "checkpoints")]
    with pytest.raises(RecordsLost) as error, stage.learning():
        pass
    for reason in (*reasons, "--accept-loss"):
        assert reason in str(error.value)
    assert [path.name for path in list_checkpoints(stage.stream.data / "checkpoints")] == before


def losses(stage: Stage) -> dict[tuple[str, int], tuple[int, int, int, str]]:
    """Return what the newest checkpoint holds of losses: topic without prefix, partition: start, end, lost, why."""
    return {
        (loss.topic.removeprefix(stage.stream.prefix), loss.partition): (loss.start, loss.end, loss.lost, loss.why)
        for loss in stage.newest().manifest.losses.recent
    }


def test_records_dropped_before_they_were_learned(stage: Stage, tmp_path: Path) -> None:
    messages, feedback = stage.stream.topics[:2]
    stage.append(range(20))
    stage.learn()
    stage.append(range(20, 60))
    stage.drop_below(messages, 30)
    stage.drop_below(feedback, 45)
    refused(
        stage,
        f"{messages}[0]: 10 records lost, offsets 20 to 29 are gone",
        f"{feedback}[0]: 25 records lost, offsets 20 to 44 are gone",
        "dropped by retention",
    )
    lineage = stage.newest().manifest.lineage
    learner = stage.learn(accept_loss=True)
    assert stage.model() == oracle(tmp_path, range(20), range(45, 60))
    expected = {("messages", 0): (20, 30, 10, "retention"), ("feedback", 0): (20, 45, 25, "retention")}
    assert losses(stage) == expected
    assert learner.status("stopped").losses.by_topic == {messages: 10, feedback: 25}
    assert stage.newest().manifest.lineage != lineage, "each start gives what it learns names of its own"
    assert stage.learn().status("stopped").losses.losses == 2, "it was accepted once, and is not lost again"


def test_records_dropped_that_the_journal_would_replay(stage: Stage, tmp_path: Path) -> None:
    messages, feedback = stage.stream.topics[:2]
    stage.append(range(40))
    with stage.learning(batch_records=10) as learner:
        steps(learner, learned(learner, 40))
    lineage = stage.newest().manifest.lineage
    for topic in (messages, feedback):
        stage.drop_below(topic, 15)
    refused(stage, f"{feedback}[0]: 15 records lost, offsets 0 to 14 are gone")
    stage.append(range(40, 50))
    stage.learn(accept_loss=True)
    assert stage.model() == oracle(tmp_path, range(15, 50))
    assert losses(stage) == {
        ("messages", 0): (0, 15, 15, "retention"),
        ("feedback", 0): (0, 15, 15, "retention"),
    }
    assert stage.newest().manifest.lineage != lineage, "versions that were served stood for other models"


def test_a_crash_while_a_loss_is_accepted(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal has the batch in which it was accepted; the checkpoint with the loss was not written."""
    stage.append(range(40))
    with stage.learning(batch_records=10) as learner:
        steps(learner, learned(learner, 40))
    for topic in stage.stream.topics[:2]:
        stage.drop_below(topic, 15)

    def crash(*_: object) -> None:
        raise LogError("crashed")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_checkpoint", crash)
        with pytest.raises(LogError, match="crashed"), stage.learning(accept_loss=True):
            pass
    refused(stage, "15 records lost")
    stage.learn(accept_loss=True)
    assert stage.model() == oracle(tmp_path, range(15, 40))
    assert stage.newest().manifest.losses.records == 30


def test_what_is_dropped_below_the_position_is_no_loss(stage: Stage, tmp_path: Path) -> None:
    stage.append(range(40))
    with stage.learning() as learner:
        steps(learner, learned(learner, 40))
        for topic in stage.stream.topics[:2]:
            stage.drop_below(topic, 30)
        # A crash would have to replay what is gone: so there is a checkpoint, long before its time.
        steps(learner, lambda: stage.newest().manifest.counts.labels_learned == 40)
        stage.append(range(40, 50))
        steps(learner, learned(learner, 50))
    stage.learn()
    assert stage.model() == oracle(tmp_path, range(50))
    assert stage.newest().manifest.losses.losses == 0


def test_topics_deleted_and_made_again(stage: Stage, tmp_path: Path) -> None:
    """With more records than before, so that no offset gives it away."""
    messages, feedback = stage.stream.topics[:2]
    stage.append(range(40))
    stage.learn()
    stage.append(range(40, 45))
    with stage.learning(batch_records=2) as learner:
        steps(learner, learned(learner, 45))
    stage.recreate()  # type: ignore[attr-defined]
    stage.append(range(100, 200))
    refused(
        stage,
        f"{messages}[0]: 5 records lost, offsets 40 to 44 are gone (the topic was deleted and made again)",
        f"{feedback}[0]: 5 records lost",
    )
    stage.learn(accept_loss=True)
    assert stage.model() == oracle(tmp_path, range(40), range(100, 200))
    assert losses(stage) == {
        ("messages", 0): (40, 45, 5, "recreated"),
        ("feedback", 0): (40, 45, 5, "recreated"),
    }
    stage.append(range(200, 210))
    stage.learn()
    assert stage.newest().manifest.losses.losses == 2


def test_fewer_partitions_are_refused(stage: Stage) -> None:
    stage.add_partitions(3)
    stage.append(range(10))
    stage.learn()
    stage.recreate(partitions=2)  # type: ignore[attr-defined]
    for options in ({}, {"accept_loss": True}):
        with pytest.raises(RecordsLost, match="has 2 partitions, it had 3"), stage.learning(**options):
            pass


def test_partitions_added_before_a_start(stage: Stage, tmp_path: Path) -> None:
    stage.append(range(20))
    with stage.learning(batch_records=7) as learner:
        steps(learner, learned(learner, 20))
    stage.add_partitions(3)
    stage.append(range(20, 80))
    assert len(stage.log.describe(stage.stream.topics)[stage.stream.topics.feedback].watermarks) == 3
    with stage.learning(batch_records=7) as learner:  # crashes in the middle
        steps(learner, learned(learner, 50))
    stage.learn()
    assert stage.model() == oracle(tmp_path, range(80))
    assert len(stage.newest().windows) == stage.newest().manifest.rules.partitions == 3
    assert stage.newest().manifest.losses.losses == 0
    assert stage.newest().manifest.counts.labels_learned == 80


def test_partitions_added_while_it_runs(stage: Stage, tmp_path: Path) -> None:
    feedback = stage.stream.topics.feedback
    stage.append(range(20))
    with stage.learning(batch_records=7) as learner:
        steps(learner, learned(learner, 20))
        stage.add_partitions(2)
        steps(learner, lambda: TopicPartition(feedback, 1) in learner.positions)
        stage.append(range(20, 40))
        steps(learner, learned(learner, 40))
        expected = learner.positions
    with stage.learning() as learner:
        assert learner.positions == expected, "the journal has them"
        finish(learner)
    assert stage.model() == oracle(tmp_path, range(40))
    assert stage.newest().manifest.counts.labels_learned == 40


@pytest.mark.parametrize("n", [2, 4])
def test_partitions_added_just_before_it_is_stopped(stage: Stage, tmp_path: Path, n: int) -> None:
    """It has not looked at the log since, and the look for its last checkpoint finds them."""
    stage.append(range(20))
    with stage.learning(batch_records=7) as learner:
        steps(learner, learned(learner, 20))
        stage.add_partitions(n)
        finish(learner)
        assert learner.status("running").state == "running"
    stage.append(range(20, 40))
    stage.learn()
    assert stage.model() == oracle(tmp_path, range(40))


def test_partitions_added_after_it_was_said_how_far_to_go(stage: Stage) -> None:
    """To the end: what lies in those that were added belongs to it, and they are not read yet."""
    stage.append(range(20))
    with stage.learning(batch_records=7) as learner:
        steps(learner, learned(learner, 20))
        stage.add_partitions(2)
        with contextlib.closing(open_log(stage.stream)) as other:  # it knows them from the start
            stage.append(range(20, 40), other)
            until = other.watermarks(stage.stream.topics[:2])
        assert all(mark.high > 0 for mark in until.values())
        learner.run(lambda: False, until=until)
    assert stage.newest().manifest.counts.labels_learned == 40


def test_more_partitions_keep_what_waits(stage: Stage) -> None:
    """The limits are of all partitions together: 300 messages may wait, in however many."""
    topic = stage.stream.topics.messages
    stage.log.append(topic, [message(number) for number in range(300)])
    with stage.learning(window_messages=300) as learner:
        steps(learner, lambda: learner.status("running").counts.messages_seen == 300)
        finish(learner)
    stage.add_partitions(4)
    stage.log.append(topic, [message(number) for number in range(300, 310)])
    with stage.learning(window_messages=300) as learner:
        steps(learner, lambda: learner.status("running").counts.messages_seen == 310)
        finish(learner)
        status = learner.status("running")
        assert (status.pending, status.join.expired) == (300, 10)


def test_a_partition_that_was_added_and_has_lost_records(stage: Stage) -> None:
    """It begins at 0, not where it begins by now."""
    stage.append(range(5))
    stage.learn()
    stage.add_partitions(2)
    with contextlib.closing(open_log(stage.stream)) as fresh:  # which knows both partitions from the start
        stage.append(range(5, 60), fresh)
    mark = stage.log.describe([stage.stream.topics.feedback])[stage.stream.topics.feedback].watermarks[1]
    assert mark.high > 4
    stage.drop_below(stage.stream.topics.feedback, 4, partition=1)
    refused(stage, "feedback[1]: 4 records lost, offsets 0 to 3 are gone")


def test_losses_are_kept_in_bounds() -> None:
    found = Losses()
    for turn in range(100):
        found.add(Loss(topic="feedback", partition=0, start=turn, end=turn + 3, lost=2, why="truncated"))
    assert (found.losses, found.records, found.by_topic, len(found.recent)) == (100, 200, {"feedback": 200}, 20)
    assert found.recent[-1].start == 99


class TestSqlite:
    """What only happens to a file."""

    @pytest.fixture
    def stage(self, tmp_path: Path) -> Iterator[SqliteStage]:
        stage = SqliteStage(StreamSettings(data=tmp_path / "data", log=f"sqlite:///{tmp_path / 'log.db'}"))
        with contextlib.closing(stage):
            yield stage

    def test_the_command_line_says_what_to_do(self, stage: SqliteStage) -> None:
        stage.append(range(10))
        stage.learn()
        stage.append(range(10, 30))
        stage.drop_below(stage.stream.topics.feedback, 25)
        refusal = stage.command("learn", "--stop-at-end")
        assert isinstance(refusal.exception, RecordsLost)
        assert "feedback[0]: 15 records lost, offsets 10 to 24 are gone" in str(refusal.exception)
        found = read_status(stage.stream.data)
        assert found is not None
        assert (found.state, found.detail) == ("failed", str(refusal.exception))
        accepted = stage.command("learn", "--stop-at-end", "--accept-loss")
        assert accepted.exit_code == 0, accepted.output
        assert "15 records that the log no longer had; last feedback[0]: 15 records lost" in accepted.stdout

    def test_an_older_copy_was_put_back(self, stage: SqliteStage, tmp_path: Path) -> None:
        messages, feedback = stage.stream.topics[:2]
        stage.append(range(30))
        stage.learn()
        stage.append(range(30, 40))
        with stage.learning(batch_records=2) as learner:
            steps(learner, learned(learner, 40))
        stage.truncate(messages, 35)
        stage.truncate(feedback, 25)
        refused(
            stage,
            f"{messages}[0]: 5 records lost, offsets 35 to 39 are gone (the log ends before the last position",
            f"{feedback}[0]: 10 records lost, offsets 25 to 39 are gone; the model holds 5 of these 15",
        )
        stage.append(range(50, 60))
        stage.truncate(messages, 35)
        stage.truncate(feedback, 25)
        with stage.learning(accept_loss=True) as learner:
            stage.append(range(60, 70))
            learner.run(lambda: False, stage.log.watermarks(stage.stream.topics[:2]))
        assert stage.model() == oracle(tmp_path, range(30), range(60, 70))
        assert losses(stage) == {
            ("messages", 0): (35, 40, 5, "truncated"),
            ("feedback", 0): (25, 40, 10, "truncated"),
        }

    def test_a_truncated_log_is_seen_while_it_runs(self, stage: SqliteStage) -> None:
        stage.append(range(30))
        with stage.learning() as learner:
            steps(learner, learned(learner, 30))
            stage.truncate(stage.stream.topics.feedback, 25)
            with pytest.raises(RecordsLost, match=r"feedback\[0\]: 0 records lost, offsets 25 to 29 are gone; the mod"):
                steps(learner, lambda: False)

    def test_a_file_deleted_beneath_it_ends_it(self, stage: SqliteStage, tmp_path: Path) -> None:
        """Labels would be acknowledged, and be gone with the file."""
        stage.append(range(5))
        with stage.learning() as learner:
            steps(learner, learned(learner, 5))
            (tmp_path / "log.db").rename(tmp_path / "moved.db")
            with pytest.raises(LogError, match="deleted or replaced while it was open"):
                stage.append(range(5, 6))
            with pytest.raises(LogError, match="deleted or replaced while it was open"):
                steps(learner, lambda: False)
            (tmp_path / "moved.db").rename(tmp_path / "log.db")
        stage.append(range(5, 6))

    def test_records_dropped_while_it_runs(self, stage: SqliteStage, tmp_path: Path) -> None:
        messages, feedback = stage.stream.topics[:2]
        stage.append(range(20))
        with stage.learning(accept_loss=True) as learner:
            steps(learner, learned(learner, 20))
            epoch = learner.status("running").epoch
            stage.append(range(20, 40))
            stage.drop_below(messages, 30)
            stage.drop_below(feedback, 30)
            steps(learner, learned(learner, 30))
            assert learner.status("running").epoch == epoch + 1, "it recovered anew"
            finish(learner)
        assert stage.model() == oracle(tmp_path, range(20), range(30, 40))
        assert losses(stage)["feedback", 0] == (20, 30, 10, "retention")

    def test_records_taken_out_of_the_middle_before_a_replay(self, stage: SqliteStage, tmp_path: Path) -> None:
        messages, feedback = stage.stream.topics[:2]
        stage.append(range(40))
        with stage.learning(batch_records=10) as learner:
            steps(learner, learned(learner, 40))
            steps(learner, lambda: all(marks.high == 40 for marks in stage.log.watermarks(["predictions"]).values()))
        lineage = stage.newest().manifest.lineage
        stage.take_out(messages, [7])
        stage.take_out(feedback, [7, 19, 20, 39])
        predictions = stage.log.watermarks(["predictions"])
        refused(
            stage,
            f"{messages}[0]: 1 record lost among offsets 5 to 9",
            f"{feedback}[0]: 4 records lost among offsets 5 to 39",
            "compaction took them",
        )
        assert stage.log.watermarks(["predictions"]) == predictions, "nothing was sent of what could not be replayed"
        stage.learn(accept_loss=True)
        assert stage.model() == oracle(tmp_path, range(7), range(8, 19), range(21, 39))
        assert losses(stage) == {("messages", 0): (5, 10, 1, "compacted"), ("feedback", 0): (5, 40, 4, "compacted")}
        assert stage.newest().manifest.lineage != lineage, "versions that were served stood for other models"
        stage.append(range(40, 50))
        assert stage.learn().status("stopped").losses.losses == 2
        assert stage.newest().manifest.counts.labels_seen == 46

    def test_records_taken_out_before_they_were_read_stop_nothing(self, stage: SqliteStage) -> None:
        stage.append(range(10))
        stage.take_out(stage.stream.topics.feedback, range(8, 10))
        stage.take_out(stage.stream.topics.messages, range(10))
        learner = stage.learn()
        assert set(learner.positions.values()) == {10}
        assert stage.newest().manifest.counts.labels_seen == 8


def test_kafka_compacts_a_topic_between_a_checkpoint_and_its_replay(kafka: str, tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path / "data", log=f"kafka://{kafka}", prefix=f"{uuid4().hex}.")
    with contextlib.closing(KafkaStage(stream, kafka)) as stage:
        feedback = stage.stream.topics.feedback
        often = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.001", "max.compaction.lag.ms": "100"}
        stage.configure([feedback], **{"cleanup.policy": "compact"}, **often)
        stage.append(range(40))
        with stage.learning(batch_records=10) as learner:
            steps(learner, learned(learner, 40), 180)  # a topic that was just made again may be slow to be there
        for number in (7, 8, 21):  # the same keys again, so long after that the broker begins another segment
            newer = label(number)._replace(timestamp_ms=START_MS + 10_000 + number * 1000)
            stage.log.append(feedback, [newer])
        wait_until(lambda: offsets_of(stage, feedback).isdisjoint({7, 8}), 180, "the broker compacts the topic")
        gone = len(set(range(40)) - offsets_of(stage, feedback))
        refused(stage, f"{feedback}[0]: {gone} records lost among offsets 5 to ", "compaction took them")
        stage.learn(accept_loss=True)
        assert stage.newest().manifest.losses.records == gone
        assert stage.newest().manifest.counts.labels_learned == 40, "the newer ones are there"


def offsets_of(stage: Stage, topic: str) -> set[int]:
    """Return which records a partition has."""
    partition = TopicPartition(topic, 0)
    with contextlib.closing(stage.log.reader({partition: 0})) as reader:
        found: set[int] = set()
        while not reader.at_end(partition):
            found.update(record.offset for record in reader.read(1000, 0.1))
        return found
