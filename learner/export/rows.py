"""How do messages become the bytes of a file: a row each, as JSON lines, CSV, Parquet, or what another tool reads?

As they come, so memory holds a few of them, whatever the number. `driftline send` reads each of these back: JSON lines
and Parquet without a loss, but for times (a label is as old as its sending; records.py keeps those). CSV is for
spreadsheets: what they would take for a formula is made harmless (stream/files/exported.py).
"""

import csv
import io
from collections.abc import Generator, Iterable
from typing import Any, Final

import msgspec

from driftline.learner.catalogue.search import Listed
from driftline.learner.export.times import iso, moment
from driftline.learner.export.tools import TOOLS
from driftline.stream.errors import ConfigError
from driftline.stream.files.exported import COLUMNS, harmless

TYPES: Final = {  # JSON lines as a text: clients that are generated read no type of their own
    "jsonl": "text/plain; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "argilla": "application/json",
    "label-studio": "application/json",
    "prodigy": "text/plain; charset=utf-8",
}
FORMATS: Final = tuple(TYPES)
Pages = Iterable[list[Listed]]


def written(pages: Pages, form: str) -> Generator[bytes, None, None]:
    """Give the bytes of a file in a format.

    Raises
    ------
    ConfigError : there is no such format, or the library for it is not installed; at once.
    """
    if form not in TYPES:
        raise ConfigError(f"format: {form!r} is none; it is one of {', '.join(FORMATS)}")
    if form == "parquet":
        return _parquet(pages, _arrow())
    if form == "csv":
        return _csv(pages)
    if form in ("argilla", "label-studio"):
        return _array(pages, form)
    return _lines(pages, form)


def row_of(message: Listed) -> dict[str, Any]:
    """Return a message by the names of COLUMNS."""
    values = (
        message.id,
        message.text,
        iso(message.timestamp_ms),
        message.fields,
        message.label,
        None if message.label is None or message.label_ms is None else iso(message.label_ms),
        None if message.label is None else message.label_source,
        None if message.label is None else message.label_weight,
        None if message.label is None else message.note,
        message.predicted,
        message.score,
        message.model_version,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _lines(pages: Pages, form: str) -> Generator[bytes, None, None]:
    encode, shaped = msgspec.json.Encoder().encode, TOOLS.get(form, row_of)
    for page in pages:
        yield b"".join(encode(shaped(message)) + b"\n" for message in page)


def _array(pages: Pages, form: str) -> Generator[bytes, None, None]:
    encode, shaped, before = msgspec.json.Encoder().encode, TOOLS[form], b"[\n"
    for page in pages:
        for message in page:
            yield before + encode(shaped(message))
            before = b",\n"
    yield b"\n]\n" if before != b"[\n" else b"[]\n"


def _csv(pages: Pages) -> Generator[bytes, None, None]:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for page in pages:
        for message in page:
            row = row_of(message)
            row["fields"] = msgspec.json.encode(row["fields"]).decode() if row["fields"] else ""
            writer.writerow(["" if value is None else harmless(str(value)) for value in row.values()])
        yield out.getvalue().encode()
        out.seek(0)
        out.truncate()
    yield out.getvalue().encode()  # the header, where there was no page


class _Sink(io.RawIOBase):
    """What Parquet is written into; its bytes are taken as they come."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken, self._parts = b"".join(self._parts), []
        return taken


def _arrow() -> Any:
    try:
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"format: Parquet needs pyarrow ({error}); `pip install 'driftline[parquet]'`, or export JSON lines"
        ) from None
    return pyarrow


def _parquet(pages: Pages, arrow: Any) -> Generator[bytes, None, None]:
    time_type = arrow.timestamp("ms", tz="UTC")
    types = {"time": time_type, "label_time": time_type, "label_weight": arrow.float64(), "score": arrow.float64()}
    schema = arrow.schema([(name, types.get(name, arrow.string())) for name in COLUMNS])
    sink = _Sink()
    with arrow.parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        for page in pages:
            rows = [_typed(message) for message in page]
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
            yield sink.take()
    yield sink.take()


def _typed(message: Listed) -> dict[str, Any]:
    """Return a row for Parquet: times as such, the fields as JSON."""
    row = row_of(message)
    row["time"] = moment(message.timestamp_ms)
    row["label_time"] = None if row["label_time"] is None else moment(message.label_ms or 0)
    row["fields"] = msgspec.json.encode(row["fields"]).decode()
    return row
