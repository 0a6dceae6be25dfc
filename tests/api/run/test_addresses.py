"""Does a client with several APIs get its answers from one that works, whatever becomes of the others?"""

import asyncio
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftline.api import addresses
from driftline.api.addresses import FIRST_REST_S, MAX_REST_S, Addresses, Attempts
from driftline.api.calls import Label, Refused, Sent
from driftline.api.client import AsyncClient, Client
from driftline.stream.errors import ConfigError
from driftline.stream.log.open import open_log
from tests.api.run.test_client import HAM, SPAM, learning, unreliable
from tests.clock import Clock
from tests.faults.nursery import Child, Nursery
from tests.place import Place, read_all, running
from tests.ports import reserved
from tests.waiting import wait_until

NOBODY = "http://127.0.0.1:9"


def in_both_ways(urls: list[str], talk: Callable[[Any], Any], **options: Any) -> list[Any]:
    """Return what a client gives, and what an asynchronous one does."""

    async def asynchronously() -> Any:
        async with AsyncClient(urls, **options) as client:
            return await talk(client)

    with Client(urls, **options) as client:
        return [talk(client), asyncio.run(asynchronously())]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("replica"))
    place.publish(4)
    place.report(at=time.time() + 3600)
    return place


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    with running(place.stream, max_wait_s=0.05) as url:
        yield url


class TestTurning:
    @pytest.mark.parametrize("way", ["503", "502", "504", "dropped", "lost"])
    def test_another_one_is_asked_at_once(self, url: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """No wait, and it is the one that is asked from then on."""
        monkeypatch.setattr(addresses, "FIRST_WAIT_S", 3600.0)

        async def asynchronously(urls: list[str]) -> list[str]:
            async with AsyncClient(urls) as client:
                return [(await client.predict(SPAM)).label for _ in range(5)]

        def synchronously(urls: list[str]) -> list[str]:
            with Client(urls) as client:
                return [client.predict(SPAM).label for _ in range(5)]

        for ask in (synchronously, lambda urls: asyncio.run(asynchronously(urls))):
            with unreliable(url, ["through", way]) as first, unreliable(url, []) as second:
                assert ask([first.url, second.url]) == ["spam"] * 5
                assert (len(first.asked), len(second.asked)) == (2, 4)

    def test_nobody_listens_at_the_first(self, url: str) -> None:
        for found in in_both_ways([NOBODY, url], lambda client: client.predict(SPAM)):
            assert found.label == "spam"

    def test_a_label_that_one_took_and_did_not_confirm_keeps_its_id(self, place: Place, url: str) -> None:
        before = len(read_all(place.stream, "feedback"))
        with (
            unreliable(url, ["lost"]) as first,
            unreliable(url, []) as second,
            Client([first.url, second.url]) as client,
        ):
            sent = client.label("m1", "spam", text=SPAM)
        assert first.asked == second.asked
        records = read_all(place.stream, "feedback")[before:]
        assert [sent.id.encode() in (record.value or b"") for record in records] == [True, True]

    @pytest.mark.parametrize("way", ["429", "408"])
    def test_what_is_about_the_asker_is_not_asked_elsewhere(self, url: str, way: str) -> None:
        with unreliable(url, [way]) as first, unreliable(url, []) as second, Client([first.url, second.url]) as client:
            assert client.predict(SPAM).label == "spam"
            assert (len(first.asked), len(second.asked)) == (2, 0)

    def test_what_cannot_become_right_is_asked_once(self, url: str) -> None:
        with unreliable(url, []) as first, unreliable(url, []) as second, Client([first.url, second.url]) as client:
            with pytest.raises(Refused) as refused:
                client.predict("a\0b")
            assert (refused.value.status, len(first.asked), len(second.asked)) == (422, 1, 0)
            assert second.url not in str(refused.value)

    def test_a_replica_that_is_behind_is_not_asked_again_for_that_label(self, url: str, tmp_path: Path) -> None:
        """Another one may have learned it; else it is waited for, and the refusal is the service's own."""
        ahead = Place(tmp_path)
        ahead.publish(50)
        label = Sent(id="l", topic="feedback", partition=0, offset=10)
        with running(ahead.stream) as other, unreliable(url, []) as first, Client([first.url, other]) as client:
            assert client.predict(SPAM, after=label).model_version == "lineage-50"
            assert client.predict(SPAM).model_version == "lineage-50", "it stays with that one"
            assert len(first.asked) == 1
        with Client([url, url + "/"], tries=2) as client, pytest.raises(Refused, match="not yet 10") as refused:
            client.predict(SPAM, after=label)
        assert (refused.value.status, refused.value.code) == (409, "not-learned-yet")

    def test_with_all_away_each_is_told_of(self) -> None:
        for tries in (1, 3):
            with unreliable(NOBODY, ["503"] * 9) as proxy:
                for order in ([NOBODY, proxy.url], [proxy.url, NOBODY]):
                    proxy.asked.clear()
                    with Client(order, tries=tries) as client, pytest.raises(Refused) as refused:
                        client.predict("a")
                    assert f"{NOBODY}: ConnectError" in str(refused.value)
                    assert f"{proxy.url}: 503" in str(refused.value)
                    assert len(proxy.asked) == tries
                    last = 503 if order[1] == proxy.url else 0
                    assert refused.value.status in ({last} if tries == 1 else {0, 503})

    @pytest.mark.parametrize("urls", [[], [NOBODY, "localhost"], [NOBODY, ""], [7]])
    def test_addresses_that_are_none(self, urls: Any) -> None:
        for kind in (Client, AsyncClient):
            with pytest.raises(ConfigError, match="url"):
                kind(urls)

    def test_a_path_before_the_service_stays(self) -> None:
        (address,) = Addresses("http://h:1/models/ours/").all
        assert str(address.at("/model?a=1")) == "http://h:1/models/ours/model?a=1"
        assert str(address.at("model")) == "http://h:1/models/ours/model"


class TestRest:
    """How long one is left alone that did not answer."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock()
        monkeypatch.setattr(addresses, "time", clock)
        monkeypatch.setattr(addresses.random, "uniform", lambda _, most: most)
        return clock

    def test_it_grows_to_a_limit_and_ends_with_an_answer(self, clock: Clock) -> None:
        known = Addresses(["http://a", "http://b"])
        first, second = known.all
        for number in range(10):
            known.is_away(first, 0.0)
            rest_s = min(FIRST_REST_S * 2**number, MAX_REST_S)
            assert known.round() == [second]
            clock.now += rest_s - 0.01
            assert known.round() == [second]
            clock.now += 0.02
            assert known.round() == [first, second]
        known.answered(first)
        known.is_away(first, 0.0)
        clock.now += FIRST_REST_S
        assert known.round() == [first, second]

    def test_one_that_says_how_long_is_left_alone_as_long(self, clock: Clock) -> None:
        known = Addresses(["http://a", "http://b"])
        attempts = Attempts(known, 6)
        assert attempts.wait_after(httpx.Response(503, headers={"retry-after": "5"})) == 0.0
        assert attempts.address is known.all[1]
        clock.now += 4.9
        assert known.round() == [known.all[1]]
        clock.now += 0.2
        assert known.round() == known.all

    @pytest.mark.usefixtures("clock")
    def test_where_all_rest_the_one_that_rested_longest_is_asked_first(self) -> None:
        known = Addresses(["http://a", "http://b", "http://c"])
        for address, times in zip(known.all, (3, 1, 2), strict=True):
            for _ in range(times):
                known.is_away(address, 0.0)
        assert [str(each.url.host) for each in known.round()] == ["b", "c", "a"]


def test_a_label_shows_wherever_it_is_asked_for(tmp_path: Path) -> None:
    """Two learners of one log, each with an API of its own: what one has taken is waited for at the other."""
    streams = [Place(tmp_path / "a").stream]
    streams.append(Place(tmp_path / "b", log=streams[0].log_url).stream)
    with ExitStack() as stack:
        for stream in streams:
            stack.enter_context(learning(stream))
        urls = [stack.enter_context(running(stream, max_wait_s=60.0)) for stream in streams]
        proxies = [stack.enter_context(unreliable(url, [])) for url in urls]
        client = stack.enter_context(Client([proxy.url for proxy in proxies]))
        client.label_many([Label(f"a{n}", ("spam", "ham")[n % 2], text=(SPAM, HAM)[n % 2]) for n in range(20)])
        for number in range(10):
            sent = client.label(f"own-{number}", f"label-{number}", text=f"zebra{number} crossing{number}", weight=20.0)
            for proxy in proxies:
                proxy.ways[:] = ["dropped"] if proxy is proxies[number % 2] else []
            for address in client._addresses.all:
                address.rests_until = 0.0
            assert client.predict(f"zebra{number} crossing{number}", after=sent).label == f"label-{number}"
        assert min(len(proxy.asked) for proxy in proxies) > 5


class Asking:
    """Asks again and again, in threads of its own."""

    def __init__(self, urls: list[str]) -> None:
        self.answered, self.labels = [0, 0], [0, 0]
        self._urls, self._stop = urls, threading.Event()

    def _labels(self, which: int) -> Iterator[Label]:
        for number in itertools.count():
            if self._stop.is_set():
                return
            yield Label(f"{which}-{number}", "spam", text=SPAM, id=f"{which}-{number}")

    def _sync(self) -> None:
        with Client(self._urls, timeout_s=2.0) as client:
            for label in self._labels(0):
                client.label_many([label])
                self.labels[0] += 1
                assert client.predict(SPAM).label == "spam"
                self.answered[0] += 1

    async def _async(self) -> None:
        async with AsyncClient(self._urls, timeout_s=2.0) as client:
            for label in self._labels(1):
                await client.label_many([label])
                self.labels[1] += 1
                assert (await client.predict(SPAM)).label == "spam"
                self.answered[1] += 1

    def wait_for_more(self, n: int = 20) -> None:
        """Wait for so many more answers of each client."""
        before = list(self.answered)
        wait_until(
            lambda: (
                any(each.done() for each in self._tasks)
                or min(a - b for a, b in zip(self.answered, before, strict=True)) >= n
            ),
            120,
        )

    @contextmanager
    def at_work(self) -> Iterator["Asking"]:
        with ThreadPoolExecutor(2) as pool:
            self._tasks = [pool.submit(self._sync), pool.submit(lambda: asyncio.run(self._async()))]
            try:
                yield self
            finally:
                self._stop.set()
            for task in self._tasks:
                task.result(120)


def test_no_request_fails_while_one_is_killed_and_one_stands_still(
    nursery: Nursery, tmp_path: Path, kafka: str, prefix: str
) -> None:
    """On Kafka: one that stands still within a transaction of SQLite's would keep all others from writing."""
    places = [Place(tmp_path / name, log=f"kafka://{kafka}", prefix=prefix) for name in "ab"]
    for place in places:
        place.publish()
    with closing(open_log(places[0].stream)) as log:
        log.create_topics(places[0].stream.topics)
    with reserved() as one, reserved() as other:
        ports = [one, other]
        urls = [f"http://127.0.0.1:{port}" for port in ports]

        def start(which: int) -> Child:
            stream = places[which].stream
            names = ("--data", str(stream.data), "--log", stream.log_url, "--prefix", prefix)
            child = nursery.start("serve", *names, "--port", str(ports[which]))
            wait_until(lambda: answers(urls[which]), 120, "the API answers")
            return child

        children = [start(0), start(1)]
        try:
            with Asking(urls).at_work() as asking:
                asking.wait_for_more()
                children[0].send(signal.SIGKILL)
                children[0].wait()
                asking.wait_for_more()
                children[0] = start(0)
                children[1].send(signal.SIGSTOP)
                asking.wait_for_more()
                children[1].send(signal.SIGCONT)
                children[0].send(signal.SIGKILL)
                children[0].wait()
                asking.wait_for_more()
        finally:
            for child in children:
                child.send(signal.SIGKILL)
                child.wait()
    found = {(record.key or b"").decode() for record in read_all(places[0].stream, prefix + "feedback")}
    assert found >= {f"{which}-{number}" for which in (0, 1) for number in range(asking.labels[which])}
    assert min(asking.answered) >= 80


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=30).status_code in {200, 503}
    except httpx.TransportError:
        return False
