"""What is in a file of vectors of our own?

An index by the hash that a word has in a text, and rows: what a source (source.py) becomes once, so that processes map
it and share it. It says of which source it is, by SHA-256, and has a checksum. All of it can be made
again from the source (opened.py).

Words are read as texts are (normal.py, tokens.py): the first of two that are the same counts, and so it is where two
words have one hash. What is no single token could be met in no text, and is left out. Rows are 16-bit numbers with a
scale each: half of the memory, at an error of at most 1/65,534 of a row's largest number. Bit-exact: part of what a
model is that learned with it.

A file that is cut short while it is mapped ends the process that looks there: nothing is learned from what is gone.
"""

import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.learner.text.features import TextSettings, features
from driftline.learner.vectors.source import Source
from driftline.stream.errors import ConfigError, StateError

FORMAT: Final = 1
MAGIC: Final = b"driftline words\n"
MOST_WORDS: Final = 1_000_000  # those that come first
LANES: Final = 16  # a row's numbers are so many, or a multiple: loops over them are vectorised
HEAD_BYTES: Final = 4096
PEAK: Final = np.float32(32767)  # the largest number of a row
_FRAME: Final = struct.Struct("<II")  # the head's bytes, their checksum
LONGEST: Final = 256  # characters of a word
# With pairs: several tokens are several features, were they all the same.
_SETTINGS: Final = TextSettings(chars=False, max_chars=LONGEST + 1, max_features=2 * LONGEST, hashing=2)


class Words(NamedTuple):
    """What kernels look words up in; read only."""

    entries: NDArray[np.uint32]  # [2 * places], open addressing: a word's hash, and 1 + its row; 0: free
    scales: NDArray[np.float32]  # [words], of rows
    rows: NDArray[np.int16]  # [words * width], zeros behind the dimension


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a file begins with."""

    format: int = FORMAT
    sha256: str  # of the source
    size: int  # its bytes
    mtime_ns: int  # when they were written
    words: int
    dimension: int
    checksum: int  # CRC-32 of all behind the head

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return width_of(self.dimension)

    @property
    def places(self) -> int:
        """Places of the index."""
        return places_for(self.words)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The bytes of rows, scales and entries, which come in this order behind the head."""
        return 2 * self.words * self.width, 4 * self.words, 8 * self.places


_HEAD: Final = msgspec.json.Decoder(Head)


class Table:
    """Word vectors, mapped. Any thread.

    Attributes
    ----------
    sha256 : of the file that they were read from
    dimension : numbers of a vector
    words : for kernels
    """

    def __init__(self, head: Head, mapped: mmap.mmap) -> None:
        self.sha256, self.dimension = head.sha256, head.dimension
        rows, scales, _ = head.sizes
        at = HEAD_BYTES + rows
        self.words = Words(
            np.frombuffer(mapped, np.uint32, 2 * head.places, at + scales),
            np.frombuffer(mapped, np.float32, head.words, at),
            np.frombuffer(mapped, np.int16, head.words * head.width, HEAD_BYTES),
        )

    def __len__(self) -> int:
        return len(self.words.scales)

    def find(self, hashes: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return the rows of words, int64 [words]; -1 of one that has none. What lookup.py does for texts."""
        entries = self.words.entries.reshape(-1, 2)
        places = hashes & np.uint32(len(entries) - 1)
        rows = np.full(len(hashes), -1)
        left = np.arange(len(hashes))
        while len(left):
            at = entries[places[left]]
            found = (at[:, 0] == hashes[left]) & (at[:, 1] > 0)
            rows[left[found]] = at[found, 1].astype(np.int64) - 1
            left = left[~found & (at[:, 1] > 0)]
            places[left] = (places[left] + 1) & np.uint32(len(entries) - 1)
        return rows

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the vectors in some rows, float64 [rows, dimension]."""
        numbers = self.words.rows.reshape(len(self), -1)[rows, : self.dimension].astype(np.float64)
        found: NDArray[np.float64] = numbers * self.words.scales[rows, np.newaxis]
        return found


def no_words() -> Words:
    """Return what a model without vectors has, of the same types: kernels are compiled for those once."""
    none = Words(np.zeros(0, np.uint32), np.zeros(0, np.float32), np.zeros(0, np.int16))
    for array in none:
        array.flags.writeable = False
    return none


def width_of(dimension: int) -> int:
    """Return how many numbers a row has: one more at least, for what all texts have in common (lookup.py)."""
    return dimension // LANES * LANES + LANES


def places_for(words: int) -> int:
    """Return how many places the index of so many words has: a power of two, at most half of them taken."""
    return 1 << (2 * words - 1).bit_length()


def map_file(path: Path) -> Table:
    """Return the vectors in a file. Raises StateError where it is not whole, OSError."""
    with path.open("rb") as file:
        head = read_head(path, file)
        size, found = HEAD_BYTES + sum(head.sizes), os.fstat(file.fileno()).st_size
        if found != size:
            raise StateError(f"{path} is damaged: it must have {size:,} bytes, but has {found:,}")
        mapped = mmap.mmap(file.fileno(), size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    if zlib.crc32(memoryview(mapped)[HEAD_BYTES:]) != head.checksum:
        raise StateError(f"{path} is damaged: its checksum is another one")
    return Table(head, mapped)


def read_head(path: Path, file: BinaryIO) -> Head:
    """Return what a file begins with. Raises StateError."""
    content = file.read(HEAD_BYTES)
    try:
        length, checksum = _FRAME.unpack_from(content, len(MAGIC))
        encoded = content[len(MAGIC) + _FRAME.size :][:length]
        if not content.startswith(MAGIC) or zlib.crc32(encoded) != checksum:
            raise StateError(f"{path} is damaged: its head is none")
        head = _HEAD.decode(encoded)
    except (struct.error, msgspec.DecodeError) as error:
        raise StateError(f"{path} is damaged: its head is none") from error
    if head.format != FORMAT:
        raise StateError(f"{path} has format {head.format}; this version of Driftline reads format {FORMAT}")
    return head


def write(source: Source, out: BinaryIO) -> None:
    """Write what a source holds into an empty file, durably.

    Raises
    ------
    ConfigError : the source is none, has no word, or changed meanwhile.
    """
    before, sha256 = source.stamp, source.sha256()
    out.write(bytes(HEAD_BYTES))
    hashes, scales = [np.zeros(0, np.uint32)], [np.zeros(0, np.float32)]
    seen: set[int] = set()
    dimension = checksum = 0
    for block in source.blocks():
        dimension = block.vectors.shape[1]
        own, peaks = hashes_of(block.words), np.abs(block.vectors).max(axis=1)
        new = []
        for at, word in enumerate(own.tolist()):
            if word >= 0 and peaks[at] > 0 and word not in seen and len(seen) < MOST_WORDS:
                seen.add(word)
                new.append(at)
        scale = np.maximum(peaks[new] / PEAK, np.finfo(np.float32).tiny)
        rows = np.zeros((len(new), width_of(dimension)), np.int16)
        rows[:, :dimension] = np.rint(block.vectors[new] / scale[:, np.newaxis])
        checksum = _put(out, rows, checksum)
        hashes.append(own[new].astype(np.uint32))
        scales.append(scale)
        if len(seen) >= MOST_WORDS:
            break
    if not seen:
        raise ConfigError(f"vectors: {source.name} has no word")
    for array in (np.concatenate(scales), index_of(np.concatenate(hashes))):
        checksum = _put(out, array, checksum)
    if source.stamp != before:
        raise ConfigError(f"vectors: {source.name} was changed while it was read; start again")
    size, mtime_ns = before
    head = msgspec.json.encode(
        Head(
            sha256=sha256,
            size=size,
            mtime_ns=mtime_ns,
            words=len(seen),
            dimension=dimension,
            checksum=checksum,
        )
    )
    out.seek(0)
    out.write(MAGIC + _FRAME.pack(len(head), zlib.crc32(head)) + head)
    out.flush()
    os.fsync(out.fileno())


def _put(out: BinaryIO, array: NDArray[Any], checksum: int) -> int:
    content = array.tobytes()
    out.write(content)
    return zlib.crc32(content, checksum)


def hashes_of(words: list[str]) -> NDArray[np.int64]:
    """Return the hashes that words have in texts; -1 of what is no single token."""
    found, ends = features(words, _SETTINGS)
    is_one = (np.diff(ends) == 1) & (np.fromiter(map(len, words), np.int64, len(words)) <= LONGEST)
    hashes = np.full(len(words), -1, np.int64)
    hashes[is_one] = found[ends[:-1][is_one]]
    return hashes


def index_of(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return `Words.entries` of distinct hashes: each at the first free place from the one that its last bits say."""
    entries = np.zeros((places_for(len(hashes)), 2), np.uint32)
    rows, places = np.arange(1, len(hashes) + 1, dtype=np.uint32), hashes & np.uint32(len(entries) - 1)
    while len(rows):
        free = entries[places, 1] == 0
        entries[places[free], 1] = rows[free]  # of several that want one place the last has it
        left = entries[places, 1] != rows
        entries[places[~left], 0] = hashes[rows[~left] - 1]
        rows, places = rows[left], (places[left] + 1) & np.uint32(len(entries) - 1)
    return entries.reshape(-1)
