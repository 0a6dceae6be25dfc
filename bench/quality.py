"""How good is each system on a stream?

Every system reads the same rows in a process of its own, on one core and for a limited time, and answers with the
predicted label and the true one's probability (peers/protocol.py). All scores are made here, by one scorer. A system
that was stopped is compared with ours on the rows that it did.
"""

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.peers.protocol import PATIENCE, write_rows
from bench.streams import Stream
from driftline.learner.quality.progress import Progress

ROOT: Final = Path(__file__).parent.parent
PEERS: Final = (
    "river-nb",
    "river-logreg",
    "river-softmax",
    "river-pa",
    "river-tree",
    "river-arf",
    "vw-words",
    "vw-pairs",
    "vw-chars",
    "vw-driver",
    "vw-rich",
    "vw-hinge",
    "river-rich-logreg",
    "river-rich-pa",
    "river-rich-nb",
    "river-rich-nb-slow",
    "sklearn-rich-nb",
    "sklearn-rich-sgd",
    "sklearn-sgd-100",
    "sklearn-sgd-1",
    "sklearn-sgd-chars-100",
    "sklearn-nb-100",
    "sklearn-nb-1",
    "multiflow-tree",
    "capymoa-tree",
    "capymoa-efdt",
    "capymoa-arf",
    "capymoa-sgd",
)
# Peers with an interpreter of their own, by the part of their names before the first hyphen.
OWN_PYTHON: Final = {"multiflow": "scikit-multiflow and Python 3.8", "capymoa": "CapyMOA and Java"}
START_S: Final = 120.0  # for importing, reading, compiling, and a step that was begun before the limit
LEAST_ROWS: Final = 1000  # a peer that was stopped before these, or before a tenth of all, is not called the best
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Run:
    """What one system answered on one stream; `why_not` says why there is no answer.

    Attributes
    ----------
    predicted : int32 [rows done], the label's number
    p_truth, p_predicted : float32 [rows done], the probability of the true label, and of the one predicted; no numbers
        where a peer has none
    seconds : the system's own processor time
    times : float64 [n, 2], rows done and seconds until then, at even distances
    """

    system: str
    is_ours: bool
    n_rows: int = 0
    predicted: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    p_truth: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    p_predicted: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    seconds: float = 0.0
    times: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    versions: dict[str, str] = field(default_factory=dict)
    why_not: str = ""
    was_kept: bool = False  # of an earlier run, its time too

    @property
    def done(self) -> int:
        """How many rows were answered."""
        return len(self.predicted)

    @property
    def was_stopped(self) -> bool:
        """Whether its time ended before the rows did."""
        return self.done < self.n_rows

    @property
    def has_probabilities(self) -> bool:
        """Whether it says more than a label."""
        return not np.isnan(self.p_truth).any()

    @property
    def rows_per_second(self) -> float:
        """Rows predicted and learned in a second of the system's own processor time."""
        return self.done / self.seconds if self.seconds > 0 else 0.0


class Score(NamedTuple):
    """How good a run is. `known_log_loss` leaves out the rows whose label had not been learned by then.

    Peers that are told all labels in advance can foresee those; others cannot. What needs probabilities is no number
    where a peer has none.
    """

    rows: int
    accuracy: float
    macro_f1: float
    log_loss: float
    known_log_loss: float
    calibration_error: float

    @property
    def error(self) -> float:
        """The share of wrong predictions, at least one in all, so that it can be divided by."""
        return max(1 - self.accuracy, 1 / max(self.rows, 1))


class Trial(NamedTuple):
    """What one setting of a family of peers got on the first rows of a stream (grid.py).

    `rows` are those that it did; error and log loss, of the rows that all of the family did, are no numbers where it
    did too few, the log loss neither where there are no probabilities.
    """

    family: str
    setting: str
    rows: int
    error: float
    log_loss: float


@dataclass(frozen=True)
class Launcher:
    """Starts systems in processes of their own.

    Attributes
    ----------
    peer_python : the interpreter that has the peers' libraries
    own_pythons : those of the kinds of peers that have one of their own (OWN_PYTHON)
    seconds : each run's limit, of processor time
    patience : how many times that by the clock
    kept : a directory of peers' answers: what is there is taken, what is not is run and put there
    """

    peer_python: str = sys.executable
    own_pythons: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60.0
    patience: float = PATIENCE
    kept: Path | None = None

    def run(self, system: str, stream: Stream, delay: int, *, is_ours: bool) -> Run:
        """Give a stream to a system and return what it answered."""
        empty = Run(system, is_ours, len(stream.rows.texts))
        kind = system.partition("-")[0]
        python = sys.executable if is_ours else self.own_pythons.get(kind, self.peer_python)
        if kind in OWN_PYTHON and kind not in self.own_pythons:
            return _without(empty, f"needs {OWN_PYTHON[kind]}, which are not here")
        if system.startswith("vw-driver") and delay:
            return _without(empty, "the driver cannot be given labels late")
        with tempfile.TemporaryDirectory() as folder:
            rows, answers = Path(folder, "rows"), Path(folder, "answers.json")
            write_rows(str(rows), stream.rows)
            kept = None if is_ours or self.kept is None else self.kept / self._key(system, rows, delay)
            if kept is not None and kept.exists():
                return replace(_read(empty, json.loads(kept.read_text())), was_kept=True)
            arguments = [system, str(rows), str(answers), str(self.seconds), str(delay), str(self.patience)]
            why_not = self._start([python, "-m", "bench.peers", *arguments])
            if why_not or not answers.exists():
                return _without(empty, why_not or "no answer")
            found = answers.read_text()
            run = _read(empty, json.loads(found))
            if kept is not None and run.done:
                kept.parent.mkdir(parents=True, exist_ok=True)
                part = kept.with_suffix(".part")
                part.write_text(found)
                part.replace(kept)
            return run

    def _key(self, system: str, rows: Path, delay: int) -> str:
        """Return the name under which a peer's answers are kept: of it, the rows, and how and by what it is run."""
        sources = ROOT / "bench" / "peers"
        asked = hashlib.sha256(f"{system} {delay} {self.seconds:g}".encode())
        for path in (rows, sources / f"{system.partition('-')[0]}_peers.py", sources / "rich.py"):
            asked.update(path.read_bytes())
        return f"{system.replace('?', '-').replace('&', '-').replace('=', '')}-{asked.hexdigest()[:16]}.json"

    def _start(self, command: Sequence[str]) -> str:
        """Run a system to its end; return what went wrong."""
        environment = os.environ | _ONE_THREAD | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        try:
            ended = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                timeout=self.patience * (self.seconds + START_S),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            return f"did not stop {self.patience * START_S:g} s after its time"
        except OSError as error:
            return f"{command[0]} cannot be run: {error.strerror}"
        lines = ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"]
        return lines[-1][:200] if ended.returncode else ""


def least_rows(n_rows: int) -> int:
    """Return how many of a stream's rows a peer that was stopped must have done to be called the best."""
    return max(LEAST_ROWS, n_rows // 10)


def _without(run: Run, why_not: str) -> Run:
    return Run(run.system, run.is_ours, run.n_rows, why_not=why_not)


def _read(empty: Run, answer: dict[str, Any]) -> Run:
    if "missing" in answer:
        return _without(empty, answer["missing"])
    return Run(
        empty.system,
        empty.is_ours,
        empty.n_rows,
        np.array(answer["predicted"], np.int32),
        np.array(answer["p_truth"], np.float32),
        np.array(answer["p_predicted"], np.float32),
        answer["seconds"],
        np.array(answer["times"], np.float64).reshape(-1, 2),
        answer["versions"],
    )


@dataclass(frozen=True)
class Quality:
    """All runs on one stream, and what the settings of peers got on its first rows."""

    stream: Stream
    delay: int
    runs: list[Run]
    trials: Sequence[Trial] = ()

    @property
    def name(self) -> str:
        """The stream's name, and by how much its labels were late where that was not its own doing."""
        return self.stream.name + (f"-{self.delay}-late" if self.delay != self.stream.delay else "")

    @property
    def ours(self) -> list[Run]:
        """Our own runs that answered."""
        return [run for run in self.runs if run.is_ours and run.done]

    @property
    def peers(self) -> list[Run]:
        """The peers' runs that answered."""
        return [run for run in self.runs if not run.is_ours and run.done]

    def score(self, run: Run, n_rows: int | None = None) -> Score:
        """Score a run, or its first rows.

        The first delay + 1 rows came before any label had been learned: they are left out, whoever guessed them.
        """
        done = run.done if n_rows is None else min(n_rows, run.done)
        truth = np.array(self.stream.rows.labels[:done], np.int32)
        predicted, p_truth, p_predicted = run.predicted[:done].copy(), run.p_truth[:done], run.p_predicted[:done]
        predicted[: self.delay + 1] = -1
        known = self._known()[:done]
        if not run.has_probabilities:
            p_truth = p_predicted = np.ones(done, np.float32)  # only the labels are scored
        all_rows, known_rows = (Progress(max(self.stream.rows.n_labels, 1)) for _ in range(2))
        all_rows.add(predicted, truth, p_truth, p_predicted)
        known_rows.add(predicted[known], truth[known], p_truth[known], p_predicted[known])
        score = Score(
            all_rows.labels,
            all_rows.accuracy,
            all_rows.macro_f1,
            all_rows.log_loss,
            known_rows.log_loss,
            all_rows.calibration_error,
        )
        if run.has_probabilities:
            return score
        return score._replace(log_loss=math.nan, known_log_loss=math.nan, calibration_error=math.nan)

    def _known(self) -> NDArray[np.bool_]:
        """Tell of each row whether its label had been learned when it was predicted: bool [n_rows]."""
        labels = np.array(self.stream.rows.labels)
        first = np.unique(labels, return_index=True)[1]
        known: NDArray[np.bool_] = np.arange(len(labels)) > first[labels] + self.delay
        return known

    def best_peer(self, ours: Run, value: Callable[[Score], float]) -> tuple[Run, float] | None:
        """Return the peer with the lowest value, and our value divided by it, on the rows that both did."""
        found = []
        for peer in self.peers:
            if peer.was_stopped and peer.done < least_rows(peer.n_rows):
                continue
            rows = min(peer.done, ours.done)
            its = value(self.score(peer, rows))
            if not math.isnan(its):
                found.append((peer, value(self.score(ours, rows)) / max(its, 1e-12)))
        return max(found, key=lambda pair: pair[1], default=None)


def measure(
    stream: Stream,
    models: Sequence[str],
    peers: Sequence[str],
    launcher: Launcher,
    delay: int,
    say: Callable[[str], None] = lambda _: None,
    trials: Sequence[Trial] = (),
) -> Quality:
    """Run every system on a stream, one after another."""
    quality = Quality(stream, delay, [], trials)
    for system, is_ours in [*((name, True) for name in models), *((name, False) for name in peers)]:
        run = launcher.run(system, stream, delay, is_ours=is_ours)
        quality.runs.append(run)
        if run.done:
            score = quality.score(run)
            stopped = f", stopped after {run.done:,} rows" if run.was_stopped else ""
            say(f"{quality.name:>16} {system:<56} {score.accuracy:.4f} {run.rows_per_second:>10,.0f} /s{stopped}")
        else:
            say(f"{quality.name:>16} {system:<56} skipped: {run.why_not}")
    return quality
