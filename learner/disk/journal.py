"""Which records were applied since the checkpoint, and in which batches?

One file for each start and each checkpoint: a head, then an entry for each batch, a few bytes each. An entry is durable
before anything that follows from its batch is seen outside. The log has the records; this has only their order. A torn
tail (the machine went down while an entry was written) is left out: nobody had seen anything of its batch. An entry
that does not hold and has others behind it was damaged later: that is refused.

    file   = magic, entry*                 DRIFTLINE-JOURNAL-1 had no numbers of records
    entry  = length uint32, crc32 uint32 of the body (little endian), body
    body   = msgpack; the first entry is Head, the others Applied
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec

from driftline.learner.disk import durable
from driftline.learner.disk.settings import Rules
from driftline.stream.errors import DiskFull, StateError
from driftline.stream.log.base import TopicPartition
from driftline.stream.log.merge import Span

MAGIC: Final = b"DRIFTLINE-JOURNAL-2\n"
READABLE: Final = (MAGIC, b"DRIFTLINE-JOURNAL-1\n")
MAX_ENTRY_BYTES: Final = 1 << 24
SEARCHED: Final = 1 << 16  # bytes behind a torn entry in which there must be no whole one
_FRAME: Final = struct.Struct("<II")
_Natural = Annotated[int, msgspec.Meta(ge=0)]


class Head(msgspec.Struct, array_like=True):
    """What the entries start from and go by: a checkpoint's batch, the rules, the partitions by their number."""

    checkpoint: int
    epoch: int
    rules: Rules
    partitions: list[TopicPartition]
    lineage: str = ""  # of the models of what is learned in it; older ones do not say: as before


_HEAD: Final = msgspec.msgpack.Decoder(Head)


class _Span(msgspec.Struct, array_like=True):
    """A span, as it is written."""

    partition: _Natural  # its number
    start: _Natural
    end: _Natural
    records: _Natural | None = None


class _Entry(msgspec.Struct, array_like=True):
    """One batch, as it is written."""

    batch: int
    delivered: int  # the last batch up to which all output is durable in the log
    spans: list[_Span]


_ENTRY: Final = msgspec.msgpack.Decoder(_Entry)


class Journal:
    """The journal that is being written. One thread."""

    def __init__(self, path: Path, head: Head) -> None:
        self._numbers = {partition: number for number, partition in enumerate(head.partitions)}
        self._encode = msgspec.msgpack.Encoder().encode
        self._file = durable.AppendFile(path, MAGIC + self._frame(head))

    def append(self, batch: int, delivered: int, spans: Sequence[Span]) -> None:
        """Write a batch down and return once it is durable. Raises DiskFull: then nothing was written."""
        numbered = [_Span(self._numbers[span.partition], span.start, span.end, span.records) for span in spans]
        self._file.append(self._frame(_Entry(batch, delivered, numbered)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _frame(self, body: Head | _Entry) -> bytes:
        encoded = self._encode(body)
        return _FRAME.pack(len(encoded), zlib.crc32(encoded)) + encoded


class Journals:
    """A learner's journals, one after another. One thread.

    A new one is made in a thread, since its syncs take as long as a batch; the next entry waits for it.

    Parameters
    ----------
    root : where they lie
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._thread = ThreadPoolExecutor(1, "journal")
        self._journal: Journal | None = None
        self._begun: tuple[Head, Future[Journal]] | None = None

    def begin(self, head: Head) -> None:
        """Have the next one made: what is appended from now on goes into it."""
        self._take_begun()
        self._begun = head, self._thread.submit(Journal, path_of(self._root, head.checkpoint, head.epoch), head)

    def append(self, batch: int, delivered: int, spans: Sequence[Span], learned: object = None) -> None:
        """Write a batch down and return once it is durable. Raises DiskFull: then nothing was written.

        `learned` is for a journal that others learn from (cluster/log_journal.py).
        """
        del learned
        self._take_begun()
        assert self._journal is not None, "begin comes first"
        self._journal.append(batch, delivered, spans)

    def look(self) -> None:
        """See whether the next one is there. Raises what kept it from being made; DiskFull: look again."""
        if self._begun is not None and self._begun[1].done():
            self._take_begun()

    def settle(self) -> None:
        """Wait for the next one. Raises what kept it from being made, but for a full disk: nothing is to be written."""
        with suppress(DiskFull):
            if self._begun is not None:
                self._begun[1].result()

    def close(self) -> None:
        """Close the file; one that could not be begun is left out."""
        self._thread.shutdown()
        if self._begun is not None:
            with suppress(OSError, StateError):
                self._go_on_in(self._begun[1].result())
        if self._journal is not None:
            self._journal.close()

    def _take_begun(self) -> None:
        """Wait for the one that is being made. Raises DiskFull: then it is tried again the next time."""
        if self._begun is None:
            return
        head, made = self._begun
        if made.done() and isinstance(made.exception(), DiskFull):
            made = self._thread.submit(Journal, path_of(self._root, head.checkpoint, head.epoch), head)
            self._begun = head, made
        self._go_on_in(made.result())

    def _go_on_in(self, journal: Journal) -> None:
        if self._journal is not None:
            self._journal.close()
        self._journal, self._begun = journal, None


def path_of(root: Path, checkpoint: int, epoch: int) -> Path:
    """Return where the journal after a checkpoint lies."""
    return root / f"{checkpoint:012d}-{epoch:08d}.journal"


def last_epoch(root: Path) -> int:
    """Return the highest epoch that wrote a journal, 0 where none did."""
    return max((_place(path)[1] for path in root.glob("[0-9]*.journal")), default=0)


def _place(path: Path) -> tuple[int, int]:
    """Return the checkpoint and the epoch of a journal, by its name."""
    checkpoint, _, epoch = path.stem.partition("-")
    return int(checkpoint), int(epoch)


def settle(root: Path) -> None:
    """Return once all journals are on the disk: who wrote the last entries may have been killed before its fsync."""
    for path in root.glob("[0-9]*.journal"):
        durable.settle(path)
    durable.sync_directory(root)


class Applied(NamedTuple):
    """One batch as it was applied."""

    batch: int
    delivered: int
    spans: list[Span]
    rules: Rules
    lineage: str = ""


def read_since(root: Path, batch: int) -> list[Applied]:
    """Return the batches that were applied after a checkpoint, in their order.

    A learner's first journal begins where it took over. What the journals of those before it have beyond that was
    written by one that was overtaken and did not know it yet: nobody saw anything of it, and it is left out.

    Raises
    ------
    StateError : a journal is missing or damaged.
    """
    found: list[Applied] = []
    places = {path: _place(path) for path in sorted(root.glob("[0-9]*.journal"))}
    for path, (checkpoint, epoch) in places.items():
        if checkpoint >= batch:
            last = min((start for start, later in places.values() if later > epoch), default=None)
            found += [applied for applied in read_journal(path) if last is None or applied.batch <= last]
    for expected, applied in enumerate(found, start=batch + 1):
        if applied.batch != expected:
            raise StateError(f"{root}: batch {expected} is missing, {applied.batch} follows; a journal is missing")
    return found


def prune(root: Path, batch: int) -> None:
    """Delete the journals that end before a checkpoint."""
    for path in root.glob("[0-9]*.journal"):
        if _place(path)[0] < batch:
            durable.remove(path)


def read_journal(path: Path) -> list[Applied]:
    """Return a journal's batches; a torn tail is left out.

    Raises
    ------
    StateError : this is no journal, one of another format, or a damaged one.
    """
    content = path.read_bytes()
    if not content.startswith(READABLE):
        raise StateError(f"{path} is not a journal of this version of Driftline (it begins with {content[:20]!r})")
    bodies = _bodies(content)
    try:
        head = _HEAD.decode(next(bodies))
        if path_of(path.parent, head.checkpoint, head.epoch) != path:
            raise ValueError(f"it is the one after checkpoint {head.checkpoint}, of epoch {head.epoch}")
        return [_applied(head, _ENTRY.decode(body)) for body in bodies]
    except (StopIteration, IndexError, ValueError, RecursionError) as error:
        raise StateError(
            f"{path} is damaged ({error!r}); restore it from a copy, or remove newer checkpoints"
        ) from None


def _applied(head: Head, entry: _Entry) -> Applied:
    spans = [Span(head.partitions[span.partition], span.start, span.end, span.records) for span in entry.spans]
    return Applied(entry.batch, entry.delivered, spans, head.rules, head.lineage)


def _bodies(content: bytes) -> Iterator[bytes]:
    at = len(MAGIC)
    while at + _FRAME.size <= len(content):
        body = _body(content, at)
        if body is None:
            if any(_body(content, place) is not None for place in range(at + 1, min(len(content), at + SEARCHED))):
                raise ValueError(f"the entry at byte {at} does not hold, and others follow")
            return
        yield body
        at += _FRAME.size + len(body)


def _body(content: bytes, at: int) -> bytes | None:
    """Return the body of the entry at a place, None where none is whole. None is empty: a torn tail may be zeros."""
    if at + _FRAME.size > len(content):
        return None
    length, checksum = _FRAME.unpack_from(content, at)
    if not 0 < length <= min(MAX_ENTRY_BYTES, len(content) - at - _FRAME.size):
        return None
    body = content[at + _FRAME.size : at + _FRAME.size + length]
    return body if zlib.crc32(body) == checksum else None
