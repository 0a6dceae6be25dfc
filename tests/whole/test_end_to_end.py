"""Real text through all of it, on both logs: real processes, a real broker, a real HTTP server."""

import gzip
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import kafka as kafka_python
import pytest

from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.disk.settings import LearnerSettings
from driftline.stream.log.base import NewRecord, TopicPartition
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import decode_prediction, decode_rejected
from tests.data import ROOT, sms_spam
from tests.faults.nursery import Nursery
from tests.often import only_long
from tests.ports import reserved
from tests.waiting import wait_until

__all__ = ["sms_spam"]
N_TEXTS = 5574


KAFKA_TOO = pytest.mark.parametrize("stream", ["sqlite", pytest.param("kafka", marks=only_long)], indirect=True)


@pytest.fixture(params=["sqlite", "kafka"])
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> StreamSettings:
    """Give an empty log and an empty data directory."""
    if request.param == "sqlite":
        return StreamSettings(data=tmp_path / "data", log=f"sqlite:///{tmp_path / 'log.db'}")
    broker = request.getfixturevalue("kafka")
    return StreamSettings(data=tmp_path / "data", log=f"kafka://{broker}", prefix=f"{uuid4().hex}.", partitions=3)


def flags(stream: StreamSettings) -> list[str]:
    return [
        "--data",
        str(stream.data),
        "--log",
        stream.log_url,
        "--prefix",
        stream.prefix,
        "--partitions",
        str(stream.partitions),
    ]


@contextmanager
def driftline(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command line in a process group of its own, and end what is left of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "driftline", *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "300", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


class Commands:
    """Runs commands that come to an end by themselves, each in a process that need not load everything first."""

    def __init__(self, nursery: Nursery) -> None:
        self.nursery = nursery

    def ended(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"COLUMNS": "300", "NO_COLOR": "1"}
        return self.nursery.run(*arguments, cwd=ROOT, environment=environment)

    def run(self, *arguments: str) -> str:
        """Return what one said that did what it was to do."""
        ended = self.ended(*arguments)
        assert ended.returncode == 0, ended
        return ended.stdout + ended.stderr

    def status(self, stream: StreamSettings) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ended("status", "--json", *flags(stream)).stdout)
        return found


@pytest.fixture
def commands(nursery: Nursery) -> Commands:
    return Commands(nursery)


@contextmanager
def api(*arguments: str) -> Iterator[httpx.Client]:
    """Run `up` until the API answers; then one Ctrl-C has to end it cleanly."""
    with (
        reserved() as port,
        driftline(*arguments, "--port", str(port)) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):

        def running() -> bool:
            return process.poll() is None

        wait_until(lambda: answers(client, running, lambda: process.communicate()[0]), 180, "the API answers")
        yield client
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to both processes
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert "Traceback" not in output


def answers(client: httpx.Client, running: Callable[[], bool], said: Callable[[], str]) -> bool:
    """Tell whether the API does; it must not have ended."""
    assert running(), said()
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


def accuracy_as_served(client: httpx.Client) -> float:
    return float(client.get("/model").json()["progressive"]["accuracy"])


def test_a_file_flows_through_all_of_it(stream: StreamSettings, sms_spam: Path, commands: Commands) -> None:
    with api("up", *flags(stream)) as client:
        assert client.post("/predict", json={"text": "hello"}).status_code == 503
        sent = commands.run("send", str(sms_spam), "--label-delay", "200", *flags(stream))
        assert re.search(r"5,574 messages and 5,574 labels", sent)
        wait_until(lambda: client.get("/model").json()["labels_learned"] == N_TEXTS, 180, "all labels are learned")
        model = client.get("/model").json()
        assert (model["messages_seen"], model["labels_learned"], model["rejected"]) == (N_TEXTS, N_TEXTS, 0)
        assert accuracy_as_served(client) >= 0.97
        wait_until(
            lambda: sum(client.get("/model").json()["lag"][stream.topics.feedback].values()) == 0, what="no lag is left"
        )

        def feedback_learned() -> bool:
            offsets = client.post("/predict", json={"text": "WINNER! Claim your free prize, call now"}).json()
            return sum(offsets["feedback_offsets"].values()) == N_TEXTS

        wait_until(feedback_learned, what="the snapshot has all labels")
        answer = client.post(
            "/predict", json={"texts": ["WINNER! Claim your free prize, call now", "ok see you at home"]}
        )
        assert [prediction["label"] for prediction in answer.json()["predictions"]] == ["spam", "ham"]
    log = open_log(stream)
    try:
        predictions = read_topic(log, stream.topics.predictions)
    finally:
        log.close()
    assert len(predictions) == N_TEXTS
    assert len({decode_prediction(value).message_id for value in predictions}) == N_TEXTS


@KAFKA_TOO
def test_a_wrong_prediction_is_corrected_within_two_seconds(
    stream: StreamSettings, sms_spam: Path, commands: Commands
) -> None:
    text = "Free entry to the parents' evening on Friday, call the school office to win a seat"
    taken_s: list[float] = []
    with api("up", *flags(stream)) as client:
        commands.run("send", str(sms_spam), "--label-delay", "200", *flags(stream))
        wait_until(lambda: client.get("/model").json()["labels_learned"] == N_TEXTS, 180, "all labels are learned")

        def ask() -> Any:
            return client.post("/predict", json={"text": text}).json()

        wrong = ask()["predictions"][0]["label"]
        right = {"spam": "ham", "ham": "spam"}[wrong]
        while len(taken_s) < 10 and min(taken_s, default=3.0) > 2.0:  # a busy machine may hold up some of them
            message = client.post("/messages", json={"text": text}).json()
            posted = client.post("/feedback", json={"message_id": message["id"], "label": right})
            assert posted.status_code == 202
            partition, offset, started = str(posted.json()["partition"]), posted.json()["offset"], time.monotonic()
            wait_until(
                lambda partition=partition, offset=offset: ask()["feedback_offsets"][partition] > offset,
                what="the label is in the served model",
            )
            taken_s.append(time.monotonic() - started)
            assert ask()["predictions"][0]["label"] == right
    assert min(taken_s) <= 2.0


def read_topic(log: Any, topic: str) -> list[bytes]:
    """Return every value of a topic."""
    marks = log.watermarks([topic])
    reader = log.reader({partition: mark.low for partition, mark in marks.items()})
    values: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(values) < sum(mark.high - mark.low for mark in marks.values()):
        assert time.monotonic() < deadline
        values += [record.value for record in reader.read(10_000, 0.1)]
    reader.close()
    return values


def test_random_bytes_end_as_dead_letters_and_change_nothing_else(stream: StreamSettings, commands: Commands) -> None:
    log = open_log(stream)
    try:
        log.create_topics(stream.topics)
        log.append(stream.topics.feedback, [NewRecord(b"m", b'{"message_id":"m","label":"ham","text":"hello there"}')])
        commands.run("learn", "--stop-at-end", *flags(stream))
        before = model_digest(stream)
        for topic in stream.topics[:2]:
            log.append(topic, [NewRecord(os.urandom(4), os.urandom(1 + number % 400)) for number in range(5000)])
        refused = commands.ended("learn", "--stop-at-end", *flags(stream))  # so much of it is not taken unasked
        assert refused.returncode == 1
        assert re.search(r"records cannot be read.*--dead-letter-limit 1", refused.stdout + refused.stderr, re.S)
        assert len(read_topic(log, stream.topics.dead_letter)) == 0
        commands.run("learn", "--stop-at-end", "--dead-letter-limit", "1", *flags(stream))
        dead = [decode_rejected(value) for value in read_topic(log, stream.topics.dead_letter)]
    finally:
        log.close()
    assert len(dead) == 10_000
    assert len({(each.topic, each.partition, each.offset) for each in dead}) == 10_000
    assert model_digest(stream) == before
    counts = commands.status(stream)["counts"]
    assert sum(counts.pop("rejected_by").values()) == 10_000
    assert counts == {
        "messages_seen": 0,
        "labels_seen": 1,
        "labels_learned": 1,
        "updates": 1,
        "refused": 0,
        "rejected": 10_000,
        "tombstones": 0,
        "clock_jumps": 0,
        "over_quota": 0,
        "unwritten": 0,
        "places_given": 0,
        "vectors_unused": 0,
        "vectors_made": 0,
        "vectors_spared": 0,
    }


def model_digest(stream: StreamSettings) -> str:
    newest = list_checkpoints(stream.data / "checkpoints")[0]
    return hashlib.sha256((newest / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=only_long)])
def test_a_learner_that_is_killed_loses_nothing_and_learns_nothing_twice(
    stream: StreamSettings, sms_spam: Path, commands: Commands, times: int
) -> None:
    commands.run("send", str(sms_spam), "--label-delay", "200", *flags(stream))
    undisturbed = stream.model_copy(update={"data": stream.data.with_name("undisturbed")})
    commands.run("learn", "--stop-at-end", "--batch-records", "50", *flags(undisturbed))
    for turn in range(times):
        often = ("--batch-records", "50", "--checkpoint-interval-s", "0.2")
        learner = commands.nursery.start("learn", *often, *flags(stream))
        goal = N_TEXTS * (turn + 1) // (times + 1)
        wait_until(lambda goal=goal: labels_learned(stream) >= goal, 180, "the learner is in the middle of it")
        learner.send(signal.SIGKILL)
        assert learner.wait() == -signal.SIGKILL, learner.said
    commands.run("learn", "--stop-at-end", *flags(stream))
    assert labels_learned(stream) == N_TEXTS
    assert model_digest(stream) == model_digest(undisturbed)


def labels_learned(stream: StreamSettings) -> int:
    """Return what the status says, 0 before there is one."""
    try:
        return int(json.loads((stream.data / "status.json").read_bytes())["counts"]["labels_learned"])
    except FileNotFoundError:
        return 0


def test_kafka_python_produces_what_is_learned_and_reads_what_was_predicted(
    kafka: str, tmp_path: Path, sms_spam: Path, commands: Commands
) -> None:
    stream = StreamSettings(data=tmp_path / "data", log=f"kafka://{kafka}", prefix=f"{uuid4().hex}.", partitions=3)
    log = open_log(stream)
    log.create_topics(stream.topics)
    log.close()
    with gzip.open(sms_spam) as lines:
        rows = [json.loads(line) for line in lines]
    producer = kafka_python.KafkaProducer(bootstrap_servers=kafka, acks="all", linger_ms=5)
    for number in range(N_TEXTS + 200):
        if number < N_TEXTS:
            row = rows[number]
            value = {"id": row["id"], "text": row["text"], "metadata": {"by": "kafka-python"}}
            producer.send(stream.topics.messages, json.dumps(value).encode(), row["id"].encode())
        if number >= 200:
            row = rows[number - 200]
            value = {"message_id": row["id"], "label": row["label"]}
            producer.send(stream.topics.feedback, json.dumps(value).encode(), row["id"].encode())
    producer.flush()
    producer.close()
    commands.run("learn", "--stop-at-end", *flags(stream))
    status = commands.status(stream)
    assert (status["counts"]["messages_seen"], status["counts"]["labels_learned"]) == (N_TEXTS, N_TEXTS)
    assert (status["counts"]["rejected"], status["progress"]["labels"] + status["progress"]["unpredicted"]) == (
        0,
        N_TEXTS,
    )
    assert status["progress"]["accuracy"] >= 0.97
    consumer = kafka_python.KafkaConsumer(
        stream.topics.predictions, bootstrap_servers=kafka, auto_offset_reset="earliest", consumer_timeout_ms=60_000
    )
    found = {}
    for record in consumer:
        prediction = json.loads(record.value)
        assert record.key.decode() == prediction["message_id"]
        found[prediction["message_id"]] = prediction
        if len(found) == N_TEXTS:
            break
    consumer.close()
    assert found.keys() == {row["id"] for row in rows}
    right = sum(found[row["id"]]["label"] == row["label"] for row in rows)
    assert right == status["progress"]["correct"]
    assert committed_by_learner(stream) == high_watermarks(stream)


def high_watermarks(stream: StreamSettings) -> dict[TopicPartition, int]:
    log = open_log(stream)
    try:
        return {partition: mark.high for partition, mark in log.watermarks(stream.topics[:2]).items()}
    finally:
        log.close()


def committed_by_learner(stream: StreamSettings) -> dict[TopicPartition, int]:
    """Return what lag tools see."""
    log = open_log(stream)
    try:
        return log.committed(LearnerSettings().group, high_watermarks(stream))
    finally:
        log.close()


def test_two_learners_of_one_directory_are_refused(tmp_path: Path, nursery: Nursery) -> None:
    stream = StreamSettings(data=tmp_path / "data")
    first = nursery.start("learn", *flags(stream))
    wait_until(lambda: (stream.data / "status.json").exists() or not first.running(), 180, "the first runs")
    second = nursery.start("learn", *flags(stream))
    assert second.wait() == 1
    assert "another learner is at work on" in second.said
    first.send(signal.SIGTERM)
    assert first.wait() == 0, first.said


def test_learner_and_api_as_two_processes(stream: StreamSettings, nursery: Nursery) -> None:
    with reserved() as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        server = nursery.start("serve", *flags(stream), "--port", str(port))
        wait_until(lambda: answers(client, server.running, lambda: server.said), 180, "the API answers")
        wait_until(lambda: client.get("/readyz").is_success, what="it takes messages and labels")
        assert not client.get("/readyz").json()["parts"]["predict"]["ready"]
        learner = nursery.start("learn", *flags(stream))
        label = {"message_id": "m", "label": "ham", "text": "hello there"}
        assert client.post("/feedback", json=label).status_code == 202
        wait_until(lambda: client.post("/predict", json={"text": "hello"}).is_success, 180, "the first label is served")
        wait_until(lambda: client.get("/readyz").json()["parts"]["learn"]["ready"], what="it learns")
        assert client.get("/readyz").json()["parts"]["predict"]["ready"]
        assert client.post("/predict", json={"text": "hello"}).json()["predictions"][0]["label"] == "ham"
        learner.send(signal.SIGTERM)
        assert learner.wait() == 0, learner.said
        assert client.post("/predict", json={"text": "hello"}).is_success, "the API goes on without the learner"
        server.send(signal.SIGINT)
        assert server.wait() == 0, server.said
        assert "Traceback" not in server.said
