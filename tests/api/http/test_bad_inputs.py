"""What does the API answer to what no good client sends? Over raw sockets; docs/bad-inputs.md has the list.

DRIFTLINE_WRITE_DOCS=1 writes that file anew.
"""

import json
import os
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.bad_inputs import BODIES, CUT, HTTP, ITEMS, LENGTHS, MAX_BODY_BYTES, MAX_TEXT_CHARS, Bad, request
from tests.data import ROOT
from tests.place import Place, address, get, running

DOCS = ROOT / "docs" / "bad-inputs.md"
PATIENCE_S = 20.0
HEAD = """# Bad inputs

What no good client sends, sent to a running API over raw sockets, and what each got.
`pytest tests/api/http/test_bad_inputs.py` sends them all, compares the answers with this list, and asks each time
whether the API still lives; `DRIFTLINE_WRITE_DOCS=1` writes it anew. No answer is 500 or above, and every refusal is
one JSON object with a code, a message and what to do. "closed" is a connection that ends without an answer.
"""


def as_json(item: object) -> bytes:
    return item if isinstance(item, bytes) else json.dumps(item).encode()


SECTIONS = {
    "The protocol": HTTP,
    "Where a body ends": LENGTHS,
    "More of both": CUT,
    "Bodies of POST /predict": [Bad(what, request(body, head=head)) for what, body, head in BODIES],
    **{
        f"Bodies of POST {path}": [
            Bad(what, request(as_json(item), path=path.encode())) for what, item in items.items()
        ]
        for path, items in ITEMS.items()
    },
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = Place(tmp_path_factory.mktemp("bad"))
    place.publish()
    limits = {"max_body_bytes": MAX_BODY_BYTES, "max_text_chars": MAX_TEXT_CHARS, "receive_timeout_s": 5.0}
    with running(place.stream, **limits) as url:
        yield url


def answers(url: str, bad: Bad, expected: int) -> list[bytes]:
    """Return what comes back until the server closes; once it has answered as often as expected we end our side."""
    started = time.monotonic()
    with socket.create_connection(address(url), timeout=PATIENCE_S) as raw:
        received = b""
        try:
            raw.sendall(bad.sent)
            if bad.ends:
                raw.shutdown(socket.SHUT_WR)
            ends = bad.ends
            while more := raw.recv(1 << 16):
                received += more
                if not ends and len(whole(received)) >= expected:
                    ends = True
                    raw.shutdown(socket.SHUT_WR)
        except (OSError, TimeoutError):
            pass  # the server has closed while more was on its way
    assert received or time.monotonic() - started < PATIENCE_S, "neither answered nor closed"
    return whole(received)


def whole(received: bytes) -> list[bytes]:
    """Return the answers of which nothing is to come any more."""
    found = []
    for answer in re.split(rb"(?=HTTP/1\.1 \d\d\d )", received)[1:]:
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if b"\r\n\r\n" in answer and len(body) >= (int(length[1]) if length else 0):
            found.append(answer)
    return found


def described(answer: bytes) -> str:
    """Return the status of an answer, and of an error the code. Checks that it has the one shape."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status < 500, answer[:500]
    if status < 400:
        return str(status)
    error = json.loads(body)
    assert set(error) == {"error", "code", "action"}
    assert all(isinstance(part, str) and part for part in error.values())
    return f"{status} `{error['code']}`"


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """Return what the list says that each gets."""
    if not DOCS.exists():
        return {}
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", DOCS.read_text("utf-8"), re.MULTILINE)
    return dict(rows)


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, str]]:
    """Give what was found, and write the list of it where that was asked for."""
    found: dict[str, str] = {}
    yield found
    if os.environ.get("DRIFTLINE_WRITE_DOCS") == "1":
        DOCS.parent.mkdir(exist_ok=True)
        parts = [HEAD]
        for title, section in SECTIONS.items():
            rows = "\n".join(f"| {bad.what} | {found[title + bad.what]} |" for bad in section)
            parts.append(f"## {title}\n\n| sent | got |\n|---|---|\n{rows}\n")
        DOCS.write_text("\n".join(parts), "utf-8")


@pytest.mark.parametrize(
    ("title", "bad"), [pytest.param(title, bad, id=bad.what) for title, section in SECTIONS.items() for bad in section]
)
def test_it_is_answered(url: str, title: str, bad: Bad, known: dict[str, str], found: dict[str, str]) -> None:
    expected = known.get(bad.what, "").count(", ") + 1
    got = found[title + bad.what] = ", ".join(map(described, answers(url, bad, expected))) or "closed"
    assert get(f"{url}/healthz").status_code == 200
    if os.environ.get("DRIFTLINE_WRITE_DOCS") != "1":
        assert known.get(bad.what) == got


def test_the_list_is_long_and_each_has_a_name() -> None:
    names = [bad.what for section in SECTIONS.values() for bad in section]
    assert len(names) == len(set(names)) > 100
