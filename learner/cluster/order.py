"""Which entries of the journal count?

A function of what stands in it, in its order, and of nothing else: whoever reads it comes to the same. A claim counts
where its epoch is higher than any before. From there on only entries of that epoch count, each batch the one that
follows the last; what an overtaken leader still wrote, and what was written twice, counts for nobody.
"""

from typing import Final

from driftline.learner.cluster.entries import Batch, Claim, Entry, HandOver, Piece, Restart, decode

MOST_OPEN: Final = 16  # entries of which pieces came, and not the last one
MOST_BYTES: Final = 1 << 31  # of their pieces, together


class Order:
    """Reads a journal. One thread.

    Parameters
    ----------
    epoch, batch : of the newest claim, and the last batch, before `offset`
    offset : of the record that is read next

    Attributes
    ----------
    n_void : entries that did not count
    """

    def __init__(self, epoch: int = 0, batch: int = 0, offset: int = 0) -> None:
        self.epoch, self.batch, self.offset = epoch, batch, offset
        self.n_void = 0
        self._open: dict[int, list[bytes]] = {}  # of an entry, the pieces that came, oldest entry first
        self._n_bytes = 0

    def take(self, offset: int, value: bytes | None) -> Entry | None:
        """Read a record; return the entry that it ends, where it counts."""
        self.offset = offset + 1
        found = decode(value)
        if isinstance(found, Piece):
            whole = self._whole(found)
            if whole is None:
                return None
            found = decode(whole)
        if found is not None and not isinstance(found, Piece) and self._counts(found):
            return found
        self.n_void += 1
        return None

    def _counts(self, entry: Entry) -> bool:
        if isinstance(entry, HandOver):
            return True
        if isinstance(entry, Claim):
            if entry.epoch <= self.epoch:
                return False
            self.epoch = entry.epoch
        elif entry.epoch != self.epoch:
            return False
        elif isinstance(entry, Batch):
            if entry.batch != self.batch + 1:
                return False
            self.batch = entry.batch
        elif isinstance(entry, Restart):
            self.batch = entry.batch
        return True

    def _whole(self, piece: Piece) -> bytes | None:
        """Return an entry of which this is the last piece; None where others are to come, or are missing."""
        parts = self._open.pop(piece.entry, [])
        if len(parts) != piece.number:  # one is missing: it was written anew, or lies before what is read
            self._n_bytes -= sum(map(len, parts))
            return None
        parts.append(piece.content)
        self._n_bytes += len(piece.content)
        if len(parts) < piece.of:
            self._open[piece.entry] = parts
            while len(self._open) > MOST_OPEN or self._n_bytes > MOST_BYTES:
                self._n_bytes -= sum(map(len, self._open.pop(next(iter(self._open)))))
            return None
        self._n_bytes -= sum(map(len, parts))
        return b"".join(parts)
