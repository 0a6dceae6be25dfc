"""Which words and numbers are in a file of word vectors?

A word and its numbers a line, as GloVe and fastText write them, UTF-8, as it is or packed with gzip. fastText's first
line says how many words and numbers there are. Such files have the frequent words first, so of a longer one the first
words count. Read a block of lines at a time: memory does not grow with the file.
"""

import gzip
import warnings
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np

from driftline.learner.vectors.blocks import LEAST_DIMENSION, LINES, MOST_DIMENSION, Block, Floats
from driftline.stream.errors import ConfigError

MOST_BYTES: Final = 1 << 15  # of a line
GZIP: Final = b"\x1f\x8b"
OTHERS: Final = {b"PK\x03\x04": "a zip file", b"BZh91AY&SY": "packed with bzip2", b"\xfd7zXZ\x00": "packed with xz"}
WHAT: Final = "a word and its numbers a line, with spaces between, as GloVe and fastText write it"


def blocks(path: Path, file: BinaryIO) -> Iterator[Block]:
    """Give the words of an open file and their vectors, in its order.

    Raises
    ------
    ConfigError : it is no such file, or was cut short; which line, and what is wrong there.
    OSError : it cannot be read.
    """
    try:
        yield from _Reader(path, _unpacked(path, file)).blocks()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"vectors: {path} cannot be unpacked: {error}; was it cut short?") from error


def _unpacked(path: Path, file: BinaryIO) -> BinaryIO:
    start = file.read(10)
    file.seek(0)
    for first, what in OTHERS.items():
        if start.startswith(first):
            raise ConfigError(f"vectors: {path} is {what}: unpack it, or pack it with gzip")
    return cast(BinaryIO, gzip.open(file)) if start.startswith(GZIP) else file


class _Reader:
    """The lines of a file."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file, self._line = path, file, 0

    def blocks(self) -> Iterator[Block]:
        """Give all blocks."""
        first = self._next().removeprefix(BOM_UTF8)
        fields = first.split(b" ")
        announced = None
        if len(fields) == 2 and all(field.isdigit() for field in fields):
            announced, dimension = int(fields[0]), int(fields[1])
            first = self._next()
        else:
            dimension = len(fields) - 1
        if not LEAST_DIMENSION <= dimension <= MOST_DIMENSION:
            raise self._bad(f"{max(dimension, 0)} numbers; a word must have {LEAST_DIMENSION} to {MOST_DIMENSION}")
        n = 0
        while first:
            lines, places = [first], [self._line]
            while len(lines) < LINES and (line := self._next()):
                lines.append(line)
                places.append(self._line)
            yield self._block(lines, places, dimension)
            n += len(lines)
            first = self._next()
        if announced is not None and n < announced:
            raise ConfigError(
                f"vectors: {self._path} says that it has {announced:,} words, but has {n:,}: it was cut short; fetch "
                "it again"
            )

    def _next(self) -> bytes:
        """Return the next line that is not empty; b"" at the end."""
        while read := self._file.readline(MOST_BYTES + 1):
            self._line += 1
            if len(read) > MOST_BYTES:
                raise self._bad(f"longer than {MOST_BYTES:,} bytes")
            line = read.rstrip().replace(b"\t", b" ")
            if line:
                return line
        return b""

    def _block(self, lines: list[bytes], places: list[int], dimension: int) -> Block:
        words, numbers = [], []
        for place, line in zip(places, lines, strict=True):
            word, _, rest = line.partition(b" ")
            if rest.count(b" ") != dimension - 1:  # a word with spaces, or a line that is none
                word, *fields = line.rsplit(b" ", dimension)
                if len(fields) != dimension:
                    raise self._bad(f"no word with {dimension} numbers", place)
                rest = b" ".join(fields)
            words.append(word.decode(errors="replace"))  # one that is broken is no word of any text
            numbers.append(rest)
        vectors = _numbers(numbers)
        if len(vectors) != len(lines) * dimension or not np.isfinite(vectors).all():
            for place, rest in zip(places, numbers, strict=True):
                found = _numbers([rest])
                if len(found) != dimension or not np.isfinite(found).all():
                    raise self._bad(f"what stands behind the word are no {dimension} numbers", place)
        return Block(words, vectors.reshape(len(lines), dimension))

    def _bad(self, what: str, line: int | None = None) -> ConfigError:
        return ConfigError(f"vectors: {self._path}, line {line or self._line}: {what}. A table is a text file: {WHAT}")


def _numbers(texts: list[bytes]) -> Floats:
    """Return the numbers in some texts; fewer where one is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # whoever asked sees that one is missing
        try:
            found = np.fromstring(b" ".join(texts), np.float64, sep=" ")
        except ValueError:
            return np.zeros(0, np.float32)
    with np.errstate(over="ignore"):
        return found.astype(np.float32)
