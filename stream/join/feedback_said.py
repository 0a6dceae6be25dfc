"""What did feedback with an id of its own say?

A word: the feedback's id, its label (None: it took labels back) and its weight. By these a message knows a feedback
that comes again: the same id with the same content is a repetition, with other content it is another word. What is
short is kept as it is and so compared exactly; of what is longer a hash of 128 bits is kept, since one message may have
many words. It needs no key: whoever makes two ids collide has only their own labels taken for repetitions.
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from driftline.stream.join.codec import array_head, pack_int, pack_text
from driftline.stream.kernels import kernel
from driftline.stream.wire.records import Feedback

SHORT: Final = 40  # bytes of an id or a label that are kept as they are; a UUID has 36
LONGEST_WORD: Final = 2 * (SHORT + 2) + 6  # bytes
ANY: Final = ""  # instead of the label, where an older version kept the ids alone
_HEAD: Final = 0x93  # an array of three


class Word(NamedTuple):
    """What one feedback said. `weight` : the bits of a float32, as in a row's note."""

    id: str
    label: str | None
    weight: int

    def repeats(self, known: "Word") -> bool:
        """Tell whether it says nothing that a word with its id did not say."""
        return known.label == ANY or self == known


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[Word]).decode


def word_of(feedback: Feedback) -> Word:
    """Return what a feedback with an id said."""
    label = None if feedback.op == "retract" else short(feedback.label)
    return Word(short(feedback.id or ""), label, weight_bits(feedback.weight))


def short(text: str) -> str:
    """Return an id or a label as it is kept; no hash is the same as one that is short, which has no NUL."""
    raw = text.encode()
    return text if len(raw) <= SHORT else "\0" + hashlib.blake2b(raw, digest_size=16).hexdigest()


def weight_bits(weight: float) -> int:
    """Return the bits of a weight, as a float32."""
    bits: int = struct.unpack("<i", struct.pack("<f", weight))[0]
    return bits


def encode_words(words: Sequence[Word]) -> bytes:
    """Return words one behind the other, without a head."""
    return b"".join(map(_pack, words))


def decode_words(n: int, packed: bytes) -> list[Word]:
    """Return what `encode_words` was given."""
    return _unpack(array_head(n) + packed)


@kernel
def pack_word(out, at, data, id_at, id_size, label_at, label_size, weight):  # type: ignore[no-untyped-def]
    """Write a word whose id and label are short; return where it ends."""
    out[at] = _HEAD
    at = pack_text(out, at + 1, data, id_at, id_size)
    at = pack_text(out, at, data, label_at, label_size)
    return pack_int(out, at, weight)
