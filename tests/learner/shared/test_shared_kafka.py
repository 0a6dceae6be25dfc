"""The shared topic in a real Kafka: leaders that are killed, and what compaction is to leave."""

import signal
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from driftline.learner.report.history import ROWS, rows_of
from driftline.learner.report.review import read_review
from driftline.learner.report.status import read_status
from driftline.learner.serving.versions import Versions
from driftline.learner.shared import asking, topic
from driftline.learner.shared.replica import Replica
from driftline.stream.log.kafka.log import KafkaLog
from driftline.stream.log.open import open_journal
from driftline.stream.process.settings import StreamSettings
from tests.cluster import MODEL, append, cluster
from tests.faults.nursery import Child, Nursery
from tests.waiting import wait_until


def seconds_of(rows: NDArray[np.uint8]) -> list[float]:
    """Return which seconds a history shows."""
    starts = rows[: ROWS[0]].view(np.float64)[:, 0]
    return starts[starts > 0].tolist()


def start(nursery: Nursery, stream: StreamSettings) -> Child:
    """Start a learner of several."""
    options = ("--data", str(stream.data), "--log", stream.log_url, "--prefix", stream.prefix, "--model", MODEL)
    cluster = ("--journal", "log", "--checkpoints", stream.checkpoints or "", "--session-s", "1")
    return nursery.start("learn", *options, *cluster, "--checkpoint-interval-s", "0.5")


def test_another_leads_when_one_is_killed_and_all_goes_on(
    kafka: str, prefix: str, nursery: Nursery, tmp_path: Path
) -> None:
    with cluster(tmp_path, f"kafka://{kafka}", prefix) as made:
        stream = made.stream("replica")
        with closing(open_journal(stream)) as log, closing(Replica(log, stream)) as replica:
            assert isinstance(log, KafkaLog)
            assert log._cluster.policy(stream.state_name)[0] == "compact"
            log.create_topics(stream.topics)

            def until(condition: object) -> None:
                wait_until(lambda: replica.turn(0.05) >= 0 and condition(), 120)  # type: ignore[operator]

            one = start(nursery, made.stream("one"))
            until(lambda: (found := read_status(stream.data)) is not None and found.alive)
            append(log, 0, 20, prefix)
            until(lambda: read_status(stream.data).counts.labels_learned == 20)  # type: ignore[union-attr]
            until(lambda: Versions(stream.data).kept())
            version = Versions(stream.data).kept()[0].version
            log.append(stream.state_name, [asking.pin(version, "good"), asking.choose(version)])
            until(lambda: Versions(stream.data).active().version == version)
            until(lambda: len(read_review(stream.data).messages) == 20)
            other = start(nursery, made.stream("other"))
            standby = made.stream("other").data
            until(lambda: Versions(standby).active().version == version)
            until(lambda: (found := read_status(standby)) is not None and found.state == "standby")
            history, killed_at = rows_of(stream.data), time.time()
            one.send(signal.SIGKILL)
            append(log, 20, 20, prefix)
            until(lambda: read_status(stream.data).counts.labels_learned == 40)  # type: ignore[union-attr]
            assert (status := read_status(stream.data)) is not None
            assert (status.epoch, status.pid) == (2, other.pid)
            assert status.at > killed_at
            until(lambda: len(read_review(stream.data).messages) == 40)
            before = seconds_of(history)
            until(lambda: set(seconds_of(rows_of(stream.data))) > set(before))
            seconds = seconds_of(rows_of(stream.data))
            assert len(set(seconds)) == len(seconds)
            assert Versions(stream.data).pins().keys() == {version} == Versions(standby).pins().keys()
            other.send(signal.SIGTERM)
            assert other.wait() == 0, other.said
            until(lambda: read_status(stream.data).state == "stopped")  # type: ignore[union-attr]
            values = {key: value.digest for key, value in replica.order.values.items()}
        fresh = made.stream("fresh")
        with closing(open_journal(fresh)) as log, closing(Replica(log, fresh)) as replica:
            wait_until(lambda: replica.turn(0.05) >= 0 and replica.caught_up)
            assert {key: value.digest for key, value in replica.order.values.items()} == values
            assert topic.LEADER in values
            wait_until(lambda: replica.turn(0.05) >= 0 and Versions(fresh.data).active().version == version)
        one.wait()
