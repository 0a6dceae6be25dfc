"""A learner leaves the processor to whoever wakes: as a nice batch job, for as long as it runs."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from driftline.learner.loop.background import NICE, in_background, leave_a_processor
from tests.data import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has batch jobs")


def test_a_thread_and_those_that_it_starts_are_batch_jobs_to_the_end_of_the_block() -> None:
    found: list[tuple[int, int]] = []

    def look() -> None:
        found.append((os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)))

    def work() -> None:
        with in_background() as granted:
            assert granted
            look()
            started = threading.Thread(target=look)
            started.start()
            started.join()
        look()

    look()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    look()
    niceness = found[0][1]
    at_work = (os.SCHED_BATCH, niceness or NICE)
    assert found[1:3] == [at_work, at_work]
    assert found[3][0] == os.SCHED_OTHER
    assert found[3][1] in (niceness, niceness or NICE), "not everyone may take it back"
    assert found[4] == found[0], "of other threads nothing changes"


def test_a_niceness_that_somebody_chose_stays() -> None:
    found: list[int] = []

    def work() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, 15)
        with in_background():
            found.append(os.getpriority(os.PRIO_PROCESS, 0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [15]


def test_a_policy_that_somebody_chose_stays() -> None:
    found: list[object] = []

    def work() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        with in_background() as granted:
            found.extend((granted, os.sched_getscheduler(0)))
        found.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, os.SCHED_IDLE, os.SCHED_IDLE]


def test_one_processor_is_left_to_others_where_there_are_several() -> None:
    found: list[object] = []

    def work(allowed: set[int]) -> None:
        os.sched_setaffinity(0, allowed)
        found.extend((leave_a_processor(), os.sched_getaffinity(0)))

    several = os.sched_getaffinity(0)
    for allowed in (several, {min(several)}):
        thread = threading.Thread(target=work, args=(allowed,))
        thread.start()
        thread.join()
    left = several - {max(several)} if len(several) > 1 else several
    assert found == [len(several) > 1, left, False, {min(several)}]


PROGRAM = """
import os, sys, threading
from pathlib import Path
from driftline.learner.loop.service import learn
from driftline.learner.disk.settings import LearnerSettings
from driftline.stream.process.settings import StreamSettings

def look(status):
    print(*(os.sched_getscheduler(thread.native_id) for thread in threading.enumerate()))

learn(StreamSettings(data=Path(sys.argv[1])), LearnerSettings(model="linear?bits=12"), stop_at_end=True, on_start=look)
print(os.sched_getscheduler(0))
"""


def test_a_learner_at_work_is_a_batch_job_in_all_its_threads(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    at_work, after = ([int(policy) for policy in line.split()] for line in done.stdout.splitlines())
    assert len(at_work) > 2
    assert set(at_work) == {os.SCHED_BATCH}
    assert after == [os.SCHED_OTHER]
