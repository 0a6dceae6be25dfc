"""A message that is erased is nowhere in the data directory, and all else holds as before."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from driftline.cli.waiting import Waiting
from driftline.learner.disk.rebuilt import LeftOut
from driftline.learner.loop import swap
from driftline.learner.loop.loop import Learner
from driftline.learner.loop.service import carry_out
from driftline.learner.rebuild import erase
from driftline.learner.rebuild.rebuild import stage as build
from driftline.learner.report.review import read_review
from driftline.learner.report.status import read_status, write_status
from driftline.stream.log.base import NewRecord, Place, TopicPartition
from driftline.stream.log.open import open_log, open_to_keep
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode
from tests.faults.stage import START_MS, SqliteStage, finish, learned, oracle, steps
from tests.grep import grep
from tests.waiting import wait_until

TEXT = "Please pay Erika Mustermann, DE89 3704 0044 0532 0130 00, by Friday"
NAME = "Mustermann"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    """Give a stage whose log is in the data directory."""
    with contextlib.closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        yield stage


def where(data: Path, what: str = NAME) -> list[str]:
    """Return the files in which something stands."""
    return [str(Path(path).relative_to(data)) for path in grep(data, what)]


def put(stage: SqliteStage, topic: str, value: Message | Feedback | bytes, key: bytes | None = None) -> None:
    encoded = value if isinstance(value, bytes) else encode(value)
    if isinstance(value, Message):
        key = value.id.encode()
    elif isinstance(value, Feedback):
        key = value.message_id.encode()
    stage.log.append(getattr(stage.stream.topics, topic), [NewRecord(key, encoded, START_MS + 500)])


def fill(stage: SqliteStage, learner: Learner | None = None) -> None:
    """Send others' messages, and the text in every way in which one may come."""
    stage.append(range(20))
    put(stage, "messages", Message("secret", TEXT))
    put(stage, "feedback", Feedback("secret", "a", source="user:42"))
    put(stage, "feedback", Feedback("other", "b", text=TEXT + " again", source="user:42", id="f1"))
    put(stage, "messages", b'{"id": "secret", "text": "%s", "ts": "never"}' % TEXT.encode())
    put(stage, "messages", Message("whole", TEXT, metadata=Raw(b'{"source":"user:42"}')))
    put(stage, "feedback", Feedback("none", "a", source="user:42"))
    if learner is not None:
        steps(learner, learned(learner, 23))


def test_a_message_is_nowhere_and_the_rest_goes_on(stage: SqliteStage, tmp_path: Path) -> None:
    fill(stage)
    stage.learn()
    before = stage.model()
    assert {"log.db-wal", "review.json", "window-0.msgpack"} <= {Path(path).name for path in where(stage.stream.data)}
    dry = stage.command("erase", "--id", "secret", "--id", "other", "--id", "whole", "--dry-run")
    assert "would be erased" in dry.stdout
    assert where(stage.stream.data)
    found = stage.command("erase", "--id", "secret", "--id", "other", "--id", "whole")
    assert found.exit_code == 0, (found.output, found.exception)
    assert "3 of messages, 2 of feedback, 2 of predictions, 1 of dead-letter" in found.stdout
    assert where(stage.stream.data) == []
    assert stage.model() == before, "what was learned stays until it is built anew"
    assert len(stage.checkpoints()) == 2
    assert stage.command("verify").exit_code == 0
    assert stage.newest().manifest.losses.losses == 0
    listed = json.loads(stage.command("erase", "--list", "--json").stdout)
    assert [each["records"] for each in listed] == [{"messages": 3, "feedback": 2, "predictions": 2, "dead-letter": 1}]
    assert where(stage.stream.data, "secret") == []
    stage.append(range(20, 40))
    stage.learn()
    assert stage.newest().manifest.counts.labels_seen == 43
    assert stage.command("verify").exit_code == 0
    assert stage.command("rebuild").exit_code == 0
    found = stage.command("verify")
    assert found.exit_code == 0, found.output
    assert stage.model() == oracle(tmp_path, range(20), range(20, 40))


def test_what_a_source_sent(stage: SqliteStage) -> None:
    fill(stage)
    put(stage, "messages", Message("mine", "a text of somebody else"))
    put(stage, "feedback", Feedback("mine", "b", source="user:42"))
    stage.learn()
    assert stage.newest().manifest.counts.labels_seen == 24
    found = stage.command("erase", "--source", "user:42")
    assert found.exit_code == 0, (found.output, found.exception)
    assert "1 of messages, 4 of feedback, 1 of predictions" in found.stdout
    assert where(stage.stream.data, "user:42") == []
    assert where(stage.stream.data, TEXT + " again") == []
    assert "log.db" in where(stage.stream.data), "the message `secret` was not theirs"
    stage.append([30])
    stage.learn()
    assert stage.command("verify").exit_code == 0


def test_the_model_is_built_anew_without_it_where_that_is_asked_for(stage: SqliteStage, tmp_path: Path) -> None:
    fill(stage)
    stage.learn()
    found = stage.command("erase", "--id", "secret", "--source", "user:42", "--rebuild")
    assert found.exit_code == 0, (found.output, found.exception)
    assert "It took over" in found.stdout
    assert where(stage.stream.data) == []
    assert stage.model() == oracle(tmp_path, range(20))


def test_a_learner_at_work_does_it_between_two_batches(stage: SqliteStage) -> None:
    with stage.learning() as learner:
        fill(stage, learner)
        learner._save()
        assert where(stage.stream.data)
        request = erase.ask(stage.stream.data, ["secret", "other", "whole"])
        stage.append(range(20, 40))
        steps(learner, lambda: not request.exists())
        steps(learner, learned(learner, 43))
        assert where(stage.stream.data) == []
        shown = read_review(stage.stream.data)
        assert {"secret", "other", "whole"}.isdisjoint(each.id for each in shown.messages + shown.labelled)
        finish(learner)
    status = read_status(stage.stream.data)
    assert status is not None
    assert status.erased.times == 1
    assert "erased" in stage.command("status").stdout
    assert stage.command("verify").exit_code == 0
    assert where(stage.stream.data) == []


def test_a_learner_that_stops_at_the_end_does_it_first(stage: SqliteStage) -> None:
    fill(stage)
    stage.learn()
    request = erase.ask(stage.stream.data, ["secret", "other", "whole"])
    damaged = erase.ask(stage.stream.data, ["x"])
    damaged.write_bytes(b"{")
    assert damaged.name > request.name
    stage.learn()
    assert not request.exists()
    assert not erase.pending(stage.stream.data)
    assert where(stage.stream.data) == []


def test_what_comes_of_it_while_the_learner_is_behind(stage: SqliteStage) -> None:
    """Predictions and dead letters of records that were not taken yet when somebody asked."""
    stage.append(range(3))
    stage.learn()
    fill(stage)
    put(stage, "messages", b'{"id": "secret", "text": 7, "was": "%s"}' % TEXT.encode())
    erase.ask(stage.stream.data, ["secret", "other", "whole"])
    stage.learn(batch_records=3, dead_letter_limit=1.0)
    assert where(stage.stream.data) == []
    assert where(stage.stream.data, "secret") == []
    found = erase.read_done(stage.stream.data)[0].records
    assert found == {"messages": 4, "feedback": 2, "predictions": 2, "dead-letter": 2}


def test_what_lies_behind_junk_waits_for_a_person_and_says_so(stage: SqliteStage) -> None:
    fill(stage)
    stage.learn(dead_letter_limit=1.0)
    stage.log.append("messages", [NewRecord(b"j", b"junk", START_MS + 900)] * 2000)
    assert stage.command("erase", "--id", "other").exit_code == 0, "what lies before it is erased"
    put(stage, "messages", Message("secret", TEXT))
    found = stage.command("erase", "--id", "secret")
    assert "--dead-letter-limit 1" in str(found.exception)
    assert "What was asked for stays in" in str(found.exception)
    stage.learn(dead_letter_limit=1.0)
    assert erase.pending(stage.stream.data) == []
    assert where(stage.stream.data, '"secret"') == []


def test_who_waits_for_a_learner_says_what_that_one_is_at(
    stage: SqliteStage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that waits in silence looks as if it hung."""
    monkeypatch.setattr("driftline.cli.waiting.PATIENCE_S", 0.0)
    with stage.learning() as learner:
        fill(stage, learner)
        learner._save()
        status = read_status(stage.stream.data)
        assert status is not None
        request = erase.ask(stage.stream.data, ["secret"])
        waiting, left = Waiting(stage.stream.data), ["paused", "paused", "stalled", "running"]

        def wait() -> None:
            status.state = left.pop(0)  # type: ignore[assignment]
            status.detail, status.at = f"it is {status.state}", time.time()
            write_status(stage.stream.data, status)
            waiting()
            if not left:
                request.unlink()

        carry_out(stage.stream, stage.log, request, wait)
        finish(learner)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("which is ")[2].partition(".")[0] for line in lines] == [
        f"{state} (it is {state})" for state in ("paused", "stalled", "running")
    ]
    assert f"process {status.pid}" in lines[0]
    assert "what was asked for stays" in lines[0]


def test_ids_of_labels_are_forgotten_by_their_messages(stage: SqliteStage) -> None:
    names = [f"erika.mustermann-{number}" + "-" * 40 * (number % 2) for number in range(5)]
    stage.append(range(3))
    put(stage, "feedback", Feedback("0", "b", id=names[0]))
    put(stage, "feedback", Feedback("1", "b", id=names[1], source="user:42"))
    put(stage, "feedback", Feedback("1", "a", id="another's"))
    put(stage, "feedback", Feedback("late", "b", id=names[2], source="user:42"))
    put(stage, "feedback", Feedback("late", "b", id="r", op="retract"))
    put(stage, "feedback", Feedback("later", "b", id=names[3]))
    put(stage, "feedback", Feedback("2", "b", id=names[4], source="user:42", op="retract"))
    stage.learn()
    assert stage.command("erase", "--id", names[0], "--id", names[3], "--source", "user:42").exit_code == 0
    assert [path for name in names for path in where(stage.stream.data, name[:18])] == []
    before = stage.newest().manifest
    put(stage, "feedback", Feedback("1", "a", id="another's"))
    put(stage, "messages", Message("later", "x"))
    stage.learn()
    after = stage.newest().manifest
    assert after.join_counts.repeated == before.join_counts.repeated + 1, "what else was known is known"
    assert after.counts.labels_learned == before.counts.labels_learned
    assert stage.command("verify").exit_code == 0


def test_labels_of_a_source_that_wait_in_partitions_that_were_added(stage: SqliteStage) -> None:
    def wait(numbers: range) -> None:
        for number in numbers:
            put(stage, "feedback", Feedback(f"late {number}", "a", source="user:42" if number % 2 else "me"))

    stage.append(range(10))
    wait(range(8))
    stage.learn()
    stage.add_partitions(4)
    stage.append(range(10, 20))
    wait(range(8, 16))
    stage.learn()
    assert stage.command("erase", "--source", "user:42").exit_code == 0
    assert where(stage.stream.data, "user:42") == []
    for number in range(16):
        put(stage, "messages", Message(f"late {number}", "x"))
    stage.learn()
    assert stage.newest().manifest.counts.labels_learned == 28
    assert stage.command("verify").exit_code == 0
    assert stage.command("rebuild").exit_code == 0
    assert stage.newest().manifest.counts.labels_learned == 28


def test_labels_that_wait_are_forgotten_too(stage: SqliteStage) -> None:
    put(stage, "feedback", Feedback("late", "a", source="user:42"))
    put(stage, "feedback", Feedback("later", "a"))
    stage.append(range(3))
    stage.learn()
    assert stage.command("erase", "--source", "user:42").exit_code == 0
    put(stage, "messages", Message("late", "x"))
    put(stage, "messages", Message("later", "y"))
    stage.learn()
    assert stage.newest().manifest.counts.labels_learned == 4


def test_bases_forget_it_and_can_still_be_begun_with(stage: SqliteStage) -> None:
    fill(stage)
    stage.learn()
    for part in range(20, 60, 8):
        stage.append(range(part, part + 8))
        stage.learn()
    assert list((stage.stream.data / "bases").iterdir())
    assert [path for path in where(stage.stream.data) if path.startswith("bases/")]
    assert stage.command("erase", "--id", "secret", "--id", "other", "--id", "whole").exit_code == 0
    assert where(stage.stream.data) == []
    for topic in stage.stream.topics[:2]:
        stage.drop_below(topic, 3)
    found = stage.command("rebuild", "--from-checkpoint", "--exclude", "id=59")
    assert found.exit_code == 0, (found.output, found.exception)
    assert "without 1 label that was left out (id=59)" in found.stdout
    assert stage.command("verify").exit_code == 0


def test_a_model_that_was_being_built_is_not_taken_over(stage: SqliteStage) -> None:
    fill(stage)
    stage.learn()

    def asked(*_: Any) -> None:
        if not erase.read_done(stage.stream.data):
            carry_out(stage.stream, stage.log, erase.ask(stage.stream.data, ["secret"]))

    build(stage.stream.data, stage.log, LeftOut(), on_records=asked)
    stage.learn()
    assert "something was erased" in str(swap.refusal(stage.stream.data))
    assert where(stage.stream.data, '"secret"') == []


def test_what_cannot_be_meant(stage: SqliteStage) -> None:
    for more, why in (
        ([], "1,000 at most"),
        (["--id", ""], "1,000 at most"),
        (["--id", "a"], "no learner has run there yet"),
        (["--id", "a", "--list"], "takes no --id"),
    ):
        assert why in str(stage.command("erase", *more).exception)
    stage.append(range(3))
    stage.learn()
    before = stage.model()
    found = stage.command("erase", "--id", "nobody has this")
    assert found.exit_code == 0
    assert "none was in the log" in found.stdout
    assert stage.model() == before


def test_retention_leaves_nothing_in_free_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.stream.log.sqlite.writer.RETENTION_S", 0.05)
    monkeypatch.setattr("driftline.stream.log.sqlite.writer.WIPE_S", 0.1)
    data = tmp_path / "data"
    with contextlib.closing(SqliteStage(StreamSettings(data=data, retention_bytes=1 << 20))) as stage:
        put(stage, "messages", Message("secret", TEXT))
        assert where(data)
        for number in range(40):
            put(stage, "messages", Message(str(number), "x" * 60_000))
        wait_until(lambda: where(data) == [], what="it is gone from the file and its WAL")
        assert stage.log.watermarks(["messages"])[TopicPartition("messages", 0)].low > 0


def wait_until_cleaned(log: Any) -> None:
    """Return once a log's writer has looked for what is old, twice."""
    seen: set[float] = set()

    def cleaned() -> bool:
        seen.add(log._writer._retention_due)
        return len(seen) > 2

    wait_until(cleaned, what="it looks for what is old")


def test_no_other_process_drops_what_the_learner_was_told_to_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftline.stream.log.sqlite.writer.RETENTION_S", 0.05)
    told = StreamSettings(data=tmp_path / "data", retention_hours=1000.0)
    untold = told.model_copy(update={"retention_hours": 0.01 / 3600})
    first = TopicPartition("messages", 0)
    with contextlib.closing(SqliteStage(told)) as stage:
        stage.append(range(5))
        stage.learn()
        for opened in (open_log, open_to_keep):
            with contextlib.closing(opened(untold)) as log:
                log.append("messages", [NewRecord(b"k", encode(Message("k", "x")))])
                wait_until_cleaned(log)
                assert log.watermarks(["messages"])[first].low == 0


def test_retention_goes_on_where_its_oldest_record_was_erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.stream.log.sqlite.writer.RETENTION_S", 0.05)
    stream = StreamSettings(data=tmp_path / "data", retention_hours=0.3 / 3600)
    with contextlib.closing(SqliteStage(stream.model_copy(update={"retention_hours": 1.0}))) as stage:
        for number in range(3):
            put(stage, "messages", Message(str(number), "x"))
        first = TopicPartition("messages", 0)
        assert stage.log.erase({first: [Place(0, b"0", START_MS)]}) == []
        with contextlib.closing(open_log(stream)) as log:
            wait_until(lambda: log.watermarks(["messages"])[first].low == 3, what="all is dropped")


def test_names_that_are_odd_find_what_they_name_and_nothing_else(stage: SqliteStage) -> None:
    """A record that cannot be read is found by its key or by a field of it that is a name, not by any text in it."""
    odd = 'a "quoted" (id) .*'
    stage.append(range(3))
    put(stage, "messages", Message(odd, TEXT, metadata=Raw(b'{"source":{"no":"name"}}')))
    put(stage, "messages", encode(Message(odd, TEXT)).replace(b'"text":', b'"text": 7, "was":'))
    put(stage, "messages", b'{"id": "x", "text": 1, "other": "spam"}')
    put(stage, "messages", b"not JSON, %s" % TEXT.encode(), odd.encode())
    put(stage, "feedback", Feedback("0", "b", id="spam"))
    stage.learn(dead_letter_limit=1.0)
    dry = json.loads(stage.command("erase", "--id", odd, "--id", "spam", "--dry-run", "--json").stdout)
    assert dry["records"] == {"messages": 3, "feedback": 1, "predictions": 1, "dead-letter": 2}
    assert stage.command("erase", "--id", odd, "--id", "spam").exit_code == 0
    assert where(stage.stream.data) == []
    assert len(where(stage.stream.data, '"other": "spam"')) > 0


def test_in_many_partitions(tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path / "data", partitions=3)
    with contextlib.closing(SqliteStage(stream)) as stage:
        stage.append(range(30))
        for number in range(6):
            put(stage, "messages", Message(f"secret {number}", TEXT))
            put(stage, "feedback", Feedback(f"secret {number}", "a", source="user:42"))
        stage.learn()
        names = [each for number in range(6) for each in ("--id", f"secret {number}")]
        assert stage.command("erase", *names).exit_code == 0
        assert where(stage.stream.data) == []
        stage.append(range(30, 40))
        stage.learn()
        assert stage.newest().manifest.counts.labels_seen == 46
        assert stage.command("verify").exit_code == 0
