"""Learners and brokers on hosts of their own: a learner that is cut off, brokers that are killed and come back."""

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from driftline.stream.process.settings import StreamSettings
from tests.conftest import do_without
from tests.faults.campaign import Course, check, check_predictions
from tests.faults.nursery import Nursery
from tests.faults.tally import tally
from tests.faults.test_cluster import Trial
from tests.kafka.broker import NoKafka
from tests.kafka.nodes import Nodes
from tests.net import Net, net
from tests.often import TORTURE, times

COMMAND = "make torture ONLY=test_hosts"
N_NODES = 3 if TORTURE else 1


@pytest.fixture(scope="module")
def hosts() -> Iterator[Net]:
    with net() as made:
        yield made


@pytest.fixture(scope="module")
def nodes(hosts: Net, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    try:
        made = Nodes(hosts, tmp_path_factory.mktemp("nodes"), N_NODES)
        with contextlib.closing(made):
            made.start()
            yield made
    except NoKafka as error:
        do_without(error)


@pytest.fixture(scope="module")
def filled_log(nodes: Nodes, module_memory: Path) -> tuple[str, StreamSettings]:
    """Give a log that is to be filled."""
    (base := module_memory / "hosts").mkdir()
    log = f"kafka://{nodes.bootstrap}"
    return "kafka", StreamSettings(data=base / "none", log=log, prefix=f"{uuid4().hex}.", replication=N_NODES)


def test_a_leader_that_is_cut_off_is_overtaken_and_follows(course: Course, nursery: Nursery, hosts: Net) -> None:
    rng = random.Random(9)
    for host in ("l1", "l2"):
        hosts.host(host)
    for number in range(times(100, 1)):
        trial = Trial(course, nursery, f"cut-{number}", hosts)
        slow = ("--batch-records", "1", "--checkpoint-interval-s", "0.2")
        one = trial.start("one", None, *slow, host="l1")
        trial.wait_for("one", one, "running")
        other = trial.start("other", None, *slow, host="l2")
        time.sleep(rng.uniform(0, 0.5))
        hosts.cut("l1")
        assert other.wait() == 0, other.said  # it leads once the session is over, and comes to the end
        hosts.mend("l1")
        assert one.wait() == 0, one.said
        check(course, trial.at("other"))
        check(course, trial.at("one"))
        trial.finish("new")
        tally("leader of several cut off from Kafka, its link down for longer than its session", COMMAND, 1)
    check_predictions(course)


def test_brokers_that_are_killed_and_come_back_lose_nothing(course: Course, nursery: Nursery, nodes: Nodes) -> None:
    rng = random.Random(10)
    for number in range(times(50, 1)):
        trial = Trial(course, nursery, f"brokers-{number}")
        slow = ("--batch-records", "1", "--checkpoint-interval-s", "0.2")
        learners = [trial.start(name, None, *slow) for name in ("one", "other")]
        time.sleep(rng.uniform(0.5, 2.0))
        name = nodes.names[number % len(nodes.names)]
        nodes.kill(name)
        nodes.start(name)
        for child in learners:
            assert child.wait() == 0, child.said
        trial.finish("one", "other")
        tally(f"broker killed and started again beneath several learners, one of {N_NODES}", COMMAND, 1)
    check_predictions(course)
