"""What `driftline send` and `predict -` do with a file or standard input, as they say it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from driftline.cli.main import app
from driftline.stream.errors import ConfigError, DriftlineError, TopicMismatch
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import decode_feedback, decode_message
from tests.data import ROOT
from tests.place import Place, read_all
from tests.waiting import wait_until


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def run(*arguments: object, given: bytes | str | None = None) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments], input=given)


def messages(data: Path) -> list[Any]:
    return [decode_message(record.value or b"") for record in read_all(StreamSettings(data=data), "messages")]


def labels(data: Path) -> list[Any]:
    return [decode_feedback(record.value or b"") for record in read_all(StreamSettings(data=data), "feedback")]


def test_skipped_rows_are_counted_by_reason(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": null}\n{bad\n' * 50)
    done = run("send", path, "--data", data)
    assert done.exit_code == 0
    assert "Sent 50 messages and 50 labels" in done.stdout
    assert "; 100 rows skipped: 50 without a text, 50 not JSON." in done.stdout
    assert done.stderr.count("skipped: ") == 6
    assert "further rows are only counted" in done.stderr
    assert len(messages(data)) == 50


def test_an_id_column_is_looked_at_before_it_is_believed(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,text,label\n" + "".join(f"c{n % 10},text {n},{'ab'[n % 2]}\n" for n in range(100)))
    done = run("send", path, "--data", data)
    assert "Sent 100 messages and 100 labels" in done.stdout
    assert f"{path}, line 12: column 'id' has 'c0', which came before with another text" in done.stderr
    assert len({message.id for message in messages(data)}) == 100
    assert {label.message_id for label in labels(data)} == {message.id for message in messages(data)}


@pytest.mark.parametrize(
    ("options", "n_sent", "said"),
    [
        (["--id-column", "id"], 10, "90 rows skipped: 90 with an id that came before with another text"),
        (["--no-ids"], 100, "Sent 100 messages and 100 labels"),
    ],
)
def test_what_is_said_of_ids_holds(tmp_path: Path, data: Path, options: list[str], n_sent: int, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,text,label\n" + "".join(f"c{n % 10},text {n},a\n" for n in range(100)))
    done = run("send", path, "--data", data, *options)
    assert said in done.stdout
    sent = messages(data)
    assert len(sent) == n_sent
    assert (sent[0].id == "c0") == ("--id-column" in options)


def test_ids_of_a_pipe_are_looked_at_row_by_row(data: Path) -> None:
    rows = "id,text,label\nm1,a,x\nm2,b,y\nm1,a,y\nm1,c,x\n"
    done = run("send", "-", "--data", data, given=rows)
    assert "Sent 4 messages and 4 labels" in done.stdout
    assert "1 of them have an id that came before with another text: they got ids of their own." in done.stdout
    assert [message.id for message in messages(data)][:3] == ["m1", "m2", "m1"]
    assert messages(data)[3].id not in ("m1", "m2")


def test_an_id_column_that_is_not_there(data: Path) -> None:
    done = run("send", "-", "--data", data, "--id-column", "number", given="text,label\na,b\n")
    assert isinstance(done.exception, ConfigError)
    assert "no column 'number'; the columns are 'text', 'label'; name one with --id-column" in str(done.exception)
    assert isinstance(run("send", "-", "--no-ids", "--id-column", "a", given="").exception, ConfigError)


def test_shuffled_rows_are_all_sent_in_the_order_of_their_seed(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text {n},{'a' if n < 100 else 'b'}\n" for n in range(200)))
    orders = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        assert run("send", path, "--data", tmp_path / name, "--shuffle", seed, "--label-delay", 100).exit_code == 0
        orders.append([message.text for message in messages(tmp_path / name)])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(f"text {n}" for n in range(200))
    assert 20 < sum(label.label == "a" for label in labels(tmp_path / "one")[:100]) < 80


def test_options_reach_the_file(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes("x~Grüße aus Köln~7\ny~b~8\n".encode("latin-1"))
    options = ("--delimiter", "~", "--encoding", "latin-1", "--no-header", "--text-column", 2, "--label-column", 1)
    assert run("send", path, "--data", data, *options).exit_code == 0
    assert [(message.text, label.label) for message, label in zip(messages(data), labels(data), strict=True)] == [
        ("Grüße aus Köln", "x"),
        ("b", "y"),
    ]
    done = run("evaluate", path, *options, "--json", "--model", "linear?bits=12")
    assert json.loads(done.stdout)["labels"] == 2


def test_what_was_read_of_a_damaged_file_is_sent(tmp_path: Path, data: Path) -> None:
    import gzip  # noqa: PLC0415

    rows = b"text,label\n" + b"".join(b"%d some words %d,a\n" % (n, n * n) for n in range(5000))
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(rows)[:-2000])
    done = run("send", path, "--data", data, "--label-delay", "1000")
    assert isinstance(done.exception, DriftlineError)
    assert "the gzip stream is damaged after line" in str(done.exception)
    sent = messages(data)
    assert len(sent) > 1000
    assert len(labels(data)) == len(sent)
    assert f"Stopped: {len(sent):,} messages and {len(sent):,} labels are in the log" in done.stderr
    assert f"`--skip {len(sent)}` goes on behind them" in done.stderr


def test_ctrl_c_says_how_far_it_got_and_skip_goes_on(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text {n},a\n" for n in range(600)))
    command = [sys.executable, "-m", "driftline", "send", str(path), "--data", str(data), "--label-delay", "50"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE")}

    def some_are_sent() -> bool:
        try:
            return (data / "log.db").exists() and len(messages(data)) > 30
        except TopicMismatch:  # not yet
            return False

    with subprocess.Popen(
        [*command, "--rate", "10"], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        wait_until(some_are_sent, 120, "some are sent")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    sent = len(messages(data))
    assert 30 < sent < 600
    assert f"Stopped: {sent} messages and {sent} labels are in the log. `--skip {sent}` goes on behind them." in said
    assert len(labels(data)) == sent
    assert run("send", path, "--data", data, "--skip", sent).exit_code == 0
    assert [message.text for message in messages(data)] == [f"text {n}" for n in range(600)]
    assert len(labels(data)) == 600


class TestStandardInput:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        place = Place(tmp_path)
        place.publish()
        return place

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_predict_reads_a_text_in_each_line(self, place: Place, end: str) -> None:
        given = end.join(["win a prize", "", "see you at lunch", "-", "no end"])
        done = run("predict", "-", "--data", place.stream.data, "--json", given=given)
        assert done.exit_code == 0, done.exception
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each["text"] for each in found] == ["win a prize", "see you at lunch", "-", "no end"]
        assert [each["label"] for each in found][:2] == ["spam", "ham"]

    def test_predict_reads_other_encodings_and_what_is_none(self, place: Place) -> None:
        for given, text in (
            ("caf\u00e9".encode("utf-16"), "caf\u00e9"),
            (b"prize \xff\xfe \xed\xa0\x80 \xc3\xa9\n" * 2, None),
        ):
            done = run("predict", "-", "--data", place.stream.data, "--json", given=given)
            assert done.exit_code == 0, done.exception
            assert text in (None, json.loads(done.stdout.splitlines()[0])["text"])

    def test_predict_answers_as_lines_come(self, place: Place) -> None:
        command = [sys.executable, "-m", "driftline", "predict", "-", "--data", str(place.stream.data), "--json"]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for text in (b"win a prize", b"lunch"):
                process.stdin.write(text + b"\n")
                assert json.loads(process.stdout.readline())["text"] == text.decode()
            process.stdin.close()
            assert process.wait(timeout=60) == 0

    def test_explain_reads_one_text(self, place: Place) -> None:
        done = run("explain", "-", "--data", place.stream.data, "--json", given="win\na prize\n")
        assert done.exit_code == 0, done.exception
        assert {feature["text"] for feature in json.loads(done.stdout)["features"]} >= {"win", "prize"}
