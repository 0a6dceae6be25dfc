"""What does a command wait for, that the learner at work has to do?

Said on standard error: where the learner does not take it up within a few seconds, and whenever that is for another
reason.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from driftline.cli.terminal import print_remark
from driftline.stream.errors import StateError

PATIENCE_S: Final = 3.0


class Waiting:
    """Called as long as a command waits. One thread."""

    def __init__(self, data: Path) -> None:
        self._data, self._begun, self._said = data, time.monotonic(), ""

    def __call__(self) -> None:
        """Look at what the learner is doing, and say it where it was not said yet."""
        from driftline.learner.report.status import AT_WORK, read_status

        with suppress(StateError, OSError):
            status = read_status(self._data)
            if status is None or time.monotonic() - self._begun < PATIENCE_S:
                return
            state = "silent" if status.state in AT_WORK and not status.alive else status.state
            if state == self._said:
                return
            self._said = state
            why = f" ({status.detail})" if status.detail else ""
            print_remark(
                f"waiting for the learner at work (process {status.pid}), which is {state}{why}. Ctrl-C ends this "
                "command; what was asked for stays, and is done once the learner goes on"
            )
