"""A model built anew is that of a log without what was left out; it takes over at one stroke, whatever is killed."""

import contextlib
import itertools
import signal
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk.lock import Lock
from driftline.learner.disk.rebuilt import LeftOut
from driftline.learner.loop import swap
from driftline.learner.rebuild.bases import least_needed
from driftline.learner.rebuild.rebuild import stage as build
from driftline.learner.report.status import read_status
from driftline.stream.errors import OffsetsLost, Overtaken, RecordsLost
from driftline.stream.log.base import NewRecord
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import NONE, Feedback, Message, encode
from tests.faults.nursery import Nursery
from tests.faults.stage import MODEL, START_MS, SqliteStage, Stage, finish, learned, oracle, steps, text
from tests.often import kafka_in_torture
from tests.waiting import wait_until


def rebuilt(stage: Stage, *more: str) -> str:
    """Build anew through the command line, prove what it gave, and return what it said."""
    done = stage.command("rebuild", *more)
    assert done.exit_code == 0, (done.output, done.exception)
    assert not (stage.stream.data / "rebuild").exists()
    proved = stage.command("verify", "--to", str(stage.checkpoints()[-1]))
    assert proved.exit_code == 0, proved.output
    assert "the model was built anew between them" in proved.stdout
    return done.stdout


def give(stage: Stage, number: int, label: str, **fields: Any) -> None:
    """Append a label with its text."""
    feedback = Feedback(str(number), label, text=text(number), **fields)
    stage.log.append(stage.stream.topics.feedback, [NewRecord(b"%d" % number, encode(feedback), START_MS + 2 * number)])


def test_without_anything_left_out_it_is_the_model_of_a_fresh_learner(stage: Stage, tmp_path: Path) -> None:
    stage.add_partitions(3)
    for part in (range(30), range(30, 70)):
        stage.append(part)
        stage.learn(batch_records=7)
    before, data = stage.newest().manifest, stage.stream.data
    assert "from the log with no label left out" in rebuilt(stage)
    after, model = stage.newest().manifest, stage.model()
    assert after.positions == before.positions
    assert after.lineage != before.lineage
    stage.stream = stage.stream.model_copy(update={"data": tmp_path / "fresh"})
    stage.learn(batch_records=50)
    assert stage.model() == model
    stage.stream = stage.stream.model_copy(update={"data": data})
    stage.append(range(70, 80))
    stage.learn()
    assert stage.newest().manifest.counts.labels_seen == 80
    assert stage.newest().manifest.rebuilt == after.rebuilt


@kafka_in_torture
def test_labels_that_were_retracted_are_not_learned(stage: Stage, tmp_path: Path) -> None:
    stage.append(range(10))
    give(stage, 50, "a")
    stage.append(range(10, 20))
    give(stage, 50, "a", op="retract")
    give(stage, 51, "a", op="retract")  # before its label: takes nothing out
    stage.append([51])
    stage.learn()
    assert stage.model() != oracle(tmp_path, range(20), [51])
    assert "without 1 label that was retracted" in rebuilt(stage)
    assert stage.model() == oracle(tmp_path, range(20), [51])
    found = stage.command("status")
    assert "rebuilt" in found.stdout
    assert "1 label that was retracted" in found.stdout


@kafka_in_torture
def test_what_is_sent_twice_is_taken_back_once_and_stays_so(stage: Stage, tmp_path: Path) -> None:
    """As the join has it, by the last word of each id."""
    stage.append(range(10))
    give(stage, 50, "a", id="f1")
    give(stage, 50, "a", id="r1", op="retract")
    give(stage, 50, "a", id="f1")  # was there already
    stage.append(range(10, 20))
    stage.learn()
    assert "without 2 labels that were retracted" in rebuilt(stage)
    assert stage.model() == oracle(tmp_path, range(20))
    give(stage, 50, "b", id="f2")
    give(stage, 50, "a", id="r1", op="retract")  # was there already
    stage.learn()
    assert "without 2 labels that were retracted" in rebuilt(stage)
    assert stage.newest().manifest.counts.labels_learned == 21
    give(stage, 50, "b", id="f1")
    give(stage, 50, "a", id="f1")  # what it says last
    stage.learn()
    assert "without 2 labels that were retracted" in rebuilt(stage)
    assert stage.newest().manifest.counts.labels_learned == 22
    give(stage, 50, "a", id="r1")
    give(stage, 50, "a", id="r1", op="retract")
    stage.learn()
    assert "without 6 labels that were retracted" in rebuilt(stage)
    assert stage.model() == oracle(tmp_path, range(20))


@kafka_in_torture
def test_of_several_texts_with_one_id_that_one_is_taken_back_that_was_meant(stage: Stage, tmp_path: Path) -> None:
    topics = stage.stream.topics

    def label(words: str | None, which: str, **fields: Any) -> None:
        feedback = Feedback("customer 7", which, text=words, **fields)
        stage.log.append(topics.feedback, [NewRecord(b"customer 7", encode(feedback), START_MS + 100)])

    stage.append(range(20))
    for words, which in (("one text", "a"), ("another text", "b")):
        stage.log.append(topics.messages, [NewRecord(b"customer 7", encode(Message("customer 7", words)), START_MS)])
        label(words, which)
    label("one text", "a", op="retract")
    stage.learn()
    assert "without 1 label that was retracted" in rebuilt(stage)
    assert stage.newest().manifest.counts.labels_learned == 21
    label(None, "b", op="retract")
    stage.learn()
    assert "without 2 labels that were retracted" in rebuilt(stage)
    assert stage.model() == oracle(tmp_path, range(20))


@kafka_in_torture
def test_what_was_said_of_a_text_with_fields_is_taken_back_with_them_or_without(stage: Stage) -> None:
    nl, be = (msgspec.Raw(encode({"country": country})) for country in ("NL", "BE"))
    stage.append(range(20))
    for number, (said, taken_back) in enumerate([(nl, nl), (nl, NONE), (NONE, nl), (NONE, NONE), (nl, be)], 50):
        give(stage, number, "a", fields=said)
        give(stage, number, "a", op="retract", fields=taken_back)
    stage.learn()
    assert "without 4 labels that were retracted" in rebuilt(stage), "all but what was said of other fields"


@kafka_in_torture
def test_what_was_said_of_a_text_is_taken_back_whatever_its_vector(stage: Stage) -> None:
    one, other = (msgspec.Raw(encode(numbers)) for numbers in ([1, 2], [2, 1]))
    stage.append(range(20))
    for number, (said, taken_back) in enumerate([(one, one), (one, NONE), (NONE, one), (one, other)], 50):
        give(stage, number, "a", vector=said)
        give(stage, number, "a", op="retract", vector=taken_back)
    stage.learn()
    assert "without 4 labels that were retracted" in rebuilt(stage)


@pytest.mark.parametrize("damage", [b"no database", b"", None])
def test_a_built_model_whose_retractions_cannot_be_read_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        stage.append(range(20))
        give(stage, 3, "a", op="retract")
        stage.learn()
        build(stage.stream.data, stage.log, LeftOut())
        path = stage.stream.data / "rebuild" / "retractions.db"
        if damage is None:
            path.unlink()
        elif damage:
            path.write_bytes(damage * 1000)
        else:  # as an older version made it
            path.unlink()
            with contextlib.closing(sqlite3.connect(path)) as db, db:
                db.execute("CREATE TABLE retracted (message_id TEXT, partition INTEGER)")
                db.execute("INSERT INTO retracted VALUES ('3', 0)")
        stage.append(range(20, 25))
        before = stage.newest().manifest.counts.labels_learned
        stage.learn()
        assert "build the model again" in str(swap.refusal(stage.stream.data))
        assert stage.newest().manifest.counts.labels_learned == before + 5


@kafka_in_torture
def test_sources_ids_and_labels_are_left_out_of_the_past_only(stage: Stage, tmp_path: Path) -> None:
    stage.append(range(10))
    give(stage, 50, "b", source="bot")
    give(stage, 3, "a", op="retract", source="bot")  # what it took back stays
    give(stage, 52, "a", id="f1")
    give(stage, 53, "c")
    stage.append(range(10, 20))
    stage.learn()
    said = rebuilt(stage, "--exclude", "source=bot", "--exclude", "id=f1", "--exclude", "label=c", "--exclude", "id=7")
    assert "from the log without 4 labels that were left out (source=bot, id=f1, id=7, label=c)" in said
    assert stage.model() == oracle(tmp_path, range(7), range(8, 20))
    give(stage, 60, "b", source="bot")
    stage.learn()
    assert stage.newest().manifest.counts.labels_learned == 20
    assert stage.command("verify").exit_code == 0


@kafka_in_torture
def test_until_a_time_it_is_the_model_of_then_and_learning_goes_on_from_now(stage: Stage, tmp_path: Path) -> None:
    stage.append(range(40))
    stage.learn()
    moment = datetime.fromtimestamp((START_MS + 2 * 19 + 1) / 1000, UTC).isoformat()
    assert "without 20 labels that were left out" in rebuilt(stage, "--until", moment)
    assert stage.model() == oracle(tmp_path, range(20))
    assert stage.newest().manifest.counts.messages_seen == 40, "later messages may still be labelled"
    feedback = Feedback("30", "a")
    stage.log.append(stage.stream.topics.feedback, [NewRecord(b"30", encode(feedback), START_MS + 1000)])
    stage.learn()
    assert stage.newest().manifest.counts.labels_learned == 21


def test_messages_that_leave_after_that_time_are_not_learned_either(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        rules = {"window_messages": 5, "expire_as": "a"}
        stage.append(range(20))
        for number in range(20, 60):
            stage.log.append(
                "messages", [NewRecord(b"%d" % number, b'{"id":"n%d","text":"x y"}' % number, START_MS + 2 * number)]
            )
        stage.learn(**rules)
        assert stage.newest().manifest.counts.updates > 20
        rebuilt(stage, "--until", datetime.fromtimestamp((START_MS + 2 * 19 + 1) / 1000, UTC).isoformat())
        assert stage.newest().manifest.counts.updates == 20
        assert stage.model() == oracle(tmp_path, range(20))


def test_who_stands_in_for_a_learner_goes_by_its_rules(tmp_path: Path) -> None:
    """A command that does a learner's part was told nothing of windows: what waits stays, and is learned as before."""
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        rules = {"window_messages": 5, "expire_as": "a", "window_hours": 1000.0, "source_quota": "9/h"}
        for number in range(40):
            message = Message(f"n{number}", text(number))
            stage.log.append("messages", [NewRecord(b"%d" % number, encode(message), START_MS + 2 * number)])
        stage.learn(**rules)
        before = stage.newest().manifest.rules
        assert stage.command("rebuild").exit_code == 0
        assert stage.newest().manifest.rules == before
        model = stage.model()
        moment = datetime.fromtimestamp((START_MS + 20) / 1000, UTC).isoformat()
        assert stage.command("rebuild", "--until", moment).exit_code == 0
        assert stage.newest().manifest.rules == before, "until then is of the past only"
        assert stage.command("erase", "--id", "nobody's").exit_code == 0
        assert stage.newest().manifest.rules == before
        assert stage.command("rebuild").exit_code == 0
        assert stage.model() == model
        assert stage.command("verify").exit_code == 0


@kafka_in_torture
def test_another_model(stage: Stage) -> None:
    stage.append(range(30))
    stage.learn()
    said = rebuilt(stage, "--model", "bayes?bits=10&max_labels=4")
    assert "Start the learner with --model 'bayes?bits=10&max_labels=4' from now on, or without" in said
    assert stage.newest().manifest.config["classifier"] == "bayes"
    assert stage.newest().manifest.counts.labels_learned == 30


FOREIGN = [
    "river:naive_bayes.MultinomialNB?max_labels=4",
    "sklearn:linear_model.SGDClassifier?loss=log_loss&text.bits=12&max_labels=4",
]


@pytest.mark.parametrize("model", FOREIGN)
def test_a_model_of_another_library(tmp_path: Path, model: str) -> None:
    """Built and proved where pickles are allowed; refused where they are not, and nothing has changed."""
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data", allow_pickle=True))) as stage:
        stage.append(range(30))
        stage.learn(model=model)
        allowed, before = stage.stream, stage.model()
        stage.stream = allowed.model_copy(update={"allow_pickle": False})
        assert "--allow-pickle" in str(stage.command("rebuild", "--exclude", "id=3").exception)
        assert stage.model() == before
        stage.stream = allowed
        assert "without 1 label that was left out (id=3)" in rebuilt(stage, "--exclude", "id=3")
        assert stage.model() == oracle(tmp_path, range(3), range(4, 30), model=model)
        stage.append(range(30, 40))
        stage.learn(model=model)
        assert stage.model() == oracle(tmp_path, range(3), range(4, 40), model=model)


def test_from_our_model_to_one_of_another_library_and_back(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data", allow_pickle=True))) as stage:
        stage.append(range(30))
        stage.learn()
        before = stage.model()
        rebuilt(stage, "--model", FOREIGN[0])
        assert stage.model() == oracle(tmp_path, range(30), model=FOREIGN[0])
        rebuilt(stage, "--model", MODEL)
        assert stage.model() == before


def test_a_retraction_that_comes_after_the_look_for_them_counts_the_next_time(tmp_path: Path) -> None:
    """As any that comes after a model was built: the label stays in it until then, and `verify` knows."""
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        stage.append(range(20))
        stage.learn()
        late = itertools.chain([lambda: give(stage, 3, "b", op="retract")], itertools.repeat(lambda: None))
        build(stage.stream.data, stage.log, LeftOut(), on_records=lambda *_: next(late)())
        stage.learn()
        assert stage.model() == oracle(tmp_path, range(20))
        assert stage.newest().manifest.rebuilt is not None
        assert stage.command("verify", "--to", str(stage.checkpoints()[-1])).exit_code == 0
        assert "without 1 label that was retracted" in rebuilt(stage)
        assert stage.model() == oracle(tmp_path, range(3), range(4, 20))


def test_what_retention_dropped_is_counted(stage: Stage, tmp_path: Path) -> None:
    """It is refused, with what is gone and how many labels that is, unless it is accepted."""
    stage.append(range(30))
    stage.learn()
    before, feedback = stage.model(), stage.stream.topics.feedback
    for topic in stage.stream.topics[:2]:
        stage.drop_below(topic, 10)
    refused = stage.command("rebuild")
    assert type(refused.exception) is RecordsLost
    assert f"{feedback}[0]: 10 records, offsets 0 to 9" in str(refused.exception)
    assert "at most 20 of the 30 labels of this one" in str(refused.exception)
    assert "--accept-loss" in str(refused.exception)
    assert stage.model() == before
    assert not (stage.stream.data / "rebuild").exists()
    said = rebuilt(stage, "--accept-loss")
    assert f"{feedback}: 10 records were no longer in the log." in said
    assert stage.model() == oracle(tmp_path, range(10, 30))
    rebuilt(stage)  # it was learned from what there is now
    stage.append(range(30, 40))
    stage.learn()
    for topic in stage.stream.topics[:2]:
        stage.drop_below(topic, 12)
    assert "2 records, offsets 10 to 11" in str(stage.command("rebuild").exception)


def test_a_model_that_began_behind_the_logs_first_record_has_lost_nothing(stage: Stage, tmp_path: Path) -> None:
    stage.append(range(20))
    for topic in stage.stream.topics[:2]:
        stage.drop_below(topic, 5)
    stage.learn()
    rebuilt(stage)
    assert stage.model() == oracle(tmp_path, range(5, 20))


def test_from_the_oldest_checkpoint_that_the_log_follows(stage: Stage, tmp_path: Path) -> None:
    for start in range(0, 80, 10):
        stage.append(range(start, start + 10))
        stage.learn(keep_bases=2)
    assert len(list((stage.stream.data / "bases").iterdir())) == 2
    give(stage, 65, "b", op="retract")
    stage.append(range(80, 90))
    for topic in stage.stream.topics[:2]:
        stage.drop_below(topic, 3)
    stage.learn(keep_bases=2)
    refused = stage.command("rebuild", "--exclude", "id=70")
    assert "--from-checkpoint" in str(refused.exception)
    said = rebuilt(stage, "--exclude", "id=70", "--from-checkpoint")
    assert "without 1 label that was retracted and 1 label that was left out" in said
    assert "from the checkpoint of " in said
    assert stage.model() == oracle(tmp_path, range(65), range(66, 70), range(71, 90))
    assert "from the checkpoint of " in stage.command("status").stdout
    stage.append(range(90, 95))
    stage.learn(keep_bases=2)
    assert stage.command("verify").exit_code == 0
    for topic in stage.stream.topics[:2]:
        stage.drop_below(topic, 85)
    assert stage.command("rebuild", "--from-checkpoint").exit_code == 0
    assert "--from-checkpoint goes on with" in str(
        stage.command("rebuild", "--from-checkpoint", "--model", MODEL).exception
    )


def test_a_base_that_was_changed_proves_nothing(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        stage.append(range(20))
        stage.learn()
        assert stage.command("rebuild", "--from-checkpoint").exit_code == 0
        (base,) = (stage.stream.data / "bases").iterdir()
        sums = base / "SHA256SUMS"
        sums.write_text(sums.read_text() + "\n")
        found = stage.command("verify", "--to", str(stage.checkpoints()[-1]))
        assert found.exit_code == 2
        assert "is gone or was changed since" in found.stdout


def test_bases_lie_evenly_and_go_when_the_log_does_not_follow_them(stage: Stage) -> None:
    found = []
    for start in range(0, 60, 5):
        stage.append(range(start, start + 5))
        stage.learn(keep_bases=3)
        found = sorted(int(path.name) for path in (stage.stream.data / "bases").glob("*"))
        assert len(found) <= 3
    assert found[0] == 0, "the oldest stays"
    for topic in stage.stream.topics[:2]:
        stage.drop_below(topic, 7)
    stage.append(range(60, 65))
    stage.learn(keep_bases=3)
    left = sorted(int(path.name) for path in (stage.stream.data / "bases").glob("*"))
    assert 0 not in left
    stage.append(range(65, 70))
    stage.learn(keep_bases=0)
    assert not list((stage.stream.data / "bases").glob("*"))
    times: list[float] = []
    for turn in range(1000):
        times.insert(0, 30.0 * turn)
        if len(times) > 5:
            times.pop(least_needed(times))
    ages = [times[0] - each for each in times]
    assert ages[-1] == 30.0 * 999
    assert max(later - earlier for earlier, later in itertools.pairwise(ages)) < 0.6 * ages[-1]


@kafka_in_torture
def test_into_another_directory(stage: Stage, tmp_path: Path) -> None:
    stage.append(range(30))
    stage.learn()
    before = stage.model()
    other = tmp_path / "other"
    said = stage.command("rebuild", "--into", str(other), "--exclude", "id=3").stdout
    assert f"Learn on with it: driftline learn --data {other}" in said
    assert stage.model() == before
    stage.append(range(30, 40))
    stage.stream = stage.stream.model_copy(update={"data": other})
    stage.learn()
    assert stage.model() == oracle(tmp_path, range(3), range(4, 40))
    again = stage.command("rebuild", "--into", str(other))
    assert "holds a model already" in str(again.exception)


def test_a_learner_at_work_takes_it_over_between_two_batches(stage: Stage, tmp_path: Path) -> None:
    stage.append(range(30))
    with stage.learning(batch_records=10) as learner:
        steps(learner, learned(learner, 30))
        build(stage.stream.data, stage.log, LeftOut(ids=["3"]))
        before = learner.status("running").version
        stage.append(range(30, 60))
        steps(learner, lambda: swap.find(stage.stream.data) is None)
        assert learner.status("running").version.partition("-")[0] != before.partition("-")[0]
        found = learner.status("running").rebuilt
        assert found is not None
        assert found.excluded == 1
        steps(learner, learned(learner, 59))
        stage.append(range(60, 70))
        steps(learner, learned(learner, 69))
        finish(learner)
    predictions = stage.log.watermarks([stage.stream.topics.predictions])
    assert sum(mark.high for mark in predictions.values()) == 70, "nothing was sent twice"
    assert stage.model() == oracle(tmp_path, range(3), range(4, 70))
    assert stage.newest().manifest.counts.labels_seen == 69
    assert stage.command("verify").exit_code == 0


def test_who_took_it_over_and_is_overtaken_writes_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoints.save_checkpoint
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:

        def overtaken_just_before(*arguments: Any, **options: Any) -> None:
            with contextlib.closing(Lock(stage.stream.data, take_over=True)) as other:
                other.announce(other.last_epoch() + 1)
            save(*arguments, **options)

        stage.append(range(30))
        with stage.learning() as learner:
            steps(learner, learned(learner, 30))
            build(stage.stream.data, stage.log, LeftOut())
            steps(learner, lambda: swap.find(stage.stream.data) is None)
            stage.append(range(30, 40))
            steps(learner, learned(learner, 40))
            before = stage.checkpoints()
            monkeypatch.setattr(checkpoints, "save_checkpoint", overtaken_just_before)
            with pytest.raises(Overtaken):
                learner.run(lambda: True)
        assert stage.checkpoints() == before


@kafka_in_torture
def test_what_cannot_be_taken_over_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    stage.append(range(30))
    with stage.learning(batch_records=10) as learner:
        steps(learner, learned(learner, 30))
        build(stage.stream.data, stage.log, LeftOut())
        model = stage.stream.data / "rebuild" / "staged" / "model.safetensors"
        model.write_bytes(model.read_bytes()[:-1])
        steps(learner, lambda: swap.find(stage.stream.data) is None)
        why = swap.refusal(stage.stream.data)
        assert why is not None
        assert "model.safetensors does not have the SHA-256" in why
        stage.append(range(30, 40))
        steps(learner, learned(learner, 40))
        finish(learner)
    assert stage.model() == oracle(tmp_path, range(40))


def test_records_dropped_while_it_is_built_end_it(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        stage.append(range(30))
        stage.learn()
        before = stage.model()

        def drop(done: int, total: int) -> None:
            if done == total:
                stage.drop_below("feedback", 5)

        with pytest.raises(OffsetsLost, match="5 records"):
            build(stage.stream.data, stage.log, LeftOut(), on_look=drop)
        assert swap.find(stage.stream.data) is None
        assert stage.model() == before


def test_options_that_cannot_be_meant(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        for more, why in (
            (["--exclude", "colour=red"], "write source=NAME, id=NAME or label=NAME"),
            (["--until", "tomorrow"], "write a time as 2026-01-31T12:00:00+01:00"),
            ([], "no learner has run there yet"),
        ):
            assert why in str(stage.command("rebuild", *more).exception)


def test_beside_a_learner_that_runs_as_a_process(stage: Stage, tmp_path: Path, nursery: Nursery) -> None:
    stage.append(range(30))
    learner = nursery.start("learn", "--model", MODEL, *stage.flags())
    try:
        wait_until(lambda: seen_by(stage) == 30, 180, "it learns")
        said = rebuilt(stage, "--exclude", "id=3")
        assert "1 label that was left out (id=3)" in said
        found = read_status(stage.stream.data)
        assert found is not None
        assert found.pid == learner.pid, "it was not this process that took over"
        stage.append(range(30, 40))
        wait_until(lambda: seen_by(stage) == 39, 180, "it goes on")
    finally:
        learner.send(signal.SIGTERM)
        code = learner.wait()
    assert code == 0, learner.said
    assert stage.model() == oracle(tmp_path, range(3), range(4, 40))


def seen_by(stage: Stage) -> int:
    found = read_status(stage.stream.data)
    return found.counts.labels_seen if found is not None else 0
