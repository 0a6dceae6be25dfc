"""Text to features: the same as a plain version, on every Python, and bounded."""

import hashlib
import unicodedata
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline.learner.text import characters
from driftline.learner.text.characters import (
    CLASS_SHIFT,
    FOLD_MASK,
    N_CODEPOINTS,
    UNICODE_VERSION,
    classify,
    fold,
    load_table,
)
from driftline.learner.text.counts import TIMES, count_words
from driftline.learner.text.features import TextSettings, features
from driftline.learner.text.repeats import drop_repeats, drop_tokens
from driftline.stream.errors import ConfigError
from driftline.stream.texts import PADDING, Texts

WORDS_ONLY = TextSettings(pairs=False, chars=False)
ODD = (
    "aAbB iIİıßẞΣςσ'’  \t\0!!??..,。😀👍🏽\u200d❤\ufe0f字漢あアไทยລາວកម"
    "\u00ade\u0301\ud800９ﬁ_-½\u200bمر\U000e0041\U0010ffff"
)
ASCII = st.text(st.sampled_from("aB'!._0 ~\t\0\x7f") | st.characters(max_codepoint=127), max_size=300)
LONG_WORDS = st.lists(st.text("aZß字", min_size=1, max_size=30), max_size=8).map(" ".join)
texts = (
    ASCII | LONG_WORDS | st.text(st.one_of(st.sampled_from(ODD), st.characters().filter(oracles.assigned)), max_size=60)
)


def same(first: str, second: str) -> bool:
    """Tell whether two texts have the same features."""
    return np.array_equal(features([first], TextSettings())[0], features([second], TextSettings())[0])


def words(text: str) -> list[str]:
    return [token for _, token in oracles.tokens(oracles.normal(text)) if token]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a", [0x6E1BF8C7]),
        ("Hello", [0xA009AE14]),
        ("hello world", [0xA009AE14, 0x3A822EB1, 0x195C1951]),
        ("!!!!", [0xFD9409F2]),
        ("漢字", [0xE21D5B5B, 0xCC37008A, 0xA62387D9]),
        ("١٢", [0x7337607A]),
        ("\ud800", [0xAA800EC5]),
    ],
)
def test_hash_vectors(text: str, expected: list[int]) -> None:
    assert features([text], TextSettings(chars=False))[0].tolist() == expected


def test_character_ngrams_have_vectors_of_their_own() -> None:
    expected = [0x2E44A8B3, 0xE453E529, 0x6DFCEA99, 0x55E561D8, 0x2A4D0BC3, 0xD600A257, 0x8BF67C8A]
    assert features(["cat"], TextSettings())[0].tolist() == expected


def test_the_table_is_the_one_of_the_format() -> None:
    table = load_table()
    assert table.shape == (N_CODEPOINTS,)
    assert hashlib.sha256(table.astype("<u4").tobytes()).hexdigest() == (
        "46333b237fabcbf0e7e7456c972f9a567428a4152e421a1f73f760caab30d54d"
    )
    folded = table & FOLD_MASK
    assert (folded[folded] == folded).all(), "folding twice changes nothing"


def test_the_table_agrees_with_this_python() -> None:
    """On another Unicode than the table's: for what Unicode 3.2, which every Python has too, says the same of."""
    table = load_table()
    same_unicode = unicodedata.unidata_version == UNICODE_VERSION
    compared = 0
    for code in range(N_CODEPOINTS):
        character = chr(code)
        old = unicodedata.ucd_3_2_0.category(character)
        if same_unicode or (old != "Cn" and old == unicodedata.category(character)):
            folded = fold(character)
            assert table[code] == classify(folded) << CLASS_SHIFT | ord(folded), f"U+{code:04X}"
            compared += 1
    assert compared > 90_000


def test_a_python_of_another_unicode_does_not_make_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(characters, "UNICODE_VERSION", "1.1")
    with pytest.raises(SystemExit, match=r"made from 1\.1"):
        characters.main()


def test_the_file_is_what_the_generator_makes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(characters, "UNICODE_VERSION", unicodedata.unidata_version)
    shipped = load_table()
    monkeypatch.setattr(characters, "_FILE", tmp_path / "made.npz")
    characters.main()
    made = load_table()
    if unicodedata.unidata_version == UNICODE_VERSION:
        assert (made == shipped).all()
    else:
        assert (made != shipped).mean() < 0.01, "Unicode grows, but mostly where nothing was"


lengths = st.integers(1, 300).flatmap(lambda most: st.tuples(st.just(most), st.integers(0, max(most - 2, 0))))


@settings(deadline=None)
@given(
    st.lists(texts, max_size=5),
    st.booleans(), st.booleans(), st.integers(2, 4), st.integers(4, 7), lengths, st.integers(1, 400),
    st.sampled_from([1, 2, 3, 3]),
)  # fmt: skip
def test_features_equal_the_plain_version(
    batch: list[str], pairs: bool, chars: bool, low: int, high: int, most: tuple[int, int], max_features: int,
    hashing: int,
) -> None:  # fmt: skip
    options = TextSettings(
        pairs=pairs, chars=chars, chars_min=low, chars_max=high,
        max_chars=most[0], tail_chars=most[1], max_features=max_features, hashing=hashing,
    )  # fmt: skip
    indices, starts = features(batch, options)
    assert len(starts) == len(batch) + 1
    for text, start, stop in zip(batch, starts[:-1], starts[1:], strict=True):
        assert indices[start:stop].tolist() == oracles.features(text, options)


TOKENS = st.sampled_from(["a", "ab", "abcdefg", "abcdefgh", "abcdefghi", "abcdefgh" * 3, "abcdefgh" * 3 + "i", "!"])


@settings(deadline=None)
@given(st.lists(TOKENS, min_size=20, max_size=400).map(" ".join), st.integers(2, 3), st.sampled_from([200, 4096]))
def test_of_tokens_that_come_again_only_how_often_counts(text: str, low: int, max_features: int) -> None:
    """Long texts of few tokens: n-grams are taken of each once, but where max_features cuts them short."""
    options = TextSettings(chars_min=low, max_features=max_features)
    assert features([text], options)[0].tolist() == oracles.features(text, options)


REPEATED = st.sampled_from(["a", "win", "\u00e9t\u00e9", "\u6f22", "_x", "7", "!", "\U0001f44d", "..."])


@settings(deadline=None)
@given(
    st.lists(REPEATED, max_size=60).map(" ".join), st.booleans(), st.booleans(), st.sampled_from([3, 30, 90, 32768]),
    st.integers(2, 3),
)  # fmt: skip
def test_how_often_words_come_equals_the_plain_version(
    text: str, pairs: bool, chars: bool, max_features: int, hashing: int
) -> None:
    """With few features, with many, and where these are cut; of ASCII and of other scripts."""
    options = TextSettings(pairs=pairs, chars=chars, max_features=max_features, hashing=hashing)
    assert features([text], options)[0].tolist() == oracles.features(text, options)


@pytest.mark.parametrize("word", ["win", "\u00e9t\u00e9", "\u6f22"])
@pytest.mark.parametrize("others", ["", " of many other words that stand here and make this a text of more features"])
def test_a_word_that_comes_again_has_a_feature_for_each_time_that_counts(word: str, others: str) -> None:
    options = TextSettings(chars=False, pairs=False)
    found = [len(features([" ".join([word] * n) + others], options)[0]) for n in range(1, 31)]
    assert [n for n, (before, after) in enumerate(pairwise(found), start=2) if after > before] == list(TIMES)
    assert found[-1] == found[0] + len(TIMES)


@pytest.mark.parametrize("sign", ["!", ".", "'", "7", "_"])
def test_signs_and_numbers_that_come_again_have_none(sign: str) -> None:
    text = " ".join(f"{sign} w{number}" for number in range(40))
    ours, before = (features([text], TextSettings(hashing=hashing))[0].tolist() for hashing in (3, 2))
    assert ours == before


def test_tokens_of_one_hash_have_ngrams_of_their_own() -> None:
    """Tokens that differ and share the 32 bits of their hash: found by trying."""
    seen: dict[int, str] = {}
    names = [f"k{number:x}" for number in range(300_000)]
    hashes, _ = features([" ".join(names[start : start + 1000]) for start in range(0, len(names), 1000)], WORDS_ONLY)
    pair = next(
        (seen[h], name) for h, name in zip(hashes.tolist(), names, strict=True) if seen.setdefault(h, name) != name
    )
    one, other = (features([name], WORDS_ONLY)[0].tolist() for name in pair)
    assert one == other
    text = " ".join([*pair, *names[:40]])
    assert features([text], TextSettings())[0].tolist() == oracles.features(text, TextSettings())


def test_kinds_do_not_share_hashes() -> None:
    plain = set(features(["ab"], TextSettings(chars=False))[0].tolist())
    assert plain.isdisjoint(features(["ab"], TextSettings(chars_min=2))[0].tolist()[1:])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("HELLO", "hello"),
        ("İSTANBUL", "istanbul"),  # Turkish dotted capital: its small letter is two characters
        ("ΟΔΟΣ", "οδος"),  # final sigma
        ("STRAẞE", "straße"),
        ("ＦＲＥＥ", "free"),  # full width
        ("𝐅𝐑𝐄𝐄 𝕄𝕠𝕟𝕖𝕪", "free money"),
        ("don’t", "don't"),
        ("wo\u00adrd", "word"),  # soft hyphen
        ("👍🏽", "👍"),  # skin tone
        ("❤\ufe0f", "❤"),  # variation selector
        ("!!!!!!!!!", "!!!"),
        ("ｶﾀ", "カタ"),  # half width
        ("a\u00a0b", "a b"),
        ("a\0b", "a b"),
        ("مر\u200cحبا", "مرحبا"),  # zero-width non-joiner
        ("i\u0307stanbul", "istanbul"),
        ("مـرحـبا", "مرحبا"),  # tatweel
        ("مَرْحَبًا", "مرحبا"),  # vowel points
        ("שָׁלוֹם", "שלום"),
        ("\ufee3\ufead\ufea3\ufe92\ufe8e", "مرحبا"),  # presentation forms
        ("ﬁne", "fine"),
        ("m²", "m2"),
        ("wait…", "wait..."),
        ("s\u0336p\u0336a\u0336m\u0336", "spam"),  # struck through
        ("s\u20ddp\u20dd", "sp"),  # circles around them
        ("сло\u0301во", "слово"),  # stress
        ("1\ufe0f\u20e3", "1"),  # keycap
        ("a\u2800b", "a b"),  # a Braille cell without dots
        ("sp\u200bam", "spam"),
        ("sp\u3164am", "spam"),  # Hangul filler
        ("again " * 9, "again " * 10),  # whether nine times or ten says nothing, the pair stays
    ],
)
def test_these_are_the_same(first: str, second: str) -> None:
    assert same(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ı", "i"),  # Turkish dotless
        ("ß", "ss"),  # folds to two characters, so it stays
        ("!", "!!"),
        ("a b", "ab"),
        ("re\u0301sume", "resume"),  # a mark that makes a letter of its own
        ("ẹ", "e"),
        ("spаm", "spam"),  # Cyrillic а
        ("क", "क\u093c"),  # nukta
        ("が", "か"),
        ("не", "he"),
        ("dont", "don't"),
        ("one two", "two one"),  # the pair
    ],
)
def test_these_are_not_the_same(first: str, second: str) -> None:
    assert not same(first, second)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 'quoted' rock'n'roll''", ["it's", "'", "quoted", "'", "rock'n'roll", "''"]),
        ("snake_case, 3.14!", ["snake_case", ",", "3", ".", "14", "!"]),
        ("漢字かな", ["漢", "字", "か", "な"]),
        ("ภาษา", ["ภ", "า", "ษ", "า"]),
        ("การ\u200bแปล", ["ก", "า", "ร", "แ", "ป", "ล"]),
        ("👩‍👩‍👧", ["👩👩", "👧"]),
        ("🇩🇪", ["🇩", "🇪"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("cafe\u0301 x", ["caf\u00e9", "x"]),
        ("t\u0301e\u0336st", ["test"]),  # marks that make no letter
        ("½…", ["1", "\u2044", "2", "..."]),
        ("한국어 텍스트", ["한국어", "텍스트"]),
        ("\ud800\udfff", ["\ud800", "\udfff"]),  # lone surrogates
        ("$$$$ £5", ["$$$", "£", "5"]),
        ("iPhone字2", ["iphone", "字", "2"]),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    """The kernel equals the plain version by the property above, so its tokens are these."""
    assert words(text) == expected
    hashes = [oracles.hash_word(token) for token in expected]
    found = features([text], replace(WORDS_ONLY, hashing=2))[0].tolist()  # later ones tell which come again, too
    assert found == list(dict.fromkeys(hashes))


def test_ngrams_run_through_unspaced_characters() -> None:
    options = TextSettings(pairs=False, chars_min=3, chars_max=3)
    stretch = [0, *map(ord, "漢字文"), 0]
    expected = [oracles.hash_codes(stretch[i : i + 3], oracles.CHARS) for i in range(3)]
    assert features(["漢字文"], options)[0].tolist()[3:] == expected


def test_texts_do_not_run_into_each_other() -> None:
    batch = ["ab", "", "cd\0", "\0", "ef"]
    indices, starts = features(batch, TextSettings())
    alone = [features([text], TextSettings())[0].tolist() for text in batch]
    assert [indices[a:b].tolist() for a, b in pairwise(starts)] == alone


@pytest.mark.parametrize("batch", [[], [""], ["abc", "", "x" * 9000], ["\ud800", "字", "a", "\U0001f600b"]])
def test_texts_are_bytes_and_strings(batch: list[str]) -> None:
    ready = Texts.of(batch)
    assert list(ready) == batch
    assert ready[1:] == batch[1:]
    assert Texts.of(ready) is ready
    made = Texts(ready.codes, ready.starts)
    for one, other in zip(features(batch, TextSettings()), features(made, TextSettings()), strict=True):
        assert np.array_equal(one, other)


def test_texts_may_lie_in_the_midst_of_bytes() -> None:
    value = b'{"text":"Hello, w\xc3\xb6rld"}' + bytes(PADDING)
    ready = Texts(np.frombuffer(value, np.uint8), np.array([9, 14, 22]))
    assert list(ready) == ["Hello", ", wörld"]
    assert np.array_equal(features(ready, TextSettings())[0], features(["Hello", ", wörld"], TextSettings())[0])


@pytest.mark.parametrize("starts", [[], [-1, 2], [2, 1], [0, 3]])
def test_texts_outside_of_the_bytes_are_refused(starts: list[int]) -> None:
    with pytest.raises(ValueError, match="PADDING"):
        Texts(np.zeros(PADDING + 2, np.uint8), np.array(starts, np.int64))


@given(st.binary(max_size=80), st.integers(1, 40), st.booleans())
def test_bytes_that_are_no_utf8_do_no_harm(value: bytes, max_chars: int, both_ends: bool) -> None:
    options = TextSettings(max_chars=max_chars, tail_chars=max_chars // 3 * both_ends)
    ready = Texts(np.frombuffer(value + bytes(PADDING), np.uint8), np.array([0, len(value)]))
    found, _ = features(ready, options)
    assert len(found) <= 5 * max_chars * (4 if both_ends else 1)  # bytes that begin no character go with one before
    assert np.array_equal(found, features(Texts(ready.codes, ready.starts), options)[0])


def test_a_long_text_is_read_from_both_ends() -> None:
    options = TextSettings(max_chars=12, tail_chars=5)
    for text, read in (
        ("from a to b", "from a to b"),
        ("from ann to bob", "from a o bob"),
        ("grüße und güte", "grüße  güte"),
        ("字" * 20, "字" * 6 + " " + "字" * 5),
    ):
        assert features([text, "x"], options)[0].tolist() == features([read, "x"], TextSettings())[0].tolist()


def test_no_texts_have_no_features() -> None:
    indices, starts = features([], TextSettings())
    assert (len(indices), starts.tolist()) == (0, [0])


@pytest.mark.parametrize("unit", ["word ", "a字", "!?", "'", "a'", "\u200d", "ab\u00ad", "x1", "𝐅"])
def test_features_of_a_huge_text_are_linear_and_bounded(unit: str) -> None:
    huge = unit * (300_000 // len(unit))
    free = TextSettings(max_chars=1 << 20, max_features=1 << 22)
    assert len(features([huge], free)[0]) <= 5 * len(huge)
    cut = features([huge], TextSettings())[0]
    assert len(cut) <= TextSettings().max_features
    most = TextSettings().max_chars
    assert cut.tolist() == features([oracles.normal(huge)[:most]], TextSettings())[0].tolist()


def test_distinct_features_grow_with_the_text() -> None:
    options = TextSettings(max_chars=1 << 20, max_features=1 << 22)
    n = [len(features([" ".join(f"w{i}" for i in range(count))], options)[0]) for count in (5_000, 10_000, 20_000)]
    assert 1.6 < n[1] / n[0] < 2.4
    assert 1.6 < n[2] / n[1] < 2.4


def test_features_fill_32_bits_evenly() -> None:
    """A chi-squared test over 256 buckets of the low and the high bits of 50,000 hashes."""
    hashes = features([" ".join(map(str, range(10_000 * i, 10_000 * i + 1_000))) for i in range(50)], WORDS_ONLY)[0]
    assert len(set(hashes.tolist())) > 49_990
    for bits in (hashes & np.uint32(255), hashes >> np.uint32(24)):
        counts = np.bincount(bits, minlength=256)
        expected = len(hashes) / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * (2 * 255) ** 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"chars_min": 1},
        {"chars_min": 5, "chars_max": 4},
        {"chars_max": 17},
        {"max_chars": 0},
        {"max_features": 0},
        {"tail_chars": -1},
        {"tail_chars": 8191},
        {"max_chars": 1, "tail_chars": 1},
    ],
)
def test_settings_that_cannot_be_meant(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        TextSettings(**options)


def longest_run(taken: NDArray[np.uint32]) -> int:
    """Return how many places of a table are taken one behind the other, at most."""
    return max(len(run) for run in "".join(map(str, (taken > 0).astype(int).tolist())).split("0"))


@pytest.mark.parametrize("seed", range(5))
def test_features_that_share_their_last_bits_take_no_longer(seed: int) -> None:
    """A text whose words, said by one who chose them, had one place in a table took many times as long."""
    n, size, random = 1000, 1 << 13, np.random.default_rng(seed)
    secret = np.uint64(random.integers(1 << 62) * 2 + 1)
    chosen = (np.unique(random.integers(1, 1 << 16, 2 * n))[:n] << 16 | 5).astype(np.uint32)
    out, distinct = chosen.copy(), np.zeros(2 * size, np.uint32)
    assert drop_repeats(out, 0, n, 0, size, distinct, secret) == n
    assert longest_run(distinct[:size]) < 50
    distinct[:] = 0
    tokens = np.frombuffer(b"".join(b"w%07d" % number for number in range(n)) + bytes(64), np.uint8)
    begins = np.arange(n, dtype=np.int32) * 8
    dropped = np.zeros(n + 1, np.uint32), np.zeros(n + 1, np.int32)
    assert drop_tokens(out, n, tokens, begins, begins + 8, size, distinct, secret, dropped) == (n, n, 0)
    assert longest_run(distinct[:size]) < 50
    assert (out == chosen).all()
    words, times = np.zeros(size, np.uint32), np.zeros(size, np.uint8)
    dropped = chosen.copy(), np.zeros(n, np.int32)
    assert count_words(dropped, n, tokens, (words, times), secret) == n
    assert longest_run(words) < 50


def test_where_features_are_looked_for_is_a_secret_of_the_process() -> None:
    secrets = {TextSettings().kernel_arguments[5] for _ in range(10)}
    assert len(secrets) == 10
    assert all(secret % 2 and secret > 0 for secret in secrets)
