"""Does the API answer what it should, to anyone, over a real server, log and data directory?"""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from driftline.api.run.server import serve
from driftline.api.settings import ApiSettings
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.quality.figures import Counts
from driftline.learner.registry import make_classifier
from driftline.stream.errors import ConfigError
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.fielded import join
from driftline.stream.wire.names import same_name
from driftline.stream.wire.records import decode_feedback, decode_message
from driftline.stream.wire.vector import with_vector
from tests.data import ROOT
from tests.often import times
from tests.place import (
    MAX_TEXT_CHARS,
    POSTS,
    SHOWS,
    TEXTS,
    Api,
    Place,
    address,
    exchange,
    get,
    post,
    read_all,
    refusal,
    running,
)
from tests.waiting import wait_until


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

    def test_fields_are_part_of_what_is_classified(self, place: Place) -> None:
        nl, be = {"country": "NL", "amount": 5}, {"country": "BE", "amount": 5.0}
        for _ in range(30):
            place.classifier.learn_many([join("noise", nl), join("noise", be)], ["spam", "ham"])
        place.publish()
        with running(place.stream) as url:
            for fields, label in ((nl, "spam"), (be, "ham")):
                (one,) = post(f"{url}/predict", {"text": "noise", "fields": fields}).json()["predictions"]
                expected = place.classifier.predict_proba_one(join("noise", fields))
                assert one["scores"] == pytest.approx(expected, abs=1e-6)
                assert one["label"] == label
            for n in (1, 700):
                messages = [{"text": "noise", "fields": nl}, {"text": "noise", "fields": be}, {"text": "noise"}] * n
                found = post(f"{url}/predict", {"messages": messages[:1000]}).json()["predictions"]
                assert [each["label"] for each in found[:2]] == ["spam", "ham"]
                bare = place.classifier.predict_proba_one("noise")
                assert found[2]["scores"] == pytest.approx(bare, abs=1e-6)
            (none,) = post(f"{url}/predict", {"text": "noise", "fields": {"x": None}}).json()["predictions"]
            assert none["scores"] == pytest.approx(bare, abs=1e-6)

    @pytest.mark.parametrize(
        ("body", "code", "said"),
        [
            ({"text": "a", "fields": []}, "wrong-type", "must be an object"),
            ({"text": "a", "fields": {"b": {}}}, "wrong-type", "fields.b must be"),
            ({"text": "a", "fields": {"b": "\0"}}, "forbidden-character", "fields.b contains a NUL"),
            ({"text": "a", "fields": {"b": "c" * 2049}}, "too-large", "fields.b has 2049"),
            ({"text": "a", "fields": {str(n): n for n in range(33)}}, "too-large", "at most 32"),
            ({"texts": ["a"], "fields": {"b": 1}}, "wrong-type", "in messages"),
            ({"messages": []}, "out-of-range", "got 0 texts"),
            ({"messages": [{"text": "a"}, {"text": "b", "fields": {"c": [[]]}}]}, "wrong-type", "messages[1].fields.c"),
            ({"messages": [{"text": "a\0"}]}, "forbidden-character", "messages[0].text contains"),
            ({"messages": [{"fields": {}}]}, "missing-field", "text"),
            ({"messages": [{"text": "a"}], "text": "a"}, "missing-field", "only one"),
        ],
    )
    def test_fields_that_are_none(self, api: Api, body: object, code: str, said: str) -> None:
        error = refusal(api.http.post("/predict", json=body), 422)
        assert (error["code"], said in error["message"]) == (code, True), error

    def test_fields_get_into_the_log_as_they_were_sent(self, api: Api) -> None:
        fields = {"sender": "a@b.example", "n": 1.5, "tags": ["x"]}
        sent = {"id": "fielded", "text": "hi", "fields": fields}
        label = {"id": "l", "message_id": "fielded", "label": "spam", "text": "hi", "fields": fields}
        event = {"specversion": "1.0", "id": "e", "source": "s", "type": "t", "data": {"text": "hi", "fields": fields}}
        for path, body in (("/messages", sent), ("/messages", event), ("/feedback", label)):
            assert api.http.post(path, json=body).status_code == 202
        found = [
            json.loads(each.value or b"")
            for topic in ("messages", "feedback")
            for each in read_all(api.place.stream, topic)
        ]
        kept = [each["fields"] for each in found if each.get("id") in ("fielded", "e", "l")]
        assert kept == [fields] * 3
        for path, body in (("/messages", sent | {"fields": {"a": {}}}), ("/feedback", label | {"fields": 5})):
            assert refusal(api.http.post(path, json=body), 422)["code"] == "wrong-type"
        needs = {"message_id": "m", "label": "spam", "fields": fields}
        assert "fields are of a text" in refusal(api.http.post("/feedback", json=needs), 422)["message"]

    def test_a_vector_is_part_of_what_is_classified(self, place: Place) -> None:
        place.classifier = make_classifier("blend?bits=12&max_labels=4&dimension=2")
        one, other = [2.0, 0.0], [0.0, 3.0]
        vectors = {label: np.array(vector) for label, vector in (("spam", one), ("ham", other))}
        for _ in range(30):
            place.classifier.learn_many([with_vector("noise", each) for each in vectors.values()], [*vectors])
        place.publish()
        with running(place.stream) as url:
            for vector, label in ((one, "spam"), (other, "ham")):
                (found,) = post(f"{url}/predict", {"text": "noise", "vector": vector}).json()["predictions"]
                expected = place.classifier.predict_proba_one(with_vector("noise", vectors[label]))
                assert found["scores"] == pytest.approx(expected, abs=1e-6)
                assert found["label"] == label
            for n in (1, 300):
                messages = [{"text": "noise", "vector": one}, {"text": "noise", "vector": other}, {"text": "noise"}] * n
                found = post(f"{url}/predict", {"messages": messages}).json()["predictions"]
                assert [each["label"] for each in found[:2]] == ["spam", "ham"]
                assert found[2]["scores"] == pytest.approx(place.classifier.predict_proba_one("noise"), abs=1e-6)
            told = post(f"{url}/explain", {"text": "noise", "vector": one, "features": 200}).json()
            (part,) = [each for each in told["features"] if each["kind"] == "vector"]
            assert (part["text"], part["spans"]) == ("vector of 2 numbers", [])
            assert part["shares"]["spam"] > part["shares"]["ham"]
            for path in ("/predict", "/explain"):
                error = refusal(post(f"{url}{path}", {"text": "noise", "vector": [1, 2, 3]}), 422)
                assert error["code"] == "wrong-vector"
                assert error["message"].startswith("text has a vector of 3 numbers, and the model that answers takes")
                assert "blend?dimension=3" in error["action"]
            body = {"messages": [{"text": "a"}, {"text": "a", "vector": [1, 2, 3]}]}
            assert refusal(post(f"{url}/predict", body), 422)["message"].startswith("messages[1] has a vector of 3")
            late = body | {"min_feedback_offset": {"partition": 0, "offset": 0}}
            assert refusal(post(f"{url}/predict", late), 422)["message"].startswith("messages[1] has a vector of 3")

    @pytest.mark.parametrize(
        ("body", "code", "said"),
        [
            ({"text": "a", "vector": [1, "b"]}, "wrong-type", "vector[1] is no number"),
            ({"text": "a", "vector": {}}, "wrong-type", "a list of numbers, or a string of base64"),
            ({"text": "a", "vector": [0, 0]}, "out-of-range", "all 0"),
            ({"text": "a", "vector": [1]}, "out-of-range", "2 to 2,048"),
            ({"text": "a", "vector": [1] * 3000}, "out-of-range", "3,000 numbers"),
            ({"text": "a", "vector": [1, 2]}, "wrong-vector", "takes none"),
            ({"texts": ["a"], "vector": [1, 2]}, "wrong-type", "a vector is of one text"),
            ({"messages": [{"text": "a"}, {"text": "b", "vector": [[]]}]}, "wrong-type", "messages[1].vector[0]"),
        ],
    )
    def test_vectors_that_are_none(self, api: Api, body: object, code: str, said: str) -> None:
        error = refusal(api.http.post("/predict", json=body), 422)
        assert (error["code"], said in error["message"]) == (code, True), error

    def test_many_long_vectors_are_no_more_values_than_they_are_vectors(self, api: Api) -> None:
        messages = [{"text": "a", "vector": [0.5] * 384} for _ in range(100)]
        assert refusal(api.http.post("/predict", json={"messages": messages}), 422)["code"] == "wrong-vector"
        sent = [{"id": f"v{number}", **each} for number, each in enumerate(messages)]
        assert api.http.post("/messages", json=sent).status_code == 202

    def test_a_vector_gets_into_the_log_in_its_direction(self, api: Api) -> None:
        sent = {"id": "vector", "text": "hi", "vector": [3, -4]}
        label = {"id": "lv", "message_id": "vector", "label": "spam", "text": "hi", "vector": "AABAQAAAgMA="}
        event = {
            "specversion": "1.0",
            "id": "ev",
            "source": "s",
            "type": "t",
            "data": {"text": "hi", "vector": [3, -4]},
        }
        for path, body in (("/messages", sent), ("/messages", event), ("/feedback", label)):
            assert api.http.post(path, json=body).status_code == 202
        found = [
            (decode_message if topic == "messages" else decode_feedback)(each.value or b"").text
            for topic in ("messages", "feedback")
            for each in read_all(api.place.stream, topic)
            if json.loads(each.value or b"").get("id") in ("vector", "ev", "lv")
        ]
        assert found == [with_vector("hi", np.array([3, -4]))] * 3
        for path, body in (("/messages", sent | {"vector": [1]}), ("/feedback", label | {"vector": [0, 0]})):
            assert refusal(api.http.post(path, json=body), 422)["code"] == "out-of-range"
        needs = {"message_id": "m", "label": "spam", "vector": [1, 2]}
        assert "a vector is of a text" in refusal(api.http.post("/feedback", json=needs), 422)["message"]

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
            assert "no learner has run on this data directory yet" in error["message"]
            answer = get(f"{url}/readyz")
            assert answer.status_code == 200, "it takes the first label, or there will never be one"
            parts = answer.json()["parts"]
            assert {name: part["ready"] for name, part in parts.items()} == {
                "predict": False, "take": True, "learn": False,
            }  # fmt: skip
            assert parts["learn"]["why"] == "no learner has run on this data directory yet"
            assert post(f"{url}/feedback", {"message_id": "m", "label": "a", "text": "b"}).status_code == 202
            model = get(f"{url}/model").json()
            assert model["version"] is model["learner"] is model["progressive"] is model["age_seconds"] is None
            assert model["drift"] is None
            wait_until(lambda: get(f"{url}/model").json()["lag"] == {"messages": {"0": 0}, "feedback": {"0": 1}})
            assert "driftline_learner_alive 0.0" in get(f"{url}/metrics").text

            place.report(counts=Counts())

            def parts_now() -> dict[str, tuple[bool, str | None]]:
                return {name: tuple(part.values()) for name, part in get(f"{url}/readyz").json()["parts"].items()}

            why = "there is none yet, nothing was learned; labels show a moment after they were sent"
            wait_until(lambda: parts_now() == {"predict": (False, why), "take": (True, None), "learn": (True, None)})
            place.report()
            wait_until(lambda: "4 labels learned, and the model of them is not in" in str(parts_now()["predict"][1]))
            place.publish()
            wait_until(lambda: all(ready for ready, _ in parts_now().values()))
            assert post(f"{url}/predict", {"text": "a"}).status_code == 200

    def test_no_request_fails_while_models_change(self, place: Place) -> None:
        version = place.publish()
        with running(place.stream) as url, ThreadPoolExecutor(3) as pool:
            stop, seen = threading.Event(), set[str]()

            def ask(texts: list[str]) -> int:
                with httpx.Client(base_url=url, timeout=30) as http:
                    asked = 0
                    while not stop.is_set() or asked < 4:
                        answer = http.post("/predict", json={"texts": texts})
                        assert answer.status_code == 200, answer.text
                        assert {p["label"] for p in answer.json()["predictions"]} == {"spam", "ham"}
                        seen.add(answer.json()["model_version"])
                        asked += 1
                return asked

            asking = [pool.submit(ask, texts) for texts in (TEXTS, TEXTS, TEXTS * 250)]
            try:
                for updates in range(8, 108, 4):
                    version, before = place.publish(updates), len(seen)
                    time.sleep(0.02)
                    if before < 4:  # on a busy machine nobody may have asked meanwhile
                        wait_until(lambda version=version: version in seen)
                wait_until(lambda: version in seen)
            finally:
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

    def test_every_path_says_what_it_answers(self, api: Api) -> None:
        """With 405 and with OPTIONS the same, and no more and no less than the description has; HEAD where GET is."""
        paths: dict[str, Any] = api.http.get("/openapi.json").json()["paths"]
        described = {path: {name.upper() for name in operations} for path, operations in paths.items()}
        described |= {"/": {"GET"}, "/docs": {"GET"}, "/dashboard/main.js": {"GET"}}
        for path in described:
            fitting = [other for other in described if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", other), path)]
            methods = set[str]().union(*(described[other] for other in fitting))
            expected = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
            asked = re.sub(r"\{\w+\}", "x", path)
            refused, options = api.http.put(asked), api.http.options(asked)
            assert refusal(refused, 405)["code"] == "method-not-allowed"
            assert (options.status_code, options.content) == (204, b"")
            for answer in (refused, options):
                assert set(answer.headers["allow"].split(", ")) == expected, path
        assert refusal(api.http.options("/nothing"), 404)
        assert api.http.put("/snapshots/active").headers["allow"] == "GET, HEAD, DELETE, OPTIONS", "of two routes"

    def test_answers_are_not_kept_nor_guessed_at(self, api: Api) -> None:
        """All that is made for a request says so, in every way that it goes; what is HTML is in nobody's frame."""
        answers = [api.http.get(path) for path in (*SHOWS, "/healthz", "/readyz", "/metrics", "/v2", "/openapi.json")]
        answers += [api.http.get("/nothing"), api.http.put("/predict"), api.http.options("/predict")]
        answers += [api.http.post("/predict", json=body) for body in ({"text": "a"}, {"texts": ["a"] * 1000}, {})]
        answers += [api.http.post("/messages", json={"text": "a"}), api.http.post("/predict", content=iter([b"{}"]))]
        for answer in answers:
            assert answer.headers.get_list("cache-control") == ["no-store"], answer.url
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"], answer.url
        assert b"no-store" in exchange(api.url, b"nonsense\r\n\r\n")
        for path in ("/", "/docs", "/dashboard/main.js", "/static-offline-docs/swagger-ui.css"):
            answer = api.http.get(path)
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"], path
            assert "no-store" not in answer.headers.get_list("cache-control"), path
            if answer.headers["content-type"].startswith("text/html"):
                assert answer.headers["x-frame-options"] == "DENY"
                assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]

    @pytest.mark.parametrize("path", ["/", "/model", "/healthz", "/docs", "/v2", "/dashboard/main.js", "/nothing"])
    def test_head_is_get_without_a_body(self, api: Api, path: str) -> None:
        head, whole = api.http.head(path), api.http.get(path)
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert refusal(api.http.get("/nothing"), 404)  # the connection is whole

    def test_head_is_not_post(self, api: Api) -> None:
        assert api.http.head("/predict").status_code == 405

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
    def test_a_signal_ends_it(self, place: Place, number: signal.Signals) -> None:
        """An idle connection does not hold it up; a request that has begun is answered."""
        place.publish()
        code = (
            "import sys; from pathlib import Path; from driftline.api.run.server import serve\n"
            "from driftline.api.settings import ApiSettings\n"
            "from driftline.stream.process.settings import StreamSettings\n"
            "serve(StreamSettings(data=Path(sys.argv[1])), ApiSettings(port=0),"
            " on_ready=lambda started: print(started.url, flush=True)); print('closed', flush=True)"
        )
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, str(place.stream.data)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with (
                socket.create_connection(address(url), timeout=60) as begun,
                httpx.Client(base_url=url, timeout=30) as idle,
            ):
                assert idle.get("/healthz").status_code == 200
                begun.sendall(b"POST /messages HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{")
                assert idle.get("/healthz").status_code == 200
                process.send_signal(number)
                begun.sendall(b'"text": "a"}')
                assert begun.recv(1000).startswith(b"HTTP/1.1 202")
                out, err = process.communicate(timeout=60)  # without an end for the idle one it fails
        assert (process.returncode, out, err) == (0, "closed\n", "")
        assert len(read_all(place.stream, "messages")) == 1


@pytest.fixture(scope="module")
def described(api: Api) -> Any:
    return schemathesis.openapi.from_url(f"{api.url}/openapi.json")


def has_labels_that_are_seen(case: Any) -> bool:
    """Which characters nobody sees is told in words: no pattern for it is one in every language."""
    items = case.body if isinstance(case.body, list) else []
    return all(same_name(each["label"]) for each in items if isinstance(each.get("label"), str))


def with_sound_fields(case: Any) -> Any:
    """What names and values fields may have is told in words, too: no schema of OpenAPI 3.0 can say the first.

    Nor can one say of a vector that its numbers are not all 0, or that the model takes none.
    """
    if isinstance(case.query, dict):
        case.query.pop("after", None)  # it has to come from an answer
        if case.query.get("format") == "records":  # which takes nothing that chooses
            case.query = {"format": "records"}
    items = case.body if isinstance(case.body, list) else [case.body]
    items = [*items, *(each for item in items if isinstance(item, dict) for each in item.get("messages", []))]
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("vector"), list | str):
            del item["vector"]
        if isinstance(item, dict) and isinstance(item.get("fields"), dict):
            item["fields"] = {
                name.replace("\0", "")[:64] or "n": value if isinstance(value, int | float | bool) else str(value)[:99]
                for name, value in item["fields"].items()
                if "\0" not in str(value)
            }
            if item.get("text") is None:
                del item["fields"]
    return case


@pytest.mark.parametrize(
    ("path", "method"),
    [
        *((path, "POST") for path in POSTS),
        *((path, "GET") for path in ("/model", "/healthz", "/readyz", "/metrics", "/messages", "/export")),
    ],
)
@pytest.mark.long
def test_the_description_is_true(described: Any, path: str, method: str) -> None:
    """What the document allows is taken, what it does not is refused, and answers are as it says."""

    @settings(max_examples=times(60, 20), deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=described[path][method].as_strategy().map(with_sound_fields).filter(has_labels_that_are_seen))
    def check(case: Any) -> None:
        case.call_and_validate(timeout=30)

    check()
