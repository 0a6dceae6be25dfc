"""Where in a text does each feature stand?

The rules of text.py once more, in plain Python and with places: what `hash_text` leaves out to be fast. Not a second
definition: `tests/test_explain.py` demands the kernel's features, in the kernel's order, of generated texts. Places
are characters of the text as it was given, so folding ("İ" to "i") and what is ignored (joiners, skin tones) move none.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from learner.characters import APOSTROPHE, CHARACTER, CLASS_SHIFT, FOLD_MASK, IGNORED, SPACE, WORD
from learner.text import (
    BOUNDARY,
    CHARS_SEED,
    FINISHER,
    MAX_RUN,
    MULTIPLIER,
    PAIR_SEED,
    WORD_SEED,
    TextSettings,
    character_table,
    codepoints,
)

KINDS: Final = ("word", "pair", "chars")
MASK: Final = 2**64 - 1

Span = tuple[int, int]  # first character, one past the last


class Feature(NamedTuple):
    """A feature of a text."""

    hash: int
    kind: str  # one of KINDS
    text: str  # folded, as it was hashed; a pair's tokens with a space between; at the edge of a word n-grams have one
    spans: list[Span]  # in order


class Token(NamedTuple):
    """A token, or several that n-grams run through: folded code points, and where in the text each begins and ends."""

    codes: list[int]
    starts: list[int]
    stops: list[int]


def trace(text: str, settings: TextSettings) -> list[Feature]:
    """Return the features of a text in the kernel's order, each once, with all of its places."""
    room = settings.max_features
    codes, _ = codepoints([text], settings.max_chars)
    tokens: list[Token] = []
    stretches: list[Token] = []
    for token, goes_on in _tokens(character_table()[codes].tolist()):
        tokens.append(token)
        if goes_on:
            stretches[-1] = Token(*(old + new for old, new in zip(stretches[-1], token, strict=True)))
        else:
            stretches.append(token)
    del tokens[room:]
    words = [_hash(token.codes) for token in tokens]
    features: dict[int, Feature] = {}
    for token, word in zip(tokens, words, strict=True):
        _add(features, word, "word", token.codes, (token.starts[0], token.stops[-1]))
    if settings.pairs:
        for i in range(min(len(tokens) - 1, room - len(words))):
            first, second = tokens[i], tokens[i + 1]
            pair = _finish((((int(PAIR_SEED) ^ words[i]) * int(MULTIPLIER)) & MASK) ^ words[i + 1])
            codes_of_both = [*first.codes, BOUNDARY, *second.codes]
            _add(features, pair, "pair", codes_of_both, (first.starts[0], second.stops[-1]))
        room -= max(0, min(len(tokens) - 1, room - len(words)))
    if settings.chars:
        _add_ngrams(features, stretches, settings, room - len(words))
    return list(features.values())


def _tokens(entries: list[int]) -> Iterator[tuple[Token, bool]]:
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


def _add_ngrams(features: dict[int, Feature], stretches: list[Token], settings: TextSettings, room: int) -> None:
    for stretch in stretches:
        codes = [BOUNDARY, *stretch.codes, BOUNDARY]
        for i in range(len(codes) - 1):
            h = int(CHARS_SEED)
            for j in range(i, min(i + settings.chars_max, len(codes))):
                h = ((h ^ codes[j]) * int(MULTIPLIER)) & MASK
                if j - i + 1 < settings.chars_min:
                    continue
                if room <= 0:
                    return
                room -= 1
                span = stretch.starts[max(i - 1, 0)], stretch.stops[min(j, len(stretch.codes)) - 1]
                _add(features, _finish(h), "chars", codes[i : j + 1], span)


def _add(features: dict[int, Feature], h: int, kind: str, codes: list[int], span: Span) -> None:
    h = max(h, 1)
    if h not in features:
        features[h] = Feature(h, kind, "".join(map(_shown, codes)), [])
    if features[h].kind == kind:
        features[h].spans.append(span)


def _shown(code: int) -> str:
    """Return a code point as text that can be encoded."""
    return " " if code == BOUNDARY else "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)


def _hash(codes: list[int]) -> int:
    h = int(WORD_SEED)
    for code in codes:
        h = ((h ^ code) * int(MULTIPLIER)) & MASK
    return _finish(h)


def _finish(h: int) -> int:
    return (((h ^ (h >> 32)) * int(FINISHER)) & MASK) >> 32
