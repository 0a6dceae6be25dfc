"""A follower has the leader's model, byte for byte, under the same versions, whatever is learned."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.wire.records import Feedback, Message, encode
from tests.cluster import Cluster, Running, cluster
from tests.following import digest_of, following


@pytest.fixture
def together(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


@pytest.fixture
def log(together: Cluster) -> Iterator[Log]:
    stream = together.stream("x")
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        yield log


def send(log: Log, first: int, count: int, labels: str = "ab") -> None:
    for number in range(first, first + count):
        key = str(number)
        log.append("messages", [NewRecord(key.encode(), encode(Message(key, f"text {number} é")))])
        log.append("feedback", [NewRecord(key.encode(), encode(Feedback(key, labels[number % len(labels)])))])


def leader(together: Cluster, **options: object) -> Running:
    running = together.start("leader", **options)
    running.election.choose()
    return running


def version(running: Running) -> str:
    return running.member.shown.version


def test_it_learns_what_the_leader_does(together: Cluster, log: Log) -> None:
    one = leader(together)
    with following(together.stream("replica"), together.store) as replica:
        send(log, 0, 20)
        one.wait_for("running", 20)
        replica.wait_for(version(one))
        send(log, 20, 10, "abc")
        one.wait_for("running", 30)
        replica.wait_for(version(one))
        one.stop()
        replica.wait(lambda: replica.report.digests, "the leader's last digest is compared")
        replica.stop()
        assert replica.model.digest() == digest_of(one.stream)
        assert replica.published is not None
        assert replica.published.labels == ["a", "b", "c"]
        assert replica.published.feedback_offsets == {"0": 30}
        assert (replica.report.differed, replica.report.behind_entries) == (0, 0)
