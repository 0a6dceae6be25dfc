"""Who labels which message, where several machines ask?

Each labeller has one record: which messages he wants, and until when. In the topic's order it takes the place of his
one before, and gives him those that nobody else has then; a message belongs to the one whose record came first. The
time at which others' claims are over is the record's own, so all who read come to the same. Where compaction took a
record that had kept another one from a message, a reader that begins later may believe that it is his: it is kept from
others until his time is over, and given to nobody twice.
"""

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from driftline.learner.report.label_requests import MAX_OPEN

FILE: Final = "claims.msgpack"  # of the data directory: what the API's processes read
MAX_HELD: Final = 20  # by one labeller
MAX_CLAIMS: Final = 2 * MAX_OPEN
LABELLED: Final = ""
LABELLED_MS: Final = 60_000  # a label on its way to the learner; then it is known, or was refused


class Wanted(msgspec.Struct, array_like=True, frozen=True):
    """A labeller's record. Messages are named by `name_of`."""

    labeller: str
    messages: list[bytes]
    labelled: list[bytes]  # whose label he, or another one here, has sent: they are nobody's
    until_ms: int  # since 1970


_WANTED: Final = msgspec.msgpack.Decoder(Wanted)


class Held(msgspec.Struct, array_like=True, frozen=True):
    """Whose a message is; `by` is empty where its label is on its way."""

    by: str
    until_ms: int


class Table(msgspec.Struct):
    """All claims, by the message."""

    claims: dict[bytes, Held] = {}

    def take(self, wanted: Wanted, now_ms: int) -> None:
        """Give a labeller what he wants, as far as it is to be had."""
        self.claims = {
            name: held for name, held in self.claims.items() if held.until_ms > now_ms and held.by != wanted.labeller
        }
        for name in wanted.messages[:MAX_HELD]:
            self._give(name, Held(wanted.labeller, wanted.until_ms))
        for name in wanted.labelled[:MAX_CLAIMS]:
            self._give(name, Held(LABELLED, now_ms + LABELLED_MS))

    def _give(self, name: bytes, held: Held) -> None:
        if name not in self.claims and len(self.claims) < MAX_CLAIMS:
            self.claims[name] = held


_TABLE: Final = msgspec.msgpack.Decoder(Table)


def decode(content: bytes) -> Wanted | None:
    """Return what a record says; None where this version cannot read it."""
    try:
        return _WANTED.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return None


def read_table(data: Path) -> Table:
    """Return the claims of a data directory; none where they cannot be read."""
    try:
        return _TABLE.decode((data / FILE).read_bytes())
    except (OSError, msgspec.DecodeError, RecursionError):
        return Table()


def name_of(message_id: str) -> bytes:
    """Return what a message is called here: no longer than others, whatever its id is."""
    return hashlib.blake2b(message_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
