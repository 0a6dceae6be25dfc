"""How is a time written? As RFC 3339 has it, in UTC, to the millisecond."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MOST_MS: Final = 253_402_300_799_999  # the last millisecond of the year 9999
LEAST_MS: Final = -62_135_596_800_000


def moment(time_ms: int) -> datetime:
    """Return a time; one beyond what a date can say is the nearest that can."""
    return _EPOCH + timedelta(milliseconds=max(LEAST_MS, min(time_ms, MOST_MS)))


def iso(time_ms: int) -> str:
    """Return a time as a text."""
    return moment(time_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
