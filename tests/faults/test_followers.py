"""API replicas on a real Kafka: ready before the first label, alike, and back again whatever is killed or deleted."""

import os
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from driftline.learner.report.status import Status, read_status
from driftline.learner.serving.double_buffer import Reader
from driftline.learner.serving.snapshot import list_snapshots, read_info
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, encode
from tests.faults.followed import Cluster, get, post
from tests.faults.nursery import Nursery, Stop
from tests.faults.points import FOLLOWER_POINTS
from tests.faults.tally import tally
from tests.often import times
from tests.waiting import delete, wait_until

COMMAND = "make torture ONLY=test_followers"
EACH = times(9, 1)
LONG_S = 120.0
OFTEN = {
    *("f before a batch is learned", "f a batch was learned", "f before a digest is taken", "f before its status"),
    *("6 in the middle of a publish", "6 a snapshot was published"),
}  # of the steps, those that come again and again


@pytest.fixture
def cluster(kafka: str, nursery: Nursery, memory: Path) -> Iterator[Cluster]:
    with closing(Cluster(nursery, kafka, memory / "cluster")) as made:
        yield made


@pytest.fixture
def log(cluster: Cluster) -> Iterator[Log]:
    stream = cluster.stream("sender")
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        yield log


def send(stream: StreamSettings, log: Log, first: int, count: int) -> None:
    """Append labels with their texts."""
    for number in range(first, first + count):
        value = encode(Feedback(f"m{number}", "abc"[number % 3], text=f"word{number % 7} of text {number}"))
        log.append(stream.topics.feedback, [NewRecord(b"%d" % number, value)])


def served(stream: StreamSettings) -> tuple[str, dict[str, bytes]]:
    """Return the version that readers see, and its arrays."""
    for path in list_snapshots(stream.data / "snapshots"):
        reader = Reader(path)
        half, _ = reader.active()
        arrays = {name: array.tobytes() for name, array in reader.arrays(half).items()}
        return read_info(path, reader).version, arrays
    return "", {}


def status(stream: StreamSettings) -> Status:
    found = read_status(stream.data)
    assert found is not None
    return found


def same(one: StreamSettings, other: StreamSettings, updates: int) -> bool:
    """Tell whether two show the same model, which has learned so much."""
    here, there = served(one), served(other)
    return here[0].endswith(f"-{updates}") and here == there


def ready_parts(url: str) -> dict[str, bool]:
    """Return which parts of a replica are ready."""
    return {name: part["ready"] for name, part in get(f"{url}/readyz")["parts"].items()}


def test_replicas_are_ready_before_the_first_label_and_answer_alike(cluster: Cluster) -> None:
    with cluster.replica("one") as one, cluster.replica("two", "--workers", "2") as two:
        for url in (one, two):
            wait_until(lambda url=url: httpx.get(f"{url}/readyz", timeout=30).status_code == 200, LONG_S)
            # It takes labels from the start; what follows may be starting still.
            expected = {"predict": False, "take": True, "learn": False, "follow": True}
            wait_until(lambda url=url, expected=expected: ready_parts(url) == expected, LONG_S)
        post(f"{one}/feedback", {"message_id": "m", "label": "spam", "text": "a prize"})
        cluster.learn("leader")
        for url in (one, two):
            wait_until(lambda url=url: get(f"{url}/model")["version"], LONG_S)
            wait_until(lambda url=url: get(f"{url}/readyz")["parts"]["learn"]["ready"], LONG_S)
        for number, (url, other) in enumerate([(one, two), (two, one)] * 5):
            label = {"message_id": f"n{number}", "label": "ham" if number % 3 else "spam", "text": f"lunch {number}"}
            taken = post(f"{url}/feedback", label)
            place = {"partition": taken["partition"], "offset": taken["offset"]}
            asked = {"text": f"a prize at lunch {number}", "min_feedback_offset": place}
            assert post(f"{other}/predict", asked)["predictions"] == post(f"{url}/predict", asked)["predictions"]
        seen = [get(f"{url}/model") for url in (one, two)]
        assert seen[0]["version"] == seen[1]["version"]
        assert seen[0]["labels"] == seen[1]["labels"] == ["spam", "ham"]
        assert [each["learner"]["state"] for each in seen] == ["following", "following"]
        assert [each["learner"]["following"]["differed"] for each in seen] == [0, 0]
        explained = [post(f"{url}/explain", {"text": "a prize"}) for url in (one, two)]
        assert explained[0] == explained[1]
        assert "driftline_follower_behind_seconds" in httpx.get(f"{one}/metrics", timeout=30).text
        for url in (one, two, two, two):  # of the one with two workers it is the kernel that says who answers
            assert httpx.get(f"{url}/v2/health/ready", timeout=30).status_code == 200
            texts = [f"a prize at lunch {number}" for number in range(4)]
            asked = post(f"{url}/predict", {"texts": texts})
            rows = post(f"{url}/invocations", {"inputs": texts, "params": {"scores": True}})["predictions"]
            tensor = {"name": "text", "datatype": "BYTES", "shape": [4], "data": texts}
            inferred = post(f"{url}/v2/models/driftline/infer", {"inputs": [tensor]})
            assert (rows, inferred["model_version"]) == (asked["predictions"], asked["model_version"])
            assert inferred["outputs"][0]["data"] == [each["label"] for each in asked["predictions"]]


def test_an_api_answers_on_while_its_follower_is_killed_and_its_directory_deleted(cluster: Cluster, log: Log) -> None:
    leader, replica = cluster.stream("leader"), cluster.stream("one")
    cluster.learn("leader")
    send(leader, log, 0, 30)
    with cluster.replica("one", "--max-follower-lag-s", "20") as url:
        wait_until(lambda: same(leader, replica, 30), LONG_S)
        wait_until(lambda: get(f"{url}/model")["version"] == served(replica)[0], LONG_S)
        before = get(f"{url}/model")["learner"]["pid"]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: status(replica).state == "failed" or status(replica).pid != before, LONG_S)
        assert post(f"{url}/predict", {"text": "word1"})["predictions"], "it answers on"
        send(leader, log, 30, 10)
        wait_until(lambda: same(leader, replica, 40), LONG_S)
        delete(replica.data)
        assert post(f"{url}/predict", {"text": "word1"})["predictions"], "it answers on"
        send(leader, log, 40, 10)
        wait_until(lambda: same(leader, replica, 50), LONG_S)
        wait_until(lambda: get(f"{url}/model")["version"] == served(replica)[0], LONG_S)
        wait_until(lambda: httpx.get(f"{url}/readyz", timeout=30).status_code == 200, LONG_S)
    tally("an API's follower killed, and its data directory deleted", COMMAND, 2)


def test_one_that_is_behind_is_not_ready_and_says_so(cluster: Cluster, log: Log) -> None:
    leader, replica = cluster.stream("leader"), cluster.stream("one")
    cluster.learn("leader")
    send(leader, log, 0, 30)
    with cluster.replica("one", "--max-follower-lag-s", "2") as url:
        wait_until(lambda: httpx.get(f"{url}/readyz", timeout=30).status_code == 200, LONG_S)
        wait_until(lambda: same(leader, replica, 30), LONG_S)
        wait_until(lambda: get(f"{url}/model")["version"] == served(replica)[0], LONG_S)
        os.kill(pid := get(f"{url}/model")["learner"]["pid"], signal.SIGSTOP)
        try:
            send(leader, log, 30, 10)
            wait_until(lambda: httpx.get(f"{url}/readyz", timeout=30).status_code == 503, LONG_S)
            said = get(f"{url}/readyz")
            assert "at most 2 s are allowed" in said["parts"]["follow"]["why"]
            assert httpx.get(f"{url}/v2/health/ready", timeout=30).status_code == 503
            assert post(f"{url}/predict", {"text": "word1"})["predictions"]
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: same(leader, replica, 40), LONG_S)
        wait_until(lambda: httpx.get(f"{url}/readyz", timeout=30).status_code == 200, LONG_S)


def test_followers_killed_at_each_step_come_to_the_leaders_bytes(cluster: Cluster, log: Log) -> None:
    rng = random.Random(7)
    leader, replica = cluster.stream("leader"), cluster.stream("one")
    cluster.learn("leader", "--batch-records", "4")
    count = 0
    for point in FOLLOWER_POINTS * EACH:
        if point not in OFTEN:
            shutil.rmtree(replica.data / "followed", ignore_errors=True)  # so that it fetches one
        child = cluster.follow("one", Stop(point, rng.choice((1, 1, 2, 5)) if point in OFTEN else 1))

        def ends() -> bool:
            nonlocal count
            send(leader, log, count, 3)
            count += 3
            return not child.running()  # noqa: B023  (it is this round's)

        wait_until(ends, LONG_S)
        assert child.wait() == -signal.SIGKILL, child.said
        if rng.random() < 0.2:
            shutil.rmtree(replica.data, ignore_errors=True)
        tally(f"follower killed: {point}", COMMAND, 1)
    cluster.follow("one")
    wait_until(lambda: same(leader, replica, count), LONG_S)
    compared = status(replica).following
    assert compared is not None
    before = compared.digests

    def digests() -> bool:
        nonlocal count
        send(leader, log, count, 1)
        count += 1
        found = status(replica).following
        assert found is not None
        assert found.differed == 0
        return found.digests > before + 1

    wait_until(digests, LONG_S)


def test_who_was_away_while_the_journal_was_trimmed_begins_with_a_checkpoint(cluster: Cluster, log: Log) -> None:
    """One that stands still misses what the journal had; the store has it."""
    leader, replica = cluster.stream("leader"), cluster.stream("one")
    cluster.learn("leader", "--keep-uploads", "1")
    child = cluster.follow("one")
    send(leader, log, 0, 10)
    wait_until(lambda: same(leader, replica, 10), LONG_S)
    child.send(signal.SIGSTOP)
    count = 10
    journal = leader.journal_name

    def trimmed() -> bool:
        nonlocal count
        send(leader, log, count, 1)
        count += 1
        return log.describe([journal])[journal].watermarks[0].low > 30

    wait_until(trimmed, LONG_S)
    child.send(signal.SIGCONT)
    wait_until(lambda: same(leader, replica, count), LONG_S)
