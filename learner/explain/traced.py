"""What is a feature of a text, and how is one hashed? In plain Python, for trace.py."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from driftline.learner.text.characters import APOSTROPHE, CHARACTER, CLASS_SHIFT, FOLD_MASK, IGNORED, SPACE, WORD
from driftline.learner.text.hashes import FINISHER, MULTIPLIER, WORD_SEED
from driftline.learner.text.tokens import BOUNDARY, MAX_RUN

KINDS: Final = (
    "word",
    "field",
    "pair",
    "times",
    "field_pair",
    "cross",
    "chars",
    "case",
    "first",
    "last",
    "amount",
    "vector",
)
MASK: Final = 2**64 - 1

Span = tuple[int, int]  # first character, one past the last


class Feature(NamedTuple):
    """A feature of a text."""

    hash: int
    kind: str  # one of KINDS
    text: str  # folded; a pair's tokens with a space between; at the edge of a word n-grams have one; case: as written
    spans: list[Span]  # in order, in the text; none of a field
    field: str = ""  # its name


class Token(NamedTuple):
    """A token, or several that n-grams run through: folded code points, and where in the text each begins and ends."""

    codes: list[int]
    starts: list[int]
    stops: list[int]


def tokens_of(entries: list[int]) -> Iterator[tuple[Token, bool]]:
    """Give each token, and whether n-grams run on from the one before into it."""
    stop, i = len(entries), 0
    after_character = False
    while i < stop:
        first = i
        kind, code = entries[i] >> CLASS_SHIFT, entries[i] & FOLD_MASK
        i += 1
        if kind == IGNORED:
            continue
        goes_on = after_character and kind == CHARACTER
        after_character = kind == CHARACTER
        if kind == SPACE:
            continue
        kept = [first]
        while i < stop:
            next_kind, next_code = entries[i] >> CLASS_SHIFT, entries[i] & FOLD_MASK
            if next_kind == IGNORED:
                pass
            elif kind == WORD and next_kind == APOSTROPHE:
                if i + 1 == stop or entries[i + 1] >> CLASS_SHIFT != WORD:
                    break
                kept.append(i)
            elif kind == WORD == next_kind:
                kept.append(i)
            elif kind not in (WORD, CHARACTER) and next_code == code:
                if len(kept) < MAX_RUN:
                    kept.append(i)
            else:
                break
            i += 1
        yield Token([entries[at] & FOLD_MASK for at in kept], kept, [*kept[1:], i]), goes_on


def shown(code: int) -> str:
    """Return a code point as text that can be encoded."""
    return " " if code == BOUNDARY else "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)


def hash_word(codes: list[int]) -> int:
    """Return the hash of a token."""
    folded = "".join(map(chr, codes)).encode("utf-8", "surrogatepass")
    h = int(WORD_SEED)
    for at in range(0, len(folded), 8):
        h = ((h ^ (h >> 32) * (at > 0)) ^ int.from_bytes(folded[at : at + 8], "little")) * int(MULTIPLIER) & MASK
    return finish(h)


def hash_codes(codes: Iterable[int], seed: int) -> int:
    """Return the hash of code points, or of bytes, one after another."""
    h = seed
    for code in codes:
        h = ((h ^ code) * int(MULTIPLIER)) & MASK
    return finish(h)


def hash_two(first: int, second: int) -> int:
    """Return the hash of a pair, or of a seed and what it is of."""
    return finish(((first * int(MULTIPLIER)) & MASK) ^ second)


def finish(h: int) -> int:
    """Return the 32 bits of a hash that is complete."""
    return (((h ^ (h >> 32)) * int(FINISHER)) & MASK) >> 32
