"""Which of several processes is chosen by Kafka?

All are members of one classic consumer group that is subscribed to a topic of one partition: the one that has the
partition is chosen. It stays so while it lives (cooperative-sticky): who comes later takes it from nobody. One that is
gone without a word is noticed after the session's time-out; one that leaves, at once. To be chosen is a hint, no lock:
two may take themselves for it for a while, and what is written has to tell them apart (learner/cluster/order.py).
"""

import logging
import threading
import time
from typing import Any, Final

import confluent_kafka as ck
from confluent_kafka import KafkaException

from driftline.stream.log.kafka.cluster import Cluster
from driftline.stream.process import threads
from driftline.stream.process.settings import StreamSettings

POLL_S: Final = 0.1
HEARTBEATS: Final = 12  # in a session: by them a member hears that it is chosen
RETRY_S: Final = 1.0
_LOG: Final = logging.getLogger(__name__)


class Election:
    """A membership, kept up by a thread of its own. The methods are for any thread.

    Parameters
    ----------
    topic : of one partition
    session_s : after so long without a word a member counts as gone
    """

    def __init__(self, settings: StreamSettings, topic: str, group: str, session_s: float) -> None:
        self._cluster, self._topic = Cluster(settings), topic
        self._options = {
            "group.id": group,
            "group.protocol": "classic",
            "session.timeout.ms": int(1000 * session_s),
            "heartbeat.interval.ms": int(1000 * session_s / HEARTBEATS),
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
            "auto.offset.reset": "latest",
        }
        self._chosen = threading.Event()
        self._closing = threading.Event()
        self._again = threading.Event()
        self._away_until = 0.0
        self._thread = threads.start("election", self._run)

    @property
    def chosen(self) -> bool:
        """Whether this process is the one, as far as it has heard."""
        return self._chosen.is_set() and not self._again.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is chosen, for a while; tell whether it is."""
        self._chosen.wait(timeout_s)
        return self.chosen

    def rejoin(self, after_s: float = 0.0) -> None:
        """Leave, and come in again as a new one, after a while: what was heard before does not count any more."""
        self._away_until = time.monotonic() + after_s
        self._again.set()

    def close(self) -> None:
        """Leave: the others choose anew."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            if time.monotonic() < self._away_until:
                self._closing.wait(POLL_S)
                continue
            try:
                self._take_part()
            except KafkaException as error:
                _LOG.warning("the choice of a leader: %s", self._cluster.explain("being a member", error))
                self._closing.wait(RETRY_S)

    def _take_part(self) -> None:
        self._again.clear()
        consumer = self._cluster.client(ck.Consumer, {**self._cluster.properties, **self._options})
        try:
            consumer.subscribe([self._topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)
            while not (self._closing.is_set() or self._again.is_set()):
                message = consumer.poll(POLL_S)
                if message is not None and (error := message.error()) is not None and error.fatal():
                    raise KafkaException(error)
        finally:
            self._chosen.clear()
            consumer.close()
            self._chosen.clear()

    def _assign(self, consumer: Any, partitions: list[ck.TopicPartition]) -> None:
        for partition in partitions:
            partition.offset = ck.OFFSET_END
        consumer.incremental_assign(partitions)
        if partitions:
            consumer.pause(partitions)  # it reads nothing
            self._chosen.set()

    def _revoke(self, consumer: Any, partitions: list[ck.TopicPartition]) -> None:
        consumer.incremental_unassign(partitions)
        if partitions:
            self._chosen.clear()
