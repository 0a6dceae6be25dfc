"""Which words speak for which label? `driftline explain`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from driftline.cli.commands.predict import newest_snapshot
from driftline.cli.reading import Field, fields_of, texts_of_input, with_fields
from driftline.cli.streams import typed
from driftline.cli.terminal import is_utf8, print_json, print_table, terminal
from driftline.stream.process.flags import with_shown
from driftline.stream.process.settings import StreamSettings

if TYPE_CHECKING:
    from driftline.learner.explain.explain import Explanation


@with_shown("data", "allow_pickle")
def explain(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text to explain; - is standard input.")],
    stream: StreamSettings,
    field: Field = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>", help="A label to explain; may be given several times.", show_default="the three best"
        ),
    ] = None,
    features: Annotated[int, typer.Option(min=0, max=1 << 30, help="How many words and n-grams to list.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show which words, n-grams and fields of a text speak for which label, by the newest snapshot of a data directory.

    A number says by how much: e to the power of the difference of two labels' numbers is what it does to their odds.
    """
    model = newest_snapshot(stream, "teach it with `driftline up`").model
    if text == "-":
        text = "\n".join(line for lines in texts_of_input() for line in lines)
    whole = with_fields([typed(text)], fields_of(field))[0]
    _, explanation = model.explain_one(whole, [typed(each) for each in label or []] or None, features)
    if as_json:
        print_json(explanation)
    else:
        _print_explanation(explanation)


def _print_explanation(explanation: "Explanation") -> None:
    from rich.table import Table

    console = terminal()
    if explanation.label is None:
        console.print("No label was learned yet: there is nothing to explain.")
        return
    score = explanation.scores[explanation.label]
    console.print(f"[bold]{escape(explanation.label)}[/bold]  {score:.4f}")
    if explanation.path:
        steps = (f"has {step.word!r}" if step.present else "lacks a word" for step in explanation.path)
        console.print(f"leaf: {escape(', '.join(steps))}")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("", overflow="fold")
    labels = list(explanation.bias or (explanation.features[0].shares if explanation.features else {}))
    for label in labels:
        table.add_column(escape(label), justify="right")
    table.add_column("")

    space = "␣" if is_utf8(sys.stdout) else "_"

    def add(kind: str, what: str, shares: dict[str, float], remark: str = "") -> None:
        table.add_row(kind, escape(what), *(f"{shares[label]:+.2f}" for label in labels), remark)

    for feature in explanation.features:
        unknown, shared = feature.known is False, bool(feature.shared)
        remarks = ["never learned"] * unknown + ["slot is shared"] * shared
        what = feature.text.replace(" ", space) if feature.kind == "chars" else feature.text
        what = f"{feature.field}: {what}" if feature.field else what
        add(feature.kind.replace("_", " "), what, feature.shares, ", ".join(remarks))
    others = explanation.n_features - len(explanation.features)
    if explanation.rest and others:
        add("rest", f"{others:,} more", explanation.rest)
    if explanation.bias:
        add("bias", "whatever the text", explanation.bias)
    print_table(table)
