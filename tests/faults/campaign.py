"""A log that is full, learners that are stopped on their way through it, and what must hold at the end.

What was acknowledged is known to a process of its own (teller.py). What a learner holds at the end is compared with
that, and byte for byte with a learner that was never disturbed.
"""

import contextlib
import random
import shutil
import signal
from pathlib import Path
from typing import NamedTuple

from driftline.learner.disk.checkpoint import Checkpoint, list_checkpoints, load_checkpoint
from driftline.learner.disk.lock import last_epoch
from driftline.stream.join.join import Join
from driftline.stream.log.base import TopicPartition
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import decode_prediction
from tests.faults.nursery import Child, Nursery, Stop
from tests.faults.tally import tally
from tests.often import TORTURE

MODEL = "linear?bits=12&chars=0&max_labels=4"
N_LABELS = 400 if TORTURE else 150
LOGS = {"sqlite": "embedded log", "kafka": "Kafka"}  # as the table names them
INTERVALS = ("0.005", "0.05", "60")  # between checkpoints: some have to replay, some to let old ones go


class Course(NamedTuple):
    """A log that a teller has filled, and what a learner that was not killed makes of it."""

    name: str
    stream: StreamSettings
    acknowledged: dict[str, str]
    base: Path

    def at(self, data: str) -> StreamSettings:
        """Return the options of a learner in a directory of its own."""
        return self.stream.model_copy(update={"data": self.base / data})


def command(stream: StreamSettings, *more: str) -> list[str]:
    """Return the command line of a learner in small steps."""
    names = ("--data", str(stream.data), "--log", stream.log_url, "--prefix", stream.prefix, "--model", MODEL)
    return ["learn", *names, "--batch-records", "8", "--publish-interval-s", "0", *more]


def newest(stream: StreamSettings) -> Checkpoint:
    """Return the state at the end; every checkpoint there must be whole."""
    found = list(map(load_checkpoint, list_checkpoints(stream.data / "checkpoints")))
    return found[0]


def labelled(stream: StreamSettings) -> dict[str, str]:
    """Return the label of each message that one was learned for, as the learner itself keeps them."""
    found, join = newest(stream), Join()
    join.configure(found.manifest.rules.partitions, found.manifest.rules.limits)
    join.load_state(found.manifest.join_counts, [b"".join(window) for window in found.windows])
    return {message: entry.label for message, entry in join.messages.items() if entry.label is not None}


def outcome(stream: StreamSettings) -> dict[str, bytes]:
    """Return all of a state's bytes that do not say when and by whom it was made."""
    directory = list_checkpoints(stream.data / "checkpoints")[0]
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.suffix in {".safetensors", ".msgpack"}}


def check(course: Course, stream: StreamSettings) -> None:
    """What was acknowledged was learned, each label once, and the bytes are those of a learner that was not killed."""
    manifest = newest(stream).manifest
    assert labelled(stream) == course.acknowledged
    assert manifest.counts.labels_learned == len(course.acknowledged)
    assert (manifest.losses.losses, manifest.join_counts.repeated, manifest.join_counts.corrected) == (0, 0, 0)
    assert outcome(stream) == outcome(course.at("undisturbed"))


def check_predictions(course: Course) -> None:
    """Each message has one prediction, however often that was written, by however many learners that were killed.

    The model's version has its lineage, which each data directory draws anew.
    """
    contents: dict[str, set[tuple[str | None, float | None, int]]] = {}
    topic = course.stream.topics.predictions
    with contextlib.closing(open_log(course.stream)) as log:
        reader = log.reader({TopicPartition(topic, p): 0 for p in range(log.partition_count(topic))})
        with contextlib.closing(reader):
            while not all(map(reader.at_end, reader.partitions)):
                for record in reader.read(1000, 0.2):
                    assert record.value is not None
                    found = decode_prediction(record.value)
                    version = int(found.model_version.rpartition("-")[2])
                    contents.setdefault(found.message_id, set()).add((found.label, found.score, version))
    assert contents.keys() == course.acknowledged.keys()
    assert all(len(each) == 1 for each in contents.values())


class Campaign:
    """Learners that are killed on their way through a course; at its end each is compared, and another begins.

    Parameters
    ----------
    what, command : how the kills are counted in the tally
    """

    def __init__(self, course: Course, nursery: Nursery, rng: random.Random, what: str, command: str) -> None:
        self._course, self._nursery, self._rng = course, nursery, rng
        self._what = f"{what}, {LOGS[course.name]}", command
        self._trials = self._kills = 0
        self._begin()

    def _begin(self) -> None:
        self._stream = self._course.at(f"trial-{self._trials}")
        self._fresh = True

    @property
    def begun(self) -> int:
        """Above 0 once the learner that was started last has the directory."""
        return last_epoch(self._stream.data) - self._epoch

    def start(self, stop: Stop | None = None, interval: str | None = None) -> Child:
        """Start a learner that goes on where the last one was killed."""
        self._fresh = False
        self._epoch = last_epoch(self._stream.data)
        interval = interval or self._rng.choice(INTERVALS)
        return self._nursery.start(
            *command(self._stream, "--stop-at-end", "--checkpoint-interval-s", interval), stop=stop
        )

    def killed(self, child: Child) -> bool:
        """Wait for a learner's end; tell whether it was killed. One that came to the end of the log is compared."""
        code = child.wait()
        if code == -signal.SIGKILL:
            self._kills += 1
            return True
        assert code == 0, child.said
        self._compare()
        return False

    def finish(self) -> None:
        """Let the last one go to the end."""
        if not self._fresh:
            child = self.start()
            assert child.wait() == 0, child.said
            self._compare()

    def _compare(self) -> None:
        try:
            check(self._course, self._stream)
        except AssertionError:
            tally(*self._what, self._kills, lost=1)
            raise
        tally(*self._what, self._kills)
        shutil.rmtree(self._stream.data)
        self._trials, self._kills = self._trials + 1, 0
        self._begin()
