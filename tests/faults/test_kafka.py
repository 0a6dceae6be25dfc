"""What happens to a Kafka beneath a learner, and what must hold after it: a broker of its own, that these tests stop.

A model that lost nothing is, byte for byte, that of a learner that was never disturbed.
"""

import contextlib
import ctypes
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import confluent_kafka as ck
import httpx
import pytest
from broker import Broker, ContainerBroker, end_broker

from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.service import learn
from driftline.learner.report.status import read_status
from driftline.learner.state import watch
from driftline.stream.errors import LogUnavailable, RecordsLost
from driftline.stream.log.base import Log, NewRecord, TopicPartition
from driftline.stream.log.kafka import librdkafka
from driftline.stream.log.kafka.log import KafkaLog
from driftline.stream.log.kafka.sender import Sender
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import decode_prediction
from tests.conftest import start_or_skip
from tests.faults.proxy import Proxy
from tests.faults.serving import api
from tests.faults.stage import MODEL, START_MS, KafkaStage, finish, label, learned, message, oracle, steps
from tests.often import TORTURE
from tests.place import running
from tests.waiting import wait_until

# librdkafka gives up sooner, so that the tests see what comes after that.
WITHIN_S = 10 if TORTURE else 60  # a learner ends that is told to
SHORT = "delivery.timeout.ms=1500&reconnect.backoff.max.ms=200&socket.timeout.ms=3000"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker | ContainerBroker]:
    """Give a broker that these tests may stop, if they start it again."""
    broker = start_or_skip(tmp_path_factory.mktemp("faults"))
    yield broker
    end_broker(broker)


@pytest.fixture
def stage(broker: Broker | ContainerBroker, tmp_path: Path) -> Iterator[KafkaStage]:
    url = f"kafka://{broker.bootstrap}?{SHORT}"
    stream = StreamSettings(data=tmp_path / "data", log=url, prefix=f"{uuid4().hex}.")
    patient = stream.model_copy(update={"log": f"kafka://{broker.bootstrap}"})
    with (
        contextlib.closing(KafkaStage(stream, broker.bootstrap)) as stage,
        contextlib.closing(open_log(patient)) as stage.outside,  # on a busy machine a broker may take its time
    ):
        yield stage


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.2)
    monkeypatch.setattr(watch, "MISSING_S", 0.1)


@pytest.fixture
def proxy(broker: Broker | ContainerBroker) -> Iterator[Proxy]:
    if broker.proxied is None:
        pytest.skip("the container has no listener for a proxy")
    with contextlib.closing(Proxy(*broker.proxied)) as proxy:
        yield proxy


@pytest.fixture
def behind(stage: KafkaStage, proxy: Proxy, broker: Broker) -> Iterator[Log]:
    """Give the stage's log as it is seen through the proxy."""
    assert proxy.delay_s == 0
    url = f"kafka://127.0.0.1:{broker.proxied[0]}?{SHORT}"
    with contextlib.closing(open_log(stage.stream.model_copy(update={"log": url}))) as log:
        yield log


def predictions(stage: KafkaStage) -> dict[str, set[bytes]]:
    """Return what was predicted for each message: all that was ever written."""
    topic = stage.stream.topics.predictions
    reader = stage.log.reader({TopicPartition(topic, p): 0 for p in range(stage.log.partition_count(topic))})
    found: dict[str, set[bytes]] = {}
    with contextlib.closing(reader):
        while not all(map(reader.at_end, reader.partitions)):
            for record in reader.read(1000, 0.2):
                assert record.value is not None
                found.setdefault(decode_prediction(record.value).message_id, set()).add(record.value)
    return found


def check(stage: KafkaStage, tmp_path: Path, n: int) -> None:
    """Nothing was lost, nothing learned twice, and each message has one prediction, however often it was written."""
    assert stage.model() == oracle(tmp_path, range(n))
    manifest = stage.newest().manifest
    assert (manifest.counts.messages_seen, manifest.counts.labels_learned) == (n, n)
    assert manifest.losses.losses == 0
    found = predictions(stage)
    assert found.keys() == {str(number) for number in range(n)}
    assert all(len(contents) == 1 for contents in found.values())


# A topic's life.


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("more", [5, 60])
@pytest.mark.parametrize("accept", [False, True])
def test_topics_made_again_while_it_runs(stage: KafkaStage, tmp_path: Path, more: int, accept: bool) -> None:
    """With 60, Kafka's client goes on in the new topic at the old offset; what it read there is not learned twice."""
    feedback = stage.stream.topics.feedback
    stage.append(range(40))
    with stage.learning(accept_loss=accept) as learner:
        steps(learner, learned(learner, 40))
        steps(learner, lambda: learner._work.known[feedback].watermarks[0].high == 40)
        assert learner._save()
        stage.recreate()
        stage.append(range(100, 100 + more))
        if accept:
            steps(learner, lambda: learner.status("running").losses.losses)
            steps(learner, learned(learner, 40 + more))
            finish(learner)
        else:
            with pytest.raises(
                RecordsLost, match=rf"{feedback}\[0\]: no record is known to be lost, but the topic was"
            ):
                steps(learner, lambda: False)
    if not accept:
        with pytest.raises(RecordsLost, match="deleted and made again"), stage.learning():
            pass
        with stage.learning(accept_loss=True) as learner:
            steps(learner, learned(learner, 40 + more))
            finish(learner)
    assert stage.model() == oracle(tmp_path, range(40), range(100, 100 + more))
    assert stage.newest().manifest.counts.labels_learned == 40 + more
    assert {loss.why for loss in stage.newest().manifest.losses.recent} == {"recreated"}


@pytest.mark.usefixtures("often")
def test_topics_deleted_while_it_runs(stage: KafkaStage) -> None:
    stage.append(range(10))
    with stage.learning() as learner:
        steps(learner, learned(learner, 10))
        stage.append(range(10, 13))
        steps(learner, lambda: learner._work.known[stage.stream.topics.feedback].watermarks[0].high == 13)
        stage.delete(stage.stream.topics[:2])
        with pytest.raises(RecordsLost, match="the topic was deleted"):
            steps(learner, lambda: False)


@pytest.mark.usefixtures("often")
def test_the_predictions_topic_is_made_again_by_itself(stage: KafkaStage, tmp_path: Path) -> None:
    stage.append(range(10))
    with stage.learning() as learner:
        steps(learner, learned(learner, 10))
        stage.delete([stage.stream.topics.predictions])
        stage.append(range(10, 30))
        steps(learner, learned(learner, 30))
        steps(learner, lambda: learner._work.outbox.delivered == learner._work.batch and learner._doubt is None, 60)
        finish(learner)
    assert stage.model() == oracle(tmp_path, range(30))
    assert predictions(stage).keys() >= {str(number) for number in range(10, 30)}


# Records that go.


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("accept", [False, True])
def test_records_deleted_before_a_running_learner_has_them(
    stage: KafkaStage, behind: Log, proxy: Proxy, tmp_path: Path, accept: bool
) -> None:
    feedback = stage.stream.topics.feedback
    stage.append(range(20))
    with stage.learning(behind, accept_loss=accept) as learner:
        steps(learner, learned(learner, 20))
        proxy.hold()  # no fetch is at the broker, which would give it what is appended now
        stage.append(range(20, 50))
        for topic in stage.stream.topics[:2]:
            stage.drop_below(topic, 35)
        proxy.held = False
        if accept:
            steps(learner, learned(learner, 35))
            finish(learner)
        else:
            with pytest.raises(RecordsLost, match=rf"{feedback}\[0\]: 15 records lost, offsets 20 to 34 are gone"):
                steps(learner, lambda: False)
    if not accept:
        with stage.learning(accept_loss=True) as learner:
            steps(learner, learned(learner, 35))
            finish(learner)
    assert stage.model() == oracle(tmp_path, range(20), range(35, 50))
    assert stage.newest().manifest.losses.by_topic == dict.fromkeys(stage.stream.topics[:2], 15)


# A broker that is away, or slow.


def status(stage: KafkaStage) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((stage.stream.data / "status.json").read_bytes())
    except FileNotFoundError:
        return {"counts": {"labels_learned": -1}, "state": "none", "at": 0.0}
    return found


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    "how",
    [
        "kill",
        pytest.param("freeze", marks=pytest.mark.skipif(not TORTURE, reason="in `make torture` only: 16 s")),
    ],
)
def test_a_broker_that_is_away_is_waited_for(
    stage: KafkaStage, broker: Broker, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than librdkafka's timeouts; with output on its way, and a checkpoint due."""
    monkeypatch.setattr(watch, "PATIENCE_S", 0.5)
    stage.append(range(500))
    with stage.learning(batch_records=20, checkpoint_interval_s=0.3) as learner:
        steps(learner, learned(learner, 100))
        broker.kill() if how == "kill" else broker.freeze()
        away_at = time.time()
        try:
            away_until = time.monotonic() + (2.0 if how == "kill" else 3.5)  # see SHORT
            steps(learner, lambda: status(stage)["state"] == "waiting" and time.monotonic() > away_until)
            assert "the log has not answered for" in status(stage)["detail"]
            assert status(stage)["at"] > away_at
        finally:
            broker.start() if how == "kill" else broker.thaw()
        steps(learner, learned(learner, 500), 60)
        assert stage.outside.submit(stage.stream.topics.messages, [message(n) for n in range(500, 600)]).result(120)
        steps(learner, lambda: learner.status("running").counts.messages_seen == 600, 60)
        steps(learner, lambda: status(stage)["state"] == "running", 90)  # its topics have leaders again
        stage.append(range(600, 610))
        steps(learner, learned(learner, 510), 60)
        steps(learner, learner._save)
    assert {"a", "b"} == set(stage.newest().manifest.labels)
    assert stage.model() == oracle(tmp_path, range(500), range(600, 610))
    found = predictions(stage)
    assert found.keys() == {str(number) for number in range(610)}
    assert all(len(contents) == 1 for contents in found.values()), "what was written again is the same"


def answers(stage: KafkaStage) -> bool:
    try:
        return bool(stage.log.describe(stage.stream.topics))
    except LogUnavailable:
        return False


@pytest.mark.usefixtures("often")
def test_sigterm_while_the_broker_is_away(
    stage: KafkaStage, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends in time, without a checkpoint; the journal has what the next start needs."""
    monkeypatch.setattr(watch, "PATIENCE_S", 0.5)
    stage.append(range(300))
    ended_in = []

    def disturb() -> None:
        wait_until(lambda: status(stage)["counts"]["labels_learned"] == 300, 60, "it has learned")
        broker.freeze()
        wait_until(lambda: status(stage)["state"] == "waiting", 60, "it says that it waits")
        found = read_status(stage.stream.data)
        assert found is not None
        assert found.alive
        ended_in.append(-time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        disturbed = pool.submit(disturb)
        try:
            learn(stage.stream, LearnerSettings(model=MODEL, checkpoint_interval_s=1e6))
            ended_in.append(time.monotonic())
        finally:
            broker.thaw()
        disturbed.result()
    assert sum(ended_in) < WITHIN_S
    assert stage.newest().manifest.counts.labels_learned == 0
    wait_until(lambda: answers(stage), 60, "the broker answers again")
    with stage.learning() as learner:
        finish(learner)
    check(stage, tmp_path, 300)


def test_a_learner_and_an_api_that_start_while_the_broker_is_away(
    stage: KafkaStage, broker: Broker, tmp_path: Path
) -> None:
    """They wait, and say so; a signal ends the learner in time; once the broker is there they go on by themselves."""
    stage.append(range(100))
    settings, ended_in = LearnerSettings(model=MODEL), []

    def waiting() -> bool:
        return status(stage)["state"] == "waiting" and "check that the brokers run" in status(stage)["detail"]

    def stop() -> None:
        wait_until(waiting, 60, "it says that it waits")
        ended_in.append(-time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    def mend(client: httpx.Client) -> None:
        wait_until(waiting, 60, "it says that it waits")
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "the log" in answer.text or "kafka" in answer.text
        assert client.post("/feedback", json={"message_id": "m", "label": "a"}).status_code == 503
        broker.start()

    with ThreadPoolExecutor(1) as pool:
        broker.stop()
        try:
            stopping = pool.submit(stop)
            learn(stage.stream, settings)
            ended_in.append(time.monotonic())
            stopping.result()
            assert sum(ended_in) < WITHIN_S
            assert status(stage)["state"] == "stopped"
            (stage.stream.data / "status.json").unlink()
            with api(stage.stream) as client:
                mending = pool.submit(mend, client)
                learn(stage.stream, settings, stop_at_end=True)
                mending.result()
                wait_until(lambda: client.get("/readyz").is_success, 60, "the API is ready")
        finally:
            if not answers(stage):
                broker.start()
    check(stage, tmp_path, 100)


@pytest.mark.usefixtures("often")
def test_a_slow_broker(stage: KafkaStage, behind: Log, proxy: Proxy, tmp_path: Path) -> None:
    """Each answer takes a while: nothing fails, and no step stands still for a look at the log."""
    proxy.delay_s = 0.1
    stage.append(range(200))
    meanwhile = 0
    with stage.learning(behind, batch_records=50) as learner:
        deadline = time.monotonic() + 60
        while not (learned(learner, 200)() and learner._watch._number >= 2) and time.monotonic() < deadline:
            look = learner._watch._asked
            learner.step(0.02)
            meanwhile += look is not None and learner._watch._asked is look
        looks = learner._watch._number
        finish(learner)
    assert looks >= 2
    assert meanwhile > looks, "steps that ended while a look was under way"
    check(stage, tmp_path, 200)


def test_a_consumer_of_the_same_group_comes_and_goes(
    stage: KafkaStage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The group is only for lag tools: nobody can take partitions away."""
    caplog.set_level("WARNING")
    config = {"bootstrap.servers": stage.stream.log_url.removeprefix("kafka://").partition("?")[0]}
    with stage.learning(batch_records=20, checkpoint_interval_s=0.05) as learner:
        stage.append(range(100))
        steps(learner, learned(learner, 100))
        other = ck.Consumer({**config, "group.id": "driftline", "auto.offset.reset": "earliest"})
        with contextlib.closing(other):
            other.subscribe(list(stage.stream.topics[:2]))
            taken: list[Any] = []

            def take() -> list[Any]:
                taken.extend(other.consume(10, 0.02))
                return taken

            steps(learner, lambda: [take(), other.assignment()][-1])
            stage.append(range(100, 200))  # it begins where the learner has committed: there must be more behind that
            steps(learner, take)
            steps(learner, learned(learner, 200))
            steps(learner, lambda: "positions were not committed" in caplog.text)
        stage.append(range(200, 300))
        steps(learner, learned(learner, 300))
        finish(learner)
    check(stage, tmp_path, 300)
    committed = stage.log.committed("driftline", learner.positions)
    assert committed == learner.positions


# A producer that librdkafka gave up.


def break_producer(log: KafkaLog) -> None:
    """Have librdkafka itself raise a fatal error in a log's producer."""
    library = librdkafka.load()
    sender = log._producer._sender
    assert isinstance(sender, Sender)
    handle = sender._client
    library.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    assert library.rd_kafka_test_fatal_error(handle, ck.KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, b"a test") == 0


def test_a_producer_with_a_fatal_error_is_made_anew(stage: KafkaStage, tmp_path: Path) -> None:
    assert isinstance(stage.log, KafkaLog)
    stage.append(range(100))
    with stage.learning(batch_records=10) as learner:
        steps(learner, learned(learner, 40))
        old = stage.log._producer._sender
        break_producer(stage.log)
        steps(learner, learned(learner, 100))
        finish(learner)
    assert stage.log._producer._sender is not old
    check(stage, tmp_path, 100)


def test_what_is_on_its_way_when_the_producer_breaks_fails_for_now(
    stage: KafkaStage, behind: Log, proxy: Proxy
) -> None:
    """It may be written or not: that is said, and whoever sent it sends it again."""
    assert isinstance(behind, KafkaLog)
    topic = stage.stream.topics.messages
    wait_until(lambda: appends(behind, topic, 0), what="the broker takes records")
    proxy.held = True
    futures = [behind.submit(topic, [message(number)]) for number in range(1, 20)]
    break_producer(behind)
    for future in futures:
        with pytest.raises(LogUnavailable):
            future.result(60)
    proxy.held = False
    wait_until(lambda: appends(behind, topic, 20), what="the broker takes records again")


def appends(log: Log, topic: str, number: int) -> bool:
    """Append a message; tell whether that was done before librdkafka gave up."""
    try:
        return bool(log.append(topic, [message(number)]))
    except LogUnavailable:
        return False


# Gaps, and what is no record.


@pytest.mark.usefixtures("often")
def test_gaps_of_transactions_and_tombstones(stage: KafkaStage, tmp_path: Path) -> None:
    bootstrap = stage.stream.log_url.removeprefix("kafka://").partition("?")[0]
    messages, feedback = stage.stream.topics[:2]
    producer = ck.Producer({"bootstrap.servers": bootstrap, "transactional.id": uuid4().hex})
    producer.init_transactions(30)

    def transaction(numbers: range, *, commit: bool) -> None:
        producer.begin_transaction()
        with contextlib.closing(Collected()) as records:
            stage.append(numbers, records)  # type: ignore[arg-type]
        for topic, record in records.taken:
            producer.produce(topic, record.value, record.key, timestamp=record.timestamp_ms)
        producer.produce(feedback, None, b"tombstone", timestamp=START_MS + 2 * numbers[-1])
        producer.produce(messages, None, b"tombstone", timestamp=START_MS + 2 * numbers[-1])
        producer.flush(30)
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)

    for turn in range(4):
        transaction(range(10 * turn, 10 * turn + 10), commit=True)
        transaction(range(500, 510), commit=False)
    with stage.learning(batch_records=7) as learner:
        steps(learner, learned(learner, 25))
    with stage.learning(batch_records=7) as learner:  # replays over the gaps
        steps(learner, learned(learner, 40))
        steps(learner, lambda: learner._work.merger.at_end)
    highs = {topic: state.watermarks[0].high for topic, state in stage.log.describe([messages, feedback]).items()}
    with stage.learning() as learner:
        steps(learner, lambda: learner._work.merger.at_end)
        # All of it goes, and the log begins behind the last marker: no record is lost, and none is said to be.
        for topic, high in highs.items():
            stage.drop_below(topic, high)
        expected = {topic: {"0": high} for topic, high in highs.items()}
        steps(learner, lambda: stage.newest().manifest.positions == expected)
    with stage.learning() as learner:
        finish(learner)
    assert stage.newest().manifest.counts.tombstones == 8
    check(stage, tmp_path, 40)


class Collected:
    """Takes records as a log does, for someone else to send."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, NewRecord]] = []

    def append(self, topic: str, records: list[NewRecord]) -> None:
        self.taken += [(topic, record) for record in records]

    def close(self) -> None:
        pass


class Transactions:
    """A producer whose transactions hold messages with their labels."""

    def __init__(self, stage: KafkaStage) -> None:
        bootstrap = stage.stream.log_url.removeprefix("kafka://").partition("?")[0]
        self._topics = stage.stream.topics
        self._producer = ck.Producer({"bootstrap.servers": bootstrap, "transactional.id": uuid4().hex})
        self._producer.init_transactions(60)

    def open(self, numbers: range) -> None:
        """Begin one, and have all of it in the log, undecided."""
        self._producer.begin_transaction()
        for number in numbers:
            for topic, record in ((self._topics.messages, message(number)), (self._topics.feedback, label(number))):
                self._producer.produce(topic, record.value, record.key, timestamp=record.timestamp_ms, partition=0)
        assert self._producer.flush(60) == 0

    def end(self, *, commit: bool) -> None:
        self._producer.commit_transaction(60) if commit else self._producer.abort_transaction(60)


@pytest.mark.usefixtures("often")
def test_an_open_transaction_is_no_stall(stage: KafkaStage, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be read does not wait: lag ends at the last stable offset. What is held back, and why, is said."""
    transactions, topics = Transactions(stage), stage.stream.topics[:2]
    with stage.learning(stall_after_s=0.5) as learner:
        stage.append(range(10))
        steps(learner, learned(learner, 10))
        transactions.open(range(10, 20))
        stage.append(range(20, 30))  # behind it: nobody who reads what is committed sees them
        held = {TopicPartition(topic, 0): 20 for topic in topics}
        steps(learner, lambda: learner._work.held_back == held)
        until = time.monotonic() + 2
        steps(learner, lambda: time.monotonic() > until)
        assert learner._work.lag == 0
        assert learner.status("running").counts.labels_seen == 10
        assert "no record was taken" not in caplog.text
        steps(
            learner, lambda: "holds back 20 offsets" in status(stage)["detail"] and status(stage)["state"] == "running"
        )
        with running(stage.stream) as url, httpx.Client(base_url=url, timeout=60) as client:
            wait_until(lambda: client.get("/model").json()["held_back"], what="two looks")
            model, ready = client.get("/model").json(), client.get("/readyz").json()
            assert model["held_back"] == {topic: {"0": 20} for topic in topics}
            assert model["lag"] == {topic: {"0": 0} for topic in topics}
            assert any("an open transaction holds back 20 offsets" in each for each in ready["warnings"])
            metrics = client.get("/metrics").text
            assert f'driftline_held_back_offsets{{partition="0",topic="{topics[0]}"}} 20.0' in metrics
        transactions.end(commit=False)
        steps(learner, learned(learner, 20))
        steps(learner, lambda: not learner._work.held_back)
        transactions.open(range(30, 40))
        transactions.end(commit=True)
        steps(learner, learned(learner, 30))
        transactions.open(range(40, 50))
        transactions.end(commit=False)  # records and markers at the end, and nothing to read

        def high() -> int:  # asked again and again: the markers are written after the end was acknowledged
            return stage.log.describe(topics)[topics[0]].watermarks[0].high

        steps(learner, lambda: learner._work.known[topics[0]].watermarks[0].high == high() > 50)
        steps(learner, lambda: learner._work.lag == 0)
        steps(learner, lambda: not status(stage)["detail"])
        finish(learner)
    assert stage.model() == oracle(tmp_path, range(10), range(20, 40))
    transactions.open(range(50, 60))
    stage.learn()  # up to the end: that of what can be read
    assert stage.newest().manifest.counts.labels_learned == 30
    transactions.end(commit=True)
    stage.learn()
    assert stage.newest().manifest.counts.labels_learned == 40
