"""GET /messages and GET /messages/{id}, over a real server: what was just sent shows, to whom it may."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from driftline.api.access import keys
from driftline.api.access.keys import Role
from driftline.api.client import Client
from driftline.learner.catalogue import file
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.note import MAX_NOTE_CHARS
from tests.place import refusal, running
from tests.waiting import wait_until


@pytest.fixture
def stream(tmp_path: Path) -> StreamSettings:
    return StreamSettings(data=tmp_path / "data")


@pytest.fixture
def http(stream: StreamSettings) -> Iterator[httpx.Client]:
    with running(stream) as url, httpx.Client(base_url=url, timeout=60) as http:
        yield http


def listed(http: httpx.Client, **asked: Any) -> dict[str, Any]:
    answer = http.get("/messages", params=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_what_was_sent_shows_at_once(http: httpx.Client) -> None:
    assert listed(http)["messages"] == []
    sent = [{"id": f"m{n}", "text": f"prize {n}", "fields": {"n": n}, "metadata": {"k": [n]}} for n in range(5)]
    http.post("/messages", json=sent)
    http.post("/feedback", json={"message_id": "m3", "label": "spam", "note": "an old trick", "weight": 2})
    wait_until(lambda: listed(http)["count"] == 5)
    found = listed(http, query="prize", label="spam")
    (one,) = found["messages"]
    assert one["id"] == "m3"
    assert (one["label"], one["note"], one["n_labels"], one["fields"]) == ("spam", "an old trick", 1, {"n": 3})
    assert (one["predicted"], one["score"], one["retracted"], one["truncated"]) == (None, None, False, False)
    assert found["next"] is None
    assert (found["count"], found["count_is_exact"]) == (1, True)
    index = found["index"]
    assert (index["ready"], index["indexed"], index["behind"], index["limit"]) == (True, 5, 0, 1_000_000)
    assert index["problem"] is None
    whole = http.get("/messages/m3").json()
    assert whole["metadata"] == {"k": [3]}
    (label,) = whole["labels"]
    assert (label["label"], label["op"], label["weight"], label["note"]) == ("spam", "upsert", 2.0, "an old trick")
    http.post("/feedback", json={"message_id": "m3", "op": "retract"})
    wait_until(lambda: listed(http, query="prize 3")["messages"][0]["retracted"])
    assert http.get("/messages/m3").json()["labels"][1]["label"] is None


def test_pages(http: httpx.Client) -> None:
    http.post("/messages", json=[{"id": f"m{n}", "text": "text"} for n in range(7)])
    wait_until(lambda: listed(http)["count"] == 7)
    first = listed(http, n=4, order="old")
    second = listed(http, n=4, order="old", after=first["next"])
    assert [each["id"] for each in first["messages"] + second["messages"]] == [f"m{n}" for n in range(7)]
    assert second["next"] is None


@pytest.mark.parametrize("key", ["a/b c?", "..", "%2e", "日本", "a" * 512, "x\x01y", "a//b/", "#&=+"])
def test_odd_ids(http: httpx.Client, key: str) -> None:
    http.post("/messages", json={"id": key, "text": "odd"})
    path = "/messages/" + quote(key, safe="").replace(".", "%2E")
    wait_until(lambda: http.get(path).status_code == 200)
    assert http.get(path).json()["id"] == key


def test_long_texts_are_shown_in_part_and_had_whole(http: httpx.Client) -> None:
    text = "日" * 9_990 + " the end"
    assert http.post("/messages", json={"id": "long", "text": text}).status_code == 202
    wait_until(lambda: listed(http, query="end")["count"] == 1)
    (one,) = listed(http, query='"the end"')["messages"]
    assert (one["text"], one["truncated"]) == ("日" * 500, True)
    assert http.get("/messages/long").json()["text"] == text


@pytest.mark.parametrize(
    "asked",
    [
        *("order=up", "state=none", "n=0", "n=501", "n=x", "since=x", "until=nan", "after=x", "after=" + "x" * 200),
        *("query=" + "x" * 1001, "label=" + "x" * 257),
    ],
)
def test_what_cannot_be_asked(http: httpx.Client, asked: str) -> None:
    assert refusal(http.get(f"/messages?{asked}"), 422)["code"] == "bad-parameter"


@pytest.mark.parametrize(
    "query", ["%00", "%ff", '"', "%22%22%22", "NEAR(", "a%20OR", "*", "-", "%F0%9F%98%80", "%ED%A0%80"]
)
def test_whatever_is_typed_is_looked_for(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/messages?query={query}&label=%00&source=%ff")
    assert answer.status_code == 200, answer.text


def test_there_is_none(http: httpx.Client) -> None:
    for key in ("m1", "x" * 600):
        assert refusal(http.get(f"/messages/{key}"), 404)["code"] == "no-message"


def test_notes_are_short(http: httpx.Client) -> None:
    with Client(str(http.base_url)) as client:
        client.send("text", id="m")
        client.label("m", "a", note="by a program")
    wait_until(lambda: listed(http)["count"] == 1 and listed(http)["messages"][0]["note"] == "by a program")
    sent = {"message_id": "m", "label": "a", "note": "x" * (MAX_NOTE_CHARS + 1)}
    assert refusal(http.post("/feedback", json=sent), 422)["code"] == "wrong-type"
    event = {"specversion": "1.0", "id": "e", "source": "s", "type": "t", "subject": "m"}
    event["data"] = {"label": "b", "note": "of an event"}  # type: ignore[assignment]
    kind = {"content-type": "application/cloudevents+json"}
    assert http.post("/feedback", json=event, headers=kind).status_code == 202
    wait_until(lambda: listed(http)["messages"][0]["note"] == "of an event")


def test_who_may(stream: StreamSettings) -> None:
    made = [keys.new_key(role.name.lower(), role) for role in (Role.PREDICT, Role.LABEL)]
    stream.data.mkdir()
    keys.save(stream.data / keys.FILE, [key for _, key in made])
    with running(stream) as url, httpx.Client(base_url=url, timeout=30) as http:
        for (secret, _), status in zip(made, (403, 200), strict=True):
            head = {"X-API-Key": secret}
            assert http.get("/messages", headers=head).status_code == status
            assert http.get("/messages/m", headers=head).status_code == (404 if status == 200 else 403)
        assert http.get("/messages").status_code == 401


def test_many_ask_while_it_is_deleted(http: httpx.Client, stream: StreamSettings) -> None:
    """Each answer is one; in the end all is there again."""
    http.post("/messages", json=[{"id": f"m{n}", "text": f"text {n}"} for n in range(300)])
    wait_until(lambda: listed(http)["count"] == 300)

    def ask(n: int) -> int:
        if n % 40 == 0 and (path := file.newest(stream.data)) is not None:
            file.remove(path)
        return http.get("/messages", params={"query": f"{n}"}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(200))) <= {200, 503}
    wait_until(lambda: listed(http)["count"] == 300)


def test_nobody_asks_nothing_is_made(http: httpx.Client, stream: StreamSettings) -> None:
    http.post("/messages", json={"id": "m", "text": "text"})
    http.get("/recent")
    time.sleep(0.1)
    assert file.newest(stream.data) is None
