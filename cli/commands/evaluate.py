"""How good are classifiers on a file? `driftline evaluate`."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape

from driftline.cli.reading import (
    MOST_ROWS,
    Delimiter,
    Encoding,
    FieldColumn,
    File,
    Header,
    LabelColumn,
    TextColumn,
    VectorColumn,
    reading,
)
from driftline.cli.terminal import print_json, print_table, terminal
from driftline.learner.disk.settings import DEFAULT_MODEL
from driftline.stream.errors import ConfigError
from driftline.stream.words import counted

if TYPE_CHECKING:
    from driftline.learner.quality.evaluate import Result
    from driftline.stream.files.reader import Row


MODEL_WIDTH: Final = 10  # where there is no room for more


def evaluate(
    file: File,
    model: Annotated[
        list[str] | None, typer.Option(help="A classifier; may be given several times.", show_default=DEFAULT_MODEL)
    ] = None,
    delay: Annotated[
        int,
        typer.Option(min=0, max=MOST_ROWS, help="A label is learned this many messages after its message; 0: at once."),
    ] = 0,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    field_column: FieldColumn = None,
    vector_column: VectorColumn = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=MOST_ROWS, help="Use the first rows only.", show_default="all")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the learning curves into this file, .png or .svg.", show_default="none")
    ] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    header: Header = None,
) -> None:
    """Measure classifiers on a file: each text is scored before its label is learned (progressive validation)."""
    from driftline.learner.quality.evaluate import BATCH_ROWS, Evaluation, warm_up
    from driftline.learner.registry import make_classifier
    from driftline.stream.files.reader import Format

    models = list(dict.fromkeys(model or [DEFAULT_MODEL]))
    if plot is not None:
        from driftline.learner.quality.plots import check_suffix, plot_curves

        check_suffix(plot)
    fields = tuple(field_column or ())
    form = Format(text_column, label_column, "", delimiter, encoding, header, fields, vector_column)
    with reading(file, "evaluating", form) as read:
        for spec in models:
            warm_up(make_classifier(spec, allow_pickle=True))  # no state is read: there is no pickle to be opened
        evaluations = [Evaluation(make_classifier(spec, allow_pickle=True), delay, spec) for spec in models]
        rows: Iterator[Row] = islice(read.file, limit)
        messages = 0
        while batch := list(islice(rows, BATCH_ROWS)):
            for evaluation in evaluations:
                evaluation.add(batch)
            messages += len(batch)
            read.show(messages)
        results = [evaluation.finish() for evaluation in evaluations]
    if not results[0].labels:
        raise ConfigError(
            f"{read.file.name}: no row has a label; the columns are "
            f"{', '.join(map(repr, read.file.columns))}; name one with --label-column"
        )
    if as_json:
        _print_json(results)
    else:
        _print_table(results)
    if read.skipped:
        terminal(stderr=True).print(read.summary, style="yellow", markup=False)
    if plot is not None:
        plot_curves(results, plot, "standard input" if file == "-" else Path(file).name)


def _print_json(results: "list[Result]") -> None:
    for result in results:
        print_json(result.to_json())


def _print_table(results: "list[Result]") -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))  # 80 columns have to do
    table.add_column("model", overflow="fold", min_width=MODEL_WIDTH)
    for heading in ("messages", "labels", "accuracy", "macro F1", "log loss", "ECE", "time", "per s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            escape(result.model),
            f"{result.messages:,}",
            f"{result.labels:,}",
            f"{result.accuracy:.4f}",
            f"{result.macro_f1:.4f}",
            f"{result.log_loss:.4f}",
            f"{result.calibration_error:.3f}",
            f"{result.seconds:.1f} s",
            f"{result.messages_per_second:,.0f}",
        )
    console = terminal()
    # Only a model's name may be broken: a figure that is cut would be another one.
    longest = max(len(result.model) for result in results)
    least = console.measure(table, options=console.options.update(width=1000)).maximum
    least -= max(0, longest - MODEL_WIDTH)
    print_table(table, least=least)
    for result in results:
        if result.refused:
            said = f"{result.model}: {counted(result.refused, 'label')} not learned: the model failed there"
            terminal(stderr=True).print(escape(said), style="yellow")
        if result.unknown:
            said = f"log loss {result.known_log_loss:.4f} without labels that were new ({result.unknown:,})"
            terminal().print(escape(f"{result.model}: {said}"), style="dim")
        if result.shifts:
            terminal().print(escape(_describe_shifts(result)), style="dim")


def _describe_shifts(result: "Result") -> str:
    alarms = result.to_json()["drift_alarms"]
    overall, of_labels = alarms["overall"], alarms["by_label"]
    worse = [f"{s.at_label:,}" for s in result.shifts if s.column is None and s.change == "worse"]
    at = f" (at label {'; '.join(worse[:5])}{'; ...' if len(worse) > 5 else ''})" if worse else ""
    return (
        f"{result.model}: drift alarms: {overall['worse']} worse{at}, {overall['better']} better; "
        f"of single labels {of_labels['worse']} worse, {of_labels['better']} better"
    )
