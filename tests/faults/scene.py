"""A small stream, and a learner that is recorded on it while it is killed and started again."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from driftline.learner.disk.checkpoint import list_checkpoints, load_checkpoint
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode
from tests.data import ROOT
from tests.faults import hooks, strace
from tests.faults.disk import Disk, Op
from tests.often import SCALE, TORTURE, times

ALL: Final = TORTURE and SCALE >= 1  # every system call, every byte
MODEL: Final = "linear?bits=8&max_labels=4"
N_MESSAGES: Final = 240 if TORTURE else 160
LATE: Final = 15  # messages after which a label comes


FUZZED: Final = times(5_000, 100)  # examples for each reader


class Scene(NamedTuple):
    """A directory `disk` with the data directory in it, and the log beside it."""

    base: Path

    @property
    def root(self) -> Path:
        """What is recorded."""
        return self.base / "disk"

    @property
    def stream(self) -> StreamSettings:
        """Options of a learner on it."""
        return self.at(self.root)

    def at(self, root: Path) -> StreamSettings:
        """Return the options for a copy of the recorded directory, with the same log."""
        return StreamSettings(data=root / "data", log=f"sqlite:///{self.log}")

    @property
    def log(self) -> Path:
        """The log's file."""
        return self.base / "log" / "log.db"


def make_scene(base: Path) -> Scene:
    """Return a scene whose log holds everything; nothing was learned yet."""
    scene = Scene(base)
    scene.root.mkdir(parents=True)
    log = open_log(scene.stream)
    log.create_topics(scene.stream.topics)
    for number in range(N_MESSAGES + LATE):
        if number < N_MESSAGES:
            message = Message(f"m{number}", f"word{number % 7} and word{number % 11} of text {number}")
            log.append("messages", [NewRecord(message.id.encode(), encode(message), 10 * number + 1)])
        if number >= LATE:
            label = Feedback(f"m{number - LATE}", "abc"[(number - LATE) % 3])
            log.append("feedback", [NewRecord(label.message_id.encode(), encode(label), 10 * number + 5)])
    log.close()
    return scene


def arguments(stream: StreamSettings) -> list[str]:
    """Return a command line that learns to the end in small batches, with many checkpoints."""
    return [
        *("learn", "--stop-at-end", "--data", str(stream.data), "--log", stream.log_url, "--model", MODEL),
        *("--batch-records", "8", "--checkpoint-interval-s", "0.005", "--publish-interval-s", "0.02"),
    ]


def run(*command: str) -> int:
    """Run a Python program in the project; return its exit code. What it printed stands in a failure's output."""
    done = subprocess.run([*command], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False, timeout=240)
    return done.returncode


def by_strace(scene: Scene, kills: list[int]) -> list[Op]:
    """Record learners, each killed at so many of its fdatasync calls, and one that gets to the end."""
    disk, ops = Disk(), []
    for turn, kill in enumerate([*kills, 0]):
        output = scene.base / f"trace-{turn}"
        code = run(*strace.command(output, kill), sys.executable, "-m", "driftline", *arguments(scene.stream))
        assert (code == 0) == (kill == 0), f"exit code {code}"
        ops += strace.parse(output, scene.root, scene.log, disk)
        output.unlink()
    return ops


def by_hooks(scene: Scene, kills: list[int]) -> list[Op]:
    """Do the same without strace; the kills are counted in writes to the journal."""
    output = scene.base / "operations"
    for kill in [*kills, 0]:
        program = [sys.executable, "-m", "tests.faults.hooks", str(output), str(scene.root), str(kill), "--"]
        code = run(*program, *arguments(scene.stream))
        assert (code == 0) == (kill == 0), f"exit code {code}"
    return hooks.read(output)


def learn_to_end(stream: StreamSettings, model: str | None = MODEL) -> bytes:
    """Learn to the end in this process, and return the model's bytes; every checkpoint must be whole."""
    log = open_log(stream)
    learner = Learner(stream, LearnerSettings(model=model, batch_records=32), log)
    try:
        learner.start()
        learner.run(lambda: False, log.watermarks(stream.topics[:2]))
    finally:
        learner.close()
        log.close()
    for path in list_checkpoints(stream.data / "checkpoints"):
        load_checkpoint(path)
    return model_bytes(stream)


Recorder = Callable[[Scene, list[int]], list[Op]]


def model_bytes(stream: StreamSettings) -> bytes:
    """Return the newest checkpoint's model."""
    return (list_checkpoints(stream.data / "checkpoints")[0] / "model.safetensors").read_bytes()
