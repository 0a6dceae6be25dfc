"""A learner leaves the processor to whoever wakes: as a batch job, for as long as it runs."""

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from learner.background import in_background
from learner.service import learn
from learner.settings import LearnerSettings
from learner.status import Status
from stream.settings import StreamSettings
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has batch jobs")


def tasks() -> set[int]:
    """Return this process's threads, as Linux numbers them."""
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


def policies(of: set[int]) -> list[int]:
    """Return the policies of those threads that have not ended."""
    found = []
    for task in of:
        with suppress(ProcessLookupError):
            found.append(os.sched_getscheduler(task))
    return found


def test_a_thread_and_those_that_it_starts_are_batch_jobs_to_the_end_of_the_block() -> None:
    found: list[int] = []

    def look() -> None:
        found.append(os.sched_getscheduler(0))

    def work() -> None:
        with in_background() as granted:
            assert granted
            look()
            started = threading.Thread(target=look)
            started.start()
            started.join()
        look()

    before = os.sched_getscheduler(0)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [os.SCHED_BATCH, os.SCHED_BATCH, os.SCHED_OTHER]
    assert os.sched_getscheduler(0) == before


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


def test_a_learner_at_work_is_a_batch_job_in_all_its_threads(tmp_path: Path) -> None:
    before, seen = tasks(), []

    def look(_: Status) -> None:
        seen.extend(policies({0, *tasks() - before}))

    learn(StreamSettings(data=tmp_path), LearnerSettings(model="linear?bits=12"), stop_at_end=True, on_start=look)
    assert len(seen) > 1
    assert set(seen) == {os.SCHED_BATCH}
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    wait_until(lambda: os.SCHED_BATCH not in policies(tasks()), 60, "its threads have ended")
