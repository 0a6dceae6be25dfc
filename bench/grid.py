"""Which settings of a peer are measured? The best on the very stream, found in hindsight, for its good.

A family is a peer with all settings that are tried: which features of a text, what they count for, its rate. Each
setting reads the first rows of the stream. There the best few of the family by error, and the best few by log loss, go
on, but for those that are clearly behind, and read the whole stream. Of these the one with the fewest errors and the
one with the least log loss are what ours is compared with. Ours has one setting everywhere.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from operator import attrgetter
from typing import Final

from bench.quality import LEAST_ROWS, Launcher, Quality, Trial, least_rows
from bench.speed import first_rows
from bench.streams import Stream

FIRST_ROWS: Final = 2000  # and as many as the labels are late
FIRST_SHARE: Final = 0.25  # of the time of a whole run
MOST: Final = 4  # by error, and as many by log loss
BEHIND: Final = 1.1  # times the lowest of the family is clearly behind


def _all(peer: str, **settings: str) -> tuple[str, ...]:
    """Return a peer with every combination of settings, each a list joined by commas."""
    parts = ([f"{name}={value}" for value in values.split(",")] for name, values in settings.items())
    return tuple(f"{peer}?{'&'.join(combination)}" for combination in product(*parts))


_FEATURES: Final = {"groups": "all,plain", "grams": "none,inside,across", "values": "sum,once"}
_ALL: Final = {**_FEATURES, "groups": "all"}
FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "vw-rich": _all("vw-rich", **_FEATURES, rate="2,1,0.5,4,coin"),
    "vw-hinge": _all("vw-hinge", **_FEATURES, rate="0.5,2"),
    "river-rich-logreg": _all("river-rich-logreg", **_ALL, rate="1,0.3,3"),
    "river-rich-pa": _all("river-rich-pa", **_FEATURES, c="1"),
    "river-rich-nb": _all("river-rich-nb", kind="multinomial", **_FEATURES, alpha="0.01,0.1"),
    # For every text these go through all features that they have seen.
    "river-rich-nb-slow": _all("river-rich-nb", kind="complement,bernoulli", groups="plain", alpha="0.1"),
    "sklearn-rich-nb": (
        *_all("sklearn-rich-nb", kind="multinomial,complement", **_ALL, alpha="0.01,0.1"),
        *_all("sklearn-rich-nb", kind="bernoulli", **{**_ALL, "values": "once"}, alpha="0.01,0.1"),
    ),
    "sklearn-rich-sgd": _all("sklearn-rich-sgd", **_ALL, rate="1,3"),
    "capymoa-tree": _all("capymoa-tree", values="once,sum"),
    "capymoa-efdt": _all("capymoa-efdt", values="once,sum"),
    "capymoa-arf": _all("capymoa-arf", trees="10", values="once,sum"),
    "capymoa-sgd": _all("capymoa-sgd", rate="0.1,0.01,1", values="once,sum"),
}


def go_on(family: str, trials: Sequence[Trial]) -> list[str]:
    """Return the settings of a family that read the whole stream: its first one where none answered in time."""
    found: set[str] = set()
    for value in (attrgetter("error"), attrgetter("log_loss")):
        known = [trial for trial in trials if trial.family == family and not math.isnan(value(trial))]
        best = sorted(known, key=value)[:MOST]
        found |= {trial.setting for trial in best if value(trial) <= BEHIND * value(best[0])}
    return [setting for setting in FAMILIES[family] if setting in found] or [FAMILIES[family][0]]


def try_all(
    stream: Stream, families: Sequence[str], launcher: Launcher, delay: int, say: Callable[[str], None] = lambda _: None
) -> list[Trial]:
    """Let each setting of each family read the first rows of a stream.

    They are compared on the rows that all of the family did; one so slow that the whole of its time would not be enough
    to be called the best (quality.py) is left out.
    """
    start = first_rows(stream, FIRST_ROWS + delay)
    quick = replace(launcher, seconds=FIRST_SHARE * launcher.seconds)
    least = max(FIRST_SHARE * least_rows(len(stream.rows.texts)), delay + FIRST_SHARE * LEAST_ROWS)
    least = min(least, len(start.rows.texts))
    trials = []
    for family in families:
        runs = [quick.run(setting, start, delay, is_ours=False) for setting in FAMILIES[family]]
        quality = Quality(start, delay, runs)
        rows = min((run.done for run in runs if run.done >= least), default=0)
        for run in runs:
            score = quality.score(run, rows) if run.done >= least else None
            error, log_loss = (score.error, score.known_log_loss) if score else (math.nan, math.nan)
            trials.append(Trial(family, run.system, run.done, error, log_loss))
            say(f"{quality.name:>16} {run.system:<56} {run.done:>7,} rows, error {error:.4f} {run.why_not}".rstrip())
    return trials
