"""What does it take to follow a learner on another machine, and how soon does a label show there?

`python -m bench.followers` runs a learner that leads and two API replicas that follow it, as processes of their own on
this machine, with a Kafka and a store of checkpoints:

1. Labels are posted to one replica at random moments; each is waited for at the other until POST /predict has learned
   it, from its 202 on. All this while nothing else happens, then while labelled messages are appended at some rates,
   then messages alone.
2. Of each of these: the bytes of the journal, packed as Kafka keeps and sends them, which is what each follower
   fetches; and the processor time of the learner and of one follower, for each label or message.
3. How long a replica takes to start from an empty directory, with so many minutes of the journal behind the newest
   checkpoint. They are appended as fast as they are learned, in the number that such minutes have.
"""

import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import httpx
import numpy as np
import typer

from bench.freshness import CHUNK, _records, _wait_until_it_answers, started
from bench.pipeline import brokers_of
from driftline.learner.report.status import Status, read_status
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings

RATES: Final = (0.0, 2000.0, 20000.0)
MINUTES: Final = (1.0, 10.0, 100.0)
GAP_S: Final = 0.25  # between two labels, at most
LOOK_S: Final = 0.002
PATIENCE_S: Final = 600.0
BACKLOG: Final = 4000  # labels that wait to be learned, at most
TICKS: Final = os.sysconf("SC_CLK_TCK")
HEADING: Final = (
    "| what comes | a second | label shows at another replica, ms p50 / p99 | journal, kB/s to each follower "
    "| bytes each | learner, us each | follower, us each |\n|---|---|---|---|---|---|---|"
)


class Used(NamedTuple):
    """What was used up to a moment: labels and messages taken, bytes of the journal, processor seconds of both."""

    at: float
    labels: int
    messages: int
    journal_bytes: int
    learner_s: float
    follower_s: float


class Cluster:
    """A learner and replicas, with directories of their own below one."""

    def __init__(self, root: Path, brokers: str, model: str, checkpoint_interval_s: float, stack: ExitStack) -> None:
        self._root, self._stack = root, stack
        (root / "store").mkdir(parents=True)
        where = {"data": root / "learner", "log": f"kafka://{brokers}", "prefix": f"follow-{os.urandom(4).hex()}."}
        self.stream = StreamSettings.model_validate(where | {"checkpoints": (root / "store").as_uri()})
        command = ("learn", "--journal", "log", "--model", model, "--checkpoint-interval-s", str(checkpoint_interval_s))
        stack.enter_context(self._process(*command, data="learner"))
        with closing(open_log(self.stream)) as log:
            log.create_topics(self.stream.topics)
        _wait_for(lambda: (found := read_status(self.stream.data)) is not None and found.state == "running", PATIENCE_S)

    def _process(self, *command: str, data: str) -> AbstractContextManager["subprocess.Popen[bytes]"]:
        stream = self.stream
        options = {"data": self._root / data, "log": stream.log_url, "prefix": stream.prefix}
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return started(*command, *flags, "--checkpoints", str(stream.checkpoints))

    def replica(self, name: str) -> httpx.Client:
        """Start a replica, and return a client of it once it answers."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = self._stack.enter_context(self._process("serve", "--follow", "--port", str(port), data=name))
        http = self._stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60))
        _wait_until_it_answers(http, process)
        return http

    @property
    def learner(self) -> Status:
        """What the learner said last."""
        found = read_status(self.stream.data)
        assert found is not None, "it has not started"
        return found

    def used(self, follower: httpx.Client, logs: Path | None) -> Used:
        """Return what was used until now."""
        status, journal = self.learner, f"{self.stream.journal_name}-0"
        files = logs.rglob(f"{journal}/*.log") if logs is not None else ()
        return Used(
            time.monotonic(),
            status.counts.updates,
            status.counts.messages_seen,
            sum(file.stat().st_size for file in files),
            _processor_s(status.pid),
            _processor_s(follower.get("/model").json()["learner"]["pid"]),
        )


def main(
    model: Annotated[str, typer.Option()] = "blend",
    labels: Annotated[int, typer.Option(min=10, help="posted in each phase")] = 300,
    rate: Annotated[list[float] | None, typer.Option(help=f"labelled messages a second; else {RATES}")] = None,
    minutes: Annotated[list[float] | None, typer.Option(help=f"of journal at a start; else {MINUTES}")] = None,
    start_rate: Annotated[float, typer.Option(min=1, help="labels a second in these minutes")] = 2000.0,
    kafka: Annotated[str, typer.Option(help="its brokers, or `start` for one")] = "start",
    checkpoint_interval_s: Annotated[float, typer.Option(min=0.1)] = 30.0,
) -> None:
    """Measure what followers cost, and how fresh they are."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="driftline-followers-")))
        brokers = stack.enter_context(brokers_of(None if kafka == "start" else kafka, directory))
        logs = directory / "kafka" if kafka == "start" else None
        with ExitStack() as running:
            cluster = Cluster(directory / "phases", brokers, model, checkpoint_interval_s, running)
            one, other = cluster.replica("one"), cluster.replica("other")
            _post(one, other, "the first label of all", "a")
            typer.echo(HEADING)
            for each in rate or RATES:
                _say_phase(cluster, one, other, logs, labels, each, labelled=True)
            _say_phase(cluster, one, other, logs, labels, max(rate or RATES), labelled=False)
        for each in minutes or MINUTES:
            with ExitStack() as running:
                cluster = Cluster(directory / f"start-{each:g}", brokers, model, 1e6, running)
                _say_start(cluster, each, start_rate)


def _say_phase(
    cluster: Cluster,
    one: httpx.Client,
    other: httpx.Client,
    logs: Path | None,
    labels: int,
    rate: float,
    *,
    labelled: bool,
) -> None:
    with _flooding(cluster.stream, rate, labelled=labelled):
        before = cluster.used(other, logs)
        draw, shown_ms = random.Random(rate), []
        for number in range(labels):
            time.sleep(draw.uniform(0, GAP_S))
            shown_ms.append(1000 * _post(one, other, f"text {number} at {rate:g}", "ab"[number % 2]))
        after = cluster.used(other, logs)
    seconds = after.at - before.at
    learned, seen = after.labels - before.labels, after.messages - before.messages
    n = max(1, learned if labelled else seen)
    n_bytes = after.journal_bytes - before.journal_bytes
    shown = np.percentile(shown_ms, [50, 99])
    journal = f"{n_bytes / seconds / 1000:,.1f} | {n_bytes / n:,.0f}" if logs is not None else "- | -"
    typer.echo(
        f"| {'labelled messages' if labelled else 'messages'} | {n / seconds:,.0f} | {shown[0]:.0f} / {shown[1]:.0f} "
        f"| {journal} | {1e6 * (after.learner_s - before.learner_s) / n:,.1f} "
        f"| {1e6 * (after.follower_s - before.follower_s) / n:,.1f} |"
    )


def _say_start(cluster: Cluster, minutes: float, rate: float) -> None:
    """Let so many labels be learned behind the first checkpoint, then start a replica."""
    count = int(60 * minutes * rate)
    with _flooding(cluster.stream, 1e9, labelled=True, most=count):
        _wait_for(lambda: cluster.learner.counts.updates >= count, PATIENCE_S + 60 * minutes)
    began = time.monotonic()
    http = cluster.replica("new")
    answers_s = time.monotonic() - began
    _wait_for(lambda: http.get("/model").json()["version"] == cluster.learner.version, PATIENCE_S)
    caught_up_s = time.monotonic() - began
    _wait_for(lambda: http.get("/readyz").status_code == 200, PATIENCE_S)
    typer.echo(
        f"Start with {minutes:g} minutes of journal at {rate:,.0f} labels a second ({count:,} labels): answers after "
        f"{answers_s:.1f} s, has the learner's model after {caught_up_s:.1f} s, is ready after "
        f"{time.monotonic() - began:.1f} s"
    )


def _post(one: httpx.Client, other: httpx.Client, text: str, label: str) -> float:
    """Post a label at one, and return after how many seconds the other one has learned it."""
    answer = one.post("/feedback", json={"message_id": f"{time.time_ns()}", "text": text, "label": label})
    posted = time.monotonic()
    answer.raise_for_status()
    partition, offset = str(answer.json()["partition"]), answer.json()["offset"]
    while True:
        asked = other.post("/predict", json={"text": text})
        if asked.status_code == 200 and asked.json()["feedback_offsets"].get(partition, 0) > offset:
            return time.monotonic() - posted
        if time.monotonic() - posted > PATIENCE_S:
            raise TimeoutError(f"a label did not show: {asked.text}")
        time.sleep(LOOK_S)


@contextmanager
def _flooding(stream: StreamSettings, rate: float, *, labelled: bool, most: int = sys.maxsize) -> Iterator[None]:
    if rate == 0:
        yield
        return
    context = multiprocessing.get_context("spawn")
    begun, stop = context.Event(), context.Event()
    process = context.Process(target=_flood, args=(stream, begun, stop, rate, labelled, most))
    process.start()
    _wait_for(lambda: begun.is_set() or not process.is_alive(), PATIENCE_S)
    try:
        yield
    finally:
        stop.set()
        process.join()


def _flood(stream: StreamSettings, begun: Event, stop: Event, rate: float, labelled: bool, most: int) -> None:
    """Append messages at a rate, and where they are labelled no more than may wait."""
    records, started, sent = _records(), time.monotonic(), 0
    with closing(open_log(stream)) as log:
        first, looked_at, is_far = _high(stream), 0.0, False
        while not stop.is_set() and sent < most:
            if labelled and time.monotonic() - looked_at > 0.05:
                looked_at, is_far = time.monotonic(), first + sent - _taken(stream) > BACKLOG
            if is_far or sent > rate * (time.monotonic() - started):
                time.sleep(LOOK_S)
                continue
            messages, feedback = zip(*(next(records) for _ in range(min(CHUNK, most - sent))), strict=True)
            futures = [log.submit(stream.topics.messages, list(messages))]
            if labelled:
                futures.append(log.submit(stream.topics.feedback, list(feedback)))
            for future in futures:
                future.result()
            sent += len(messages)
            begun.set()


def _high(stream: StreamSettings) -> int:
    with closing(open_log(stream)) as log:
        return sum(mark.high for mark in log.watermarks([stream.topics.feedback]).values())


def _taken(stream: StreamSettings) -> int:
    """Return how many labels the learner has taken, by its status, which is half a second old at most."""
    status = json.loads((stream.data / "status.json").read_bytes())
    return sum(status["positions"].get(stream.topics.feedback, {}).values())


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _wait_for(holds: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("it takes too long")
        time.sleep(0.02)


if __name__ == "__main__":
    typer.run(main)
