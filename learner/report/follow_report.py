"""How far is a follower behind the learner that leads, and by what does it follow?

It says so in its status (status.py). An API beside it goes by that: it is ready while the follower is near enough.
"""

import time
from typing import Final, Literal

import msgspec

FRESH_S: Final = 1.5  # what was known so long ago is as good as known now: it is said twice a second


class FollowReport(msgspec.Struct, kw_only=True):
    """How far a follower is. What it never knew is null."""

    store: str  # where the checkpoints are that it begins with
    behind_entries: int | None = None  # of the journal, that are there and not in its model
    behind_s: float | None = None  # so long ago the first of them came, at most
    at: float = 0.0  # seconds since 1970, when these two were found
    by: Literal["lessons", "checkpoints"] = "lessons"  # what it goes by: what was learned, or models that were saved
    why: str = ""  # it goes by checkpoints
    base: int | None = None  # batch of the checkpoint that it began with last
    bases: int = 0  # how many it began with, since its process began
    digests: int = 0  # models that were compared with the leader's
    differed: int = 0  # of these, which were another one
    skips: int = 0  # how often it left entries out for a newer checkpoint, because it could not keep up
    void: int = 0  # entries that counted for nobody, since the base
    beside: str = ""  # why what comes with the model is not up to date: figures, history, choices

    @property
    def now_behind_s(self) -> float | None:
        """How far it is behind by now, at most: nobody knows what came since it spoke last."""
        if self.behind_s is None:
            return None
        age_s = max(0.0, time.time() - self.at)
        return self.behind_s + (age_s if age_s > FRESH_S else 0.0)

    def too_far(self, most_s: float) -> str | None:
        """Return why it is further behind than so many seconds, or nobody knows; None where it is not."""
        behind_s = self.now_behind_s
        if behind_s is None:
            return "it is not known how far the model here is behind"
        if behind_s > most_s:
            left = "" if self.behind_entries is None else f", {self.behind_entries:,} entries of the journal,"
            return f"the model here may be {behind_s:.0f} s{left} behind; at most {most_s:g} s are allowed"
        return self.beside or None
