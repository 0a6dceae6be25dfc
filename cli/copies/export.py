"""How do messages and labels get out of the log into a file? `driftline export`."""

import gzip
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from driftline.cli.terminal import terminal
from driftline.learner.catalogue.settings import CatalogueSettings
from driftline.stream.errors import ConfigError, DriftlineError
from driftline.stream.process import log_lines
from driftline.stream.process.flags import with_shown
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

if TYPE_CHECKING:
    from driftline.learner.catalogue.search import Filters

Form = Literal["jsonl", "csv", "parquet", "records", "argilla", "label-studio", "prodigy"]
ENDS: dict[str, Form] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl"}


@with_shown("data", "log", "prefix", "catalogue_messages")
def export(
    stream: StreamSettings,
    catalogue: CatalogueSettings,
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="Where to; packed where it ends in .gz. - is standard output.")
    ] = "-",
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            help="A row a message, or (records) each message and each label as it came, for `driftline send`.",
            show_default="as FILE ends, else jsonl",
        ),
    ] = None,
    query: Annotated[str, typer.Option(help="Words that all occur.")] = "",
    label: Annotated[str | None, typer.Option(help="Only messages of this label.", show_default="any")] = None,
    predicted: Annotated[str | None, typer.Option(help="Only messages predicted so.", show_default="any")] = None,
    source: Annotated[str | None, typer.Option(help="Only what this source labelled.", show_default="any")] = None,
    since: Annotated[
        float | None, typer.Option(help="Only messages from then on, in seconds since 1970.", show_default="any")
    ] = None,
    until: Annotated[
        float | None, typer.Option(help="Only messages before then, in seconds since 1970.", show_default="any")
    ] = None,
    state: Annotated[
        Literal["all", "labelled", "unlabelled", "mistakes"], typer.Option(help="Only messages of this state.")
    ] = "all",
) -> None:
    """Write messages, their labels and what was predicted into a file. A learner and an API may be at work.

    A row a message has its text, its fields, the label that stands, who gave it, and the prediction as it was served;
    the oldest first. --format records has all messages and labels of the log in their order, corrections and labels
    that were taken back too: sent into an empty log, it gives the same model.
    """
    chosen = form or _form_of(file)
    log_lines.begin(stream.log_format or "text", logging.ERROR)
    if chosen == "records":
        if query or state != "all" or any(each is not None for each in (label, predicted, source, since, until)):
            raise ConfigError("export: --format records has all that the log has; leave out what chooses among it")
        n = _write(file, _records(stream))
    else:
        from driftline.learner.catalogue.search import Filters
        from driftline.stream.wire.names import same_name

        label, predicted, source = (each and same_name(each) for each in (label, predicted, source))
        since_ms, until_ms = (None if each is None else int(each * 1000) for each in (since, until))
        filters = Filters(query, label, predicted, source, since_ms, until_ms, state)
        n = _write(file, _rows(stream, catalogue.catalogue_messages, filters, chosen))
    if file != "-":
        terminal().print(f"Wrote {n} to {file}.", markup=False, soft_wrap=True)


def _form_of(file: str) -> Form:
    return ENDS.get(Path(file.removesuffix(".gz")).suffix.lower(), "jsonl")


class _Counted:
    """Bytes to be written, and how many things are in them."""

    def __init__(self, parts: Iterable[bytes], what: str) -> None:
        self.parts, self.what, self.number = parts, what, 0


def _records(stream: StreamSettings) -> _Counted:
    from driftline.cli.commands.rebuild import log_to_read
    from driftline.learner.export.records import records
    from driftline.learner.rebuild.erase import left_of

    def parts() -> Iterator[bytes]:
        with log_to_read(stream) as log:
            yield from records(log, stream.topics, left_of(stream.data), stream.max_record_bytes, note)

    def note(_: int, n: int) -> None:
        counted_.number += n

    counted_ = _Counted(parts(), "record")
    return counted_


def _rows(stream: StreamSettings, limit: int, filters: "Filters", form: str) -> _Counted:
    from driftline.learner.catalogue.keeping import Keeper, Progress
    from driftline.learner.catalogue.search import Listed, Search
    from driftline.learner.export.rows import written
    from driftline.stream.process import threads

    if not stream.log_url.startswith("kafka:") and not Path(stream.log_url.removeprefix("sqlite:///")).exists():
        raise ConfigError(f"export: there is no log at {stream.log_shown}; name its --data directory, or --log")
    search = Search(stream.data)

    def catch_up() -> None:
        with terminal(stderr=True).status("reading the log") as shown:

            def show(progress: Progress) -> None:
                read, left = counted(progress.indexed, "message"), counted(progress.behind, "record")
                shown.update(f"reading the log: {read}, {left} to go")

            Keeper(stream, limit).catch_up(show)

    def pages() -> Iterator[list[Listed]]:
        with closing(search):
            for page in search.each(filters):
                rows.number += len(page)
                yield page

    rows = _Counted((), "message")
    rows.parts = written(pages(), form)
    search.page(filters, n=1)  # what cannot be asked is refused before the log is read
    threads.heard("catalogue", catch_up)
    return rows


def _write(file: str, source: _Counted) -> str:
    """Write a file, whole or not at all; return how much is in it."""
    with _opened(file) as out:
        for part in source.parts:
            out.write(part)
    return counted(source.number, source.what)


@contextmanager
def _opened(file: str) -> Iterator[Any]:
    if file == "-":
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    path = Path(file)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as raw:
            packed: IO[bytes] | gzip.GzipFile = raw
            if file.endswith(".gz"):
                packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6)
            yield packed
            if packed is not raw:
                packed.close()
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise DriftlineError(f"{file}: cannot be written: {error.strerror or error}") from None
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
