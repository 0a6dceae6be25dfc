"""Is what was sent in the log, once and whole, and is it said where?"""

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftline.api.load.holding import FREE_BYTES
from driftline.stream.log.base import Record, TopicPartition
from driftline.stream.log.open import open_log
from driftline.stream.wire.records import decode_feedback, decode_message
from tests.place import (
    MAX_RECORD_BYTES,
    MAX_TEXT_CHARS,
    POSTS,
    Api,
    Place,
    ends,
    get,
    post,
    read_all,
    refusal,
    running,
)
from tests.waiting import wait_until


class TestAppend:
    def test_one_message_is_durable(self, api: Api) -> None:
        answer = api.http.post("/messages", json={"id": "mé", "text": "héllo", "metadata": {"a": [1, None]}})
        assert answer.status_code == 202
        place = answer.json()
        assert place["id"] == "mé"
        record = self.record(api, "messages", place)
        assert record.key == "mé".encode()
        message = decode_message(record.value or b"")
        assert (message.id, message.text, json.loads(bytes(message.metadata))) == ("mé", "héllo", {"a": [1, None]})

    def test_many_messages_get_ids(self, api: Api) -> None:
        answer = api.http.post("/messages", json=[{"text": f"text {number}"} for number in range(1000)])
        assert answer.status_code == 202
        places = answer.json()["appended"]
        assert len({place["id"] for place in places}) == len({(p["partition"], p["offset"]) for p in places}) == 1000
        records = {(record.partition.partition, record.offset): record for record in self.records(api, "messages")}
        for number, place in enumerate(places):
            message = decode_message(records[place["partition"], place["offset"]].value or b"")
            assert (message.id, message.text) == (place["id"], f"text {number}")

    def test_one_label(self, api: Api) -> None:
        sent = {"message_id": "m1", "label": "späm", "op": "retract", "weight": 2, "source": "user:42", "text": "x"}
        answer = api.http.post("/feedback", json=sent | {"ts": "2026-01-31T12:00:00Z"})
        assert answer.status_code == 202
        place = answer.json()
        assert place["message_id"] == "m1"
        record = self.record(api, "feedback", place)
        assert record.key == b"m1"
        feedback = decode_feedback(record.value or b"")
        assert feedback.id == place["id"]
        assert feedback.ts is not None
        assert feedback.ts.year == 2026
        assert {name: getattr(feedback, name) for name in sent} == sent | {"source": "open/user:42"}

    def test_a_message_and_its_label_share_a_partition(self, api: Api) -> None:
        ids = [f"same-{number}" for number in range(20)]
        sent = api.http.post("/messages", json=[{"id": each, "text": "a"} for each in ids]).json()["appended"]
        labels = api.http.post("/feedback", json=[{"message_id": each, "label": "a"} for each in ids]).json()
        assert [place["partition"] for place in sent] == [place["partition"] for place in labels["appended"]]
        assert {place["partition"] for place in sent} == {0, 1}
        assert [place["message_id"] for place in labels["appended"]] == ids

    @pytest.mark.parametrize(
        ("path", "item", "code"),
        [
            ("/messages", {"id": "m"}, "missing-field"),
            ("/messages", {"id": "", "text": "a"}, "wrong-type"),
            ("/messages", {"id": "m" * 513, "text": "a"}, "wrong-type"),
            ("/messages", {"id": "m\0", "text": "a"}, "forbidden-character"),
            ("/messages", {"id": [1], "text": "a"}, "wrong-type"),
            ("/messages", {"text": None}, "wrong-type"),
            ("/messages", {"text": 1}, "wrong-type"),
            ("/messages", {"text": "a", "ts": 1e300}, "wrong-type"),
            ("/feedback", {"message_id": None, "label": "a"}, "wrong-type"),
            ("/messages", {"text": "a\0b"}, "forbidden-character"),
            ("/messages", {"text": "a", "ts": "yesterday"}, "wrong-type"),
            ("/messages", {"text": "a" * (MAX_TEXT_CHARS + 1)}, "too-large"),
            ("/messages", {"text": "a", "metadata": []}, "wrong-type"),
            ("/messages", {"text": "a", "metadata": {"a": json.loads("[" * 99 + "]" * 99)}}, "too-deep"),
            ("/feedback", {"label": "a"}, "missing-field"),
            ("/feedback", {"message_id": "m"}, "missing-field"),
            ("/feedback", {"message_id": "m", "label": ""}, "empty-field"),
            ("/feedback", {"message_id": "m", "label": "a" * 257}, "wrong-type"),
            ("/feedback", {"message_id": "m", "label": "a\0"}, "forbidden-character"),
            ("/feedback", {"message_id": "m", "label": "a", "op": "delete"}, "wrong-type"),
            ("/feedback", {"message_id": "m", "label": "a", "weight": 0}, "wrong-type"),
            ("/feedback", {"message_id": "m", "label": "a", "weight": -1}, "wrong-type"),
            ("/feedback", {"message_id": "m", "label": "a", "weight": 1e7}, "wrong-type"),
            ("/feedback", {"message_id": "m", "label": "a", "weight": "1"}, "wrong-type"),
        ],
    )
    def test_all_or_nothing(self, api: Api, path: str, item: dict[str, Any], code: str) -> None:
        good = {"text": "a"} if path == "/messages" else {"message_id": "m", "label": "a"}
        with closing(open_log(api.place.stream)) as log:
            before = ends(log, api.place.stream)
            assert refusal(api.http.post(path, json=item), 422)["code"] == code
            error = refusal(api.http.post(path, json=[good, good, item]), 422)
            assert error["code"] == code
            assert "$[2]" in error["message"] or "$[...]" in error["message"]
            assert ends(log, api.place.stream) == before

    @pytest.mark.parametrize("path", POSTS[1:])
    @pytest.mark.parametrize("n", [0, 1001])
    def test_number_of_items(self, api: Api, path: str, n: int) -> None:
        good = {"text": "a"} if path == "/messages" else {"message_id": "m", "label": "a"}
        assert refusal(api.http.post(path, json=[good] * n), 422)["code"] == "out-of-range"

    def test_too_large_a_record(self, api: Api) -> None:
        answer = api.http.post("/messages", json={"id": "big", "text": "a", "metadata": {"a": "b" * MAX_RECORD_BYTES}})
        error = refusal(answer, 413)
        assert "'big'" in error["message"]
        assert "max_record_bytes" in error["action"]

    def test_parallel_appends_are_each_there_once(self, api: Api) -> None:
        def send(number: int) -> httpx.Response:
            return api.http.post("/messages", json={"id": f"parallel-{number}", "text": "a"})

        with ThreadPoolExecutor(8) as pool:
            places = [answer.json() for answer in pool.map(send, range(200))]
        found = [record.key for record in self.records(api, "messages") if (record.key or b"").startswith(b"parallel-")]
        assert sorted(found) == sorted(place["id"].encode() for place in places)

    def test_log_that_comes_later(self, tmp_path: Path) -> None:
        place = Place(tmp_path, log=f"sqlite:///{tmp_path}/later/log.db")
        (tmp_path / "later").write_text("a file, where a directory must be")
        place.publish()
        with running(place.stream) as url:
            error = refusal(post(f"{url}/messages", {"text": "a"}), 503)
            assert error["code"] == "log-unavailable"
            assert "its directory cannot be made" in error["message"]
            assert str(tmp_path) not in error["message"]
            answer = get(f"{url}/readyz")
            refusal(answer, 503)
            assert len(answer.json()["reasons"]) == 1
            assert answer.json()["reasons"][0].startswith("log: ")
            assert {"predict": True, "take": False}.items() <= {
                name: part["ready"] for name, part in answer.json()["parts"].items()
            }.items()
            assert refusal(get(f"{url}/v2/health/ready"), 503)["code"] == "not-ready"
            assert get(f"{url}/v2/models/driftline/ready").status_code == 200
            assert get(f"{url}/model").json()["lag"] is None
            assert post(f"{url}/predict", {"text": "a"}).status_code == 200
            (tmp_path / "later").unlink()
            wait_until(lambda: get(f"{url}/readyz").status_code == 200)
            assert post(f"{url}/messages", {"text": "a"}).status_code == 202

    def test_append_that_takes_too_long(self, place: Place) -> None:
        place.publish()
        with running(place.stream, append_timeout_s=0.5) as url:
            with locked(place.stream.data / "log.db"):
                error = refusal(post(f"{url}/messages", {"id": "slow", "text": "a"}), 503)
                assert error["code"] == "append-timeout"
                assert post(f"{url}/predict", {"text": "a"}).status_code == 200, "nothing else waits"
            wait_until(lambda: b"slow" in [record.key for record in read_all(place.stream, "messages")])

    def test_what_is_on_its_way_to_the_log_is_bounded(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the log takes nothing, large requests are refused beyond a limit; small ones never for their bytes."""
        monkeypatch.setattr("driftline.api.shared.connection.MAX_IN_FLIGHT_BYTES", 4 * FREE_BYTES)
        with running(place.stream, append_timeout_s=60.0) as url, ThreadPoolExecutor(24) as pool:
            large = [{"text": "a" * 9_000} for _ in range(8)]  # 72 kB
            with locked(place.stream.data / "log.db"):
                sent = [pool.submit(post, f"{url}/messages", large) for _ in range(8)]
                small = [pool.submit(post, f"{url}/feedback", {"message_id": "m", "label": "a"}) for _ in range(8)]
                wait_until(lambda: sum(each.done() for each in sent) == len(sent) - 3, what="three are on their way")
            assert all(each.result().status_code == 202 for each in small)
            taken = [each.result().status_code for each in sent]
            assert sorted(taken) == [202] * 3 + [503] * 5
            wait_until(lambda: post(f"{url}/messages", large).status_code == 202)
            again = [pool.submit(post, f"{url}/messages", large) for _ in range(3)]
            assert [each.result().status_code for each in again] == [202] * 3, "nothing is on its way any more"

    def records(self, api: Api, topic: str) -> list[Record]:
        return read_all(api.place.stream, topic)

    def record(self, api: Api, topic: str, place: dict[str, Any]) -> Record:
        assert place["topic"] == topic
        where = (TopicPartition(topic, place["partition"]), place["offset"])
        return next(record for record in self.records(api, topic) if (record.partition, record.offset) == where)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an SQLite file's lock for writing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")
