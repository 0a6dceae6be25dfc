"""What does a client ask of the API, and what is made of the answer?

A `Call` is one request. What is sent in as many requests as the API takes, by number and by bytes, is a `Talk`: it
gives the next call, and is given its outcome. Where the API, or a proxy before it, takes less, it says so; what was
refused is sent in smaller parts, and the client remembers (`Capacity`). Nothing is sent here: client.py does that.
"""

import ipaddress
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import httpx
import msgspec

from driftline.api.addresses import CONNECT_S, Addresses, Outcome, all_said, refusal_in
from driftline.stream.errors import DriftlineError
from driftline.stream.surrogates import whole_characters

MAX_ITEMS: Final = 1000  # in one request, as the API takes them unless told otherwise
MAX_BYTES: Final = 8 << 20  # likewise
ITEMS_HEADER: Final = "driftline-max-items"  # of a refusal: what is taken at most
BYTES_HEADER: Final = "driftline-max-body-bytes"
T = TypeVar("T")


class Refused(DriftlineError):
    """The API did not do what was asked, or could not be reached.

    Attributes
    ----------
    status : of HTTP; 0 where there was no answer
    code : for programs, e.g. "no-model"; "unreachable" where there was no answer
    action : what to do next
    """

    def __init__(self, status: int, code: str, message: str, action: str) -> None:
        super().__init__(f"{message}. {action}" if action else message)
        self.status, self.code, self.action = status, code, action


class Prediction(msgspec.Struct, frozen=True):
    """What the model says of a text: the best label, and the scores of the best labels."""

    label: str
    score: float
    scores: dict[str, float]
    model_version: str = ""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """Where a message or a label lies in the log, durable."""

    id: str
    topic: str
    partition: int
    offset: int
    message_id: str | None = None  # of a label


Fields = Mapping[str, Any]
Vector = Any  # a sequence of numbers, or an array of NumPy, PyTorch or another library that gives a list of them


class Label(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message really was; with a text of its own it needs no message. `op="retract"` needs no label."""

    message_id: str
    label: str | None = None
    text: str | None = None
    weight: float = 1.0
    source: str | None = None
    ts: datetime | None = None
    op: str = "upsert"
    id: str | None = None
    fields: Fields | None = None  # of that text
    vector: Vector | None = None  # likewise
    note: str | None = None  # for people; nothing is learned of it


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A text to be classified."""

    text: str
    id: str | None = None
    ts: datetime | None = None
    metadata: dict[str, Any] | None = None
    fields: Fields | None = None  # what is known of it beside its text: strings, numbers, booleans, lists of strings
    vector: Vector | None = None  # of the text, from a model of yours


After = Sent | Sequence[Sent] | None


class Capacity:
    """How much the API takes in a request, as far as it is known. Any thread."""

    def __init__(self) -> None:
        self.items, self.n_bytes = MAX_ITEMS, MAX_BYTES

    def parts(self, encoded: Iterable[bytes], overhead: int) -> Iterator[list[bytes]]:
        """Give the items in lists that each fit into a request, beside so many bytes of other things."""
        part: list[bytes] = []
        n_bytes = overhead
        for each in encoded:
            if part and (len(part) >= self.items or n_bytes + len(each) + 1 > self.n_bytes):
                yield part
                part, n_bytes = [], overhead
            part.append(each)
            n_bytes += len(each) + 1
        if part:
            yield part

    def is_less(self, outcome: Outcome, part: Sequence[bytes], n_bytes: int) -> bool:
        """Tell whether a request was refused because it held too much, and take note of how much is taken."""
        if not isinstance(outcome, httpx.Response) or outcome.status_code not in {413, 422} or len(part) == 1:
            return False
        items, most = (_number(outcome.headers.get(name)) for name in (ITEMS_HEADER, BYTES_HEADER))
        if outcome.status_code == 413 and items is most is None and refusal_in(outcome) is None:
            most = n_bytes // 2  # of a proxy, which does not say how much it takes
        if items is not None and items < len(part):
            self.items = items
        elif most is not None and most < n_bytes:
            self.n_bytes = most
        else:
            return False
        return True


class Call(msgspec.Struct, Generic[T], frozen=True):
    """A request, and what is made of its answer."""

    method: str
    path: str
    parse: Callable[[bytes], T]
    body: bytes | None = None


# What is asked.


def _encoded(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body, enc_hook=_as_list)
    except UnicodeEncodeError:  # half of a character, which no UTF-8 can have
        return msgspec.json.encode(_whole(msgspec.to_builtins(body, enc_hook=_as_list)))


def _as_list(array: Any) -> Any:
    """Return the numbers of an array, whichever library's; msgspec asks of what it does not know."""
    if hasattr(array, "tolist"):
        return array.tolist()
    raise TypeError(f"{type(array).__name__} cannot be sent as JSON")


def _whole(body: Any) -> Any:
    """Return a body whose texts have only whole characters: U+FFFD stands for half of one, as the API takes it."""
    if isinstance(body, str):
        return whole_characters(body)
    if isinstance(body, dict):
        return {_whole(name): _whole(value) for name, value in body.items()}
    return [_whole(each) for each in body] if isinstance(body, list) else body


Talk = Generator[Call[list[T]], Outcome, list[T]]


def _talk(
    path: str,
    parse: Callable[[bytes], list[T]],
    encoded: Iterable[bytes],
    capacity: Capacity,
    head: bytes = b"[",
    tail: bytes = b"]",
) -> "Talk[T]":
    """Ask for items in as few requests as take them all; return what came back, in their order. Raises Refused."""
    found: list[T] = []
    overhead = len(head) + len(tail)
    for each in capacity.parts(encoded, overhead):
        left = [each]
        while left:
            part = left.pop(0)
            call = Call("POST", path, parse, head + b",".join(part) + tail)
            outcome = yield call
            if capacity.is_less(outcome, part, len(call.body or b"")):
                left[:0] = capacity.parts(part, overhead)
            else:
                answered: list[T] = result_of(call, outcome)
                found += answered
    return found


class _Text(msgspec.Struct, frozen=True, omit_defaults=True):
    """A text to be classified, with its fields and its vector."""

    text: str
    fields: Fields | None = None
    vector: Vector | None = None


def predict(
    texts: Iterable[str],
    after: After,
    capacity: Capacity,
    fields: Iterable[Fields | None] | None = None,
    vectors: Iterable[Vector | None] | None = None,
) -> "Talk[Prediction]":
    """Return how to classify texts, with the fields and the vector of each, by a model that has learned the labels
    `after`.
    """
    tail = b"]}"
    if after is not None:
        last: dict[int, int] = {}  # of each partition the last one is enough, however many there are
        for each in [after] if isinstance(after, Sent) else after:
            last[each.partition] = max(each.offset, last.get(each.partition, 0))
        least = [{"partition": partition, "offset": offset} for partition, offset in last.items()]
        tail = b'],"min_feedback_offset":' + _encoded(least) + b"}"
    if fields is None and vectors is None:
        return _talk("/predict", _predictions, map(_encoded, texts), capacity, b'{"texts":[', tail)
    texts = list(texts)
    of_each = zip(texts, fields or [None] * len(texts), vectors or [None] * len(texts), strict=True)
    messages = (_encoded(_Text(text, own or None, vector)) for text, own, vector in of_each)
    return _talk("/predict", _predictions, messages, capacity, b'{"messages":[', tail)


def send_messages(messages: Iterable[str | Message], capacity: Capacity) -> "Talk[Sent]":
    """Return how to append messages."""
    made = (Message(each) if isinstance(each, str) else each for each in messages)
    return _talk("/messages", _sent, (_encoded(_with_id(each)) for each in made), capacity)


def send_labels(labels: Iterable[Label], capacity: Capacity) -> "Talk[Sent]":
    """Return how to append labels."""
    return _talk("/feedback", _sent, (_encoded(_with_id(each)) for each in labels), capacity)


def ask_json(method: str, path: str, body: Mapping[str, Any] | None = None) -> Call[dict[str, Any]]:
    """Return how to ask for an object."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    return Call(method, path, decoder.decode, None if body is None else _encoded(body))


def _with_id(record: T) -> T:
    """Return a record with an id, by which it counts once however often it is sent."""
    if getattr(record, "id") is None:  # noqa: B009  (messages and labels have one)
        return msgspec.structs.replace(record, id=uuid.uuid4().hex)  # type: ignore[type-var]
    return record


def mounts_for(addresses: Addresses) -> dict[str, None] | None:
    """Return what keeps httpx from sending requests to this machine through a proxy that the environment names."""
    hosts = {address.url.host for address in addresses.all if _is_here(address.url.host)}
    return {f"all://{f'[{host}]' if ':' in host else host}": None for host in hosts} or None


def timeout_for(addresses: Addresses, timeout_s: float) -> httpx.Timeout:
    """Return how long a try may take; where there is another API, less is waited for a connection."""
    return httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S) if len(addresses.all) > 1 else timeout_s)


def _is_here(host: str) -> bool:
    """Tell whether a host is this machine, which no proxy of the environment (`http_proxy`) can reach for us."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        mapped = address.ipv4_mapped if address.version == 6 else None
        return (mapped or address).is_loopback or address.is_unspecified
    return False


def headers(key: str | None) -> dict[str, str]:
    """Return what is said with each request."""
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


# What came back.


class _Predicted(msgspec.Struct):
    predictions: list[Prediction]
    model_version: str


_PREDICTED: Final = msgspec.json.Decoder(_Predicted)


class _Appended(msgspec.Struct):
    appended: list[Sent]


_APPENDED: Final = msgspec.json.Decoder(_Appended)


def _predictions(content: bytes) -> list[Prediction]:
    answer = _PREDICTED.decode(content)
    return [msgspec.structs.replace(each, model_version=answer.model_version) for each in answer.predictions]


def _sent(content: bytes) -> list[Sent]:
    return _APPENDED.decode(content).appended


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and int(text) > 0 else None


def result_of(call: Call[T], outcome: Outcome) -> T:
    """Return what a call gave. Raises Refused."""
    told = all_said(outcome)
    if not isinstance(outcome, httpx.Response):
        action = (
            "Is one of them running, and are the URLs right?"
            if told
            else "Is `driftline up` running, and the URL right?"
        )
        raise Refused(0, "unreachable", f"{call.path}: {told or repr(outcome)}", action)
    if outcome.is_success:
        with suppress(ValueError):
            return call.parse(outcome.content)
    refusal = refusal_in(outcome) if not outcome.is_success else None
    before = f" ({told})" if told else ""
    if refusal is None:
        message = f"{outcome.url} does not answer as Driftline does{before}"
        raise Refused(outcome.status_code, "unknown-answer", message, "")
    raise Refused(outcome.status_code, refusal.code, refusal.error + before, refusal.action)
