"""What the leader shows, and what anybody chooses, is the same on all machines of one journal."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.rebuild import erase
from driftline.learner.report.history import ROWS, read_history, rows_of
from driftline.learner.report.review import read_review
from driftline.learner.report.status import last_status, read_status
from driftline.learner.serving.versions import Kept, Recent, Versions
from driftline.learner.shared import applied, asking, topic
from driftline.learner.shared.claims import Wanted, read_table
from driftline.learner.shared.followed import Followed
from driftline.learner.shared.replica import Replica
from driftline.learner.shared.teller import Teller
from driftline.stream.errors import LogUnavailable, StateError
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.cluster import MODEL, Cluster, Running, append, cluster
from tests.waiting import wait_until

OFTEN = {"checkpoint_interval_s": 0.1, "label_requests_per_hour": 36_000}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is told in seconds be told soon."""
    monkeypatch.setattr("driftline.learner.shared.teller.EVERY_S", 0.05)
    monkeypatch.setattr("driftline.learner.shared.teller.STORE_S", 0.05)


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


@pytest.fixture
def replica(together: Cluster, log: Log) -> Iterator[Replica]:
    with closing(Replica(log, together.stream("replica"))) as replica:
        yield replica


def until(replica: Replica, condition: object) -> None:
    """Have a replica read on until something holds."""
    wait_until(lambda: replica.turn(0.02) >= 0 and condition())  # type: ignore[operator]


def lead(together: Cluster, log: Log, name: str, first: int, count: int) -> Running:
    """Start a learner that leads and has learned some labels more."""
    running = together.start(name, **OFTEN)
    running.election.choose()
    append(log, first, count)
    running.wait_for("running", first + count)
    return running


def versions(data: Path) -> list[str]:
    return [kept.version for kept in Versions(data).kept()]


def shown(data: Path) -> dict[str, object]:
    """Return all that routes read, but for clocks."""
    status = read_status(data)
    assert status is not None
    status.at, status.gone = 0, False
    kept = Versions(data)
    return {
        "status": status,
        "review": read_review(data),
        "history": rows_of(data).tobytes(),
        "kept": versions(data),
        "pins": kept.pins(),
    }


def until_same(replica: Replica, data: Path, other: Path) -> None:
    """Have a replica read on until two directories show the same."""
    try:
        until(replica, lambda: shown(data) == shown(other))
    except pytest.fail.Exception:
        differs = [name for name, value in shown(data).items() if value != shown(other)[name]]
        pytest.fail(f"not the same: {differs}")


def ask(log: Log, data: Path, record: NewRecord, *replicas: Replica) -> None:
    """Ask for something at one machine; return once it is carried out at some."""
    there = applied.read(data)
    assert there is not None
    (place,) = log.append(there.topic, [record])
    for each in replicas:
        until(each, lambda each=each: asking.is_carried_out(each._data, record, place.offset))


class TestReplicas:
    def test_one_with_an_empty_directory_shows_what_the_leader_shows(
        self, together: Cluster, log: Log, replica: Replica
    ) -> None:
        one = lead(together, log, "one", 0, 20)
        data = together.stream("replica").data
        until(replica, lambda: (found := read_status(data)) is not None and found.alive and versions(data))
        until(replica, lambda: len(read_review(data).messages) == 20)
        one.stop()
        until(replica, lambda: (found := read_status(data)) is not None and found.state == "stopped")
        until_same(replica, data, one.stream.data)
        with closing(Replica(log, together.stream("another"))) as another:
            until(another, lambda: another.caught_up)
            assert shown(together.stream("another").data) == shown(data)
            there = applied.read(together.stream("another").data)
            assert there == applied.Applied("journal-state", another.order.offset)

    def test_another_leader_goes_on_where_the_one_before_was(
        self, together: Cluster, log: Log, replica: Replica
    ) -> None:
        one, other = lead(together, log, "one", 0, 20), together.start("other", **OFTEN)
        data = together.stream("replica").data
        until(replica, lambda: read_history(data, 0, time.time() + 60, 2000).time.size and versions(data))
        one.stop()
        until_same(replica, data, one.stream.data)
        history, kept = rows_of(data), versions(data)
        other.election.choose()
        append(log, 20, 20)
        other.wait_for("running", 40)
        until(replica, lambda: (found := read_status(data)) is not None and found.counts.labels_learned == 40)
        status = read_status(data)
        assert status is not None
        assert (status.epoch, status.pid) == (2, read_status(other.stream.data).pid)  # type: ignore[union-attr]
        other.stop()
        until_same(replica, data, other.stream.data)
        seconds = slice(0, ROWS[0])
        before, now = history[seconds], rows_of(data)[seconds]
        had = before.any(axis=1)
        later = had & (now != before).any(axis=1)
        assert had.any()
        assert not later.any() or later.sum() <= 1, "no second is shown twice, and none is gone"
        starts = now.view(np.float64)[:, 0][now.any(axis=1)]
        assert len(set(starts.tolist())) == len(starts)
        assert set(kept) <= set(versions(data))
        assert {each.id for each in read_review(data).messages} == {str(number) for number in range(40)}

    def test_an_overtaken_leaders_late_word_does_not_show(self, together: Cluster, log: Log, replica: Replica) -> None:
        one = lead(together, log, "one", 0, 6)
        data = together.stream("replica").data
        until(replica, lambda: read_status(data))
        status = read_status(data)
        assert status is not None
        late = msgspec.json.encode(msgspec.structs.replace(status, epoch=0, detail="late"))
        log.append("journal-state", topic.records(topic.STATUS, late, 0))
        log.append("journal-state", topic.records(topic.KEPT + "x-1", b"{}", 0))
        offset = replica.order.offset
        until(replica, lambda: replica.order.offset >= offset + 2)
        found = read_status(data)
        assert found is not None
        assert found.detail != "late"
        assert "x-1" not in versions(data)
        # Compaction would keep the late one: so the leader says it again.
        until(replica, lambda: topic.STATUS not in replica.order.overlaid)
        one.stop()

    def test_one_that_follows_has_a_status_of_its_own_with_the_leaders_figures(
        self, together: Cluster, log: Log
    ) -> None:
        stream = together.stream("follower")
        with closing(Followed(log, stream)) as followed:
            one = lead(together, log, "one", 0, 20)
            wait_until(lambda: (found := followed.leader) is not None and found.counts.labels_learned == 20)
            wait_until(lambda: not followed.behind and len(read_review(stream.data).messages) == 20)
            assert read_status(stream.data) is None
            status = last_status(stream.data, MODEL)
            status.state, status.pid = "standby", 7
            followed.complete(status)
            assert (status.state, status.pid, status.counts.labels_learned) == ("standby", 7, 20)
            leader = followed.leader
            assert leader is not None
            assert (status.progress, status.positions) == (leader.progress, leader.positions)
            one.stop()

    def test_what_went_while_nobody_read_it_goes_at_the_next_start(self, together: Cluster, log: Log) -> None:
        one = lead(together, log, "one", 0, 6)
        stream = together.stream("replica")
        with closing(Replica(log, stream)) as replica:
            until(replica, lambda: versions(stream.data))
        kept = Versions(stream.data)
        gone = msgspec.structs.replace(kept.kept()[0], version="gone-1")
        kept.list_one(gone)
        kept.set_pin("gone-1", None)
        with closing(Replica(log, stream)) as replica:
            until(replica, lambda: replica.caught_up)
        assert "gone-1" not in versions(stream.data)
        assert versions(stream.data)
        one.stop()

    def test_a_topic_that_is_made_anew_is_read_anew(self, together: Cluster, log: Log, replica: Replica) -> None:
        log.append("journal-state", [asking.pin("a-1", "x")])
        data = together.stream("replica").data
        until(replica, lambda: "a-1" in Versions(data).pins())
        replica._reader.close()
        replica._reader = log.reader({replica._partition: 99})
        replica.turn(0.01)
        assert replica.order.offset == 0 or not replica.caught_up
        until(replica, lambda: replica.caught_up and replica.order.offset == 1)

    def test_a_topic_that_a_broker_does_not_know_yet_is_waited_for(
        self, together: Cluster, log: Log, replica: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of several brokers one may hear of it late."""
        log.append("journal-state", [asking.pin("a-1", "x")])
        replica._reader.close()
        replica._reader = log.reader({replica._partition: 99})
        with monkeypatch.context() as late:
            late.setattr(log, "describe", lambda _: {})
            for _ in range(2):
                with pytest.raises(LogUnavailable, match="topic journal-state is not there, or not yet"):
                    replica.turn(0.01)
            with pytest.raises(LogUnavailable, match="not there, or not yet"):
                Replica(log, together.stream("another"))
        until(replica, lambda: "a-1" in Versions(together.stream("replica").data).pins())


class TestChoices:
    def test_what_is_chosen_at_one_is_served_at_all_also_after_a_start(
        self, together: Cluster, log: Log, replica: Replica
    ) -> None:
        one, data = lead(together, log, "one", 0, 10), together.stream("replica").data
        until(replica, lambda: versions(data))
        append(log, 10, 10)
        until(replica, lambda: len(versions(data)) > 1)
        version = versions(data)[-1]
        assert not Versions(data).has_model(version)
        ask(log, data, asking.choose(version), replica)
        assert Versions(data).active().version == version
        assert Versions(data).open(version).info().version == version
        wait_until(lambda: Versions(one.stream.data).active() == Versions(data).active())
        with closing(Replica(log, together.stream("another"))) as another:
            until(another, lambda: Versions(together.stream("another").data).active().version == version)
        choices = sorted((data / "snapshots").glob("active-*"))
        with closing(Replica(log, together.stream("replica"))) as again:
            until(again, lambda: again.caught_up and again._served == again._choice)
        assert sorted((data / "snapshots").glob("active-*")) == choices, "nothing is chosen anew"
        ask(log, data, asking.choose(None), replica)
        assert Versions(data).active().version is None
        one.stop()

    def test_of_several_the_last_in_the_order_counts(self, together: Cluster, log: Log, replica: Replica) -> None:
        one, data = lead(together, log, "one", 0, 10), together.stream("replica").data
        until(replica, lambda: versions(data))
        append(log, 10, 10)
        until(replica, lambda: len(versions(data)) > 1)
        first, last = versions(data)[-1], versions(data)[0]
        log.append("journal-state", [asking.choose(first), asking.choose(None), asking.choose(last)])
        until(replica, lambda: Versions(data).active().version == last)
        wait_until(lambda: Versions(one.stream.data).active().version == last)
        one.stop()

    def test_a_model_that_the_store_does_not_give_is_waited_for_and_told(
        self, together: Cluster, log: Log, replica: Replica
    ) -> None:
        one = lead(together, log, "one", 0, 20)
        data = together.stream("replica").data
        until(replica, lambda: versions(data))
        version = versions(data)[0]
        model = next((together.stream("x").data.parent / "store" / "models").glob(f"{version}-*"))
        hidden = model.rename(model.with_name("hidden"))
        log.append("journal-state", [asking.choose(version)])
        until(replica, lambda: "cannot be served" in (applied.read(data) or applied.Applied("", 0)).why_not)
        assert Versions(data).active().version is None
        offset = replica.order.offset
        log.append("journal-state", [asking.pin(version, "good")])
        until(replica, lambda: replica.order.offset > offset)
        assert Versions(data).pins()[version].name == "good", "nothing else waits for it"
        hidden.rename(model)
        until(replica, lambda: Versions(data).active().version == version)
        assert (applied.read(data) or applied.Applied("", 0)).why_not == ""
        one.stop()

    def test_what_is_pinned_stays_everywhere_and_what_is_dropped_goes_everywhere(
        self, together: Cluster, log: Log, replica: Replica
    ) -> None:
        one = together.start("one", **OFTEN, keep_snapshots=2)
        one.election.choose()
        append(log, 0, 4)
        one.wait_for("running", 4)
        data, store = together.stream("replica").data, together.stream("x").data.parent / "store" / "models"
        until(replica, lambda: versions(data))
        pinned = versions(data)[-1]
        ask(log, data, asking.pin(pinned, "good"), replica)
        wait_until(lambda: pinned in Versions(one.stream.data).pins())
        for number in range(1, 6):
            append(log, 4 * number, 4)
            one.wait_for("running", 4 * (number + 1))
            until(replica, lambda number=number: any(each.endswith(f"-{4 * (number + 1)}") for each in versions(data)))
        until(replica, lambda: len(versions(data)) == 3)
        assert pinned in versions(data)
        wait_until(lambda: {path.name.rpartition("-")[0] for path in store.iterdir()} == set(versions(data)))
        wait_until(lambda: not Versions(one.stream.data).leaving())
        assert sorted(versions(one.stream.data)) == sorted(versions(data))
        log.append("journal-state", [asking.unpin(pinned)])
        append(log, 24, 4)
        one.wait_for("running", 28)
        until(replica, lambda: not Versions(data).pins() and len(versions(data)) == 2)
        one.stop()

    @pytest.mark.parametrize("pinned", [True, False])
    def test_a_pin_that_comes_as_a_version_is_dropped_keeps_it(self, log: Log, tmp_path: Path, pinned: bool) -> None:
        store, url = tmp_path / "store", f"sqlite:///{tmp_path / 'shared.db'}"
        stream = StreamSettings(data=tmp_path / "one", log=url, checkpoints=store.as_uri())
        (store / "models").mkdir(parents=True)
        (model := store / "models" / f"a-1-{'0' * 64}.safetensors").touch()
        kept = Kept(
            version="a-1", created_at="2026-01-01T00:00:00+00:00", checkpoint=1, epoch=1, lineage="a", model=MODEL,
            config={}, labels=[], labels_learned=1, positions={}, feedback_offsets={}, recent=Recent(0, 0.0, 0.0),
            n_bytes=1, sha256="0" * 64,
        )  # fmt: skip
        log.create_topics([stream.state_name], "values")
        told = [*topic.records("leader", b"1", 1), *topic.records("kept/a-1", msgspec.json.encode(kept), 1)]
        log.append(stream.state_name, told)
        with closing(Replica(log, stream, may_lead=True)) as replica:
            until(replica, lambda: versions(stream.data) == ["a-1"])
            replica.leads = True
            with closing(Teller(log, stream.state_name, stream.data, replica, 2, lambda: None)) as teller:
                (stream.data / "snapshots" / "kept" / "a-1.leaving").touch()
                if pinned:
                    log.append(stream.state_name, [asking.pin("a-1", "good")])  # which the leader has not read yet
                wait_until(lambda: teller.turn() or log.watermarks([stream.state_name])[replica._partition].high > 3)
                assert versions(stream.data) == ["a-1"]
                until(replica, lambda: teller.turn() or not Versions(stream.data).leaving())
                until(replica, lambda: teller.turn() or replica.order.offset == teller._end)
                assert versions(stream.data) == ["a-1"] * pinned
                there = (lambda: "kept/a-1" in replica.order.values) if pinned else (lambda: not model.exists())
                until(replica, lambda: teller.turn() or there())
                assert ("kept/a-1" in replica.order.values) == model.exists() == pinned

    def test_the_first_leader_of_all_brings_what_was_chosen_on_its_own(
        self, together: Cluster, log: Log, replica: Replica
    ) -> None:

        stream = together.stream("one")
        append(log, 0, 6)
        alone = stream.model_copy(update={"checkpoints": None})
        with closing(Learner(alone, LearnerSettings(model=MODEL), log)) as learner:
            learner.start()
            learner.run(lambda: False, log.watermarks(stream.topics[:2]))
        (version,) = versions(stream.data)
        Versions(stream.data).pin(version, "mine")
        Versions(stream.data).activate(version)
        one = lead(together, log, "one", 6, 2)
        data = together.stream("replica").data
        until(replica, lambda: Versions(data).active().version == version)
        assert Versions(data).pins()[version].name == "mine"
        one.stop()


class TestOthers:
    def test_what_is_to_be_erased_is_erased_by_the_leader_and_shown_nowhere(
        self, together: Cluster, log: Log, replica: Replica
    ) -> None:
        one = lead(together, log, "one", 0, 10)
        other = together.start("other", **OFTEN)
        data = together.stream("replica").data
        until(replica, lambda: any(each.id == "3" for each in read_review(data).messages))
        record = asking.erase(asking.erasure(["3"]))
        log.append("journal-state", [record])
        until(replica, lambda: erase.read_done(data))
        assert not any(each.id == "3" for each in read_review(data).messages)
        assert erase.read_done(data)[0].records["messages"] == 1
        wait_until(lambda: not erase.pending(one.stream.data) and not erase.pending(other.stream.data))
        wait_until(lambda: erase.read_done(other.stream.data) == erase.read_done(one.stream.data))
        until(replica, lambda: not replica.order.under(topic.ERASE))
        assert not (data / "erase").exists(), "a machine that only answers erases nothing"
        one.stop()

    def test_claims_are_one_table(self, together: Cluster, log: Log, replica: Replica) -> None:
        now_ms = int(time.time() * 1000)
        wanted = [Wanted("ann", [b"1", b"2"], [], now_ms + 60_000), Wanted("bob", [b"2", b"3"], [], now_ms + 60_000)]
        log.append("journal-state", list(map(asking.claim, wanted)))
        with closing(Replica(log, together.stream("another"))) as another:
            for each, name in ((replica, "replica"), (another, "another")):
                until(each, lambda each=each: each.caught_up and each.order.offset == 2)
                claims = read_table(together.stream(name).data).claims
                assert {name: held.by for name, held in claims.items()} == {b"1": "ann", b"2": "ann", b"3": "bob"}

    def test_the_leader_takes_away_claims_that_are_over(self, together: Cluster, log: Log, replica: Replica) -> None:
        log.append("journal-state", [asking.claim(Wanted("ann", [b"1"], [], int(time.time() * 1000) - 61_000))])
        until(replica, lambda: replica.order.under(topic.CLAIM))
        one = lead(together, log, "one", 0, 2)
        until(replica, lambda: not replica.order.under(topic.CLAIM))
        one.stop()

    def test_a_learner_alone_shares_nothing(self, tmp_path: Path) -> None:

        stream = StreamSettings(data=tmp_path)
        applied.write(tmp_path, applied.Applied("journal-state", 7))
        with closing(open_log(stream)) as log, closing(Learner(stream, LearnerSettings(model=MODEL), log)) as learner:
            learner.start()
            assert applied.read(tmp_path) is None, "it was one of several"
            assert log.describe([stream.state_name]) == {}
            with pytest.raises(StateError, match="machine's own"):
                asking.ask(log, tmp_path, asking.choose(None), 1)
