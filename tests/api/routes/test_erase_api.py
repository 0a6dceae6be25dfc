"""DELETE /messages/{id} is durable once it is answered, and needs the role `admin`."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from driftline.api.access import keys
from driftline.learner.loop.service import carry_out
from driftline.learner.rebuild import erase
from driftline.learner.rebuild.erase import CATALOGUE
from driftline.stream.log.base import NewRecord
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Message, encode
from tests.faults.stage import START_MS, SqliteStage
from tests.grep import grep
from tests.place import running
from tests.waiting import wait_until

TEXT = "Please pay Erika Mustermann, DE89 3704 0044 0532 0130 00"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    """Give a directory in which something was learned, and a message came whose id is odd."""
    with closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        stage.append(range(10))
        value = encode(Message("a/b c?", TEXT))
        stage.log.append("messages", [NewRecord(b"a/b c?", value, START_MS + 50)])
        stage.learn()
        yield stage


def test_it_is_asked_for_and_done_by_the_learner(stage: SqliteStage) -> None:
    with running(stage.stream) as url, httpx.Client(base_url=url, timeout=30) as http:
        path = "/messages/a%2Fb%20c%3F"
        wait_until(lambda: http.get(path).status_code == 200)
        assert grep(stage.stream.data / CATALOGUE, "Mustermann")
        answer = http.delete(path)
        assert answer.status_code == 202, answer.text
        assert answer.json()["id"] == "a/b c?"
        (request,) = erase.pending(stage.stream.data)
        assert answer.json()["request"] == request.stem
        carry_out(stage.stream, stage.log, request)
        assert http.get("/recent").json()["messages"]
        assert "Mustermann" not in http.get("/recent").text
        assert grep(stage.stream.data, "Mustermann") == []
        wait_until(lambda: http.get("/messages").json()["count"] == 10)
        assert http.get(path).status_code == 404
        assert http.get("/messages?query=Mustermann").json()["messages"] == []
        assert grep(stage.stream.data, "Mustermann") == []
        too_long = http.delete(f"/messages/{'x' * 600}")
        assert too_long.status_code == 422
        assert "1 to 512 characters" in too_long.json()["error"]
        assert http.delete("/messages/").status_code in {404, 405, 422}


def test_who_may(stage: SqliteStage) -> None:
    secrets = {}
    made = []
    for role in (keys.Role.PREDICT, keys.Role.LABEL, keys.Role.ADMIN):
        secrets[role], key = keys.new_key(role.name.lower(), role)
        made.append(key)
    keys.save(stage.stream.data / keys.FILE, made)
    with running(stage.stream) as url, httpx.Client(base_url=url, timeout=30) as http:
        for role, status in ((keys.Role.PREDICT, 403), (keys.Role.LABEL, 403), (keys.Role.ADMIN, 202)):
            answer = http.delete("/messages/m1", headers={"X-API-Key": secrets[role]})
            assert answer.status_code == status, (role, answer.text)
        assert http.delete("/messages/m1").status_code == 401
    assert len(erase.pending(stage.stream.data)) == 1
