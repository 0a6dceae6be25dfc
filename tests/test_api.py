"""Does the API answer what it should, to anyone, over a real server, log and data directory?"""

import json
import os
import queue
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from api.server import Started, serve
from api.settings import ApiSettings
from learner.alarms import Alarms
from learner.checkpoint import Counts
from learner.classifier import Classifier
from learner.losses import Loss, Losses
from learner.models import make_classifier
from learner.progress import Progress
from learner.settings import LearnerSettings
from learner.snapshot import Publisher, SnapshotInfo
from learner.status import Status, write_status
from stream.errors import ConfigError
from stream.join import JoinCounts
from stream.log import Log, Record, TopicPartition, open_log
from stream.records import decode_feedback, decode_message
from stream.settings import StreamSettings
from tests.data import alarm
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
SPEC = "linear?bits=12"
TEXTS = ["win a prize now", "free money prize", "see you at lunch", "lunch at noon today"]
LABELS = ["spam", "spam", "ham", "ham"]
MAX_TEXT_CHARS = 10_000
MAX_BODY_BYTES = 1 << 20
MAX_RECORD_BYTES = 1 << 15
POSTS = ["/predict", "/messages", "/feedback"]
SHOWS = ["/model", "/history", "/drift", "/label-requests", "/recent", "/labels"]


class Place:
    """A data directory, and the learner that would write there."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.stream = StreamSettings(data=root / "data", max_record_bytes=MAX_RECORD_BYTES, **options)
        self.publisher = Publisher(self.stream.data / "snapshots", epoch=1)
        self.classifier: Classifier = make_classifier(SPEC)

    def publish(self, updates: int = 4) -> str:
        """Learn the texts once more and publish what that gave; return its version."""
        self.classifier.learn_many(TEXTS * 20, LABELS * 20)
        version = f"lineage-{updates}"
        info = SnapshotInfo(
            version=version,
            epoch=1,
            model=self.classifier.spec,
            config=self.classifier.config(),
            labels=self.classifier.labels,
            labels_learned=updates,
            feedback_offsets={"0": updates, "1": 7},
            published_at=time.time(),
        )
        self.publisher.publish(self.classifier, info)
        return version

    def report(self, **changes: Any) -> None:
        """Write a status."""
        progress = Progress()
        alarms = Alarms()
        for number, label in enumerate([None, "spam", "spam"]):
            alarms.add(alarm(number, label=label))
        losses = Losses()
        losses.add(Loss(topic="feedback", partition=0, start=3, end=10, lost=7, why="retention", batch=2))
        fields: dict[str, Any] = {
            "state": "running",
            "at": time.time(),
            "pid": os.getpid(),
            "epoch": 1,
            "model": SPEC,
            "version": "lineage-4",
            "labels": ["spam", "ham"],
            "counts": Counts(
                messages_seen=11, labels_seen=8, labels_learned=4, rejected=3, rejected_by={"not-json": 3}
            ),
            "join": JoinCounts(duplicates=1, corrected=2, expired=5, orphaned=6, orphaned_by={"age": 4}),
            "pending": 9,
            "waiting": 2,
            "positions": {"messages": {"0": 1}, "feedback": {"0": 0}},
            "progress": progress.summary(),
            "drift": alarms,
            "losses": losses,
        }
        write_status(self.stream.data, Status(**(fields | changes)))


@contextmanager
def running(stream: StreamSettings, **options: Any) -> Iterator[str]:
    """Run a server in a thread; give its URL."""
    limits = {"max_text_chars": MAX_TEXT_CHARS, "max_body_bytes": MAX_BODY_BYTES}
    ready: queue.Queue[Started | BaseException] = queue.Queue()

    def run() -> None:
        try:
            serve(stream, ApiSettings(port=0, **(limits | options)), on_ready=ready.put)
        except BaseException as error:
            ready.put(error)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    started = ready.get(timeout=60)
    if isinstance(started, BaseException):
        thread.join()
        raise started
    try:
        yield started.url
    finally:
        started.stop()
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


class Api(NamedTuple):
    """A running server that has a model, and all that it needs."""

    place: Place
    url: str
    http: httpx.Client


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    place = Place(tmp_path_factory.mktemp("api"), partitions=2)
    place.publish()
    place.report()
    # What schemathesis asks for may wait for labels that never come.
    with running(place.stream, max_wait_s=0.05) as url, httpx.Client(base_url=url, timeout=30) as http:
        yield Api(place, url, http)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=30)


def post(url: str, body: object) -> httpx.Response:
    return httpx.post(url, json=body, timeout=30)


def refusal(answer: httpx.Response, status: int) -> dict[str, str]:
    """Return the error of an answer, which must have the one shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    error = {key: content[key] for key in ("error", "code", "action")}
    assert set(content) - {"reasons", "warnings"} == set(error)
    assert all(isinstance(part, str) and part for part in error.values())
    return {"message": error["error"]} | error


def read_all(stream: StreamSettings, topic: str) -> list[Record]:
    """Read a topic with a log of our own."""
    with closing(open_log(stream)) as log:
        marks = log.watermarks([topic])
        with closing(log.reader({partition: mark.low for partition, mark in marks.items()})) as reader:
            records: list[Record] = []
            while not all(reader.at_end(partition) for partition in marks):
                records += reader.read(1000, 0.1)
            return records


def ends(log: Log, stream: StreamSettings) -> dict[TopicPartition, int]:
    return {partition: mark.high for partition, mark in log.watermarks(stream.topics).items()}


class TestPredict:
    def test_one_text(self, api: Api) -> None:
        answer = api.http.post("/predict", json={"text": "prize money"})
        assert answer.status_code == 200
        content = answer.json()
        assert set(content) == {"predictions", "model_version", "model_age_seconds", "feedback_offsets"}
        assert content["model_version"] == "lineage-4"
        assert content["feedback_offsets"] == {"0": 4, "1": 7}
        assert content["model_age_seconds"] >= 0
        (prediction,) = content["predictions"]
        assert prediction["label"] == "spam"
        expected = api.place.classifier.predict_proba_one("prize money")
        assert prediction["scores"] == pytest.approx(expected, abs=1e-6)
        assert prediction["score"] == prediction["scores"]["spam"] == max(prediction["scores"].values())
        assert next(iter(prediction["scores"])) == "spam", "the best label comes first"

    @pytest.mark.parametrize("n", [1, 3, 1000])
    def test_many_texts_in_their_order(self, api: Api, n: int) -> None:
        """1,000 texts take the other path, through a thread: it must give the same."""
        texts = [f"{text} {number}" for number in range(n) for text in TEXTS][:n]
        content = api.http.post("/predict", json={"texts": texts}).json()
        expected = [api.place.classifier.predict_proba_one(text) for text in texts]
        assert [p["scores"] for p in content["predictions"]] == [pytest.approx(e, abs=1e-6) for e in expected]

    def test_content_type_is_not_looked_at(self, api: Api) -> None:
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert api.http.post("/predict", content=b' {"text": "prize"} ', headers=form).status_code == 200

    def test_unknown_fields_are_skipped(self, api: Api) -> None:
        assert api.http.post("/predict", json={"text": "prize", "texts": None, "what": [1]}).status_code == 200

    @pytest.mark.parametrize("text", ["", " ", "a" * MAX_TEXT_CHARS, "\U0001f600" * 999, "日本語", "\ufffe", "\x01"])
    def test_odd_texts(self, api: Api, text: str) -> None:
        (prediction,) = api.http.post("/predict", json={"text": text}).json()["predictions"]
        assert sum(prediction["scores"].values()) == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({}, "missing-field"),
            ({"text": None}, "missing-field"),
            ({"text": "a", "texts": ["b"]}, "missing-field"),
            ({"texts": []}, "out-of-range"),
            ({"texts": ["a"] * 1001}, "out-of-range"),
            ({"texts": ["a", "b\0"]}, "forbidden-character"),
            ({"text": "\0"}, "forbidden-character"),
            ({"text": "a" * (MAX_TEXT_CHARS + 1)}, "too-large"),
            ({"texts": ["a", 1]}, "wrong-type"),
            ({"texts": "abc"}, "wrong-type"),
            ({"text": ["a"]}, "wrong-type"),
        ],
    )
    def test_refused(self, api: Api, body: object, code: str) -> None:
        assert refusal(api.http.post("/predict", json=body), 422)["code"] == code

    def test_which_text_was_refused(self, api: Api) -> None:
        error = refusal(api.http.post("/predict", json={"texts": ["a", "b", "\0"]}), 422)
        assert error["message"].startswith("texts[2] contains a NUL")

    def test_only_the_best_scores(self, place: Place) -> None:
        place.classifier.learn_many(["x"] * 5, list("abcde"))
        place.publish()
        with running(place.stream, max_scores=2) as url:
            (prediction,) = post(f"{url}/predict", {"text": "prize"}).json()["predictions"]
            assert len(prediction["scores"]) == 2
            assert next(iter(prediction["scores"])) == prediction["label"] == "spam"


class TestModels:
    def test_before_anything_was_learned(self, place: Place) -> None:
        with running(place.stream) as url:
            error = refusal(post(f"{url}/predict", {"text": "a"}), 503)
            assert error["code"] == "no-model"
            assert "POST" in error["action"]
            assert get(f"{url}/healthz").json() == {"status": "alive", "learner": None}
            answer = get(f"{url}/readyz")
            refusal(answer, 503)
            assert answer.json()["reasons"] == ["model: no learner has run on this data directory yet"]
            model = get(f"{url}/model").json()
            assert model["version"] is model["learner"] is model["progressive"] is model["age_seconds"] is None
            assert model["drift"] is None
            assert model["lag"] == {"messages": {"0": 0}, "feedback": {"0": 0}}
            assert get(f"{url}/metrics").status_code == 200

            place.report()
            wait_until(lambda: get(f"{url}/readyz").json()["reasons"][0].startswith("model: nothing was learned yet"))
            place.publish()
            wait_until(lambda: get(f"{url}/readyz").status_code == 200)
            assert post(f"{url}/predict", {"text": "a"}).status_code == 200

    def test_no_request_fails_while_models_change(self, place: Place) -> None:
        version = place.publish()
        with running(place.stream) as url, ThreadPoolExecutor(3) as pool:
            stop, seen = threading.Event(), set[str]()

            def ask(texts: list[str]) -> int:
                with httpx.Client(base_url=url, timeout=30) as http:
                    asked = 0
                    while not stop.is_set():
                        answer = http.post("/predict", json={"texts": texts})
                        assert answer.status_code == 200, answer.text
                        assert {p["label"] for p in answer.json()["predictions"]} == {"spam", "ham"}
                        seen.add(answer.json()["model_version"])
                        asked += 1
                return asked

            asking = [pool.submit(ask, texts) for texts in (TEXTS, TEXTS, TEXTS * 250)]
            for updates in range(8, 108, 4):
                version = place.publish(updates)
                time.sleep(0.02)
            wait_until(lambda: version in seen)
            stop.set()
            assert all(each.result() > 3 for each in asking)
            assert len(seen) > 3

    def test_what_was_published_shows_at_the_next_request(self, place: Place) -> None:
        place.publish()
        with running(place.stream) as url, httpx.Client(base_url=url, timeout=30) as http:
            for updates in range(5, 25):
                version = place.publish(updates)
                for texts in (TEXTS[:1], TEXTS * 250):  # on the event loop, and in the thread
                    answer = http.post("/predict", json={"texts": texts}).json()
                    assert answer["model_version"] == version
                    assert answer["feedback_offsets"]["0"] == updates
                    expected = place.classifier.predict_proba_one(texts[0])
                    assert answer["predictions"][0]["scores"] == pytest.approx(expected, abs=1e-6)

    def test_a_damaged_snapshot_leaves_the_one_before(self, place: Place) -> None:
        place.publish()
        with running(place.stream) as url:
            (place.stream.data / "snapshots" / "99999999-0000000001.model").write_bytes(b"\x10" * 100)
            time.sleep(0.2)
            assert post(f"{url}/predict", {"text": "a"}).json()["model_version"] == "lineage-4"

    def test_nothing_in_the_data_directory_is_changed(self, place: Place) -> None:
        place.publish()
        place.report()
        before = {path: path.read_bytes() for path in place.stream.data.rglob("*") if path.is_file()}
        with running(place.stream) as url:
            post(f"{url}/predict", {"texts": TEXTS})
            post(f"{url}/messages", {"text": "a"})
        after = {path: path.read_bytes() for path in place.stream.data.rglob("*") if path.is_file()}
        assert {path: content for path, content in after.items() if not path.name.startswith("log.db")} == before


class TestAppend:
    def test_one_message_is_durable(self, api: Api) -> None:
        answer = api.http.post("/messages", json={"id": "mé", "text": "héllo", "metadata": {"a": [1, None]}})
        assert answer.status_code == 202
        place = answer.json()
        assert place["id"] == "mé"
        record = self.record(api, "messages", place)
        assert record.key == "mé".encode()
        message = decode_message(record.value or b"")
        assert (message.id, message.text, message.metadata) == ("mé", "héllo", {"a": [1, None]})

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
        assert {name: getattr(feedback, name) for name in sent} == sent

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
            ("/messages", {"id": 1, "text": "a"}, "wrong-type"),
            ("/messages", {"text": "a\0b"}, "forbidden-character"),
            ("/messages", {"text": "a", "ts": "yesterday"}, "wrong-type"),
            ("/messages", {"text": "a" * (MAX_TEXT_CHARS + 1)}, "too-large"),
            ("/messages", {"text": "a", "metadata": []}, "wrong-type"),
            ("/messages", {"text": "a", "metadata": {"a": json.loads("[" * 40 + "]" * 40)}}, "too-deep"),
            ("/feedback", {"label": "a"}, "missing-field"),
            ("/feedback", {"message_id": "m"}, "missing-field"),
            ("/feedback", {"message_id": "m", "label": ""}, "wrong-type"),
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
            assert "later" in error["message"]
            answer = get(f"{url}/readyz")
            refusal(answer, 503)
            assert len(answer.json()["reasons"]) == 1
            assert answer.json()["reasons"][0].startswith("log: ")
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


class TestBodies:
    @pytest.mark.parametrize("path", POSTS)
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", "not-json"),
            (b" ", "not-json"),
            (b"{", "not-json"),
            (b'{"text": NaN}', "not-json"),
            (b'{"text": Infinity}', "not-json"),
            (b'{"text": "\\ud800"}', "not-json"),
            (b'{"text": "\\udc00x"}', "not-json"),
            (b'{"text": "a", "message_id": "m", "label": "a"} {}', "not-json"),
            (b"text=a", "not-json"),
            (b'\xef\xbb\xbf{"text": "a"}', "not-json"),
            (b'{"text": "\xff"}', "not-utf8"),
            (b'{"skipped": "\xed\xa0\x80", "text": "a"}', "not-utf8"),
            (b'{"text": 1e999}', "wrong-type"),
            (b'{"text": -0.0}', "wrong-type"),
            (b"null", "wrong-type"),
            (b'"a"', "wrong-type"),
            (b"1e999", "wrong-type"),
            (b"[[]]", "wrong-type"),
            (b"[null]", "wrong-type"),
            (b"[" * 100_000, "wrong-type"),
            (b'{"skipped":' + b"[" * 100_000, "too-deep"),
        ],
    )
    def test_refused(self, api: Api, path: str, body: bytes, code: str) -> None:
        assert refusal(api.http.post(path, content=body), 422)["code"] == code

    @pytest.mark.parametrize("path", POSTS)
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        body=st.binary(max_size=200)
        | st.recursive(
            st.none() | st.floats() | st.integers() | st.text(st.characters(exclude_categories=())),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["id", "text", "texts", "message_id", "label", "op", "weight", "ts", "metadata"]),
                    inner,
                )
            ),
        ).map(lambda value: json.dumps(value).encode())
    )
    def test_any_body_is_answered(self, api: Api, path: str, body: bytes) -> None:
        answer = api.http.post(path, content=body)
        if answer.status_code not in (200, 202):
            refusal(answer, 422)

    @pytest.mark.parametrize("path", POSTS)
    def test_too_large(self, api: Api, path: str) -> None:
        body = b'{"text": "' + b"a" * MAX_BODY_BYTES + b'"}'
        assert refusal(api.http.post(path, content=body), 413)["code"] == "too-large"

    @pytest.mark.parametrize("path", POSTS)
    def test_too_large_in_chunks(self, api: Api, path: str) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(MAX_BODY_BYTES // 10_000 + 2):
                yield b" " * 10_000

        assert refusal(api.http.post(path, content=chunks()), 413)["code"] == "too-large"

    def test_in_chunks(self, api: Api) -> None:
        answer = api.http.post("/predict", content=iter([b'{"te', b'xt": "pri', b'ze"}']))
        assert answer.json()["predictions"][0]["label"] == "spam"

    @pytest.mark.parametrize("path", POSTS)
    def test_content_encoding(self, api: Api, path: str) -> None:
        answer = api.http.post(path, content=b'{"text": "a"}', headers={"content-encoding": "gzip"})
        assert refusal(answer, 415)["code"] == "content-encoding"

    def test_large_bodies_share_a_limit(self, place: Place) -> None:
        """Clients that send half a large body and stop may hold so much memory, and no more."""
        place.publish()
        with running(place.stream, max_body_bytes=1 << 16) as url:
            halves = [open_half(url, 1 << 16, 60_000) for _ in range(20)]
            try:
                large = {"text": "a", "skipped": "b" * 60_000}
                wait_until(lambda: post(f"{url}/predict", large).status_code == 503)
                assert get(f"{url}/healthz").status_code == 200
            finally:
                for half in halves:
                    half.close()
            wait_until(lambda: post(f"{url}/predict", {"text": "a"}).status_code == 200)


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def open_half(url: str, length: int, sent: int) -> socket.socket:
    """Begin a request and leave it there."""
    half = socket.create_connection(address(url))
    half.sendall(f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode() + b" " * sent)
    return half


def exchange(url: str, request: bytes) -> bytes:
    """Send raw bytes; return all that comes back until the server closes."""
    with socket.create_connection(address(url), timeout=20) as raw:
        answer = b""
        try:
            raw.sendall(request)
            while more := raw.recv(1 << 16):
                answer += more
        except ConnectionError:
            pass  # the server has closed while more was on its way
        return answer


class TestRoutes:
    @pytest.mark.parametrize(
        "path",
        ["*", "/nothing", "/dashboard", "/dashboard/", "/dashboard/../app.py", "/predict/", "/%00", "/%ff"],
    )
    def test_not_found(self, api: Api, path: str) -> None:
        assert refusal(api.http.get(path), 404)["code"] == "not-found"

    @pytest.mark.parametrize(("method", "path"), [("GET", "/predict"), ("DELETE", "/model"), ("PUT", "/feedback")])
    def test_method_not_allowed(self, api: Api, method: str, path: str) -> None:
        answer = api.http.request(method, path)
        assert refusal(answer, 405)["code"] == "method-not-allowed"
        assert answer.headers["allow"]

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"nonsense\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * (4 << 20),
        ],
        ids=["nonsense", "path", "length", "lengths", "long"],
    )
    def test_malformed_requests(self, api: Api, request_bytes: bytes) -> None:
        answer = exchange(api.url, request_bytes)
        assert not answer or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")), answer[:200]
        if answer:
            assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error", "code", "action"}
        assert api.http.get("/healthz").status_code == 200

    def test_large_body_then_another_request(self, api: Api) -> None:
        """What ends a body and begins the next head in one read is no long head."""
        body = b'{"text": "' + b"a" * 9_000 + b'", "skipped": "' + b"b" * 900_000 + b'"}'
        head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        last = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        answer = exchange(api.url, (head + body) * 3 + last)
        assert answer.count(b"HTTP/1.1 200 OK") == 4

    def test_docs(self, api: Api) -> None:
        page = api.http.get("/docs")
        assert page.status_code == 200
        sources = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
        assert sources, "the page needs its scripts"
        for source in sources:  # from here, so that it works without a network
            assert api.http.get(source).status_code == 200
        document = api.http.get("/openapi.json").json()
        wanted = {*POSTS, "/explain", *SHOWS, "/healthz", "/readyz", "/metrics", "/v2", "/invocations"}
        assert wanted <= set(document["paths"])
        for path in POSTS:
            assert document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]

    @pytest.mark.parametrize("path", POSTS)
    def test_the_examples_of_the_docs_work(self, api: Api, path: str) -> None:
        operation = api.http.get("/openapi.json").json()["paths"][path]["post"]
        for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
            assert str(api.http.post(path, json=example["value"]).status_code) in operation["responses"]


REASONS = ("age", "number", "bytes", "unknown")


class TestOperate:
    def test_model(self, api: Api) -> None:
        api.place.report()
        wait_until(lambda: api.http.get("/model").json()["learner"]["alive"])
        model = api.http.get("/model").json()
        assert (model["version"], model["model"], model["labels"]) == ("lineage-4", SPEC, ["spam", "ham"])
        assert model["feedback_offsets"] == {"0": 4, "1": 7}
        assert 0 <= model["age_seconds"] <= model["unchanged_seconds"] < 600
        assert (model["messages_seen"], model["rejected"], model["orphaned"], model["pending"]) == (11, 3, 6, 9)
        assert model["progressive"]["recent"].keys() == {"labels", "accuracy", "log_loss"}
        assert (model["learner"]["state"], model["learner"]["alive"], model["learner"]["epoch"]) == ("running", True, 1)

    def test_losses(self, api: Api) -> None:
        api.place.report()
        wait_until(lambda: api.http.get("/model").json()["losses"])
        losses = api.http.get("/model").json()["losses"]
        assert (losses["losses"], losses["records"], losses["by_topic"]) == (1, 7, {"feedback": 7})
        assert (losses["recent"][0]["start"], losses["recent"][0]["end"], losses["recent"][0]["why"]) == (
            3,
            10,
            "retention",
        )

    def test_a_learner_that_waits(self, api: Api) -> None:
        api.place.report(state="waiting", detail="the log has not answered for 9 s")
        wait_until(lambda: api.http.get("/model").json()["learner"]["state"] == "waiting")
        assert api.http.get("/model").json()["learner"]["alive"]
        (warning,) = api.http.get("/readyz").json()["warnings"]
        assert "it waits (the log has not answered for 9 s)" in warning
        api.place.report()

    def test_drift(self, api: Api) -> None:
        api.place.report()
        wait_until(lambda: api.http.get("/model").json()["drift"])
        drift = api.http.get("/model").json()["drift"]
        assert drift["alarms"] == 3
        assert drift["overall"] == {"worse": 1, "better": 0}
        assert drift["by_label"] == {"spam": {"worse": 2, "better": 0}}
        assert [(each["label"], each["offset"], each["change"]) for each in drift["recent"]] == [
            (None, 0, "worse"),
            ("spam", 1, "worse"),
            ("spam", 2, "worse"),
        ]
        found = {key: n for (name, key), n in samples(api).items() if name == "driftline_drift_alarms_total"}
        assert found == {
            frozenset({("label", label), ("change", change)}): n
            for label, change, n in [("", "worse", 1), ("", "better", 0), ("spam", "worse", 2), ("spam", "better", 0)]
        }

    def test_lag_is_right_without_a_learner(self, place: Place) -> None:
        place.publish()
        place.report(state="stopped", positions={"messages": {"0": 2}, "feedback": {"0": 0}})
        with running(place.stream) as url:
            post(f"{url}/messages", [{"text": "a"}] * 5)
            post(f"{url}/feedback", [{"message_id": "m", "label": "a"}] * 3)
            expected = {"messages": {"0": 3}, "feedback": {"0": 3}}
            wait_until(lambda: get(f"{url}/model").json()["lag"] == expected, 10)
            ready = get(f"{url}/readyz")
            assert ready.status_code == 200
            assert "stopped" in ready.json()["warnings"][0]

    def test_a_learner_that_went_silent(self, place: Place) -> None:
        place.publish()
        place.report(at=time.time() - 100)
        with running(place.stream) as url:
            assert not get(f"{url}/model").json()["learner"]["alive"]
            (warning,) = get(f"{url}/readyz").json()["warnings"]
            assert re.search(r"silent for 1\d\d s", warning)

    def test_a_status_of_another_version(self, place: Place) -> None:
        place.publish()
        (place.stream.data / "status.json").write_text("{}")
        with running(place.stream) as url:
            assert get(f"{url}/model").json()["learner"] is None
            assert "status.json is not a status" in get(f"{url}/readyz").json()["warnings"][0]

    def test_metrics(self, api: Api) -> None:
        api.place.report()
        before = samples(api)
        api.http.post("/predict", json={"texts": ["prize", "lunch", "lunch"]})
        api.http.post("/predict", content=b"")
        api.http.get("/nothing/at/all")
        api.http.get("/snapshots")
        api.http.get("/snapshots/none")
        api.http.put("/snapshots/none")
        after = samples(api)

        def grown(name: str, **labels: str) -> float:
            key = (name, frozenset(labels.items()))
            return after[key] - before.get(key, 0)

        assert grown("driftline_http_requests_total", route="/predict", code="200") == 1
        assert grown("driftline_http_requests_total", route="/predict", code="422") == 1
        assert grown("driftline_http_requests_total", route="(other)", code="404") == 1
        assert grown("driftline_http_requests_total", route="/snapshots", code="200") == 1
        assert grown("driftline_http_requests_total", route="/snapshots/{version}", code="404") == 1
        assert grown("driftline_http_requests_total", route="/snapshots/{version}", code="405") == 1
        assert grown("driftline_http_request_seconds_count", route="/predict") == 2
        assert grown("driftline_texts_predicted_total") == 3
        assert grown("driftline_predictions_total", label="ham") == 2
        names = {name for name, _ in after}
        assert names >= {
            f"driftline_{name}"
            for name in (
                "messages_seen_total", "labels_learned_total", "orphaned_total", "rejected_total", "pending",
                "model_age_seconds", "accuracy", "recent_accuracy", "learner_alive", "log_up",
            )
        }  # fmt: skip
        assert after["driftline_messages_seen_total", frozenset()] == 11
        orphaned = {reason: after["driftline_orphaned_total", frozenset({("reason", reason)})] for reason in REASONS}
        assert orphaned == {"age": 4, "number": 0, "bytes": 0, "unknown": 2}
        assert ("driftline_lag_records", frozenset({("topic", "messages"), ("partition", "1")})) in after

    def test_metrics_by_label_are_bounded(self, place: Place) -> None:
        place.classifier = make_classifier("linear?bits=18")
        place.classifier.learn_many([f"word{n}" for n in range(150)] * 5, [f"label{n}" for n in range(150)] * 5)
        place.publish()
        with running(place.stream) as url, httpx.Client(base_url=url) as http:
            answer = http.post("/predict", json={"texts": [f"word{n}" for n in range(150)]})
            assert len({p["label"] for p in answer.json()["predictions"]}) > 110
            series = [line for line in http.get("/metrics").text.splitlines() if "driftline_predictions_total{" in line]
            assert len(series) == 101


def samples(api: Api) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = api.http.get("/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_fault_is_told_and_counted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.publish()
    with running(place.stream) as url:
        monkeypatch.setattr("api.predict._predict", lambda *_: 1 / 0)
        assert refusal(post(f"{url}/predict", {"text": "a"}), 500)["code"] == "internal"
        assert 'driftline_http_requests_total{code="500",route="/predict"} 1.0' in get(f"{url}/metrics").text
        monkeypatch.undo()
        assert post(f"{url}/predict", {"text": "a"}).status_code == 200


def test_no_option_has_two_meanings() -> None:
    names = [name for cls in (StreamSettings, LearnerSettings, ApiSettings) for name in cls.model_fields]
    assert len(names) == len(set(names))


class TestServer:
    def test_port_in_use(self, place: Place) -> None:
        with running(place.stream) as url:
            port = address(url)[1]
            with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
                serve(place.stream, ApiSettings(port=port))

    def test_host_that_is_none(self, place: Place) -> None:
        with pytest.raises(ConfigError, match="host"):
            serve(place.stream, ApiSettings(host="256.0.0.1", port=0))

    def test_log_that_cannot_be_meant(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="carrier-pigeon"):
            serve(StreamSettings(data=tmp_path, log="carrier-pigeon://a"), ApiSettings(port=0))

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_within_seconds(self, place: Place, number: signal.Signals) -> None:
        """An idle connection does not hold it up; a request that has begun is answered."""
        place.publish()
        code = (
            "import sys; from pathlib import Path; from api.server import serve; from api.settings import ApiSettings\n"
            "from stream.settings import StreamSettings\n"
            "serve(StreamSettings(data=Path(sys.argv[1])), ApiSettings(port=0),"
            " on_ready=lambda started: print(started.url, flush=True)); print('closed', flush=True)"
        )
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, str(place.stream.data)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with socket.create_connection(address(url), timeout=20) as begun, httpx.Client(base_url=url) as idle:
                assert idle.get("/healthz").status_code == 200
                begun.sendall(b"POST /messages HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{")
                assert idle.get("/healthz").status_code == 200
                started = time.monotonic()
                process.send_signal(number)
                begun.sendall(b'"text": "a"}')
                assert begun.recv(1000).startswith(b"HTTP/1.1 202")
                out, err = process.communicate(timeout=20)
        assert time.monotonic() - started < 8
        assert (process.returncode, out, err) == (0, "closed\n", "")
        assert len(read_all(place.stream, "messages")) == 1


@pytest.fixture(scope="module")
def described(api: Api) -> Any:
    return schemathesis.openapi.from_url(f"{api.url}/openapi.json")


@pytest.mark.parametrize(
    ("path", "method"),
    [*((path, "POST") for path in POSTS), *((path, "GET") for path in ("/model", "/healthz", "/readyz", "/metrics"))],
)
def test_the_description_is_true(described: Any, path: str, method: str) -> None:
    """What the document allows is taken, what it does not is refused, and answers are as it says."""

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=described[path][method].as_strategy())
    def check(case: Any) -> None:
        case.call_and_validate(timeout=30)

    check()
