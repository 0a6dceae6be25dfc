"""Does a text that somebody else wrote do anything to a terminal, or pass for a line of ours?"""

import json
import logging
import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.cli.main import app
from driftline.cli.terminal import print_error
from driftline.learner.disk.checkpoint import Counts
from driftline.stream.process import log_lines
from driftline.stream.process.harmless import harmless, harmless_json, harmless_lines
from driftline.stream.process.log_lines import TextLines
from tests.data import ROOT
from tests.place import TEXTS, Place, running
from tests.ports import reserved
from tests.waiting import wait_until

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ORDERS = "\x1b]0;owned\x07\x1b[2J\x9b31m\x08\x7f\u200f\u202egpj.exe\u2066\u2028"
HOSTILE = f"{ORDERS}\r\nFORGED line\x85FORGED\x0bFORGED [red]:bug:"
MAIN = "from driftline.cli.main import main; main()"


def check(said: str, shown: str = "\\x1b]0;owned\\x07") -> None:
    """Check that all of a text may go to a terminal, that the escape is shown, and that no line was made up."""
    assert all(character in "\n\t" or unicodedata.category(character) not in ("Cc", "Zl", "Zp") for character in said)
    assert not set(said) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert shown in said
    assert not re.search("^FORGED", said, re.MULTILINE)


@given(text=ANY_TEXT)
def test_what_is_shown_says_what_it_was(text: str) -> None:
    shown = harmless(text)
    check(shown, "")
    assert "\n" not in shown
    shown.encode()
    if shown.isascii() and "\\" not in text:
        assert shown.encode().decode("unicode_escape") == text
    assert json.loads(harmless_json(json.dumps(text, ensure_ascii=False))) == text
    check(harmless_json(json.dumps(text, ensure_ascii=False)), "")
    assert harmless_lines(f"{text}\n\ta") == "\n".join(harmless_lines(part) for part in f"{text}\n\ta".split("\n"))


def test_what_people_write_stays_as_it_is() -> None:
    for text in ("größer", "日本語", "نص عربي", "👩‍👩‍👧", "می‌خواهم", "a\\x1b"):
        assert harmless(text) == text


class TestLog:
    def line(self, message: str, *arguments: object, **fields: object) -> str:
        record = logging.LogRecord("a", logging.ERROR, "", 0, message, arguments, None)
        record.fields = fields
        return TextLines().format(record)

    def test_a_message_is_one_line(self) -> None:
        said = self.line("said %s", HOSTILE, path=HOSTILE)
        check(said)
        assert "\n" not in said

    def test_a_value_is_one_field(self) -> None:
        assert self.line("request", path="/a status=200", status=404) == (
            'driftline: request path="/a status=200" status=404'
        )
        assert self.line("request", path='/"a\n', key=None) == 'driftline: request path="/\\"a\\n" key=None'

    def test_a_traceback_passes_for_no_other_event(self) -> None:
        try:
            raise ValueError(f"{HOSTILE}\ndriftline: FORGED")
        except ValueError:
            record = logging.LogRecord("a", logging.ERROR, "", 0, "failed", (), sys.exc_info())
        said = TextLines().format(record)
        check(said)
        first, *others = said.split("\n")
        assert first == "driftline: failed"
        assert others
        assert all(line.startswith("  ") for line in others)

    def test_a_path_in_the_access_log(self, place: Place, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "driftline.access")
        with running(place.stream, access_log=True) as url:
            httpx.get(f"{url}/%1b%5b2J%0aFORGED%20status=200%c2%9b%e2%80%ae", timeout=30)
            wait_until(lambda: caplog.records, what="it is said")
        said = TextLines().format(next(each for each in caplog.records if each.name == "driftline.access"))
        check(said, 'path="/\\u001b[2J')
        assert "\n" not in said


@pytest.fixture
def taught(place: Place) -> Place:
    """Give a place whose learner was told such labels, and says such things."""
    place.classifier.learn_many(TEXTS * 20, [HOSTILE, HOSTILE, "ham", "ham"] * 20)
    place.publish()
    place.report(state="paused", detail=HOSTILE, version=HOSTILE, over_quota={HOSTILE: 7}, counts=Counts(over_quota=7))
    return place


@pytest.mark.parametrize(
    "command",
    [["predict", f"{TEXTS[0]} {HOSTILE}"], ["explain", TEXTS[0]], ["status"], ["explain", f"{HOSTILE} a"]],
    ids=["predict", "explain", "status", "a text"],
)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_what_commands_show(
    taught: Place, capsys: pytest.CaptureFixture[str], command: list[str], form: list[str]
) -> None:
    app([*command, "--data", str(taught.stream.data), *form], standalone_mode=False)
    said = capsys.readouterr().out
    check(said, "\\u001b]0;owned\\u0007" if form else "\\x1b]0;owned\\x07")
    assert ":bug:" in said, "and it is no picture"
    if form:
        found = json.loads(said)
        assert HOSTILE in (found.get("label"), found.get("detail"), *found.get("scores", ())), "JSON has it whole"


@pytest.mark.parametrize("command", ["evaluate", "send"])
def test_what_a_file_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name, its columns, its ids: in remarks on rows, and in what is refused."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{ORDERS}\nFORGED.jsonl"
    rows = [{"id": HOSTILE, "text": text, "label": HOSTILE, HOSTILE: 1} for text in TEXTS]
    path.write_text("\n".join(json.dumps(row) for row in [*rows, {HOSTILE: 3}]))
    options = ["--model", "linear?bits=12"] if command == "evaluate" else ["--data", str(tmp_path / "data")]
    app([command, str(path), *options], standalone_mode=False)
    told = capsys.readouterr()
    check(told.out + told.err)
    with pytest.raises(Exception, match="column") as refused:
        app([command, str(path), *options, "--text-column", HOSTILE + "none"], standalone_mode=False)
    log_lines.begin("text")
    print_error(str(refused.value))
    check(capsys.readouterr().err)


def test_a_real_terminal_gets_no_orders(taught: Place) -> None:
    """The colours are ours; nothing else that begins with an escape is there."""
    command = [sys.executable, "-c", MAIN, "predict", f"{TEXTS[0]} {HOSTILE.replace(chr(0), '')}"]
    ours, its = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    try:
        done = subprocess.run(
            [*command, "--data", str(taught.stream.data)], env=environment, stdout=its, timeout=180, check=False
        )
        said = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(its)
    assert done.returncode == 0
    assert "\x1b[1m" in said
    check(re.sub(r"\x1b\[[\d;]*m", "", said).replace("\r\n", "\n"))


def test_an_access_log_of_a_real_server(place: Place, tmp_path: Path) -> None:
    place.publish()
    said = tmp_path / "said"
    with reserved() as port, said.open("wb") as err:
        command = [sys.executable, "-c", MAIN, "serve", "--data", str(place.stream.data), "--port", str(port)]
        with subprocess.Popen(
            [*command, "--access-log", "--log-format", "text"], stderr=err, stdout=err, cwd=ROOT
        ) as process:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: is_answered(f"{url}/healthz"), 120, "it is there")
            is_answered(f"{url}/%1b%5b2J%0d%0aFORGED%e2%80%ae")
            wait_until(lambda: b"FORGED" in said.read_bytes(), what="it is said")
            process.terminate()
    check(said.read_text(), "\\u001b[2J")


def is_answered(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).status_code > 0
    except httpx.TransportError:
        return False
