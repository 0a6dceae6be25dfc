"""Do answers name files without saying where they lie? The log and the command line do."""

import logging
from pathlib import Path

import httpx
import pytest

from driftline.api.hidden import Hidden, without_paths
from tests.place import Place, running
from tests.waiting import wait_until

OPEN = ["/readyz", "/healthz", "/v2/health/ready", "/ping", "/health", "/v2/models/driftline/ready"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("log /srv/driftline/log.db: locked", "log log.db: locked"),
        ("'/srv/a b/log.db' is gone", "'log.db' is gone"),
        ("sqlite:////srv/data/log.db cannot be opened", "log.db cannot be opened"),
        ("/home/me/x/y.model: no half of it is whole", "y.model: no half of it is whole"),
        ("~/x/y and ../x/y and ./a/b", "y and y and b"),
        ("kafka broker-1:9092/topic: 3/4 of it, https://example.org/a/b", None),
        ("GET /readyz says more", None),
        ("the directory /srv/a b", "the directory a b"),
    ],
)
def test_a_path_is_its_last_part(text: str, shown: str | None) -> None:
    assert Hidden([Path("/srv/a b")])(text) == (text if shown is None else shown)


def test_a_directory_that_is_here_hides_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Hidden([Path()])("it waits. 3.5 s") == "it waits. 3.5 s"
    assert Hidden([Path()])(f"{tmp_path}/log.db") == "log.db"
    assert Hidden([Path("data")])("data/log.db") == "log.db"
    assert without_paths("no path") == "no path"


def test_what_needs_no_key_tells_of_no_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log cannot be opened, the snapshot is damaged, the status is none: each is said, nowhere with a directory."""
    place = Place(tmp_path / "a secret place")
    place.publish()
    place.report(state="failed", detail=f"{place.stream.data}/checkpoints/7 is damaged")
    (place.stream.data / "log.db").write_bytes(b"this is no log" * 100)
    with running(place.stream) as url:
        for damage in (None, "snapshots", "status"):
            if damage == "snapshots":
                (place.stream.data / "snapshots" / "00000009-0000000001.model").write_bytes(b"no model")
            elif damage == "status":
                (place.stream.data / "status.json").write_text("{")
            wait_until(lambda: httpx.get(f"{url}/readyz", timeout=30).status_code == 503)
            answers = [httpx.get(url + path, timeout=30) for path in OPEN]
            answers += [httpx.post(f"{url}{path}", json=body, timeout=30) for path, body in ASKED]
            assert {answer.status_code for answer in answers} >= {503}
            for answer in answers:
                assert "secret" not in answer.text, answer.url
                assert str(tmp_path) not in answer.text, answer.url
        said = httpx.get(f"{url}/readyz", timeout=30).json()["error"]
        assert "log.db" in said
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert any(str(place.stream.data) in each for each in told), "the log has it whole"


ASKED = [
    ("/predict", {"text": "a"}),
    ("/messages", {"text": "a"}),
    ("/feedback", {"message_id": "a", "label": "b"}),
    ("/explain", {"text": "a"}),
]
