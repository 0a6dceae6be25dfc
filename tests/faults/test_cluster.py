"""Several learners of one log, killed at named steps: one leads, whatever happens, and all come to the same bytes.

What is compared is what a learner alone comes to that nobody disturbs (campaign.py).
"""

import itertools
import random
import shutil
import signal
import time
from collections import deque
from pathlib import Path
from uuid import uuid4

import pytest

from driftline.learner.report.status import read_status
from driftline.stream.process.settings import StreamSettings
from tests.faults.campaign import Course, check, check_predictions, command
from tests.faults.nursery import Child, Nursery, Stop
from tests.faults.points import CLUSTER_POINTS
from tests.faults.tally import tally
from tests.net import Net
from tests.often import TORTURE, times
from tests.waiting import delete, wait_until

COMMAND = "make torture ONLY=test_cluster"
EACH = times(17, 1)
POINTS = CLUSTER_POINTS if TORTURE else CLUSTER_POINTS[::4]
BEGINS = "7 before all are to go on from it"  # by who leads first
# By one that has no checkpoint of its own.
FETCH = {
    *("e the newest checkpoint is there", "one was fetched from the store", "before one of the store has its name"),
}
OF_STANDBYS = {*FETCH, "e before a batch of the leader's is applied"}
MOST_KILLS = 10  # of learners of one trial


@pytest.fixture(scope="module", params=["kafka"])
def filled_log(request: pytest.FixtureRequest, module_memory: Path) -> tuple[str, StreamSettings]:
    """Give a log that is to be filled: only Kafka can be shared."""
    broker = request.getfixturevalue("kafka")
    (base := module_memory / "cluster").mkdir()
    return "kafka", StreamSettings(data=base / "none", log=f"kafka://{broker}", prefix=f"{uuid4().hex}.")


class Trial:
    """Some learners with a journal and a store of their own, on a log that is full."""

    def __init__(self, course: Course, nursery: Nursery, name: str, net: Net | None = None) -> None:
        self._course, self._nursery, self._name, self._net = course, nursery, name, net
        self.root = course.base / name
        (self.root / "store").mkdir(parents=True)
        self.kills = 0

    def at(self, learner: str) -> StreamSettings:
        return self._course.at(f"{self._name}/{learner}")

    def start(
        self, learner: str, stop: Stop | None = None, *more: str, host: str | None = None, ends: bool = True
    ) -> Child:
        """Start a learner, which `ends` once it leads and all is learned."""
        namespace = self._net.namespace(host) if self._net is not None and host is not None else None
        store = ("--checkpoints", (self.root / "store").as_uri(), "--journal-topic", f"journal-{self._name}")
        cluster = ("--journal", "log", *store, "--session-s", "1", *(["--stop-at-end"] if ends else []))
        return self._nursery.start(*command(self.at(learner), *cluster, *more), stop=stop, namespace=namespace)

    def wait_for(self, learner: str, child: Child, state: str) -> None:
        """Wait until a learner is in a state, or has ended."""
        data = self.at(learner).data
        wait_until(lambda: not child.running() or ((s := read_status(data)) and (s.pid, s.state) == (child.pid, state)))

    def kill(self, leads: Stop | None, stands_by: Stop | None, waiting: deque[Stop], rng: random.Random) -> list[Stop]:
        """Have learners kill themselves until one comes to the end, and return the stops that were not reached.

        Parameters
        ----------
        leads, stands_by : where the first one stops itself, and the other one
        waiting : where those stop themselves that take the place of one that was killed; what is used is taken away
        """
        given: dict[str, Stop] = {}
        children: dict[str, Child] = {}

        def start(name: str, stop: Stop | None) -> None:
            if stop is not None:
                given[name] = stop
                if stop.point in FETCH:
                    shutil.rmtree(self.at(name).data, ignore_errors=True)
            slow = ("--batch-records", "1", "--checkpoint-interval-s", rng.choice(("0.05", "0.3")))
            children[name] = self.start(name, stop, *slow)

        def was_killed(name: str) -> bool:
            child = children[name]
            if child.wait() == 0:
                return False
            assert child.code == -signal.SIGKILL, child.said
            self.kills += 1
            tally(f"learner of several killed: {given.pop(name).point}", COMMAND, 1)
            return True

        start("one", leads)
        self.wait_for("one", children["one"], "running")
        start("other", stands_by)
        over = False
        while not over:
            wait_until(lambda: not all(child.running() for child in children.values()))
            for name in [name for name, child in children.items() if not child.running()]:
                if was_killed(name):
                    start(name, waiting.popleft() if waiting and self.kills < MOST_KILLS else None)
                else:
                    over = True
        for name in list(children):
            while was_killed(name):
                start(name, None)
            check(self._course, self.at(name))
        return list(given.values())

    def finish(self, *learners: str) -> None:
        """Let these go to the end, one after another, and compare each."""
        for learner in learners:
            child = self.start(learner)
            assert child.wait() == 0, child.said
            check(self._course, self.at(learner))
        shutil.rmtree(self.root)


def test_learners_killed_at_each_step_lose_nothing_and_all_come_to_the_same(course: Course, nursery: Nursery) -> None:
    """Two are there all the time, and whoever is killed comes back; each is to be killed at a step of its own."""
    rng = random.Random(course.name)
    stops = [Stop(step, rng.choice((1, 1, 2, 5))) for step in POINTS * EACH]
    rng.shuffle(stops)
    waiting = deque(stops)
    for number in itertools.count():
        if not waiting:
            break
        assert number <= len(stops), f"these steps are never reached: {set(waiting)}"
        trial = Trial(course, nursery, f"killed-{number}")
        of_leaders = [stop for stop in waiting if stop.point not in OF_STANDBYS]
        leads = next((stop for stop in of_leaders if stop.point == BEGINS), of_leaders[0] if of_leaders else None)
        if leads is not None:
            waiting.remove(leads)
        stands_by = waiting.popleft() if waiting else None
        waiting.extendleft(stop._replace(nth=1) for stop in trial.kill(leads, stands_by, waiting, rng))
        trial.finish("new")
    check_predictions(course)


def test_leaders_that_stood_still_are_overtaken_and_follow(course: Course, nursery: Nursery) -> None:
    rng = random.Random(7)
    for number in range(times(100, 1)):
        trial = Trial(course, nursery, f"stopped-{number}")
        slow = ("--batch-records", "1", "--checkpoint-interval-s", "0.2")
        one = trial.start("one", None, *slow)
        trial.wait_for("one", one, "running")
        other = trial.start("other", None, *slow)
        time.sleep(rng.uniform(0, 0.5))
        one.send(signal.SIGSTOP)
        # It leads once the session is over, and comes to the end.
        assert other.wait() == 0, other.said
        check(course, trial.at("other"))
        one.send(signal.SIGCONT)
        assert one.wait() == 0, one.said  # it follows, then leads, at the end of all
        check(course, trial.at("one"))
        trial.finish("new")
        tally("leader of several stopped for longer than its session, and woken", COMMAND, 1)
    check_predictions(course)


def test_directories_deleted_under_running_learners_come_back_from_the_store(course: Course, nursery: Nursery) -> None:
    rng = random.Random(8)
    for number in range(times(20, 2)):
        trial = Trial(course, nursery, f"deleted-{number}")
        slow = ("--batch-records", "1", "--checkpoint-interval-s", "0.2")
        children = {}
        for name in ("one", "other"):
            child = children[name] = trial.start(name, None, *slow)
            trial.wait_for(name, child, "running" if name == "one" else "standby")
        time.sleep(rng.uniform(0, 0.5))
        which = ("one", "other")[number % 2]  # the leader, or who stands by
        delete(trial.at(which).data)
        codes = {name: child.wait() for name, child in children.items()}
        assert set(codes.values()) == {0}, [child.said for child in children.values()]
        hit = sum("making it anew" in child.said for child in children.values())
        trial.finish("new")
        tally("data directory of a running learner of several deleted", COMMAND, hit)
    check_predictions(course)


def test_one_that_asks_for_the_lead_gets_it_and_the_other_stands_by(course: Course, nursery: Nursery) -> None:
    trial = Trial(course, nursery, "handed-over")
    one = trial.start("one", ends=False)
    trial.wait_for("one", one, "running")
    other = trial.start("other", None, "--take-over", ends=False)
    trial.wait_for("other", other, "running")
    trial.wait_for("one", one, "standby")
    other.send(signal.SIGTERM)
    assert other.wait() == 0, other.said
    trial.wait_for("one", one, "running")
    one.send(signal.SIGTERM)
    assert one.wait() == 0, one.said
    trial.finish("one", "other")
