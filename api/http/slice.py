"""How soon does the event loop run once a request is there?

Linux lets a program that runs go on to the end of its slice, about 3 ms, before one that wakes, unless the other's
slice is shorter: that one asks for less at once and gets it sooner (EEVDF, from 6.12 on). Its share of the processor
stays the same. A learner at full speed, a client and the API on two cores have p99 rise less so (bench/freshness.py).

Within the process it is Python's lock that a thread keeps for a slice, of 5 ms unless told otherwise: so long each
request would wait while an explanation is made.
"""

import contextlib
import ctypes
import os
import platform
import sys
from typing import Final

SLICE_NS: Final = 200_000
SWITCH_S: Final = 0.0005
SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}  # the call's number


class _Attributes(ctypes.Structure):
    """`struct sched_attr` of sched_setattr(2), its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def ask_for_short_slices() -> bool:
    """Ask that for this thread, and those that it starts; return whether it was granted. Needs no right.

    Python's own slice is shortened for the whole process, which is always granted.
    """
    sys.setswitchinterval(SWITCH_S)
    number = SCHED_SETATTR.get(platform.machine())
    with contextlib.suppress(OSError, AttributeError):  # another system has no such things
        if number is not None and platform.system() == "Linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
            wanted = _Attributes(ctypes.sizeof(_Attributes), os.SCHED_OTHER, 0, os.nice(0), 0, SLICE_NS, 0, 0)
            return bool(ctypes.CDLL(None).syscall(number, 0, ctypes.byref(wanted), 0) == 0)
    return False
