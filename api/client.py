"""How does a Python program ask, and tell?

`Client` and `AsyncClient` (also `driftline.Client`) over httpx; both send the same `_Call`s, so they cannot differ.
What failed on the way, or was refused for now (408, 429, 502 to 504), is tried again, later each time. It is safe:
a prediction changes nothing, and a message or a label is given its id before it is sent first, and counts once.
"""

import asyncio
import ipaddress
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

import httpx
import msgspec

from driftline.stream.errors import ConfigError, DriftlineError
from driftline.stream.fields import whole_characters

MAX_ITEMS: Final = 1000  # in one request, as the API takes them unless told otherwise
FIRST_WAIT_S: Final = 0.1
MAX_WAIT_S: Final = 10.0
TRIED_AGAIN: Final = frozenset({408, 429, 502, 503, 504})
_T = TypeVar("_T")


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


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A text to be classified."""

    text: str
    id: str | None = None
    ts: datetime | None = None
    metadata: dict[str, Any] | None = None


After = Sent | Sequence[Sent] | None


class _Call(msgspec.Struct, Generic[_T], frozen=True):
    """A request, and what is made of its answer."""

    method: str
    path: str
    parse: Callable[[bytes], _T]
    body: bytes | None = None


class Client:
    """Talks to a running API. Threads may share it.

    Parameters
    ----------
    url : of the API
    key : an API key, where it asks for one
    timeout_s : for one try
    tries : how often a request is sent at most
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        tries: int = 6,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._tries = tries
        self._http = httpx.Client(
            base_url=_checked(url),
            headers=_headers(key),
            timeout=timeout_s,
            transport=transport,
            mounts=_direct(_checked(url).host),
        )

    def predict(self, text: str, *, after: After = None) -> Prediction:
        """Classify a text, by a model that has learned the labels `after`. Raises Refused."""
        return self.predict_many([text], after=after)[0]

    def predict_many(self, texts: Iterable[str], *, after: After = None) -> list[Prediction]:
        """Classify texts, a thousand in a request. Raises Refused."""
        return [each for part in _parts(texts) for each in self._do(_predict(part, after))]

    def send(self, text: str, *, id: str | None = None, metadata: dict[str, Any] | None = None) -> Sent:
        """Append a message, and return once it is durable. Raises Refused."""
        return self.send_many([Message(text, id, metadata=metadata)])[0]

    def send_many(self, messages: Iterable[str | Message]) -> list[Sent]:
        """Append messages, a thousand in a request. Raises Refused: the requests before it are durable."""
        return [each for part in _parts(messages) for each in self._do(_messages(part))]

    def label(self, message_id: str, label: str, **more: Any) -> Sent:
        """Say what a message was (`more` as in `Label`), and return once that is durable. Raises Refused."""
        return self.label_many([Label(message_id, label, **more)])[0]

    def label_many(self, labels: Iterable[Label]) -> list[Sent]:
        """Append labels, a thousand in a request. Raises Refused: the requests before it are durable."""
        return [each for part in _parts(labels) for each in self._do(_labels(part))]

    def retract(self, message_id: str, label: str | None = None) -> Sent:
        """Take a message's labels back. Raises Refused."""
        return self.label_many([Label(message_id, label, op="retract")])[0]

    def explain(self, text: str, **more: Any) -> dict[str, Any]:
        """Return which words spoke for which label. Raises Refused."""
        return self._do(_json("POST", "/explain", {"text": text} | more))

    def get(self, path: str) -> dict[str, Any]:
        """Return what is at a path: /model, /history, /drift, /snapshots, /label-requests. Raises Refused."""
        return self._do(_json("GET", path))

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        """Return the client, which is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def _do(self, call: _Call[_T]) -> _T:
        for tried in range(1, self._tries + 1):
            outcome: httpx.Response | httpx.HTTPError
            try:
                outcome = self._http.request(call.method, call.path, content=call.body)
            except httpx.HTTPError as error:
                outcome = error
            wait_s = _wait_s(outcome, tried, self._tries)
            if wait_s is None:
                break
            time.sleep(wait_s)
        return _result(call, outcome)


class AsyncClient:
    """The same for asyncio: see Client for what each method does. One event loop."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        tries: int = 6,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._tries = tries
        self._http = httpx.AsyncClient(
            base_url=_checked(url),
            headers=_headers(key),
            timeout=timeout_s,
            transport=transport,
            mounts=_direct(_checked(url).host),
        )

    async def predict(self, text: str, *, after: After = None) -> Prediction:
        """Classify a text."""
        return (await self.predict_many([text], after=after))[0]

    async def predict_many(self, texts: Iterable[str], *, after: After = None) -> list[Prediction]:
        """Classify texts."""
        return [each for part in _parts(texts) for each in await self._do(_predict(part, after))]

    async def send(self, text: str, *, id: str | None = None, metadata: dict[str, Any] | None = None) -> Sent:
        """Append a message."""
        return (await self.send_many([Message(text, id, metadata=metadata)]))[0]

    async def send_many(self, messages: Iterable[str | Message]) -> list[Sent]:
        """Append messages."""
        return [each for part in _parts(messages) for each in await self._do(_messages(part))]

    async def label(self, message_id: str, label: str, **more: Any) -> Sent:
        """Say what a message was."""
        return (await self.label_many([Label(message_id, label, **more)]))[0]

    async def label_many(self, labels: Iterable[Label]) -> list[Sent]:
        """Append labels."""
        return [each for part in _parts(labels) for each in await self._do(_labels(part))]

    async def retract(self, message_id: str, label: str | None = None) -> Sent:
        """Take a message's labels back."""
        return (await self.label_many([Label(message_id, label, op="retract")]))[0]

    async def explain(self, text: str, **more: Any) -> dict[str, Any]:
        """Return which words spoke for which label."""
        return await self._do(_json("POST", "/explain", {"text": text} | more))

    async def get(self, path: str) -> dict[str, Any]:
        """Return what is at a path."""
        return await self._do(_json("GET", path))

    async def close(self) -> None:
        """Give back the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        """Return the client, which is closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    async def _do(self, call: _Call[_T]) -> _T:
        for tried in range(1, self._tries + 1):
            outcome: httpx.Response | httpx.HTTPError
            try:
                outcome = await self._http.request(call.method, call.path, content=call.body)
            except httpx.HTTPError as error:
                outcome = error
            wait_s = _wait_s(outcome, tried, self._tries)
            if wait_s is None:
                break
            await asyncio.sleep(wait_s)
        return _result(call, outcome)


# What is asked.


def _encoded(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:  # half of a character, which no UTF-8 can have
        return msgspec.json.encode(_whole(msgspec.to_builtins(body)))


def _whole(body: Any) -> Any:
    """Return a body whose texts have only whole characters: U+FFFD stands for half of one, as the API takes it."""
    if isinstance(body, str):
        return whole_characters(body)
    if isinstance(body, dict):
        return {_whole(name): _whole(value) for name, value in body.items()}
    return [_whole(each) for each in body] if isinstance(body, list) else body


def _predict(texts: Sequence[str], after: After) -> _Call[list[Prediction]]:
    body: dict[str, Any] = {"texts": texts}
    if after is not None:
        sent = [after] if isinstance(after, Sent) else after
        body["min_feedback_offset"] = [{"partition": each.partition, "offset": each.offset} for each in sent]
    return _Call("POST", "/predict", _predictions, _encoded(body))


def _messages(messages: Sequence[str | Message]) -> _Call[list[Sent]]:
    made = [Message(each) if isinstance(each, str) else each for each in messages]
    return _Call("POST", "/messages", _sent, _encoded([_with_id(each) for each in made]))


def _labels(labels: Sequence[Label]) -> _Call[list[Sent]]:
    return _Call("POST", "/feedback", _sent, _encoded([_with_id(each) for each in labels]))


def _json(method: str, path: str, body: Mapping[str, Any] | None = None) -> _Call[dict[str, Any]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    return _Call(method, path, decoder.decode, None if body is None else _encoded(body))


def _with_id(record: _T) -> _T:
    """Return a record with an id, by which it counts once however often it is sent."""
    if getattr(record, "id") is None:  # noqa: B009  (messages and labels have one)
        return msgspec.structs.replace(record, id=uuid.uuid4().hex)  # type: ignore[type-var]
    return record


def _parts(items: Iterable[_T]) -> Iterator[list[_T]]:
    left = iter(items)
    while part := list(islice(left, MAX_ITEMS)):
        yield part


def _checked(url: str) -> httpx.URL:
    try:
        checked = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"url: {url!r} is none: {error}") from None
    if checked.scheme not in {"http", "https"} or not checked.host:
        raise ConfigError(f"url: {url!r} must be like http://127.0.0.1:8000")
    return checked


def _direct(host: str) -> dict[str, None] | None:
    """Return what keeps httpx from sending requests to this machine through a proxy that the environment names."""
    return {f"all://{f'[{host}]' if ':' in host else host}": None} if _is_here(host) else None


def _is_here(host: str) -> bool:
    """Tell whether a host is this machine, which no proxy of the environment (`http_proxy`) can reach for us."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        mapped = address.ipv4_mapped if address.version == 6 else None
        return (mapped or address).is_loopback or address.is_unspecified
    return False


def _headers(key: str | None) -> dict[str, str]:
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


# What came back.


class _Predicted(msgspec.Struct):
    predictions: list[Prediction]
    model_version: str


class _Appended(msgspec.Struct):
    appended: list[Sent]


class _Error(msgspec.Struct):
    code: str
    error: str
    action: str = ""


def _predictions(content: bytes) -> list[Prediction]:
    answer = msgspec.json.decode(content, type=_Predicted)
    return [msgspec.structs.replace(each, model_version=answer.model_version) for each in answer.predictions]


def _sent(content: bytes) -> list[Sent]:
    return msgspec.json.decode(content, type=_Appended).appended


def _wait_s(outcome: httpx.Response | httpx.HTTPError, tried: int, tries: int) -> float | None:
    """Return how long to wait before the next try, or None where there is none.

    Between half of a time that doubles and the whole of it, so that many clients do not come back at once.
    """
    again = not isinstance(outcome, httpx.Response) or outcome.status_code in TRIED_AGAIN or _is_behind(outcome)
    if not again or tried >= tries:
        return None
    wait_s = min(FIRST_WAIT_S * 2.0**tried, MAX_WAIT_S) * random.uniform(0.5, 1)
    if isinstance(outcome, httpx.Response):
        asked = outcome.headers.get("retry-after", "")
        if asked.isascii() and asked.isdigit():
            wait_s = max(wait_s, min(float(asked), MAX_WAIT_S))
    return wait_s


def _is_behind(answer: httpx.Response) -> bool:
    """Tell whether the served model has not learned a label yet, for which a request waited its time."""
    return answer.status_code == 409 and b'"not-learned-yet"' in answer.content


def _result(call: _Call[_T], outcome: httpx.Response | httpx.HTTPError) -> _T:
    if not isinstance(outcome, httpx.Response):
        raise Refused(0, "unreachable", f"{call.path}: {outcome!r}", "Is `driftline up` running, and the URL right?")
    try:
        if outcome.is_success:
            return call.parse(outcome.content)
        detail = msgspec.json.decode(outcome.content, type=_Error)
    except ValueError:
        raise Refused(
            outcome.status_code, "unknown-answer", f"{outcome.url} does not answer as Driftline does", ""
        ) from None
    raise Refused(outcome.status_code, detail.code, detail.error, detail.action)
