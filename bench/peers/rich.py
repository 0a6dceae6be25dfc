"""What else can a peer that takes features be given? Everything that a text shows, made as its own tools would.

Four groups, of the first MAX_CHARS characters (as many as ours read):

    words   lower-cased, in order
    tokens  as they are written, signs too, in order
    grams   runs of 3 to 5 characters: none; inside words, lower-cased, an end marked; or across words and signs, as
            they are written, one space for any white space
    shape   forms of words (Xxx, 99), the first and the last words, amounts of characters, words, capitals, digits,
            signs and lines in steps of a logarithm

Or the plain ones alone, words and grams. Pairs of words and of tokens are made by the libraries where they can. A
feature may come more than once; its value is how often (`sum`) or 1 (`once`). 1 + the logarithm of how often was tried:
it lay between them. Which groups, grams and values are best differs from stream to stream and peer to peer:
bench/grid.py tries them.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from typing import Iterable, NamedTuple

MAX_CHARS = 8192
LENGTHS = (3, 4, 5)
ENDS = 2  # words at each end that are features of the shape
LONGEST_FORM = 6
TOKEN = r"\w+|[^\w\s]"
_WORD = re.compile(r"\w+")
_TOKEN = re.compile(TOKEN)
_SPACE = re.compile(r"\s+")


class Rich(NamedTuple):
    """The features of a text, by group."""

    words: list[str]
    tokens: list[str]
    grams: list[str]
    shape: list[str]


def rich(text: str, which: str = "none", groups: str = "all") -> Rich:
    """Return the features of a text, with grams of one kind: none, inside or across; of all groups or the plain ones.

    Raises
    ------
    ValueError : there are no such groups, or no such kind
    """
    if groups not in ("all", "plain"):
        raise ValueError(f"groups={groups}: it must be all or plain")
    text = text[:MAX_CHARS]
    words, runs = _WORD.findall(text.lower()), grams(text, which)
    if groups == "plain":
        return Rich(words, [], runs, [])
    tokens = _TOKEN.findall(text)
    return Rich(words, tokens, runs, list(shape(text, tokens)))


def with_pairs(names: list[str]) -> list[str]:
    """Return names and after them the pairs of those that follow each other."""
    return [*names, *(f"{a} {b}" for a, b in pairwise(names))]


def valued(names: Iterable[str], values: str) -> dict[str, float]:
    """Return each name with its value.

    Raises
    ------
    ValueError : there are no such values
    """
    if values == "once":
        return dict.fromkeys(names, 1.0)
    if values == "sum":
        return dict(Counter(names))
    raise ValueError(f"values={values}: it must be sum or once")


def grams(text: str, which: str) -> list[str]:
    """Return the runs of characters.

    Raises
    ------
    ValueError : there is no such kind
    """
    if which not in ("none", "inside", "across"):
        raise ValueError(f"grams={which}: it must be none, inside or across")
    spaced = _SPACE.sub(" ", text).strip()
    pieces = {"none": [], "inside": spaced.lower().split(), "across": [spaced]}[which]
    return [gram for piece in pieces for gram in _runs(f" {piece} ")]


@lru_cache(maxsize=1 << 14)
def _runs(padded: str) -> list[str]:
    return [padded[i : i + n] for n in LENGTHS for i in range(len(padded) - n + 1)]


def shape(text: str, tokens: list[str]) -> Iterable[str]:
    """Give what a text looks like."""
    for token in tokens:
        yield form(token)
    for place, token in enumerate(tokens[:ENDS]):
        yield f"first{place}={token}"
    for place, token in enumerate(tokens[: -ENDS - 1 : -1]):
        yield f"last{place}={token}"
    amounts = {
        "characters": len(text),
        "tokens": len(tokens),
        "capitals": sum(map(str.isupper, text)),
        "digits": sum(map(str.isdigit, text)),
        "signs": sum(not token[0].isalnum() for token in tokens),
        "lines": text.count("\n"),
        "upper-words": sum(len(token) > 1 and token.isupper() for token in tokens),
        "title-words": sum(token[0].isupper() for token in tokens),
    }
    for name, amount in amounts.items():
        yield f"{name}={step(amount)}"


def step(amount: int) -> int:
    """Return 2 log2(1 + amount), rounded down."""
    return ((1 + amount) ** 2).bit_length() - 1


@lru_cache(maxsize=1 << 14)
def form(token: str) -> str:
    """Return the form of a token, with X for each capital, x for each other letter, 9 for each digit; signs stay."""
    token = token[:LONGEST_FORM]
    return "form=" + "".join("X" if c.isupper() else "x" if c.isalpha() else "9" if c.isdigit() else c for c in token)
