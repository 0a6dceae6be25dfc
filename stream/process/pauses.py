"""How long is it until a process that ended is started again?

A little at first, twice as long each time, up to a limit: what ends at once each time takes no processor from what
works. After it has been well for a while the next pause is a short one again.
"""

from typing import Final

FIRST_S: Final = 1.0
MOST_S: Final = 60.0


class Pauses:
    """The pauses of one process. One thread."""

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def well(self) -> None:
        """Note that it has been well for a while."""
        self._next_s = FIRST_S

    def take(self) -> float:
        """Return the seconds until it is to be started again."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, MOST_S)
        return pause_s
