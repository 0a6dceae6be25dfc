"""A client with several addresses never fails, whichever replica is replaced and however often leaders die."""

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from driftline import Client
from driftline.api.calls import Sent
from tests.faults.followed import Cluster, answers, get, post
from tests.faults.nursery import Child, Nursery
from tests.faults.tally import tally
from tests.often import TORTURE, times
from tests.ports import reserved
from tests.waiting import wait_until

COMMAND = "make torture ONLY=test_replicas"
KILLS, ROLLS = times(100, 1), times(20, 1)
N_REPLICAS = 3 if TORTURE else 2
PACE_S = 0.01
LONG_S = 120.0


@pytest.fixture
def cluster(kafka: str, nursery: Nursery, memory: Path) -> Iterator[Cluster]:
    with closing(Cluster(nursery, kafka, memory / "cluster")) as made:
        yield made


class Asking:
    """Asks for a prediction all the time, and posts a label now and then; a thread of its own."""

    def __init__(self, urls: list[str]) -> None:
        self._urls, self._over = urls, threading.Event()
        self.answers = 0
        self.failed: list[str] = []
        self.slowest_s = 0.0
        self.told: list[Sent] = []

    def run(self) -> None:
        with Client(self._urls) as client:
            while not self._over.wait(PACE_S):
                started = time.monotonic()
                try:
                    client.predict("word1 of text")
                    if self.answers % 20 == 0:
                        n = len(self.told)
                        self.told.append(client.label(f"asked-{n}", "abc"[n % 3], text=f"word{n % 7} of text"))
                except Exception as error:
                    self.failed.append(repr(error))
                self.answers += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - started)

    def stop(self) -> None:
        self._over.set()


@contextmanager
def asking(urls: list[str]) -> Iterator[Asking]:
    """Ask for the length of a block."""
    made = Asking(urls)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join()


def test_no_request_fails_while_leaders_are_killed_and_replicas_are_replaced(cluster: Cluster) -> None:
    rng = random.Random(4)
    with ExitStack() as stack:
        ports = [stack.enter_context(reserved()) for _ in range(N_REPLICAS)]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        learners = {name: cluster.learn(name) for name in ("one", "other")}
        replicas = [cluster.serve(f"api-{number}", port) for number, port in enumerate(ports)]
        for url in urls:
            ready(url)
        post(f"{urls[0]}/feedback", {"message_id": "first", "label": "a", "text": "word1"})
        for url in urls:
            wait_until(lambda url=url: get(f"{url}/readyz")["parts"]["predict"]["ready"], LONG_S)
        with asking(urls) as client:
            done, leads_s = [0, 0], []
            while done != [KILLS, ROLLS]:
                if done[1] == ROLLS or (done[0] < KILLS and rng.random() < KILLS / (KILLS + ROLLS)):
                    leads_s.append(kill_the_leader(cluster, learners))
                    done[0] += 1
                else:
                    number = done[1] % N_REPLICAS
                    replicas[number] = replaced(cluster, replicas[number], number, ports[number])
                    done[1] += 1
        assert client.failed == []
        assert client.answers > 20
        last = client.told[-1]
        with Client(urls, timeout_s=60.0) as asked:
            version = asked.predict("word1", after=last).model_version
        assert int(version.rpartition("-")[2]) >= len(client.told) + 1, "each label that was taken was learned"
        for url in urls:
            wait_until(lambda url=url: learned(url) == len(client.told) + 1, LONG_S)
    p50, p99 = np.percentile(leads_s, (50, 99))
    print(f"another one leads after {p50:.2f} s (p50), {p99:.2f} s (p99), with a session of 1 s")
    tally("requests to several replicas while leaders were killed", COMMAND, client.answers, kills=KILLS, rolls=ROLLS)


def learned(url: str) -> int:
    """Return how many labels were learned, as a replica says."""
    found: int = get(f"{url}/model")["labels_learned"]
    return found


def ready(url: str) -> None:
    """Wait until a replica takes and answers what it is asked."""
    wait_until(lambda: answers(url), LONG_S)
    wait_until(lambda: get(f"{url}/readyz").get("parts", {}).get("follow", {}).get("ready"), LONG_S)


def kill_the_leader(cluster: Cluster, learners: dict[str, Child]) -> float:
    """Kill the one that leads, start it again, and return how long it took until the other one led."""
    leads = next(iter([name for name in learners if cluster.state(name) == "running"]), None)
    while leads is None:
        time.sleep(0.05)
        leads = next(iter([name for name in learners if cluster.state(name) == "running"]), None)
    (other,) = learners.keys() - {leads}
    stands_by = "another one stands by"
    try:
        wait_until(lambda: cluster.state(other) == "standby", LONG_S, stands_by)
    except BaseException as error:
        error.add_note(f"{other} is {cluster.state(other)}: {learners[other].said}")
        raise
    learners[leads].send(signal.SIGKILL)
    started = time.monotonic()
    learners[leads].wait()
    wait_until(lambda: cluster.state(other) == "running", LONG_S)
    took = time.monotonic() - started
    learners[leads] = cluster.learn(leads)
    return took


def replaced(cluster: Cluster, child: Child, number: int, port: int) -> Child:
    """End a replica, and start another one in its place."""
    child.send(signal.SIGTERM)
    assert child.wait() == 0, child.said
    made = cluster.serve(f"api-{number}", port)
    ready(f"http://127.0.0.1:{port}")
    return made
