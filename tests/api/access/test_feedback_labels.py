"""A label that would not be learned is refused before it is in the log; its source cannot be forged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftline.api.access.keys import Key, Role, new_key
from driftline.api.shared.labels import Labels, source_of
from driftline.api.shared.watcher import Watcher
from driftline.stream.errors import ConfigError
from driftline.stream.join.quota import sender
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import decode_feedback
from tests.place import Place, add_key, get, post, read_all, refusal, running
from tests.waiting import wait_until

KEY = Key(b"", Role.LABEL, "alice")


@pytest.mark.parametrize(
    ("key", "given", "source"),
    [
        (None, None, None),
        (None, "", ""),
        (None, "bob", "open/bob"),
        (None, "alice/bob", "open/alice/bob"),
        (None, "open", "open"),
        (None, "open/bob", "open/bob"),
        (KEY, None, "alice"),
        (KEY, "bob", "alice/bob"),
        (KEY, "bob/alice", "alice/bob/alice"),
        (KEY, "open/x", "alice/open/x"),
        (KEY, "alice/bob", "alice/bob"),
        (KEY, "alicex/bob", "alice/alicex/bob"),
    ],
)
def test_a_source_begins_with_the_key_that_sent_it(key: Key | None, given: str | None, source: str | None) -> None:
    assert source_of(key, given) == source
    assert sender(source_of(key, given)) == ("(none)" if key is None else "alice")


def test_no_key_has_the_name_of_those_without() -> None:
    with pytest.raises(ConfigError, match="where no key is asked for"):
        new_key("open", Role.LABEL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    place.publish()
    with running(place.stream) as url:
        yield url


def n_labels(place: Place) -> int:
    return len(read_all(place.stream, "feedback"))


def told(url: str, place: Place, **status: Any) -> None:
    """Have the learner say something, and wait until the API knows."""
    place.report(**status)
    wait_until(lambda: get(f"{url}/model").json().items() >= status.items(), what="the status is read")


def test_a_new_label_is_refused_where_all_places_are_taken(url: str, place: Place) -> None:
    told(url, place, places=2, places_left=0)
    before = n_labels(place)
    refused = refusal(post(f"{url}/feedback", {"message_id": "m", "label": "honest"}), 422)
    assert refused["code"] == "too-many-labels"
    assert refused["message"] == "label 'honest' is new, and the model has no place for it: all 2 places are taken"
    assert "Nothing was appended" in refused["action"]
    assert "driftline rebuild --exclude label=NAME" in refused["action"]
    many = [{"message_id": "m", "label": label} for label in ("spam", "ham", "honest", "spam")]
    assert "'honest' at `$[2]`" in refusal(post(f"{url}/feedback", many), 422)["message"]
    event = {"specversion": "1.0", "id": "e", "type": "t", "source": "s", "subject": "m", "data": {"label": "honest"}}
    headers = {"Content-Type": "application/cloudevents+json"}
    refusal(httpx.post(f"{url}/feedback", json=event, headers=headers, timeout=30), 422)
    assert n_labels(place) == before, "a request is taken whole or not at all"
    for fine in ({"label": "spam"}, {"label": " spam "}, {"label": "honest", "op": "retract"}):
        assert post(f"{url}/feedback", {"message_id": "m", **fine}).status_code == 202


def test_as_many_new_labels_are_taken_as_there_are_places(url: str, place: Place) -> None:
    told(url, place, places=5, places_left=2)
    new = [{"message_id": "m", "label": f"new {number}"} for number in (0, 1, 0, 1, 1)]
    assert post(f"{url}/feedback", new).status_code == 202
    refused = refusal(post(f"{url}/feedback", [*new, {"message_id": "m", "label": "new 2"}]), 422)
    assert "'new 2' at `$[5]`" in refused["message"]


def test_a_learner_that_does_not_say_how_many_there_are_refuses_none_here(url: str, place: Place) -> None:
    told(url, place, places=0, places_left=0)
    assert post(f"{url}/feedback", {"message_id": "m", "label": "any"}).status_code == 202


def test_what_the_learner_says_of_places_is_shown(url: str, place: Place) -> None:
    told(url, place, places=1000, places_left=7)
    model = get(f"{url}/model").json()
    assert (model["places"], model["places_taken"], model["places_left"]) == (1000, 2, 7)
    metrics = get(f"{url}/metrics").text
    for name, value in (("places", 1000), ("places_taken", 2), ("places_left", 7)):
        assert f"driftline_label_{name} {value}.0" in metrics


def test_a_label_that_is_none_of_the_file_s_is_refused_with_the_nearest(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("spam\nham\nbilling\n")
    place = Place(tmp_path, labels=labels)
    headers = add_key(place, Role.LABEL, "alice")
    with running(place.stream) as url, httpx.Client(base_url=url, headers=headers, timeout=30) as http:
        refused = refusal(http.post("/feedback", json={"message_id": "m", "label": "biling"}), 422)
        assert refused["code"] == "unknown-label"
        assert refused["message"] == ("label 'biling' is none of the 3 labels that there are; the nearest is 'billing'")
        assert "--labels" in refused["action"]
        many = [{"message_id": "m", "label": label} for label in ("spam", "Spam")]
        assert "'Spam' at `$[1]`" in refusal(http.post("/feedback", json=many), 422)["message"]
        assert n_labels(place) == 0
        fine = [{"message_id": "m", "label": "ham", "source": "mallory/x"}, {"message_id": "m", "label": "spam"}]
        fine.append({"message_id": "m", "label": "no such", "op": "retract"})
        assert http.post("/feedback", json=fine).status_code == 202
    sources = [decode_feedback(record.value or b"").source for record in read_all(place.stream, "feedback")]
    assert sources == ["alice/mallory/x", "alice", "alice"]


def test_a_file_that_cannot_be_read_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path, labels=tmp_path / "none.txt")
    with pytest.raises(ConfigError, match=r"labels: .*none\.txt cannot be read"):
        Labels(stream, Watcher(tmp_path))
