"""Files of labelled texts, read and sent: what is written is read, broken rows are counted, what is sent is kept."""

import base64
import csv
import gzip
import io
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.stream.errors import ConfigError, DriftlineError, LogUnavailable
from driftline.stream.files.reader import BadRow, Format, LabelledTexts, Row
from driftline.stream.files.send import MAX_RECORDS_IN_FLIGHT, send
from driftline.stream.log.base import Appended, Log, NewRecord, TopicState
from driftline.stream.wire.fielded import join, split
from driftline.stream.wire.names import same_name
from driftline.stream.wire.records import Topics, decode_feedback, decode_message
from driftline.stream.wire.vector import with_vector
from tests.data import ROOT

texts = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40
) | st.sampled_from(
    [
        '"',
        '""',
        "a,b",
        "a\tb",
        "a;b",
        "a\nb",
        "a\r\nb",
        "\r",
        " ",
        "\ufeff",
        "\x85",
        "\u2028",
        "'",
        "{}",
        "[",
        "\\",
        "\x1a",
    ]
)
labels = st.none() | texts
tables = st.lists(st.tuples(texts, labels), max_size=8)


def read(content: bytes, path: Path, **columns: str) -> tuple[list[Row], list[BadRow]]:
    path.write_bytes(content)
    bad: list[BadRow] = []
    with LabelledTexts(path, on_bad_row=bad.append, **columns) as file:
        rows = list(file)
        assert file.read_bytes == file.size_bytes == len(content)
    return rows, bad


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "rows"  # no suffix: formats are told by content


def as_csv(rows: list[tuple[str, str | None]], **dialect: str) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, **dialect)
    writer.writerow(["id", "Text", "label"])
    writer.writerows((number, text, label) for number, (text, label) in enumerate(rows))
    return file.getvalue().encode()


def as_json_lines(rows: list[tuple[str, str | None]]) -> bytes:
    lines = [
        json.dumps({"id": str(number), "Text": text, "label": label}, ensure_ascii=number % 2 == 0)
        for number, (text, label) in enumerate(rows)
    ]
    return "".join(line + "\n" for line in lines).encode()


def is_undecidable(row: tuple[str, str | None], dialect: dict[str, str]) -> bool:
    """Whether lines of one row look like rows themselves, with a quote that never closes."""
    delimiter = "\t" if dialect.get("dialect") == "excel-tab" else dialect.get("delimiter", ",")
    sizes = [len(line.split(delimiter)) for line in as_csv([row], **dialect).decode().split("\n")[1:]]
    return any(min(pair) >= 3 for pair in pairwise(sizes))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
@pytest.mark.parametrize("kind", ["csv", "csv-unix", "tsv", "semicolons", "json-lines"])
@given(table=tables)
def test_what_is_written_is_read(
    path: Path, kind: str, bom: bytes, packed: bool, table: list[tuple[str, str | None]]
) -> None:
    if kind == "json-lines":
        table = [*table, ("the last one", "x")]
        content = as_json_lines(table)
    else:
        dialect = {
            "csv": {},
            "csv-unix": {"dialect": "unix"},
            "tsv": {"dialect": "excel-tab"},
            "semicolons": {"delimiter": ";"},
        }
        table = [row for row in table if not is_undecidable(row, dialect[kind])]
        content = as_csv(table, **dialect[kind])
    content = bom + content
    rows, bad = read(gzip.compress(content) if packed else content, path)
    assert bad == []
    assert [(row.id, row.text, row.label) for row in rows] == [
        (str(number), text, (label and same_name(label)) or None) for number, (text, label) in enumerate(table)
    ]


@given(content=st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"text,label\n" + tail))
def test_no_bytes_break_it(path: Path, content: bytes) -> None:
    try:
        read(content, path)
    except DriftlineError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"Message,CLASS\nhi,a\n", ("hi", "a")),
        (b"title,body,target,category\nt,b,x,y\n", ("b", "y")),
        (b'{"body": "hi", "Category": 3}', ("hi", "3")),
        (b'{"text": "hi", "label": true}', ("hi", "true")),
        (b'{"text": "hi", "label": ""}', ("hi", None)),
        (b'\n\n{"text": "hi"}\n\n', ("hi", None)),
        (b"text\nhi\n", ("hi", None)),
        (b"text,text\nhi,no\n", ("hi", None)),
    ],
)
def test_columns_are_found_by_their_names(path: Path, content: bytes, expected: tuple[str, str | None]) -> None:
    rows, bad = read(content, path)
    assert bad == []
    assert [(row.text, row.label) for row in rows] == [expected]


def test_columns_can_be_named(path: Path) -> None:
    content = b"text,label,Subject,kind\na,b,c,d\n"
    assert read(content, path, text_column="subject", label_column="kind")[0] == [Row(None, "c", "d", 2)]


def fields_of(content: bytes, path: Path, *names: str) -> list[dict[str, Any]]:
    path.write_bytes(content)
    with LabelledTexts(path, form=Format(field_columns=names)) as file:
        return [split(row.text)[1] for row in file]


def test_columns_can_be_fields(path: Path) -> None:
    table = b"text,label,Sender,amount,zip\na,b,x@y.example,12.50,02134\nc,d,,-3e2,\n"
    expected = [{"sender": "x@y.example", "amount": 12.5, "zip": "02134"}, {"amount": -300}]
    assert fields_of(table, path, "sender", "amount", "zip") == expected
    lines = (
        b'{"text":"a","sender":"x","amount":12.5,"tags":["p","q"],"urgent":true,"zip":"1"}\n'
        b'{"text":"b","zip":null,"other":{}}\n'
    )
    expected = [{"sender": "x", "amount": 12.5, "tags": ["p", "q"], "urgent": True, "zip": "1"}, {}]
    assert fields_of(lines, path, "sender", "amount", "tags", "urgent", "zip") == expected


def test_a_field_that_is_none_costs_its_row_alone(path: Path) -> None:
    path.write_bytes(b'{"text":"a","f":{}}\n{"text":"b","f":1}\n{"text":"c","f":"' + b"x" * 3000 + b'"}\n')
    bad: list[BadRow] = []
    with LabelledTexts(path, on_bad_row=bad.append, form=Format(field_columns=("f",))) as file:
        assert [split(row.text) for row in file] == [("b", {"f": 1})]
    assert [(each.line, each.kind) for each in bad] == [(1, "with a wrong field"), (3, "with a wrong field")]
    assert "holds an object" in bad[0].why
    assert "at most 2048" in bad[1].why


def test_a_column_can_have_vectors(path: Path) -> None:
    vector = np.array([3.0, 4.0])
    singles = base64.b64encode(vector.astype("<f4").tobytes())
    table = b'text,label,V,a\nx,y,"[3, 4.0]",1\nx,y,' + singles + b",1\nx,y,,1\n"
    lines = b'{"text":"x","label":"y","V":[3,4],"a":1}\n{"text":"x","label":"y","V":"' + singles + b'","a":1}\n'
    lines += b'{"text":"x","label":"y","a":1}\n'
    whole, bare = with_vector(join("x", {"a": 1}), vector), join("x", {"a": 1})
    bad: list[BadRow] = []
    for content in (table, lines):
        path.write_bytes(content)
        with LabelledTexts(path, on_bad_row=bad.append, form=Format(field_columns=("a",), vector_column="v")) as file:
            assert [row.text for row in file] == [whole, whole, bare]
    assert not bad


def test_a_vector_that_is_none_costs_its_row_alone(path: Path) -> None:
    path.write_bytes(
        b'{"text":"a","v":[1,null]}\n{"text":"b","v":[1,2]}\n{"text":"c","v":{}}\n{"text":"d","v":"[1,x]"}\n'
        b'{"text":"e","v":[0,0]}\n{"text":"f","v":7}\n'
    )
    bad: list[BadRow] = []
    with LabelledTexts(path, on_bad_row=bad.append, form=Format(vector_column="v")) as file:
        assert [row.text for row in file] == [with_vector("b", np.array([1, 2]))]
    assert {each.kind for each in bad} == {"with a wrong vector"}
    assert [each.line for each in bad] == [1, 3, 4, 5, 6]
    assert "column 'v': vector[1] is no number" in bad[0].why
    assert "holds an object instead of a vector" in bad[1].why


@pytest.mark.parametrize(
    ("name", "said"), [("nothing", "no column 'nothing'.*--vector-column"), ("text", "be a vector")]
)
def test_a_vector_that_cannot_be_one_is_named(path: Path, name: str, said: str) -> None:
    path.write_bytes(b"text,label\na,b\n")
    with pytest.raises(ConfigError, match=said), LabelledTexts(path, form=Format(vector_column=name)) as file:
        list(file)


@pytest.mark.parametrize(("name", "said"), [("nothing", "no column 'nothing'"), ("text", "cannot be a field")])
def test_a_field_that_cannot_be_one_is_named(path: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fields_of(b"text,label\na,b\n", path, name)


def test_a_label_may_first_appear_late(path: Path) -> None:
    rows, _ = read(b'{"text":"a"}\n{"text":"b","label":"x"}', path)
    assert [row.label for row in rows] == [None, "x"]


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (b"subject,kind\na,b\n", {}, "no text column; the columns are 'subject', 'kind'; name one with --text-column"),
        (b"text,kind\na,b\n", {"label_column": "tag"}, "no column 'tag'; the columns are 'text', 'kind'"),
        (b'{"a": 1}', {}, "no text column; the columns are 'a'"),
        (b'{"text": "a"}', {"label_column": "tag"}, "no column 'tag'; the columns are 'text'"),
        (b"text\na\n", {"label_column": "text"}, "cannot be both"),
        (b"", {}, "is empty"),
        (b"\n \n", {}, "is empty"),
        (b"[{}]", {}, "no text column; the columns are none"),
        (b"a,b\nc,d\n", {}, "or say --no-header, if these are the first row"),
        (b"PK\x03\x04....", {}, "zip"),
        (b"%PDF-1.7\n", {}, "is a PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", {}, "old Office file, as .xls is; save it as CSV"),
        (b"<!DOCTYPE html>\n<html>", {}, "a web page"),
        (gzip.compress(b"%PDF-1.7\n"), {}, "is a PDF"),
        (b"text\na\n", {"label_column": "x"}, "no column 'x'"),
    ],
)
def test_what_cannot_be_read_says_why(path: Path, content: bytes, columns: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(content, path, **columns)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(ConfigError, match="gone: cannot be read: No such file"):
        LabelledTexts(path.with_name("gone"))


def test_bad_rows_are_counted_and_passed_over_in_json_lines(path: Path) -> None:
    lines = [
        b'{"text": "first"}',
        b"{",
        b"[1]",
        b'{"text": null}',
        b'{"text": 3}',
        b'{"text": "\\u0000"}',
        '{"text": "Gr\u00fc\u00dfe"}'.encode(),
        b'{"text": "\xff"}',
        b'{"text": "a", "label": ["b"]}',
        b'{"text": "a", "label": "' + b"x" * 257 + b'"}',
        b"[" * 100_000,
        b'{"text": "last"}',
    ]
    rows, bad = read(b"\n".join(lines), path)
    assert [(row.text, row.line) for row in rows] == [("first", 1), ("Gr\u00fc\u00dfe", 7), ("last", 12)]
    assert [row.line for row in bad] == [2, 3, 4, 5, 6, 8, 9, 10, 11]
    reasons = ["not JSON", "not an object", "no text", "a number", "NUL", "not UTF-8", "a list", "257", ""]
    for row, reason in zip(bad, reasons, strict=True):
        assert reason in row.why
        assert str(row).startswith(f"{path}, line {row.line}: ")


def test_bad_rows_are_counted_and_passed_over_in_csv(path: Path) -> None:
    lines = [
        b"text,label",
        b"one,x",
        b"a",
        b"a,b,c",
        b'"a"b,c',
        b",x",
        b"a\0,b",
        "\u00e9,b".encode(),
        b"\xff,b",
        b'"two\n2",y',
        b'"open',
        b"end,z",
    ]
    rows, bad = read(b"\n".join(lines) + b"\n", path)
    assert [(row.text, row.label, row.line) for row in rows] == [
        ("one", "x", 2),
        ('"a"b', "c", 5),
        ("\u00e9", "b", 8),
        ("two\n2", "y", 10),
        ("end", "z", 13),
    ]
    assert [row.line for row in bad] == [3, 4, 6, 7, 9, 12]
    assert [row.kind for row in bad] == [
        *["with another number of columns"] * 2,
        "without a text",
        "with a NUL character",
        "not UTF-8",
        "with another number of columns",
    ]


def test_a_text_may_be_large(path: Path) -> None:
    text = "x" * 1_000_000
    assert read(f'text,label\n"{text}",a\n'.encode(), path)[0] == [Row(None, text, "a", 2)]


def test_times_are_read(path: Path) -> None:
    content = b"text,ts\na,2026-01-31T12:00:00Z\nb,1769860800\nc,1769860800000\nd,yesterday\ne,\nf,nan\n"
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert [row.time for row in read(content, path)[0]] == [moment, moment, moment, None, None, None]


def test_a_damaged_gzip_stream_is_named(path: Path) -> None:
    path.write_bytes(gzip.compress(as_csv([("text", "a")] * 1000))[:-40])
    with LabelledTexts(path) as file, pytest.raises(DriftlineError, match="gzip stream is damaged"):
        list(file)


def test_memory_does_not_grow_with_the_file(path: Path) -> None:
    path.write_bytes(gzip.compress(as_json_lines([("word " * 200, "a")] * 20_000)))  # 20 MB
    with LabelledTexts(path) as file:
        tracemalloc.start()
        try:
            assert sum(1 for _ in file) == 20_000
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_standard_input(packed: bool) -> None:
    content = as_csv([("héllo", "a"), ("x", None)])
    script = "from driftline.stream.files.reader import *\n"
    script += "with LabelledTexts('-') as f: print([r[1:5] for r in f], f.name, f.size_bytes)"
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", script],
        input=gzip.compress(content) if packed else content,
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.decode().strip() == "[('héllo', 'a', 2, None), ('x', None, 3, None)] standard input None"


def test_standard_input_is_read_as_it_comes() -> None:
    script = "from driftline.stream.files.reader import *\nfor row in LabelledTexts('-'): print(row.text, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"text\nhello\n")
        assert process.stdout.readline() == b"hello\n"
        process.stdin.close()
        assert process.wait(timeout=60) == 0


TOPICS = Topics.with_prefix("")


class ListLog(Log):
    """Keeps what is appended in a list. An append becomes durable, or fails, when somebody waits for it."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.appended: list[tuple[str, NewRecord]] = []
        self.topics: set[str] = set()
        self.fail_at = fail_at
        self.appends = self.waiting = self.most_waiting = 0

    def create_topics(self, topics: Iterable[str]) -> None:
        self.topics.update(topics)

    def submit(self, topic: str, records: Sequence[NewRecord]) -> "Future[Sequence[Appended]]":
        assert topic in self.topics
        self.appended.extend((topic, record) for record in records)
        self.waiting += len(records)
        self.most_waiting = max(self.most_waiting, self.waiting)
        log, fails = self, self.appends == self.fail_at
        self.appends += 1

        class Lazy(Future[Sequence[Appended]]):
            def result(self, timeout: float | None = None) -> list[Appended]:
                del timeout
                log.waiting -= len(records)
                if fails:
                    raise LogUnavailable("the disk is full")
                return [Appended(0, 0)] * len(records)

        return Lazy()

    def describe(self, topics: Iterable[str]) -> dict[str, TopicState]:
        raise NotImplementedError

    def partition_count(self, topic: str) -> int:
        raise NotImplementedError

    watermarks = reader = commit = committed = erase = own = close = partition_count  # type: ignore[assignment]


def rows(n: int, *, ids: bool = True) -> list[Row]:
    return [Row(f"m{i}" if ids else None, f"text {i}", f"l{i % 3}" if i % 4 else None, i + 2) for i in range(n)]


def positions(log: ListLog) -> tuple[dict[str, int], dict[str, int]]:
    """Return at which message each message, and behind how many messages each label, was appended."""
    messages: dict[str, int] = {}
    labels: dict[str, int] = {}
    for topic, record in log.appended:
        assert record.key is not None
        if topic == TOPICS.messages:
            messages[record.key.decode()] = len(messages)
        else:
            labels[record.key.decode()] = len(messages) - 1
    return messages, labels


@pytest.mark.parametrize("delay", [0, 1, 3, 8, 100, 999, 5000])
def test_labels_follow_their_messages_by_the_delay(delay: int) -> None:
    log = ListLog()
    sent = send(log, TOPICS, rows(1000), delay)
    assert (sent.messages, sent.labels, sent.skipped) == (1000, 750, 0)
    messages, labels = positions(log)
    assert list(messages) == [f"m{i}" for i in range(1000)]
    assert len(labels) == 750
    for key, behind in labels.items():
        late = behind - messages[key]
        assert late >= delay or behind == 999  # the rest, at the end
        assert late <= delay + max(delay // 4, 1)


def test_records_are_as_the_learner_wants_them() -> None:
    log = ListLog()
    moment = datetime(2026, 1, 31, tzinfo=UTC)
    send(log, TOPICS, [Row("mé", "hi", "spam", 2, moment)])
    (_, first), (_, second) = log.appended
    message, feedback = decode_message(first.value or b""), decode_feedback(second.value or b"")
    assert (message.id, message.text, message.ts) == ("mé", "hi", moment)
    assert (feedback.message_id, feedback.label) == ("mé", "spam")
    assert first.key == second.key == "mé".encode()
    assert first.timestamp_ms is not None
    assert second.timestamp_ms is not None
    assert 1_700_000_000_000 < first.timestamp_ms <= second.timestamp_ms


def test_fields_are_sent_beside_their_text() -> None:
    log = ListLog()
    fields = {"amount": 12.5, "country": "NL", "tags": ["a", "b"]}
    send(log, TOPICS, [Row("m", join("hi", fields), "spam", 2)])
    value = log.appended[0][1].value or b""
    assert json.loads(value) == {"id": "m", "text": "hi", "fields": fields}
    assert decode_message(value).text == join("hi", fields)


def test_each_label_has_an_id_of_its_own_also_when_the_file_is_sent_again() -> None:
    """So that a record which gets into the log twice counts once, and a label that goes back counts."""
    log = ListLog()
    for _ in range(2):
        send(log, TOPICS, [*rows(20), *rows(20)], 2)
    ids = [decode_feedback(record.value or b"").id for topic, record in log.appended if topic == TOPICS.feedback]
    assert len(set(ids)) == len(ids) == 60


def test_rows_without_ids_get_unique_ones() -> None:
    logs = [ListLog(), ListLog()]
    for log in logs:
        send(log, TOPICS, rows(100, ids=False))
    keys = [record.key for log in logs for topic, record in log.appended if topic == TOPICS.messages]
    assert len(set(keys)) == 200


@pytest.mark.parametrize("fail_at", [0, 7, 100])
def test_an_append_that_fails_is_never_passed_over(fail_at: int) -> None:
    durable = [(0, 0)]
    with pytest.raises(LogUnavailable):
        send(ListLog(fail_at), TOPICS, rows(200), 4, on_durable=lambda *counts: durable.append(counts))
    assert sum(durable[-1]) <= 2 * fail_at


def test_what_is_in_flight_is_bounded() -> None:
    log = ListLog()
    assert send(log, TOPICS, rows(30_000), 1000).messages == 30_000
    assert log.most_waiting <= MAX_RECORDS_IN_FLIGHT + 1000
    assert log.waiting == 0
    log = ListLog()
    send(log, TOPICS, [Row(None, "x" * 1_000_000, None, i) for i in range(100)], max_record_bytes=1 << 21)
    assert log.most_waiting < 40


def test_rows_that_no_learner_could_read_are_skipped() -> None:
    skipped: list[tuple[int, str]] = []
    bad = [Row("", "a", None, 2), Row("x" * 513, "a", None, 3), Row("a", "b" * 2000, "l", 4), Row("a", "b\0", "l", 5)]
    sent = send(
        ListLog(), TOPICS, bad, max_record_bytes=1024, on_skipped=lambda row, why: skipped.append((row.line, why))
    )
    assert (sent.messages, sent.labels, sent.skipped) == (1, 0, 3)  # an empty id is none
    assert [line for line, _ in skipped] == [3, 4, 5]
    assert "max_record_bytes is 1024" in skipped[1][1]


def test_the_rate_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Sleeper()
    monkeypatch.setattr("driftline.stream.files.send.time", clock)
    sent = send(ListLog(), TOPICS, rows(60), 1000, rate=200.0)
    assert sent.seconds == pytest.approx(60 / 200.0)


class Sleeper:
    """Stands in for the module `time`: time passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("wrong", [{"label_delay": -1}, {"rate": 0.0}, {"rate": float("nan")}, {"rate": float("inf")}])
def test_options_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        send(ListLog(), TOPICS, [], **wrong)
