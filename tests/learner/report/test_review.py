"""What people look at: made by a real learner from a real log, and answered by a real server."""

import math
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np
import pytest

from driftline.api.routes.explain import Explainer
from driftline.api.routes.history import MAX_POINTS
from driftline.learner.disk.checkpoint import list_checkpoints
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.report.history import FILE as HISTORY
from driftline.learner.report.history import SERIES, read_history
from driftline.learner.report.label_requests import MAX_FIELD_CHARS, MAX_OPEN, MAX_TEXT_CHARS
from driftline.learner.report.review import FILE, KEPT, MAX_MATRIX, Review, read_review
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, Prediction, decode_prediction, encode
from tests.place import Place, refusal, running
from tests.waiting import wait_until

MODEL = "linear?bits=14"
WORDS = {"spam": ["prize", "winner", "cash", "claim"], "ham": ["lunch", "meeting", "home", "later"]}
COMMON = ["the", "you", "now", "please", "call", "see", "today"]


def text_of(label: str, rng: random.Random, doubtful: bool) -> str:
    own = [] if doubtful else rng.choices(WORDS[label], k=2)
    return " ".join([*rng.choices(COMMON, k=4), *own])


def send(log: Log, count: int, seed: int = 1, labelled: float = 1.0, start: int = 0) -> list[tuple[str, str]]:
    """Append messages, and labels for some of them; return all with their true labels. Some words tell nothing."""
    rng = random.Random(seed)
    truth = []
    for number in range(start, start + count):
        key, label = f"m{number}", rng.choice(["spam", "ham"])
        text = text_of(label, rng, doubtful=rng.random() < 0.3)
        log.append("messages", [NewRecord(key.encode(), encode(Message(key, text)))])
        if rng.random() < labelled:
            log.append("feedback", [NewRecord(key.encode(), encode(Feedback(key, label)))])
        truth.append((key, label))
    return truth


def learn(stream: StreamSettings, log: Log, **options: Any) -> None:
    learner = Learner(stream, LearnerSettings(model=MODEL, **options), log)
    with closing(learner):
        learner.start()
        learner.run(lambda: False, log.watermarks(stream.topics[:2]))


@pytest.fixture
def stream(tmp_path: Path) -> StreamSettings:
    return StreamSettings(data=tmp_path / "data")


@pytest.fixture
def log(stream: StreamSettings) -> Iterator[Log]:
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        yield log


class TestReview:
    def test_what_was_predicted_and_what_the_label_said(self, stream: StreamSettings, log: Log) -> None:
        truth = dict(send(log, 60, labelled=0.5))
        learn(stream, log, batch_records=16)
        review = read_review(stream.data)
        assert [seen.id for seen in review.messages] == [f"m{number}" for number in reversed(range(60))]
        assert all(seen.label in (None, truth[seen.id]) for seen in review.messages)
        assert 20 < sum(seen.label is not None for seen in review.messages) < 40
        assert review.messages[0].predicted in ("spam", "ham")
        assert {seen.id: seen.label for seen in review.labelled}.items() <= truth.items()
        assert all(seen.delay_seconds is not None and seen.delay_seconds >= 0 for seen in review.labelled)

    def test_a_label_that_waited_for_its_message(self, stream: StreamSettings, log: Log) -> None:
        send(log, 20)
        log.append("feedback", [NewRecord(b"late", encode(Feedback("late", "spam")))])
        learn(stream, log, batch_records=8)
        log.append("messages", [NewRecord(b"late", encode(Message("late", "claim your prize")))])
        learn(stream, log)
        assert read_review(stream.data).labelled[0].id == "late"

    def test_the_last_word_counts(self, stream: StreamSettings, log: Log) -> None:
        send(log, 20)
        log.append("messages", [NewRecord(b"one", encode(Message("one", "claim your prize")))])
        for feedback, label, retracted in (
            (Feedback("one", "ham", source="alice"), "ham", False),
            (Feedback("one", "ham", op="retract", source="alice"), "ham", True),
            (Feedback("one", "ham", source="alice"), "ham", False),
            (Feedback("one", "ham", op="retract"), "ham", True),
            (Feedback("one", "spam"), "spam", False),
            (Feedback("one", "ham"), "ham", False),
        ):
            log.append("feedback", [NewRecord(b"one", encode(feedback))])
            learn(stream, log)
            review = read_review(stream.data)
            for shown in (review.messages, review.labelled):
                seen = next(each for each in shown if each.id == "one")
                assert (seen.label, seen.retracted) == (label, retracted), feedback

    def test_fields_are_shown_beside_the_text(self, stream: StreamSettings, log: Log) -> None:
        send(log, 20)
        fields = {"sender": "a@b.example", "amount": 12.5, "note": "n" * 300}
        one, other = (
            Message("f", "claim it", fields=msgspec.Raw(encode(each))) for each in (fields, {"country": "NL"})
        )
        for each in (one, other):
            log.append("messages", [NewRecord(b"f", encode(each))])
        label = Feedback("f", "spam", text="claim it", fields=one.fields)
        log.append("feedback", [NewRecord(b"f", encode(label))])
        learn(stream, log, label_requests_per_hour=1e6)
        content = (stream.data / FILE).read_bytes()
        assert b"\\u0000" not in content
        assert b"\0" not in content
        review = read_review(stream.data)
        second, first = review.messages[:2]
        assert (second.text, second.fields, second.truncated) == ("claim it", {"country": "NL"}, False)
        assert (first.text, first.fields) == ("claim it", fields | {"note": "n" * MAX_FIELD_CHARS})
        assert first.truncated
        assert (review.labelled[0].fields, review.labelled[0].label) == (first.fields, "spam")
        assert second.label is None
        assert next(each for each in review.requests if each.id == "f").fields == {"country": "NL"}

    def test_confusion_is_that_of_the_labels(self, stream: StreamSettings, log: Log) -> None:
        send(log, 200)
        learn(stream, log, batch_records=20)
        confusion = read_review(stream.data).confusion
        assert sorted(confusion.labels) == ["ham", "spam"]
        matrix = np.array(confusion.counts)
        assert 150 < matrix.sum() <= 200
        assert matrix.trace() / matrix.sum() > 0.7

    def test_everything_is_bounded(self, stream: StreamSettings, log: Log) -> None:
        for number in range(2 * KEPT):
            message = Message(f"m{number}", f"word{number} " * 500)
            feedback = Feedback(f"m{number}", f"label{number % 30}")
            log.append("messages", [NewRecord(b"", encode(message))])
            log.append("feedback", [NewRecord(b"", encode(feedback))])
        log.append("messages", [NewRecord(b"", encode(Message(f"n{n}", "\u4e2d" * 5000))) for n in range(2 * MAX_OPEN)])
        learn(stream, log, label_requests_per_hour=1e6)
        review = read_review(stream.data)
        assert len(review.messages) == len(review.labelled) == KEPT
        assert len(review.requests) == MAX_OPEN
        assert len(review.confusion.labels) == MAX_MATRIX
        assert all(len(each.text) == MAX_TEXT_CHARS and each.truncated for each in review.requests)
        assert (stream.data / FILE).stat().st_size < 2 << 20

    def test_it_survives_a_restart(self, stream: StreamSettings, log: Log) -> None:
        send(log, 50, labelled=0.5)
        learn(stream, log, label_requests_per_hour=3600)
        before = read_review(stream.data)
        assert before.requests
        learn(stream, log, label_requests_per_hour=3600)
        after = read_review(stream.data)
        assert after.requests == before.requests
        assert after.messages == before.messages
        assert after.labelled == before.labelled
        assert after.estimate == before.estimate

    @pytest.mark.parametrize("name", [FILE, HISTORY])
    @pytest.mark.parametrize("content", [b"", b"{}", b'{"messages": 1}', b"\xff" * 3000])
    def test_a_damaged_file_is_made_anew(self, stream: StreamSettings, log: Log, name: str, content: bytes) -> None:
        stream.data.mkdir(exist_ok=True)
        (stream.data / name).write_bytes(content)
        send(log, 10)
        learn(stream, log)
        assert len(read_review(stream.data).messages) == 10

    def test_nothing_of_it_gets_into_the_model(self, tmp_path: Path, stream: StreamSettings, log: Log) -> None:
        send(log, 80, labelled=0.7)
        models = []
        for name, per_hour in (("one", 0.0), ("other", 1e5)):
            own = StreamSettings(data=tmp_path / name, log=stream.log_url)
            learn(own, log, label_requests_per_hour=per_hour, batch_records=16)
            newest = list_checkpoints(own.data / "checkpoints")[0]
            models.append([(newest / f"{part}.safetensors").read_bytes() for part in ("model", "progress", "drift")])
        assert models[0] == models[1]


class TestLabelRequests:
    def test_those_it_doubts_come_first_and_leave_once_they_are_labelled(
        self, stream: StreamSettings, log: Log
    ) -> None:
        send(log, 100)
        learn(stream, log, label_requests_per_hour=0)
        truth = dict(send(log, 600, seed=2, labelled=0.0, start=100))
        learn(stream, log, label_requests_per_hour=600, batch_records=32)
        requests = read_review(stream.data).requests
        assert 10 < len(requests) < 120
        assert all(0 < each.chance <= 1 for each in requests)
        assert all(each.label == next(iter(each.scores)) for each in requests)
        doubtful = [not set(each.text.split()) - set(COMMON) for each in requests]
        assert np.mean(doubtful) > 0.45, "three in ten of all"
        asked = requests[::2]
        for each in asked:
            log.append("feedback", [NewRecord(each.id.encode(), encode(Feedback(each.id, truth[each.id])))])
        learn(stream, log, label_requests_per_hour=600)
        review = read_review(stream.data)
        assert not {each.id for each in asked} & {each.id for each in review.requests}
        assert review.estimate.labels == len(asked)
        assert review.estimate.correct == sum(each.label == truth[each.id] for each in asked)

    def test_one_whose_label_was_taken_back_is_asked_for_again(self, stream: StreamSettings, log: Log) -> None:
        send(log, 50)
        send(log, 200, seed=2, labelled=0.0, start=50)
        with closing(Learner(stream, LearnerSettings(model=MODEL, label_requests_per_hour=600), log)) as learner:
            learner.start()

            def look() -> Review:
                ends = {partition: mark.high for partition, mark in log.watermarks(stream.topics[:2]).items()}
                wait_until(lambda: learner.step() >= 0 and learner._work.positions == ends)
                learner.run(lambda: True)
                assert learner._outside._reviewer is not None
                learner._outside._reviewer.report(learner._work.machine, 0)
                return read_review(stream.data)

            def told(*feedback: Feedback) -> tuple[bool, int, int]:
                log.append("feedback", [NewRecord(each.message_id.encode(), encode(each)) for each in feedback])
                review = look()
                is_open = any(each.id == asked.id for each in review.requests)
                return is_open, review.estimate.labels - before.labels, review.estimate.correct - before.correct

            first = look()
            asked, before = first.requests[3], first.estimate
            right, wrong = asked.label or "", "ham" if asked.label == "spam" else "spam"
            assert told(Feedback(asked.id, wrong)) == (False, 1, 0)
            assert told(Feedback(asked.id, wrong, op="retract")) == (True, 0, 0)
            assert told(Feedback(asked.id, right)) == (False, 1, 1)
            assert told(Feedback(asked.id, wrong)) == (False, 1, 0)
            assert told(Feedback(asked.id, wrong, op="retract"), Feedback(asked.id, right)) == (False, 1, 1)

    def test_accuracy_told_from_a_few_labels_is_that_of_all(self, stream: StreamSettings, log: Log) -> None:
        send(log, 150)
        learn(stream, log, label_requests_per_hour=0)
        truth = dict(send(log, 3000, seed=3, labelled=0.0, start=150))
        settings = LearnerSettings(label_requests_per_hour=2000, batch_records=64, checkpoint_interval_s=1000)
        answered = 0
        with closing(Learner(stream, settings, log)) as learner:
            learner.start()
            ends = log.watermarks(stream.topics[:2])
            learner.run(lambda: False, ends)
            predicted = {each.message_id: each.label for each in _predicted(log, stream)}
            right = [predicted[key] == label for key, label in truth.items()]
            assert learner._outside._reviewer is not None
            for each in list(learner._outside._reviewer.requests.open.values()):
                answered += 1
                log.append("feedback", [NewRecord(each.id.encode(), encode(Feedback(each.id, truth[each.id])))])
            learner.run(lambda: False, log.watermarks(stream.topics[:2]))
        estimate = read_review(stream.data).estimate
        assert estimate.labels == answered > 50
        assert estimate.accuracy is not None
        assert estimate.standard_error is not None
        assert abs(estimate.accuracy - np.mean(right)) < 3.5 * estimate.standard_error
        assert estimate.standard_error < 0.25


def _predicted(log: Log, stream: StreamSettings) -> Iterator[Prediction]:
    marks = log.watermarks([stream.topics.predictions])
    with closing(log.reader({partition: mark.low for partition, mark in marks.items()})) as reader:
        while not all(reader.at_end(partition) for partition in marks):
            yield from (decode_prediction(record.value or b"") for record in reader.read(1000, 0.1))


def points(stream: StreamSettings) -> int:
    """Return how many points of history there are."""
    return len(read_history(stream.data, 0.0, time.time(), MAX_POINTS).time)


class Api(NamedTuple):
    """A server over what a learner left."""

    stream: StreamSettings
    http: httpx.Client


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    stream = StreamSettings(data=tmp_path_factory.mktemp("review") / "data")
    with closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        send(log, 300, labelled=0.6)
        learner = Learner(stream, LearnerSettings(model=MODEL, label_requests_per_hour=1000, batch_records=8), log)
        with closing(learner):
            learner.start()
            ends = log.watermarks(stream.topics[:2])
            wait_until(
                lambda: learner.step() >= 0 and learner._work.reached(ends) and points(stream), what="a second is over"
            )
            learner.run(lambda: True)
    with running(stream) as url, httpx.Client(base_url=url, timeout=30) as http:
        yield Api(stream, http)


class TestExplain:
    def test_words_and_where_they_stand(self, api: Api) -> None:
        text = "\U0001f600 claim your prize \U0001f381 now"
        answer = api.http.post("/explain", json={"text": text, "features": 50})
        assert answer.status_code == 200, answer.text
        explained = answer.json()
        assert explained["label"] == "spam"
        assert explained["scores"]["spam"] == explained["score"] > 0.5
        words = {each["text"]: each for each in explained["features"] if each["kind"] == "word"}
        assert words["prize"]["shares"]["spam"] > 0 > words["prize"]["shares"]["ham"]
        assert [text[start:stop] for start, stop in words["prize"]["spans"]] == ["prize"]

    def test_they_add_up_to_what_predict_says(self, api: Api) -> None:
        text = "you claim lunch now"
        explained = api.http.post("/explain", json={"text": text, "features": 200}).json()
        predicted = api.http.post("/predict", json={"text": text}).json()["predictions"][0]
        assert explained["scores"] == predicted["scores"]
        sums = {
            label: explained["bias"][label]
            + explained["rest"][label]
            + sum(each["shares"][label] for each in explained["features"])
            for label in ("spam", "ham")
        }
        odds = math.log(predicted["scores"]["spam"] / predicted["scores"]["ham"])
        assert sums["spam"] - sums["ham"] == pytest.approx(odds, abs=0.01)

    def test_fields_are_told_apart_from_words(self, api: Api) -> None:
        body = {"text": "a prize", "fields": {"country": "NL", "amount": 5}, "features": 200}
        explained = api.http.post("/explain", json=body).json()
        assert {each["field"] for each in explained["features"]} == {None, "country", "amount"}
        assert "\\u0000" not in api.http.post("/explain", json=body).text
        place = next(each for each in explained["features"] if each["field"] == "country")
        assert (place["kind"], place["text"], place["spans"]) == ("field", "NL", [])
        refused = api.http.post("/explain", json={"text": "a", "fields": {"country": {}}})
        assert refusal(refused, 422)["code"] == "wrong-type"
        long = {f"f{n}": "x" * 2000 for n in range(9)}
        assert refusal(api.http.post("/explain", json={"text": "a", "fields": long}), 422)["code"] == "too-large"

    def test_labels_that_are_asked_for(self, api: Api) -> None:
        explained = api.http.post("/explain", json={"text": "prize", "labels": ["ham"], "features": 1}).json()
        assert [list(each["shares"]) for each in explained["features"]] == [["ham"]]

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({}, "missing-field"),
            ({"text": 1}, "wrong-type"),
            ({"text": "x" * 10_001}, "wrong-type"),
            ({"text": "a\0b"}, "forbidden-character"),
            ({"text": "x", "features": -1}, "wrong-type"),
            ({"text": "x", "features": 201}, "wrong-type"),
            ({"text": "x", "labels": ["a"] * 11}, "wrong-type"),
            ({"text": "x", "labels": ["nothing"]}, "unknown-label"),
        ],
    )
    def test_refused(self, api: Api, body: object, code: str) -> None:
        assert refusal(api.http.post("/explain", json=body), 422)["code"] == code

    def test_before_anything_was_learned(self, tmp_path: Path) -> None:
        with running(Place(tmp_path).stream) as url:
            assert refusal(httpx.post(f"{url}/explain", json={"text": "x"}, timeout=30), 503)["code"] == "no-model"

    def test_predictions_do_not_wait_for_explanations(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        """The explainer may take as long as it likes; the event loop answers meanwhile."""
        begun, release, explain = threading.Event(), threading.Event(), Explainer._explain

        def slowly(*arguments: Any) -> Any:
            begun.set()
            assert release.wait(60)
            return explain(*arguments)

        monkeypatch.setattr(Explainer, "_explain", slowly)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(api.http.post, "/explain", json={"text": "a prize"})
            try:
                assert begun.wait(30)
                assert api.http.post("/predict", json={"text": "prize"}).status_code == 200
                assert not slow.done()
            finally:
                release.set()
            assert slow.result().status_code == 200

    def test_odd_texts(self, api: Api) -> None:
        for text in ("", " ", "\U0010ffff" * 50, "\u202e\u200d\ufeff", "a" * 10_000, "!?" * 5_000, "\r\n\t"):
            assert api.http.post("/explain", json={"text": text}).status_code == 200


class TestAnswers:
    def test_label_requests(self, api: Api) -> None:
        answer = api.http.get("/label-requests?n=5").json()
        assert len(answer["requests"]) == 5 <= answer["open"]
        assert answer["per_hour"] == 1000
        first = answer["requests"][0]
        assert set(first) >= {"id", "text", "label", "score", "scores", "chance", "timestamp_ms"}
        assert answer["estimate"]["labels"] > 0, "labels of other sources count, where their message was chosen"

    def test_recent(self, api: Api) -> None:
        answer = api.http.get("/recent?n=7").json()
        assert len(answer["messages"]) == len(answer["labelled"]) == 7
        assert all(each["label"] in ("spam", "ham") for each in answer["labelled"])

    def test_labels(self, api: Api) -> None:
        answer = api.http.get("/labels").json()
        assert {each["label"] for each in answer["labels"]} == {"spam", "ham"}
        assert answer["total"] == 2
        by_row = [sum(row) for row in answer["confusion"]["counts"]]
        support = {each["label"]: each["support"] for each in answer["labels"]}
        assert by_row == [support[label] for label in answer["confusion"]["labels"]]
        matrix = dict(zip(answer["confusion"]["labels"], answer["confusion"]["counts"], strict=True))
        for each in answer["labels"]:
            column = answer["confusion"]["labels"].index(each["label"])
            assert each["right"] == matrix[each["label"]][column]
            assert each["recall"] == each["right"] / max(each["support"], 1)
            assert each["precision"] == each["right"] / max(each["predicted"], 1)
        assert answer["scored"] == sum(support.values())
        assert answer["confused"]["mistakes"] == answer["scored"] - sum(each["right"] for each in answer["labels"])
        assert sum(n for _, _, n in answer["confused"]["pairs"]) == answer["confused"]["mistakes"]

    def test_history(self, api: Api) -> None:
        answer = api.http.get("/history?since=-600&points=600").json()
        assert set(SERIES) <= set(answer)
        assert answer["period_seconds"] == 1
        assert len(answer["time"]) >= 1
        for name in SERIES:
            assert {len(column) for column in answer[name].values()} == {len(answer["time"])}
        assert answer["time"] == sorted(answer["time"])

    def test_history_by_time(self, api: Api) -> None:
        answer = api.http.get(f"/history?since={time.time()}").json()
        assert answer["time"] == []
        assert len(api.http.get("/history?since=0&points=1").json()["time"]) <= 1

    def test_drift(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        place.report()
        with running(place.stream) as url:
            answer = httpx.get(f"{url}/drift", timeout=30).json()
            assert answer["alarms"] == 3
            assert answer["overall"] == {"worse": 1, "better": 0}
            assert answer["by_label"] == {"spam": {"worse": 2, "better": 0}}
            assert answer["recent"][0]["loss_after"] == 0.5
            assert answer["recent"][-1]["label"] == "spam"

    @pytest.mark.parametrize("path", ["/label-requests", "/recent", "/labels", "/history", "/drift"])
    def test_before_a_learner_ran(self, tmp_path: Path, path: str) -> None:
        with running(StreamSettings(data=tmp_path)) as url:
            assert httpx.get(url + path, timeout=30).status_code == 200

    @pytest.mark.parametrize(
        "path",
        [
            "/label-requests?n=0",
            "/label-requests?n=201",
            "/label-requests?n=-1",
            "/label-requests?n=",
            "/label-requests?n=1e1",
            "/label-requests?n=\u0661",
            "/recent?n=x",
            f"/recent?n={'9' * 5000}",
            "/history?since=nan",
            "/history?since=inf",
            "/history?since=x",
            "/history?since=",
            f"/history?points={MAX_POINTS + 1}",
            "/history?points=1.0",
        ],
    )
    def test_parameters_that_are_none(self, api: Api, path: str) -> None:
        assert refusal(api.http.get(path), 422)["code"] == "bad-parameter"

    @pytest.mark.parametrize("since", ["-1e300", "1e300", "-0", "0", "1e-300"])
    def test_any_time_is_answered(self, api: Api, since: str) -> None:
        assert api.http.get(f"/history?since={since}").status_code == 200


def test_texts_that_share_an_id_are_shown_each_with_its_own_label(stream: StreamSettings, log: Log) -> None:
    for record in [Message("m", "text A"), Message("m", "text B"), Feedback("m", "spam", text="text A")]:
        topic = "messages" if isinstance(record, Message) else "feedback"
        log.append(topic, [NewRecord(b"m", encode(record))])
        learn(stream, log, label_requests_per_hour=1e6)
        review = read_review(stream.data)
        if topic == "messages" and record.text == "text B":
            assert review.requests == [], "a label for its id would not be taken as its own"
    assert {seen.text: seen.label for seen in review.messages} == {"text A": "spam", "text B": None}
