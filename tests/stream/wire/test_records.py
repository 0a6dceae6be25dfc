"""Every byte string is a record or a BadRecord; nothing else comes out of the codec."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.stream.errors import BadRecord
from driftline.stream.wire import many
from driftline.stream.wire.bad import MAX_DETAIL_CHARS
from driftline.stream.wire.many import decode_feedbacks, decode_messages
from driftline.stream.wire.names import same_name
from driftline.stream.wire.records import (
    LABELLED,
    NONE,
    Feedback,
    Message,
    Topics,
    decode_feedback,
    decode_message,
    decode_rejected,
    encode,
    in_one_form,
    reject,
)
from tests.often import times

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NAME = TEXT.filter(lambda name: 0 < len(name) <= 256)
TIMES = st.datetimes(timezones=st.just(UTC))

BAD_MESSAGES = {
    "not-json": [b"", b"{", b"spam", b'{"id":"a","text":"b"}x', b'{"id":"a","text":NaN}', b"\xef\xbb\xbf{}"],
    "wrong-type": [
        b"[]",
        b'"text"',
        b"null",
        b'{"id":[1],"text":"b"}',
        b'{"id":"a","text":5}',
        b'{"id":"a","text":"b","ts":"yesterday"}',
        b'{"id":"a","text":"b","ts":1e300}',
        b'{"id":"a","text":"b","ts":true}',
    ],
    "missing-field": [b"{}", b'{"id":"a"}', b'{"text":"b"}', b'{"id":"a","text":null}', b'{"id":null,"text":"b"}'],
    "empty-field": [b'{"id":"","text":"b"}'],
    "forbidden-character": [
        b'{"id":"a","text":"\\u0000"}',
        b'{"id":"a\\u0000","text":"b"}',
    ],
    "not-utf8": [b'{"id":"a","text":"\xff"}', b'{"id":"a","text":"\xed\xa0\x80"}', b'{"id":"a","text":"b","x":"\xff"}'],
    "too-deep": [
        b'{"id":"a","text":"b","metadata":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b'{"id":"a","text":"b","x":' + b"[" * 100_000,
        b'{"id":"a","text":"b","metadata":{"a":' + b"[" * 99 + b"]" * 99 + b"}}",
    ],
    "out-of-range": [b'{"id":"a","text":"b","metadata":{"n":' + b"1" * 5000 + b"}}"],
    "too-large": [b'{"id":"a","text":"' + b"b" * (1 << 20) + b'"}', b'{"id":"' + b"a" * 513 + b'","text":"b"}'],
}
BAD_FEEDBACK = {
    "out-of-range": [
        b'{"message_id":"a","label":"b","weight":1e999}',
        b'{"message_id":"a","label":"b","weight":' + b"1" * 5000 + b"}",
        b'{"message_id":"a","label":"b","weight":0}',
        b'{"message_id":"a","label":"b","weight":-1}',
        b'{"message_id":"a","label":"b","weight":1e7}',
        b'{"message_id":"a","label":"b","weight":1e-300}',
    ],
    "not-json": [b'{"message_id":"a","label":"b","weight":NaN}', b'{"message_id":"a","label":"b","weight":Infinity}'],
    "missing-field": [b'{"label":"b"}', b'{"message_id":"a"}'],
    "empty-field": [
        b'{"message_id":"","label":"b"}',
        b'{"message_id":"a","label":""}',
        b'{"message_id":"a","label":"b","id":""}',
    ],
    "forbidden-character": [
        b'{"message_id":"a","label":"\\u0000"}',
        b'{"message_id":"a","label":"b","text":"\\u0000"}',
    ],
    "wrong-type": [b'{"message_id":"a","label":"b","op":"delete"}', b'{"message_id":"a","label":["b"]}'],
    "too-large": [b'{"message_id":"a","label":"' + b"b" * 257 + b'"}'],
}


def raw(content: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(content))


def cases(table: dict[str, list[bytes]]) -> list[pytest.param]:
    return [
        pytest.param(value, error, id=f"{error}-{n}")
        for error, values in table.items()
        for n, value in enumerate(values)
    ]


@pytest.mark.parametrize(("value", "error"), cases(BAD_MESSAGES))
def test_a_bad_message_says_why(value: bytes, error: str) -> None:
    with pytest.raises(BadRecord) as raised:
        decode_message(value)
    assert raised.value.error == error
    assert raised.value.detail


@pytest.mark.parametrize(("value", "error"), cases(BAD_FEEDBACK))
def test_a_bad_label_says_why(value: bytes, error: str) -> None:
    with pytest.raises(BadRecord) as raised:
        decode_feedback(value)
    assert raised.value.error == error
    assert raised.value.detail


@pytest.mark.parametrize("n", [1, 400])
def test_how_deep_json_may_be_is_the_same_alone_and_among_many(n: int) -> None:
    deep = [b'{"id":"a","text":"%s","metadata":{"a":%s%s}}' % (b"[{" * 200, b"[" * n, b"]" * n) for n in (98, 99, 900)]
    whole, *cut = decode_messages([*deep, *[b'{"id":"a","text":"b","metadata":{}}'] * n], None)[:3]
    assert isinstance(whole, Message)
    assert [each.error for each in cut if isinstance(each, BadRecord)] == ["too-deep"] * 2
    event = {"specversion": "1.0", "id": "e", "datacontenttype": "application/json"}
    assert decode_message(encode(event | {"data_base64": base64.b64encode(deep[0]).decode()})) == whole
    with pytest.raises(BadRecord, match="nested more than 100 deep"):
        decode_message(encode(event | {"data_base64": base64.b64encode(deep[1]).decode()}))


def test_a_weight_that_no_model_can_hold_is_refused_among_many() -> None:
    labels = [b'{"message_id":"a","label":"b","weight":%s}' % weight for weight in [b"2", b"1e-300"] * 10]
    found = decode_feedbacks(labels, None)
    assert [each.weight for each in found[::2] if isinstance(each, Feedback)] == [2.0] * 10
    assert [each.error for each in found[1::2] if isinstance(each, BadRecord)] == ["out-of-range"] * 10


@given(st.binary(), st.lists(st.tuples(st.text(), st.binary()), max_size=3))
def test_bytes_are_a_record_or_a_bad_record(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    for decode in (decode_message, decode_feedback):
        try:
            assert decode(value, headers).id != ""
        except BadRecord as bad:
            assert bad.error in BAD_MESSAGES


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text()
                | st.sampled_from(["id", "text", "label", "message_id", "weight", "ts", "specversion", "data"]),
                inner,
                max_size=5,
            )
        ),
    )
)
def test_json_is_a_record_or_a_bad_record(content: object) -> None:
    value = json.dumps(content).encode("utf-8", "surrogatepass")
    for decode in (decode_message, decode_feedback):
        try:
            decode(value)
        except BadRecord as bad:
            assert bad.error in BAD_MESSAGES


@given(st.builds(Message, NAME, TEXT, st.none() | TIMES, st.just(NONE) | st.dictionaries(TEXT, TEXT).map(raw)))
def test_a_message_survives(message: Message) -> None:
    assert decode_message(encode(message)) == message


@given(
    st.builds(
        Feedback,
        NAME,
        NAME,
        st.none() | NAME,
        st.sampled_from(["upsert", "retract"]),
        st.floats(1e-3, 1e6),
        st.none() | TEXT,
        st.none() | TIMES,
        st.none() | TEXT,
    ).filter(lambda feedback: same_name(feedback.label))
)
def test_a_label_survives(feedback: Feedback) -> None:
    assert decode_feedback(encode(feedback)) == in_one_form(feedback)


GOOD = [
    b'{"id":"a","text":"b"}',
    b'{"message_id":"a","label":"b"}',
    b'{"id":"a","text":"b","message_id":"c","label":"d"}',
]
# What a line break between values could make look right: halves, twins, blanks, ends and beginnings of something else.
ODD = [
    b'{"id":"a","text":"b"}{"id":"c","text":"d"}',
    b'{"id":"a","text":"b"}\n{"id":"c","text":"d"}',
    b'{"id":"a",\n"text":"b","label":"d","message_id":"c"}',
    b'{"id":"a","text":"b","label":"d","message_id":"c","x":{}',
    b'{"id":"a","text":"b","label":"d","message_id":"c","x":[{}',
    b'{"id":"a","text":"b","label":"d","message_id":"c","x":"{}',
    b'{"id":"a","text":"b","label":"d","message_id":"c","x":{"y":{}',
    b'{}"}',
    b"{}]}",
    b"{}}",
    b'{"z":1}}',
    b',"text":"b"}',
    b'{"id":"a"',
    b"{",
    b"}",
    b"",
    b" ",
    b"\n",
    b"{}",
    b"null",
    b' {"id":"a","text":"b"}',
    b'{"id":"a","text":"b"} ',
    b'{"id":"a","text":"b"}\n',
    b'{"id":"a\\\\u0000","text":"b"}',
    b'{"id":"\xc3","text":"\xa9"}',
    b'{"id":"\xc3\xa9","text":"\xc3\xa9"}',
    b'{"specversion":"1.0","id":"e","source":"/","type":"t","data":{"text":"b"}}',
]


def one_by_one(decode: Callable[..., object], values: Sequence[bytes | None], headers: object) -> list[object]:
    found: list[object] = []
    for value, its_headers in zip(values, headers or [None] * len(values), strict=True):  # type: ignore[call-overload]
        try:
            found.append(None if value is None else decode(value, its_headers, 2000))
        except BadRecord as bad:
            found.append((bad.error, bad.detail))
    return found


def at_once(decode: Callable[..., list[object]], values: Sequence[bytes | None], headers: object) -> list[object]:
    found = decode(values, headers, 2000)
    return [(each.error, each.detail) if isinstance(each, BadRecord) else each for each in found]


ALL_BAD = [value for table in (BAD_MESSAGES, BAD_FEEDBACK) for values in table.values() for value in values]
VALUES = st.lists(
    st.sampled_from(GOOD) | st.sampled_from(ODD) | st.sampled_from([v for v in ALL_BAD if len(v) < 10_000]) | st.none(),
    max_size=12,
)


@settings(max_examples=times(1000, 250))
@given(VALUES, st.integers(1, 4), st.integers(2, 3))
def test_many_values_are_read_as_one_by_one(values: list[bytes | None], n_many: int, parts: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "MANY", n_many)
        patch.setattr(many, "PARTS", parts)
        assert at_once(decode_messages, values, None) == one_by_one(decode_message, values, None)
        assert at_once(decode_feedbacks, values, None) == one_by_one(decode_feedback, values, None)


@given(st.permutations(ODD), st.sampled_from(ODD))
def test_values_that_only_look_well_together_stay_apart(odd: list[bytes], twin: bytes) -> None:
    for first, second in pairwise(odd):
        # As many records as values, were they lines of one file: two halves, and one that is two.
        for three in ([first, second, twin], [twin, first, second], [first, twin, second]):
            values = three + GOOD[2:] * many.MANY
            assert at_once(decode_messages, values, None) == one_by_one(decode_message, values, None)


def test_one_bad_value_among_many_is_the_only_one_refused() -> None:
    values = [encode(Message(f"m{number}", "text")) for number in range(3000)]
    headers: list[list[tuple[str, bytes]] | None] = [None] * 3000
    values[1234] = b"plain text"
    values[2345], headers[2345] = b"plain text", [*TestCloudEvents.HEADERS, ("content-type", b"text/plain")]
    found = decode_messages(values, headers)
    assert [number for number, each in enumerate(found) if isinstance(each, BadRecord)] == [1234]
    assert found[2345] == Message("e1", "plain text", TestCloudEvents.TIME)
    assert found[2999] == Message("m2999", "text")


def test_unknown_fields_are_skipped_whatever_they_hold() -> None:
    value = b'{"id":"a","text":"b","later":1e999,"more":' + b"9" * 5000 + b"}"
    assert decode_message(value) == Message("a", "b")


def test_a_whole_surrogate_pair_and_an_escaped_backslash_are_text() -> None:
    assert decode_message(b'{"id":"a","text":"\\ud83d\\ude00 \\\\ud800"}').text == "\N{GRINNING FACE} \\ud800"


class TestCloudEvents:
    """CloudEvents 1.0 over Kafka: binary form has its attributes in headers, structured form in the JSON."""

    HEADERS = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"e1"),
        ("ce_source", b"/a"),
        ("ce_type", b"message"),
        ("ce_time", b"2026-01-31T12:00:00Z"),
    ]
    TIME = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def test_binary_text(self) -> None:
        headers = [*self.HEADERS, ("content-type", b"text/plain; charset=utf-8")]
        assert decode_message("Grüße".encode(), headers) == Message("e1", "Grüße", self.TIME)

    def test_binary_json(self) -> None:
        headers = [*self.HEADERS, ("content-type", b"application/json")]
        assert decode_message(b'{"text":"b"}', headers) == Message("e1", "b", self.TIME)
        assert decode_message(b'{"id":"own","text":"b"}', headers).id == "own"
        found = decode_feedback(b'{"message_id":"m","label":"spam"}', headers)
        assert (found.message_id, found.label) == ("m", "spam")

    def test_structured(self) -> None:
        event = {"specversion": "1.0", "id": "e2", "source": "/a", "type": "message", "time": "2026-01-31T12:00:00Z"}
        assert decode_message(encode(event | {"data": {"text": "b"}})) == Message("e2", "b", self.TIME)
        assert decode_message(encode(event | {"data": "b"})) == Message("e2", "b", self.TIME)
        data = base64.b64encode(b'{"text":"b"}').decode()
        assert decode_message(encode(event | {"data_base64": data})) == Message("e2", "b", self.TIME)
        label = {"message_id": "m", "label": "spam", "weight": 2}
        assert decode_feedback(encode(event | {"data": label})) == Feedback(
            "m", "spam", "e2", weight=2.0, source="/a", ts=self.TIME
        )

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"specversion": "2.0", "data": "b"}, "wrong-type"),
            ({"data": 5}, "wrong-type"),
            ({"data": {"text": 5}}, "wrong-type"),
            ({"data": {}}, "missing-field"),
            ({"data_base64": "%%%"}, "wrong-type"),
            ({"id": "", "data": "b"}, "empty-field"),
        ],
    )
    def test_a_broken_event_says_why(self, change: dict[str, object], error: str) -> None:
        with pytest.raises(BadRecord) as raised:
            decode_message(encode({"specversion": "1.0", "id": "e", "source": "/", "type": "t"} | change))
        assert raised.value.error == error


OLD = [
    b'{"message_id":"m","op":"retract"}',
    b'{"message_id":"m","op":"retract","label":""}',
    b'{"specversion":"1.0","id":"e","subject":5,"data":{"label":"a"}}',
    b'{"specversion":"1.0","id":1.5,"subject":"m","data":{"label":"a"}}',
]


@pytest.mark.parametrize("n", [1, 40])
def test_a_replay_refuses_what_an_older_version_refused(n: int) -> None:
    found = decode_feedbacks(OLD * n, None, reading=LABELLED)
    assert all(isinstance(each, BadRecord) for each in found)
    assert all(isinstance(each, Feedback) for each in decode_feedbacks(OLD * n, None))
    event = b'{"specversion":"1.0","id":1.5,"data":"b"}'
    assert all(isinstance(each, BadRecord) for each in decode_messages([event] * n, None, reading=LABELLED))
    assert decode_messages([event] * n, None) == [Message("1.5", "b")] * n


def test_what_is_said_of_a_value_is_short() -> None:
    with pytest.raises(BadRecord) as raised:
        decode_feedback(b'{"message_id":"m","label":"a","op":"' + b"x" * 100_000 + b'"}')
    assert len(raised.value.detail) < MAX_DETAIL_CHARS + 10


@given(st.binary(max_size=1000))
def test_a_rejected_record_can_be_found_again(value: bytes) -> None:
    rejected = decode_rejected(encode(reject("messages", 3, 17, value, "not-json", "why")))
    assert (rejected.topic, rejected.partition, rejected.offset) == ("messages", 3, 17)
    assert rejected.value_sha256 == hashlib.sha256(value).hexdigest()
    assert rejected.value_start == value[:200].decode("utf-8", "replace")


def test_the_wire_format_is_what_the_pages_say() -> None:
    assert encode(Message("m1", "hello")) == b'{"id":"m1","text":"hello"}'
    assert encode(Feedback("m1", "spam")) == b'{"message_id":"m1","label":"spam"}'
    assert Topics.with_prefix("x.") == ("x.messages", "x.feedback", "x.predictions", "x.dead-letter")
    assert msgspec.json.decode(encode(reject("t", 0, 0, b"", "e", "d"))).keys() == {
        "topic",
        "partition",
        "offset",
        "error",
        "detail",
        "value_sha256",
        "value_start",
    }
