"""A model that makes vectors answers as it would in Python, and nobody else waits for it."""

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytest

from driftline.api.routes import predict
from driftline.api.shared.watcher import Watcher
from driftline.learner.embed.embedder import Embedder
from driftline.learner.registry import make_classifier
from driftline.stream.errors import ConfigError
from driftline.stream.wire.fielded import join
from tests.place import TEXTS, Place, get, post, refusal, running
from tests.sentence_models import made_model
from tests.waiting import wait_until


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    model = made_model(tmp_path / "model")
    made.classifier = make_classifier(f"blend?bits=12&max_labels=6&embed={model}")
    made.publish()
    made.report()
    return made


@pytest.fixture
def url(place: Place) -> Iterator[str]:
    with running(place.stream) as found:
        yield found


class Held:
    """Texts that are embedded wait until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.began = threading.Event(), 0
        one = Embedder._encode

        def held(embedder: Embedder, text: str) -> object:
            self.began += 1
            assert self.go.wait(60)
            return one(embedder, text)

        monkeypatch.setattr(Embedder, "_encode", held)


def scores(place: Place, text: str) -> Any:
    return pytest.approx(place.classifier.predict_proba_one(text), abs=1e-6)


def test_one_text_and_many_have_the_models_scores(place: Place, url: str) -> None:
    texts = [f"own1x{n} {TEXTS[n % 4]}" for n in range(30)]
    for n in (1, 30):
        found = post(f"{url}/predict", {"texts": texts[:n]}).json()["predictions"]
        assert [each["scores"] for each in found] == [scores(place, text) for text in texts[:n]]
    answer = post(f"{url}/predict", {"text": "win a prize", "fields": {"country": "NL"}})
    assert answer.json()["predictions"][0]["scores"] == scores(place, join("win a prize", {"country": "NL"}))
    own = {"text": "win", "vector": [0.5] * 24}
    assert post(f"{url}/predict", own).json()["predictions"][0]["scores"] != scores(place, "win")


def test_an_explanation_has_the_vectors_part(place: Place, url: str) -> None:
    found = post(f"{url}/explain", {"text": "own1x1 prize", "features": 200}).json()
    assert "vector" in {each["kind"] for each in found["features"]}
    expected = place.classifier.explain_one("own1x1 prize")
    assert found["bias"] == pytest.approx(expected.bias, abs=1e-6)


def test_nobody_else_waits_while_texts_get_their_vectors(
    place: Place, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, f"{url}/predict", {"texts": ["lunch"] * 50})
        wait_until(lambda: held.began)
        for path in ("/readyz", "/model", "/metrics"):
            assert get(f"{url}{path}").status_code == 200
        assert not waiting.done()
        held.go.set()
        assert waiting.result(60).status_code == 200
    del place


def test_who_asks_for_one_text_waits_for_few_of_anothers(
    place: Place, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large request gets its vectors a few at a time; who has had least comes next."""
    asked: list[str] = []
    some = Embedder._some

    def noted(embedder: Embedder, texts: list[str]) -> list[bytes]:
        asked.append(",".join(texts))
        return some(embedder, texts)

    monkeypatch.setattr(Embedder, "_some", noted)
    assert post(f"{url}/predict", {"texts": [f"t{n}" for n in range(30)]}).status_code == 200
    assert max(len(each.split(",")) for each in asked) <= predict.VECTORS_A_TURN
    assert len(asked) >= 30 / predict.VECTORS_A_TURN
    del place


def test_too_many_that_wait_are_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "MAX_WAITING_EACH", 2)
    with running(place.stream) as url, ThreadPoolExecutor(3) as pool:
        held = Held(monkeypatch)  # the server has tried its model out by now
        asked = [pool.submit(post, f"{url}/predict", {"text": "lunch"}) for _ in range(3)]
        try:
            first = next(as_completed(asked, 60))
            assert refusal(first.result(), 429)["code"] == "too-many-waiting"
        finally:
            held.go.set()
        assert sorted(each.result(60).status_code for each in asked) == [200, 200, 429]


def test_a_model_whose_files_are_gone_is_said_and_the_one_before_answers_on(place: Place, url: str) -> None:
    before = place.classifier
    other = made_model(Path(before.config()["embed"]).with_name("other"), seed=5)
    place.classifier = make_classifier(f"blend?bits=13&max_labels=6&embed={other}")
    shutil.rmtree(other)
    place.publish(8)
    wait_until(lambda: "cannot be served" in get(f"{url}/readyz").text or get(f"{url}/model").json().get("problem"))
    assert "embed" in get(f"{url}/readyz").text
    place.classifier = before
    assert post(f"{url}/predict", {"text": "win"}).json()["predictions"][0]["scores"] == scores(place, "win")


def test_a_start_without_the_files_is_refused(place: Place) -> None:
    shutil.rmtree(place.classifier.config()["embed"])
    with pytest.raises(ConfigError, match="there is no sentence model in"):
        Watcher(place.stream.data).start()
