"""A Kafka of several nodes, each on a host of its own (tests/net.py)."""

import subprocess
from pathlib import Path

from tests.kafka.broker import CLASSES, LOG4J, START_S, NoKafka, jars, java, wait_for_answer
from tests.net import Net

PROPERTIES = """
process.roles=broker,controller
node.id={number}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{address}:9092,CONTROLLER://{address}:9093
advertised.listeners=PLAINTEXT://{address}:9092
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor={replication}
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=2
num.io.threads=2
"""
CLUSTER_ID = "ZHJpZnRsaW5lY2x1c3Rlcg"


class Nodes:
    """So many nodes of Apache Kafka in KRaft mode, on hosts k1, k2 and so on."""

    def __init__(self, net: Net, directory: Path, n: int) -> None:
        self._net, self._directory = net, directory
        self._java, self._jars = java(), jars()
        self.names = [f"k{number}" for number in range(1, n + 1)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        addresses = [net.host(name) for name in self.names]
        self.bootstrap = ",".join(f"{address}:9092" for address in addresses)
        voters = ",".join(f"{number}@{address}:9093" for number, address in enumerate(addresses, 1))
        for number, (name, address) in enumerate(zip(self.names, addresses, strict=True), 1):
            (root := directory / name).mkdir(parents=True)
            (root / "log4j2.yaml").write_text(LOG4J)
            known = {"number": number, "voters": voters, "address": address, "data": root / "data"}
            (root / "server.properties").write_text(PROPERTIES.format(**known, replication=n))
            format_it = ("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(root / "server.properties"))
            self._run(name, *format_it).wait(START_S)

    def start(self, *names: str) -> None:
        """Start these nodes, or all, and return once they answer."""
        for name in names or self.names:
            self._processes[name] = self._run(name, "kafka.Kafka", str(self._directory / name / "server.properties"))
        for name in names or self.names:
            try:
                wait_for_answer(f"{self._net.host(name)}:9092", self._processes[name])
            except BaseException as error:
                raise NoKafka(f"node {name} did not start: {error}") from None

    def kill(self, name: str) -> None:
        """End a node as a crash would."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End all."""
        for name in list(self._processes):
            self.kill(name)

    def _run(self, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        root, kept = self._directory / name, self._jars / CLASSES
        command = [
            *("ip", "netns", "exec", self._net.namespace(name)),
            *(self._java, "-Xlog:disable", *([f"-XX:SharedArchiveFile={kept}"] if kept.exists() else [])),
            *("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            f"-Dlog4j2.configurationFile={root / 'log4j2.yaml'}",
            *("-cp", f"{self._jars}/*", *arguments),
        ]
        with (root / "node.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=root)
