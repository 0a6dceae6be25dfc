"""A text and its fields are one string, and come apart again as they were: what is the same is the same string."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftline.stream.decode.batch import decode_batch
from driftline.stream.errors import BadRecord
from driftline.stream.log.base import Chunk, TopicPartition
from driftline.stream.log.merge import Batch
from driftline.stream.wire.fielded import (
    END,
    MAX_FIELDS,
    MAX_ITEMS,
    MAX_NAME_CHARS,
    MAX_VALUE_CHARS,
    is_of,
    join,
    shortened,
    split,
    text_of,
)
from driftline.stream.wire.many import decode_feedbacks, decode_messages
from driftline.stream.wire.records import (
    LABELLED,
    UNFIELDED,
    Feedback,
    Message,
    decode_feedback,
    decode_message,
    encode_record,
)
from tests.often import times

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAME = TEXT.filter(bool)
NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
VALUE = TEXT | NUMBER | st.booleans() | st.none() | st.lists(TEXT, max_size=4)
FIELDS = st.dictionaries(NAME, VALUE, max_size=5)


def there(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are there."""
    return {name: value for name, value in fields.items() if value is not None and value != []}


@settings(max_examples=times(1000, 200))
@given(TEXT, FIELDS)
@example("", {"a": ""})
@example("a", {"a": "s", "b": 0.0, "c": False, "d": [""]})
def test_a_text_and_its_fields_come_apart_as_they_were(text: str, fields: dict[str, Any]) -> None:
    whole = join(text, fields)
    found, back = split(whole)
    assert (found, back) == (text, there(fields))
    assert {name: isinstance(value, bool) for name, value in back.items()} == {
        name: isinstance(value, bool) for name, value in there(fields).items()
    }
    assert text_of(whole) == text
    assert (whole[-1:] == END) == bool(there(fields)), "a text has fields if and only if it ends with END"
    assert is_of(text, whole)
    assert is_of(whole, whole)
    assert join(text, dict(reversed(fields.items()))) == whole
    assert list(back) == sorted(back)


def test_what_is_the_same_is_the_same_string() -> None:
    assert join("a", {"n": 1}) == join("a", {"n": 1.0}) == join("a", {"n": 1e0, "none": None, "empty": []})
    assert join("a", {"n": 0.0}) == join("a", {"n": -0.0})
    different = [{"n": 1}, {"n": True}, {"n": "1"}, {"n": ["1"]}, {"m": 1}, {"n": "true"}, {}, {"n": "1", "m": "1"}]
    assert len({join("a", fields) for fields in different}) == len(different)
    assert join("a", {"n": [1, True, "x"]}) == join("a", {"n": ["1", "true", "x"]})
    assert join("a", {"n": float("nan")}) == join("a", {}) == join("a", None) == "a"
    assert split(join("a", {"n": 2**60}))[1] == {"n": float(2**60)}


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"": "a"}, "empty-field", "no name"),
        ({"a" * (MAX_NAME_CHARS + 1): 1}, "too-large", f"at most {MAX_NAME_CHARS} "),
        ({"a": "b" * (MAX_VALUE_CHARS + 1)}, "too-large", f"fields.a has {MAX_VALUE_CHARS + 1} characters"),
        ({"a": ["b" * MAX_VALUE_CHARS, "c"]}, "too-large", "fields.a has"),
        ({"a": ["b"] * (MAX_ITEMS + 1)}, "too-large", f"at most {MAX_ITEMS} "),
        ({str(i): i for i in range(MAX_FIELDS + 1)}, "too-large", f"fields has {MAX_FIELDS + 1} of them"),
        ({"a": {"b": 1}}, "wrong-type", "fields.a must be a string, a number"),
        ({"a": [["b"]]}, "wrong-type", "a list is in it"),
        ({"a": [{}]}, "wrong-type", "an object is in it"),
        ({"a": "b\0"}, "forbidden-character", "fields.a contains a NUL"),
        ({"a": ["\0"]}, "forbidden-character", "fields.a contains a NUL"),
        ({"a\0": "b"}, "forbidden-character", "name contains a NUL"),
        ({"a": 10**400}, "out-of-range", "no number of 64 bits"),
    ],
)
def test_what_is_no_field_is_refused_and_says_so(fields: dict[str, Any], error: str, said: str) -> None:
    message = {"id": "m", "text": "t", "fields": fields}
    with pytest.raises(BadRecord) as refused:
        join("t", fields)
    assert refused.value.error == error
    assert said in refused.value.detail
    value = json.dumps(message).encode()
    for each in decode_messages([value] * 20 + [b'{"id":"m","text":"t"}'] * 20, None)[:20]:
        assert isinstance(each, BadRecord)
        if error != "out-of-range":  # the decoder says that in its own words
            assert (each.error, each.detail) == (refused.value.error, refused.value.detail)


@pytest.mark.parametrize("fields", [b"[]", b'"a"', b"5", b"true"])
def test_fields_are_an_object(fields: bytes) -> None:
    with pytest.raises(BadRecord, match=r"fields must be an object - at `\$\.fields`"):
        decode_message(b'{"id":"m","text":"t","fields":' + fields + b"}")


def test_what_is_full_is_taken() -> None:
    fields = {f"{i}" + "n" * (MAX_NAME_CHARS - 2): "v" * MAX_VALUE_CHARS for i in range(10, 10 + MAX_FIELDS)}
    assert split(join("t", fields)) == ("t", fields)
    assert shortened(fields, 3) == dict.fromkeys(fields, "vvv")


# In records.


def message(**parts: Any) -> bytes:
    return json.dumps({"id": "m", "text": "win a prize"} | parts).encode()


FIELDED = {"sender": "a@b.example", "amount": 12.5, "urgent": True, "tags": ["x", "y"], "none": None}


def test_a_record_has_its_fields_in_its_text() -> None:
    whole = join("win a prize", FIELDED)
    assert decode_message(message(fields=FIELDED)) == Message("m", whole)
    assert decode_messages([message(fields=FIELDED)] * 40, None) == [Message("m", whole)] * 40
    label = json.dumps({"message_id": "m", "label": "spam", "text": "win a prize", "fields": FIELDED}).encode()
    assert decode_feedback(label) == Feedback("m", "spam", text=whole)
    assert decode_feedbacks([label] * 40, None) == [Feedback("m", "spam", text=whole)] * 40
    for nothing in ({}, None, {"a": None}):
        assert decode_message(message(fields=nothing)) == Message("m", "win a prize")


def test_a_batch_has_them_too() -> None:
    values = [message(), message(fields=FIELDED), message(id=5, fields={"a": 1})]
    chunk = Chunk(TopicPartition("messages", 0), np.arange(3), np.arange(3), [b""] * 3, values)
    found = decode_batch(Batch([chunk], np.arange(3), []), lambda _: True, 1 << 20, 1 << 40)
    assert [found.record(place) for place in range(3)] == [
        Message("m", "win a prize"),
        Message("m", join("win a prize", FIELDED)),
        Message("5", join("win a prize", {"a": 1})),
    ]


def test_half_a_character_is_one_that_every_encoding_can_write() -> None:
    found = decode_message(b'{"id":"m","text":"t","fields":{"\\ud800":"a\\udfff","b":"\\ud83d\\ude00"}}')
    assert split(found.text) == ("t", {"\ufffd": "a\ufffd", "b": "\U0001f600"})


def test_a_cloudevent_has_them() -> None:
    event = {"specversion": "1.0", "id": "m", "source": "s", "type": "t"}
    value = json.dumps(event | {"data": {"text": "t", "fields": {"a": 1}}}).encode()
    assert decode_message(value) == Message("m", join("t", {"a": 1}))


def test_fields_are_of_a_text() -> None:
    label = json.dumps({"message_id": "m", "label": "spam", "fields": {"a": 1}}).encode()
    for found in (*decode_feedbacks([label], None), decode_feedbacks([label] * 40, None)[7]):
        assert isinstance(found, BadRecord)
        assert found.error == "missing-field"
        assert "fields are of a text" in found.detail


def test_what_was_learned_before_there_were_fields_is_replayed_as_it_was() -> None:
    for fields in (FIELDED, [1], {"a": {}}, "x"):
        for reading in (LABELLED, UNFIELDED):
            values = [message(fields=fields)] * 40
            assert decode_messages(values[:1], None, reading=reading) == [Message("m", "win a prize")]
            assert decode_messages(values, None, reading=reading) == [Message("m", "win a prize")] * 40
    label = json.dumps({"message_id": "m", "label": "spam", "fields": FIELDED}).encode()
    assert decode_feedbacks([label], None, reading=UNFIELDED) == [Feedback("m", "spam")]
    assert decode_feedbacks([label], None, as_written=True) == [Feedback("m", "spam")]


@given(TEXT, FIELDS)
def test_a_record_is_sent_as_it_was_read(text: str, fields: dict[str, Any]) -> None:
    for record in (Message("m", join(text, fields)), Feedback("m", "a", text=join(text, fields)), Feedback("m", "a")):
        value = encode_record(record)
        assert b"\\u0000" not in value
        assert (decode_message if isinstance(record, Message) else decode_feedback)(value) == record
