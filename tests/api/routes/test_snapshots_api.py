"""A model of the past is served over HTTP at once, without a request dropped, and the latest again after it."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftline.learner.serving.versions import Versions
from driftline.stream.process.settings import StreamSettings
from tests.faults.stage import SqliteStage, finish, learned, steps, text
from tests.place import refusal, running
from tests.waiting import wait_until


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    """Give a directory in which 10, 20 and 30 labels were learned, with a checkpoint at each."""
    with closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        for stop in (10, 20, 30):
            learn(stage, stop)
        yield stage


def learn(stage: SqliteStage, stop: int) -> None:
    stage.append(range(stop - 10, stop))
    with stage.learning() as learner:
        steps(learner, learned(learner, stop))
        finish(learner)


@pytest.fixture
def http(stage: SqliteStage) -> Iterator[httpx.Client]:
    with running(stage.stream) as url, httpx.Client(base_url=url, timeout=30) as http:
        yield http


def versions_of(stage: SqliteStage) -> list[str]:
    """Return what is kept, oldest first."""
    return [kept.version for kept in reversed(Versions(stage.stream.data).kept())]


def predicted(http: httpx.Client) -> dict[str, Any]:
    answer = http.post("/predict", json={"text": text(3)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def serves(http: httpx.Client, version: str) -> float:
    """Wait until a version is served; return for how long."""
    started = time.monotonic()
    wait_until(lambda: predicted(http)["model_version"] == version, what=f"{version} is served")
    return time.monotonic() - started


def test_they_are_listed_and_shown(stage: SqliteStage, http: httpx.Client) -> None:
    first, second, third = versions_of(stage)
    answer = http.get("/snapshots").json()
    assert (answer["served"], answer["pinned_to"]) == (third, None)
    assert [each["version"] for each in answer["snapshots"]] == [third, second, first]
    assert http.get(f"/snapshots/{second}").json() == answer["snapshots"][1]
    assert answer["snapshots"][1]["labels_learned"] == 20
    assert set(answer["snapshots"][1]["recent"]) == {"labels", "accuracy", "log_loss"}


def test_one_is_served_until_it_is_taken_back(stage: SqliteStage, http: httpx.Client) -> None:
    first, *_ = versions_of(stage)
    latest = predicted(http)["predictions"]
    answer = http.post(f"/snapshots/{first}/activate")
    assert (answer.status_code, answer.json()) == (200, {"pinned_to": first})
    serves(http, first)
    expected = Versions(stage.stream.data).open(first).model.predict_proba_many([text(3)])[1][0]
    prediction = predicted(http)
    assert prediction["predictions"][0]["scores"] == pytest.approx(
        dict(zip(["b", "a"], expected.tolist(), strict=True)), abs=1e-6
    )
    assert prediction["feedback_offsets"] == {"0": 10}
    assert http.get("/model").json()["pinned_to"] == first
    assert http.get("/model").json()["version"] == first
    assert http.get("/snapshots").json()["pinned_to"] == first
    assert http.get(f"/snapshots/{first}").json()["active"] is True
    assert any(f"pinned to {first}" in warning for warning in http.get("/readyz").json()["warnings"])
    assert "driftline_model_pinned 1.0" in http.get("/metrics").text
    learn(stage, 40)  # the learner goes on, and its snapshots
    assert predicted(http)["model_version"] == first
    waiting = http.post("/predict", json={"text": "x", "min_feedback_offset": {"partition": 0, "offset": 35}})
    assert f"pinned to {first}" in refusal(waiting, 409)["message"]
    answer = http.delete("/snapshots/active")
    assert (answer.status_code, answer.json()) == (200, {"pinned_to": None})
    wait_until(lambda: predicted(http)["model_version"].endswith("-40"), what="the latest is served")
    assert predicted(http)["predictions"] != latest
    assert "driftline_model_pinned 0.0" in http.get("/metrics").text
    assert http.delete("/snapshots/active").status_code == 200, "once more changes nothing"


def test_a_choice_made_elsewhere_and_before_a_start_counts(stage: SqliteStage) -> None:
    first, second, _ = versions_of(stage)
    Versions(stage.stream.data).activate(first)
    with running(stage.stream) as url, httpx.Client(base_url=url, timeout=30) as http:
        assert predicted(http)["model_version"] == first
        Versions(stage.stream.data).activate(second)
        serves(http, second)


def test_no_request_is_dropped_while_versions_change(stage: SqliteStage, http: httpx.Client) -> None:
    first, second, third = versions_of(stage)
    stop, codes, seen, taken_s = threading.Event(), set(), set(), []

    def ask() -> None:
        with httpx.Client(base_url=http.base_url, timeout=30) as own:
            while not stop.is_set():
                answer = own.post("/predict", json={"texts": [text(1), text(2)]})
                codes.add(answer.status_code)
                seen.add(answer.json()["model_version"])
                time.sleep(0.002)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for version in (first, second, first):
            assert http.post(f"/snapshots/{version}/activate").status_code == 200
            taken_s.append(serves(http, version))
            wait_until(lambda version=version: version in seen, what="both are asked")
        assert http.delete("/snapshots/active").status_code == 200
        taken_s.append(serves(http, third))
        wait_until(lambda: third in seen, what="both are asked")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert codes == {200}
    assert min(taken_s) < 1.0  # a busy machine may hold up some
    assert seen == {first, second, third}


def test_unknown_and_damaged_ones_are_refused(stage: SqliteStage, http: httpx.Client) -> None:
    first, _, third = versions_of(stage)
    for version in ("none-1", "..", "%2e%2e%2fcheckpoints", "x" * 300, "active"):
        assert refusal(http.post(f"/snapshots/{version}/activate"), 404)["code"] in {"unknown-version", "not-found"}
    for version in ("none-1", "%2e%2e", "active", ".writing-x", "kept"):
        assert refusal(http.get(f"/snapshots/{version}"), 404)["code"] in {"unknown-version", "not-found"}
    model = stage.stream.data / "snapshots" / "kept" / first / "model.safetensors"
    content = model.read_bytes()
    model.unlink()
    model.write_bytes(content[:-1])
    error = refusal(http.post(f"/snapshots/{first}/activate"), 409)
    assert error["code"] == "not-loadable"
    assert "is damaged" in error["message"]
    assert predicted(http)["model_version"] == third
    assert http.get("/model").json()["pinned_to"] is None
    assert refusal(http.post("/snapshots"), 405)["code"] == "method-not-allowed"


def test_one_that_is_damaged_after_it_was_chosen_leaves_the_latest(stage: SqliteStage) -> None:
    first, _, third = versions_of(stage)
    Versions(stage.stream.data).activate(first)
    (stage.stream.data / "snapshots" / "kept" / first / "model.safetensors").unlink()
    with running(stage.stream) as url, httpx.Client(base_url=url, timeout=30) as http:
        assert predicted(http)["model_version"] == third
        assert http.get("/model").json()["pinned_to"] is None
        assert "cannot be served" in str(http.get("/readyz").json())
