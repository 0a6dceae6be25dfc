"""In which order do rows come that nobody should learn in the order of their file?

In one that depends on the seed and the rows alone, each order as likely as any other. First each row goes to one of
PARTS temporary files, by chance; then these are shuffled and given one after another. So memory holds one part of the
rows, and the disk (`TMPDIR`) all of them where they are many.
"""

import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Final

import msgspec

from driftline.stream.errors import DriftlineError
from driftline.stream.files.reader import Row

PARTS: Final = 256
_IN_MEMORY_BYTES: Final = 1 << 18  # of each part; a larger one goes to the disk
_SIZE_BYTES: Final = 8

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Row).decode


def shuffled(rows: Iterable[Row], seed: int) -> Iterator[Row]:
    """Give all rows, shuffled. Raises DriftlineError where the disk has no room for them."""
    chance = random.Random(seed)
    with ExitStack() as stack:
        parts = [stack.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)) for _ in range(PARTS)]
        try:
            for row in rows:
                raw = _encode(row)
                parts[chance.randrange(PARTS)].write(len(raw).to_bytes(_SIZE_BYTES, "little") + raw)
        except OSError as error:
            raise DriftlineError(
                f"shuffle: {tempfile.gettempdir()} has no room for the rows ({error.strerror}); "
                "name another directory with TMPDIR"
            ) from None
        for part in parts:
            part.seek(0)
            held = []
            while size := int.from_bytes(part.read(_SIZE_BYTES), "little"):
                held.append(part.read(size))
            part.close()
            chance.shuffle(held)
            yield from map(_decode, held)
