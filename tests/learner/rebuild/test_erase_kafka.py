"""On Kafka a tombstone takes a record where its topic is compacted; else it is said when. Nothing learns it again."""

from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from driftline.learner.rebuild import erase
from driftline.stream.log.base import NewRecord
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Message, encode
from tests.faults.stage import START_MS, KafkaStage, oracle
from tests.grep import grep

TEXT = "Please pay Erika Mustermann, DE89 3704 0044 0532 0130 00"


@pytest.fixture(params=["delete", "compact"])
def stage(request: pytest.FixtureRequest, kafka: str, tmp_path: Path) -> Any:
    stream = StreamSettings(data=tmp_path / "data", log=f"kafka://{kafka}", prefix=f"{uuid4().hex}.")
    with closing(KafkaStage(stream, kafka)) as stage:
        stage.configure(stream.topics[:2], **{"cleanup.policy": request.param})
        stage.policy = request.param
        yield stage


def test_a_message(stage: Any, tmp_path: Path) -> None:
    messages = stage.stream.topics.messages
    stage.append(range(10))
    stage.log.append(messages, [NewRecord(b"secret", encode(Message("secret", TEXT)), START_MS + 100)])
    stage.append([11])
    stage.learn()
    before = stage.newest().manifest.positions[messages]["0"]
    found = stage.command("erase", "--id", "secret", "--id", "11")
    assert found.exit_code == 0, (found.output, found.exception)
    compacted = stage.policy == "compact"
    assert ("tombstones were appended" if compacted else "not compacted; retention takes them") in found.stdout
    (done,) = erase.read_done(stage.stream.data)
    assert done.records[messages] == 2
    assert done.left[messages] == {"0": [10, 11]}
    assert grep(stage.stream.data, "Mustermann") == []
    stage.append([12])
    stage.learn()
    assert stage.newest().manifest.positions[messages]["0"] == before + 1 + 2 * compacted
    assert stage.command("verify").exit_code == 0
    assert stage.command("rebuild").exit_code == 0, "what the log still has of it is not learned again"
    assert stage.model() == oracle(tmp_path, range(10), [12])
    assert stage.command("verify").exit_code == 0
    assert grep(stage.stream.data, "Mustermann") == []
