"""Is the log on Kafka what a foreign client sees, and does it bear what a cluster does?"""

import contextlib
import gc
import importlib
import time
import weakref
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import confluent_kafka
import pytest
from broker import SASL_PASSWORD, SASL_USER
from confluent_kafka.admin import AdminClient

from driftline.stream.errors import ConfigError, LogError, LogUnavailable, OffsetsLost
from driftline.stream.log.base import Appended, Log, NewRecord, Record, TopicPartition
from driftline.stream.log.kafka import cluster as kafka_cluster
from driftline.stream.log.kafka import librdkafka
from driftline.stream.log.kafka.log import KafkaLog
from driftline.stream.log.kafka.options import kafka_address, topic_config
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.logs import Open, new, numbered, read_all, reading
from tests.waiting import wait_until

# kafka-python loads its schemas in a way that Python 3.11 calls deprecated, some only when they are used.
KAFKA_PYTHON = pytest.mark.filterwarnings(r"ignore:(read|open)_text is deprecated:DeprecationWarning")


def test_who_waits_for_a_controller_that_has_gone_asks_who_is_there_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the brokers any may be the controller, and one is where an admin request waits for minutes."""
    monkeypatch.setattr(kafka_cluster, "STUCK_S", 0.01)
    monkeypatch.setattr(kafka_cluster, "SLICE_S", 0.01)
    cluster = kafka_cluster.Cluster(StreamSettings(log="kafka://127.0.0.1:1"))
    answer: Future[str] = Future()

    class Admin:
        """Stands in for librdkafka's, which no cluster on one machine makes wait so long for sure."""

        asked = 0

        def list_topics(self, timeout: float) -> None:
            self.asked += 1
            if self.asked == 1:
                raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(confluent_kafka.KafkaError._TRANSPORT))
            assert timeout == kafka_cluster.STUCK_S
            answer.set_result("there")

    monkeypatch.setattr(cluster, "admin", Admin())
    assert cluster.wait("a question", answer, 60.0) == "there"


def test_a_broker_that_knows_no_end_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Just started, it may say no error and no offset: that was taken for a topic that had lost all its records."""
    cluster = kafka_cluster.Cluster(StreamSettings(log="kafka://127.0.0.1:1"))
    partition, said = confluent_kafka.TopicPartition("messages", 0), [-1001, -1, 150]

    class Admin:
        """Stands in for librdkafka's: when a broker answers so no test can choose."""

        def list_offsets(self, *_: object, **__: object) -> dict[confluent_kafka.TopicPartition, Future[Any]]:
            answer: Future[Any] = Future()
            answer.set_result(SimpleNamespace(offset=said.pop(0) if len(said) > 1 else said[0]))
            return {partition: answer}

    monkeypatch.setattr(cluster, "admin", Admin())
    level = confluent_kafka.IsolationLevel.READ_COMMITTED
    messages = TopicPartition("messages", 0)
    assert cluster.ends([messages], kafka_cluster.LAST, level) == {messages: 150}
    assert said == [150]
    said[:] = [-1001]
    monkeypatch.setattr(kafka_cluster, "REQUEST_S", 0.2)
    with pytest.raises(LogUnavailable, match=r"no broker knows where messages\[0\] begins and ends"):
        cluster.ends([messages], kafka_cluster.LAST, level)


class TestKafka:
    """What only Kafka has to show."""

    @pytest.fixture
    def log(self, opened: Open, kafka: str, topic: str) -> Log:
        log = opened(f"kafka://{kafka}", partitions=3)
        log.create_topics([topic])
        return log

    def test_librdkafka_has_the_interface_that_is_read_through(self) -> None:
        assert librdkafka.load() is not None

    @KAFKA_PYTHON
    def test_reads_what_another_client_wrote(self, log: Log, kafka: str, topic: str) -> None:
        keys = [b"key %d" % i for i in range(60)]
        kafka_python = importlib.import_module("kafka")
        with contextlib.closing(kafka_python.KafkaProducer(bootstrap_servers=kafka)) as producer:
            headers = [("h", b"1"), ("empty", b"")]
            futures = [
                producer.send(topic, b"theirs", key, headers, timestamp_ms=1_000 + i) for i, key in enumerate(keys)
            ]
            theirs = [future.get(30).partition for future in futures]
        ours = [place.partition for place in log.append(topic, [NewRecord(key, b"ours") for key in keys])]
        assert ours == theirs  # a key has the same partition, whoever wrote it
        with reading(log, topic, 0, 0, 0) as reader:
            records = [record for record in read_all(reader, 120) if record.value == b"theirs"]
        assert {(r.key, r.timestamp_ms) for r in records} == {(key, 1_000 + i) for i, key in enumerate(keys)}
        assert records[0].headers == [("h", b"1"), ("empty", b"")]

    @KAFKA_PYTHON
    def test_another_client_reads_what_was_appended(self, log: Log, kafka: str, topic: str) -> None:
        log.append(topic, [NewRecord(b"%d" % i, b"value", 5_000 + i, [("h", b"\xff")]) for i in range(30)])
        kafka_python = importlib.import_module("kafka")
        consumer = kafka_python.KafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
        with contextlib.closing(consumer):
            consumer.assign([kafka_python.TopicPartition(topic, p) for p in range(3)])
            found: list[Any] = []
            wait_until(lambda: found.extend(r for rs in consumer.poll(200).values() for r in rs) or len(found) >= 30)
        assert {(r.key, r.value, r.timestamp) for r in found} == {(b"%d" % i, b"value", 5_000 + i) for i in range(30)}
        assert all(record.headers == [("h", b"\xff")] for record in found)

    def test_aborted_transactions_are_not_seen(self, log: Log, kafka: str, topic: str) -> None:
        producer = confluent_kafka.Producer({"bootstrap.servers": kafka, "transactional.id": topic})
        producer.init_transactions(30)
        for turn in range(4):
            producer.begin_transaction()
            for i in range(10):
                producer.produce(topic, b"%d %d" % (turn, i), partition=0)
            producer.flush(30)
            producer.abort_transaction(30) if turn % 2 else producer.commit_transaction(30)
        partition = TopicPartition(topic, 0)
        with reading(log, topic, 0) as reader:
            records = read_all(reader, 20)
            wait_until(lambda: reader.read(10, 0.1) == [] and reader.at_end(partition))
        assert [record.value for record in records] == [b"%d %d" % (turn, i) for turn in (0, 2) for i in range(10)]
        assert records[-1].offset + 1 < log.watermarks([topic])[partition].high  # markers take offsets too
        with reading(log, topic, records[-1].offset + 1) as reader:
            wait_until(lambda: reader.read(10, 0.1) == [] and reader.at_end(partition))

    def test_deleted_records_are_missed(self, log: Log, kafka: str, topic: str) -> None:
        partition = TopicPartition(topic, 0)
        log.append(topic, numbered(60))
        high = log.watermarks([topic])[partition].high
        admin = AdminClient({"bootstrap.servers": kafka})
        for future in admin.delete_records([confluent_kafka.TopicPartition(topic, 0, high - 2)]).values():
            future.result(30)
        assert log.watermarks([topic])[partition] == (high - 2, high)
        with reading(log, topic, 0) as reader:
            with pytest.raises(OffsetsLost, match="are gone") as lost:
                read_all(reader, 1)
            assert (lost.value.wanted, lost.value.low, lost.value.high) == (0, high - 2, high)
        with reading(log, topic, high - 2) as reader:
            assert len(read_all(reader, 2)) == 2

    def test_what_came_before_a_loss_is_returned(self, log: Log, topic: str) -> None:
        """One partition's failure must not swallow records of another that came in the same batch."""
        log.append(topic, numbered(60))
        marks = log.watermarks([topic])
        with reading(log, topic, 10_000, 0, 0) as reader:
            records: list[Record] = []
            with contextlib.suppress(OffsetsLost):
                for _ in range(100):
                    records += reader.read(100, 0.2)
            with pytest.raises(OffsetsLost):
                reader.read(100, 0.2)
            for partition in reader.partitions[1:]:
                offsets = [record.offset for record in records if record.partition == partition]
                assert offsets == list(range(len(offsets)))
                assert len(offsets) in (0, marks[partition].high)

    def test_a_group_with_members_is_left_alone(
        self, log: Log, kafka: str, topic: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        member = confluent_kafka.Consumer({"bootstrap.servers": kafka, "group.id": topic})
        with contextlib.closing(member):
            member.subscribe([topic])
            wait_until(lambda: member.poll(0.1) is None and member.assignment())
            log.commit(topic, {TopicPartition(topic, 0): 0})
        assert "positions were not committed" in caplog.text

    @pytest.mark.usefixtures("log")
    def test_topics_are_made_as_configured(self, kafka: str, topic: str) -> None:
        resource_ = confluent_kafka.admin.ConfigResource("topic", topic)
        admin = AdminClient({"bootstrap.servers": kafka})
        (future,) = admin.describe_configs([resource_]).values()
        entries = {name: entry.value for name, entry in future.result(30).items()}
        expected = topic_config(StreamSettings())
        assert {name: entries[name] for name in expected} == expected

    def test_a_header_without_a_value_is_empty(self, log: Log, kafka: str, topic: str) -> None:
        producer = confluent_kafka.Producer({"bootstrap.servers": kafka})
        producer.produce(topic, b"v", partition=0, headers=[("h", None)])
        assert producer.flush(30) == 0
        with reading(log, topic, 0) as reader:
            assert read_all(reader, 1)[0].headers == [("h", b"")]

    @KAFKA_PYTHON
    def test_a_header_that_is_not_utf8_stops_nobody(self, log: Log, kafka: str, topic: str) -> None:
        class NotUtf8(str):
            def encode(self, *_: Any) -> bytes:
                return b"\xff\xfe"

        kafka_python = importlib.import_module("kafka")
        with contextlib.closing(kafka_python.KafkaProducer(bootstrap_servers=kafka)) as producer:
            for i in range(90):  # enough for the interpreter to specialise the loop
                name = NotUtf8("h") if i % 3 == 1 else "h"
                producer.send(topic, b"%d" % i, headers=[("first", b""), (name, b"x")], partition=0)
            producer.flush(30)
        with reading(log, topic, 0) as reader:
            records = read_all(reader, 90)
        assert [record.value for record in records] == [b"%d" % i for i in range(90)]
        good = [("first", b""), ("h", b"x")]
        assert [record.headers for record in records] == [None if i % 3 == 1 else good for i in range(90)]

    @pytest.mark.parametrize("interface", ["librdkafka's own", "confluent-kafka's"])
    def test_what_came_before_a_refusal_is_in_the_log_first(
        self, opened: Open, kafka: str, topic: str, interface: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key is not looked at before: librdkafka refuses it when its turn comes. No later record is sent."""
        if interface != "librdkafka's own":
            monkeypatch.setattr(librdkafka, "load", lambda: None)
        log = opened(f"kafka://{kafka}", max_record_bytes=1_024)
        log.create_topics([topic])
        headers = [("h", b"1")]
        records = [NewRecord(b"k" * (100 << 10 if i == 70 else 1), b"%d" % i, 1, headers) for i in range(90)]
        for end in (90, 71):
            with pytest.raises(LogError, match=r"Message size too large.*max\.message\.bytes"):
                log.append(topic, records[:end])
        with pytest.raises(LogError, match="Message size too large"):
            log.append(topic, records[70:])
        assert log.watermarks([topic])[TopicPartition(topic, 0)].high == 140
        with reading(log, topic, 0) as reader:
            assert [record.value for record in read_all(reader, 140)] == [b"%d" % i for i in range(70)] * 2

    def test_a_producer_ends_with_its_log(self, kafka: str, topic: str) -> None:
        """Also one that was never closed: its sockets and threads are given back with what is on its way."""

        def n_threads() -> int:
            return len(list(Path("/proc/self/task").iterdir()))

        logs = [open_log(StreamSettings(log=f"kafka://{kafka}")) for _ in range(3)]
        logs[0].create_topics([topic])
        for log in logs:
            assert len(log.append(topic, numbered(10))) == 10
        ended = [weakref.ref(log._producer._sender) for log in logs if isinstance(log, KafkaLog)]
        before = n_threads()
        for log in logs:
            log.close()
        del log, logs
        wait_until(lambda: gc.collect() >= 0 and not any(each() for each in ended))
        wait_until(lambda: n_threads() < before - 6)

    def test_a_time_far_ahead_is_taken(self, log: Log, topic: str) -> None:
        (place,) = log.append(topic, new(b"a", timestamp_ms=4_102_444_800_000))
        assert place.offset == 0

    def test_a_broker_that_is_away_is_waited_for(self, opened: Open, own_kafka: Any, topic: str) -> None:
        log = opened(f"kafka://{own_kafka.bootstrap}?reconnect.backoff.max.ms=200")
        log.create_topics([topic])
        log.append(topic, numbered(10))
        with reading(log, topic, 0) as reader:
            read_all(reader, 10)
            own_kafka.kill()
            waiting = log.submit(topic, numbered(10, start=10))
            assert reader.read(10, 0.5) == []
            own_kafka.start()
            assert waiting.result(120) == [Appended(0, offset) for offset in range(10, 20)]
            assert [record.offset for record in read_all(reader, 10)] == list(range(10, 20))

    def test_appending_gives_up_in_time(self, opened: Open, own_kafka: Any, topic: str) -> None:
        log = opened(f"kafka://{own_kafka.bootstrap}?delivery.timeout.ms=1500&reconnect.backoff.max.ms=200")
        log.create_topics([topic])

        def appends() -> bool:  # a broker that has just started may take longer than this producer waits
            try:
                return len(log.append(topic, numbered(5))) == 5
            except LogUnavailable:
                return False

        wait_until(appends, 60, "the broker takes records")
        own_kafka.stop()
        with pytest.raises(LogUnavailable, match=own_kafka.bootstrap):
            log.append(topic, numbered(5))
        own_kafka.start()
        wait_until(appends, 60, "the broker takes records again")

    def test_no_broker_at_start(self, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kafka_cluster, "START_S", 1.0)
        with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1.*check that the brokers run"):
            opened("kafka://127.0.0.1:1")

    def test_a_wrong_password(
        self, opened: Open, kafka_broker: Any, tmp_path: Path, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kafka_cluster, "START_S", 60.0)
        if kafka_broker.sasl_bootstrap is None:
            pytest.skip("the container has no SASL listener")
        config = tmp_path / "client.properties"
        text = f"# SASL\nsecurity.protocol = SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username={SASL_USER}\n"
        config.write_text(f"{text}sasl.password={SASL_PASSWORD}\n")
        log = opened(f"kafka://{kafka_broker.sasl_bootstrap}", kafka_config=config)
        log.create_topics([topic])
        assert log.append(topic, new(b"a")) == [Appended(0, 0)]
        config.write_text(f"{text}sasl.password=wrong\n")
        start = time.monotonic()
        with pytest.raises(LogUnavailable, match="check the user, the password"):
            opened(f"kafka://{kafka_broker.sasl_bootstrap}", kafka_config=config)
        assert time.monotonic() - start < kafka_cluster.START_S

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("kafka://h:9092?no.such.thing=1", "no.such.thing"),
            ("kafka://h:9092?security.protocol=maybe", "security.protocol"),
            ("kafka://h:9092?acks=1", "acks cannot be set"),
            ("kafka://h:9092?delivery.report.only.error=true", "delivery.report.only.error cannot be set"),
            ("kafka://h:9092?client.id", "client.id"),
            ("kafka://h:9092?error_cb=1", "error_cb"),
            ("kafka://", "only hosts and ports"),
            ("kafka://user:secret@h:9092", "only hosts and ports"),
        ],
    )
    def test_an_address_that_cannot_be_meant(self, opened: Open, url: str, reason: str) -> None:
        with pytest.raises(ConfigError, match=reason) as refused:
            opened(url)
        assert "secret" not in str(refused.value)

    def test_properties(self, tmp_path: Path) -> None:
        path = tmp_path / "client.properties"
        path.write_text("# a comment\n\nsasl.password = a=b+c\nclient.id=file\n")
        settings = StreamSettings(log="kafka://a:1,b:2/?client.id=url&sasl.username=x%26+y", kafka_config=path)
        properties = {"sasl.password": "a=b+c", "client.id": "url", "sasl.username": "x&+y"}
        assert kafka_address(settings) == ("a:1,b:2", properties)
        path.write_text("client.id\n")
        with pytest.raises(ConfigError, match="line 1"):
            kafka_address(settings)
        path.unlink()
        with pytest.raises(ConfigError, match="cannot be read"):
            kafka_address(settings)

    def test_segments_fit_retention(self) -> None:
        small = topic_config(StreamSettings(retention_bytes=16 << 20, replication=3))
        assert (small["segment.bytes"], small["min.insync.replicas"]) == (str(2 << 20), "2")
        assert topic_config(StreamSettings())["segment.bytes"] == str(1 << 30)
