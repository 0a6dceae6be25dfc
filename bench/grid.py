"""Which setting of a peer is measured? The one that is best on other streams.

A family is a peer with a few settings, mostly its rate. Each setting reads the first rows of some streams. For the
stream that is measured the others choose, never itself: the setting with the lowest geometric mean of errors there, and
the one with the lowest of log losses; where they differ both are measured. The strongest peers are a family for each
kind of n-grams, so that of these the best on the very stream counts.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.quality import Launcher, Quality, Score
from bench.speed import first_rows
from bench.streams import Stream

# The first setting of each stands where nothing was tried.
FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    **{
        f"vw-rich-{grams}": tuple(f"vw-rich?grams={grams}&rate={rate}" for rate in ("2", "1", "0.5", "4", "coin"))
        for grams in ("none", "inside", "across")
    },
    "vw-hinge": tuple(f"vw-hinge?grams={grams}&rate={rate}" for grams in ("none", "across") for rate in ("2", "0.5")),
    "river-rich-nb": tuple(f"river-rich-nb?alpha={alpha}" for alpha in ("0.01", "0.1")),
    **{
        f"river-rich-logreg-{grams}": tuple(
            f"river-rich-logreg?grams={grams}&rate={rate}" for rate in ("1", "0.3", "3")
        )
        for grams in ("none", "across")
    },
    "sklearn-rich-nb": tuple(
        f"sklearn-rich-nb?grams={grams}&alpha={alpha}" for grams in ("none", "across") for alpha in ("0.01", "0.1")
    ),
    "sklearn-rich-sgd": tuple(
        f"sklearn-rich-sgd?grams={grams}&rate={rate}" for grams in ("none", "across") for rate in ("1", "3")
    ),
}


def _error(score: Score) -> float:
    return score.error


def _loss(score: Score) -> float:
    return score.known_log_loss


@dataclass(frozen=True)
class Tried:
    """What each setting of each family got.

    Attributes
    ----------
    errors, losses : by family, then by setting, then by stream; of the rows that all settings of the family did there
    rows : at most so many of each stream
    """

    rows: int
    errors: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    losses: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def chosen(self, family: str, stream: str) -> list[str]:
        """Return the setting with the fewest errors on other streams, and the one with the least log loss."""
        found = [self._best(values.get(family, {}), stream) for values in (self.errors, self.losses)]
        return list(dict.fromkeys(setting for setting in found if setting)) or [FAMILIES[family][0]]

    def _best(self, values: dict[str, dict[str, float]], stream: str) -> str | None:
        means = {
            setting: _mean(value for name, value in of_streams.items() if name != stream)
            for setting, of_streams in values.items()
        }
        means = {setting: mean for setting, mean in means.items() if not math.isnan(mean)}
        return min(means, key=means.__getitem__, default=None)


def _mean(values: Iterable[float]) -> float:
    """Return the geometric mean; no number where one is missing, or there are none."""
    logs = [math.log(max(value, 1e-12)) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def try_all(
    streams: Sequence[Stream],
    families: Sequence[str],
    launcher: Launcher,
    rows: int,
    say: Callable[[str], None] = lambda _: None,
) -> Tried:
    """Let each setting of each family read the streams' first rows."""
    tried = Tried(rows)
    for stream in streams:
        start = first_rows(stream, rows)
        for family in families:
            runs = [launcher.run(setting, start, start.delay, is_ours=False) for setting in FAMILIES[family]]
            quality = Quality(start, start.delay, runs)
            done = min((run.done for run in runs), default=0)
            for run in runs if done else ():
                score = quality.score(run, done)
                for kind, value in ((tried.errors, _error(score)), (tried.losses, _loss(score))):
                    kind.setdefault(family, {}).setdefault(run.system, {})[stream.name] = value
                say(f"{stream.name:>16} {run.system:<40} {done:>7,} rows, error {_error(score):.4f}")
            for run in runs:
                if run.why_not:
                    say(f"{stream.name:>16} {run.system:<40} skipped: {run.why_not}")
    return tried
