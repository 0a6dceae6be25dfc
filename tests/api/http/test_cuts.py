"""What a client sends has the same answers wherever the network cuts it, and each request has one.

Byte for byte: what a real connection brings together nobody decides, so the transport here is a test's. Each request is
also sent to a real server, by test_bad_inputs.py and test_connections.py.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.api.access.keys import Role
from driftline.api.app import make_app
from driftline.api.settings import ApiSettings
from tests.bad_inputs import CUT, HTTP, LENGTHS, request
from tests.often import times
from tests.place import Place, add_key
from tests.transport import Transport, Wires

REQUESTS = {bad.what: bad.sent for bad in (*HTTP, *LENGTHS, *CUT)}
REQUESTS |= {f"HEAD {path}": request(method=b"HEAD", path=path.encode()) for path in ("/model", "/predict", "/none")}
SMALL = sorted(what for what, sent in REQUESTS.items() if len(sent) < 1000)
LARGE = sorted(REQUESTS.keys() - set(SMALL))
Answer = tuple[int, bool, Any]


class Cutter:
    """An API on a loop of its own, and connections to it that a test cuts."""

    def __init__(self, place: Place) -> None:
        self._runner = asyncio.Runner()
        self._app = make_app(place.stream, ApiSettings(max_body_bytes=1 << 16, max_text_chars=1000))
        self._life = self._app.app.router.lifespan_context(self._app.app)
        self.run(self._life.__aenter__())
        self.wires = Wires(self._app.gate)

    def close(self) -> None:
        self.run(self._life.__aexit__(None, None, None))
        self._runner.close()

    def run(self, what: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await what

        return self._runner.run(wait())

    def answers(self, parts: Sequence[bytes], *, apart: bool) -> list[Answer]:
        """Return what parts get, each read on its own; with `apart` not before the one before it has had its effect."""
        return self.run(self._answers(parts, apart))

    async def _answers(self, parts: Sequence[bytes], apart: bool) -> list[Answer]:
        transport = self.wires.connect()
        for part in parts:
            while transport.is_paused and not transport.is_closing():
                await asyncio.sleep(0)
            if transport.is_closing():
                break
            transport.protocol.data_received(part)
            if apart:
                await self.wires.settle(transport)
        await self.wires.settle(transport)
        found = read(bytes(transport.written))
        await self._leave(transport)
        return [*found, (0, transport.is_closing(), None)]

    async def _leave(self, transport: Transport) -> None:
        was_closing = transport.is_closing()
        transport.close()
        await asyncio.sleep(0)
        transport._is_closing = was_closing


def read(written: bytes) -> list[Answer]:
    """Return the status, whether it says that it is the last, and the body of each answer that was written."""
    found: list[Answer] = []
    while written:
        head, _, rest = written.partition(b"\r\n\r\n")
        status, head = int(head.split()[1]), head.lower()
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        n = 0 if rest.startswith(b"HTTP/1.1 ") or not length else min(int(length[1]), len(rest))  # 0: of HEAD
        body: Any = rest[:n]
        if b"application/json" in head and body:
            body = json.loads(body)
            body = {name: value for name, value in body.items() if not name.endswith("_seconds")}  # since when
        found.append((status, b"\r\nconnection: close" in head, body))
        written = rest[n:]
    return found


@pytest.fixture(scope="module")
def cutter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cutter]:
    place = Place(tmp_path_factory.mktemp("cuts"))
    place.publish()
    cutter = Cutter(place)
    yield cutter
    cutter.close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cutter]:
    """Give one that needs a key."""
    place = Place(tmp_path_factory.mktemp("locked"))
    place.publish()
    add_key(place, Role.PREDICT)
    cutter = Cutter(place)
    yield cutter
    cutter.close()


def cut(content: bytes, places: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(content), *(place % (len(content) + 1) for place in places)})
    return [content[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("what", SMALL)
def test_cut_at_each_byte(cutter: Cutter, what: str) -> None:
    """In two anywhere, and into single bytes; what comes first with its effect, and without."""
    content = REQUESTS[what]
    whole = cutter.answers([content], apart=False)
    for place in range(1, len(content)):
        assert cutter.answers([content[:place], content[place:]], apart=True) == whole, content[:place]
    single = [content[n : n + 1] for n in range(len(content))]
    assert cutter.answers(single, apart=True) == whole
    assert cutter.answers(single, apart=False) == whole


@pytest.mark.parametrize("what", LARGE)
def test_what_is_large_is_cut_at_some(cutter: Cutter, what: str) -> None:
    content = REQUESTS[what]
    whole = cutter.answers(cut(content, range(0, len(content), 1 << 18)), apart=False)  # what one read brings
    for size in (1 << 16, 1500, 999):
        parts = cut(content, range(0, len(content), size))
        assert cutter.answers(parts, apart=size == 1500) == whole


@given(
    names=st.lists(st.sampled_from(SMALL), min_size=1, max_size=4),
    places=st.lists(st.integers(0, 4000), max_size=8),
    apart=st.booleans(),
)
@settings(max_examples=times(400, 100))
def test_one_behind_another(cutter: Cutter, names: list[str], places: list[int], apart: bool) -> None:
    content = b"".join(REQUESTS[name] for name in names)
    assert cutter.answers(cut(content, places), apart=apart) == cutter.answers([content], apart=False)


@given(what=st.sampled_from(SMALL), places=st.lists(st.integers(0, 1000), max_size=6), apart=st.booleans())
@settings(max_examples=times(300, 75))
def test_where_a_key_is_needed(locked: Cutter, what: str, places: list[int], apart: bool) -> None:
    content = REQUESTS[what] + request(b'{"text": "a"}')
    assert locked.answers(cut(content, places), apart=apart) == locked.answers([content], apart=False)


@pytest.mark.parametrize("what", [*SMALL, *LARGE])
def test_behind_the_last_answer_nothing_is_done(cutter: Cutter, what: str) -> None:
    """What says that it is the last one is the last one, and the connection is closed."""
    content = REQUESTS[what] + request(b'{"text": "a"}') * 2
    *found, (_, is_closed, _) = cutter.answers(cut(content, range(0, len(content), 1 << 18)), apart=False)
    said = [last for _, last, _ in found]
    assert not any(said[:-1])
    if any(said):
        assert is_closed
    assert len(found) <= 4


def settled(cutter: Cutter, check: Callable[[Transport], Awaitable[None]]) -> None:
    async def run() -> None:
        await check(cutter.wires.connect())

    cutter.run(run())
