"""How numbers of things are said."""

import re
from pathlib import Path

import pytest

from driftline.stream.words import counted
from tests.data import ROOT


def test_one_is_one() -> None:
    assert [counted(n, "time") for n in (0, 1, 2, 2000)] == ["0 times", "1 time", "2 times", "2,000 times"]
    assert [counted(n, "batch", "batches") for n in (1, 3)] == ["1 batch", "3 batches"]


@pytest.mark.parametrize("path", sorted((ROOT / "cli").rglob("*.py")), ids=lambda path: path.name)
def test_commands_say_no_number_of_things_without_it(path: Path) -> None:
    things = "batches|checkpoints|corrections|labels|messages|partitions|predictions|records|rows|times|timestamps"
    assert not re.findall(rf"\{{[^{{}}]+\}} (?:{things})\b(?!/)", re.sub(r"TextColumn\(.*", "", path.read_text()))
