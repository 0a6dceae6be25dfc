"""What does it take to disturb the API? Everything that is known to have done so once, and some more.

Each attack is a thread (some keep many connections in it) that goes on until it is stopped, at a pace that leaves the
machine to those who are attacked: what counts is what a request costs the other side. Attackers have keys of their own,
as customers have; some try without.
"""

import gzip
import json
import os
import random
import resource
import select
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

MIB: Final = 1 << 20
CONNECT_S: Final = 10.0
ANSWER_S: Final = 60.0
LAST_S: Final = 10.0  # for what is under way at the end
UPLOADS: Final = 20
SLOW_HEADS: Final = 50
IDLE: Final = 1_500  # more than the API takes
WAITERS: Final = 400
EXPLAINERS: Final = 8


class Target(NamedTuple):
    """Where, and who asks: keys of the roles predict and label."""

    port: int
    predict_key: str
    label_key: str

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), CONNECT_S)

    def request(
        self, path: str, body: bytes, *, label: bool = False, head: str = "", length: int | None = None
    ) -> bytes:
        key = self.label_key if label else self.predict_key
        n = len(body) if length is None else length
        lines = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {n}\r\n"
        return f"{lines}{head}\r\n".encode() + body

    def ask(self, request: bytes) -> str:
        """Send on a connection of its own; return the status of the answer, or why there was none."""
        try:
            with self.connect() as connection:
                connection.settimeout(ANSWER_S)
                with suppress(OSError):  # it may have answered before all of it was sent
                    connection.sendall(request)
                return connection.recv(1 << 16)[9:12].decode("latin-1") or "closed"
        except OSError as error:
            return type(error).__name__


Attack = Callable[[Target], Iterator[str]]  # gives what each try got


def unfinished_uploads(target: Target) -> Iterator[str]:
    """Keep 20 bodies all but whole, over and over."""
    body = b'{"text": "' + b"a" * (8 * MIB - 18)
    yield from _kept(target, UPLOADS, target.request("/messages", body, label=True, length=8 * MIB))


def small_unfinished_uploads(target: Target) -> Iterator[str]:
    """The same with bodies that seem harmless."""
    yield from _kept(target, UPLOADS * 4, target.request("/predict", b'{"text": "', length=4_000))


def slow_heads(target: Target) -> Iterator[str]:
    """Send heads that come a byte at a time."""
    yield from _kept(target, SLOW_HEADS, b"POST /predict HTTP/1.1\r\nX: ", drip=b"a")


def slow_bodies(target: Target) -> Iterator[str]:
    """Send bodies that come a byte at a time."""
    yield from _kept(target, SLOW_HEADS, target.request("/feedback", b"", label=True, length=100_000), drip=b" ")


def many_connections(target: Target) -> Iterator[str]:
    """Open more connections than there are places, and say nothing on them."""
    yield from _kept(target, IDLE, b"")


def readers_that_do_not_read(target: Target) -> Iterator[str]:
    """Ask for much, over and over, and take none of it."""
    body = json.dumps({"texts": ["a b c"] * 1000}).encode()
    yield from _kept(target, 8, target.request("/predict", body) * 8)


def nested_metadata(target: Target) -> Iterator[str]:
    """Messages whose metadata is as many containers as there is room for."""
    item = "[" * 25 + "]" * 25
    metadata = '{"a": [' + ",".join([item] * ((MIB - 1_000) // (len(item) + 1))) + "]}"
    one = '{"text": "a", "metadata": ' + metadata + "}"
    request = target.request("/messages", ("[" + ",".join([one] * 7) + "]").encode(), label=True)
    while True:
        yield target.ask(request)
        time.sleep(2)


def empty_lists(target: Target) -> Iterator[str]:
    """Inputs that are nothing, many times."""
    bodies = [
        b'{"inputs": [' + b",".join([each] * (7 * MIB // (len(each) + 1))) + b"]}" for each in (b"[]", b"{}", b'""')
    ]
    while True:
        for body in bodies:
            yield target.ask(target.request("/invocations", body))
            yield target.ask(target.request("/predict", body.replace(b"inputs", b"texts ", 1)))
            time.sleep(1)


def label_names(target: Target) -> Iterator[str]:
    """A new label in every record."""
    while True:
        items = [{"message_id": _id(), "label": _id(), "text": "some words"} for _ in range(200)]
        yield target.ask(target.request("/feedback", json.dumps(items).encode(), label=True))
        time.sleep(2)


def source_names(target: Target) -> Iterator[str]:
    """A new source in every record, and labels that contradict each other."""
    while True:
        items = [
            {"message_id": _id(), "label": f"label {n % 2}", "text": "which of both", "source": _id()}
            for n in range(100)
        ]
        yield target.ask(target.request("/feedback", json.dumps(items).encode(), label=True))
        time.sleep(1)


def labels_without_messages(target: Target) -> Iterator[str]:
    """Labels that wait for a message that never comes."""
    while True:
        items = [{"message_id": _id(), "label": "label 0"} for _ in range(500)]
        yield target.ask(target.request("/feedback", json.dumps(items).encode(), label=True))
        time.sleep(2)


def waiters(target: Target) -> Iterator[str]:
    """Wait for labels that are far away, a thousand in each request."""
    offsets = [{"partition": 0, "offset": offset} for offset in [0] * 999 + [1 << 50]]
    request = target.request("/predict", json.dumps({"text": "a", "min_feedback_offset": offsets}).encode())
    yield from _asking(target, WAITERS, request, 0.5)


def waiters_on_no_partition(target: Target) -> Iterator[str]:
    """Wait in partitions that there are none."""
    offsets = [{"partition": partition, "offset": 1} for partition in range(1_000)]
    request = target.request("/predict", json.dumps({"text": "a", "min_feedback_offset": offsets}).encode())
    yield from _asking(target, 8, request, 0.1)


def explanations(target: Target) -> Iterator[str]:
    """Ask why, of the longest texts, without end."""
    text = " ".join(_id()[:5] for _ in range(1_600))
    request = target.request("/explain", json.dumps({"text": text, "features": 200}).encode())
    yield from _asking(target, EXPLAINERS, request, 0.2)


def malformed(target: Target) -> Iterator[str]:
    """What is no request, or could be two."""
    body = b'{"text": "a"}'
    good = target.request("/predict", body)
    smuggled = b"GET /model HTTP/1.1\r\nHost: localhost\r\n\r\n"
    odd = [
        b"\x16\x03\x01" + bytes(64),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /model\r\n\r\n",
        b"GET " + b"/a" * 40_000 + b" HTTP/1.1\r\n\r\n",
        good.replace(b"Host: localhost\r\n", b"Host: localhost\r\nHost: evil\r\n"),
        target.request("/predict", body, head="Transfer-Encoding: chunked\r\n") + smuggled,
        target.request("/predict", body, head="Transfer-Encoding: gzip\r\n"),
        target.request("/predict", b"[" * 100_000),
        target.request("/predict", b'{"text": "\xff"}'),
        target.request("/feedback", b'{"message_id": 1e999, "label": {}}', label=True),
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        *(b"POST /predict HTTP/1.1\r\n" + b"X-%d: a\r\n" % n * 5_000 for n in range(2)),
    ]
    draw = random.Random(1)
    while True:
        for request in odd:
            yield target.ask(request)
            mutated = bytearray(good)
            for _ in range(draw.randrange(1, 5)):
                mutated[draw.randrange(len(mutated))] = draw.randrange(256)
            with suppress(OSError), target.connect() as connection:  # it may be one that waits for more
                connection.sendall(mutated)
        time.sleep(0.2)


def packed_bodies(target: Target) -> Iterator[str]:
    """A few bytes that would unpack to a gigabyte."""
    packed = gzip.compress(bytes(64 * MIB)) * 16
    request = target.request("/messages", packed, label=True, head="Content-Encoding: gzip\r\n")
    while True:
        yield target.ask(request)
        time.sleep(0.5)


def comings_and_goings(target: Target) -> Iterator[str]:
    """Connections that are closed at once, some with a reset, some behind half a request."""
    while True:
        for number in range(50):
            with suppress(OSError), target.connect() as connection:
                if number % 3 == 1:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                if number % 3 == 2:
                    connection.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        yield "50 closed"
        time.sleep(0.5)


def guessed_keys(target: Target) -> Iterator[str]:
    """Try keys."""
    while True:
        yield target.ask(target._replace(predict_key=f"dlk_{_id()}").request("/predict", b'{"text": "a"}'))
        time.sleep(0.02)


ATTACKS: Final[tuple[Attack, ...]] = (
    unfinished_uploads,
    small_unfinished_uploads,
    slow_heads,
    slow_bodies,
    many_connections,
    readers_that_do_not_read,
    nested_metadata,
    empty_lists,
    label_names,
    source_names,
    labels_without_messages,
    waiters,
    waiters_on_no_partition,
    explanations,
    malformed,
    packed_bodies,
    comings_and_goings,
    guessed_keys,
)


def attack(target: Target, names: list[str], pipe: Connection) -> None:
    """Say that the attacks have begun; carry them out until told; then tell what each got: by attack, how often what.

    The process's main function.
    """
    os.nice(10)  # what is measured is what they cost the other side
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stop, got = threading.Event(), {name: Counter[str]() for name in names}

    def run(each: Attack) -> None:
        name = each.__name__
        while not stop.is_set():
            try:
                for outcome in each(target):
                    got[name][outcome] += 1
                    if stop.is_set():
                        return
            except OSError as error:  # no connection to be had: that is one way to be refused
                got[name][type(error).__name__] += 1
                stop.wait(0.5)

    threads = [threading.Thread(target=run, args=(each,), daemon=True) for each in ATTACKS if each.__name__ in names]
    for thread in threads:
        thread.start()
    pipe.send(True)
    pipe.recv()
    stop.set()
    until = time.monotonic() + LAST_S  # those that only keep connections notice it late, or never
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    pipe.send({name: dict(outcomes) for name, outcomes in got.items()})


def _id() -> str:
    return uuid.uuid4().hex


def _kept(target: Target, n: int, sent: bytes, drip: bytes = b"") -> Iterator[str]:
    """Keep n connections on which this was sent; a new one for each that is closed. Now and then a byte more."""
    poll, kept = select.poll(), dict[int, socket.socket]()
    while True:
        while len(kept) < n:
            try:
                connection = target.connect()
                connection.settimeout(CONNECT_S)
                connection.sendall(sent)
            except OSError as error:
                yield type(error).__name__
                break
            kept[connection.fileno()] = connection
            poll.register(connection, select.POLLHUP | select.POLLERR | (select.POLLIN if len(sent) < MIB else 0))
        for number, _ in poll.poll(500):
            poll.unregister(number)
            connection = kept.pop(number)
            with suppress(OSError):
                connection.settimeout(0.1)
                yield connection.recv(64)[9:12].decode("latin-1") or "closed"
            connection.close()
        for connection in kept.values() if drip else ():
            with suppress(OSError):
                connection.send(drip)
        time.sleep(0.2)


def _asking(target: Target, n: int, request: bytes, pause_s: float) -> Iterator[str]:
    """Ask on n connections at once, again a pause after each answer."""
    poll = select.poll()
    kept: dict[int, socket.socket] = {}
    due: list[tuple[float, int]] = []
    while True:
        while len(kept) < n:
            connection = target.connect()
            connection.settimeout(CONNECT_S)
            kept[connection.fileno()] = connection
            poll.register(connection, select.POLLIN)
            due.append((time.monotonic(), connection.fileno()))
        now = time.monotonic()
        for _, number in [each for each in due if each[0] <= now]:
            with suppress(OSError):  # closed meanwhile: the poll says so
                kept[number].sendall(request)
        due = [each for each in due if each[0] > now]
        for number, _ in poll.poll(50):
            connection = kept[number]
            try:
                answer = connection.recv(1 << 20)
            except OSError:
                answer = b""
            if answer.startswith(b"HTTP/1.1 "):
                yield answer[9:12].decode("latin-1")
                due.append((time.monotonic() + pause_s, number))
            elif not answer:
                yield "closed"
                poll.unregister(number)
                kept.pop(number).close()
                due = [each for each in due if each[1] != number]
