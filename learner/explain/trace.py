"""Where in a text does each feature stand?

The rules of tokens.py and hashes.py once more, in plain Python and with places: what `hash_text` leaves out to be
fast. Not a second definition: `test_explain.py` demands the kernel's features, in the kernel's order, of
generated texts. Places are characters of the text as it was given, so neither folding ("İ" to "i") nor what the text
became in its one form (normal.py) moves any: of an "e" and its accent apart, the place is that of both. The same for
shape.py: an amount is of the whole text and stands nowhere.
"""

from collections.abc import Iterator
from itertools import groupby
from math import isqrt

import numpy as np

from driftline.learner.explain.trace_fields import trace_fields
from driftline.learner.explain.traced import (
    MASK,
    Feature,
    Span,
    Token,
    finish,
    hash_codes,
    hash_two,
    hash_word,
    shown,
    tokens_of,
)
from driftline.learner.text.characters import CLASS_SHIFT, FOLD_MASK, IGNORED, SPACE, WORD
from driftline.learner.text.counts import TIMES, TIMES_SEED
from driftline.learner.text.features import TextSettings, character_table
from driftline.learner.text.hashes import CHARS_SEED, MULTIPLIER, PAIR_SEED
from driftline.learner.text.normal import Placed, as_written, placed
from driftline.learner.text.shape import CASED_SEED, LAST_ASCII, LINE, MAX_CASED, MOST_WORDS, N_AMOUNTS, SHAPE_SEED
from driftline.learner.text.tokens import BOUNDARY
from driftline.stream.wire.fielded import text_of


def trace(whole: str, settings: TextSettings) -> list[Feature]:
    """Return the features of a text and its fields in the kernel's order, each once, with all of its places."""
    text = text_of(whole)
    if len(text) == len(whole):
        return _trace_text(text, settings, settings.max_features)
    fields = trace_fields(whole[len(text) + 1 :], settings)
    left = settings.max_features - len(fields.terms) - len(fields.pairs)
    own = _trace_text(text, settings, left)
    words, pairs, ngrams = (
        [each for each in own if each.kind in kinds] for kinds in (("word",), ("pair", "times"), ("chars",))
    )
    crossed = fields.crossed(words, len(words) + len(pairs), settings)
    most = left - len(words) - len(pairs) - len(crossed)
    return [*words, *fields.terms, *pairs, *fields.pairs, *crossed, *ngrams[:most]]


def _trace_text(text: str, settings: TextSettings, room: int) -> list[Feature]:
    found = _read(text, settings)
    tokens: list[Token] = []
    stretches: list[Token] = []
    for token, goes_on in tokens_of(character_table()[found.codes].tolist()):
        tokens.append(token)
        if goes_on:
            stretches[-1] = Token(*(old + new for old, new in zip(stretches[-1], token, strict=True)))
        else:
            stretches.append(token)
    del tokens[room:]
    words = [hash_word(token.codes) for token in tokens]
    features: dict[int, Feature] = {}
    for token, word in zip(tokens, words, strict=True):
        _add(features, word, "word", token.codes, (token.starts[0], token.stops[-1]))
    if settings.pairs:
        for i in range(min(len(tokens) - 1, room - len(words))):
            first, second = tokens[i], tokens[i + 1]
            pair = hash_two(int(PAIR_SEED) ^ words[i], words[i + 1])
            codes_of_both = [*first.codes, BOUNDARY, *second.codes]
            _add(features, pair, "pair", codes_of_both, (first.starts[0], second.stops[-1]))
        room -= max(0, min(len(tokens) - 1, room - len(words)))
    if settings.hashing > 2:
        _add_counts(features, tokens, words)
    if settings.chars:
        _add_ngrams(features, stretches, settings, room - len(words))
    return _in_text(list(features.values()), found)


def trace_shape(whole: str, settings: TextSettings, features: list[Feature]) -> list[Feature]:
    """Return the features of a text's shape in the kernel's order, given its others, as `trace` returns them."""
    read = _read(text_of(whole), settings)
    codes = read.codes.tolist()
    entries = character_table()[codes].tolist()
    runs = list(_runs([entry >> CLASS_SHIFT for entry in entries]))
    is_upper = [entry & FOLD_MASK != code for entry, code in zip(entries, codes, strict=True)]
    found: dict[int, Feature] = {}
    for start, stop in [run for run in runs if any(is_upper[slice(*run)])][:MAX_CASED]:
        _add(found, hash_codes(codes[start:stop], int(CASED_SEED)), "case", codes[start:stop], (start, stop))
    words = [feature for feature in features if feature.kind == "word"]
    ends: list[Feature] = []
    for kind, word in (("first", words[0]), ("last", words[-1])) if words else ():
        seed = int(SHAPE_SEED) ^ (N_AMOUNTS + len(ends))
        ends.append(Feature(hash_two(seed, word.hash), kind, word.text, word.spans[:1]))
    amounts = [
        Feature(hash_two(int(SHAPE_SEED) ^ number, 1 + amount), "amount", name, [])
        for number, (amount, name) in enumerate(_amounts(codes, entries, runs, is_upper))
    ]
    return [*_in_text(list(found.values()), read), *ends, *amounts]


def _read(text: str, settings: TextSettings) -> Placed:
    """Return what is read of a text."""
    whole = placed(text) if settings.hashing > 1 else as_written(text)
    most, tail, n = settings.max_chars, settings.tail_chars, len(whole.codes)
    if n <= most or not tail:
        return Placed(whole.codes[:most], whole.starts[:most], whole.stops[:most])
    head = most - tail - 1
    kept = np.concatenate([np.arange(head + 1), np.arange(n - tail, n)])  # one more, for the space between
    codes = whole.codes[kept]
    codes[head] = ord(" ")
    return Placed(codes, whole.starts[kept], whole.stops[kept])


def _in_text(features: list[Feature], read: Placed) -> list[Feature]:
    """Return features with their places in the text, where they are those in what is read of it."""
    starts, stops = read.starts.tolist(), read.stops.tolist()
    as_it_is = starts == list(range(len(starts))) and stops == list(range(1, len(stops) + 1))

    def in_text(span: Span) -> Span:
        return span if as_it_is else (min(starts[slice(*span)]), max(stops[slice(*span)]))

    return [feature._replace(spans=list(dict.fromkeys(map(in_text, feature.spans)))) for feature in features]


def _runs(kinds: list[int]) -> Iterator[Span]:
    """Give where the runs of word characters begin and end."""
    start = 0
    for kind, run in groupby(kinds):
        stop = start + len(list(run))
        if kind == WORD:
            yield start, stop
        start = stop


def _amounts(codes: list[int], entries: list[int], runs: list[Span], is_upper: list[bool]) -> Iterator[tuple[int, str]]:
    """Give each amount as it is hashed, and in words."""
    kinds = [entry >> CLASS_SHIFT for entry in entries]
    n_words, size = len(runs), max(len(codes), 1)
    n_signs = sum(kind not in (WORD, SPACE, IGNORED) for kind in kinds)
    n_capital = sum(is_upper[start] for start, _ in runs)
    n_upper = sum(is_upper[at] for start, stop in runs for at in range(start, stop))
    n_spaces = kinds.count(SPACE) + 1  # the kernel reads a line's end past the text
    shares = (8 * n_capital // max(n_words, 1), 16 * n_upper // size, 32 * n_signs // size)
    yield _step(size, "characters")
    yield _step(n_words, "words")
    yield _step(codes.count(LINE) + 1, "lines")
    yield _step(
        sum(kind == WORD and chr(code) in "0123456789" for kind, code in zip(kinds, codes, strict=True)), "digits"
    )
    yield _step(n_signs, "signs")
    yield _step(sum(code > LAST_ASCII for code in codes), "characters beyond ASCII")
    yield _step(sum(stop - start > 1 and all(is_upper[start:stop]) for start, stop in runs), "words in capitals")
    yield shares[0], f"words with a capital {shares[0]}/8"
    of = min(n_words, MOST_WORDS)
    yield shares[0] + 16 * of, f"words with a capital {shares[0]}/8 of {of}{'+' * (of == MOST_WORDS)}"
    yield shares[1], f"characters in capitals {shares[1]}/16"
    yield shares[2], f"characters that are signs {shares[2]}/32"
    yield _step(max(n_spaces - n_words, 0), "spaces but for one a word")


def _step(amount: int, name: str) -> tuple[int, str]:
    """Return the step of an amount's logarithm as `step_of` does, and the name with the amounts on that step."""
    step = ((1 + amount) ** 2).bit_length() - 1
    first, last = (isqrt((1 << power) - 1) for power in (step, step + 1))  # the least whose square is 2**step, less 1
    return step, f"{name} {first}" if first + 1 == last else f"{name} {first}-{last - 1}"


def _add_counts(features: dict[int, Feature], tokens: list[Token], words: list[int]) -> None:
    """A word that comes again has its place where it comes for so many times."""
    times: dict[int, int] = {}
    for token, word in zip(tokens, (max(word, 1) for word in words), strict=True):
        first = chr(token.codes[0])
        if word not in times:
            times[word] = 1
        elif first.isalpha() or not first.isascii():
            times[word] += 1
            if times[word] in TIMES:
                h = max(hash_two(int(TIMES_SEED) ^ word, times[word]), 1)
                told = f"{''.join(map(shown, token.codes))} {times[word]} times"
                features.setdefault(h, Feature(h, "times", told, [(token.starts[0], token.stops[-1])]))


def _add_ngrams(features: dict[int, Feature], stretches: list[Token], settings: TextSettings, room: int) -> None:
    for stretch in stretches:
        codes = [BOUNDARY, *stretch.codes, BOUNDARY]
        for i in range(len(codes) - 1):
            h = int(CHARS_SEED)
            for j in range(i, min(i + settings.chars_max, len(codes))):
                h = ((h ^ codes[j]) * int(MULTIPLIER)) & MASK
                if j - i + 1 not in settings.lengths:
                    continue
                if room <= 0:
                    return
                room -= 1
                span = stretch.starts[max(i - 1, 0)], stretch.stops[min(j, len(stretch.codes)) - 1]
                _add(features, finish(h), "chars", codes[i : j + 1], span)


def _add(features: dict[int, Feature], h: int, kind: str, codes: list[int], span: Span) -> None:
    h = max(h, 1)
    if h not in features:
        features[h] = Feature(h, kind, "".join(map(shown, codes)), [])
    if features[h].kind == kind:
        features[h].spans.append(span)
