"""A vector travels behind its text and fields, as the same bits on every machine, and nothing else is taken for one."""

import base64
import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from driftline.stream.decode.batch import decode_batch
from driftline.stream.errors import BadRecord
from driftline.stream.log.base import Chunk, TopicPartition
from driftline.stream.log.merge import Batch
from driftline.stream.wire.fielded import is_of, join, split, text_of
from driftline.stream.wire.many import decode_feedbacks, decode_messages
from driftline.stream.wire.records import (
    LABELLED,
    UNFIELDED,
    UNVECTORED,
    Feedback,
    Message,
    decode_feedback,
    decode_message,
    encode_record,
)
from driftline.stream.wire.vector import (
    END,
    MAX_NUMBERS,
    digits_of,
    has_vector,
    numbers_of,
    read_vector,
    sent_again,
    size_of,
    vector_of,
    with_vector,
    with_vector_bytes,
    without_vector,
)
from tests.often import times
from tests.stream.wire.test_fielded import FIELDS, TEXT, there

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VECTOR = arrays.arrays(np.float64, st.integers(2, 40), elements=NUMBERS).filter(lambda vector: bool(vector.any()))


@settings(max_examples=times(1000, 200))
@given(TEXT, FIELDS, VECTOR, VECTOR)
@example("", {}, np.array([5e-324, 0.0]), np.array([1.7e308, -1.7e308]))
@example("a", {"v": "v", "w": ["v", ""]}, np.array([3.0, 4.0]), np.array([1.0, 0.0]))
def test_a_vector_comes_off_as_it_was_put_on(
    text: str, fields: dict[str, Any], vector: np.ndarray, other: np.ndarray
) -> None:
    bare = join(text, fields)
    whole = with_vector(bare, vector)
    found = vector_of(whole)
    assert found is not None
    numbers = [value / float(np.abs(vector).max()) for value in vector.tolist()]
    length = math.sqrt(math.fsum(value * value for value in numbers))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float64), [value / length for value in numbers], rtol=5e-4, atol=3e-8)
    assert with_vector_bytes(bare.encode(), vector) == whole.encode()
    assert whole == bare + (END if END not in bare else "") + END + whole.split(END)[-2] + END, "the place that is told"
    assert len(whole.split(END)[-2]) == digits_of(len(vector)) + 1
    # What the text says beside it is as it was.
    assert has_vector(whole)
    assert not has_vector(bare)
    assert (size_of(whole), size_of(bare), vector_of(bare)) == (len(vector), 0, None)
    assert without_vector(whole) == bare == without_vector(bare)
    assert split(whole) == (text, there(fields))
    assert text_of(whole) == text
    assert all(is_of(one, another) for one in (text, bare, whole) for another in (bare, whole))
    # Once it is read it is as it will be, whoever writes it again.
    assert with_vector(bare, found) == with_vector(bare, found.astype(np.float64)) == with_vector(whole, found) == whole
    assert with_vector(whole, other) == with_vector(bare, other)


@given(VECTOR)
def test_a_vector_is_sent_as_a_list_or_in_base64(vector: np.ndarray) -> None:
    assert read_vector(msgspec.Raw(json.dumps(vector.tolist()).encode())).tolist() == vector.tolist()
    with np.errstate(over="ignore"):
        singles = vector.astype("<f4")
    for encoded in (
        base64.b64encode(singles.tobytes()).decode(),
        base64.b64encode(singles.tobytes()).decode().strip("="),
    ):
        read = read_vector(msgspec.Raw(json.dumps(encoded).replace("/", "\\/").encode()))
        np.testing.assert_array_equal(read, singles.astype(np.float64))


def test_length_is_the_only_thing_that_is_lost() -> None:
    for scale in (1e-300, 1e-3, 1.0, 1000.0, 1e300):
        assert with_vector("a", np.array([3.0, -4.0]) * scale) == with_vector("a", np.array([0.6, -0.8]))
    assert with_vector("a", np.array([1, 2])) == with_vector("a", np.array([1.0, 2.0]))


@pytest.mark.parametrize("n", [2, 3, 16, 383, 384, MAX_NUMBERS])
def test_every_length_that_is_allowed(n: int) -> None:
    vector = np.random.default_rng(n).normal(size=n)
    whole = with_vector("text", vector)
    found = vector_of(whole)
    assert found is not None
    assert len(found) == size_of(whole) == n
    assert abs(float(np.linalg.norm(found.astype(np.float64))) - 1) < 1e-3
    assert len(whole) == 4 + 4 + digits_of(n)


@pytest.mark.parametrize(
    ("raw", "error", "said"),
    [
        (b"[]", "out-of-range", "vector has 0 numbers, it must have 2 to 2,048"),
        (b"[1]", "out-of-range", "vector has 1 numbers"),
        (b"[" + b"1," * 2048 + b"1]", "out-of-range", "vector has 2,049 numbers"),
        (b"[0, 0.0, -0.0]", "out-of-range", "3 numbers that are all 0"),
        (b"[1, 2, 1e999]", "out-of-range", "vector[2] is no number of 64 bits"),
        (b"[1, " + b"9" * 400 + b"]", "out-of-range", "vector[1] is no number of 64 bits"),
        (b'[1, "2"]', "wrong-type", "vector[1] is no number"),
        (b"[1, null]", "wrong-type", "vector[1] is no number"),
        (b"[true, 1]", "wrong-type", "vector[0] is no number"),
        (b"[[1, 2]]", "wrong-type", "vector[0] is no number"),
        (b'{"a": 1}', "wrong-type", "a list of numbers, or a string of base64"),
        (b"12", "wrong-type", "a list of numbers, or a string of base64"),
        (b'"a b"', "wrong-type", "no base64"),
        (b'"\xc3\xa9\xc3\xa9"', "wrong-type", "no base64"),
        (b'"AAAA"', "wrong-type", "3 bytes in base64"),
        (b'""', "out-of-range", "vector has 0 numbers"),
        (b'"AACAPwAAwH8"', "out-of-range", "vector[1] is not finite"),
        (b'"AACAPwAAgH8="', "out-of-range", "vector[1] is not finite"),
    ],
)
def test_what_is_no_vector_is_refused_with_the_reason(raw: bytes, error: str, said: str) -> None:
    with pytest.raises(BadRecord) as refused:
        with_vector("a", read_vector(msgspec.Raw(raw)))
    assert refused.value.error == error
    assert said in refused.value.detail
    assert "`$.vector`" in refused.value.detail


def test_numbers_of_python_are_told_from_what_is_none() -> None:
    assert numbers_of([1, 2.5, np.float32(0.5), np.int64(3)]).tolist() == [1, 2.5, 0.5, 3]
    for given_, place in (([1, True], 1), ([None, 1], 0), ([1, "2"], 1), ([10**400, 1], None)):
        with pytest.raises(BadRecord, match=f"vector\\[{place}\\]" if place is not None else "64 bits"):
            numbers_of(given_)


SENT = [3.0, -4.0, 0.5]


def message(**more: Any) -> bytes:
    return json.dumps({"id": "m", "text": "win"} | more).encode()


def test_records_have_it_in_their_text() -> None:
    vector = np.array(SENT)
    alone, fielded = with_vector("win", vector), with_vector(join("win", {"a": 1}), vector)
    singles = base64.b64encode(vector.astype("<f4").tobytes()).decode()
    for sent in (SENT, singles, singles.rstrip("=")):
        values = [message(vector=sent), message(vector=sent, fields={"a": 1}), message(fields={}), message(vector=None)]
        expected = [Message("m", text) for text in (alone, fielded, "win", "win")]
        assert [decode_message(value) for value in values] == expected
        for n in (1, 40):  # one by one, and in one call
            assert decode_messages(values * n, None) == expected * n
    event = {"specversion": "1.0", "id": "m", "source": "s", "type": "t", "data": {"text": "win", "vector": SENT}}
    assert decode_message(json.dumps(event).encode()) == Message("m", alone)
    label = json.dumps({"message_id": "m", "label": "spam", "text": "win", "vector": SENT}).encode()
    assert decode_feedback(label) == Feedback("m", "spam", text=alone)
    assert decode_feedbacks([label] * 40, None) == [Feedback("m", "spam", text=alone)] * 40
    loose = json.dumps({"id": 5, "text": "win", "ts": 1, "vector": SENT}).encode()  # not as we write it
    assert decode_message(loose).text == alone


def test_a_batch_of_both_kinds_keeps_them_apart() -> None:
    values = [message(), message(vector=SENT), b'{"id":"m","text":"win","vector":[1,"a"]}']
    zero = np.zeros(len(values), np.int64)
    chunk = Chunk(TopicPartition("messages", 0), np.arange(len(values)), zero, [b""] * len(values), values)
    found = decode_batch(Batch([chunk], np.arange(len(values)), []), lambda _: True, 1 << 20, 0)
    assert found.record(0) == Message("m", "win")
    assert found.record(1) == Message("m", with_vector("win", np.array(SENT)))
    assert isinstance(found.record(2), BadRecord)
    assert found.record(2).detail == "vector[1] is no number - at `$.vector`"


def test_a_vector_is_of_a_text() -> None:
    label = json.dumps({"message_id": "m", "label": "spam", "vector": SENT}).encode()
    for found in (*decode_feedbacks([label], None), decode_feedbacks([label] * 40, None)[7]):
        assert isinstance(found, BadRecord)
        assert (found.error, "a vector is of a text" in found.detail) == ("missing-field", True)


def test_what_was_learned_before_there_were_vectors_is_replayed_as_it_was() -> None:
    for vector in (SENT, [], "x", {"a": 1}, [0, 0]):
        for reading in (LABELLED, UNFIELDED, UNVECTORED):
            assert decode_messages([message(vector=vector)] * 40, None, reading=reading) == [Message("m", "win")] * 40
    fielded = message(vector=SENT, fields={"a": 1})
    assert decode_messages([fielded], None, reading=UNVECTORED) == [Message("m", join("win", {"a": 1}))]


@given(TEXT, FIELDS, VECTOR)
def test_a_record_is_sent_as_it_was_read(text: str, fields: dict[str, Any], vector: np.ndarray) -> None:
    whole = with_vector(join(text, fields), vector)
    for record in (Message("m", whole), Feedback("m", "a", text=whole)):
        value = encode_record(record)
        assert b"\\u0000" not in value
        assert (decode_message if isinstance(record, Message) else decode_feedback)(value) == record
    assert sent_again(text) is None
