"""Do clients of the Open Inference Protocol and of MLflow get what they know, over a real server?"""

import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from tests.often import times
from tests.place import MAX_TEXT_CHARS, TEXTS, Api, Place, refusal, running

INFER = "/v2/models/driftline/infer"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    place = Place(tmp_path_factory.mktemp("api"), partitions=2)
    place.publish()
    with running(place.stream) as url, httpx.Client(base_url=url, timeout=30) as http:
        yield Api(place, url, http)


def tensor(data: Any, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": shape, "datatype": "BYTES", "data": data}]} | more


def outputs(answer: httpx.Response) -> dict[str, dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return {each["name"]: each for each in answer.json()["outputs"]}


class TestOpenInference:
    def test_the_server_says_who_it_is(self, api: Api) -> None:
        assert api.http.get("/v2").json()["name"] == "driftline"
        assert api.http.get("/v2/health/live").json() == {"live": True}
        assert api.http.get("/v2/health/ready").json() == {"ready": True}

    @pytest.mark.parametrize("path", ["/v2/models/driftline", "/v2/models/driftline/versions/lineage-4"])
    def test_the_model_says_what_it_takes(self, api: Api, path: str) -> None:
        model = api.http.get(path).json()
        assert model["versions"] == ["lineage-4"]
        assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
        assert {each["name"]: each["datatype"] for each in model["outputs"]} == {
            "label": "BYTES", "score": "FP64", "scores": "FP64", "labels": "BYTES",
        }  # fmt: skip
        assert api.http.get(path + "/ready").json() == {"name": "driftline", "ready": True}

    @pytest.mark.parametrize(
        ("data", "shape"),
        [(TEXTS, [4]), ([[text] for text in TEXTS], [4, 1]), ([TEXTS], [1, 4]), ([TEXTS[:2], TEXTS[2:]], [2, 2])],
    )
    def test_texts_in_scores_out(self, api: Api, data: Any, shape: list[int]) -> None:
        answer = api.http.post(INFER, json=tensor(data, shape, id="a7"))
        found = outputs(answer)
        assert (answer.json()["id"], answer.json()["model_name"]) == ("a7", "driftline")
        assert answer.json()["model_version"] == "lineage-4"
        expected = [api.place.classifier.predict_proba_one(text) for text in TEXTS]
        labels = found["labels"]["data"]
        assert found["label"]["data"] == ["spam", "spam", "ham", "ham"]
        assert found["scores"]["shape"] == [4, 2]
        rows = [dict(zip(labels, found["scores"]["data"][at : at + 2], strict=True)) for at in range(0, 8, 2)]
        assert rows == [pytest.approx(each, abs=1e-6) for each in expected]
        assert found["score"]["data"] == [max(row.values()) for row in rows]

    def test_a_number_is_an_id(self, api: Api) -> None:
        assert api.http.post(INFER, json=tensor(TEXTS, [4], id=7.0)).json()["id"] == "7"

    def test_half_a_character_stops_no_question(self, api: Api) -> None:
        data = b'{"inputs":[{"name":"t","shape":[1,1],"datatype":"BYTES","data":[["prize \\ud83d"]]}]}'
        assert outputs(api.http.post(INFER, content=data))["label"]["data"] == ["spam"]
        for body in (b'{"inputs":{"text":["prize \\ud83d"]}}', b'{"dataframe_records":[{"text":"prize \\ud83d"}]}'):
            assert api.http.post("/invocations", content=body).json() == {"predictions": ["spam"]}

    def test_only_the_outputs_asked_for(self, api: Api) -> None:
        asked = tensor(["prize"], [1], outputs=[{"name": "score"}, {"name": "label"}])
        assert list(outputs(api.http.post(INFER, json=asked))) == ["score", "label"]

    def test_raw_bytes_behind_the_json(self, api: Api) -> None:
        raw = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in ["größer", "prize"])
        entry = {"name": "t", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
        head = json.dumps({"inputs": [entry]}).encode()
        answer = api.http.post(INFER, content=head + raw, headers={"Inference-Header-Content-Length": str(len(head))})
        plain = api.http.post(INFER, json=tensor(["größer", "prize"], [2]))
        assert outputs(answer) == outputs(plain)

    @pytest.mark.parametrize(
        ("raw", "size", "length"),
        [
            (b"\x09\0\0\0short", 9, None),  # ends within an element
            (b"\x01\0", 2, None),  # within a length
            (b"\xff\xff\xff\xffabc", 7, None),
            (b"\x02\0\0\0\xff\xfe", 6, None),  # not UTF-8
            (b"\x01\0\0\0a", 4, None),  # not the size that is said
            (b"\x01\0\0\0a", 5, "99999"),
            (b"\x01\0\0\0a", 5, "-1"),
            (b"\x01\0\0\0a", 5, "1e3"),
        ],
    )
    def test_raw_bytes_that_cannot_be_read(self, api: Api, raw: bytes, size: int, length: str | None) -> None:
        entry = {"name": "t", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [entry]}).encode()
        headers = {"Inference-Header-Content-Length": length or str(len(head))}
        refusal(api.http.post(INFER, content=head + raw, headers=headers), 422)

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({}, "missing-field"),
            ({"inputs": []}, "out-of-range"),
            ({"inputs": tensor(["a"], [1])["inputs"] * 2}, "out-of-range"),
            ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}, "wrong-type"),
            (tensor(["a"], [2]), "out-of-range"),
            (tensor(["a"], [-1]), "out-of-range"),
            (tensor(["a"], []), "out-of-range"),
            (tensor(["a"], [1.5]), "wrong-type"),
            (tensor(["a"], ["1"]), "wrong-type"),
            (tensor(["a"], [1] * 33), "out-of-range"),
            (tensor(["a"] * 1001, [1001]), "out-of-range"),
            (tensor([["a"], "b"], [2]), "wrong-type"),
            (tensor([], [0]), "out-of-range"),
            (tensor(["a", ["b"]], [2]), "wrong-type"),
            (tensor([1], [1]), "wrong-type"),
            (tensor(None, [1]), "wrong-type"),
            (tensor(["a\0"], [1]), "forbidden-character"),
            (tensor(["a" * (MAX_TEXT_CHARS + 1)], [1]), "too-large"),
            (tensor(["a"], [1], outputs=[{"name": "loss"}]), "out-of-range"),
            (tensor(["a"], [1 << 62, 1 << 62, 1 << 62]), "out-of-range"),
        ],
    )
    def test_refused(self, api: Api, body: Any, code: str) -> None:
        assert refusal(api.http.post(INFER, json=body), 422)["code"] == code

    @pytest.mark.parametrize(
        "path", ["/v2/models/other", "/v2/models/driftline/versions/1", "/v2/models/x/versions/1/infer"]
    )
    def test_no_such_model(self, api: Api, path: str) -> None:
        asked = api.http.post(path, json=tensor(["a"], [1])) if path.endswith("infer") else api.http.get(path)
        refusal(asked, 404)

    def test_a_version_is_the_one_that_is_served(self, place: Place) -> None:
        place.publish(4)
        path = "/v2/models/driftline/versions/lineage-{}/infer"
        with running(place.stream) as url:
            assert httpx.post(url + path.format(4), json=tensor(["a"], [1]), timeout=30).status_code == 200
            place.publish(8)
            assert httpx.post(url + path.format(8), json=tensor(["a"], [1]), timeout=30).status_code == 200
            refusal(httpx.post(url + path.format(4), json=tensor(["a"], [1]), timeout=30), 404)

    def test_before_anything_was_learned(self, place: Place) -> None:
        with running(place.stream, model_name="spam-filter") as url:
            assert httpx.get(f"{url}/v2/health/live", timeout=30).status_code == 200
            for path in ("/v2/health/ready", "/ping", "/health"):  # the first label may come
                assert httpx.get(url + path, timeout=30).status_code == 200
            error = refusal(httpx.get(f"{url}/v2/models/spam-filter/ready", timeout=30), 503)
            assert error["code"] == "no-model"
            refusal(httpx.post(f"{url}/v2/models/spam-filter/infer", json=tensor(["a"], [1]), timeout=30), 503)

    def test_requests_are_counted_by_route(self, api: Api) -> None:
        api.http.post(INFER, json=tensor(["prize"], [1]))
        text = api.http.get("/metrics").text
        assert 'driftline_http_requests_total{code="200",route="/v2/models/{name}/infer"}' in text


class TestMlflow:
    @pytest.mark.parametrize(
        "body",
        [
            {"inputs": TEXTS},
            {"inputs": [[text] for text in TEXTS]},
            {"inputs": {"text": TEXTS}},
            {"inputs": {"text": [[text] for text in TEXTS]}},
            {"instances": [{"text": [text]} for text in TEXTS]},
            {"instances": TEXTS},
            {"instances": [{"text": text, "id": 7} for text in TEXTS]},
            {"dataframe_records": [{"body": text} for text in TEXTS]},
            {"dataframe_split": {"columns": ["id", "text"], "data": [[n, text] for n, text in enumerate(TEXTS)]}},
            {"dataframe_split": {"index": [5, 6, 7, 8], "columns": ["x"], "data": [[text] for text in TEXTS]}},
        ],
    )
    def test_every_form(self, api: Api, body: Any) -> None:
        answer = api.http.post("/invocations", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"predictions": ["spam", "spam", "ham", "ham"]}

    def test_scores(self, api: Api) -> None:
        answer = api.http.post("/invocations", json={"inputs": "win a prize", "params": {"scores": True}})
        (found,) = answer.json()["predictions"]
        expected = api.http.post("/predict", json={"text": "win a prize"}).json()["predictions"][0]
        assert found == expected

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"inputs": ["a"], "instances": ["b"]},
            {"inputs": []},
            {"inputs": 7},
            {"inputs": [7]},
            {"inputs": [None]},
            {"inputs": [["a", "b"]]},
            {"inputs": {}},
            {"inputs": {"a": ["x"], "b": ["y"]}},
            {"inputs": {"text": 5}},
            {"instances": [{"a": "x", "b": "y"}]},
            {"instances": [{}]},
            {"dataframe_split": {"columns": [], "data": [[]]}},
            {"dataframe_split": {"columns": ["text", "id"], "data": [["a"]]}},
            {"dataframe_split": {"columns": ["text"], "data": "a"}},
            {"dataframe_split": ["a"]},
            {"dataframe_records": "a"},
            {"dataframe_records": [["a"]]},
            {"inputs": ["a\0"]},
            {"inputs": ["a"], "params": {"scores": 1}},
            {"inputs": ["a"] * 1001},
        ],
    )
    def test_refused(self, api: Api, body: Any) -> None:
        refusal(api.http.post("/invocations", json=body), 422)

    def test_lists_that_are_empty_were_not_given(self, api: Api) -> None:
        """Clients that a generator makes in Java send one for each that nobody set."""
        body: Any = {"inputs": ["win a prize"], "dataframe_records": []}
        assert api.http.post("/invocations", json=body).json() == {"predictions": ["spam"]}
        answer = api.http.post("/explain", json={"text": "win a prize", "labels": []})
        assert answer.json()["features"][0]["shares"].keys() == {"spam", "ham"}
        refusal(api.http.post("/invocations", json={"dataframe_records": []}), 422)

    def test_what_balancers_ask(self, api: Api) -> None:
        assert api.http.get("/ping").status_code == api.http.get("/health").status_code == 200
        assert api.http.get("/version").headers["content-type"].startswith("text/plain")


@pytest.fixture(scope="module")
def described(api: Api) -> Any:
    return schemathesis.openapi.from_url(f"{api.url}/openapi.json")


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/invocations", "POST"), ("/ping", "GET"), ("/version", "GET"), ("/v2", "GET"), ("/v2/health/ready", "GET"),
        ("/v2/models/{name}/infer", "POST"), ("/v2/models/{name}/versions/{version}", "GET"),
    ],
)  # fmt: skip
@pytest.mark.long
def test_answers_are_as_described(described: Any, path: str, method: str) -> None:
    """The forms are told in words more than in the schema, so what it allows may be refused; never with a fault."""
    names = "not_a_server_error", "response_schema_conformance", "status_code_conformance", "content_type_conformance"
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in names]

    @settings(max_examples=times(40, 15), deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=described[path][method].as_strategy())
    def check(case: Any) -> None:
        case.call_and_validate(timeout=30, checks=checks)

    check()
