"""What does the learner do while the disk is full?

It takes nothing in, says so, and tries the same write again until there is room. That loses nothing: a write that found
no room was taken back whole (durable.py), and everything before it is on the disk. A small reserve is given up first,
so that the status can still be written.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from driftline.learner.disk import durable
from driftline.stream.errors import DiskFull

FILE: Final = "reserve"
RESERVE_BYTES: Final = 1 << 18  # several times a status and the directory entries it takes
RETRY_S: Final = 0.5
_LOG: Final = logging.getLogger(__name__)
_T = TypeVar("_T")


class DiskRoom:
    """DiskRoom on the disk, waited for. One thread.

    Parameters
    ----------
    data : the directory
    stopped : whether to give up waiting
    report : called with the reason each time that there still is no room
    check : raises where nothing may be written any more; called before each write
    """

    def __init__(
        self,
        data: Path,
        stopped: Callable[[], bool],
        report: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._reserve, self._stopped, self._report, self._check = data / FILE, stopped, report, check
        with suppress(DiskFull):
            self._keep_reserve()

    def wait_for(self, write: Callable[[], _T]) -> _T:
        """Call `write` until there is room for it, and return what it gave. It is never repeated once it was done.

        Raises
        ------
        DiskFull : there is none, and it is time to stop.
        """
        done, waited = self._until_done(write)
        if waited:
            with suppress(DiskFull):  # it is time to stop
                self._until_done(self._keep_reserve)  # what was given up for this write must not be used by others
                _LOG.warning("there is room on the disk again; going on")
        return done

    def _until_done(self, write: Callable[[], _T]) -> tuple[_T, bool]:
        """Do that; tell also whether it had to wait."""
        waited = False
        while True:
            try:
                self._check()
                return write(), waited
            except DiskFull as error:
                if self._stopped():
                    raise
                if not waited:
                    _LOG.error("%s; nothing is taken in until then", error)
                waited = True
                durable.remove(self._reserve)
                self._report(str(error))
                time.sleep(RETRY_S)

    def _keep_reserve(self) -> None:
        durable.replace(self._reserve, bytes(RESERVE_BYTES), f"-{os.getpid()}")  # two may be at it: one is overtaken
