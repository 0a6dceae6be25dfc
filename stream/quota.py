"""Does a source send more labels than it may?

Each source may send so many labels in each stretch of the log's time; what is more is refused, so that one that floods
labels cannot outvote the others. Labels without a source count as one source. Up to MAX_SOURCES are counted for
themselves, those that came later in the same stretch all together: who takes a new name for every label gains nothing.
A function of the records in their order.

Where a stream goes on after it slept, the log's clock follows a little later (clock.py). Until then a label counts for
the stretch that it says it is of; one such stretch is remembered, the latest, and becomes the one that runs once the
clock is there. So a source whose clock is ahead has its quota, too, in each stretch of its own.
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
    ahead: int = 0  # the stretch after this one of which there were labels, and what each source has sent in it
    sent_ahead: dict[str, int] = {}

    def admit(self, source: str | None, time_ms: int, quota: Quota, claim_ms: int | None = None) -> bool:
        """Count a label and tell whether its source may send it. A time before this stretch counts as in it.

        Parameters
        ----------
        claim_ms : what time it says it is, where that may yet prove right; None: as `time_ms`
        """
        sent = self._sent_in(time_ms // quota.per_ms, (time_ms if claim_ms is None else claim_ms) // quota.per_ms)
        name = bounded(source)
        if name not in sent and len(sent) >= MAX_SOURCES:
            name = OTHERS
        sent[name] = sent.get(name, 0) + 1
        if sent[name] <= quota.labels:
            return True
        if name not in self.refused and len(self.refused) >= MAX_NAMED:
            name = OTHERS
        self.refused[name] = self.refused.get(name, 0) + 1
        return False

    def copy(self) -> "Quotas":
        """Return these as they are now."""
        return Quotas(self.stretch, dict(self.sent), dict(self.refused), self.ahead, dict(self.sent_ahead))

    def _sent_in(self, stretch: int, claimed: int) -> dict[str, int]:
        """Return what each source has sent in a stretch, where that is the one that runs, or the one it claims."""
        if stretch > self.stretch:
            self.stretch, self.sent = stretch, self.sent_ahead if stretch == self.ahead else {}
            if stretch >= self.ahead:
                self.ahead, self.sent_ahead = 0, {}
        if claimed <= self.stretch:
            return self.sent
        if claimed > self.ahead:
            self.ahead, self.sent_ahead = claimed, {}
        return self.sent_ahead


def bounded(source: str | None) -> str:
    """Return a name for a source that is not long and is no other's."""
    if source is None or len(source) <= MAX_NAME_CHARS:
        return UNNAMED if source is None else source
    digest = hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
    return f"{source[: MAX_NAME_CHARS // 2]}...{digest}"
