"""Texts that look the same have one form, by every Python, and by the kernel as by a plain version."""

import hashlib
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.learner.blend.settings import BlendSettings
from driftline.learner.text import forms
from driftline.learner.text.characters import N_CODEPOINTS, UNICODE_VERSION
from driftline.learner.text.features import MAX_CHARS, TextSettings, features
from driftline.learner.text.forms import (
    BARE,
    CHANGES,
    CLASS_MASK,
    CLASS_SHIFT,
    JOINS,
    MAX_GROWTH,
    ODD,
    UNSEEN,
    load_forms,
)
from driftline.learner.text.normal import MAX_MARKS, normalised, placed
from driftline.stream.texts import PADDING, Texts
from tests import oracles
from tests.learner.text.test_shape import shape
from tests.often import in_torture_only, times

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
MARKS = (
    "\u0300\u0301\u0302\u0307\u0308\u0323\u0327\u0328\u031b\u0336\u0345"
    "\u05b0\u05c1\u064b\u0651\u093c\u094d\u3099\u0f71\u0f72\u0e38"
)
COMPOSED = "éÅÅİıẹ́ǘΐᾂѐйأؤשׂक़ড়ୋொೋෝဦᬆぱヴ가각힣각ﬁﬃ½²™℃…ｱﾞﾊﾟＡ𝐀ﷺ﷽ﻼㄱㅏ¨´`≠∉"
CLEAR = [c for c in oracles.UNSEEN if oracles.assigned(c)]
assigned = st.characters().filter(oracles.assigned)
texts = st.text(st.sampled_from(MARKS + COMPOSED + "aeiouAIns q\n") | assigned, max_size=50)


def one_form(text: str, most: int = MAX_CHARS) -> str:
    return normalised(Texts.of([text]), most)[0]


def all_features(text: str, options: BlendSettings) -> list[list[int]]:
    return [features([text], options)[0].tolist(), *shape(text, options)]


@settings(max_examples=times(400, 100), deadline=None)
@given(texts)
def test_the_one_form_is_that_of_the_plain_version(text: str) -> None:
    assert one_form(text) == oracles.normal(text)


@settings(max_examples=times(400, 100), deadline=None)
@given(texts, st.sampled_from([(4096, 2048), (12, 5), (9, 0), (1, 0)]))
def test_equivalent_texts_have_the_same_features(text: str, most: tuple[int, int]) -> None:
    """Canonically and compatibility equivalent, also where they are cut."""
    options = BlendSettings(max_chars=most[0], tail_chars=most[1])
    expected = all_features(text, options)
    for form in FORMS:
        assert all_features(unicodedata.normalize(form, text), options) == expected, form


@settings(max_examples=times(300, 75), deadline=None)
@given(st.data(), texts, st.sampled_from([(4096, 2048), (12, 5), (9, 0)]))
def test_what_nobody_sees_changes_nothing(data: st.DataObject, text: str, most: tuple[int, int]) -> None:
    options = BlendSettings(max_chars=most[0], tail_chars=most[1])
    hidden = text
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(hidden)))
        hidden = hidden[:at] + data.draw(st.sampled_from(CLEAR)) + hidden[at:]
    assert all_features(hidden, options) == all_features(text, options)
    assert all_features(unicodedata.normalize("NFD", hidden), options) == all_features(text, options)


@pytest.mark.parametrize("code", [0x200B, 0xAD, 0x2060, 0xFEFF, 0x200E, 0x202E, 0x2066, 0xFE0F, 0xE0100, 0x34F, 0x180E])
def test_every_way_to_hide_a_word_is_none(code: int) -> None:
    options = BlendSettings()
    assert all_features(chr(code).join("You WON a prize"), options) == all_features("You WON a prize", options)


@settings(max_examples=times(300, 75), deadline=None)
@given(texts, st.integers(0, 30))
def test_no_more_is_written_than_is_wanted(text: str, most: int) -> None:
    form = one_form(text, most)
    assert form[:most] == one_form(text)[:most]
    assert len(form) <= most or form == text


@settings(max_examples=times(200, 50), deadline=None)
@given(st.lists(texts | st.text("ab ", max_size=5), max_size=6))
def test_texts_of_a_batch_are_those_alone(batch: list[str]) -> None:
    assert list(normalised(Texts.of(batch), MAX_CHARS)) == [one_form(text) for text in batch]


@settings(max_examples=times(400, 100), deadline=None)
@given(texts)
def test_places_are_those_of_the_kernel(text: str) -> None:
    found = placed(text)
    assert "".join(map(chr, found.codes.tolist())) == one_form(text)
    for start, stop, code in zip(found.starts.tolist(), found.stops.tolist(), found.codes.tolist(), strict=True):
        assert 0 <= start < stop <= len(text)
        assert chr(code) in oracles.normal(unicodedata.normalize("NFKD", text[start:stop])) or unicodedata.combining(
            chr(code)
        )


def test_places_of_what_is_taken_apart_left_out_and_put_together() -> None:
    text = "e\u0301ﬁs\u0336\u200bt\u1112\u1161\u11ab"
    found = placed(text)
    assert "".join(map(chr, found.codes)) == "\u00e9fist\ud55c"
    assert list(zip(found.starts.tolist(), found.stops.tolist(), strict=True)) == [
        (0, 2), (2, 3), (2, 3), (3, 6), (6, 7), (7, 10),
    ]  # fmt: skip


def test_a_text_that_is_in_the_one_form_is_not_copied() -> None:
    for batch in (["plain", "also"], ["café", "한국어", "Привет", "漢字"], []):
        ready = Texts.of(batch)
        assert normalised(ready, MAX_CHARS) is ready
        raw = Texts(ready.codes, ready.starts)
        assert normalised(raw, MAX_CHARS) is raw


MARKS = times(50_000, 5_000)


@pytest.mark.long
@pytest.mark.parametrize(
    "text", ["\u0301" * 2 * MARKS, "e" + "\u0301\u0323" * MARKS, "क" + "\u094d\u093c" * MARKS], ids=range(3)
)
def test_any_number_of_marks_is_few(text: str) -> None:
    assert len(one_form(text)) <= 1 + MAX_MARKS
    assert one_form(text) == oracles.normal(text)


def test_a_text_grows_by_no_more_than_there_is_room_for() -> None:
    tables = load_forms()
    for code in range(N_CODEPOINTS):
        entry = tables.entry(code)
        size = len(chr(code).encode("utf-8", "surrogatepass"))
        parts = tables.apart(code, entry)
        assert sum(len(chr(part).encode("utf-8", "surrogatepass")) for part in parts) <= MAX_GROWTH * size
    for pair, whole in zip(tables.pairs.tolist(), tables.wholes.tolist(), strict=True):
        both = chr(pair >> 21) + chr(pair & (1 << 21) - 1)
        assert len(chr(whole).encode()) <= len(both.encode())
    assert len(one_form("\ufdfa" * 1000).encode()) == MAX_GROWTH * 3000


@given(st.binary(max_size=60))
def test_bytes_that_are_no_utf8_stay_in_bounds(value: bytes) -> None:
    ready = Texts(np.frombuffer(value + bytes(PADDING), np.uint8), np.array([0, len(value)]))
    made = normalised(ready, MAX_CHARS)
    assert made.starts[1] <= MAX_GROWTH * (len(value) + 3)
    assert np.array_equal(made.codes[: made.starts[1]], normalised(ready, MAX_CHARS).codes[: made.starts[1]])


# The tables.


def test_the_tables_are_those_of_the_format() -> None:
    parts = b"".join(table.astype(table.dtype.newbyteorder("<")).tobytes() for table in load_forms())
    assert hashlib.sha256(parts).hexdigest() == ("54ded33be9b9330b6cd9c89dc83c626c17b49bf4e41133ad037be8a9b595564e")


def test_the_tables_agree_with_this_python() -> None:
    """Unicode never changes the form of a character that it has: so every Python must say the same of those."""
    tables = load_forms()
    same_unicode = unicodedata.unidata_version == UNICODE_VERSION
    compared = 0
    for code in range(N_CODEPOINTS):
        character, entry = chr(code), tables.entry(code)
        old = unicodedata.ucd_3_2_0.category(character)
        if not same_unicode and (old == "Cn" or old != unicodedata.category(character)):
            continue
        compared += 1
        assert bool(entry & UNSEEN) == (not oracles.is_seen(character)), f"U+{code:04X}"
        if entry & UNSEEN:
            continue
        form = "".join(filter(oracles.is_seen, unicodedata.normalize("NFKD", character))).replace("\u2800", " ")
        syllable = 0xAC00 <= code <= 0xD7A3
        assert "".join(map(chr, tables.apart(code, entry))) == (character if syllable else form), f"U+{code:04X}"
        assert (entry & CLASS_MASK) >> CLASS_SHIFT == unicodedata.combining(character), f"U+{code:04X}"
        assert bool(entry & BARE) == oracles.takes_no_marks(character), f"U+{code:04X}"
        if not entry & ODD:
            assert unicodedata.is_normalized("NFKC", character), f"U+{code:04X}"
        if entry & CHANGES:
            assert not unicodedata.is_normalized("NFKC", character) or character == "\u2800", f"U+{code:04X}"
    assert compared > 90_000
    for pair, whole in zip(tables.pairs.tolist(), tables.wholes.tolist(), strict=True):
        second = pair & (1 << 21) - 1
        assert unicodedata.normalize("NFC", chr(pair >> 21) + chr(second)) == chr(whole)
        assert tables.entry(second) & (JOINS | CLASS_MASK)


def test_a_python_of_another_unicode_does_not_make_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "UNICODE_VERSION", "1.1")
    with pytest.raises(SystemExit, match=r"made from 1\.1"):
        forms.main()


@in_torture_only
def test_the_file_is_what_the_generator_makes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = load_forms()
    monkeypatch.setattr(forms, "_FILE", tmp_path / "made.npz")
    monkeypatch.setattr(forms, "UNICODE_VERSION", unicodedata.unidata_version)
    forms.main()
    made = forms.load_forms.__wrapped__()
    if unicodedata.unidata_version == UNICODE_VERSION:
        assert all(np.array_equal(one, other) for one, other in zip(made, shipped, strict=True))
    else:
        assert len(made.pairs) >= len(shipped.pairs), "Unicode only grows"


def test_a_model_of_before_reads_texts_as_it_did() -> None:
    before = TextSettings(hashing=1, chars=False)
    one, other = (features([text], before)[0].tolist() for text in ("caf\u00e9", "cafe\u0301"))
    assert set(one).isdisjoint(other)
    assert features(["sp\u200bam"], before)[0].tolist() == features(["sp am"], before)[0].tolist()
