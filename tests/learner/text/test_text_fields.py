"""Fields are features of a text, each in a namespace of its own; the kernel's are those of its plain twin."""

import unicodedata
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftline.learner.blend.settings import BlendSettings
from driftline.learner.explain.trace import trace, trace_shape
from driftline.learner.explain.traced import Feature
from driftline.learner.text.features import TextSettings, features
from driftline.stream.errors import ConfigError
from driftline.stream.wire.fielded import MAX_VALUE_CHARS, join
from tests.learner.text.test_shape import shape
from tests.often import times

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("aA e\u0301ﬁ字 '!")
TEXT = st.text(CHARACTERS, max_size=30)
NAME = TEXT.filter(bool) | st.sampled_from(["sender", "country", "cafe\u0301"])
VALUE = TEXT | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.lists(TEXT, max_size=3)
FIELDS = st.dictionaries(NAME, VALUE, max_size=4)
SETTINGS = st.builds(
    lambda pairs, chars, most, max_features, hashing, cross: BlendSettings(
        pairs=pairs,
        chars=chars,
        max_chars=most[0],
        tail_chars=most[1],
        max_features=max_features,
        hashing=hashing,
        cross=cross,
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(1, 0), (7, 0), (9, 3), (30, 28), (8192, 0)]),
    st.sampled_from([1, 2, 9, 40, 100, 32768]),
    st.sampled_from([1, 2, 2]),
    st.sampled_from(["", "sender", "country+sender", "caf\u00e9"]),
)
PLAIN = TextSettings(chars=False)


def hashes(text: str, fields: dict[str, Any], options: TextSettings = PLAIN) -> list[int]:
    return [int(h) for h in features([join(text, fields)], options)[0]]


def of_fields(fields: dict[str, Any], options: TextSettings = PLAIN) -> list[int]:
    return hashes("", fields, replace(options, chars=False))


@settings(max_examples=times(1000, 200))
@given(TEXT, FIELDS, SETTINGS)
@example("", {"country": "\u0301x", "\u0301": "a b"}, BlendSettings())
@example("win win", {"country": "NL", "sender": 12.0}, BlendSettings(cross="country+sender"))
@example("a " * 40, {"country": ["a", "b"], "sender": True}, BlendSettings(cross="country+sender", max_features=40))
def test_the_features_that_are_traced_are_those_of_the_kernel(
    text: str, fields: dict[str, Any], options: BlendSettings
) -> None:
    whole = join(text, fields)
    found = trace(whole, options)
    assert [feature.hash for feature in found] == features([whole], options)[0].tolist()
    assert len(found) <= options.max_features
    cased, ends, amounts = shape(whole, options)
    assert [feature.hash for feature in trace_shape(whole, options, found)] == [*cased, *ends, *amounts]


@given(TEXT, FIELDS)
def test_a_text_with_fields_has_the_features_that_it_has_without(text: str, fields: dict[str, Any]) -> None:
    own = hashes(text, {}, TextSettings())
    assert set(own) <= set(hashes(text, fields, TextSettings()))
    assert set(hashes(text, fields, TextSettings())) == {*own, *of_fields(fields, TextSettings())}


def test_each_field_has_a_namespace_of_its_own() -> None:
    word = hashes("prize money", {})
    subject, sender = of_fields({"subject": "prize money"}), of_fields({"sender": "prize money"})
    assert not {*word} & {*subject} | {*subject} & {*sender} | {*word} & {*sender}
    assert len(subject) == 4, "the whole, two words, a pair"
    assert of_fields({"a": "b", "c": "d"}) == of_fields({"a": "b"}) + of_fields({"c": "d"})


def test_a_string_is_a_category_and_its_words() -> None:
    assert len(of_fields({"country": "NL"})) == 1
    assert of_fields({"country": "NL"}) != of_fields({"country": "nl"}), "a category is as it is written"
    assert {*of_fields({"s": "Win Now"})} & {*of_fields({"s": "now win"})}, "words are not"
    assert of_fields({"urgent": True}) == of_fields({"urgent": "true"}) != of_fields({"urgent": False})
    tags = of_fields({"tags": ["red", "dark blue"]})
    assert len(tags) == 2
    assert {*tags} == {*of_fields({"tags": "red"}), *of_fields({"tags": ["dark blue"]})}
    assert of_fields({"a": None}) == of_fields({"a": []}) == []


def test_forms_that_look_the_same_are_the_same() -> None:
    one, other = ({"caf\u00e9": "\ufb01ne d\u00e9j\u00e0"}, {"cafe\u0301": "fine de\u0301ja\u0300"})
    assert of_fields(one) == of_fields(other)
    for text in ("plain", "d\u00e9j\u00e0 vu", "\u1112\u1161\u11ab"):
        assert hashes(text, one) == hashes(unicodedata.normalize("NFD", text), other)


def shared(one: float, other: float) -> int:
    """Return how many features two numbers share."""
    return len({*of_fields({"n": one})} & {*of_fields({"n": other})})


def test_numbers_that_are_near_share_features_on_every_scale() -> None:
    for scale in (1e-300, 1e-9, 0.001, 1.0, 250.0, 1e6, 1.7e9, 1e300):
        near = [shared(scale, scale * factor) for factor in (1.0, 1.001, 1.03, 1.3, 2.5, 9.0, 1e5)]
        assert near[0] == 12 > near[1]
        assert near == sorted(near, reverse=True), scale
        assert all(n >= least for n, least in zip(near, (12, 9, 5, 3, 2), strict=False)), (scale, near)
        assert near[-1] <= 2, scale
        assert shared(scale, -scale) == 0
    assert len(of_fields({"n": 0})) == 2
    assert shared(0, 1) == 0


def test_words_can_be_crossed_with_fields() -> None:
    crossed = replace(PLAIN, cross="country")
    plain, found = hashes("win a prize", {"country": "NL"}), hashes("win a prize", {"country": "NL"}, crossed)
    assert len(found) == len(plain) + 3
    assert {*plain} <= {*found}
    other = hashes("win a prize", {"country": "BE"}, crossed)
    assert len({*found} & {*other}) == len(hashes("win a prize", {})), "each value has its own"
    assert hashes("win a prize", {"sender": "x"}, crossed) == hashes("win a prize", {"sender": "x"})
    assert hashes("win a prize", {}, crossed) == hashes("win a prize", {})
    kinds = {(f.kind, f.field, f.text) for f in trace(join("win", {"country": "NL"}), crossed)}
    assert ("cross", "country", "win NL") in kinds


@pytest.mark.parametrize("cross", ["+", "a+", "a" * 65, "+".join("abcdefghi"), "a\0"])
def test_what_cannot_be_crossed_is_refused(cross: str) -> None:
    with pytest.raises(ConfigError, match="cross"):
        TextSettings(cross=cross)


def kinds_of(found: list[Feature]) -> dict[str, int]:
    kinds = [feature.kind for feature in found]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def test_neither_text_nor_fields_push_the_other_out() -> None:
    many = " ".join(f"w{i}" for i in range(500))
    fields = {"a": " ".join(f"v{i}" for i in range(400)), "z": "NL"}
    found = trace(join(many, fields), TextSettings(max_features=200))
    assert len(found) == 200
    assert kinds_of(found)["word"] >= 50
    assert [f.text for f in found if f.field == "z"] == ["NL"], "categories go before words"
    assert sum(bool(f.field) for f in found) == 100
    crossed = trace(join(many, {"z": "NL"}), TextSettings(max_features=1600, cross="z"))
    assert kinds_of(crossed)["cross"] == 400


def test_a_long_text_is_cut_and_its_fields_are_not() -> None:
    fields = {"country": "NL", "subject": "w " * (MAX_VALUE_CHARS // 2), "\u00e9": "e\u0301"}
    for options in (TextSettings(max_chars=3000, tail_chars=1000), TextSettings(max_chars=3000)):
        for text in ("ab " * 20_000, "ab\u00e9 " * 20_000, "ae\u0301 " * 20_000):
            found = {*hashes(text, fields, options)}
            assert found >= {*of_fields(fields, options)}
            assert found >= {*hashes(text, {}, options)}


def test_what_only_looks_like_fields_does_no_harm() -> None:
    """No record holds a NUL; who calls a classifier himself may give it one."""
    for odd in ("\0", "\0\0", "a\0b\0", "a\0\0\0", "a\0b\0n\0", "a\0b\0" + "0" * 15 + "n\0", "a\0b\0x\0", "\0" * 999):
        found = features([odd, "b"], TextSettings())[0]
        assert len(found) < 40
        assert [feature.hash for feature in trace(odd, TextSettings())] == found[
            : len(trace(odd, TextSettings()))
        ].tolist()
    assert np.array_equal(features(["a\0"], TextSettings())[0], features(["a"], TextSettings())[0])
