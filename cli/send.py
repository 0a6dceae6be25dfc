"""How do labelled texts get from a file into the log? `driftline send`."""

import logging
from typing import Annotated

import typer
from rich.markup import escape

from driftline.cli.reading import File, LabelColumn, TextColumn, reading
from driftline.cli.terminal import terminal, where
from driftline.stream import lines
from driftline.stream.errors import ConfigError
from driftline.stream.flags import with_settings
from driftline.stream.settings import StreamSettings


@with_settings
def send(
    file: File,
    stream: StreamSettings,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_delay: Annotated[
        int, typer.Option(min=0, help="Send a label this many messages after its message; 0: right after it.")
    ] = 0,
    rate: Annotated[
        float | None, typer.Option(help="Messages per second.", show_default="as fast as the log takes them")
    ] = None,
) -> None:
    """Send labelled texts from a file to the log: each message, and some messages later its label.

    Rows with an id may be sent again: each label is learned once. A label that has changed is sent as a correction.
    """
    from driftline.stream.files import BadRow
    from driftline.stream.log import open_to_keep
    from driftline.stream.send import send as send_rows

    lines.begin(stream.log_format or "text", logging.CRITICAL)  # a log that is away is one error, at the end
    with reading(file, "sending", text_column, label_column) as read:
        log = open_to_keep(stream)
        try:
            sent = send_rows(
                log,
                stream.topics,
                read.file,
                label_delay,
                rate=rate,
                max_record_bytes=stream.max_record_bytes,
                on_skipped=lambda row, why: read.bad_row(BadRow(read.file.name, row.line, why)),
                on_durable=lambda messages, _: read.show(messages),
            )
        finally:
            log.close()
    if read.skipped and not sent.messages:
        raise ConfigError(f"{read.file.name}: nothing was sent: none of its {read.skipped:,} rows can be used")
    skipped = f"; {read.skipped:,} rows skipped" if read.skipped else ""
    speed = f" ({sent.messages / sent.seconds:,.0f} messages/s)" if sent.seconds > 0 else ""
    console = terminal()
    console.print(
        f"Sent {sent.messages:,} messages and {sent.labels:,} labels in {sent.seconds:.1f} s{speed}{skipped}.",
    )
    place = escape(where(stream))
    console.print(f"Next: `driftline up{place}` learns and serves them; `driftline status{place}` shows how well.")
