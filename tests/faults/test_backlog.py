"""Records of 100 bytes to 900 KB, long backlogs, odd batch sizes, streams that sleep: killed, proved, rebuilt.

What a learner reads ahead is limited in records and in bytes, and so is a batch. So each shape of a stream meets these
limits elsewhere, and what is replayed has to get past them, too.
"""

import math
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from driftline.learner.disk.checkpoint import list_checkpoints, load_checkpoint
from driftline.stream.log.base import NewRecord
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode
from tests.faults.campaign import LOGS, MODEL, outcome
from tests.faults.nursery import Nursery, Stop
from tests.faults.stage import START_MS, Stage, open_stage
from tests.faults.tally import tally
from tests.often import TORTURE, times

COMMAND = "make torture ONLY=test_backlog"
HOUR_MS: Final = 3_600_000
CHUNK_BYTES: Final = 8 << 20
WITHIN_S: Final = 600.0  # a hang is what this is about; a busy machine is not


class Shape(NamedTuple):
    """A stream: n messages of about so many bytes, and a label for each; asleep for so long, so often.

    Never for longer than a message can be labelled: by their own times alone, the first records after such a sleep
    count as of before it (clock.py), and leave with those.
    """

    n: int
    n_bytes: int
    batch_records: int
    sleeps: int = 0
    asleep_h: float = 60.0

    def __str__(self) -> str:
        return f"{self.n}-of-{self.n_bytes}-bytes-by-{self.batch_records}-asleep-{self.sleeps}-times"


def drawn(seed: int) -> Shape:
    """Return a stream of any size that a record may have, with about as many bytes as are read ahead, or more."""
    rng = random.Random(seed)
    n_bytes = round(math.exp(rng.uniform(math.log(100), math.log(900_000))))
    n = min(rng.choice([36, 72, 144]) * 1_000_000 // n_bytes, rng.choice([5_000, 150_000]))
    fewest = max(1, n // 400)  # of more than so many batches each is like the one before
    batch_records = max(fewest, rng.choice([1, 7, 997, 4096, 4097, 40_000, 65_535, 65_536]))
    return Shape(n, n_bytes, batch_records, rng.choice([0, 0, 1, 5, 20]), rng.choice([30.0, 64.0, 150.0]))


FOUND = [  # by what these once did
    Shape(8_000, 5_000, 4096),
    Shape(110_000, 100, 40_000),
    Shape(40, 900_000, 7, sleeps=5),
]
SHAPES = FOUND + [drawn(seed) for seed in range(times(40, 0))]
KAFKA = pytest.param("kafka", marks=pytest.mark.skipif(not TORTURE, reason="in `make torture` only"))


@pytest.fixture(params=["sqlite", KAFKA])
def stage(request: pytest.FixtureRequest, memory: Path) -> Iterator[Stage]:
    """Give an empty log of one partition."""
    # Of its own times alone: Kafka's retention goes by them, and what the embedded log notes is long after.
    with open_stage(request, memory, retention_hours=math.inf) as stage:
        yield stage


def fill(stage: Stage, shape: Shape, rng: random.Random) -> None:
    """Append a stream: messages and, a little later by their times, their labels."""
    words = [f"word{number}" for number in range(500)]
    topics, at_ms, size = stage.stream.topics, START_MS - 400 * 24 * HOUR_MS, 0
    messages: list[NewRecord] = []
    labels: list[NewRecord] = []
    for number in range(shape.n):
        if shape.sleeps and number % (1 + shape.n // (shape.sleeps + 1)) == 0:
            at_ms += round(shape.asleep_h * HOUR_MS)
        at_ms += 2
        key = b"%d" % number
        text = f"{' '.join(rng.choices(words, k=4))} {'good' if number % 3 else 'bad'}"
        text = (text * (1 + shape.n_bytes // len(text)))[: max(len(text), shape.n_bytes)]
        messages.append(NewRecord(key, encode(Message(str(number), text)), at_ms))
        labels.append(NewRecord(key, encode(Feedback(str(number), "ab"[number % 3 == 0])), at_ms + 1))
        size += len(text)
        if size >= CHUNK_BYTES or number == shape.n - 1:
            stage.log.append(topics.messages, messages)
            stage.log.append(topics.feedback, labels)
            messages, labels, size = [], [], 0


def at(stream: StreamSettings, data: Path) -> StreamSettings:
    return stream.model_copy(update={"data": data})


def learn(stage: Stage, data: Path, nursery: Nursery, shape: Shape, stop: Stop | None = None) -> int:
    """Run a learner to the end, unless it is killed before; return its exit code."""
    names = ("--data", str(data), "--log", stage.stream.log_url, "--prefix", stage.stream.prefix, "--model", MODEL)
    options = ("--stop-at-end", "--checkpoint-interval-s", "1000", "--batch-records", str(shape.batch_records))
    child = nursery.start("learn", *names, *options, stop=stop)
    code = child.wait(WITHIN_S)
    assert code in {0, -signal.SIGKILL}, child.said
    return code


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_killed_recovered_verified_rebuilt(stage: Stage, nursery: Nursery, memory: Path, shape: Shape) -> None:
    rng, kills = random.Random(str(shape)), 0
    fill(stage, shape, rng)
    undisturbed = at(stage.stream, memory / "undisturbed")
    assert learn(stage, undisturbed.data, nursery, shape) == 0
    # Killed in the first batches, so that the replay stands in the middle of what it has read ahead; then in that.
    for stop in (Stop("5 its entry is durable", rng.randint(2, 4)), Stop("b before a batch is applied again", 2)):
        kills += learn(stage, stage.stream.data, nursery, shape, stop) != 0
    assert learn(stage, stage.stream.data, nursery, shape) == 0
    assert outcome(stage.stream) == outcome(undisturbed)
    assert newest_labels(stage.stream) == shape.n
    verified = nursery.start("verify", *stage.flags())
    assert verified.wait(WITHIN_S) == 0, verified.said
    rebuilt = nursery.start("rebuild", *stage.flags())
    assert rebuilt.wait(WITHIN_S) == 0, rebuilt.said
    assert outcome(stage.stream)["model.safetensors"] == outcome(undisturbed)["model.safetensors"]
    name = "kafka" if stage.stream.log_url.startswith("kafka") else "sqlite"
    what = "kill -9 of the learner, records of 100 bytes to 900 KB, odd batches, streams that sleep; verify; rebuild"
    tally(f"{what}, {LOGS[name]}", COMMAND, max(1, kills))


def newest_labels(stream: StreamSettings) -> int:
    """Return how many labels the newest checkpoint has learned."""
    return load_checkpoint(list_checkpoints(stream.data / "checkpoints")[0]).manifest.counts.labels_learned
