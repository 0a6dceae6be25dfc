"""When are two labels, or two sources, the same?

When they look the same: in NFC, without white space at the ends, with one space wherever there is some, without what
nobody sees. Not NFKC, as texts are read: a label is somebody's name for something and is given back as it came, so
"m²" does not become "m2", nor "ﬁ" two letters; and capitals are not small letters.

Joiners, variation selectors and tags stay where they shape what is before them (a family of emoji, a Persian compound,
a keycap). Behind letters of alphabets that they do nothing to, and at an end, nobody sees them.

Every Python gives the same for characters of Unicode 14: Unicode never changes the form of one that it has.
"""

import re
import unicodedata
from typing import Final

_UNSEEN: Final = (  # default ignorable code points of Unicode 14, but for those below
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e0080-\U000e00ff"
    "\U000e01f0-\U000e0fff"
)
_SHAPING: Final = "\u180b-\u180d\u180f\u200c\u200d\ufe00-\ufe0f\U000e0020-\U000e007f\U000e0100-\U000e01ef"
_LONG: Final = 256  # characters: Python sorts the marks of one letter in the square of their number
_UNMOVED: Final = "A-Za-z\u00aa-\u05ff\\s"  # Latin to Hebrew
_LEFT_OUT: Final = re.compile(f"[{_UNSEEN}]+|(?:^|(?<=[{_UNMOVED}]))[{_SHAPING}]+|[\u200c\u200d]+(?=\\s|$)")


def same_name(name: str) -> str:
    """Return the one form of a label's or a source's name; empty where nothing of it is seen."""
    if not name.isascii():
        before = ""
        while name != before:  # what is left out may have stood between two that are one, or before another
            before, name = name, _composed(_LEFT_OUT.sub("", name))
    return " ".join(name.split())


def _composed(name: str) -> str:
    """Return a name in NFC; one of any length in about as many steps."""
    if len(name) > _LONG and not unicodedata.is_normalized("NFC", name):
        apart = {ord(each): unicodedata.normalize("NFD", each) for each in set(name)}
        characters = name.translate(apart)
        kinds = {each: unicodedata.combining(each) for each in set(characters)}
        marks = "".join(re.escape(each) for each, kind in kinds.items() if kind) or "\0"
        name = re.sub(f"[{marks}]{{2,}}", lambda run: "".join(sorted(run[0], key=kinds.__getitem__)), characters)
    return unicodedata.normalize("NFC", name)
