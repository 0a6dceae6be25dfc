"""Long work beside short requests: a share of the time, callers in turn, so many places."""

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from driftline.api import body, explain, predict, turns
from driftline.api.errors import ApiError
from driftline.api.explain import Explainer
from driftline.api.keys import Role
from driftline.api.places import Places
from driftline.api.turns import Turns
from tests.clock import Clock
from tests.place import Place, add_key, post, refusal, running
from tests.waiting import wait_until


class Paid(Clock):
    """A clock of which each piece of work takes a second of the processor."""

    def __init__(self) -> None:
        super().__init__()
        self.worked = 0.0

    def thread_time(self) -> float:
        self.worked += 0.5  # asked before and after, so that a piece is half of it
        return self.worked


def in_turns(talk: Callable[[Turns], Coroutine[Any, Any, None]], share: float = 1.0, burst_s: float = math.inf) -> None:
    async def run() -> None:
        each = Turns("test", share, burst_s)
        try:
            await talk(each)
        finally:
            each.stop()
            await asyncio.to_thread(each.close)

    asyncio.run(run())


async def settled(until: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not until():
            await asyncio.sleep(0.001)


def test_callers_take_turns() -> None:
    done: list[str] = []
    release = threading.Event()

    async def talk(each: Turns) -> None:
        first = asyncio.create_task(each.do(b"first", lambda: release.wait(60)))
        await asyncio.sleep(0)
        asked = [("many", number) for number in range(3)] + [("one", 0), ("two", 0), ("two", 1)]
        tasks = [
            asyncio.create_task(each.do(who.encode(), lambda who=who, number=number: done.append(f"{who} {number}")))
            for who, number in asked
        ]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(first, *tasks)

    in_turns(talk)
    assert done == ["many 0", "one 0", "two 0", "many 1", "two 1", "many 2"]


def test_behind_work_there_is_a_pause_that_makes_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Paid()
    monkeypatch.setattr(turns, "time", clock)

    async def talk(each: Turns) -> None:
        for number in range(2):  # half a second each: a burst of 0.8 s lets the second one come at once
            assert await each.do(b"a", lambda number=number: number) == number
        assert each.pause_s(b"a") == pytest.approx(10 - 8)
        third = asyncio.create_task(each.do(b"a", lambda: 3))
        await settled(lambda: each._timer is not None)
        clock.now += 1.9
        each._wake()
        assert not each._busy
        assert each.pause_s(b"a") == pytest.approx(0.1)
        clock.now += 0.2
        each._wake()
        assert await third == 3
        clock.now += 1000
        assert each.pause_s(b"a") == 0
        assert await each.do(b"a", lambda: 4) == 4
        assert each.pause_s(b"a") == 0, "what was not used for long is not saved up beyond the burst"

    in_turns(talk, share=0.1, burst_s=0.8)


def test_who_asks_for_little_does_not_wait_for_one_who_asks_much(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Paid()
    monkeypatch.setattr(turns, "time", clock)

    async def talk(each: Turns) -> None:
        await each.do(b"much", lambda: None)  # half a second: five seconds of its share, two of which are its burst
        again = asyncio.create_task(each.do(b"much", lambda: None))
        await settled(lambda: each._timer is not None)
        assert each.pause_s(b"much") == pytest.approx(3)
        assert each.pause_s(b"little") == 0
        await each.do(b"little", lambda: None)
        assert not again.done()
        await each.do(b"another", lambda: None)
        assert each.pause_s(b"one more") > 0, "all together have a limit of their own: one second at once"
        again.cancel()

    in_turns(talk, share=0.1, burst_s=0.2)


def test_callers_who_owe_nothing_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Paid()
    monkeypatch.setattr(turns, "time", clock)
    monkeypatch.setattr(turns, "MANY", 10)

    async def talk(each: Turns) -> None:
        for number in range(50):
            await each.do(b"%d" % number, lambda: None)
            clock.now += 1
        assert len(each._paid_at) <= 11

    in_turns(talk)


def test_errors_and_those_who_go_away() -> None:
    release, ran = threading.Event(), []

    async def talk(each: Turns) -> None:
        with pytest.raises(ZeroDivisionError):
            await each.do(b"a", lambda: 1 // 0)
        first = asyncio.create_task(each.do(b"a", lambda: release.wait(60)))
        gone = asyncio.create_task(each.do(b"a", lambda: ran.append("gone")))
        stays = asyncio.create_task(each.do(b"a", lambda: ran.append("stays")))
        await asyncio.sleep(0)
        for task in (first, gone):
            task.cancel()
        await asyncio.sleep(0)
        assert each._busy, "what has begun goes on"
        release.set()
        await stays
        assert ran == ["stays"]
        assert not each._waiting

    in_turns(talk)


def test_who_waits_at_a_stop_is_told_to_come_again() -> None:
    release = threading.Event()

    async def talk(each: Turns) -> None:
        first = asyncio.create_task(each.do(b"a", lambda: release.wait(60)))
        second = asyncio.create_task(each.do(b"a", lambda: None))
        await asyncio.sleep(0)
        each.stop()
        with pytest.raises(ApiError, match="being stopped"):
            await second
        release.set()
        assert await first
        with pytest.raises(ApiError, match="being stopped"):
            await each.do(b"a", lambda: None)

    in_turns(talk)


def test_places() -> None:
    places = Places(3, 2, "things wait")
    with places.take(b"a"), places.take(b"a"):
        with pytest.raises(ApiError, match="2 things wait for this key") as refused, places.take(b"a"):
            pass
        assert refused.value.status == 429
        with places.take(b"b"):
            assert places.taken == 3
            with pytest.raises(ApiError, match="3 things wait already") as refused, places.take(b"c", 7):
                pass
            assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "7"})
    assert places.taken == 0
    assert not places._of
    with pytest.raises(KeyError), places.take(b"a"):
        raise KeyError
    assert places.taken == 0


@pytest.mark.parametrize(("most", "each", "status"), [(2, 4, 503), (4, 2, 429)])
def test_only_so_many_explanations_wait(
    place: Place, monkeypatch: pytest.MonkeyPatch, most: int, each: int, status: int
) -> None:
    """The rest is refused at once, with when to come again; nobody else's share is touched."""
    monkeypatch.setattr(explain, "MAX_WAITING", most)
    monkeypatch.setattr(explain, "MAX_WAITING_EACH", each)
    release, begun, before = threading.Event(), [], Explainer._explain

    def slowly(self: Explainer, *arguments: Any) -> Any:
        begun.append(1)
        assert release.wait(60)
        return before(self, *arguments)

    monkeypatch.setattr(Explainer, "_explain", slowly)
    keys = [add_key(place, Role.PREDICT, name) for name in ("greedy", "other")]
    place.publish()
    explainers: list[Explainer] = []
    answer_before = Explainer.answer

    def answer_kept(self: Explainer, *arguments: Any) -> Any:
        explainers.append(self)
        return answer_before(self, *arguments)

    monkeypatch.setattr(Explainer, "answer", answer_kept)
    with ThreadPoolExecutor(4) as pool, running(place.stream) as url:

        def ask(key: dict[str, str]) -> httpx.Response:
            return httpx.post(f"{url}/explain", json={"text": "a prize"}, headers=key, timeout=120)

        try:
            asked = [pool.submit(ask, keys[0]) for _ in range(2)]
            wait_until(lambda: begun and explainers and explainers[0]._places.taken == 2, what="two wait")
            refused = ask(keys[0])
            refusal(refused, status)
            assert int(refused.headers["retry-after"]) >= 1
            if status == 429:
                asked.append(pool.submit(ask, keys[1]))
                wait_until(lambda: explainers[0]._places.taken == 3, what="another one waits, too")
        finally:
            release.set()
        assert [each.result().status_code for each in asked] == [200] * len(asked)
        assert explainers[0]._places.taken == 0
        assert post(f"{url}/explain", {"text": "x"}).status_code == 401


@pytest.mark.parametrize(("what", "nth"), [((body, "decode"), 1), ((predict, "_predict"), 2)])
def test_long_requests_of_one_caller_let_others_in_between(
    place: Place, monkeypatch: pytest.MonkeyPatch, what: tuple[Any, str], nth: int
) -> None:
    """Both where a body is read and where many texts are classified: the first and the second turn of a request."""
    release, asked, done = threading.Event(), [], []
    before, do_before = getattr(*what), Turns.do

    def slowly(*arguments: Any) -> Any:
        name = next(each for each in ("first", "greedy", "other") if each in str(arguments))
        if name == "first":
            assert release.wait(60)
        done.append(name)
        return before(*arguments)

    async def do(self: Turns, caller: bytes, work: Callable[[], Any]) -> Any:
        asked.append(caller)
        return await do_before(self, caller, work)

    monkeypatch.setattr(*what, slowly)
    monkeypatch.setattr(Turns, "do", do)
    keys = [add_key(place, Role.PREDICT, name) for name in ("greedy", "other")]
    place.publish()
    with ThreadPoolExecutor(5) as pool, running(place.stream) as url:

        def ask(name: str, key: dict[str, str]) -> int:
            texts = [f"{name} {'prize ' * 1_500}"] * 2
            return httpx.post(f"{url}/predict", json={"texts": texts}, headers=key, timeout=120).status_code

        answers = []
        try:
            for name, key in [("first", 0), ("greedy", 0), ("greedy", 0), ("greedy", 0), ("other", 1)]:
                answers.append(pool.submit(ask, name, keys[key]))
                wait_until(lambda: len(asked) == nth * len(answers), what="it waits for its turn")
        finally:
            release.set()
        assert [each.result() for each in answers] == [200] * 5
    assert done == ["first", "other", "greedy", "greedy", "greedy"]
