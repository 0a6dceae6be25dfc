"""What does it look like? Learning curves, a picture a stream, and bars of speed; drawn without a screen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from bench.quality import Quality, Run
from bench.speed import Speed
from driftline.learner.quality.plots import COLOURS

MAX_PEERS: Final = 5  # in one picture: the best
POINTS: Final = 120
OURS, PEERS = COLOURS[0], COLOURS[4]
_STYLE: Final[Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def plot_quality(quality: Quality, path: Path) -> None:
    """Draw the accuracy over the last rows of our models (thick) and the best peers (thin, dashed)."""
    peers = [run for run in quality.peers if not run.system.startswith("vw-driver")]  # the same as vw-pairs
    peers.sort(key=lambda run: quality.score(run).error)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.add_subplot()
        n_rows = len(quality.stream.rows.texts)
        window = max(min(1000, n_rows // 10), 1)
        for number, run in enumerate([*quality.ours, *peers[:MAX_PEERS]]):
            at, recent = _recent_accuracy(quality, run, window)
            star = "*" if run.was_stopped else ""
            axes.plot(
                at,
                recent,
                "-" if run.is_ours else ("--", "-.", ":")[number % 3],
                color=COLOURS[number % len(COLOURS)],
                linewidth=2.6 if run.is_ours else 1.4,
                label=f"{run.system}{star}   {quality.score(run).accuracy:.2%}",
            )
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.grid(visible=True, color="#DDDDDD", linewidth=0.8)
        axes.set_xlabel("rows")
        axes.set_ylabel(f"accuracy over the last {window:,} rows")
        late = f", labels {quality.delay:,} rows late" if quality.delay else ""
        axes.set_title(f"{quality.stream.name}: predicted, then learned{late}", loc="left", fontweight="bold")
        axes.legend(title="accuracy over all", loc="best", framealpha=0.9, alignment="left")
        figure.savefig(path, dpi=130)


def _recent_accuracy(quality: Quality, run: Run, window: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    truth = np.array(quality.stream.rows.labels[: run.done])
    sums = np.concatenate([[0], np.cumsum(run.predicted == truth)])
    at = np.unique(np.linspace(min(window, run.done), run.done, POINTS).astype(np.int64))
    return at, (sums[at] - sums[np.maximum(at - window, 0)]) / np.minimum(at, window)


def plot_speed(speeds: Sequence[Speed], path: Path) -> None:
    """Draw texts a second as bars, on a logarithmic scale, with the spread of the repetitions."""
    found = sorted((speed for speed in speeds if speed.texts_per_second), key=lambda speed: speed.median)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 0.5 * len(found) + 1.4), layout="constrained")
        axes = figure.add_subplot()
        for place, speed in enumerate(found):
            is_ours = speed.system.startswith("linear")
            axes.barh(place, speed.median, color=OURS if is_ours else PEERS, hatch="" if is_ours else "//")
            low, high = min(speed.texts_per_second), max(speed.texts_per_second)
            axes.plot([low, high], [place, place], color="black", linewidth=1.5)
            axes.text(high * 1.08, place, f"{speed.median:,.0f}", va="center")
        axes.set_yticks(range(len(found)), [speed.system for speed in found])
        axes.set_xscale("log")
        axes.set_xlim(right=max((max(speed.texts_per_second) for speed in found), default=1.0) * 4)
        axes.set_xlabel("texts of 100 characters a second, predicted and learned, one core")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        figure.savefig(path, dpi=130)
