"""Does a process give memory back that it no longer uses? An allocator's setting, of glibc."""

import contextlib
import ctypes
from typing import Final

M_MMAP_THRESHOLD: Final = -3  # malloc.h
LARGE_BYTES: Final = 1 << 20


def give_back_large_arrays() -> None:
    """Let a large array's memory go when the array does. For the whole process, once.

    glibc keeps more and more of it, the larger those were that it was given: 50 MB a worker after a model was mapped,
    a sixth of a learner's memory after its join window was full and had moved a few times.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such thing
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
