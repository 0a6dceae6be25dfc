"""What the fault tests share."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


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
