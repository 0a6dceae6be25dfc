"""The same record by every way in: a value in the log, HTTP, the Python client, a file. What one takes all take."""

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import kafka as kafka_python
import numpy as np
import pytest
from cloudevents.core.bindings import http as ce_http
from cloudevents.core.bindings import kafka as ce_kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, structs

from driftline.api.calls import Label
from driftline.api.client import Client
from driftline.learner.explain.rows import MAX_REPEATS
from driftline.learner.foreign.adapter import MAX_REPEATS as MAX_REPEATS_OF_OTHERS
from driftline.stream.decode.batch import decode_batch
from driftline.stream.errors import BadRecord
from driftline.stream.files.reader import LabelledTexts
from driftline.stream.join.quota import OPEN
from driftline.stream.log.base import Chunk, TopicPartition
from driftline.stream.log.merge import Batch
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.surrogates import whole_characters
from driftline.stream.wire.fields import as_name, as_time, mend_escapes
from driftline.stream.wire.many import decode_feedbacks
from driftline.stream.wire.records import FULL_WEIGHT, Feedback, Message, decode_feedback, decode_message, encode
from tests.place import Place, read_all, running
from tests.waiting import wait_until

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
FORMAT = JSONFormat()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("wire"), partitions=1)


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    with running(place.stream) as url:
        yield url


def last(place: Place, topic: str) -> Any:
    """Return what a learner reads of the last record of a topic."""
    decode: Any = decode_message if topic == "messages" else decode_feedback
    record = read_all(place.stream, topic)[-1]
    return decode(record.value, record.headers)


def over_http(record: Message | Feedback) -> Message | Feedback:
    """Return what an API without keys makes of a record: anybody may write any name there."""
    if isinstance(record, Message) or record.source is None:
        return record
    return structs.replace(record, source=f"{OPEN}/{record.source}")


# Each beside the record that it is, over the wire and over HTTP alike.
MESSAGES: list[tuple[str, Message]] = [
    ('{"id": 17, "text": "a"}', Message("17", "a")),
    ('{"id": 17.0, "text": "a"}', Message("17", "a")),
    ('{"id": 18446744073709551615, "text": "a"}', Message("18446744073709551615", "a")),
    ('{"id": -0.5, "text": "a"}', Message("-0.5", "a")),
    ('{"id": "m", "text": "a", "ts": null, "metadata": null}', Message("m", "a")),
    ('{"id": "m", "text": "a", "ts": 1769860800}', Message("m", "a", NOON)),
    ('{"id": "m", "text": "a", "ts": 1769860800.5}', Message("m", "a", NOON + timedelta(seconds=0.5))),
    ('{"id": "m", "text": "a", "ts": 1769860800000}', Message("m", "a", NOON)),
    ('{"id": "m", "text": "a", "ts": 1769860800000000}', Message("m", "a", NOON)),
    ('{"id": "m", "text": "a", "ts": 1769860800000000000}', Message("m", "a", NOON)),
    ('{"id": "m", "text": "a", "ts": "1769860800"}', Message("m", "a", NOON)),
    ('{"id": "m", "text": "a", "ts": "2026-01-31"}', Message("m", "a", NOON - timedelta(hours=12))),
    ('{"id": "m", "text": "a", "ts": "20260131"}', Message("m", "a", NOON - timedelta(hours=12))),
    ('{"id": "m", "text": "a", "ts": "2026-01-31T12:00Z"}', Message("m", "a", NOON)),
    ('{"id": "m", "text": "a", "ts": "2026-01-31t12:00:00z"}', Message("m", "a", NOON)),
    ('{"id": "m", "text": "a", "ts": "2026-01-31 12:00"}', Message("m", "a", NOON)),
    ('{"id": "m", "text": "a", "ts": "2026-01-31T12:00:00"}', Message("m", "a", NOON)),
    ('{"id": "m", "text": "a", "ts": "2026-01-31T14:00+0200"}', Message("m", "a", NOON)),
    ('{"id": "m", "text": "a", "ts": "2026-01-31T17:30:00.000000001+05:30"}', Message("m", "a", NOON)),
    ('{"id": "m", "text": "cut \\ud83d here"}', Message("m", "cut \ufffd here")),
    ('{"id": "m", "text": "\\udc00\\ud800"}', Message("m", "\ufffd\ufffd")),
    ('{"id": "m", "text": "whole \\ud83d\\ude00 \\\\ud800"}', Message("m", "whole \U0001f600 \\ud800")),
    (
        '{"id": "m\\ud83d", "text": "a", "metadata": {"b": "\\ud83d"}}',
        Message("m\ufffd", "a", None, Raw(b'{"b": "\\ufffd"}')),
    ),
]
LABELS: list[tuple[str, Feedback]] = [
    ('{"id": "f", "message_id": "m", "label": "a", "weight": null, "op": null}', Feedback("m", "a", "f")),
    ('{"id": "f", "message_id": "m", "label": "a", "source": null, "text": null, "ts": null}', Feedback("m", "a", "f")),
    ('{"id": 1, "message_id": 2, "label": 3, "source": 4}', Feedback("2", "3", "1", source="4")),
    ('{"id": "f", "message_id": "m", "label": true}', Feedback("m", "true", "f")),
    ('{"id": "f", "message_id": "m", "label": 0}', Feedback("m", "0", "f")),
    ('{"id": "f", "message_id": "m", "label": 1e0, "weight": 2}', Feedback("m", "1", "f", weight=2.0)),
    ('{"id": "f", "message_id": "m", "label": 2.50}', Feedback("m", "2.5", "f")),
    ('{"id": "f", "message_id": "m", "label": "a\\ud800"}', Feedback("m", "a\ufffd", "f")),
    ('{"id": "f", "message_id": "m", "label": "a", "weight": 1000}', Feedback("m", "a", "f", weight=1000.0)),
    ('{"id": "f", "message_id": "m", "label": "a", "op": "retract"}', Feedback("m", "a", "f", "retract")),
    ('{"id": "f", "message_id": "m", "op": "retract"}', Feedback("m", "", "f", "retract")),
    ('{"id": "f", "message_id": 7, "op": "retract", "label": null}', Feedback("7", "", "f", "retract")),
    ('{"id": "f", "message_id": "m", "op": "retract", "text": "b"}', Feedback("m", "", "f", "retract", text="b")),
]
REFUSED = [
    ("messages", '{"id": "m", "text": 5}'),
    ("messages", '{"id": "m", "text": null}'),
    ("messages", '{"id": ["m"], "text": "a"}'),
    ("messages", '{"id": {}, "text": "a"}'),
    ("messages", '{"id": "", "text": "a"}'),
    ("messages", '{"id": "m", "text": "a\\u0000"}'),
    ("messages", '{"id": "m", "text": "a", "ts": "yesterday"}'),
    ("messages", '{"id": "m", "text": "a", "ts": "2026-02-30"}'),
    ("messages", '{"id": "m", "text": "a", "ts": "10000-01-01T00:00:00Z"}'),
    ("messages", '{"id": "m", "text": "a", "ts": ""}'),
    ("messages", '{"id": "m", "text": "a", "ts": 1e300}'),
    ("messages", '{"id": "m", "text": "a", "ts": -1e12}'),
    ("messages", '{"id": "m", "text": "a", "ts": true}'),
    ("messages", '{"id": "m", "text": "a", "ts": [2026]}'),
    ("feedback", '{"message_id": "m", "label": null}'),
    ("feedback", '{"message_id": "m", "op": "upsert"}'),
    ("feedback", '{"message_id": "m", "op": null, "label": null}'),
    ("feedback", '{"op": "retract"}'),
    ("feedback", '{"message_id": null, "label": "a"}'),
    ("feedback", '{"message_id": "m", "label": ["a"]}'),
    ("feedback", '{"message_id": "m", "label": "a", "weight": 0}'),
    ("feedback", '{"message_id": "m", "label": "a", "weight": "2"}'),
    ("feedback", '{"message_id": "m", "label": "a", "weight": true}'),
    ("feedback", '{"message_id": "m", "label": "a", "op": ""}'),
    ("feedback", '{"message_id": "m", "label": "a", "id": ""}'),
]


@pytest.mark.parametrize(("value", "record"), [*MESSAGES, *LABELS])
def test_a_record_is_the_same_in_the_log_and_over_http(
    url: str, place: Place, value: str, record: Message | Feedback
) -> None:
    decode: Any = decode_message if isinstance(record, Message) else decode_feedback
    topic = "messages" if isinstance(record, Message) else "feedback"
    assert decode(value.encode()) == record
    answer = httpx.post(f"{url}/{topic}", content=value, timeout=30)
    assert answer.status_code == 202, answer.text
    assert answer.json()["id"] == record.id
    assert last(place, topic) == over_http(record)
    many = httpx.post(f"{url}/{topic}", content=f"[{value}]", timeout=30)
    assert many.status_code == 202, many.text
    assert last(place, topic) == over_http(record)


def test_a_weight_that_does_not_count_whole_says_so(url: str) -> None:
    label = {"message_id": "m", "label": "a", "weight": 64}
    assert "note" not in httpx.post(f"{url}/feedback", json=label, timeout=30).json()
    answer = httpx.post(f"{url}/feedback", json=[label, label | {"weight": 64.5}], timeout=30).json()
    assert [each.get("note") for each in answer["appended"]] == [None, "a weight above 64 counts as 64"]
    assert FULL_WEIGHT == MAX_REPEATS == MAX_REPEATS_OF_OTHERS


@pytest.mark.parametrize(("topic", "value"), REFUSED)
def test_a_record_that_is_none_is_none_in_the_log_and_over_http(url: str, topic: str, value: str) -> None:
    decode: Any = decode_message if topic == "messages" else decode_feedback
    with pytest.raises(BadRecord) as raised:
        decode(value.encode())
    assert raised.value.detail
    answer = httpx.post(f"{url}/{topic}", content=value, timeout=30)
    assert answer.status_code == 422, answer.text


def test_many_odd_values_are_read_as_one_by_one() -> None:
    values = [value.encode() for value, _ in LABELS] * 40
    assert decode_feedbacks(values, None) == [record for _, record in LABELS] * 40


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_half_a_character_stops_no_question(tmp_path: Path, path: str) -> None:
    there = Place(tmp_path)
    there.publish()
    with running(there.stream) as url:
        answer = httpx.post(url + path, content='{"text": "prize \\ud83d"}', timeout=30)
        assert answer.status_code == 200, answer.text


def test_the_client_sends_what_a_producer_may(url: str, place: Place) -> None:
    with Client(url) as client:
        assert client.send("half \ud83d", id=5).id == "5"
        assert last(place, "messages") == Message("5", "half \ufffd")
        client.send("two halves \ud83d\ude00", id="p", metadata={"\ud800": ["\udfff", 1]})
        assert last(place, "messages") == Message(
            "p", "two halves \U0001f600", None, Raw('{"\ufffd":["\ufffd",1]}'.encode())
        )
        client.label(5, 1, id=7)
        assert last(place, "feedback") == Feedback("5", "1", "7")
        client.label_many([Label("m", "a", ts=datetime(2026, 1, 31, 12), id="t")])
        assert last(place, "feedback").ts == NOON


def test_a_file_has_the_same_names_and_times(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [{"id": 17.0, "text": "a", "label": 1, "ts": "2026-01-31T12:00Z"}, {"id": True, "text": "b", "label": 1.0}]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"id": null, "text": "c\\ud800", "label": null, "ts": ""}\n')
    with LabelledTexts(path) as file:
        rows = [(row.id, row.text, row.label, row.time) for row in file]
    assert rows == [("17", "a", "1", NOON), ("true", "b", "1", None), (None, "c\ufffd", None, None)]


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(1 << 70), 1 << 70))
def test_a_number_s_name_is_the_number(number: float) -> None:
    assert type(number)(as_name(number)) == number
    if abs(number) < 2**53 and float(number).is_integer():
        assert as_name(float(number)) == as_name(int(number)) == str(int(number))


@given(st.datetimes(min_value=datetime(1970, 4, 27), max_value=datetime(5000, 1, 1), timezones=st.just(UTC)))
def test_an_epoch_is_told_by_its_size(time: datetime) -> None:
    seconds = round(time.timestamp())
    expected = datetime.fromtimestamp(seconds, UTC)
    for scale in (1, 1000, 10**6, 10**9):
        if seconds * scale >= {1: 0, 1000: 1e11, 10**6: 1e14, 10**9: 1e17}[scale]:
            assert abs(as_time(seconds * scale) - expected) < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59+00:00"),
        ("2016-12-31t23:59:60.5+01:00", "2016-12-31T23:59:59.500000+01:00"),
        ("2026-01-31T24:00", "2026-02-01T00:00:00+00:00"),
        ("20261231T240000Z", "2027-01-01T00:00:00+00:00"),
    ],
)
def test_what_iso_8601_has_and_python_has_not(given: str, meant: str) -> None:
    assert as_time(given).isoformat() == meant


@pytest.mark.parametrize("odd", ["2026-01-31T12:00:60Z", "2026-01-31T24:01", "9999-12-31T24:00Z", "٢٠٢٦"])
def test_what_is_no_time_in_any_version_of_python(odd: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        as_time(odd)


@given(st.text(), st.text(st.sampled_from('\\u0dD8fFaA"x\n')))
def test_only_halves_are_mended(text: str, odd: str) -> None:
    whole = json.dumps(text).encode()
    if text == whole_characters(text):
        assert mend_escapes(whole) == whole
    assert json.loads(mend_escapes(whole)) == whole_characters(text)
    mend_escapes(odd.encode())  # whatever it is


class TestCloudEvents:
    """Events as the official SDK writes them, in each mode, over Kafka's headers and over HTTP."""

    @staticmethod
    def event(data: Any, content_type: str | None = None, **more: Any) -> CloudEvent:
        attributes = {"specversion": "1.0", "id": "e 1\u20ac", "source": "/who", "type": "a.b", "time": NOON} | more
        return CloudEvent(attributes | ({"datacontenttype": content_type} if content_type else {}), data)

    @staticmethod
    def kafka(event: CloudEvent, mode: str) -> tuple[bytes, list[tuple[str, bytes]]]:
        message = (ce_kafka.to_binary if mode == "binary" else ce_kafka.to_structured)(event, FORMAT)
        value = message.value if isinstance(message.value, bytes) else str(message.value).encode()
        headers = [
            (name, each if isinstance(each, bytes) else str(each).encode()) for name, each in message.headers.items()
        ]
        return value, headers

    @staticmethod
    def post(url: str, topic: str, event: CloudEvent, mode: str) -> httpx.Response:
        message = (ce_http.to_binary if mode == "binary" else ce_http.to_structured)(event, FORMAT)
        return httpx.post(f"{url}/{topic}", content=message.body, headers=message.headers, timeout=30)

    @pytest.mark.parametrize("mode", ["binary", "structured"])
    @pytest.mark.parametrize(
        ("data", "content_type", "text"),
        [
            ({"text": 'say "hi"\n'}, "application/json", 'say "hi"\n'),
            ({"text": "b", "id": None}, None, "b"),
            ('{"text": "a text that looks like JSON"}', "text/plain", '{"text": "a text that looks like JSON"}'),
            ('"quoted" \\n', "text/plain; charset=utf-8", '"quoted" \\n'),
            ("Gr\u00fc\u00dfe", "text/plain", "Gr\u00fc\u00dfe"),
            ("<b>x</b>", "application/xml", "<b>x</b>"),
            ({"text": "b"}, "application/vnd.acme+json", "b"),
        ],
    )
    def test_messages(self, url: str, place: Place, mode: str, data: Any, content_type: str | None, text: str) -> None:
        event, expected = self.event(data, content_type), Message("e 1\u20ac", text, NOON)
        assert decode_message(*self.kafka(event, mode)) == expected
        answer = self.post(url, "messages", event, mode)
        assert (answer.status_code, answer.json().get("id")) == (202, "e 1\u20ac"), answer.text
        assert last(place, "messages") == expected

    @pytest.mark.parametrize("mode", ["binary", "structured"])
    @pytest.mark.parametrize(
        ("data", "content_type", "expected"),
        [
            ({"message_id": "m", "label": "spam"}, "application/json", Feedback("m", "spam", "e 1\u20ac")),
            ({"message_id": "m", "label": 1, "weight": None}, "application/json", Feedback("m", "1", "e 1\u20ac")),
            ({"message_id": "m", "label": "x", "id": "own"}, "application/json", Feedback("m", "x", "own")),
            ({"label": "spam"}, "application/json", Feedback("its subject", "spam", "e 1\u20ac")),
            ("spam", "text/plain", Feedback("its subject", "spam", "e 1\u20ac")),
            ({"op": "retract"}, "application/json", Feedback("its subject", "", "e 1\u20ac", "retract")),
        ],
    )
    def test_labels(self, url: str, place: Place, mode: str, data: Any, content_type: str, expected: Feedback) -> None:
        event = self.event(data, content_type, subject="its subject")
        expected = decode_feedback(encode(expected)[:-1] + b',"source":"/who","ts":"2026-01-31T12:00:00Z"}')
        assert decode_feedback(*self.kafka(event, mode)) == expected
        assert self.post(url, "feedback", event, mode).status_code == 202
        assert last(place, "feedback") == over_http(expected)

    def test_bytes_are_read_in_their_charset(self) -> None:
        for charset in ("iso-8859-1", "utf-16", "windows-1251"):
            text = "\u041f\u0440\u0438\u0432\u0435\u0442" if charset == "windows-1251" else "caf\u00e9"
            event = self.event(text.encode(charset), f"text/plain; charset={charset}")
            assert decode_message(*self.kafka(event, "structured")).text == text  # data_base64
            value = text.encode(charset)
            headers = self.kafka(self.event("x", f"text/plain; charset={charset}"), "binary")[1]
            assert decode_message(value, headers).text == text

    def test_a_batch(self, url: str, place: Place) -> None:
        def post(content: Any) -> httpx.Response:
            head = {"content-type": "application/cloudevents-batch+json; charset=UTF-8"}
            return httpx.post(f"{url}/messages", content=json.dumps(content), headers=head, timeout=30)

        events = [json.loads(FORMAT.write(self.event(f"text {n}", "text/plain", id=f"b{n}"))) for n in range(3)]
        assert [each["id"] for each in post(events).json()["appended"]] == ["b0", "b1", "b2"]
        assert last(place, "messages") == Message("b2", "text 2", NOON)
        assert (post([]).status_code, post([]).json()) == (202, {"appended": []})
        before = len(read_all(place.stream, "messages"))
        refused = post([*events, {"id": "b3"}])
        assert refused.status_code == 422
        assert "$[3]" in refused.json()["error"]
        assert post(events[0]).status_code == 422, "one event is no batch"
        assert len(read_all(place.stream, "messages")) == before

    def test_what_wins(self, url: str, place: Place) -> None:
        """The content type over headers; headers over what the value would be alone; data over attributes."""
        value = b'{"id":"own","text":"b","ts":"2026-01-01T00:00:00Z"}'
        binary = [("ce_specversion", b"1.0"), ("ce_id", b"e"), ("ce_time", b"2026-01-31T12:00:00Z")]
        assert decode_message(value, [*binary, ("content-type", b"text/plain")]) == Message("e", value.decode(), NOON)
        found = decode_message(value, [*binary, ("content-type", b"application/json")])
        assert (found.id, found.ts) == ("own", datetime(2026, 1, 1, tzinfo=UTC))
        structured = {"specversion": "1.0", "id": "s", "source": "/", "type": "t", "text": "an extension", "data": "b"}
        value = json.dumps(structured).encode()
        assert decode_message(value) == Message("s", "b")
        headers = [*binary, ("Content-Type", b"Application/CloudEvents+json; charset=UTF-8")]
        assert decode_message(value, headers) == Message("s", "b")
        found = decode_message(value, [*binary, ("content-type", b"text/plain")])
        assert found == Message("e", value.decode(), NOON)
        assert httpx.post(f"{url}/messages", content=value, timeout=30).json()["id"] == "s"
        assert last(place, "messages") == Message("s", "b")

    def test_a_number_is_a_name_in_an_attribute_too(self, url: str, place: Place) -> None:
        event = {"specversion": "1.0", "id": 1.0, "source": 2, "subject": 3e0, "type": "t", "data": {"label": 4}}
        value, expected = json.dumps(event).encode(), Feedback("3", "4", "1", source="2")
        assert decode_feedback(value) == expected
        assert httpx.post(f"{url}/feedback", content=value, timeout=30).json()["message_id"] == "3"
        assert last(place, "feedback") == over_http(expected)

    def test_null_is_no_attribute(self) -> None:
        event = {"specversion": "1.0", "id": "s", "time": None, "subject": None, "datacontenttype": None, "data": "b"}
        assert decode_message(json.dumps(event).encode()) == Message("s", "b")

    def test_a_record_that_speaks_of_a_version_is_no_event(self) -> None:
        value = b'{"id":"m","text":"a","specversion":"1.0"}'
        assert decode_message(value) == Message("m", "a")
        assert decode_message(b'{"id":"m","text":"a","metadata":{"specversion":"9"}}').text == "a"

    def test_quoted_and_escaped_headers(self, url: str) -> None:
        head = {"ce-specversion": "1.0", "ce-id": '"a \\"b\\" %E2%82%AC"', "content-type": "text/plain"}
        assert httpx.post(f"{url}/messages", content="x", headers=head, timeout=30).json()["id"] == 'a "b" \u20ac'
        answer = httpx.post(f"{url}/messages", content="x", headers=head | {"ce-id": "%C0%A0"}, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (422, "not-utf8")

    @pytest.mark.parametrize(
        ("change", "headers", "error"),
        [
            ({"specversion": "0.3"}, None, "wrong-type"),
            ({"specversion": "1.1"}, None, "wrong-type"),
            ({"datacontenttype": "text/plain", "data": {"text": "b"}}, None, "wrong-type"),
            ({"datacontenttype": "text/plain", "data": 5}, None, "wrong-type"),
            ({"datacontenttype": "text/plain", "data": None}, None, "wrong-type"),
            ({"data": None}, None, "wrong-type"),
            ({"data": ["b"]}, None, "wrong-type"),
            ({"data_base64": "%%%"}, None, "wrong-type"),
            ({"data": "b", "data_base64": base64.b64encode(b'"b"').decode()}, None, "wrong-type"),
            ({"time": "noon"}, None, "wrong-type"),
            ({"id": None}, "application/cloudevents+json", "missing-field"),
            ({"specversion": None}, "application/cloudevents+json", "missing-field"),
            ({}, "application/cloudevents+avro", "wrong-type"),
            ({}, "application/cloudevents-batch+json", "wrong-type"),
            ({}, "application/cloudevents+json; charset=no-such", "wrong-type"),
        ],
    )
    def test_what_is_no_event_says_why(self, change: dict[str, Any], headers: str | None, error: str) -> None:
        event = {"specversion": "1.0", "id": "e", "source": "/", "type": "t", "data": "b"} | change
        with pytest.raises(BadRecord) as raised:
            decode_message(json.dumps(event).encode(), headers and [("content-type", headers.encode())])
        assert raised.value.error == error
        assert raised.value.detail


def test_events_come_through_kafka(kafka: str, tmp_path: Path) -> None:
    """Two modes beside plain records in one topic, of the SDK and a foreign client, read as the learner does."""
    stream = StreamSettings(data=tmp_path / "data", log=f"kafka://{kafka}", prefix=f"{uuid4().hex}.")
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        event = TestCloudEvents.event('{"text": "as it is"}', "text/plain", id="e")
        producer = kafka_python.KafkaProducer(bootstrap_servers=kafka, acks="all")
        for mode in ("binary", "structured"):
            value, headers = TestCloudEvents.kafka(event, mode)
            producer.send(stream.topics.messages, value, b"e", headers, partition=0)
            producer.send(stream.topics.messages, b'{"id":"plain","text":"a"}', b"plain", partition=0)
        producer.flush()
        producer.close()
        partition = TopicPartition(stream.topics.messages, 0)
        with closing(log.reader({partition: 0})) as reader:
            records: list[Any] = []

            def are_there() -> bool:
                records.extend(reader.read(100, 0.5))
                return len(records) == 4

            wait_until(are_there, 120, "four records")
    n = len(records)
    values, headers_of = [each.value for each in records], [each.headers for each in records]
    chunk = Chunk(partition, np.arange(n), np.zeros(n, np.int64), [None] * n, values, headers_of)
    decoded = decode_batch(Batch([chunk], np.arange(n), []), lambda _: True, 1 << 20, 0)
    found = Message("e", '{"text": "as it is"}', NOON)
    assert [decoded.record(place) for place in range(n)] == [found, Message("plain", "a")] * 2
