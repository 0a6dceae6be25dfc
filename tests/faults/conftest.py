"""What the fault tests share."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from stream.settings import StreamSettings
from tests.faults import teller
from tests.faults.campaign import MODEL, N_LABELS, Course, command
from tests.faults.nursery import Nursery
from tests.faults.tally import tally

# Modules of which each test is one thing that was tried.
COUNTED = {
    "test_disk_faults": "a disk that is full, fails or is read-only",
    "test_kafka": "a Kafka that is stopped, slow, emptied or made again beneath a learner",
    "test_loss": "records that are gone, topics that are others: told, or accepted and counted",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Count what was tried."""
    report = yield
    name = item.path.stem
    if report.when == "call" and not report.skipped and name in COUNTED:
        tally(COUNTED[name], f"make torture ONLY={name}", 1, lost=int(report.failed))
    return report


@contextmanager
def directory_in_memory(otherwise: Path) -> Iterator[Path]:
    """Give an empty directory, in memory where that can be had: some tests write ten thousands of small files."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=shared, prefix="driftline-") as name:
        yield Path(name)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Give a test its own."""
    with directory_in_memory(tmp_path) as directory:
        yield directory


@pytest.fixture(scope="module")
def module_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the tests of a module one that they share."""
    with directory_in_memory(tmp_path_factory.mktemp("memory")) as directory:
        yield directory


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Log nothing: what is passed over is said ten thousands of times, and pytest would keep it all in memory."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Give the place that processes come from."""
    with contextlib.closing(Nursery(MODEL, tmp_path_factory.mktemp("nursery"))) as nursery:
        yield nursery


@pytest.fixture(scope="module", params=["sqlite", "kafka"])
def filled_log(request: pytest.FixtureRequest, module_memory: Path) -> tuple[str, StreamSettings]:
    """Give a log that is to be filled."""
    name, base = request.param, module_memory / request.param
    base.mkdir()
    if name == "sqlite":
        return name, StreamSettings(data=base / "none", log=f"sqlite:///{base / 'log.db'}")
    broker = request.getfixturevalue("kafka")
    return name, StreamSettings(data=base / "none", log=f"kafka://{broker}", prefix=f"{uuid4().hex}.")


@pytest.fixture(scope="module")
def course(filled_log: tuple[str, StreamSettings], nursery: Nursery) -> Course:
    """Give a log that is full, and the state that was learned from it without a kill, in `undisturbed`."""
    name, stream = filled_log
    base = stream.data.parent
    course = Course(name, stream, teller.fill(stream, base / "acknowledged", N_LABELS), base)
    child = nursery.start(*command(course.at("undisturbed"), "--stop-at-end"))
    assert child.wait() == 0, child.said
    return course
