"""What the leader shows, and what anybody chooses, is the same on all machines of one journal."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from driftline.learner.report.history import rows_of
from driftline.learner.report.review import FILE as REVIEW
from driftline.learner.report.status import read_status
from driftline.learner.serving.versions import Versions
from driftline.learner.shared import applied, asking
from driftline.learner.shared.replica import Replica
from driftline.stream.log.base import Log
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.cluster import Cluster, append, cluster
from tests.waiting import wait_until


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


def test_smoke(together: Cluster, log: Log) -> None:
    one = together.start("one", checkpoint_interval_s=0.2)
    one.election.choose()
    append(log, 0, 20)
    one.wait_for("running", 20)
    stream = together.stream("replica")
    with closing(Replica(log, stream)) as replica:
        wait_until(lambda: replica.turn(0.05) is not None and Versions(stream.data).kept())
        print(read_status(stream.data))
        print(applied.read(stream.data), sorted(p.name for p in stream.data.rglob("*")))
        print((stream.data / REVIEW).read_bytes()[:300])
