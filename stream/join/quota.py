"""Does a source send more labels than it may?

Each source may send so many labels in each stretch of the log's time; what is more is refused, so that one that floods
labels cannot outvote the others. A function of the records in their order. Names are cheap, so:

- What counts is the part of a name before its first `/`. With an API key the API writes that key's name there, and
  without keys OPEN, whatever a client calls itself: so all names behind one key have one quota. Labels without a source
  and those of an open API are one source.
- Into Kafka a producer writes what it likes. All names that are new have one quota together, so that another name for
  each label gains nothing. A name is known, and counted for itself, once its labels were let through in SEASONED
  different hours of the log's time; in an hour one name becomes known, that which came in most hours, and there are
  MAX_KNOWN at most. Where an operator says which sources there are, these are known, and no others ever are.

Where a stream goes on after it slept, the log's clock follows a little later (clock.py). Until then a label counts for
the stretch that it says it is of; one such stretch is remembered, the latest, and becomes the one that runs once the
clock is there. So a source whose clock is ahead has its quota, too, in each stretch of its own.
"""

import hashlib
import re
from collections.abc import Collection
from typing import Final, NamedTuple

import msgspec

PATTERN: Final = r"^[1-9][0-9]{0,11}/(s|min|h|d)$"
UNIT_MS: Final = {"s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
HOUR_MS: Final = 3_600_000
SEASONED: Final = 2  # hours in which a name's labels were let through, until it is counted for itself
SILENT_HOURS: Final = 168  # after so long a known name gives its place to another one
MAX_KNOWN: Final = 100  # names by what they sent; those that an operator names come on top
MAX_COMING: Final = 1_000  # new names that are remembered from hour to hour
MAX_SOURCES: Final = 10_000  # counted for themselves in a stretch, by the rule of before
MAX_NAMED: Final = 100  # whose refused labels are counted for themselves, for people
MAX_NAME_CHARS: Final = 100
UNNAMED: Final = "(none)"
NEW: Final = "(new)"
OTHERS: Final = "(other)"
OPEN: Final = "open"  # before the name that a client of an API without keys gives itself


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
    known: dict[str, int] = {}  # names that are counted for themselves, and the last hour in which each came
    coming: dict[str, tuple[int, int]] = {}  # new ones: in how many hours each came, and the last; it stands last
    promoted: int = -1  # the hour in which a name became known last

    def admit(
        self,
        source: str | None,
        time_ms: int,
        quota: Quota,
        claim_ms: int | None = None,
        listed: Collection[str] = (),
        *,
        by_name: bool = False,
    ) -> bool:
        """Count a label and tell whether its source may send it. A time before this stretch counts as in it.

        Parameters
        ----------
        claim_ms : what time it says it is, where that may yet prove right; None: as `time_ms`
        listed : which sources there are, where an operator says so
        by_name : as it was before names had to become known: any name has a quota
        """
        sent = self._sent_in(time_ms // quota.per_ms, (time_ms if claim_ms is None else claim_ms) // quota.per_ms)
        name = bounded(source) if by_name else sender(source)
        counted = self._counted_as(name, sent, listed, by_name=by_name)
        sent[counted] = sent.get(counted, 0) + 1
        if sent[counted] <= quota.labels:
            if not by_name:
                self._note(name, time_ms // HOUR_MS, listed)
            return True
        if name not in self.refused and len(self.refused) >= MAX_NAMED:
            name = OTHERS
        self.refused[name] = self.refused.get(name, 0) + 1
        return False

    def is_new(self, source: str | None, listed: Collection[str] = ()) -> bool:
        """Tell whether a source is counted together with all others that are new."""
        name = sender(source)
        return name != UNNAMED and name not in (listed or self.known)

    def _counted_as(self, name: str, sent: dict[str, int], listed: Collection[str], *, by_name: bool) -> str:
        if by_name:
            return OTHERS if name not in sent and len(sent) >= MAX_SOURCES else name
        return name if name == UNNAMED or name in (listed or self.known) else NEW

    def _note(self, name: str, hour: int, listed: Collection[str]) -> None:
        """Note that a label of a source was let through."""
        if name == UNNAMED or listed:
            return
        if name in self.known:
            self.known[name] = max(hour, self.known[name])
            return
        hours, last = self.coming.get(name, (0, -1))
        if hour > last:
            self.coming.pop(name, None)
            if len(self.coming) >= MAX_COMING:
                del self.coming[next(iter(self.coming))]  # that which came least lately
            self.coming[name] = hours + 1, hour
        if hour > self.promoted and self.coming.get(name, (0, 0))[0] >= SEASONED:
            self._promote(hour)

    def _promote(self, hour: int) -> None:
        """Have the name be known that came in most hours, where there is a place."""
        if len(self.known) >= MAX_KNOWN:
            silent = min(self.known, key=lambda each: self.known[each])
            if hour - self.known[silent] < SILENT_HOURS:
                return
            del self.known[silent]
        name = max(self.coming, key=lambda each: self.coming[each][0])
        self.known[name], self.promoted = self.coming.pop(name)[1], hour

    def copy(self) -> "Quotas":
        """Return these as they are now."""
        return msgspec.structs.replace(
            self,
            sent=dict(self.sent),
            refused=dict(self.refused),
            sent_ahead=dict(self.sent_ahead),
            known=dict(self.known),
            coming=dict(self.coming),
        )

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


def sender(source: str | None) -> str:
    """Return who is counted for a source: what stands before its first `/`, bounded."""
    name = (source or "").partition("/")[0]
    return UNNAMED if name in ("", OPEN) else bounded(name)
