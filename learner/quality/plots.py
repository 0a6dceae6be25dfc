"""What does learning look like?

Learning curves as PNG or SVG, drawn without a screen. The same results give the same SVG, byte for byte.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from driftline.learner.quality.drift import Shift
from driftline.learner.quality.evaluate import Result
from driftline.stream.errors import ConfigError

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, PercentFormatter
except ModuleNotFoundError as error:
    raise ConfigError(f"plot: {error}; `pip install 'driftline[plots]'` has what draws them") from None

SUFFIXES: Final = (".png", ".svg")
# Okabe and Ito (2008): told apart with every kind of colour blindness; line styles tell more than eight apart.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00")
STYLES: Final = ("-", "--", "-.", ":")
_ALL_WORSE, _ALL_BETTER, _ONE_WORSE = (
    "drift alarm: worse",
    "drift alarm: better",
    "drift alarm: one label worse",
)
_ALARMS: Final[dict[str, Any]] = {
    _ALL_WORSE: {"linewidth": 1.0, "linestyle": (0, (4, 3))},
    _ALL_BETTER: {"linestyle": "", "marker": "^", "markersize": 5},
    _ONE_WORSE: {"linestyle": "", "marker": "|", "markersize": 9, "markeredgewidth": 1.5},
}
_STYLE: Final[Any] = {
    "svg.hashsalt": "driftline",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 11,
    "text.parse_math": False,  # a dollar sign in a file's name is no formula
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def check_suffix(path: Path) -> None:
    """Refuse a name that is neither PNG nor SVG, before hours are spent on what it is to hold."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"plot: {str(path)!r} must end in {' or '.join(SUFFIXES)}")


def plot_curves(results: Sequence[Result], path: Path, source: str) -> None:
    """Draw the learning curves of some models on one stream.

    A thick line is the accuracy over the last labels, a thin one that over all of them so far. Drift alarms are marked:
    that all predictions got worse by a vertical line, that they got better, or that those of one label got worse, at
    the lower edge. That a single label's got better is not drawn: it is what learning does.

    Parameters
    ----------
    path : the picture to write, .png or .svg
    source : what the title calls the stream

    Raises
    ------
    ConfigError : another suffix, or the file cannot be written.
    """
    check_suffix(path)
    with mpl.rc_context(_STYLE):
        figure = _draw(results, source)
        try:
            if path.suffix.lower() == ".svg":
                figure.savefig(path, format="svg", metadata={"Date": None, "Creator": "Driftline"})
            else:
                figure.savefig(path, format="png", dpi=150)
        except OSError as error:
            raise ConfigError(f"plot: {str(path)!r} cannot be written: {error.strerror}") from None


def _draw(results: Sequence[Result], source: str) -> Figure:
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.add_subplot()
    lowest = 1.0
    for number, result in enumerate(results):
        curve = result.curve
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
        name = f"{result.model}   {result.accuracy:.2%}"
        axes.plot(curve.labels, curve.recent_accuracy, style, color=colour, linewidth=2.2, label=name)
        axes.plot(curve.labels, curve.accuracy, style, color=colour, linewidth=1.0, alpha=0.65)
        settled = curve.labels > curve.labels[-1] // 20 if len(curve.labels) else slice(0)
        for line in (curve.recent_accuracy[settled], curve.accuracy[settled]):
            lowest = min([lowest, *line.tolist()])
    alarms = _mark_alarms(axes, results)
    # The first twentieth of the curve is mostly luck, and would flatten all the rest.
    bottom = max(0.0, lowest - 0.08 * (1.0 - lowest) - 0.005)
    axes.set_ylim(bottom, min(1.0 + 0.02 * (1.0 - bottom), 1.02))
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    window = max((result.curve.window for result in results), default=1)
    axes.set_xlabel("labels learned")
    axes.set_ylabel("accuracy, each label predicted before it was learned")
    delay = max((result.delay for result in results), default=0)
    late = f"labels {delay:,} messages late" if delay else "labels at once"
    axes.set_title(f"{source}: {late}", loc="left", fontweight="bold")
    handles, _ = axes.get_legend_handles_labels()
    axes.legend(
        handles=[*handles, *alarms],
        title=f"thick: last {window:,} labels; thin: all so far",
        loc="best",
        bbox_to_anchor=(0.0, 0.04, 1.0, 0.96),  # above the marks of alarms
        framealpha=0.9,
        alignment="left",
    )
    return figure


def _mark_alarms(axes: Axes, results: Sequence[Result]) -> list[Line2D]:
    """Mark drift alarms, in a row for each model; return what the legend has to say, of those kinds that there were."""
    across = axes.get_xaxis_transform()  # y from 0, the lower edge, to 1
    used: dict[str, Line2D] = {}
    for number, result in enumerate(results):
        colour, height = COLOURS[number % len(COLOURS)], 0.015 + 0.025 * number
        for name, style in _ALARMS.items():
            at = [shift.at_label for shift in result.shifts if _alarm_kind(shift) == name]
            if not at:
                continue
            used[name] = Line2D([], [], color="#555555", label=name, **style)
            if name == _ALL_WORSE:
                for x in at:
                    axes.axvline(x, color=colour, alpha=0.8, zorder=1.5, **style)
            else:
                axes.plot(at, [height] * len(at), color=colour, transform=across, clip_on=False, **style)
    return [used[name] for name in _ALARMS if name in used]


def _alarm_kind(shift: Shift) -> str:
    if shift.column is None:
        return _ALL_WORSE if shift.change == "worse" else _ALL_BETTER
    return _ONE_WORSE if shift.change == "worse" else ""
