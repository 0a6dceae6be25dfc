"""What does a character count as?

One packed entry for each code point: its class, and what it is folded to. The entries come from a file of run lengths,
made once from Unicode 14 and never from the running Python's tables: features are part of the checkpoint format, so a
newer Python must not hash differently. `python -m driftline.learner.text.characters` makes it again, for a new format.
"""

import sys
import unicodedata
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SPACE: Final = 0  # ends a token
WORD: Final = 1  # letters, marks, digits, underscore
CHARACTER: Final = 2  # of a script that puts no space between words: a token of its own
SYMBOL: Final = 3  # a run of one same symbol is a token
APOSTROPHE: Final = 4  # part of the word between two word characters, elsewhere a symbol
IGNORED: Final = 5  # as if it were not there

CLASS_SHIFT: Final = 21  # an entry is class << 21 | folded code point
FOLD_MASK: Final = (1 << CLASS_SHIFT) - 1
N_CODEPOINTS: Final = 0x110000
UNICODE_VERSION: Final = "14.0.0"

_FILE: Final = Path(__file__).with_name("characters.npz")

# unicodedata has no script property, but names begin with the script's.
_UNSPACED_SCRIPTS: Final = (
    "AHOM", "BALINESE", "BOPOMOFO", "CJK", "HALFWIDTH KATAKANA", "HENTAIGANA", "HIRAGANA", "IDEOGRAPHIC", "JAVANESE",
    "KATAKANA", "KHITAN", "KHMER", "LAO", "MYANMAR", "NEW TAI LUE", "NUSHU", "TAI LE", "TAI THAM", "TAI VIET", "TANGUT",
    "THAI", "TIBETAN", "YI SYLLABLE",
)  # fmt: skip
_APOSTROPHES: Final = "'\u2019"
# Variation selectors, their supplement, skin tones. Joiners, direction marks and the like are known by category.
_MODIFIERS: Final = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF), (0x1F3FB, 0x1F3FF))
_UNASSIGNED: Final = ((0x20000, 0x3FFFF, CHARACTER), (0x1F000, 0x1FAFF, SYMBOL))  # more ideographs, more emoji
_ZERO_WIDTH_SPACE: Final = "\u200b"  # a format character by category, but it divides words in Thai and Khmer


def load_table() -> NDArray[np.uint32]:
    """Return the packed entry of every code point, uint32 [0x110000], from the file of run lengths."""
    with np.load(_FILE, allow_pickle=False) as file:
        classes = np.repeat(file["class_values"], file["class_lengths"]).astype(np.uint32)
        offsets = np.repeat(file["fold_offsets"], file["fold_lengths"])
    folded = np.arange(N_CODEPOINTS, dtype=np.int64) + offsets
    table: NDArray[np.uint32] = (classes << np.uint32(CLASS_SHIFT)) | folded.astype(np.uint32)
    return table


def fold(character: str) -> str:
    """Return the one character that stands for this one whatever its case, width or font.

    Foldings to more than one character are left out: ß stays ß (and ẞ becomes ß), so a kernel needs one lookup a
    character and no buffer that grows.
    """
    if character == "İ":  # its small letter is two characters; without this, İstanbul would not be istanbul
        return "i"
    if character in _APOSTROPHES:
        return "'"
    seen = ""
    while character != seen:  # the capital of a font variant takes two steps
        seen = character
        plain = unicodedata.normalize("NFKC", character)
        character = plain if len(plain) == 1 else character
        small = character.casefold()
        if len(small) > 1:
            small = character.lower()
        character = small if len(small) == 1 else character
    return character


def classify(character: str) -> int:
    """Return the class of a character that Unicode has assigned; of others, what their block was kept for."""
    code, category = ord(character), unicodedata.category(character)
    if character in _APOSTROPHES:
        return APOSTROPHE
    if category[0] == "Z" or category == "Cc" or character == _ZERO_WIDTH_SPACE:
        return SPACE
    if category == "Cf" or any(first <= code <= last for first, last in _MODIFIERS):
        return IGNORED
    if category == "Cn":
        return next((kind for first, last, kind in _UNASSIGNED if first <= code <= last), WORD)
    if category[0] not in "LMN" and category != "Pc":
        return SYMBOL
    unspaced = category != "Nd" and unicodedata.name(character, "").startswith(_UNSPACED_SCRIPTS)
    return CHARACTER if unspaced else WORD


def main() -> None:
    """Write the file of run lengths, from a Python that has the Unicode version which it is defined by."""
    if unicodedata.unidata_version != UNICODE_VERSION:
        sys.exit(f"this Python has Unicode {unicodedata.unidata_version}, but the file is made from {UNICODE_VERSION}")
    folded = np.array([ord(fold(chr(code))) for code in range(N_CODEPOINTS)], np.int64)
    # A character is what it is folded to: a full-width comma is a comma, and a hash never sees the difference.
    classes = np.array([classify(chr(code)) for code in range(N_CODEPOINTS)], np.uint8)[folded]
    class_values, class_lengths = _runs(classes)
    fold_offsets, fold_lengths = _runs((folded - np.arange(N_CODEPOINTS)).astype(np.int32))
    np.savez_compressed(
        _FILE,
        class_values=class_values,
        class_lengths=class_lengths,
        fold_offsets=fold_offsets,
        fold_lengths=fold_lengths,
    )


def _runs(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return the values of the runs of equal values, and the runs' lengths."""
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    return values[starts], np.diff(np.append(starts, len(values))).astype(np.int32)


if __name__ == "__main__":
    main()
