"""How soon does a label show, what does that cost, and how long does a checkpoint stop the learner?

`python -m bench.freshness` runs `driftline up` on the embedded log, or with `--kafka start` on a Kafka of its own, once
for each model, and asks it as a client does. With `--journal log` too it runs `driftline learn` as one of several,
whose journal lies in that Kafka, and beside it `driftline serve`.

1. Labels are posted at random moments; each is waited for until POST /predict has learned it, from its 202 on.
2. Beside that one text is asked for at a steady pace, by a process of its own that does nothing else, and each answer's
   time is taken.
3. All this while nothing else happens, then while another process appends labelled messages at a rate, then as fast as
   they are learned. Never more than so many labels wait: a label has to wait for those before it anyway.
"""

import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import httpx
import numpy as np
import typer

from bench.pipeline import brokers_of
from bench.streams import make_stream
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode

ROOT: Final = Path(__file__).parent.parent
MODELS: Final = ("linear?bits=20", "linear", "blend?bits=20", "blend")
START_S: Final = 120.0
GAP_S: Final = 0.25  # between two labels, at most
PACE_S: Final = 0.02  # between two requests for a prediction, and between two looks for a label
CHUNK: Final = 100  # messages appended at once
TEXTS: Final = 2000
_BODY: Final = b'{"text": "what does the model say of this one"}'
ASK: Final = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
HEADING: Final = (
    "| model | learning | label shows, ms p50 / p99 | predict, ms p50 / p99 | labels/s | pause, ms median / worst "
    "| checkpoint, s | API's own MB |\n|---|---|---|---|---|---|---|---|"
)


class Phase(NamedTuple):
    """What was measured while labels came at some rate."""

    name: str
    shown_ms: list[float]  # from a label's 202 to the first prediction that has learned it
    predict_ms: list[float]
    learned: float  # labels a second
    pauses_ms: list[float]  # the loop stood still for a checkpoint
    checkpoints_s: list[float]  # its whole time


def main(
    models: Annotated[list[str] | None, typer.Argument(help=f"else {', '.join(MODELS)}")] = None,
    labels: Annotated[int, typer.Option(min=10, help="posted in each phase")] = 300,
    rate: Annotated[float, typer.Option(min=1, help="labelled messages a second in the second phase")] = 2000,
    backlog: Annotated[int, typer.Option(min=1, help="labels that wait to be learned, at most")] = 1000,
    checkpoint_interval_s: Annotated[float, typer.Option(min=0.1)] = 5.0,
    kafka: Annotated[str | None, typer.Option(help="the log is a Kafka: its brokers, or `start` for one")] = None,
    journal: Annotated[str, typer.Option(help="disk, or log: in the Kafka")] = "disk",
) -> None:
    """Measure how soon labels show."""
    with ExitStack() as stack:
        brokers = None
        if kafka is not None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="driftline-kafka-")))
            brokers = stack.enter_context(brokers_of(None if kafka == "start" else kafka, directory))
        typer.echo(HEADING)
        for model in models or MODELS:
            measured = measure_model(model, labels, rate, backlog, checkpoint_interval_s, brokers, journal)
            for phase, own_bytes in measured:
                typer.echo(row(model, phase, own_bytes))


def measure_model(
    model: str,
    labels: int,
    rate: float = 2000,
    backlog: int = 1000,
    checkpoint_interval_s: float = 5.0,
    brokers: str | None = None,
    journal: str = "disk",
) -> Iterator[tuple[Phase, int]]:
    """Give each phase as it ends, and the API's own memory then. Without brokers it is the embedded log's."""
    phases = {"idle": None, f"{rate:,.0f}/s": (rate, backlog), "full speed": (float("inf"), backlog)}
    with _running(model, checkpoint_interval_s, brokers, journal) as (stream, http, pid):
        for name, flood in phases.items():
            with _flooding(stream, str(http.base_url), flood):
                yield _measure(name, stream, http, labels), _own_bytes(pid)


def row(model: str, phase: Phase, own_bytes: int) -> str:
    """Return a row of the table."""
    shown, predict = (np.percentile(values, [50, 99]) for values in (phase.shown_ms, phase.predict_ms))
    pauses = f"{np.median(phase.pauses_ms):.0f} / {max(phase.pauses_ms):.0f}" if phase.pauses_ms else "-"
    whole = f"{np.median(phase.checkpoints_s):.2f}" if phase.checkpoints_s else "-"
    return (
        f"| `{model}` | {phase.name} | {shown[0]:.0f} / {shown[1]:.0f} | {predict[0]:.1f} / {predict[1]:.1f} "
        f"| {phase.learned:,.0f} | {pauses} | {whole} | {own_bytes / 2**20:.0f} |"
    )


def _measure(name: str, stream: StreamSettings, http: httpx.Client, labels: int) -> Phase:
    """Post labels at random moments, and watch."""
    saves: dict[int, tuple[float, float]] = {}
    context = multiprocessing.get_context("spawn")
    stop, (mine, its) = context.Event(), context.Pipe(duplex=False)
    asking = context.Process(target=_ask_steadily, args=(http.base_url.port, stop, its))
    watching = threading.Thread(target=_watch_checkpoints, args=(stream, stop, saves))
    asking.start()
    its.close()
    mine.recv()
    watching.start()
    draw = random.Random(name)
    shown_ms = []
    try:
        started, before = time.monotonic(), _learned(http)
        for number in range(labels):
            time.sleep(draw.uniform(0, GAP_S))
            shown_ms.append(1000 * _time_to_show(http, f"text {number} posted while {name}", "ab"[number % 2]))
        rate = (_learned(http) - before) / (time.monotonic() - started)
    finally:
        stop.set()
        watching.join()
    predict_ms = mine.recv()
    asking.join()
    pauses, wholes = [1000 * pause for pause, _ in saves.values()], [whole for _, whole in saves.values()]
    return Phase(name, shown_ms, predict_ms, rate, pauses, wholes)


def _time_to_show(http: httpx.Client, text: str, label: str) -> float:
    answer = http.post("/feedback", json={"message_id": f"{time.time_ns()}", "text": text, "label": label})
    posted = time.monotonic()
    answer.raise_for_status()
    partition, offset = str(answer.json()["partition"]), answer.json()["offset"]
    while http.post("/predict", json={"text": text}).json()["feedback_offsets"][partition] <= offset:
        time.sleep(PACE_S / 10)
    return time.monotonic() - posted


def _learned(http: httpx.Client) -> int:
    return int(http.get("/model").json()["labels_learned"])


def _ask_steadily(port: int, stop: Event, told: Connection) -> None:
    """Ask over one connection until it is to stop. Tell of the first answer at once, in the end of each, in ms."""
    with socket.create_connection(("127.0.0.1", port), START_S) as connection:
        told.send(_time_to_answer(connection))  # to start a process takes longer than a short phase
        times_ms = [_time_to_answer(connection)]
        while not stop.wait(PACE_S):
            times_ms.append(_time_to_answer(connection))
    told.send(times_ms)


def _time_to_answer(connection: socket.socket) -> float:
    started = time.perf_counter()
    connection.sendall(ASK)
    if not connection.recv(1 << 16).startswith(b"HTTP/1.1 200 "):
        raise RuntimeError("the API does not predict")
    return 1000 * (time.perf_counter() - started)


def _watch_checkpoints(stream: StreamSettings, stop: Event, found: dict[int, tuple[float, float]]) -> None:
    """Note pause and whole time of each checkpoint that ends while this looks."""
    first = None
    while not stop.wait(0.2):
        with suppress(OSError):
            status = json.loads((stream.data / "status.json").read_bytes())
            whole = status["checkpoint_seconds"]
            first = status["checkpoint"] if first is None else first
            if status["checkpoint"] != first:
                found[status["checkpoint"]] = status.get("checkpoint_pause_seconds", whole), whole


@contextmanager
def _running(
    model: str, checkpoint_interval_s: float, brokers: str | None, journal: str
) -> Iterator[tuple[StreamSettings, httpx.Client, int]]:
    """Run learner and API on an empty directory until they have learned something; give the API's process."""
    with tempfile.TemporaryDirectory() as directory, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        log = {"log": f"kafka://{brokers}", "prefix": f"fresh-{os.urandom(4).hex()}."} if brokers else {}
        stream = StreamSettings.model_validate({"data": directory, **log})
        where = [part for name, value in ({"data": directory} | log).items() for part in (f"--{name}", value)]
        learn = ["--model", model, "--checkpoint-interval-s", str(checkpoint_interval_s)]
        with ExitStack() as stack:
            if journal == "disk":
                api = stack.enter_context(started("up", "--port", str(port), *learn, *where))
            else:
                store = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                stack.enter_context(
                    started("learn", "--journal", journal, "--checkpoints", store.as_uri(), *learn, *where)
                )
                api = stack.enter_context(started("serve", "--port", str(port), *where))
            http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
            _wait_until_it_answers(http, api)
            _append(stream, TEXTS)
            while _learned(http) < TEXTS:
                time.sleep(PACE_S)
            yield stream, http, api.pid


@contextmanager
def started(*command: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a command, and end it."""
    whole = [sys.executable, "-m", "driftline", *command]
    process = subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it failed
            os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def _wait_until_it_answers(http: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if http.get("/healthz").is_success and http.get("/model").json()["learner"] is not None:
                return
        time.sleep(0.1)
    raise TimeoutError("driftline up does not answer")


@contextmanager
def _flooding(stream: StreamSettings, url: str, flood: tuple[float, int] | None) -> Iterator[None]:
    if flood is None:
        yield
        return
    context = multiprocessing.get_context("spawn")
    begun, stop = context.Event(), context.Event()
    process = context.Process(target=_flood, args=(stream, url, begun, stop, *flood))
    process.start()
    begun.wait(START_S)
    try:
        yield
    finally:
        stop.set()
        process.join()


def _flood(stream: StreamSettings, url: str, begun: Event, stop: Event, rate: float, backlog: int) -> None:
    """Append labelled messages at a rate, and no more than may wait."""
    records, started, sent = _records(), time.monotonic(), 0
    with closing(open_log(stream)) as log, httpx.Client(base_url=url, timeout=30) as http:
        while not stop.is_set():
            learned: dict[str, int] = http.post("/predict", json={"text": "a"}).json()["feedback_offsets"]
            high = sum(mark.high for mark in log.watermarks([stream.topics.feedback]).values())
            ahead = sent > rate * (time.monotonic() - started)
            if ahead or high - sum(learned.values()) > backlog - CHUNK:
                time.sleep(PACE_S / 2)
                continue
            _append_records(log, stream, records, CHUNK)
            sent += CHUNK
            begun.set()


def _append(stream: StreamSettings, count: int) -> None:
    records = _records()
    with closing(open_log(stream)) as log:
        for _ in range(0, count, CHUNK):
            _append_records(log, stream, records, CHUNK)


def _records() -> Iterator[tuple[NewRecord, NewRecord]]:
    """Give labelled messages without end; no two have the same id, in no two processes."""
    rows = make_stream("steady", TEXTS).rows
    own = os.urandom(4).hex()
    for number in range(sys.maxsize):
        key, at = f"{own}-{number}", number % TEXTS
        message, feedback = Message(key, rows.texts[at]), Feedback(key, f"label {rows.labels[at]}")
        yield NewRecord(key.encode(), encode(message)), NewRecord(key.encode(), encode(feedback))


def _append_records(log: Any, stream: StreamSettings, records: Iterator[tuple[NewRecord, NewRecord]], n: int) -> None:
    messages, feedback = zip(*(next(records) for _ in range(n)), strict=True)
    log.append(stream.topics.messages, list(messages))
    log.append(stream.topics.feedback, list(feedback))


def _own_bytes(pid: int) -> int:
    """Return the memory that a process shares with none and with no file; 0 where that is not told."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                return 1024 * int(line.split()[1])
    return 0


if __name__ == "__main__":
    typer.run(main)
