"""What stands on the topic that all machines of one journal share, and which of it counts?

One topic of one partition, compacted: the last record of each key stays. What the leader says of itself has its epoch
in a header, and counts unless a record of a higher epoch stands before it: so an overtaken leader's late word counts
for nobody, as in the journal. Compaction knows nothing of epochs, and may keep such a late record in the place of the
one that counts: whoever leads sees it, and says it again. What anybody may ask has no epoch; of that the order decides.

    leader               the leader's: it leads now, with this epoch
    status               the leader's: status.json
    history/PLACE        the leader's: one row of the rings in `history`
    review               the leader's: review.json
    kept/VERSION         the leader's: a model that can be served again; its bytes lie in the store (store/models.py)
    erased/NAME          the leader's: a line of erased.jsonl
    erase/NAME           anybody's: something is to be erased. The leader takes it away once that is done
    choice               anybody's: which version is served in the latest's place
    pin/VERSION          anybody's: it is never dropped; taken away by anybody
    claim/LABELLER       anybody's: which messages somebody labels (claims.py). The leader takes away what is over

A value that is too large for a record is cut into pieces, KEY#0, KEY#1 and so on; it counts with its last piece.
"""

import hashlib
import secrets
from typing import Final, NamedTuple

from driftline.stream.log.base import NewRecord, Record

LEADER: Final = "leader"
STATUS: Final = "status"
HISTORY: Final = "history/"
REVIEW: Final = "review"
KEPT: Final = "kept/"
ERASED: Final = "erased/"
ERASE: Final = "erase/"
CHOICE: Final = "choice"
PIN: Final = "pin/"
CLAIM: Final = "claim/"

EPOCH: Final = "epoch"  # headers
PIECE: Final = "piece"
OF: Final = "of"
PIECE_BYTES: Final = 512 << 10
MOST_PIECES: Final = 128
_SAID_BY_LEADER: Final = (LEADER, STATUS, HISTORY, REVIEW, KEPT, ERASED)


class Value(NamedTuple):
    """What a key has now."""

    content: bytes
    offset: int  # of its record, or its last piece
    timestamp_ms: int
    digest: bytes


class Order:
    """Reads the topic. One thread.

    Attributes
    ----------
    epoch : the highest that was seen
    offset : of the record that is read next
    values : what counts, by key
    overlaid : keys behind whose value a record stands that does not count
    """

    def __init__(self) -> None:
        self.epoch = self.offset = 0
        self.values: dict[str, Value] = {}
        self.overlaid: set[str] = set()
        self._open: dict[str, tuple[bytes, list[bytes]]] = {}  # of a value in pieces: its name, and those that came

    def take(self, record: Record) -> str | None:
        """Read a record; return the key whose value it changed, or took away."""
        self.offset = record.offset + 1
        key = (record.key or b"").decode(errors="replace")
        headers = dict(record.headers or ())
        epoch = _number(headers.get(EPOCH))
        base, piece, _ = key.partition("#")
        if epoch is None and base.startswith(_SAID_BY_LEADER):
            return None  # nobody else may say it
        if epoch is not None:
            if epoch < self.epoch:
                self.overlaid.add(base)
                return None
            self.epoch = epoch
        if piece:
            whole = self._whole(base, headers.get(PIECE), record.value)
            return None if whole is None else self._set(base, whole, record)
        if record.value is None:
            known, of = self.values.get(key), _number(headers.get(OF))
            if known is None or (of is not None and of != known.offset):
                return None
            del self.values[key]
            return key
        return self._set(key, record.value, record)

    def see_epoch(self, epoch: int) -> None:
        """Take it that one of this epoch leads: the journal says so, which is read apart from this topic."""
        self.epoch = max(self.epoch, epoch)

    def under(self, prefix: str) -> dict[str, Value]:
        """Return the values of the keys that begin so, by what follows."""
        return {key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)}

    def _set(self, key: str, content: bytes, record: Record) -> str:
        self.values[key] = Value(content, record.offset, record.timestamp_ms, digest(content))
        self.overlaid.discard(key)
        return key

    def _whole(self, base: str, header: bytes | None, content: bytes | None) -> bytes | None:
        """Return a value of which this is the last piece; None where others are to come, or are missing."""
        name, number, of = [*(header or b"").split(b"/"), b"", b""][:3]
        at, n = _number(number), _number(of)
        known, parts = self._open.pop(base, (name, []))
        if content is None or at is None or n is None or n > MOST_PIECES:
            return None
        if known != name or at != len(parts):
            if at:
                return None
            parts = []
        parts.append(content)
        if len(parts) < n:
            self._open[base] = name, parts
            return None
        return b"".join(parts)


def records(key: str, content: bytes | None, epoch: int | None = None) -> list[NewRecord]:
    """Return the records that give a key a value, or with None take it away. `epoch`: of the leader that says so."""
    said = [] if epoch is None else [(EPOCH, str(epoch).encode())]
    if content is None or len(content) <= PIECE_BYTES:
        return [NewRecord(key.encode(), content, headers=said)]
    parts = [content[at : at + PIECE_BYTES] for at in range(0, len(content), PIECE_BYTES)]
    name = secrets.token_hex(8)
    return [
        NewRecord(f"{key}#{number}".encode(), part, headers=[*said, (PIECE, f"{name}/{number}/{len(parts)}".encode())])
        for number, part in enumerate(parts)
    ]


def removal(key: str, of: int) -> NewRecord:
    """Return the record that takes a value away, where it is still the one of this offset."""
    return NewRecord(key.encode(), None, headers=[(OF, str(of).encode())])


def digest(content: bytes) -> bytes:
    """Return what two values have in common that are the same."""
    return hashlib.blake2b(content, digest_size=16).digest()


def _number(text: bytes | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
