"""A disk that is full is waited for; one that fails ends the learner, which says so; in the end the bytes are the same.

The faults are made by the kernel where that can be had: strace lets one system call on one file fail, a limit on the
size of files is a quota that anyone may set, a small tmpfs takes root.
"""

import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from driftline.learner.disk import durable
from driftline.learner.disk import full as rooms
from driftline.learner.disk.checkpoint import list_checkpoints, load_checkpoint
from driftline.learner.disk.durable import AppendFile, replace, write_directory
from driftline.learner.report.status import read_status
from driftline.stream.errors import DiskFull
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, encode
from tests.data import ROOT
from tests.faults import strace
from tests.faults.scene import MODEL, N_MESSAGES, Scene, learn_to_end, make_scene, model_bytes
from tests.faults.serving import api
from tests.faults.test_fencing import holds_the_log
from tests.often import TORTURE
from tests.waiting import wait_until

only_long = pytest.mark.skipif(not TORTURE, reason="in `make torture` only")
needs_strace = pytest.mark.skipif(not strace.is_there(), reason="strace is not on this machine")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a tmpfs")


class Fault(NamedTuple):
    """A system call that fails, on one file of the data directory; the numbers count its calls there."""

    path: str
    call: str
    error: str
    when: str
    ends: bool  # whether the learner has to end


JOURNAL = "journal/000000000000-00000001.journal"
LAST_BATCH = 2 * N_MESSAGES // 8
LAST = f"checkpoints/.writing-{LAST_BATCH:012d}-00000001"
FAULTS = [
    Fault(JOURNAL, "write", "ENOSPC", "3..4", False),
    Fault(JOURNAL, "fdatasync", "EIO", "3", True),
]
PID = "$$"  # in a path: that of the process, which strace gives up to it
MORE_FAULTS = [
    Fault(f"{LAST}/model.safetensors", "write", "ENOSPC", "1..2", False),
    Fault(f"{LAST}/manifest.json", "fsync", "EIO", "1", True),
    Fault(JOURNAL, "write", "EDQUOT", "1..5", False),
    Fault(JOURNAL, "write", "EIO", "7", True),
    Fault(JOURNAL, "fdatasync", "ENOSPC", "5", True),
    Fault("journal", "fsync", "EIO", "2", True),
    Fault(f"journal/.writing-{LAST_BATCH:012d}-00000001.journal", "write", "ENOSPC", "1..3", False),
    Fault(f"journal/.writing-{LAST_BATCH:012d}-00000001.journal", "fsync", "EIO", "1", True),
    Fault(LAST, "mkdir", "ENOSPC", "1..2", False),
    Fault(LAST, "fsync", "EIO", "1", True),
    Fault(LAST, "rename", "ENOSPC", "1", False),
    Fault(LAST, "rename", "EIO", "1", True),
    Fault(f"{LAST}/window-0.msgpack", "write", "EIO", "1", True),
    Fault(f"{LAST}/SHA256SUMS", "write", "ENOSPC", "1..3", False),
    Fault(f"{LAST}/SHA256SUMS", "fsync", "ENOSPC", "1", True),
    Fault("checkpoints", "fsync", "EIO", "2", True),  # strace counts each thread apart
    Fault("checkpoints/.writing-000000000000-00000001/model.safetensors", "write", "ENOSPC", "1..3", False),
    Fault(".writing-status.json-00000001", "write", "ENOSPC", "1..9", False),
    Fault(f".writing-reserve-{PID}", "write", "ENOSPC", "1", False),
    Fault("snapshots/.writing-00000001-0000000001.model", "fallocate", "ENOSPC", "1..2", False),
    Fault("learner.lock", "write", "ENOSPC", "1", True),
    Fault("learner.lock", "fsync", "EIO", "1", True),
]


@pytest.fixture(scope="module")
def expected(module_memory: Path) -> bytes:
    """Give the model of a run without faults."""
    return learn_to_end(make_scene(module_memory / "undisturbed").stream)


def command(scene: Scene) -> list[str]:
    """Return a command line that learns to the end, with a checkpoint only there."""
    stream = scene.stream
    names = ("--data", str(stream.data), "--log", stream.log_url, "--model", MODEL)
    return [sys.executable, "-m", "driftline", "learn", "--stop-at-end", *names, "--batch-records", "8"]


def run(arguments: list[str]) -> tuple[int, str]:
    """Run a command line; return its exit code and what it said."""
    done = subprocess.run(
        arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, done.stderr


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "500", "NO_COLOR": "1"}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let this process write no file beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_part_that_found_no_room_is_taken_back(memory: Path) -> None:
    """Even where the first bytes of it did: what is written later would stand behind them, and nobody would read it."""
    path = memory / "file"
    file = AppendFile(path, b"head")
    file.append(b"one")
    for room in range(6):
        with largest_file(7 + room), pytest.raises(DiskFull, match="File too large"):
            file.append(b"second")
        assert path.read_bytes() == b"headone"
    file.append(b"second")
    file.close()
    assert path.read_bytes() == b"headonesecond"


def test_what_was_written_is_not_written_again_for_want_of_a_reserve(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reserve's own room is enough for an entry; then there is none for the reserve."""
    monkeypatch.setattr(rooms, "RETRY_S", 0.001)
    written, said, refusals = [], [], iter(range(3))

    def write() -> str:
        if next(refusals, None) == 0:
            raise DiskFull("no room")
        written.append("an entry")
        return "done"

    waits = rooms.DiskRoom(memory, lambda: False, said.append)
    (memory / "reserve").unlink()
    keep = waits._keep_reserve

    def keep_later() -> None:
        if len(said) < 4:
            raise DiskFull("no room for the reserve")
        keep()

    monkeypatch.setattr(waits, "_keep_reserve", keep_later)
    assert waits.wait_for(write) == "done"
    assert written == ["an entry"]
    assert said == ["no room", *["no room for the reserve"] * 3]
    assert (memory / "reserve").exists()


def test_a_directory_that_found_no_room_leaves_nothing(memory: Path) -> None:
    files = {"small": [b"1" * 10], "large": [b"2" * 60, memoryview(b"2" * 40)]}
    with largest_file(50), pytest.raises(DiskFull):
        write_directory(memory / "all", files)
    with largest_file(50), pytest.raises(DiskFull):
        AppendFile(memory / "file", b"0" * 51)
    with largest_file(50), pytest.raises(DiskFull):
        replace(memory / "status", b"0" * 51)
    assert list(memory.iterdir()) == []
    write_directory(memory / "all", files)
    assert (memory / "all" / "large").read_bytes() == b"2" * 100


@needs_strace
@pytest.mark.parametrize(
    "fault", FAULTS + (MORE_FAULTS if TORTURE else []), ids=lambda f: f"{f.path}-{f.call}-{f.error}"
)
def test_one_call_fails(fault: Fault, memory: Path, expected: bytes) -> None:
    scene = make_scene(memory / "scene")
    trace = memory / "trace"
    inject = f"--inject={fault.call}:error={fault.error}:when={fault.when}"
    options = ["--follow-forks", "--daemonize", f"--trace={fault.call}", f"--output={trace}", inject]
    path = shlex.quote(f"{scene.stream.data}/{fault.path}").replace(PID, f"'{PID}'")
    shell = f"exec strace {shlex.join(options)} --trace-path={path} {shlex.join(command(scene))}"
    code, said = run(["sh", "-c", shell])
    wait_until(lambda: trace.read_text().rstrip().endswith("+++"), what="strace has written all")
    lines = [line for line in trace.read_text().splitlines() if f" {fault.call}(" in line]
    assert any("(INJECTED)" in line for line in lines), "the fault did not happen"
    assert "Traceback" not in said
    if fault.ends:
        assert code == 1, said
        assert '"level": "error"' in said
        assert "(INJECTED)" in lines[-1], "tried again"
    else:
        assert code == 0, said
    assert learn_to_end(scene.stream) == expected


@pytest.mark.skipif(strace.is_there() and not TORTURE, reason="strace makes it fail above")
def test_an_fsync_that_fails_ends_the_learner(memory: Path, expected: bytes) -> None:
    """The same where there is no strace: Python's own function fails, from its fifth call on a journal on."""
    scene = make_scene(memory / "scene")
    arguments = command(scene)
    code, said = run([arguments[0], "-m", "tests.faults.failing", "5", *arguments[3:]])
    assert code == 1
    assert "the disk did not confirm a write" in said
    assert said.count("a journal is synced") == 5, "tried again"
    status = read_status(scene.stream.data)
    assert status is not None
    assert status.state == "failed"
    assert learn_to_end(scene.stream) == expected


def going_on(stream: StreamSettings) -> list[str]:
    """Return the command line of a learner that goes on."""
    names = ("--data", str(stream.data), "--log", stream.log_url, "--model", MODEL)
    options = ("--batch-records", "8", "--checkpoint-interval-s", "0.2")
    return [sys.executable, "-m", "driftline", "learn", *names, *options]


@contextmanager
def learner(stream: StreamSettings) -> Iterator[subprocess.Popen[str]]:
    """Run a learner that goes on; it has to end well when it is asked to."""
    with subprocess.Popen(going_on(stream), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=60)[1]
            assert process.returncode == 0, said
            assert "nothing is taken in until then" in said
            assert "there is room on the disk again" in said
            assert "Traceback" not in said
        finally:
            process.kill()


def learned(stream: StreamSettings, count: int) -> bool:
    status = read_status(stream.data)
    return status is not None and status.counts.labels_learned == count


def teach(log: Log, first: int, count: int) -> None:
    """Append labels with their texts."""
    for number in range(first, first + count):
        label = Feedback(f"m{number}", "ab"[number % 2], text=f"word{number % 7} of text {number}")
        log.append("feedback", [NewRecord(label.message_id.encode(), encode(label), number)])


def model_of(log_file: Path, data: Path) -> bytes:
    """Return the model that a learner without faults makes of a log."""
    return learn_to_end(StreamSettings(data=data, log=f"sqlite:///{log_file}"))


@only_long
def test_a_limit_on_the_size_of_files_is_waited_for(memory: Path) -> None:
    """No byte can be written to any file for a while, not even the status. Nothing is lost; it goes on by itself."""
    stream = StreamSettings(data=memory / "data", log=f"sqlite:///{memory / 'log.db'}")
    log = open_log(stream)
    log.create_topics(stream.topics)
    teach(log, 0, 20)
    with learner(stream) as process:
        wait_until(lambda: learned(stream, 20), 60, "the first labels are learned")
        unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        teach(log, 20, 20)
        wait_until(
            lambda: (status := read_status(stream.data)) and status.age_s > 2, what="it cannot say anything more"
        )
        newest = list_checkpoints(stream.data / "checkpoints")[0]
        load_checkpoint(newest)
        assert process.poll() is None
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
        wait_until(lambda: learned(stream, 40), what="it goes on")
    log.close()
    assert model_bytes(stream) == model_of(memory / "log.db", memory / "other")


@only_long
def test_a_learner_that_waits_for_room_still_ends_when_told_to(memory: Path) -> None:
    stream = StreamSettings(data=memory / "data", log=f"sqlite:///{memory / 'log.db'}")
    log = open_log(stream)
    log.create_topics(stream.topics)
    teach(log, 0, 20)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}  # no files: the limit would hold for those, too
    with subprocess.Popen(going_on(stream), cwd=ROOT, env=environment(), text=True, **pipes) as process:
        wait_until(lambda: learned(stream, 20), 60, "the first labels are learned")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        teach(log, 20, 20)
        wait_until(lambda: (status := read_status(stream.data)) and status.age_s > 2, what="it waits")
        process.terminate()
        said = process.communicate(timeout=60)[1]
    log.close()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "no checkpoint was written at the end" in said
    assert learn_to_end(stream) == model_of(memory / "log.db", memory / "other")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=False).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    """Write a file until there is no room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return filler


def stop_outside_of_a_transaction(pid: int, stream: StreamSettings) -> None:
    """Stop a learner where it does not hold the embedded log."""
    os.kill(pid, signal.SIGSTOP)
    while holds_the_log(stream):
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
        os.kill(pid, signal.SIGSTOP)


def warnings(client: httpx.Client) -> str:
    try:
        return str(client.get("/readyz").json()["warnings"])
    except httpx.TransportError:
        return ""


@needs_root
@pytest.mark.parametrize(
    "log_on_it", [pytest.param(False, marks=only_long, id="the log elsewhere"), pytest.param(True, id="the log on it")]
)
def test_a_full_disk_is_waited_for_and_readyz_says_so(small_disk: Path, tmp_path: Path, log_on_it: bool) -> None:
    log_file = (small_disk if log_on_it else tmp_path) / "log.db"
    stream = StreamSettings(data=small_disk / "data", log=f"sqlite:///{log_file}")
    log = open_log(stream)
    log.create_topics(stream.topics)
    teach(log, 0, 20)
    with learner(stream) as process, api(stream) as client:
        wait_until(lambda: learned(stream, 20), 60, "the first labels are learned")
        wait_until(lambda: "[]" in warnings(client), what="the API is ready")
        if log_on_it:
            stop_outside_of_a_transaction(process.pid, stream)  # what is to be learned must be there before it is full
        else:
            filler = fill(small_disk)
        teach(log, 20, 20)
        if log_on_it:
            filler = fill(small_disk)
            os.kill(process.pid, signal.SIGCONT)
        wait_until(lambda: "paused" in warnings(client), what="it says that it waits")
        assert "No space left on device" in warnings(client)
        load_checkpoint(list_checkpoints(stream.data / "checkpoints")[0])
        assert process.poll() is None
        filler.unlink()
        wait_until(lambda: learned(stream, 40), what="it goes on")
        wait_until(lambda: warnings(client) == "[]", what="all is well")
    log.close()
    copy = shutil.copytree(log_file.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("disk", "data", "copy"))
    assert model_bytes(stream) == model_of(copy / "log.db", tmp_path / "other")


@needs_root
def test_a_directory_that_may_not_be_written_is_refused(small_disk: Path, tmp_path: Path) -> None:
    """A disk that is mounted read-only."""
    log_file = tmp_path / "log.db"
    stream = StreamSettings(data=small_disk / "data", log=f"sqlite:///{log_file}")
    log = open_log(stream)
    log.create_topics(stream.topics)
    teach(log, 0, 20)
    before = model_of(log_file, stream.data)
    teach(log, 20, 5)
    log.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code, said = run(
        [
            sys.executable,
            "-m",
            "driftline",
            "learn",
            "--stop-at-end",
            "--data",
            str(stream.data),
            "--log",
            stream.log_url,
        ]
    )
    assert code == 1
    assert "cannot be written: [Errno 30] Read-only file system" in said
    assert "Traceback" not in said
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert model_bytes(stream) == before
    assert model_of(log_file, stream.data) == model_of(log_file, tmp_path / "other")


def test_a_write_that_found_room_is_not_tried_again_for_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a journal would have an entry twice: what was given up made the room, and cannot be had back yet."""
    monkeypatch.setattr(rooms, "RETRY_S", 0.0)
    reports: list[str] = []
    place = rooms.DiskRoom(tmp_path, lambda: False, reports.append)
    keep, calls = durable.replace, []

    def scarce(path: Path, content: bytes, mark: str = "") -> None:
        if len(reports) < 5:
            raise DiskFull(f"no room for {path.name}")
        keep(path, content, mark)

    def write() -> str:
        calls.append(len(reports))
        if not reports:
            raise DiskFull("no room for an entry")
        return "written"

    monkeypatch.setattr(durable, "replace", scarce)
    assert place.wait_for(write) == "written"
    assert calls == [0, 1]
    assert reports == ["no room for an entry"] + 4 * [f"no room for {rooms.FILE}"]
    assert (tmp_path / rooms.FILE).stat().st_size == rooms.RESERVE_BYTES
