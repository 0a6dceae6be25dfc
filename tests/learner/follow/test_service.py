"""What `driftline serve --follow` refuses before anything is begun."""

from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftline.cli.main import app
from driftline.learner.disk.lock import Lock

KAFKA = "kafka://localhost:1"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--checkpoints", "file:///tmp/x"], "kafka://host:9092"),
        (["--log", KAFKA], "--checkpoints"),
        (["--log", KAFKA, "--checkpoints", "ftp://x"], "ftp"),
        (["--log", KAFKA, "--checkpoints", "file:///tmp/x", "--max-follower-lag-s", "0"], "max-follower-lag-s"),
    ],
)
def test_options_by_which_nobody_can_follow(tmp_path: Path, options: list[str], why: str) -> None:
    data = tmp_path / "data"
    found = CliRunner().invoke(app, ["serve", "--follow", "--port", "0", "--data", str(data), *options])
    assert found.exit_code != 0
    assert why in f"{found.output} {found.exception}"
    assert not data.exists()


def test_a_directory_that_another_one_has(tmp_path: Path) -> None:
    with closing(Lock(tmp_path)) as lock:
        lock.announce(1)
        (tmp_path / "store").mkdir()
        options = ["--log", KAFKA, "--checkpoints", (tmp_path / "store").as_uri()]
        found = CliRunner().invoke(app, ["serve", "--follow", "--port", "0", "--data", str(tmp_path), *options])
        assert found.exit_code != 0
        assert "is at work on" in f"{found.output} {found.exception}"
