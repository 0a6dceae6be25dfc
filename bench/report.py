"""What was found? Tables in Markdown: quality on each stream, its summary, speed, and what was measured where.

Bold is the best of a column. A star marks a system that was stopped; its row says how many rows it did. Losses of ours
stand where they fell.
"""

import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.grid import BEHIND, FIRST_ROWS, FIRST_SHARE, MOST, go_on
from bench.pipeline import MODEL, N_CHARS, WAYS, Pipeline
from bench.quality import Quality, Run, Score, Trial
from bench.speed import WHAT, Speed
from bench.trees import BATCH, BESIDE, TreeMemory, Trees
from driftline.learner.tree.tree import MIB

_CPUINFO: Final = Path("/proc/cpuinfo")


def write_report(
    path: Path,
    command: str,
    rounds: Sequence[Sequence[Quality]],
    speeds: Sequence[Speed],
    pictures: Path | None,
) -> None:
    """Write the report; a round is all streams, labels equally late. Pictures are linked where they lie under it."""
    qualities = [quality for streams in rounds for quality in streams]
    parts = [_head(command, qualities, speeds)]
    parts += [part for streams in rounds if streams for part in (_ratios(streams), _summary(streams))]
    parts += [_stream(quality, _link(path, pictures, f"{quality.name}.png")) for quality in qualities]
    parts += [_tried(streams) for streams in rounds if any(quality.trials for quality in streams)]
    if speeds:
        parts.append(_speed(speeds, _link(path, pictures, "speed.png")))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_pipelines(path: Path, command: str, pipelines: Sequence[Pipeline]) -> None:
    """Write how fast the path from the log to the model is."""
    rows = [
        [
            pipeline.log,
            str(pipeline.partitions),
            f"{pipeline.records:,}",
            way,
            f"{pipeline.rate(way):,.0f}",
            f"{pipeline.ratio(way):.0%}",
            f"{pipeline.cpu_us(way):.2f}",
            f"{growth:.2f}" if (growth := pipeline.growth(way)) else "",
        ]
        for pipeline in pipelines
        for way in WAYS
    ]
    head = ["log", "partitions", "records", "", "records/s", "of the bare client", "processor, microseconds a record"]
    head.append("its last tenth beside the first")
    text = (
        f"    {command}\n\n{cpu_name()}, {os.cpu_count()} cores, broker included. Messages of {N_CHARS} characters "
        f"and as many labels, `{MODEL}`; medians of {len(pipelines[0].runs[WAYS[0]])} runs that took turns."
    )
    path.write_text(f"{text}\n\n{_table(head, rows)}\n", encoding="utf-8")


def write_trees(path: Path, command: str, trees: Sequence[Trees], memory: TreeMemory) -> None:
    """Write how fast the trees are, and what ours takes."""
    head = ["stream", "characters a text"]
    for peer, ours in BESIDE.items():
        head += ["rows", peer, *(name for system in ours for name in (system, "times"))]
    rows, missing = [], {}
    for found in trees:
        cells = [found.stream, f"{found.mean_length:,.0f}"]
        for beside in found.beside:
            ours = BESIDE[beside.peer]
            if beside.why_not:
                missing[beside.peer] = beside.why_not
                cells += [""] * (2 + 2 * len(ours))
                continue
            cells += [f"{beside.rows:,}", f"{beside.rate(beside.peer):,.0f}"]
            for system in ours:
                cells += [f"{beside.rate(system):,.0f}", f"**{beside.times(system):,.1f}**"]
        rows.append(cells)
    repetitions = max(
        (len(rates) for found in trees for its in found.beside for rates in its.rates.values()), default=0
    )
    text = (
        f"    {command}\n\n{cpu_name()}, one core. Texts predicted and learned in a second of processor time, medians "
        f"of {repetitions} runs that took turns on the same rows: a stream that has fewer is gone through again. "
        "`river-tree` and `tree?chars=0&pairs=0` have words, `capymoa-tree` (MOA's) words in 1,024 categories, "
        "`river-tree-pairs` and `tree?chars=0` pairs too, `tree` character n-grams as well."
        f"{_missing(missing)}\n\n{_table(head, rows)}\n\nAfter {memory.texts:,} texts, in each of which a word is new, "
        f"`tree` takes {memory.taken / MIB:.1f} MiB of its {memory.limit / MIB:.0f}; since the first {BATCH:,} its "
        f"process has grown by {memory.grown / MIB:.1f} MiB."
    )
    path.write_text(f"{text}\n", encoding="utf-8")


def _missing(why: Mapping[str, str]) -> str:
    if not why:
        return ""
    return "\n\nNot measured: " + "; ".join(f"{name} ({reason})" for name, reason in sorted(why.items())) + "."


def _link(report: Path, pictures: Path | None, name: str) -> str:
    if pictures is None or not (pictures / name).exists():
        return ""
    try:
        where = (pictures / name).resolve().relative_to(report.parent.resolve())
    except ValueError:
        return ""
    return f"\n\n![{name}]({where.as_posix()})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _head(command: str, qualities: Sequence[Quality], speeds: Sequence[Speed]) -> str:
    versions: dict[str, str] = {name: version(name) for name in ("numba", "numpy")}
    missing: dict[str, str] = {}
    runs: list[Run | Speed] = [run for quality in qualities for run in quality.runs]
    for run in [*runs, *speeds]:
        if run.why_not and not run.versions:
            missing.setdefault(run.system, run.why_not)
        # An interpreter of its own has its own Python and numpy.
        versions |= {name: number for name, number in run.versions.items() if name not in ("Python", "numpy")}
    lines = [
        "# Measured",
        f"    {command}",
        f"{cpu_name()}, {os.cpu_count()} cores, of which each system used one; {platform.system()}, "
        f"Python {platform.python_version()}. Versions: {', '.join(f'{k} {v}' for k, v in sorted(versions.items()))}.",
        "Each row is predicted, then learned. Log loss is over the rows whose label had been learned before: "
        "scikit-learn and Vowpal Wabbit are told all labels in advance and foresee the others, no one else can. "
        "*All* has every row. ECE is the expected calibration error, in 15 bins. "
        "Texts a second are of the system's own processor time, reading files excluded (but for "
        "Vowpal Wabbit's driver, which reads its own).",
    ]
    if any(quality.trials for quality in qualities):
        lines.append(
            "A peer's settings are its best on the very stream: all that were tried read the first "
            f"{FIRST_ROWS:,} rows (and as many as labels are late) in at most {FIRST_SHARE:.0%} of a run's time; of "
            f"each family the best {MOST} by error and the best {MOST} by log loss, but for those above {BEHIND:g} "
            "times the lowest, read the whole stream, and stand in its table. Ours has one setting everywhere. Peers "
            "without probabilities (the hinge loss, passive-aggressive ones) count for error only."
        )
    if any(isinstance(run, Run) and run.was_kept for run in runs):
        lines.append("Answers of peers, and their times, are those of earlier runs where they were kept (`--answers`).")
    return "\n\n".join(lines) + _missing(missing)


def cpu_name() -> str:
    """Return the processor's name."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _ratios(qualities: Sequence[Quality]) -> str:
    """Our error over that of the best peer, and then our log loss, a column a stream."""
    tables = []
    for what, value in (("Error", _error), ("Log loss", _loss)):
        rows = []
        for name in _our_names(qualities):
            found = [
                (next((run for run in quality.ours if run.system == name), None), quality) for quality in qualities
            ]
            beside = [quality.best_peer(ours, value) if ours else None for ours, quality in found]
            ratios = [best[1] for best in beside if best]
            mean = _ratio(_geometric_mean(ratios)) if len(ratios) == len(qualities) else ""
            rows.append([name, *(_ratio(best[1]) if best else "" for best in beside), mean])
        head = [f"{what}, ours / best peer's", *(quality.name for quality in qualities), "geometric mean"]
        tables.append(_table(head, rows))
    return "\n\n".join(tables)


def _summary(qualities: Sequence[Quality]) -> str:
    """Our error and log loss beside those of the best peer, on the rows that both did."""
    rows: list[list[str]] = []
    for name in _our_names(qualities):
        error_ratios, loss_ratios = [], []
        for quality in qualities:
            ours = next((run for run in quality.ours if run.system == name), None)
            if ours is None:
                continue
            score = quality.score(ours)
            error, loss = (quality.best_peer(ours, value) for value in (_error, _loss))
            cells = [name, quality.stream.name, f"{1 - score.accuracy:.4f}", *_beside(error)]
            rows.append([*cells, f"{score.known_log_loss:.4f}", *_beside(loss)])
            error_ratios += [error[1]] if error else []
            loss_ratios += [loss[1]] if loss else []
        if error_ratios:
            mean, loss_mean = _geometric_mean(error_ratios), _geometric_mean(loss_ratios)
            rows.append([name, "*geometric mean*", "", "", _ratio(mean), "", "", _ratio(loss_mean)])
    head = ["ours", "stream", "error", "best peer", "ours / its", "log loss", "best peer", "ours / its"]
    note = "Below 1 ours is better. Beside a peer that was stopped (*), ours is counted on the same rows."
    return f"## Quality: ours beside the best peer{_late(qualities)}\n\n{_table(head, rows)}\n\n{note}"


def _late(qualities: Sequence[Quality]) -> str:
    lates = {quality.delay for quality in qualities}
    return f", labels {max(lates):,} rows late" if len(lates) == 1 and max(lates) else ""


def _our_names(qualities: Sequence[Quality]) -> list[str]:
    return list(dict.fromkeys(run.system for quality in qualities for run in quality.runs if run.is_ours))


def _error(score: Score) -> float:
    return score.error


def _loss(score: Score) -> float:
    return score.known_log_loss


def _beside(found: tuple[Run, float] | None) -> list[str]:
    return ["none", ""] if found is None else [_name(found[0]), _ratio(found[1])]


def _name(run: Run) -> str:
    return f"{run.system}{'*' if run.was_stopped else ''}"


def _ratio(ratio: float) -> str:
    return f"**{ratio:.3f}**" if ratio < 1 else f"{ratio:.3f}"


def _geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(math.log(max(ratio, 1e-12)) for ratio in ratios) / max(len(ratios), 1))


def _stream(quality: Quality, picture: str) -> str:
    runs = [run for run in quality.runs if run.done]
    scores = {run.system: quality.score(run) for run in runs}
    whole = [run for run in runs if not run.was_stopped]  # a stopped one did easier or harder rows
    sure = [run for run in whole if run.has_probabilities]
    best = {
        "accuracy": max((scores[run.system].accuracy for run in whole), default=math.nan),
        "macro_f1": max((scores[run.system].macro_f1 for run in whole), default=math.nan),
        "known_log_loss": min((scores[run.system].known_log_loss for run in sure), default=math.nan),
        "log_loss": min((scores[run.system].log_loss for run in sure), default=math.nan),
        "calibration_error": min((scores[run.system].calibration_error for run in sure), default=math.nan),
    }
    rows = []
    for run in runs:
        cells = [_name(run), f"{run.done:,}"]
        for column, top in best.items():
            value = getattr(scores[run.system], column)
            is_best = value == top and not run.was_stopped
            cells.append("" if math.isnan(value) else f"**{value:.4f}**" if is_best else f"{value:.4f}")
        rows.append([*cells, f"{run.rows_per_second:,.0f}"])
    rows.sort(key=lambda cells: -float(cells[2].strip("*")))
    n_labels = quality.stream.rows.n_labels
    late = f", labels {quality.delay:,} rows late" if quality.delay else ""
    head = ["system", "rows", "accuracy", "macro F1", "log loss", "all", "ECE", "texts/s"]
    title = f"## {quality.stream.name}: {len(quality.stream.rows.texts):,} rows, {n_labels} labels{late}"
    return f"{title}\n\n{_table(head, rows)}{picture}"


def _tried(qualities: Sequence[Quality]) -> str:
    """What each setting got on the first rows of each stream, and which went on."""
    rows: dict[str, list[str]] = {}
    for quality in qualities:
        went_on = {
            name for family in {trial.family for trial in quality.trials} for name in go_on(family, quality.trials)
        }
        for trial in quality.trials:
            rows.setdefault(trial.setting, []).append(_trial(trial, trial.setting in went_on))
    note = (
        "Error (log loss) on the first rows, as many as each of a family did; bold are those that read the whole "
        "stream. Those that were too slow to be called the best have the rows that they did."
    )
    table = _table(
        ["setting", *(quality.name for quality in qualities)], ([name, *cells] for name, cells in rows.items())
    )
    return f"## Settings that were tried{_late(qualities)}\n\n{table}\n\n{note}"


def _trial(trial: Trial, went_on: bool) -> str:
    if math.isnan(trial.error):
        return f"{trial.rows:,} rows"
    error = f"**{trial.error:.4f}**" if went_on else f"{trial.error:.4f}"
    return error if math.isnan(trial.log_loss) else f"{error} ({trial.log_loss:.4f})"


def _speed(speeds: Sequence[Speed], picture: str) -> str:
    base = next((speed for speed in speeds if speed.median), None)
    top = max((speed.median for speed in speeds), default=0.0)
    rows = []
    for speed in speeds:
        if not speed.texts_per_second:
            rows.append([speed.system, WHAT[speed.system], f"skipped: {speed.why_not}", "", "", "", ""])
            continue
        found = f"{speed.median:,.0f}"
        rows.append(
            [
                speed.system,
                WHAT[speed.system],
                f"**{found}**" if speed.median == top else found,
                f"{min(speed.texts_per_second):,.0f} to {max(speed.texts_per_second):,.0f}",
                f"{speed.median / base.median:.3f}" if base else "",
                f"{speed.growth:.2f}" if speed.growth else "",
                f"{speed.rows:,}",
            ]
        )
    head = ["system", "what", "texts/s, median", "spread", "of the first", "last tenth's cost / first's", "texts"]
    title = "## Speed: texts of 100 characters, predicted and learned, one core"
    return f"{title}\n\n{_table(head, rows)}{picture}"
