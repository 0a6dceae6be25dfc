"""Who may wait for something that only so many may wait for?

So many together, and of one caller (a key, or an address without one) a share of that: one who takes all there are to
take keeps nobody else out.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from driftline.api.errors import ApiError


class Places:
    """Places to wait in. On the event loop only.

    Parameters
    ----------
    most, each : how many there are; how many of them one caller may have
    what : what waits in them, as "requests wait for a label"
    """

    def __init__(self, most: int, each: int, what: str) -> None:
        self._most, self._each, self._what = most, each, what
        self._of: Counter[bytes] = Counter()
        self.taken = 0

    @contextmanager
    def take(self, caller: bytes, again_s: int = 1) -> Iterator[None]:
        """Have a place until the block ends.

        Raises
        ------
        ApiError : 503, there is none; 429, the caller has its share.
        """
        later = {"Retry-After": str(again_s)}
        if self.taken >= self._most:
            raise ApiError(503, "busy", f"{self.taken} {self._what} already, which is the most", "Try again.", later)
        if self._of[caller] >= self._each:
            raise ApiError(
                429,
                "too-many-waiting",
                f"{self._each} {self._what} for this key, or this address without one, already",
                "Wait for those first.",
                later,
            )
        self._of[caller] += 1
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]
