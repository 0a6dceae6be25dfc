"""What does the API tell those who look after it? The model, the metrics, its health."""

import re
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from driftline.learner.disk.lock import FILE, Lock, check_free, is_held
from driftline.learner.registry import make_classifier
from driftline.stream.errors import StateError
from tests.place import SPEC, Api, Place, get, post, refusal, running
from tests.waiting import wait_until

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
        assert model["progressive"]["recent"].keys() == {"labels", "accuracy", "log_loss", "known_log_loss"}
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
        assert "the learner waits (the log has not answered for 9 s)" in warning
        api.place.report()

    def test_a_learner_that_is_gone(self, api: Api) -> None:
        """Its status is as young as ever; its lock is not."""
        lock = Lock(api.place.stream.data)
        assert is_held(api.place.stream.data) is None  # not said yet, by whom
        lock.announce(1)
        api.place.report()
        wait_until(lambda: api.http.get("/model").json()["learner"]["alive"])
        with pytest.raises(StateError, match="another learner is at work"):
            check_free(api.place.stream.data)
        lock.close()
        check_free(api.place.stream.data)
        assert is_held(api.place.stream.data) is False
        api.place.report()
        wait_until(lambda: not api.http.get("/model").json()["learner"]["alive"])
        assert api.http.get("/model").json()["learner"]["state"] == "running"
        line = (api.place.stream.data / FILE).read_bytes()
        (api.place.stream.data / FILE).write_bytes(line.replace(b" on ", b" on another-"))
        assert is_held(api.place.stream.data) is None  # another machine's: what is not known is not taken for gone
        wait_until(lambda: api.http.get("/model").json()["learner"]["alive"])

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
            wait_until(lambda: get(f"{url}/model").json()["lag"] == expected)
            ready = get(f"{url}/readyz")
            assert ready.status_code == 200
            assert "stopped" in ready.json()["warnings"][0]

    def test_a_learner_that_went_silent(self, place: Place) -> None:
        place.publish()
        place.report(at=time.time() - 100)
        with running(place.stream) as url:
            assert not get(f"{url}/model").json()["learner"]["alive"]
            (warning,) = get(f"{url}/readyz").json()["warnings"]
            assert re.search(r"is silent: it said that it was running 1\d\d s ago", warning)

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
        with running(place.stream) as url, httpx.Client(base_url=url, timeout=30) as http:
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
        monkeypatch.setattr("driftline.api.routes.predict._few", lambda *_: 1 / 0)
        assert refusal(post(f"{url}/predict", {"text": "a"}), 500)["code"] == "internal"
        assert 'driftline_http_requests_total{code="500",route="/predict"} 1.0' in get(f"{url}/metrics").text
        monkeypatch.undo()
        assert post(f"{url}/predict", {"text": "a"}).status_code == 200
