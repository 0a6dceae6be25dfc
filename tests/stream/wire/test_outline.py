"""What is only read over is what msgspec would have made objects of."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.stream.errors import BadRecord
from driftline.stream.surrogates import whole_characters
from driftline.stream.wire import fields, outline
from driftline.stream.wire.fields import MAX_DEPTH, check_json, is_too_deep, mend_escapes
from driftline.stream.wire.many import decode_messages
from driftline.stream.wire.records import decode_feedback, decode_message
from driftline.stream.wire.vector import MAX_NUMBERS
from tests.often import times
from tests.worst_bodies import VALUES

PIECES = [
    b'"', b"\\", b"u", b"d800", b"dc00", b"\\ud83d\\ude00", b"\\ud800", b"{", b"}", b"[", b"]", b":", b",", b"1", b"-",
    b"0", b".", b"e", b"E", b"+", b"309", b"308", b"1.7976931348623157", b"1.797693134862315807", b"true", b"false",
    b"1.797693134862315808", b"null", b" ", b"\n", b"\x01", b"a", b'"a"', b'"a":', b"9" * 4299, b"0" * 310, b"\\n",
    b"\\x",
]  # fmt: skip
SCALARS = [
    b"1", b"-0.0", b"true", b"null", b'"a\\n"', b'"\\ud83d\\ude00"', b'"\\ud83d"', b"1.5e308", b"1.8e308", b"1e-400",
    b"0.0001797693134862315807e312", b"17976931348623158079.0e289", b"0e999", b"-1e999", b"9" * 4300, b"9" * 4301,
]  # fmt: skip
TREES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: b"[" + b" ,".join(parts) + b"]")
        | st.lists(inner, max_size=3).map(lambda parts: b"{" + b",".join(b'"k" : ' + each for each in parts) + b"}")
    ),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    value = draw(TREES)
    place = draw(st.integers(0, len(value)))
    return value[:place] + draw(st.sampled_from(PIECES)) + value[place + draw(st.integers(0, 1)) :]


VALUE = TREES | damaged() | st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join)


def verdict(value: bytes) -> int:
    try:
        msgspec.json.decode(value)
    except msgspec.ValidationError:
        return outline.OUT_OF_RANGE
    except ValueError:
        return outline.MALFORMED
    return outline.GOOD


@settings(max_examples=times(2000, 500))
@given(VALUE)
def test_a_value_is_taken_as_msgspec_does(value: bytes) -> None:
    found = outline.fault(value)
    kind = outline.GOOD if found is None else found.kind
    assert (outline.MALFORMED if kind == outline.HALF else kind) == verdict(value)


@settings(max_examples=times(1000, 250))
@given(VALUE)
def test_long_and_short_values_are_read_alike(value: bytes) -> None:
    def all_of(value: bytes) -> list[Any]:
        said: list[Any] = [mend_escapes(value), is_too_deep(value * 60)]
        try:
            said.append(check_json(value))
        except ValueError as error:
            said.append(type(error))
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fields, "LONG", 0)
        fast = all_of(value)
        patch.setattr(fields, "LONG", 1 << 40)
        assert all_of(value) == fast


@given(st.text(st.sampled_from('\\u0dD8fFaA"x\n')), st.text())
def test_only_halves_are_mended(odd: str, text: str) -> None:
    whole = json.dumps(text).encode()
    assert json.loads(outline.mended(whole)) == whole_characters(text)
    assert outline.mended(odd.encode()) == mend_escapes(odd.encode())


@pytest.mark.parametrize(
    ("value", "values", "items"),
    [
        (b"[]", 1, 1),
        (b"[1,2,3]", 3, 3),
        (b' [ {"a":[1,2]} , "[,]\\",[" ]', 5, 2),
        (b'{"a":1,"b":[2,3]}', 4, 0),
        (b'"a,b"', 0, 0),
        (b"", 0, 0),
        (b"]]],,[", 3, 0),
        (b'{"vector":[1,-2.5e3, 4],"b":[2,3]}', 5, 0),
        (b'[{"text":"a","vector" : [1,2,3]}]', 4, 1),
        (b'{"vector":[1,"a,b",2,{"c":3}]}', 5, 0),
        (b'["vector",[1,2]]', 4, 2),
        (b'{"a":"vector","b":[1,2]}', 4, 0),
        (b'{"vector":' + b"[1" + b",1" * 2047 + b"]}", 2, 0),
        (b'{"vector":' + b"[1" + b",1" * 9000 + b"]}", 2 + 9000 - 2047, 0),
    ],
)
def test_what_is_counted(value: bytes, values: int, items: int) -> None:
    assert outline.MAX_NUMBERS == MAX_NUMBERS
    assert outline.outline(value) == (values, items)


@given(TREES)
def test_no_list_has_more_items_than_are_counted(value: bytes) -> None:
    try:
        made = msgspec.json.decode(value)
    except ValueError:
        return
    assert outline.outline(value).items == (max(1, len(made)) if isinstance(made, list) else 0)


@pytest.mark.parametrize("n", [1, 40])
@pytest.mark.parametrize("what", VALUES)
def test_nothing_is_made_of_what_nobody_sees(what: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a producer fills a record's metadata, it is read over: no object is made of any of it."""
    value = VALUES[what](20_000)
    as_metadata = b'{"id":"m","text":"a","metadata":{"a":%s}}' % value
    in_event = b'{"specversion":"1.0","id":"m","data":{"text":"a","metadata":{"a":%s}}}' % value
    expected = [decode_or_bad(as_metadata), decode_or_bad(in_event)]
    monkeypatch.setattr("driftline.stream.wire.fields.msgspec.json.decode", None)
    for value, alone in zip((as_metadata, in_event), expected, strict=True):
        for each in decode_messages([value] * n, None):
            if isinstance(each, BadRecord):
                assert (each.error, each.detail) == alone
            else:
                assert each is not None
                assert (each.id, each.text, bytes(each.metadata)) == alone


def decode_or_bad(value: bytes) -> object:
    try:
        message = decode_message(value)
    except BadRecord as bad:
        return bad.error, bad.detail
    return message.id, message.text, bytes(message.metadata)


@pytest.mark.parametrize("what", VALUES)
@pytest.mark.parametrize("name", ["id", "message_id", "label", "source", "op", "weight", "ts", "text", "x"])
def test_any_field_may_hold_anything(name: str, what: str) -> None:
    good = {"message_id": b'"m"', "label": b'"a"', name: VALUES[what](20_000)}
    value = b"{" + b",".join(b'"%s":%s' % (each.encode(), raw) for each, raw in good.items()) + b"}"
    try:
        assert decode_feedback(value).message_id
    except BadRecord as bad:
        assert len(bad.detail) < 1000


def test_how_deep_is_deep() -> None:
    for n in (MAX_DEPTH, MAX_DEPTH + 1):
        value = b"[" * n + b'"]]]\\"["' + b"]" * n
        assert outline.is_deeper(value, MAX_DEPTH) == (n > MAX_DEPTH)
