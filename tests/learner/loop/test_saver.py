"""A checkpoint is made while the loop goes on; killed at any step of it, recovery gives the same bytes."""

import gc
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import list_checkpoints, state_files
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.machine.restore import copied
from driftline.learner.state.ledger import Ledger
from driftline.learner.state.saver import Saver
from driftline.learner.state.state import LearnerState
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, decode_prediction, encode
from tests.often import TORTURE
from tests.waiting import wait_until

MODEL = "linear?bits=10&max_labels=4"
N_TEXTS = 60
OFTEN = {"checkpoint_interval_s": 1e-6, "batch_records": 4}


@pytest.fixture
def stream(tmp_path: Path) -> StreamSettings:
    return StreamSettings(data=tmp_path / "data", log=f"sqlite:///{tmp_path / 'log.db'}")


@pytest.fixture
def filled(stream: StreamSettings) -> StreamSettings:
    """Give a log of messages, each with its label, some of these early, some late."""
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        for number in range(N_TEXTS):
            key = str(number)
            log.append("messages", [NewRecord(key.encode(), encode(Message(key, f"text {number} {number % 7}")))])
            other = str(number + 3 if number % 5 == 0 else max(0, number - 8))
            log.append("feedback", [NewRecord(other.encode(), encode(Feedback(other, "ab"[number % 2])))])
    return stream


def learn(stream: StreamSettings, **options: Any) -> None:
    """Learn all that is there."""
    with closing(open_log(stream)) as log:
        learner = Learner(stream, LearnerSettings(model=MODEL, **options), log)
        with closing(learner):
            learner.start()
            learner.run(lambda: False, log.watermarks(stream.topics[:2]))


def result(stream: StreamSettings) -> dict[str, Any]:
    """Return what must not depend on how often a learner was killed: the newest checkpoint but its batch and time."""
    newest = list_checkpoints(stream.data / "checkpoints")[0]
    files: dict[str, Any] = {path.name: path.read_bytes() for path in newest.iterdir() if path.name != "SHA256SUMS"}
    manifest = msgspec.json.decode(files.pop("manifest.json"))
    kept = ("labels", "positions", "clocks", "counts", "join_counts", "alarms")
    return files | {name: manifest[name] for name in kept}


def predictions(stream: StreamSettings) -> dict[str, set[bytes]]:
    """Return every prediction that was sent, by message; one may be there twice, but not two."""
    found: dict[str, set[bytes]] = {}
    with closing(open_log(stream)) as log:
        marks = log.watermarks(["predictions"])
        with closing(log.reader(dict.fromkeys(marks, 0))) as reader:
            while not all(reader.at_end(partition) for partition in marks):
                for record in reader.read(1000, 0.1):
                    assert record.value is not None
                    prediction = decode_prediction(record.value)
                    model = prediction.model_version.partition("-")[2]  # without the lineage, which is drawn
                    same = msgspec.structs.replace(prediction, model_version=model)
                    found.setdefault(prediction.message_id, set()).add(encode(same))
    return found


def killed_at(step: int, stream: StreamSettings) -> bool:
    """Learn in a process that ends itself before its n-th change below the data directory. Returns whether it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # no thread runs here
        child = os.fork()
    if child == 0:
        gc.freeze()  # what other tests have left, with threads that are not in this process, is not for it to collect
        left = [step]

        watched = tuple(str(stream.data / name) for name in ("checkpoints", "journal"))

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            writes = event == "open" and bool(set(str(arguments[1])) & set("wx"))
            if not (writes or event in {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}):
                return
            if str(arguments[0]).startswith(watched):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)

        try:
            sys.addaudithook(count)
            learn(stream, **OFTEN)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, 9}, "the learner failed"
    return code == 9


@pytest.mark.long
def test_killed_before_any_change_of_the_disk_nothing_is_lost_and_nothing_learned_twice(
    filled: StreamSettings, tmp_path: Path
) -> None:
    undisturbed = filled.model_copy(update={"data": tmp_path / "undisturbed"})
    learn(undisturbed)
    expected = result(undisturbed)
    kills, steps = 0, range(0, 46, 1 if TORTURE else 4)
    for step in steps:
        stream = filled.model_copy(update={"data": tmp_path / f"killed-{step}"})
        if not killed_at(step, stream):
            continue
        kills += 1
        if step % 3 == 0:
            killed_at(step // 2 + 3, stream)
        learn(stream, batch_records=7)
        assert result(stream) == expected, step
        assert not list((stream.data / "checkpoints").glob(".writing*"))
    assert kills > 0.75 * len(steps), "it ended before most steps"


def test_all_output_is_there_once_a_checkpoint_counts(filled: StreamSettings) -> None:
    for step in range(20, 60, 7):
        killed_at(step, filled)
    learn(filled)
    found = predictions(filled)
    assert found.keys() == {str(number) for number in range(N_TEXTS)}
    assert all(len(contents) == 1 for contents in found.values())


class Slow:
    """Stands in the way of a function until it is let through, or made to fail."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.called, self.open = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.called.set()
        assert self.open.wait(240)
        if self.error is not None:
            raise self.error
        return self._function(*arguments, **options)


@pytest.fixture
def running(filled: StreamSettings) -> Iterator[tuple[Learner, Log]]:
    with closing(open_log(filled)) as log:
        learner = Learner(filled, LearnerSettings(model=MODEL, **OFTEN), log)
        with closing(learner):
            learner.start()
            yield learner, log


def test_the_loop_goes_on_while_a_checkpoint_is_written(
    filled: StreamSettings, running: tuple[Learner, Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, _ = running
    slow = Slow(checkpoints.save_checkpoint)
    monkeypatch.setattr(checkpoints, "save_checkpoint", slow)
    learner.step()
    for _ in range(9):
        learner.step()
    assert slow.called.wait(30)
    status = learner.status("running")
    assert (status.batch, status.checkpoint) == (10, 0)
    assert len(list((filled.data / "journal").iterdir())) == 2, "never two under way"
    slow.open.set()
    wait_until(lambda: learner.step(0.0) >= 0 and learner.status("running").checkpoint == 1, 60, "it counts")
    learner.run(lambda: True)
    status = learner.status("stopped")
    assert status.checkpoint == status.batch > 1
    assert status.checkpoint_pause_seconds > 0
    assert list_checkpoints(filled.data / "checkpoints")[0].name == f"{status.batch:012d}"


def test_a_checkpoint_holds_the_state_at_its_moment_while_the_loop_goes_on(
    filled: StreamSettings, running: tuple[Learner, Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, log = running
    save, checkpoint = Saver._save, Ledger._checkpoint
    slow = Slow(save)
    moments: list[dict[str, bytes]] = []

    def noted(self: Ledger, work: LearnerState) -> None:
        files = state_files(copied(work.machine, None))  # type: ignore[arg-type]  # of which only the state is asked
        moments.append({name: b"".join(parts) for name, parts in files.items()})
        checkpoint(self, work)

    def saved_slowly(self: Saver, *arguments: Any) -> float:
        return slow(self, *arguments)  # type: ignore[no-any-return]

    monkeypatch.setattr(Saver, "_save", saved_slowly)
    monkeypatch.setattr(Ledger, "_checkpoint", noted)
    learner.step()
    learner.step()
    assert slow.called.wait(30)
    room = learner._work.machine.join.store.rows
    for number in range(1000, 2500, 100):  # more than there is room for: rows move
        fresh = [(b"%d" % n, f"text {n}") for n in range(number, number + 100)]
        log.append("messages", [NewRecord(key, encode(Message(key.decode(), text))) for key, text in fresh])
        log.append("feedback", [NewRecord(key, encode(Feedback(key.decode(), "a", id="x"))) for key, _ in fresh])
    ends = log.watermarks(filled.topics[:2])
    wait_until(lambda: learner.step(0.0) >= 0 and learner._work.reached(ends), 60, "the loop goes on")
    assert learner._work.machine.join.store.rows is not room
    slow.open.set()
    wait_until(lambda: learner.step(0.0) >= 0 and learner.status("running").checkpoint == 1, 60, "it counts")
    path = checkpoints.path_of(filled.data / "checkpoints", 1)
    assert {name: (path / name).read_bytes() for name in moments[0]} == moments[0]
    now = state_files(copied(learner._work.machine, None))  # type: ignore[arg-type]
    assert {name: b"".join(parts) for name, parts in now.items()} != moments[0]


def test_stopping_waits_for_the_one_under_way(
    filled: StreamSettings, running: tuple[Learner, Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, _ = running
    slow = Slow(checkpoints.save_checkpoint)
    monkeypatch.setattr(checkpoints, "save_checkpoint", slow)
    wait_until(lambda: learner.step(0.0) >= 0 and slow.called.is_set())
    assert learner.status("running").checkpoint == 0
    threading.Timer(0.2, slow.open.set).start()
    learner.run(lambda: True)
    found = [int(path.name) for path in list_checkpoints(filled.data / "checkpoints")]
    assert found == [learner.status("stopped").batch, 1, 0]


def test_a_failing_disk_ends_the_learner_and_nothing_is_tried_again(
    filled: StreamSettings, running: tuple[Learner, Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, _ = running
    slow = Slow(durable.write_directory)
    slow.error = OSError(5, "Input/output error")
    slow.open.set()
    monkeypatch.setattr(durable, "write_directory", slow)
    learner.step()
    with pytest.raises(OSError, match="Input/output"):
        wait_until(lambda: learner.step(0.0) < 0, 30)
    assert [path.name for path in (filled.data / "checkpoints").iterdir()] == [f"{0:012d}"]


def test_a_checkpoint_does_not_count_before_what_was_sent_is_durable(
    filled: StreamSettings, running: tuple[Learner, Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, log = running
    submit = log.submit
    slow = Slow(lambda topic, records: submit(topic, records).result())
    with ThreadPoolExecutor() as pool:
        monkeypatch.setattr(log, "submit", lambda topic, records: pool.submit(slow, topic, records))
        for _ in range(10):
            learner.step()
        assert slow.called.wait(30)
        assert [path.name for path in list_checkpoints(filled.data / "checkpoints")] == [f"{0:012d}"]
        slow.open.set()
        wait_until(lambda: learner.step(0.0) >= 0 and learner.status("running").checkpoint > 0, 60, "it counts")
