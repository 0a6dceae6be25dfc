"""Which features do a text's fields have, and what do they say?

The rules of text/fielded.py once more, in plain Python, with words for each feature: as trace.py is for the text.
"""

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from driftline.learner.explain.traced import MASK, Feature, hash_codes, hash_two, hash_word, shown, tokens_of
from driftline.learner.text.features import TextSettings, character_table
from driftline.learner.text.fielded import (
    BINS,
    CROSS_SEED,
    CROSSED_BIN,
    CROSSED_OF,
    DIGITS,
    HALF_OF,
    ITSELF,
    MAX_CATEGORIES,
    N_TILES,
    NUMBER,
    PAIR,
    SIGN,
    VALUE,
    WORD,
    name_hash,
)
from driftline.learner.text.hashes import MULTIPLIER, PAIR_SEED
from driftline.learner.text.normal import placed
from driftline.stream.wire.fielded import END, KIND

_SIGNS: Final = ("0", "above 0", "below 0")
_SIGN_BIT: Final = 63


class Field(NamedTuple):
    """A field, or an item of one, as it is hashed."""

    name: str
    value: str
    kind: str

    @property
    def seed(self) -> int:
        """What stands for its name in its features."""
        return name_hash(self.name.encode("utf-8", "surrogatepass"))

    def feature(self, what: int, value: int, text: str, kind: str = "field") -> Feature:
        """Return one of its features."""
        h = hash_two(self.seed ^ what, value)
        return Feature(max(h, 1), kind, text, [], self.name)


class Traced(NamedTuple):
    """The features of fields: categories, bins and words; pairs of words; and those that words are crossed with."""

    terms: list[Feature]
    pairs: list[Feature]
    categories: list[Feature]

    def crossed(self, words: list[Feature], n_plain: int, settings: TextSettings) -> list[Feature]:
        """Return words crossed with categories, of a text with so many words and pairs."""
        left = settings.max_features - len(self.terms) - len(self.pairs) - n_plain
        found = [
            Feature(
                max(hash_two(int(CROSS_SEED) ^ each.hash, word.hash), 1),
                "cross",
                f"{word.text} {each.text}",
                word.spans,
                each.field,
            )
            for word in words
            for each in self.categories
        ]
        return found[: min(settings.max_features // CROSSED_OF, left)]


def trace_fields(block: str, settings: TextSettings) -> Traced:
    """Return the features of the fields that stand behind a text, in the kernel's order, each once."""
    room = settings.max_features // HALF_OF
    terms: list[Feature] = []
    pairs: list[Feature] = []
    categories: list[Feature] = []
    fields = list(_fields(block, settings))
    crossed = {_in_one_form(name, settings) for name in settings.crossed}
    for field in fields:
        if len(terms) >= room:
            break
        found = list(_number(field)) if field.kind == KIND.NUMBER else [_category(field)]
        if field.name in crossed and len(categories) < MAX_CATEGORIES:
            category = found[min(CROSSED_BIN, len(found) - 2)] if len(found) > 1 else found[0]
            if category.hash not in {each.hash for each in categories}:
                categories.append(category)
        terms += found[: room - len(terms)]
    for field in fields:
        words = _words(field.value[: settings.max_chars]) if field.kind == KIND.STRING else []
        if len(terms) < room and len(words) > 1:
            words = words[: room - len(terms)]
            terms += [field.feature(int(WORD), h, text) for h, text in words]
            for (first, text), (second, other) in pairwise(words) if settings.pairs else ():
                if len(pairs) < room:
                    pair = hash_two(int(PAIR_SEED) ^ first, second)
                    pairs.append(field.feature(int(PAIR), pair, f"{text} {other}", "field_pair"))
    seen: set[int] = set()
    kept = pairs[: room - len(terms)]
    return Traced(_each_once(terms, seen), _each_once(kept, seen), categories)


def _fields(block: str, settings: TextSettings) -> Iterator[Field]:
    parts = _in_one_form(END + block, settings)[1:].split(END)[:-1]
    for name, value in zip(parts[::2], parts[1::2], strict=False):
        if not value:
            return
        if value[-1] in KIND and (value[-1] != KIND.NUMBER or len(value) == DIGITS + 1):
            yield Field(name, value[:-1], value[-1])


def _in_one_form(text: str, settings: TextSettings) -> str:
    return "".join(map(chr, placed(text).codes.tolist())) if settings.hashing > 1 else text


def _category(field: Field) -> Feature:
    seed = ((field.seed ^ int(VALUE)) * int(MULTIPLIER)) & MASK
    h = hash_codes(field.value.encode("utf-8", "surrogatepass"), seed)
    return Feature(max(h, 1), "field", field.value, [], field.name)


def _number(field: Field) -> Iterator[Feature]:
    """Give the features of a number: bins, narrow ones first, itself, its sign."""
    bits = int(field.value, 16)
    sign, size = bits >> _SIGN_BIT, bits & (1 << _SIGN_BIT) - 1
    minus = "-" * sign
    for which in range(N_TILES if size else 0):
        shift = BINS[which >> 1]
        further = (which & 1) << (shift - 1)
        step = (size + further) >> shift
        first, last = (max((each << shift) - further, 0) for each in (step, step + 1))
        text = f"{minus}{_shown(first)} to {minus}{_shown(last)}"
        yield field.feature(int(NUMBER) + which, step << 1 | sign, text)
    yield field.feature(int(NUMBER) + ITSELF, bits, minus + _shown(size))
    yield field.feature(int(NUMBER) + SIGN, 1 + sign if size else 0, _SIGNS[1 + sign if size else 0])


def _shown(bits: int) -> str:
    return f"{struct.unpack('>d', bits.to_bytes(8))[0]:.6g}"


def _words(value: str) -> list[tuple[int, str]]:
    """Return the hash of each token of a value, and the token."""
    entries = character_table()[[ord(character) for character in value]].tolist() if value else []
    return [(hash_word(token.codes), "".join(map(shown, token.codes))) for token, _ in tokens_of(entries)]


def _each_once(features: list[Feature], seen: set[int]) -> list[Feature]:
    found = []
    for each in features:
        if each.hash not in seen:
            seen.add(each.hash)
            found.append(each)
    return found
