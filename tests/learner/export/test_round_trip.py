"""Export, wipe, send the export: is it the same?

By the command line, a real learner and a real log. Of records: the same counts, the same accuracy as served, the same
model to the last byte. Of rows, in every format: the same messages, fields, labels, sources, weights and notes.
"""

import csv
import gzip
import io
import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from driftline.cli.main import app
from driftline.learner.catalogue.keeping import Keeper
from driftline.learner.catalogue.search import Filters, Listed, Search
from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.report.status import read_status
from driftline.stream.files.exported import COLUMNS, as_it_was, harmless
from driftline.stream.log.base import NewRecord, TopicPartition
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.fielded import join
from driftline.stream.wire.note import Noted
from driftline.stream.wire.records import Feedback, Message, encode_record

START_MS = 1_700_000_000_000
WORDS = {"spam": ["prize", "winner", "cash"], "ham": ["lunch", "home", "later"], "news": ["today", "report", "said"]}


def run(*arguments: object, given: bytes | None = None) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments], input=given)


def message_of(number: int, label: str, rng: random.Random) -> Message:
    text = " ".join(
        [
            *rng.choices(WORDS[label], k=3),
            *rng.choices([word for own in WORDS.values() for word in own], k=3),
            str(number),
        ]
    )
    fields = {"country": rng.choice(["NL", "BE"]), "amount": number} if number % 3 == 0 else {}
    return Message(f"m{number}", join(text, fields))


def fill(stream: StreamSettings, n: int = 400) -> None:
    """Append messages; labels late, some early, some corrected, some taken back, some that bring their own text."""
    rng = random.Random(7)
    due: list[tuple[int, Feedback]] = []
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)

        def put(topic: str, key: str, value: bytes, at_ms: int) -> None:
            log.append(topic, [NewRecord(key.encode(), value, at_ms)])

        for number in range(n):
            at_ms = START_MS + number * 1000
            label = rng.choice(list(WORDS))
            message = message_of(number, label, rng)
            if number % 29 == 0:
                early = Feedback(message.id, label, id=f"early-{number}")
                put("feedback", message.id, encode_record(early), at_ms - 500)
            put("messages", message.id, encode_record(message), at_ms)
            if number % 31 == 0:
                put("messages", message.id, encode_record(message), at_ms + 1)
                put("messages", message.id, b"{no message", at_ms + 2)
            if number % 2:
                said = Noted(message.id, label, id=f"f{number}", source="alice", weight=1.5, note="seen")
                due.append((number + rng.randrange(1, 60), said))
            if number % 10 == 1:
                due.append((number + 65, Noted(message.id, rng.choice(list(WORDS)), id=f"c{number}", source="bob")))
            if number % 20 == 3:
                due.append((number + 70, Feedback(message.id, "", op="retract")))
            if number % 50 == 7:
                due.append((number, Feedback(f"own{number}", label, text=f"brought {label} {number}")))
            for when, feedback in [each for each in due if each[0] <= number]:
                due.remove((when, feedback))
                put("feedback", feedback.message_id, encode_record(feedback), at_ms + 700)


def learn(stream: StreamSettings) -> None:
    with closing(open_log(stream)) as log:
        learner = Learner(stream, LearnerSettings(model="linear?bits=14", batch_records=64), log)
        with closing(learner):
            learner.start()
            learner.run(lambda: False, log.watermarks(stream.topics[:2]))


def learned(stream: StreamSettings) -> dict[str, Any]:
    """Return what came out of it: counts, accuracy as served, and the bytes of the model and of the window."""
    status = read_status(stream.data)
    assert status is not None
    found: dict[str, Any] = {"progress": status.progress, "counts": msgspec.to_builtins(status.counts)}
    checkpoint = list_checkpoints(stream.data / "checkpoints")[-1]
    for path in checkpoint.iterdir():
        if path.suffix == ".safetensors":
            found[path.name] = path.read_bytes()
    return found


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_records_give_the_same_model(tmp_path: Path, partitions: int, packed: str) -> None:
    before, after = (StreamSettings(data=tmp_path / name, partitions=partitions) for name in ("before", "after"))
    fill(before)
    learn(before)
    path = tmp_path / f"all.jsonl{packed}"
    done = run("export", path, "--format", "records", "--data", before.data)
    assert done.exit_code == 0, done.output
    lines = (gzip.decompress(path.read_bytes()) if packed else path.read_bytes()).splitlines()
    assert f"Wrote {len(lines):,} records" in done.stdout
    with closing(open_log(after)) as log:
        log.create_topics(after.topics)
    sent = run("send", path, "--data", after.data)
    assert sent.exit_code == 0, sent.output
    assert "as they were" in sent.stdout
    learn(after)
    one, other = learned(before), learned(after)
    assert [name for name in one if name.endswith(".safetensors")], "there is a model to compare"
    assert one["progress"]["labels"] > 150
    assert one["progress"] == other["progress"]
    assert one.keys() == other.keys()
    for name in one:
        assert name == "counts" or one[name] == other[name], name
    counts = [{name: n for name, n in each["counts"].items() if "rejected" not in name} for each in (one, other)]
    assert counts[0] == counts[1], "but for dead letters, which nobody can learn"


def test_sent_twice_it_counts_once(tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path / "data")
    fill(stream, 100)
    path = tmp_path / "all.jsonl"
    assert run("export", path, "--format", "records", "--data", stream.data).exit_code == 0
    learn(stream)
    before = learned(stream)["progress"]["labels"]
    assert run("send", path, "--data", stream.data).exit_code == 0
    learn(stream)
    assert before > 0
    assert learned(stream)["progress"]["labels"] == before


def test_records_go_through_pipes_and_bad_lines_are_said(tmp_path: Path) -> None:
    data = tmp_path / "data"
    good = b'{"topic":"messages","timestamp_ms":5,"value":{"id":"m","text":"t","unknown":[1.0,{}]}}\n'
    bad = [
        b"{",
        b'{"topic":"predictions","timestamp_ms":1,"value":{}}',
        b'{"topic":"messages","timestamp_ms":1,"value":{}}',
    ]
    done = run("send", "-", "--records", "--data", data, given=b"\n".join([*bad, b"", good]))
    assert "Sent 1 message and 0 labels" in done.stdout
    assert "3 lines skipped" in done.stdout
    assert "line 3: " in done.stderr
    with (
        closing(open_log(StreamSettings(data=data))) as log,
        closing(log.reader({TopicPartition("messages", 0): 0})) as r,
    ):
        (record,) = r.read(10, 10)
        assert (record.timestamp_ms, record.key) == (5, b"m")
        assert json.loads(record.value or b"")["unknown"] == [1.0, {}], "what is not known stays"
    nothing = run("send", "-", "--records", "--data", data, given=b"{}\n")
    assert nothing.exit_code == 1
    assert "nothing was sent" in str(nothing.exception)


TEXTS = [
    "plain",
    "=1+1",
    "+31 6",
    "-1",
    "@here",
    "'=quoted",
    "''=twice",
    "'just an apostrophe",
    "\tbegins with a tab",
    'a "quote", a comma; and\nlines\n\nof them',
    "日本語 🙂 עברית",
    " spaces around ",
    "x" * 300_000,
    "ends with a backslash \\",
]


def rows_of(stream: StreamSettings) -> dict[str, tuple[Any, ...]]:
    Keeper(stream, 10**6).catch_up()
    with closing(Search(stream.data)) as search:
        found: list[Listed] = [each for page in search.each(Filters()) for each in page]
    return {
        each.id: (
            each.text,
            each.fields,
            each.label,
            *((each.label_source, each.label_weight, each.note) if each.label else ()),
        )
        for each in found
    }


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "argilla", "label-studio", "prodigy"])
def test_rows_come_back(tmp_path: Path, form: str) -> None:
    before, after = (StreamSettings(data=tmp_path / name) for name in ("before", "after"))
    with closing(open_log(before)) as log:
        log.create_topics(before.topics)
        for number, text in enumerate(TEXTS):
            fields = {"=sender": "-x@y", "n": number, "tags": ["a", "b"], "ok": True} if number % 3 == 0 else {}
            message = Message(f"m{number}", join(text, fields))
            log.append("messages", [NewRecord(message.id.encode(), encode_record(message))])
            if number % 4:
                said = Noted(
                    message.id, ["=spam", "ham"][number % 2], source=f"bob{number % 3}", weight=2.5, note="-see"
                )
                log.append("feedback", [NewRecord(message.id.encode(), encode_record(said))])
    path = tmp_path / f"rows.{form}"
    done = run("export", path, "--format", form, "--data", before.data)
    assert done.exit_code == 0, done.output
    assert f"Wrote {len(TEXTS)} messages" in done.stdout
    sent = run("send", path, "--data", after.data)
    assert sent.exit_code == 0, sent.output
    assert f"Sent {len(TEXTS)} messages" in sent.stdout, sent.output
    one, other = rows_of(before), rows_of(after)
    if form in ("jsonl", "csv", "parquet"):
        assert other == one
        return
    for key, (text, _, label, *said) in one.items():  # fields are columns there; weights and notes are not known
        assert (other[key][0], other[key][2]) == (text, label)
        assert other[key][3:4] == tuple(said[:1]), "whose label it is"


def test_no_spreadsheet_takes_a_cell_for_a_formula(tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path / "data")
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        for number, text in enumerate(["=cmd|'/C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"]):
            message = Message(f"={number}", text)
            log.append("messages", [NewRecord(b"k", encode_record(message))])
            log.append("feedback", [NewRecord(b"k", encode_record(Noted(message.id, "@l", source="+s", note="=n")))])
    done = run("export", "--format", "csv", "--data", stream.data)
    table = list(csv.reader(io.StringIO(done.stdout_bytes.decode(), newline="")))
    assert tuple(table[0]) == COLUMNS
    assert len(table) == 7
    assert not [cell for row in table for cell in row if cell[:1] in tuple("=+-@\t\r")]


@pytest.mark.parametrize("cell", [*TEXTS, "", "'", "''", "=", "'\r"])
def test_what_is_made_harmless_can_be_undone(cell: str) -> None:
    assert as_it_was(harmless(cell)) == cell
    assert harmless(cell)[:1] not in tuple("=+-@\t\r") or not harmless(cell)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path / "data")
    fill(stream, 5)
    assert "leave out" in str(run("export", "--format", "records", "--label", "a", "--data", stream.data).exception)
    assert "query: " in str(run("export", "--query", "x" * 2000, "--data", stream.data).exception)
    assert "cannot be written" in str(run("export", tmp_path / "no" / "file", "--data", stream.data).exception)
    assert "no log" in str(run("export", "--data", tmp_path / "nothing").exception)
    assert not (tmp_path / "nothing").exists()
    path = tmp_path / "some.jsonl"
    assert run("export", path, "--state", "labelled", "--source", "alice", "--data", stream.data).exit_code == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("some")] == ["some.jsonl"]
