"""How are the values of many records held? As one array of bytes: no object is made of each."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

PADDING: Final = 64  # bytes behind the last value: loops over blocks read past the end


class Column(Sequence[bytes | None]):
    """Byte strings, one after another.

    Parameters
    ----------
    data : uint8, with PADDING bytes behind the last value
    starts : int64 [n + 1], where each value begins, and where the last one ends
    missing : bool [n], which values are none; or None where all are there
    """

    __slots__ = ("data", "missing", "starts")

    def __init__(self, data: NDArray[np.uint8], starts: NDArray[np.int64], missing: NDArray[np.bool_] | None) -> None:
        self.data, self.starts, self.missing = data, starts, missing
        data.flags.writeable = False  # a kernel is compiled once for what can be written, and once for what cannot

    @classmethod
    def of(cls, values: Iterable[bytes | None]) -> "Column":
        """Return values as a column."""
        if isinstance(values, Column):
            return values
        given = list(values)
        missing = None
        if None in given:
            missing = np.fromiter((value is None for value in given), np.bool_, len(given))
            given = [value or b"" for value in given]
        present: list[bytes] = given  # type: ignore[assignment]
        starts = np.zeros(len(present) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, present), np.int64, len(present)), out=starts[1:])
        return cls(np.frombuffer(b"".join([*present, bytes(PADDING)]), np.uint8), starts, missing)

    @property
    def n_bytes(self) -> int:
        """How many bytes all values have."""
        return int(self.starts[-1] - self.starts[0])

    def __len__(self) -> int:
        """Return how many values these are."""
        return len(self.starts) - 1

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return one value, or some that follow one another as a column without a copy."""
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            stop = max(start, stop)
            missing = None if self.missing is None else self.missing[start:stop]
            return Column(self.data, self.starts[start : stop + 1], missing)
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.missing is not None and self.missing[index]:
            return None
        return self.data[self.starts[index] : self.starts[index + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes | None]:
        """Give each value."""
        raw, first = self.data[self.starts[0] : self.starts[-1]].tobytes(), int(self.starts[0])
        for index, (start, end) in enumerate(pairwise(self.starts.tolist())):
            yield None if self.missing is not None and self.missing[index] else raw[start - first : end - first]

    def some(self, places: Sequence[int]) -> list[bytes | None]:
        """Return the values at some places."""
        if not len(places):
            return []
        if 4 * len(places) > len(self):
            values = list(self)
            return [values[place] for place in places]
        return [self[place] for place in places]

    def __add__(self, more: "Column") -> "Column":
        """Return these values and those that follow them."""
        return Column.joined([self, more])

    @classmethod
    def joined(cls, columns: "Sequence[Column]") -> "Column":
        """Return the values of several columns as one."""
        parts = [column.data[column.starts[0] : column.starts[-1]] for column in columns]
        shifts = np.cumsum([0, *(column.n_bytes for column in columns)])
        starts = [column.starts[:-1] - column.starts[0] + shift for column, shift in zip(columns, shifts, strict=False)]
        missing = None
        if any(column.missing is not None for column in columns):
            missing = np.concatenate([np.zeros(len(c), np.bool_) if c.missing is None else c.missing for c in columns])
        data = np.concatenate([*parts, np.zeros(PADDING, np.uint8)])
        return cls(data, np.concatenate([*starts, shifts[-1:]]), missing)
