"""How long does a checkpoint stop the loop, and how long does a learner take to be back after it was killed?

`python -m bench.recovery [MODEL...]` writes a table in Markdown. Each model is measured in a process of its own, on the
embedded log, in memory where that can be had:

1. It learns labelled texts with a checkpoint every INTERVAL_S. Pause: the loop's time from the copy of the state to the
   new journal, on the wall and on the processor; it learns at full speed meanwhile, so other threads run beside it.
2. It ends without a checkpoint, as one that was killed. Recovery: from the look for a checkpoint to the first publish,
   with nothing to replay and with so many records.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from bench.streams import make_stream
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.state.state import LearnerState
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, encode

MODELS: Final = ("linear?bits=20", "linear?bits=22", "blend")
INTERVAL_S: Final = 0.4
N_TEXTS: Final = 5000  # that differ
CHUNK: Final = 5000


class Measured(NamedTuple):
    """What was measured of one model."""

    state_bytes: int
    pauses_ms: list[float]
    pauses_cpu_ms: list[float]
    checkpoint_s: float  # its whole time, while the loop goes on
    start_s: float  # with nothing to replay
    replay_s: float
    replayed: int


def main(
    models: Annotated[list[str] | None, typer.Argument(help=f"else {', '.join(MODELS)}")] = None,
    labels: Annotated[int, typer.Option(min=CHUNK, help="labelled texts while checkpoints are made")] = 300_000,
    replay: Annotated[int, typer.Option(min=1, help="labelled texts that are replayed")] = 50_000,
    out: Annotated[Path | None, typer.Option(help="the table's file; else standard output")] = None,
) -> None:
    """Measure pauses and recovery."""
    lines = [
        f"`python -m bench.recovery`: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "",
        "| model | state, MiB | checkpoints | pause, ms, median / worst | on the processor, ms | whole checkpoint, s "
        f"| start, s | the same with {replay:,} texts to replay, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in models or MODELS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            lines.append(_row(model, pool.apply(measure, (model, labels, replay))))
    text = "\n".join(lines) + "\n"
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text)


def _row(model: str, m: Measured) -> str:
    return (
        f"| `{model}` | {m.state_bytes / 2**20:.0f} | {len(m.pauses_ms)} "
        f"| {statistics.median(m.pauses_ms):.1f} / {max(m.pauses_ms):.1f} "
        f"| {statistics.median(m.pauses_cpu_ms):.1f} / {max(m.pauses_cpu_ms):.1f} "
        f"| {m.checkpoint_s:.2f} | {m.start_s:.2f} | {m.replay_s:.2f} |"
    )


def measure(model: str, labels: int, replay: int) -> Measured:
    """Measure one model."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as directory:
        stream = StreamSettings.model_validate({"data": Path(directory) / "data", "log": f"sqlite:///{directory}/log"})
        with closing(open_log(stream)) as log:
            log.create_topics(stream.topics)
            _append(log, stream, 0, labels)
            settings = LearnerSettings.model_validate({"model": model, "checkpoint_interval_s": INTERVAL_S})
            learner = _Timed(stream, settings, log)
            _learn(learner, lambda: learner.run(lambda: False, log.watermarks(stream.topics[:2])))
            settings = settings.model_copy(update={"checkpoint_interval_s": 1e6})
            again = Learner(stream, settings, log)
            start_s = _learn(again, lambda: None)
            _append(log, stream, labels, replay)
            killed = Learner(stream, settings, log)
            _learn(killed, lambda: _take(killed, replay))
            replay_s = _learn(Learner(stream, settings, log), lambda: None)
            files = sorted((stream.data / "checkpoints").glob("[0-9]*"))[-1].glob("*")
            size = sum(file.stat().st_size for file in files)
    return Measured(size, learner.wall_ms, learner.cpu_ms, learner.whole_s, start_s, replay_s, replay)


class _Timed(Learner):
    """A learner whose pauses are timed, but for the first: that one takes the memory."""

    def __init__(self, stream: StreamSettings, settings: LearnerSettings, log: Log) -> None:
        super().__init__(stream, settings, log)
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.whole_s = 0.0

        self._checkpoint = self._ledger._checkpoint
        self._ledger._checkpoint = self._timed  # type: ignore[method-assign]

    def _timed(self, work: LearnerState) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        self._checkpoint(work)
        self.wall_ms.append(1000 * (time.perf_counter() - wall))
        self.cpu_ms.append(1000 * (time.thread_time() - cpu))

    def close(self) -> None:
        self.whole_s = self.status("stopped").checkpoint_seconds
        self.wall_ms, self.cpu_ms = self.wall_ms[1:], self.cpu_ms[1:]
        super().close()


def _learn(learner: Learner, work: Callable[[], None]) -> float:
    """Start a learner, let it work, and close it; return how long the start took."""
    started = time.perf_counter()
    try:
        learner.start()
        took = time.perf_counter() - started
        work()
    finally:
        learner.close()
    return took


def _take(learner: Learner, n: int) -> None:
    """Learn so many records more, and write no checkpoint."""
    taken = 0
    while taken < n:
        taken += learner.step()


def _append(log: Log, stream: StreamSettings, first: int, n: int) -> None:
    rows = make_stream("steady", N_TEXTS).rows
    for start in range(first, first + n, CHUNK):
        records = [
            NewRecord(
                b"%d" % i, encode(Feedback(str(i), f"label {rows.labels[i % N_TEXTS]}", text=rows.texts[i % N_TEXTS]))
            )
            for i in range(start, min(start + CHUNK, first + n))
        ]
        log.append(stream.topics.feedback, records)


if __name__ == "__main__":
    typer.run(main)
