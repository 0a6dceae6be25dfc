"""Does one request hold up all others, or keep them out, within every limit there is?

What a body costs is told in units: what a fixed piece of work takes this very machine, 50 ms on a usual one. Counted is
processor time, so it does not matter what else runs beside.
"""

import asyncio
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Scope

from driftline.api.errors import ApiError
from driftline.api.load.holding import FREE_BYTES, MAX_BODIES, STALLED_S, STEP_BYTES, Held, Holding
from driftline.api.settings import ApiSettings
from driftline.stream.wire import outline
from tests.bodies import Held as Stood
from tests.bodies import app, publish, send
from tests.worst_bodies import ALL, Limits, Worst

LIMITS = Limits(body_bytes=1 << 20, record_bytes=1 << 18)
WORK = 2_700_000  # additions: 50 ms on a usual machine
TRIES = 5


def unit_s() -> float:
    """Return what the fixed piece of work takes."""
    taken = []
    for _ in range(3):
        before = time.thread_time()
        sum(number for number in range(WORK))
        taken.append(time.thread_time() - before)
    return min(taken)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("worst")
    publish(path, 200)
    outline.warm_up()
    return path


async def least(api: Any, worst: Worst, unit: float) -> Stood:
    """Send a body until it held up nobody, or often; return the least."""
    stood = await send(api, worst)
    for _ in range(TRIES):
        if stood.own_s < unit / 2 and stood.all_s < unit:
            break
        again = await send(api, worst)
        stood = Stood(min(stood.own_s, again.own_s), min(stood.all_s, again.all_s), again.status)
    return stood


@pytest.mark.parametrize("bodies", ALL)
def test_no_body_holds_up_the_loop(data: Path, bodies: Any) -> None:
    """Neither in its own thread nor by another one that does not let it go on."""

    async def run() -> None:
        async with app(data, max_body_bytes=LIMITS.body_bytes) as api:
            unit = unit_s()
            for worst in bodies(LIMITS):
                stood = await least(api, worst, unit)
                assert stood.own_s < unit / 2, f"{worst}: {stood}, a unit is {unit:.3f} s"
                assert stood.all_s < unit, f"{worst}: {stood}, a unit is {unit:.3f} s"
                assert stood.status < 500, worst

    asyncio.run(run())


# Who may hold how much.


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("driftline.api.load.holding.time", clock)
    return clock


BODY = 1 << 20


@pytest.fixture
def holding() -> Holding:
    def who(scope: Scope) -> bytes:
        return bytes(scope["who"])

    return Holding(ApiSettings(max_body_bytes=BODY), who)


def begun(holding: Holding, who: bytes, n_bytes: int) -> Held:
    held = holding.begin({"who": who})
    held.add(n_bytes)
    return held


def callers() -> Iterator[bytes]:
    yield from (b"%d" % number for number in range(1 << 20))


def fill(holding: Holding, whose: Iterator[bytes], n_bytes: int, refused: str) -> list[Held]:
    """Return as many bodies as there is room for, until one is refused so."""
    bodies: list[Held] = []
    for who in whose:
        try:
            bodies.append(begun(holding, who, n_bytes))
        except ApiError as error:
            assert (error.status, refused in str(error)) == (503, True)
            break
    return bodies


def test_small_bodies_are_always_taken(holding: Holding) -> None:
    """Whoever holds what."""
    full = [begun(holding, who, BODY) for who, _ in zip(callers(), range(MAX_BODIES), strict=False)]
    for _ in range(1000):
        begun(holding, b"0", FREE_BYTES)
    assert len(full) == MAX_BODIES


def test_one_caller_has_a_share(holding: Holding) -> None:
    his = fill(holding, repeat(b"a"), BODY, "of this key or address")
    assert len(his) == MAX_BODIES // 4
    begun(holding, b"b", BODY)
    his.pop().release()
    his.append(begun(holding, b"a", BODY))


def test_many_callers_have_no_more_than_all(holding: Holding) -> None:
    bodies = fill(holding, callers(), BODY, "too many large requests are being answered")
    held = sum(BODY - FREE_BYTES for _ in bodies)
    assert holding.held == held <= holding.most < held + BODY - FREE_BYTES


def test_what_is_released_is_free(holding: Holding) -> None:
    for _ in range(5 * MAX_BODIES):
        for who in (b"a", b"b"):
            begun(holding, who, BODY).release()
    assert (holding.held, holding.by_caller, holding.arriving) == (0, {}, {})


def test_what_stands_still_makes_room(holding: Holding, clock: Clock) -> None:
    """Only where there is none else, the one that stood longest, and nobody who gets on."""
    bodies = fill(holding, callers(), BODY - STEP_BYTES, "too many large requests")
    clock.now += STALLED_S
    bodies[0].add(STEP_BYTES - 1)
    bodies[1].add(1)
    bodies[2].add(STEP_BYTES // 2)
    bodies[2].add(STEP_BYTES // 2)
    before = holding.held
    assert before <= holding.most
    bodies.append(begun(holding, b"new", BODY))
    assert bodies[0]._given_up
    assert not any(each._given_up for each in bodies[1:])
    assert holding.held <= holding.most


def test_who_is_given_up_is_told(holding: Holding, clock: Clock) -> None:
    async def upload(who: bytes) -> None:
        held = holding.begin({"who": who})
        try:
            with held.arriving():
                held.add(BODY)
                await asyncio.Event().wait()
        finally:
            held.release()

    async def run() -> None:
        tasks = [asyncio.create_task(upload(who)) for who, _ in zip(callers(), range(MAX_BODIES), strict=False)]
        await asyncio.sleep(0)
        clock.now += STALLED_S
        last = [begun(holding, b"new", BODY) for _ in range(2)]
        done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [type(task.exception()) for task in done] == [ApiError]
        assert holding.held == (len(left) + len(last)) * (BODY - FREE_BYTES)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert all(task.cancelled() for task in left), "a stop is a stop"
        for each in last:
            each.release()
        assert holding.held == 0

    asyncio.run(run())
