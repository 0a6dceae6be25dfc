"""How fast is the path from the log to the model, beside the bare client that reads the same records?

Messages of 100 characters and their labels, in the layout of `driftline send`, on Kafka and on the embedded log. Runs
take turns: the bare client consumes both topics and looks at nothing; the learner joins, scores and learns them from
start to end, its last checkpoint included, without and with writing its predictions. Each run is a process of its own;
its start (imports, the log's connection, the first checkpoint) is not counted but told.
"""

import multiprocessing
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import confluent_kafka as ck

from bench.streams import cut_to_length, make_stream
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop import service
from driftline.learner.report.status import Status
from driftline.stream.errors import ConfigError, LogUnavailable
from driftline.stream.files.reader import Row
from driftline.stream.files.send import send
from driftline.stream.log.kafka.options import READER, READER_FIXED, kafka_address
from driftline.stream.log.open import open_log
from driftline.stream.log.sqlite.file import sqlite_path
from driftline.stream.process.settings import StreamSettings

MODEL: Final = "linear?bits=20&chars=0"
N_CHARS: Final = 100
N_TEXTS: Final = 50_000  # that differ; ids differ in all messages
LABELS: Final = ("ham", "spam")
LABEL_DELAY: Final = 200
CONSUMED: Final = 10_000  # at once, by the bare client
TIMEOUT_S: Final = 30.0
WAYS: Final = ("bare client", "learner", "learner, predictions written")


class Run(NamedTuple):
    """One way through all records once. `tenths`: the processor time of each tenth of them, where it was told."""

    seconds: float
    cpu_s: float
    start_s: float
    tenths: tuple[float, ...] = ()


class Pipeline(NamedTuple):
    """What was measured on one log. `runs` has one a repetition for each of WAYS; records are messages and labels."""

    log: str
    partitions: int
    records: int
    runs: dict[str, list[Run]]

    def rate(self, way: str) -> float:
        """Return the median of a way's records a second."""
        return self.records / median(run.seconds for run in self.runs[way])

    def cpu_us(self, way: str) -> float:
        """Return the median of a way's processor time a record, microseconds, all threads of its process."""
        return median(run.cpu_s for run in self.runs[way]) / self.records * 1e6

    def growth(self, way: str) -> float | None:
        """Return the median of what the last tenth of the records costs beside the first; None where nobody told."""
        return median(run.tenths[-1] / run.tenths[0] for run in self.runs[way]) if self.runs[way][0].tenths else None

    def ratio(self, way: str) -> float:
        """Return the median over the repetitions of a way's rate beside that of the bare client next to it."""
        pairs = zip(self.runs[WAYS[0]], self.runs[way], strict=True)
        return median(bare.seconds / run.seconds for bare, run in pairs)


def measure_pipelines(
    kafka: str | None,
    partitions: Sequence[int],
    n_messages: int,
    repetitions: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[Pipeline]:
    """Measure both logs.

    Parameters
    ----------
    kafka : brokers, host:port; None: one is started here

    Raises
    ------
    ConfigError : no Kafka can be had.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as name, brokers_of(kafka, Path(name)) as brokers:
        for number in partitions:
            prefix = f"bench-{time.time_ns()}."
            for log in (f"kafka://{brokers}", f"sqlite:///{name}/log-{number}.db"):
                options: dict[str, Any] = {"log": log, "prefix": prefix, "partitions": number}
                stream = StreamSettings(data=Path(name) / "data", **options)
                say(f"filling {log} with {n_messages:,} messages and their labels, {number} partitions each")
                fill(stream, n_messages)
                found.append(_measure(stream, 2 * n_messages, repetitions, say))
    return found


def fill(stream: StreamSettings, n_messages: int) -> None:
    """Append messages and their labels."""
    made = cut_to_length(make_stream("steady", min(n_messages, N_TEXTS)), N_CHARS).rows
    rows = (
        Row(f"m{number}", made.texts[number % N_TEXTS], LABELS[made.labels[number % N_TEXTS] % 2], number)
        for number in range(n_messages)
    )
    with closing(open_log(stream)) as log:
        send(log, stream.topics, rows, LABEL_DELAY)


def _measure(stream: StreamSettings, n_records: int, repetitions: int, say: Callable[[str], None]) -> Pipeline:
    kind = "kafka" if stream.log_url.startswith("kafka:") else "sqlite"
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    for repetition in range(repetitions):
        for way in WAYS:
            with (
                tempfile.TemporaryDirectory(dir=stream.data.parent) as data,
                ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process,
            ):
                fresh = stream.model_copy(update={"data": Path(data)})
                if way == WAYS[0]:
                    bare = consume_kafka if kind == "kafka" else read_sqlite
                    run = process.submit(bare, fresh, n_records).result()
                else:
                    run = process.submit(learn, fresh, n_records, predictions=way == WAYS[2]).result()
            runs[way].append(run)
            say(
                f"{kind} {stream.partitions} partitions {repetition + 1}/{repetitions} {way:<29} "
                f"{n_records / run.seconds:>11,.0f} records/s, processor {run.cpu_s / n_records * 1e6:.2f} "
                f"microseconds each; start {run.start_s:.1f} s"
            )
    return Pipeline(kind, stream.partitions, n_records, runs)


# Each in a process of its own.


def consume_kafka(stream: StreamSettings, n_records: int) -> Run:
    """Consume both topics with the client that the log uses, and the log's own properties for it."""
    begin = time.monotonic()
    brokers, properties = kafka_address(stream)
    config = {**READER, **properties, **READER_FIXED, "bootstrap.servers": brokers}
    consumer = ck.Consumer(config)
    names = [(topic, number) for topic in stream.topics[:2] for number in range(stream.partitions)]
    consumer.assign([ck.TopicPartition(topic, number, 0) for topic, number in names])
    n = sum(message.error() is None for message in consumer.consume(1, TIMEOUT_S))
    start, cpu = time.monotonic(), time.process_time()
    while n < n_records:
        messages = consumer.consume(CONSUMED, 1.0)
        n += sum(message.error() is None for message in messages)
        if not messages and time.monotonic() - start > TIMEOUT_S:
            raise LogUnavailable(f"only {n} of {n_records} records came")
    run = Run(time.monotonic() - start, time.process_time() - cpu, start - begin)
    consumer.close()
    return run


def read_sqlite(stream: StreamSettings, n_records: int) -> Run:
    """Read every row of both topics."""
    begin = time.monotonic()
    with closing(sqlite3.connect(sqlite_path(stream.log_url))) as db:
        query = "SELECT id FROM partitions WHERE topic IN (?, ?)"
        tables = [number for (number,) in db.execute(query, stream.topics[:2])]
        start, cpu = time.monotonic(), time.process_time()
        n = 0
        for table in tables:
            rows = db.execute(f"SELECT offset, timestamp_ms, key, value, headers FROM records_{table} ORDER BY offset")
            while found := rows.fetchmany(CONSUMED):
                n += len(found)
        if n != n_records:
            raise LogUnavailable(f"{n} records are there, not {n_records}")
        return Run(time.monotonic() - start, time.process_time() - cpu, start - begin)


def learn(stream: StreamSettings, n_records: int, *, predictions: bool) -> Run:
    """Learn both topics from start to end, as `driftline learn --stop-at-end` does."""
    begin = start = time.monotonic()
    cpu = 0.0
    ends: list[float] = []

    def started(_: Status) -> None:
        nonlocal start, cpu
        start, cpu = time.monotonic(), time.process_time()

    def advanced(done: int, total: int) -> None:
        while len(ends) <= 10 and 10 * done >= total * len(ends):
            ends.append(time.process_time())

    options: dict[str, Any] = {"model": MODEL, "predictions": predictions}
    settings = LearnerSettings(**options)
    counts = service.learn(stream, settings, stop_at_end=True, on_start=started, on_advance=advanced).counts
    tenths = tuple(end - start for start, end in pairwise(ends))
    run = Run(time.monotonic() - start, time.process_time() - cpu, start - begin, tenths)
    if counts.messages_seen + counts.labels_learned != n_records:
        raise ConfigError(f"of {n_records} records {counts.messages_seen + counts.labels_learned} were taken in")
    return run


@contextmanager
def brokers_of(named: str | None, directory: Path) -> Iterator[str]:
    """Give the brokers that are named, or start one as the tests do."""
    if named:
        yield named
        return
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "kafka"))
    from broker import NoKafka, end_broker, start_broker  # type: ignore[import-not-found]  # noqa: PLC0415  (of the tests)

    try:
        broker = start_broker(directory / "kafka")
    except NoKafka as error:
        raise ConfigError(f"no Kafka can be had: {error}") from None
    try:
        yield broker.bootstrap
    finally:
        end_broker(broker)
