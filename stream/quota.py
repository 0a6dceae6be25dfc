"""Does a source send more labels than it may?

Each source may send so many labels in each stretch of the log's time; what is more is refused, so that one that floods
labels cannot outvote the others. Labels without a source count as one source. Up to MAX_SOURCES are counted for
themselves, those that came later in the same stretch all together: who takes a new name for every label gains nothing.
A function of the records in their order.
"""

import hashlib
import re
from typing import Final, NamedTuple

import msgspec

PATTERN: Final = r"^[1-9][0-9]{0,11}/(s|min|h|d)$"
UNIT_MS: Final = {"s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_SOURCES: Final = 10_000
MAX_NAMED: Final = 100  # whose refused labels are counted for themselves, for people
MAX_NAME_CHARS: Final = 100
UNNAMED: Final = "(none)"
OTHERS: Final = "(other)"


class Quota(NamedTuple):
    """So many labels in so much time."""

    labels: int
    per_ms: int

    @classmethod
    def parse(cls, text: str) -> "Quota":
        """Read `1000/min`. Raises ValueError for what does not match PATTERN."""
        if not re.match(PATTERN, text):
            raise ValueError(f"{text!r} is no quota; write 1000/min, with one of {', '.join(UNIT_MS)}")
        labels, _, unit = text.partition("/")
        return cls(int(labels), UNIT_MS[unit])


class Quotas(msgspec.Struct):
    """What each source has sent in this stretch of time, and what was refused since the first record."""

    stretch: int = 0
    sent: dict[str, int] = {}
    refused: dict[str, int] = {}

    def admit(self, source: str | None, time_ms: int, quota: Quota) -> bool:
        """Count a label and tell whether its source may send it. A time before this stretch counts as in it."""
        stretch = time_ms // quota.per_ms
        if stretch > self.stretch:
            self.stretch, self.sent = stretch, {}
        name = bounded(source)
        if name not in self.sent and len(self.sent) >= MAX_SOURCES:
            name = OTHERS
        sent = self.sent[name] = self.sent.get(name, 0) + 1
        if sent <= quota.labels:
            return True
        if name not in self.refused and len(self.refused) >= MAX_NAMED:
            name = OTHERS
        self.refused[name] = self.refused.get(name, 0) + 1
        return False

    def copy(self) -> "Quotas":
        """Return these as they are now."""
        return Quotas(self.stretch, dict(self.sent), dict(self.refused))


def bounded(source: str | None) -> str:
    """Return a name for a source that is not long and is no other's."""
    if source is None or len(source) <= MAX_NAME_CHARS:
        return UNNAMED if source is None else source
    digest = hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
    return f"{source[: MAX_NAME_CHARS // 2]}...{digest}"
