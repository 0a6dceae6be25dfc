"""A request whose head came before is answered as if it had been parsed, however it comes; over a real server."""

import json
import os
import platform
import re
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.api.access.keys import FILE, Role, save
from driftline.api.http.slice import SCHED_SETATTR, ask_for_short_slices
from tests.often import times
from tests.place import Place, add_key, address, running


def request(body: bytes, *more: bytes, method: bytes = b"POST", path: bytes = b"/predict") -> bytes:
    lines = [b"%s %s HTTP/1.1" % (method, path), b"Host: a", b"Content-Length: %d" % len(body), *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


GOOD = request(b'{"text": "win a prize"}')
WAITS = request(b'{"text": "win a prize", "min_feedback_offset": {"partition": 0, "offset": 0}}')
REQUESTS = {
    "good": GOOD,
    "another text": request(b'{"text": "lunch at two"}'),
    "another head": request(b'{"text": "win a prize"}', b"X: y"),
    "waits": WAITS,
    "as long as what waits": request(b'{"text": "%s"}' % (b"x" * (len(WAITS.partition(b"\r\n\r\n")[2]) - 12))),
    "no text": request(b'{"text": 123456789012}'),
    "nothing": request(b""),
    "chunks": b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'17\r\n{"text": "win a prize"}\r\n0\r\n\r\n',
    "another path": request(b"", method=b"GET", path=b"/healthz"),
    "a line before": b"\r\n" + GOOD,
    "compressed": request(b'{"text": "win a prize"}', b"Content-Encoding: gzip"),
    "no host": GOOD.replace(b"Host", b"Hots"),
}
TEXTS = {"good": "spam", "another text": "ham", "another head": "spam", "waits": "spam", "a line before": "spam"}


def answers(url: str, parts: Sequence[bytes], n: int) -> list[tuple[int, Any]]:
    """Send parts, each on its own, until there are n answers; return their statuses and bodies, without times."""
    found: list[tuple[int, Any]] = []
    with socket.create_connection(address(url), timeout=60) as raw, raw.makefile("rb") as stream:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            raw.sendall(part)
        while len(found) < n:
            status = int(stream.readline().split()[1])
            head = b"".join(iter(stream.readline, b"\r\n")).lower()
            body = json.loads(stream.read(int(re.search(rb"content-length: (\d+)", head)[1])))  # type: ignore[index]
            body.pop("model_age_seconds", None)
            found.append((status, body))
            if b"connection: close" in head:
                break
    return found


def alone(url: str, name: str) -> tuple[int, Any]:
    """Return what a request is answered by a way that no head goes: byte by byte it is never whole."""
    content = REQUESTS[name]
    return answers(url, [content[:20], content[20:]], 1)[0]


@settings(max_examples=times(150, 37), deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(set(REQUESTS) - {"no host"})), min_size=1, max_size=8),
    cuts=st.lists(st.integers(1, 400), max_size=12),
    apart=st.booleans(),
)
def test_whatever_came_before_and_wherever_it_is_cut(url: str, names: list[str], cuts: list[int], apart: bool) -> None:
    """Each alone, all in one packet, or cut anywhere: the same answers, in their order."""
    parts = [REQUESTS[name] for name in names]
    if not apart:
        whole, parts = b"".join(parts), []
        for cut in cuts:
            parts, whole = [*parts, whole[:cut]], whole[cut:]
        parts.append(whole)
    found = answers(url, parts, len(names))
    assert found == [alone(url, name) for name in names]
    for name, (status, body) in zip(names, found, strict=True):
        if name in TEXTS:
            assert (status, body["predictions"][0]["label"]) == (200, TEXTS[name])


def test_a_key_that_was_taken_back_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.api.access.keys.LOOK_S", -1.0)
    place = Place(tmp_path)
    place.publish()
    sent = [f"{name}: {value}".encode() for name, value in add_key(place, Role.PREDICT).items()]
    with running(place.stream) as url:
        content = request(b'{"text": "win a prize"}', *sent)
        assert [status for status, _ in answers(url, [content] * 3, 3)] == [200] * 3
        save(place.stream.data / FILE, [])
        add_key(place, Role.PREDICT, "another")
        assert answers(url, [content], 1)[0][0] == 401


@pytest.mark.usefixtures("clock")
def test_a_request_that_waits_costs_one_token(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.publish()
    same = REQUESTS["as long as what waits"]
    with running(place.stream, rate_limit=10) as url:
        answers(url, [same], 1)  # its head is known
        found = [status for status, _ in answers(url, [WAITS] * 60, 60)]
        burst = found.index(429)
    place = Place(tmp_path / "other")
    place.publish()
    with running(place.stream, rate_limit=10) as url:
        plain = [httpx.post(f"{url}/predict", json={"text": "a"}, timeout=30).status_code for _ in range(60)]
    assert burst + 1 == plain.index(429) == 20


def test_short_slices_are_asked_for_and_change_nothing_else() -> None:
    before = os.sched_getscheduler(0), os.nice(0)
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(ask_for_short_slices()))  # it ends, and this one's stay
    thread.start()
    thread.join()
    assert found == [platform.machine() in SCHED_SETATTR and platform.system() == "Linux"]
    assert (os.sched_getscheduler(0), os.nice(0)) == before
