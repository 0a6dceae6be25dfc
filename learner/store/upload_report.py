"""How far is the store of checkpoints behind the disk? What the status says of it; light, as all that reads one is."""

import time

import msgspec


class UploadReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far the store is behind the disk."""

    where: str
    batch: int | None = None  # of the last one that this learner has put there, or found there; None: none yet
    at: float | None = None  # when, seconds since 1970
    seconds: float = 0.0  # how long that took
    bytes: int = 0
    waiting: int | None = None  # batch of the one that is under way, or waits
    uploads: int = 0  # since the process began, as are the failures
    failures: int = 0
    why: str = ""  # the last one failed, until one does not

    def __str__(self) -> str:
        """Say it to people."""
        there = (
            "none yet" if self.batch is None else f"checkpoint {self.batch}, {time.time() - (self.at or 0):.0f} s ago"
        )
        waits = "" if self.waiting is None else f"; checkpoint {self.waiting} is on its way"
        return f"{there}{waits}" + (f"; failing ({self.failures:,} times): {self.why}" if self.why else "")
