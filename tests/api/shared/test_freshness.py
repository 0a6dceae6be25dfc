"""Who waits for a label: woken when it is learned, bounded, and not kept where it cannot come."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest

from driftline.api.access.keys import Role
from driftline.api.shared import freshness, watcher
from driftline.api.shared.freshness import Freshness
from driftline.learner.serving.snapshot import Model
from driftline.stream.log.base import NewRecord, TopicPartition
from driftline.stream.log.open import open_log
from driftline.stream.wire.records import Feedback, encode
from tests.place import Place, add_key, post, refusal, running
from tests.waiting import wait_until

LABEL = NewRecord(b"m", encode(Feedback("m", "spam")))


class Waiting:
    """An API over a log of 100 labels, of which the model has learned 4, and who waits there."""

    def __init__(self, place: Place, url: str, parts: list[Freshness], pool: ThreadPoolExecutor) -> None:
        self.place, self.url, self._parts, self._pool = place, url, parts, pool

    @property
    def freshness(self) -> Freshness:
        return self._parts[-1]

    @property
    def n(self) -> int:
        return self.freshness._places.taken

    def ask(self, *offsets: int, partition: int = 0, **headers: str) -> "Future[httpx.Response]":
        least = [{"partition": partition, "offset": offset} for offset in offsets]
        body = {"text": "prize", "min_feedback_offset": least}
        return self._pool.submit(httpx.post, f"{self.url}/predict", json=body, headers=headers, timeout=120)

    def ask_and_wait(self, *offsets: int, **headers: str) -> "Future[httpx.Response]":
        before, asked = self.n, self.ask(*offsets, **headers)
        wait_until(lambda: self.n > before or asked.done(), what="it waits")
        assert not asked.done(), asked.result().text
        return asked


@contextmanager
def waiting(place: Place, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Waiting]:
    parts: list[Freshness] = []
    begin = Freshness.start

    def start(self: Freshness) -> None:
        parts.append(self)
        begin(self)

    monkeypatch.setattr(Freshness, "start", start)
    with closing(open_log(place.stream)) as log:
        log.create_topics(place.stream.topics)
        log.append("feedback", [LABEL] * 100)
    place.publish()
    report(place)
    with ThreadPoolExecutor(16) as pool, running(place.stream, max_wait_s=60.0, **options) as url:
        wait_until(lambda: parts[-1]._connection.written.get(TopicPartition("feedback", 0)) == 100)
        yield Waiting(place, url, parts, pool)


def report(place: Place, **changes: Any) -> None:
    place.report(**{"at": time.time() + 3600} | changes)  # it stays young, however long the test takes


def test_only_so_many_wait(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "MAX_WAITING", 2)
    with waiting(place, monkeypatch) as api:
        both = [api.ask_and_wait(50), api.ask_and_wait(60)]
        answer = api.ask(50).result()
        assert refusal(answer, 503)["code"] == "busy"
        assert answer.headers["retry-after"] == "1"
        assert post(f"{api.url}/predict", {"text": "prize"}).status_code == 200, "who does not wait needs no place"
        place.publish(70)
        assert [each.result().status_code for each in both] == [200, 200]
        assert api.n == 0
        third = api.ask_and_wait(80)
        place.publish(90)
        assert third.result().json()["feedback_offsets"]["0"] == 90


def test_one_caller_takes_no_more_than_its_share(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "MAX_WAITING_EACH", 2)
    greedy, other = add_key(place, Role.PREDICT, "greedy"), add_key(place, Role.PREDICT, "other")
    with waiting(place, monkeypatch) as api:
        asked = [api.ask_and_wait(50, **greedy) for _ in range(2)]
        assert refusal(api.ask(50, **greedy).result(), 429)["code"] == "too-many-waiting"
        asked.append(api.ask_and_wait(50, **other))
        place.publish(70)
        assert [each.result().status_code for each in asked] == [200] * 3


def test_a_new_version_looks_only_at_whom_it_wakes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a look at the same version at nobody."""
    looked: list[Any] = []
    woken, left = Freshness._wake, Freshness._left
    with waiting(place, monkeypatch) as api:
        late = [api.ask_and_wait(80, 70, 90) for _ in range(5)]
        soon = api.ask_and_wait(20)
        looks = 0

        def look(self: Freshness) -> None:
            nonlocal looks
            woken(self)
            looks += 1

        def count(self: Freshness, least: Any) -> Any:
            looked.append(least)
            return left(self, least)

        monkeypatch.setattr(Freshness, "_wake", look)
        monkeypatch.setattr(Freshness, "_left", count)
        wait_until(lambda: looks > 20, what="it looks")
        assert looked == []
        place.publish(50)
        assert soon.result().status_code == 200
        before = looks
        wait_until(lambda: looks > before + 20, what="it looks")
        assert looked == [{0: 20}]
        place.publish(91)
        assert {each.result().json()["feedback_offsets"]["0"] for each in late} == {91}


def test_labels_of_several_partitions(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Woken once the last of them is learned, whichever comes first."""
    place = Place(place.stream.data.parent / "two", partitions=2)
    with waiting_in_two(place, monkeypatch) as api:
        body = {
            "text": "a",
            "min_feedback_offset": [{"partition": p, "offset": o} for p, o in ((1, 6), (0, 30), (1, 3))],
        }
        asked = api._pool.submit(httpx.post, f"{api.url}/predict", json=body, timeout=120)
        wait_until(lambda: api.n == 1)
        place.publish(20)
        place.publish(31)
        assert asked.result().json()["feedback_offsets"] == {"0": 31, "1": 7}


@contextmanager
def waiting_in_two(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    keys = [b"%d" % n for n in range(200)]
    with closing(open_log(place.stream)) as log:
        log.create_topics(place.stream.topics)
        log.append("feedback", [NewRecord(key, LABEL.value) for key in keys])
    parts: list[Freshness] = []
    begin = Freshness.start
    monkeypatch.setattr(Freshness, "start", lambda self: (parts.append(self), begin(self)))
    place.publish()
    report(place)
    with ThreadPoolExecutor(4) as pool, running(place.stream, max_wait_s=60.0) as url:
        wait_until(lambda: parts[-1]._connection.watermarks)
        yield Waiting(place, url, parts, pool)


def test_what_cannot_come_is_not_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with waiting(place, monkeypatch) as api:
        error = refusal(api.ask(5, partition=7).result(), 409)
        assert error["code"] == "unknown-partition"
        assert "partition 7 of feedback, which has 1" in error["message"]
        error = refusal(api.ask(1 << 53).result(), 409)
        assert error["code"] == "no-such-label"
        assert "feedback ends at 100" in error["message"]
        assert api.n == 0


def test_a_label_that_another_process_has_just_appended_is_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not seen here yet: its next look at the log does."""
    with waiting(place, monkeypatch) as api, closing(open_log(place.stream)) as log:
        seen = api.freshness._connection.looked_at
        (appended,) = log.append("feedback", [LABEL])
        asked = api.ask_and_wait(appended.offset)
        wait_until(lambda: api.freshness._connection.looked_at > seen and not api.freshness._far, what="it has looked")
        assert not asked.done(), asked.result().text
        place.publish(appended.offset + 1)
        assert asked.result().status_code == 200


def test_nobody_waits_while_nothing_is_learned(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither who waits when that begins, nor who comes then; what was learned before needs no wait."""
    with waiting(place, monkeypatch) as api:
        for state in ("stopped", "failed", "paused", "stalled", "waiting", "starting"):
            asked = api.ask_and_wait(50)
            report(place, state=state, detail=f"why it is {state}")
            answer = asked.result()
            assert refusal(answer, 409)["code"] == "not-learning"
            assert f"why it is {state}" in answer.json()["error"]
            assert answer.headers["retry-after"] == "1"
            assert refusal(api.ask(50).result(), 409)["code"] == "not-learning"
            assert api.ask(3).result().status_code == 200
            assert api.n == 0
            report(place)
            wait_until(lambda: api.freshness._idle() is None)


def test_who_comes_as_learning_begins_waits(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher's last look may be a moment old: another worker's was newer, and said that it learns."""
    with waiting(place, monkeypatch) as api:
        report(place, state="starting")
        wait_until(lambda: api.freshness._watcher.idle)
        monkeypatch.setattr(watcher, "STATUS_S", 3600.0)
        report(place)
        assert api.freshness._watcher.idle, "it has not looked again"
        asked = api.ask_and_wait(50)
        place.publish(60)
        assert asked.result().status_code == 200


def test_a_recovery_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with waiting(place, monkeypatch) as api:
        report(place, state="recovering", detail="batch 3 of 9")
        wait_until(lambda: httpx.get(f"{api.url}/healthz", timeout=30).json()["learner"] == "recovering")
        asked = api.ask_and_wait(50)
        report(place)
        place.publish(60)
        assert asked.result().status_code == 200


def test_an_error_in_the_look_lets_nobody_hang(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits is told; the task looks again, so that the next one is woken."""
    with waiting(place, monkeypatch) as api:
        asked = [api.ask_and_wait(50), api.ask_and_wait(60)]
        info = Model.info
        monkeypatch.setattr(Model, "info", lambda _: 1 // 0)
        answers = [each.result() for each in asked]
        monkeypatch.setattr(Model, "info", info)
        for answer in answers:
            error = refusal(answer, 503)
            assert error["code"] == "not-readable"
            assert "ZeroDivisionError" in error["message"]
        assert sum("could not be seen" in record.getMessage() for record in caplog.records) == 1
        again = api.ask_and_wait(50)
        place.publish(60)
        assert again.result().status_code == 200
