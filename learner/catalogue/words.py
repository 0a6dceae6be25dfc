"""Which words are looked for, and what are words in a script that has no spaces between them?

What a person types is never a query language: words, of which all must occur; "quoted ones", in this order; and
`begin*`. Whatever else it has is looked for as it stands, and what has no letter and no digit in it is found nowhere.

FTS5's `unicode61` makes words of runs of letters and digits, without their accents. Chinese, Japanese, Thai and others
would be one word from one full stop to the next; so each of their characters is made a word of its own, and a run of
them is looked for as a phrase: any part of a text is found, also one of a single character. (FTS5's `trigram` needs
three, where most words of these scripts have two, and its index is several times as large.)
"""

import re
from typing import Final

from driftline.stream.surrogates import whole_characters

MAX_QUERY_CHARS: Final = 1000
TOKENIZER: Final = "unicode61 remove_diacritics 2"
PREFIXES: Final = "2 3"  # of so many characters beginnings are looked up at once
# Thai, Lao; Burmese; Khmer; kana and what follows it up to Bopomofo; Han, with its extensions.
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
_TERM: Final = re.compile(r'"([^"]*)"?|([^\s"]+)')


def spaced(text: str) -> str:
    """Return a text as its words are looked up: spaces around characters of scripts that have none."""
    return text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text)


def expression(query: str) -> str | None:
    """Return what FTS5 is to match, None where nothing is looked for.

    Raises
    ------
    ValueError : that is too much.
    """
    if len(query) > MAX_QUERY_CHARS:
        raise ValueError(f"it has {len(query):,} characters, at most {MAX_QUERY_CHARS:,} are taken")
    terms = []
    for found in _TERM.finditer(whole_characters(query).replace("\0", " ")):
        quoted, word = found[1], found[2]
        if quoted is not None:
            terms.append(_literal(quoted))
            continue
        begin = word.rstrip("*")
        terms.append(_literal(begin) + ("*" if len(begin) < len(word) else ""))
    return " ".join(terms) or None  # which is FTS5's AND, but for what has no word in it: that is passed over


def _literal(words: str) -> str:
    return '"' + spaced(words).replace('"', '""') + '"'
