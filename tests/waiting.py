"""Waiting for a condition, with a deadline: never for a time."""

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0, what: str = "") -> None:
    """Return once a condition holds; fail when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s: {what or condition}")
        time.sleep(0.01)


def delete(path: Path) -> None:
    """Delete a directory in which somebody may write at the same time: then what is new in it goes as well."""

    def is_gone() -> bool:
        with contextlib.suppress(OSError):  # a file came, or went, while its directory was emptied
            shutil.rmtree(path)
            return True
        return not path.exists()

    wait_until(is_gone, what=f"{path} is deleted")
