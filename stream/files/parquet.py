"""Which rows are in a Parquet file? Read by pyarrow (the extra `parquet`), some thousand rows at a time."""

import math
from pathlib import Path
from typing import Any, Final

from driftline.stream.errors import ConfigError, DriftlineError
from driftline.stream.files.rows import Rows

MAGIC: Final = b"PAR1"
_BATCH_ROWS: Final = 1024


class Parquet:
    """A Parquet file. Raises ConfigError where it cannot be opened, or pyarrow is not there."""

    def __init__(self, path: str | Path, name: str) -> None:
        if str(path) == "-":
            raise ConfigError("standard input is a Parquet file, which has to be read from its end; name the file")
        try:
            import pyarrow  # noqa: PLC0415
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(
                f"{name} is a Parquet file: {error}; `pip install 'driftline[parquet]'` has what reads it, "
                "or write it as CSV or JSON lines"
            ) from None
        self._error: Any = (pyarrow.ArrowException, OSError)
        self._name = name
        try:
            self._file = pq.ParquetFile(str(path), memory_map=False, buffer_size=1 << 20, pre_buffer=False)
        except self._error as error:
            raise ConfigError(f"{name} begins as a Parquet file, and is none: {error}") from None
        self.columns: list[str] = list(self._file.schema_arrow.names)
        self.n_rows: int = self._file.metadata.num_rows

    def rows(self, columns: list[str]) -> Rows:
        """Give the rows of some columns, with their numbers from 1."""
        number = 0
        try:
            for batch in self._file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: _plain(value) for name, value in row.items()}
        except self._error as error:
            raise DriftlineError(f"{self._name}: the file is damaged after row {number:,}: {error}") from None

    def close(self) -> None:
        """Give back the file."""
        self._file.close()


def _plain(value: Any) -> Any:
    """Return a value as JSON would have it: no NaN, texts for bytes."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
