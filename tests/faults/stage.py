"""A log to which things happen, and a learner that is driven step by step; what was learned is compared with an oracle.

A learner that is closed without `finish` is one that crashed: the journal is durable, a checkpoint was not written.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import confluent_kafka as ck
import pytest
import safetensors.numpy
from click.testing import Result
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic
from typer.testing import CliRunner

from driftline.cli.main import app
from driftline.learner.disk.checkpoint import Checkpoint, list_checkpoints, load_checkpoint
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.log.sqlite.file import sqlite_path
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode
from tests.waiting import wait_until

MODEL = "linear?bits=10&max_labels=4"
START_MS = time.time_ns() // 1_000_000  # Kafka's retention goes by the records' own times


def text(number: int) -> str:
    return f"text {number} about {'good' if number % 3 else 'bad'} things {number % 7}"


def message(number: int) -> NewRecord:
    return NewRecord(b"%d" % number, encode(Message(str(number), text(number))), START_MS + 2 * number)


def label(number: int) -> NewRecord:
    value = encode(Feedback(str(number), "ab"[number % 3 == 0], text=text(number)))
    return NewRecord(b"%d" % number, value, START_MS + 2 * number + 1)


class Stage:
    """A log, a data directory, and what may be done to them."""

    def __init__(self, stream: StreamSettings) -> None:
        self.stream = stream
        self.log = open_log(stream)
        self.outside: Log | None = None  # what is appended goes through, if it is not the learner's own
        self.log.create_topics(stream.topics)

    def close(self) -> None:
        self.log.close()

    def append(self, numbers: Iterable[int], log: Log | None = None) -> None:
        """Append a message and its label (which has the text too) for each number."""
        log, chosen, topics = log or self.outside or self.log, list(numbers), self.stream.topics
        log.append(topics.messages, list(map(message, chosen)))
        log.append(topics.feedback, list(map(label, chosen)))

    def learner(self, log: Log | None = None, **options: Any) -> Learner:
        """Return a learner that has not started."""
        settings = LearnerSettings(**{"model": MODEL, "checkpoint_interval_s": 1e6, **options})
        return Learner(self.stream, settings, log or self.log)

    @contextlib.contextmanager
    def learning(self, log: Log | None = None, **options: Any) -> Any:
        """Give a learner that has started; it crashes at the end unless the block called `finish`."""
        learner = self.learner(log, **options)
        try:
            learner.start()
            yield learner
        finally:
            learner.close()

    def learn(self, **options: Any) -> Learner:
        """Learn to the end of the log, write a checkpoint, and return the learner, closed."""
        with self.learning(**options) as learner:
            learner.run(lambda: False, self.log.watermarks(self.stream.topics[:2]))
        return learner

    def flags(self, *more: str) -> list[str]:
        """Return a command's flags that name this log and this data directory, and more."""
        stream = self.stream
        names = ["--data", str(stream.data), "--log", stream.log_url, "--prefix", stream.prefix]
        return [*names, *(["--allow-pickle"] if stream.allow_pickle else []), *more]

    def command(self, name: str, *more: str) -> Result:
        """Run a command of the command line here."""
        return CliRunner(env={"COLUMNS": "300"}).invoke(app, [name, *self.flags(*more)])

    def checkpoints(self) -> list[int]:
        """Return the batches of those that are kept, oldest first."""
        return sorted(int(path.name) for path in list_checkpoints(self.stream.data / "checkpoints"))

    def newest(self) -> Checkpoint:
        return load_checkpoint(list_checkpoints(self.stream.data / "checkpoints")[0])

    def model(self) -> bytes:
        return safetensors.numpy.save(self.newest().model)

    # What may happen to a log.

    def drop_below(self, topic: str, offset: int, partition: int = 0) -> None:
        raise NotImplementedError

    def add_partitions(self, n: int) -> None:
        raise NotImplementedError


class SqliteStage(Stage):
    """The same for the embedded log. Other processes have the file too, so a second connection may change it."""

    def drop_below(self, topic: str, offset: int, partition: int = 0) -> None:
        self._change(topic, partition, "offset < ?", "low", offset)

    def truncate(self, topic: str, offset: int, partition: int = 0) -> None:
        """Put an older copy in place, as it were."""
        self._change(topic, partition, "offset >= ?", "high", offset)

    def take_out(self, topic: str, offsets: Iterable[int], partition: int = 0) -> None:
        """Delete records from the middle, as compaction does."""
        path = sqlite_path(self.stream.log_url)
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as db, db:
            sql = "SELECT id FROM partitions WHERE topic = ? AND partition = ?"
            (table,) = db.execute(sql, (topic, partition)).fetchone()
            db.executemany(f"DELETE FROM records_{table} WHERE offset = ?", [(offset,) for offset in offsets])

    def add_partitions(self, n: int) -> None:
        with contextlib.closing(open_log(self.stream.model_copy(update={"partitions": n}))) as other:
            other.create_topics(self.stream.topics)

    def recreate(self, partitions: int = 1) -> None:
        """Delete the file and make it again, with nobody at work on it."""
        self.log.close()
        path = sqlite_path(self.stream.log_url)
        for file in path.parent.glob(path.name + "*"):
            file.unlink()
        self.log = open_log(self.stream.model_copy(update={"partitions": partitions}))
        self.log.create_topics(self.stream.topics)

    def _change(self, topic: str, partition: int, where: str, mark: str, offset: int) -> None:
        path = sqlite_path(self.stream.log_url)
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as db, db:
            sql = "SELECT id FROM partitions WHERE topic = ? AND partition = ?"
            (table,) = db.execute(sql, (topic, partition)).fetchone()
            db.execute(f"DELETE FROM records_{table} WHERE {where}", (offset,))
            db.execute(f"UPDATE partitions SET {mark} = ? WHERE id = ?", (offset, table))


class KafkaStage(Stage):
    """The same for Kafka."""

    def __init__(self, stream: StreamSettings, bootstrap: str) -> None:
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        super().__init__(stream)

    def drop_below(self, topic: str, offset: int, partition: int = 0) -> None:
        for future in self.admin.delete_records([ck.TopicPartition(topic, partition, offset)]).values():
            future.result(30)

    def add_partitions(self, n: int) -> None:
        for future in self.admin.create_partitions([NewPartitions(topic, n) for topic in self.stream.topics]).values():
            future.result(30)

    def delete(self, topics: Iterable[str]) -> None:
        for future in self.admin.delete_topics(list(topics)).values():
            future.result(30)

    def make(self, topics: Iterable[str], partitions: int = 1) -> None:
        """Make topics that were just deleted; the broker may still be at that."""
        new = [NewTopic(topic, partitions, 1) for topic in topics]

        def made() -> bool:
            try:
                for future in self.admin.create_topics(new).values():
                    future.result(30)
            except ck.KafkaException as error:
                if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
                return False
            return True

        wait_until(made, what="the topics are made")

    def configure(self, topics: Iterable[str], **config: str) -> None:
        """Set how topics are kept; return once the broker goes by it."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()
        ]
        for topic in topics:
            wanted = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
            for future in self.admin.incremental_alter_configs([wanted]).values():
                future.result(30)
            wait_until(lambda topic=topic: self._config(topic).items() >= config.items(), what="the broker has it")

    def _config(self, topic: str) -> dict[str, str]:
        (future,) = self.admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
        return {name: entry.value for name, entry in future.result(30).items()}

    def recreate(self, partitions: int = 1) -> None:
        topics = self.stream.topics[:2]
        self.delete(topics)
        self.make(topics, partitions)


@contextlib.contextmanager
def open_stage(request: pytest.FixtureRequest, tmp_path: Path, **options: Any) -> Iterator[Stage]:
    """Give an empty log of one partition, the one that a fixture's parameter names, sqlite or kafka."""
    stage: Stage
    if request.param == "sqlite":
        stage = SqliteStage(StreamSettings(data=tmp_path / "data", log=f"sqlite:///{tmp_path / 'log.db'}", **options))
    else:
        broker = request.getfixturevalue("kafka")
        stream = StreamSettings(data=tmp_path / "data", log=f"kafka://{broker}", prefix=f"{uuid4().hex}.", **options)
        stage = KafkaStage(stream, broker)
    with contextlib.closing(stage):
        yield stage


def steps(learner: Learner, until: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Drive a learner until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not until():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {learner.status('running')}"
        learner.step(0.02)


def learned(learner: Learner, n: int) -> Callable[[], bool]:
    """Return whether so many labels were seen."""
    return lambda: learner.status("running").counts.labels_seen >= n


def finish(learner: Learner) -> None:
    """End a learner in good order, with a checkpoint; who is told to stop may give that up on a busy machine."""
    steps(learner, learner._save)
    learner.run(lambda: True)


def oracle(tmp_path: Path, *parts: Iterable[int], model: str = MODEL) -> bytes:
    """Return the model of an undisturbed learner that got exactly these messages and labels."""
    data = tmp_path / f"oracle-{time.monotonic_ns()}"
    stage = SqliteStage(StreamSettings(data=data, allow_pickle=model != MODEL))
    for part in parts:
        stage.append(part)
    stage.learn(model=model)
    stage.close()
    return stage.model()
