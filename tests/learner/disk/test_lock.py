"""One holds a lock, and a reader never sees parts of what two holders say of themselves."""

import re
from pathlib import Path

import pytest

from driftline.learner.disk.lock import FILE, LINE_BYTES, Lock, alone, last_epoch
from driftline.stream.errors import StateError


def test_only_one_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for timeout_s in (0.0, 0.05):
        with (
            alone(path, "it is held"),
            pytest.raises(StateError, match="it is held"),
            alone(path, "it is held", timeout_s),
        ):
            pytest.fail("two hold it")
    with alone(path, "it is held"):
        pass


def test_an_epoch_is_announced_in_as_many_bytes_as_any_other(tmp_path: Path) -> None:
    assert last_epoch(tmp_path) == 0
    for epoch in (1, 2, 10, 123_456):
        lock = Lock(tmp_path)
        assert lock.last < epoch
        lock.announce(epoch)
        assert last_epoch(tmp_path) == lock.last_epoch() == epoch
        said = (tmp_path / FILE).read_bytes()
        assert len(said) == LINE_BYTES
        assert re.fullmatch(rb"process \d+ on \S+, epoch %d *\n" % epoch, said)
        lock.close()
