"""How do labelled texts get from a file into the log? `driftline send`."""

import logging
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    Reading,
    TextColumn,
    VectorColumn,
    reading,
)
from driftline.cli.terminal import terminal, where
from driftline.stream.errors import ConfigError, DriftlineError, StateError
from driftline.stream.process import log_lines
from driftline.stream.process.flags import with_settings
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

if TYPE_CHECKING:
    from driftline.stream.files.reader import Format, Row


@with_settings
def send(
    file: File,
    stream: StreamSettings,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    field_column: FieldColumn = None,
    vector_column: VectorColumn = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            help="The column with the messages' ids. A row whose id came before with another text is skipped.",
            show_default="id, if its values are ids",
        ),
    ] = None,
    no_ids: Annotated[
        bool, typer.Option("--no-ids", help="Take no ids from the file: each row is a new message.")
    ] = False,
    label_delay: Annotated[
        int,
        typer.Option(
            min=0, max=MOST_ROWS, help="Send a label this many messages after its message; 0: right after it."
        ),
    ] = 0,
    rate: Annotated[
        float | None, typer.Option(help="Messages per second.", show_default="as fast as the log takes them")
    ] = None,
    shuffle: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            help="Send the rows in an order that this number decides, through temporary files.",
            show_default="the file's order",
        ),
    ] = None,
    skip: Annotated[int, typer.Option(min=0, help="Leave out so many rows at first, that were sent before.")] = 0,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    header: Header = None,
    records: Annotated[
        bool,
        typer.Option(
            "--records", help="It is an export of --format records; a file's first line shows that, a pipe's not."
        ),
    ] = False,
) -> None:
    """Send labelled texts from a file to the log: each message, and some messages later its label.

    Rows with an id may be sent again: each label is learned once. A label that has changed is sent as a correction.
    Rows that cannot be used are counted by reason. Ctrl-C says how far it got.

    Also what Label Studio, Argilla and Prodigy export, and what `driftline export` has written: its --format records
    goes into the log as it was, in its order and with its times.
    """
    from driftline.stream.files.reader import BadRow, Format
    from driftline.stream.files.records import is_records
    from driftline.stream.files.send import send as send_rows
    from driftline.stream.log.open import open_to_keep

    if no_ids and id_column is not None:
        raise ConfigError("--no-ids and --id-column: one or the other")
    log_lines.begin(stream.log_format or "text", logging.CRITICAL)  # a log that is away is one error, at the end
    if records or is_records(file):
        _send_records(file, stream)
        return
    ids, fields = "" if no_ids else id_column, tuple(field_column or ())
    form = Format(text_column, label_column, ids, delimiter, encoding, header, fields, vector_column)
    with reading(file, "sending", form if id_column or no_ids else _with_ids_if_they_are(file, form)) as read:
        log = open_to_keep(stream)
        renamed = _Renamed(read)
        durable, unsent = (0, 0), 0

        def note(messages: int, labels: int) -> None:
            nonlocal durable
            durable = messages, labels
            read.show(messages)

        def leave_out(row: "Row", why: str) -> None:
            nonlocal unsent
            unsent += 1
            read.bad_row(BadRow(read.file.name, row.line, why, "not for the log"))

        try:
            sent = send_rows(
                log,
                stream.topics,
                _rows(read, renamed, strict=id_column is not None, shuffle=shuffle, skip=skip),
                label_delay,
                rate=rate,
                max_record_bytes=stream.max_record_bytes,
                on_skipped=leave_out,
                on_durable=note,
            )
        except (KeyboardInterrupt, DriftlineError):
            if sum(durable):
                done = f"{counted(durable[0], 'message')} and {counted(durable[1], 'label')} are in the log"
                read.say(f"Stopped: {done}. `--skip {skip + durable[0] + unsent}` goes on behind them.")
            raise
        finally:
            log.close()
    if read.skipped and not sent.messages:
        raise ConfigError(
            f"{read.file.name}: nothing was sent: none of {counted(read.skipped, 'row')} can be used ({read.summary})"
        )
    speed = f" ({sent.messages / sent.seconds:,.0f} messages/s)" if sent.seconds > 0 else ""
    console = terminal()
    console.print(
        f"Sent {counted(sent.messages, 'message')} and {counted(sent.labels, 'label')} in {sent.seconds:.1f} s{speed}"
        + escape(f"; {read.summary}" if read.summary else "")
        + "."
    )
    if renamed.number:
        console.print(
            f"{renamed.number:,} of them have an id that came before with another text: they got ids of their own."
        )
    place = escape(where(stream))
    first = "" if _is_learned(stream) else f"`driftline up{place}` learns and serves them; "
    console.print(f"Next: {first}`driftline status{place}` shows how well they are learned.")


def _send_records(file: str, stream: StreamSettings) -> None:
    """Send an export of records as they were."""
    from driftline.stream.files.records import lines_in, send_records
    from driftline.stream.log.open import open_to_keep

    console, shown = terminal(stderr=True), 0

    def skipped(line: int, why: str) -> None:
        nonlocal shown
        shown += 1
        if shown <= Reading.SHOWN:
            console.print(f"skipped: {file}, line {line}: {why}", style="yellow", markup=False)
        elif shown == Reading.SHOWN + 1:
            console.print("skipped: further lines are only counted", style="yellow")

    with closing(open_to_keep(stream)) as log, console.status("sending") as status:
        sent = send_records(
            log,
            stream.topics,
            lines_in(file),
            max_record_bytes=stream.max_record_bytes,
            on_skipped=skipped,
            on_durable=lambda messages, labels: status.update(
                f"sending: {counted(messages, 'message')}, {counted(labels, 'label')}"
            ),
        )
    if sent.skipped and not sent.messages + sent.labels:
        raise ConfigError(f"{file}: nothing was sent: none of {counted(sent.skipped, 'line')} is a record")
    left = f"; {counted(sent.skipped, 'line')} skipped" if sent.skipped else ""
    terminal().print(
        f"Sent {counted(sent.messages, 'message')} and {counted(sent.labels, 'label')} as they were, in their order "
        f"and with their times, in {sent.seconds:.1f} s{left}.",
        markup=False,
    )


def _is_learned(stream: StreamSettings) -> bool:
    """Tell whether a learner of this data directory is at work."""
    from driftline.learner.report.status import read_status

    with suppress(StateError):  # of another version: what it says is not known
        status = read_status(stream.data)
        return status is not None and status.alive
    return False


class _Renamed:
    """Rows whose id is none: each gets one of its own, and is counted."""

    def __init__(self, read: Reading) -> None:
        self._read, self.number = read, 0

    def __call__(self, row: "Row") -> "Row":
        self.number += 1
        if self.number == 1:
            file = self._read.file
            self._read.say(f"{file.name}, line {row.line}: {_is_no_id(file.id_column, row)}: it gets one of its own")
        return row._replace(id=None)


def _rows(read: Reading, renamed: _Renamed, *, strict: bool, shuffle: int | None, skip: int) -> "Iterator[Row]":
    """Give the rows to be sent: with ids that are such, in the order that was asked for."""
    from driftline.stream.files.ids import with_sound_ids
    from driftline.stream.files.reader import BadRow
    from driftline.stream.files.shuffle import shuffled

    def refuse(row: "Row") -> None:
        why = _is_no_id(read.file.id_column, row)
        read.bad_row(BadRow(read.file.name, row.line, why, "with an id that came before with another text"))

    rows = with_sound_ids(read.file, refuse if strict else renamed)
    if shuffle is not None:
        rows = shuffled(rows, shuffle)
    return islice(rows, skip, None)


def _with_ids_if_they_are(file: str, form: "Format") -> "Format":
    """Return how a file is to be read, without a column `id` whose values are no ids. Of a pipe nobody knows yet."""
    from driftline.stream.files.ids import first_repeated
    from driftline.stream.files.reader import LabelledTexts

    if file == "-" or not Path(file).is_file():
        return form
    try:
        with LabelledTexts(file, form=form) as rows:
            left = iter(rows)
            first = list(islice(left, 1))
            row = first_repeated(chain(first, left)) if rows.id_column is not None else None
    except DriftlineError:  # what is wrong with it is said once it is sent, as far as it goes
        return form
    if row is None:
        return form
    terminal(stderr=True).print(
        f"{file}, line {row.line}: {_is_no_id(rows.id_column, row)}: the rows get ids of their own "
        f"(--id-column {rows.id_column} takes that column all the same, and skips such rows)",
        style="yellow",
        markup=False,
    )
    return form._replace(id_column="")


def _is_no_id(column: str | None, row: "Row") -> str:
    return f"column {column!r} has {row.id!r}, which came before with another text"
