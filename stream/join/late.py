"""A message left without a label and was learned as one. What if its true label still comes?

Then that is a correction, and the message is brought back for it. So for about as long as a message can be labelled
its text is kept behind the window, too, with what it was learned as. A part of the window's limits is for these, beside
it: the oldest leaves first, wherever it is; by age it is gone once it is twice as old as a message may be.
Only of messages that were learned as they left (`expire_as`): of any other there is nothing to correct.
"""

from collections import OrderedDict
from typing import Final

import msgspec

from driftline.stream.join.message_rows import ENTRY_BYTES, ROOM
from driftline.stream.limits import Limits
from driftline.stream.wire.fielded import is_of
from driftline.stream.wire.vector import without_vector

LATE_SHARE: Final = 0.5
GONE_BYTES: Final = 2 * ENTRY_BYTES  # what one takes beside its strings: objects, and its place among the others


class Gone(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A message that left without a label."""

    text: str
    label: str  # as what it was learned
    timestamp_ms: int  # when it came
    alone: bool = True  # False: other texts came with its id, so the id alone does not name it


class Late:
    """The messages that left, of all windows.

    Attributes
    ----------
    homes : of each id, the number of the window that it left
    n_bytes : what they take in memory
    """

    def __init__(self) -> None:
        self.homes: dict[str, int] = {}
        self.n_bytes = 0
        self._windows: dict[int, OrderedDict[str, Gone]] = {}
        self._limits = Limits(0, 0, 0)

    def configure(self, limits: Limits) -> None:
        """Keep to a part of these limits; what is there stays until another one comes."""
        self._limits = limits.share(LATE_SHARE)

    def clear(self) -> None:
        """Forget all of them."""
        self.homes, self.n_bytes, self._windows = {}, 0, {}

    def keep(self, window: int, key: str, gone: Gone) -> None:
        """Keep a message that leaves a window now."""
        before = self._drop(key)
        if before is not None and not (before.alone and without_vector(before.text) == without_vector(gone.text)):
            gone = msgspec.structs.replace(gone, alone=False)
        self._put(window, key, gone)
        while len(self.homes) > self._limits.messages or self.n_bytes > self._limits.n_bytes:
            self._drop(self._oldest())

    def take(self, key: str, text: str | None, clock_ms: int) -> Gone | None:
        """Return the message that a label is about, which is not kept any more then; None where there is none.

        `text` : the label's own, if it has one; `clock_ms` : of the window that it left
        """
        gone = self._find(key)
        if gone is None or gone.timestamp_ms + 2 * self._limits.age_ms < clock_ms:
            return None
        if (text is None and not gone.alone) or (text is not None and not is_of(text, gone.text)):
            return None
        return self._drop(key)

    def is_shared(self, key: str) -> bool:
        """Tell whether several texts left with an id, so that it names none of them."""
        gone = self._find(key)
        return gone is not None and not gone.alone

    def of_window(self, number: int) -> list[tuple[str, Gone]]:
        """Return those that left a window, in the order in which they did."""
        return list(self._windows.get(number, {}).items())

    def load(self, number: int, kept: list[tuple[str, Gone]]) -> None:
        """Take over what `of_window` gave. Raises ValueError where two windows have an id."""
        for key, gone in kept:
            if key in self.homes:
                raise ValueError("a message left two windows")
            self._put(number, key, gone)

    def _find(self, key: str) -> Gone | None:
        home = self.homes.get(key)
        return None if home is None else self._windows[home][key]

    def _put(self, window: int, key: str, gone: Gone) -> None:
        self.homes[key] = window
        self._windows.setdefault(window, OrderedDict())[key] = gone
        self.n_bytes += _weigh(key, gone)

    def _drop(self, key: str) -> Gone | None:
        home = self.homes.pop(key, None)
        if home is None:
            return None
        gone = self._windows[home].pop(key)
        self.n_bytes -= _weigh(key, gone)
        return gone

    def _oldest(self) -> str:
        """Return the id of the one that came first, of those that left their window first."""
        first = {number: next(iter(of_window)) for number, of_window in sorted(self._windows.items()) if of_window}
        return first[min(first, key=lambda number: self._windows[number][first[number]].timestamp_ms)]


def _weigh(key: str, gone: Gone) -> int:
    return GONE_BYTES + ROOM * (2 * len(key.encode()) + len(gone.text.encode()))
