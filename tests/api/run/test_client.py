"""Does the Python client get what it asks for, and does each label count once whatever fails on the way?"""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import driftline
from driftline.api.calls import Capacity, Label, Message, Refused
from driftline.api.client import AsyncClient, Client
from driftline.api.routes.predict import Predictor
from driftline.api.shared.freshness import Freshness
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.stream.errors import ConfigError
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.place import Place, post, read_all, refusal, running
from tests.ports import reserved
from tests.waiting import wait_until

SPAM, HAM = "win a free prize now", "see you at lunch today"


@contextmanager
def learning(stream: StreamSettings) -> Iterator[None]:
    """Run a learner in a thread."""
    started, stop = threading.Event(), threading.Event()

    def learn() -> None:
        with closing(open_log(stream)) as log:
            log.create_topics(stream.topics)
            learner = Learner(stream, LearnerSettings(model="linear?bits=12"), log, stop.is_set)
            with closing(learner):
                learner.start()
                started.set()
                learner.run(stop.is_set)

    thread = threading.Thread(target=learn)
    thread.start()
    try:
        wait_until(started.is_set, 60, "the learner runs")
        yield
    finally:
        stop.set()
        thread.join(60)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    stream = StreamSettings(data=tmp_path_factory.mktemp("client") / "data", partitions=2)
    with learning(stream), running(stream, max_wait_s=60.0) as url:
        yield url


class TestAgainstTheService:
    def test_a_label_shows_in_the_prediction_that_asked_for_it(self, url: str) -> None:
        """Read your own label: no sleep, no poll, however often."""
        with driftline.Client(url) as client:
            client.label_many([Label(f"a{n}", ("spam", "ham")[n % 2], text=(SPAM, HAM)[n % 2]) for n in range(20)])
            for number in range(20):
                label = f"label-{number}"
                sent = client.label(f"own-{number}", label, text=f"zebra{number} crossing{number}", weight=20.0)
                assert client.predict(f"zebra{number} crossing{number}", after=sent).label == label

    def test_messages_and_their_labels(self, url: str) -> None:
        with Client(url) as client:
            first, second = client.send_many([SPAM, Message(HAM, "named", metadata={"from": "me"})])
            assert second.id == "named"
            assert first.id != second.id
            places = client.label_many([Label(first.id, "spam"), Label(second.id, "ham")])
            assert [place.message_id for place in places] == [first.id, second.id]
            predictions = client.predict_many([SPAM, HAM], after=places)
            assert [each.label for each in predictions] == ["spam", "ham"]
            assert predictions[0].model_version == predictions[1].model_version != ""
            assert client.retract("named", "ham").message_id == "named"
            assert client.retract("named").message_id == "named"
            assert client.get("/model")["labels_learned"] >= 2

    def test_fields(self, url: str) -> None:
        nl, be = {"country": "NL", "amount": 5}, {"country": "BE", "tags": ["x", "y"]}
        with Client(url) as client:
            places = [
                client.label(f"f-{n}", ("spam", "ham")[n % 2], text="noise", fields=(nl, be)[n % 2], weight=9.0)
                for n in range(20)
            ]
            assert client.predict("noise", after=places[-1], fields=nl).label == "spam"
            found = client.predict_many(["noise", "noise", SPAM] * 800, fields=[nl, be, None] * 800)
            assert [each.label for each in found[:2]] == ["spam", "ham"]
            assert len(found) == 2400
            sent = client.send("noise", fields=be)
            assert client.label(sent.id, "ham").message_id == sent.id
            explained = client.explain("noise", fields=nl)
            assert "country" in {each["field"] for each in explained["features"]}
            with pytest.raises(Refused, match=r"fields\.a must be"):
                client.predict("noise", fields={"a": {}})
            with pytest.raises(ValueError, match="shorter"):
                client.predict_many(["a", "b"], fields=[nl])

        async def talk() -> None:
            async with AsyncClient(url) as client:
                assert (await client.predict("noise", fields=be)).label == "ham"
                await client.send("noise", fields=be)

        asyncio.run(talk())

    def test_vectors(self, url: str) -> None:
        vector = np.array([0.5, -0.25], np.float32)
        with Client(url) as client:
            sent = client.send("noise", vector=vector)
            assert client.label(sent.id, "ham", text="noise", vector=vector.tolist()).message_id == sent.id
            with pytest.raises(Refused, match=r"messages\[0\] has a vector of 2 numbers, and the model .* takes none"):
                client.predict("noise", vector=vector)
            with pytest.raises(Refused, match=r"messages\[1\] has a vector of 2 numbers"):
                client.predict_many(["noise", "noise"], vectors=[None, vector])
            with pytest.raises(Refused, match=r"vector\[1\] is no number"):
                client.send("noise", vector=[1, "a"])
            with pytest.raises(TypeError, match="object cannot be sent as JSON"):
                client.send("noise", vector=object())

        async def talk() -> None:
            async with AsyncClient(url) as client:
                assert (await client.send("noise", vector=vector)).topic
                with pytest.raises(Refused, match="takes none"):
                    await client.predict("noise", vector=vector)

        asyncio.run(talk())

    def test_more_than_a_request_takes(self, url: str) -> None:
        with Client(url) as client:
            sent = client.label_many(Label(f"many-{n}", ("spam", "ham")[n % 2], text=f"text {n}") for n in range(1500))
            assert len(client.predict_many((f"text {number}" for number in range(2500)), after=sent)) == 2500
            assert client.predict_many([]) == []

    def test_async(self, url: str) -> None:
        async def talk() -> None:
            async with AsyncClient(url) as client:
                sent = await client.send(SPAM)
                place = await client.label(sent.id, "spam")
                assert (await client.predict(SPAM, after=place)).label == "spam"
                both = await asyncio.gather(client.predict_many([SPAM, HAM]), client.get("/model"))
                assert len(both[0]) == 2
                with pytest.raises(Refused) as refused:
                    await client.get("/nothing")
                assert refused.value.status == 404

        asyncio.run(talk())

    def test_a_refusal_says_what_to_do(self, url: str) -> None:
        with Client(url) as client, pytest.raises(Refused, match="NUL") as refused:
            client.predict("a\0b")
        assert (refused.value.status, refused.value.code) == (422, "forbidden-character")
        assert refused.value.action in str(refused.value)


class TestWaiting:
    """`min_feedback_offset`, from /predict's side; see test_freshness.py, too."""

    def test_a_label_that_never_comes(self, tmp_path: Path) -> None:
        """The wait ends, and says how far the model is."""
        place = Place(tmp_path)
        place.publish()
        place.report(at=time.time() + 3600)
        with running(place.stream, max_wait_s=0.2) as url:
            post(f"{url}/feedback", [{"message_id": "m", "label": "spam"}] * 5)
            asked = {"text": SPAM, "min_feedback_offset": {"partition": 0, "offset": 4}}
            answer = post(f"{url}/predict", asked)
            error = refusal(answer, 409)
            assert error["code"] == "not-learned-yet"
            assert "up to offset 4, not yet 4" in error["message"]
            assert answer.headers["retry-after"] == "1"
            asked["min_feedback_offset"] = [{"partition": 0, "offset": 3}, {"partition": 1, "offset": 6}]
            assert post(f"{url}/predict", asked).status_code == 200

    @pytest.mark.parametrize(
        "least",
        [
            7, "7", {"partition": 0}, {"offset": 0}, {"partition": -1, "offset": 0}, {"partition": 0, "offset": -1},
            {"partition": 0.5, "offset": 0}, {"partition": 0, "offset": 1 << 54}, [7],
            [{"partition": 0, "offset": 0}] * 1001,
        ],
    )  # fmt: skip
    def test_offsets_that_cannot_be_meant(self, url: str, least: Any) -> None:
        refusal(post(f"{url}/predict", {"text": "a", "min_feedback_offset": least}), 422)

    def test_the_time_from_a_label_to_its_prediction_is_measured(self, url: str) -> None:
        with Client(url) as client:
            sent = client.label("measured", "spam", text=SPAM)
            client.predict(SPAM, after=sent)
        name = "driftline_label_to_serving_seconds_count"

        def count() -> float:
            lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
            return next(float(line.split()[1]) for line in lines if line.startswith(name))

        wait_until(lambda: count() > 0, what="it is counted")


class Unreliable(BaseHTTPRequestHandler):
    """Stands before an API, and fails in turn: before it is asked, and after it has done what was asked."""

    def do_POST(self) -> None:
        server: Any = self.server
        content = self.rfile.read(int(self.headers["content-length"]))
        server.asked.append(content)
        way = server.ways.pop(0) if server.ways else "through"
        if way.isdigit():
            self.send_response(int(way))
            self.send_header("retry-after", "0")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        if way == "dropped":
            self.connection.close()
            return
        answer = httpx.post(server.target + self.path, content=content, timeout=30)
        if way == "lost":
            self.connection.close()
            return
        self.send_response(answer.status_code)
        for name in ("content-type", "content-length", *(each for each in answer.headers if "driftline" in each)):
            self.send_header(name, answer.headers[name])
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError, ValueError):  # the connection that it closed itself
            super().handle()


@contextmanager
def unreliable(target: str, ways: list[str]) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Unreliable)
    server.target, server.ways, server.asked = target, ways, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestRetries:
    def test_a_label_whose_answer_was_lost_counts_once(self, tmp_path: Path) -> None:
        stream = StreamSettings(data=tmp_path / "data")
        ways = ["503", "lost", "dropped", "lost", "429"]
        with running(stream) as url, unreliable(url, ways) as proxy, Client(proxy.url) as client:
            sent = client.label("m1", "spam", text=SPAM)
        assert len(set(proxy.asked)) == 1, "each try has the same ids"
        assert len(proxy.asked) == 6
        records = read_all(stream, "feedback")
        assert len(records) == 3, "it went through three times"
        with learning(stream), running(stream, max_wait_s=60.0) as url, Client(url) as client:
            client.predict(SPAM, after=sent)
            wait_until(lambda: client.get("/model")["repeated"] == 2, what="the learner says so")
            assert client.get("/model")["labels_learned"] == 1

    def test_it_gives_up_in_the_end(self) -> None:
        with (
            unreliable("http://127.0.0.1:9", ["503"] * 9) as proxy,
            Client(proxy.url, tries=3) as client,
            pytest.raises(Refused) as refused,
        ):
            client.predict("a")
        assert (len(proxy.asked), refused.value.status, refused.value.code) == (3, 503, "unknown-answer")

    def test_what_cannot_become_right_is_not_tried_again(self, url: str) -> None:
        with unreliable(url, []) as proxy, Client(proxy.url) as client, pytest.raises(Refused):
            client.predict("a\0b")
        assert len(proxy.asked) == 1

    def test_nobody_there(self) -> None:
        with Client("http://127.0.0.1:9", tries=2) as client, pytest.raises(Refused, match="driftline up") as refused:
            client.predict("a")
        assert (refused.value.status, refused.value.code) == (0, "unreachable")

    @pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "http://", "", "//a"])
    def test_an_address_that_is_none(self, url: str) -> None:
        for kind in (Client, AsyncClient):
            with pytest.raises(ConfigError, match="url"):
                kind(url)


class Narrow(Unreliable):
    """Takes bodies of 4,000 bytes, and says so in HTML, as proxies do."""

    def do_POST(self) -> None:
        server: Any = self.server
        length = int(self.headers["content-length"])
        content = self.rfile.read(length)
        server.asked.append(content)
        answer = httpx.post(server.target + self.path, content=content, timeout=30) if length <= 4000 else None
        body = b"<html>413 Request Entity Too Large</html>" if answer is None else answer.content
        self.send_response(413 if answer is None else answer.status_code)
        self.send_header("content-type", "text/html" if answer is None else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def in_both_ways(url: str, talk: Callable[[Any], Any]) -> list[Any]:
    """Return what a client gives, and what an asynchronous one does."""

    async def asynchronously() -> Any:
        async with AsyncClient(url) as client:
            return await talk(client)

    with Client(url) as client:
        return [talk(client), asyncio.run(asynchronously())]


@pytest.fixture(scope="module")
def much(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("much"))
    place.publish()
    return place


@pytest.fixture(scope="module")
def narrow(much: Place) -> Iterator[str]:
    """Give an API that takes little in a request."""
    with running(much.stream, max_items=7, max_body_bytes=20_000) as url:
        yield url


class TestMuchAtOnce:
    """Whatever number of items, and of bytes, a request may have, all are taken, in their order."""

    def test_more_items_than_are_taken(self, much: Place, narrow: str) -> None:
        for predictions in in_both_ways(
            narrow, lambda client: client.predict_many([*["lunch", "prize"] * 20, "lunch"])
        ):
            assert [each.label for each in predictions] == [*["ham", "spam"] * 20, "ham"]
        before = len(read_all(much.stream, "messages"))
        for sent in in_both_ways(narrow, lambda client: client.send_many(f"text {n}" for n in range(30))):
            assert [each.offset for each in sent] == list(range(before, before + 30))
            before += 30
        labels = [Label(f"m{n}", "spam") for n in range(15)]
        for sent in in_both_ways(narrow, lambda client: client.label_many(labels)):
            assert [each.message_id for each in sent] == [each.message_id for each in labels]

    def test_more_bytes_than_are_taken(self, narrow: str) -> None:
        texts = ["prize " * 500, "lunch " * 900, "\N{GRINNING FACE} lunch " * 600, "prize"] * 5
        for predictions in in_both_ways(narrow, lambda client: client.predict_many(texts)):
            assert [each.label for each in predictions] == ["spam", "ham", "ham", "spam"] * 5

    def test_how_much_is_taken_is_asked_once(self, narrow: str) -> None:
        with unreliable(narrow, []) as proxy, Client(proxy.url) as client:
            client.predict_many(["a"] * 70)
            assert len(proxy.asked) == 1 + 10
            client.predict_many(["a"] * 70)
            assert len(proxy.asked) == 1 + 10 + 10
            client.predict_many(["lunch " * 1000] * 7)
            n_asked = len(proxy.asked)
            client.predict_many(["lunch " * 1000] * 7)
            assert len(proxy.asked) - n_asked == 3, "three of 6,000 bytes fit into 20,000"

    def test_many_bytes_are_parted_before_anybody_says_so(self) -> None:
        """The API's own limit is known from the start."""
        room = Capacity()
        parts = list(room.parts([b"x" * (3 << 20)] * 5, 100))
        assert [len(part) for part in parts] == [2, 2, 1]
        assert [len(part) for part in room.parts([b"x"] * 2500, 2)] == [1000, 1000, 500]
        assert list(room.parts([], 2)) == []
        assert [len(part) for part in room.parts([b"x" * (9 << 20)] * 2, 2)] == [1, 1], (
            "one alone is for the API to say"
        )

    def test_what_stands_before_it_may_take_less(self, narrow: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(unreliable.__wrapped__.__globals__, "Unreliable", Narrow)  # type: ignore[attr-defined]
        with unreliable(narrow, []) as proxy:
            for predictions in in_both_ways(proxy.url, lambda client: client.predict_many(["lunch " * 100] * 30)):
                assert len(predictions) == 30
            with Client(proxy.url) as client, pytest.raises(Refused) as refused:
                client.predict("lunch " * 1000)
            assert (refused.value.status, refused.value.code) == (413, "unknown-answer")

    def test_one_that_is_too_large_is_refused_and_no_other_way_is_looked_for(self, narrow: str) -> None:
        with unreliable(narrow, []) as proxy, Client(proxy.url) as client:
            with pytest.raises(Refused, match="max_body_bytes"):
                client.predict("a" * 30_000)
            assert len(proxy.asked) == 1
            with pytest.raises(Refused, match="NUL"):
                client.predict_many(["a", "b\0", "c"])
            assert len(proxy.asked) == 2

    def test_of_many_labels_only_the_last_of_each_partition_is_waited_for(self, url: str) -> None:
        with Client(url) as client:
            places = client.label_many(Label(f"many-{n}", "spam", text=SPAM) for n in range(1500))
            assert client.predict(SPAM, after=places).label == "spam"


def test_a_program_that_asks_loads_no_kernels() -> None:
    """The client is light: who only asks needs neither numba nor the learner."""
    heavy = "('numba', 'numpy', 'fastapi', 'river')"
    code = f"import sys; from driftline import Client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Echo(BaseHTTPRequestHandler):
    """Stands where a proxy would: whoever asks it was sent astray."""

    asked: list[str] = []

    def do_POST(self) -> None:
        self.asked.append(self.path)
        self.send_error(502)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Name a proxy in the environment; give what was asked of it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Echo.asked.clear()
    yield Echo.asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "a.localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_this_machine_is_asked_past_a_proxy(host: str, proxy: list[str]) -> None:
    """A proxy of the environment, as many companies have one, cannot reach what is here."""
    with reserved() as port:
        with Client(f"http://{host}:{port}", tries=1) as client, pytest.raises(Refused) as caught:
            client.predict("a")
        assert caught.value.code == "unreachable"

        async def ask() -> None:
            async with AsyncClient(f"http://{host}:{port}", tries=1) as client:
                await client.predict("a")

        with pytest.raises(Refused, match="Is `driftline up` running"):
            asyncio.run(ask())
    assert proxy == []


def test_another_machine_is_asked_through_it(proxy: list[str]) -> None:
    with Client("http://driftline.example:8000", tries=1) as client, pytest.raises(Refused):
        client.predict("a")
    assert proxy == ["http://driftline.example:8000/predict"]


def asked_while_it_stops(
    place: Place, monkeypatch: pytest.MonkeyPatch, cls: type, name: str, body: object
) -> list[httpx.Response]:
    """Stop an API while two requests wait in a method of a class of its; return their answers."""
    place.publish(4)
    place.report(at=time.time() + 3600)
    waiting, before = [], getattr(cls, name)

    async def wait(self: Any, *asked: Any) -> Any:
        waiting.append(asked)
        return await before(self, *asked)

    monkeypatch.setattr(cls, name, wait)
    with ThreadPoolExecutor(2) as pool:
        with running(place.stream, max_wait_s=60.0, request_timeout_s=120.0) as url:
            asking = [pool.submit(httpx.post, f"{url}/predict", json=body, timeout=120) for _ in range(2)]
            wait_until(lambda: len(waiting) == 2, what="both wait")
        return [each.result() for each in asking]


@pytest.mark.parametrize("slow", [False, True])
def test_who_waits_while_the_api_is_stopped_is_told_to_come_again(
    slow: bool, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """503 in the API's own shape, without a traceback: at once who waits for a label, after STOP_S who is in work."""
    if slow:
        monkeypatch.setattr("driftline.api.run.process.STOP_S", 1)

        async def never(*_: Any) -> None:
            await asyncio.sleep(600)

        monkeypatch.setattr(Predictor, "predict", never)
        answers = asked_while_it_stops(place, monkeypatch, Predictor, "answer", {"texts": ["a" * 100] * 900})
    else:
        with closing(open_log(place.stream)) as log:
            log.create_topics(place.stream.topics)
            log.append("feedback", [NewRecord(b"m", b"{}")] * 10)
        body = {"text": "a", "min_feedback_offset": {"partition": 0, "offset": 9}}
        answers = asked_while_it_stops(place, monkeypatch, Freshness, "wait", body)
    assert [refusal(answer, 503)["code"] for answer in answers] == ["stopping"] * 2
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    assert not [record for record in caplog.records if record.exc_info]
