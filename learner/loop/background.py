"""How does the learner leave the processor to whoever asks for a prediction?

A learner at full speed keeps both of its threads busy. Linux lets a thread that wakes take the processor at once from
one that runs, and the learner's wake all the time: for the next batch, the next records, the disk. Each time that may
be a client or the API in the middle of an answer, which then waits for milliseconds. So the learner is a batch job
(sched(7)), which waits for its turn, and nice: an answer is given first, and where the processor is all taken a tenth
of it still goes to learning. At full speed on two cores the one halves the p99 of predictions, the other takes a third
off what is left (bench/freshness.py); what is learned a second stays the same.

Yet Linux looks only at the next tick, up to 4 ms later, whether a thread that has had its share should go on; an answer
may wait so long. In `driftline up`, the API beside it, one processor is therefore never the learner's: that left a
third of the p99, and of the speed four fifths where there are two processors; where there are enough it costs nothing.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

NICE: Final = 10


@contextmanager
def in_background() -> Iterator[bool]:
    """Run this thread, and those that it starts, as a nice batch job to the end of the block; give whether it is one.

    It needs no right, but to be nice no longer does: without that right this thread stays so. Where somebody has chosen
    another policy or niceness for this process, that one stays.
    """
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield False
        return
    before, niceness = os.sched_getparam(0), os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, before)
    except OSError:  # a sandbox may forbid the call
        yield False
        return
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness or NICE)
    try:
        yield True
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, before)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, niceness)


def leave_a_processor() -> bool:
    """Keep this thread, and those that it starts, off one of the processors there are; return whether that is so."""
    if sys.platform != "linux":
        return False
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) == 1:
        return False
    with suppress(OSError):  # a sandbox may forbid the call
        os.sched_setaffinity(0, allowed[:-1])
        return True
    return False
