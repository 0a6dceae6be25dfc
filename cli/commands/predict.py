"""Which label does a text get? `driftline predict`: by the data directory's snapshot, or by a running API."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.markup import escape

from driftline.cli.reading import Field, fields_of, texts_of_input, with_fields
from driftline.cli.streams import typed
from driftline.cli.terminal import print_json, terminal
from driftline.stream.errors import ConfigError
from driftline.stream.process.flags import with_shown
from driftline.stream.process.settings import StreamSettings

if TYPE_CHECKING:
    from driftline.learner.serving.snapshot import Snapshot


@with_shown("data", "allow_pickle")
def predict(
    texts: Annotated[
        list[str],
        typer.Argument(metavar="TEXT", help="The texts to classify; - alone is standard input, a text in each line."),
    ],
    stream: StreamSettings,
    field: Field = None,
    url: Annotated[
        str | None,
        typer.Option(help="Ask the API at this address.", show_default="offline, with the data directory's snapshot"),
    ] = None,
    key: Annotated[
        str | None, typer.Option(envvar="DRIFTLINE_KEY", help="API key for --url.", show_default="none")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Classify texts: with the newest snapshot of a data directory, or by asking a running API."""
    fields = fields_of(field)
    ask = partial(_ask, url, key, fields) if url else _offline(stream, fields)
    console = terminal()
    for some in texts_of_input() if texts == ["-"] else [[typed(text) for text in texts]]:
        for text, prediction in zip(some, ask(some), strict=True):
            if as_json:
                print_json(prediction)
            else:
                console.print(f"[bold]{escape(prediction['label'])}[/bold]  {prediction['score']:.4f}  {escape(text)}")


def _ask(url: str, key: str | None, fields: dict[str, Any], texts: list[str]) -> list[dict[str, Any]]:
    from driftline.api.client import Client

    with Client(url, key=key, timeout_s=10.0, tries=1) as client:
        of_each = [fields] * len(texts) if fields else None
        return [msgspec.structs.asdict(each) for each in client.predict_many(texts, fields=of_each)]


def _offline(stream: StreamSettings, fields: dict[str, Any]) -> Callable[[list[str]], list[dict[str, Any]]]:
    snapshot = newest_snapshot(stream, "a running API with --url http://127.0.0.1:8000")

    def ask(texts: list[str]) -> list[dict[str, Any]]:
        info, scores = snapshot.model.predict_proba_many(with_fields(texts, fields))
        labels = info.labels
        return [
            {
                "text": text,
                **({"fields": fields} if fields else {}),
                "label": labels[int(row.argmax())],
                "score": float(row.max()),
                "scores": dict(zip(labels, row.tolist(), strict=True)),
            }
            for text, row in zip(texts, scores, strict=True)
        ]

    return ask


def newest_snapshot(stream: StreamSettings, instead: str) -> "Snapshot":
    """Return the model that is served. Raises ConfigError, with what to do `instead`, where there is none."""
    from driftline.learner.serving.chooser import SnapshotChooser

    snapshot = SnapshotChooser(stream.data, allow_pickle=stream.allow_pickle).look()
    if snapshot is None:
        raise ConfigError(
            f"{stream.data} holds no snapshot: nothing was learned there yet. Name another --data, or {instead}"
        )
    return snapshot
