"""Several learners go by one journal: one leads, the others have the same state and take its place."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftline.cli.main import app
from driftline.learner.cluster.entries import Digest, decode
from driftline.learner.disk.checkpoint import list_checkpoints, load_manifest, read_sums
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.stream.errors import ConfigError
from driftline.stream.log.base import Log, TopicPartition
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.cluster import MODEL, Cluster, append, cluster
from tests.waiting import wait_until


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


def test_one_that_is_overtaken_follows_and_may_lead_again(together: Cluster, log: Log, tmp_path: Path) -> None:
    one, other = together.start("one"), together.start("other")
    one.election.choose()
    append(log, 0, 10)
    one.wait_for("running", 10)
    other.wait_for("standby", 10)
    other.election.choose()  # both take themselves for the one that leads
    append(log, 10, 10)
    other.wait_for("running", 20)
    one.wait_for("standby", 20)
    assert one.election.rejoined == 1
    one.election.choose()
    append(log, 20, 10)
    one.wait_for("running", 30)
    other.wait_for("standby", 30)
    one.stop()
    assert model_of(one.stream) == alone(log, tmp_path / "alone")


def test_one_with_another_model_takes_the_leaders_again(together: Cluster, log: Log) -> None:
    one, other = together.start("one", checkpoint_interval_s=0.2), together.start("other")
    one.election.choose()
    append(log, 0, 10)
    one.wait_for("running", 10)
    other.wait_for("standby", 10)
    standby = other.standby()
    arrays = standby.work.machine.classifier.state().values()
    max(arrays, key=lambda array: array.nbytes)[:] += 1  # as another processor might
    append(log, 10, 10)
    wait_until(lambda: other.standby() is not standby, what="it has begun anew")
    assert standby.differed is not None
    other.wait_for("standby", 20)
    one.stop()
    other.election.choose()
    append(log, 20, 1)
    other.wait_for("running", 21)


def test_one_that_ends_says_what_the_model_of_its_last_checkpoint_is(together: Cluster, log: Log) -> None:
    one, other = together.start("one"), together.start("other")
    one.election.choose()
    append(log, 0, 10)
    one.wait_for("running", 10)
    other.wait_for("standby", 10)
    one.stop()
    newest = list_checkpoints(one.stream.data / "checkpoints")[0]
    with closing(log.reader({TopicPartition(one.stream.journal_name, 0): 0})) as reader:
        said = [entry for record in reader.read(1000, 0) if isinstance(entry := decode(record.value), Digest)]
    assert said[-1:] == [Digest(1, int(newest.name), read_sums(newest)["model.safetensors"])]
    standby = other.standby()
    wait_until(lambda: not standby._marks, what="it compared the model that it had there")
    assert standby.differed is None
    other.wait_for("standby", 10)


def test_a_model_that_was_built_anew_takes_the_others_place_everywhere(together: Cluster, log: Log) -> None:
    one, other = together.start("one"), together.start("other")
    one.election.choose()
    append(log, 0, 20)
    one.wait_for("running", 20)
    other.wait_for("standby", 20)
    runner = CliRunner()
    flags = ["--data", str(one.stream.data), "--log", one.stream.log_url, "--model", "linear?bits=11&max_labels=4"]
    refused = runner.invoke(app, ["rebuild", "--data", str(other.stream.data), *flags[2:]])
    assert refused.exit_code != 0
    assert "stands by for another one" in str(refused.exception)
    done = runner.invoke(app, ["rebuild", *flags])
    assert done.exit_code == 0, done.output
    append(log, 20, 5)
    one.wait_for("running", 25)
    other.wait_for("standby", 25)
    one.stop()
    other.election.choose()
    append(log, 25, 1)
    other.wait_for("running", 26)
    other.stop()
    newest = list_checkpoints(other.stream.data / "checkpoints")[0]
    assert load_manifest(newest).config["bits"] == 11


def test_a_directory_of_one_learner_alone_begins_a_journal(together: Cluster, log: Log) -> None:
    append(log, 0, 10)
    learned = alone(log, together.stream("one").data)
    one = together.start("one")
    one.election.choose()
    append(log, 10, 10)
    one.wait_for("running", 20)
    one.stop()
    manifest = load_manifest(list_checkpoints(one.stream.data / "checkpoints")[0])
    assert (manifest.journal is not None, manifest.counts.labels_learned) == (True, 20)
    assert model_of(one.stream) != learned


def test_one_of_several_does_not_go_on_alone_unless_it_is_told_to(together: Cluster, log: Log) -> None:
    one = together.start("one")
    one.election.choose()
    append(log, 0, 10)
    one.wait_for("running", 10)
    one.stop()
    learner = Learner(one.stream, LearnerSettings(model=MODEL), log)
    with closing(learner), pytest.raises(ConfigError, match="one of several learners"):
        learner.start()
    append(log, 10, 5)
    with closing(Learner(one.stream, LearnerSettings(model=MODEL, journal="disk"), log)) as learner:
        learner.start()
        learner.run(lambda: False, log.watermarks(one.stream.topics[:2]))
    manifest = load_manifest(list_checkpoints(one.stream.data / "checkpoints")[0])
    assert (manifest.journal, manifest.counts.labels_learned) == (None, 15)
    last = together.start("one")  # and back again: what it learned alone is nobody else's
    last.election.choose()
    last.wait_for("running")
    last.stop()


def test_a_store_without_a_checkpoint_of_this_journal_is_waited_for_by_all_but_the_chosen(
    together: Cluster, log: Log
) -> None:
    one, other = together.start("one"), together.start("other")
    one.wait_for("standby")
    other.wait_for("standby")
    assert "first checkpoint" in other.member.shown.detail
    other.election.choose()
    append(log, 0, 3)
    other.wait_for("running", 3)
    one.wait_for("standby", 3)
