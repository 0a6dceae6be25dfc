"""Measure quality and speed beside the peers: `python -m bench [FILES]` (`make bench` installs the peers first).

1. Take the streams: the files given, else made ones with known drift.
2. Let all settings of the peers that have some read the first rows of each (grid.py).
3. Give each stream to every system, ours and the peers at their best settings, in processes of their own (quality.py).
4. Measure speed (speed.py).
5. Write tables and pictures.

With `--answers DIRECTORY` what the peers answered is kept there, and taken from there the next time: a run that was
stopped goes on, and one of ours alone takes a minute.

With `--pipeline MESSAGES` only the path from the log to the model, beside the bare client (pipeline.py); with
`--trees ROWS` only `tree` beside the trees of others, and its memory (trees.py).
"""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.grid import FAMILIES, go_on, try_all
from bench.peers.protocol import PATIENCE
from bench.pipeline import measure_pipelines
from bench.plots import plot_quality, plot_speed
from bench.quality import OWN_PYTHON, PEERS, Launcher, Quality, measure
from bench.report import write_pipelines, write_report, write_trees
from bench.speed import Speed, measure_speed
from bench.streams import DRIFTS, Stream, make_stream, read_stream
from bench.trees import measure_tree_memory, measure_trees
from driftline.learner.registry import REGISTRY, make_classifier
from driftline.stream.errors import ConfigError, DriftlineError

ROOT: Final = Path(__file__).parent.parent
QUICK_ROWS: Final = 1000
QUICK_STREAMS: Final = ("sudden", "late")
QUICK_PEERS: Final = ("river-nb", "vw-pairs", "sklearn-sgd-100")


def _chosen(names: str | None, known: tuple[str, ...], what: str) -> list[str]:
    """Return the names in a list joined by commas; one that ends in - stands for all that begin so."""
    if names is None:
        return list(known)
    chosen = []
    for name in filter(None, names.split(",")):
        found = [one for one in known if one == name or (name.endswith("-") and one.startswith(name))]
        if not found:
            raise ConfigError(f"there is no {what} {name!r}; there are {', '.join(known)}")
        chosen += found
    return chosen


def _pythons(named: list[str]) -> tuple[str, dict[str, str]]:
    """Return the interpreter of the peers, and those of the kinds that have one of their own: as named, else as made.

    Raises
    ------
    ConfigError : a kind has none of its own
    """
    made = {"multiflow": ROOT / ".venv-bench38", "capymoa": ROOT / ".venv-bench-capymoa"}
    own = {kind: str(folder / "bin" / "python") for kind, folder in made.items() if folder.exists()}
    if "multiflow" not in own and (found := shutil.which("python3.8")):
        own["multiflow"] = found
    common = sys.executable
    for name in named:
        kind, equals, path = name.rpartition("=")
        if not equals:
            common = path
        elif kind in OWN_PYTHON:
            own[kind] = path
        else:
            raise ConfigError(
                f"--peer-python {name}: {', '.join(OWN_PYTHON)} have a Python of their own, {kind} has not"
            )
    return common, own


def main(
    files: Annotated[list[Path] | None, typer.Argument(help="labelled texts; none: made streams")] = None,
    rows: Annotated[int, typer.Option(min=1, help="at most so many rows of each stream")] = 30_000,
    delay: Annotated[
        list[int] | None,
        typer.Option(min=0, help="labels come so many rows late; again for another round; else as the stream has it"),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="processor time of one run; who was stopped gets a star")
    ] = 60.0,
    models: Annotated[str | None, typer.Option(help="ours, joined by commas; else all")] = None,
    peers: Annotated[str | None, typer.Option(help="joined by commas, `vw-` for a family; else all")] = None,
    streams: Annotated[str | None, typer.Option(help="made streams, joined by commas, `` for none; else all")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="a minute's look: few rows, streams and peers")] = False,
    speed: Annotated[bool, typer.Option(help="measure speed too")] = True,
    speed_rows: Annotated[int, typer.Option(min=1000)] = 200_000,
    repetitions: Annotated[int, typer.Option(min=1, help="of each speed; the median counts")] = 5,
    out: Annotated[Path, typer.Option(help="directory for pictures and the report")] = ROOT / "bench" / "out",
    answers: Annotated[
        Path | None, typer.Option(help="directory of the peers' answers, of this run and earlier ones")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=1, help="by the clock a run may take so many times its processor time")
    ] = PATIENCE,
    report: Annotated[Path | None, typer.Option(help="the report; else REPORT.md in the directory")] = None,
    peer_python: Annotated[
        list[str] | None,
        typer.Option(
            help="the Python that has the peers' libraries; again as `capymoa=PATH`, `multiflow=PATH` (a Python 3.8)"
        ),
    ] = None,
    pipeline: Annotated[
        int,
        typer.Option(
            min=0, help="measure only the path from the log to the model, by so many messages and their labels"
        ),
    ] = 0,
    trees: Annotated[
        int, typer.Option(min=0, help="measure only `tree` beside the trees of others, on so many rows, and its memory")
    ] = 0,
    memory_texts: Annotated[int, typer.Option(min=1, help="after how many texts the memory of `tree` is read")] = 10**6,
    kafka: Annotated[
        str | None, typer.Option(help="brokers for --pipeline; else one is started, as for the tests")
    ] = None,
    partitions: Annotated[str, typer.Option(help="of each topic, for --pipeline, joined by commas")] = "1,4",
) -> None:
    """Measure quality and speed beside the peers, and write bench/out/REPORT.md."""
    try:
        if pipeline:
            numbers = [int(number) for number in partitions.split(",")]
            measured = measure_pipelines(kafka, numbers, pipeline, repetitions, typer.echo)
            out.mkdir(parents=True, exist_ok=True)
            path = report or out / "PIPELINE.md"
            write_pipelines(path, _command(None), measured)
            typer.echo(path.read_text(encoding="utf-8"))
            return
        launcher = Launcher(*_pythons(peer_python or []), seconds, patience, answers)
        if trees:
            found = [read_stream(file, trees) for file in files] if files else [make_stream("steady", trees)]
            path = report or out / "TREES.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            measured_trees = measure_trees(launcher, found, trees, repetitions, typer.echo)
            write_trees(path, _command(files), measured_trees, measure_tree_memory(memory_texts))
            typer.echo(path.read_text(encoding="utf-8"))
            return
        known_streams = QUICK_STREAMS if quick and streams is None else tuple(DRIFTS)
        known_peers = QUICK_PEERS if quick and peers is None else PEERS
        our_names = models.split(",") if models else list(REGISTRY)
        for name in our_names:
            make_classifier(name)
        peer_names = _chosen(peers, known_peers, "peer")
        rows = min(rows, QUICK_ROWS) if quick else rows
        if files:
            found = [read_stream(file, rows) for file in files]
        else:
            found = [make_stream(name, rows) for name in _chosen(streams, known_streams, "stream")]
        if len({stream.name for stream in found}) < len(found):
            raise ConfigError("two files have the same name, and each name is one picture")
        out.mkdir(parents=True, exist_ok=True)
        rounds = [
            [_quality(stream, our_names, peer_names, launcher, late, out) for stream in found]
            for late in dict.fromkeys(delay or (None,))
        ]
        speeds: list[Speed] = []
        if speed:
            kinds = sorted({name.partition("-")[0] for name in peer_names})
            n_rows, repetitions = (QUICK_ROWS, 1) if quick else (speed_rows, repetitions)
            speeds = measure_speed(launcher, n_rows, repetitions, kinds, typer.echo)
            plot_speed(speeds, out / "speed.png")
        path = report or out / "REPORT.md"
        write_report(path, _command(files), rounds, speeds, out)
        typer.echo(f"written: {path}")
    except DriftlineError as error:
        typer.echo(f"bench: {error}", err=True)
        raise typer.Exit(2) from None


def _quality(
    stream: Stream, models: list[str], peers: list[str], launcher: Launcher, delay: int | None, out: Path
) -> Quality:
    late = stream.delay if delay is None else delay
    trials = try_all(stream, [peer for peer in peers if peer in FAMILIES], launcher, late, typer.echo)
    chosen = [name for peer in peers for name in (go_on(peer, trials) if peer in FAMILIES else [peer])]
    quality = measure(stream, models, chosen, launcher, late, typer.echo, trials)
    plot_quality(quality, out / f"{quality.name}.png")
    return quality


def _command(files: list[Path] | None) -> str:
    """Return the command as it was given, but files and interpreters by name: a report goes to other machines."""
    paths = {str(file): file.name for file in files or []}
    words, skip = [], False
    for word in sys.argv[1:]:
        option = word.partition("=")[0]
        if skip or option in ("--peer-python", "--out", "--report", "--kafka", "--answers"):
            skip = not skip and "=" not in word
            continue
        words.append(shlex.quote(paths.get(word, word)))
    return " ".join(["python -m bench", *words])


if __name__ == "__main__":
    typer.run(main)
