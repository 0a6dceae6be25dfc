"""The command line: help that is complete, values that come from where they should, errors that can be acted on."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Literal

import pytest
import typer
from pydantic import Field, SecretStr
from typer.testing import CliRunner

from driftline.cli.help import Command
from driftline.cli.main import app
from driftline.cli.terminal import program
from driftline.learner.registry import make_classifier
from driftline.stream.process.flags import BadOptions, build_settings, with_settings
from driftline.stream.process.settings import Settings, StreamSettings
from driftline.stream.wire.fielded import join
from tests.data import ROOT
from tests.faults.nursery import Nursery
from tests.learner.serving.test_snapshot import publish, taught
from tests.place import Place

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    return clean | {"PYTHONUTF8": "1", "COLUMNS": "200", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"} | variables


@pytest.fixture
def run(nursery: Nursery, tmp_path: Path) -> Run:
    """Return a function that runs the command line in an empty directory."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return nursery.run(*arguments, cwd=tmp_path, environment=environment(**variables), stdin=stdin, strict=True)

    return run


@pytest.fixture
def run_alone(tmp_path: Path) -> Run:
    """Return a function that does so by itself, from Python's start on."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "driftline", *arguments]
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", cwd=tmp_path, env=environment(), check=False, timeout=240
        )

    return run


class ExampleSettings(Settings):
    """Options of the example.

    More about it, which is no heading.
    """

    prefix: str = Field("", max_length=200, description="Also an option of the stream.")
    fast: bool = Field(True, description="Go [fast].")
    level: Literal["low", "high"] = Field("low", description="How much.")
    hosts: list[str] = Field([], description="Where.")
    password: SecretStr | None = Field(None, min_length=8, description="What.")


example = typer.Typer(rich_markup_mode=None, context_settings={"max_content_width": 200})


@example.command(cls=Command)
@with_settings
def show(word: str, stream: StreamSettings, example: ExampleSettings, times: int = 1) -> None:
    """Show what was given."""
    hosts = list(example.hosts)
    print(
        json.dumps([word * times, stream.partitions, stream.prefix, example.prefix, example.fast, example.level, hosts])
    )


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[object]]:
    monkeypatch.chdir(tmp_path)

    def shown(*arguments: str) -> list[object]:
        result = CliRunner().invoke(example, ["w", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        values: list[object] = json.loads(result.output)
        return values

    return shown


def test_flags_come_before_variables_before_the_file_before_defaults(
    shown: Callable[..., list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown() == ["w", 1, "", "", True, "low", []]
    Path("driftline.toml").write_text('partitions = 2\nprefix = "f"\n')
    assert shown()[1:4] == [2, "f", "f"]
    monkeypatch.setenv("DRIFTLINE_PARTITIONS", "3")
    assert shown()[1:4] == [3, "f", "f"]
    assert shown("--partitions", "4", "--prefix", "p")[1:4] == [4, "p", "p"]
    assert shown("--partitions", "1")[1] == 1  # a default that is given is given


def test_every_kind_of_field_has_its_flag(shown: Callable[..., list[object]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown("--no-fast", "--level", "high", "--hosts", "a", "--hosts", "b")[4:] == [False, "high", ["a", "b"]]
    monkeypatch.setenv("DRIFTLINE_FAST", "false")
    monkeypatch.setenv("DRIFTLINE_HOSTS", '["c"]')
    assert shown()[4:] == [False, "low", ["c"]]
    assert shown("--fast", "--times", "2")[0:5:4] == ["ww", True]


def test_help_shows_each_option_with_its_variable_and_default() -> None:
    result = CliRunner().invoke(example, ["--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1"})
    text = re.sub(r"\s+", " ", result.output)
    for cls in (StreamSettings, ExampleSettings):
        for name in cls.model_fields:
            assert f"--{name.replace('_', '-')} " in text
            assert f"[env: DRIFTLINE_{name.upper()}]" in text
    assert "[default: 1048576]" in text
    assert "--fast / --no-fast" in text
    assert "Go [fast]. [env: DRIFTLINE_FAST] [default: on]" in text
    assert "low|high" in text
    assert "Options of the log: --" in text
    assert "Options of the example: --" in text
    assert text.count("--prefix ") == 1


def commands() -> list[list[str]]:
    """Return the words of every command that there is."""
    group = typer.main.get_command(app)
    found = [[]]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        found += [[name], *([name, each] for each in getattr(command, "commands", ()))]
    return found


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_cuts_no_name(words: list[str], columns: int) -> None:
    """Of an option, a variable, a command: where a terminal is narrow, lines are folded between words."""
    shown = CliRunner().invoke(app, [*words, "--help"], terminal_width=columns)
    assert shown.exit_code == 0
    assert "…" not in shown.output
    longest = max(map(len, shown.output.partition("\n\n")[2].splitlines()))
    assert longest <= max(columns, 80)  # what an argument may be stands whole
    whole = set(re.findall(r"[\w-]+", shown.output))
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    assert set(getattr(command, "commands", ())) <= whole
    for param in command.params:
        if param.hidden:  # what it takes and does not use
            continue
        assert set(param.opts) - {param.name} <= whole | {"-"}
        assert set(param.secondary_opts) <= whole
        assert set(re.findall(r"DRIFTLINE_\w+", getattr(param, "help", None) or "")) <= whole


def test_a_parameter_may_not_hide_a_setting() -> None:
    def command(prefix: str, stream: StreamSettings) -> None: ...

    with pytest.raises(TypeError, match="prefix"):
        with_settings(command)


def test_secrets_are_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadOptions) as caught:
        build_settings(ExampleSettings, {"password": "hush"})
    assert caught.value.lines[0].startswith("--password: ")
    monkeypatch.setenv("DRIFTLINE_PASSWORD", "hush")
    with pytest.raises(BadOptions) as caught:
        build_settings(ExampleSettings, {})
    assert caught.value.lines[0].startswith("DRIFTLINE_PASSWORD: ")


@pytest.mark.parametrize("line_format", ["text", "json"])
def test_the_banner_has_no_property_of_kafka_s(line_format: Literal["text", "json"], tmp_path: Path) -> None:
    address = "kafka://a:9092,b:9092?sasl.username=me&sasl.password=hunter2"
    settings = f"StreamSettings(data=Path({str(tmp_path)!r}), log={address!r}, log_format={line_format!r})"
    program = "from pathlib import Path; from driftline.cli.commands.serve import print_banner; "
    program += "from driftline.stream.process import log_lines; "
    program += f"from driftline.stream.process.settings import StreamSettings; log_lines.begin({line_format!r}); "
    program += f"print_banner('http://127.0.0.1:8000', 'http://127.0.0.1:8000/docs', {settings}, None)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    said = done.stdout + done.stderr
    assert "kafka://a:9092,b:9092" in said
    if line_format == "text":
        assert f"driftline send FILE --label-delay 100 --data {tmp_path} --log kafka://a:9092,b:9092\n" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("command", [[], ["send"], ["evaluate"]])
def test_help(run_alone: Run, command: list[str]) -> None:
    done = run_alone(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    if command == ["send"]:
        for flag in ("--text-column", "--label-column", "--label-delay", "--rate", "--log", "--max-record-bytes"):
            assert flag in done.stdout
    assert "Usage: driftline" in done.stdout


def test_help_loads_nothing_that_is_slow_to_load() -> None:
    slow = (
        "numba",
        "numpy",
        "matplotlib",
        "confluent_kafka",
        "fastapi",
        "uvicorn",
        "river",
        "pandas",
        "scipy",
        "sklearn",
    )
    script = f"import sys, driftline; print([module for module in {slow} if module in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True).strip() == "[]"


def test_a_status_is_shown_without_what_is_slow_to_load(place: Place) -> None:
    """It is asked often, by scripts and on busy machines: it reads a file."""
    place.report()
    program = (
        "import sys; from typer.testing import CliRunner; from driftline.cli.main import app; "
        f"done = CliRunner().invoke(app, ['status', '--data', {str(place.stream.data)!r}]); "
        "print([each for each in ('numpy', 'numba', 'safetensors', 'fastapi', 'httpx') if each in sys.modules]); "
        "print(done.output)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded, _, shown = done.stdout.partition("\n")
    assert loaded == "[]"
    assert "linear?bits=12, version lineage-4" in shown


@pytest.mark.parametrize("words", [["keys", "add"], ["keys", "list"], ["keys", "remove"], ["status"], ["predict"]])
def test_help_shows_what_a_command_uses(words: list[str]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"], terminal_width=80).output
    assert "--data" in shown
    assert not {"--partitions", "--retention-hours", "--workers", "--port"} & set(shown.split())
    assert len(shown.splitlines()) < 40


def test_what_help_does_not_show_is_taken(run: Run) -> None:
    """One file of options may be given to all commands."""
    done = run("keys", "add", "a", "--role", "label", "--port", "1", "--partitions", "2", "--log", "sqlite:///a.db")
    assert done.returncode == 0, done.stderr
    assert run("keys", "list", "--port", "none").returncode == 2


def test_version(run_alone: Run) -> None:
    assert re.fullmatch(r"driftline \d+\.\d+\.\d+\n", run_alone("--version").stdout)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    lines = [f"m{i},{'sun' if i % 2 else 'rain'} today,{'good' if i % 2 else 'bad'}" for i in range(100)]
    path.write_text("\n".join(["id,text,label", *lines, "short"]) + "\n")
    return path


def test_refusals_are_one_line_without_a_traceback(run: Run, rows: Path, tmp_path: Path) -> None:
    done = run("send", "gone.csv")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "driftline: gone.csv: cannot be read: No such file or directory\n"
    done = run("send", str(rows), "--text-column", "subject")
    assert done.returncode == 1
    assert "no column 'subject'; the columns are 'id', 'text', 'label'; name one with --text-column" in done.stderr
    (tmp_path / "driftline.toml").write_text("partition = 2\n")
    done = run("send", str(rows))
    assert done.returncode == 1
    assert done.stderr.startswith(
        "driftline: driftline.toml: unknown entry partition (is partitions meant?); known are: "
    )
    assert "partitions" in done.stderr
    (tmp_path / "driftline.toml").write_text("partitions = \n")
    done = run("send", str(rows))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("driftline: driftline.toml: Invalid value")


@pytest.mark.parametrize("command", [["status"], ["predict", "a"], ["explain", "a"], ["snapshots"], ["keys", "list"]])
def test_a_directory_that_is_none_is_a_line(run: Run, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "plain").write_text("")
    done = run(*command, "--data", "plain")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("driftline: ")
    assert "plain" in done.stderr


def test_what_can_be_sent_is_said_with_where(run: Run, rows: Path, tmp_path: Path) -> None:
    done = run("send", str(rows), "--data", "an other", "--prefix", "p.")
    assert "`driftline up --data 'an other' --prefix p.` learns" in done.stdout
    (tmp_path / "bad.csv").write_text("id,text,label\nshort\n")
    done = run("send", str(tmp_path / "bad.csv"))
    assert done.returncode == 1
    assert "nothing was sent: none of 1 row can be used" in done.stderr


def test_figures_are_whole_where_there_is_no_room(run: Run, rows: Path) -> None:
    done = run("evaluate", str(rows), "--model", "linear?chars=0&bits=12&max_labels=20", COLUMNS="40")
    assert re.search(r" [\d,]{5,}\n", done.stdout)
    assert "accuracy  macro F1" in done.stdout


def test_wrong_values_are_named_with_where_they_came_from(run: Run, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "driftline.toml").write_text("retention_hours = -1\n")
    done = run("send", str(rows), "--partitions", "many", DRIFTLINE_REPLICATION="0")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert any(line.startswith("driftline: --partitions many: Input should be a valid integer") for line in lines)
    assert any(line.startswith("driftline: DRIFTLINE_REPLICATION=0: Input should be greater") for line in lines)
    assert any(line.startswith("driftline: driftline.toml: retention_hours = -1: Input should be") for line in lines)
    assert run("send").returncode == 2
    assert run("send", str(rows), "--label-delay", "-1").returncode == 2


def test_ctrl_c_is_quiet() -> None:
    script = "from driftline.cli.main import app, main\n@app.command()\ndef stop(): raise KeyboardInterrupt\nmain()"
    done = subprocess.run([sys.executable, "-c", script, "stop"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_send(run: Run, run_alone: Run, rows: Path) -> None:
    pytest.importorskip("driftline.stream.log.sqlite.log")
    done = run_alone("send", str(rows), "--label-delay", "10", "--data", "state")
    assert done.returncode == 0, done.stderr
    assert "Sent 100 messages and 100 labels in " in done.stdout
    assert "; 1 row skipped: 1 with another number of columns." in done.stdout
    assert "Next: " in done.stdout
    assert f"skipped: {rows}, line 102: 1 column, not 3" in done.stderr
    again = run("send", "-", "--data", "state", stdin=rows.read_text())
    assert "Sent 100 messages and 100 labels in " in again.stdout


def test_evaluate(run: Run, run_alone: Run, rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("driftline.learner.registry")
    done = run_alone("evaluate", str(rows), "--json", "--delay", "5", "--limit", "80", "--plot", "curve.svg")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    expected = ["model", "messages", "labels", "accuracy", "macro_f1", "log_loss", "calibration_error"]
    expected += ["seconds", "refused", "unknown", "known_log_loss", "messages_per_second"]
    assert list(result) == [*expected, "drift_alarms"]
    assert (result["model"], result["messages"], result["labels"]) == ("blend", 80, 80)
    assert result["accuracy"] > 0.8
    assert (tmp_path / "curve.svg").read_bytes().startswith(b"<?xml")
    table = run("evaluate", str(rows), "--model", "linear", "--model", "linear?bits=18").stdout
    assert "linear?bits=18" in table
    assert "per s" in table


def test_evaluate_refuses_what_has_no_labels(run: Run) -> None:
    pytest.importorskip("driftline.learner.registry")
    done = run("evaluate", "-", stdin="text,kind\na,b\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no row has a label; the columns are 'text', 'kind'; name one with --label-column" in done.stderr
    assert run("evaluate", "-", "--plot", "a.gif", stdin="text\n").returncode == 1


def test_a_plot_without_what_draws_it_is_refused_at_once(run: Run, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('No module named \\'matplotlib\\'')")
    done = run("evaluate", str(rows), "--plot", "curve.svg")
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'driftline[plots]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    """Return a data directory with a snapshot."""
    publish(tmp_path / "state" / "snapshots", taught())
    return tmp_path / "state"


def test_explain(run: Run, run_alone: Run, learned: Path) -> None:
    done = run_alone("explain", "Win a PRIZE, cow", "--data", str(learned), "--features", "500")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][0] == "spam"
    assert lines[1] == ["spam", "ham"]
    words = {line[1]: line[2:] for line in lines if line[0] == "word"}
    assert float(words["prize"][0]) > 0 > float(words["prize"][1])
    assert words["cow"][2:4] == ["never", "learned"]
    assert ["chars", "␣pr"] in [line[:2] for line in lines]
    assert lines[-1][:4] == ["bias", "whatever", "the", "text"]
    assert not [line for line in lines if line[0] == "rest"]
    short = run("explain", "Win a PRIZE, cow", "--data", str(learned), "--features", "2", "--label", "ham").stdout
    assert short.splitlines()[1].split() == ["ham"]
    assert len(short.splitlines()) == 6
    assert "more" in short


def test_explain_as_json(run: Run, learned: Path) -> None:
    done = run("explain", "Win a PRIZE, cow", "--data", str(learned), "--json", "--label", "ham", "--label", "spam")
    found = json.loads(done.stdout)
    assert (found["label"], found["method"], list(found["bias"])) == ("spam", "sum", ["ham", "spam"])
    (prize,) = (each for each in found["features"] if each["text"] == "prize" and each["kind"] == "word")
    assert (prize["spans"], prize["known"]) == ([[6, 11]], True)
    empty = run("explain", "", "--data", str(learned))
    assert empty.returncode == 0, empty.stderr
    assert "bias" in empty.stdout


def test_explain_shows_what_shares_its_slot(run: Run, tmp_path: Path) -> None:
    classifier = make_classifier("linear?bits=8&max_labels=2")
    classifier.learn_many(["win a prize", "see you at home"] * 3, ["spam", "ham"] * 3)
    publish(tmp_path / "driftline-data" / "snapshots", classifier)
    assert "slot is shared" in run("explain", "a prize").stdout


def test_explain_refuses(run: Run, learned: Path) -> None:
    done = run("explain", "x", "--data", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nowhere holds no snapshot: nothing was learned there yet. Name another --data" in done.stderr
    done = run("explain", "x", "--data", str(learned), "--label", "news")
    assert (done.returncode, done.stdout) == (1, "")
    assert "label 'news' was never learned; known are: spam, ham" in done.stderr
    assert run("explain", "x", "--features", "-1").returncode == 2


def test_fields_are_given_on_the_command_line(run: Run, tmp_path: Path) -> None:
    classifier = make_classifier("linear?bits=14&max_labels=2")
    for _ in range(30):
        classifier.learn_many([join("noise", {"from": "a=b", "n": 5}), join("noise", {"from": "c"})], ["spam", "ham"])
    publish(tmp_path / "driftline-data" / "snapshots", classifier)
    found = [json.loads(run("predict", "noise", "--json", *fields).stdout) for fields in (SPAM, ["--field", "from=c"])]
    assert [each["label"] for each in found] == ["spam", "ham"]
    assert (found[0]["text"], found[0]["fields"]) == ("noise", {"from": "a=b", "n": 5})
    explained = run("explain", "noise", "--features", "500", *SPAM).stdout
    assert "from: a=b" in explained
    assert "n: above 0" in explained
    for wrong, said in (("from", "must be NAME=VALUE"), ("=x", "must be NAME=VALUE"), ("a" * 65 + "=1", "at most 64")):
        done = run("predict", "noise", "--field", wrong)
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr


SPAM = ["--field", "from=a=b", "--field", "n=5"]


def test_a_file_with_fields_is_evaluated(run: Run, tmp_path: Path) -> None:
    lines = [f"noise,{('spam', 'ham')[n % 2]},{('NL', 'BE')[n % 2]}" for n in range(200)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label,country", *lines]) + "\n")
    model = ["--json", "--model", "linear?bits=12&max_labels=2"]
    bare, fielded = (
        json.loads(run("evaluate", "rows.csv", *model, *more).stdout)["accuracy"]
        for more in ([], ["--field-column", "country"])
    )
    assert bare < 0.7
    assert fielded > 0.9
    done = run("evaluate", "rows.csv", "--field-column", "nothing")
    assert (done.returncode, "no column 'nothing'" in done.stderr) == (1, True), done.stderr
    assert "--field-column" in done.stderr


def test_a_file_with_vectors_is_evaluated(run: Run, tmp_path: Path) -> None:
    drawn = Random(7).choices(range(2), k=200)
    lines = [f'noise,{("spam", "ham")[n]},"[{n}, 0.5]"' for n in drawn]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label,embedding", *lines]) + "\n")
    model = ["--json", "--model", "blend?bits=12&max_labels=2&dimension=2"]
    bare, with_vectors = (
        json.loads(run("evaluate", "rows.csv", *model, *more).stdout)["accuracy"]
        for more in ([], ["--vector-column", "embedding"])
    )
    assert bare < 0.7
    assert with_vectors > 0.9
    done = run("evaluate", "rows.csv", "--vector-column", "nothing")
    assert (done.returncode, "no column 'nothing'" in done.stderr) == (1, True), done.stderr
    assert "--vector-column" in done.stderr


def test_a_table_in_a_pipe_is_a_line_a_row(tmp_path: Path) -> None:
    """Whoever looks for a line finds all of it, whatever the width of a terminal that is not there."""
    clean = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "FORCE_COLOR"}}
    version = "a" * 100
    program = (
        "from rich.table import Table; from driftline.cli.terminal import print_table; table = Table(box=None); "
        f"table.add_column('version'); table.add_column(''); table.add_row({version!r}, 'b c'); "
        "table.add_row('d', ''); print_table(table)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=clean, cwd=tmp_path, check=True, timeout=60
    )
    assert [line.split(None, 1) for line in done.stdout.splitlines()] == [["version"], [version, "b c"], ["d"]]
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_the_banner_s_command_can_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the environment is not active, the name alone would not be found."""
    monkeypatch.setattr(sys, "argv", [".venv/bin/driftline", "up"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == ".venv/bin/driftline"
    (tmp_path / "driftline").touch(0o755)
    assert program() == "driftline"
    monkeypatch.setattr(sys, "argv", ["/lib/driftline/__main__.py", "up"])
    assert program() == "driftline"


def test_a_removed_key_is_said_and_what_no_key_means(run: Run) -> None:
    for name in ("alice", "bob"):
        assert run("keys", "add", name, "--role", "label").returncode == 0
    first, last = run("keys", "remove", "alice"), run("keys", "remove", "bob")
    assert first.stderr == "The key 'alice' no longer counts.\n"
    assert "None is left: an API that runs goes on asking for one." in last.stderr
    assert (first.stdout, last.stdout) == ("", "")
