"""What the scan reads is what msgspec decodes, one by one, and everything else is left to it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.stream.decode.batch import decode_batch
from driftline.stream.errors import BadRecord
from driftline.stream.log.base import Chunk, TopicPartition
from driftline.stream.log.merge import Batch
from driftline.stream.texts import Texts
from driftline.stream.wire.column import Column
from driftline.stream.wire.many import decode_feedbacks, decode_messages
from driftline.stream.wire.records import Feedback, Headers, Message
from tests.often import times

MAX_BYTES = 2000


def decoded(
    values: Sequence[bytes | None], *, messages: bool, headers: list[Headers | None] | None = None
) -> list[Any]:
    """Return what a batch of values of one topic says."""
    n = len(values)
    chunk = Chunk(TopicPartition("t", 0), np.arange(n), np.zeros(n, np.int64), [None] * n, list(values), headers)
    records = decode_batch(Batch([chunk], np.arange(n), []), lambda _: messages, MAX_BYTES, 0)
    return [records.record(place) for place in range(n)]


def same(one: Any, other: Any) -> bool:
    if isinstance(other, BadRecord):
        return isinstance(one, BadRecord) and (one.error, one.detail) == (other.error, other.detail)
    return bool(one == other)


TEXT = st.text(st.characters(codec="utf-8"), max_size=80) | st.text('ab"\\\n\0\x1f\x7fé€😀 ', max_size=120)
VALUES = st.one_of(
    st.builds(lambda key, text: msgspec.json.encode({"id": key, "text": text}), TEXT, TEXT),
    st.builds(lambda key, label: msgspec.json.encode({"message_id": key, "label": label}), TEXT, TEXT),
    st.builds(lambda k, n, i: msgspec.json.encode({"label": n, "id": i, "message_id": k}), TEXT, TEXT, TEXT),
    st.dictionaries(
        st.sampled_from(["id", "text", "message_id", "label", "op", "weight", "ts", "x"]),
        TEXT | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    ).map(msgspec.json.encode),
    st.binary(max_size=40),
    st.sampled_from([b"", b"{}", b'{"id":"a","text":"b"', b'{"id":"a","text":"b"}}', b'{"id":"a","text":"b",}']),
    st.sampled_from([b'{"id":"a","id":"b","text":"c"}', b' {"id" :\t"a",\r\n"text": "b" } ', b'{"id":"a" "text":"b"}']),
    st.integers(500, 520).map(lambda n: b'{"id":"%s","text":""}' % (b"x" * n)),
    st.integers(250, 260).map(lambda n: b'{"message_id":"m","label":"%s"}' % (b"x" * n)),
    st.integers(1960, 2010).map(lambda n: b'{"id":"m","text":"%s"}' % (b"x" * n)),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a value in which some bytes were changed, left out or put in."""
    value = bytearray(draw(VALUES))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(value)))
        value[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(value)


@settings(max_examples=times(600, 150))
@given(st.lists(VALUES | damaged() | st.none(), max_size=20), st.booleans())
def test_a_scan_finds_what_msgspec_decodes(values: list[bytes | None], messages: bool) -> None:
    decode: Any = decode_messages if messages else decode_feedbacks
    expected = [decode([value], None, MAX_BYTES)[0] for value in values]
    found = decoded(values, messages=messages)
    assert len(found) == len(expected)
    assert all(map(same, found, expected)), (found, expected)


@pytest.mark.parametrize("first", range(0x80, 0x100))
def test_only_utf8_is_taken(first: int) -> None:
    ends = [
        b"",
        b"a",
        b"\x7f",
        b"\x80",
        b"\x8f\x80",
        b"\x90\x80",
        b"\x9f\xbf",
        b"\xa0\x80",
        b"\xbf\xbf\xbf",
        b"\x8f\xbf\xbf",
    ]
    values: list[bytes | None] = [
        b'{"id":"a","text":"%c%s"}' % (first, end + more) for end in ends for more in (b"", b"\xbf")
    ]
    assert all(map(same, decoded(values, messages=True), [decode_messages([value], None)[0] for value in values]))


def test_what_is_scanned_needs_no_msgspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.stream.decode.batch.decode_messages", None)
    values = [b'{"text":"caf\xc3\xa9 \xf0\x9f\x98\x80","id":"%d"}' % number for number in range(100)]
    assert decoded(values, messages=True) == [Message(str(number), "café 😀") for number in range(100)]


def test_headers_say_what_the_value_is() -> None:
    event: Headers = [("ce_specversion", b"1.0"), ("ce_id", b"e"), ("content-type", b"text/plain")]
    values = [b"a text", b'{"id":"m","text":"another"}', b"{"]
    found = decoded(values, messages=True, headers=[event, event, None])
    assert found[:2] == [Message("e", "a text"), Message("e", '{"id":"m","text":"another"}')]
    assert isinstance(found[2], BadRecord)


def test_a_label_keeps_what_a_scan_does_not_read() -> None:
    feedback = Feedback("m", "spam", "f", weight=2.5, source="user:1")
    assert decoded([msgspec.json.encode(feedback)], messages=False) == [feedback]


@given(st.lists(st.tuples(TEXT, st.booleans()), max_size=8))
def test_gathered_texts_are_those_of_strings(texts: list[tuple[str, bool]]) -> None:
    raw = [text.encode() for text, _ in texts]
    sizes = np.array(list(map(len, raw)), np.int64)
    places = np.cumsum(sizes) - sizes
    wanted = [index for index, (_, is_wanted) in reversed(list(enumerate(texts))) if is_wanted]
    held = Texts.gathered(np.frombuffer(b"".join(raw), np.uint8), places[wanted], sizes[wanted])
    expected = Texts.of([texts[index][0] for index in wanted])
    assert list(held) == list(expected)
    assert held.starts.tolist() == expected.starts.tolist()
    assert held.codes.tolist() == expected.codes.tolist()


@given(st.lists(st.lists(st.none() | st.binary(max_size=5), max_size=6), min_size=1, max_size=4), st.integers(0, 9))
def test_a_column_is_a_list_of_values(parts: list[list[bytes | None]], cut: int) -> None:
    expected = [value for part in parts for value in part]
    column = Column.joined([Column.of(part) for part in parts])
    assert list(column) == expected == [column[index] for index in range(len(column))]
    assert list(column[cut:]) == expected[cut:]
    assert list(column[cut:] + column[:cut]) == expected[cut:] + expected[:cut]
    assert column[cut:].n_bytes == sum(len(value or b"") for value in expected[cut:])
