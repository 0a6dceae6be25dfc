"""What a model could not learn is counted, shown, and not called learned; a replay counts the same."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.metrics_core import Metric

from driftline.learner.report.metrics import of_learner
from driftline.learner.report.status import read_status
from driftline.stream.log.base import NewRecord
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Message, encode
from tests.faults.stage import START_MS, SqliteStage

SPEC = f"class:{__name__}.Picky"


class Picky:
    """Takes the first two labels and the empty text's features, then fails."""

    def __init__(self) -> None:
        self.taken = 0

    def partial_fit(self, rows: Any, targets: Any, classes: Any = None) -> None:
        del rows, targets, classes
        self.taken += 1
        if self.taken > 2:
            raise RuntimeError("no more")

    def predict_proba(self, rows: Any) -> Any:
        return np.full((rows.shape[0], 2), 0.5)


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    assert __name__ in sys.modules
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data", allow_pickle=True))) as stage:
        yield stage


def test_what_it_fails_on_is_not_learned(stage: SqliteStage) -> None:
    for start in (0, 25):
        stage.append(range(start, start + 25))
        stage.learn(model=SPEC)
    counts = stage.newest().manifest.counts
    assert (counts.labels_seen, counts.labels_learned, counts.refused, counts.updates) == (50, 2, 48, 50)
    status = read_status(stage.stream.data)
    assert status is not None
    assert status.counts == counts
    families: dict[str, Metric] = {family.name: family for family in of_learner(status)}
    assert families["driftline_refused_labels"].samples[0].value == 48
    assert families["driftline_labels_learned"].samples[0].value == 2
    said = stage.command("status").stdout
    assert "2 learned" in said
    assert "48 labels that the model could not learn" in said
    assert json.loads(stage.command("status", "--json").stdout)["counts"]["refused"] == 48
    found = stage.command("verify")
    assert found.exit_code == 0, found.output


def test_expired_messages_that_it_fails_on_are_no_labels(stage: SqliteStage) -> None:
    stage.append(range(3))
    for number in range(20):
        value = encode(Message(f"m{number}", "x y"))
        stage.log.append("messages", [NewRecord(b"m", value, START_MS + 100 + number)])
    stage.learn(model=SPEC, window_messages=5, expire_as="a", batch_records=1)
    counts = stage.newest().manifest.counts
    assert counts.labels_learned + counts.refused <= counts.updates
    assert counts.labels_learned == 2
    assert counts.refused == counts.updates - 2


def test_evaluate_says_it(tmp_path: Path, stage: SqliteStage) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    from typer.testing import CliRunner  # noqa: PLC0415

    from driftline.cli.main import app  # noqa: PLC0415

    found = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["evaluate", str(file), "--model", SPEC])
    assert found.exit_code == 0, (found.output, found.exception)
    assert "8 labels not learned" in found.output
    del stage
