"""From what was the model built anew?

Plain data: it stands in the manifests of all checkpoints that grew from it, and in the status, as it is. It has all
that is needed to build the same model again (rebuild/verify.py).
"""

import msgspec

from driftline.learner.disk.settings import Rules
from driftline.stream.words import counted

Offsets = dict[str, dict[str, int]]  # as in a checkpoint


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """Which labels a model is built without, beside those that were retracted."""

    until_ms: int | None = None  # those whose records are younger
    sources: list[str] = []
    ids: list[str] = []  # of the feedback, or of its message
    labels: list[str] = []

    def __str__(self) -> str:
        """Say it in a few words."""
        parts = [
            *(f"source={source}" for source in self.sources),
            *(f"id={each}" for each in self.ids),
            *(f"label={label}" for label in self.labels),
            *([] if self.until_ms is None else [f"after {self.until_ms} ms"]),
        ]
        return ", ".join(parts)


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint that a model was built from (rebuild/bases.py)."""

    batch: int
    created_at: str
    labels_learned: int
    sha256: str  # of its SHA256SUMS


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """One building anew."""

    at: str
    lineage: str  # of the model as it was put down
    left_out: LeftOut
    rules: Rules  # by which the records up to the last border were applied
    batch: int = 0  # in which it took the place of the model before
    before: str | None = None  # the lineage of the building before this one; "" where there was none
    taken_over_ms: int = -1  # the log's time then: what was served by then was the other model's, and stays (served.py)
    starts: Offsets = {}  # from where it read
    begun: Offsets = {}  # where the first records were of all that it has learned
    base: Base | None = None  # the checkpoint that it began with; None: with nothing learned
    looked: Offsets = {}  # up to where it looked for retractions
    borders: list[Offsets] = []  # up to where it read, a stretch at a time: within one all is in the order of time
    missing: dict[str, int] = {}  # records by topic that the log no longer had
    retracted: int = 0  # labels left out because they were taken back
    excluded: int = 0  # and because of `left_out`

    def __str__(self) -> str:
        """Say it in a line."""
        missing = sum(self.missing.values())
        without = [f"{counted(self.retracted, 'label that was', 'labels that were')} retracted"] * bool(self.retracted)
        if str(self.left_out):
            without += [f"{counted(self.excluded, 'label that was', 'labels that were')} left out ({self.left_out})"]
        left_out = f"without {' and '.join(without)}" if without else "with no label left out"
        return f"at {self.at} from {self._source} {left_out}" + (
            f"; {counted(missing, 'record was', 'records were')} no longer in the log" if missing else ""
        )

    @property
    def _source(self) -> str:
        if self.base is None:
            return "the log"
        return f"the checkpoint of {self.base.created_at}, with the {self.base.labels_learned:,} labels in it, on"
