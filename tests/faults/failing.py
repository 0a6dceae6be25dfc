"""A learner whose disk does not confirm writes to the journal: `python -m tests.faults.failing COUNT ARGUMENTS`.

From the COUNTth fsync of a journal on each fails. For machines without strace: no other means makes one fail.
"""

import errno
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path


def failing(sync: Callable[[int], None], left: list[int]) -> Callable[[int], None]:
    """Return an fsync that says when a journal is synced, and fails there after some calls."""

    def synced(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".journal":
            print("a journal is synced", file=sys.stderr)
            left[0] -= 1
            if left[0] <= 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)

    return synced


if __name__ == "__main__":
    left = [int(sys.argv[1])]
    os.fsync, os.fdatasync = failing(os.fsync, left), failing(os.fdatasync, left)
    sys.argv = ["driftline", *sys.argv[2:]]
    runpy.run_module("driftline", run_name="__main__")
