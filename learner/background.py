"""How does the learner leave the processor to whoever asks for a prediction?

A learner at full speed keeps both of its threads busy. Linux lets a thread that wakes take the processor at once from
one that runs, and the learner's wake all the time: for the next batch, the next records, the disk. Each time that may
be a client or the API in the middle of an answer, which then waits for milliseconds. As a batch job (sched(7)) the
learner keeps its share of the processor, and waits for its turn. At full speed on two cores that halves the p99 of
predictions (bench/freshness.py), and what is learned a second stays the same.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def in_background() -> Iterator[bool]:
    """Run this thread, and those that it starts, as a batch job to the end of the block; give whether that was granted.

    It needs no right. Where somebody has chosen another policy for this process, that one stays.
    """
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield False
        return
    before = os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, before)
    except OSError:  # a sandbox may forbid the call
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, before)
