"""APIs on several machines answer alike, and what is chosen, claimed or erased at one holds at all."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from driftline.cli.main import app
from driftline.learner.report.history import rows_of
from driftline.learner.report.review import FILE as REVIEW
from driftline.learner.report.review import read_review
from driftline.learner.serving.versions import Versions
from driftline.learner.shared import applied
from driftline.stream.log.base import Log
from driftline.stream.log.open import open_log
from tests.cluster import Cluster, Reading, Running, append, cluster
from tests.place import refusal, running
from tests.waiting import wait_until

OFTEN = {"checkpoint_interval_s": 0.1, "label_requests_per_hour": 1e6}
ROUTES = (
    "/model",
    "/history?since=0&points=2000",
    "/drift",
    "/recent",
    "/label-requests",
    "/labels",
    "/snapshots",
    "/",
)
# Of clocks, and of the machine itself; a history's length follows from when it is asked for.
OF_TIME = {"now", "status_age_seconds", "age_seconds", "unchanged_seconds", "lag", "period_seconds"}


class Machines(NamedTuple):
    """A leader, and two machines that only answer."""

    leader: Running
    reading: list[Reading]
    http: list[httpx.Client]
    log: Log


@pytest.fixture
def together(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


@pytest.fixture
def machines(together: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    for name in ("EVERY_S", "STORE_S"):
        monkeypatch.setattr(f"driftline.learner.shared.teller.{name}", 0.05)
    streams = [together.stream(name) for name in ("here", "there")]
    with ExitStack() as stack:
        log = stack.enter_context(closing(open_log(streams[0])))
        log.create_topics(streams[0].topics)
        leader = together.start("leader", **OFTEN)
        leader.election.choose()
        for first in (0, 10):
            append(log, first, 10)
            leader.wait_for("running", first + 10)
            wait_until(lambda n=first + 10: f"-{n}" in "".join(versions(leader.stream.data)))
        readings = [Reading(stream) for stream in streams]
        for each in readings:
            stack.callback(each.stop)
        clients = []
        for stream in streams:
            url = stack.enter_context(running(stream))
            clients.append(stack.enter_context(httpx.Client(base_url=url, timeout=60)))
        yield Machines(leader, readings, clients, log)


def versions(data: Path) -> list[str]:
    return [kept.version for kept in Versions(data).kept()]


def without_times(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {key: without_times(value) for key, value in answer.items() if key not in OF_TIME}
    return [without_times(each) for each in answer] if isinstance(answer, list) else answer


def told(http: httpx.Client, route: str) -> Any:
    answer = http.get(route)
    assert answer.status_code == 200, answer.text
    return without_times(answer.json()) if "json" in answer.headers["content-type"] else answer.text


def settled(machines: Machines) -> None:
    """Wait until a leader that has ended has told all."""
    data = machines.leader.stream.data
    wait_until(lambda: rows_of(data).any())
    machines.leader.stop()
    for each in machines.reading:
        wait_until(lambda each=each: (rows_of(each.stream.data) == rows_of(data)).all())
        wait_until(lambda each=each: (each.stream.data / REVIEW).exists())
        wait_until(lambda each=each: read_review(each.stream.data) == read_review(data))
        wait_until(lambda each=each: versions(each.stream.data) == versions(data))
    for each in machines.http:
        wait_until(lambda each=each: each.get("/model").json()["learner"]["state"] == "stopped")


def test_each_route_has_the_same_answer_everywhere(machines: Machines) -> None:
    settled(machines)
    here, there = machines.http
    for route in ROUTES:
        assert told(here, route) == told(there, route), route
    model = told(here, "/model")
    assert (model["labels_learned"], model["learner"]["epoch"]) == (20, 1)
    assert len(told(here, "/recent")["messages"]) == 20
    assert told(here, "/snapshots")["snapshots"]
    assert told(here, "/history?since=0")["time"]
    with running(machines.leader.stream) as url, httpx.Client(base_url=url, timeout=60) as leader:
        for route in ROUTES[2:-2]:
            assert told(leader, route) == told(here, route), route
        # What it serves it publishes itself.
        assert told(leader, "/snapshots") | {"served": None} == told(here, "/snapshots")


def test_what_is_activated_at_one_is_served_at_the_others_also_after_they_start_anew(machines: Machines) -> None:
    here, there = machines.http
    wait_until(lambda: len(versions(machines.reading[0].stream.data)) > 1)
    version = versions(machines.reading[0].stream.data)[-1]
    answer = here.post(f"/snapshots/{version}/activate")
    assert (answer.status_code, answer.json()) == (200, {"pinned_to": version})

    def served(http: httpx.Client) -> bool:
        answer = http.post("/predict", json={"text": "text 3"})
        return answer.status_code == 200 and answer.json()["model_version"] == version

    for http in (here, there):
        wait_until(lambda http=http: served(http))
        assert http.get("/snapshots").json()["pinned_to"] == version
    wait_until(lambda: Versions(machines.leader.stream.data).active().version == version)
    for each in machines.reading:
        each.stop()
    with ExitStack() as stack:
        for each in machines.reading:
            stack.callback(Reading(each.stream).stop)
            url = stack.enter_context(running(each.stream))
            http = stack.enter_context(httpx.Client(base_url=url, timeout=60))
            wait_until(lambda http=http: served(http))
        assert there.delete("/snapshots/active").json() == {"pinned_to": None}
        wait_until(lambda: here.get("/snapshots").json()["pinned_to"] is None)


def test_what_cannot_be_served_is_refused_and_chosen_nowhere(machines: Machines) -> None:
    here, there = machines.http
    assert refusal(here.post("/snapshots/nothing-1/activate"), 404)["code"] == "unknown-version"
    wait_until(lambda: versions(machines.reading[0].stream.data))
    version = versions(machines.reading[0].stream.data)[0]
    data = machines.leader.stream.data
    model = next((data.parent / "store" / "models").glob(f"{version}-*"))
    model.write_bytes(b"x" * model.stat().st_size)
    assert refusal(here.post(f"/snapshots/{version}/activate"), 409)["code"] == "not-loadable"
    assert there.get("/snapshots").json()["pinned_to"] is None
    assert not list(data.glob("snapshots/active-*"))


def test_what_this_machine_has_not_come_to_is_said_so(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.api.shared.together.WAIT_S", 0.05)
    here, there = machines.http
    wait_until(lambda: versions(machines.reading[1].stream.data))
    version = versions(machines.reading[1].stream.data)[0]
    wait_until(lambda: there.post(f"/snapshots/{version}/activate").status_code in {200, 202})
    wait_until(lambda: there.get("/snapshots").json()["pinned_to"] == version)
    assert here.post("/messages", json={"id": "u", "text": "what"}).status_code == 202
    wait_until(lambda: there.get("/label-requests").json()["open"] == 1)
    machines.reading[1].stop()
    answer = there.delete("/snapshots/active")
    assert (answer.status_code, answer.json()) == (202, {"pinned_to": None})
    assert refusal(there.post("/label-requests/claim", json={"labeller": "ann", "n": 1}), 503)["code"] == "busy"
    wait_until(lambda: here.get("/snapshots").json()["pinned_to"] is None)
    (machines.reading[1].stream.data / applied.FILE).write_bytes(b"{")
    assert refusal(there.delete("/snapshots/active"), 503)["code"] == "not-shared"


def test_two_people_at_two_machines_are_not_given_the_same_message(machines: Machines) -> None:
    here, there = machines.http
    ids = [f"u{number}" for number in range(12)]
    for http in (here, there):
        assert http.post("/messages", json=[{"id": each, "text": f"what {each}"} for each in ids]).status_code == 202
    for http in machines.http:
        wait_until(lambda http=http: http.get("/label-requests").json()["open"] == len(ids))

    def claim(http: httpx.Client, labeller: str, **more: Any) -> list[str]:
        answer = http.post("/label-requests/claim", json={"labeller": labeller} | more)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["requests"]]

    had = [claim(here, "ann", n=4), claim(there, "bob", n=4), claim(there, "eve", n=20), claim(here, "dan", n=4)]
    assert list(map(len, had)) == [4, 4, 4, 0]
    assert len({each for some in had for each in some}) == 12
    assert claim(there, "ann", n=4) == had[0], "she has the same wherever she asks"
    requests = there.get("/label-requests").json()["requests"]
    assert {each["id"]: each["claim"]["by"] for each in requests} == dict.fromkeys(had[0], "ann") | dict.fromkeys(
        had[1], "bob"
    ) | dict.fromkeys(had[2], "eve")
    answer = there.post("/label-requests/claim", json={"labeller": "bob", "ids": had[0][:1], "n": 4}).json()
    assert answer["taken"] == had[0][:1]
    assert claim(here, "eve") == []
    for each in machines.reading:
        wait_until(lambda each=each: (applied.read(each.stream.data) or applied.Applied("", 0)).offset)
    assert set(claim(there, "dan", n=4)) == set(had[2])


def test_of_those_who_ask_at_the_same_moment_none_is_given_what_another_has(machines: Machines) -> None:
    here, there = machines.http
    ids = [f"u{number}" for number in range(40)]
    assert here.post("/messages", json=[{"id": each, "text": f"what {each}"} for each in ids]).status_code == 202
    for http in machines.http:
        wait_until(lambda http=http: http.get("/label-requests").json()["open"] == len(ids))

    def claim(number: int) -> list[str]:
        body = {"labeller": f"l{number}", "n": 5}
        answer = (here, there)[number % 2].post("/label-requests/claim", json=body)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["requests"]]

    with ThreadPoolExecutor(8) as threads:
        had = list(threads.map(claim, range(8)))
    given = [each for some in had for each in some]
    assert len(set(given)) == len(given) > 5
    requests = there.get("/label-requests?n=200").json()["requests"]
    assert {each["id"] for each in requests if each["claim"]} == set(given), "nothing is kept from all for nothing"


def test_a_label_on_its_way_is_nobodys_at_the_others_either(machines: Machines) -> None:
    here, there = machines.http
    assert here.post("/messages", json=[{"id": each, "text": f"what {each}"} for each in "xy"]).status_code == 202
    for http in machines.http:
        wait_until(lambda http=http: http.get("/label-requests").json()["open"] == 2)
    machines.leader.stop()  # so that nobody learns it meanwhile
    body = {"labeller": "ann", "n": 1}
    (first,) = [each["id"] for each in here.post("/label-requests/claim", json=body).json()["requests"]]
    assert here.post("/feedback", json={"message_id": first, "label": "a"}).status_code == 202
    (second,) = [each["id"] for each in here.post("/label-requests/claim", json=body).json()["requests"]]
    assert {first, second} == {"x", "y"}
    answer = there.post("/label-requests/claim", json={"labeller": "bob", "n": 2, "ids": [first]}).json()
    assert (answer["requests"], answer["taken"]) == ([], [first])


def test_a_message_is_erased_from_any_machine(machines: Machines) -> None:
    here, there = machines.http
    wait_until(lambda: any(each["id"] == "3" for each in there.get("/recent").json()["messages"]))
    answer = here.delete("/messages/3")
    assert answer.status_code == 202, answer.text
    wait_until(lambda: not any(each["id"] == "3" for each in there.get("/recent").json()["messages"]))
    data = machines.reading[0].stream.data
    wait_until((data / "erased.jsonl").exists)
    line = msgspec.json.decode((data / "erased.jsonl").read_bytes())
    assert line["records"]["messages"] == line["records"]["feedback"] == 1
    assert not (data / "erase").exists()
    assert answer.json()["request"].count("-") == 1


def test_the_command_line_chooses_pins_and_erases_for_all(machines: Machines) -> None:
    leader, (here, there) = machines.leader.stream.data, machines.reading
    wait_until(lambda: versions(here.stream.data))
    version = versions(here.stream.data)[0]

    def run(*words: str) -> str:
        options = ["--data", str(here.stream.data), "--log", here.stream.log_url]
        ended = CliRunner().invoke(app, [*words, *options, "--checkpoints", here.stream.checkpoints])
        assert ended.exit_code == 0, (ended.output, ended.exception)
        return " ".join(ended.output.split())

    assert "is served until" in run("snapshots", "rollback", version)
    assert "stays until" in run("snapshots", "pin", version, "--name", "good")
    for data in (leader, there.stream.data):
        wait_until(lambda data=data: Versions(data).active().version == version)
        wait_until(lambda data=data: Versions(data).pins().keys() == {version})
    assert "The latest is served" in run("snapshots", "latest")
    assert "may be dropped" in run("snapshots", "unpin", version)
    for data in (leader, there.stream.data):
        wait_until(lambda data=data: Versions(data).active().version is None)
        wait_until(lambda data=data: not Versions(data).pins())
    assert "Erased: records: 1 of messages" in run("erase", "--id", "4")
    wait_until((there.stream.data / "erased.jsonl").exists)
    assert "records: 1 of messages" in run("erase", "--list")
