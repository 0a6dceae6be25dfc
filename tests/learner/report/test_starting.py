"""What is said while a learner starts: that it does, at what it is, and how much of that is done."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from driftline.cli.commands.serve import print_banner
from driftline.cli.commands.status import print_status
from driftline.cli.main import app
from driftline.learner import registry
from driftline.learner.disk.lock import Lock
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop import warm
from driftline.learner.loop.loop import Learner
from driftline.learner.loop.service import learn
from driftline.learner.quality.progress import Progress
from driftline.learner.report.health import Health
from driftline.learner.report.starting import LEAST, Start, telling
from driftline.learner.report.status import Status, change_status, last_status, read_status
from driftline.stream.errors import ConfigError
from driftline.stream.kernels import KERNELS, called_by, kernel
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.place import Place, get, post, refusal, running
from tests.waiting import wait_until

MODEL = "linear?bits=12&chars=0&max_labels=4"
Told = list[dict[str, Any]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Give what was written into the status file, in its order."""
    found: Told = []

    def note(data: Path, status: Status, *rest: Any) -> None:
        change_status(data, status, *rest)
        found.append(msgspec.to_builtins(status))

    monkeypatch.setattr("driftline.learner.loop.compiling.change_status", note)
    monkeypatch.setattr("driftline.learner.loop.service.change_status", note)
    return found


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hold up a start where it compiles, until the event is set."""
    go_on = threading.Event()
    compile_all = warm.warm_up

    def slow() -> None:
        assert go_on.wait(240)
        compile_all()

    monkeypatch.setattr("driftline.learner.loop.warm.warm_up", slow)
    yield go_on
    go_on.set()


def test_a_start_is_said_before_anything_else(tmp_path: Path, told: Told) -> None:
    stream = StreamSettings(data=tmp_path / "data")
    status = learn(stream, LearnerSettings(model=MODEL), stop_at_end=True)
    assert (status.state, status.start) == ("stopped", None)
    assert [(each["state"], each["start"]["doing"]) for each in told[:1]] == [("starting", "opening the log")]
    assert "compiling" in {each["start"]["doing"] for each in told if each["start"]}
    assert {each["model"] for each in told} == {MODEL}


def test_what_is_compiled_counts() -> None:
    """All that a start with a model compiles is compiled: the fixture of all tests has seen to that for `blend`."""
    warm.warm_up()
    for name in ("linear", "blend"):
        registry.warm_up(name)
        assert 0.9 < warm.shares(name)() <= 1.0
    before = warm.shares("linear")()

    @kernel
    def unknown(x):  # type: ignore[no-untyped-def]
        return x + 1 if x > 1 else x * 2 + 1

    try:
        assert 0.0 < warm.shares("linear")() < before
        assert [unknown] == called_by([unknown])
    finally:
        KERNELS.remove(unknown)


def test_every_surface_says_that_it_starts(
    place: Place, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftline.learner.loop.warm.shares", lambda _: lambda: 0.4)
    stream = place.stream
    log = open_log(stream)
    learner = Learner(stream, LearnerSettings(model=MODEL), log)
    starting = threading.Thread(target=learner.start)
    starting.start()
    health = Health("127.0.0.1", 0, lambda: learner.shown)
    try:
        with running(stream) as url:
            wait_until(lambda: (get(f"{url}/model").json()["learner"] or {}).get("state") == "starting")
            said = get(f"{url}/model").json()["learner"]
            assert said["alive"]
            assert (said["start"]["doing"], said["start"]["share"]) == ("compiling", 0.4)
            assert "40 % done" in refusal(post(f"{url}/predict", {"text": "a"}), 503)["message"]
            assert get(f"{url}/healthz").json()["learner"] == "starting"
            ready = get(f"{url}/readyz")
            assert ready.status_code == 200
            assert "40 % done" in ready.json()["parts"]["learn"]["why"]
            metrics = get(f"{url}/metrics").text
            assert "driftline_learner_alive 1.0" in metrics
            assert "driftline_learner_starting 1.0" in metrics
            assert "driftline_learner_start_share 0.4" in metrics
            assert post(f"{url}/feedback", {"message_id": "m", "label": "a", "text": "b"}).status_code == 202
            shown = CliRunner().invoke(app, ["status", "--data", str(stream.data)], terminal_width=200)
            assert shown.exit_code == 0, "it is at work"
            assert "starting" in shown.output
            assert get(f"http://127.0.0.1:{health.port}/healthz").json()["state"] == "starting"
            first = read_status(stream.data)
            assert first is not None
            wait_until(lambda: (now := read_status(stream.data)) is not None and now.at > first.at, what="it goes on")
            held.set()
            starting.join(240)
            wait_until(lambda: get(f"{url}/model").json()["learner"]["state"] == "running")
            assert get(f"{url}/model").json()["learner"]["start"] is None
            assert "driftline_learner_starting 0.0" in get(f"{url}/metrics").text
            learner.step()
            learner.run(lambda: True)
            wait_until(lambda: post(f"{url}/predict", {"text": "b"}).status_code == 200)
    finally:
        held.set()
        starting.join(240)
        health.close()
        learner.close()
        log.close()


def test_what_was_counted_before_stays_while_it_starts(place: Place, told: Told) -> None:
    place.report(state="stopped")
    with closing(open_log(place.stream)) as log, closing(Learner(place.stream, LearnerSettings(), log)) as learner:
        learner.start()
    assert told
    assert {each["counts"][name] for each in told for name in each["counts"] if name == "messages_seen"} == {11}


def test_a_status_of_another_version_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{}")
    assert last_status(tmp_path, MODEL).model == MODEL
    with closing(Lock(tmp_path)):
        change_status(tmp_path, last_status(tmp_path, MODEL), "starting", "", 1, Start("compiling", None, 0.0))
    found = read_status(tmp_path)
    assert found is not None
    assert found.start == Start("compiling", None, 0.0)


@pytest.mark.parametrize("model", ["blnd", "linear?bitz=20", "linear?bits=inf"])
def test_a_misspelt_model_ends_it_before_it_compiles(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftline.learner.loop.warm.warm_up", lambda: pytest.fail("it compiles"))
    with pytest.raises(ConfigError, match="model: "):
        learn(StreamSettings(data=tmp_path), LearnerSettings(model=model))
    status = read_status(tmp_path)
    assert status is None or status.state in {"failed", "starting"}


def test_telling_ends_with_its_block() -> None:
    told: list[Start] = []
    with telling(told.append, "compiling", lambda: 0.5):
        wait_until(lambda: len(told) > 2)
    n = len(told)
    assert {each.doing for each in told} == {"compiling"}
    assert n == len(told)


def test_what_is_left_is_told_from_the_share() -> None:
    assert "about 30 s left" in str(Start("compiling", 0.5, time.time() - 30))
    assert str(Start("compiling", LEAST / 2, time.time() - 1)).endswith("up to a minute, or more on a busy machine")
    assert str(Start("opening the log", None, time.time())) == "opening the log"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (None, "No learner is at work"),
        ({"state": "stopped"}, "No learner is at work"),
        ({"state": "starting", "detail": "compiling its kernels"}, "The learner is compiling its kernels. Until then"),
        ({"state": "waiting", "detail": "kafka b:1 is away"}, "The learner waits: kafka b:1 is away. Until then"),
        ({"state": "recovering"}, "The learner is recovering"),
        ({"state": "running"}, None),
    ],
)
def test_the_banner_says_what_the_learner_is_at(
    place: Place, changes: dict[str, Any] | None, line: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if changes is not None:
        place.report(**changes)
    print_banner("http://[::]:8000", "http://[::]:8000/docs", place.stream, read_status(place.stream.data))
    said = capsys.readouterr().out
    assert "http://localhost:8000" in said
    assert ("learner" in said.lower().partition("teach it")[0]) == (line is not None)
    assert line is None or line in said


def test_one_label_is_not_called_labels(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for number, said in ((1, "1 label: 1 that brought"), (2, "2 labels: 2 that brought")):
        place.report(progress=Progress().summary() | {"unasked": number})
        status = read_status(place.stream.data)
        assert status is not None
        print_status(status)
        assert said in capsys.readouterr().out
