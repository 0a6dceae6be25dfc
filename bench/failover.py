"""How long does nobody learn, once the learner that leads is gone?

`python -m bench.failover` runs two learners with one journal (`learn --journal log`) on a Kafka of its own while
labelled messages come at a steady pace. The one that leads is killed with -9, again and again, and started anew as the
one that stands by. Measured is the time from the kill to the first label that the other one has learned since, by its
status, which it writes twice a second at least; of that the session's time-out is what Kafka waits before it counts the
dead one as gone. Then the one that leads is asked to end (SIGTERM), as an upgrade does.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer

from bench.pipeline import brokers_of
from driftline.learner.report.status import Status, read_status
from driftline.stream.errors import StateError
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode

ROOT: Final = Path(__file__).parent.parent
START_S: Final = 300.0
LOOK_S: Final = 0.005


def main(
    kills: Annotated[int, typer.Option(min=1, help="of the one that leads, with -9")] = 20,
    ends: Annotated[int, typer.Option(min=0, help="of the one that leads, with SIGTERM")] = 10,
    rate: Annotated[float, typer.Option(min=1, help="labelled messages a second")] = 200,
    session_s: Annotated[float, typer.Option(min=0.5)] = 6.0,
    model: Annotated[str, typer.Option()] = "blend?bits=20",
    kafka: Annotated[str | None, typer.Option(help="brokers; else one is started")] = None,
) -> None:
    """Measure how long nobody learns."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="driftline-failover-")))
        log = f"kafka://{stack.enter_context(brokers_of(kafka, root))}"
        prefix = f"failover-{os.urandom(4).hex()}."
        options: dict[str, Any] = {"log": log, "prefix": prefix}
        streams = [StreamSettings(data=root / name, **options) for name in ("one", "other")]
        (root / "store").mkdir()
        pair = _Pair(streams, (root / "store").as_uri(), session_s, model)
        stack.callback(pair.close)
        pair.start_both()
        stack.enter_context(_feeding(streams[0], rate))
        typer.echo(
            "| the one that leads is | times | until the other learns, s p50 / p99 / worst | beyond the session |"
        )
        typer.echo("|---|---|---|---|")
        for number, times, said, waited in (
            (signal.SIGKILL, kills, f"killed, session {session_s:g} s", session_s),
            (signal.SIGTERM, ends, "asked to end", 0.0),
        ):
            took = np.array([pair.change(number) for _ in range(times)])
            if len(took):
                p50, p99, worst = np.percentile(took, (50, 99, 100))
                typer.echo(f"| {said} | {times} | {p50:.2f} / {p99:.2f} / {worst:.2f} | {worst - waited:.2f} at most |")


class _Pair:
    """Two learners, of which one leads."""

    def __init__(self, streams: list[StreamSettings], store: str, session_s: float, model: str) -> None:
        self._streams, self._more = streams, ["--checkpoints", store, "--session-s", f"{session_s:g}", "--model", model]
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start_both(self) -> None:
        self._start(0)
        self._wait(0, lambda status: status.state == "running")
        self._start(1)
        self._wait(1, lambda status: status.state == "standby")
        self._leads = 0

    def change(self, number: signal.Signals) -> float:
        """End the one that leads; return how long it took until the other one had learned more."""
        leads, other = self._leads, 1 - self._leads
        self._wait(other, lambda status: status.state == "standby")
        learned = self._status(leads).counts.labels_learned  # type: ignore[union-attr]
        started = time.monotonic()
        self._running[leads].send_signal(number)
        at = learned + 10_000_000

        def leading(status: Status) -> bool:
            nonlocal at
            if status.state == "running":
                at = min(at, status.counts.labels_learned)
            return status.state == "running" and status.counts.labels_learned > at

        self._wait(other, leading)
        took = time.monotonic() - started
        self._running[leads].wait()
        self._start(leads)
        self._leads = other
        return took

    def _start(self, which: int) -> None:
        stream = self._streams[which]
        options = ["--data", str(stream.data), "--log", stream.log_url, "--prefix", stream.prefix, "--journal", "log"]
        command = [sys.executable, "-m", "driftline", "learn", *options, *self._more]
        with (stream.data.parent / f"{stream.data.name}.log").open("ab") as out:
            self._running[which] = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)

    def _status(self, which: int) -> Status | None:
        with contextlib.suppress(StateError):
            found = read_status(self._streams[which].data)
            return found if found is not None and found.pid == self._running[which].pid else None
        return None

    def _wait(self, which: int, until: Callable[[Status], bool]) -> None:
        deadline = time.monotonic() + START_S
        while (status := self._status(which)) is None or not until(status):
            if self._running[which].poll() is not None or time.monotonic() > deadline:
                said = (self._streams[which].data.parent / f"{self._streams[which].data.name}.log").read_text()
                raise RuntimeError(f"learner {which} has ended, or hangs:\n{said[-3000:]}")
            time.sleep(LOOK_S)

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()


@contextlib.contextmanager
def _feeding(stream: StreamSettings, rate: float) -> Iterator[None]:
    """Append labelled messages at a rate."""
    over = threading.Event()

    def feed(log: Any) -> None:
        started, number = time.monotonic(), 0
        while not over.wait(0.01):
            due = int((time.monotonic() - started) * rate)
            if due > number:
                keys = [str(each) for each in range(number, due)]
                texts = [
                    NewRecord(k.encode(), encode(Message(k, f"text {k} about {'good' if int(k) % 3 else 'bad'}")))
                    for k in keys
                ]
                labels = [NewRecord(k.encode(), encode(Feedback(k, "ab"[int(k) % 3 == 0]))) for k in keys]
                log.append(stream.topics.messages, texts)
                log.append(stream.topics.feedback, labels)
                number = due

    with contextlib.closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        thread = threading.Thread(target=feed, args=(log,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


if __name__ == "__main__":
    typer.run(main)
