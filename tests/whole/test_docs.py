"""Is what the pages say true? Every example is run, every link leads somewhere, every alert and code is there."""

import ast
import dataclasses
import doctest
import io
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import unquote

import httpx
import pytest
import typer
import yaml
from prometheus_client.parser import text_string_to_metric_families

from docs import build, commands
from driftline.api.settings import ApiSettings
from driftline.cli.main import app
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.registry import REGISTRY
from driftline.learner.report.status import State
from driftline.learner.store.upload_report import UploadReport
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import decode_feedback, decode_message, decode_prediction, decode_rejected
from tests.data import ROOT, labelled_file
from tests.examples import LANGUAGES, Block, Step, blocks, is_printed, pages, steps
from tests.faults.nursery import Nursery
from tests.manifests import AGREED, DEFAULTS, merged, schema
from tests.place import Place, running
from tests.ports import reserved
from tests.prometheus import FOLDER
from tests.waiting import wait_until

FOLDERS = ("stream", "learner", "api", "cli")
README_LINES = 150
COMPILED_S = 600  # on a machine that has never done so, and does other things
LEARNED_S = 120
# Commands that change nothing may be asked again, until what came before them is learned.
ASKED_AGAIN = {"predict", "explain", "invocations", "infer", "status", "snapshots", "model", "labels"}
# What a block that is not run may call, since no test has it.
ELSEWHERE = {"make", "docker", "kcat", "driftline", "curl", "source", "sqlite3", "cp", "mkdir"}
ELSEWHERE |= {"helm", "kubectl", "minikube"}
ALL = [(page, block) for page in pages() for block in blocks(page)]


class Service(NamedTuple):
    """A Driftline that runs, the directory in which it was started, and where commands come from."""

    url: str
    directory: Path
    nursery: Nursery

    @property
    def environment(self) -> dict[str, str]:
        """What a shell beside it has."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        return clean | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "NO_COLOR": "1", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Service]:
    """Give `driftline up` in an empty directory; the pages share it, README first."""
    directory = tmp_path_factory.mktemp("docs")
    for block in blocks(ROOT / "docs" / "start.md"):  # so that each page can be run by itself
        for step in steps(block) if block.language == "console" else ():
            if step.words[0] == "cat":
                write(step, Service("", directory, nursery))
    with reserved() as port:
        there = Service(f"http://127.0.0.1:{port}", directory, nursery)
        command = [sys.executable, "-m", "driftline", "up", "--port", str(port)]
        with subprocess.Popen(command, cwd=directory, env=there.environment, stdout=subprocess.DEVNULL) as process:
            try:

                def learns() -> bool:
                    assert process.poll() is None, "it has ended"
                    try:
                        return bool(httpx.get(f"{there.url}/readyz", timeout=30).json()["parts"]["learn"]["ready"])
                    except httpx.TransportError:
                        return False

                wait_until(learns, COMPILED_S, "the learner has compiled its kernels")
                yield there
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(60)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_examples_give_what_the_page_says(
    page: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [block for block in blocks(page) if block.language in ("console", "python", "pycon")]
    if not found:
        return
    there: Service = request.getfixturevalue("service")
    monkeypatch.chdir(there.directory)
    names: dict[str, Any] = {}
    left_out = []
    for block in found:
        if block.needs:
            try:
                (there.directory / block.needs).symlink_to(labelled_file(block.needs))
            except pytest.skip.Exception as reason:
                left_out.append(f"{block.where}: {reason}")
                continue
        {"console": run_console, "python": run_python, "pycon": run_session}[block.language](block, there, names)
    if left_out:
        pytest.skip(f"all others hold, but left out: {'; '.join(left_out)}")


def run_console(block: Block, there: Service, names: dict[str, Any]) -> None:
    del names
    for step in steps(block):
        run = {"curl": curl, "driftline": driftline, "cat": write}.get(step.words[0])
        assert run is not None, f"{block.where}: no test can run {step.words[0]!r}; is it `sh`?"
        said = run(step, there)
        if not is_printed(step.printed, said) and ASKED_AGAIN & set(re.split(r"[/ ?']", step.command)):
            answers = [said]

            def is_right(step: Step = step, run: Callable[..., str] = run, answers: list[str] = answers) -> bool:
                answers[0] = run(step, there)
                return is_printed(step.printed, answers[0])

            try:
                wait_until(is_right, LEARNED_S)
            except pytest.fail.Exception:
                pytest.fail(f"{block.where}: $ {step.command}\n{answers[0]}\nbut the page says\n{step.printed}")
        elif not is_printed(step.printed, said):
            pytest.fail(f"{block.where}: $ {step.command}\n{said}\nbut the page says\n{step.printed}")


def curl(step: Step, there: Service) -> str:
    """Do what curl would: -d, -H and -X are known."""
    words, body, headers, method = iter(step.words[1:]), None, {}, None
    url = ""
    for word in words:
        if word == "-d":
            body = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(":")
            headers[name] = value.strip()
        elif word == "-X":
            method = next(words)
        else:
            url = word
    assert url.startswith("localhost:8000/"), url
    url = url.replace("localhost:8000", there.url)
    return httpx.request(method or ("POST" if body else "GET"), url, content=body, headers=headers, timeout=60).text


def driftline(step: Step, there: Service) -> str:
    done = there.nursery.run(*step.words[1:], cwd=there.directory, environment=there.environment)
    return done.stdout or done.stderr


def write(step: Step, there: Service) -> str:
    """Do what `cat > FILE <<'END'` does."""
    name = re.fullmatch(r"cat > (\S+) <<'\w+'", step.command.split("\n")[0])
    assert name is not None, step.command
    (there.directory / name[1]).write_text("\n".join(step.command.split("\n")[1:]) + "\n")
    return ""


def run_python(block: Block, there: Service, names: dict[str, Any]) -> None:
    if name := re.match(r"# (\w+\.py)\b", block.text):
        (there.directory / name[1]).write_text(block.text)
        return
    said = io.StringIO()
    with redirect_stdout(said):
        exec(compile(block.text.replace("http://localhost:8000", there.url), block.where, "exec"), names)
    wanted = re.findall(r"^\s*print\(.*\)  # (.*)$", block.text, re.M)
    assert len(wanted) == block.text.count("print("), f"{block.where}: say what each print prints"
    assert is_printed("\n".join(wanted), said.getvalue()), f"{block.where}: {said.getvalue()}"


def run_session(block: Block, there: Service, names: dict[str, Any]) -> None:
    text = block.text.replace("http://localhost:8000", there.url)
    test = doctest.DocTestParser().get_doctest(text, names, block.where, block.page, block.line)
    said = io.StringIO()
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.write, clear_globs=False)
    assert result.attempted
    assert not result.failed, said.getvalue()
    names.update(test.globs)


@pytest.mark.parametrize("block", [block for _, block in ALL], ids=lambda block: block.where)
def test_an_example_that_is_not_run_is_one_that_could_be(block: Block) -> None:
    """It has a known language, its commands are taken, its data can be read."""
    assert block.language in LANGUAGES, f"```{block.language}"
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        options = tomllib.loads(block.text)
        assert options.keys() <= {
            name for settings in (StreamSettings, LearnerSettings, ApiSettings) for name in settings.model_fields
        }
    elif block.language == "yaml":
        said = yaml.safe_load(block.text)
        name = block.text.partition("\n")[0]
        assert name in ("# values.yaml", "# kustomization.yaml"), f"{block.where}: say which file it is"
        if name == "# values.yaml":
            schema().validate(merged(DEFAULTS, said))
    elif block.language == "sh":
        for line in re.sub(r"\\\n", " ", block.text).split("\n"):
            for part in re.split(r" \| | && |; ", re.sub(r"\s+#.*$", "", line)):
                words = Step(part, "").words if part else []
                while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                    del words[0]
                if words and words[0] not in ("echo", "export"):
                    assert words[0].removeprefix(".venv/bin/") in ELSEWHERE, f"{block.where}: {words[0]}"
                if words and words[0].endswith("driftline"):
                    parse(words[1:])


def parse(words: list[str]) -> None:
    """Have the command line read a command, without doing it."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("driftline", list(words[:1]), resilient_parsing=True)
    command = group.get_command(context, words[0])
    assert command is not None, words
    if inner := getattr(command, "commands", None):
        command, words = inner[words[1]], words[1:]
    command.make_context(words[0], list(words[1:]), parent=context)


def test_options_that_the_pages_name_exist() -> None:
    """Of ours; what stands in a block belongs to the block's program."""
    group: Any = typer.main.get_command(app)
    known = {"--help", "--version", *re.findall(r"--[a-z][a-z-]+", (ROOT / "Makefile").read_text())}
    for name, command in commands.every(group):
        for param in command.get_params(command.make_context(name, [], resilient_parsing=True)):
            known |= set(param.opts) | set(param.secondary_opts)
    known |= {"--read-only", "--tmpfs", "--build-arg", "--profile"}  # Docker's
    known |= {f"--{name.replace('_', '-')}" for name in AGREED}
    for folder in ("bench", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            known |= set(re.findall(r"\"(--[a-z][a-z-]+)", text))
            known |= {f"--{name.replace('_', '-')}" for name in re.findall(r"^    (\w+): Annotated\[", text, re.M)}
    for page in [ROOT / "ARCHITECTURE.md", *pages()]:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+[a-z]\b", text))
        assert named <= known, f"{page.name}: {named - known}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_the_readme_s_figures_are_measured() -> None:
    """Each of its table of figures stands in docs/measured.md, beside the command that makes it."""
    section = re.findall(r"^## How good and how fast.*?(?=^## )", (ROOT / "README.md").read_text(), re.M | re.S)[0]
    named = re.sub(r"`[^`]*`|\([^()]*\.md\)", "", section)  # settings of models are no figures
    figures = re.findall(r"(?<![\w.,])(?:\d*\.\d+|\d{1,3}(?:,\d{3})+|\d\d+)(?![\w%])", named)
    assert len(figures) > 20
    measured = (ROOT / "docs" / "measured.md").read_text()
    assert not [each for each in figures if not re.search(rf"(?<![\d.,]){re.escape(each)}(?!\d|,\d)", measured)]


def test_the_records_on_the_page_of_formats_are_records() -> None:
    text = (ROOT / "docs" / "kafka-and-formats.md").read_text()
    shown = re.findall(r"^### `([a-z-]+)`\n\n```json\n(.*?)^```$", text, re.M | re.S)
    sent = re.findall(r"^echo 'm1:(\{.*?\})' .* -t (\w+) ", text, re.M)
    decoders: dict[str, Callable[[bytes], object]] = {
        "messages": decode_message,
        "feedback": decode_feedback,
        "predictions": decode_prediction,
        "dead-letter": decode_rejected,
    }
    assert dict(shown).keys() == decoders.keys()
    assert {topic for _, topic in sent} == {"messages", "feedback"}
    for topic, record in [*shown, *((topic, record) for record, topic in sent)]:
        decoders[topic](record.encode())


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    assert commands.PAGE.read_text() == commands.page(), "`make docs` writes it anew"


def slug(heading: str) -> str:
    """Return where a heading is, as forges and the site have it."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")


def headings(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    return {slug(each) for each in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for target, place in re.findall(r"\]\((?![a-z]+:)([^()\s#]*)(?:#([^()\s]*))?\)", text):
        path = (page.parent / unquote(target)).resolve() if target else page
        assert path.exists(), f"{page.name}: {target}"
        if place:
            assert place in headings(path), f"{page.name}: {target}#{place}"


PLACE = re.compile(
    r"(?<![\w/.-])(?:stream|learner|api|cli|bench|tests|deploy|docs)(?:/[\w-]+)*/[\w-]+\.(?:py|yml|js|md)\b"
)


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    """As code or in a command, by their way from the root; tests also by their names alone."""
    if page.name == "CHANGELOG.md":
        return  # it is about the past
    text = page.read_text()
    assert not [name for name in PLACE.findall(text) if not (ROOT / name).exists()]
    tests = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    named = {name for each in re.findall(r"`(?:faults/)?(test_\w+)`|ONLY=(test_\w+)", text) for name in each if name}
    assert named <= tests


def test_the_map_has_every_room() -> None:
    """ARCHITECTURE.md has a row for each folder of code, and names each file in it; of the commands it names some."""
    found: dict[str, set[str]] = {}
    rows = re.findall(
        r"^\| \[[^]]*\]\(([\w/]+)/\)[^|]*\|[^|]*\|([^|]*)\|$", (ROOT / "ARCHITECTURE.md").read_text(), re.M
    )
    for room, files in rows:
        found.setdefault(room, set()).update(re.findall(r"`(\w+)`", files))
    there: dict[str, set[str]] = {}
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        there.setdefault(str(path.parent.relative_to(ROOT)), set()).add(path.stem)
    assert found.keys() == there.keys()
    for room, files in there.items():
        if room != "cli/commands":
            assert found[room] == files - {"__init__"}, room


def test_every_page_is_in_the_site_s_menu() -> None:
    menu = (ROOT / "docs" / "zensical.toml").read_text()
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        assert f'"{page.relative_to(ROOT)}"' in menu, page


def said_in(name: str) -> set[str]:
    """Return what a page of docs/ has as code."""
    return set(re.findall(r"`([^`\n]+)`", (ROOT / "docs" / name).read_text()))


def test_every_alert_metric_and_state_is_explained(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.publish()
    place.report(uploads=UploadReport(where="file:///store", batch=1, at=1.0))
    with running(place.stream) as url:
        families = list(text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).text))
        parts = httpx.get(f"{url}/readyz", timeout=30).json()["parts"]
    metrics = {each.name + ("_total" if each.type == "counter" else "") for each in families}
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
    text = (ROOT / "docs" / "operate.md").read_text()
    for rule in rules:
        assert f"### {rule['alert']}\n" in text
    assert {*get_args(State), "gone", "silent", *parts} <= said_in("operate.md")
    named = {each for each in said_in("operate.md") if each.startswith("driftline_")}
    start = {"driftline_learner_start_share"}  # only while one starts
    assert metrics - named == set(), "say what they mean"
    assert named - metrics - start <= {name for rule in rules for name in re.findall(r"driftline_\w+", rule["expr"])}


def codes(folders: tuple[str, ...], names: tuple[str, ...], at: int) -> set[str]:
    """Return the words that calls of these names have at a place."""
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        for call in calls:
            if ast.unparse(call.func).rpartition(".")[2] in names and len(call.args) > at:
                constants = (each.value for each in ast.walk(call.args[at]) if isinstance(each, ast.Constant))
                found |= {each for each in constants if isinstance(each, str)}
    return found


def test_every_code_is_explained() -> None:
    api, records = codes(("api",), ("ApiError",), 1), codes(("stream", "learner"), ("BadRecord",), 0)
    assert {"no-model", "unknown-key"} <= api
    assert {"not-json", "over-quota"} <= records
    assert api <= said_in("api-and-clients.md")
    assert records | {"orphaned", "ambiguous-id", "unknown-label", "too-many-labels"} <= said_in("kafka-and-formats.md")


@pytest.mark.parametrize("name", REGISTRY)
def test_every_setting_of_a_model_is_explained(name: str) -> None:
    assert {field.name for field in dataclasses.fields(REGISTRY[name].settings)} <= said_in("models.md")


def test_the_site_is_looked_at(tmp_path: Path) -> None:
    """What is wrong with a site is found: of each kind one."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text('<h1 id="top">Top</h1><a href="https://riverml.xyz">a link may lead away</a>')
    (tmp_path / "sub" / "fine.html").write_text('<img src="../a.png"><a href="../index.html#top">up</a>')
    (tmp_path / "a.png").touch()
    assert build.check(tmp_path) == []
    for wrong in (
        '<script src="https://cdn.example.com/a.js"></script>',
        '<link rel="stylesheet" href="//fonts.example.com/a.css">',
        '<p style="background: url(https://example.com/a.png)">',
        '<a href="gone.html">',
        '<a href="#nowhere">',
        '<img src="gone.png">',
        '<pre class="mermaid">',
    ):
        (tmp_path / "bad.html").write_text(wrong)
        (found,) = build.check(tmp_path)
        assert found.startswith("bad.html: ")
    (tmp_path / "bad.html").unlink()
    (tmp_path / "a.css").write_text("@import 'https://fonts.example.com/a.css';")
    assert len(build.check(tmp_path)) == 1


def test_the_site_is_built_and_asks_no_other_host() -> None:
    python = ROOT / ".venv-docs" / "bin" / "python"
    if not python.exists():
        pytest.skip("the site's tool is not installed: `make docs` installs it")
    done = subprocess.run(
        [python, "-m", "docs.build"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
