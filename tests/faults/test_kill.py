"""Killed with SIGKILL at every named step and at random times: nothing lost, nothing learned twice, the same bytes.

What was acknowledged is known to a process of its own (teller.py). A learner is killed again and again on its way
through a log; what it holds at the end is compared with that, and byte for byte with a learner that was never killed.
"""

import random
import signal
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import pytest

from driftline.stream.process.settings import StreamSettings
from tests.data import ROOT
from tests.faults import teller
from tests.faults.campaign import (
    INTERVALS,
    LOGS,
    N_LABELS,
    Campaign,
    Course,
    check,
    check_predictions,
    command,
    labelled,
    newest,
    outcome,
)
from tests.faults.nursery import Child, Nursery, Stop
from tests.faults.points import API_POINTS, POINTS, find
from tests.faults.tally import tally
from tests.often import times
from tests.ports import reserved
from tests.waiting import wait_until

COMMAND = "make torture ONLY=test_kill"
EACH = {"sqlite": times(50, 1), "kafka": times(4, 0)}  # kills at each step
AT_RANDOM = {"sqlite": times(300, 8), "kafka": times(60, 2)}
LIVE = {"sqlite": times(150, 5), "kafka": times(30, 0)}  # kills of the API, the learner or both
NTH = {
    "6 before a snapshot has its name": 2,  # once a start, and then only where there is no room for more labels
    "6 in the middle of a publish": 9,
    "7.iii before one of the files": 6,
    "b before a batch is applied again": 3,
}


def test_every_point_is_there() -> None:
    for point in (POINTS | API_POINTS).values():
        assert callable(find(point)[2])


def test_killed_at_every_step(course: Course, nursery: Nursery) -> None:
    """The steps in an order that is drawn, all of them once before one comes again."""
    if not EACH[course.name]:
        pytest.skip("in `make torture` only")
    rng = random.Random(course.name)
    what = (
        f"kill -9 of the learner at each of {len(POINTS)} named steps of loop, checkpoint, publish and recovery, "
        f"{EACH[course.name]} times at each"
    )
    campaign = Campaign(course, nursery, rng, what, COMMAND)
    for _ in range(EACH[course.name]):
        for name in rng.sample(list(POINTS), len(POINTS)):
            _kill_at(name, campaign, rng)
    campaign.finish()
    check_predictions(course)


def _kill_at(name: str, campaign: Campaign, rng: random.Random) -> None:
    for _ in range(20):
        if name[0] in "bc":  # something has to be left to be applied again
            campaign.killed(campaign.start(Stop("5 its entry is durable", 3), "60"))
        nth = 1 + rng.randrange(NTH.get(name, 1 if name[0] in "abcd7" else 6))
        often = "0.005" if name[0] == "7" else None
        if campaign.killed(campaign.start(Stop(name, nth), often)):
            return
    pytest.fail(f"no learner came to this step: {name}")


def test_killed_at_random_times(course: Course, nursery: Nursery) -> None:
    rng = random.Random(f"{course.name} at random")
    campaign, kills = Campaign(course, nursery, rng, "kill -9 of the learner at random times", COMMAND), 0
    while kills < AT_RANDOM[course.name]:
        child = campaign.start()
        if rng.random() < 0.8:  # the others may be killed before they have begun
            wait_until(lambda child=child: campaign.begun or not child.running())
        time.sleep(rng.expovariate(1 / 0.05))
        child.send(signal.SIGKILL)
        kills += campaign.killed(child)
    campaign.finish()
    check_predictions(course)


def test_the_api_and_the_learner_are_killed_while_labels_are_posted(
    filled_log: tuple[str, StreamSettings], nursery: Nursery, module_memory: Path
) -> None:
    """A label that was answered with 202 is learned, once, whichever of the two died when, or both."""
    name, filled = filled_log
    if not LIVE[name]:
        pytest.skip("in `make torture` only")
    rng, kills, base = random.Random(f"{name} live"), 0, module_memory / f"live-{name}"
    while kills < LIVE[name]:
        base = base.with_name(f"{base.name}-")
        base.mkdir()
        url = filled.log_url if name == "kafka" else f"sqlite:///{base / 'log.db'}"
        stream = filled.model_copy(update={"data": base / "data", "log": url, "prefix": f"{uuid4().hex}."})
        with reserved() as port:
            done = _killed_live(Course(name, stream, {}, base), nursery, rng, LIVE[name] - kills, port)
        tally(f"kill -9 of the API, the learner or both while labels are posted, {LOGS[name]}", COMMAND, done)
        kills += done


def _killed_live(course: Course, nursery: Nursery, rng: random.Random, wanted: int, port: int) -> int:
    """Kill while a teller posts some labels; compare at the end; return how often it was killed."""
    stream, kills = course.at("live"), 0
    names = ("--data", str(stream.data), "--log", stream.log_url, "--prefix", stream.prefix)

    def start(which: str) -> Child:
        if which == "learner":
            stop = Stop(rng.choice(list(POINTS)), 1 + rng.randrange(4)) if rng.random() < 0.5 else None
            interval = rng.choice(INTERVALS)
            return nursery.start(*command(stream, "--checkpoint-interval-s", interval), stop=stop)
        stop = Stop(rng.choice(list(API_POINTS)), 1 + rng.randrange(20)) if rng.random() < 0.5 else None
        return nursery.start("serve", *names, "--port", str(port), stop=stop)

    running = {which: start(which) for which in ("learner", "api")}
    acknowledged = course.base / "acknowledged"
    url = f"http://127.0.0.1:{port}"
    posting = subprocess.Popen(teller.command(acknowledged, 2 * N_LABELS, "post", url), cwd=ROOT)
    while posting.poll() is None:
        time.sleep(rng.expovariate(1 / 0.3))
        if kills < wanted:
            for which in rng.choice([["learner"], ["api"], ["learner", "api"]]):
                running[which].send(signal.SIGKILL)
        for which, child in running.items():
            if not child.running():
                assert child.wait() == -signal.SIGKILL, child.said
                kills += 1
                running[which] = start(which)
    assert posting.wait() == 0
    for child in running.values():
        child.send(signal.SIGKILL)
        child.wait()
        kills += 1
    for data in ("live", "undisturbed"):
        child = nursery.start(*command(course.at(data), "--stop-at-end"))
        assert child.wait() == 0, child.said
    told = teller.read(acknowledged)
    assert len(told) == 2 * N_LABELS
    assert labelled(stream) == told
    assert newest(stream).manifest.counts.labels_learned == len(told)
    model = "model.safetensors"
    assert outcome(stream)[model] == outcome(course.at("undisturbed"))[model]
    return kills


def test_the_oracle_sees_a_label_that_is_lost_and_one_that_is_learned_twice(course: Course) -> None:
    """The checks above could be passed by comparing nothing."""
    check(course, course.at("undisturbed"))
    fewer = dict(list(course.acknowledged.items())[1:])
    with pytest.raises(AssertionError):
        check(course._replace(acknowledged=fewer), course.at("undisturbed"))
    with pytest.raises(AssertionError):
        check(course._replace(acknowledged=course.acknowledged | {"m-1": "a"}), course.at("undisturbed"))
