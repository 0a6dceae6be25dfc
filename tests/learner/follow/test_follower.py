"""A follower has the leader's model, byte for byte, under the same versions, whatever is learned."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from driftline.learner.cluster.entries import Batch, Digest, Lesson, Mark
from driftline.learner.cluster.log_journal import LogJournal
from driftline.learner.cluster.order import Order
from driftline.learner.disk.checkpoint import list_checkpoints, load_manifest
from driftline.learner.disk.rebuilt import LeftOut
from driftline.learner.follow import follower
from driftline.learner.follow.model import FollowedModel
from driftline.learner.rebuild import erase
from driftline.learner.rebuild.rebuild import stage
from driftline.learner.report.status import Status
from driftline.learner.state.state import LearnerState
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.errors import ConfigError, StateError, StoreUnavailable
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.wire.records import NONE, Feedback, Message, encode
from tests.cluster import Cluster, Running, cluster
from tests.following import Replica, digest_of, following
from tests.waiting import delete, wait_until

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000


@pytest.fixture
def together(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, uploads=True) as made:
        yield made


@pytest.fixture
def log(together: Cluster) -> Iterator[Log]:
    stream = together.stream("x")
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        yield log


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for news more often than anybody would who has a machine to spare."""
    monkeypatch.setattr(follower, "RETRY_S", 0.05)
    monkeypatch.setattr(follower, "STORE_S", 0.05)
    monkeypatch.setattr("driftline.learner.follow.following.DIGEST_SHARE", 1000.0)
    monkeypatch.setattr("driftline.learner.follow.lag.LOOK_S", 0.05)


def say(log: Log, message: str, label: str | None, text: str, at_ms: int | None = None) -> None:
    """Append a message, and its label."""
    log.append("messages", [NewRecord(message.encode(), encode(Message(message, text)), at_ms)])
    if label is not None:
        log.append("feedback", [NewRecord(message.encode(), encode(Feedback(message, label)), at_ms)])


def send(log: Log, first: int, count: int, labels: str = "ab") -> None:
    for number in range(first, first + count):
        say(log, str(number), labels[number % len(labels)], f"text {number} é")


def leader(together: Cluster, **options: object) -> Running:
    """Start a learner that leads."""
    running = together.start("leader", **options)
    running.election.choose()
    return running


def learned(running: Running, updates: int) -> str:
    """Wait until the leader has learned so much; return its version then."""
    wait_until(lambda: running.error or running.member.shown.version.endswith(f"-{updates}"))
    return running.member.shown.version


def check(replica: Replica, leader: Running) -> None:
    """Compare the models of the two, once both have ended."""
    leader.stop()
    replica.wait(lambda: replica.model.batch >= load_manifest(newest(leader)).batch)
    replica.stop()
    assert replica.model.digest() == digest_of(leader.stream)
    assert replica.published is not None
    assert replica.published.version == replica.model.version == leader.member.shown.version
    assert replica.published.labels == leader.member.shown.labels
    assert replica.report.differed == 0


def newest(running: Running) -> Path:
    return list_checkpoints(running.stream.data / "checkpoints")[0]


class TestWhatIsLearned:
    def test_labels_new_ones_and_corrections(self, together: Cluster, log: Log) -> None:
        one = leader(together)
        with following(together.stream("replica"), together.store) as replica:
            replica.wait(lambda: replica.report.behind_entries == 0)
            assert replica.published is None, "nothing was learned"
            send(log, 0, 20)
            replica.wait_for(learned(one, 20))
            send(log, 20, 10, "abc")
            replica.wait_for(learned(one, 30))
            for number in range(5):
                log.append("feedback", [NewRecord(str(number).encode(), encode(Feedback(str(number), "c")))])
            replica.wait_for(learned(one, 35))
            assert replica.published is not None
            assert replica.published.feedback_offsets == {"0": 35}
            assert replica.published.labels_learned == 35
            assert replica.follower.shown.state == "following"
            check(replica, one)

    def test_who_comes_late_begins_with_the_newest_checkpoint(self, together: Cluster, log: Log) -> None:
        one = leader(together, checkpoint_interval_s=0.05)
        send(log, 0, 30)
        version = learned(one, 30)
        wait_until(lambda: together.store.newest_manifest()[1].counts.updates == 30)  # type: ignore[index]
        with following(together.stream("replica"), together.store) as replica:
            replica.wait_for(version)
            send(log, 30, 5)
            replica.wait_for(learned(one, 35))
            assert replica.report.base is not None
            assert replica.report.base > 0
            check(replica, one)

    def test_a_label_gives_its_place_to_another(self, together: Cluster, log: Log) -> None:
        one = leader(together, free_labels_hours=2.0)
        with following(together.stream("replica"), together.store) as replica:
            for hour in range(0, 15, 3):
                for number in range(12):
                    label = f"junk {hour} {number}" if number < 3 else "good"
                    say(
                        log,
                        f"{hour} {number}",
                        label,
                        f"words {number % 5} of {label}",
                        START_MS + hour * HOUR_MS + number,
                    )
            replica.wait_for(learned(one, 60))
            assert one.member.shown.counts.places_given >= 6
            assert "junk 12 0" in replica.model.classifier.labels
            check(replica, one)

    def test_what_stays_without_a_label_is_learned_as_one(self, together: Cluster, log: Log) -> None:
        one = leader(together, window_messages=5, expire_as="none")
        with following(together.stream("replica"), together.store) as replica:
            for number in range(20):
                say(log, str(number), "a" if number % 4 == 0 else None, f"text {number}")
            replica.wait_for(learned(one, 5 + 11))  # five labels; of the fifteen that left, eleven had none
            assert "none" in replica.model.classifier.labels
            check(replica, one)

    def test_vectors_that_come_with_messages(self, together: Cluster, log: Log) -> None:
        one = leader(together, model="blend?bits=10&max_labels=4&dimension=3")
        with following(together.stream("replica"), together.store) as replica:
            for number in range(20):
                key, vector = str(number), msgspec.Raw(encode([1, number % 2, number]))
                message = Message(key, f"text {number}", vector=vector if number % 5 else NONE)
                log.append("messages", [NewRecord(key.encode(), encode(message))])
                log.append("feedback", [NewRecord(key.encode(), encode(Feedback(key, "ab"[number % 2])))])
            replica.wait_for(learned(one, 20))
            assert replica.model.classifier.state()["ridge_weights"].any()
            check(replica, one)

    def test_a_model_of_another_library(self, together: Cluster, log: Log) -> None:
        spec = "river:naive_bayes.MultinomialNB?text.bits=8&max_labels=4"
        for name in ("leader", "replica"):
            together.options[name] = {"allow_pickle": True}
        one = leader(together, model=spec)
        with following(together.stream("replica"), together.store) as replica:
            send(log, 0, 10)
            replica.wait_for(learned(one, 10))
            with (
                following(together.stream("careful"), together.store) as careful,
                pytest.raises(ConfigError, match="allow-pickle"),
            ):
                careful.wait(lambda: careful.published)
            check(replica, one)

    def test_two_replicas_answer_alike_also_under_another_leader(self, together: Cluster, log: Log) -> None:
        one, other = leader(together), together.start("other")
        with (
            following(together.stream("replica"), together.store) as first,
            following(together.stream("second"), together.store) as second,
        ):
            send(log, 0, 10)
            learned(one, 10)
            one.stop()
            other.election.choose()
            send(log, 10, 10)
            version = learned(other, 20)
            assert version.partition("-")[0] != one.member.shown.version.partition("-")[0]
            for replica in (first, second):
                replica.wait_for(version)
            assert first.model.digest() == second.model.digest()
            check(first, other)

    def test_a_model_that_was_built_anew_takes_over(self, together: Cluster, log: Log) -> None:
        one = leader(together)
        with following(together.stream("replica"), together.store) as replica:
            send(log, 0, 20)
            replica.wait_for(learned(one, 20))
            stage(one.stream.data, log, LeftOut(), "bayes?bits=10&max_labels=4")
            replica.wait(lambda: replica.published and replica.published.model.startswith("bayes"))
            send(log, 20, 5)
            replica.wait_for(learned(one, 25))
            check(replica, one)

    def test_what_was_erased_is_no_longer_in_its_base(self, together: Cluster, log: Log) -> None:
        one = leader(together)
        with following(together.stream("replica"), together.store) as replica:
            send(log, 0, 20)
            replica.wait_for(learned(one, 20))
            erase.ask(one.stream.data, ["3"])
            replica.wait(lambda: replica.follower.shown.erased.times == 1)
            send(log, 20, 5)
            replica.wait_for(learned(one, 25))
            check(replica, one)


class Leader:
    """Says in a journal what the test wants, where a learner has led before."""

    def __init__(self, log: Log, running: Running, lineage: str = "crafted") -> None:
        self.manifest = load_manifest(newest(running))
        order, topics = Order(0, 0, 0), self.manifest.rules.topics
        self._journal = LogJournal(log, "journal", topics, order, "crafted", lambda _: None)
        while not self._journal.at_end:
            self._journal.read(0.05)
        self._journal.claim(self.manifest.rules, lineage, lambda _: None)
        self.updates = self.manifest.counts.updates

    def teach(self, *texts: str, target: int = 0, more: int = 0) -> int:
        """Say that texts were learned; return the batch."""
        content = [text.encode() for text in texts]
        lesson = Lesson(
            b"".join(content),
            np.array([len(text) for text in content], "<u4").tobytes(),
            np.full(len(texts), target, "<i4").tobytes(),
            b"",
            [],
        )
        self.updates += len(texts)
        epoch, batch = self._journal.epoch, self._journal.order.batch + 1
        spans = [(1, 0, self.updates - 1, self.updates, 1)]
        self._journal.say(Batch(epoch, batch, batch, spans, self.updates + more, self.updates, [lesson]))
        return batch

    def gate(self, why: str) -> None:
        self._journal.gate(self._journal.order.batch, why)

    def save(self, sha256: str) -> None:
        """Say that a checkpoint was made, and what its model is."""
        epoch, batch = self._journal.epoch, self._journal.order.batch
        self._journal.say(Mark(epoch, batch))
        self._journal.say(Digest(epoch, batch, sha256))

    def close(self) -> None:
        self._journal.close()


@pytest.fixture
def crafted(together: Cluster, log: Log) -> Iterator[Leader]:
    """Give a journal in which ten labels were learned, and one who leads from there."""
    one = leader(together)
    send(log, 0, 10)
    learned(one, 10)
    one.stop()
    with closing(Leader(log, one)) as made:
        yield made


class TestWhatIsHeldBack:
    def test_while_the_gate_is_shut_nothing_newer_is_shown(self, together: Cluster, crafted: Leader) -> None:
        with following(together.stream("replica"), together.store) as replica:
            crafted.teach("one more")
            replica.wait_for("crafted-11")
            crafted.gate("it is worse")
            batch = crafted.teach("and one")
            replica.wait(lambda: replica.model.batch == batch and replica.report.behind_entries == 0)
            replica.wait(lambda: replica.follower.shown.gate.why == "it is worse")
            assert replica.published is not None
            assert replica.published.version == "crafted-11"
            crafted.gate("")
            replica.wait_for("crafted-12")

    def test_who_begins_while_it_is_shut_shows_nothing(
        self, together: Cluster, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The leader says so again behind each checkpoint."""
        why = "it is worse"
        newest = LearnerState.newest.fget  # type: ignore[attr-defined]
        monkeypatch.setattr(LearnerState, "newest", property(lambda state: newest(state)._replace(why_not=why)))
        one = leader(together, checkpoint_interval_s=0.05)
        send(log, 0, 10)
        learned(one, 10)
        wait_until(lambda: one.member.shown.gate.why == why)
        send(log, 10, 5)
        wait_until(lambda: together.store.newest_manifest()[1].counts.updates == 15)  # type: ignore[index]
        with following(together.stream("replica"), together.store) as replica:
            replica.wait(lambda: replica.follower.shown.state == "following")
            assert (replica.published, replica.follower.shown.gate.why) == (None, why)
            why = ""
            send(log, 15, 1)
            replica.wait_for(learned(one, 16))
            check(replica, one)

    def test_nobody_sees_less_than_before(
        self, together: Cluster, crafted: Leader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who starts again begins with an older checkpoint than what is served."""
        stream = together.stream("replica")
        with following(stream, together.store) as replica:
            crafted.teach("one more")
            replica.wait_for("crafted-11")
            replica.stop()
        seen: list[int] = []
        learn = FollowedModel.learn

        def slowly(model: FollowedModel, entry: Batch) -> None:
            seen.append(replica.published.labels_learned if replica.published else 0)
            time.sleep(0.1)
            learn(model, entry)

        monkeypatch.setattr(FollowedModel, "learn", slowly)
        with following(stream, together.store) as replica:
            crafted.teach("and one")
            replica.wait_for("crafted-12")
        assert min(seen) == 11


class TestWhatDiffers:
    def test_a_model_that_was_changed_is_found_and_healed(self, together: Cluster, log: Log) -> None:
        one = leader(together, checkpoint_interval_s=0.1)
        with following(together.stream("replica"), together.store) as replica:
            send(log, 0, 10)
            replica.wait_for(learned(one, 10))
            weights = next(
                a for a in replica.model.classifier.state().values() if a.dtype == np.float32 and a.size > 99
            )
            weights.reshape(-1)[7] += 1.0
            number = 10

            def differs() -> bool:
                nonlocal number
                send(log, number, 1)
                number += 1
                return replica.report.differed > 0

            replica.wait(differs)
            compared = replica.report.digests

            def alike() -> bool:
                nonlocal number
                send(log, number, 1)
                number += 1
                return replica.report.digests > compared

            replica.wait(alike)
            assert (replica.report.differed, replica.report.by) == (1, "lessons")
            assert replica.report.bases >= 2
            replica.report.differed = 0
            check(replica, one)

    def test_who_computes_other_bytes_goes_from_checkpoint_to_checkpoint(
        self, together: Cluster, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FollowedModel, "digest", lambda _: "0" * 64)
        one = leader(together, checkpoint_interval_s=0.1)
        with following(together.stream("replica"), together.store) as replica:
            number = 0

            def goes() -> bool:
                nonlocal number
                send(log, number, 1)
                number += 1
                return replica.report.by == "checkpoints"

            replica.wait(goes)
            assert replica.report.differed == 2
            assert "processor" in replica.report.why
            send(log, number, 5)
            replica.wait_for(learned(one, number + 5))
            replica.wait(lambda: "processor" in replica.follower.shown.detail)
            monkeypatch.undo()
            check_model(replica, one)

    def test_a_batch_that_does_not_follow_is_waited_out(self, together: Cluster, crafted: Leader) -> None:
        """It is of a model that took this one's place: only a later checkpoint leads on."""
        with following(together.stream("replica"), together.store) as replica:
            crafted.teach("one more")
            replica.wait_for("crafted-11")
            crafted.teach("of another model", more=7)
            replica.wait(lambda: "is about a model that has learned 19 labels" in replica.follower.shown.detail)
            replica.wait(lambda: "first checkpoint" in replica.follower.shown.detail)
            assert replica.published is not None
            assert replica.published.version == "crafted-11"

    def test_a_lesson_that_no_kernel_may_be_given_is_refused(self, together: Cluster, crafted: Leader) -> None:
        with following(together.stream("replica"), together.store) as replica:
            replica.wait(lambda: replica.report.behind_entries == 0)
            crafted.teach("of a label that nobody knows", target=99)
            replica.wait(lambda: "what no model of 2 labels can learn" in replica.follower.shown.detail)


def check_model(replica: Replica, leader: Running) -> None:
    leader.stop()
    wait_until(lambda: replica.model.batch == load_manifest(newest(leader)).batch)
    replica.stop()
    assert replica.model.digest() == digest_of(leader.stream)


class TestWhatIsAway:
    def test_one_that_cannot_keep_up_leaves_out_what_a_newer_checkpoint_has(
        self, together: Cluster, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(follower, "SLOW_S", 0.2)
        learn, slow = FollowedModel.learn, [True]

        def slowly(model: FollowedModel, entry: Batch) -> None:
            time.sleep(0.3 if slow[0] else 0)
            learn(model, entry)

        monkeypatch.setattr(FollowedModel, "learn", slowly)
        one = leader(together, checkpoint_interval_s=0.3, batch_records=1)
        with following(together.stream("replica"), together.store) as replica:
            number = 0

            def skips() -> bool:
                nonlocal number
                send(log, number, 2)
                number += 2
                return replica.report.skips > 0

            replica.wait(skips)
            slow[0] = False
            replica.wait_for(learned(one, number))
            check(replica, one)

    def test_a_store_that_is_away_is_waited_for_and_a_start_does_without_it(
        self, together: Cluster, crafted: Leader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stream, away = together.stream("replica"), [True]
        newest_manifest = CheckpointStore.newest_manifest

        def answer(store: CheckpointStore) -> object:
            if away[0]:
                raise StoreUnavailable("the store is away")
            return newest_manifest(store)

        monkeypatch.setattr(CheckpointStore, "newest_manifest", answer)
        with following(stream, together.store) as replica:
            replica.wait(lambda: replica.follower.shown.detail == "the store is away")
            assert replica.follower.shown.state == "waiting"
            away[0] = False
            replica.wait_for(f"{crafted.manifest.lineage}-10")
            replica.stop()
        away[0] = True
        crafted.teach("one more")
        with following(stream, together.store) as replica:
            replica.wait_for("crafted-11")

    def test_before_there_is_a_leader_nothing_is_missing(self, together: Cluster, log: Log) -> None:
        with following(together.stream("replica"), together.store) as replica:
            replica.wait(lambda: replica.report.behind_s == 0)
            assert replica.follower.shown.state == "waiting"
            assert "no learner has begun a journal yet" in replica.follower.shown.detail
            one = leader(together)
            send(log, 0, 5)
            replica.wait_for(learned(one, 5))

    def test_a_data_directory_that_is_deleted_ends_it_and_another_one_makes_it_again(
        self, together: Cluster, crafted: Leader
    ) -> None:
        stream = together.stream("replica")
        with following(stream, together.store) as replica:
            replica.wait_for(f"{crafted.manifest.lineage}-10")
            delete(stream.data)
            with pytest.raises(StateError, match="is gone"):
                replica.wait(lambda: False)
        with following(stream, together.store) as replica:
            crafted.teach("one more")
            replica.wait_for("crafted-11")

    @pytest.mark.usefixtures("crafted")
    def test_what_else_comes_is_asked_each_time(self, together: Cluster) -> None:
        class Other:
            turns, behind = 0, "the leader's figures are read"

            def turn(self) -> None:
                self.turns += 1

            def complete(self, status: Status) -> None:
                status.pending = 77

        with following(together.stream("replica"), together.store, other := Other()) as replica:
            replica.wait(lambda: replica.follower.shown.pending == 77 and replica.report.behind_s == 0)
            assert replica.report.too_far(1000) == "the leader's figures are read"
            before = other.turns
            replica.wait(lambda: other.turns > before)
