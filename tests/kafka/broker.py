"""Where do the tests get a real Kafka?

In this order: brokers that DRIFTLINE_TEST_KAFKA names, a container of apache/kafka, Apache Kafka itself on this
machine's Java (its jars resolved by Maven into jars/, once). Why the earlier ones were not to be had stands in NoKafka.
"""

import gc
import os
import re
import shutil
import signal
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests import maven
from tests.ports import reserve

IMAGE = "apache/kafka:4.1.1"
HERE = Path(__file__).parent
START_S = 180.0
# Classes as Java holds them, left by the first node that ends in good order: each later start takes half of the
# processor time. Java itself looks whether they are of these jars.
CLASSES = "classes.jsa"
JAVA = 17

# SASL is there for the tests of a wrong password, PROXIED for those that stand between a client and the broker.
SASL_USER, SASL_PASSWORD = "alice", "alice-secret"
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},PROXIED://127.0.0.1:{behind},\
CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=2
num.io.threads=2
"""
LOG4J = """
Configuration:
  Appenders:
    Console: {name: out, PatternLayout: {pattern: "%d %p %m (%c)%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: out}}
"""


class NoKafka(Exception):
    """No Kafka can be had in one of the ways, or in any; the text says why."""


class Broker:
    """One node of Apache Kafka in KRaft mode; its ports and its data stay the same over stop and start."""

    def __init__(self, directory: Path) -> None:
        self._java, self._jars = java(), jars()
        self._directory = directory
        self._log = directory / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        # Held to the end: nobody else gets one while the node is down.
        self._holders = {name: reserve() for name in ("plain", "sasl", "behind", "proxy", "controller")}
        self._ports = {name: holder.getsockname()[1] for name, holder in self._holders.items()}

    @property
    def bootstrap(self) -> str:
        """The address that takes anyone."""
        return f"127.0.0.1:{self._ports['plain']}"

    @property
    def sasl_bootstrap(self) -> str:
        """The address that takes only SASL_USER with SASL_PASSWORD, by SASL_PLAINTEXT."""
        return f"127.0.0.1:{self._ports['sasl']}"

    @property
    def proxied(self) -> tuple[int, int]:
        """The port that this node calls its own to those who come by the second; a test puts a proxy there."""
        return self._ports["proxy"], self._ports["behind"]

    def freeze(self) -> None:
        """Let the node answer nothing, with its connections left open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen node go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it runs"
        self._process.send_signal(number)

    def start(self) -> None:
        """Start the node and return once it answers."""
        config = self._directory / "server.properties"
        if not config.exists():
            (self._directory / "log4j2.yaml").write_text(LOG4J)
            data = self._directory / "data"
            config.write_text(PROPERTIES.format(data=data, user=SASL_USER, password=SASL_PASSWORD, **self._ports))
            self._run("kafka.tools.StorageTool", "format", "-t", "ZHJpZnRsaW5ldGVzdHNrYQ", "-c", str(config)).wait(60)
        self._process = self._run("kafka.Kafka", str(config))
        try:
            wait_for_answer(self.bootstrap, self._process)
        except BaseException as error:
            self.kill()
            raise NoKafka(f"Apache Kafka did not start ({error}); the end of its log:\n{self._tail()}") from None

    def stop(self) -> None:
        """Shut the node down in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node as a crash would."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """Stop the node for good."""
        self.stop()
        for holder in self._holders.values():
            holder.close()

    def _end(self, by: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(by)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        made = self._directory / CLASSES
        if by == signal.SIGTERM and made.exists():
            own = self._jars / f"{os.getpid()}-{CLASSES}"
            shutil.move(made, own)
            own.replace(self._jars / CLASSES)

    def _run(self, *arguments: str) -> "subprocess.Popen[bytes]":
        kept = self._jars / CLASSES
        classes = f"SharedArchiveFile={kept}" if kept.exists() else f"ArchiveClassesAtExit={self._directory / CLASSES}"
        command = [
            *(
                self._java,
                f"-XX:{classes}",
                "-Xlog:disable",
                "-Xms128m",
                "-Xmx384m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
            ),
            f"-Dlog4j2.configurationFile={self._directory / 'log4j2.yaml'}",
            *("-cp", f"{self._jars}/*", *arguments),
        ]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory)

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])


class ContainerBroker:
    """The same in a container."""

    sasl_bootstrap = proxied = None

    def __init__(self, directory: Path) -> None:
        del directory
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415  (slow, and only wanted here)

        if reason := no_container():
            raise NoKafka(reason)
        self._holder, controller = reserve(), 9093
        port = self._holder.getsockname()[1]
        self.bootstrap = f"127.0.0.1:{port}"
        settings = {
            "KAFKA_NODE_ID": 1,
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@localhost:{controller}",
            "KAFKA_LISTENERS": f"PLAINTEXT://:9092,CONTROLLER://:{controller}",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{self.bootstrap}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": 1,
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": 1,
            "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": 1,
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": 1,
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": 1,
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": 0,
            "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": 500,
        }
        self._container = DockerContainer(IMAGE).with_bind_ports(9092, port)
        for name, value in settings.items():
            self._container.with_env(name, str(value))
        self._made = False

    def start(self) -> None:
        """Start the container and return once it answers."""
        try:
            if self._made:
                self._container.get_wrapped_container().start()
            else:
                self._made = True
                self._container.start()
            wait_for_answer(self.bootstrap)
        except Exception as error:
            self.remove()
            raise NoKafka(f"a container of {IMAGE} did not start ({error})") from None

    def stop(self) -> None:
        """Shut the node down in good order; its data stay."""
        self._container.get_wrapped_container().stop(timeout=30)

    def kill(self) -> None:
        """End the node as a crash would; its data stay."""
        self._container.get_wrapped_container().kill()

    def freeze(self) -> None:
        """Let the node answer nothing, with its connections left open."""
        self._container.get_wrapped_container().pause()

    def thaw(self) -> None:
        """Let a frozen node go on."""
        self._container.get_wrapped_container().unpause()

    def remove(self) -> None:
        """Delete the container with its data."""
        if self._made:
            self._made = False
            self._container.stop()
        self._holder.close()


def start_broker(directory: Path) -> Broker | ContainerBroker:
    """Start a broker that the caller may stop and start: a container, else one on this machine's Java.

    Raises
    ------
    NoKafka : with the reasons of both.
    """
    reasons = []
    for kind in (ContainerBroker, Broker):
        try:
            broker = kind(directory)
        except NoKafka as error:
            reasons.append(str(error))
            continue
        try:
            broker.start()
            return broker
        except NoKafka as error:
            broker.remove()
            reasons.append(str(error))
    raise NoKafka("; ".join(reasons))


def end_broker(broker: Broker | ContainerBroker) -> None:
    """Stop a broker for good."""
    broker.remove()


def wait_for_answer(bootstrap: str, process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Wait until a broker knows its cluster."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})
    deadline = time.monotonic() + START_S
    while True:
        try:
            if admin.list_topics(timeout=1).brokers:
                return
        except KafkaException:
            pass
        if process is not None and process.poll() is not None:
            raise NoKafka(f"it ended with exit status {process.returncode}")
        if time.monotonic() > deadline:
            raise NoKafka(f"no answer within {START_S:.0f} seconds")


def no_container() -> str:
    """Return why no container of Kafka can be had, "" where it can."""
    import docker  # noqa: PLC0415  (slow, and only wanted here)

    client = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the library forgets a socket that nobody answers on
        try:
            client = docker.from_env(timeout=5)
            client.ping()
        except Exception as error:
            reason = f"no Docker daemon answers ({type(error).__name__})"
        else:
            reason = _no_image(client)
        if client is not None:
            client.close()
        gc.collect()
    return reason


def _no_image(client: Any) -> str:
    try:
        if not client.images.list(name=IMAGE):
            client.images.pull(*IMAGE.split(":"))
    except Exception as error:
        return f"Docker answers, but the image {IMAGE} cannot be had ({type(error).__name__})"
    return ""


def java() -> str:
    """Return a Java that runs Kafka 4."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if found is None:
        raise NoKafka("there is no Java")
    version = subprocess.run([found, "-version"], capture_output=True, text=True, check=False, timeout=60).stderr
    number = re.search(r'version "(\d+)', version)
    if number is None or int(number[1]) < JAVA:
        raise NoKafka(f"Kafka 4 needs Java {JAVA}, this is {version.splitlines()[0] if version else 'none'}")
    return found


def jars() -> Path:
    """Return the directory of Kafka's jars."""
    try:
        return maven.jars(HERE)
    except maven.NoJars as error:
        raise NoKafka(str(error)) from None
