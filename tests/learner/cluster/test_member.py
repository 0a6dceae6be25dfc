"""Several learners go by one journal: one leads, the others have the same state and take its place."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.stream.log.base import Log
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.cluster import MODEL, Cluster, append, cluster


@pytest.fixture
def together(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


@pytest.fixture
def log(together: Cluster) -> Iterator[Log]:
    stream = together.stream("x")
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        yield log


def alone(log: Log, data: Path) -> bytes:
    """Return the model that one learner comes to that nobody disturbs."""
    stream = StreamSettings(data=data)
    with closing(Learner(stream, LearnerSettings(model=MODEL), log)) as learner:
        learner.start()
        learner.run(lambda: False, log.watermarks(stream.topics[:2]))
    return model_of(stream)


def model_of(stream: StreamSettings) -> bytes:
    return (list_checkpoints(stream.data / "checkpoints")[0] / "model.safetensors").read_bytes()


def test_the_one_that_is_chosen_leads_and_the_other_takes_its_place_with_the_same_model(
    together: Cluster, log: Log, tmp_path: Path
) -> None:
    one, other = together.start("one"), together.start("other")
    one.election.choose()
    append(log, 0, 20)
    one.wait_for("running", 20)
    other.wait_for("standby", 20)
    one.stop()
    other.election.choose()
    append(log, 20, 20)
    other.wait_for("running", 40)
    other.stop()
    assert model_of(other.stream) == alone(log, tmp_path / "alone")
    assert model_of(one.stream) != model_of(other.stream)
