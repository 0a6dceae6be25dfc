"""How fast is each system, and does a message cost the same however many came before?

Texts of 100 characters, predicted and learned, on one core; systems take turns, several times over, in the same run,
and the median counts. Time is the system's own processor time: from a text in memory to its scores. Vowpal Wabbit's
driver reads and parses a file of examples that was written for it before. It does so in two threads: on the one core
its processor time is that of both, and a row of its own has the time that passes when each has a core.
"""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Final, NamedTuple

from bench.quality import Launcher, Run
from bench.streams import Stream, cut_to_length, make_stream

N_CHARS: Final = 100
OURS: Final = ("linear?bits=20&chars=0", "linear", "blend")
# What part of the rows each is given: enough for what is slower by far.
PEERS: Final = {
    "vw-driver-binary-20": 1.0,
    "vw-driver-binary-20-cores": 1.0,
    "vw-driver-binary-20-p": 1.0,
    "vw-driver-20": 1.0,
    "vw-pairs-binary-20": 0.4,
    "vw-pairs-20": 0.4,
    "sklearn-sgd-100": 0.1,
    "sklearn-sgd-1": 0.02,
    "river-nb": 0.02,
    "river-logreg": 1.0,
}
WHAT: Final = {
    "linear?bits=20&chars=0": "ours: words and pairs, 2^20 slots",
    "linear": "ours as it comes: character n-grams too, 2^22 slots",
    "blend": "ours: five experts, mixed",
    "vw-driver-binary-20": "Vowpal Wabbit's driver, words and pairs, one two-label model, predictions not written",
    "vw-driver-binary-20-cores": "the same on all cores, parsing in one and learning in another: elapsed time",
    "vw-driver-binary-20-p": "the same on one core, probabilities written to a file",
    "vw-driver-20": "the same, one model a label, no probabilities written",
    "vw-pairs-binary-20": "Vowpal Wabbit from Python, one two-label model, probabilities",
    "vw-pairs-20": "the same, one model a label",
    "sklearn-sgd-100": "scikit-learn SGD, batches of 100",
    "sklearn-sgd-1": "scikit-learn SGD, one at a time",
    "river-nb": "River multinomial naive Bayes",
    "river-logreg": "River logistic regression",
}


class Speed(NamedTuple):
    """What was measured of one system, over all repetitions.

    Attributes
    ----------
    texts_per_second : one a repetition
    growth : a text's cost in the last tenth of the stream as a multiple of that in the first tenth, the median of the
        repetitions; None where it is not known
    """

    system: str
    rows: int
    texts_per_second: list[float]
    growth: float | None
    why_not: str
    versions: dict[str, str]

    @property
    def median(self) -> float:
        """The median of the repetitions; 0 where there are none."""
        return median(self.texts_per_second) if self.texts_per_second else 0.0


def measure_speed(
    launcher: Launcher,
    n_rows: int,
    repetitions: int,
    peers: Sequence[str],
    say: Callable[[str], None] = lambda _: None,
) -> list[Speed]:
    """Measure all systems. `peers` are families, the part of a name before the first hyphen: vw, sklearn, river."""
    stream = _two_labels(n_rows)
    systems = [(name, 1.0) for name in OURS]
    systems += [(name, share) for name, share in PEERS.items() if name.partition("-")[0] in peers]
    runs: dict[str, list[Run]] = {name: [] for name, _ in systems}
    for repetition in range(repetitions):
        for name, share in systems:
            run = launcher.run(name, first_rows(stream, max(int(n_rows * share), 1000)), 0, is_ours=name in OURS)
            runs[name].append(run)
            say(f"speed {repetition + 1}/{repetitions} {name:<24} {run.rows_per_second:>12,.0f} /s {run.why_not}")
    return [_summary(name, found) for name, found in runs.items()]


def _two_labels(n_rows: int) -> Stream:
    stream = cut_to_length(make_stream("steady", n_rows), N_CHARS)
    stream.rows.labels[:] = [label % 2 for label in stream.rows.labels]
    stream.rows.n_labels = 2
    return stream._replace(labels=stream.labels[:2])


def first_rows(stream: Stream, n_rows: int) -> Stream:
    """Return a stream that ends after so many rows."""
    rows = stream.rows
    return stream._replace(rows=type(rows)(rows.texts[:n_rows], rows.labels[:n_rows], rows.n_labels))


def _summary(name: str, runs: list[Run]) -> Speed:
    done = [run for run in runs if run.done]
    growths = [growth for run in done if (growth := _growth(run)) is not None]
    return Speed(
        name,
        max((run.done for run in done), default=0),
        [run.rows_per_second for run in done],
        median(growths) if growths else None,
        next((run.why_not for run in runs if run.why_not), ""),
        done[0].versions if done else {},
    )


def _growth(run: Run) -> float | None:
    """Return the last tenth's cost a text over the first's; the very first step, which allocates, left out."""
    times = run.times
    if len(times) < 20:
        return None
    tenth = len(times) // 10
    first, last = times[tenth] - times[0], times[-1] - times[-1 - tenth]
    return float((last[1] / last[0]) / (first[1] / first[0])) if first[1] > 0 else None
