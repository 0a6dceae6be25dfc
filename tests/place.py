"""A data directory, the learner that would write there, and an API that runs on it."""

import os
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from driftline.api.access import keys
from driftline.api.access.keys import Role
from driftline.api.run.process import Started
from driftline.api.run.server import serve
from driftline.api.settings import ReplicaSettings
from driftline.learner.disk.losses import Loss, Losses
from driftline.learner.models.classifier import Classifier
from driftline.learner.quality.alarms import Alarms
from driftline.learner.quality.figures import Counts
from driftline.learner.quality.progress import Progress
from driftline.learner.registry import make_classifier
from driftline.learner.report.status import Status, write_status
from driftline.learner.serving.snapshot import Publisher, SnapshotInfo
from driftline.stream.limits import JoinCounts
from driftline.stream.log.base import Log, Record, TopicPartition
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.data import alarm

SPEC = "linear?bits=12"
TEXTS = ["win a prize now", "free money prize", "see you at lunch", "lunch at noon today"]
LABELS = ["spam", "spam", "ham", "ham"]
MAX_TEXT_CHARS = 10_000
MAX_BODY_BYTES = 1 << 20
MAX_RECORD_BYTES = 1 << 15
POSTS = ["/predict", "/messages", "/feedback"]
SHOWS = ["/model", "/history", "/drift", "/label-requests", "/recent", "/labels"]


class Place:
    """A data directory, and the learner that would write there."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.stream = StreamSettings(data=root / "data", max_record_bytes=MAX_RECORD_BYTES, **options)
        self.publisher = Publisher(self.stream.data / "snapshots", epoch=1)
        self.classifier: Classifier = make_classifier(SPEC)

    def publish(self, updates: int = 4, version: str = "") -> str:
        """Learn the texts once more and publish what that gave; return its version."""
        self.classifier.learn_many(TEXTS * 20, LABELS * 20)
        version = version or f"lineage-{updates}"
        info = SnapshotInfo(
            version=version,
            epoch=1,
            model=self.classifier.spec,
            config=self.classifier.config(),
            labels=self.classifier.labels,
            labels_learned=updates,
            feedback_offsets={"0": updates, "1": 7},
            published_at=time.time(),
        )
        self.publisher.publish(self.classifier, info)
        return version

    def report(self, **changes: Any) -> None:
        """Write a status."""
        progress = Progress()
        alarms = Alarms()
        for number, label in enumerate([None, "spam", "spam"]):
            alarms.add(alarm(number, label=label))
        losses = Losses()
        losses.add(Loss(topic="feedback", partition=0, start=3, end=10, lost=7, why="retention", batch=2))
        fields: dict[str, Any] = {
            "state": "running",
            "at": time.time(),
            "pid": os.getpid(),
            "epoch": 1,
            "model": SPEC,
            "version": "lineage-4",
            "labels": ["spam", "ham"],
            "counts": Counts(
                messages_seen=11, labels_seen=8, labels_learned=4, rejected=3, rejected_by={"not-json": 3}
            ),
            "join": JoinCounts(duplicates=1, corrected=2, expired=5, orphaned=6, orphaned_by={"age": 4}),
            "pending": 9,
            "waiting": 2,
            "positions": {"messages": {"0": 1}, "feedback": {"0": 0}},
            "progress": progress.summary(),
            "drift": alarms,
            "losses": losses,
        }
        write_status(self.stream.data, Status(**(fields | changes)))


def add_key(place: Place, role: Role, name: str = "") -> dict[str, str]:
    """Add a key to those in the data directory; return the header that sends it."""
    path = place.stream.data / keys.FILE
    secret, key = keys.new_key(name or role.name.lower(), role)
    keys.save(path, [*keys.read(path), key])
    return {"Authorization": f"Bearer {secret}"}


@contextmanager
def running(stream: StreamSettings, **options: Any) -> Iterator[str]:
    """Run a server in a thread; give its URL."""
    limits = {"max_text_chars": MAX_TEXT_CHARS, "max_body_bytes": MAX_BODY_BYTES}
    ready: queue.Queue[Started | BaseException] = queue.Queue()

    def run() -> None:
        try:
            serve(stream, ReplicaSettings(port=0, **(limits | options)), on_ready=ready.put)
        except BaseException as error:
            ready.put(error)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    started = ready.get(timeout=60)
    if isinstance(started, BaseException):
        thread.join()
        raise started
    try:
        yield started.url
    finally:
        started.stop()
        thread.join(60)
        assert not thread.is_alive(), "the server did not stop"


class Api(NamedTuple):
    """A running server that has a model, and all that it needs."""

    place: Place
    url: str
    http: httpx.Client


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=30)


def post(url: str, body: object) -> httpx.Response:
    return httpx.post(url, json=body, timeout=30)


def refusal(answer: httpx.Response, status: int) -> dict[str, str]:
    """Return the error of an answer, which must have the one shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    error = {key: content[key] for key in ("error", "code", "action")}
    assert set(content) - {"reasons", "warnings", "parts"} == set(error)
    assert all(isinstance(part, str) and part for part in error.values())
    return {"message": error["error"]} | error


def read_all(stream: StreamSettings, topic: str) -> list[Record]:
    """Read a topic with a log of our own."""
    with closing(open_log(stream)) as log:
        marks = log.watermarks([topic])
        with closing(log.reader({partition: mark.low for partition, mark in marks.items()})) as reader:
            records: list[Record] = []
            while not all(reader.at_end(partition) for partition in marks):
                records += reader.read(1000, 0.1)
            return records


def ends(log: Log, stream: StreamSettings) -> dict[TopicPartition, int]:
    return {partition: mark.high for partition, mark in log.watermarks(stream.topics).items()}


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def open_half(url: str, length: int, sent: int, head: str = "") -> socket.socket:
    """Begin a request and leave it there."""
    half = socket.create_connection(address(url))
    begun = f"POST /predict HTTP/1.1\r\nHost: a\r\n{head}Content-Length: {length}\r\n\r\n".encode()
    with suppress(ConnectionError):  # it may be refused before all of it is sent
        half.sendall(begun + b" " * sent)
    return half


def exchange(url: str, request: bytes) -> bytes:
    """Send raw bytes; return all that comes back until the server closes."""
    with socket.create_connection(address(url), timeout=60) as raw:
        answer = b""
        try:
            raw.sendall(request)
            while more := raw.recv(1 << 16):
                answer += more
        except ConnectionError:
            pass  # the server has closed while more was on its way
        return answer
