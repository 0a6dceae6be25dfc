"""What do good clients ask, and how does the API treat them?

Each is a thread with a connection of its own and a pace: one text predicted, many at once, messages with labels that
come later, a label whose effect is waited for, the page with all that it loads, an explanation. Who is told to come
again (429, 503 with Retry-After) or whose connection was closed does so, as the client that Driftline brings does; only
what does not become right by that is an error. A time is that of the whole, with all tries.
"""

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from itertools import count
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

from bench.streams import make_stream

TEXTS: Final = 2_000
TRIES: Final = 8
TIMEOUT_S: Final = 60.0
PAGE: Final = ("/", "/dashboard/main.js", "/model", "/history", "/drift", "/label-requests?n=10", "/recent?n=20")
LATE: Final = 20  # messages between one and its label


class Told(NamedTuple):
    """What became of what was asked since it was told last.

    Attributes
    ----------
    times_ms : by what was asked, of each one that was answered
    again : how often somebody had to come again
    errors : how many, by what
    labels : where each label lies that was acknowledged: partition, offset
    """

    times_ms: dict[str, list[float]]
    again: int
    errors: dict[str, int]
    labels: list[tuple[int, int]]


class _Asker:
    """One client's connection."""

    def __init__(self, port: int, key: str, told: "_Notes") -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self._headers, self._told = {"Authorization": f"Bearer {key}"}, told

    def ask(self, what: str, method: str, path: str, body: object = None) -> Any:
        """Return the answer, from JSON where it is that; None where there was none that is right. Notes either."""
        content, started = None if body is None else json.dumps(body).encode(), time.perf_counter()
        problem = ""
        for tried in range(TRIES):
            if tried:
                self._told.again += 1
            try:
                self._connection.request(method, path, content, self._headers)
                answer = self._connection.getresponse()
                found = answer.read()
            except (OSError, HTTPException) as error:
                self._connection.close()
                problem = type(error).__name__
                time.sleep(0.1 * 2**tried * random.uniform(0.5, 1))
                continue
            if answer.status < 300:
                self._told.note(what, 1000 * (time.perf_counter() - started))
                return json.loads(found) if "json" in answer.headers.get("content-type", "") else found
            problem = f"{answer.status} {_code(found)}"
            later = answer.headers.get("retry-after")
            if later is None:
                break
            time.sleep(float(later) * random.uniform(0.5, 1))
        self._told.fail(f"{method} {path.partition('?')[0]}: {problem}")
        return None


class _Notes:
    """What is noted until it is told. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._times: dict[str, list[float]] = {}
        self._errors: dict[str, int] = {}
        self._labels: list[tuple[int, int]] = []
        self.again = 0

    def note(self, what: str, ms: float) -> None:
        with self._lock:
            self._times.setdefault(what, []).append(ms)

    def fail(self, what: str) -> None:
        with self._lock:
            self._errors[what] = self._errors.get(what, 0) + 1

    def label(self, place: Mapping[str, Any]) -> None:
        with self._lock:
            self._labels.append((place["partition"], place["offset"]))

    def take(self) -> Told:
        with self._lock:
            told = Told(self._times, self.again, self._errors, self._labels)
            self._clear()
            return told


def be_honest(port: int, key: str, pace: float, pipe: Connection) -> None:
    """Ask until told None; answer anything else with what was noted since. The process's main function.

    `pace` : 1 for some 200 requests a second
    """
    notes, stop = _Notes(), threading.Event()
    clients: dict[Callable[[_Asker, _Notes], Iterator[None]], float] = {
        _one_text: 0.01,
        _many_texts: 0.5,
        _late_labels: 0.02,
        _own_label: 0.25,
        _page: 1.0,
        _explanation: 1.0,
    }

    def run(client: Callable[[_Asker, _Notes], Iterator[None]], pause_s: float) -> None:
        for _ in client(_Asker(port, key, notes), notes):
            if stop.wait(pause_s / pace * random.uniform(0.5, 1.5)):
                return

    threads = [threading.Thread(target=run, args=each) for each in clients.items()]
    for thread in threads:
        thread.start()
    while pipe.recv() is not None:
        pipe.send(notes.take())
    stop.set()
    for thread in threads:
        thread.join()
    pipe.send(notes.take())


def _texts() -> Iterator[tuple[str, str]]:
    """Give texts and their labels, without end."""
    rows = make_stream("steady", TEXTS).rows
    for number in count(random.randrange(TEXTS)):
        yield rows.texts[number % TEXTS], f"label {rows.labels[number % TEXTS] % 2}"


def _one_text(asker: _Asker, _: _Notes) -> Iterator[None]:
    for text, _label in _texts():
        asker.ask("predict", "POST", "/predict", {"text": text})
        yield


def _many_texts(asker: _Asker, _: _Notes) -> Iterator[None]:
    for text, _label in _texts():
        asker.ask("predict 200", "POST", "/predict", {"texts": [text] * 200})
        yield


def _late_labels(asker: _Asker, notes: _Notes) -> Iterator[None]:
    waiting: list[tuple[str, str]] = []
    for text, label in _texts():
        message_id = uuid.uuid4().hex
        if asker.ask("message", "POST", "/messages", {"id": message_id, "text": text}) is not None:
            waiting.append((message_id, label))
        if len(waiting) > LATE:
            earlier, its_label = waiting.pop(0)
            body = {"id": earlier, "message_id": earlier, "label": its_label}
            if (place := asker.ask("label", "POST", "/feedback", body)) is not None:
                notes.label(place)
        yield


def _own_label(asker: _Asker, notes: _Notes) -> Iterator[None]:
    """Ask for a prediction that has learned the label just sent. Whoever answers earlier does not what it says."""
    for text, label in _texts():
        message_id = uuid.uuid4().hex
        body = {"id": message_id, "message_id": message_id, "label": label, "text": text}
        if (place := asker.ask("label", "POST", "/feedback", body)) is not None:
            notes.label(place)
            least = {"partition": place["partition"], "offset": place["offset"]}
            answer = asker.ask("own label", "POST", "/predict", {"text": text, "min_feedback_offset": least})
            if answer is not None and answer["feedback_offsets"][str(place["partition"])] <= place["offset"]:
                notes.fail("a prediction that has not learned the label it was to wait for")
        yield


def _page(asker: _Asker, _: _Notes) -> Iterator[None]:
    while True:
        for path in PAGE:
            asker.ask("page", "GET", path)
        yield


def _explanation(asker: _Asker, _: _Notes) -> Iterator[None]:
    for text, _label in _texts():
        asker.ask("explain", "POST", "/explain", {"text": text, "features": 10})
        yield


def _code(content: bytes) -> str:
    try:
        return str(json.loads(content)["code"])
    except (ValueError, KeyError, TypeError):
        return content[:40].decode(errors="replace")
