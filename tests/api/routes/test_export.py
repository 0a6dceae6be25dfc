"""GET /export: a file, in each format, of what was asked for; streamed, to whom it may."""

import csv
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from driftline.api.access import keys
from driftline.api.access.keys import Role
from driftline.learner.catalogue.keeping import Keeper
from driftline.stream.files.exported import COLUMNS
from driftline.stream.process.settings import StreamSettings
from tests.place import refusal, running
from tests.waiting import wait_until

N = 450


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    stream = StreamSettings(data=tmp_path_factory.mktemp("export") / "data")
    with running(stream) as url, httpx.Client(base_url=url, timeout=60) as http:
        http.post("/messages", json=[{"id": f"m{n}", "text": f"=text {n}", "fields": {"n": n}} for n in range(N)])
        labels = [{"message_id": f"m{n}", "label": "ab"[n % 2], "source": "alice"} for n in range(0, N, 5)]
        http.post("/feedback", json=labels)
        wait_until(lambda: http.get("/messages?state=labelled").json()["count"] == N // 5)
        yield http


def test_json_lines(http: httpx.Client) -> None:
    answer = http.get("/export")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="driftline.jsonl"'
    assert answer.headers["cache-control"] == "no-store"
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["id"] for row in rows] == [f"m{n}" for n in range(N)], "the oldest first"
    assert tuple(rows[0]) == COLUMNS
    assert (rows[5]["text"], rows[5]["fields"], rows[5]["label"]) == ("=text 5", {"n": 5}, "b")
    assert rows[5]["label_source"] == "open/alice"
    assert rows[5]["time"].endswith("Z")
    assert rows[6]["label"] is rows[6]["label_time"] is rows[6]["predicted"] is None


def test_filters(http: httpx.Client) -> None:
    rows = [json.loads(line) for line in http.get("/export?state=labelled&label=a&query=text").text.splitlines()]
    assert [row["id"] for row in rows] == [f"m{n}" for n in range(0, N, 10)]
    assert http.get("/export?label=none").text == ""


def test_other_formats(http: httpx.Client) -> None:
    table = list(csv.reader(io.StringIO(http.get("/export?format=csv").text, newline="")))
    assert tuple(table[0]) == COLUMNS
    assert len(table) == N + 1
    assert table[1][1] == "'=text 0"
    parquet = pq.read_table(io.BytesIO(http.get("/export?format=parquet").content))
    assert parquet.column_names == list(COLUMNS)
    assert parquet.num_rows == N
    for form in ("argilla", "label-studio"):
        assert len(http.get(f"/export?format={form}").json()) == N
        assert http.get(f"/export?format={form}&label=none").json() == []
    assert len(http.get("/export?format=prodigy").text.splitlines()) == N


def test_records(http: httpx.Client) -> None:
    lines = [json.loads(line) for line in http.get("/export?format=records").text.splitlines()]
    assert [line["topic"] for line in lines].count("messages") == N
    assert len(lines) == N + N // 5
    assert lines[0]["value"]["id"] == "m0"
    assert "leave out" in refusal(http.get("/export?format=records&label=a"), 422)["error"]


def test_what_cannot_be_asked(http: httpx.Client) -> None:
    assert refusal(http.get("/export?format=xls"), 422)["code"] == "bad-parameter"
    assert refusal(http.get("/export?query=" + "x" * 1001), 422)["code"] == "bad-parameter"


def test_who_leaves_early_holds_nothing(http: httpx.Client) -> None:
    for _ in range(10):
        with http.stream("GET", "/export") as answer:
            assert answer.status_code == 200

    def is_free() -> bool:
        return http.get("/export?label=a").status_code == 200

    wait_until(is_free)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("export-end") < 10


def test_who_may(tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path / "data")
    made = [keys.new_key(role.name.lower(), role) for role in (Role.PREDICT, Role.LABEL)]
    stream.data.mkdir()
    keys.save(stream.data / keys.FILE, [key for _, key in made])
    with running(stream) as url, httpx.Client(base_url=url, timeout=30) as http:
        for (secret, _), status in zip(made, (403, 200), strict=True):
            assert http.get("/export", headers={"X-API-Key": secret}).status_code == status
        assert http.get("/export").status_code == 401


def test_while_the_log_is_read_it_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keeper, "ask", lambda _: None)
    with running(StreamSettings(data=tmp_path / "data")) as url, httpx.Client(base_url=url, timeout=30) as http:
        answer = http.get("/export")
        assert refusal(answer, 503)["code"] == "catalogue-not-ready"
        assert answer.headers["retry-after"] == "5"
