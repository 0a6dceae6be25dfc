"""What does a character look like, whatever it is made of?

Of each code point: what it is taken apart to (NFKD), how its marks are ordered, whether it is seen at all; and which
two are put together to one (NFC). From a file of tables made once from Unicode 14 and never from the running Python's:
what a text is read as is part of the checkpoint format. `python -m driftline.learner.text.forms` makes the file again,
for a new format version. normal.py goes by these tables.
"""

import sys
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.text.characters import IGNORED, N_CODEPOINTS, UNICODE_VERSION, classify

# An entry: the number of what it is taken apart to, or 0, its combining class, and flags.
PARTS_MASK: Final = 0xFFFF
CLASS_SHIFT: Final = 16
CLASS_MASK: Final = 0xFF << CLASS_SHIFT
JOINS: Final = 1 << 24  # it may become one with the character before, though it is no mark by its class
UNSEEN: Final = 1 << 25  # as if it were not there
CHANGES: Final = 1 << 26  # it never stays as it is
BARE: Final = 1 << 27  # a mark that does not become one with it is left out
ODD: Final = CLASS_MASK | JOINS | UNSEEN | CHANGES  # a text without any such character is as it should be
BLOCK_BITS: Final = 7  # entries are found by way of their block: few are distinct, so all of them stay in the cache

MAX_GROWTH: Final = 11  # bytes of UTF-8 that one becomes: U+FDFA, of 3, is eighteen characters of 33

_FILE: Final = Path(__file__).with_name("forms.npz")

# Default ignorable code points (DerivedCoreProperties of Unicode 14) that are no format characters by category.
_UNSEEN: Final = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2065, 0x2065), (0x3164, 0x3164),
    (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF),
)  # fmt: skip
_ZERO_WIDTH_SPACE: Final = "\u200b"  # it divides words for line breaks only; characters.py took it for a space
_TATWEEL: Final = "\u0640"  # makes an Arabic word longer, not another one
_OTHER_FORMS: Final = {"\u2800": " "}  # a Braille cell without dots
# Where a mark makes a letter of its own (é, й, أ) or else is decoration: stress, vowel points, strokes through a word.
_SPACES: Final = frozenset({"Cc", "Zs", "Zl", "Zp"})  # and what counts as one
_BARE_SCRIPTS: Final = ("LATIN ", "GREEK ", "CYRILLIC ", "ARABIC ", "HEBREW ")


class Forms(NamedTuple):
    """The tables, as kernels take them.

    Attributes
    ----------
    blocks : uint16 [0x110000 >> BLOCK_BITS], where the entries of each block of code points are
    entries : uint32 [blocks << BLOCK_BITS]
    starts : int32 [numbers + 1], where what a number stands for begins in `parts`
    parts : uint32, code points
    pairs : uint64, in order: first << 21 | second, of what becomes one
    wholes : uint32, what each pair becomes
    leads : uint8 [256], whether any character whose UTF-8 begins with this byte may not stay as it is
    """

    blocks: NDArray[np.uint16]
    entries: NDArray[np.uint32]
    starts: NDArray[np.int32]
    parts: NDArray[np.uint32]
    pairs: NDArray[np.uint64]
    wholes: NDArray[np.uint32]
    leads: NDArray[np.uint8]

    def entry(self, code: int) -> int:
        """Return the entry of a code point."""
        at = int(self.blocks[code >> BLOCK_BITS]) << BLOCK_BITS
        return int(self.entries[at | code & (1 << BLOCK_BITS) - 1])

    def entries_of(self, codes: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return the entries of code points."""
        at = self.blocks[codes >> BLOCK_BITS].astype(np.int64) << BLOCK_BITS
        found: NDArray[np.uint32] = self.entries[at | codes & (1 << BLOCK_BITS) - 1]
        return found

    def apart(self, code: int, entry: int) -> list[int]:
        """Return what a code point is taken apart to."""
        number = entry & PARTS_MASK
        return self.parts[self.starts[number] : self.starts[number + 1]].tolist() if number else [code]


@cache
def load_forms() -> Forms:
    """Return the tables, read once a process."""
    with np.load(_FILE, allow_pickle=False) as file:
        forms = Forms(*(np.ascontiguousarray(file[name]) for name in Forms._fields))
    for table in forms:
        table.flags.writeable = False
    return forms


def is_unseen(character: str) -> bool:
    """Tell whether a character is as if it were not there: nobody sees it, or it only goes with one that is."""
    code = ord(character)
    return (
        character in (_ZERO_WIDTH_SPACE, _TATWEEL)
        or classify(character) == IGNORED
        or unicodedata.category(character) == "Me"
        or any(first <= code <= last for first, last in _UNSEEN)
    )


def is_bare(character: str) -> bool:
    """Tell whether marks that do not become one with a character are left out; of a space they are nobody's."""
    kind = unicodedata.category(character)
    return (
        character.isascii()
        or kind in _SPACES
        or (kind[0] == "L" and unicodedata.name(character, "").startswith(_BARE_SCRIPTS))
    )


def apart(character: str) -> str:
    """Return what is seen of a character, taken apart."""
    form = _OTHER_FORMS.get(character) or unicodedata.normalize("NFKD", character)
    return "".join(part for part in form if not is_unseen(part))


def make_forms() -> Forms:
    """Return the tables by the running Python's Unicode."""
    characters = [chr(code) for code in range(N_CODEPOINTS)]
    pairs: dict[tuple[str, str], str] = {}
    for character in characters:
        form = unicodedata.decomposition(character)
        if form and not form.startswith("<") and unicodedata.normalize("NFC", character) == character:
            first, second = (chr(int(code, 16)) for code in form.split())
            pairs[first, second] = character
    vowels, ends = (range(0x1161, 0x1176), range(0x11A8, 0x11C3))  # of Hangul: normal.py puts syllables together itself
    seconds = {second for _, second in pairs} | set(map(chr, (*vowels, *ends)))
    numbers: dict[str, int] = {"": 0}
    entries = np.zeros(N_CODEPOINTS, np.uint32)
    for code, character in enumerate(characters):
        entry = unicodedata.combining(character) << CLASS_SHIFT
        form = apart(character)
        if is_unseen(character) or not form:
            entry = UNSEEN
        else:
            is_syllable = 0xAC00 <= code <= 0xD7A3
            if form != character and not is_syllable:
                entry |= numbers.setdefault(form, len(numbers))
            changes = character in _OTHER_FORMS or unicodedata.normalize("NFKC", character) != character
            entry |= CHANGES * changes | BARE * is_bare(character)
            entry |= JOINS * (character in seconds and not entry & CLASS_MASK)
        entries[code] = entry
    rows, places = np.unique(entries.reshape(-1, 1 << BLOCK_BITS), axis=0, return_inverse=True)
    leads = np.zeros(256, np.uint8)
    for code in np.flatnonzero(entries & ODD).tolist():
        leads[chr(code).encode("utf-8", "surrogatepass")[0]] = 1
    listed = sorted(pairs, key=lambda pair: tuple(map(ord, pair)))
    return Forms(
        places.reshape(-1).astype(np.uint16),
        rows.reshape(-1),
        np.cumsum([0, *map(len, numbers)], dtype=np.int32),
        np.array([ord(part) for form in numbers for part in form], np.uint32),
        np.array([ord(first) << 21 | ord(second) for first, second in listed], np.uint64),
        np.array([ord(pairs[pair]) for pair in listed], np.uint32),
        leads,
    )


def main() -> None:
    """Write the file, from a Python that has the Unicode version which it is defined by."""
    if unicodedata.unidata_version != UNICODE_VERSION:
        sys.exit(f"this Python has Unicode {unicodedata.unidata_version}, but the file is made from {UNICODE_VERSION}")
    forms: Any = make_forms()
    np.savez_compressed(_FILE, **forms._asdict())


if __name__ == "__main__":
    main()
